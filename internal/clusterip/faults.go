package clusterip

import (
	"fmt"
	"slices"
)

// Faults returns what differs between the state and a layout, in words. It is empty if everything that the buckets share is as installed.
// The owned buckets are not part of it, nor whether there are rules for drains: while Pacemaker reloads one instance after the other, the
// monitors of the others see what the first has installed.
func Faults(seen State, layout Layout, checkLink bool) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, foreign := range seen.Tables.Conflicting {
		fault("the agent did not install %s, which has its name", foreign)
	}
	faults = append(faults, seen.Tables.Faults...)
	switch installed := seen.Tables.Installed; {
	case !seen.Tables.Present:
		fault("the agent's tables are gone")
	case installed == nil: // it is in Tables.Faults
	default:
		faults = append(faults, installed.Disagreements(layout)...)
		if installed.NIC != layout.NIC || installed.NICIndex != layout.NICIndex {
			fault(
				"the agent's tables are on %s (index %d), requested is %s (index %d)", installed.NIC, installed.NICIndex, layout.NIC, layout.NICIndex,
			)
		}
	}
	faults = append(faults, earlyDropFaults(seen)...)
	faults = append(faults, addressFaults(seen, layout)...)
	filters, groups := wanted(layout)
	for _, filter := range filters {
		if !slices.Contains(seen.Filters, filter) {
			fault("%s no longer receives frames for the shared MAC %s", layout.NIC, filter.MAC)
		}
	}
	for _, group := range groups {
		if !seen.isMember(group) {
			fault("%s is no longer a member of the multicast group %s", layout.NIC, group.Prefix.Addr())
		}
	}
	if nic, ok := seen.NICAt(layout.NICIndex); ok && checkLink {
		if why := seen.LinkFault(nic); why != "" {
			fault("%s", why)
		}
	}
	return faults
}

func addressFaults(seen State, layout Layout) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	wanted := layout.onNIC()
	for _, address := range seen.Addresses {
		nic := seen.NICName(address.NICIndex)
		switch is := func(want Address) bool {
			return want.NICIndex == address.NICIndex && want.Prefix == address.Prefix && want.HostScope == address.HostScope
		}; {
		case !slices.ContainsFunc(wanted, is) && address.NICIndex == layout.NICIndex && address.Prefix.Addr().Is4():
			fault(
				"%s is on %s, where it should not be: the node's own connections may come from it, and other nodes get the answers", address.Prefix,
				nic,
			)
		case !slices.ContainsFunc(wanted, is):
			fault("%s is on %s, where it should not be", address.Prefix, nic)
		case address.Tentative:
			fault("%s is on %s, but the kernel does not use it (tentative, or dadfailed: another host has it)", address.Prefix, nic)
		}
	}
	for _, address := range wanted {
		if !slices.ContainsFunc(seen.Addresses, address.excludes) {
			fault("address %s is missing on %s", address.Prefix, layout.NIC)
		}
	}
	nic, ok := seen.NICAt(layout.NICIndex)
	for _, route := range layout.routes() {
		// Any connected route to the network, or a wider one, is enough: after the interface was down, only start installs ours again.
		reaches := func(r Route) bool {
			return r.NICIndex == route.NICIndex && r.Prefix.Bits() <= route.Prefix.Bits() && r.Prefix.Contains(route.Prefix.Addr())
		}
		if ok && nic.Up && !slices.ContainsFunc(slices.Concat(seen.Routes, seen.Connected), reaches) {
			fault("the connected route to %s is missing on %s, so that no client in it is reached", route.Prefix, layout.NIC)
		}
	}
	return faults
}

// Leftovers returns everything of the resource that is on the node, in words.
func Leftovers(seen State, asked string) []string {
	var left []string
	for _, step := range planRemoval(seen, Goal{NIC: asked}) {
		switch step := step.(type) {
		case ChangeBuckets:
			left = append(left, fmt.Sprintf("buckets %s", FormatBuckets(step.Release)))
		case RemoveAddress:
			left = append(left, fmt.Sprintf("%s on %s", step.Prefix, step.NIC.Name))
		case RemoveRoute:
			left = append(left, fmt.Sprintf("route to %s on %s", step.Route.Prefix, step.NIC.Name))
		case RemoveFilter:
			left = append(left, fmt.Sprintf("MAC filter %s on %s", step.MAC, step.NIC.Name))
		case RemoveEarlyDrop:
			if seen.EarlyDrop.Judges() {
				left = append(left, fmt.Sprintf("early drop on %s", seen.NICName(step.NICIndex)))
			}
		case RemoveTables:
			left = append(left, fmt.Sprintf("the agent's tables (backend %s)", seen.Tables.Backend))
		}
	}
	return left
}
