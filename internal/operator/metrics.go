package operator

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/text"
)

// metric is a metric in Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats). The library that writes it would
// make each action of the agent start a third later: it registers messages of protobuf even if the program is called for something else.
type metric struct {
	name    string
	kind    string
	help    string
	samples []sample
}

const (
	gauge   = "gauge"
	counter = "counter"
)

type sample struct {
	labels []label
	value  float64
}

type label struct{ name, value string }

// nodeStates are all that stateOf returns.
var nodeStates = [...]string{"online", "standby", "maintenance", "unclean", "offline"}

// WriteMetrics writes a status for Prometheus. A value that is unknown has no sample. Drains on other nodes are left out: these have
// metrics of their own.
func WriteMetrics(to io.Writer, status Status, version string) error {
	w := &strings.Builder{}
	for _, m := range status.metrics(version) {
		m.write(w)
	}
	_, err := io.WriteString(to, w.String())
	return err
}

// metrics returns all metrics; contrib/README.md lists them.
func (s Status) metrics(version string) []metric {
	const perSecond = float64(time.Second / time.Millisecond)
	resource := func(name, kind, help string, value func(ResourceStatus) (float64, bool)) metric {
		return metric{name, kind, help, s.resources(value)}
	}
	onNode := []label{{"node", s.Node}}
	bucket := func(name, kind, help string, value func(BucketStatus) (float64, bool)) metric {
		return metric{name, kind, help, s.buckets(onNode, value)}
	}
	cluster := func(name, help string, is func(ClusterStatus) bool) metric {
		return metric{name, gauge, help, s.cluster(is)}
	}
	return []metric{
		{"clusterip_build_info", gauge, "The version of the program that wrote the metrics.", one(1, label{"version", version})},
		{"clusterip_node_info", gauge, "The name of this node in the cluster.", s.nodeInfo()},
		{
			"clusterip_last_run_timestamp_seconds", gauge, "The time at which the metrics were written.",
			one(float64(s.Time.UnixMilli()) / perSecond),
		},
		{
			"clusterip_health", gauge, "The worst health of the cluster and all resources: 0 healthy, 1 degraded, 2 broken.",
			one(float64(s.Health)),
		},
		{"clusterip_pacemaker_up", gauge, "Whether Pacemaker answers on this node.", one(truth(s.Cluster != nil))},
		cluster("clusterip_cluster_quorate", "Whether this part of the cluster has quorum.",
			func(c ClusterStatus) bool { return c.Quorum }),
		cluster("clusterip_cluster_fencing_enabled", "Whether lost nodes are fenced (fencing-enabled, before Pacemaker 3.0.2 stonith-enabled).",
			func(c ClusterStatus) bool { return c.Fencing }),
		cluster("clusterip_cluster_maintenance", "Whether the cluster is in maintenance mode.",
			func(c ClusterStatus) bool { return c.Maintenance }),
		{"clusterip_cluster_node_state", gauge, "The state of each node in Pacemaker: 1 for the state that it is in, 0 for the " +
			"others.", s.nodes()},
		{
			"clusterip_cluster_bucket_nodes", gauge, "The number of nodes that own the bucket, from Pacemaker and this node's kernel: 1 is " +
				"right, 0 is unowned, more are several owners.", s.buckets(nil, bucketNodes),
		},

		{
			"clusterip_resource_info", gauge, "The resource as installed or configured. All labels but nic and backend must be the same on all " +
				"nodes.",
			s.resourceInfo(),
		},
		resource("clusterip_resource_health", gauge, "0 healthy, 1 degraded, 2 broken; ocf-clusterip status shows the problems.",
			func(r ResourceStatus) (float64, bool) { return float64(r.Health), true }),
		resource("clusterip_resource_buckets", gauge, "The number of buckets.",
			func(r ResourceStatus) (float64, bool) { return float64(len(r.Buckets)), true }),
		resource("clusterip_resource_drain_limit_seconds", gauge, "The drain time; 0 if connections do not survive moves.", drainLimit),
		resource("clusterip_foreign_packets_total", counter, "Foreign packets that this node has dropped, because other nodes own their buckets.",
			func(r ResourceStatus) (float64, bool) { return r.Foreign.packets() }),
		resource("clusterip_foreign_bytes_total", counter, "Bytes of these packets.",
			func(r ResourceStatus) (float64, bool) { return r.Foreign.bytes() }),
		resource("clusterip_early_dropped_packets_total", counter, "Of these packets, those that the BPF program of early_drop has dropped.",
			func(r ResourceStatus) (float64, bool) { return r.EarlyDropped.packets() }),
		resource("clusterip_early_dropped_bytes_total", counter, "Bytes of these packets.",
			func(r ResourceStatus) (float64, bool) { return r.EarlyDropped.bytes() }),
		resource("clusterip_remembered_connections", gauge, "TCP connections of clients to all nodes that this node remembers.",
			func(r ResourceStatus) (float64, bool) {
				return r.Memory.metric(func(m MemoryStatus) float64 { return float64(m.Connections) })
			}),
		resource("clusterip_remembered_connections_limit", gauge, "How many it remembers at most, for all resources on the interface.",
			func(r ResourceStatus) (float64, bool) {
				return r.Memory.metric(func(m MemoryStatus) float64 { return float64(m.Limit) })
			}),
		resource("clusterip_told_connections_total", counter, "Connections to other nodes whose clients this node has told that they are over.",
			func(r ResourceStatus) (float64, bool) {
				return r.Memory.metric(func(m MemoryStatus) float64 { return float64(m.Told) })
			}),
		resource("clusterip_told_seconds", gauge, "How long it took to tell the last ones.",
			func(r ResourceStatus) (float64, bool) {
				return r.Memory.metric(func(m MemoryStatus) float64 { return m.ToldSeconds })
			}),

		bucket("clusterip_bucket_owned", gauge, "Whether this node owns the bucket, from its kernel.", s.owned),
		bucket("clusterip_bucket_adopting", gauge, "Whether this node adopts the bucket: old owners may still serve its older "+
			"connections.", s.adopting),
		bucket("clusterip_bucket_draining", gauge, "Whether this node drains the bucket: it released it, and still serves its "+
			"connections.", s.draining),
		bucket("clusterip_bucket_lingering", gauge, "Whether this node lingers with the bucket: it released it, and answers everything until it "+
			"is taken over.", s.lingering),
		bucket("clusterip_bucket_drain_remaining_seconds", gauge, "The time until the drain ends at the latest.", s.drainRemaining),
		bucket("clusterip_bucket_drain_connections", gauge, "The connections that the drain still serves.", s.drainConnections),
		bucket("clusterip_bucket_packets_total", counter, "Packets of the bucket that this node has accepted since it owns it.",
			func(b BucketStatus) (float64, bool) { return b.Traffic.packets() }),
		bucket("clusterip_bucket_bytes_total", counter, "Bytes of these packets.",
			func(b BucketStatus) (float64, bool) { return b.Traffic.bytes() }),
	}
}

