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
	devices  string   // what they are
	comment  string   // what a comment line begins with
	empty    string   // a line between sections
	intro    []string // how to get the commands in
	enter    []string // before all commands
	leave    []string // and behind them
	uses     []use
	sections func(request) []section
}

// A use is what a vendor's commands take a flag for.
type use struct {
	flag    string
	modes   []clusterip.MACMode // nil: all of them
	ipv6    bool                // only where there is an IPv6 address
	instead string              // the flag that takes its place
	need    string              // why the flag must be said; empty: it need not
}

// by are the modes by their names.
func (u use) by() string {
	var names []string
	for _, mode := range u.modes {
		names = append(names, string(mode))
	}
	return "mac_mode=" + strings.Join(names, " or ")
}

// use is what a flag is for, if it is for anything.
func (v vendor) use(flag string) (use, bool) {
	i := slices.IndexFunc(v.uses, func(u use) bool { return u.flag == flag })
	if i < 0 {
		return use{}, false
	}
	return v.uses[i], true
}

const (
	linuxBridge = "linux-bridge"

	needPorts  = "the ports of the switch that the nodes are plugged into, such as "
	needVLAN   = "the number of the VLAN that the address is in"
	needBridge = "the name of the bridge, such as "
)

// Vendors are their names.
func Vendors() []string {
	var names []string
	for _, v := range vendors() {
		names = append(names, v.name)
	}
	return names
}

func vendors() []vendor {
	group, igmp, multicast := []clusterip.MACMode{clusterip.Multicast, clusterip.IGMP}, []clusterip.MACMode{clusterip.IGMP}, []clusterip.MACMode{clusterip.Multicast}
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
				{flag: "--vlan-name", modes: igmp, need: "snooping names the VLAN, not its number"},
				{flag: "--router-interface", modes: group},
				{flag: "--router-address", modes: group, need: "a static entry stands below the router's own address, such as 192.168.10.1/24"},
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
			intro: []string{"Lasts until the bridge is made anew: put it where the host's network is configured."},
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
			uses:     []use{{flag: "--router-interface", modes: group, need: "a static entry names the router's interface in the network, such as port2"}},
			sections: fortios,
		},
	}
}

// What is the same on all devices.
const (
	whyStatic = "RFC 1812 section 3.3.2: a router must not believe an ARP reply that tells a group MAC for a unicast address. " +
		"So it is told by hand, on each router of this network, also on each of a redundant pair. Some treat IPv6 neighbours alike."
	whyNotStatic = "None is needed: a router believes an individual MAC from an ARP reply or neighbour advertisement. A static one would do no harm."
	whyGroupND   = "Not verified: whether this device takes a group MAC for an IPv6 neighbour."
	whyPorts     = "Without it, frames for the MAC go to all ports of the VLAN: that works, and costs the others bandwidth. With it, every port that must get " +
		"them is to be named, on each switch: those of the nodes, and those to other switches with nodes. Before a node is plugged in elsewhere, name its new port."
	whyFlood = "No switch ever learns the MAC, because no node sends with it as source: it is unknown, and must go to all ports of the VLAN. " +
		"On each switch, also for the ports to other switches with nodes. Keep the VLAN small: all its ports get the traffic."
	whyNoUnicastEntry = "Do not add a static MAC entry: for an individual MAC it names one port, and the other nodes hear nothing."
	whyQuerier        = "Without a querier a switch forgets the nodes' memberships after some minutes. One is enough for the VLAN; a multicast router is one."
	whyUplink         = "Name with --ports also those to other switches with nodes, if clients are here."
	whyStorm          = "Storm control counts what arrives: the port that matters is the one on which the clients' packets come in, where packets to the address count as "
	whyInspection     = "ARP inspection, IPv6 ND inspection and source guard: the nodes' ARP tells the cluster MAC in its payload and has the NIC's own as Ethernet " +
		"source, and all nodes send from one address. Trust the nodes' ports, or exempt them. Port security by source MAC is not in the way."
)

// obstacles are what must not be in the way, whatever the mode.
func obstacles(r request, trust ...string) section {
	counted := "multicast."
	if r.mode() == clusterip.Unicast {
		counted = "unknown unicast."
	}
	s := section{title: "What must not be in the way", why: []string{whyStorm + counted + " Its limit must be above what the clients send.", whyInspection}}
	if len(trust) > 0 {
		s.why = append(s.why, "Only where ARP inspection is on:")
		s.unsure = trust
	}
	return s
}

// staticEntries are the router's, where RFC 1812 bites.
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
		title:  "To see whether it works",
		why:    []string{"Every host of the network must know the same MAC for the address (ip neigh show, arp -a), and it must not stand in a table of learned MACs."},
		unsure: commands,
	}
}
