package metadata

import "math"

const (
	agentName  = "clusterip"
	agentShort = "IP addresses shared by several active nodes"

	// A paragraph that begins with "$ " is a command.
	agentLong = `
Shares an IP address, or several of both versions, between several nodes that all answer at the same time, without a load balancer in
front of them. Every node has the address and one common link-layer (MAC) address, so that the switch delivers every packet for it to all of them. Each
node computes the same hash of the client's address (and ports, if you want) and answers only when the result is a bucket that it
owns; it drops the rest as soon as it arrives. So a client gets exactly one answer. When a node fails, Pacemaker gives its buckets
to the nodes that are left. All nodes and the router or clients must be in one layer-2 network, and the nodes need a kernel
with nf_tables.

Run it as a globally unique clone: each clone instance is one bucket, and clone-max is how many there are, from 1 to 1024. Take several
times as many buckets as nodes, so that the work of a lost node can be spread: 8 do well for two or three nodes. Set clone-node-max
to the same number, because its default of 1 leaves the buckets of a lost node without an owner. Set resource-stickiness=0, or
the buckets stay where they are when a node comes back. Change clone-max only while the resource is disabled: Pacemaker restarts
nothing then, and nodes that count differently answer twice, or not at all. For example:

$ pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 --disabled

$ pcs resource clone web-ip meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0

$ pcs resource enable web-ip

Fencing (STONITH) must be configured and tested. A node that the cluster has lost sight of may still answer for its buckets, and only
when it is known to be off may another node take them; without fencing a client can get two answers. Without a clone the
agent manages an ordinary address with a MAC address that moves along with it.`
)

