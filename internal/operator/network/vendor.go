package network

import (
	"net/netip"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// A vendor is a family of devices with one command line.
type vendor struct {
	name     string
	devices  string   // for people
	comment  string   // the prefix of a comment line
	empty    string   // a line between sections
	intro    []string // how to enter the commands
	enter    []string // commands before all others
	leave    []string // commands after all others
	uses     []use
	sections func(request) []section
}

// A use is an option that a vendor's commands need.
type use struct {
	flag    string
	modes   []clusterip.MACMode // nil: all of them
	ipv6    bool                // only where there is an IPv6 address
	instead string              // the flag that takes its place
	need    string              // what to give; empty: the option is not required
}

// by returns the modes as values of the parameter.
func (u use) by() string {
	var names []string
	for _, mode := range u.modes {
		names = append(names, string(mode))
	}
	return "mac_mode=" + strings.Join(names, " or ")
}

// use returns a vendor's use of a flag, if it has one.
func (v vendor) use(flag string) (use, bool) {
	i := slices.IndexFunc(v.uses, func(u use) bool { return u.flag == flag })
	if i < 0 {
		return use{}, false
	}
	return v.uses[i], true
}

const (
	linuxBridge = "linux-bridge"

	needPorts  = "the switch ports of the nodes, such as "
	needVLAN   = "the number of the address's VLAN"
	needBridge = "the name of the bridge, such as "
)

// Vendors returns the names of the vendors.
func Vendors() []string {
	var names []string
	for _, v := range vendors() {
		names = append(names, v.name)
	}
	return names
}

func vendors() []vendor {
	group := []clusterip.MACMode{clusterip.Multicast, clusterip.IGMP}
	multicast, igmp := group[:1], group[1:]
	querier := use{flag: "--querier", modes: igmp}
	return []vendor{
		{
			name: "ios", devices: "Cisco IOS and IOS XE", comment: "! ", empty: "!",
			enter: []string{"configure terminal"}, leave: []string{"end"},
			uses: []use{
				{flag: "--ports", need: needPorts + "Gi1/0/1,Gi1/0/2"},
				{flag: "--vlan", modes: group, need: needVLAN},
				{flag: "--router-interface", modes: group, ipv6: true},
				querier,
			},
			sections: ios,
		},
		{
			name: "nxos", devices: "Cisco NX-OS", comment: "! ", empty: "!",
			enter: []string{"configure terminal"}, leave: []string{"end"},
			uses: []use{
				{flag: "--ports", need: needPorts + "Ethernet1/1,Ethernet1/2"},
				{flag: "--vlan", need: needVLAN},
				{flag: "--router-interface", modes: group},
				querier,
			},
			sections: nxos,
		},
		{
			name: "eos", devices: "Arista EOS", comment: "! ", empty: "!",
			enter: []string{"configure terminal"}, leave: []string{"end"},
			uses: []use{
				{flag: "--ports", modes: multicast, need: needPorts + "Ethernet1,Ethernet2"},
				{flag: "--vlan", need: needVLAN},
				{flag: "--router-interface", modes: group, ipv6: true},
				querier,
			},
			sections: eos,
		},
		{
			name: "junos", devices: "Juniper Junos (EX, QFX with ELS, MX)", comment: "# ",
			intro: []string{"For configuration mode: load set terminal, this text, Ctrl-D, commit."},
			uses: []use{
				{flag: "--vlan", modes: group, instead: "--router-interface", need: needVLAN},
				{flag: "--vlan-name", modes: igmp, need: "the VLAN's name, which the snooping commands need"},
				{flag: "--router-interface", modes: group},
				{flag: "--router-address", modes: group, need: "the router's own address, such as 192.168.10.1/24; a static entry belongs to it"},
				querier,
			},
			sections: junos,
		},
		{
			name: "routeros", devices: "MikroTik RouterOS 7", comment: "# ",
			uses: []use{
				{flag: "--ports", need: needPorts + "ether2,ether3"},
				{flag: "--vlan", modes: multicast},
				{flag: "--bridge", modes: group, need: needBridge + "bridge1"},
				{flag: "--router-interface", modes: group},
			},
			sections: routeros,
		},
		{
			name: linuxBridge, devices: "Linux bridge, as of KVM and Proxmox hosts too", comment: "# ",
			intro: []string{"These commands last until the bridge is created again: put them into the host's network configuration."},
			uses: []use{
				{flag: "--ports", need: needPorts + "vnet0,vnet1"},
				{flag: "--bridge", need: needBridge + "br0"},
				{flag: "--router-interface", modes: group},
			},
			sections: linux,
		},
		{name: "freebsd", devices: "FreeBSD, pfSense and OPNsense as routers", comment: "# ", sections: freebsd},
		{
			name: "fortios", devices: "Fortinet FortiOS (FortiGate) as a router", comment: "# ",
			uses:     []use{{flag: "--router-interface", modes: group, need: "the router's interface in the network, such as port2"}},
			sections: fortios,
		},
	}
}

// Texts for all devices.
const (
	whyStatic = "RFC 1812 section 3.3.2: a router must not accept a group MAC for a unicast address from an ARP reply. " +
		"So each router of this network needs a static entry, also each of a redundant pair. Some routers treat IPv6 neighbours alike."
	whyNotStatic = "None is needed: a router accepts a unicast MAC from an ARP reply or neighbour advertisement. A static entry does no harm."
	whyGroupND   = "Not verified: whether this device accepts a group MAC for an IPv6 neighbour."
	whyPorts     = "Without it, frames for the MAC go to all ports of the VLAN. That works, but uses bandwidth of the other ports. With it, " +
		"name every port that must receive them, on each switch: the ports of the nodes, and those to other switches with nodes. Before you " +
		"move a node to another port, add that port."
	whyFlood = "No switch ever learns the MAC, because no node sends with it as source. So each switch must flood frames for it to all " +
		"ports of the VLAN, also to the ports to other switches with nodes. Keep the VLAN small: all its ports receive the traffic."
	whyNoUnicastEntry = "Do not add a static MAC entry: for a unicast MAC it names one port, and the other nodes receive nothing."
	whyQuerier        = "Without a querier a switch drops the nodes from the group after some minutes. One is enough for the VLAN. A " +
		"multicast router is a querier."
	whySnoopBy = "Not verified: whether the device looks for the group in the MAC or in the IP header. If it floods the frames, that " +
		"works. If no node receives anything, use mac_mode=unicast."
	whyUplink = "If clients are on this device, give with --ports also the ports to other switches with nodes."
	whyStorm  = "Storm control limits what arrives on a port. On the port where the clients' packets arrive, packets to the address " +
		"count as "
	whyInspection = "ARP inspection, IPv6 ND inspection and source guard: the nodes' ARP packets contain the shared MAC, but their " +
		"Ethernet source is the interface's own MAC, and all nodes send from one address. Trust the nodes' ports, or exempt them. Port " +
		"security by source MAC does no harm."

	groupToNodes   = "The group MAC goes to the nodes' ports only"
	reachesNodes   = "Unknown unicast reaches the nodes' ports"
	obstaclesTitle = "What must not stop the packets"
)

// obstacles lists what must not stop the packets, in any mode.
func obstacles(r request, trust ...string) section {
	counted := "multicast."
	if r.mode() == clusterip.Unicast {
		counted = "unknown unicast."
	}
	s := section{title: obstaclesTitle, why: []string{whyStorm + counted + " Its limit must be above what the clients send.", whyInspection}}
	if len(trust) > 0 {
		s.why = append(s.why, "Only where ARP inspection is on:")
		s.unsure = trust
	}
	return s
}

// staticEntries are the router's, needed where it follows RFC 1812.
func staticEntries(r request, arp func(entry) []string, neighbour func(entry) []string) section {
	s := section{title: "Static ARP and IPv6 neighbour entries of the router"}
	if r.mode() == clusterip.Unicast {
		s.why = []string{whyNotStatic}
		return s
	}
	s.why = []string{whyStatic}
	for _, e := range r.entries(netip.Addr.Is4) {
		s.commands = append(s.commands, arp(e)...)
	}
	for _, e := range r.entries(netip.Addr.Is6) {
		s.commands = append(s.commands, neighbour(e)...)
	}
	return s
}

func checkSection(commands ...string) section {
	return section{
		title: "To check whether it works",
		why: []string{
			"Every host of the network must have the same MAC for the address (ip neigh show, arp -a), and no switch may have learned that MAC.",
		},
		unsure: commands,
	}
}
