package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// clusterChecks check the cluster as a whole.
func clusterChecks() []check {
	const group = "cluster"
	hasCluster := func(s subject) bool { return s.Pacemaker }
	hasCIB := func(s subject) bool { return s.Pacemaker && s.Configuration.Err == nil }
	hasCorosync := func(s subject) bool {
		_, err := s.corosync()
		return s.Pacemaker && err == nil
	}
	return []check{
		{group, "cib", "Without the cluster's configuration this node cannot be compared with it.", hasCluster, judgeCIB},
		{
			group, "resources", "No shared address is installed or configured here, so only the cluster itself can be checked.",
			func(s subject) bool { return len(s.Resources) == 0 && (hasCIB(s) || s.InstalledErr != nil) }, judgeResources,
		},
		{
			group, "fencing",
			"A lost node may continue to answer. Only fencing makes sure that it does not: without fencing clients may get two answers.",
			hasCIB, judgeFencing,
		},
		{
			group, "quorum-policy", "Each part of a split cluster would continue, and start the buckets of the other part.",
			hasCIB, judgeQuorumPolicy,
		},
		{
			group, "maintenance", "In maintenance mode Pacemaker repairs nothing, and moves no bucket from a failed node.",
			hasCIB, judgeMaintenance,
		},
		{group, "corosync", "Corosync does not start with a configuration that it cannot read.", hasCluster, judgeCorosync},
		{
			group, "nodes", "Quorum counts the nodes in corosync.conf, the scheduler those in the CIB: they must be the same.",
			both(hasCIB, hasCorosync), judgeNodes,
		},
		{
			group, "quorum",
			"Two nodes need two_node, or the loss of one stops the other. More nodes must not have it, or each part of a split cluster continues.",
			hasCorosync, judgeQuorum,
		},
		{
			group, "token",
			"The token time is most of a failover's, in which the failed node's clients get no answer. If it is too short, busy nodes are fenced.",
			hasCorosync, judgeToken,
		},
		{group, "links", "With a single link, healthy nodes are fenced when a switch fails.", hasCorosync, judgeLinks},
	}
}

func judgeCIB(s subject) answer {
	if s.Configuration.Err != nil {
		return unknown(s.Configuration.Err, "pcs cluster status", "pcs cluster start")
	}
	return ok("read; nodes: %s", strings.Join(s.cib.nodes(true), ", "))
}

func judgeResources(s subject) answer {
	if s.InstalledErr != nil {
		return unknown(s.InstalledErr, "nft list ruleset", "ip address")
	}
	return warn("the cluster has no resource of this agent, and nothing is installed on this node",
		"ocf-clusterip doctor --ip ADDRESS   # checks whether the address could be shared")
}

func judgeFencing(s subject) answer {
	version := pacemaker.SchedulerVersion(s.cib.configuration)
	effective, idle := pacemaker.FencingSwitch(s.cib.configuration)
	unset := func(setting pacemaker.Setting) string { return "pcs property unset " + setting.Name }
	why := ""
	if len(effective) > 1 && !version.Known() {
		why = "; which name has an effect depends on Pacemaker's version, which is not in the CIB (dc-version)"
	}
	var off, doubts []answer
	for _, setting := range pacemaker.FencingOff(s.cib.configuration) {
		off = append(off, fail(fmt.Sprintf("fencing is disabled (%s)%s", setting, why), unset(setting)))
	}
	if len(off) > 0 {
		return all("", off...)
	}
	for _, setting := range effective {
		if _, isBoolean := ocf.Boolean(setting.Value); !isBoolean {
			doubts = append(doubts, warn(
				fmt.Sprintf("%s=%s is not a boolean: Pacemaker uses the default, true", setting.Name, ocf.Quote(setting.Value)), unset(setting)))
		}
	}
	for _, setting := range idle {
		if enabled, isBoolean := ocf.Boolean(setting.Value); enabled || !isBoolean {
			continue
		}
		why := fmt.Sprintf("would disable fencing from Pacemaker 3.0.2 on; the cluster has %s", version)
		if setting.Name == "stonith-enabled" {
			why = fmt.Sprintf("has no effect beside %s", effective[0])
		}
		doubts = append(doubts, warn(fmt.Sprintf("%s %s", setting, why), unset(setting)))
	}
	devices := judgeFenceDevices(s)
	return all(devices.seen, append(doubts, devices)...)
}

