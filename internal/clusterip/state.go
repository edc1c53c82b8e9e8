package clusterip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// State is what was seen of one resource on this node.
type State struct {
	NICs      []NIC
	AltNames  map[string]int // the indexes of NICs by their alternative names, which udev and admins give
	Connected []Route        // the connected routes that hold an address
	Routes    []Route        // those among them that this agent has laid for the addresses
	Addresses []Address      // where the addresses themselves are
	Groups    []Address      // where the multicast groups of igmp mode are
	Filters   []Filter       // where a cluster MAC is let in
	Tables    Tables
}

// NIC is a network interface.
type NIC struct {
	Index    int
	Name     string
	MAC      MAC
	Up       bool // administratively (IFF_UP)
	Running  bool // has a carrier (IFF_RUNNING)
	Loopback bool
	ARP      bool   // an Ethernet that does ARP
	NoIPv6   bool   // it is switched off there; only known when an IPv6 address is to be laid
	Kind     string // "bridge", "bond", "vlan", …; "device" of hardware
	Master   int    // the index of the interface that it is a port of; 0 if it is none
	Parent   int    // the index of the interface that it is on top of, as a VLAN is; 0 if it is on none
	BondMode string // of a bond: "balance-alb", …
	Asks     bool   // a bond that asks hosts by ARP whether its links are alive (arp_interval)
	Verifies bool   // and takes only their answers for a sign of it (arp_validate, of the active port)
	Snoops   bool   // a bridge that reads IGMP and MLD, and is not told to take all groups' frames itself (mcast_router 2)
	// ARPFilter says that the NIC answers only those ARP requests whose sender the node would answer through it (arp_filter); only known when addresses
	// are to be laid.
	ARPFilter bool
	// CallsIPTables says of a bridge that its ports show their packets to the prerouting hooks of a family (br_netfilter).
	CallsIPTables PerFamily[bool]
}

// Route is a connected route: the NIC's own network.
type Route struct {
	NICIndex int
	Prefix   netip.Prefix
	Metric   uint32 // of those that this agent lays
}

// Address is an IP address on a NIC.
type Address struct {
	NICIndex int
	Prefix   netip.Prefix
	// HostScope says of one of the IPv4 addresses themselves that the kernel chooses it as the source of no connection.
	HostScope bool
	AutoJoin  bool // the kernel is a member of this multicast group (IFA_F_MCAUTOJOIN)
	// Tentative says that the kernel does not use an IPv6 address, because it looks for another host that has it or has found one
	// (IFA_F_TENTATIVE, IFA_F_DADFAILED).
	Tentative bool
	Of        string // the other resource that it belongs to, if any
}

// Filter is a MAC that a NIC lets in beside its own.
type Filter struct {
	NICIndex int
	MAC      MAC
	Static   bool // put there to last, by us or by hand; not one that a protocol of the kernel holds
}

// Tables is what was seen of the tables that bear the first address in their name.
type Tables struct {
	Present bool     // something of ours is there
	Backend Backend  // where; "" if nothing is
	Laid    *Layout  // how it was laid; nil if that cannot be told
	Owned   []Bucket // the buckets that this node answers for, in order
	Moves   Moves    // where connections survive moves
	Damage  []string // what differs from how it was laid, in words
	Foreign []string // tables of our name that are not ours
}

// of leaves out the filters and groups that are not the spec's resource's: its own are the cluster MAC that was laid, on the NIC
// that it was laid on; and the one asked for, on the NIC asked for, or on any if none is. Another resource's may be the same MAC
// on another NIC, or be derived from this address in another mode.
func (s State) of(spec Spec) State {
	ours := func(nicIndex int, has func(MAC) bool) bool {
		if laid := s.Tables.Laid; laid != nil && laid.holds(nicIndex, has) {
			return true
		}
		nic, known := s.nicAt(nicIndex)
		if asked, exists := s.NICNamed(spec.NIC); exists && (!known || nic.Index != asked.Index) {
			return false
		}
		asked := Layout{MACs: spec.MACs}.AllMACs()
		return len(asked) == 0 || slices.ContainsFunc(asked, has)
	}
	s.Filters = slices.DeleteFunc(slices.Clone(s.Filters), func(f Filter) bool {
		return !ours(f.NICIndex, func(mac MAC) bool { return mac == f.MAC })
	})
	s.Groups = slices.DeleteFunc(slices.Clone(s.Groups), func(g Address) bool {
		return !ours(g.NICIndex, func(mac MAC) bool { return mac.MulticastGroup() == g.Prefix.Addr() })
	})
	return s
}

