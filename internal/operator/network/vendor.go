package network

import (
	"net/netip"

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
	takes    []string // flags
	needs    func(clusterip.MACMode) map[string]string
	sections func(request) []section
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
	catalystLike := []string{"--ports", "--vlan", "--router-interface", "--querier"}
	always := func(flags map[string]string) func(clusterip.MACMode) map[string]string {
		return func(clusterip.MACMode) map[string]string { return flags }
	}
	return []vendor{
		{
			name: "ios", devices: "Cisco IOS and IOS XE", comment: "! ", empty: "!",
			enter: []string{"configure terminal"}, leave: []string{"end"},
			takes: catalystLike, needs: always(map[string]string{"--ports": needPorts + "Gi1/0/1,Gi1/0/2", "--vlan": needVLAN}),
			sections: ios,
		},
		{
			name: "nxos", devices: "Cisco NX-OS", comment: "! ", empty: "!",
			enter: []string{"configure terminal"}, leave: []string{"end"},
			takes: catalystLike, needs: always(map[string]string{"--ports": needPorts + "Ethernet1/1,Ethernet1/2", "--vlan": needVLAN}),
			sections: nxos,
		},
		{
			name: "eos", devices: "Arista EOS", comment: "! ", empty: "!",
			enter: []string{"configure terminal"}, leave: []string{"end"},
			takes: catalystLike, needs: always(map[string]string{"--ports": needPorts + "Ethernet1,Ethernet2", "--vlan": needVLAN}),
			sections: eos,
		},
		{
			name: "junos", devices: "Juniper Junos (EX, QFX with ELS, MX)", comment: "# ",
			intro:    []string{"For configuration mode: load set terminal, this text, Ctrl-D, commit."},
			takes:    []string{"--ports", "--vlan", "--vlan-name", "--router-interface", "--router-address", "--querier"},
			needs:    junosNeeds,
			sections: junos,
		},
		{
			name: "routeros", devices: "MikroTik RouterOS 7", comment: "# ",
			takes:    []string{"--ports", "--vlan", "--bridge", "--router-interface"},
			needs:    always(map[string]string{"--ports": needPorts + "ether2,ether3", "--bridge": needBridge + "bridge1"}),
			sections: routeros,
		},
		{
			name: linuxBridge, devices: "Linux bridge, as of KVM and Proxmox hosts too", comment: "# ",
			intro:    []string{"Lasts until the bridge is made anew: put it where the host's network is configured."},
			takes:    []string{"--ports", "--bridge", "--router-interface"},
			needs:    always(map[string]string{"--ports": needPorts + "vnet0,vnet1", "--bridge": needBridge + "br0"}),
			sections: linux,
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
