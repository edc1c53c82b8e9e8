//go:build system

// Package examples holds configurations to copy, see README.md. Its tests load each of them with the real tools, on a host of
// package lab, and simulate with Pacemaker's own scheduler what becomes of the buckets.
package examples

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lab"
)

func TestMain(m *testing.M) {
	if status, taken := lab.Inside(); taken {
		os.Exit(status)
	}
	os.Exit(harness.Main(m))
}

// desk is a host without a running cluster, where configurations are made as files.
type desk struct {
	*testing.T
	host *lab.Host
	dir  string // of files
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	agent, err := harness.Program()
	check(t, err)
	l, err := lab.New(t.Context(), lab.Options{Nodes: 1, ManualStart: true, Agent: agent})
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	return &desk{t, l.Hosts[0], t.TempDir()}
}

// run runs a program on the desk, which must succeed.
func (d *desk) run(argv ...string) string {
	d.Helper()
	out, err := d.host.Run(d.Context(), argv...)
	check(d.T, err)
	return out
}

// file is the path of a file of the desk.
func (d *desk) file(name string) string { return filepath.Join(d.dir, name) }

// example is the path of an example.
func (d *desk) example(name string) string {
	d.Helper()
	path, err := filepath.Abs(name)
	check(d.T, err)
	return path
}

// empty makes a configuration with those nodes and nothing else.
func (d *desk) empty(nodes ...string) (cib string) {
	d.Helper()
	doc := etree.NewDocument()
	check(d.T, doc.ReadFromString(d.run("cibadmin", "--empty")))
	for i, node := range nodes {
		e := doc.FindElement("//nodes").CreateElement("node")
		e.CreateAttr("id", fmt.Sprint(i+1))
		e.CreateAttr("uname", node)
	}
	cib = d.file("cib.xml")
	check(d.T, doc.WriteToFile(cib))
	return cib
}

// programs is where they are, in every release.
const programs = "/usr/sbin:/usr/bin:/sbin:/bin"

// pcs runs an example's pcs commands on a configuration in a file, as they are. No pcs may call one of them deprecated.
func (d *desk) pcs(cib, example string) {
	d.Helper()
	bin := d.file("bin")
	check(d.T, os.MkdirAll(bin, 0o755))
	check(d.T, os.WriteFile(filepath.Join(bin, "pcs"), []byte("#!/bin/sh\nPATH="+programs+"\nexec pcs -f '"+cib+"' \"$@\"\n"), 0o755))
	output := d.run("env", "PATH="+bin+":"+programs, "sh", "-c", `exec sh "$0" 2>&1`, d.example(example))
	for line := range strings.Lines(output) {
		// A rule as one argument, as pcs 0.12 wants it, is none to pcs 0.10 and 0.11.
		if strings.Contains(strings.ToLower(line), "deprecat") && !strings.Contains(line, "a rule as multiple arguments") {
			d.Errorf("%s: pcs warns: %s", example, line)
		}
	}
}

// verify lets Pacemaker check a configuration, which may give no reason for a warning. Its nodes are left out: as long as none has been
// seen, it warns that all must be fenced. Without fencing it would refuse any configuration.
func (d *desk) verify(cib string) {
	d.Helper()
	doc := etree.NewDocument()
	check(d.T, doc.ReadFromFile(cib))
	nodes := doc.FindElement("//configuration/nodes")
	for _, node := range nodes.ChildElements() {
		nodes.RemoveChild(node)
	}
	doc.Root().CreateAttr("have-quorum", "1") // else it warns that there is none
	check(d.T, doc.WriteToFile(d.file("verify.xml")))
	if output := d.run("sh", "-c", `exec crm_verify --verbose --verbose --xml-file "$0" 2>&1`, d.file("verify.xml")); output != "" {
		d.Errorf("crm_verify warns: %s", output)
	}
}

// fenced is an empty configuration with fencing.
func (d *desk) fenced(nodes ...string) (cib string) {
	d.Helper()
	cib = d.empty(nodes...)
	d.pcs(cib, "fencing/three-nodes.pcs.sh")
	return cib
}