// unclaimed tells whether something was seen that our own tables do not name, so that it may be another resource's.
func (s State) unclaimed() bool {
	laid := Layout{}
	if s.Tables.Laid != nil {
		laid = *s.Tables.Laid
	}
	isOther := func(a Address) bool {
		return a.NICIndex != laid.NICIndex || !slices.Contains(laid.Addresses(), a.Prefix.Addr())
	}
	return slices.ContainsFunc(s.Addresses, isOther) ||
		slices.ContainsFunc(s.Filters, func(f Filter) bool { return !laid.holds(f.NICIndex, func(m MAC) bool { return m == f.MAC }) }) ||
		slices.ContainsFunc(s.Groups, func(g Address) bool { return !laid.holdsGroup(g) })
}

// without leaves out the filters and groups of other resources, and marks their addresses.
func (s State) without(others []Layout) State {
	s.Filters, s.Groups, s.Addresses = slices.Clone(s.Filters), slices.Clone(s.Groups), slices.Clone(s.Addresses)
	for _, other := range others {
		s.Filters = slices.DeleteFunc(s.Filters, func(f Filter) bool {
			return other.holds(f.NICIndex, func(m MAC) bool { return m == f.MAC })
		})
		s.Groups = slices.DeleteFunc(s.Groups, other.holdsGroup)
		for i, address := range s.Addresses {
			if slices.Contains(other.Addresses(), address.Prefix.Addr()) {
				s.Addresses[i].Of = other.name()
			}
		}
	}
	return s
}

// HasRoutesOf tells whether the connected routes of a layout are there, as this agent lays them.
func (s State) HasRoutesOf(layout Layout) bool {
	return !slices.ContainsFunc(layout.routes(), func(r Route) bool { return !slices.Contains(s.Routes, r) })
}

// isMember tells whether the kernel is a member of a group of igmp mode. Its address shows it, which for IPv6 may be gone: a NIC
// that is switched off loses its addresses, but the kernel stays a member of their groups (addrconf_ifdown in net/ipv6/addrconf.c), and
// refuses to join them again.
func (s State) isMember(group Address) bool {
	joined := slices.ContainsFunc(s.Filters, func(f Filter) bool {
		return f.NICIndex == group.NICIndex && f.MAC.MulticastGroup() == group.Prefix.Addr()
	})
	return joined && (group.Prefix.Addr().Is6() || slices.Contains(s.Groups, group))
}

// holds tells whether a cluster MAC of the layout is on that NIC and such a one.
func (l Layout) holds(nicIndex int, is func(MAC) bool) bool {
	return l.NICIndex == nicIndex && slices.ContainsFunc(l.AllMACs(), is)
}

func (l Layout) holdsGroup(group Address) bool {
	return l.holds(group.NICIndex, func(m MAC) bool { return m.MulticastGroup() == group.Prefix.Addr() })
}

// traced tells whether anything of ours is there beside the address. The filter comes before the address and goes after it, so an
// address alone is somebody else's. A route that is left shows whose it is.
func (s State) traced() bool {
	static := slices.ContainsFunc(s.Filters, func(f Filter) bool { return f.Static })
	return s.Tables.Present || static || len(s.Groups) > 0 || len(s.Routes) > 0
}

// NICNamed finds a NIC by its name or an alternative one. The kernel makes sure that no two NICs have the same.
func (s State) NICNamed(name string) (NIC, bool) {
	if index, isAlternative := s.AltNames[name]; isAlternative {
		return s.nicAt(index)
	}
	return find(s.NICs, func(n NIC) bool { return n.Name == name })
}

