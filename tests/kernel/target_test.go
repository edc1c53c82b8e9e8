//go:build system

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// byHand is a node on which an admin has installed the CLUSTERIP target.
type byHand struct {
	*lan.Host
	t *testing.T
}

// installTarget gives the node the address and the rule, for the first of its hash buckets; they count from 1.
func installTarget(t *testing.T, h *lan.Host, mode clusterip.HashMode, seed string, total, local int) byHand {
	t.Helper()
	check(t, h.Run(t.Context(), lan.ToolPath, "ip", "address", "add", shared.String()+"/24", "dev", lan.NIC).Failure())
	check(t, targetRule(t, h, mode, seed, total, local).Failure())
	return byHand{h, t}
}

// targetRule is what the admin types for that.
func targetRule(t *testing.T, h *lan.Host, mode clusterip.HashMode, seed string, total, local int) lan.Result {
	t.Helper()
	return h.Run(
		t.Context(),
		lan.ToolPath,
		"iptables-legacy",
		"-A",
		"INPUT",
		"-d",
		shared.String(),
		"-i",
		lan.NIC,
		"-j",
		"CLUSTERIP",
		"--new",
		"--hashmode",
		string(mode),
		"--clustermac",
		"01:02:03:04:05:06",
		"--total-nodes",
		strconv.Itoa(total),
		"--local-node",
		strconv.Itoa(local),
		"--hash-init",
		seed,
	)
}

// write writes what the admin would echo into the target's file: +K or -K.
func (b byHand) write(format string, node int) {
	b.t.Helper()
	check(b.t, b.Do(func() error {
		return os.WriteFile(filepath.Join(lan.TargetFiles, shared.String()), []byte(fmt.Sprintf(format+"\n", node)), 0)
	}))
}

// A cluster whose nodes are replaced one by one: node1 still runs the kernel's CLUSTERIP target, installed by hand; node2 has our agent on
// the same target, node3 on nftables. Every client is answered exactly once, and buckets can be moved among the three kinds.
func TestTogetherWithTheTarget(t *testing.T) {
	inGuest(t, "target")
	if !offers(t, clusterip.Target) {
		return
	}
	for mode, seed := range map[clusterip.HashMode]string{
		clusterip.SourceIP: "0", clusterip.SourceIPSourcePort: "0", clusterip.SourceIPSourcePortDestPort: "305419896",
	} {
		t.Run(string(mode), func(t *testing.T) {
			const buckets = 8
			s := newSite(
				t,
				lan.Options{},
				buckets,
				webIP("mac", "01:02:03:04:05:06", "hashmode", string(mode), "hash_seed", seed, "hash_compat", "clusterip"),
			)
			s.agents[1].Parameters = s.agents[1].Parameters.With("backend", "clusterip")
			old := installTarget(t, s.Nodes[0], mode, seed, buckets, 1)
			old.write("+%d", 2)
			old.write("+%d", 3)
			s.at[0], s.at[1], s.at[2] = 0, 0, 0
			for bucket, node := range []int{3: 1, 4: 1, 5: 2, 6: 2, 7: 2} {
				if bucket >= 3 {
					check(t, s.startOn(node, bucket))
				}
			}
			everyFlow(t, s)

			old.write("-%d", 1) // bucket 0 from the old node to a new one
			check(t, s.startOn(1, 0))
			check(t, s.stop(7)) // and bucket 7 the other way
			old.write("+%d", 8)
			s.at[7] = 0
			everyFlow(t, s)
			for bucket, node := range s.at {
				if node != 0 {
					check(t, status(s.agents[node].monitor(bucket), ocf.Success))
				}
			}

			for _, bucket := range []int{1, 2, 7} { // the old node is taken out of service
				old.write("-%d", bucket+1)
				check(t, s.startOn(2, bucket))
			}
			everyFlow(t, s)
		})
	}
}

// The agent on the old target serves as it does on nftables.
func TestTargetBackend(t *testing.T) {
	inGuest(t, "target")
	if !offers(t, clusterip.Target) {
		return
	}
	for _, mode := range clusterip.HashModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{}, 8, webIP("backend", "clusterip", "hashmode", string(mode)))
			for _, h := range s.Nodes {
				// Whatever an admin has there stays where it is.
				for _, rule := range [][]string{{"-A", "INPUT", "-i", "lo", "-j", "ACCEPT"}, {"-A", "INPUT", "-s", "203.0.113.0/24", "-j", "DROP"}} {
					check(t, h.Run(t.Context(), lan.ToolPath, append([]string{"iptables-legacy"}, rule...)...).Failure())
				}
			}
			clean := s.dumps(t)
			check(t, s.startAll(0, 0, 0, 1, 1, 1, 2, 2))
			everyFlow(t, s)
			check(t, s.move(0, 2))
			check(t, s.move(7, 1))
			everyFlow(t, s)
			check(t, s.monitorAll())
			check(t, s.stopAll())
			s.checkClean(t, clean)
		})
	}
}

// The next monitor finds each fault of the target, start repairs it, and the other bucket keeps running.
func TestEveryFaultOfTheTargetBackend(t *testing.T) {
	inGuest(t, "target")
	if !offers(t, clusterip.Target) {
		return
	}
	p := newTestNode(t, webIP("backend", "clusterip"))
	file := func(text string) func(*testing.T, *testNode) {
		return func(t *testing.T, p *testNode) {
			t.Helper()
			check(t, p.Host.Do(func() error {
				return os.WriteFile(filepath.Join(lan.TargetFiles, shared.String()), []byte(text+"\n"), 0)
			}))
		}
	}
	for _, w := range []fault{
		{name: "nothing", cause: commands(), code: -1},
		{name: "all rules flushed", cause: commands("iptables-legacy -F INPUT"), reason: "this is left on the node", losesAll: true},
		{name: "accepted before", cause: commands("iptables-legacy -I INPUT -j ACCEPT"), reason: "a rule before ours in INPUT may let packets"},
		{name: "bucket lost", cause: file("-3"), reason: "does not run here; buckets 5 do", code: ocf.NotRunning},
		{
			name: "address deleted", cause: commands("ip address delete " + sharedOnNIC + " dev eth0"),
			reason: "address 192.168.10.3/32 is missing on eth0",
		},
	} {
		t.Run(w.name, func(t *testing.T) {
			p.startBoth(t)
			w.cause(t, p)
			if w.code == -1 {
				check(t, status(p.monitor(2), ocf.Success))
			} else {
				p.checkRepair(t, w)
			}
			if w.name == "accepted before" {
				p.by(t, "iptables-legacy -D INPUT -j ACCEPT")
			}
			p.checkNothingIsLeft(t)
		})
	}
}

// A rule that an admin has installed is not ours: start refuses, and stop leaves it.
func TestTargetInstalledByHandIsLeftAlone(t *testing.T) {
	inGuest(t, "target")
	if !offers(t, clusterip.Target) {
		return
	}
	n := newLAN(t, lan.Options{Nodes: 1})
	installTarget(t, n.Nodes[0], clusterip.SourceIP, "0", 8, 1)
	before, err := n.Nodes[0].Dump()
	check(t, err)
	a := newAgent(t, n.Nodes[0], 8, webIP("backend", "clusterip"))
	if r := a.start(2); r.ExitCode == 0 {
		t.Error("start takes it over")
	}
	check(t, status(a.stop(2), ocf.Success))
	if after, err := n.Nodes[0].Dump(); err != nil || after != before {
		t.Errorf("%v (-before +after):\n%s", err, changes(before, after))
	}
}
