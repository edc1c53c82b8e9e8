// Package contrib holds what sites may want beside the program, see README.md. Its tests ask the tools that it is for.
package contrib

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// says runs a tool and returns what it prints.
func says(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// The rules fire when they should, and not when they should not.
func TestRules(t *testing.T) {
	says(t, "promtool", "check", "rules", "--lint=all", "--lint-fatal", rules)
	says(t, "promtool", "test", "rules", ruleTests)
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
	Targets     []struct{ Expr string }
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

// Each panel shows something of a node on which all is going on: its questions are valid, and labels fit together.
func TestPanelsAreNotEmpty(t *testing.T) {
	type series struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	type question struct {
		Expr string `json:"expr"`
		At   string `json:"eval_time"`
	}
	var given []series
	families := metrics(t)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, m := range families[name].GetMetric() {
			labels := []string{`job="node"`, `instance="a:9100"`}
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			values := fmt.Sprintf("%g+0x40", m.GetGauge().GetValue())
			if m.GetCounter() != nil {
				values = fmt.Sprintf("%g+15x40", m.GetCounter().GetValue())
			}
			given = append(given, series{fmt.Sprintf("%s{%s}", name, strings.Join(labels, ",")), values})
		}
	}
	variables := strings.NewReplacer("$job", "node", "$address", "192.168.10.3", "$instance", "a:9100", "$__rate_interval", "5m")
	var asked []question
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			asked = append(asked, question{"absent(" + variables.Replace(target.Expr) + ")", "5m"}) // and no sample is expected
		}
	}
	if len(asked) == 0 {
		t.Fatal("no panel asks for anything")
	}
	// JSON is YAML.
	text, err := json.Marshal(map[string]any{"evaluation_interval": "15s", "tests": []any{
		map[string]any{"interval": "15s", "input_series": given, "promql_expr_test": asked},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, "promtool", "test", "rules", file)
}

// systemd knows all that the units ask for.
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
	if said := says(t, verify...); said != "" { // of what it does not know it only warns
		t.Errorf("%s: %s", strings.Join(verify, " "), said)
	}
}
