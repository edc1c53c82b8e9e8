//go:build system

package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// ourTable is how the tables of the shared address are called, in every family.
var ourTable = "clusterip-" + shared.String()

// A testNode is a node on which buckets 2 and 5 of 8 run, until the test breaks something.
type testNode struct {
	*agent
	clean string // Dump before anything was started
}

func newTestNode(t *testing.T, p harness.Parameters) *testNode {
	t.Helper()
	n := newLAN(t, lan.Options{Nodes: 1, IPv6: strings.Contains(p["ip"], ":")})
	a := newAgent(t, n.Nodes[0], 8, p.With("arp_count", "0"))
	clean, err := a.Host.Dump()
	check(t, err)
	return &testNode{agent: a, clean: clean}
}

func (p *testNode) startBoth(t *testing.T) {
	t.Helper()
	check(t, status(p.start(2), ocf.Success))
	check(t, status(p.start(5), ocf.Success))
}

// by runs a command on the node, as an admin would.
func (a *agent) by(t *testing.T, command string) string {
	t.Helper()
	r := a.Host.Run(t.Context(), lan.ToolPath, strings.Fields(command)...)
	if err := r.Failure(); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return r.Stdout
}

// checkNothingIsLeft stops both buckets and compares the node with what it was.
func (p *testNode) checkNothingIsLeft(t *testing.T) {
	t.Helper()
	check(t, status(p.stop(2), ocf.Success))
	check(t, status(p.stop(5), ocf.Success))
	dump, err := p.Host.Dump()
	check(t, err)
	if dump != p.clean {
		t.Errorf("after stop (-before start +after):\n%s", changes(p.clean, dump))
	}
	p.checkNoFiles(t, "afterwards")
}

// changes shows the lines in which two dumps differ.
func changes(before, after string) string {
	return cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n"))
}

// A fault is a change that the agent did not make.
type fault struct {
	name     string
	cause    func(*testing.T, *testNode)
	reason   string       // monitor's reason
	code     ocf.ExitCode // monitor's status of bucket 2; 0 means ErrGeneric
	losesAll bool         // bucket 5 is lost too, so that it must be started again
}

// commands causes a fault, one command a line; a line that begins with "nft" is one argument.
func commands(lines ...string) func(*testing.T, *testNode) {
	return func(t *testing.T, p *testNode) {
		t.Helper()
		for _, line := range lines {
			if rules, ok := strings.CutPrefix(line, "nft "); ok {
				nft(t, p.Host, rules)
			} else {
				p.by(t, line)
			}
			if strings.HasSuffix(line, " up") { // monitor would still find no carrier
				check(t, p.Host.Settle())
			}
		}
	}
}

// What a node has of its own, and loses with some faults.
const (
	ownAddress  = "ip address add 192.168.10.11/24 brd + dev eth0"
	clientRoute = "ip route replace 192.168.64.0/18 dev eth0"
	farRoute    = "ip route replace 198.51.100.0/24 via 192.168.10.254"
)

