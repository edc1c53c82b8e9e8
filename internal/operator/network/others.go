package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

func junos(r request) []section {
	unit := r.router("irb.%d")
	if name, number, ok := strings.Cut(unit, "."); ok {
		unit = name + " unit " + number
	} else {
		unit += " unit 0"
	}
	line := func(family, kind string) func(entry) []string {
		return func(e entry) []string {
			own, _ := r.routerAddress(e.address)
			return []string{fmt.Sprintf("set interfaces %s family %s address %s %s %s multicast-mac %s",
				unit, family, own, kind, e.address, e.mac)}
		}
	}
	sections := []section{staticEntries(r, line("inet", "arp"), line("inet6", "ndp"))}
	switch r.mode() {
	case clusterip.Multicast:
		sections = append(sections, section{
			title: "The group MAC reaches all ports",
			why: []string{
				"There is nothing to configure: Junos has no static MAC entry for several ports, and EX switches refuse one for a group MAC. " +
					"Frames for the MAC go to all ports of the VLAN. That works, but uses bandwidth of the other ports. Give the nodes a VLAN of their " +
					"own.",
			},
		})
	case clusterip.IGMP:
		sections = append(sections, junosSnooping(r))
	case clusterip.Unicast:
		sections = append(sections, section{
			title: "Unknown unicast reaches all ports",
			why: []string{whyFlood, whyNoUnicastEntry, "On EX switches without ELS, unknown-unicast-forwarding must not send the VLAN's unknown " +
				"unicast to another port."},
		})
	}
	kind := "no-multicast"
	if r.mode() == clusterip.Unicast {
		kind = "no-unknown-unicast"
	}
	blocked := obstacles(r)
	blocked.why = append(blocked.why, "EX4300 and similar switches have storm control on all ports by default, at 80 percent of the "+
		"bandwidth. To exempt these packets in the default profile:")
	blocked.unsure = []string{"set forwarding-options storm-control-profiles default all " + kind}
	return append(sections, blocked, checkSection("show arp no-resolve", "show igmp-snooping membership"))
}

func junosSnooping(r request) section {
	s := section{
		title: "Snooping and a querier",
		why:   []string{whyQuerier, whySnoopBy},
	}
	if r.has4() {
		s.commands = append(s.commands, "set protocols igmp-snooping vlan "+r.vlanName)
		if r.queriers.IPv4.IsValid() {
			s.commands = append(s.commands,
				fmt.Sprintf("set protocols igmp-snooping vlan %s l2-querier source-address %s", r.vlanName, r.queriers.IPv4))
		} else {
			s.why = append(s.why, "No IGMP querier is configured here: use PIM or IGMP on the VLAN's interface, or --querier with an unused IPv4 "+
				"address.")
		}
	}
	if r.has6() {
		s.commands = append(s.commands, "set protocols mld-snooping vlan "+r.vlanName)
		s.why = append(s.why, "A switch alone is not an MLD querier: MLD on the VLAN's interface makes the router one.")
		s.commands = append(s.commands, "set protocols mld interface "+r.router("irb.%d"))
		s.why = append(s.why, noCommandWith(r.queriers.IPv6)...)
	}
	return s
}

func routeros(r request) []section {
	static := section{title: "Static ARP and IPv6 neighbour entries of the router"}
	switch {
	case r.mode() == clusterip.Unicast:
		static.why = []string{whyNotStatic}
	case r.routerInterface == "":
		static.why = []string{whyStatic, "If this device is the router, give --router-interface: the interface with its own address in the " +
			"network."}
	default:
		static = staticEntries(r,
			func(e entry) []string {
				return []string{fmt.Sprintf("/ip/arp/add address=%s interface=%s mac-address=%s", e.address, r.routerInterface, upper(e.mac))}
			},
			func(e entry) []string {
				return []string{
					fmt.Sprintf("/ipv6/neighbor/add address=%s interface=%s mac-address=%s", e.address, r.routerInterface, upper(e.mac)),
				}
			})
		static.why = append(static.why, "Not verified: whether RouterOS accepts a group MAC there. The IPv6 command exists from 7.18 on.")
	}
	sections := []section{static}
	if r.mode() == clusterip.Unicast {
		sections = append(sections, section{
			title: reachesNodes, why: []string{whyFlood, whyNoUnicastEntry},
			commands: each(r.ports, "/interface/bridge/port/set [find interface=%s] unknown-unicast-flood=yes"),
		})
	} else {
		sections = append(sections, routerosGroups(r))
	}
	return append(sections, obstacles(r),
		checkSection("/interface/bridge/mdb/print", "/interface/bridge/host/print", "/ip/arp/print"))
}

