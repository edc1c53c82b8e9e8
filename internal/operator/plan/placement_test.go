package plan

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The placements are those that crm_simulate of Pacemaker 2.1.5 shows; pacemaker/examples compares more of them with it.
func TestPlacement(t *testing.T) {
	for name, row := range map[string]struct {
		buckets, nodes int
		failed         [][]int // one set after the other
		want           Placement
	}{
		"in turns":                     {10, 4, nil, Placement{0, 1, 2, 3, 0, 1, 2, 3, 0, 1}},
		"more nodes than buckets":      {2, 3, nil, Placement{0, 1}},
		"one fails":                    {10, 4, [][]int{{0}}, Placement{2, 1, 2, 3, 3, 1, 2, 3, 1, 1}},
		"two fail":                     {10, 4, [][]int{{0, 1}}, Placement{2, 3, 2, 3, 2, 3, 2, 3, 2, 3}},
		"two fail, one after another":  {10, 4, [][]int{{0}, {0, 1}}, Placement{2, 2, 2, 3, 3, 3, 2, 3, 2, 3}},
		"what runs stays, beside more": {14, 6, [][]int{{0, 2}}, Placement{3, 1, 4, 3, 4, 5, 5, 1, 1, 3, 4, 5, 3, 1}},
		"one comes back":               {5, 4, [][]int{{0}, {}}, Placement{1, 0, 2, 3, 2}},
		"they come and go": {23, 6, [][]int{{2}, {2, 4}, {4}}, Placement{
			0, 1, 5, 3, 5, 5, 0, 1, 0, 3, 0, 5, 2, 1, 1, 3, 2, 2, 2, 1, 3, 3, 0,
		}},
		"all but one fail": {4, 3, [][]int{{0, 2}}, Placement{1, 1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Start(row.buckets, row.nodes)
			for _, failed := range row.failed {
				got = got.After(row.nodes, failed)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Whichever nodes fail: only their buckets move, and the shares differ by one at most.
func TestFailuresKeepSharesEven(t *testing.T) {
	for nodes := 2; nodes <= 7; nodes++ {
		for buckets := 1; buckets <= 3*nodes+1; buckets++ {
			before := Start(buckets, nodes)
			for count := 1; count < nodes; count++ {
				for failed := range failures(nodes, count, 1000) {
					after := before.After(nodes, failed)
					counts := slices.DeleteFunc(after.Counts(nodes), func(n int) bool { return n == 0 })
					if most := slices.Max(counts); most-slices.Min(counts) > 1 || most > (buckets+nodes-count-1)/(nodes-count) {
						t.Errorf("%d buckets, %d nodes, %v fail: %v", buckets, nodes, failed, after)
					}
					for bucket, node := range after {
						if was := before[bucket]; slices.Contains(failed, node) || node != was && !slices.Contains(failed, was) {
							t.Errorf("%d buckets, %d nodes, %v fail: bucket %d is on %d", buckets, nodes, failed, bucket, node)
						}
					}
				}
			}
		}
	}
}

func TestFailures(t *testing.T) {
	all := func(nodes, count, most int) [][]int {
		var sets [][]int
		for failed := range failures(nodes, count, most) {
			sets = append(sets, slices.Clone(failed))
		}
		return sets
	}
	if diff := cmp.Diff([][]int{{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}}, all(4, 2, 6)); diff != "" {
		t.Errorf("all pairs (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([][]int{{0, 1}, {0, 3}, {1, 3}}, all(4, 2, 3)); diff != "" {
		t.Errorf("every other pair (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([][]int{{}}, all(4, 0, 3)); diff != "" {
		t.Errorf("none fails (-want +got)\n%s", diff)
	}
	if got := len(all(1024, 4, 5000)); got > 5000 || got < 2500 {
		t.Errorf("%d of the failures of 4 of 1024 nodes are tried", got)
	}
}