func judgeFenceDevices(s subject) answer {
	usable, off := s.cib.fenceDevices()
	if len(usable) > 0 {
		return ok("enabled, with %s", strings.Join(usable, ", "))
	}
	watchdog := judgeWatchdog(s)
	switch {
	case watchdog.result == OK && watchdog.seen != "":
		return watchdog
	case len(off) > 0:
		return fail("all fencing devices are disabled: "+strings.Join(off, ", "), "pcs stonith enable "+off[0])
	default:
		const create = "pcs stonith create fence-NODE fence_ipmilan ip=… username=… password=… pcmk_host_list=NODE   # for each node"
		watchdog.seen = strings.TrimSuffix("there is no fencing device; "+watchdog.seen, "; ")
		return fail(watchdog.seen, create)
	}
}

// judgeWatchdog checks whether lost nodes count as dead after a time in which their watchdog has stopped them. The answer has no text if
// that is not configured.
func judgeWatchdog(s subject) answer {
	settings, _, set := pacemaker.FencingSettings(s.cib.configuration, "fencing-watchdog-timeout", "stonith-watchdog-timeout")
	for _, setting := range settings {
		// A negative one stands for twice the watchdog's own timeout. Versions differ in how they read other values.
		timeout, isTime := pacemaker.ParseTime(strings.TrimPrefix(setting.Value, "-"))
		switch {
		case isTime && timeout == 0:
			return answer{}
		case !isTime:
			return warn(fmt.Sprintf("%s=%s is not a time", setting.Name, ocf.Quote(setting.Value)))
		}
	}
	switch {
	case len(settings) == 0:
		return answer{}
	case !set:
		return warn(fmt.Sprintf("%s may have no effect: only Pacemaker 3.0.2 and later have this name, and the version is not in the CIB",
			settings[0]))
	case s.cib.property("have-watchdog", "true") == "false":
		return warn(fmt.Sprintf("%s, but there is no watchdog (have-watchdog=false)", settings[0]))
	default:
		return ok("enabled, with a watchdog (%s)", settings[0])
	}
}

func judgeQuorumPolicy(s subject) answer {
	policy := s.cib.property("no-quorum-policy", "stop")
	if policy == "ignore" {
		return fail("no-quorum-policy=ignore", "pcs property set no-quorum-policy=stop   # with two nodes, set two_node in corosync.conf instead")
	}
	return ok("no-quorum-policy=%s", policy)
}

func judgeMaintenance(s subject) answer {
	var answers []answer
	if ocf.IsTrue(s.cib.property("maintenance-mode", "false")) {
		answers = append(answers, warn("the cluster is in maintenance mode", "pcs property set maintenance-mode=false"))
	}
	if ocf.IsTrue(s.cib.property("stop-all-resources", "false")) {
		answers = append(answers, warn("all resources are stopped (stop-all-resources)", "pcs property set stop-all-resources=false"))
	}
	for _, node := range s.cib.find("./nodes/node") {
		name := node.SelectAttrValue("uname", "")
		pairs := node.FindElements("./instance_attributes/nvpair")
		if value, _ := first(pairs, "maintenance"); ocf.IsTrue(value) {
			answers = append(answers, warn(name+" is in maintenance mode", "pcs node unmaintenance "+name))
		}
		if value, _ := first(pairs, "standby"); ocf.IsTrue(value) {
			answers = append(answers, warn(name+" is in standby", "pcs node unstandby "+name))
		}
	}
	return all("no node is in maintenance mode or standby", answers...)
}

// corosync returns the parsed corosync.conf.
func (s subject) corosync() (*section, error) {
	if s.Corosync.Err != nil {
		return nil, s.Corosync.Err
	}
	return parseCorosync(s.Corosync.Value)
}

func judgeCorosync(s subject) answer {
	conf, err := s.corosync()
	switch {
	case s.Corosync.Err != nil:
		return unknown(err, "ls -l /etc/corosync/corosync.conf")
	case err != nil:
		return fail("corosync.conf: "+err.Error(), "corosync -t")
	case len(conf.nodes()) == 0:
		return warn("corosync.conf has no nodelist", "man corosync.conf")
	default:
		return ok("corosync.conf is readable; nodes: %d", len(conf.nodes()))
	}
}

