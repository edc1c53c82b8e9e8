package clusterip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// NIC is a network interface.
type NIC struct {
	Index    int
	Name     string
	MAC      MAC
	Up       bool // administratively (IFF_UP)
	Running  bool // has a carrier (IFF_RUNNING)
	Loopback bool
	ARP      bool   // an Ethernet interface that does ARP
	NoIPv6   bool   // IPv6 is disabled on it; only observed for IPv6 addresses
	Kind     string // "bridge", "bond", "vlan", …; "device" is hardware
	Master   int    // the index of the interface that it is a port of; 0: none
	Parent   int    // the index of the interface that it is on top of, as a VLAN is; 0: none
	BondMode string // of a bond: "balance-alb", …
	Asks     bool   // a bond that monitors its links with ARP requests (arp_interval)
	Verifies bool   // and counts only the answers to them (arp_validate, of the active port)
	Snoops   bool   // a bridge with IGMP and MLD snooping that does not receive all groups' frames itself (mcast_router 2 is not set)
	XDP      bool   // an XDP program is attached
	// ARPFilter: it answers only ARP requests from senders to which the node has a route through it (arp_filter).
	ARPFilter bool
	// CallsIPTables: packets at the ports of this bridge pass the prerouting hooks of a family (br_netfilter).
	CallsIPTables PerFamily[bool]
}

// vrfKind is the kind of a VRF, which is the master of its members.
const vrfKind = "vrf"

// master returns the interface that an interface is a port of, and that receives all its packets: a bridge, a bond, a team; not a VRF.
func (s State) master(nic NIC) (NIC, bool) {
	master, ok := s.NICAt(nic.Master)
	return master, ok && master.Kind != vrfKind
}

// vrf returns the VRF that an interface is, or is a member of.
func (s State) vrf(nic NIC) (NIC, bool) {
	if nic.Kind == vrfKind {
		return nic, true
	}
	master, ok := s.NICAt(nic.Master)
	return master, ok && master.Kind == vrfKind
}

// Usable reports whether clients can reach an address on an interface.
func (s State) Usable(nic NIC) bool {
	_, isPort := s.master(nic)
	_, isInVRF := s.vrf(nic)
	return nic.ARP && !nic.Loopback && !isPort && !isInVRF
}

// VRFFault returns why the address cannot be in a VRF, and what to do; empty if the interface is in none. A VRF has routing tables of its
// own: the kernel does not use them for path MTU discovery, nor this agent for IPv6 addresses. And packets arrive a second time, at the
// VRF's interface.
func (s State) VRFFault(nic NIC) string {
	vrf, ok := s.vrf(nic)
	switch {
	case !ok:
		return ""
	case vrf.Index == nic.Index:
		return fmt.Sprintf("parameter nic: %s is a VRF, in which the address is not supported: path MTU discovery, IPv6 and the node's own "+
			"connections to it would fail; "+
			"choose an interface that is a member of none", vrf.Name)
	default:
		return fmt.Sprintf("parameter nic: %s is a member of the VRF %s, in which the address is not supported: path MTU discovery, IPv6 and "+
			"the node's own connections to it would fail; "+
			"take it out (ip link set %s nomaster), or choose an interface that is a member of none", nic.Name, vrf.Name, nic.Name)
	}
}

// PortFault returns why a port of another interface cannot have the address, and what to do; empty if the interface is no port.
func (s State) PortFault(nic NIC) string {
	master, isPort := s.master(nic)
	if !isPort {
		return ""
	}
	do := fmt.Sprintf("set nic=%s, which needs the node's own address in this network", s.Top(nic).Name)
	if master.Kind == "openvswitch" { // addresses are on its bridges, which are interfaces of their own
		do = fmt.Sprintf("set nic to the internal port of its bridge (ovs-vsctl iface-to-br %s)", nic.Name)
	}
	return fmt.Sprintf(
		"parameter nic: %s is a port of %s (%s), which receives its packets, so that no client reaches the address; %s", nic.Name, master.Name,
		master.Kind, do,
	)
}