// Known mistakes of other agents, and other changes that an admin, a firewall or a network manager may make.
func faults() []fault {
	vip := shared.String()
	deleted := "ip address delete " + sharedOnNIC + " dev eth0"
	return []fault{
		{name: "address deleted", cause: commands(deleted), reason: "address 192.168.10.3/32 is missing on eth0"},
		{name: "address put back with another prefix", cause: commands(
			deleted, "ip address add "+vip+"/25 dev eth0"), reason: "192.168.10.3/25 is on eth0, where it should not be"},
		{name: "address put back with another scope", cause: commands(
			deleted,
			"ip address add "+sharedOnNIC+" dev eth0",
		), reason: "192.168.10.3/32 is on eth0, where it should not be: the node's own connections may come from it"},
		{
			name:   "address there a second time",
			cause:  commands("ip address add " + vip + "/24 dev eth0"),
			reason: "192.168.10.3/24 is on eth0, where it should not be",
		},
		{name: "the interface's addresses replaced, ours lost with them", cause: commands(
			"ip address flush dev eth0", ownAddress, clientRoute), reason: "is missing on eth0"},
		{
			name:     "netdev table deleted",
			cause:    commands("nft delete table netdev " + ourTable),
			reason:   "this is left on the node",
			losesAll: true,
		},
		{name: "arp table deleted", cause: commands("nft delete table arp " + ourTable), reason: "table arp " + ourTable + " is missing"},
		{name: "ip table deleted", cause: commands("nft delete table ip " + ourTable), reason: "table ip " + ourTable + " is missing"},
		{name: "whole ruleset flushed", cause: commands("nft flush ruleset"), reason: "this is left on the node", losesAll: true},
		{
			name:   "all rules flushed",
			cause:  commands("nft flush table netdev "+ourTable, "nft flush table arp "+ourTable, "nft flush table ip "+ourTable),
			reason: `rule "owned buckets" is missing or changed`,
		},
		{name: "table made dormant", cause: commands("nft add table netdev " + ourTable + " { flags dormant; }"), reason: "dormant"},
		{
			name: "rule added", cause: commands("nft add rule netdev " + ourTable + " ipv4 limit rate 1/second accept"),
			reason: "is not as installed",
		},
		{name: "rule put first", cause: commands("nft insert rule arp " + ourTable + " output accept"), reason: "is not as installed"},
		{name: "chain added", cause: commands("nft add chain netdev " + ourTable + " mine"), reason: "the agent did not install chain mine"},
		{
			name:   "set added",
			cause:  commands("nft add set netdev " + ourTable + " mine { type ipv4_addr . inet_service; }"),
			reason: "the agent did not install set mine",
		},
		{
			name:   "element removed",
			cause:  commands("nft delete element netdev " + ourTable + " owned { 2 }"),
			reason: "does not run here; buckets 5 do",
			code:   ocf.NotRunning,
		},
		{
			name:     "all elements removed",
			cause:    commands("nft flush set netdev " + ourTable + " owned"),
			reason:   "this is left on the node",
			losesAll: true,
		},
		{
			name:   "element added",
			cause:  commands("nft add element netdev " + ourTable + " owned { 7 }"),
			reason: "element 7 was not added by this agent",
		},
		{
			name:   "element for all buckets added",
			cause:  commands("nft add element netdev " + ourTable + " owned { * }"),
			reason: "covers all buckets",
		},
		{
			name:   "element out of range added",
			cause:  commands("nft add element netdev " + ourTable + " owned { 99 comment \"web-ip:99\" }"),
			reason: "element 99 is not a bucket (0..7)",
		},
		{name: "stamp removed", cause: commands("nft flush set netdev " + ourTable + " schema"), reason: "its stamp (set schema) is missing"},
		{name: "stamp changed", cause: commands("nft flush set netdev "+ourTable+" schema",
			"nft add element netdev "+ourTable+" schema { 1 comment \"ip=192.168.10.3/24 buckets=many\" }"), reason: "cannot be read"},
		{
			name: "interface down", reason: "eth0 is down",
			cause: commands("ip link set eth0 down", "ip link set eth0 up", "ip link set eth0 down"),
		},
	}
}

// faultsOfMoves are those that only a resource with drain can have.
func faultsOfMoves() []fault {
	return []fault{
		{
			name:   "set of moves deleted",
			cause:  commands("nft flush table netdev "+ourTable, "nft delete set netdev "+ourTable+" draining"),
			reason: "set draining is missing",
		},
		{name: "chain of moves deleted", cause: commands("nft delete chain ip " + ourTable + " moves"), reason: "chain moves is missing"},
		{name: "ip table deleted", cause: commands("nft delete table ip " + ourTable), reason: "table ip " + ourTable + " is missing"},
		{
			name:   "element without a timeout",
			cause:  commands("nft add element netdev " + ourTable + " draining { 3 comment \"web-ip:3\" }"),
			reason: "element 3 has no timeout",
		},
		{
			name:   "element of another program",
			cause:  commands("nft add element netdev " + ourTable + " adopting { 3 timeout 1h }"),
			reason: "element 3 was not added by this agent",
		},
		{
			name:   "element out of range",
			cause:  commands("nft add element netdev " + ourTable + " handed_over { 99 comment \"web-ip:99\" }"),
			reason: "element 99 is not a bucket (0..7)",
		},
		{name: "whole ruleset flushed", cause: commands("nft flush ruleset"), reason: "this is left on the node", losesAll: true},
	}
}