// vrfKind is that of a VRF, which is the master of its members.
const vrfKind = "vrf"

// master is the interface that a NIC is a port of, and that takes all its packets: a bridge, a bond, a team. A VRF takes nothing away.
func (s State) master(nic NIC) (NIC, bool) {
	master, ok := s.nicAt(nic.Master)
	return master, ok && master.Kind != vrfKind
}

// vrf is the VRF that a NIC is, or is a member of.
func (s State) vrf(nic NIC) (NIC, bool) {
	if nic.Kind == vrfKind {
		return nic, true
	}
	master, ok := s.nicAt(nic.Master)
	return master, ok && master.Kind == vrfKind
}

// Usable tells whether a NIC can have an address that clients reach through it.
func (s State) Usable(nic NIC) bool {
	_, isPort := s.master(nic)
	_, isInVRF := s.vrf(nic)
	return nic.ARP && !nic.Loopback && !isPort && !isInVRF
}

// VRFFault says why the address cannot be in a VRF, and what to do; empty if the NIC is in none. The VRF has routing tables of its own, in which
// the kernel does not look when a router tells of a path's MTU, nor this agent for IPv6 addresses; and a packet comes in a second time, by the VRF.
func (s State) VRFFault(nic NIC) string {
	vrf, ok := s.vrf(nic)
	switch {
	case !ok:
		return ""
	case vrf.Index == nic.Index:
		return fmt.Sprintf("parameter nic: %s is a VRF, in which the address is not supported: path MTU discovery, IPv6 and the node's own connections to it would fail; "+
			"choose an interface that is a member of none", vrf.Name)
	default:
		return fmt.Sprintf("parameter nic: %s is a member of the VRF %s, in which the address is not supported: path MTU discovery, IPv6 and the node's own connections to it would fail; "+
			"take it out (ip link set %s nomaster), or choose an interface that is a member of none", nic.Name, vrf.Name, nic.Name)
	}
}

// PortFault says why a port of another interface cannot have the address, and what to do; empty if the NIC is none.
func (s State) PortFault(nic NIC) string {
	master, isPort := s.master(nic)
	if !isPort {
		return ""
	}
	do := fmt.Sprintf("set nic=%s, which needs the node's own address in this network", s.Top(nic).Name)
	if master.Kind == "openvswitch" { // it has no addresses itself: its bridges have, which are interfaces beside it
		do = fmt.Sprintf("set nic to the internal port of its bridge (ovs-vsctl iface-to-br %s)", nic.Name)
	}
	return fmt.Sprintf("parameter nic: %s is a port of %s (%s), which takes its packets, so that no client reaches the address; %s", nic.Name, master.Name, master.Kind, do)
}

// Top is the interface that has a NIC's packets in the end: the bridge that its bond is a port of. It is the NIC itself if it is no port.
func (s State) Top(nic NIC) NIC {
	for master, isPort := s.master(nic); isPort; master, isPort = s.master(nic) {
		nic = master
	}
	return nic
}

// GuestFault says why guests of this node's bridge do not reach other nodes' buckets by a unicast cluster MAC; empty if they do. The MAC is the bridge's
// own then, which takes a frame to it and sends it out of no port (br_handle_frame_finish in net/bridge/br_input.c).
func (s State) GuestFault(nic NIC) string {
	ports := slices.DeleteFunc(slices.Clone(s.NICs), func(port NIC) bool { return port.Master != nic.Index })
	if nic.Kind != "bridge" || len(ports) < 2 { //nolint:mnd // by one port nobody reaches anybody else
		return ""
	}
	return fmt.Sprintf("%s is a bridge with several ports (%s): hosts behind one of them, such as virtual machines, reach only this node's buckets, and nodes behind one hear nothing, "+
		"because the bridge keeps frames to a unicast cluster MAC for itself", nic.Name, names(ports))
}