// LinkFault returns why no packet can pass an interface; empty if no reason is known. It includes the interfaces below: a bridge has a
// carrier as long as any port has one, also a guest's, and a bond without link monitoring always has one.
func (s State) LinkFault(nic NIC) string {
	switch {
	case !nic.Up:
		return fmt.Sprintf("%s is down (ip link set %s up)", nic.Name, nic.Name)
	case !nic.Running:
		return fmt.Sprintf("%s has no carrier; look at its cable and switch port", nic.Name)
	}
	if parent, ok := s.NICAt(nic.Parent); ok {
		return s.LinkFault(parent)
	}
	ports := s.outwardPorts(nic)
	passes := func(port NIC) bool { return s.LinkFault(port) == "" }
	if len(ports) == 0 || slices.ContainsFunc(ports, passes) {
		return ""
	}
	return fmt.Sprintf("%s has a carrier, but none of its ports that lead to the network lets packets through: %s", nic.Name, names(ports))
}

// GuestFault returns why guests of this node's bridge do not reach other nodes' buckets with a unicast shared MAC; empty if they do. The
// MAC is then one of the bridge's own: it receives frames for it, and forwards them to no port (br_handle_frame_finish in
// net/bridge/br_input.c).
func (s State) GuestFault(nic NIC) string {
	ports := slices.DeleteFunc(slices.Clone(s.NICs), func(port NIC) bool { return port.Master != nic.Index })
	if nic.Kind != "bridge" || len(ports) < 2 { //nolint:mnd // with one port there is nothing to forward
		return ""
	}
	return fmt.Sprintf("%s is a bridge with several ports (%s): hosts behind one of them, such as virtual machines, reach only this node's "+
		"buckets, and nodes behind one receive nothing, "+
		"because the bridge does not forward frames for a unicast shared MAC", nic.Name, names(ports))
}

// TranslationFault returns why DNAT rules are wrong for addresses on this interface; empty if they are not. On a bridge that calls
// iptables, packets pass prerouting at the port, before the bridge's own ingress hook drops those of foreign buckets.
func (s State) TranslationFault(nic NIC, has func(isOfFamily func(netip.Addr) bool) bool) (bridge NIC, why string) {
	bridge, _ = s.bridgeOf(nic)
	calls := bridge.CallsIPTables.IPv4 && has(netip.Addr.Is4) || bridge.CallsIPTables.IPv6 && has(netip.Addr.Is6)
	if !calls {
		return NIC{}, ""
	}
	return bridge, fmt.Sprintf("%s is a bridge that calls iptables for its ports (br_netfilter): what a rule translates there (DNAT, as for "+
		"a container's published port) "+
		"is answered by every node, whoever owns its bucket", bridge.Name)
}

// UnicastFault returns why the bonds below the interface of a layout cannot have its unicast shared MAC; empty if they can, or if it has
// none.
//
// In balance-alb each port delivers unicast frames (bond_should_deliver_exact_match in drivers/net/bonding/bond_main.c), and a switch
// floods those for an unknown MAC. A bond's ARP monitor uses the first address, which is a shared one (bond_confirm_addr), so the answers
// go to the shared MAC; with arp_validate the bond ignores answers to another MAC than its own (bond_arp_rcv).
func (s State) UnicastFault(layout Layout) string {
	nic, ok := s.NICAt(layout.NICIndex)
	if !ok || layout.MACMode != Unicast {
		return ""
	}
	for _, bond := range append([]NIC{nic}, s.below(nic)...) {
		switch {
		case bond.BondMode == "balance-alb":
			return fmt.Sprintf("parameter mac_mode=unicast: %s is a bond in mode balance-alb, whose ports each deliver a frame to the shared MAC, "+
				"so that packets arrive twice; "+
				"set mac_mode=multicast or igmp, or give the bond mode active-backup, balance-tlb or 802.3ad", bond.Name)
		case bond.Asks && bond.Verifies && layout.Has(netip.Addr.Is4):
			return fmt.Sprintf("parameter mac_mode=unicast: %s validates the answers to its ARP requests (arp_validate), and would ignore those "+
				"to the shared MAC, so that it loses its link; "+
				"set mac_mode=multicast or igmp, or in the bond's configuration miimon in place of arp_interval, or arp_validate=none", bond.Name)
		}
	}
	return ""
}