// faults6 are those that only a resource with an IPv6 address and services can have.
func faults6() []fault {
	vip := shared6.String()
	return []fault{
		{
			name:   "IPv6 address deleted",
			cause:  commands("ip address delete " + vip + "/64 dev eth0"),
			reason: "address 2001:db8:10::3/64 is missing on eth0",
		},
		{name: "IPv6 address put back with another prefix", cause: commands(
			"ip address delete "+vip+"/64 dev eth0",
			"ip address add "+vip+"/128 dev eth0 nodad",
		), reason: "2001:db8:10::3/128 is on eth0, where it should not be"},
		{
			name:   "IPv4 address deleted",
			cause:  commands("ip address delete " + sharedOnNIC + " dev eth0"),
			reason: "address 192.168.10.3/32 is missing on eth0",
		},
		{name: "ip6 table deleted", cause: commands("nft delete table ip6 " + ourTable), reason: "table ip6 " + ourTable + " is missing"},
		{
			name:   "ip6 table flushed",
			cause:  commands("nft flush table ip6 " + ourTable),
			reason: `rule "neighbour advertisements contain the shared MAC" is missing`,
		},
		{
			name:   "service removed",
			cause:  commands("nft delete element netdev " + ourTable + " tcp_services { 80 }"),
			reason: "set tcp_services is not as installed",
		},
		{
			name:   "service added",
			cause:  commands("nft add element netdev " + ourTable + " tcp_services { 90-95 }"),
			reason: "set tcp_services is not as installed",
		},
		{
			name:   "a part of the stamp removed",
			cause:  commands(fmt.Sprintf("nft delete element netdev %s schema { %#x }", ourTable, 0x1010000|clusterip.Schema)),
			reason: "is incomplete",
		},
		{name: "whole ruleset flushed", cause: commands("nft flush ruleset"), reason: "this is left on the node", losesAll: true},
	}
}

// TestEveryFaultOfADualStackResource is found and repaired.
func TestEveryFaultOfADualStackResource(t *testing.T) {
	t.Parallel()
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			if mode == clusterip.Multicast {
				inGuest(t, "data-path")
			}
			p := newTestNode(t, webIP("ip", dualStack, "mac_mode", string(mode), "services", "tcp/80 tcp/443 udp/53 icmp", "hash_prefix6", "64"))
			all := faults6()
			if mode == clusterip.IGMP {
				group := clusterip.DerivedMAC(mode, shared6).MulticastGroup().String()
				all = append(
					all,
					fault{
						name:   "group left",
						cause:  commands("ip address delete " + group + "/128 dev eth0"),
						reason: "no longer a member of the multicast group " + group,
					},
				)
			}
			for _, w := range all {
				t.Run(w.name, func(t *testing.T) {
					p.startBoth(t)
					w.cause(t, p)
					p.checkRepair(t, w)
					p.checkNothingIsLeft(t)
				})
			}
		})
	}
}

// TestEveryFaultOfMoves is found and repaired.
func TestEveryFaultOfMoves(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("drain", "60", "linger", "0"))
	for _, w := range faultsOfMoves() {
		t.Run(w.name, func(t *testing.T) {
			p.startBoth(t)
			w.cause(t, p)
			p.checkRepair(t, w)
			p.checkNothingIsLeft(t)
		})
	}
}

// TestInterfaceThatWasSwitchedOff: it loses its IPv6 addresses, but the kernel stays a member of their groups, so start must not join
// again.
func TestInterfaceThatWasSwitchedOff(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			p := newTestNode(t, webIP("ip", dualStack, "mac_mode", string(mode)))
			p.startBoth(t)
			commands("ip link set eth0 down", "ip link set eth0 up", "ip address add 2001:db8:10::b/64 dev eth0", clientRoute,
				"ip -6 route replace 2001:db8:6400::/40 via 2001:db8:10::c8")(t, p)
			p.checkRepair(t, fault{reason: "address 2001:db8:10::3/64 is missing on eth0"})
			if mode != clusterip.IGMP {
				p.checkNothingIsLeft(t)
			}
		})
	}
}

