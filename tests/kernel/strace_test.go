//go:build system

package kernel

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

const strace = "/usr/bin/strace"

// runtimeCalls are system calls of the Go runtime that neither read nor change anything outside the process; it makes them
// whenever it likes, so they cannot be counted.
var runtimeCalls = []string{
	"arch_prctl", "clone", "clone3", "epoll_pwait", "execve", "exit", "futex", "getpid", "gettid", "madvise", "mincore", "mmap",
	"mprotect", "munmap", "nanosleep", "prctl", "prlimit64", "restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask",
	"rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "tgkill",
}

// actingCalls are those by which the agent changes anything or has it changed: it asks the kernel, takes the lock, writes, and starts a
// program and waits for it. A kill at any other leaves what one at the next of these does.
var actingCalls = []string{"bpf", "sendto", "sendmsg", "openat", "flock", "ftruncate", "pwrite64", "write", "pipe2", "waitid", "unlinkat"}

// atEveryCall proves that, and spares none: it takes some twenty times as long.
var atEveryCall = flag.Bool("at-every-call", false, "kill the agent at each of its system calls, not only at some of those where it acts")

var isName = regexp.MustCompile(`^\w+$`)

// A tracedCall is one of the agent whose system calls are counted, and which is killed at one of them.
type tracedCall struct {
	*agent
	action string
	bucket int
	ends   ocf.ExitCode // with which it ends when it is not killed
}

// underStrace runs the action in a process namespace, which takes the programs that the agent has started along when it ends.
func (c tracedCall) underStrace(options ...string) lan.Result {
	argv := []string{"/usr/bin/unshare", "--pid", "--fork", "/bin/sh", "-c", `"$@"; exit $?`, "sh", strace, "-qq"}
	return c.Host.Run(c.ctx, c.Environment(c.action, c.bucket), slices.Concat(argv, options, []string{c.Program, c.action})...)
}

// systemCalls makes the call, and counts its system calls by name. The program makes all of an action's on its first thread.
func (c tracedCall) systemCalls(t *testing.T) map[string]int {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	trace := strings.Join(actingCalls, ",")
	if *atEveryCall {
		trace = "!" + strings.Join(runtimeCalls, ",")
	}
	check(t, status(c.underStrace("-o", log, "-e", "trace="+trace), c.ends))
	text, err := os.ReadFile(log)
	check(t, err)
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if name, _, isCall := strings.Cut(line, "("); isCall && isName.MatchString(name) {
			counts[name]++
		}
	}
	if counts["sendmsg"] == 0 || counts["sendto"] == 0 {
		t.Fatalf("this is not a run of the agent: %v", counts)
	}
	return counts
}

// killAt reports whether the process got that far. A run may have a call more or less than another, when a reply of the
// kernel comes in other pieces.
func (c tracedCall) killAt(t *testing.T, name string, nth int) bool {
	t.Helper()
	r := c.underStrace("-o", "/dev/null", "-e", "trace="+name, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", name, nth))
	if r.Err == nil && r.ExitCode == int(c.ends) {
		return false
	}
	const killed = 128 + 9 // strace ends as its child did
	if r.Err != nil || r.ExitCode != killed {
		t.Errorf("%s %d: exit status %d instead of a kill: %v\n%s", name, nth, r.ExitCode, r.Err, r.Stderr)
	}
	return true
}