// TranslationFault says why rules that translate destinations go wrong for the addresses on this NIC; empty if they do not. A bridge that calls
// iptables shows prerouting every packet that comes in by a port, before it comes in by the bridge itself, where foreign buckets are dropped.
func (s State) TranslationFault(nic NIC, has func(isOfFamily func(netip.Addr) bool) bool) (bridge NIC, why string) {
	bridge, _ = s.bridgeOf(nic)
	calls := bridge.CallsIPTables.IPv4 && has(netip.Addr.Is4) || bridge.CallsIPTables.IPv6 && has(netip.Addr.Is6)
	if !calls {
		return NIC{}, ""
	}
	return bridge, fmt.Sprintf("%s is a bridge that calls iptables for its ports (br_netfilter): what a rule translates there (DNAT, as for a container's published port) "+
		"is answered by every node, whoever owns its bucket", bridge.Name)
}

// bridgeOf is the bridge that a NIC is or is on top of, if any.
func (s State) bridgeOf(nic NIC) (NIC, bool) {
	for nic.Kind != "bridge" {
		parent, ok := s.nicAt(nic.Parent)
		if !ok {
			return NIC{}, false
		}
		nic = parent
	}
	return nic, true
}

// below lists what a NIC's frames come in by: the ports of a bridge or bond, the parent of a VLAN, and what is below those.
func (s State) below(nic NIC) []NIC {
	var all []NIC
	for _, other := range s.NICs {
		if other.Master == nic.Index || nic.Parent == other.Index {
			all = append(append(all, other), s.below(other)...)
		}
	}
	return all
}

// askingPorts are the ports by which bonds ask hosts by ARP, of those that a NIC's frames come in by.
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

// UnicastFault says why bonds are no place for the unicast cluster MAC of a layout; empty if they are, or if it has none.
//
// In balance-alb each port delivers unicast frames (bond_should_deliver_exact_match in drivers/net/bonding/bond_main.c), and a switch sends those for
// an unknown MAC to all. A bond that asks hosts by ARP does so with its first address, which an IPv4 one of ours is (bond_confirm_addr), so that the
// answers are for the cluster MAC; and it verifies none that is for another host's (bond_arp_rcv).
func (s State) UnicastFault(layout Layout) string {
	nic, ok := s.nicAt(layout.NICIndex)
	if !ok || layout.MACMode != Unicast {
		return ""
	}
	for _, bond := range append([]NIC{nic}, s.below(nic)...) {
		switch {
		case bond.BondMode == "balance-alb":
			return fmt.Sprintf("parameter mac_mode=unicast: %s is a bond in mode balance-alb, whose ports each deliver a frame to the cluster MAC, so that packets arrive twice; "+
				"set mac_mode=multicast or igmp, or give the bond mode active-backup, balance-tlb or 802.3ad", bond.Name)
		case bond.Asks && bond.Verifies && layout.Has(netip.Addr.Is4):
			return fmt.Sprintf("parameter mac_mode=unicast: %s verifies the answers to its ARP requests (arp_validate), and would not know those for the cluster MAC, so that it loses its link; "+
				"set mac_mode=multicast or igmp, or in the bond's configuration miimon in place of arp_interval, or arp_validate=none", bond.Name)
		}
	}
	return ""
}

// SnoopFault says why frames to a group MAC may not reach a NIC of this node; empty if nothing is in the way. A bridge that snoops and has heard a
// querier looks for the group in the IP header (br_mdb_entry_skb_get in net/bridge/br_multicast.c): a unicast packet is of no group, and goes to
// ports of multicast routers only, and to the bridge itself if that is one.
func (s State) SnoopFault(nic NIC) (bridge NIC, why string) {
	for _, lower := range append([]NIC{nic}, s.below(nic)...) {
		if lower.Snoops {
			return lower, fmt.Sprintf("%s is a bridge that snoops: as soon as anybody on the network asks for members of groups, it lets no packet for a group MAC in any more", lower.Name)
		}
	}
	return NIC{}, ""
}

