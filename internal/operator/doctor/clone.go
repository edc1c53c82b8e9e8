package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/internal/text"
)

// cloneChecks check the resource in the CIB.
func cloneChecks() []check {
	const group = "configuration"
	return []check{
		{group, "parameters", "With wrong parameters no bucket starts on any node.", always, judgeParameters},
		{
			group, "hash-seed",
			"Who knows the seed can choose source addresses whose packets all reach one node. The default seed follows from the address, which " +
				"everybody knows.",
			func(s subject) bool { return len(s.Spec.Addresses) > 0 }, judgeSeed,
		},
		{
			group, "unique", "Each instance is one bucket of the hash. Only the instances of a globally unique clone share the work.",
			isConfigured, judgeUnique,
		},
		{
			group, "clone-node-max",
			"When a node fails, the remaining nodes must have room for its buckets, or these stay unowned. The default is 1.",
			isCloned, judgeNodeMax,
		},
		{
			group, "buckets", "With few buckets the work of a failed node cannot be spread: one node gets all of it, or some nodes have no bucket.",
			both(isCloned, func(s subject) bool { return len(s.cib.nodes(true)) > 0 }), judgeBuckets,
		},
		{
			group, "notify", "The agent needs no notifications. Each costs an action for each instance and phase: hundreds when a node fails.",
			isCloned, judgeNotify,
		},
		{
			group, "stickiness", "With stickiness, buckets stay on the remaining nodes after a failed node has come back.",
			isCloned, judgeStickiness,
		},
		{
			group, "failure-timeout",
			"With a short failure-timeout, the failure of a node's first bucket expires before its last bucket has moved. Pacemaker then tries " +
				"the node again, without end.",
			isConfigured, judgeFailureTimeout,
		},
		{
			group, "interleave",
			"Pacemaker interleaves clones only if both have interleave=true and the same clone-node-max. Otherwise a failure on one node restarts " +
				"the buckets on all nodes.",
			both(isCloned, func(s subject) bool { return len(s.cib.partners(s.Configured.Clone)) > 0 }), judgeInterleave,
		},
		{
			group, "monitor", "Without a monitor no fault is found and repaired. A fault may last as long as the monitor's interval.",
			isConfigured, judgeMonitor,
		},
		{
			group, "timeouts", "An operation that exceeds its timeout counts as failed. For a failed stop the node is fenced.",
			isConfigured, judgeTimeouts,
		},
		{group, "managed", "Pacemaker does not start, stop or repair an unmanaged resource.", isConfigured, judgeManaged},
	}
}

func judgeSeed(s subject) answer {
	public, is := clusterip.FirstPublic(s.Spec.Addresses)
	switch {
	case !is:
		return ok("the address is not public")
	case clusterip.IsGuessable(s.Spec.Seed, s.Spec.Address()):
		return warn(fmt.Sprintf("%s is a public address, and the seed can be guessed", public),
			"ocf-clusterip plan --nodes 3 --to "+public.String()+"   # proposes a random one",
			"# another seed needs all buckets stopped: disable the resource first", s.update("hash_seed=…"))
	default:
		return ok("not the default")
	}
}

func judgeParameters(s subject) answer {
	var answers []answer
	if s.SpecErr != nil {
		answers = append(answers, failed(s.SpecErr, s.update("NAME=VALUE   # pcs resource describe ocf:custom:clusterip")))
	}
	for _, name := range s.Unknown {
		meant := ""
		if known, found := metadata.Suggest(name); found {
			meant = "; did you mean " + known + "?"
		}
		answers = append(answers, warn(fmt.Sprintf("parameter %s is unknown and has no effect%s", ocf.Quote(name), meant),
			s.update(name+"=   # removes it")))
	}
	return all(fmt.Sprintf("%s, %s, %s", text.Join(s.Spec.Addresses, ", "), s.Spec.HashMode, s.Spec.MACMode), answers...)
}

// waitUntilStopped follows a command that disables a resource. pcs's own --wait is deprecated from 0.12 on.
const waitUntilStopped = "crm_resource --wait --timeout=60s   # now pcs status must not show it"

