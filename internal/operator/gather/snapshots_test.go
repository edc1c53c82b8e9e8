package gather

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/plan"
)

// metricsText is what `metrics` writes; its tests keep it so.
func metricsText(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../testdata/metrics.prom")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseMetrics(t *testing.T) {
	snapshot, line, err := parseSnapshot([]byte(metricsText(t)))
	if err != nil {
		t.Fatalf("line %d: %v", line, err)
	}
	if len(snapshot.Resources) != 1 {
		t.Fatalf("%+v", snapshot)
	}
	r := snapshot.Resources[0]
	r.Counted, r.Owners = nil, nil
	if diff := cmp.Diff(plan.Counters{
		Name: "web-ip", Address: "192.168.10.3", Buckets: 8, HashMode: "sourceip", Prefix4: 32, Prefix6: 128,
	}, r); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	counted := snapshot.Resources[0].Counted
	if len(counted) != 3 || counted[3] != (plan.Traffic{Packets: 3456789, Bytes: 5368709120}) {
		t.Errorf("%v", counted)
	}
	if snapshot.Node != "node1" || len(snapshot.Online) != 3 || snapshot.Time != time.Unix(1795658400, 0).UTC() {
		t.Errorf("%s, %v, %s", snapshot.Node, snapshot.Online, snapshot.Time)
	}
}

