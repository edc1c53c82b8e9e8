package clusterip

import (
	"fmt"
	"net/netip"
	"slices"
)

// State is what was observed of one resource on this node.
type State struct {
	NICs      []NIC
	AltNames  map[string]int // the indexes of interfaces by their alternative names (altname in ip-link(8))
	Connected []Route        // the connected routes that hold an address
	Routes    []Route        // those among them that this agent has installed for the addresses
	Addresses []Address      // the shared addresses, wherever they are
	Groups    []Address      // the multicast groups of igmp mode, wherever they are
	Filters   []Filter       // the interfaces' MAC filters for a shared MAC
	Tables    Tables
	EarlyDrop EarlyDropState
}

// Route is a connected route: an interface's own network.
type Route struct {
	NICIndex int
	Prefix   netip.Prefix
	Metric   uint32 // of those that this agent installs
}

// Address is an IP address on an interface.
type Address struct {
	NICIndex int
	Prefix   netip.Prefix
	// HostScope: the kernel never chooses this shared IPv4 address as the source of a connection.
	HostScope bool
	AutoJoin  bool // the kernel is a member of this multicast group (IFA_F_MCAUTOJOIN)
	// Tentative: the kernel does not use this IPv6 address, because duplicate address detection is under way or has found another host
	// (IFA_F_TENTATIVE, IFA_F_DADFAILED).
	Tentative bool
	Of        string // the name of the other resource that it belongs to, if any
}

// Filter is an entry of an interface's MAC filter: it receives this MAC beside its own.
type Filter struct {
	NICIndex int
	MAC      MAC
	Static   bool // by us or by hand; not one that a protocol of the kernel holds
}

// Tables is what was observed of the tables whose name contains the first address.
type Tables struct {
	Present     bool     // something of ours is there
	Backend     Backend  // "" if nothing is there
	Installed   *Layout  // as installed; nil if unknown
	Owned       []Bucket // in order
	Moves       Moves
	Lingering   []Linger   // released, and answered for until another node takes them over
	Lingered    []Bucket   // lingering, or until a short while ago
	Expecting   []Bucket   // to be owned as soon as another node has confirmed the takeover
	Takeovers   []Takeover // of buckets that are owned
	Faults      []string   // what differs from what was installed, in words
	Conflicting []string   // conflicting tables: they have our name, and are not ours
}