// ARPFilterFault says why a NIC may not answer ARP requests for addresses; empty if nothing is in the way: with arp_filter, when a route through another
// one leads to clients in the addresses' own network (arp_filter in net/ipv4/arp.c).
func (s State) ARPFilterFault(nic NIC) string {
	if !nic.ARPFilter {
		return ""
	}
	for _, route := range s.Connected {
		if other, ok := s.nicAt(route.NICIndex); ok && other.Index != nic.Index && other.Up && route.Prefix.Addr().Is4() {
			return fmt.Sprintf("arp_filter is set on %s, and %s is in the network of the address too: clients that the node would answer through it get no answer to their ARP requests; "+
				"set net.ipv4.conf.all.arp_filter and net.ipv4.conf.%s.arp_filter to 0", nic.Name, other.Name, nic.Name)
		}
	}
	return ""
}

func (s State) nicAt(index int) (NIC, bool) {
	return find(s.NICs, func(n NIC) bool { return n.Index == index })
}

func find[T any](all []T, is func(T) bool) (T, bool) {
	i := slices.IndexFunc(all, is)
	if i < 0 {
		var none T
		return none, false
	}
	return all[i], true
}

// serves tells whether the node answers for a bucket, or still serves connections of one.
func (s State) serves() bool { return len(s.Tables.Owned)+len(s.Tables.Moves.Draining) > 0 }

// movesAfterStart are those that go on when a bucket is taken over in a layout: one that it owned, or still drains, is simply its own.
func (s State) movesAfterStart(layout Layout, adoption Adoption) Moves {
	moves := s.movesKept(layout)
	switch {
	case s.owns(adoption.Bucket):
		return moves
	case !layout.Drains || len(adoption.From) == 0:
		return moves.without(adoption.Bucket)
	default:
		return moves.withAdoption(adoption)
	}
}

// movesAfterStop are those that go on when a bucket is given up, to be drained or not. In tables that are damaged none can be relied
// on, unless other buckets have them mended.
func (s State) movesAfterStop(spec Spec, drain bool) Moves {
	moves := s.Tables.Moves
	others := subtract(s.Tables.Owned, []Bucket{spec.Bucket})
	switch {
	case len(s.Tables.Damage) > 0 && len(others) == 0:
		return Moves{}
	case !s.owns(spec.Bucket):
		return moves
	case drain && len(s.Tables.Damage) == 0:
		return moves.withDrain(spec.Bucket, spec.Drain)
	default:
		return moves.without(spec.Bucket)
	}
}

// movesKept are those that can go on in a layout: where buckets are no longer the same, none can.
func (s State) movesKept(layout Layout) Moves {
	laid := s.Tables.Laid
	if laid == nil || !laid.Drains || !layout.Drains || len(laid.Disagreements(layout)) > 0 {
		return Moves{}
	}
	return s.Tables.Moves
}

// drainsOn tells whether connections that have survived a move do so still, although drain was switched off meanwhile: the nodes that
// serve them may have no instance that Pacemaker would tell.
func (s State) drainsOn(layout Layout) bool {
	laid, moves := s.Tables.Laid, s.Tables.Moves
	return laid != nil && laid.Drains && len(laid.Disagreements(layout)) == 0 && len(moves.HandedOver)+len(moves.Adopting) > 0
}

// layoutOr is the identity of the layout that is laid, or else of the one that is asked for.
func (s State) layoutOr(spec Spec) string {
	if s.Tables.Laid != nil {
		return s.Tables.Laid.Identity()
	}
	return spec.Layout().Identity()
}

func (s State) owns(bucket Bucket) bool { return slices.Contains(s.Tables.Owned, bucket) }

// nicName is for words to people.
func (s State) nicName(index int) string {
	if nic, ok := s.nicAt(index); ok {
		return nic.Name
	}
	return fmt.Sprintf("NIC %d", index)
}

// A Step is one change to the kernel. Each leaves the node in a state in which it answers for no foreign bucket.
type Step interface{ fmt.Stringer }