// content is a configuration without the ids that the tools choose.
func content(t *testing.T, cib string) []string {
	t.Helper()
	doc := etree.NewDocument()
	check(t, doc.ReadFromFile(cib))
	var lines []string
	for _, nv := range doc.FindElements("//configuration//nvpair") {
		owner := nv.Parent().Parent()
		where := owner.Tag + " " + owner.SelectAttrValue("id", "")
		switch owner.Tag {
		case "op":
			where = "op " + owner.SelectAttrValue("name", "") + owner.SelectAttrValue("interval", "") +
				" of " + owner.Parent().Parent().SelectAttrValue("id", "")
		case "crm_config":
			where = "property"
		}
		// pcs writes of itself what it runs on.
		if name := nv.SelectAttrValue("name", ""); name != "have-watchdog" && name != "cluster-infrastructure" && name != "dc-version" {
			lines = append(lines, fmt.Sprintf("%s: %s %s=%s", where, nv.Parent().Tag, name, nv.SelectAttrValue("value", "")))
		}
	}
	for _, p := range doc.FindElements("//primitive") {
		lines = append(lines, fmt.Sprintf("primitive %s in %s: %s:%s:%s", p.SelectAttrValue("id", ""), p.Parent().Tag,
			p.SelectAttrValue("class", ""), p.SelectAttrValue("provider", ""), p.SelectAttrValue("type", "")))
		for _, op := range p.FindElements("operations/op") {
			lines = append(lines, fmt.Sprintf("op of %s: %s interval=%s timeout=%s", p.SelectAttrValue("id", ""),
				op.SelectAttrValue("name", ""), op.SelectAttrValue("interval", ""), op.SelectAttrValue("timeout", "")))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestTwoNodesPingInThreeLanguages(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	cib := d.empty("node1", "node2")
	d.pcs(cib, "two-nodes-ping/cluster.pcs.sh")
	d.verify(cib)
	want := content(t, cib)
	if !slices.Contains(want, "primitive ping-ip in clone: ocf:custom:clusterip") {
		t.Errorf("pcs made %q", want)
	}
	t.Run("crm shell", func(t *testing.T) {
		cib := d.empty("node1", "node2")
		d.run("env", "CIB_file="+cib, "crm", "-F", "configure", "load", "update", d.example("two-nodes-ping/cluster.crmsh"))
		d.verify(cib)
		if diff := cmp.Diff(want, content(t, cib)); diff != "" {
			t.Errorf("(-pcs +crm)\n%s", diff)
		}
	})
	t.Run("XML", func(t *testing.T) {
		cib := d.empty("node1", "node2")
		d.run("env", "CIB_file="+cib, "cibadmin", "--modify", "--allow-create", "--xml-file", d.example("two-nodes-ping/cluster.cib.xml"))
		d.verify(cib)
		if diff := cmp.Diff(want, content(t, cib)); diff != "" {
			t.Errorf("(-pcs +XML)\n%s", diff)
		}
	})
	s := d.started(cib, "node1", "node2")
	check(t, s.status().Even("ping-ip", 8, "node1", "node2"))
}

func TestFencing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, name := range []string{"two-nodes", "three-nodes"} {
		cib := d.empty("node1", "node2", "node3")
		d.pcs(cib, "fencing/"+name+".pcs.sh")
		d.verify(cib)
		d.run("corosync", "-t", "-c", d.example("fencing/"+name+".corosync.conf"))
	}
	bad := d.file("bad.conf")
	check(t, os.WriteFile(bad, []byte("totem {\n\tversion: 3\n}\n"), 0o600))
	if _, err := d.host.Run(t.Context(), "corosync", "-t", "-c", bad); err == nil {
		t.Error("corosync accepts anything")
	}
}

// nodesNamed returns node1 to nodeN.
func nodesNamed(count int) []string {
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("node%d", i+1))
	}
	return names
}

