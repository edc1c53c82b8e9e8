package pacemaker

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
)

func TestAttributeName(t *testing.T) {
	for address, want := range map[string]string{"192.168.10.3": "clusterip-192.168.10.3-7", "2001:db8::3": "clusterip-2001-db8--3-7"} {
		if got := attribute(netip.MustParseAddr(address), 7); got != want {
			t.Errorf("attribute of %s is %s, want %s", address, got, want)
		}
	}
}

func TestStatementsAreReadBack(t *testing.T) {
	for value, drainers := range map[string][]clusterip.Drainer{
		"none":                      nil,
		"node1:600":                 {{Node: "node1", Left: 10 * time.Minute}},
		"web-1.example:1,b_2:86400": {{Node: "web-1.example", Left: time.Second}, {Node: "b_2", Left: 24 * time.Hour}},
	} {
		if got := formatDrainers(drainers); got != value {
			t.Errorf("%v is written %q, want %q", drainers, got, value)
		}
		got, err := parseDrainers(value)
		if diff := cmp.Diff(drainers, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", value, err, diff)
		}
	}
	if got := formatDrainers([]clusterip.Drainer{{Node: "a", Left: 1500 * time.Millisecond}}); got != "a:2" {
		t.Errorf("a part of a second is left out: %q", got)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, value := range []string{
		"", "nobody", "node1", "node1:", ":5", "node1:-1", "node1:+1", "node1:86401", "node1:1e3", "node1:999999999999", "node 1:5", "node1:5,", "a;b:5", "-n:5",
		"node1:5 ", strings.Repeat("n", 300) + ":5",
	} {
		if got, err := parseDrainers(value); err == nil {
			t.Errorf("%q is taken for %v", value, got)
		}
	}
}

// What attrd_updater of Pacemaker 2.1.5 printed.
func TestAttributesOfAllNodes(t *testing.T) {
	const text = `name="clusterip-192.168.10.3-3" host="node3" value="none"
name="clusterip-192.168.10.3-3" host="node1" value="node1:300"
name="clusterip-192.168.10.3-3" host="node2" value=""
`
	got, err := parseAttributes(text, "clusterip-192.168.10.3-3")
	want := map[string]string{"node1": "node1:300", "node2": "", "node3": "none"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parseAttributes(text, "shutdown"); err == nil {
		t.Errorf("another attribute's values are taken: %v", got)
	}
}

// What cibadmin of Pacemaker 2.1.5 printed of nodes in every place, shortened.
func TestPresence(t *testing.T) {
	const text = `<status>
  <node_state id="1" uname="member" in_ccm="true" crmd="online" join="member" expected="member"><lrm id="1"/></node_state>
  <node_state id="2" uname="stopped" in_ccm="true" crmd="offline" join="down" expected="down"><lrm id="2"><lrm_resources/></lrm></node_state>
  <node_state id="3" uname="stopped-with-corosync" in_ccm="false" crmd="offline" join="down" expected="down"><lrm id="3"/></node_state>
  <node_state id="4" uname="fenced" in_ccm="false" crmd="offline" crm-debug-origin="send_stonith_update" join="down" expected="down"/>
  <node_state id="5" uname="booting" in_ccm="true" crmd="online" crm-debug-origin="peer_update_callback" join="down" expected="down"/>
  <node_state id="6" uname="crashed" in_ccm="false" crmd="offline" join="down" expected="member"><lrm id="6"/></node_state>
</status>`
	got, err := parsePresence(text)
	want := map[string]clusterip.Presence{
		"member": clusterip.Member, "stopped": clusterip.Left, "stopped-with-corosync": clusterip.Left,
		"fenced": clusterip.Lost, "booting": clusterip.Member, "crashed": clusterip.Lost,
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, text := range []string{"", "<status/>", "no XML <", "<node_state"} {
		if got, err := parsePresence(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func FuzzParseDrainers(f *testing.F) {
	for _, value := range []string{"none", "node1:600", "a:1,b:2", "a:,", ":"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		drainers, err := parseDrainers(value)
		if err != nil {
			return
		}
		again, err := parseDrainers(formatDrainers(drainers))
		if diff := cmp.Diff(drainers, again); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", value, err, diff)
		}
	})
}

// Whatever Pacemaker's programs print: an error, not a crash, and no node without a name.
func FuzzParseAnswers(f *testing.F) {
	f.Add(`name="x" host="node1" value="y"`)
	f.Add(`<status><node_state uname="node1" crmd="online" expected="member"><lrm/></node_state></status>`)
	f.Fuzz(func(t *testing.T, text string) {
		if values, err := parseAttributes(text, "x"); err != nil && values != nil {
			t.Errorf("%v with an error", values)
		}
		_, _ = parseView(text)
		if configuration, err := parseConfiguration(text); err == nil {
			Resources(configuration)
		}
		if nodes, err := parsePresence(text); err == nil {
			if _, nameless := nodes[""]; nameless {
				t.Errorf("a node without a name in %q", text)
			}
		}
	})
}

// The program takes less than the default patience, so that a patience that has no effect shows.
func TestPatienceEnds(t *testing.T) {
	slow := func(patience time.Duration, seconds string) error {
		_, err := Cluster{Patience: patience}.run(t.Context(), "/bin/sleep", seconds)
		return err
	}
	if err := slow(10*time.Millisecond, "1"); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("a program that takes a second: %v", err)
	}
	if err := slow(time.Hour, "0.1"); err != nil {
		t.Error(err)
	}
}
