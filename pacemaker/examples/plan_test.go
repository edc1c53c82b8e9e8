//go:build system

package examples

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/operator/plan"
	"ocf-clusterip/tests/harness"
)

// planned is what of the command's JSON is compared.
type planned struct {
	Nodes     []string       `json:"nodes"`
	Placement []string       `json:"placement"`
	Failures  []plan.Failure `json:"failures"`
	Commands  plan.Commands  `json:"commands"`
}

func askPlan(t *testing.T, args ...string) planned {
	t.Helper()
	program, err := harness.Program()
	check(t, err)
	out, err := exec.CommandContext(t.Context(), program, append([]string{"plan", "--json"}, args...)...).Output()
	check(t, err)
	var answer planned
	check(t, json.Unmarshal(out, &answer))
	return answer
}

// The command `plan` prints what Pacemaker's own scheduler does, bucket for bucket, with the resource as its own commands make it.
func TestPlanIsWhatTheSchedulerDoes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	script := "set -e\n" + strings.Join(askPlan(t, "--nodes", "4").Commands.Create, "\n") + "\n"
	check(t, os.WriteFile(d.file("plan.sh"), []byte(script), 0o600))
	made := d.file("made.xml")
	check(t, os.Rename(d.empty("any"), made))
	d.pcs(made, d.file("plan.sh"))
	// Fence devices would count as what runs on a node, too. The name depends on Pacemaker's version: from 3.0.2 on the new one counts.
	d.run("pcs", "-f", made, "property", "set", "fencing-enabled=false", "stonith-enabled=false", "enable-startup-probes=false", "--force")
	for _, row := range []struct {
		nodes, buckets int
		every          int // which of the failures of one or two nodes are looked at
	}{
		{2, 8, 1},
		{4, 10, 3},
		{5, 3, 5},    // fewer buckets than nodes
		{6, 14, 6},   // some nodes have more than others
		{11, 44, 17}, // the order of the names matters
		{16, 64, 60},
	} {
		t.Run(fmt.Sprintf("%d nodes, %d buckets", row.nodes, row.buckets), func(t *testing.T) {
			answer := askPlan(t, "--nodes", fmt.Sprint(row.nodes), "--buckets", fmt.Sprint(row.buckets), "--fail", fmt.Sprint(min(2, row.nodes-1)))
			s := d.started(d.resized(made, row.buckets, answer.Nodes...), answer.Nodes...)
			if diff := cmp.Diff(answer.Placement, byBucket(s)); diff != "" {
				t.Errorf("all nodes are there (-plan +crm_simulate)\n%s", diff)
			}
			before := plan.Start(row.buckets, row.nodes)
			for i, failure := range answer.Failures {
				if i%row.every != 0 {
					continue
				}
				var events []string
				var failed []int
				for _, node := range failure.Failed {
					events = append(events, "--node-fail", node)
					failed = append(failed, slices.Index(answer.Nodes, node))
				}
				after := s.after(events...)
				if diff := cmp.Diff(failure.Counts, after.status().Shares("web-ip")); diff != "" {
					t.Errorf("%v fail: shares (-plan +crm_simulate)\n%s", failure.Failed, diff)
				}
				var want []string
				for _, node := range before.After(row.nodes, failed) {
					want = append(want, answer.Nodes[node])
				}
				if diff := cmp.Diff(want, byBucket(after)); diff != "" {
					t.Errorf("%v fail: placement (-plan +crm_simulate)\n%s", failure.Failed, diff)
				}
			}
		})
	}
}

// resized is a configuration with other nodes and another number of buckets.
func (d *desk) resized(cib string, buckets int, nodes ...string) string {
	d.Helper()
	doc := etree.NewDocument()
	check(d.T, doc.ReadFromFile(cib))
	for _, name := range []string{"clone-max", "clone-node-max"} {
		doc.FindElement("//clone//nvpair[@name='"+name+"']").CreateAttr("value", fmt.Sprint(buckets))
	}
	there := etree.NewDocument()
	check(d.T, there.ReadFromFile(d.empty(nodes...)))
	configuration := doc.FindElement("//configuration")
	configuration.RemoveChild(configuration.SelectElement("nodes"))
	configuration.AddChild(there.FindElement("//nodes"))
	check(d.T, doc.WriteToFile(d.file("resized.xml")))
	return d.file("resized.xml")
}

// byBucket is the node of each bucket.
func byBucket(s *simulation) []string {
	placement := s.status().Placement("web-ip")
	nodes := make([]string, len(placement))
	for bucket := range nodes {
		nodes[bucket] = placement[bucket]
	}
	return nodes
}
