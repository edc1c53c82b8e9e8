package operator

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

// metricsOf returns the text for a survey, and what Prometheus' own parser, which is node_exporter's, makes of it.
func metricsOf(t *testing.T, survey Survey) (string, map[string]*dto.MetricFamily) {
	t.Helper()
	var text strings.Builder
	if err := WriteMetrics(&text, Judge(survey, now), "v1.2.3"); err != nil {
		t.Fatal(err)
	}
	return text.String(), parsed(t, text.String())
}

func parsed(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return families
}

// value is that of the only sample whose labels say all of these, as name and value by turns.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) (value float64, ok bool) {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		said := map[string]string{}
		for _, l := range m.GetLabel() {
			said[l.GetName()] = l.GetValue()
		}
		matches := true
		for i := 0; i < len(labels); i += 2 {
			matches = matches && said[labels[i]] == labels[i+1]
		}
		switch {
		case matches && ok:
			t.Errorf("several samples are %s%v", name, labels)
		case matches:
			value, ok = m.GetGauge().GetValue()+m.GetCounter().GetValue(), true
		}
	}
	return value, ok
}

// moving is a resource in the middle of moves: each metric has a sample.
func moving(s *Survey) {
	r := &s.Resources[0]
	r.Here.Moves = clusterip.Moves{
		Draining: []clusterip.Drain{{Bucket: 5, Left: 590 * time.Second}, {Bucket: 7, Left: 599 * time.Second}},
		Adopting: []clusterip.Adoption{{Bucket: 6, Left: 30 * time.Second, From: []string{"node3"}}},
	}
	r.Here.Lingering = []clusterip.Linger{{Bucket: 7, Left: 2 * time.Second}}
	delete(r.Placement, 7)
	r.Layout.Services = []services.Service{{Protocol: "tcp", First: 80, Last: 80}, services.ICMP}
}

func TestMetricsAsText(t *testing.T) {
	text, families := metricsOf(t, surveyOf(moving))
	golden(t, "metrics.prom", text)
	for _, m := range (Status{}).metrics("") {
		if len(families[m.name].GetMetric()) == 0 {
			t.Errorf("%s has no sample, so this test does not show it", m.name)
		}
	}
	// It knows Prometheus' conventions.
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if said, err := check.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, said)
	}
}

// absent stands for a sample that is not there.
const absent = -1