// The steps. Those for tables go by the resource's first address.
type (
	// LayTables lays the tables or mends them, in one transaction, and keeps the given buckets owned. Next are those that will be
	// owned next: the CLUSTERIP target cannot be laid without any.
	LayTables struct {
		Layout Layout
		Keep   []Bucket
		Next   []Bucket
		Moves  Moves // to be kept
	}
	// Own lets the packets of the buckets in.
	Own struct {
		Address  netip.Addr
		Resource string
		Buckets  []Bucket
	}
	// Disown drops the packets of the buckets.
	Disown struct {
		Address netip.Addr
		Buckets []Bucket
	}
	// Move does both in one transaction, and says which moves go on then, instead of those before.
	Move struct {
		Address  netip.Addr
		Resource string
		Own      []Bucket
		Disown   []Bucket
		Moves    Moves
	}
	// RemoveTables removes what LayTables has laid.
	RemoveTables struct{ Address netip.Addr }

	// AddFilter makes the NIC let the cluster MAC in.
	AddFilter struct {
		NIC NIC
		MAC MAC
	}
	// RemoveFilter takes that back.
	RemoveFilter struct {
		NIC NIC
		MAC MAC
	}
	// AddAddress puts the address, or with Group the multicast group, on the NIC. What is of IPv4 gets scope host.
	AddAddress struct {
		NIC    NIC
		Prefix netip.Prefix
		Group  bool
	}
	// RemoveAddress takes it away, and nothing else.
	RemoveAddress struct {
		NIC    NIC
		Prefix netip.Prefix
	}
	// AddRoute lays the connected route of an address.
	AddRoute struct {
		NIC   NIC
		Route Route
	}
	// RemoveRoute takes it away.
	RemoveRoute struct {
		NIC   NIC
		Route Route
	}
)

func (s LayTables) String() string {
	return fmt.Sprintf("lay tables for %s on %s, keep buckets %s", joined(s.Layout.Addresses()), s.Layout.NIC, list(s.Keep))
}

func (s Own) String() string { return fmt.Sprintf("own buckets %s of %s", list(s.Buckets), s.Address) }

func (s Disown) String() string {
	return fmt.Sprintf("give up buckets %s of %s", list(s.Buckets), s.Address)
}

func (s Move) String() string {
	return fmt.Sprintf("own buckets %s of %s, give up %s, then %s", list(s.Own), s.Address, list(s.Disown), s.Moves)
}

func (s RemoveTables) String() string {
	return fmt.Sprintf("remove the tables of %s", s.Address)
}
func (s AddFilter) String() string { return fmt.Sprintf("let %s in on %s", s.MAC, s.NIC.Name) }
func (s RemoveFilter) String() string {
	return fmt.Sprintf("no longer let %s in on %s", s.MAC, s.NIC.Name)
}
func (s AddAddress) String() string { return fmt.Sprintf("add %s to %s", s.Prefix, s.NIC.Name) }
func (s RemoveAddress) String() string {
	return fmt.Sprintf("remove %s from %s", s.Prefix, s.NIC.Name)
}

func (s AddRoute) String() string {
	return fmt.Sprintf("add the route to %s on %s", s.Route.Prefix, s.NIC.Name)
}

func (s RemoveRoute) String() string {
	return fmt.Sprintf("remove the route to %s on %s", s.Route.Prefix, s.NIC.Name)
}

func list(buckets []Bucket) string {
	if len(buckets) == 0 {
		return "none"
	}
	words := make([]string, len(buckets))
	for i, bucket := range buckets {
		words[i] = fmt.Sprint(bucket)
	}
	return strings.Join(words, ",")
}

