//go:build system

package kernel

import (
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// options are the kernel's options that the agent names where it cannot use a backend.
func options() map[clusterip.Backend]string {
	return map[clusterip.Backend]string{
		clusterip.NFTables: "CONFIG_NF", // CONFIG_NF_TABLES, CONFIG_NFT_HASH and others
		clusterip.Match:    "CONFIG_NETFILTER_XT_MATCH_CLUSTER",
		clusterip.Target:   "CONFIG_IP_NF_TARGET_CLUSTERIP",
	}
}

// The test logs which backends the agent finds in the kernel. tests/vm compares that with what each kernel is known to have.
func TestBackendsOfTheKernel(t *testing.T) {
	inGuest(t, "match", "data-path", "target", "interfaces")
	var offered []string
	for _, backend := range []clusterip.Backend{clusterip.NFTables, clusterip.Match, clusterip.Target} {
		if offers(t, backend) {
			offered = append(offered, string(backend))
		}
	}
	t.Logf("the kernel offers %s", strings.Join(offered, " "))
}

// offers starts a bucket on a backend. Where the kernel has it, a bucket starts there; otherwise the agent must refuse, name the option
// of the kernel, and leave nothing. So a test of a backend that the kernel lacks checks the refusal at least.
func offers(t *testing.T, backend clusterip.Backend) bool {
	t.Helper()
	var p *testNode
	if backend == clusterip.Match {
		p = newTestNodeOnIPTables(t, "iptables-legacy")
	} else {
		p = newTestNode(t, webIP("backend", string(backend)))
	}
	r := p.start(2)
	has := status(r, ocf.Success) == nil
	if has {
		check(t, status(p.monitor(2), ocf.Success))
	} else {
		check(t, status(r, ocf.ErrInstalled))
		if !strings.Contains(r.Stderr, options()[backend]) {
			t.Errorf("start does not log that %s is missing:\n%s", options()[backend], r.Stderr)
		}
		check(t, status(p.monitor(2), ocf.NotRunning))
	}
	p.checkNothingIsLeft(t)
	if !has && backend == clusterip.Target {
		if r := targetRule(t, p.Host, clusterip.SourceIP, "0", 8, 1); r.Failure() == nil {
			t.Error("iptables has the target, and the agent logs that the kernel lacks it")
		}
	}
	return has
}