func TestMetrics(t *testing.T) {
	bucket := func(number string) []string {
		return []string{"resource", "web-ip:" + number, "address", "192.168.10.3", "bucket", number}
	}
	onAddress := []string{"resource", "web-ip", "address", "192.168.10.3"}
	noPacemaker := func(s *Survey) {
		s.Node, s.Cluster, s.ClusterErr = "", nil, errors.New("refused")
		s.Resources[0].Node, s.Resources[0].Placement = "", nil
	}
	nobodyCounts := func(s *Survey) { s.Resources[0].Traffic, s.Resources[0].Connections = nil, nil }
	byHand := func(s *Survey) {
		noPacemaker(s)
		r := &s.Resources[0]
		r.Configured, r.Spec = nil, r.Layout.Spec()
	}
	for name, row := range map[string]struct {
		change func(*Survey)
		metric string
		labels []string
		want   float64
	}{
		"a bucket has the labels of ha_cluster_exporter": {
			moving, "clusterip_bucket_owned", []string{"node", "node1", "resource", "web-ip:0", "clone", "web-ip-clone"}, 1,
		},
		"which Pacemaker has to know": {
			noPacemaker, "clusterip_bucket_owned", []string{"node", "", "resource", "web-ip:0", "bucket", "0"}, 1,
		},
		"an owned bucket is owned":                {moving, "clusterip_bucket_owned", bucket("0"), 1},
		"another node's is not":                   {moving, "clusterip_bucket_owned", bucket("1"), 0},
		"without Pacemaker the kernel still says": {noPacemaker, "clusterip_bucket_owned", bucket("0"), 1},
		"with several owners, owned here": {
			func(s *Survey) { s.Resources[0].Placement[0] = []string{"node2"} }, "clusterip_bucket_owned", bucket("0"), 1,
		},
		"an adopted bucket is owned":           {moving, "clusterip_bucket_owned", bucket("6"), 1},
		"and adopted":                          {moving, "clusterip_bucket_adopting", bucket("6"), 1},
		"one that drains here is not adopted":  {moving, "clusterip_bucket_adopting", bucket("5"), 0},
		"but drains":                           {moving, "clusterip_bucket_draining", bucket("5"), 1},
		"one that only drains does not linger": {moving, "clusterip_bucket_lingering", bucket("5"), 0},
		"one that lingers here does":           {moving, "clusterip_bucket_lingering", bucket("7"), 1},
		"and drains":                           {moving, "clusterip_bucket_draining", bucket("7"), 1},
		"but is not owned":                     {moving, "clusterip_bucket_owned", bucket("7"), 0},
		"by anybody":                           {moving, "clusterip_cluster_bucket_nodes", bucket("7"), 0},
		"which is not broken":                  {moving, "clusterip_resource_health", nil, 0},
		"one that lingers here although it is owned elsewhere": {
			func(s *Survey) { moving(s); s.Resources[0].Placement[7] = []string{"node2"} }, "clusterip_bucket_lingering", bucket("7"), 1,
		},
		"one that lingers elsewhere does not here": {
			func(s *Survey) {
				delete(s.Resources[0].Placement, 4)
				s.Resources[0].Drainers, s.Resources[0].Lingerers = draining(4, "node2"), lingering(4, "node2")
			}, "clusterip_bucket_lingering", bucket("4"), 0,
		},
		"one drained for us does not drain here": {moving, "clusterip_bucket_draining", bucket("6"), 0},
		"a drain has an end":                     {moving, "clusterip_bucket_drain_remaining_seconds", bucket("5"), 590},
		"and connections":                        {moving, "clusterip_bucket_drain_connections", bucket("5"), 12},
		"which others do not have":               {moving, "clusterip_bucket_drain_connections", bucket("6"), absent},
		"or nobody counts": {
			func(s *Survey) { moving(s); nobodyCounts(s) }, "clusterip_bucket_drain_connections", bucket("5"), absent,
		},
		"a drain of a node without a name": {
			func(s *Survey) { moving(s); noPacemaker(s) }, "clusterip_bucket_draining", bucket("5"), 1,
		},
		"a bucket has one node": {moving, "clusterip_cluster_bucket_nodes", bucket("4"), 1},
		"or two": {
			func(s *Survey) { s.Resources[0].Placement[4] = []string{"node2", "node3"} }, "clusterip_cluster_bucket_nodes", bucket("4"), 2,
		},
		"or none": {
			func(s *Survey) { delete(s.Resources[0].Placement, 4) }, "clusterip_cluster_bucket_nodes", bucket("4"), 0,
		},
		"the kernel knows better than Pacemaker": {
			func(s *Survey) { s.Resources[0].Here.Owned = nil }, "clusterip_cluster_bucket_nodes", bucket("0"), 0,
		},
		"without Pacemaker of others nobody knows":   {noPacemaker, "clusterip_cluster_bucket_nodes", bucket("4"), absent},
		"a bucket's packets are counted":             {moving, "clusterip_bucket_packets_total", bucket("3"), 3456789},
		"and bytes":                                  {moving, "clusterip_bucket_bytes_total", bucket("3"), 5 << 30},
		"no packet is a number":                      {moving, "clusterip_bucket_packets_total", bucket("6"), 0},
		"others' are not counted":                    {moving, "clusterip_bucket_packets_total", bucket("1"), absent},
		"where the backend counts nothing, none are": {nobodyCounts, "clusterip_bucket_packets_total", bucket("3"), absent},
		"foreign packets":                            {moving, "clusterip_foreign_packets_total", onAddress, 98765},
		"foreign bytes":                              {moving, "clusterip_foreign_bytes_total", onAddress, 12 << 20},
		"where nobody counts, no foreign ones":       {nobodyCounts, "clusterip_foreign_packets_total", nil, absent},
		"healthy":                                    {moving, "clusterip_health", nil, 0},
		"degraded":                                   {noPacemaker, "clusterip_health", nil, 1},
		"broken":                                     {func(s *Survey) { s.Resources[0].Faults = []string{"x"} }, "clusterip_health", nil, 2},
		"a healthy resource of a degraded cluster":   {noPacemaker, "clusterip_resource_health", nil, 0},
		"Pacemaker answers":                          {moving, "clusterip_pacemaker_up", nil, 1},
		"or not":                                     {noPacemaker, "clusterip_pacemaker_up", nil, 0},
		"of quorum nobody knows then":                {noPacemaker, "clusterip_cluster_quorate", nil, absent},
		"no quorum":                                  {func(s *Survey) { s.Cluster.Quorum = false }, "clusterip_cluster_quorate", nil, 0},
		"no fencing": {
			func(s *Survey) { s.Cluster.Fencing = false }, "clusterip_cluster_fencing_enabled", nil, 0,
		},
		"maintenance": {func(s *Survey) { s.Cluster.Maintenance = true }, "clusterip_cluster_maintenance", nil, 1},
		"a node in standby": {
			func(s *Survey) { s.Cluster.Nodes[1].Standby = true }, "clusterip_cluster_node_state", []string{"node", "node2", "state", "standby"}, 1,
		},
		"is not online": {
			func(s *Survey) { s.Cluster.Nodes[1].Standby = true }, "clusterip_cluster_node_state", []string{"node", "node2", "state", "online"}, 0,
		},
		"this node's name":      {moving, "clusterip_node_info", []string{"node", "node1"}, 1},
		"if it has one":         {noPacemaker, "clusterip_node_info", nil, absent},
		"the program's version": {moving, "clusterip_build_info", []string{"version", "v1.2.3"}, 1},
		"the time":              {moving, "clusterip_last_run_timestamp_seconds", nil, float64(now.Unix())},
		"the drain's limit":     {moving, "clusterip_resource_drain_limit_seconds", nil, 600},
		"what was installed by hand does not contain it": {byHand, "clusterip_resource_drain_limit_seconds", nil, absent},
		"what was started by hand has its name": {
			byHand, "clusterip_resource_info", []string{"resource", "web-ip", "backend", "nftables"}, 1,
		},
		"nothing is shared here": {func(s *Survey) { s.Resources = nil }, "clusterip_bucket_owned", nil, absent},
		"no address is configured": {func(s *Survey) {
			s.Resources[0] = Resource{Spec: clusterip.Spec{Resource: "web-ip"}, Misconfigured: errors.New("ip is missing")}
		}, "clusterip_resource_health", []string{"resource", "web-ip", "address", ""}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			_, families := metricsOf(t, surveyOf(row.change))
			got, ok := value(t, families, row.metric, row.labels...)
			if !ok {
				got = absent
			}
			if got != row.want {
				t.Errorf("%s%v is %v, want %v", row.metric, row.labels, got, row.want)
			}
		})
	}
}