func TestManyNodes(t *testing.T) {
	for _, row := range []struct {
		example        string
		nodes, buckets int
		every          int // which node's death is looked at: the scheduler takes seconds for a large cluster
	}{
		{"many-nodes/sixteen-nodes.pcs.sh", 16, 64, 1},
		{"many-nodes/thirty-two-nodes.pcs.sh", 32, 256, 8},
	} {
		t.Run(row.example, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			nodes := nodesNamed(row.nodes)
			cib := d.fenced(nodes...)
			d.pcs(cib, row.example)
			d.verify(cib)
			// Each instance is else probed on each node first: to simulate that takes minutes. (Deprecated from Pacemaker 3.0.2 on.)
			d.run("pcs", "-f", cib, "property", "set", "enable-startup-probes=false", "--force")
			s := d.started(cib, nodes...)
			before := s.status()
			check(t, before.Even("web-ip", row.buckets, nodes...))
			failures, moves, homecomings := 0, 0, 0
			for i, dead := range nodes {
				if i%row.every != 0 {
					continue
				}
				failures++
				failed := s.after("--node-fail", dead)
				remaining := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == dead })
				if err := failed.status().Even("web-ip", row.buckets, remaining...); err != nil {
					t.Errorf("without %s: %v", dead, err)
				}
				for bucket, node := range before.Placement("web-ip") {
					now := failed.status().Placement("web-ip")[bucket]
					if node != dead && now != node {
						t.Errorf("%s fails, and bucket %d moves from %s to %s without need", dead, bucket, node, now)
					}
					if now != node {
						moves++
					}
				}
				if i > 0 {
					continue // one return is enough
				}
				back := failed.after("--node-up", dead)
				if err := back.status().Even("web-ip", row.buckets, nodes...); err != nil {
					t.Errorf("%s is back: %v", dead, err)
				}
				homecomings = max(homecomings, moved(failed.status(), back.status()))
			}
			t.Logf("%d nodes, %d buckets: %d moves in %d failures, %d when a node comes back", row.nodes, row.buckets, moves, failures, homecomings)
			if share := row.buckets / row.nodes; homecomings > share {
				t.Errorf("%d buckets move when a node comes back, its share is %d", homecomings, share)
			}
		})
	}
}

// moved counts the buckets that are elsewhere.
func moved(before, after *lab.Status) int {
	count := 0
	for bucket, node := range before.Placement("web-ip") {
		if after.Placement("web-ip")[bucket] != node {
			count++
		}
	}
	return count
}

func TestUnequalNodes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	nodes := nodesNamed(3)
	cib := d.fenced(nodes...)
	d.pcs(cib, "unequal-nodes/cluster.pcs.sh")
	d.verify(cib)
	s := d.started(cib, nodes...)
	if diff := cmp.Diff(map[string]int{"node1": 8, "node2": 4, "node3": 4}, s.status().Shares("web-ip")); diff != "" {
		t.Errorf("the strong node has not twice as many buckets (-want +got)\n%s", diff)
	}
	failed := s.after("--node-fail", "node1")
	if diff := cmp.Diff(map[string]int{"node2": 8, "node3": 8}, failed.status().Shares("web-ip")); diff != "" {
		t.Errorf("the others do not take all over (-want +got)\n%s", diff)
	}
}

func TestWebFarm(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	nodes := nodesNamed(3)
	cib := d.fenced(nodes...)
	d.pcs(cib, "web-farm/cluster.pcs.sh")
	d.verify(cib)
	s := d.started(cib, nodes...)
	if placed := s.status().Placement("web-ip"); len(placed) > 0 {
		t.Errorf("nginx does not run yet, and buckets are at %v", placed)
	}
	for _, node := range nodes { // what the agent web-works would do
		s.set(node, map[string]string{"web-works": "1"})
	}
	s = s.after()
	before := s.status()
	check(t, before.Even("web-ip", 8, nodes...))

	failed := s.after("--op-inject", "web_monitor_10000@node2=7")
	for _, action := range failed.actions {
		if !strings.Contains(action, "on node2") {
			t.Errorf("nginx fails on node2, and elsewhere something happens: %s", action)
		}
	}
	stops := func(a string) bool { return strings.HasPrefix(a, "web-works") && strings.Contains(a, "stop on node2") }
	if !slices.ContainsFunc(failed.actions, stops) {
		t.Errorf("nginx fails on node2, and the attribute stays: %q", failed.actions)
	}
	failed.set("node2", map[string]string{"web-works": "0"})
	left := failed.after()
	for bucket, node := range before.Placement("web-ip") {
		switch now := left.status().Placement("web-ip")[bucket]; {
		case node == "node2" && (now == "node2" || now == ""):
			t.Errorf("nginx has failed on node2, and bucket %d is at %q", bucket, now)
		case node != "node2" && now != node:
			t.Errorf("nginx has failed on node2, and bucket %d moves from %s to %s", bucket, node, now)
		}
	}
	left.set("node2", map[string]string{"web-works": "1"})
	check(t, left.after().status().Even("web-ip", 8, nodes...))
}