// macFaults make the interface ignore frames for the shared MAC.
func macFaults() map[clusterip.MACMode]fault {
	mac := func(mode clusterip.MACMode) string { return clusterip.DerivedMAC(mode, shared).String() }
	return map[clusterip.MACMode]fault{
		clusterip.Multicast: {
			name:   "MAC filter removed",
			cause:  commands("ip maddress delete " + mac(clusterip.Multicast) + " dev eth0"),
			reason: "no longer receives frames for the shared MAC",
		},
		clusterip.Unicast: {
			name:   "MAC filter removed",
			cause:  commands("bridge fdb delete " + mac(clusterip.Unicast) + " dev eth0 self"),
			reason: "no longer receives frames for the shared MAC",
		},
		clusterip.IGMP: {
			name:   "group left",
			cause:  commands("ip address delete 239.255.10.3/32 dev eth0"),
			reason: "no longer a member of the multicast group 239.255.10.3",
		},
	}
}

// TestEveryFaultIsFoundAndRepaired: monitor finds it, start repairs it without touching the other bucket, stop leaves nothing.
func TestEveryFaultIsFoundAndRepaired(t *testing.T) {
	t.Parallel()
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			p := newTestNode(t, webIP("mac_mode", string(mode)))
			for _, w := range append(faults(), macFaults()[mode]) {
				t.Run(w.name, func(t *testing.T) {
					p.startBoth(t)
					w.cause(t, p)
					if mode == clusterip.Multicast && w.code != ocf.NotRunning { // only Pacemaker has the state that should be
						p.checkStatus(t, w)
					}
					p.checkRepair(t, w)
					p.checkNothingIsLeft(t)
				})
			}
		})
	}
}

// checkStatus expects that `status` prints the fault in monitor's words, but for what is left on a node without buckets.
func (p *testNode) checkStatus(t *testing.T, w fault) {
	t.Helper()
	want := w.reason
	if w.losesAll {
		want = "owns no bucket, but has leftovers"
	}
	var printed operator.Status
	r := p.Host.Run(t.Context(), lan.ToolPath, p.Program, "status", "--json", shared.String())
	check(t, status(r, ocf.ExitCode(operator.Broken)))
	check(t, json.Unmarshal([]byte(r.Stdout), &printed))
	for _, problem := range printed.Resources[0].Problems {
		if problem.Health == operator.Broken && strings.Contains(problem.Text, want) {
			return
		}
	}
	t.Errorf("status does not print %q:\n%s", want, r.Stdout)
}

func (p *testNode) checkRepair(t *testing.T, w fault) {
	t.Helper()
	if w.code == 0 {
		w.code = ocf.ErrGeneric
	}
	r := p.monitor(2)
	if err := status(r, w.code); err != nil || !strings.Contains(r.Stderr, w.reason) {
		t.Errorf("monitor does not return %q: %v\n%s", w.reason, err, r.Stderr)
	}
	if w.name == "interface down" { // nothing that an agent may change
		check(t, status(p.start(2), ocf.ErrGeneric))
		commands("ip link set eth0 up", clientRoute)(t, p)
	}
	check(t, status(p.start(2), ocf.Success))
	if w.losesAll {
		check(t, status(p.monitor(5), ocf.NotRunning))
		check(t, status(p.start(5), ocf.Success))
	}
	check(t, status(p.monitor(2), ocf.Success))
	check(t, status(p.monitor(5), ocf.Success))
}

var handle = regexp.MustCompile(`# handle (\d+)$`)

// ruleHandles are the handles of all rules of a chain.
func (p *testNode) ruleHandles(t *testing.T, family, chain string) []string {
	t.Helper()
	var handles []string
	for line := range strings.Lines(p.by(t, fmt.Sprintf("nft -a list chain %s %s %s", family, ourTable, chain))) {
		line = strings.TrimSpace(line)
		if found := handle.FindStringSubmatch(line); found != nil && !strings.HasPrefix(line, "chain") {
			handles = append(handles, found[1])
		}
	}
	return handles
}

