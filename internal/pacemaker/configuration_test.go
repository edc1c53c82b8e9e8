package pacemaker

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResourcesOfThisAgent(t *testing.T) {
	const text = `<configuration>
  <crm_config/>
  <nodes><node id="1" uname="node1"/><node id="2" uname="node2"/><node id="3" uname="node3"/></nodes>
  <resources>
    <template id="shared" class="ocf" provider="custom" type="clusterip">
      <instance_attributes id="t"><nvpair id="t1" name="drain" value="600"/><nvpair id="t2" name="mac_mode" value="igmp"/></instance_attributes>
    </template>
    <primitive id="power" class="stonith" type="fence_ipmilan"/>
    <clone id="web-ip-clone">
      <primitive id="web-ip" class="ocf" provider="custom" type="clusterip">
        <instance_attributes id="a"><nvpair id="a1" name="ip" value="192.168.10.3"/></instance_attributes>
        <meta_attributes id="m"><nvpair id="m1" name="resource-stickiness" value="1"/></meta_attributes>
      </primitive>
      <meta_attributes id="c"><nvpair id="c1" name="clone-max" value="8"/><nvpair id="c2" name="resource-stickiness" value="0"/></meta_attributes>
    </clone>
    <group id="g">
      <primitive id="lone" template="shared">
        <instance_attributes id="l"><nvpair id="l1" name="ip" value="192.168.10.4"/><nvpair id="l2" name="mac_mode" value="unicast"/></instance_attributes>
      </primitive>
      <primitive id="other" class="ocf" provider="heartbeat" type="IPaddr2"/>
    </group>
    <clone id="plain-clone">
      <primitive id="plain" class="ocf" provider="custom" type="clusterip"/>
      <meta_attributes id="p"><nvpair id="p1" name="target-role" value="stopped"/></meta_attributes>
    </clone>
  </resources>
</configuration>`
	want := []Resource{
		{Name: "web-ip", Clone: "web-ip-clone", Parameters: map[string]string{"ip": "192.168.10.3"}, Meta: map[string]string{"clone-max": "8", "resource-stickiness": "0"}, Buckets: 8},
		{Name: "lone", Parameters: map[string]string{"ip": "192.168.10.4", "mac_mode": "unicast", "drain": "600"}, Meta: map[string]string{}, Buckets: 1},
		{Name: "plain", Clone: "plain-clone", Parameters: map[string]string{}, Meta: map[string]string{"target-role": "stopped"}, Buckets: 3},
	}
	configuration, err := parseConfiguration(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, Resources(configuration)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, text := range []string{"", "<cib/>", "no XML <"} {
		if got, err := parseConfiguration(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}
