package metadata

import "math"

const (
	agentName  = "clusterip"
	agentShort = "IP addresses shared by several active nodes"

	// A paragraph that begins with "$ " is a command.
	agentLong = `
Shares one or several IP addresses between nodes that all answer at the same time, without a load balancer in front of them. Every node
has the address and one common link-layer (MAC) address, so the switch delivers every packet for it to all of them. Each node computes the
same hash of the client's address (and of the ports, if you want). It answers only if the result is a bucket that it owns, and drops all
other packets as soon as they arrive. So a client gets exactly one answer. When a node fails, Pacemaker starts its buckets on the
remaining nodes. All nodes and the router or clients must be in one layer-2 network, and the nodes need a kernel with nf_tables.

Run it as a globally unique clone: each clone instance is one bucket, and clone-max is the number of buckets, from 1 to 1024. Use several
times as many buckets as nodes, so that the work of a failed node can be spread: 8 are good for two or three nodes. Set clone-node-max to
the same number, because its default of 1 leaves the buckets of a failed node unowned. Set resource-stickiness=0, or the buckets stay
where they are when a node comes back. Change clone-max only while the resource is disabled: Pacemaker does not restart the instances, and
nodes with different numbers answer a client twice, or not at all. For example:

$ pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 --disabled

$ pcs resource clone web-ip meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0

$ pcs resource enable web-ip

Fencing (STONITH) must be configured and tested. A lost node may still answer for its buckets, and another node may own them only when the
lost node is certainly off. Without fencing a client can get two answers. Without a clone, the agent manages an ordinary address whose MAC
address moves with it.`
)

