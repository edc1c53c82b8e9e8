package network

import (
	"fmt"
	"net/netip"

	"ocf-clusterip/internal/clusterip"
)

// whyRouter is for devices that route, but do not switch.
const whyRouter = "These commands are for the router alone. For the switches, call this command again with their --vendor."

func freebsd(r request) []section {
	if r.mode() == clusterip.Unicast {
		static := section{title: "ARP and IPv6 neighbours of the router", why: []string{whyNotStatic, whyRouter}}
		return []section{static, checkSection("arp -an", "ndp -an")}
	}
	var sections []section
	if r.has4() {
		sections = append(sections, section{
			title: "The router accepts a group MAC from ARP",
			why: []string{
				"By default FreeBSD drops ARP packets with a group MAC (RFC 1812 section 3.3.2), and logs that it is multicast. This setting allows " +
					"them on all interfaces; see arp(4). Put it into /etc/sysctl.conf, or with pfSense and OPNsense into System, Tunables, so that it " +
					"lasts.",
				whyRouter,
			},
			commands: []string{"sysctl net.link.ether.inet.allow_multicast=1"},
		})
		static := section{title: "Instead: static ARP entries", why: []string{"They are enough, for these addresses only:"}}
		for _, e := range r.entries(netip.Addr.Is4) {
			static.unsure = append(static.unsure, fmt.Sprintf("arp -s %s %s", e.address, e.mac))
		}
		sections = append(sections, static)
	}
	if r.has6() {
		neighbours := section{
			title: "IPv6 neighbours",
			why: []string{"Not verified: whether FreeBSD accepts a group MAC from a neighbour advertisement. If ndp -an does not show it, add " +
				"it:"},
		}
		for _, e := range r.entries(netip.Addr.Is6) {
			neighbours.unsure = append(neighbours.unsure, fmt.Sprintf("ndp -s %s %s", e.address, e.mac))
		}
		sections = append(sections, neighbours)
	}
	return append(sections, checkSection("arp -an", "ndp -an"))
}

func fortios(r request) []section {
	table := func(name, address string) func(entry) []string {
		return func(e entry) []string {
			return []string{
				"config system " + name,
				"    edit 0",
				"        set interface " + r.routerInterface,
				fmt.Sprintf("        set %s %s", address, e.address),
				fmt.Sprintf("        set mac %s", e.mac),
				"    next",
				"end",
			}
		}
	}
	static := staticEntries(r, table("arp-table", "ip"), table("ipv6-neighbor-cache", "ipv6"))
	if r.mode() != clusterip.Unicast {
		static.why = append(static.why,
			"The form of these commands is verified. Not verified: whether FortiOS accepts a group MAC in them, or from an ARP reply. edit 0 uses "+
				"the next free number.",
			"A FortiGate in transparent mode between clients and nodes passes frames for a group MAC without a session (Fortinet: Transparent "+
				"mode Layer 2 Ethernet issues with 3rd party network load-balancing clusters): use mac_mode=unicast there.")
	}
	static.why = append(static.why, whyRouter)
	return []section{static, checkSection("get system arp", "diagnose ipv6 neighbor-cache list")}
}