// stateOf and the metrics must name the same states.
func TestEachNodeIsInOneState(t *testing.T) {
	for name, change := range map[string]func(*Survey){
		"online":      func(*Survey) {},
		"standby":     func(s *Survey) { s.Cluster.Nodes[0].Standby = true },
		"maintenance": func(s *Survey) { s.Cluster.Nodes[0].Maintenance = true },
		"unclean":     func(s *Survey) { s.Cluster.Nodes[0].Unclean = true },
		"offline":     func(s *Survey) { s.Cluster.Nodes[0].Online = false },
	} {
		t.Run(name, func(t *testing.T) {
			_, families := metricsOf(t, surveyOf(change))
			sums := map[string]float64{}
			for _, m := range families["clusterip_cluster_node_state"].GetMetric() {
				sums[m.GetLabel()[0].GetValue()] += m.GetGauge().GetValue()
			}
			if diff := cmp.Diff(map[string]float64{"node1": 1, "node2": 1, "node3": 1}, sums); diff != "" {
				t.Errorf("states that each node is in (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever a name consists of, Prometheus reads what was meant.
func FuzzLabelValue(f *testing.F) {
	for _, text := range []string{"", "web-ip", `C:\n`, `"`, "a\nb", "\r", "{}", "\xff", "é", `\`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var written strings.Builder
		metric{"name", gauge, "help", one(1, label{"label", text})}.write(&written)
		families := parsed(t, written.String())
		got, want := "", strings.ToValidUTF8(text, string(utf8.RuneError))
		for _, l := range families["name"].GetMetric()[0].GetLabel() {
			got = l.GetValue() // an empty one is as good as none
		}
		if got != want {
			t.Errorf("%q is read as %q", want, got)
		}
	})
}
