package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator/style"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// snapshot is of a node that has counted so many packets of each bucket after so many seconds. A packet has 100 bytes.
func snapshot(node string, seconds int, counted map[int]float64) Snapshot {
	counters := Counters{
		Name: "web-ip", Address: "192.168.10.3", Buckets: 8, HashMode: "sourceip", Prefix4: 32, Prefix6: 128,
		Counted: map[int]Traffic{}, Owners: map[int][]string{},
	}
	for bucket, packets := range counted {
		counters.Counted[bucket] = Traffic{packets, packets * 100}
	}
	return Snapshot{
		File: fmt.Sprintf("%s-%d.prom", node, seconds), Node: node, Time: noon.Add(time.Duration(seconds) * time.Second),
		Online: []string{"node1", "node2", "node3"}, Resources: []Counters{counters},
	}
}

// snapshots are of every kind.
func snapshots() map[string][]Snapshot {
	even := []Snapshot{
		snapshot("node1", 0, map[int]float64{0: 1000, 3: 0, 6: 50}), snapshot("node1", 60, map[int]float64{0: 1600, 3: 600, 6: 650}),
		snapshot("node2", 0, map[int]float64{1: 0, 4: 0, 7: 0}), snapshot("node2", 60, map[int]float64{1: 600, 4: 600, 7: 600}),
		snapshot("node3", 0, map[int]float64{2: 7, 5: 0}), snapshot("node3", 60, map[int]float64{2: 607, 5: 600}),
	}
	heavy := append([]Snapshot(nil), even...)
	heavy[3] = snapshot("node2", 60, map[int]float64{1: 600, 4: 9000, 7: 600})
	moved := append([]Snapshot(nil), even...)
	moved[1] = snapshot("node1", 60, map[int]float64{0: 1600, 3: 600})
	moved[5] = snapshot("node3", 60, map[int]float64{2: 607, 5: 600, 6: 200})
	gone := append([]Snapshot(nil), even[:4]...)
	networks := append([]Snapshot(nil), heavy...)
	for i := range networks {
		counters := networks[i].Resources[0]
		counters.Prefix4 = 24
		networks[i].Resources = []Counters{counters}
	}
	offline := append([]Snapshot(nil), even...) // node2, whose buckets the others have now
	offline[1] = snapshot("node1", 60, map[int]float64{0: 1600, 3: 600, 6: 650, 1: 20, 7: 20})
	offline[5] = snapshot("node3", 60, map[int]float64{2: 607, 5: 600, 4: 20})
	for i := range offline {
		offline[i].Online = []string{"node1", "node3"}
	}
	all := map[int]float64{0: 600, 1: 600, 2: 600, 3: 600, 4: 600, 5: 600, 6: 600, 7: 600}
	sticky := []Snapshot{
		snapshot("node1", 0, nil), snapshot("node1", 60, nil),
		snapshot("node2", 0, map[int]float64{0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0}), snapshot("node2", 60, all),
		snapshot("node3", 0, nil), snapshot("node3", 60, nil),
	}
	return map[string][]Snapshot{
		"sticky": sticky, "offline": offline, "offline-one-file": append(offline[:2:2], offline[3:]...),
		"even": even, "heavy": heavy, "moved": moved, "one-node-missing": gone, "two-nodes-missing": even[:2],
		"totals": {heavy[1], heavy[3], heavy[5]}, "one-without-rates": heavy[1:], "idle": {even[2]}, "networks": networks,
	}
}

func TestMeasured(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../../docs/schema/measured.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range snapshots() {
		t.Run(name, func(t *testing.T) {
			m, err := Measure(MeasureQuestion{Snapshots: list, Fail: 2})
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := m.WriteText(&text, style.Style{Width: 100}); err != nil {
				t.Fatal(err)
			}
			golden(t, "measured-"+name+".txt", text.Bytes())
			written, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(written))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance); err != nil {
				t.Error(err)
			}
		})
	}
}

// The load of the nodes is that of the buckets, and a failure moves the failed node's.
func TestMeasuredLoads(t *testing.T) {
	m, err := Measure(MeasureQuestion{Snapshots: snapshots()["heavy"], Fail: 1})
	if err != nil {
		t.Fatal(err)
	}
	const total = 7*10 + 150 // packets in a second
	if got := m.Nodes[1]; got.Traffic.Packets != 10+150+10 || got.Buckets != 3 || got.Share.Packets != 170./total {
		t.Errorf("node2: %+v", got)
	}
	if len(m.Heavy) != 1 || m.Heavy[0] != 4 || m.Buckets[4].Traffic != (Traffic{150, 15000}) {
		t.Errorf("heavy: %v, %+v", m.Heavy, m.Buckets[4])
	}
	if len(m.Failures) != 3 || m.Failures[1].Moves.Packets != 170./total || m.Failures[1].Largest.Packets < 150./total {
		t.Errorf("%+v", m.Failures)
	}
}

