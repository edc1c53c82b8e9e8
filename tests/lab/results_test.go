package lab

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recorded returns lines of a Pacemaker's log.
func recorded(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseResults(t *testing.T) {
	at := func(ms int) time.Time { return time.Date(2026, 11, 24, 0, 27, 35, ms*1e6, time.UTC) }
	got, err := parseResults(recorded(t, "pacemaker.log"), at(250))
	if err != nil {
		t.Fatal(err)
	}
	want := []Result{
		{at(298), "node1", "web-ip:8", "start", "not configured"},
		{at(304), "node1", "web-ip:9", "probe", "not running"},
		{at(410), "node1", "web-ip:8", "stop", "ok"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	ofSeconds := recorded(t, "pacemaker-2.0.5.log")
	if got, err := parseResults(ofSeconds, at(0)); err != nil || len(got) != 1 || got[0].Action != "start" || !got[0].Time.Equal(at(0)) {
		t.Errorf("2.0.5 writes whole seconds: %v, %v", got, err)
	}
	if got[0].OK() || !got[1].OK() || !got[2].OK() {
		t.Error("a failed action is taken for a good one, or the other way round")
	}
}

func TestParseStatus(t *testing.T) {
	const text = `<?xml version="1.0"?>
<pacemaker-result api-version="2.25" request="crm_mon --output-as=xml">
  <summary><current_dc present="true" version="2.1.5" name="node3" id="3" with_quorum="true"/></summary>
  <nodes>
    <node name="node1" id="1" online="true" standby="false" pending="false" unclean="false"/>
    <node name="node2" id="2" online="false" standby="false" pending="false" unclean="true"/>
    <node name="node3" id="3" online="true" standby="false" pending="true" unclean="false"/>
  </nodes>
  <resources>
    <resource id="power" resource_agent="stonith:fence_lab" role="Started" orphaned="false" failed="false"><node name="node1"/></resource>
    <clone id="web-ip-clone" unique="true">
      <resource id="web-ip:0" resource_agent="ocf:custom:clusterip" role="Started" orphaned="false" failed="false">
        <node name="node1"/></resource>
      <resource id="web-ip:1" resource_agent="ocf:custom:clusterip" role="Started" orphaned="false" failed="false">
        <node name="node1"/></resource>
      <resource id="web-ip:2" resource_agent="ocf:custom:clusterip" role="Stopped" orphaned="false" failed="true"/>
    </clone>
  </resources>
  <failures><failure op_key="web-ip:2_start_0" node="node1" exitstatus="not configured" exitreason="why" exitcode="6"/></failures>
  <status code="0" message="OK"/>
</pacemaker-result>`
	s, err := ParseStatus(text)
	if err != nil {
		t.Fatal(err)
	}
	want := &Status{
		DC: "node3", Quorum: true,
		Nodes: map[string]Node{"node1": {Online: true}, "node2": {Unclean: true}, "node3": {Online: true, Pending: true}},
		Instances: []Instance{
			{ID: "power", Agent: "stonith:fence_lab", Role: "Started", Nodes: []string{"node1"}},
			{ID: "web-ip:0", Agent: "ocf:custom:clusterip", Role: "Started", Nodes: []string{"node1"}},
			{ID: "web-ip:1", Agent: "ocf:custom:clusterip", Role: "Started", Nodes: []string{"node1"}},
			{ID: "web-ip:2", Agent: "ocf:custom:clusterip", Role: "Stopped", Failed: true},
		},
		Failures: []Failure{{Node: "node1", Action: "web-ip:2_start_0", Exit: "not configured", Reason: "why"}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := ParseStatus("crm_mon: Error"); err == nil {
		t.Error("what is not XML is taken for a status")
	}
}

func TestEven(t *testing.T) {
	status := func(nodes map[string]Node, owners ...string) *Status {
		s := &Status{Nodes: nodes}
		for i, owner := range owners {
			instance := Instance{ID: "web-ip:" + string(rune('0'+i)), Role: "Started", Nodes: []string{owner}}
			if owner == "" {
				instance.Role, instance.Nodes = "Stopped", nil
			}
			s.Instances = append(s.Instances, instance)
		}
		return s
	}
	online := Node{Online: true}
	two := map[string]Node{"a": online, "b": online}
	tests := []struct {
		name   string
		status *Status
		nodes  []string
		even   bool
	}{
		{"two each", status(two, "a", "b", "a", "b"), []string{"a", "b"}, true},
		{"three to one", status(two, "a", "b", "a", "a"), []string{"a", "b"}, false},
		{"one is stopped", status(two, "a", "b", "a", ""), []string{"a", "b"}, false},
		{"a node has none", status(two, "a", "a", "a", "a"), []string{"a", "b"}, false},
		{
			"the only node that may has all",
			status(map[string]Node{"a": online, "b": {Online: true, Standby: true}}, "a", "a", "a", "a"),
			[]string{"a"},
			true,
		},
		{
			"a dead node's are counted until it is fenced",
			status(map[string]Node{"a": online, "b": {Unclean: true}}, "a", "b", "a", "b"),
			[]string{"a", "b"},
			false,
		},
		{"one is active twice", status(two, "a", "b", "a", "a+b"), []string{"a", "b"}, false},
		{"another node has some", status(two, "a", "b", "a", "b"), []string{"a"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.status.Even("web-ip", 4, tt.nodes...); (err == nil) != tt.even {
				t.Errorf("even: %t (%v)", err == nil, err)
			}
		})
	}
}
