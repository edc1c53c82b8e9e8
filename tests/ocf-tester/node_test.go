//go:build system

package ocftester

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

const (
	// The two names of an installed agent.
	program = "/usr/sbin/ocf-clusterip"
	agent   = "/usr/lib/ocf/resource.d/custom/clusterip"

	// version is what the build under test calls itself.
	version = "v0.0.0-contract"

	// sourceDate is of when its source claims to be: 14 November 2023.
	sourceDate = "1700000000"

	// address is the shared one, of the LAN that the node's eth0 is on (192.168.10.0/24).
	address = "192.168.10.3"

	// The user and the group nobody.
	nobody = 65534

	// hung bounds every call. Nothing here takes a fraction of it.
	hung = 2 * time.Minute
)

// scratch is a folder for all tests, which TestMain removes.
var scratch string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	syscall.Umask(0o022) // as an admin's who installs
	dir, err := os.MkdirTemp("", "ocf-tester-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch = dir
	return m.Run()
}

// installed runs `make install` into a folder once and returns the folder.
var installed = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "installed")
	return dir, makeTarget("install", dir)
})

// makeTarget runs make with a DESTDIR, and a place of its own for what it compiles.
func makeTarget(target, destdir string) error {
	return harness.Make(target, "DESTDIR="+destdir, "BIN="+filepath.Join(scratch, "bin"), "version="+version, "SOURCE_DATE_EPOCH="+sourceDate)
}

// node is a cluster node on which the agent is installed. Its eth0 has an address of 192.168.10.0/24.
type node struct {
	*lan.Host
	locks string // HA_RSCTMP
}

// newNode mounts the installed files over /usr in the node's mount namespace: on the machine itself nothing is installed.
func newNode(t *testing.T) *node {
	t.Helper()
	files, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	host := lan.Start(t, lan.Options{Nodes: 1, IPv6: true}).Nodes[0]
	err = host.Do(func() error {
		return unix.Mount("overlay", "/usr", "overlay", unix.MS_RDONLY, "lowerdir="+files+"/usr:/usr")
	})
	if err != nil {
		t.Fatalf("mount %s over the node's /usr: %v", files, err)
	}
	return &node{Host: host, locks: filepath.Join(t.TempDir(), "resource-agents")}
}

type vars = harness.Vars

// params returns parameters of the resource, from pairs of name and value.
func params(namesAndValues ...string) vars {
	return harness.Parameters{}.With(namesAndValues...).Vars()
}

// service is the resource that most tests are about.
func service() vars { return params("ip", address, "nic", lan.NIC) }

// pacemaker returns what Pacemaker's executor sets for each call. The locks of a test are its own.
func (n *node) pacemaker() vars { return harness.Pacemaker(n.Name, n.locks, "start") }

// run runs any program on the node, with exactly these variables, and fails the test if it does not come to an end.
func (n *node) run(t *testing.T, v vars, argv ...string) lan.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hung)
	defer cancel()
	r := n.Run(ctx, v.List(), argv...)
	if r.Err != nil {
		t.Fatalf("%s: %v\nstdout: %s\nstderr: %s", strings.Join(argv, " "), r.Err, r.Stdout, r.Stderr)
	}
	return r
}

// shell runs a line as an admin would type it. It must succeed.
func (n *node) shell(t *testing.T, line string) string {
	t.Helper()
	r := n.run(t, vars{"PATH": "/sbin:/bin:/usr/sbin:/usr/bin", "LC_ALL": "C", "HOME": n.locks}, "/bin/sh", "-ec", line)
	if r.ExitCode != 0 {
		t.Fatalf("%s: status %d\nstdout: %s\nstderr: %s", line, r.ExitCode, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// call calls the agent as Pacemaker does: Pacemaker's variables, and these on top.
func (n *node) call(t *testing.T, v vars, args ...string) lan.Result {
	t.Helper()
	return n.run(t, n.pacemaker().With(v), append([]string{agent}, args...)...)
}

// asNobody prefixes a command that an unprivileged user runs.
func asNobody(argv ...string) []string {
	id := strconv.Itoa(nobody)
	return append([]string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "--"}, argv...)
}

// state returns all that the agent might leave behind: the network's state, and its files.
func (n *node) state(t *testing.T) string {
	t.Helper()
	state, err := n.Dump()
	if err != nil {
		t.Fatal(err)
	}
	return state + "# files\n" + strings.Join(files(t, n.locks), "\n")
}

// files returns what lies below a folder, without the folders themselves. A missing folder is empty.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if path == dir && errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() {
			list = append(list, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// checkStatus checks the exit status, and what every action owes its caller: nothing on stdout, and on stderr, one fact per
// line, log lines with a level, and one line that gives the reason if the action failed. It returns the reason.
func checkStatus(t *testing.T, r lan.Result, want ocf.ExitCode) (reason string) {
	t.Helper()
	return checkStatusWithPrefix(t, r, want, "ocf-exit-reason:")
}

func checkStatusWithPrefix(t *testing.T, r lan.Result, want ocf.ExitCode, prefix string) (reason string) {
	t.Helper()
	if got := ocf.ExitCode(r.ExitCode); got != want {
		t.Errorf("exit status is %d (%s), want %d (%s)\nstderr: %s", got, got, want, want, r.Stderr)
	}
	if r.Stdout != "" {
		t.Errorf("stdout is not empty: %q", r.Stdout)
	}
	if !utf8.ValidString(r.Stderr) {
		t.Errorf("stderr is not UTF-8: %q", r.Stderr)
	}
	var reasons []string
	for line := range strings.Lines(r.Stderr) {
		line = strings.TrimSuffix(line, "\n")
		switch level, _, _ := strings.Cut(line, ": "); {
		case strings.HasPrefix(line, prefix):
			reasons = append(reasons, strings.TrimPrefix(line, prefix))
		case !slices.Contains([]string{"DEBUG", "INFO", "WARNING", "ERROR"}, level):
			t.Errorf("a line of stderr is neither a log line nor the exit reason: %q", line)
		}
	}
	switch {
	case want == ocf.Success || want == ocf.NotRunning:
		if len(reasons) > 0 && want == ocf.Success {
			t.Errorf("a success has a reason: %q", reasons)
		}
	case len(reasons) != 1:
		t.Errorf("%d lines begin with %q, want 1:\n%s", len(reasons), prefix, r.Stderr)
	case strings.TrimSpace(reasons[0]) == "":
		t.Error("the exit reason is empty")
	}
	return strings.Join(reasons, "\n")
}