func judgeNodes(s subject) answer {
	conf, _ := s.corosync()
	var names []string
	for _, node := range conf.nodes() {
		names = append(names, node.name)
	}
	known := s.cib.nodes(false)
	var answers []answer
	for _, name := range names {
		if name != "" && !slices.Contains(known, name) {
			answers = append(answers, warn(fmt.Sprintf("%s is in corosync.conf, but not in the CIB", name), "pcs cluster start "+name))
		}
	}
	for _, name := range known {
		if !slices.Contains(names, name) && !slices.Contains(names, "") {
			answers = append(answers, warn(fmt.Sprintf("%s is in the CIB, but not in corosync.conf", name), "crm_node --force --remove "+name))
		}
	}
	return all("the same in corosync.conf and the CIB", answers...)
}

func judgeQuorum(s subject) answer {
	conf, _ := s.corosync()
	nodes := len(conf.nodes())
	twoNode := conf.value("quorum", "two_node") == "1"
	const two = 2
	edit := "# edit quorum in /etc/corosync/corosync.conf, the same on all nodes; then"
	reload := "corosync-cfgtool -R"
	switch {
	case nodes == 0:
		return ok("the nodes are not listed")
	case conf.value("quorum", "provider") != "corosync_votequorum":
		return fail("quorum is not enabled (quorum, provider)", edit, reload)
	case twoNode && nodes != two:
		return fail(fmt.Sprintf("two_node: 1 with %d nodes", nodes), edit, reload)
	case twoNode && conf.hasDevice():
		return fail("two_node: 1 together with a quorum device", edit, reload)
	case nodes == two && !twoNode && !conf.hasDevice():
		return fail("two nodes without two_node: 1", edit, reload)
	default:
		return ok("right for %d nodes", nodes)
	}
}

func judgeToken(s subject) answer {
	conf, _ := s.corosync()
	const shortest, longest = 500 * time.Millisecond, 10 * time.Second
	token, tokenErr := conf.token()
	consensus, consensusErr := milliseconds(conf.value("totem", "consensus"), token*6/5)
	edit := "# set totem.token to 1000 and no consensus in /etc/corosync/corosync.conf, the same on all nodes; then"
	if token > longest {
		edit = "# set totem.token to 1000, or token_coefficient to less, in /etc/corosync/corosync.conf, the same on all nodes; then"
	}
	reload := "corosync-cfgtool -R"
	switch {
	case tokenErr != nil || consensusErr != nil:
		return fail(errors.Join(tokenErr, consensusErr).Error(), edit, reload)
	case consensus < token*6/5:
		return fail(fmt.Sprintf("consensus of %s is less than 1.2 times the token of %s", consensus, token), edit, reload)
	case token < shortest:
		return warn(fmt.Sprintf("the token time is %s: a node that is busy for so long counts as lost", token), edit, reload)
	case token > longest:
		return warn(fmt.Sprintf("the token time is %s: the cluster notices the loss of a node only after it", token), edit, reload)
	default:
		return ok("%s", token)
	}
}

// token returns the time after which a silent node counts as lost: from the third node on in a list, each adds something (corosync.conf(5),
// token_coefficient). The defaults are those of Corosync 3.1.
func (s *section) token() (time.Duration, error) {
	const standard, standardCoefficient, without = 3 * time.Second, 650 * time.Millisecond, 2
	token, tokenErr := milliseconds(s.value("totem", "token"), standard)
	coefficient, coefficientErr := milliseconds(s.value("totem", "token_coefficient"), standardCoefficient)
	return token + time.Duration(max(0, len(s.nodes())-without))*coefficient, errors.Join(tokenErr, coefficientErr)
}

func milliseconds(text string, standard time.Duration) (time.Duration, error) {
	if text == "" {
		return standard, nil
	}
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of milliseconds", text)
	}
	return time.Duration(number) * time.Millisecond, nil
}

func judgeLinks(s subject) answer {
	conf, _ := s.corosync()
	least, most := 0, 0
	for i, node := range conf.nodes() {
		if i == 0 || node.links < least {
			least = node.links
		}
		most = max(most, node.links)
	}
	add := "pcs cluster link add node1=ADDRESS node2=ADDRESS …   # over another switch"
	switch {
	case most == 0:
		return ok("the nodes are not listed")
	case least != most:
		return warn(fmt.Sprintf("nodes have %d to %d links", least, most), add)
	case most == 1:
		return warn("the nodes have one link", add)
	default:
		return ok("%d", most)
	}
}