// Of leaves out the filters and groups that do not belong to the spec's resource. Its own are the installed shared MAC on the interface
// that it was installed on, and the requested one on the requested interface, or on any if none is. Another resource may have the same MAC
// on another interface, or one that is derived from this address in another mode.
func (s State) Of(spec Spec) State {
	ours := func(nicIndex int, has func(MAC) bool) bool {
		if installed := s.Tables.Installed; installed != nil && installed.holds(nicIndex, has) {
			return true
		}
		nic, known := s.NICAt(nicIndex)
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

// HasUnclaimed reports whether anything was observed that our own tables do not name: it may belong to another resource.
func (s State) HasUnclaimed() bool {
	installed := Layout{}
	if s.Tables.Installed != nil {
		installed = *s.Tables.Installed
	}
	isOther := func(a Address) bool {
		return a.NICIndex != installed.NICIndex || !slices.Contains(installed.Addresses(), a.Prefix.Addr())
	}
	return slices.ContainsFunc(s.Addresses, isOther) ||
		slices.ContainsFunc(s.Filters, func(f Filter) bool { return !installed.holds(f.NICIndex, func(m MAC) bool { return m == f.MAC }) }) ||
		slices.ContainsFunc(s.Groups, func(g Address) bool { return !installed.holdsGroup(g) }) ||
		len(subtract(s.EarlyDrop.Addresses, installed.Addresses())) > 0
}

// Without leaves out the filters, groups, routes and early drop of other resources, and marks their addresses (Address.Of).
func (s State) Without(others []Layout) State {
	s.Filters, s.Groups, s.Addresses = slices.Clone(s.Filters), slices.Clone(s.Groups), slices.Clone(s.Addresses)
	for _, other := range others {
		s.Filters = slices.DeleteFunc(s.Filters, func(f Filter) bool {
			return other.holds(f.NICIndex, func(m MAC) bool { return m == f.MAC })
		})
		s.Groups = slices.DeleteFunc(s.Groups, other.holdsGroup)
		s.EarlyDrop.Addresses = subtract(s.EarlyDrop.Addresses, other.Addresses())
		s.Routes = subtract(s.Routes, other.routes())
		for i, address := range s.Addresses {
			if slices.Contains(other.Addresses(), address.Prefix.Addr()) {
				s.Addresses[i].Of = other.name()
			}
		}
	}
	return s
}

// IsOurs reports whether an address belongs to this resource: it is on the requested interface or on the one that it was installed on; or
// no interface is requested, or the requested one is gone. On a loopback interface, or where nothing else of ours is there, it does not.
func (s State) IsOurs(address Address, requested string) bool {
	nic, ok := s.NICAt(address.NICIndex)
	if !ok || nic.Loopback || !s.traced() || address.Of != "" {
		return false
	}
	if installed := s.Tables.Installed; installed != nil && installed.NICIndex == nic.Index {
		return true
	}
	if wanted, exists := s.NICNamed(requested); exists {
		return nic.Index == wanted.Index
	}
	return true
}

// traced reports whether anything of ours is there beside the address. The MAC filter is installed before the address and removed after it,
// so an address alone is not ours.
func (s State) traced() bool {
	static := slices.ContainsFunc(s.Filters, func(f Filter) bool { return f.Static })
	return s.Tables.Present || static || len(s.Groups) > 0 || len(s.Routes) > 0
}

// HasRoutesOf reports whether the connected routes of a layout are there, as this agent installs them.
func (s State) HasRoutesOf(layout Layout) bool {
	return !slices.ContainsFunc(layout.routes(), func(r Route) bool { return !slices.Contains(s.Routes, r) })
}

// isMember reports whether the kernel is a member of a group of igmp mode. The group's address shows that, except for IPv6: an interface
// that is set down loses its addresses, but the kernel stays a member of their groups (addrconf_ifdown in net/ipv6/addrconf.c), and refuses
// to join them again.
func (s State) isMember(group Address) bool {
	joined := slices.ContainsFunc(s.Filters, func(f Filter) bool {
		return f.NICIndex == group.NICIndex && f.MAC.MulticastGroup() == group.Prefix.Addr()
	})
	return joined && (group.Prefix.Addr().Is6() || slices.Contains(s.Groups, group))
}

// NICNamed returns the interface with a name or alternative name. The kernel keeps these unique.
func (s State) NICNamed(name string) (NIC, bool) {
	if index, isAlternative := s.AltNames[name]; isAlternative {
		return s.NICAt(index)
	}
	return find(s.NICs, func(n NIC) bool { return n.Name == name })
}

// NICAt returns the interface with an index.
func (s State) NICAt(index int) (NIC, bool) {
	return find(s.NICs, func(n NIC) bool { return n.Index == index })
}

// NICName returns the name of an interface for messages.
func (s State) NICName(index int) string {
	if nic, ok := s.NICAt(index); ok {
		return nic.Name
	}
	return fmt.Sprintf("interface %d", index)
}

// connectedBits returns the prefix length of an interface's longest connected route that holds an address; 0 if none does.
func (s State) connectedBits(nic NIC, address netip.Addr) int {
	longest := 0
	for _, route := range s.Connected {
		if route.NICIndex == nic.Index && route.Prefix.Contains(address) {
			longest = max(longest, route.Prefix.Bits())
		}
	}
	return longest
}

// Owns reports whether the node owns a bucket.
func (s State) Owns(bucket Bucket) bool { return slices.Contains(s.Tables.Owned, bucket) }

// Serves reports whether the node owns or drains a bucket.
func (s State) Serves() bool { return len(s.Tables.Owned)+len(s.Tables.Moves.Draining) > 0 }

// MovesAfterStart returns the moves that continue when a bucket is owned. One that the node owns already is not adopted again.
func (s State) MovesAfterStart(layout Layout, adoption Adoption) Moves {
	moves := s.MovesKept(layout)
	switch {
	case s.Owns(adoption.Bucket):
		return moves
	case !layout.Drains || len(adoption.From) == 0:
		return moves.Without(adoption.Bucket)
	default:
		return moves.WithAdoption(adoption)
	}
}

// MovesAfterStop returns the moves that continue when a bucket is released, to drain or not. In damaged tables none can be relied on,
// unless other buckets remain, whose monitor has the tables repaired.
func (s State) MovesAfterStop(spec Spec, drain bool) Moves {
	moves := s.Tables.Moves
	others := Subtract(s.Tables.Owned, []Bucket{spec.Bucket})
	switch {
	case len(s.Tables.Faults) > 0 && len(others) == 0:
		return Moves{}
	case !s.Owns(spec.Bucket):
		return moves
	case drain && len(s.Tables.Faults) == 0:
		return moves.WithDrain(spec.Bucket, spec.Drain)
	default:
		return moves.Without(spec.Bucket)
	}
}

// MovesKept returns the moves that can continue in a layout: none if its buckets have other connections, and no drain that was not
// announced.
func (s State) MovesKept(layout Layout) Moves {
	installed := s.Tables.Installed
	if installed == nil || !installed.Drains || !layout.Drains || len(installed.Disagreements(layout)) > 0 {
		return Moves{}
	}
	// A drain that was not announced did not begin here: somebody has added the element.
	moves := s.Tables.Moves
	moves.Draining = slices.DeleteFunc(slices.Clone(moves.Draining), func(d Drain) bool { return !slices.Contains(moves.Announced, d.Bucket) })
	return moves
}

// DrainsContinue reports whether drains and adoptions continue in a layout although drain was switched off meanwhile. The node that drains
// may run no instance that Pacemaker reloads.
func (s State) DrainsContinue(layout Layout) bool {
	installed, moves := s.Tables.Installed, s.Tables.Moves
	return installed != nil && installed.Drains && len(installed.Disagreements(layout)) == 0 && len(moves.Announced)+len(moves.Adopting) > 0
}

// LayoutIdentity returns the identity of the installed layout, or else of the requested one.
func (s State) LayoutIdentity(spec Spec) string {
	if s.Tables.Installed != nil {
		return s.Tables.Installed.Identity()
	}
	return spec.Layout().Identity()
}

// haveTakeovers reports whether buckets can linger with the installed tables.
func (t Tables) haveTakeovers() bool { return t.Installed != nil && !t.Installed.Lingers.IsZero() }

// DisagreesWith reports whether the buckets of a layout have other connections than those of the installed one.
func (t Tables) DisagreesWith(layout Layout) bool {
	return t.Installed != nil && len(t.Installed.Disagreements(layout)) > 0
}

// Release returns the step that releases the spec's bucket beside others.
func (t Tables) Release(spec Spec, moves Moves) ChangeBuckets {
	step := ChangeBuckets{Address: spec.Address(), Resource: spec.Resource, Release: []Bucket{spec.Bucket}, Takeovers: t.haveTakeovers()}
	if t.Installed != nil && t.Installed.Drains {
		step.Moves = &moves
	}
	return step
}
