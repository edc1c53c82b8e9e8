package network

import (
	"fmt"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// general writes what any network needs, and for which vendors there are commands.
func (w *writer) general(r request) {
	w.paragraph("", fmt.Sprintf("%s is shared with mac_mode=%s, %s.", r.addresses(), r.mode(), r.macs()))
	w.list("What the network must do", needs(r))
	w.list("Virtual machines as nodes", hypervisors(r))
	w.lines("", "The commands", "", "    ocf-clusterip network --vendor NAME --ports ...", "")
	w.paragraph("", "NAME is one of "+strings.Join(Vendors(), ", ")+". Which mac_mode for which network: docs/network.md.")
}

func (w *writer) list(title string, items []string) {
	w.lines("", title, "")
	for _, item := range items {
		w.paragraph("- ", item)
	}
}

const routersNeedStatic = "Routers: a static ARP or IPv6 neighbour entry with the group MAC, where the router follows RFC 1812 section " +
	"3.3.2 and ignores ARP replies with a group MAC."

func needs(r request) []string {
	var lines []string
	switch r.mode() {
	case clusterip.Multicast:
		lines = []string{
			routersNeedStatic,
			"Switches: flood frames for an unknown group MAC to all ports of the VLAN, as they do by default; or send them to the nodes' ports " +
				"only, by a static entry that names all these ports.",
			"A switch with IGMP snooping by IP address, such as a Linux bridge with a querier, may send these packets to no port: use " +
				"mac_mode=unicast, or see --vendor.",
		}
	case clusterip.IGMP:
		lines = []string{
			routersNeedStatic,
			"Switches: IGMP snooping (and MLD snooping for IPv6) by MAC address, with a querier on the VLAN. The nodes join " + r.groups() + ".",
			"A switch with snooping by IP address finds a unicast address in these packets, and sends them to all ports or to none.",
		}
	case clusterip.Unicast:
		lines = []string{
			"Routers: nothing.",
			"Switches: flood frames for an unknown unicast MAC to all ports of the VLAN. No switchport block unicast or the like, and no static " +
				"MAC entry.",
			"Keep the VLAN small: all its ports receive the traffic.",
		}
	}
	return append(lines, whyStorm+"multicast or unknown unicast. Its limit must be above what the clients send.", whyInspection)
}

func hypervisors(r request) []string {
	vmware := "VMware vSwitch: leave forged transmits and MAC address changes on Reject. No node sends with the shared MAC or changes its " +
		"own. "
	hyperv := "Hyper-V: no setting is known to be needed for a group MAC. Not verified."
	if r.mode() == clusterip.Unicast {
		vmware += "Set promiscuous mode to Accept in the nodes' port group: otherwise a guest receives frames for its own MAC only."
		hyperv = "Hyper-V: Set-VMNetworkAdapter -VMName NAME -MacAddressSpoofing On is what Microsoft requires for NLB in unicast mode. " +
			"Not verified: whether it is needed here, where no node sends with the shared MAC."
	} else {
		vmware += "A guest receives frames for the groups in its MAC filter. Not verified: a distributed switch with multicast filtering mode " +
			"IGMP/MLD snooping; leave it on basic."
	}
	return []string{
		"Linux bridges, as of libvirt and Proxmox: --vendor linux-bridge, on the host. libvirt's filters no-arp-mac-spoofing, no-arp-spoofing " +
			"and clean-traffic drop the nodes' ARP.",
		"KVM with macvtap: trustGuestRxFilters='yes' at the interface, model virtio. Otherwise the host does not learn the guest's MAC filter.",
		vmware, hyperv,
	}
}