func routerosGroups(r request) section {
	s := section{
		title: "Packets to the group MAC reach the nodes' ports",
		why: []string{
			whyUplink,
			"A bridge with IGMP snooping and a querier on the network may look for the group in the IP header, as Linux does. It then sends " +
				"packets with a unicast address in a frame for a group MAC to no node, but to the ports of multicast routers. So the nodes' ports " +
				"become such ports. They also receive all other multicast. The form of the commands is verified, but not whether RouterOS needs them.",
		},
		commands: each(r.ports, "/interface/bridge/port/set [find interface=%s] multicast-router=permanent"),
	}
	if r.mode() == clusterip.IGMP {
		s.why = append(s.why, "Snooping needs a querier, for MLD also an IPv6 address on the bridge.")
		s.commands = append(s.commands, fmt.Sprintf("/interface/bridge/set %s igmp-snooping=yes multicast-querier=yes", r.bridge))
		return s
	}
	vid := ""
	if r.vlan > 0 {
		vid = fmt.Sprintf(" vid=%d", r.vlan)
	}
	s.why = append(s.why, "If the bridge has IGMP snooping (igmp-snooping=yes), a static entry names the ports for the MAC, so that ARP "+
		"packets to it reach them. Before RouterOS 7.19 write ports= instead of interface=.")
	for _, mac := range r.layout.AllMACs() {
		s.unsure = append(s.unsure,
			fmt.Sprintf("/interface/bridge/mdb/add bridge=%s group=%s interface=%s%s", r.bridge, upper(mac), strings.Join(r.ports, ","), vid))
	}
	return s
}

// upper returns a MAC as RouterOS writes it.
func upper(mac clusterip.MAC) string { return strings.ToUpper(mac.String()) }

func linux(r request) []section {
	static := section{title: "Static ARP and IPv6 neighbour entries of a Linux router"}
	if r.mode() == clusterip.Unicast || r.routerInterface == "" {
		static.why = []string{"None is needed: Linux accepts any MAC from an ARP reply or neighbour advertisement."}
	} else {
		static.why = []string{"Not needed, but harmless: Linux accepts any MAC from an ARP reply or neighbour advertisement."}
		for _, e := range append(r.entries(netip.Addr.Is4), r.entries(netip.Addr.Is6)...) {
			static.commands = append(static.commands,
				fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", e.address, e.mac, r.routerInterface))
		}
	}
	sections := []section{static}
	if r.mode() == clusterip.Unicast {
		sections = append(sections, section{
			title: reachesNodes,
			why: []string{
				whyFlood, "Do not add the MAC to the bridge's table (bridge fdb add ... master): an entry names one port, and the other nodes " +
					"receive nothing.",
			},
			commands: each(r.ports, "bridge link set dev %s flood on"),
		})
	} else {
		sections = append(sections, section{
			title: "Packets to the group MAC reach the nodes' ports",
			why: []string{
				"A bridge with multicast snooping and a querier on the network looks for the group in the IP header, finds a unicast address there, " +
					"and sends the packet to the ports of multicast routers only. So the nodes' ports become such ports. They also receive all other " +
					"multicast. Without a querier the bridge sends to all ports. An entry in the bridge's multicast table (bridge mdb add) does not " +
					"help: it contains group addresses only.",
				whyUplink,
			},
			commands: slices.Concat(each(r.ports, "bridge link set dev %s mcast_router 2"), each(r.ports, "bridge link set dev %s mcast_flood on")),
		})
	}
	if r.mode() == clusterip.IGMP {
		sections = append(sections, section{
			title: "Snooping and a querier",
			why: []string{
				"With snooping the other ports do not receive these packets. The nodes join their groups for the other switches; to this bridge that " +
					"makes no difference. MLD queries need an IPv6 address on the bridge; a link-local one is enough.",
			},
			commands: []string{fmt.Sprintf("ip link set dev %s type bridge mcast_snooping 1 mcast_querier 1", r.bridge)},
		})
	}
	filters := section{
		title: obstaclesTitle,
		why: []string{
			"libvirt's filters no-arp-mac-spoofing, no-arp-spoofing and clean-traffic, and the IP filter of Proxmox' firewall (put the address " +
				"into the guest's ipfilter-net set): the nodes' ARP packets contain the shared MAC, and all nodes send from one address. A filter by " +
				"source MAC does no harm.",
		},
	}
	return append(sections, filters,
		checkSection("bridge -d link show", fmt.Sprintf("bridge fdb show br %s", r.bridge), fmt.Sprintf("bridge mdb show dev %s", r.bridge)))
}