// TestEveryRuleIsMissed deletes each rule in turn, and puts another one in its place.
func TestEveryRuleIsMissed(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("ip", dualStack, "hashmode", "sourceip-sourceport-destport", "services", "tcp/80 udp/53 icmp",
		"drain", "60", "linger", "0"))
	p.startBoth(t)
	rules := p.missEachRule(t, []string{"delete rule %s %s %s handle %s", replaceRule},
		"netdev ingress", "netdev ipv4", "netdev errors", "netdev ports", "netdev portless", "arp output", "ip overheard",
		"netdev ipv6", "netdev errors6", "netdev ports6", "netdev portless6", "ip6 output", "ip6 overheard",
		"ip moves", "ip draining", "ip adopting", "ip6 moves", "ip6 draining", "ip6 adopting")
	if rules < 90 {
		t.Errorf("only %d rules were found", rules)
	}
	p.checkNothingIsLeft(t)
}

// TestEveryRuleOfTakeoversIsMissed does the same with linger.
func TestEveryRuleOfTakeoversIsMissed(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("hashmode", "sourceip-sourceport-destport", "drain", "60"))
	newAttributes(t, p.agent)
	p.startBoth(t)
	rules := p.missEachRule(t, []string{replaceRule},
		"netdev takeovers", "netdev takeover_requests", "netdev ipv4_takeover", "netdev ports_takeover", "netdev portless_takeover",
		"netdev pass_on", "netdev passed", "netdev remember", "ip lingering")
	if rules < 70 {
		t.Errorf("only %d rules were found", rules)
	}
	for _, bucket := range []int{2, 5} { // with drain, the sweeper would clear up
		check(t, status(p.call("stop", bucket, "OCF_RESKEY_drain=0"), ocf.Success))
	}
	p.checkNothingIsLeft(t)
}

const replaceRule = "replace rule %s %s %s handle %s counter accept"

// missEachRule makes each change to each rule of the chains. It returns the number of rules.
func (p *testNode) missEachRule(t *testing.T, changes []string, chains ...string) (rules int) {
	t.Helper()
	for _, chain := range chains {
		family, chain, _ := strings.Cut(chain, " ")
		for i := range p.ruleHandles(t, family, chain) {
			for _, change := range changes {
				nft(t, p.Host, fmt.Sprintf(change, family, ourTable, chain, p.ruleHandles(t, family, chain)[i]))
				w := fault{name: change, reason: "table " + family + " " + ourTable + ": chain " + chain + ": rule"}
				p.checkRepair(t, w)
			}
			rules++
		}
	}
	return rules
}

// TestCountersSurviveRepair: start repairs a table in place, so that nothing of the running buckets is lost.
func TestCountersSurviveRepair(t *testing.T) {
	n := newLAN(t, lan.Options{Nodes: 1})
	a := newAgent(t, n.Nodes[0], 1, webIP())
	check(t, status(a.start(0), ocf.Success))
	probe(t, n, lan.Traffic{Target: shared, Sources: n.Sources(4), Protos: []lan.Proto{lan.ICMP}, Retries: 2})
	p := &testNode{agent: a}
	counted := p.by(t, "nft list set netdev "+ourTable+" owned")
	nft(t, p.Host, "delete table arp "+ourTable)
	nft(t, p.Host, "flush chain netdev "+ourTable+" ipv4")
	check(t, status(a.start(0), ocf.Success))
	if after := p.by(t, "nft list set netdev "+ourTable+" owned"); after != counted || strings.Contains(counted, "packets 0 ") {
		t.Errorf("counters before:\n%s\nafter:\n%s", counted, after)
	}
}

// TestRenamedInterface: the resource finds its interface by the route, and follows it to its new name.
func TestRenamedInterface(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			p := newTestNode(t, webIP("nic", "", "mac_mode", string(mode)))
			p.startBoth(t)
			commands("ip link set eth0 down", "ip link set eth0 name lan0", "ip link set lan0 up")(t, p)
			p.checkRepair(t, fault{reason: "requested is lan0"})
			check(t, status(p.stop(5), ocf.Success))
			check(t, status(p.stop(2), ocf.Success))
			commands("ip link set lan0 down", "ip link set lan0 name eth0", "ip link set eth0 up", clientRoute)(t, p)
			p.checkNothingIsLeft(t)
		})
	}
}