// Totals of a busy cluster are large. A bucket of 10 TB is not as heavy as one of 1.2 TB.
func TestMeasuredLargeTotals(t *testing.T) {
	const heavy, light = 10e12, 1.2e12
	counted := map[int]float64{}
	for bucket := range 8 {
		counted[bucket] = light / 100
	}
	counted[0] = heavy / 100
	m, err := Measure(MeasureQuestion{Snapshots: []Snapshot{
		snapshot("node1", 0, counted), snapshot("node2", 0, nil), snapshot("node3", 0, nil),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for measure := range measures {
		if shares := m.shares(Placement{0, 1, 1, 1, 1, 1, 1, 1}, whole, measure); math.Abs(shares[0]-heavy/(heavy+7*light)) > 1e-9 {
			t.Errorf("measure %d: bucket 0 has %v of the load", measure, shares[0])
		}
	}
}

// While a resource is renamed, two have the address, and a file of before has the old one only.
func TestMeasuredRenamed(t *testing.T) {
	before := snapshot("node1", 0, map[int]float64{0: 1})
	before.Resources[0].Name = "old-ip"
	after := snapshot("node1", 60, map[int]float64{0: 61, 1: 60})
	old := snapshot("node1", 60, nil).Resources[0]
	old.Name, old.Buckets = "old-ip", 0
	after.Resources = append([]Counters{old}, after.Resources...)
	m, err := Measure(MeasureQuestion{Snapshots: []Snapshot{before, after}})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Buckets[0].Traffic.Packets; m.Resource != "web-ip" || got != 1 {
		t.Errorf("%s: %v packets a second in bucket 0, want web-ip and 1", m.Resource, got)
	}
}

// With the placement of today one node has all the load. More buckets are not what it lacks.
func TestMeasuredPlacement(t *testing.T) {
	m, err := Measure(MeasureQuestion{Snapshots: snapshots()["sticky"]})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Finer[0].Best.Packets; got != 3 {
		t.Errorf("the most loaded node has %v even shares, want 3", got)
	}
	advice := strings.Join(m.Advice, "\n")
	if !strings.Contains(advice, "placed the same buckets anew") || strings.Contains(advice, "change nothing") {
		t.Error(advice)
	}
}

// Figures that are shown as equal are no reason for more buckets.
func TestLessAsShown(t *testing.T) {
	for _, row := range []struct {
		a, b Traffic
		want bool
	}{
		{Traffic{1.641, 1}, Traffic{1.644, 1}, false},
		{Traffic{1.634, 1}, Traffic{1.636, 1}, true},
		{Traffic{2, 0.9}, Traffic{1, 1}, true},
	} {
		if got := row.a.isLess(row.b); got != row.want {
			t.Errorf("%v less than %v: %t", row.a, row.b, got)
		}
	}
}

// A bucket that a node got between its snapshots, or lost and got back, was counted for a part of the time.
func TestMeasuredParts(t *testing.T) {
	m, err := Measure(MeasureQuestion{Snapshots: []Snapshot{
		snapshot("node1", 0, map[int]float64{0: 1000, 1: 0}), snapshot("node1", 60, map[int]float64{0: 60, 1: 600, 2: 120}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for bucket, want := range []MeasuredBucket{
		{Traffic: Traffic{1, 100}, Moved: true}, {Traffic: Traffic{10, 1000}}, {Traffic: Traffic{2, 200}, Moved: true},
	} {
		if got := m.Buckets[bucket]; got.Traffic != want.Traffic || got.Moved != want.Moved || !got.Known {
			t.Errorf("bucket %d: %+v, want %+v", bucket, got, want)
		}
	}
}

func TestWrongSnapshots(t *testing.T) {
	one := snapshot("node1", 0, map[int]float64{0: 1})
	other := snapshot("node2", 5, nil)
	other.Resources[0].Buckets = 16
	second := snapshot("node1", 0, nil)
	second.Resources[0].Address = "192.168.10.4"
	none := snapshot("node1", 0, nil)
	none.Resources[0].Buckets = 0
	outside := snapshot("node1", 0, map[int]float64{8: 1})
	for name, row := range map[string]struct {
		q    MeasureQuestion
		want string
	}{
		"no buckets":                {MeasureQuestion{Snapshots: []Snapshot{none}}, "node1-0.prom, 192.168.10.3: 0 is not a number of buckets"},
		"a bucket too many":         {MeasureQuestion{Snapshots: []Snapshot{outside}}, "bucket 8 of 8"},
		"nothing":                   {MeasureQuestion{}, "no file has a shared address"},
		"the same snapshot twice":   {MeasureQuestion{Snapshots: []Snapshot{one, one}}, "are the same snapshot of node1"},
		"another number of buckets": {MeasureQuestion{Snapshots: []Snapshot{one, other}}, "has 16 buckets, and node1-0.prom has 8"},
		"two addresses":             {MeasureQuestion{Snapshots: []Snapshot{one, second}}, "choose one with --to: 192.168.10.3, 192.168.10.4"},
		"not that address":          {MeasureQuestion{Snapshots: []Snapshot{one}, Address: "10.0.0.1"}, "--to 10.0.0.1 is in none of the files"},
		"one file without it":       {MeasureQuestion{Snapshots: []Snapshot{one, second}, Address: "192.168.10.3"}, "does not have 192.168.10.3"},
	} {
		if _, err := Measure(row.q); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Finer rests on this: with a multiple of the buckets, each new one is a part of one bucket of before.
func TestMultiplesDivideBuckets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		flow := clusterip.Flow{Source: netip.AddrFrom4([4]byte{byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), 1})}
		seed := clusterip.Seed(random.Uint32())
		bucket := clusterip.BucketOf(clusterip.SourceIP, clusterip.XTCluster, flow, seed, 12)
		if finer := clusterip.BucketOf(clusterip.SourceIP, clusterip.XTCluster, flow, seed, 48); finer/4 != bucket {
			t.Fatalf("%v is in bucket %d of 12 and %d of 48", flow.Source, bucket, finer)
		}
	}
}
