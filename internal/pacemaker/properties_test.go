package pacemaker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crmConfig is a configuration with those properties, NAME=VALUE each, in one set.
func crmConfig(properties string) string {
	var pairs strings.Builder
	for property := range strings.FieldsSeq(properties) {
		name, value, _ := strings.Cut(property, "=")
		fmt.Fprintf(&pairs, `<nvpair id="%[1]s" name="%[1]s" value="%[2]s"/>`, name, value)
	}
	return `<configuration><crm_config><cluster_property_set id="cib-bootstrap-options">` + pairs.String() + `</cluster_property_set>
		</crm_config></configuration>`
}

// The versions' own crm_mon, asked with CIB_file, says the same of each row with a version.
func TestFencingOff(t *testing.T) {
	const bullseye, trixie, sid = "dc-version=2.0.5-ba59be7122 ", "dc-version=3.0.0-3.0.0 ", "dc-version=3.0.3-3.0.3 "
	for name, row := range map[string]struct {
		text string
		want []string
	}{
		"nothing is set":                                   {sid, nil},
		"by the former name":                               {sid + "stonith-enabled=false", []string{"stonith-enabled=false"}},
		"by the former name, of old":                       {bullseye + "stonith-enabled=OFF", []string{"stonith-enabled=OFF"}},
		"by the new name":                                  {sid + "fencing-enabled=no", []string{"fencing-enabled=no"}},
		"by the new name, which the version does not know": {trixie + "fencing-enabled=false", nil},
		"both, the new one on":                             {sid + "fencing-enabled=1 stonith-enabled=false", nil},
		"both, the new one off":                            {sid + "fencing-enabled=n stonith-enabled=true", []string{"fencing-enabled=n"}},
		"both, and the version knows the former one only": {
			trixie + "fencing-enabled=true stonith-enabled=false", []string{"stonith-enabled=false"},
		},
		"no boolean stands for the default":          {sid + "fencing-enabled=ture stonith-enabled=false", nil},
		"no boolean, by the former name":             {bullseye + "stonith-enabled=ture", nil},
		"both differ, and the version is not known":  {"fencing-enabled=true stonith-enabled=0", []string{"stonith-enabled=0"}},
		"the new name, and the version is not known": {"fencing-enabled=false", []string{"fencing-enabled=false"}},
		"both off, and the version is not known": {
			"fencing-enabled=false stonith-enabled=off", []string{"fencing-enabled=false", "stonith-enabled=off"},
		},
		"on by both names": {"fencing-enabled=Yes stonith-enabled=y", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, fencingOff(t, crmConfig(row.text))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := FencingOff(nil); got != nil {
		t.Errorf("without a configuration: %v", got)
	}
}

func fencingOff(t *testing.T, text string) []string {
	t.Helper()
	configuration, err := ParseConfiguration(text)
	if err != nil {
		t.Fatal(err)
	}
	var off []string
	for _, setting := range FencingOff(configuration) {
		off = append(off, setting.String())
	}
	return off
}

// Of several sets of properties one comes first, and what a rule may switch off is not on.
func TestSetsOfProperties(t *testing.T) {
	set := func(attributes, rule, value string) string {
		return fmt.Sprintf(
			`<cluster_property_set %s>%s<nvpair id="x" name="stonith-enabled" value="%s"/></cluster_property_set>`, attributes, rule, value,
		)
	}
	const rule = `<rule id="r"><date_expression id="d" operation="gt" start="2026-01-01"/></rule>`
	for name, row := range map[string]struct {
		sets string
		want []string
	}{
		"the highest score": {
			set(`id="a"`, "", "true") + set(`id="b" score="5"`, "", "false"), []string{"stonith-enabled=false"},
		},
		"a score that is INFINITY": {
			set(`id="a" score="999999"`, "", "true") + set(`id="b" score="INFINITY"`, "", "false"), []string{"stonith-enabled=false"},
		},
		"a score that is -INFINITY": {
			set(`id="a" score="-INFINITY"`, "", "true") + set(`id="b" score="x"`, "", "false"), []string{"stonith-enabled=false"},
		},
		"cib-bootstrap-options before any score": {
			set(`id="a" score="INFINITY"`, "", "false") + set(`id="cib-bootstrap-options"`, "", "true"), nil,
		},
		"the last of equals":       {set(`id="a"`, "", "true") + set(`id="b"`, "", "false"), []string{"stonith-enabled=false"}},
		"the last of three equals": {set(`id="a"`, "", "false") + set(`id="b"`, "", "false") + set(`id="c"`, "", "true"), nil},
		"a rule that may switch off": {
			set(`id="a" score="1"`, rule, "false") + set(`id="b"`, "", "true"), []string{"stonith-enabled=false"},
		},
		"a rule that may not count": {
			set(`id="a" score="1"`, rule, "true") + set(`id="b"`, "", "false"), []string{"stonith-enabled=false"},
		},
		"a rule that comes too late": {set(`id="a" score="1"`, "", "true") + set(`id="b"`, rule, "false"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := fencingOff(t, `<configuration><crm_config>`+row.sets+`</crm_config></configuration>`)
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// dc-version as several distributions have it.
func TestSchedulerVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"2.0.5-ba59be7122": {2, 0, 5}, "2.1.5-a3f44794f94": {2, 1, 5}, "3.0.3-3.0.3": {3, 0, 3},
		"2.1.5+20221208.a3f44794f-150500.6.5.8": {2, 1, 5},
		"2.1.9-1.el9-49aab9983":                 {2, 1, 9}, "2.1.10": {2, 1, 10}, "3.0": {}, "": {},
		"3.0.x": {}, "3..1": {}, "9999999999999999999999.0.0": {},
	} {
		configuration, err := ParseConfiguration(crmConfig("dc-version=" + text))
		if err != nil {
			t.Fatal(err)
		}
		if got := SchedulerVersion(configuration); got != want {
			t.Errorf("%q is taken for %s, not %s", text, got, want)
		}
	}
	if (Version{2, 1, 10}).from(uniqueByDefault) || !(Version{3, 0, 2}).from(fencingNames) || (Version{3, 0, 1}).from(fencingNames) {
		t.Error("versions are not compared by their numbers")
	}
}
