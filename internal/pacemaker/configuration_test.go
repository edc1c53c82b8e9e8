package pacemaker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
)

const someConfiguration = `<configuration>
  <crm_config/>
  <nodes><node id="1" uname="node1"/><node id="2" uname="node2"/><node id="3" uname="node3"/></nodes>
  <resources>
    <template id="shared" class="ocf" provider="custom" type="clusterip">
      <instance_attributes id="t"><nvpair id="t1" name="drain" value="600"/><nvpair id="t2" name="mac_mode" value="igmp"/>
      </instance_attributes>
    </template>
    <primitive id="power" class="stonith" type="fence_ipmilan"/>
    <clone id="web-ip-clone">
      <primitive id="web-ip" class="ocf" provider="custom" type="clusterip">
        <instance_attributes id="a"><nvpair id="a1" name="ip" value="192.168.10.3"/></instance_attributes>
        <meta_attributes id="m"><nvpair id="m1" name="resource-stickiness" value="1"/><nvpair id="m2" name="clone-max" value="99"/>
        </meta_attributes>
      </primitive>
      <meta_attributes id="c">
        <nvpair id="c1" name="clone-max" value="8"/><nvpair id="c2" name="resource-stickiness" value="0"/>
        <nvpair id="c3" name="globally-unique" value="true"/>
        <nvpair id="c4" name="target-role" value="stopped"/>
      </meta_attributes>
    </clone>
    <group id="g">
      <primitive id="lone" template="shared">
        <instance_attributes id="l"><nvpair id="l1" name="ip" value="192.168.10.4"/><nvpair id="l2" name="mac_mode" value="unicast"/>
        </instance_attributes>
      </primitive>
      <primitive id="other" class="ocf" provider="heartbeat" type="IPaddr2"/>
    </group>
    <clone id="group-clone">
      <group id="grouped"><primitive id="in-group" class="ocf" provider="custom" type="clusterip"/></group>
      <meta_attributes id="d"><nvpair id="d1" name="globally-unique" value="yes"/></meta_attributes>
    </clone>
  </resources>
</configuration>`

