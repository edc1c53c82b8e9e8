package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
)

// connectionsOf returns connections of clients whose packets belong to a bucket.
func connectionsOf(layout clusterip.Layout, bucket clusterip.Bucket, n int) []clusterip.Remembered {
	var all []clusterip.Remembered
	for i := 1; len(all) < n; i++ {
		c := clusterip.Remembered{Connection: clusterip.Connection{
			Client: netip.MustParseAddrPort(fmt.Sprintf("198.51.%d.%d:40000", 100+i/250, 1+i%250)),
			Local:  netip.AddrPortFrom(layout.Address(), 80),
		}}
		if layout.BucketOfConnection(c.Connection) == bucket {
			all = append(all, c)
		}
	}
	return all
}

func connections(of []clusterip.Remembered) (all []clusterip.Connection) {
	for _, each := range of {
		all = append(all, each.Connection)
	}
	return all
}

// Clients are told of connections to buckets that this node has settled, and that it does not serve itself.
func TestClientsAreTold(t *testing.T) {
	state := runningNode(t, clusterip.Multicast, 1, 2)
	state.Tables.Moves = state.Tables.Moves.WithAdoption(clusterip.Adoption{Bucket: 2, Left: 1e9, From: []string{"node2"}})
	layout := *state.Tables.Installed
	settled, adopted, foreign := connectionsOf(layout, 1, 5), connectionsOf(layout, 2, 3), connectionsOf(layout, 3, 3)
	remembered := slices.Concat(foreign, settled, adopted)
	for _, tt := range []struct {
		name             string
		open, afterwards []clusterip.Remembered // on this node
		leaves           bool                   // the bucket, after they were told
		told, again      []clusterip.Remembered
	}{
		{"all", nil, nil, false, settled, settled},
		{"but those of this node", settled[:2], settled[:2], false, settled[2:], settled[2:]},
		{"but once who came again from the same port", nil, settled[4:], false, settled, settled[:4]},
		{"but not again for a bucket that has left", nil, nil, true, settled, nil},
		{"nobody", settled, settled, false, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &fakeKernel{State: state, remembered: slices.Clone(remembered), openHere: connections(tt.open)}
			k.onTell = func() {
				k.openHere = connections(tt.afterwards)
				if tt.leaves {
					k.Tables.Owned = []clusterip.Bucket{2}
				}
			}
			a, _ := agentOn(k)
			if err := a.Tell(t.Context(), specOf(clusterip.Multicast, 1), func() {}); err != nil {
				t.Fatal(err)
			}
			same := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
			if diff := cmp.Diff(tt.told, k.told, same); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.again, k.toldAgain, same); diff != "" {
				t.Errorf("told again (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(slices.Concat(foreign, tt.open, adopted), k.remembered, same); diff != "" {
				t.Errorf("still remembered (-want +got):\n%s", diff)
			}
			if k.sum.Connections != len(tt.told) {
				t.Errorf("counted: %+v", k.sum)
			}
		})
	}
	t.Run("nobody while this node's connections cannot be read", func(t *testing.T) {
		k := &fakeKernel{State: state, remembered: slices.Clone(remembered), cannotList: errUnreadable}
		a, _ := agentOn(k)
		if err := a.Tell(t.Context(), specOf(clusterip.Multicast, 1), func() {}); !errors.Is(err, errUnreadable) {
			t.Errorf("error: %v", err)
		}
		if len(k.told) > 0 || len(k.remembered) != len(remembered) {
			t.Errorf("told %d, remembered %d", len(k.told), len(k.remembered))
		}
	})
}

// Clients are told as soon as nobody else may serve their connections: after a start without drain, else when a monitor has found out.
func TestClientsAreToldWhenNobodyServesThem(t *testing.T) {
	for _, tt := range []struct {
		name           string
		spec           func(clusterip.Bucket) clusterip.Spec
		remember       int
		atStart, after int // so many tellers were started
	}{
		{"without drain", func(b clusterip.Bucket) clusterip.Spec { return specOf(clusterip.Multicast, b) }, 100, 1, 1},
		{"with drain", drainingSpec, 100, 0, 1},
		{"with remember=0", func(b clusterip.Bucket) clusterip.Spec { return specOf(clusterip.Multicast, b) }, 0, 0, 0},
		{"with drain and remember=0", drainingSpec, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kernel := &fakeKernel{State: freshNode()}
			cluster := &fakeCluster{}
			agent := drainingAgent(kernel, cluster)
			first := tt.spec(1) // where the address is new, nothing is remembered
			first.Remember = tt.remember
			if err := agent.Start(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			*cluster = fakeCluster{presence: map[string]handover.NodeState{
				"node1": {Membership: handover.Member}, "node2": {Membership: handover.Member},
			}}
			cluster.announcements = map[clusterip.Bucket]map[string]handover.Announcement{2: {
				"node2": {Drain: long, Layout: drainingSpec(2).Layout().Identity(), Nonce: "n", Complete: true},
			}}
			started := 0
			agent.StartTeller = func() error { started++; return nil }
			spec := tt.spec(2)
			spec.Remember = tt.remember
			monitor := func() {
				t.Helper()
				if err := agent.Monitor(t.Context(), spec, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := agent.Start(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			monitor()
			if started != tt.atStart {
				t.Errorf("%d tellers while node2 lives, want %d", started, tt.atStart)
			}
			cluster.presence["node2"] = handover.NodeState{Membership: handover.Dead}
			delete(cluster.announcements[2], "node2") // as Pacemaker does
			monitor()
			monitor()
			if started != tt.after {
				t.Errorf("%d tellers after node2 died, want %d", started, tt.after)
			}
		})
	}
}