// Kernel is the only door to the system.
type Kernel interface {
	// Observe reads all that concerns a resource's addresses, of which the first names its tables, and those that its tables name
	// themselves. A part that cannot be read is an error, never "not there". MACs are those to look for among the NICs' filters,
	// beside those of the tables.
	Observe(ctx context.Context, addresses []netip.Addr, macs []MAC) (State, error)
	// ObserveTables reads again the part of the state that Own and Disown change.
	ObserveTables(ctx context.Context, address netip.Addr) (Tables, error)
	// Apply does one step.
	Apply(ctx context.Context, step Step) error
	// Announce tells the neighbours on the NIC the addresses' MACs, count times (RFC 5227 section 2.3, RFC 4861 section 7.2.6).
	Announce(ctx context.Context, layout Layout, announcements Announcements) error
	// Strangers asks the network who else answers for an address with another MAC than the cluster's.
	Strangers(ctx context.Context, layout Layout) ([]Stranger, error)
	// Layouts returns those of all resources on this node whose stamp can be read.
	Layouts(ctx context.Context) ([]Layout, error)
	ConnectionKernel
	TrafficKernel
	// Choose chooses the backend for a layout, see Backends.
	Choose(ctx context.Context, layout Layout) (chosen Backend, reasons []string, err error)
}

// Stranger is a host that says that an address of ours is its own.
type Stranger struct {
	Address netip.Addr
	MAC     MAC
}

// TableKernel is the part of a Kernel that filters packets.
type TableKernel interface {
	ObserveTables(ctx context.Context, address netip.Addr) (Tables, error)
	ApplyTables(ctx context.Context, step Step) error
	Layouts(ctx context.Context) ([]Layout, error)
	// Supports asks the kernel whether it has what a layout needs, and says why not, or why that cannot be told.
	Supports(ctx context.Context, layout Layout) (Answer, error)
}

// LinkKernel is the part of a Kernel that has to do with NICs, addresses and MAC filters.
type LinkKernel interface {
	// ObserveLinks reads everything of State but Tables. Laid, if known, says where to look and saves reading the routes.
	ObserveLinks(ctx context.Context, addresses []netip.Addr, macs []MAC, laid *Layout) (State, error)
	ApplyLinks(ctx context.Context, step Step) error
	Announce(ctx context.Context, layout Layout, announcements Announcements) error
	Strangers(ctx context.Context, layout Layout) ([]Stranger, error)
}

// ConnectionKernel is the part of a Kernel that tracks connections.
type ConnectionKernel interface {
	// Connections counts the connections to the layout's addresses that are open on this node, by bucket: those that a drain keeps.
	Connections(ctx context.Context, layout Layout) (map[Bucket]int, error)
	// Keep makes the kernel know, for that long at least, the connections of the buckets that have a socket on this node.
	Keep(ctx context.Context, layout Layout, left map[Bucket]time.Duration) error
	// EndHandshakes waits, for a moment, until the clients that have had a SYN-ACK from this node have answered it, and drops what is then
	// still half made. The bucket takes no new connections any more.
	EndHandshakes(ctx context.Context, layout Layout, bucket Bucket) error
	// Forget ends what there is on this node of connections of the buckets, which it no longer serves.
	Forget(ctx context.Context, layout Layout, buckets []Bucket) error
}

// Host is a Kernel made of its parts.
type Host struct {
	*Backends
	LinkKernel
	ConnectionKernel
}

// Observe implements Kernel.
func (h Host) Observe(ctx context.Context, addresses []netip.Addr, macs []MAC) (State, error) {
	tables, err := h.ObserveTables(ctx, addresses[0])
	if err != nil {
		return State{}, err
	}
	addresses, macs = slices.Clone(addresses), slices.Clone(macs)
	if tables.Laid != nil {
		macs = append(macs, tables.Laid.AllMACs()...)
		for _, address := range tables.Laid.Addresses() {
			if !slices.Contains(addresses, address) {
				addresses = append(addresses, address)
			}
		}
	}
	state, err := h.ObserveLinks(ctx, addresses, macs, tables.Laid)
	state.Tables = tables
	return state, err
}

// Apply implements Kernel.
func (h Host) Apply(ctx context.Context, step Step) error {
	switch step.(type) {
	case LayTables, Own, Disown, Move, RemoveTables:
		return h.ApplyTables(ctx, step)
	default:
		return h.ApplyLinks(ctx, step)
	}
}
