//go:build oldkernel

package netns

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// retries is how often a probe asks again where nobody answered: an emulated machine may be too slow for hundreds at once.
const retries = 3

// killEvery says at which of an action's system calls it is killed: a machine that is emulated has no time for each.
const (
	killEvery     = 32
	slowKillEvery = 32
)

// byHand is a node on which an admin has laid the CLUSTERIP target, as in the article.
type byHand struct {
	*Host
	t *testing.T
}

// layTarget gives the node the address and the rule, for the first of its hash buckets; they count from 1.
func layTarget(t *testing.T, h *Host, mode clusterip.HashMode, seed string, total, local int) byHand {
	t.Helper()
	for _, command := range [][]string{
		{"ip", "address", "add", shared.String() + "/24", "dev", NIC},
		{
			"iptables-legacy", "-A", "INPUT", "-d", shared.String(), "-i", NIC, "-j", "CLUSTERIP", "--new", "--hashmode", string(mode),
			"--clustermac", "01:02:03:04:05:06", "--total-nodes", strconv.Itoa(total), "--local-node", strconv.Itoa(local), "--hash-init", seed,
		},
	} {
		check(t, failure(h.Run(t.Context(), path, command...)))
	}
	return byHand{h, t}
}

// tell writes what the admin would echo into the target's file: +K or -K.
func (b byHand) tell(format string, node int) {
	b.t.Helper()
	check(b.t, b.Do(func() error {
		return os.WriteFile("/proc/thread-self/net/ipt_CLUSTERIP/"+shared.String(), []byte(fmt.Sprintf(format+"\n", node)), 0)
	}))
}

// A cluster whose nodes are replaced one by one: node1 still runs the kernel's CLUSTERIP target, laid by hand; node2 has our agent on
// the same target, node3 on nftables. Every client is answered exactly once, and buckets can be moved among the three kinds.
func TestTogetherWithTheTarget(t *testing.T) {
	for mode, seed := range map[clusterip.HashMode]string{
		clusterip.SourceIP: "0", clusterip.SourceIPSourcePort: "0", clusterip.SourceIPSourcePortDestPort: "305419896",
	} {
		t.Run(string(mode), func(t *testing.T) {
			const buckets = 8
			s := newSite(t, Options{}, buckets, webIP("mac", "01:02:03:04:05:06", "hashmode", string(mode), "hash_seed", seed, "hash_compat", "clusterip"))
			s.agents[1].parameters = s.agents[1].parameters.with("backend", "clusterip")
			old := layTarget(t, s.Nodes[0], mode, seed, buckets, 1)
			old.tell("+%d", 2)
			old.tell("+%d", 3)
			s.at[0], s.at[1], s.at[2] = 0, 0, 0
			for bucket, node := range []int{3: 1, 4: 1, 5: 2, 6: 2, 7: 2} {
				if bucket >= 3 {
					check(t, s.startOn(node, bucket))
				}
			}
			everyFlow(t, s)

			old.tell("-%d", 1) // bucket 0 from the old node to a new one
			check(t, s.startOn(1, 0))
			check(t, s.stop(7)) // and bucket 7 the other way
			old.tell("+%d", 8)
			s.at[7] = 0
			everyFlow(t, s)
			for bucket, node := range s.at {
				if node != 0 {
					check(t, status(s.agents[node].monitor(bucket), ocf.Success))
				}
			}

			for _, bucket := range []int{1, 2, 7} { // the old node is taken out of service
				old.tell("-%d", bucket+1)
				check(t, s.startOn(2, bucket))
			}
			everyFlow(t, s)
		})
	}
}