func one(value float64, labels ...label) []sample { return []sample{{labels, value}} }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func drainLimit(r ResourceStatus) (float64, bool) {
	if r.DrainSeconds == nil {
		return 0, false
	}
	return *r.DrainSeconds, true
}

func (s Status) nodeInfo() []sample {
	if s.Node == "" {
		return nil
	}
	return one(1, label{"node", s.Node})
}

func (s Status) cluster(is func(ClusterStatus) bool) []sample {
	if s.Cluster == nil {
		return nil
	}
	return one(truth(is(*s.Cluster)))
}

func (s Status) nodes() []sample {
	if s.Cluster == nil {
		return nil
	}
	var samples []sample
	for _, node := range s.Cluster.Nodes {
		for _, state := range nodeStates {
			samples = append(samples, sample{[]label{{"node", node.Name}, {"state", state}}, truth(node.State == state)})
		}
	}
	return samples
}

// address returns the label that names the address; "" if the configuration is wrong.
func (r ResourceStatus) address() string {
	if len(r.Addresses) == 0 {
		return ""
	}
	return r.Addresses[0].String()
}

// labels returns the labels that name the resource, and more.
func (r ResourceStatus) labels(more ...label) []label {
	return append([]label{{"resource", r.Name}, {"address", r.address()}}, more...)
}

