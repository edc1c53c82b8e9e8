//go:build system

// Package doctor plants misconfigurations in an otherwise good cluster. `ocf-clusterip doctor` must find each one, and nothing else.
//
// The nodes are real as far as their kernels go: addresses, rules, parameters, neighbours and a router are those of network namespaces. The
// cluster is what Pacemaker's own tools read from a file (CIB_file), and corosync.conf.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// hung bounds each call. Nothing here takes a fraction of it.
const hung = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

const (
	shared  = "192.168.10.3"
	shared6 = "2001:db8:10::3"
	router  = "192.168.10.254"
	buckets = 8
)

// A site is a cluster, of which node1 is examined.
type site struct {
	*lan.Network
	program string
	folder  string            // of the cluster's files, and the agents' locks
	files   map[string]string // of node1, by their paths: below /etc, /usr/lib and /proc/sys beside those of the machine, below /run alone
}

// newSite makes a good cluster: all buckets run, dealt to the nodes, and clients can come through a router.
func newSite(t *testing.T) *site {
	t.Helper()
	executable, err := harness.Program()
	check(t, err)
	s := &site{Network: lan.Start(t, lan.Options{IPv6: true}), program: executable, folder: t.TempDir()}
	check(t, s.AddRouter(t.Context(), 1500))
	for _, node := range s.Nodes {
		s.shell(t, node, "echo 0 >/proc/sys/net/ipv4/ip_forward") // a new namespace has the machine's
		s.shell(t, node, "ip route add default via "+router)
	}
	s.start(t)
	s.reset(t)
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts all buckets, dealt to the nodes.
func (s *site) start(t *testing.T) {
	t.Helper()
	for bucket := range buckets {
		s.agent(t, s.Nodes[bucket%len(s.Nodes)], "start", bucket)
	}
}

// agent calls the agent for the resource as it is in the CIB. It must succeed.
func (s *site) agent(t *testing.T, node *lan.Host, action string, bucket int) {
	t.Helper()
	a := harness.Agent{
		Program: s.program, Host: node, TempDir: filepath.Join(s.folder, node.Name), Buckets: buckets,
		Parameters: harness.Parameters{"ip": shared + " " + shared6, "nic": lan.NIC, "drain": "600"},
	}
	if err := a.Call(t.Context(), action, bucket).Failure(); err != nil {
		t.Fatalf("%s of bucket %d on %s: %v", action, bucket, node.Name, err)
	}
}

// shell runs a line as an admin would type it.
func (s *site) shell(t *testing.T, node *lan.Host, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hung)
	defer cancel()
	environ := append(s.environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	r := node.Run(ctx, environ, "/bin/sh", "-ec", line)
	if r.Err != nil || r.ExitCode != 0 {
		t.Fatalf("%s on %s: status %d, %v\n%s", line, node.Name, r.ExitCode, r.Err, r.Stderr)
	}
	return r.Stdout
}

func (s *site) cib() string      { return filepath.Join(s.folder, "cib.xml") }
func (s *site) corosync() string { return filepath.Join(s.folder, "corosync.conf") }

// environ is that of a member of the cluster.
func (s *site) environ() []string {
	return []string{
		"CIB_file=" + s.cib(),
		"COROSYNC_MAIN_CONFIG_FILE=" + s.corosync(),
		"HA_RSCTMP=" + filepath.Join(s.folder, s.Nodes[0].Name),
	}
}

// reset makes the cluster's files good again.
func (s *site) reset(t *testing.T) {
	t.Helper()
	for file, to := range map[string]string{"good.cib.xml": s.cib(), "corosync.conf": s.corosync()} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		check(t, err)
		check(t, os.WriteFile(to, text, 0o644))
	}
}

// A report is what doctor writes as JSON.
type report struct {
	Result string
	Checks []finding
}

type finding struct {
	Resource, Group, Check, Result, Seen, Why string
	Do                                        []string
}

// doctor examines node1. The exit status must be that of the worst result.
func (s *site) doctor(t *testing.T, args ...string) report {
	t.Helper()
	return s.report(t, append([]string{s.program, "doctor", "--json"}, args...)...)
}

// without examines node1 as if a program were not installed.
func (s *site) without(t *testing.T, file string, args ...string) report {
	t.Helper()
	return s.report(t, hidden(file, append([]string{s.program, "doctor", "--json"}, args...)...)...)
}

// hidden runs something in a mount namespace in which an empty mount hides a program and its folder.
func hidden(file string, argv ...string) []string {
	const hide = `mount -t tmpfs none "$0" && exec "$@"`
	return append([]string{"/usr/bin/unshare", "--mount", "/bin/sh", "-c", hide, filepath.Dir(file)}, argv...)
}

// among runs something in a mount namespace in which the node has its files. What the machine has below /run is about the interfaces of the
// machine, whose indexes are also those of the node's.
func (s *site) among(t *testing.T, argv ...string) []string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range s.files {
		file := filepath.Join(folder, name)
		check(t, os.MkdirAll(filepath.Dir(file), 0o755))
		check(t, os.WriteFile(file, []byte(text), 0o644))
	}
	const enter = `mount -t tmpfs none /run
if test -d "$0/run"; then cp -r "$0/run/." /run; fi
for folder in /etc /usr/lib; do
	if test -d "$0$folder"; then mount -t overlay -o "lowerdir=$0$folder:$folder" none $folder; fi
done
for file in $(find "$0/proc" -type f 2>/dev/null); do
	target=${file#"$0"}
	while ! test -e "$target"; do file=${file%/*} target=${target%/*}; done # of a file that is not there, the folder
	case $target in /proc/net/*) file=$0/proc/net target=/proc/$$/net ;; esac # what is mounted below it is lost with the next lookup
	mount --bind "$file" "$target"
done
exec "$@"`
	return append([]string{"/usr/bin/unshare", "--mount", "/bin/sh", "-ec", enter, folder}, argv...)
}

func (s *site) report(t *testing.T, argv ...string) report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hung)
	defer cancel()
	r := s.Nodes[0].Run(ctx, s.environ(), s.among(t, argv...)...)
	if r.Err != nil {
		t.Fatalf("%v\n%s", r.Err, r.Stderr)
	}
	var seen report
	if err := json.Unmarshal([]byte(r.Stdout), &seen); err != nil {
		t.Fatalf("status %d, no JSON (%v):\n%s\n%s", r.ExitCode, err, r.Stdout, r.Stderr)
	}
	if want := []string{"ok", "warning", "failure"}[r.ExitCode]; seen.Result != want {
		t.Errorf("exit status is %d, but the result %s", r.ExitCode, seen.Result)
	}
	for _, f := range seen.Checks {
		if f.Seen == "" || f.Result != "ok" && (f.Why == "" || len(f.Do) == 0) {
			t.Errorf("check %s is %s without what was seen, why it matters and what to type: %+v", f.Check, f.Result, f)
		}
	}
	return seen
}

// bad are the checks that are not ok, with their results.
func (r report) bad() map[string]string {
	bad := map[string]string{}
	for _, f := range r.Checks {
		if f.Result != "ok" {
			bad[f.Check] = f.Result
		}
	}
	return bad
}

func (r report) text() string {
	var b strings.Builder
	for _, f := range r.Checks {
		if f.Result != "ok" {
			fmt.Fprintf(&b, "%s: %s: %s\n", f.Result, f.Check, f.Seen)
		}
	}
	return b.String()
}