// SnoopFault returns why frames to a group MAC may not reach an interface of this node; empty if they do. A snooping bridge with a querier
// takes the group from the IP header (br_mdb_entry_skb_get in net/bridge/br_multicast.c): a unicast packet has none, so it goes to
// multicast router ports only, and to the bridge itself if that is one.
func (s State) SnoopFault(nic NIC) (bridge NIC, why string) {
	for _, lower := range append([]NIC{nic}, s.below(nic)...) {
		if lower.Snoops {
			return lower, fmt.Sprintf(
				"%s is a bridge with IGMP snooping: as soon as there is a querier on the network, the bridge receives no packet for a group MAC",
				lower.Name,
			)
		}
	}
	return NIC{}, ""
}

// ARPFilterFault returns why an interface may not answer ARP requests for its addresses; empty if it does. With arp_filter it ignores
// clients to which the route leads through another interface (arp_filter in net/ipv4/arp.c).
func (s State) ARPFilterFault(nic NIC) string {
	if !nic.ARPFilter {
		return ""
	}
	for _, route := range s.Connected {
		if other, ok := s.NICAt(route.NICIndex); ok && other.Index != nic.Index && other.Up && route.Prefix.Addr().Is4() {
			return fmt.Sprintf("arp_filter is set on %s, and %s is in the network of the address too: clients that the node would answer through "+
				"it get no answer to their ARP requests; "+
				"set net.ipv4.conf.all.arp_filter and net.ipv4.conf.%s.arp_filter to 0", nic.Name, other.Name, nic.Name)
		}
	}
	return ""
}

// Top returns the interface that receives an interface's packets in the end, such as the bridge that its bond is a port of. If it is no
// port, it is the interface itself.
func (s State) Top(nic NIC) NIC {
	for master, isPort := s.master(nic); isPort; master, isPort = s.master(nic) {
		nic = master
	}
	return nic
}

// bridgeOf returns the bridge that an interface is or is on top of, if any.
func (s State) bridgeOf(nic NIC) (NIC, bool) {
	for nic.Kind != "bridge" {
		parent, ok := s.NICAt(nic.Parent)
		if !ok {
			return NIC{}, false
		}
		nic = parent
	}
	return nic, true
}

// below returns the interfaces through which an interface's frames arrive: ports of a bridge or bond, the parent of a VLAN, and those below
// them.
func (s State) below(nic NIC) []NIC {
	var all []NIC
	for _, other := range s.NICs {
		if other.Master == nic.Index || nic.Parent == other.Index {
			all = append(append(all, other), s.below(other)...)
		}
	}
	return all
}

// askingPorts returns the indexes of the ports below an interface through which a bond's ARP monitor sends its requests.
func (s State) askingPorts(nic NIC) []int {
	var ports []int
	for _, port := range s.below(nic) {
		if bond, isPort := s.master(port); isPort && bond.Asks {
			ports = append(ports, port.Index)
		}
	}
	slices.Sort(ports)
	return ports
}

// outwardPorts returns the ports of a bridge or bond through which packets may arrive from the network: not a bridge's ports of virtual
// machines (tap), containers (veth), and dummy interfaces.
func (s State) outwardPorts(nic NIC) []NIC {
	inward := []string{"tun", "veth", "dummy"}
	return slices.DeleteFunc(slices.Clone(s.NICs), func(port NIC) bool {
		return port.Master != nic.Index || nic.Kind == vrfKind || nic.Kind == "bridge" && slices.Contains(inward, port.Kind)
	})
}

// LeadsOut reports whether other hosts may be reached through an interface: not through a bridge with only guests and containers as ports.
func (s State) LeadsOut(nic NIC) bool { return nic.Kind != "bridge" || len(s.outwardPorts(nic)) > 0 }

// vrfs returns a hint at the VRFs of the node, whose members are no candidates.
func (s State) vrfs() string {
	isNone := func(nic NIC) bool { return nic.Kind != vrfKind }
	all := slices.DeleteFunc(slices.Clone(s.NICs), isNone)
	if len(all) == 0 {
		return ""
	}
	return "; members of a VRF cannot have the address, and there is the VRF " + names(all)
}

func names(nics []NIC) string {
	all := make([]string, len(nics))
	for i, nic := range nics {
		all[i] = nic.Name
	}
	return strings.Join(all, ", ")
}
