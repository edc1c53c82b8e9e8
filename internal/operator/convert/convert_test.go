package convert

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

var update = flag.Bool("update", false, "write the golden files")

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parse(t testing.TB, text string) *etree.Element {
	t.Helper()
	configuration, err := pacemaker.ParseConfiguration(text)
	if err != nil {
		t.Fatal(err)
	}
	return configuration
}

func written(t testing.TB, r Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.Write(&b, 80); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// reports are one of each kind.
func reports(t testing.TB) map[string]Report {
	t.Helper()
	all := map[string]Report{}
	for name, q := range map[string]struct {
		cib     string
		options Options
	}{
		"target-pcs":       {"target.xml", Options{Tool: PCS, Buckets: 12}},
		"target-crm":       {"target.xml", Options{Tool: CRM}},
		"target-keep-hash": {"target.xml", Options{Tool: PCS, KeepHash: true}},
		"match-pcs":        {"match.xml", Options{Tool: PCS}},
		"match-keep-hash":  {"match.xml", Options{Tool: PCS, KeepHash: true, Resource: "four"}},
		"not-a-clone":      {"match.xml", Options{Tool: PCS, Resource: "plain"}},
	} {
		report, err := Cluster(parse(t, read(t, q.cib)), q.options)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = report
	}
	for name, o := range map[string]Options{"target": {Tool: PCS, KeepHash: true}, "match": {Tool: CRM, Buckets: 8}} {
		report, err := Rules(rulesIn(read(t, name+".rules")), o)
		if err != nil {
			t.Fatal(err)
		}
		all["rules-"+name] = report
	}
	return all
}

// rulesIn returns the rules in a text, all in table mangle. Words end at blanks.
func rulesIn(text string) []Rule {
	var rules []Rule
	for line := range strings.Lines(text) {
		i := max(strings.Index(line, "-A "), strings.Index(line, "-P "))
		if words := strings.Fields(line[max(0, i):]); i >= 0 && len(words) > 1 {
			rules = append(rules, Rule{Table: "mangle", Words: words})
		}
	}
	return rules
}

func TestScripts(t *testing.T) {
	for name, report := range reports(t) {
		got, file := written(t, report), name+".txt"
		if *update {
			if err := os.WriteFile(filepath.Join("testdata", file), []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(read(t, file), got); diff != "" {
			t.Errorf("%s is out of date: go test ./internal/operator/convert -update (-file +program):\n%s", file, diff)
		}
	}
}

// The JSON matches its schema, and the schema leaves no field out.
func TestJSONKeepsItsSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../../docs/schema/convert.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, report := range reports(t) {
		text, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		instance.(map[string]any)["surprise"] = true
		if schema.Validate(instance) == nil {
			t.Error("the schema accepts anything")
		}
	}
}

// cibWith returns a clone of IPaddr2 with these parameters, more in the primitive, and meta attributes; by default good ones.
func cibWith(parameters map[string]string, primitive, meta string) string {
	document := etree.NewDocument()
	set := document.CreateElement("instance_attributes")
	set.CreateAttr("id", "p")
	for name, value := range parameters {
		pair := set.CreateElement("nvpair")
		pair.CreateAttr("name", name)
		pair.CreateAttr("value", value)
	}
	text, err := document.WriteToString()
	if err != nil {
		panic(err)
	}
	if meta == "" {
		meta = `<nvpair name="clone-max" value="8"/><nvpair name="globally-unique" value="true"/>`
	}
	return `<configuration><nodes><node uname="a"/><node uname="b"/></nodes><resources><clone id="x-clone">` +
		`<primitive id="x" class="ocf" provider="heartbeat" type="IPaddr2">` + text + primitive + `</primitive>` +
		`<meta_attributes id="m">` + meta + `</meta_attributes></clone></resources></configuration>`
}

func faults(t testing.TB, cib string, o Options) []string {
	t.Helper()
	o.Tool = PCS
	report, err := Cluster(parse(t, cib), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Conversions {
		if (len(c.Faults) == 0) != (len(c.Steps) > 0) {
			t.Errorf("%d faults and %d steps", len(c.Faults), len(c.Steps))
		}
	}
	return report.Conversions[0].Faults
}

func TestWhatCannotBeConverted(t *testing.T) {
	good := map[string]string{"ip": "192.168.10.3"}
	with := func(pairs ...string) map[string]string {
		all := map[string]string{"ip": "192.168.10.3"}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
		}
		return all
	}
	const unique = `<nvpair name="globally-unique" value="true"/>`
	keep := Options{KeepHash: true}
	plain := func(parameters map[string]string) string { return cibWith(parameters, "", "") }
	cloned := func(meta string) string { return cibWith(good, "", meta) }
	const one, eight = `<nvpair name="clone-max" value="1"/>`, `<nvpair name="clone-max" value="8"/>`
	withDefaults := func(pairs string) string {
		return strings.Replace(plain(good), "</resources>",
			`</resources><rsc_defaults><meta_attributes id="d">`+pairs+`</meta_attributes></rsc_defaults>`, 1)
	}
	derived := []string{"clusterip_firewall", "nft", "cidr_netmask", "24", "broadcast", "192.168.10.255"}
	for name, row := range map[string]struct {
		cib     string
		options Options
		want    string // "": it can
	}{
		"good":              {plain(good), Options{}, ""},
		"no address":        {plain(nil), Options{}, "ip is not set"},
		"no real address":   {plain(with("ip", "192.168.10.300")), Options{}, "192.168.10.300"},
		"two masks":         {plain(with("cidr_netmask", "24", "netmask", "255.255.0.0")), Options{}, "contradicts cidr_netmask=24"},
		"one mask twice":    {plain(with("cidr_netmask", "24", "netmask", "255.255.255.0")), Options{}, ""},
		"a torn mask":       {plain(with("cidr_netmask", "255.0.255.0")), Options{}, "ones of a netmask"},
		"no group address":  {plain(with("mac", "02:02:03:04:05:06")), Options{}, "mac=02:02:03:04:05:06"},
		"no MAC":            {plain(with("mac", "0102")), Options{}, "0102"},
		"unique addresses":  {plain(with("unique_clone_address", "true")), Options{}, "address of its own"},
		"LVS":               {plain(with("lvs_support", "yes")), Options{}, "lvs_support=yes"},
		"loopback":          {plain(with("nic", "lo")), Options{}, "real servers of LVS"},
		"another namespace": {plain(with("network_namespace", "blue")), Options{}, "network namespace"},
		"no hash":           {plain(with("clusterip_hash", "destip")), Options{}, "clusterip_hash=destip"},
		"IPv6 with target":  {plain(with("ip", "2001:db8::3", "clusterip_hash", "sourceip")), Options{}, "has no IPv6"},
		"both generations": {
			plain(with("clusterip_hash", "sourceip", "clusterip_hash_seed", "1")), Options{}, "only IPaddr2 since June 2026 has clusterip_hash_seed",
		},
		"one is installed":  {plain(with("clusterip_hash", "sourceip", "clusterip_hash_seed", "1")), Options{Agent: Match}, ""},
		"no packets":        {plain(with("arp_count", "0")), Options{}, "arp_count=0"},
		"anonymous":         {cloned(eight), Options{}, "globally-unique"},
		"anonymous, one":    {cloned(one), Options{Buckets: 8}, "not globally unique"},
		"one instance":      {cloned(one + unique), Options{}, "--buckets 8"},
		"one becomes eight": {cloned(one + unique), Options{Buckets: 8}, ""},
		"too many":          {cloned(`<nvpair name="clone-max" value="9999"/>` + unique), Options{}, "clone-max="},
		"promotable":        {cloned(`<nvpair name="promotable" value="true"/>` + eight + unique), Options{}, "promotable"},
		"unmanaged":         {cloned(`<nvpair name="is-managed" value="false"/>` + eight + unique), Options{}, "does not manage"},
		"maintenance": {
			strings.Replace(plain(good), "<nodes>", `<crm_config><cluster_property_set id="p"><nvpair name="maintenance-mode" value="true"/>`+
				`</cluster_property_set></crm_config><nodes>`, 1),
			Options{},
			"does not manage",
		},
		"unmanaged by default": {
			withDefaults(`<nvpair name="is-managed" value="false"/>`), Options{}, `resource default is-managed="false"`,
		},
		"maintenance by default": {
			withDefaults(`<nvpair name="maintenance" value="true"/>`), Options{}, `resource default maintenance="true"`,
		},
		"managed by default": {withDefaults(`<nvpair name="is-managed" value="true"/><nvpair name="maintenance" value="false"/>`), Options{}, ""},
		"managed itself": {
			strings.Replace(withDefaults(`<nvpair name="is-managed" value="false"/>`), `<meta_attributes id="m">`,
				`<meta_attributes id="m"><nvpair name="is-managed" value="true"/>`, 1), Options{}, "",
		},
		"a node in maintenance": {
			strings.Replace(plain(good), `<node uname="b"/>`, `<node uname="b"><instance_attributes id="b"><nvpair name="maintenance" value="on"/>`+
				`</instance_attributes></node>`, 1), Options{}, `maintenance="on" of node "b"`,
		},
		"several sets of the clone": {cloned(eight + unique + `</meta_attributes><meta_attributes id="n">`), Options{}, "several sets"},
		"rule of the clone":         {cloned(`<rule id="r"/>` + eight + unique), Options{}, "rule"},
		"rule":                      {cibWith(good, `<instance_attributes id="q"><rule id="r"/></instance_attributes>`, ""), Options{}, "rule"},
		"reference":                 {cibWith(good, `<operations id-ref="other"/>`, ""), Options{}, `"other"`},
		"a value twice": {
			cibWith(good, `<instance_attributes id="q"><nvpair name="ip" value="192.168.10.4"/></instance_attributes>`, ""),
			Options{},
			`"192.168.10.3" and "192.168.10.4"`,
		},
		"group": {
			strings.NewReplacer("<primitive", `<group id="g"><primitive`, "</primitive>", "</primitive></group>").Replace(plain(good)),
			Options{},
			`group "g"`,
		},
		"template": {
			strings.Replace(plain(good), "<clone ", `<template id="t" class="ocf" provider="heartbeat" type="IPaddr2"/><clone `, 1),
			Options{},
			"",
		},
		"made from a template": {
			strings.NewReplacer("<clone ", `<template id="t" class="ocf" provider="heartbeat" type="IPaddr2"/><clone `,
				"<primitive ", `<primitive template="t" `).Replace(plain(good)),
			Options{},
			`template "t"`,
		},
		"an ID that is an option": {strings.Replace(plain(good), `id="x-clone"`, `id="--force"`, 1), Options{}, "--force"},
		"keep what is unknown":    {plain(good), keep, "--keep-hash"},
		"keep the target's":       {plain(with("clusterip_hash", "sourceip")), keep, ""},
		"keep all ports":          {plain(with("clusterip_hash", "sourceip-sourceport-destport")), keep, "hash_seed"},
		"keep too many": {
			cibWith(with("clusterip_hash", "sourceip"), "", `<nvpair name="clone-max" value="17"/>`+unique), keep, "at most 16",
		},
		"keep another number":  {plain(with("clusterip_hash", "sourceip")), Options{KeepHash: true, Buckets: 9}, "--buckets 9"},
		"keep a derived seed":  {plain(with(derived...)), keep, ""},
		"keep an unknown seed": {plain(with("clusterip_firewall", "nft", "cidr_netmask", "24")), keep, "derives it"},
	} {
		t.Run(name, func(t *testing.T) {
			got := faults(t, row.cib, row.options)
			if row.want == "" && len(got) > 0 || row.want != "" && !strings.Contains(strings.Join(got, "\n"), row.want) {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

// IDs that others have are not taken, and what a terminal might obey is written as references to characters.
func TestReplacement(t *testing.T) {
	const operations = `<operations><op name="stop" description="&#155;2J"/></operations>`
	cib := strings.Replace(cibWith(map[string]string{"ip": "192.168.10.3"}, operations, ""), "</configuration>",
		`<constraints><rsc_order id="x-start-interval-0s"/></constraints></configuration>`, 1)
	report, err := Cluster(parse(t, cib), Options{Tool: PCS})
	if err != nil {
		t.Fatal(err)
	}
	script := written(t, report)
	harmless(t, script)
	for _, want := range []string{`id="x-start-interval-0s-2"`, `description="&#155;2J"`} {
		if !strings.Contains(script, want) {
			t.Errorf("no %s in\n%s", want, script)
		}
	}
}

// Whoever pastes all at once: if the stop fails, if it does not stop the resource, or if the backup cannot be written, nothing is replaced.
func TestFailureEndsTheChain(t *testing.T) {
	const log, running = `echo "${0##*/} $*" >>log`, `case $* in *--locate) echo "resource x-clone is running on: node1";; esac`
	good := map[string]string{"pcs": log, "cibadmin": log, "crm_resource": log, "ocf-clusterip": log}
	for name, row := range map[string]struct {
		program, script string // instead of a good one
		replaces        bool
	}{
		"all is well":         {"pcs", log, true},
		"no backup":           {"cibadmin", log + "; exit 1", false},
		"it cannot stop":      {"crm_resource", log + "; case $* in --wait*) exit 124;; esac", false},
		"an instance runs on": {"crm_resource", log + "; " + running, false},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			for program, script := range good {
				if program == row.program {
					script = row.script
				}
				if err := os.WriteFile(filepath.Join(folder, program), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			report, err := Cluster(parse(t, cibWith(map[string]string{"ip": "192.168.10.3"}, "", "")), Options{Tool: PCS})
			if err != nil {
				t.Fatal(err)
			}
			shell := exec.CommandContext(t.Context(), "sh")
			shell.Dir, shell.Stdin = folder, strings.NewReader(written(t, report))
			shell.Env = []string{"PATH=" + folder + ":" + os.Getenv("PATH")}
			if output, err := shell.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			called, err := os.ReadFile(filepath.Join(folder, "log"))
			if err != nil && row.program != "cibadmin" {
				t.Fatal(err)
			}
			if got := strings.Contains(string(called), "--replace"); got != row.replaces {
				t.Errorf("replaced: %t, want %t\n%s", got, row.replaces, called)
			}
		})
	}
}

// What was disabled is not started: neither by the script nor by its way back. Rules are removed by hand before the start.
func TestStartByHand(t *testing.T) {
	all := reports(t)
	for name, conversion := range map[string]Conversion{
		"disabled": all["match-pcs"].Conversions[1], "rules": all["rules-match"].Conversions[0],
		"rules of the target": all["rules-target"].Conversions[0],
	} {
		for _, step := range conversion.Steps {
			commands := strings.Join(step.Commands, "\n")
			if starts := strings.Contains(commands, "resource enable") || strings.Contains(commands, "resource start"); starts != step.ByHand {
				t.Errorf("%s: by hand %t: %s", name, step.ByHand, commands)
			}
		}
		if back := strings.Join(conversion.WayBack, "\n"); strings.Contains(back, "resource enable") {
			t.Errorf("%s: the way back starts it:\n%s", name, back)
		}
	}
}

// What is to be removed by hand is saved first.
func TestRulesAreSavedFirst(t *testing.T) {
	const six = "-A PREROUTING -d 2001:db8::3/128 -m cluster --cluster-total-nodes 8 --cluster-local-node 1 --cluster-hash-seed 5 -j ACCEPT"
	report, err := Rules(rulesIn(six), Options{Tool: PCS})
	if err != nil {
		t.Fatal(err)
	}
	all := reports(t)
	for want, report := range map[string]Report{
		"(umask 077; set -C; iptables-save >rules-before-192.168.10.3)": all["rules-target"],
		"(umask 077; set -C; ip6tables-save >rules-before-2001:db8::3)": report,
	} {
		c := report.Conversions[0]
		if got := c.Steps[0].EachNode[0]; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if back, file := c.WayBack[len(c.WayBack)-1], "rules-before-"+c.Address; !strings.Contains(back, file) {
			t.Errorf("no %s in %s", file, back)
		}
	}
}

// A primitive's own target-role outranks the clone's: the instances would run on while the agent is replaced, or start too early on the way
// back.
func TestTargetRoleOfThePrimitive(t *testing.T) {
	const started = `<meta_attributes id="r"><nvpair id="r1" name="target-role" value="Started"/></meta_attributes>`
	for tool, want := range map[Tool]string{PCS: "pcs resource disable x-clone x", CRM: "crm resource stop x-clone"} {
		report, err := Cluster(parse(t, cibWith(map[string]string{"ip": "192.168.10.3"}, started, "")), Options{Tool: tool})
		if err != nil {
			t.Fatal(err)
		}
		back := strings.Join(report.Conversions[0].WayBack, "\n")
		for where, text := range map[string]string{"step 2": strings.Join(report.Conversions[0].Steps[1].Commands, "\n"), "way back": back} {
			if !strings.Contains("\n"+text, "\n"+want+" &&\n") {
				t.Errorf("%s, %s: no %q in\n%s", tool, where, want, text)
			}
		}
		if !strings.Contains(back, `name="target-role" value="Stopped"`) || strings.Contains(back, `"Started"`) {
			t.Errorf("%s: the way back starts it too early:\n%s", tool, back)
		}
	}
}

// A default of all resources disables a clone without a target-role of its own. Where it may do so, pcs resource enable starts nothing.
// (crm_simulate of Pacemaker 2.1.5 starts and leaves such clones as these rows say.)
func TestDefaultTargetRole(t *testing.T) {
	const rule = `<rule id="r"><date_expression id="e" operation="gt" start="2026-01-01"/></rule>`
	set := func(score int, rule, name, value string) string {
		return fmt.Sprintf(`<meta_attributes id="d%d" score="%[1]d">%s<nvpair name="%s" value="%s"/></meta_attributes>`, score, rule, name, value)
	}
	role := func(score int, value string) string { return set(score, "", "target-role", value) }
	ruled := func(value string) string { return set(9, rule, "target-role", value) }
	const own, byDefault = "The resource is disabled now, and", "The resource is disabled now, by the resource default"
	for name, row := range map[string]struct {
		defaults, primitive, clone string // the last two: the values that these have themselves
		remark                     string // "": it is not disabled
		sets                       bool   // the start sets target-role, too
		fault                      bool
	}{
		"none":                        {"", "", "", "", false, false},
		"stopped":                     {role(1, "stopped"), "", "", byDefault, true, false},
		"started":                     {role(1, "Started"), "", "", "", false, false},
		"the primitive is started":    {role(1, "Stopped"), "Started", "", "", true, false},
		"the clone is started":        {role(1, "Stopped"), "", "Started", "", true, false},
		"both stopped":                {role(1, "Stopped"), "", "Stopped", own, true, false},
		"stopped, but more score":     {role(1, "Stopped") + role(2, "Started"), "", "", "", false, false},
		"stopped with more score":     {role(2, "Stopped") + role(1, "Started"), "", "", byDefault, true, false},
		"a rule":                      {ruled("Stopped"), "", "", "", false, true},
		"a rule starts what is not":   {ruled("Started") + role(1, "Stopped"), "", "", "", false, true},
		"a rule without consequence":  {ruled("Started"), "", "", "", false, false},
		"a rule that says the same":   {ruled("Stopped") + role(1, "Stopped"), "", "", byDefault, true, false},
		"a rule and the clone's own":  {ruled("Stopped"), "", "Started", "", true, false},
		"a rule of another attribute": {set(9, rule, "priority", "1"), "", "", "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			meta := func(value string) string {
				if value == "" {
					return ""
				}
				return `<nvpair name="target-role" value="` + value + `"/>`
			}
			cib := cibWith(map[string]string{"ip": "192.168.10.3"}, `<meta_attributes id="p1">`+meta(row.primitive)+`</meta_attributes>`,
				`<nvpair name="clone-max" value="8"/><nvpair name="globally-unique" value="true"/>`+meta(row.clone))
			cib = strings.Replace(cib, "</configuration>", "<rsc_defaults>"+row.defaults+"</rsc_defaults></configuration>", 1)
			for tool, want := range map[Tool]string{
				PCS: "pcs resource enable x-clone &&\npcs resource meta x-clone target-role=Started &&\n" + wait,
				CRM: "crm resource start x-clone &&\n" + wait,
			} {
				report, err := Cluster(parse(t, cib), Options{Tool: tool})
				if err != nil {
					t.Fatal(err)
				}
				got := report.Conversions[0]
				if row.fault {
					if len(got.Faults) != 1 || !strings.Contains(got.Faults[0], "target-role") {
						t.Errorf("%s: faults %q, want one about target-role", tool, got.Faults)
					}
					continue
				}
				if len(got.Faults) > 0 {
					t.Fatalf("%s: %q", tool, got.Faults)
				}
				if tool == PCS && !row.sets {
					want = "pcs resource enable x-clone &&\n" + wait
				}
				start, disabled := got.Steps[2], row.remark != ""
				if start.Commands[0] != want || start.ByHand != disabled {
					t.Errorf("%s: by hand %t: %q, want %t: %q", tool, start.ByHand, start.Commands, disabled, want)
				}
				if starts := got.WayBack[len(got.WayBack)-1] == want; starts == disabled {
					t.Errorf("%s: the way back is %q", tool, got.WayBack)
				}
				remarks := strings.Join(got.Remarks, "\n")
				if !strings.Contains(remarks, row.remark) || strings.Contains(remarks, "disabled") != disabled {
					t.Errorf("%s: remarks %q, want %q", tool, got.Remarks, row.remark)
				}
			}
		})
	}
}

// The advice is for the tool that is in use.
func TestAdviceForTheTool(t *testing.T) {
	cib := cibWith(map[string]string{"ip": "192.168.10.3"}, "", `<nvpair name="clone-max" value="8"/>`)
	for tool, want := range map[Tool]string{
		PCS: "pcs resource meta x-clone globally-unique=true clone-max=8",
		CRM: "crm resource meta x-clone set globally-unique true; crm resource meta x-clone set clone-max 8",
	} {
		report, err := Cluster(parse(t, cib), Options{Tool: tool})
		if got := report.Conversions[0].Faults; err != nil || len(got) != 1 || !strings.HasSuffix(got[0], ": "+want) {
			t.Errorf("%s: %q, %v, want %s", tool, got, err, want)
		}
	}
}

// Other resources stop with the address.
func TestDependents(t *testing.T) {
	for constraint, want := range map[string]string{
		``: "",
		`<rsc_order id="c" first="x-clone" then="web"/>`:                          "web",
		`<rsc_order id="c" first="web" then="x-clone"/>`:                          "",
		`<rsc_order id="c" first="x-clone" then="web" kind="Optional"/>`:          "",
		`<rsc_order id="c" first="x-clone" then="web" score="0"/>`:                "",
		`<rsc_colocation id="c" rsc="web" with-rsc="x"/>`:                         "web",
		`<rsc_colocation id="c" rsc="x-clone" with-rsc="web"/>`:                   "",
		`<rsc_colocation id="c" rsc="web" with-rsc="x-clone" score="-INFINITY"/>`: "",
		`<rsc_colocation id="c" rsc="web" with-rsc="x-clone" score="+INFINITY"/>`: "web",
		`<rsc_colocation id="c" rsc="web" with-rsc="x-clone" score="50"/>`:        "",
		`<rsc_location id="c" rsc="x-clone" node="a" score="INFINITY"/>`:          "",
		`<rsc_order id="c"><resource_set><resource_ref id="x-clone"/><resource_ref id="web"/>` +
			`</resource_set><resource_set><resource_ref id="db"/></resource_set></rsc_order>`: "web, db",
		`<rsc_order id="c" first="t" then="web"/></constraints><tags><tag id="t"><obj_ref id="x-clone"/></tag></tags><constraints>`: "web",
	} {
		cib := strings.Replace(cibWith(map[string]string{"ip": "192.168.10.3"}, "", ""), "</configuration>",
			"<constraints>"+constraint+"</constraints></configuration>", 1)
		report, err := Cluster(parse(t, cib), Options{Tool: PCS})
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(report.Conversions[0].Remarks, "\n")
		if want == "" && strings.Contains(got, "ordered") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", constraint, got, want)
		}
	}
}

// What is taken over may make a start slow.
func TestSlowStart(t *testing.T) {
	for count, want := range map[string]string{"11": "takes 5s", "2": "", "50": "takes 9.5s"} {
		cib := cibWith(map[string]string{"ip": "192.168.10.3", "arp_count": count, "arp_interval": "500"}, "", "")
		report, err := Cluster(parse(t, cib), Options{Tool: PCS})
		got := strings.Join(report.Conversions[0].Remarks, "\n")
		if err != nil || want == "" && strings.Contains(got, "takes") || !strings.Contains(got, want) {
			t.Errorf("arp_count=%s: %q, %v, want %q", count, got, err, want)
		}
	}
}

// What --keep-hash cannot keep for IPv6, and advice that fits what is set.
func TestIPv6(t *testing.T) {
	six := func(pairs ...string) map[string]string {
		all := map[string]string{"ip": "2001:db8::3", "clusterip_hash_seed": "5"}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
		}
		return all
	}
	const remark = "change their bucket"
	for name, row := range map[string]struct {
		parameters map[string]string
		keep, want bool
	}{
		"default": {six(), true, true},
		"auto":    {six("clusterip_firewall", "auto"), true, true},
		"nft":     {six("clusterip_firewall", "nft"), true, false},
		"another": {six(), false, false},
		"IPv4":    {map[string]string{"ip": "192.168.10.3", "clusterip_hash_seed": "5"}, true, false},
	} {
		report, err := Cluster(parse(t, cibWith(row.parameters, "", "")), Options{Tool: PCS, KeepHash: row.keep})
		got := report.Conversions[0]
		if err != nil || strings.Contains(strings.Join(got.Remarks, "\n"), remark) != row.want || len(got.Faults) > 0 {
			t.Errorf("%s: %v, %q, %q", name, err, got.Remarks, got.Faults)
		}
	}
	for mode, want := range map[string]string{"": ". Remove the clone", "sourceip": ". Remove clusterip_hash, or the clone"} {
		got := faults(t, cibWith(map[string]string{"ip": "2001:db8::3", "clusterip_hash": mode}, "", ""), Options{Agent: Target})
		if len(got) != 1 || !strings.HasSuffix(got[0], want) {
			t.Errorf("clusterip_hash=%q: %q, want %q", mode, got, want)
		}
	}
}

// All that is wrong is named at once, and nothing twice.
func TestAllFaultsAtOnce(t *testing.T) {
	cib := cibWith(map[string]string{"ip": "nonsense", "mac": "02:00:00:00:00:01", "lvs_support": "true", "arp_count": "-1"},
		`<instance_attributes id="q"><rule id="r"/></instance_attributes>`, `<nvpair name="clone-max" value="1"/>`)
	got := faults(t, cib, Options{})
	for _, want := range []string{"nonsense", "02:00:00:00:00:01", "lvs_support", "arp_count", "rule", "globally unique", "clone-max=1"} {
		named := 0
		for _, fault := range got {
			if strings.Contains(fault, want) {
				named++
			}
		}
		if named != 1 {
			t.Errorf("%s is named %d times in %q", want, named, got)
		}
	}
}

func TestWhatIsChosen(t *testing.T) {
	configuration := parse(t, read(t, "match.xml"))
	for name, row := range map[string]struct {
		resource string
		want     []string
		fault    string
	}{
		"all clones": {"", []string{"four", "six"}, ""},
		"resource":   {"six", []string{"six"}, ""},
		"clone":      {"c-four", []string{"four"}, ""},
		"nothing":    {"none", nil, `"none": no resource`},
	} {
		report, err := Cluster(configuration, Options{Tool: PCS, Resource: row.resource})
		var got []string
		for _, c := range report.Conversions {
			got = append(got, c.Resource)
		}
		if diff := cmp.Diff(row.want, got); diff != "" || !strings.Contains(fmt.Sprint(err), row.fault) || err != nil && row.fault == "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	for text, want := range map[string]string{
		"<configuration/>": "no clone",
		`<configuration><resources><primitive class="ocf" provider="custom" type="clusterip"/></resources></configuration>`: "already",
	} {
		_, err := Cluster(parse(t, text), Options{Tool: PCS})
		if !strings.Contains(fmt.Sprint(err), want) || ocf.CodeOf(err) != ocf.ErrArgs {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRulesThatCannotBeConverted(t *testing.T) {
	const (
		target = "-A INPUT -d 192.168.10.3/32 -i eth0 -j CLUSTERIP --new --hashmode sourceip --clustermac 01:02:03:04:05:06 " +
			"--total-nodes 8 --local-node 1 --hash-init 0\n"
		match = "-A PREROUTING -d 192.168.10.3/32 -i eth0 -m cluster --cluster-total-nodes 8 --cluster-local-node 1 --cluster-hash-seed 5\n"
		six   = "-A PREROUTING -d 2001:db8::3/128 -m cluster --cluster-total-nodes 8 --cluster-local-node 1 --cluster-hash-seed 5\n"
	)
	keep := Options{KeepHash: true}
	for name, row := range map[string]struct {
		rules   string
		options Options
		want    string // "": they can
	}{
		"target":            {target, Options{}, ""},
		"keep the target's": {target, keep, ""},
		"match":             {match + strings.Replace(match, "node 1", "node 2", 1), Options{}, ""},
		"keep the match's":  {match, keep, ""},
		"IPv6":              {six, Options{}, ""},
		"keep IPv6":         {six, keep, "IPv6"},
		"both":              {target + match, Options{}, "at once"},
		"two seeds":         {match + strings.Replace(match, "seed 5", "seed 6", 1), Options{}, `"5" and "6"`},
		"two interfaces":    {match + strings.Replace(match, "eth0", "eth1", 1), Options{}, `"eth0" and "eth1"`},
		"two totals":        {match + strings.Replace(match, "nodes 8", "nodes 9", 1), Options{}, `"8" and "9"`},
		"no total":          {"-A INPUT -d 192.168.10.3/32 -j CLUSTERIP\n", Options{}, "--new"},
		"too many":          {strings.Replace(target, "nodes 8", "nodes 17", 1), Options{}, "from 1 to 16"},
		"no group address":  {strings.Replace(target, "01:02", "02:02", 1), Options{}, "02:02:03:04:05:06"},
		"another number":    {target, Options{KeepHash: true, Buckets: 9}, "--buckets 9"},
		"a new number":      {target, Options{Buckets: 24}, ""},
	} {
		row.options.Tool = PCS
		report, err := Rules(rulesIn(row.rules), row.options)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := report.Conversions[0].Faults
		if row.want == "" && len(got) > 0 || row.want != "" && !strings.Contains(strings.Join(got, "\n"), row.want) {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
		if (len(got) == 0) != (len(report.Conversions[0].Steps) > 0) {
			t.Errorf("%s: %d faults and %d steps", name, len(got), len(report.Conversions[0].Steps))
		}
	}
	for text, want := range map[string]string{
		"-A INPUT -j ACCEPT": "no rule", "-A clusterip-192.168.10.3 -d 192.168.10.3/32 -m cluster --cluster-total-nodes 8": "no rule",
		strings.Replace(match, "/32", "/24", 1): "-d must be one", strings.Replace(match, "-d ", "! -d ", 1): "-d must be one",
		strings.Replace(match, "eth0", "eth\x1b0", 1): "printable",
	} {
		if _, err := Rules(rulesIn(text), Options{Tool: PCS}); !strings.Contains(fmt.Sprint(err), want) || ocf.CodeOf(err) != ocf.ErrArgs {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// A rule that drops what the match has not accepted or marked must not be left behind: it would drop everything.
func TestRulesBesideTheMatch(t *testing.T) {
	const (
		chain  = "-A PREROUTING -d 192.168.10.3/32 -i eth0 "
		match  = chain + "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 5 "
		accept = match + "-j ACCEPT\n"
		mark   = match + "-j MARK --set-xmark 0xffff/0xffffffff\n"
		marked = chain + "-m mark --mark 0xffff -j ACCEPT\n"
		less   = "-A PREROUTING -d 192.168.10.3/32 -j DROP\n"
		other  = "-m mark ! --mark 0xffff -j DROP"
	)
	removal := func(rules ...string) string {
		var all []string
		for _, rule := range rules {
			all = append(all, "iptables -t mangle -D "+strings.TrimSpace(strings.ReplaceAll(rule[3:], " ! ", " '!' ")))
		}
		return strings.Join(all, "\n")
	}
	for name, row := range map[string]struct {
		rules   string
		removes string // in this order
		fault   string
	}{
		"alone":                   {accept, removal(accept), ""},
		"a drop":                  {accept + chain + "-j DROP\n", removal(chain+"-j DROP", accept), ""},
		"a drop with less":        {accept + less, removal(less, accept), ""},
		"a mark":                  {mark + chain + other + "\n", removal(chain+other, mark), ""},
		"a mark that is accepted": {mark + marked, removal(mark, marked), ""},
		"an inverted match": {
			strings.Replace(match, "--cluster-local", "! --cluster-local", 1) + "-j DROP\n",
			removal(strings.Replace(match, "--cluster-local", "! --cluster-local", 1) + "-j DROP"), "",
		},
		"the manual page's drop": {mark + "-A PREROUTING -i eth0 " + other + "\n", "", `rule "-A PREROUTING -i eth0 ` + other + `"`},
		"a network's drop":       {mark + "-A PREROUTING -d 192.168.10.0/24 " + other + "\n", "", "give it the same -d"},
		"a firewall's drop":      {accept + chain + "-p tcp -j DROP\n", "", "-p tcp -j DROP"},
		"in another chain":       {accept + chain + "-j others\n-A others -j last\n-A last -j DROP\n", "", `-j others" in table "mangle"`},
		"a chain without drops":  {accept + chain + "-j others\n-A others -j others\n", removal(accept), ""},
		"a policy":               {accept + "-P PREROUTING DROP\n", "", `policy of chain "PREROUTING"`},
		"a policy elsewhere":     {accept + "-P INPUT DROP\n-P PREROUTING ACCEPT\n", removal(accept), ""},
		"in front":               {chain + "-p tcp -j DROP\n" + accept, removal(accept), ""},
		"of another address":     {accept + "-A PREROUTING -d 192.168.10.4/32 -j DROP\n", removal(accept), ""},
		"of another chain":       {accept + "-A INPUT -j DROP\n", removal(accept), ""},
		"of all but it":          {accept + "-A PREROUTING ! -d 192.168.10.3/32 -j DROP\n", "", "! -d 192.168.10.3/32"},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := Rules(rulesIn(row.rules), Options{Tool: PCS})
			if err != nil {
				t.Fatal(err)
			}
			got := report.Conversions[0]
			if row.fault != "" {
				if faults := strings.Join(got.Faults, "\n"); !strings.Contains(faults, row.fault) || len(got.Steps) > 0 {
					t.Errorf("%d steps, faults %q, want %q", len(got.Steps), faults, row.fault)
				}
				return
			}
			if len(got.Faults) > 0 {
				t.Fatalf("%q", got.Faults)
			}
			if diff := cmp.Diff(row.removes, strings.Join(got.Steps[2].EachNode[1:], "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// iptables-save prints masks of nodes, and iptables 1.8.9 refuses those above 32.
func TestMaskOfANode(t *testing.T) {
	for mask, want := range map[string]string{
		"0x00000001": "--cluster-local-node 1", "0x00000020": "--cluster-local-node 6", "0x00000040": "--cluster-local-node 7",
		"0x80000000": "--cluster-local-node 32", "0x00000003": "--cluster-local-nodemask 0x00000003", "0": "--cluster-local-nodemask 0",
		"many": "--cluster-local-nodemask many",
	} {
		const rule = "-A PREROUTING -d 192.168.10.3/32 -m cluster --cluster-total-nodes 32 ! --cluster-local-nodemask MASK -j DROP"
		report, err := Rules(rulesIn(strings.Replace(rule, "MASK", mask, 1)), Options{Tool: PCS})
		if err != nil {
			t.Fatal(err)
		}
		if got := report.Conversions[0].Steps[2].EachNode[1]; !strings.Contains(got, " '!' "+want+" -j DROP") {
			t.Errorf("%s: %s, want %s", mask, got, want)
		}
	}
}

// The values are those of IPaddr2's own pipeline (ip_init), run in a shell.
func TestDerivedMAC(t *testing.T) {
	for ip, row := range map[string]struct{ netmask, broadcast, mac, seed string }{
		"192.168.10.3": {"24", "192.168.10.255", "c1:7a:92:19:af:fb", "0xc17a9219"},
		"192.168.10.4": {"24", "192.168.10.255", "f7:5c:ce:5a:6a:4a", "0xf75cce5a"},
		"10.0.0.2":     {"8", "10.255.255.255", "01:23:5b:61:6f:7d", "0x06235b61"},
	} {
		tr := translation{old: map[string]string{"ip": ip, "broadcast": row.broadcast}, now: map[string]string{"cidr_netmask": row.netmask}}
		digest, known := tr.digest()
		if got := derivedMAC(digest, netip.MustParseAddr(ip)).String(); !known || got != row.mac {
			t.Errorf("%s: %s, %t, want %s", ip, got, known, row.mac)
		}
		tr.matchHash("")
		tr.options.KeepHash = true
		tr.matchHash("")
		if got := tr.now["hash_seed"]; got != row.seed {
			t.Errorf("%s: seed %s, want %s", ip, got, row.seed)
		}
	}
}

// bare returns what a shell sees outside single quotes and comments.
func bare(script string) string {
	var b strings.Builder
	quoted, comment, escaped, atStart := false, false, false, true
	for _, r := range script {
		switch {
		case atStart && !quoted && r == '#':
			comment = true
		case r == '\n' && comment:
			comment = false
		case comment:
		case escaped:
			escaped = false
		case r == '\\' && !quoted:
			escaped = true
		case r == '\'':
			quoted = !quoted
		case !quoted:
			b.WriteRune(r)
		}
		atStart = r == '\n'
	}
	return b.String()
}

// Whatever the CIB is: no crash, and nothing of it that a shell or a terminal takes for a command.
func FuzzCluster(f *testing.F) {
	f.Add(read(f, "target.xml"), false)
	f.Add(read(f, "match.xml"), true)
	f.Add(cibWith(map[string]string{"ip": "192.168.10.3", "nic": "$(x)'`y`"},
		`<operations><op name="mon'itor"/><op name="stop" description="'&#10;;x"/></operations>`, ""), false)
	f.Add(cibWith(map[string]string{"ip": "192.168.10.3", "\u009b2J": "x", "\u202e": "x"}, "", ""), false)
	f.Fuzz(func(t *testing.T, text string, keep bool) {
		configuration, err := pacemaker.ParseConfiguration(text)
		if err != nil {
			return
		}
		for _, tool := range []Tool{PCS, CRM} {
			report, err := Cluster(configuration, Options{Tool: tool, KeepHash: keep})
			if err != nil {
				continue
			}
			harmless(t, written(t, report))
		}
	})
}

// Likewise whatever the rules are.
func FuzzRules(f *testing.F) {
	f.Add(read(f, "target.rules"), false)
	f.Add(read(f, "match.rules"), true)
	f.Add("-A INPUT -d 192.168.10.3/32 -i $(x)'`y` -j CLUSTERIP --new --clustermac 01:00:00:00:00:01 --total-nodes 8", false)
	f.Fuzz(func(t *testing.T, text string, keep bool) {
		for _, tool := range []Tool{PCS, CRM} {
			if report, err := Rules(rulesIn(text), Options{Tool: tool, KeepHash: keep}); err == nil {
				harmless(t, written(t, report))
			}
		}
	})
}

// harmless expects a script without anything that a shell or a terminal takes for a command of somebody else's.
func harmless(t *testing.T, script string) {
	t.Helper()
	if i := strings.IndexFunc(script, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%q is not printable", script[i:])
	}
	for line := range strings.Lines(bare(script)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), " &&")
		line = strings.TrimPrefix(line, "(umask 077; set -C; cibadmin --query >")
		line = strings.TrimSuffix(line, "$(date +%Y%m%d-%H%M%S).xml)")
		if negated, found := strings.CutPrefix(line, "! crm_resource --resource "); found {
			line = strings.TrimSuffix(negated, " --locate | grep ")
		}
		line = strings.TrimSuffix(line, " | crm configure load update -")
		if strings.ContainsAny(line, "`$;|&<>(\"*?[]!~#") {
			t.Errorf("%q is a command of somebody else's", line)
		}
	}
}
