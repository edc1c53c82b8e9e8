//go:build system

// Package contrib holds what sites may want beside the program, see README.md. Its tests run the tools that read it.
package contrib

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	grafana "github.com/grafana/grafana-foundation-sdk/go/dashboard"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	rules     = "prometheus/clusterip.rules.yml"
	ruleTests = "prometheus/clusterip.rules.test.yml"
	dashboard = "grafana/clusterip.json"
	units     = "systemd"
)

// metrics are what a node with moves going on writes, by name: all that there are, each with a sample.
func metrics(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	text, err := os.Open("../internal/operator/testdata/metrics.prom")
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	return parse(t, text)
}

func parse(t *testing.T, text io.Reader) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// scraped names a sample as Prometheus does that has it from an instance.
func scraped(name, instance string, m *dto.Metric) string {
	labels := []string{`job="node"`, fmt.Sprintf("instance=%q", instance)}
	for _, l := range m.GetLabel() {
		labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	return name + "{" + strings.Join(labels, ",") + "}"
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// output runs a tool and returns what it prints.
func output(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// The rules fire when they should, and not when they should not.
func TestRules(t *testing.T) {
	output(t, "promtool", "check", "rules", "--lint=all", "--lint-fatal", rules)
	output(t, "promtool", "test", "rules", ruleTests)
	tests := read(t, ruleTests)
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(read(t, rules), -1) {
		if !strings.Contains(tests, `alertname="`+alert[1]+`"`) && !strings.Contains(tests, "alertname: "+alert[1]+"\n") {
			t.Errorf("no test of %s makes %s fire", ruleTests, alert[1])
		}
	}
}

// What rules, their tests and the dashboard ask for is there, and has the labels that they ask for.
func TestOnlyMetricsThatExist(t *testing.T) {
	families := metrics(t)
	selector := regexp.MustCompile(`(clusterip_\w+)(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`(\w+)\s*(?:=|!=|=~|!~)\s*"`)
	for _, file := range []string{rules, ruleTests, dashboard} {
		text := strings.ReplaceAll(read(t, file), `\"`, `"`) // in JSON
		found := selector.FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s asks for no metric", file)
		}
		for _, f := range found {
			family, ok := families[f[1]]
			if !ok {
				t.Errorf("%s: there is no metric %s", file, f[1])
				continue
			}
			labels := []string{"job", "instance", "cluster"} // Prometheus', and a site's
			for _, l := range family.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			for _, m := range matcher.FindAllStringSubmatch(f[2], -1) {
				if !slices.Contains(labels, m[1]) {
					t.Errorf("%s: %s has no label %s", file, f[1], m[1])
				}
			}
		}
	}
}

// The README has a row for each metric, with its kind and its labels.
func TestMetricsAreDescribed(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `(clusterip_\\w+)` \\| (\\w+) \\| ([^|]*) \\|")
	described, want := map[string]string{}, map[string]string{}
	for _, r := range row.FindAllStringSubmatch(read(t, "README.md"), -1) {
		described[r[1]] = r[2] + " " + r[3]
	}
	for name, family := range metrics(t) {
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		want[name] = strings.ToLower(family.GetType().String()) + " " + strings.Join(labels, " ")
	}
	if diff := cmp.Diff(want, described); diff != "" {
		t.Errorf("README.md (-metrics +described):\n%s", diff)
	}
}

// panel is what matters here of Grafana's.
type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Datasource  struct{ UID string }
	Targets     []target
	FieldConfig struct{ Defaults field }
	Options     struct {
		ShowValue string // in the boxes of a state timeline
	}
	Transformations []struct {
		ID      string
		Options struct {
			ExcludeByName map[string]bool
			RenameByName  map[string]string
		}
	}
}

type target struct {
	RefID, Expr, LegendFormat string
	Instant                   bool
}

func panels(t *testing.T) []panel {
	t.Helper()
	var board struct{ Panels []panel }
	if err := json.Unmarshal([]byte(read(t, dashboard)), &board); err != nil {
		t.Fatal(err)
	}
	return board.Panels
}

func TestDashboard(t *testing.T) {
	ids := map[int]string{}
	places := map[[2]int]string{}
	for _, p := range panels(t) {
		if other, ok := ids[p.ID]; ok {
			t.Errorf("%q and %q have one id, %d", other, p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := places[[2]int{x, y}]; ok {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				places[[2]int{x, y}] = p.Title
			}
		}
		if p.Title == "" || p.Type != "row" && (p.Description == "" || len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
			t.Errorf("panel %d lacks something: %+v", p.ID, p)
		}
	}
}

// Grafana has every setting of the dashboard, and misses none: its own types, which are made of its schema, read it strictly.
func TestDashboardFitsGrafana(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	var board grafana.Dashboard //nolint:staticcheck // no Grafana before 12 reads the newer form
	err := board.UnmarshalJSONStrict([]byte(read(t, dashboard)))
	if err != nil && err.Error() != "" { // it is an empty list of errors otherwise
		t.Error(err)
	}
	if len(board.Panels) != len(panels(t)) {
		t.Errorf("Grafana reads %d panels of %d", len(board.Panels), len(panels(t)))
	}
}

// These are what promtool reads.
type (
	series struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	question struct {
		Expr string   `json:"expr"`
		At   string   `json:"eval_time"`
		Want []answer `json:"exp_samples"`
	}
	answer struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	}
	situation struct {
		Name      string     `json:"name"`
		Interval  string     `json:"interval"`
		Given     []series   `json:"input_series"`
		Questions []question `json:"promql_expr_test"`
	}
)

// ask has Prometheus answer questions.
func ask(t *testing.T, situations ...situation) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"evaluation_interval": "15s", "tests": situations}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, "promtool", "test", "rules", file)
}

