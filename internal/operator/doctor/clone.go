package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
)

// cloneChecks look at the resource in the CIB.
func cloneChecks() []check {
	const group = "configuration"
	return []check{
		{group, "parameters", "With parameters that are wrong no bucket starts anywhere.", always, judgeParameters},
		{
			group, "unique", "Each instance is a hash bucket of its own. Instances that are not told apart, or a single one, do not share the work.",
			isConfigured, judgeUnique,
		},
		{
			group, "clone-node-max", "When a node dies the others must have room for its buckets, or nobody answers their clients. The default is 1.",
			isCloned, judgeNodeMax,
		},
		{
			group, "buckets", "With few buckets the work of a lost node cannot be spread: one node gets all of it, or nodes have nothing to do.",
			both(isCloned, func(s subject) bool { return len(s.cib.nodes(true)) > 0 }), judgeBuckets,
		},
		{
			group, "notify", "The agent needs no notifications. Each costs a call for each instance and phase, hundreds of them when a node fails.",
			isCloned, judgeNotify,
		},
		{
			group, "stickiness", "Buckets that stick stay piled up on the survivors after a node has come back.",
			isCloned, judgeStickiness,
		},
		{
			group, "failure-timeout", "When a node fails, Pacemaker forgets the first bucket's failure before the last bucket has left, tries the node again, and never comes to rest.",
			isConfigured, judgeFailureTimeout,
		},
		{
			group, "interleave", "Pacemaker interleaves clones only where interleave=true and clone-node-max is the same; else what fails on one node restarts the buckets of all.",
			both(isCloned, func(s subject) bool { return len(s.cib.partners(s.Configured.Clone)) > 0 }), judgeInterleave,
		},
		{
			group, "monitor", "Without a monitor nobody notices that an address, a rule or a link has gone. Its interval is how long such a fault lasts.",
			isConfigured, judgeMonitor,
		},
		{
			group, "timeouts", "An operation that is given up too soon counts as failed, and for a failed stop the node is fenced.",
			isConfigured, judgeTimeouts,
		},
		{group, "managed", "What Pacemaker does not manage it does not start, stop or mend.", isConfigured, judgeManaged},
	}
}

func judgeParameters(s subject) answer {
	var answers []answer
	if s.SpecErr != nil {
		answers = append(answers, fail(strings.Join(lines(s.SpecErr), "; "), s.update("NAME=VALUE   # pcs resource describe ocf:custom:clusterip")))
	}
	for _, name := range s.Unknown {
		meant := ""
		if known, found := metadata.Suggest(name); found {
			meant = "; is " + known + " meant?"
		}
		answers = append(answers, warn(fmt.Sprintf("parameter %s is unknown and has no effect%s", ocf.Quote(name), meant),
			s.update(name+"=   # takes it away")))
	}
	return all(fmt.Sprintf("%s, %s, %s", addressList(s.Spec.Addresses), s.Spec.HashMode, s.Spec.MACMode), answers...)
}

func addressList[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, one := range list {
		texts[i] = one.String()
	}
	return strings.Join(texts, ", ")
}

// waitUntilStopped comes after a command that disables a resource. pcs calls its own --wait deprecated from 0.12 on.
const waitUntilStopped = "crm_resource --wait --timeout=60s   # now pcs status must not show it"

func judgeUnique(s subject) answer {
	if !isCloned(s) {
		return warn("the resource is no clone: one node has the whole address, as with ocf:heartbeat:IPaddr2",
			fmt.Sprintf("pcs resource disable %s", s.name()), waitUntilStopped,
			fmt.Sprintf("pcs resource clone %s meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0", s.name()),
			fmt.Sprintf("pcs resource enable %s", s.name()))
	}
	switch fault := s.Configured.Fault; {
	case s.Configured.Unique == clusterip.No:
		return fail("globally-unique is not true", fmt.Sprintf("pcs resource meta %s globally-unique=true", s.cloneName()))
	case s.Configured.Unique == clusterip.CannotTell:
		return fail("globally-unique is not set, and the cluster's configuration does not tell whether Pacemaker takes it for true (dc-version)",
			fmt.Sprintf("pcs resource meta %s globally-unique=true", s.cloneName()))
	case fault != nil:
		return fail(fault.Error(), fmt.Sprintf("pcs resource meta %s clone-max=8   # while it is disabled", s.cloneName()))
	}
	if _, given := s.Configured.Meta["globally-unique"]; !given {
		return ok("globally-unique is true by default, clone-max=%d", s.Spec.Buckets)
	}
	return ok("globally-unique=true, clone-max=%d", s.Spec.Buckets)
}

