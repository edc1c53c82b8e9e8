package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/text"
)

// installedChecks compare what is installed on this node with what is requested.
func installedChecks() []check {
	const group = "on this node"
	seen := func(s subject) bool { return s.State.Err == nil }
	return []check{
		{
			group, "installed", "The node does not serve the address correctly: it may not answer, or answer for other nodes' buckets.",
			always, judgeInstalled,
		},
		{
			group, "agreement", "Nodes that differ answer a client twice, or not at all. Each node is compared with the CIB, which they share.",
			both(seen, func(s subject) bool { return s.State.Value.Tables.Installed != nil && s.SpecErr == nil }), judgeAgreement,
		},
		{
			group, "early-drop",
			"Without it a foreign packet costs several times as much, and a node that has lost its tables may answer for all buckets.",
			both(seen, func(s subject) bool {
				return s.layout.Backend == clusterip.NFTables && len(s.State.Value.Tables.Owned) > 0
			}), judgeEarlyDrop,
		},
		{
			group, "mac",
			"Two resources with the same MAC on one network receive each other's packets. If it is an interface's own MAC, switches learn it and " +
				"send all packets to one node.",
			both(seen, func(s subject) bool { return len(s.Spec.Addresses) > 0 }), judgeMAC,
		},
	}
}

func judgeInstalled(s subject) answer {
	if s.State.Err != nil {
		return unknown(s.State.Err, "nft list ruleset", "ip address")
	}
	// A refresh makes Pacemaker probe the resource again. A cleanup would only clear failures, and there may be none.
	again := fmt.Sprintf("OCF_RESKEY_ip=%s OCF_RESOURCE_INSTANCE=%s ocf-clusterip start   # repairs it; add all other parameters",
		s.Spec.Address(), s.name())
	if isConfigured(s) {
		again = fmt.Sprintf("pcs resource refresh %s   # Pacemaker probes again, and start repairs it", s.Configured.ID())
	}
	tables := s.State.Value.Tables
	switch {
	case len(tables.Conflicting) > 0:
		return fail("the agent did not install "+strings.Join(tables.Conflicting, ", ")+", which has its name",
			"nft list ruleset   # shows it; delete it")
	case tables.Installed != nil:
		if faults := clusterip.Faults(s.State.Value, *tables.Installed, false); len(faults) > 0 {
			return fail(strings.Join(faults, "; "), again)
		}
		return ok("without faults; buckets: %s", cmp.Or(text.Join(tables.Owned, ","), "none"))
	case tables.Present:
		return fail(strings.Join(tables.Faults, "; "), again)
	}
	if left := clusterip.Leftovers(s.State.Value, s.Spec.NIC); len(left) > 0 {
		return fail("the agent's tables are gone, and this is left: "+strings.Join(left, ", "), again)
	}
	return ok("nothing is installed here")
}

// judgeEarlyDrop returns where the BPF program is, and why not in a better place. What is wrong with it is for judgeInstalled.
func judgeEarlyDrop(s subject) answer {
	state := s.State.Value
	early := state.EarlyDrop
	why := s.NoXDP.Value
	if why == "" {
		why = "the log of the first start on this node shows why (early_drop)"
	}
	switch {
	case s.Spec.EarlyDrop == clusterip.EarlyDropOff:
		return ok("off, as configured")
	case s.Spec.EarlyDrop != clusterip.EarlyDropAuto && !early.Judges():
		return ok("off, although %s is configured: see \"installed\" above", s.Spec.EarlyDrop)
	case s.NoXDP.Err != nil:
		return unknown(s.NoXDP.Err)
	case !early.Judges():
		return ok("off: %s", why)
	case early.Attached == clusterip.EarlyDropTC && s.Spec.EarlyDrop == clusterip.EarlyDropAuto:
		return ok("at tc, %d packets dropped; not as XDP: %s", early.Dropped.Packets, why)
	default:
		return ok("at %s, %d packets dropped", early.Attached, early.Dropped.Packets)
	}
}

func judgeAgreement(s subject) answer {
	installed := *s.State.Value.Tables.Installed
	if s.Origin == FromKernel && s.cib.configuration != nil {
		return fail(s.name()+" is installed here, but is not in the cluster's configuration",
			fmt.Sprintf("OCF_RESKEY_ip=%s OCF_RESOURCE_INSTANCE=%s:0 ocf-clusterip stop   # once for each bucket", s.Spec.Address(), s.name()))
	}
	asked := s.Spec.Layout()
	differences := installed.Disagreements(asked)
	if asked.Drains && !installed.Drains { // the other way round, the drains that have begun continue
		differences = append(differences, "drain is set, but the tables are without it: no connection would survive a move")
	}
	if len(differences) > 0 {
		if s.Configured == nil {
			return fail(strings.Join(differences, "; "), "# the installed resource has other parameters: stop it first")
		}
		return fail(strings.Join(differences, "; "), "pcs resource disable "+s.name(), waitUntilStopped, "pcs resource enable "+s.name())
	}
	return ok("the same as requested")
}

// canonical returns the kernel's name of an interface, of any of its names.
func (s subject) canonical(name string) string {
	if nic, ok := s.State.Value.NICNamed(name); ok {
		return nic.Name
	}
	return name
}

func judgeMAC(s subject) answer {
	var answers []answer
	macs := clusterip.Layout{MACs: s.Spec.MACs}.AllMACs()
	change := s.update("mac=…")
	for _, nic := range s.State.Value.NICs {
		if slices.Contains(macs, nic.MAC) {
			answers = append(answers, fail(fmt.Sprintf("the shared MAC %s is also the own MAC of %s", nic.MAC, nic.Name), change))
		}
	}
	for _, other := range s.Resources {
		if other.name() == s.name() {
			continue
		}
		for _, address := range s.Spec.Addresses {
			if slices.Contains(other.Spec.Addresses, address) {
				answers = append(answers, fail(fmt.Sprintf("%s has the address %s too", other.name(), address),
					fmt.Sprintf("pcs resource update %s ip=…", other.name())))
			}
		}
		sameNIC := s.Spec.NIC == "" || other.Spec.NIC == "" || s.canonical(s.Spec.NIC) == s.canonical(other.Spec.NIC)
		for _, mac := range (clusterip.Layout{MACs: other.Spec.MACs}).AllMACs() {
			if sameNIC && slices.Contains(macs, mac) {
				answers = append(answers, fail(fmt.Sprintf("%s has the MAC %s too", other.name(), mac), change))
			}
		}
	}
	return all(text.Join(macs, ", "), answers...)
}