// Each panel shows something of a node on which all is going on: its questions are valid, and labels fit together.
func TestPanelsAreNotEmpty(t *testing.T) {
	var given []series
	families := metrics(t)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, m := range families[name].GetMetric() {
			values := fmt.Sprintf("%g+0x40", m.GetGauge().GetValue())
			if m.GetCounter() != nil {
				values = fmt.Sprintf("%g+15x40", m.GetCounter().GetValue())
			}
			given = append(given, series{scraped(name, "a:9100", m), values})
		}
	}
	variables := strings.NewReplacer("$job", "node", "$address", "192.168.10.3", "$instance", "a:9100", "$__rate_interval", "5m")
	var asked []question
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			asked = append(asked, question{Expr: "absent(" + variables.Replace(target.Expr) + ")", At: "5m"}) // and no sample is expected
		}
	}
	if len(asked) == 0 {
		t.Fatal("no panel asks for anything")
	}
	ask(t, situation{Interval: "15s", Given: given, Questions: asked})
}

// Panels and alerts must agree.
func TestPanelsAgreeWithAlerts(t *testing.T) {
	const (
		health  = "Health"
		unowned = "Unowned buckets"
		several = "Buckets with several owners"
		buckets = "Owners of each bucket"
		a       = `job="node",instance="a"`
		b       = `job="node",instance="b"`
		c       = `job="node",instance="c",cluster="other"`
		fresh   = "0+15x40"
		stale   = "0+0x40"
	)
	is := func(value float64) []answer { return []answer{{"{}", value}} }
	unknown := []answer{}
	// Where Pacemaker does not answer, these labels are missing.
	named := map[string]string{a: `,node="node1",clone="web-ip-clone"`, c: `,node="node1",clone="web-ip-clone"`}
	node := func(instance, lastRun string, more ...string) []series {
		all := []series{{"clusterip_last_run_timestamp_seconds{" + instance + "}", lastRun}}
		for _, sample := range more {
			at := strings.LastIndex(sample, " ")
			name, labels, _ := strings.Cut(strings.TrimSuffix(sample[:at], "}"), "{")
			if strings.HasPrefix(name, "bucket_") {
				labels += named[instance]
			}
			all = append(all, series{"clusterip_" + name + "{" + instance + "," + labels + "}", sample[at+1:] + "+0x40"})
		}
		return all
	}
	const (
		bucket0 = `resource="web-ip:0",address="192.0.2.1",bucket="0"`
		bucket1 = `resource="web-ip:1",address="192.0.2.1",bucket="1"`
		owned0  = `bucket_owned{` + bucket0 + `} `
		owned1  = `bucket_owned{` + bucket1 + `} `
		nodes0  = `cluster_bucket_nodes{` + bucket0 + `} `
		nodes1  = `cluster_bucket_nodes{` + bucket1 + `} `
		healthy = `resource_health{resource="web-ip",address="192.0.2.1"} 0`
	)
	unnamed := strings.NewReplacer(`resource="web-ip:0",`, "", `resource="web-ip:1",`, "") // the panel is about the address
	answered := func(bucket string, nodes float64) answer {
		return answer{`{job="node",` + unnamed.Replace(bucket) + `}`, nodes}
	}
	for _, tt := range []struct {
		name string
		node [][]series
		want map[string][]answer
	}{
		{
			"a node writes no metrics any more, and another one has taken its bucket",
			[][]series{
				node(a, stale, `foreign_packets_total{resource="web-ip",address="192.0.2.1"} 500`, "health 2", "cluster_quorate 0",
					"cluster_fencing_enabled 0", owned0+"1", nodes0+"2", owned1+"0", nodes1+"0",
					`cluster_node_state{node="node1",state="online"} 1`, `cluster_node_state{node="node2",state="online"} 1`),
				node(b, fresh, "health 0", "cluster_quorate 1", "cluster_fencing_enabled 1", owned0+"1", nodes0+"1", owned1+"1", nodes1+"1",
					`cluster_node_state{node="node1",state="online"} 0`, `cluster_node_state{node="node2",state="online"} 1`),
			},
			map[string][]answer{
				health: is(0), unowned: is(0), several: is(0), "Nodes online": is(1), "Quorum": is(1), "Fencing": is(1),
				buckets:                   {answered(bucket0, 1), answered(bucket1, 1)},
				"Buckets of each node":    {{`{instance="b"}`, 2}},
				"Foreign packets dropped": unknown, // not zero, as if the switch delivered nothing
			},
		},
		{
			"Pacemaker answers nowhere, and one bucket is in no kernel",
			[][]series{node(a, fresh, "health 1", owned0+"0", owned1+"0"), node(b, fresh, "health 1", owned0+"0", owned1+"1")},
			map[string][]answer{unowned: is(1), several: is(0), buckets: {answered(bucket0, 0), answered(bucket1, 1)}},
		},
		{
			"a part without quorum has stopped everything, and the rest answers",
			[][]series{
				node(a, fresh, "cluster_quorate 0", owned0+"0", nodes0+"0"),
				node(b, fresh, "cluster_quorate 1", owned0+"1", nodes0+"1"),
			},
			map[string][]answer{unowned: is(0), several: is(0), buckets: {answered(bucket0, 1)}},
		},
		{
			"the owner's kernel does not own a bucket that it owns according to Pacemaker",
			[][]series{
				node(a, fresh, "cluster_quorate 1", owned0+"0", nodes0+"0"),
				node(b, fresh, "cluster_quorate 1", owned0+"0", nodes0+"1"),
			},
			map[string][]answer{unowned: is(1), several: is(0), buckets: {answered(bucket0, 0)}},
		},
		{
			"a split without fencing, in which neither part sees the other",
			[][]series{
				node(a, fresh, "cluster_quorate 1", owned0+"1", nodes0+"1"),
				node(b, fresh, "cluster_quorate 1", owned0+"1", nodes0+"1"),
			},
			map[string][]answer{unowned: is(0), several: is(1), buckets: {answered(bucket0, 2)}},
		},
		{
			"an address without a clone, which Pacemaker has on another node than the one where it is stopped",
			[][]series{
				node(a, fresh, "cluster_quorate 1", `bucket_owned{resource="web-ip",address="192.0.2.1",bucket="0"} 1`,
					`cluster_bucket_nodes{resource="web-ip",address="192.0.2.1",bucket="0"} 1`),
				node(b, fresh, owned0+"0"),
			},
			map[string][]answer{unowned: is(0), several: is(0), buckets: {answered(bucket0, 1)}},
		},
		{
			"an address without a clone, which the node has where Pacemaker is stopped, too",
			[][]series{
				node(a, fresh, "cluster_quorate 1", `bucket_owned{resource="web-ip",address="192.0.2.1",bucket="0"} 1`,
					`cluster_bucket_nodes{resource="web-ip",address="192.0.2.1",bucket="0"} 1`),
				node(b, fresh, owned0+"1"),
			},
			map[string][]answer{unowned: is(0), several: is(1), buckets: {answered(bucket0, 2)}},
		},
		{
			"a resource was renamed, and the old one is still configured",
			[][]series{
				node(a, fresh, "cluster_quorate 1", owned0+"1", nodes0+"1", `bucket_owned{resource="old-ip:0",address="192.0.2.1",bucket="0"} 1`,
					`cluster_bucket_nodes{resource="old-ip:0",address="192.0.2.1",bucket="0"} 0`),
			},
			map[string][]answer{
				unowned: is(0), several: is(0), buckets: {answered(bucket0, 1)}, "Buckets of each node": {{`{instance="a"}`, 1}},
			},
		},
		{
			"a node is lost, and the address is healthy",
			[][]series{node(a, fresh, "health 1", healthy)},
			map[string][]answer{health: is(1)},
		},
		{
			"Pacemaker is stopped on all nodes, and nothing is installed",
			[][]series{node(a, fresh, "health 1", "pacemaker_up 0"), node(b, fresh, "health 1", "pacemaker_up 0")},
			map[string][]answer{health: is(2), unowned: unknown, several: unknown, buckets: unknown},
		},
		{
			"two clusters have one address, and nodes of one name",
			[][]series{
				node(a, fresh, "cluster_quorate 1", owned0+"1", nodes0+"1", `cluster_node_state{node="node1",state="online"} 1`,
					`cluster_node_state{node="node1",state="standby"} 0`, `cluster_node_state{node="node1",state="maintenance"} 0`,
					`cluster_node_state{node="node1",state="unclean"} 0`),
				node(c, fresh, "cluster_quorate 1", owned0+"1", nodes0+"1", `cluster_node_state{node="node1",state="online"} 0`,
					`cluster_node_state{node="node1",state="standby"} 1`, `cluster_node_state{node="node1",state="maintenance"} 0`,
					`cluster_node_state{node="node1",state="unclean"} 0`),
			},
			map[string][]answer{
				unowned: is(0), several: is(0),
				buckets:               {answered(bucket0, 1), {`{job="node",cluster="other",` + unnamed.Replace(bucket0) + `}`, 1}},
				"States of the nodes": {{`{job="node",node="node1"}`, 1}, {`{job="node",cluster="other",node="node1"}`, 2}},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			variables := strings.NewReplacer("$job", "node", "$address", "192.0.2.1", "$instance", ".+", "$__rate_interval", "5m")
			var asked []question
			for _, p := range panels(t) {
				if want, ok := tt.want[p.Title]; ok {
					asked = append(asked, question{variables.Replace(p.Targets[0].Expr), "9m", want})
				}
			}
			if len(asked) != len(tt.want) {
				t.Errorf("%d panels have an answer to %d questions", len(asked), len(tt.want))
			}
			ask(t, situation{tt.name, "15s", slices.Concat(tt.node...), asked})
		})
	}
}

