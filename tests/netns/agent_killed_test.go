package netns

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"ocf-clusterip/internal/ocf"
)

// runtimeCalls are system calls of the Go runtime that tell nothing of the outside world and change nothing there; its
// threads make them whenever they like, so they cannot be counted.
var runtimeCalls = []string{
	"arch_prctl", "clone", "clone3", "epoll_pwait", "execve", "exit", "futex", "getpid", "gettid", "madvise", "mincore", "mmap",
	"mprotect", "munmap", "nanosleep", "prctl", "prlimit64", "restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask",
	"rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "tgkill",
}

const strace = "/usr/bin/strace"

// A dangerousCall is one during which the agent gets killed. Other buckets run or not; bucket 5 is the one called for.
type dangerousCall struct {
	name    string
	action  string
	macMode string
	ip      string                    // "": the IPv4 address
	others  []int                     // run before and after
	runs    bool                      // bucket 5 runs before
	spoil   func(*killed, *testing.T) // something is broken before
}

// killed is a node on which calls get killed.
type killed struct {
	*agent
	dangerousCall
	clean   string // Dump before anything was started
	without string // Dump with the others running
	with    string // Dump with bucket 5 running too
}

const victim = 5

// TestKilledAtEverySystemCall kills start and stop with signal 9 at each of their system calls. After each, monitor tells
// the truth, start works, and stop leaves nothing.
func TestKilledAtEverySystemCall(t *testing.T) {
	for _, call := range []dangerousCall{
		{name: "first start", action: "start", macMode: "multicast"},
		{name: "first start", action: "start", macMode: "igmp"},
		{name: "further start", action: "start", macMode: "unicast", others: []int{1}},
		{name: "start that mends", action: "start", macMode: "unicast", others: []int{1}, runs: true, spoil: (*killed).damage},
		{name: "further stop", action: "stop", macMode: "igmp", others: []int{1}, runs: true},
		{name: "last stop", action: "stop", macMode: "igmp", runs: true},
		{name: "last stop", action: "stop", macMode: "unicast", runs: true},
		{name: "first start, dual stack", action: "start", macMode: "igmp", ip: dualStack},
		{name: "last stop, dual stack", action: "stop", macMode: "multicast", ip: dualStack, runs: true},
	} {
		t.Run(call.name+"/"+call.macMode, func(t *testing.T) {
			t.Parallel()
			n := Start(t, Options{Nodes: 1, IPv6: call.ip != ""})
			k := &killed{
				agent:         newAgent(t, n.Nodes[0], 8, webIP("ip", cmp.Or(call.ip, shared.String()), "mac_mode", call.macMode, "arp_count", "1")),
				dangerousCall: call,
			}
			k.rehearse(t)
			counts := k.systemCalls(t)
			kills := 0
			for name, count := range counts {
				for nth := 1; nth <= count; nth++ {
					where := fmt.Sprintf("%s, call %d of %d", name, nth, count)
					k.prepare(t)
					if k.killAt(t, name, nth) {
						kills++
					}
					k.checkTruth(t, where)
					k.recover(t, where)
					if t.Failed() {
						return
					}
				}
			}
			t.Logf("killed %d times, at %d kinds of system calls", kills, len(counts))
			if kills < 50 {
				t.Errorf("only %d kills hit their mark", kills)
			}
		})
	}
}

// rehearse takes the dumps that tell the states apart.
func (k *killed) rehearse(t *testing.T) {
	t.Helper()
	k.clean = k.dump(t)
	for _, bucket := range k.others {
		check(t, status(k.start(bucket), ocf.Success))
	}
	k.without = k.dump(t)
	check(t, status(k.start(victim), ocf.Success))
	k.with = k.dump(t)
	k.stopAll(t, "rehearsal")
}

func (k *killed) dump(t *testing.T) string {
	t.Helper()
	dump, err := k.host.Dump()
	check(t, err)
	return dump
}

func (k *killed) prepare(t *testing.T) {
	t.Helper()
	for _, bucket := range k.others {
		check(t, status(k.start(bucket), ocf.Success))
	}
	if k.runs {
		check(t, status(k.start(victim), ocf.Success))
	}
	if k.spoil != nil {
		k.spoil(k, t)
	}
}

// damage breaks something of everything that is shared.
func (k *killed) damage(t *testing.T) {
	t.Helper()
	link, err := k.host.Handle().LinkByName(NIC)
	check(t, err)
	address, err := netlink.ParseAddr(shared.String() + "/24")
	check(t, err)
	check(t, k.host.Handle().AddrDel(link, address))
	nft(t, k.host, "flush chain arp clusterip-"+shared.String()+" output; delete table ip clusterip-"+shared.String())
}