// Parameters returns the table of parameters, in the order in which the documents show them.
func Parameters() []Parameter {
	return []Parameter{
		{
			Name:  "ip",
			Short: "The IP addresses that the nodes share",
			Long: `
The address that clients use, IPv4 or IPv6, without a prefix length; or several, separated by spaces or commas, of one IP version or both.
All have the same buckets, so that a client reaches the same node at each address of an IP version. The agent's tables are named after the
first one. They must be unicast addresses in networks of the interface, and no other host and no other resource may have them.

A node never chooses a shared address as the source of its own connections: the agent adds an IPv4 address to the interface as a /32 with
scope host, and a connected route with a high metric; an IPv6 address as deprecated (RFC 4862).`,
			Kind:        Addresses,
			Example:     "192.168.10.3",
			Required:    true,
			UniqueGroup: "address",
		},
		{
			Name:  "cidr_netmask",
			Short: "Prefix length of the addresses",
			Long: `
The number of network bits of an address, such as 24 for the netmask 255.255.255.0. One number is for the IPv4 addresses, or for the IPv6
addresses if there are no others; two are for IPv4 and IPv6. Give it only if the addresses need another prefix length than the network of
the interface, or if the interface has no address of the node's own in that network: then this value defines the network.`,
			Kind:    PrefixLengths,
			Min:     1,
			Max:     128,
			Derived: "the prefix length of the interface's connected route to the network, or 32 (IPv6: 128) if there is none",
			Example: "24,64",
		},
		{
			Name:  "nic",
			Short: "Network interface for the address",
			Long: `
The name of the interface that gets the address and receives the packets for it, without an alias such as the :1 in eth0:1. It may be a
bond, VLAN or bridge. It cannot be a port of a bridge or bond, which receives the packets of its ports: name the bridge or bond. Give it
if several interfaces are connected to the network of ip, or none is; then the interface must have this name on all nodes.`,
			Kind: InterfaceName,
			Derived: "the interface that is connected to the network of ip, of several the one with the longest prefix, except interfaces without " +
				"ARP and ports of others; two with the same prefix, or none, are an error",
			Example: "eth0",
		},
		{
			Name:  "backend",
			Short: "Part of the kernel that filters packets",
			Long: `
What filters the packets of other nodes' buckets. Nodes with different backends can serve an address together if hash_compat, hash_seed,
hashmode and mac are the same on all.`,
			Kind: Select,
			Options: []Option{
				{"auto", "nftables if the kernel supports it, else xt_cluster, else clusterip. A backend that is in use is not changed."},
				{"nftables", "nf_tables, as all kernels since 5.7 have it."},
				{"xt_cluster", "iptables' match cluster, for nodes whose firewall is iptables (of either kind); the nodes need the program iptables. " +
					"For one IPv4 address, up to 32 buckets, hashmode=sourceip, mac_mode=multicast or igmp, and without services and hash_prefix4. It " +
					"needs conntrack for all packets to the address."},
				{"clusterip", "iptables' target CLUSTERIP of kernels before 6.3; the nodes need the program iptables-legacy. For one IPv4 address, " +
					"up to 16 buckets, mac_mode=multicast, and without services and hash_prefix4. It implies hash_compat=clusterip."},
			},
			Default: "auto",
			Example: "nftables",
		},
		{
			Name:  "mac_mode",
			Short: "Kind of the shared MAC address",
			Long: `
The kind of the shared MAC address. It determines how switches and routers treat the packets for the address. In every mode no node sends
frames with it as source, so no switch learns a port for it.`,
			Kind: Select,
			Options: []Option{
				{"multicast", "A locally administered group address. Switches flood frames for it. Use it in most networks and for virtual machines."},
				{"igmp", "The MAC address of an IP multicast group, which the nodes join; with addresses of both IP versions, one of each. Use it " +
					"with switches that have IGMP and MLD snooping by MAC address: they deliver the frames to the nodes only."},
				{"unicast", "A locally administered unicast address. No switch learns it, so switches flood frames for it. Use it if a router " +
					"refuses a group address in an ARP reply (RFC 1812, section 3.3.2), or if the switch is a Linux bridge with IGMP snooping and a " +
					"querier: that looks for the group in the IP header, and delivers frames for a group MAC address to no node."},
			},
			Default: "multicast",
			Example: "igmp",
		},
		{
			Name:  "mac",
			Short: "The shared MAC address",
			Long: `
The shared MAC address is derived from the IP address. Give another one if a host uses the derived one, or if this resource replaces an
older cluster whose MAC address the routers have. It must suit mac_mode: with multicast, a group address (the lowest bit of the first byte
is 1); with igmp, for IPv4 one from 01:00:5e:7f:00:00 to 01:00:5e:7f:ff:ff, whose last two bytes are those of the group 239.255.x.y, or for
IPv6 one that begins with 33:33, whose other four bytes are the last of the group ff15::; with unicast, not a group address. No other host
in the network may have it.

Without it, the MAC address is derived from the first address of ip, which is the same on all nodes and stays the same: with multicast
03:c1 and the four bytes of the address (03:c1:c0:a8:0a:03 for 192.168.10.3), with unicast 02:c1 and these (02:c1:c0:a8:0a:03), with igmp
01:00:5e:7f and the last two of them (01:00:5e:7f:0a:03, the group 239.255.10.3). For IPv6 the four bytes are a hash of the address, and
with igmp the MAC address is 33:33 and these.`,
			Kind:    MAC,
			Derived: "derived from ip and mac_mode",
			Example: "03:c1:c0:a8:0a:03",
		},
		{
			Name:  "hashmode",
			Short: "The fields of a packet that are hashed",
			Long: `
With more fields in the hash the work is spread more evenly, but two connections of one client reach the same node less often. Packets
without ports, such as those of ping, and fragments are always hashed by the client's address alone.`,
			Kind: Select,
			Options: []Option{
				{"sourceip", "The client's address. All connections of a client reach the same node, which services with sessions or with several " +
					"connections for one task need."},
				{"sourceip-sourceport", "The client's address and port. The connections of one client are spread. Use it for many clients behind one " +
					"address, such as a proxy or NAT."},
				{"sourceip-sourceport-destport", "The client's address and both ports. As before, and a client may reach different services on " +
					"different nodes."},
			},
			Default: "sourceip",
			Example: "sourceip-sourceport",
		},
		{
			Name:  "hash_seed",
			Short: "Start value of the hash",
			Long: `
Another seed distributes the clients to the buckets in another way. Give one if the busiest clients happen to be in the same bucket, or if
old nodes have one: --hash-init of the CLUSTERIP target, 0 unless given, or --cluster-hash-seed of iptables' match cluster. With
hashmode=sourceip-sourceport-destport it cannot be 0.

Without it, the seed is derived from ip, which is the same on all nodes and stays the same.`,
			Kind:    Seed,
			Min:     0,
			Max:     math.MaxUint32,
			Derived: "derived from ip",
			Example: "0x5eed",
		},
		{
			Name:  "hash_compat",
			Short: "The hash of old nodes in the cluster",
			Long: `
Only for clusters whose nodes are replaced one by one, so that old and new ones serve the address together. It makes no difference to
IPv6.`,
			Kind: Select,
			Options: []Option{
				{"xt_cluster", "The hash of iptables' match cluster, which ocf:heartbeat:IPaddr2 uses on new kernels."},
				{"clusterip", "The hash of iptables' target CLUSTERIP, in each hashmode."},
			},
			Default: "xt_cluster",
			Example: "clusterip",
		},
		{
			Name:  "hash_prefix4",
			Short: "Number of bits of an IPv4 client's address that are hashed",
			Long: `
Only that many leading bits of the client's address are hashed. With 24, all clients of a network such as 192.0.2.0/24 reach the same
node. Services with sessions need that if their clients use a farm of proxies. With fewer bits the work is spread less evenly.`,
			Kind:    Unsigned,
			Min:     1,
			Max:     32,
			Default: "32",
			Example: "24",
		},
		{
			Name:  "hash_prefix6",
			Short: "Number of bits of an IPv6 client's address that are hashed",
			Long: `
The same for IPv6. With 64, a client stays on one node when it changes its address within its network (RFC 8981), like all clients of that
network.`,
			Kind:    Unsigned,
			Min:     1,
			Max:     128,
			Default: "128",
			Example: "64",
		},
		{
			Name:  "services",
			Short: "Services that share load",
			Long: `
A list of the services that all nodes share, as protocol/port, protocol/first-last or icmp (ping), separated by spaces or commas: tcp/80
tcp/443 udp/53 tcp/5000-5100 icmp. The owner of bucket 0 answers all other packets to the addresses: for services that run on one node
only. Fragments, whose ports are not visible, count as listed. Without the parameter, all services are shared.`,
			Kind:    Services,
			Derived: "all services are shared",
			Example: "tcp/80 tcp/443 icmp",
		},
		{
			Name:  "drain",
			Short: "Drain time: how long connections survive a move, in seconds",
			Long: `
Above 0, a planned move of a bucket breaks no connection: the old owner keeps serving its established TCP and SCTP connections until they
end, at most for that many seconds, and the new owner accepts new connections. That includes all moves by Pacemaker or an admin, and a
stop of the cluster software, but not a crash. Protocols without connections, such as UDP, move at once. When the time is over, the
remaining connections are reset.

The service itself must keep running on the old owner for that time: keep it out of the group, or stop it gracefully and give its stop
operation the time. conntrack must track all packets, which costs some processing and memory; 0 costs nothing. It needs backend=nftables.
Set resource-stickiness=0, because moves do no harm.`,
			Kind:       Seconds,
			Min:        0,
			Max:        86400,
			Default:    "0",
			Example:    "600",
			Reloadable: true,
		},
		{
			Name:  "linger",
			Short: "How long an old owner answers for a bucket until it is taken over, in seconds",
			Long: `
With drain above 0, a planned move loses no packet: after its stop, the old owner goes on answering everything for the bucket until the new
owner has taken it over, at most for that many seconds. The new owner asks for it with frames on the LAN (EtherType 0x88b5), which the old
owner's kernel confirms. Make it longer than Pacemaker needs from the first stop on one node to the last start on another: with many
buckets on a node, 10. When the whole resource is stopped, clients are answered for that much longer. If the old owner does not confirm,
the new one waits until the time is over, and answers only then. 0 switches it off: nobody answers from the stop to the start.

New TCP connections and datagrams are answered only while a local service listens for them.`,
			Kind:       Seconds,
			Min:        0,
			Max:        10,
			Default:    "5",
			Example:    "10",
			Reloadable: true,
		},
		{
			Name:  "early_drop",
			Short: "Where packets of other nodes' buckets are dropped early",
			Long: `
A small BPF program can drop most packets of other nodes' buckets before nftables and the rest of the kernel see them, which costs much
less. The tables of nftables still decide about everything that the program passes, so without it packets only cost more. It also
remembers connections (remember). It also drops them on a node that has lost its tables (nft flush ruleset). It needs backend=nftables.`,
			Kind: Select,
			Options: []Option{
				{
					"auto", "xdp if the interface's driver supports it, keeps the link meanwhile (veth, virtio_net), and VLAN tags are visible there; " +
						"else tc; else off. status and the log show why.",
				},
				{"off", "Only nftables drops packets."},
				{
					"xdp", "In the driver of the interface (native XDP), whose link may go down for seconds when the program is attached and " +
						"detached. Captures on the node (tcpdump) do not show the dropped packets.",
				},
				{"tc", "At the ingress hook of traffic control, which every interface has."},
			},
			Default:    "auto",
			Example:    "tc",
			Reloadable: true,
		},
		{
			Name:  "remember",
			Short: "How many TCP connections of clients a node remembers",
			Long: `
The BPF program of early_drop can remember the TCP connections of all clients, whichever node serves them. When a node has died, the new
owners of its buckets tell its clients at once that their connections are over, also those clients that have nothing to send and would
wait for an answer for minutes. The new owner does the same after a move without drain. Set it larger than the number of open connections
of all nodes together: if there are more, a node forgets those that have been quiet for the longest time. Memory is reserved for all
resources of the interface together, and the largest value counts: about 112 bytes for each connection, 7 MB for the default. 0 switches
it off for this resource. Without the program (early_drop=off, or a kernel that lacks it) nothing is remembered; status shows it.`,
			Kind:       Unsigned,
			Min:        0,
			Max:        1048576,
			Default:    "65536",
			Example:    "262144",
			Reloadable: true,
		},
		{
			Name:  "tell_rate",
			Short: "How many connections a second a node tells clients of",
			Long: `
A new owner sends each client whose connection is over a TCP segment of 40 bytes (IPv6: 60), the client answers with one, and the node with
a reset. This many a second are sent, and all of them again after a second, because some may be lost.`,
			Kind:       Unsigned,
			Min:        100,
			Max:        1000000,
			Default:    "10000",
			Example:    "2000",
			Reloadable: true,
		},
		{
			Name:  "check_link",
			Short: "Monitor the link of the interface",
			Long: `
If true, monitor fails while the interface has no link, so that Pacemaker moves the buckets of a node whose cable or switch port has
failed. The interfaces below it count too: of a bridge, at least one port to the network must have a link (not taps, veths and dummies,
which belong to guests); of a bond, one of its ports; of a VLAN, its parent. Set it to false if another resource monitors the link, if the
interface does not report it, or if all clients are guests of this node.`,
			Kind:       Boolean,
			Default:    "true",
			Example:    "false",
			Reloadable: true,
		},
		{
			Name:  "arp_count",
			Short: "Number of gratuitous ARP packets when the address appears on a node",
			Long: `
The number of gratuitous ARP packets, or for IPv6 unsolicited neighbour advertisements, that a node sends when its first bucket starts.
They replace another MAC address for ip that routers and clients may have. Several guard against loss. 0 sends none.`,
			Kind:       Unsigned,
			Min:        0,
			Max:        20,
			Default:    "3",
			Example:    "5",
			Reloadable: true,
		},
		{
			Name:  "arp_interval",
			Short: "Milliseconds between two gratuitous ARP packets",
			Long: `
The time from one gratuitous ARP packet to the next, in milliseconds. It makes the start of the first bucket on a node longer, by
(arp_count - 1) * arp_interval: at most 9.5 seconds. Keep that well below the timeout of the start operation.`,
			Kind:       Milliseconds,
			Min:        1,
			Max:        500,
			Default:    "20",
			Example:    "100",
			Reloadable: true,
		},
	}
}