// The questions in the README that join with ha_cluster_exporter's metrics are valid, and find what they should.
func TestJoins(t *testing.T) {
	questions := regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(questions) != 2 {
		t.Fatalf("the README has %d questions", len(questions))
	}
	bucket := func(name, node, number string) string {
		return fmt.Sprintf(`clusterip_bucket_%s{job="node",instance="%s:9100",node=%[2]q,resource="web-ip:%[3]s",clone="web-ip-clone",`+
			`address="192.168.10.3",bucket="%[3]s"}`, name, node, number)
	}
	pacemaker := func(exporter string) series {
		return series{fmt.Sprintf(`ha_cluster_pacemaker_resources{job="ha",instance="%s:9664",agent="ocf::custom:clusterip",`+
			`clone="web-ip-clone",group="",managed="true",node="node1",resource="web-ip:0",role="started",status="active"}`, exporter), "1+0x40"}
	}
	const labels = `{job="node",instance="node1:9100",node="node1",resource="web-ip:0",clone="web-ip-clone",address="192.168.10.3",` +
		`bucket="0",role="started",agent="ocf::custom:clusterip"}`
	ask(t, situation{
		Interval: "15s",
		Given: []series{
			pacemaker("node1"), pacemaker("node2"),
			{bucket("packets_total", "node1", "0"), "0+150x40"},
			{bucket("owned", "node1", "0"), "1+0x40"},
			{bucket("owned", "node2", "0"), "0+0x40"},
			{bucket("owned", "node2", "1"), "1+0x40"},
		},
		Questions: []question{
			{Expr: questions[0][1], At: "9m", Want: []answer{{labels, 10}}},
			{Expr: questions[1][1], At: "9m", Want: []answer{{bucket("owned", "node2", "1"), 1}}},
		},
	})
}

// systemd has every setting that the units use.
func TestUnits(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/sbin/ocf-clusterip", "", 0o755)
	for _, target := range []string{"basic", "shutdown", "sysinit", "timers"} {
		write("etc/systemd/system/"+target+".target", "[Unit]\nDescription=any\n", 0o644)
	}
	files, err := os.ReadDir(units)
	if err != nil {
		t.Fatal(err)
	}
	verify := []string{"systemd-analyze", "verify", "--man=no", "--root=" + root} //nolint:misspell // its name
	for _, f := range files {
		write("etc/systemd/system/"+f.Name(), read(t, filepath.Join(units, f.Name())), 0o644)
		verify = append(verify, f.Name())
	}
	if text := output(t, verify...); text != "" { // it only warns of settings that it does not have
		t.Errorf("%s: %s", strings.Join(verify, " "), text)
	}
}