func judgeUnique(s subject) answer {
	if !isCloned(s) {
		return warn("the resource is not a clone: one node has the whole address, as with ocf:heartbeat:IPaddr2",
			fmt.Sprintf("pcs resource disable %s", s.name()), waitUntilStopped,
			fmt.Sprintf("pcs resource clone %s meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0", s.name()),
			fmt.Sprintf("pcs resource enable %s", s.name()))
	}
	switch fault := s.Configured.Fault; {
	case s.Configured.Unique == clusterip.No:
		return fail("globally-unique is not true", fmt.Sprintf("pcs resource meta %s globally-unique=true", s.cloneName()))
	case s.Configured.Unique == clusterip.Unknown:
		return fail("globally-unique is not set; its default depends on Pacemaker's version, which is not in the CIB (dc-version)",
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
		return ok("%d: one node can own all buckets", most)
	case nodes > 1 && most*(nodes-1) >= buckets:
		return warn(seen+": enough if one node fails, but not more", do)
	default:
		return fail(seen+": if a node fails, some buckets stay unowned", do)
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
		return warn(fmt.Sprintf("clone-max=%d for %d nodes: %d of them own no bucket", buckets, nodes, nodes-buckets), do...)
	case nodes > 1 && buckets < each*nodes:
		return warn(fmt.Sprintf("clone-max=%d for %d nodes: if one fails, another one's work doubles", buckets, nodes), do...)
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
		return warn("resource-stickiness is not set; a clone's default is 1", do)
	case text != "0":
		return warn("resource-stickiness="+text+where, do)
	default:
		return ok("0%s", where)
	}
}

// meta returns a meta attribute of the resource or, with a remark in where, of rsc_defaults.
func (s subject) meta(name string) (value, where string, given bool) {
	if value, given = s.Configured.Meta[name]; given {
		return value, "", true
	}
	value, given = first(s.cib.find("./rsc_defaults/meta_attributes/nvpair"), name)
	return value, " (of rsc_defaults)", given
}

func judgeFailureTimeout(s subject) answer {
	const shortest = 30 * time.Second // enough for hundreds of buckets to move
	do := fmt.Sprintf("pcs resource meta %s failure-timeout=2min", s.name())
	text, where, given := s.meta("failure-timeout")
	timeout, isTime := pacemaker.ParseTime(text)
	switch {
	case !given || isTime && timeout == 0:
		return ok("none: failures stay until pcs resource cleanup")
	case !isTime:
		return warn(fmt.Sprintf("failure-timeout=%s%s is not a time", text, where), do)
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
		ours := cmp.Or(s.Configured.Meta["clone-node-max"], "1")
		if ocf.IsTrue(interleaves) && ocf.IsTrue(s.Configured.Meta["interleave"]) && nodeMax == ours {
			continue
		}
		answers = append(answers, warn(
			fmt.Sprintf("constraint %s ties %s to %s, which has clone-node-max=%s and interleave=%s",
				p.constraint, s.cloneName(), name, nodeMax, cmp.Or(interleaves, "false")),
			"pcs constraint delete "+p.constraint, "# and tie the buckets to a node attribute instead: pacemaker/examples/web-farm"))
	}
	return all("the constraints with other clones can be interleaved", answers...)
}

// The limits of a useful monitor interval.
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
			answers = append(answers,
				warn(fmt.Sprintf("on-fail=%s: Pacemaker does not repair what the monitor finds", op.onFail), do+" on-fail=restart"))
		}
	}
	switch {
	case shortest == 0:
		answers = append(answers, fail("no monitor operation is configured and enabled", do))
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
			// pcs changes only the first operation of a name, and resets its options that are not given.
			add := []string{fmt.Sprintf("pcs resource op add %s %s interval=%ds timeout=%ds",
				s.name(), op.name, int(op.interval.Seconds()), int(needs.Seconds()))}
			for _, option := range [][2]string{{"on-fail", op.onFail}, {"OCF_CHECK_LEVEL", op.level}} {
				if option[1] != "" {
					add = append(add, option[0]+"="+text.ShellQuote(option[1]))
				}
			}
			do = []string{"pcs resource op remove " + op.id, strings.Join(add, " ")}
		}
		answers = append(answers, warn(fmt.Sprintf("%s has a timeout of %s; at least %s is recommended", op.name, op.timeout, needs), do...))
	}
	return all("long enough", answers...)
}

func judgeManaged(s subject) answer {
	var answers []answer
	if role := s.Configured.Meta["target-role"]; strings.EqualFold(role, "stopped") {
		answers = append(answers, warn("the resource is disabled (target-role=Stopped)", "pcs resource enable "+s.name()))
	}
	if managed, given := s.Configured.Meta["is-managed"]; given && !ocf.IsTrue(managed) {
		answers = append(answers, warn("the resource is unmanaged", "pcs resource manage "+s.name()))
	}
	if ocf.IsTrue(s.Configured.Meta["maintenance"]) {
		var commands []string
		for _, holder := range s.cib.holders(s.name(), "maintenance") {
			commands = append(commands, fmt.Sprintf("pcs resource meta %s maintenance=", holder))
		}
		if len(commands) == 0 { // a template has it, perhaps also for other resources
			commands = append(commands, fmt.Sprintf("pcs resource meta %s maintenance=false", s.name()))
		}
		answers = append(answers, warn("the resource is in maintenance mode (maintenance=true)", commands...))
	}
	return all("enabled and managed", answers...)
}