// A node whose nginx stops in order has no bucket any more. But no bucket waits for an nginx that starts.
func TestWebFarmNodeStopsAndReturns(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	nodes := nodesNamed(3)
	cib := d.fenced(nodes...)
	d.pcs(cib, "web-farm/cluster.pcs.sh")
	s := d.started(cib, nodes...)
	for _, node := range nodes {
		s.set(node, map[string]string{"web-works": "1"})
	}
	s = s.after()

	s.standby("node2", "on")
	away := s.after()
	last, first := -1, len(away.actions) // of the buckets, of the others
	for i, action := range away.actions {
		switch {
		case !strings.HasSuffix(action, "stop on node2"):
		case strings.HasPrefix(action, "web-ip:"):
			last = i
		default:
			first = min(first, i)
		}
	}
	if last < 0 || first == len(away.actions) || first < last {
		t.Errorf("node2 goes into standby, and its buckets do not stop before all else: %q", away.actions)
	}
	check(t, away.status().Even("web-ip", 8, "node1", "node3"))

	// What else moves in the same transition is not held up by a start that fails, or hangs.
	away.standby("node2", "off")
	away.set("node2", map[string]string{"web-works": "0"})
	back := away.after("--op-fail", "web_start_0@node2=1", "--node-fail", "node3")
	if !slices.Contains(back.actions, "web start on node2") {
		t.Errorf("node2 is back, and its nginx does not start: %q", back.actions)
	}
	for bucket := range 8 {
		if node := back.status().Placement("web-ip")[bucket]; node != "node1" {
			t.Errorf("only node1 is left with an nginx, and bucket %d is at %q", bucket, node)
		}
	}
}

func TestLeaveBeforeYouFail(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	nodes := nodesNamed(3)
	cib := d.fenced(nodes...)
	d.pcs(cib, "leave-before-you-fail/cluster.pcs.sh")
	d.verify(cib)
	s := d.started(cib, nodes...)
	if placed := s.status().Placement("web-ip"); len(placed) > 0 {
		t.Errorf("before anybody has looked outside, buckets are at %v", placed)
	}
	healthy := map[string]string{"reachable": "2", "eth0-works": "1", "#health-cpu": "green", "#health_disk": "green"}
	for _, node := range nodes {
		s.set(node, healthy)
	}
	s = s.after()
	before := s.status()
	check(t, before.Even("web-ip", 8, nodes...))
	for name, value := range map[string]string{"#health-cpu": "red", "#health_disk": "red", "reachable": "0", "eth0-works": "0"} {
		t.Run(name+"="+value, func(t *testing.T) {
			ailing := s.copy()
			ailing.set("node2", map[string]string{name: value})
			left := ailing.after()
			shares := left.status().Shares("web-ip")
			if shares["node2"] != 0 || shares["node1"] != 4 || shares["node3"] != 4 {
				t.Errorf("the shares are %v", shares)
			}
			for bucket, node := range before.Placement("web-ip") {
				if now := left.status().Placement("web-ip")[bucket]; node != "node2" && now != node {
					t.Errorf("bucket %d moves from %s to %s without need", bucket, node, now)
				}
			}
			left.set("node2", healthy)
			check(t, left.after().status().Even("web-ip", 8, nodes...))
		})
	}
}

// Every example must be in the README, and every file that it names must exist.
func TestREADMENamesEveryExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	check(t, err)
	files, err := filepath.Glob("*/*")
	check(t, err)
	for _, file := range files {
		if !strings.Contains(string(readme), "("+file+")") {
			t.Errorf("README.md does not link to %s", file)
		}
	}
}
