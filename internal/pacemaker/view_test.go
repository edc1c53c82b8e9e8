package pacemaker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
)

// What crm_mon of Pacemaker 2.1.5 printed, shortened.
func TestView(t *testing.T) {
	const text = `<pacemaker-result api-version="2.25" request="crm_mon --output-as=xml">
  <summary>
    <current_dc present="true" name="node3" with_quorum="true"/>
    <cluster_options stonith-enabled="true" maintenance-mode="false"/>
  </summary>
  <nodes>
    <node name="node1" online="true" standby="false" standby_onfail="false" maintenance="false" unclean="false"/>
    <node name="node2" online="true" standby="true" standby_onfail="false" maintenance="true" unclean="false"/>
    <node name="node3" online="false" standby="false" standby_onfail="false" maintenance="false" unclean="true" type="remote"/>
  </nodes>
  <resources>
    <resource id="power" resource_agent="stonith:fence_lab" role="Started" managed="true">
      <node name="node1" id="1" cached="true"/></resource>
    <clone id="web-ip-clone" multi_state="false" unique="true">
      <resource id="web-ip:0" resource_agent="ocf:custom:clusterip" role="Started" managed="true"><node name="node2" id="2"/></resource>
      <resource id="web-ip:1" resource_agent="ocf:custom:clusterip" role="Stopped" managed="true" blocked="true"/>
      <resource id="web-ip:2" resource_agent="ocf:custom:clusterip" role="Started" managed="true" failed="true">
        <node name="node1" id="1"/><node name="node3" id="3"/></resource>
      <resource id="web-ip:3" resource_agent="ocf:custom:clusterip" role="Starting" managed="false"><node name="node1" id="1"/></resource>
    </clone>
    <group id="g"><resource id="lone" resource_agent="ocf:other:clusterip" role="Started" managed="true">
      <node name="node9" id="9"/></resource></group>
    <resource id="web-ip2:0" resource_agent="ocf:heartbeat:Dummy" role="Started"><node name="node9" id="9"/></resource>
  </resources>
  <failures>
    <failure op_key="web-ip:0_monitor_10000" node="node2" exitstatus="error" exitreason="our rules are gone"
      last-rc-change="2026-11-26 01:54:37Z"/>
    <failure op_key="web-ip2_monitor_10000" node="node2" exitstatus="error"/>
    <failure op_key="web-ip_2_start_0" node="node1" exitstatus="not configured" exitreason=""/>
    <failure op_key="lone_start_0" node="node1" exitstatus="not configured" exitreason=""/>
  </failures>
  <status code="0" message="OK"/>
</pacemaker-result>`
	got, err := ParseView(text)
	want := &View{
		Quorum: true, Fencing: true,
		Nodes: []Node{
			{Name: "node1", Online: true},
			{Name: "node2", Online: true, Standby: true, Maintenance: true},
			{Name: "node3", Unclean: true, Remote: true},
		},
		Instances: []Instance{
			{Resource: "web-ip", Bucket: 0, Nodes: []string{"node2"}, Managed: true},
			{Resource: "web-ip", Bucket: 1, Managed: true, Blocked: true},
			{Resource: "web-ip", Bucket: 2, Nodes: []string{"node1", "node3"}, Managed: true, Failed: true},
			{Resource: "web-ip", Bucket: 3},
			{Resource: "lone", Nodes: []string{"node9"}, Managed: true},
		},
		Failures: []Failure{
			{Action: "web-ip:0_monitor_10000", Node: "node2", Reason: "our rules are gone", When: "2026-11-26 01:54:37Z"},
			{Action: "web-ip2_monitor_10000", Node: "node2", Reason: "error"},
			{Action: "web-ip_2_start_0", Node: "node1", Reason: "not configured"},
			{Action: "lone_start_0", Node: "node1", Reason: "not configured"},
		},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	placed := map[clusterip.Bucket][]string{0: {"node2"}, 2: {"node1"}} // node3 is lost
	if diff := cmp.Diff(placed, got.Placement("web-ip")); diff != "" {
		t.Errorf("placement (-want +got):\n%s", diff)
	}
	if failures := got.Of("web-ip"); len(failures) != 1 || failures[0].Node != "node2" {
		t.Errorf("failures of web-ip: %v", failures)
	}
	for _, name := range []string{"lone", "web-ip_2", "web-ip2"} {
		if failures := got.Of(name); len(failures) != 1 {
			t.Errorf("failures of %s: %v", name, failures)
		}
	}
	if failures := got.Of("web"); len(failures) != 0 {
		t.Errorf("failures of web: %v", failures)
	}
	for _, text := range []string{"", "<crm_mon/>", "no XML <"} {
		if got, err := ParseView(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// The output of crm_mon with fencing enabled and disabled: 3.0.3 prints both names, a later version will print only the new one.
func TestFencingAsCrmMonSaysIt(t *testing.T) {
	for options, want := range map[string]bool{
		`stonith-enabled="true" symmetric-cluster="true"`:                             true,
		`stonith-enabled="false" symmetric-cluster="true" stonith-timeout-ms="60000"`: false,
		`fencing-enabled="true" fencing-timeout-ms="60000" stonith-enabled="true"`:    true,
		`fencing-enabled="false" fencing-timeout-ms="60000" stonith-enabled="false"`:  false,
		`fencing-enabled="true" fencing-timeout-ms="60000"`:                           true,
		`fencing-enabled="false" fencing-timeout-ms="60000" symmetric-cluster="true"`: false,
		`symmetric-cluster="true"`:                                                    false,
	} {
		view, err := ParseView(`<pacemaker-result><summary><cluster_options ` + options + `/></summary></pacemaker-result>`)
		if err != nil || view.Fencing != want {
			t.Errorf("%s: %v, %v", options, view, err)
		}
	}
}