// The agent on the old target serves as it does on nftables.
func TestTargetBackend(t *testing.T) {
	for _, mode := range clusterip.HashModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, Options{}, 8, webIP("backend", "clusterip", "hashmode", string(mode)))
			for _, h := range s.Nodes {
				// Whatever an admin has there stays where it is.
				for _, rule := range [][]string{{"-A", "INPUT", "-i", "lo", "-j", "ACCEPT"}, {"-A", "INPUT", "-s", "203.0.113.0/24", "-j", "DROP"}} {
					check(t, failure(h.Run(t.Context(), path, append([]string{"iptables-legacy"}, rule...)...)))
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

// What breaks the old target is seen by the next monitor and mended by start, and the other bucket runs on.
func TestEveryWoundOfTheTargetBackend(t *testing.T) {
	p := newPatient(t, webIP("backend", "clusterip"))
	file := func(text string) func(*testing.T, *patient) {
		return func(t *testing.T, p *patient) {
			t.Helper()
			check(t, p.host.Do(func() error {
				return os.WriteFile("/proc/thread-self/net/ipt_CLUSTERIP/"+shared.String(), []byte(text+"\n"), 0)
			}))
		}
	}
	for _, w := range []wound{
		{name: "nothing", inflict: commands(), code: -1},
		{name: "all rules flushed", inflict: commands("iptables-legacy -F INPUT"), says: "this is left on the node", loses: true},
		{name: "accepted before", inflict: commands("iptables-legacy -I INPUT -j ACCEPT"), says: "a rule before ours in INPUT may let packets"},
		{name: "bucket lost", inflict: file("-3"), says: "does not run here; buckets 5 do", code: ocf.NotRunning},
		{name: "address deleted", inflict: commands("ip address delete " + shared.String() + "/24 dev eth0"), says: "address 192.168.10.3/24 is missing on eth0"},
	} {
		t.Run(w.name, func(t *testing.T) {
			p.startBoth(t)
			w.inflict(t, p)
			if w.code == -1 {
				check(t, status(p.monitor(2), ocf.Success))
			} else {
				p.checkHealing(t, w)
			}
			if w.name == "accepted before" {
				p.by(t, "iptables-legacy -D INPUT -j ACCEPT")
			}
			p.checkNothingIsLeft(t)
		})
	}
}

// slowCalls are the dangerous calls in a machine that is emulated.
func slowCalls() []dangerousCall {
	var calls []dangerousCall
	for backend, program := range map[clusterip.Backend]string{clusterip.NFTables: "iptables-legacy", clusterip.Match: "iptables-nft", clusterip.Target: "iptables-legacy"} {
		calls = append(calls,
			dangerousCall{name: "first start", action: "start", macMode: "multicast", backend: backend, iptables: program},
			dangerousCall{name: "last stop", action: "stop", macMode: "multicast", backend: backend, iptables: program, runs: true})
	}
	return calls
}

// withoutModules takes modules away from the kernel, those that use others first. They are back when the test ends.
func withoutModules(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		err := unix.DeleteModule(name, 0)
		const tries, pause = 100, 100 * time.Millisecond
		for range tries { // the network namespaces of the tests before may still be on their way out
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(pause)
			err = unix.DeleteModule(name, 0)
		}
		if err != nil {
			t.Fatalf("remove module %s: %v", name, err)
		}
		t.Cleanup(func() {
			f, err := os.Open("/modules/" + name + ".ko")
			check(t, err)
			defer f.Close()
			check(t, unix.FinitModule(int(f.Fd()), "", 0))
		})
	}
}

// By itself the agent takes nftables, or the next best that the kernel has, and says why not the ones before.
func TestAutoTakesWhatThereIs(t *testing.T) {
	noJhash := []string{"nft_hash"}
	noNFTables := []string{"nft_limit", "nft_ct", "nft_compat", "nf_tables"}
	for _, tt := range []struct {
		name       string
		without    []string
		parameters []string
		takes      clusterip.Backend
		says       []string
	}{
		{name: "all", takes: clusterip.NFTables},
		{name: "no jhash", without: noJhash, takes: clusterip.Match, says: []string{"not nftables: this kernel lacks", "CONFIG_NFT_HASH"}},
		{name: "no nf_tables", without: slices.Concat(noJhash, noNFTables), takes: clusterip.Match, says: []string{"not nftables:", "CONFIG_NF_TABLES"}},
		{
			name: "only the target", without: slices.Concat(noJhash, []string{"xt_cluster"}), parameters: []string{"hash_compat", "clusterip"},
			takes: clusterip.Target, says: []string{"not nftables:", "not xt_cluster:"},
		},
		{
			name: "none", without: slices.Concat(noJhash, []string{"xt_cluster", "ipt_CLUSTERIP"}),
			says: []string{"no backend can do this", "CONFIG_NFT_HASH", "CONFIG_NETFILTER_XT_MATCH_CLUSTER", "hash_compat=clusterip"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withoutModules(t, tt.without...)
			p := newPatient(t, webIP("hashmode", "sourceip").with(tt.parameters...))
			chooseIPTables(t, p.host, "iptables-legacy")
			r := p.start(2)
			for _, words := range tt.says {
				if !strings.Contains(r.Stderr, words) {
					t.Errorf("start does not say %q:\n%s", words, r.Stderr)
				}
			}
			if tt.takes == "" {
				check(t, status(r, ocf.ErrInstalled))
			} else {
				check(t, status(r, ocf.Success))
				check(t, status(p.monitor(2), ocf.Success))
				dump, err := p.host.Dump()
				check(t, err)
				sign := map[clusterip.Backend]string{clusterip.NFTables: "table netdev " + ourTable, clusterip.Match: "-m cluster", clusterip.Target: "-j CLUSTERIP"}
				if !strings.Contains(dump, sign[tt.takes]) {
					t.Errorf("%s was not laid:\n%s", tt.takes, dump)
				}
			}
			p.checkNothingIsLeft(t)
		})
	}
}

// Without nf_tables ARP is mangled by arptables, and all goes on as with it.
func TestMatchBackendWithoutNFTables(t *testing.T) {
	withoutModules(t, "nft_hash", "nft_limit", "nft_ct", "nft_compat", "nf_tables")
	s := newUnwatchedSite(t, Options{}, 8, webIP("hashmode", "sourceip"))
	clean := s.dumps(t)
	for _, a := range s.agents {
		chooseIPTables(t, a.host, "iptables-legacy")
	}
	check(t, s.startAll(0, 0, 0, 1, 1, 1, 2, 2))
	everyFlow(t, s)
	check(t, s.monitorAll())
	s.agents[0].by(t, "arptables-legacy -F OUTPUT")
	if r := s.agents[0].monitor(0); status(r, ocf.ErrGeneric) != nil || !strings.Contains(r.Stderr, "ARP") {
		t.Errorf("monitor does not see that ARP is not mangled: %d\n%s", r.ExitCode, r.Stderr)
	}
	check(t, status(s.agents[0].start(0), ocf.Success))
	check(t, s.monitorAll())
	check(t, s.stopAll())
	s.checkClean(t, clean)
}

// A rule that an admin has laid is not ours: start says so, and stop leaves it.
func TestTargetLaidByHandIsLeftAlone(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	layTarget(t, n.Nodes[0], clusterip.SourceIP, "0", 8, 1)
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