func judgeNodeMax(s subject) answer {
	most, buckets, nodes := 1, int(s.Spec.Buckets), len(s.cib.nodes(true))
	text := s.Configured.Meta["clone-node-max"]
	if number, err := strconv.Atoi(text); err == nil {
		most = number
	}
	do := fmt.Sprintf("pcs resource meta %s clone-node-max=%d", s.cloneName(), buckets)
	seen := fmt.Sprintf("clone-node-max=%d with %d buckets and %d nodes", most, buckets, nodes)
	switch {
	case most >= buckets:
		return ok("%d: one node can have all buckets", most)
	case nodes > 1 && most*(nodes-1) >= buckets:
		return warn(seen+": enough after the loss of one node, not of more", do)
	default:
		return fail(seen+": after the loss of a node some have no place", do)
	}
}

func judgeBuckets(s subject) answer {
	buckets, nodes := int(s.Spec.Buckets), len(s.cib.nodes(true))
	const each = 2 // buckets of a node, at least
	advised := 4 * nodes
	do := []string{
		fmt.Sprintf("pcs resource disable %s", s.name()), waitUntilStopped,
		fmt.Sprintf("pcs resource meta %s clone-max=%d clone-node-max=%d", s.cloneName(), advised, advised),
		fmt.Sprintf("pcs resource enable %s", s.name()),
	}
	switch {
	case buckets < nodes:
		return warn(fmt.Sprintf("clone-max=%d for %d nodes: %d of them have nothing to do", buckets, nodes, nodes-buckets), do...)
	case nodes > 1 && buckets < each*nodes:
		return warn(fmt.Sprintf("clone-max=%d for %d nodes: the loss of one doubles another's work", buckets, nodes), do...)
	default:
		return ok("%d for %d nodes", buckets, nodes)
	}
}

func judgeNotify(s subject) answer {
	if ocf.IsTrue(s.Configured.Meta["notify"]) {
		return warn("notify=true", fmt.Sprintf("pcs resource meta %s notify=", s.cloneName()))
	}
	return ok("no notifications")
}

func judgeStickiness(s subject) answer {
	text, where, given := s.meta("resource-stickiness")
	do := fmt.Sprintf("pcs resource meta %s resource-stickiness=0", s.cloneName())
	switch {
	case !given:
		return warn("resource-stickiness is not set, and that of a clone is 1 by default", do)
	case text != "0":
		return warn("resource-stickiness="+text+where, do)
	default:
		return ok("0%s", where)
	}
}

// meta is a meta attribute of the resource or, with a word on that, of all resources.
func (s subject) meta(name string) (value, where string, given bool) {
	if value, given = s.Configured.Meta[name]; given {
		return value, "", true
	}
	value, given = first(s.cib.find("./rsc_defaults/meta_attributes/nvpair"), name)
	return value, " (of rsc_defaults)", given
}

func judgeFailureTimeout(s subject) answer {
	const shortest = 30 * time.Second // enough for hundreds of buckets to leave
	do := fmt.Sprintf("pcs resource meta %s failure-timeout=2min", s.name())
	text, where, given := s.meta("failure-timeout")
	timeout, isTime := parseTime(text)
	switch {
	case !given || isTime && timeout == 0:
		return ok("none: what failed waits for pcs resource cleanup")
	case !isTime:
		return warn(fmt.Sprintf("failure-timeout=%s%s is no time", text, where), do)
	case timeout < shortest:
		return warn(fmt.Sprintf("failure-timeout=%s%s", text, where), do)
	default:
		return ok("%s%s", timeout, where)
	}
}

func judgeInterleave(s subject) answer {
	var answers []answer
	for _, p := range s.cib.partners(s.Configured.Clone) {
		name := p.clone.SelectAttrValue("id", "")
		interleaves, _ := meta(p.clone, "interleave")
		nodeMax, given := meta(p.clone, "clone-node-max")
		if !given {
			nodeMax = "1"
		}
		ours := s.Configured.Meta["clone-node-max"]
		if ours == "" {
			ours = "1"
		}
		if ocf.IsTrue(interleaves) && ocf.IsTrue(s.Configured.Meta["interleave"]) && nodeMax == ours {
			continue
		}
		answers = append(answers, warn(fmt.Sprintf("constraint %s ties %s to %s, with clone-node-max=%s and interleave=%s", p.constraint, s.cloneName(), name, nodeMax, orNone(interleaves)),
			"pcs constraint delete "+p.constraint,
			"# and tie the buckets to a node attribute instead: pacemaker/examples/web-farm"))
	}
	return all("the constraints with other clones can be interleaved", answers...)
}

