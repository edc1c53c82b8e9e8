package network

import (
	"fmt"
	"net/netip"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

func ios(r request) []section {
	static := arpaEntries(r)
	if r.has6() && r.mode() != clusterip.Unicast {
		static.why = append(static.why, whyGroupND)
	}
	sections := []section{static}
	switch r.mode() {
	case clusterip.Multicast:
		sections = append(sections, section{title: groupToNodes, why: []string{whyPorts}, commands: staticMACs(r)})
	case clusterip.IGMP:
		sections = append(sections, iosSnooping(r), section{
			title: "Switches that snoop by IP address",
			why: []string{
				"Catalyst 9200 to 9600 look for the group in the IP header, find a unicast address there, and flood the frames (Cisco: " +
					"Troubleshoot IGMP for NLB Deployments on Catalyst 9000). There the entry below limits the frames to the nodes' ports. " +
					"Classic Catalysts (6500) snoop by MAC and need none.", whyPorts,
			},
			unsure: staticMACs(r),
		})
	case clusterip.Unicast:
		sections = append(sections, noBlock(r))
	}
	trust := perPort(r, "ip arp inspection trust")
	return append(sections, obstacles(r, trust...), checkSection(append(showARP(r), "show mac address-table static")...))
}

// arpaEntries are the router's static entries as IOS and EOS write them.
func arpaEntries(r request) section {
	router := r.router("Vlan%d")
	return staticEntries(r,
		func(e entry) []string { return []string{fmt.Sprintf("arp %s %s arpa", e.address, dotted(e.mac))} },
		func(e entry) []string {
			return []string{fmt.Sprintf("ipv6 neighbor %s %s %s", e.address, router, dotted(e.mac))}
		})
}

// staticMACs are entries for the MACs on the nodes' ports as IOS and EOS write them.
func staticMACs(r request) []string {
	var entries []string
	for _, mac := range r.layout.AllMACs() {
		entries = append(entries,
			fmt.Sprintf("mac address-table static %s vlan %d interface %s", dotted(mac), r.vlan, strings.Join(r.ports, " ")))
	}
	return entries
}

func iosSnooping(r request) section {
	s := section{title: "Snooping and a querier", why: []string{whyQuerier}}
	if r.has4() {
		s.commands = append(s.commands, "ip igmp snooping", fmt.Sprintf("ip igmp snooping vlan %d", r.vlan))
		if r.queriers.IPv4.IsValid() {
			s.commands = append(s.commands, fmt.Sprintf("ip igmp snooping vlan %d querier address %s", r.vlan, r.queriers.IPv4))
		}
		s.commands = append(s.commands, "ip igmp snooping querier")
	}
	if r.has6() {
		s.commands = append(s.commands, "ipv6 mld snooping", fmt.Sprintf("ipv6 mld snooping vlan %d", r.vlan))
		if r.queriers.IPv6.IsValid() {
			s.commands = append(s.commands, fmt.Sprintf("ipv6 mld snooping querier address %s", r.queriers.IPv6))
		}
		s.commands = append(s.commands, "ipv6 mld snooping querier")
	}
	return s
}

func nxos(r request) []section {
	router := r.router("Vlan%d")
	static := staticEntries(r,
		func(e entry) []string { return []string{fmt.Sprintf("  ip arp %s %s", e.address, dotted(e.mac))} },
		func(entry) []string { return nil })
	if len(static.commands) > 0 {
		static.commands = append([]string{"interface " + router}, append(static.commands, "exit")...)
	}
	if r.mode() != clusterip.Unicast {
		static.why = append(static.why, "A Nexus 9000 routes to a group MAC from NX-OS 9.2(1) on.")
		if r.has6() {
			static.why = append(static.why, "Not verified, so written as comments: the IPv6 entries.")
			static.unsure = append(static.unsure, "interface "+router)
			for _, e := range r.entries(netip.Addr.Is6) {
				static.unsure = append(static.unsure, fmt.Sprintf("  ipv6 neighbor %s %s", e.address, dotted(e.mac)))
			}
		}
	}
	sections := []section{static}
	switch r.mode() {
	case clusterip.Multicast:
		ports := section{
			title: groupToNodes,
			why: []string{
				whyPorts, "Not verified, so written as comments: the guides describe the feature (static multicast MAC address); the form of the " +
					"command could not be verified.",
			},
		}
		for _, mac := range r.layout.AllMACs() {
			for _, port := range r.ports {
				ports.unsure = append(ports.unsure, fmt.Sprintf("mac address-table multicast %s vlan %d interface %s", dotted(mac), r.vlan, port))
			}
		}
		sections = append(sections, ports)
	case clusterip.IGMP:
		sections = append(sections, nxosSnooping(r))
	case clusterip.Unicast:
		flood := noBlock(r)
		flood.why = append(flood.why, "A Nexus 9000 that routes to the address itself needs a static MAC entry in this mode (Cisco: Configure "+
			"Nexus 9000 Unicast NLB), which names one port: unless all nodes are behind that port, use mac_mode=multicast there.")
		sections = append(sections, flood)
	}
	return append(sections, obstacles(r, perPort(r, "ip arp inspection trust")...),
		checkSection(append(showARP(r), "show mac address-table vlan "+fmt.Sprint(r.vlan))...))
}

func nxosSnooping(r request) section {
	s := section{
		title: "Snooping by MAC, and a querier",
		why: []string{
			whyQuerier,
			"By default NX-OS looks for the group in the IP header, and finds a unicast address there. layer-2 multicast lookup mac changes that, " +
				"where the device has it (Nexus 7000 from 5.2, Nexus 9000).",
		},
	}
	s.commands = []string{fmt.Sprintf("vlan configuration %d", r.vlan), "  layer-2 multicast lookup mac"}
	switch {
	case r.queriers.IPv4.IsValid():
		s.commands = append(s.commands, fmt.Sprintf("  ip igmp snooping querier %s", r.queriers.IPv4))
	case r.has4():
		s.why = append(s.why, "No querier is configured here: use PIM on the VLAN's interface, or --querier with an unused IPv4 address.")
	}
	s.commands = append(s.commands, "exit")
	if r.has6() {
		s.why = append(s.why,
			"Not verified: MLD snooping on NX-OS. Without it frames for "+r.layout.MACs.IPv6.String()+" should go to all ports of the VLAN, which "+
				"works.")
		s.why = append(s.why, noCommandWith(r.queriers.IPv6)...)
	}
	return s
}

func eos(r request) []section {
	static := arpaEntries(r)
	if r.mode() != clusterip.Unicast {
		static.why = append(static.why, "The form of these commands is verified. Not verified: whether this device accepts a group MAC in them.")
	}
	sections := []section{static}
	switch r.mode() {
	case clusterip.Multicast:
		sections = append(sections, section{
			title:  groupToNodes,
			why:    []string{whyPorts, "The command is verified with one interface only, so it is written as a comment."},
			unsure: staticMACs(r),
		})
	case clusterip.IGMP:
		sections = append(sections, eosSnooping(r))
	case clusterip.Unicast:
		sections = append(sections, section{
			title: "Unknown unicast reaches all ports",
			why: []string{whyFlood, whyNoUnicastEntry, "There is nothing to configure: no setting of EOS is known that blocks unknown unicast " +
				"on a port."},
		})
	}
	return append(sections, obstacles(r), checkSection("show arp", fmt.Sprintf("show mac address-table vlan %d", r.vlan)))
}

func eosSnooping(r request) section {
	s := section{
		title: "Snooping and a querier",
		why:   []string{whyQuerier, whySnoopBy},
	}
	if r.has4() {
		s.commands = append(s.commands, fmt.Sprintf("ip igmp snooping vlan %d", r.vlan))
		if r.queriers.IPv4.IsValid() {
			s.commands = append(s.commands, fmt.Sprintf("ip igmp snooping vlan %d querier address %s", r.vlan, r.queriers.IPv4))
		}
		s.commands = append(s.commands, fmt.Sprintf("ip igmp snooping vlan %d querier", r.vlan))
	}
	if r.has6() {
		s.commands = append(s.commands, "mld snooping", fmt.Sprintf("   vlan %d", r.vlan), "exit")
		s.why = append(s.why, "Not verified: how the device becomes an MLD querier. An IPv6 multicast router on the VLAN is one.")
		s.why = append(s.why, noCommandWith(r.queriers.IPv6)...)
	}
	return s
}

// noCommandWith returns a remark on a querier's address that no command needs.
func noCommandWith(querier netip.Addr) []string {
	if !querier.IsValid() {
		return nil
	}
	return []string{fmt.Sprintf("So no command here contains %s.", querier)}
}

// noBlock allows unknown unicast on the nodes' ports.
func noBlock(r request) section {
	return section{title: reachesNodes, why: []string{whyFlood, whyNoUnicastEntry}, commands: perPort(r, "no switchport block unicast")}
}

func perPort(r request, command string) []string {
	var commands []string
	for _, port := range r.ports {
		commands = append(commands, "interface "+port, "  "+command)
	}
	return append(commands, "exit")
}

func showARP(r request) []string {
	var commands []string
	for _, e := range r.entries(netip.Addr.Is4) {
		commands = append(commands, fmt.Sprintf("show ip arp %s", e.address))
	}
	return commands
}