// systemCalls counts the calls of an undisturbed run, by name, as strace does: for each thread apart. The program makes all
// of an action's on one thread.
func (k *killed) systemCalls(t *testing.T) map[string]int {
	t.Helper()
	k.prepare(t)
	log := filepath.Join(t.TempDir(), "strace")
	check(t, status(k.underStrace("-o", log, "-e", "trace=!"+strings.Join(runtimeCalls, ",")), ocf.Success))
	k.stopAll(t, "undisturbed run")
	text, err := os.ReadFile(log)
	check(t, err)
	perThread := map[string]map[string]int{}
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		thread, call, _ := strings.Cut(line, " ")
		name, _, isCall := strings.Cut(strings.TrimSpace(call), "(")
		if !isCall || strings.HasPrefix(name, "?") || strings.HasPrefix(name, "<...") || strings.HasPrefix(name, "+++") {
			continue
		}
		if perThread[thread] == nil {
			perThread[thread] = map[string]int{}
		}
		perThread[thread][name]++
		counts[name] = max(counts[name], perThread[thread][name])
	}
	if counts["sendmsg"] == 0 || counts["sendto"] == 0 {
		t.Fatalf("this is not a run of the agent: %v", counts)
	}
	return counts
}

func (k *killed) underStrace(options ...string) Result {
	argv := append([]string{strace, "-f", "-qq"}, options...)
	return k.host.Run(k.ctx, k.environment(k.action, victim), append(argv, k.program, k.action)...)
}

// killAt tells whether the process came so far. A run may have a call more or less than another, when a reply of the
// kernel comes in other pieces.
func (k *killed) killAt(t *testing.T, name string, nth int) bool {
	t.Helper()
	r := k.underStrace("-o", "/dev/null", "-e", "trace="+name, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", name, nth))
	if r.Err == nil && r.ExitCode == 0 {
		return false
	}
	if r.Err == nil { // strace ends by the signal that its child ended by
		t.Errorf("%s %d: exit status %d instead of a kill\n%s", name, nth, r.ExitCode, r.Stderr)
	}
	return true
}

// checkTruth compares what monitor says with what is.
func (k *killed) checkTruth(t *testing.T, where string) {
	t.Helper()
	want := ocf.ErrGeneric
	switch k.dump(t) {
	case k.with:
		want = ocf.Success
	case k.without, k.clean:
		want = ocf.NotRunning
	}
	if err := status(k.monitor(victim), want); err != nil {
		// Damaged, but this bucket is not owned and others are: their monitors tell.
		if want == ocf.ErrGeneric && len(k.others) > 0 && status(k.monitor(victim), ocf.NotRunning) == nil && !k.owned(t) {
			return
		}
		t.Errorf("%s: monitor: %v\n%s", where, err, k.dump(t))
	}
}

// owned asks nft(8) whether the victim is in the set.
func (k *killed) owned(t *testing.T) bool {
	t.Helper()
	r := k.host.Run(t.Context(), []string{"PATH=/usr/sbin:/sbin"}, "/usr/sbin/nft", "list", "set", "netdev", "clusterip-"+shared.String(), "owned")
	return strings.Contains(r.Stdout, fmt.Sprintf("0x%08x", victim))
}

func (k *killed) recover(t *testing.T, where string) {
	t.Helper()
	for _, bucket := range append(slices.Clone(k.others), victim) {
		if err := status(k.start(bucket), ocf.Success); err != nil {
			t.Errorf("%s: start of bucket %d afterwards: %v", where, bucket, err)
		}
		if err := status(k.monitor(bucket), ocf.Success); err != nil {
			t.Errorf("%s: monitor of bucket %d afterwards: %v", where, bucket, err)
		}
	}
	k.stopAll(t, where)
}

func (k *killed) stopAll(t *testing.T, where string) {
	t.Helper()
	for _, bucket := range append(slices.Clone(k.others), victim) {
		if err := status(k.stop(bucket), ocf.Success); err != nil {
			t.Errorf("%s: stop of bucket %d afterwards: %v", where, bucket, err)
		}
	}
	if dump := k.dump(t); dump != k.clean {
		t.Errorf("%s: something is left (-before +after):\n%s", where, changes(k.clean, dump))
	}
	if files, err := os.ReadDir(k.tempDir); err != nil && !os.IsNotExist(err) || len(files) > 0 {
		t.Errorf("%s: files are left: %v %v", where, files, err)
	}
}