func orNone(text string) string {
	if text == "" {
		return "false"
	}
	return text
}

// Intervals of a monitor, within which it is of use.
const (
	longestMonitor  = time.Minute
	shortestMonitor = time.Second
)

func judgeMonitor(s subject) answer {
	advised := time.Duration(0)
	for _, action := range metadata.Actions() {
		if action.Name == "monitor" && (advised == 0 || action.Interval < advised) {
			advised = action.Interval
		}
	}
	do := fmt.Sprintf("pcs resource update %s op monitor interval=%ds", s.name(), int(advised.Seconds()))
	shortest := time.Duration(0)
	var answers []answer
	for _, op := range s.cib.operations(s.Configured.Name) {
		if op.name != "monitor" || op.interval == 0 || !op.enabled {
			continue
		}
		if shortest == 0 || op.interval < shortest {
			shortest = op.interval
		}
		if slices.Contains([]string{"ignore", "block"}, op.onFail) {
			answers = append(answers, warn(fmt.Sprintf("on-fail=%s: what the monitor sees has no consequence", op.onFail), do+" on-fail=restart"))
		}
	}
	switch {
	case shortest == 0:
		answers = append(answers, fail("no monitor operation is configured, or none that is enabled", do))
	case shortest > longestMonitor:
		answers = append(answers, warn(fmt.Sprintf("a monitor runs only every %s", shortest), do))
	case shortest < shortestMonitor:
		answers = append(answers, warn(fmt.Sprintf("a monitor of each bucket runs every %s", shortest), do))
	}
	return all(fmt.Sprintf("every %s", shortest), answers...)
}

func judgeTimeouts(s subject) answer {
	least := map[string]time.Duration{}
	for _, action := range metadata.Actions() {
		least[action.Name] = action.Timeout
	}
	var answers []answer
	for _, op := range s.cib.operations(s.Configured.Name) {
		needs := least[op.name]
		if op.timeout >= needs {
			continue
		}
		do := []string{fmt.Sprintf("pcs resource update %s op %s timeout=%ds", s.name(), op.name, int(needs.Seconds()))}
		if op.interval > 0 {
			// pcs changes the first operation of a name only, and of that it keeps nothing that is not said again.
			add := []string{fmt.Sprintf("pcs resource op add %s %s interval=%ds timeout=%ds", s.name(), op.name, int(op.interval.Seconds()), int(needs.Seconds()))}
			for _, option := range [][2]string{{"on-fail", op.onFail}, {"OCF_CHECK_LEVEL", op.level}} {
				if option[1] != "" {
					add = append(add, option[0]+"="+ocf.ShellQuote(option[1]))
				}
			}
			do = []string{"pcs resource op remove " + op.id, strings.Join(add, " ")}
		}
		answers = append(answers, warn(fmt.Sprintf("%s has a timeout of %s, %s are advised", op.name, op.timeout, needs), do...))
	}
	return all("long enough", answers...)
}

func judgeManaged(s subject) answer {
	var answers []answer
	if role := s.Configured.Meta["target-role"]; strings.EqualFold(role, "stopped") {
		answers = append(answers, warn("the resource is disabled (target-role=Stopped)", "pcs resource enable "+s.name()))
	}
	if managed, given := s.Configured.Meta["is-managed"]; given && !ocf.IsTrue(managed) {
		answers = append(answers, warn("the resource is not managed", "pcs resource manage "+s.name()))
	}
	if ocf.IsTrue(s.Configured.Meta["maintenance"]) {
		var commands []string
		for _, holder := range s.cib.holders(s.name(), "maintenance") {
			commands = append(commands, fmt.Sprintf("pcs resource meta %s maintenance=", holder))
		}
		if len(commands) == 0 { // a template has it, perhaps for others too
			commands = append(commands, fmt.Sprintf("pcs resource meta %s maintenance=false", s.name()))
		}
		answers = append(answers, warn("the resource is in maintenance (maintenance=true)", commands...))
	}
	return all("enabled and managed", answers...)
}