// While a resource is renamed, two have the address. One whose configuration is wrong has none.
func TestParseMetricsOfRenamed(t *testing.T) {
	good := metricsText(t)
	var old strings.Builder
	for line := range strings.Lines(good) {
		if strings.Contains(line, `resource="web-ip`) {
			line = strings.ReplaceAll(line, `resource="web-ip`, `resource="old-ip`)
			if strings.HasPrefix(line, "clusterip_bucket_owned") {
				line = line[:strings.LastIndex(line, " ")] + " 0\n"
			}
			old.WriteString(line + strings.ReplaceAll(line, `address="192.168.10.3"`, `address=""`))
			if !strings.HasPrefix(line, "clusterip_resource_buckets") {
				old.WriteString(strings.ReplaceAll(line, `address="192.168.10.3"`, `address="192.168.10.4"`))
			}
		}
	}
	snapshot, line, err := parseSnapshot([]byte(old.String() + good))
	if err != nil {
		t.Fatalf("line %d: %v", line, err)
	}
	var got []string
	for _, r := range snapshot.Resources {
		got = append(got, fmt.Sprintf("%s %s: %d buckets, %d counted", r.Name, r.Address, r.Buckets, len(r.Counted)))
	}
	if diff := cmp.Diff([]string{
		"old-ip 192.168.10.3: 8 buckets, 0 counted", "web-ip 192.168.10.3: 8 buckets, 3 counted", "old-ip 192.168.10.4: 0 buckets, 0 counted",
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m, err := plan.Measure(plan.MeasureQuestion{Snapshots: []plan.Snapshot{snapshot}, Address: "192.168.10.3"})
	if err != nil || m.Resource != "web-ip" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestParseStatus(t *testing.T) {
	status := operator.Status{Node: "node1", Time: time.Unix(1795658400, 0).UTC(), Cluster: &operator.ClusterStatus{
		Nodes: []operator.NodeStatus{{Name: "node1", State: "online"}, {Name: "node2", State: "standby"}, {Name: "node3", State: "maintenance"}},
	}, Resources: []operator.ResourceStatus{{
		Name: "web-ip", HashMode: "sourceip", Buckets: []operator.BucketStatus{
			{Bucket: 0, Nodes: []string{"node1"}, Traffic: &operator.Traffic{Packets: 7, Bytes: 700}},
			{Bucket: 1, Nodes: []string{"node2"}, Traffic: &operator.Traffic{Packets: 9, Bytes: 900}},
		},
	}}}
	if err := json.Unmarshal([]byte(`["192.168.10.3"]`), &status.Resources[0].Addresses); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, _, err := parseSnapshot(text)
	want := plan.Snapshot{Node: "node1", Time: status.Time, Online: []string{"node1", "node3"}, Resources: []plan.Counters{{
		Name: "web-ip", Address: "192.168.10.3", Buckets: 2, HashMode: "sourceip",
		Counted: map[int]plan.Traffic{0: {Packets: 7, Bytes: 700}}, Owners: map[int][]string{0: {"node1"}, 1: {"node2"}},
	}}}
	if diff := cmp.Diff(want, snapshot); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestWrongSnapshots(t *testing.T) {
	good := metricsText(t)
	instead := func(old, replacement string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s in the metrics", old)
		}
		return strings.Replace(good, old, replacement, 1)
	}
	const first = `clusterip_bucket_packets_total{`
	at := 1 + strings.Count(good[:strings.Index(good, first)], "\n")
	line := fmt.Sprintf("line %d: ", at)
	for name, row := range map[string]struct{ text, want string }{
		"nothing":           {"", "no metrics and no status of a shared address"},
		"other metrics":     {"node_load1 0.5\n", "no metrics and no status"},
		"no node":           {instead(`clusterip_node_info{`, `node_info{`), "the name of the node is missing"},
		"no time":           {instead("\nclusterip_last_run_timestamp_seconds ", "\n# "), "the time is missing"},
		"a time of its own": {instead("_timestamp_seconds 1795658400", "_timestamp_seconds 1e99"), "is not a time"},
		"no value":          {instead(first, "clusterip_bucket_packets_total\n"+first), line + "a sample without a value"},
		"no number":         {instead(first, "clusterip_bucket_packets_total{} many\n"+first), line + `value "many" is not a number`},
		"a negative one":    {instead(first, "clusterip_bucket_packets_total{} -1\n"+first), line + `value "-1" is not a number`},
		"none at all":       {instead(first, "clusterip_bucket_packets_total{} NaN\n"+first), line + `value "NaN" is not a number`},
		"an open label":     {instead(first, `clusterip_bucket_packets_total{bucket="1`+"\n"+first), line + "a label value without its"},
		"a bare label":      {instead(first, "clusterip_bucket_packets_total{bucket=1} 1\n"+first), line + "a label without a value in quotes"},
		"a bucket by name": {
			instead(first, `clusterip_bucket_packets_total{address="192.168.10.3",bucket="x"} 1`+"\n"+first), line + `bucket "x" is not a number`,
		},
		"two files in one":   {good + good, "is there twice"},
		"JSON of others":     {"{}", "no metrics and no status"},
		"JSON that is cut":   {"{\n\"node\": \"node1\",\n", "line 3: unexpected end"},
		"JSON that is wrong": {"{\n\"node\": 5}", "line 2: "},
	} {
		file := filepath.Join(t.TempDir(), "node1.prom")
		if err := os.WriteFile(file, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Snapshots([]string{file})
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Snapshots([]string{"/none/1", "/none/2"})
	if err == nil || !strings.Contains(err.Error(), "/none/1") || !strings.Contains(err.Error(), "/none/2") {
		t.Errorf("not all faults are reported: %v", err)
	}
}

// What Prometheus reads of a sample is what is read here.
func FuzzParseSample(f *testing.F) {
	f.Add(`clusterip_bucket_packets_total{resource="web-ip",address="192.168.10.3",bucket="3"} 3456789`)
	f.Add(`clusterip_resource_info{resource="a\\b\"c\nd",nic="é",} 1 1795658400000`)
	f.Add(`clusterip_health 0`)
	f.Fuzz(func(t *testing.T, line string) {
		name, labels, value, err := parseSample(line)
		if err != nil || !strings.HasPrefix(line, "clusterip_") || strings.ContainsAny(line, "\r\n") {
			return // only samples of ours reach it
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(line + "\n")))
		if err != nil {
			return // less strict here is no harm
		}
		family := families[name]
		if family == nil || len(family.GetMetric()) != 1 {
			t.Fatalf("%q: %s, Prometheus reads %v", line, name, families)
		}
		metric := family.GetMetric()[0]
		if got := metric.GetUntyped().GetValue(); got != value {
			t.Errorf("%q: %v, Prometheus reads %v", line, value, got)
		}
		for _, label := range metric.GetLabel() {
			if labels[label.GetName()] != label.GetValue() {
				t.Errorf("%q: %q, Prometheus reads %s", line, labels, label)
			}
		}
	})
}

func FuzzParseSnapshot(f *testing.F) {
	f.Add(metricsText(f))
	f.Add(`{"node": "node1", "resources": [{"addresses": ["192.168.10.3"], "buckets": [{"bucket": 0, "nodes": []}]}]}`)
	f.Fuzz(func(_ *testing.T, text string) {
		snapshot, _, err := parseSnapshot([]byte(text))
		if err != nil {
			return
		}
		q := plan.MeasureQuestion{Snapshots: []plan.Snapshot{snapshot}, Address: snapshot.Resources[0].Address}
		_, _ = plan.Measure(q) // it may refuse the buckets, but it ends
	})
}

// A pipe that nobody writes to is a clear error, not a wait for ever.
func TestAPipeThatNobodyWritesTo(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := Snapshots([]string{pipe}); err == nil {
		t.Errorf("--measured: %v", all)
	}
	if text, err := Text("--cib", pipe, nil); err == nil {
		t.Errorf("--cib: %q", text)
	}
}
