package nftables

import (
	"testing"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// A change of other moves must not prolong a drain, or it outlasts the adoption of the new owner.
func TestDrainsAgeAndAdoptionsDoNot(t *testing.T) {
	moves := clusterip.Moves{
		Draining: []clusterip.Drain{{Bucket: 1, Left: 8 * time.Second}, {Bucket: 2, Left: time.Second}},
		Adopting: []clusterip.Adoption{{Bucket: 3, Left: 8 * time.Second, From: []string{"node2"}}},
	}
	elements := moveElements("web-ip", moves, 2*time.Second)
	for i, want := range []time.Duration{6 * time.Second, time.Millisecond} {
		if got := elements[setDraining][i].left; got != want {
			t.Errorf("drain %d goes on for %s, not for %s", i, got, want)
		}
	}
	if got := elements[setAdopting][0].left; got != 8*time.Second {
		t.Errorf("the adoption goes on for %s", got)
	}
}
