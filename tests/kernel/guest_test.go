//go:build system && guest

package kernel

import (
	"errors"
	"flag"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// guest is the guest of tests/vm in which the tests run.
var guest = flag.String("guest", "", "run the tests that are marked for this guest")

// marked has the names of the tests and subtests that are marked for the guest.
var marked sync.Map

// inGuest marks a test or a subtest for guests of tests/vm: they run nothing else. What is marked is in the output, for tests/vm, which
// expects that it passes.
func inGuest(t *testing.T, guests ...string) {
	t.Helper()
	t.Attr("guests", strings.Join(guests, " "))
	if slices.Contains(guests, *guest) {
		marked.Store(t.Name(), true)
	}
	skipUnmarked(t)
}

// skipUnmarked ends a test that is not marked for the guest, and lies below none that is.
func skipUnmarked(t testing.TB) {
	t.Helper()
	for name := t.Name(); name != "."; name = path.Dir(name) {
		if _, isMarked := marked.Load(name); isMarked {
			return
		}
	}
	t.Skip("it is not marked for this guest")
}

// retries is how often a probe asks again without an answer: an emulated machine may be too slow for hundreds at once.
const retries = 3

// An action is killed at every 32nd of its system calls of a kind: emulated, there is no time for more.
const (
	killEvery     = 32
	slowKillEvery = 32
)

// slowCalls are the dangerous calls in an emulated machine.
func slowCalls() []dangerousCall {
	var calls []dangerousCall
	for backend, program := range map[clusterip.Backend]string{
		clusterip.NFTables: "iptables-legacy", clusterip.Match: "iptables-nft", clusterip.Target: "iptables-legacy",
	} {
		calls = append(calls,
			dangerousCall{name: "first start", action: "start", macMode: "multicast", backend: backend, iptables: program},
			dangerousCall{name: "last stop", action: "stop", macMode: "multicast", backend: backend, iptables: program, runs: true})
	}
	return calls
}

// withoutModules removes modules from the kernel, those that use others first. They are back when the test ends.
func withoutModules(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		file := "/modules/" + name + ".ko"
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			continue // this kernel has it built in, or as a part of another module, or not at all
		}
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
			f, err := os.Open(file)
			check(t, err)
			defer f.Close()
			check(t, unix.FinitModule(int(f.Fd()), "", 0))
		})
	}
}

// nfTables are the modules of nf_tables.
func nfTables() []string {
	return []string{
		"nft_hash", "nft_limit", "nft_ct", "nft_counter", "nft_dup_netdev", "nf_dup_netdev", "nft_socket", "nft_compat", "nf_tables",
	}
}

// With backend=auto the agent uses nftables, or the next backend that the kernel has, and logs why not the ones before.
func TestAutoChoosesWhatThereIs(t *testing.T) {
	inGuest(t, "match")
	noJhash := []string{"nft_hash"}
	last, lastWant := clusterip.Target, []string{"not nftables:", "not xt_cluster:"}
	if !offers(t, clusterip.Target) {
		last, lastWant = "", []string{"no backend supports this", "CONFIG_NFT_HASH", "hash_compat=xt_cluster", "CONFIG_IP_NF_TARGET_CLUSTERIP"}
	}
	for _, tt := range []struct {
		name       string
		without    []string
		parameters []string
		takes      clusterip.Backend
		want       []string
	}{
		{name: "all", takes: clusterip.NFTables},
		{name: "no jhash", without: noJhash, takes: clusterip.Match, want: []string{"not nftables: this kernel lacks", "CONFIG_NFT_HASH"}},
		{name: "no nf_tables", without: nfTables(), takes: clusterip.Match, want: []string{"not nftables:", "CONFIG_NF_TABLES"}},
		{
			name: "only the target", without: slices.Concat(noJhash, []string{"xt_cluster"}), parameters: []string{"hash_compat", "clusterip"},
			takes: last, want: lastWant,
		},
		{
			name: "none", without: slices.Concat(noJhash, []string{"xt_cluster", "ipt_CLUSTERIP"}),
			want: []string{"no backend supports this", "CONFIG_NFT_HASH", "CONFIG_NETFILTER_XT_MATCH_CLUSTER", "hash_compat=clusterip"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withoutModules(t, tt.without...)
			p := newTestNode(t, webIP("hashmode", "sourceip").With(tt.parameters...))
			chooseIPTables(t, p.Host, "iptables-legacy")
			r := p.start(2)
			for _, words := range tt.want {
				if !strings.Contains(r.Stderr, words) {
					t.Errorf("start does not log %q:\n%s", words, r.Stderr)
				}
			}
			if tt.takes == "" {
				check(t, status(r, ocf.ErrInstalled))
			} else {
				check(t, status(r, ocf.Success))
				check(t, status(p.monitor(2), ocf.Success))
				dump, err := p.Host.Dump()
				check(t, err)
				sign := map[clusterip.Backend]string{
					clusterip.NFTables: "table netdev " + ourTable,
					clusterip.Match:    "-m cluster",
					clusterip.Target:   "-j CLUSTERIP",
				}
				if !strings.Contains(dump, sign[tt.takes]) {
					t.Errorf("%s was not installed:\n%s", tt.takes, dump)
				}
			}
			p.checkNothingIsLeft(t)
		})
	}
}

// Without nf_tables ARP is mangled by arptables, and all goes on as with it.
func TestMatchBackendWithoutNFTables(t *testing.T) {
	inGuest(t, "target")
	withoutModules(t, nfTables()...)
	s := newUnwatchedSite(t, lan.Options{}, 8, webIP("hashmode", "sourceip"))
	clean := s.dumps(t)
	for _, a := range s.agents {
		chooseIPTables(t, a.Host, "iptables-legacy")
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
