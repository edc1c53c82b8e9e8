//go:build system

package ocftester

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ocf-clusterip/internal/ocf"
)

// TestPlan is about the command for people, which needs neither root nor a cluster.
func TestPlan(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	access := file("access.log", "192.168.64.1 - - \"GET /\"\n192.168.64.1 - - \"GET /a\"\nno address\n[2001:db8::7]:4711 - -\n")
	picture, link, pipe := filepath.Join(dir, "plan.svg"), filepath.Join(dir, "link.svg"), filepath.Join(dir, "pipe.svg")
	secondName := filepath.Join(dir, "second-name.svg")
	for _, err := range []error{os.Symlink(access, link), syscall.Mkfifo(pipe, 0o600), os.Link(file("other.log", "192.0.2.1\n"), secondName)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	planned := func(args ...string) []string { return append([]string{program, "plan"}, args...) }

	r := n.run(t, vars{}, asNobody(planned("--nodes", "3")...)...)
	for _, want := range []string{
		"3 nodes, 12 buckets: 4 on each", "load no\nnode above 66%", "clone web-ip meta clone-max=12 clone-node-max=12",
	} {
		if r.ExitCode != 0 || r.Stderr != "" || !strings.Contains(r.Stdout, want) {
			t.Errorf("exit status %d, stderr %q; %q is not in\n%s", r.ExitCode, r.Stderr, want, r.Stdout)
		}
	}

	// The buckets are those that whois names.
	r = n.run(
		t,
		vars{},
		planned("--nodes", "4", "--buckets", "8", "--to", address+" 2001:db8::3", "--clients", access, "--svg", picture, "--json")...)
	var answer struct {
		Clients struct {
			Requests int `json:"requests"`
			Heaviest []struct {
				Client string `json:"client"`
				Bucket int    `json:"bucket"`
			} `json:"heaviest"`
		} `json:"clients"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &answer); err != nil || r.ExitCode != 0 || r.Stderr != "" {
		t.Fatalf("%v, exit status %d, stderr %q, stdout\n%s", err, r.ExitCode, r.Stderr, r.Stdout)
	}
	if c := answer.Clients; c.Requests != 3 || len(c.Heaviest) != 2 || c.Heaviest[0].Client != "192.168.64.1" || c.Heaviest[0].Bucket != 2 {
		t.Errorf("%+v", c)
	}
	if info, err := os.Stat(picture); err != nil || info.Mode() != 0o644 {
		t.Errorf("the picture: %v, %v", info, err)
	}
	// A picture takes the place of a file's name; what else is called so stays, and so does an older picture when there is no room.
	for _, args := range [][]string{{"--svg", secondName}, {"--svg", picture}} {
		if r := n.run(
			t,
			vars{},
			planned(append([]string{"--nodes", "010"}, args...)...)...); r.ExitCode != 0 ||
			!strings.HasPrefix(r.Stdout, "10 nodes, 40 buckets") {
			t.Errorf("%q: exit status %d, stderr %q, stdout\n%s", args, r.ExitCode, r.Stderr, r.Stdout)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "other.log")); err != nil || string(text) != "192.0.2.1\n" {
		t.Errorf("the picture is written into what has a second name: %.40q, %v", text, err)
	}
	full := filepath.Join(dir, "full")
	n.shell(t, "mkdir "+full+"; mount -t tmpfs -o size=8k none "+full+"; cd "+full+"; echo old >plan.svg; echo rest >other")
	r = n.run(t, vars{}, planned("--nodes", "3", "--svg", full+"/plan.svg")...)
	left := n.shell(t, "cd "+full+"; ls -A; cat plan.svg; cd /; umount "+full+"; rmdir "+full)
	if r.ExitCode != int(ocf.ErrGeneric) || !strings.Contains(r.Stderr, "no space left") || left != "other\nplan.svg\nold\n" {
		t.Errorf("on a full disk: exit status %d, stderr %q; files, and the old picture: %q", r.ExitCode, r.Stderr, left)
	}
	out := n.shell(t, "echo 192.0.2.7 | ocf-clusterip plan --nodes 2 --to "+address+" --clients -")
	if !strings.Contains(out, "Clients in the standard input\n1 line, 1 request, 1 client.") {
		t.Errorf("from a pipe:\n%s", out)
	}

	counters, err := os.ReadFile("../../internal/operator/testdata/metrics.prom")
	if err != nil {
		t.Fatal(err)
	}
	metrics := file("metrics.prom", string(counters))
	r = n.run(t, vars{}, planned("--measured", metrics, "--to", "192.168.10.3")...)
	if want := "web-ip, 192.168.10.3: 8 buckets on 3 nodes, totals"; r.ExitCode != 0 || !strings.HasPrefix(r.Stdout, want) {
		t.Errorf("exit status %d, stderr %q; %q does not begin\n%s", r.ExitCode, r.Stderr, want, r.Stdout)
	}

	for _, tt := range []struct {
		name  string
		args  []string
		names []string // what the error must name
	}{
		{"no flags", nil, []string{"--nodes"}},
		{"no node", []string{"--nodes", "0"}, []string{"--nodes 0"}},
		{"no number", []string{"--nodes", "many"}, []string{"many", "plan --help"}},
		{
			"several faults",
			[]string{"--nodes", "3", "--fail", "9", "--buckets", "5000", "--to", "here", "more"},
			[]string{"--fail 9", "1024", `--to "here"`, `"more"`},
		},
		{"files of a plan", []string{"--nodes", "3", metrics}, []string{"metrics.prom", "--measured"}},
		{"measured without files", []string{"--measured"}, []string{"--measured", "no files"}},
		{
			"measured, and several faults",
			[]string{"--measured", "--nodes", "3", "--hash-seed", "1", "--fail", "9", "--to", "here", metrics},
			[]string{"--nodes", "--hash-seed", "--fail 9", `--to "here"`},
		},
		{
			"measured files that are none",
			[]string{"--measured", access, "/nowhere", file("cut.json", "{\n\"node\": 5}")},
			[]string{"access.log", "/nowhere", "cut.json, line 2"},
		},
		{"measured for another address", []string{"--measured", "--to", "10.0.0.1", metrics}, []string{"--to 10.0.0.1", "192.168.10.3"}},
		{"all fail", []string{"--nodes", "3", "--fail", "3"}, []string{"at most 2"}},
		{"monitors alike", []string{"--nodes", "3", "--monitor-interval", "30s,30s"}, []string{"--monitor-interval", "30s,300s"}},
		{"a monitor that is no time", []string{"--nodes", "3", "--monitor-interval", "soon"}, []string{"soon"}},
		{"clients without an address", []string{"--nodes", "3", "--clients", access}, []string{"--to"}},
		{"a log that is not there", []string{"--nodes", "3", "--to", address, "--clients", "/nowhere"}, []string{"/nowhere"}},
		{"a folder", []string{"--nodes", "3", "--to", address, "--clients", dir}, []string{dir, "directory"}},
		{
			"a log without clients",
			[]string{"--nodes", "3", "--to", address, "--clients", file("empty.log", "nobody\n")},
			[]string{"no address", "empty.log (1 line)"},
		},
		{"a packed log", []string{"--nodes", "3", "--to", address, "--clients", file("log.gz", "\x1f\x8b\x08")}, []string{"compressed", "zcat"}},
		{
			"a log packed otherwise",
			[]string{"--nodes", "3", "--to", address, "--clients", file("a log.zip", "PK\x03\x04")},
			[]string{"compressed", "unzip -p '", "a log.zip' |"},
		},
		{
			"ports",
			[]string{"--nodes", "3", "--to", address, "--clients", access, "--hashmode", "sourceip-sourceport"},
			[]string{"--hashmode", "ports"},
		},
		{"a parameter that is wrong", []string{"--nodes", "3", "--hash-prefix4", "99"}, []string{"hash_prefix4", "32"}},
		{"a picture through a link", []string{"--nodes", "3", "--svg", link}, []string{link, "not a regular file"}},
		{"a picture into a pipe", []string{"--nodes", "3", "--svg", pipe}, []string{pipe, "not a regular file"}},
		{"a picture into nowhere", []string{"--nodes", "3", "--svg", "/nowhere/x.svg"}, []string{"/nowhere"}},
		{
			"a picture in place of the log",
			[]string{"--nodes", "3", "--to", address, "--clients", access, "--svg", access},
			[]string{"--svg", access, "log"},
		},
		{
			"a picture in place of what leads to the log",
			[]string{"--nodes", "3", "--to", address, "--clients", link, "--svg", access},
			[]string{"--svg", access, "log"},
		},
		{"empty names", []string{"--nodes", "3", "--svg", "", "--clients", "", "--to", ""}, []string{"--svg", "--clients", "--to"}},
		{
			"empty parameters",
			[]string{"--nodes", "3", "--hashmode", "", "--monitor-interval", ""},
			[]string{"--hashmode", "--monitor-interval"},
		},
		{"a number that is none in decimals", []string{"--nodes", "0x10"}, []string{"0x10", "plan --help"}},
		{"a part of a second", []string{"--nodes", "3", "--monitor-interval", "1500ms"}, []string{"1500ms", "whole seconds"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.run(t, vars{}, planned(tt.args...)...)
			if r.ExitCode != int(ocf.ErrArgs) || r.Stdout != "" || strings.Contains(r.Stderr, "ocf-exit-reason") {
				t.Errorf("exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
			}
			for _, name := range tt.names {
				if !strings.Contains(r.Stderr, name) {
					t.Errorf("%q is not named: %s", name, r.Stderr)
				}
			}
		})
	}
	if text, err := os.ReadFile(access); err != nil || !strings.HasPrefix(string(text), "192.168.64.1") {
		t.Errorf("what the link leads to is overwritten: %q, %v", text, err)
	}
}
