package clusterip

import (
	"net/netip"
	"slices"
)

// Goal is the state to reach. With no bucket that is owned or drains, nothing is left on the node.
type Goal struct {
	Layout Layout
	Owned  []Bucket
	Moves  Moves
	NIC    string // the requested interface, if any: it decides whether an address elsewhere is ours
}

// GoalOfStart is the goal of starting the spec's bucket.
func GoalOfStart(seen State, layout Layout, spec Spec, adoption Adoption) Goal {
	owned := append(slices.Clone(seen.Tables.Owned), spec.Bucket)
	slices.Sort(owned)
	return Goal{Layout: layout, NIC: spec.NIC, Owned: slices.Compact(owned), Moves: seen.MovesAfterStart(layout, adoption)}
}

// Plan returns the steps from the observed state to the goal. It is empty if the goal is reached.
//
// It installs the tables first, which drop everything until a bucket is owned, then the MAC filter, then the address. Then it removes what
// is wrong elsewhere. The buckets come last. Removal is the reverse: the buckets first, the tables last. So wherever it is interrupted, the
// node answers neither for a foreign bucket nor with the interface's own MAC.
func Plan(seen State, goal Goal) []Step {
	if len(goal.Owned)+len(goal.Moves.Draining) == 0 {
		return planRemoval(seen, goal)
	}
	layout := goal.Layout
	moves := seen.Tables.Moves
	keep := intersect(seen.Tables.Owned, goal.Owned)
	surplus := Subtract(seen.Tables.Owned, goal.Owned)
	var steps []Step
	if len(surplus) > 0 {
		steps = append(steps, ChangeBuckets{Address: layout.Address(), Release: surplus, Takeovers: seen.Tables.haveTakeovers()})
	}
	// The program must not drop what the tables will accept. Tables without a bucket accept nothing.
	if seen.EarlyDrop.Judges() && len(keep)+len(moves.Draining) > 0 && seen.recordedOtherwise(layout) {
		steps = append(steps, seen.removeEarlyDrop())
		seen.EarlyDrop.Addresses = nil
	}
	if installed := seen.Tables.Installed; installed == nil || !installed.sameAs(layout) || len(seen.Tables.Faults) > 0 {
		moves = seen.MovesKept(layout)
		steps = append(steps, InstallTables{Layout: layout, Keep: keep, Next: Subtract(goal.Owned, keep), Moves: moves})
	}
	if seen.EarlyDrop.Judges() && (!layout.DropsEarly() || seen.EarlyDrop.NICIndex != layout.NICIndex) {
		steps = append(steps, seen.removeEarlyDrop())
	}
	if layout.DropsEarly() { // before the buckets are owned, so that it never drops what the tables accept
		steps = append(steps, planEarlyDrop(seen, layout, union(seen.Tables.served(), union(goal.Owned, goal.Moves.DrainingBuckets())))...)
	}
	nic, _ := seen.NICAt(layout.NICIndex)
	filtersWanted, groupsWanted := wanted(layout)
	for _, filter := range filtersWanted {
		if !slices.Contains(seen.Filters, filter) {
			steps = append(steps, AddFilter{NIC: nic, MAC: filter.MAC})
		}
	}
	steps = append(steps, removeGroups(seen, groupsWanted)...) // first: a group without autojoin excludes one with autojoin
	for _, group := range groupsWanted {
		if !seen.isMember(group) {
			steps = append(steps, AddAddress{NIC: nic, Prefix: group.Prefix, Group: true})
		}
	}
	for _, address := range layout.onNIC() {
		if !slices.Contains(seen.Addresses, address) {
			steps = append(steps, removeInTheWay(seen, address)...)
			steps = append(steps, AddAddress{NIC: nic, Prefix: address.Prefix})
		}
	}
	steps = append(steps, addRoutes(seen, nic, layout)...)
	steps = append(steps, removeAddresses(seen, goal.NIC, layout.onNIC()...)...)
	steps = append(steps, removeRoutes(seen, layout.routes())...)
	steps = append(steps, removeFilters(seen, filtersWanted)...)
	change := ChangeBuckets{
		Address: layout.Address(), Resource: layout.Resource, Own: Subtract(goal.Owned, keep), Takeovers: !layout.Lingers.IsZero(),
	}
	if layout.Drains && (len(change.Own) > 0 || !moves.equal(goal.Moves)) {
		change.Moves = &goal.Moves
	}
	if len(change.Own) > 0 || change.Moves != nil {
		steps = append(steps, change)
	}
	return steps
}

func planRemoval(seen State, goal Goal) []Step {
	var steps []Step
	if len(seen.Tables.Owned) > 0 {
		release := ChangeBuckets{Address: goal.Layout.Address(), Release: seen.Tables.Owned, Takeovers: seen.Tables.haveTakeovers()}
		steps = append(steps, release)
	}
	steps = append(steps, removeAddresses(seen, goal.NIC)...)
	steps = append(steps, removeRoutes(seen, nil)...)
	steps = append(steps, removeGroups(seen, nil)...)
	steps = append(steps, removeFilters(seen, nil)...)
	if seen.EarlyDrop.Judges() || seen.EarlyDrop.Idle {
		steps = append(steps, seen.removeEarlyDrop())
	}
	if seen.Tables.Present {
		steps = append(steps, RemoveTables{Address: goal.Layout.Address()})
	}
	return steps
}