// TestRenamedInterfaceAsParameter: start fails with a reason, and stop works.
func TestRenamedInterfaceAsParameter(t *testing.T) {
	p := newTestNode(t, webIP())
	p.startBoth(t)
	commands("ip link set eth0 down", "ip link set eth0 name lan0", "ip link set lan0 up")(t, p)
	r := p.monitor(2)
	if err := status(r, ocf.ErrGeneric); err != nil || !strings.Contains(r.Stderr, "there is no such network interface") {
		t.Errorf("monitor: %v\n%s", err, r.Stderr)
	}
	check(t, status(p.start(2), ocf.ErrArgs))
	check(t, status(p.stop(2), ocf.Success))
	check(t, status(p.stop(5), ocf.Success))
	commands("ip link set lan0 down", "ip link set lan0 name eth0", "ip link set eth0 up", clientRoute)(t, p)
	p.checkNothingIsLeft(t)
}

// TestDeletedInterface: the kernel removes the address and the chain with it. stop removes the rest, or start repairs it when the
// interface is back.
func TestDeletedInterface(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			p := newTestNode(t, webIP("mac_mode", string(mode)))
			p.startBoth(t)
			p.by(t, "ip link delete eth0")
			check(t, status(p.monitor(2), ocf.ErrGeneric))
			check(t, status(p.start(2), ocf.ErrArgs))
			commands("ip link add eth0 type veth peer name peer0", "ip link set peer0 up", "ip link set eth0 up",
				ownAddress)(t, p)
			p.checkRepair(t, fault{reason: "eth0 (index"})
			p.by(t, "ip link delete eth0")
			check(t, status(p.stop(2), ocf.Success))
			check(t, status(p.stop(5), ocf.Success))
			check(t, status(p.monitor(5), ocf.NotRunning))
			if rules := p.by(t, "nft list ruleset"); rules != "" {
				t.Errorf("left: %s", rules)
			}
			p.checkNoFiles(t, "afterwards")
		})
	}
}

// TestFlappingLinkIsNoFault: what comes back by itself needs no repair.
func TestFlappingLinkIsNoFault(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			p := newTestNode(t, webIP("mac_mode", string(mode)))
			p.startBoth(t)
			commands("ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500", "ip link set eth0 down", "ip link set eth0 up", clientRoute)(t, p)
			check(t, status(p.monitor(2), ocf.Success))
			p.checkNothingIsLeft(t)
		})
	}
}

// TestConflictingTable: start refuses, stop leaves the table alone, and monitor does not report that a bucket runs.
func TestConflictingTable(t *testing.T) {
	for _, family := range []string{"netdev", "arp", "ip", "ip6"} {
		t.Run(family, func(t *testing.T) {
			p := newTestNode(t, webIP())
			nft(t, p.Host, "add table "+family+" "+ourTable)
			nft(t, p.Host, "add chain "+family+" "+ourTable+" mine")
			nft(t, p.Host, "add rule "+family+" "+ourTable+" mine counter drop")
			before, err := p.Host.Dump()
			check(t, err)
			r := p.start(2)
			if err := status(r, ocf.ErrGeneric); err != nil || !strings.Contains(r.Stderr, "the agent did not install") {
				t.Errorf("start: %v\n%s", err, r.Stderr)
			}
			check(t, status(p.monitor(2), ocf.NotRunning))
			check(t, status(p.stop(2), ocf.Success))
			after, err := p.Host.Dump()
			check(t, err)
			if after != before {
				t.Errorf("(-before +after):\n%s", changes(before, after))
			}
			p.checkNoFiles(t, "afterwards")
		})
	}
}

