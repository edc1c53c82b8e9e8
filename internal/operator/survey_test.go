package operator

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
)

// asked is a cluster that records about which buckets it was asked.
type asked struct {
	Cluster
	guard   sync.Mutex
	buckets []clusterip.Bucket
}

func (c *asked) Announcements(_ context.Context, _ netip.Addr, b clusterip.Bucket) (map[string]handover.Announcement, error) {
	c.guard.Lock()
	defer c.guard.Unlock()
	c.buckets = append(c.buckets, b)
	return nil, nil
}

func (c *asked) Relayed(context.Context, netip.Addr, clusterip.Bucket) (map[string]handover.Relayed, error) {
	return nil, nil
}

// A question for each bucket takes a large cluster seconds.
func TestPacemakerIsAskedAboutTheWantedBucketsOnly(t *testing.T) {
	for of, want := range map[Drains][]clusterip.Bucket{
		DrainsOfNone: nil, DrainsOfUnowned: {1, 7}, DrainsOfAll: {0, 1, 2, 3, 4, 5, 6, 7},
	} {
		survey := surveyOf(func(s *Survey) {
			delete(s.Resources[0].Placement, 1)
			delete(s.Resources[0].Placement, 7)
		})
		cluster := &asked{}
		survey.LookForDrains(t.Context(), cluster, of)
		slices.Sort(cluster.buckets)
		if diff := cmp.Diff(want, cluster.buckets); diff != "" {
			t.Errorf("%d: buckets (-want +got):\n%s", of, diff)
		}
	}
}

// What this node does comes from its kernel, whatever Pacemaker thinks.
func TestHere(t *testing.T) {
	status := Judge(surveyOf(func(s *Survey) {
		r := &s.Resources[0]
		r.Here.Moves = clusterip.Moves{
			Draining: []clusterip.Drain{{Bucket: 4, Left: time.Minute}, {Bucket: 5, Left: time.Minute}},
			Adopting: []clusterip.Adoption{{Bucket: 6, Left: time.Minute, From: []string{"node3"}}},
		}
		r.Here.Lingering = []clusterip.Linger{{Bucket: 4, Left: time.Second}}
		delete(r.Placement, 4)
		r.Placement[3] = []string{"node2"}
	}), now)
	nameless := Judge(surveyOf(func(s *Survey) {
		s.Node, s.Resources[0].Node, s.Cluster, s.ClusterErr, s.Resources[0].Placement = "", "", nil, errors.New("refused"), nil
	}), now)
	for name, row := range map[string]struct {
		status Status
		want   []string
	}{
		"in a cluster":      {status, []string{Owned, "", "", Owned, Lingering, Draining, Adopting, ""}},
		"without Pacemaker": {nameless, []string{Owned, "", "", Owned, "", "", Owned, ""}},
	} {
		var got []string
		for _, b := range row.status.Resources[0].Buckets {
			got = append(got, row.status.Here(b))
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", name, diff)
		}
	}
}