// wanted returns what must be on the interface so that it receives frames for the shared MACs.
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

// excludes reports whether an interface cannot have both addresses: it has an IPv6 address once, an IPv4 address once for each prefix
// length.
func (a Address) excludes(b Address) bool {
	return a.NICIndex == b.NICIndex && a.Prefix.Addr() == b.Prefix.Addr() && (a.Prefix.Addr().Is6() || a.Prefix == b.Prefix)
}

// removeInTheWay removes the address if it has another form than the wanted one, or the kernel does not use it, and the wanted one cannot
// be added beside it. (Other forms of an IPv4 address are removed after the wanted one was added, so that the node always has one.)
func removeInTheWay(seen State, want Address) []Step {
	var steps []Step
	for _, address := range seen.Addresses {
		if want.excludes(address) {
			nic, _ := seen.NICAt(want.NICIndex)
			steps = append(steps, RemoveAddress{NIC: nic, Prefix: address.Prefix})
		}
	}
	return steps
}

func removeAddresses(seen State, asked string, keep ...Address) []Step {
	var steps []Step
	for _, address := range seen.Addresses {
		if slices.ContainsFunc(keep, address.excludes) {
			continue // it is the wanted one, or was removed before it
		}
		if nic, ok := seen.NICAt(address.NICIndex); ok && seen.IsOurs(address, asked) {
			steps = append(steps, RemoveAddress{NIC: nic, Prefix: address.Prefix})
		}
	}
	return steps
}

// addRoutes adds the missing connected routes of a layout. An interface that is down can have none.
func addRoutes(seen State, nic NIC, layout Layout) []Step {
	var steps []Step
	for _, route := range layout.routes() {
		if nic.Up && !slices.Contains(seen.Routes, route) {
			steps = append(steps, AddRoute{NIC: nic, Route: route})
		}
	}
	return steps
}

func removeRoutes(seen State, keep []Route) []Step {
	var steps []Step
	for _, route := range seen.Routes {
		if nic, ok := seen.NICAt(route.NICIndex); ok && !slices.Contains(keep, route) {
			steps = append(steps, RemoveRoute{NIC: nic, Route: route})
		}
	}
	return steps
}

// PlanInterface returns the step that updates the tables if a bond sends ARP requests through other ports than they list, or the interface
// has another MAC, and whether it is needed. On an interface that start would refuse it is not.
func PlanInterface(seen State) (install InstallTables, changed bool) {
	installed := seen.Tables.Installed
	if installed == nil || len(seen.Tables.Faults) > 0 {
		return InstallTables{}, false
	}
	nic, ok := seen.NICAt(installed.NICIndex)
	if !ok {
		return InstallTables{}, false
	}
	layout := *installed
	layout.Schema = Schema
	if installed.Has(netip.Addr.Is4) {
		layout.Ports = seen.askingPorts(nic)
	}
	if seen.Tables.haveTakeovers() && !nic.MAC.IsZero() {
		layout.Lingers = nic.MAC
	}
	same := slices.Equal(layout.Ports, installed.Ports) && layout.Lingers == installed.Lingers
	if same || layout.Fits(layout.Backend) != nil || seen.UnicastFault(layout) != "" {
		return InstallTables{}, false
	}
	return InstallTables{Layout: layout, Keep: seen.Tables.Owned, Moves: seen.Tables.Moves}, true
}

func removeGroups(seen State, keep []Address) []Step {
	var steps []Step
	for _, group := range seen.Groups {
		if nic, ok := seen.NICAt(group.NICIndex); ok && !slices.Contains(keep, group) {
			steps = append(steps, RemoveAddress{NIC: nic, Prefix: group.Prefix})
		}
	}
	return steps
}

func removeFilters(seen State, keep []Filter) []Step {
	var steps []Step
	for _, filter := range seen.Filters {
		if nic, ok := seen.NICAt(filter.NICIndex); ok && filter.Static && !slices.Contains(keep, filter) {
			steps = append(steps, RemoveFilter{NIC: nic, MAC: filter.MAC})
		}
	}
	return steps
}

func intersect(a, b []Bucket) []Bucket {
	return slices.DeleteFunc(slices.Clone(a), func(x Bucket) bool { return !slices.Contains(b, x) })
}

// Subtract returns the buckets of a that are not in b.
func Subtract(a, b []Bucket) []Bucket { return subtract(a, b) }

func subtract[T comparable](a, b []T) []T {
	return slices.DeleteFunc(slices.Clone(a), func(x T) bool { return slices.Contains(b, x) })
}

func find[T any](all []T, is func(T) bool) (T, bool) {
	i := slices.IndexFunc(all, is)
	if i < 0 {
		var none T
		return none, false
	}
	return all[i], true
}
