//go:build system

package contrib

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/tests/lan"
)

// What is recorded: node3 goes to standby and comes back. Each time two buckets move, and the old owner drains them.
const (
	interval = 15 * time.Second // that of the timer, and of Prometheus
	leaves   = 10 * time.Minute
	returns  = 20 * time.Minute
	length   = 32 * time.Minute
	buckets  = 6
	drain    = 10 * time.Minute

	rateInterval = 4 * interval // Grafana's $__rate_interval
)

// The picture shows the half hour from begin to end.
var (
	recorded = time.Date(2026, 11, 26, 1, 58, 0, 0, time.UTC)
	begin    = recorded.Add(2 * rateInterval) // rates need earlier samples
	end      = recorded.Add(length)
	nodes    = [...]string{"node1", "node2", "node3"}
)

// ownerOf returns the owner of a bucket, and the previous one with the time since the move.
func ownerOf(bucket int, at time.Duration) (owner, previous string, since time.Duration) {
	home := nodes[bucket%len(nodes)]
	if home != "node3" || at < leaves {
		return home, "", at
	}
	heir := nodes[bucket/len(nodes)]
	if at < returns {
		return heir, home, at - leaves
	}
	return home, heir, at - returns
}

// openConnections is how many connections are left of a drain.
func openConnections(bucket int, since time.Duration) int {
	return int(float64(30+5*bucket) * math.Exp(-since.Seconds()/70))
}

// countOf is the traffic of a bucket since the beginning: its rate swings.
func countOf(bucket int, at time.Duration) clusterip.Count {
	const perSecond, swing, period, size = 150, 0.2, 400, 120
	phase := 2*math.Pi*at.Seconds()/period + float64(bucket)
	swung := swing * period / (2 * math.Pi) * (math.Cos(float64(bucket)) - math.Cos(phase))
	packets := perSecond * (1 + float64(bucket)/buckets) * (at.Seconds() + swung)
	return clusterip.Count{Packets: uint64(packets), Bytes: uint64(packets) * size}
}

// foreignTo is the traffic of a bucket while a node did not own it, since the node's tables were installed.
func foreignTo(node string, bucket int, at time.Duration) clusterip.Count {
	var foreign clusterip.Count
	moves := []time.Duration{0, leaves, returns, length}
	if node == "node3" && at >= returns { // standby has removed the tables
		moves = moves[2:]
	}
	for i, from := range moves[:len(moves)-1] {
		if owner, _, _ := ownerOf(bucket, from); owner != node && at > from {
			before, after := countOf(bucket, from), countOf(bucket, min(at, moves[i+1]))
			foreign.Packets += after.Packets - before.Packets
			foreign.Bytes += after.Bytes - before.Bytes
		}
	}
	return foreign
}

// surveyOf is what a node finds at a time.
func surveyOf(node string, at time.Duration) operator.Survey {
	vip := netip.MustParseAddr("192.0.2.1")
	layout := clusterip.Layout{
		Resource: "web-ip", Prefixes: []netip.Prefix{netip.PrefixFrom(vip, 24)},
		MACMode: clusterip.Multicast, MACs: clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.DerivedMAC(clusterip.Multicast, vip)},
		HashMode: clusterip.SourceIP, HashCompat: clusterip.XTCluster, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128},
		Seed: clusterip.DefaultSeed(vip), Buckets: buckets, NIC: "eth0", Backend: clusterip.NFTables, Drains: true,
	}
	known := operator.Known{Layout: layout, Node: node, Placement: map[clusterip.Bucket][]string{}}
	spec := layout.Spec()
	spec.Drain = drain
	resource := operator.Resource{
		Spec: spec, Configured: &pacemaker.Resource{Name: "web-ip", Clone: "web-ip-clone"}, Connections: map[clusterip.Bucket]int{},
	}
	traffic := clusterip.Traffic{Buckets: map[clusterip.Bucket]clusterip.Count{}}
	for number := range buckets {
		bucket := clusterip.Bucket(number)
		owner, previous, since := ownerOf(number, at)
		open := openConnections(number, since)
		drains := previous != "" && open > 0
		known.Placement[bucket] = []string{owner}
		foreign := foreignTo(node, number, at)
		traffic.Foreign.Packets += foreign.Packets
		traffic.Foreign.Bytes += foreign.Bytes
		if owner == node {
			all, before := countOf(number, at), countOf(number, at-since)
			known.Here.Owned = append(known.Here.Owned, bucket)
			traffic.Buckets[bucket] = clusterip.Count{Packets: all.Packets - before.Packets, Bytes: all.Bytes - before.Bytes}
			if drains {
				adoption := clusterip.Adoption{Bucket: bucket, Left: drain - since, From: []string{previous}}
				known.Here.Moves.Adopting = append(known.Here.Moves.Adopting, adoption)
			}
		}
		if drains && previous == node {
			known.Here.Moves.Draining = append(known.Here.Moves.Draining, clusterip.Drain{Bucket: bucket, Left: drain - since})
			resource.Connections[bucket] = open
		}
	}
	// A node that neither owns nor drains a bucket has nothing installed.
	if known.Here.Present = len(known.Here.Owned)+len(known.Here.Moves.Draining) > 0; known.Here.Present {
		known.Here.Installed, known.Here.Backend, resource.Traffic = &layout, layout.Backend, &traffic
	}
	resource.Known = known
	view := &pacemaker.View{Quorum: true, Fencing: true}
	for _, name := range nodes {
		standby := name == "node3" && leaves <= at && at < returns
		view.Nodes = append(view.Nodes, pacemaker.Node{Name: name, Online: true, Standby: standby})
	}
	return operator.Survey{Node: node, Cluster: view, Resources: []operator.Resource{resource}}
}