// laidChecks compare what is on this node with what is asked.
func laidChecks() []check {
	const group = "on this node"
	seen := func(s subject) bool { return s.State.Err == nil }
	return []check{
		{
			group, "as-laid", "The node does not serve the address as it should: it may be silent, or answer for other nodes' buckets.",
			always, judgeLaid,
		},
		{
			group, "agreement", "Nodes that disagree answer a client twice, or not at all. Each node is compared with the one CIB.",
			both(seen, func(s subject) bool { return s.State.Value.Tables.Laid != nil && s.SpecErr == nil }), judgeAgreement,
		},
		{
			group, "mac", "Two that share a MAC on one network take each other's packets, and a switch that learns it sends all packets to one node.",
			both(seen, func(s subject) bool { return len(s.Spec.Addresses) > 0 }), judgeMAC,
		},
	}
}

func judgeLaid(s subject) answer {
	if s.State.Err != nil {
		return cannotTell(s.State.Err, "nft list ruleset", "ip address")
	}
	// A refresh forgets what was seen, so that Pacemaker looks again; a cleanup would forget failures only, of which there may be none.
	again := fmt.Sprintf("OCF_RESKEY_ip=%s OCF_RESOURCE_INSTANCE=%s ocf-clusterip start   # mends it; with all other parameters", s.Spec.Address(), s.name())
	if isConfigured(s) {
		again = fmt.Sprintf("pcs resource refresh %s   # Pacemaker looks again, and a start mends it", s.Configured.ID())
	}
	tables := s.State.Value.Tables
	switch {
	case len(tables.Foreign) > 0:
		return fail(strings.Join(tables.Foreign, ", ")+" has our name, but is not ours", "nft list ruleset   # look at it, and delete it")
	case tables.Laid != nil:
		if faults := clusterip.Faults(s.State.Value, *tables.Laid, false); len(faults) > 0 {
			return fail(strings.Join(faults, "; "), again)
		}
		return ok("all is as laid; buckets %s", bucketList(tables.Owned))
	case tables.Present:
		return fail(strings.Join(tables.Damage, "; "), again)
	}
	if left := clusterip.Leftovers(s.State.Value, s.Spec.NIC); len(left) > 0 {
		return fail("our rules are gone, and this is left: "+strings.Join(left, ", "), again)
	}
	return ok("nothing is laid here")
}

func bucketList(buckets []clusterip.Bucket) string {
	if len(buckets) == 0 {
		return "none"
	}
	texts := make([]string, len(buckets))
	for i, b := range buckets {
		texts[i] = fmt.Sprint(b)
	}
	return strings.Join(texts, ",")
}

func judgeAgreement(s subject) answer {
	laid := *s.State.Value.Tables.Laid
	if s.Origin == FromKernel && s.cib.configuration != nil {
		return fail(fmt.Sprintf("%s is laid here, but the cluster does not know it", s.name()),
			fmt.Sprintf("OCF_RESKEY_ip=%s OCF_RESOURCE_INSTANCE=%s:0 ocf-clusterip stop   # once for each bucket", s.Spec.Address(), s.name()))
	}
	asked := s.Spec.Layout()
	differences := laid.Disagreements(asked)
	if asked.Drains && !laid.Drains { // switched off, the drains that are under way go on
		differences = append(differences, "drain is set, and no connection would survive a move")
	}
	if len(differences) > 0 {
		if s.Configured == nil {
			return fail(strings.Join(differences, "; "), "# what is laid is another thing: stop it first")
		}
		return fail(strings.Join(differences, "; "), "pcs resource disable "+s.name(), waitUntilStopped, "pcs resource enable "+s.name())
	}
	return ok("what is laid is what is asked")
}

// canonical is the name that the kernel calls an interface by, of any of its names.
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
			answers = append(answers, fail(fmt.Sprintf("the cluster MAC %s is that of %s itself", nic.MAC, nic.Name), change))
		}
	}
	for _, other := range s.Resources {
		if other.name() == s.name() {
			continue
		}
		for _, address := range s.Spec.Addresses {
			if slices.Contains(other.Spec.Addresses, address) {
				answers = append(answers, fail(fmt.Sprintf("%s has the address %s too", other.name(), address), fmt.Sprintf("pcs resource update %s ip=…", other.name())))
			}
		}
		sameNIC := s.Spec.NIC == "" || other.Spec.NIC == "" || s.canonical(s.Spec.NIC) == s.canonical(other.Spec.NIC)
		for _, mac := range (clusterip.Layout{MACs: other.Spec.MACs}).AllMACs() {
			if sameNIC && slices.Contains(macs, mac) {
				answers = append(answers, fail(fmt.Sprintf("%s has the MAC %s too", other.name(), mac), change))
			}
		}
	}
	return all(addressList(macs), answers...)
}
