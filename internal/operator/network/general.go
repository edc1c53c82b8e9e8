package network

import (
	"fmt"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// general says what any network needs, and which vendors' commands are known.
func (t *text) general(r request) {
	t.paragraph("", fmt.Sprintf("%s is shared with mac_mode=%s, %s.", joined(r.layout.Addresses()), r.mode(), strings.Join(macs(r), ", ")))
	t.heading("What the network has to do")
	for _, line := range needs(r) {
		t.paragraph("- ", line)
	}
	t.heading("Virtual machines as nodes")
	for _, line := range hypervisors(r) {
		t.paragraph("- ", line)
	}
	t.heading("The commands")
	t.lines([]string{"    ocf-clusterip network --vendor NAME --ports ...", ""})
	t.paragraph("", "NAME is one of "+strings.Join(Vendors(), ", ")+". Which mac_mode for which network: docs/network.md.")
}

func (t *text) heading(title string) {
	t.lines([]string{"", title, ""})
}

func needs(r request) []string {
	var lines []string
	switch r.mode() {
	case clusterip.Multicast:
		lines = []string{
			"Routers: a static ARP or IPv6 neighbour entry with the group MAC, where the router obeys RFC 1812 section 3.3.2 and takes none from a reply.",
			"Switches: deliver a group MAC that they do not know to all ports of the VLAN, as they do by default; or to the nodes' ports, by a static entry that names them all.",
			"A switch that snoops IGMP by IP address, such as a Linux bridge with a querier, may send these packets to nobody: mac_mode=unicast, or see --vendor.",
		}
	case clusterip.IGMP:
		lines = []string{
			"Routers: a static ARP or IPv6 neighbour entry with the group MAC, where the router obeys RFC 1812 section 3.3.2 and takes none from a reply.",
			"Switches: snoop IGMP (and MLD for IPv6) by MAC, with a querier on the VLAN. The nodes report " + groups(r) + ".",
			"A switch that snoops by IP address finds a unicast address in these packets, and sends them to all ports or to nobody.",
		}
	case clusterip.Unicast:
		lines = []string{
			"Routers: nothing.",
			"Switches: deliver a unicast MAC that they do not know to all ports of the VLAN. No switchport block unicast or its like, and no static MAC entry.",
			"Keep the VLAN small: all its ports get the traffic.",
		}
	}
	return append(lines, whyStorm+"multicast or unknown unicast. Its limit must be above what the clients send.", whyInspection)
}

func groups(r request) string {
	var all []string
	for _, mac := range r.layout.AllMACs() {
		all = append(all, mac.MulticastGroup().String())
	}
	return strings.Join(all, ", ")
}

func hypervisors(r request) []string {
	unicast := r.mode() == clusterip.Unicast
	vmware := "VMware vSwitch: forged transmits and MAC address changes can stay on Reject: no node sends with the cluster MAC or changes its own. "
	macvtap := "KVM with macvtap: trustGuestRxFilters='yes' at the interface, model virtio, or the host does not learn which MACs the guest listens to."
	hyperv := "Hyper-V: Set-VMNetworkAdapter -VMName NAME -MacAddressSpoofing On is what Microsoft asks for NLB in unicast mode. "
	if unicast {
		vmware += "Promiscuous mode on Accept at the nodes' port group: else a guest hears its own MAC only."
		hyperv += "Not verified: whether it is needed where, as here, nothing is sent with the MAC."
	} else {
		vmware += "A guest hears the groups that it listens to. Not verified: a distributed switch whose multicast filtering is IGMP/MLD snooping; leave it on basic."
		hyperv = "Hyper-V: nothing is known that has to be set for a group MAC. Not verified."
	}
	return []string{
		"Linux bridges, as of libvirt and Proxmox: --vendor linux-bridge, on the host. libvirt's filters no-arp-mac-spoofing, no-arp-spoofing and clean-traffic drop the nodes' ARP.",
		macvtap, vmware, hyperv,
	}
}
