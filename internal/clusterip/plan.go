package clusterip

import (
	"net/netip"
	"slices"
)

// Goal is what shall be on the node: the buckets to answer for, and how. Without any, and without one that drains, nothing shall be left.
type Goal struct {
	Layout Layout
	Owned  []Bucket
	Moves  Moves  // that go on
	NIC    string // the NIC asked for, if any: says whose an address elsewhere is
}

// Plan lists the steps from what was seen to the goal. It is empty when the goal is reached.
//
// Laying: tables first (they drop everything until a bucket is owned), then the MAC filter, then the address, then what
// stands in the way elsewhere goes, and the buckets come last. Removing is the reverse: the buckets first, the tables
// last. So a node never answers for a foreign bucket, nor with its NIC's own MAC, wherever it is interrupted.
func Plan(seen State, goal Goal) []Step {
	if len(goal.Owned)+len(goal.Moves.Draining) == 0 {
		return planRemoval(seen, goal)
	}
	layout := goal.Layout
	moves := seen.Tables.Moves
	keep := intersect(seen.Tables.Owned, goal.Owned)
	surplus := subtract(seen.Tables.Owned, goal.Owned)
	var steps []Step
	if len(surplus) > 0 {
		steps = append(steps, Disown{Address: layout.Address(), Buckets: surplus})
	}
	if laid := seen.Tables.Laid; laid == nil || !laid.sameAs(layout) || len(seen.Tables.Damage) > 0 {
		moves = seen.movesKept(layout)
		steps = append(steps, LayTables{Layout: layout, Keep: keep, Next: subtract(goal.Owned, keep), Moves: moves})
	}
	nic, _ := seen.nicAt(layout.NICIndex)
	filtersWanted, groupsWanted := wanted(layout)
	for _, filter := range filtersWanted {
		if !slices.Contains(seen.Filters, filter) {
			steps = append(steps, AddFilter{NIC: nic, MAC: filter.MAC})
		}
	}
	steps = append(steps, removeGroups(seen, groupsWanted)...) // first: one without autojoin stands in the way of one with
	for _, group := range groupsWanted {
		if !seen.isMember(group) {
			steps = append(steps, AddAddress{NIC: nic, Prefix: group.Prefix, Group: true})
		}
	}
	var wantedAddresses []Address
	for _, prefix := range layout.Prefixes {
		address := Address{NICIndex: layout.NICIndex, Prefix: prefix}
		wantedAddresses = append(wantedAddresses, address)
		if !slices.Contains(seen.Addresses, address) {
			steps = append(steps, removeInTheWay(seen, address)...)
			steps = append(steps, AddAddress{NIC: nic, Prefix: prefix})
		}
	}
	steps = append(steps, removeAddresses(seen, goal.NIC, wantedAddresses...)...)
	steps = append(steps, removeFilters(seen, filtersWanted)...)
	missing := subtract(goal.Owned, keep)
	switch {
	case layout.Drains && (len(missing) > 0 || !moves.equal(goal.Moves)):
		steps = append(steps, Move{Address: layout.Address(), Resource: layout.Resource, Own: missing, Moves: goal.Moves})
	case !layout.Drains && len(missing) > 0:
		steps = append(steps, Own{Address: layout.Address(), Resource: layout.Resource, Buckets: missing})
	}
	return steps
}

// removal lists the steps that take everything of the spec's resource away.
func (s Spec) removal(seen State) []Step {
	return planRemoval(seen, Goal{Layout: Layout{Prefixes: s.named()}, NIC: s.NIC})
}

func planRemoval(seen State, goal Goal) []Step {
	var steps []Step
	if len(seen.Tables.Owned) > 0 {
		steps = append(steps, Disown{Address: goal.Layout.Address(), Buckets: seen.Tables.Owned})
	}
	steps = append(steps, removeAddresses(seen, goal.NIC)...)
	steps = append(steps, removeGroups(seen, nil)...)
	steps = append(steps, removeFilters(seen, nil)...)
	if seen.Tables.Present {
		steps = append(steps, RemoveTables{Address: goal.Layout.Address()})
	}
	return steps
}

// wanted returns what must be on the NIC for it to accept the cluster MACs.
func wanted(layout Layout) (filters []Filter, groups []Address) {
	for _, mac := range layout.AllMACs() {
		if layout.MACMode == IGMP {
			group := mac.MulticastGroup()
			groups = append(groups, Address{NICIndex: layout.NICIndex, Prefix: netip.PrefixFrom(group, group.BitLen()), AutoJoin: true})
		} else {
			filters = append(filters, Filter{NICIndex: layout.NICIndex, MAC: mac, Static: true})
		}
	}
	return filters, groups
}

// removeInTheWay takes an IPv6 address away that the kernel does not use, or that has another prefix length: there can be only one
// on a NIC. (Of IPv4 addresses the wrong one goes after the right one has come, and nobody misses any.)
func removeInTheWay(seen State, want Address) []Step {
	var steps []Step
	for _, address := range seen.Addresses {
		if want.Prefix.Addr().Is6() && address.NICIndex == want.NICIndex && address.Prefix.Addr() == want.Prefix.Addr() {
			nic, _ := seen.nicAt(want.NICIndex)
			steps = append(steps, RemoveAddress{NIC: nic, Prefix: address.Prefix})
		}
	}
	return steps
}

func removeAddresses(seen State, asked string, keep ...Address) []Step {
	var steps []Step
	for _, address := range seen.Addresses {
		sameIPv6 := func(k Address) bool {
			return k.Prefix.Addr().Is6() && k.NICIndex == address.NICIndex && k.Prefix.Addr() == address.Prefix.Addr()
		}
		if slices.Contains(keep, address) || slices.ContainsFunc(keep, sameIPv6) {
			continue // as it should be, or was in the way
		}
		if nic, ok := seen.nicAt(address.NICIndex); ok && seen.ours(address, asked) {
			steps = append(steps, RemoveAddress{NIC: nic, Prefix: address.Prefix})
		}
	}
	return steps
}

func removeGroups(seen State, keep []Address) []Step {
	var steps []Step
	for _, group := range seen.Groups {
		if nic, ok := seen.nicAt(group.NICIndex); ok && !slices.Contains(keep, group) {
			steps = append(steps, RemoveAddress{NIC: nic, Prefix: group.Prefix})
		}
	}
	return steps
}

func removeFilters(seen State, keep []Filter) []Step {
	var steps []Step
	for _, filter := range seen.Filters {
		if nic, ok := seen.nicAt(filter.NICIndex); ok && filter.Static && !slices.Contains(keep, filter) {
			steps = append(steps, RemoveFilter{NIC: nic, MAC: filter.MAC})
		}
	}
	return steps
}

func intersect(a, b []Bucket) []Bucket {
	return slices.DeleteFunc(slices.Clone(a), func(x Bucket) bool { return !slices.Contains(b, x) })
}

func subtract(a, b []Bucket) []Bucket {
	return slices.DeleteFunc(slices.Clone(a), func(x Bucket) bool { return slices.Contains(b, x) })
}