// Parameters returns the table of parameters, in the order in which the documents show them.
func Parameters() []Parameter {
	return []Parameter{
		{
			Name:  "ip",
			Short: "The IP addresses that the nodes share",
			Long: `
The address that clients use, IPv4 or IPv6, without a prefix length; or several, separated by spaces or commas, of one version or both.
All are served by the same buckets, so that a client finds the same node at each address of a version; the first one names what the
agent makes in the kernel. They must be unicast addresses of the networks that the interface is connected to, and no other host and no other resource may
have them.

A node never chooses one as the source of its own connections: an IPv4 address is put on the interface with scope host and as a whole
one (/32), beside a connected route with a high metric; an IPv6 address as deprecated (RFC 4862).`,
			Kind:        Addresses,
			Example:     "192.168.10.3",
			Required:    true,
			UniqueGroup: "address",
		},
		{
			Name:  "cidr_netmask",
			Short: "Prefix length of the addresses",
			Long: `
How many bits of an address are the network's, such as 24 for the netmask 255.255.255.0. One number is for the IPv4 addresses, or for the
IPv6 addresses where there are no others; two are for IPv4 and IPv6. Give it only when the addresses shall have another prefix
length than the network of the interface, or the interface has no address of the node's own there: it then says which network the interface
is connected to.`,
			Kind:    PrefixLengths,
			Min:     1,
			Max:     128,
			Derived: "the prefix length of the route to the network that the interface is connected to, or a whole address's when there is none",
			Example: "24,64",
		},
		{
			Name:  "nic",
			Short: "Network interface for the address",
			Long: `
Name of the interface that gets the address and receives the packets for it, without an alias such as the :1 in eth0:1. Bonds, VLANs
and bridges are interfaces like others; their ports are not, because a bridge or bond takes the packets of its ports: name the bridge or bond.
Give it when several interfaces are connected to the same network of ip, or none is; then the interface must have this name on all nodes.`,
			Kind:    InterfaceName,
			Derived: "the interface that is directly connected to the network of ip, of several the one with the longest prefix; interfaces without ARP and ports of others do not count; two with the same prefix, or none, are an error",
			Example: "eth0",
		},
		{
			Name:  "backend",
			Short: "Part of the kernel that filters packets",
			Long: `
What the node uses to answer its own buckets only. Nodes with different backends can serve an address together, when hash_compat,
hash_seed, hashmode and mac are the same on all.`,
			Kind: Select,
			Options: []Option{
				{"auto", "nftables if the kernel has what it needs, else xt_cluster, else clusterip. What is running is not changed."},
				{"nftables", "nf_tables, as all kernels since 5.7 have it."},
				{"xt_cluster", "iptables' match cluster, for hosts whose firewall is iptables (of either kind); the nodes need the program iptables. For one IPv4 address, up to 32 buckets, hashmode=sourceip, mac_mode=multicast or igmp, and without services and hash_prefix4. It needs connection tracking for all packets to the address."},
				{"clusterip", "iptables' target CLUSTERIP, which kernels before 6.3 have; the nodes need the program iptables-legacy. For one IPv4 address, up to 16 buckets, mac_mode=multicast, and without services and hash_prefix4. It implies hash_compat=clusterip."},
			},
			Default: "auto",
			Example: "nftables",
		},
		{
			Name:  "mac_mode",
			Short: "Kind of the shared MAC address",
			Long: `
Which kind of MAC address the nodes share. It decides how switches and routers treat the packets for the address, and makes
no difference to the clients. In every mode the switch must not learn on which port the MAC address is: no node ever sends with it as the
source of a frame.`,
			Kind: Select,
			Options: []Option{
				{"multicast", "A locally administered group address, which switches send to all ports. Right for most networks and for virtual machines."},
				{"igmp", "The MAC address of an IP multicast group, which the nodes join; with addresses of both versions, one of each. Right for switches that snoop IGMP and MLD by MAC address: they deliver the packets to the nodes only, and flood nothing."},
				{"unicast", "A locally administered address that no switch knows, and which they therefore send to all ports. Right for routers that refuse a group address as the answer to an ARP request (RFC 1812, section 3.3.2), and where the switch is a Linux bridge with IGMP snooping and a querier, which looks for the group in the IP header and so delivers packets to a group MAC address to no node."},
			},
			Default: "multicast",
			Example: "igmp",
		},
		{
			Name:  "mac",
			Short: "The MAC address that the nodes share",
			Long: `
Give it when another one is in use already, or when an older cluster is replaced whose MAC address the routers know. It must suit
mac_mode: with multicast, a group address (the lowest bit of the first byte is 1); with igmp, for IPv4 one from 01:00:5e:7f:00:00 to
01:00:5e:7f:ff:ff, whose last two bytes are those of the group 239.255.x.y, or for IPv6 one that begins with 33:33, whose other four bytes
are the last of the group ff15::; with unicast, not a group address. No other host in the network may have it.

Without it, the MAC address is derived from the first address of ip, which is the same on all nodes and stays the same: with multicast
03:c1 and the four bytes of the address (03:c1:c0:a8:0a:03 for 192.168.10.3), with unicast 02:c1 and these (02:c1:c0:a8:0a:03), with igmp
01:00:5e:7f and the last two of them (01:00:5e:7f:0a:03, the group 239.255.10.3). For IPv6 the four bytes are a hash of the address,
and with igmp the MAC address is 33:33 and these.`,
			Kind:    MAC,
			Derived: "derived from ip and mac_mode",
			Example: "03:c1:c0:a8:0a:03",
		},
		{
			Name:  "hashmode",
			Short: "What of a packet decides which node answers",
			Long: `
The more goes into the hash, the more evenly the work is spread, and the less two connections of one client have in common.
Packets without ports, such as those of ping, and fragments are always spread by the client's address alone.`,
			Kind: Select,
			Options: []Option{
				{"sourceip", "The client's address. All connections of a client reach the same node, which services with sessions or with several connections for one task need."},
				{"sourceip-sourceport", "The client's address and port. The connections of one client are spread; right for many clients behind one address, such as a proxy or NAT."},
				{"sourceip-sourceport-destport", "The client's address and both ports. As before, and different services of a client may be on different nodes."},
			},
			Default: "sourceip",
			Example: "sourceip-sourceport",
		},
		{
			Name:  "hash_seed",
			Short: "Start value of the hash",
			Long: `
Another seed deals the clients to the buckets in another way. Give one when the busiest clients happen to fall into the same
bucket, or when old nodes have one: --hash-init of the CLUSTERIP target, 0 unless given, or --cluster-hash-seed of iptables' match
cluster. With hashmode=sourceip-sourceport-destport it cannot be 0.

Without it, the seed is derived from ip, which is the same on all nodes and stays the same.`,
			Kind:    Seed,
			Min:     0,
			Max:     math.MaxUint32,
			Derived: "derived from ip",
			Example: "0x5eed",
		},
		{
			Name:  "hash_compat",
			Short: "Whose hash the old nodes of the cluster use",
			Long: `
Only for clusters whose nodes are replaced one by one, so that old and new ones serve the address together. IPv6 is the same in both
cases.`,
			Kind: Select,
			Options: []Option{
				{"xt_cluster", "That of iptables' match cluster, which ocf:heartbeat:IPaddr2 uses on new kernels."},
				{"clusterip", "That of iptables' target CLUSTERIP, in each hashmode."},
			},
			Default: "xt_cluster",
			Example: "clusterip",
		},
		{
			Name:  "hash_prefix4",
			Short: "How many bits of an IPv4 client's address are hashed",
			Long: `
Only that many leading bits of the client's address decide. With 24, all clients of a network such as 192.0.2.0/24 reach the same
node, which services with sessions need when their clients come through a farm of proxies. The fewer bits, the less evenly
the work is spread.`,
			Kind:    Unsigned,
			Min:     1,
			Max:     32,
			Default: "32",
			Example: "24",
		},
		{
			Name:  "hash_prefix6",
			Short: "How many bits of an IPv6 client's address are hashed",
			Long: `
The same for IPv6. With 64, a client stays on one node although it changes its address in its own network (RFC 8981), and so do its
neighbours.`,
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
A list of what the nodes share, as protocol/port, protocol/first-last or icmp (ping), separated by spaces or commas: tcp/80 tcp/443
udp/53 tcp/5000-5100 icmp. Everything else that is sent to the addresses is answered by the node that has bucket 0, which is for
services that run but once, or keep their state on one node. Fragments, whose ports cannot be seen, count as listed. Without
it, everything is shared.`,
			Kind:    Services,
			Derived: "everything is shared",
			Example: "tcp/80 tcp/443 icmp",
		},
		{
			Name:  "drain",
			Short: "Seconds that connections are served after a move",
			Long: `
Above 0, a planned move of a bucket breaks no connection: the node that gives it up serves its established TCP and SCTP connections on,
until they end or that many seconds are over, while its new owner takes the new ones. That holds for all that Pacemaker does on its own
account and by order, a stop of the cluster software included, but not for a crash. What has no connections, such as UDP, moves at
once. After the time, what is left is reset.

The service itself must go on running on the former node for as long: keep it out of the group, or stop it gracefully and give its
stop operation the time. All packets are tracked by the kernel (conntrack), which costs some processing and memory; 0 costs nothing.
Needs backend=nftables. Set resource-stickiness=0, because moves no longer hurt.`,
			Kind:       Seconds,
			Min:        0,
			Max:        86400,
			Default:    "0",
			Example:    "600",
			Reloadable: true,
		},
		{
			Name:  "check_link",
			Short: "Monitor the link of the interface",
			Long: `
When true, monitor fails while the interface has no link, so that Pacemaker moves the buckets of a node whose cable or switch port
has failed. What is below the interface counts too: of a bridge, one of the ports that lead to the network (not taps, veths and dummies, which are
guests') must have a link; of a bond, one of its ports; of a VLAN, its parent. Set it to false when another resource watches the link, when
the interface does not report it, or when all clients are guests of this node.`,
			Kind:       Boolean,
			Default:    "true",
			Example:    "false",
			Reloadable: true,
		},
		{
			Name:  "arp_count",
			Short: "Announcements when the address appears on a node",
			Long: `
How many gratuitous ARP packets, or for IPv6 unsolicited neighbour advertisements, a node sends when its first bucket starts, so that
routers and clients which remember another MAC address for ip forget it. Several guard against loss. 0 sends none.`,
			Kind:       Unsigned,
			Min:        0,
			Max:        20,
			Default:    "3",
			Example:    "5",
			Reloadable: true,
		},
		{
			Name:  "arp_interval",
			Short: "Milliseconds between two announcements",
			Long: `
The time from one announcement to the next, in milliseconds. The start of the first bucket on a node takes the longer for it:
arp_interval times one less than arp_count, at most 9.5 seconds. Keep this well below the timeout of the start operation.`,
			Kind:       Milliseconds,
			Min:        1,
			Max:        500,
			Default:    "20",
			Example:    "100",
			Reloadable: true,
		},
	}
}