func TestResourcesOfThisAgent(t *testing.T) {
	want := []Resource{
		{
			Name: "web-ip", Clone: "web-ip-clone", Parameters: map[string]string{"ip": "192.168.10.3"}, Unique: clusterip.Yes, Buckets: 8,
			Meta: map[string]string{
				"clone-max": "8", "resource-stickiness": "1", "globally-unique": "true", "target-role": "stopped",
			},
		},
		{
			Name: "lone", Parameters: map[string]string{"ip": "192.168.10.4", "mac_mode": "unicast", "drain": "600"}, Meta: map[string]string{},
			Buckets: 1,
		},
		{
			Name: "in-group", Clone: "group-clone", Parameters: map[string]string{}, Meta: map[string]string{"globally-unique": "yes"},
			Unique: clusterip.Yes, Buckets: 3,
		},
	}
	configuration, err := ParseConfiguration(someConfiguration)
	if err != nil {
		t.Fatal(err)
	}
	got := Resources(configuration)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if !got[0].Disabled() || got[0].ID() != "web-ip-clone" || got[0].Instance(3) != "web-ip:3" {
		t.Errorf("web-ip: disabled %t, %s, %s", got[0].Disabled(), got[0].ID(), got[0].Instance(3))
	}
	if got[1].Disabled() || got[1].ID() != "lone" || got[1].Instance(0) != "lone" {
		t.Errorf("lone: disabled %t, %s, %s", got[1].Disabled(), got[1].ID(), got[1].Instance(0))
	}
	for _, text := range []string{
		"", "<cib/>", "no XML <", "<html><configuration/></html>",
		"<configuration>" + strings.Repeat("<rule>", deepest) + strings.Repeat("</rule>", deepest) +
			"</configuration>",
	} {
		if got, err := ParseConfiguration(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// What the agent would refuse.
func TestBucketsThatCannotBe(t *testing.T) {
	for meta, buckets := range map[string]uint32{
		`<nvpair name="clone-max" value="1025"/><nvpair name="globally-unique" value="true"/>`: 1,
		`<nvpair name="clone-max" value="0"/><nvpair name="globally-unique" value="true"/>`:    1,
		`<nvpair name="clone-max" value="many"/><nvpair name="globally-unique" value="true"/>`: 1,
		`<nvpair name="clone-max" value="8"/>`:                                                 8,
	} {
		configuration, err := ParseConfiguration(fmt.Sprintf(`<configuration><resources><clone id="c">
			<primitive id="p" class="ocf" provider="custom" type="clusterip"/>
			<meta_attributes>%s</meta_attributes></clone></resources></configuration>`, meta))
		if err != nil {
			t.Fatal(err)
		}
		if got := Resources(configuration); len(got) != 1 || got[0].Fault == nil || got[0].Buckets != buckets {
			t.Errorf("%s: %+v", meta, got)
		}
	}
}

// Pacemaker tells instances apart by default from 3.0 on where clone-node-max is above 1; the versions' own crm_mon says the same.
func TestInstancesThatAreToldApart(t *testing.T) {
	const none, most8, most1 = "", `<nvpair name="clone-node-max" value="8"/>`, `<nvpair name="clone-node-max" value="1"/>`
	for name, row := range map[string]struct {
		version, meta string
		want          clusterip.Answer
	}{
		"by default, of old":                 {"dc-version=2.1.10-2.1.10", most8, clusterip.No},
		"by default":                         {"dc-version=3.0.0-3.0.0", most8, clusterip.Yes},
		"by default, with one on a node":     {"dc-version=3.0.0-3.0.0", most1, clusterip.No},
		"by default, without clone-node-max": {"dc-version=3.0.3-3.0.3", none, clusterip.No},
		"with nonsense in clone-node-max":    {"dc-version=3.0.3-3.0.3", `<nvpair name="clone-node-max" value="many"/>`, clusterip.No},
		"the version is not known":           {"", most8, clusterip.Unknown},
		"the version does not matter":        {"", most1, clusterip.No},
		"switched off":                       {"dc-version=3.0.0-3.0.0", most8 + `<nvpair name="globally-unique" value="false"/>`, clusterip.No},
		"a value that is no boolean":         {"dc-version=3.0.0-3.0.0", most8 + `<nvpair name="globally-unique" value="ture"/>`, clusterip.No},
		"switched on":                        {"", `<nvpair name="globally-unique" value="1"/>`, clusterip.Yes},
	} {
		t.Run(name, func(t *testing.T) {
			configuration, err := ParseConfiguration(strings.Replace(crmConfig(row.version), "</configuration>",
				`<resources><clone id="c"><primitive id="p" class="ocf" provider="custom" type="clusterip"/><meta_attributes>
					<nvpair name="clone-max" value="8"/>`+
					row.meta+`</meta_attributes></clone></resources></configuration>`, 1))
			if err != nil {
				t.Fatal(err)
			}
			got := Resources(configuration)
			if len(got) != 1 || got[0].Unique != row.want || (got[0].Fault == nil) != (row.want == clusterip.Yes) || got[0].Buckets != 8 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// What Pacemaker's crm_mon of 2.0.5, 2.1.5, 3.0.0 and 3.0.3 made of such configurations.
func TestWhichOfSeveralValuesCounts(t *testing.T) {
	set := func(attributes, kind, name, value string) string {
		return fmt.Sprintf(`<%[1]s %[2]s><nvpair name="%[3]s" value="%[4]s"/></%[1]s>`, kind, attributes, name, value)
	}
	const kind = "meta_attributes"
	defaults := "<rsc_defaults>" + set("", kind, "clone-max", "5") + set("", kind, "migration-threshold", "1") + "</rsc_defaults>"
	for name, row := range map[string]struct {
		sets, defaults string
		want           uint32
	}{
		"the last of two sets":    {set("", kind, "clone-max", "3") + set("", kind, "clone-max", "4"), "", 4},
		"the set with more score": {set(`score="1"`, kind, "clone-max", "3") + set("", kind, "clone-max", "4"), "", 3},
		"the first pair of a set": {
			`<meta_attributes><nvpair name="clone-max" value="3"/><nvpair name="clone-max" value="4"/></meta_attributes>`, "", 3,
		},
		"a default of all clones":  {"", defaults, 5},
		"more than a default":      {set("", kind, "clone-max", "3"), defaults, 3},
		"a node each, where unset": {"", "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			configuration, err := ParseConfiguration(`<configuration><nodes><node/><node/></nodes><resources>` +
				`<clone id="c"><primitive id="p" class="ocf" provider="custom" type="clusterip"/>` +
				row.sets + `</clone></resources>` + row.defaults + `</configuration>`)
			if err != nil {
				t.Fatal(err)
			}
			got := Resources(configuration)
			if _, of := got[0].Meta["migration-threshold"]; len(got) != 1 || got[0].Buckets != row.want || of {
				t.Errorf("%+v", got)
			}
		})
	}
}