// TestAddressesThatHangOnOurs: when ours is the first address, and has the prefix of the network, the kernel would remove the others of the
// network with it, and with the interface's last address all its routes.
func TestAddressesThatHangOnOurs(t *testing.T) {
	inGuest(t, "interfaces")
	for _, row := range []struct {
		promote string
		as      func(*testing.T, *testNode)
	}{{"0", commands()}, {"0", sharedOfNetwork}, {"1", sharedOfNetwork}} {
		promote := row.promote
		t.Run("promote_secondaries="+promote, func(t *testing.T) {
			p := newTestNode(t, webIP("cidr_netmask", "24"))
			for _, scope := range []string{"all", "default", "eth0"} {
				check(t, p.Host.Sysctl("net/ipv4/conf/"+scope+"/promote_secondaries", promote))
			}
			p.by(t, "ip address flush dev eth0 scope global")
			p.startBoth(t)
			row.as(t, p)
			p.by(t, "ip address add 192.168.10.11/24 metric 100 dev eth0")
			p.by(t, "ip address add 192.168.10.77/24 dev eth0")
			p.by(t, "ip route add default via 192.168.10.254")
			p.by(t, "ip route add 10.9.0.0/16 via 192.168.10.253 src 192.168.10.77")
			check(t, status(p.stop(2), ocf.Success))
			check(t, status(p.stop(5), ocf.Success))
			for command, lines := range map[string][]string{
				"ip -4 -o address show dev eth0": {"192.168.10.11/24 metric 100", "192.168.10.77/24"},
				"ip -4 route show": {
					"default via 192.168.10.254", "10.9.0.0/16 via 192.168.10.253", "192.168.10.0/24 dev eth0",
				},
				"cat /proc/sys/net/ipv4/conf/eth0/promote_secondaries": {promote + "\n"},
			} {
				seen := p.by(t, command)
				for _, line := range lines {
					if !strings.Contains(seen, line) {
						t.Errorf("%s: %q went with ours:\n%s", command, line, seen)
					}
				}
				if strings.Contains(seen, shared.String()+"/") {
					t.Errorf("%s: ours is still there:\n%s", command, seen)
				}
			}
		})
	}
}

// TestManyResourcesStopAtOnce: each removes its own address and nothing else, though the kernel's lists change meanwhile,
// and others delete theirs.
func TestManyResourcesStopAtOnce(t *testing.T) {
	const rounds, resources = 20, 4
	p := newTestNode(t, webIP())
	before, err := p.Host.Dump()
	check(t, err)
	for round := range rounds {
		p.by(t, "ip address add 192.168.10.50/24 dev eth0")
		agents := make([]agent, resources)
		for i := range agents {
			agents[i] = *p.agent
			agents[i].Parameters = webIP("ip", fmt.Sprintf("192.168.10.%d", 30+i), "arp_count", "0")
			check(t, status(agents[i].start(1), ocf.Success))
		}
		var all sync.WaitGroup
		errs := make([]error, resources)
		for i := range agents {
			all.Go(func() { errs[i] = status(agents[i].stop(1), ocf.Success) })
		}
		all.Go(func() { p.by(t, "ip address del 192.168.10.50/24 dev eth0") })
		all.Wait()
		after, err := p.Host.Dump()
		check(t, errors.Join(append(errs, err)...))
		if after != before {
			t.Fatalf("round %d (-before +after):\n%s", round, changes(before, after))
		}
	}
}

// TestInterfaceIsABridge: also with an address on a bridge, every MAC mode works, and leaves nothing behind.
func TestInterfaceIsABridge(t *testing.T) {
	for _, mode := range []string{"multicast", "igmp", "unicast"} {
		t.Run(mode, func(t *testing.T) {
			n := newLAN(t, lan.Options{Nodes: 1})
			p := &testNode{agent: newAgent(t, n.Nodes[0], 8, webIP("arp_count", "0", "mac_mode", mode, "nic", "br0"))}
			p.by(t, "ip link add br0 type bridge mcast_snooping 0")
			p.by(t, "ip address flush dev eth0")
			p.by(t, "ip link set eth0 master br0")
			p.by(t, "bridge link set dev eth0 learning off") // what it learns is not what we look for
			p.by(t, "ip link set br0 up")
			p.by(t, "ip address add 192.168.10.11/24 dev br0")
			p.by(t, "ip route add 192.168.64.0/18 dev br0")
			check(t, n.Serve(lan.EchoPort))
			var err error
			p.clean, err = p.Host.Dump()
			check(t, err)
			p.startBoth(t)
			check(t, status(p.monitor(2), ocf.Success))
			r, err := n.Probe(t.Context(), lan.Traffic{Target: shared, Sources: n.Sources(32)})
			check(t, err)
			if answered := r.Answered()[0] + r.Answered()[lan.NoNode]; answered == 0 || answered == len(r.Exchanges) {
				t.Errorf("%d of %d clients were answered, not those of 2 of 8 buckets", answered, len(r.Exchanges))
			}
			p.checkNothingIsLeft(t)
		})
	}
}