// record writes what the program's metrics say in that time, as promtool reads it.
func record(t *testing.T, file string) {
	t.Helper()
	var samples strings.Builder
	for at := time.Duration(0); at <= length; at += interval {
		for i, node := range nodes {
			written := at - time.Duration(2+4*i)*time.Second // a node's timer does not know when Prometheus asks
			var text strings.Builder
			status := operator.Judge(surveyOf(node, max(written, 0)), recorded.Add(written))
			if err := operator.WriteMetrics(&text, status, "v1.0.0"); err != nil {
				t.Fatal(err)
			}
			for name, family := range parse(t, strings.NewReader(text.String())) {
				for _, m := range family.GetMetric() {
					value := m.GetGauge().GetValue() + m.GetCounter().GetValue()
					fmt.Fprintf(&samples, "%s %v %d\n", scraped(name, node+":9100", m), value, recorded.Add(at).Unix())
				}
			}
		}
	}
	samples.WriteString("# EOF\n")
	if err := os.WriteFile(file, []byte(samples.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// prometheus is a server with a recording, in a network namespace of its own.
type prometheus struct {
	t    *testing.T
	host *lan.Host
}

const listenAddress = "127.0.0.1:9090"

func startPrometheus(t *testing.T) prometheus {
	t.Helper()
	folder := t.TempDir()
	recording, data, config := filepath.Join(folder, "recording"), filepath.Join(folder, "data"), filepath.Join(folder, "prometheus.yml")
	record(t, recording)
	output(t, "promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", recording, data)
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	network, err := lan.NewEmpty()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := network.NewHost("prometheus")
	if err != nil {
		t.Fatal(err)
	}
	// A series that a scrape lacks ends at once. Blocks that promtool has made do not tell, and it would go on for five minutes.
	server := exec.CommandContext(t.Context(), "prometheus", "--config.file="+config, "--storage.tsdb.path="+data,
		"--web.listen-address="+listenAddress, "--query.lookback-delta="+(interval-time.Second).String())
	log, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Do(server.Start); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(log)
	t.Cleanup(func() {
		for lines.Scan() { // until it has ended
		}
		if err := server.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) { // it was killed
			t.Error(err)
		}
	})
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "Server is ready to receive web requests") {
			return prometheus{t, host}
		}
	}
	t.Fatalf("Prometheus does not start:\n%s", said.String())
	return prometheus{}
}

// query asks a panel's question: what holds at the end, or what held all the time.
func (p prometheus) query(question target) model.Matrix {
	p.t.Helper()
	variables := strings.NewReplacer("$job", ".*", "$address", ".*", "$instance", ".*", "$__rate_interval", rateInterval.String())
	from := begin
	if question.Instant {
		from = end.Add(-interval) // promtool knows no range without length
	}
	result := p.host.Run(p.t.Context(), lan.ToolPath, "/usr/bin/promtool", "query", "range", "--format=json",
		"--start="+from.Format(time.RFC3339), "--end="+end.Format(time.RFC3339), "--step="+interval.String(), "http://"+listenAddress,
		variables.Replace(question.Expr))
	if err := result.Failure(); err != nil {
		p.t.Fatalf("%s: %v", question.Expr, err)
	}
	var matrix model.Matrix
	if err := json.Unmarshal([]byte(result.Stdout), &matrix); err != nil {
		p.t.Fatalf("%s: %v in:\n%s", question.Expr, err, result.Stdout)
	}
	if question.Instant {
		for _, stream := range matrix {
			stream.Values = slices.DeleteFunc(stream.Values, func(s model.SamplePair) bool { return s.Timestamp.Time().Before(end) })
		}
		matrix = slices.DeleteFunc(matrix, func(s *model.SampleStream) bool { return len(s.Values) == 0 })
	}
	return matrix
}
