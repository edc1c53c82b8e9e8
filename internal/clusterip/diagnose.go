package clusterip

import (
	"fmt"
	"slices"
)

// Faults lists in words what keeps the node from serving the layout as it should. It is empty exactly when the shared part
// is as laid; which buckets are owned is another question. Whether connections survive moves is no fault either way: while Pacemaker reloads
// one instance after the other, the others' monitors see what the first has laid.
func Faults(seen State, layout Layout, checkLink bool) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, foreign := range seen.Tables.Foreign {
		fault("%s is not ours, but has our name", foreign)
	}
	faults = append(faults, seen.Tables.Damage...)
	switch laid := seen.Tables.Laid; {
	case !seen.Tables.Present:
		fault("our rules are gone")
	case laid == nil: // said in Damage
	default:
		faults = append(faults, laid.Disagreements(layout)...)
		if laid.NIC != layout.NIC || laid.NICIndex != layout.NICIndex {
			fault("our tables are on %s (index %d), asked is %s (index %d)", laid.NIC, laid.NICIndex, layout.NIC, layout.NICIndex)
		}
	}
	faults = append(faults, addressFaults(seen, layout)...)
	filters, groups := wanted(layout)
	for _, filter := range filters {
		if !slices.Contains(seen.Filters, filter) {
			fault("%s no longer lets the cluster MAC %s in", layout.NIC, filter.MAC)
		}
	}
	for _, group := range groups {
		if !seen.isMember(group) {
			fault("%s is no longer a member of the multicast group %s", layout.NIC, group.Prefix.Addr())
		}
	}
	if nic, ok := seen.nicAt(layout.NICIndex); ok && checkLink {
		if why := nic.linkFault(); why != "" {
			fault("%s", why)
		}
	}
	return faults
}

func addressFaults(seen State, layout Layout) []string {
	var faults []string
	for _, address := range seen.Addresses {
		if address.NICIndex != layout.NICIndex || !slices.Contains(layout.Prefixes, address.Prefix) {
			faults = append(faults, fmt.Sprintf("%s is on %s, where it should not be", address.Prefix, seen.nicName(address.NICIndex)))
		} else if address.Tentative {
			faults = append(faults, fmt.Sprintf("%s is on %s, but the kernel does not use it (tentative, or dadfailed: another host has it)",
				address.Prefix, seen.nicName(address.NICIndex)))
		}
	}
	for _, prefix := range layout.Prefixes {
		if !slices.ContainsFunc(seen.Addresses, func(a Address) bool { return a.NICIndex == layout.NICIndex && a.Prefix == prefix }) {
			faults = append(faults, fmt.Sprintf("address %s is missing on %s", prefix, layout.NIC))
		}
	}
	return faults
}

// linkFault says why no packet can pass the NIC; empty if nothing is known to be in the way.
func (n NIC) linkFault() string {
	switch {
	case !n.Up:
		return fmt.Sprintf("%s is down (ip link set %s up)", n.Name, n.Name)
	case !n.Running:
		return fmt.Sprintf("%s has no carrier; look at its cable and switch port", n.Name)
	default:
		return ""
	}
}

// Leftovers lists in words everything of the resource that is on the node.
func Leftovers(seen State, asked string) []string {
	var left []string
	for _, step := range planRemoval(seen, Goal{NIC: asked}) {
		switch step := step.(type) {
		case Disown:
			left = append(left, fmt.Sprintf("buckets %s", list(step.Buckets)))
		case RemoveAddress:
			left = append(left, fmt.Sprintf("%s on %s", step.Prefix, step.NIC.Name))
		case RemoveFilter:
			left = append(left, fmt.Sprintf("MAC filter %s on %s", step.MAC, step.NIC.Name))
		case RemoveTables:
			left = append(left, fmt.Sprintf("our rules (backend %s)", seen.Tables.Backend))
		}
	}
	return left
}
