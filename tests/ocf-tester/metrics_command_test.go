//go:build system

package ocftester

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
)

// TestMetrics is about the command for collectors: what it prints about a node, and that it prints something in any state of the node.
func TestMetrics(t *testing.T) {
	n := newNode(t)
	has := func(t *testing.T, text string, want ...string) {
		t.Helper()
		lines := strings.Split(text, "\n")
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("no line %q in:\n%s", line, text)
			}
		}
	}
	metrics := func(t *testing.T, args ...string) string {
		t.Helper()
		r := n.run(t, n.pacemaker(), append([]string{program, "metrics"}, args...)...)
		if r.ExitCode != 0 || r.Stderr != "" {
			t.Errorf("metrics %q: exit status %d, stderr %q", args, r.ExitCode, r.Stderr)
		}
		return r.Stdout
	}
	const owned = `clusterip_bucket_owned{node="",resource="web-ip:3",clone="",address="192.168.10.3",bucket="3"} `

	// As after a stop of Pacemaker: the earlier metrics are no longer true.
	nothing := metrics(t)
	has(t, nothing, "clusterip_pacemaker_up 0", "clusterip_health 1", `clusterip_build_info{version="`+version+`"} 1`)
	if strings.Contains(nothing, "clusterip_bucket_owned{") || strings.Contains(metrics(t, address), "clusterip_bucket_owned{") {
		t.Errorf("a node on which nothing is shared owns buckets:\n%s", nothing)
	}

	checkStatus(t, n.call(t, service().With(harness.Instance(3, 8)), "start"), ocf.Success)
	for _, args := range [][]string{nil, {address}} {
		has(
			t,
			metrics(t, args...),
			owned+"1",
			strings.NewReplacer(`:3"`, `:4"`, `"3"`, `"4"`).Replace(owned)+"0",
			`clusterip_resource_buckets{resource="web-ip",address="192.168.10.3"} 8`,
			`clusterip_resource_health{resource="web-ip",address="192.168.10.3"} 0`,
			`clusterip_foreign_packets_total{resource="web-ip",address="192.168.10.3"} 0`,
		)
	}
	// A collector must not fail because of a fault on the node.
	n.shell(t, "ip address delete "+address+"/32 dev eth0")
	has(t, metrics(t), "clusterip_health 2", `clusterip_resource_health{resource="web-ip",address="192.168.10.3"} 2`)

	dir := t.TempDir()
	file := filepath.Join(dir, "clusterip.prom")
	t.Run("the file is replaced as a whole", func(t *testing.T) {
		if out := metrics(t, "--output", file); out != "" {
			t.Errorf("stdout is not empty: %q", out)
		}
		before, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer before.Close()
		checkStatus(t, n.call(t, service().With(harness.Instance(3, 8)), "stop"), ocf.Success)
		metrics(t, "--output", file)
		// A reader that has opened the file reads the earlier metrics to their end.
		old, err := io.ReadAll(before)
		if err != nil {
			t.Fatal(err)
		}
		has(t, string(old), owned+"1", "clusterip_health 2")
		now, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		has(t, string(now), "clusterip_health 1")
		if strings.Contains(string(now), owned) {
			t.Errorf("the bucket was released, but:\n%s", now)
		}
		if diff := cmp.Diff([]string{"/clusterip.prom"}, files(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
	t.Run("all may read it, whatever the umask", func(t *testing.T) {
		n.shell(t, "umask 077; "+program+" metrics --output "+file)
		if info, err := os.Lstat(file); err != nil || info.Mode() != 0o644 {
			t.Errorf("mode is %v (%v), want a file with 0644", info.Mode(), err)
		}
	})
	t.Run("on a full disk the old file stays", func(t *testing.T) {
		full := filepath.Join(dir, "full")
		n.shell(t, "mkdir "+full+"; mount -t tmpfs -o size=8k none "+full+"; cd "+full+"; echo old >clusterip.prom; echo rest >other")
		defer n.shell(t, "umount "+full+"; rmdir "+full)
		r := n.run(t, n.pacemaker(), program, "metrics", "--output", full+"/clusterip.prom")
		if left := n.shell(
			t,
			"cd "+full+"; ls -A; cat clusterip.prom",
		); r.ExitCode != int(ocf.ErrGeneric) || !strings.Contains(r.Stderr, "no space left") ||
			left != "clusterip.prom\nother\nold\n" {
			t.Errorf("exit status %d, stderr %q; files, and the old one's text: %q", r.ExitCode, r.Stderr, left)
		}
	})
	t.Run("a user without permission gets an error", func(t *testing.T) {
		r := n.run(t, vars{}, asNobody(program, "metrics")...)
		if r.ExitCode != int(ocf.ErrPerm) || r.Stdout != "" || !strings.Contains(r.Stderr, "root") {
			t.Errorf("exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
		}
	})

	if err := os.Symlink(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	n.shell(t, "mkfifo "+filepath.Join(dir, "fifo"))
	before := files(t, dir)
	for _, tt := range []struct {
		name  string
		args  []string
		names []string // what the error must name
	}{
		{"an address that is none", []string{"web"}, []string{`"web"`}},
		{"an address of one interface", []string{"fe80::1%eth0"}, []string{"fe80::1%eth0"}},
		{"two addresses", []string{address, "192.168.10.4"}, []string{"2 addresses"}},
		{"a flag after the address", []string{address, "--output", dir}, []string{"--output", dir}},
		{"a flag that does not exist", []string{"--file", "x"}, []string{"file", "metrics --help"}},
		{"no name", []string{"--output"}, []string{"output", "metrics --help"}},
		{"an empty name", []string{"--output", ""}, []string{"--output", `""`}},
		{"a folder", []string{"--output", dir}, []string{"--output", dir}},
		{"a folder that is not there", []string{"--output", dir + "/new/"}, []string{"--output", dir + "/new/"}},
		{"a file in it", []string{"--output", dir + "/new/clusterip.prom"}, []string{"--output", "no folder " + dir + "/new"}},
		{"a file below a file", []string{"--output", file + "/clusterip.prom"}, []string{"--output", file}},
		{"a link to a file", []string{"--output", dir + "/link"}, []string{"--output", dir + "/link", "not a regular file"}},
		{"a link to nowhere", []string{"--output", dir + "/dangling"}, []string{"--output", dir + "/dangling", "not a regular file"}},
		{"a device", []string{"--output", "/dev/null"}, []string{"--output", "/dev/null", "not a regular file"}},
		{"a pipe", []string{"--output", dir + "/fifo"}, []string{"--output", dir + "/fifo", "not a regular file"}},
		{"several faults", []string{"--output", dir, "web"}, []string{`"web"`, "--output"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.run(t, vars{}, append([]string{program, "metrics"}, tt.args...)...)
			if r.ExitCode != int(ocf.ErrArgs) || r.Stdout != "" || strings.Contains(r.Stderr, "goroutine") ||
				strings.Contains(r.Stderr, "ocf-exit-reason") {
				t.Errorf("exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
			}
			for _, name := range tt.names {
				if !strings.Contains(r.Stderr, name) {
					t.Errorf("%q is not in %q", name, r.Stderr)
				}
			}
		})
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("files that refused calls have left (-want +got):\n%s", diff)
	}
}
