//go:build system && !guest

package kernel

import (
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// inGuest marks a test for a guest of tests/vm. On the machine's own kernel all tests run.
func inGuest(*testing.T, ...string) {}

func skipUnmarked(testing.TB) {}

// retries is how often a probe asks again without an answer: an answer must come at once.
const retries = 0

// At which of an action's system calls of a kind it is killed: at every fourth; and where every one of them has iptables killed too, at
// every sixteenth. With -at-every-call, at all of them.
const (
	killEvery     = 4
	slowKillEvery = 16
)

// slowCalls are the dangerous calls of a backend that goes through iptables.
func slowCalls() []dangerousCall {
	var calls []dangerousCall
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		calls = append(
			calls,
			dangerousCall{name: "first start", action: "start", macMode: "multicast", backend: clusterip.Match, iptables: program},
			dangerousCall{
				name: "start that repairs", action: "start", macMode: "igmp", backend: clusterip.Match, iptables: program,
				others: []int{1}, runs: true, breaks: (*killed).breakMatch,
			},
			dangerousCall{
				name:     "further stop",
				action:   "stop",
				macMode:  "igmp",
				backend:  clusterip.Match,
				iptables: program,
				others:   []int{1},
				runs:     true,
			},
			dangerousCall{name: "last stop", action: "stop", macMode: "multicast", backend: clusterip.Match, iptables: program, runs: true},
		)
	}
	return calls
}

// breakMatch breaks something of what is shared, on a node that is on iptables.
func (k *killed) breakMatch(t *testing.T) {
	t.Helper()
	for _, command := range [][]string{
		{"ip", "address", "delete", sharedOnNIC, "dev", lan.NIC},
		{k.iptables, "-t", "mangle", "-D", ourTable, "1"},
	} {
		check(t, k.Host.Run(t.Context(), lan.ToolPath, command...).Failure())
	}
}

// With backend=auto the agent uses nftables, and logs that. (TestAutoChoosesWhatThereIs shows in a guest what it uses otherwise.)
func TestAutoChoosesNFTables(t *testing.T) {
	p := newTestNode(t, webIP())
	r := p.start(2)
	if status(r, ocf.Success) != nil || !strings.Contains(r.Stderr, "INFO: backend nftables") {
		t.Errorf("status %d: %s", r.ExitCode, r.Stderr)
	}
	if rules := p.by(t, "nft list tables"); !strings.Contains(rules, "netdev "+ourTable) {
		t.Errorf("installed are %s", rules)
	}
	p.checkNothingIsLeft(t)
}

// start refuses what the match cannot do, names all of it at once, and installs nothing.
func TestMatchBackendRefusesWhatItCannotDo(t *testing.T) {
	p := newTestNode(t, webIP("backend", "xt_cluster", "mac_mode", "unicast", "hashmode", "sourceip-sourceport"))
	r := p.start(2)
	if status(r, ocf.ErrConfigured) != nil || !strings.Contains(r.Stderr, "mac_mode=unicast") ||
		!strings.Contains(r.Stderr, "hashmode=sourceip") {
		t.Errorf("status %d: %s", r.ExitCode, r.Stderr)
	}
	p.checkNothingIsLeft(t)
}