func (s Status) resourceInfo() []sample {
	var samples []sample
	for _, r := range s.Resources {
		samples = append(samples, one(1, r.labels(
			label{"clone", r.Clone}, label{"addresses", text.Join(r.Addresses, " ")}, label{"nic", r.NIC}, label{"backend", r.Backend},
			label{"mac_mode", r.MACMode}, label{"macs", strings.Join(r.MACs, " ")},
			label{"hashmode", r.HashMode}, label{"hash_compat", r.HashCompat},
			label{"hash_prefix4", strconv.Itoa(r.HashPrefix4)}, label{"hash_prefix6", strconv.Itoa(r.HashPrefix6)},
			label{"services", strings.Join(r.Services, " ")}, label{"seed_fingerprint", r.SeedFingerprint},
		)...)...)
	}
	return samples
}

func (s Status) resources(value func(ResourceStatus) (value float64, known bool)) []sample {
	var samples []sample
	for _, r := range s.Resources {
		if value, known := value(r); known {
			samples = append(samples, sample{r.labels(), value})
		}
	}
	return samples
}

// buckets returns a sample for each bucket. Its labels node, resource and clone are those of ha_cluster_exporter, so that both join.
func (s Status) buckets(of []label, value func(BucketStatus) (value float64, known bool)) []sample {
	var samples []sample
	for _, r := range s.Resources {
		for _, b := range r.Buckets {
			if value, known := value(b); known {
				samples = append(samples, sample{slices.Concat(of, []label{
					{"resource", b.Instance}, {"clone", r.Clone}, {"address", r.address()}, {"bucket", fmt.Sprint(b.Bucket)},
				}), value})
			}
		}
	}
	return samples
}

func bucketNodes(b BucketStatus) (float64, bool) { return float64(len(b.Nodes)), b.State != Unknown }

func (s Status) owned(b BucketStatus) (float64, bool) {
	return truth(slices.Contains(b.Nodes, nameOf(s.Node))), true
}

func (s Status) adopting(b BucketStatus) (float64, bool) {
	owned, _ := s.owned(b)
	return truth(owned == 1 && b.State == Adopting), true
}

// DrainHere returns this node's drain of a bucket.
func (s Status) DrainHere(b BucketStatus) (DrainStatus, bool) {
	i := slices.IndexFunc(b.Drains, func(d DrainStatus) bool { return d.Node == nameOf(s.Node) })
	if i < 0 {
		return DrainStatus{}, false
	}
	return b.Drains[i], true
}

func (s Status) draining(b BucketStatus) (float64, bool) {
	_, drains := s.DrainHere(b)
	return truth(drains), true
}

func (s Status) lingering(b BucketStatus) (float64, bool) {
	drain, _ := s.DrainHere(b)
	return truth(drain.LingersSeconds > 0), true
}

func (s Status) drainRemaining(b BucketStatus) (float64, bool) {
	drain, drains := s.DrainHere(b)
	return drain.Seconds, drains
}

func (s Status) drainConnections(b BucketStatus) (float64, bool) {
	drain, _ := s.DrainHere(b)
	if drain.Connections == nil {
		return 0, false
	}
	return float64(*drain.Connections), true
}

func (m *MemoryStatus) metric(value func(MemoryStatus) float64) (float64, bool) {
	if m == nil {
		return 0, false
	}
	return value(*m), true
}

func (t *Traffic) packets() (float64, bool) {
	if t == nil {
		return 0, false
	}
	return float64(t.Packets), true
}

func (t *Traffic) bytes() (float64, bool) {
	if t == nil {
		return 0, false
	}
	return float64(t.Bytes), true
}

func (m metric) write(w *strings.Builder) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind)
	for _, s := range m.samples {
		labels := make([]string, len(s.labels))
		for i, l := range s.labels {
			labels[i] = fmt.Sprintf(`%s="%s"`, l.name, labelValue(l.value))
		}
		selector := ""
		if len(labels) > 0 {
			selector = "{" + strings.Join(labels, ",") + "}"
		}
		fmt.Fprintf(w, "%s%s %s\n", m.name, selector, strconv.FormatFloat(s.value, 'f', -1, 64))
	}
}

// labelValue returns the text as a label value: valid UTF-8, with the special characters of the format escaped.
func labelValue(text string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(text, "\ufffd"))
}
