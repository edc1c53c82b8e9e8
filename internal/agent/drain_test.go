package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ocf-clusterip/internal/clusterip"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
)

// A fakeCluster stores what nodes publish.
type fakeCluster struct {
	announcements map[clusterip.Bucket]map[string]handover.Announcement
	relayed       map[clusterip.Bucket]map[string]handover.Relayed
	presence      map[string]handover.NodeState
	unreachable   error // Pacemaker does not answer
	unpublished   error // nothing can be read
	mu            sync.Mutex
}

const (
	long  = 300 * time.Second
	short = 20 * time.Second
)

func (c *fakeCluster) Announcements(_ context.Context, _ netip.Addr, bucket clusterip.Bucket) (map[string]handover.Announcement, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.announcements[bucket]), errors.Join(c.unreachable, c.unpublished)
}

func (c *fakeCluster) Publish(
	_ context.Context, _ netip.Addr, bucket clusterip.Bucket, node string, announcement handover.Announcement,
) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unreachable != nil {
		return c.unreachable
	}
	if c.announcements == nil {
		c.announcements = map[clusterip.Bucket]map[string]handover.Announcement{}
	}
	if c.announcements[bucket] == nil {
		c.announcements[bucket] = map[string]handover.Announcement{}
	}
	c.announcements[bucket][node] = announcement
	return nil
}

// says publishes something under another node's name.
func (c *fakeCluster) says(node string, bucket clusterip.Bucket, drain time.Duration) {
	_ = c.Publish(
		context.Background(), netip.Addr{}, bucket, node,
		handover.Announcement{Drain: drain, Layout: drainingSpec(bucket).Layout().Identity(), Nonce: "m"},
	)
}

// drain is the drain time that this node announces.
func (c *fakeCluster) drain(bucket clusterip.Bucket) time.Duration {
	return c.announcements[bucket]["node1"].Drain
}

func (c *fakeCluster) Relayed(_ context.Context, _ netip.Addr, bucket clusterip.Bucket) (map[string]handover.Relayed, error) {
	return maps.Clone(c.relayed[bucket]), errors.Join(c.unreachable, c.unpublished)
}

func (c *fakeCluster) Relay(_ context.Context, _ netip.Addr, bucket clusterip.Bucket, node string, relayed handover.Relayed) error {
	if c.relayed == nil {
		c.relayed = map[clusterip.Bucket]map[string]handover.Relayed{}
	}
	if c.relayed[bucket] == nil {
		c.relayed[bucket] = map[string]handover.Relayed{}
	}
	c.relayed[bucket][node] = relayed
	return c.unreachable
}

func (c *fakeCluster) NodeStates(context.Context) (map[string]handover.NodeState, error) {
	return c.presence, c.unreachable
}

// drainingAgent is node1, with a drain.
func drainingAgent(kernel *fakeKernel, cluster *fakeCluster) Agent {
	agent, _ := agentOn(kernel)
	agent.Cluster, agent.Node, agent.StartSweeper = cluster, "node1", func() error { return nil }
	return agent
}

func drainingSpec(bucket clusterip.Bucket) clusterip.Spec {
	spec := specOf(clusterip.Multicast, bucket)
	spec.Drain = long
	return spec
}

// runs starts buckets.
func runs(t *testing.T, agent Agent, buckets ...clusterip.Bucket) {
	t.Helper()
	runsWith(t, agent, drainingSpec, buckets...)
}

func runsWith(t *testing.T, agent Agent, spec func(clusterip.Bucket) clusterip.Spec, buckets ...clusterip.Bucket) {
	t.Helper()
	for _, bucket := range buckets {
		if err := agent.Start(t.Context(), spec(bucket)); err != nil {
			t.Fatal(err)
		}
	}
}

func monitors(t *testing.T, agent Agent, bucket clusterip.Bucket, want ocf.ExitCode) {
	t.Helper()
	if err := agent.Monitor(t.Context(), drainingSpec(bucket), 0); ocf.CodeOf(err) != want {
		t.Errorf("monitor of bucket %d: %v, want %s", bucket, err, want)
	}
}

func TestStopGivesAwayAndStartTakesBack(t *testing.T) {
	kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{}
	agent := drainingAgent(kernel, cluster)
	runs(t, agent, 2, 5)
	for i, bucket := range []clusterip.Bucket{2, 5} {
		if err := agent.Stop(t.Context(), drainingSpec(bucket)); err != nil {
			t.Fatal(err)
		}
		if len(kernel.Tables.Moves.Draining) != i+1 || kernel.Owns(bucket) || len(kernel.Addresses) != 1 {
			t.Errorf("after stop of bucket %d: %+v", bucket, kernel.Tables)
		}
		if got := cluster.drain(bucket); got != long {
			t.Errorf("node1 says that it drains bucket %d for %s", bucket, got)
		}
		monitors(t, agent, bucket, ocf.NotRunning)
	}
	runs(t, agent, 2)
	monitors(t, agent, 2, ocf.Success)
	monitors(t, agent, 5, ocf.NotRunning)
	want := clusterip.Moves{Draining: []clusterip.Drain{{Bucket: 5, Left: long}}, Announced: []clusterip.Bucket{5}}
	if diff := cmp.Diff(want, kernel.Tables.Moves, cmp.Transformer("", normalMoves)); diff != "" {
		t.Errorf("moves (-want +got):\n%s", diff)
	}
	if cluster.drain(2) > 0 {
		t.Error("node1 owns bucket 2, and says that it drains it")
	}
}

// normalMoves makes no difference between an empty list and none.
func normalMoves(m clusterip.Moves) string {
	return fmt.Sprintf("%+v", []any{m.Draining, m.Adopting, m.Announced})
}

// Whatever step of a stop or a start fails or is the last, a second try works, and every drain is announced.
func TestEveryStepOfAMoveMayFailOrBeTheLast(t *testing.T) {
	for _, how := range []string{"fails", "is never reached", "cannot be observed"} {
		for n := 1; n <= 8; n++ {
			t.Run(fmt.Sprintf("step %d %s", n, how), func(t *testing.T) {
				ready := &fakeKernel{State: freshNode()}
				cluster := &fakeCluster{}
				runs(t, drainingAgent(ready, cluster), 2)
				kernel := unreliable(ready.State, how, n)
				agent := drainingAgent(kernel, cluster)
				_, _ = exitCode(func() error { return agent.Stop(t.Context(), drainingSpec(2)) })
				if kernel.Tables.Moves.Drains(2) && cluster.drain(2) == 0 {
					t.Error("the bucket drains, and nobody knows")
				}
				kernel.failAt, kernel.dieAt, kernel.unreadableAt = 0, 0, 0
				if err := agent.Stop(t.Context(), drainingSpec(2)); err != nil {
					t.Errorf("second stop: %v", err)
				}
				monitors(t, agent, 2, ocf.NotRunning)
				kernel = unreliable(kernel.State, how, n)
				agent = drainingAgent(kernel, cluster)
				_, _ = exitCode(func() error { return agent.Start(t.Context(), drainingSpec(2)) })
				kernel.failAt, kernel.dieAt, kernel.unreadableAt = 0, 0, 0
				runs(t, agent, 2)
				monitors(t, agent, 2, ocf.Success)
			})
		}
	}
}

func TestWithoutAnAnswerNothingDrains(t *testing.T) {
	for name, spoil := range map[string]func(*Agent, *fakeCluster){
		"Pacemaker does not answer": func(_ *Agent, c *fakeCluster) { c.unreachable = errors.New("muted by the test") },
		"the node has no name":      func(a *Agent, _ *fakeCluster) { a.Node = "" },
	} {
		t.Run(name, func(t *testing.T) {
			kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{}
			agent := drainingAgent(kernel, cluster)
			runs(t, agent, 2)
			spoil(&agent, cluster)
			if err := agent.Stop(t.Context(), drainingSpec(2)); err != nil {
				t.Fatal(err)
			}
			if left := clusterip.Leftovers(kernel.State, ""); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestAdoptionEndsWhenTheFormerOwnerIsGone(t *testing.T) {
	kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{}
	cluster.says("node2", 2, long)
	cluster.presence = map[string]handover.NodeState{"node1": {Membership: handover.Member}, "node2": {Membership: handover.Member}}
	agent := drainingAgent(kernel, cluster)
	runs(t, agent, 2)
	adopts := func() bool { _, ok := kernel.Tables.Moves.Adoption(2); return ok }
	monitors(t, agent, 2, ocf.Success)
	if !adopts() {
		t.Error("node2 drains, and is not waited for")
	}
	delete(cluster.announcements[2], "node2")
	cluster.presence["node2"] = handover.NodeState{Membership: handover.Left}
	monitors(t, agent, 2, ocf.Success)
	if !adopts() {
		t.Error("node2 has left the cluster, and is not waited for")
	}
	cluster.unpublished = errors.New("made unreadable by the test")
	cluster.presence["node2"] = handover.NodeState{Membership: handover.Member}
	monitors(t, agent, 2, ocf.Success)
	if !adopts() {
		t.Error("what node2 says cannot be read, and it is not waited for")
	}
	cluster.unpublished = nil
	cluster.presence["node2"] = handover.NodeState{Unrecognised: "a form of a release to come"}
	monitors(t, agent, 2, ocf.Success)
	if !adopts() {
		t.Error("where node2 is cannot be relayed, and it is not waited for")
	}
	cluster.presence["node2"] = handover.NodeState{Membership: handover.Lost}
	monitors(t, agent, 2, ocf.Success)
	if !adopts() {
		t.Error("node2 is lost and not fenced, and is not waited for")
	}
	cluster.presence["node2"] = handover.NodeState{Membership: handover.Dead}
	monitors(t, agent, 2, ocf.Success)
	if adopts() {
		t.Error("node2 is dead, and is waited for")
	}
}

// While the announcements cannot be read, any node may serve connections of the bucket. A monitor that can read them ends that.
func TestStartWithoutAnAnswerAdoptsFromAnybody(t *testing.T) {
	kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{unreachable: errors.New("muted by the test")}
	agent := drainingAgent(kernel, cluster)
	runs(t, agent, 2)
	adopts := func() bool { _, ok := kernel.Tables.Moves.Adoption(2); return ok }
	want := []clusterip.Adoption{{Bucket: 2, Left: long + handover.GracePeriod, From: []string{handover.AnyNode}}}
	if diff := cmp.Diff(want, kernel.Tables.Moves.Adopting); diff != "" {
		t.Errorf("adopting (-want +got):\n%s", diff)
	}
	monitors(t, agent, 2, ocf.Success)
	if !adopts() {
		t.Error("nobody answers, and nobody is waited for")
	}
	cluster.unreachable = nil
	cluster.presence = map[string]handover.NodeState{
		"node1": {Membership: handover.Member}, "node2": {Membership: handover.Member}, "node3": {Membership: handover.Dead},
	}
	monitors(t, agent, 2, ocf.Success)
	if !adopts() {
		t.Error("node2 has not spoken, and is not waited for")
	}
	cluster.says("node2", 2, 0)
	monitors(t, agent, 2, ocf.Success)
	if adopts() {
		t.Error("node2 has said that it does not drain, and is waited for")
	}
}

// The sweeper ends what has no connection, and with the last drain everything.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{}
		agent := drainingAgent(kernel, cluster)
		runs(t, agent, 2, 5)
		begin := time.Now()
		alone := false // bucket 2, for a time
		kernel.open = func() map[clusterip.Bucket]int {
			alone = alone || slices.Equal(kernel.Tables.Moves.DrainingBuckets(), []clusterip.Bucket{2})
			if time.Since(begin) < 3*time.Second {
				return map[clusterip.Bucket]int{2: 1}
			}
			return nil
		}
		for _, bucket := range []clusterip.Bucket{2, 5} {
			if err := agent.Stop(t.Context(), drainingSpec(bucket)); err != nil {
				t.Fatal(err)
			}
		}
		done := 0
		if err := agent.Sweep(t.Context(), drainingSpec(2), func() { done++ }); err != nil || done != 1 {
			t.Errorf("the sweeper ended with %v, and was done %d times", err, done)
		}
		if waited := time.Since(begin); !alone || waited < 3*time.Second {
			t.Errorf("bucket 2 has drained alone: %t, and the sweeper waited %s", alone, waited)
		}
		if left := clusterip.Leftovers(kernel.State, ""); len(left) > 0 || cluster.drain(2) > 0 {
			t.Errorf("left: %v; published: %v", left, cluster.announcements)
		}
	})
}

// An error does not end the sweeper: on a node in standby no other action would clean up. It logs the error once, and ends when the drains
// must long be over.
func TestSweepGoesOnAfterErrors(t *testing.T) {
	for name, row := range map[string]struct {
		fails time.Duration
		ends  bool
	}{"for a while": {time.Minute, true}, "for good": {1000 * time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{}
				agent := drainingAgent(kernel, cluster)
				var log bytes.Buffer
				agent.Log = ocf.NewLogger(&log, false)
				runs(t, agent, 2)
				if err := agent.Stop(t.Context(), drainingSpec(2)); err != nil {
					t.Fatal(err)
				}
				log.Reset()
				begin := time.Now()
				agent.Lock = func(context.Context, netip.Addr) (Unlocker, error) {
					if time.Since(begin) < row.fails {
						return nil, errRefused
					}
					return unlockFunc(func(bool) error { return nil }), nil
				}
				err := agent.Sweep(t.Context(), drainingSpec(2), func() {})
				if left := clusterip.Leftovers(kernel.State, ""); (len(left) == 0) != row.ends || (err == nil) != row.ends {
					t.Errorf("it ends with %v; left: %v", err, left)
				}
				if waited := time.Since(begin); waited > long+2*sweepPatience {
					t.Errorf("it has tried for %s", waited)
				}
				if said := strings.Count(log.String(), errRefused.Error()); said != 1 {
					t.Errorf("it says %d times what is wrong:\n%s", said, log.String())
				}
			})
		})
	}
}

// Connections are counted without the lock. A bucket that came back meanwhile, and was released again, has new ones.
func TestSweepEndsNoDrainThatHasBegunSince(t *testing.T) {
	kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{}
	agent := drainingAgent(kernel, cluster)
	runs(t, agent, 2)
	if err := agent.Stop(t.Context(), drainingSpec(2)); err != nil {
		t.Fatal(err)
	}
	kernel.Tables.Moves.Draining[0].Left = long / 2
	lock := agent.Lock
	agent.Lock = func(ctx context.Context, address netip.Addr) (Unlocker, error) {
		kernel.Tables.Moves.Draining[0].Left = long
		return lock(ctx, address)
	}
	over, err := agent.sweep(t.Context(), drainingSpec(2), func() {})
	if over || err != nil || !kernel.Tables.Moves.Drains(2) {
		t.Errorf("the drain has ended: %t, %v", over, err)
	}
}

// However the service of a bucket ends, its connections end, and no other's.
func TestConnectionsEndWithTheirBucket(t *testing.T) {
	for name, row := range map[string]struct {
		act  func(Agent, *fakeKernel) error
		want []clusterip.Bucket
	}{
		"it drains": {func(a Agent, _ *fakeKernel) error { return a.Stop(t.Context(), drainingSpec(2)) }, nil},
		"it drains and comes back": {func(a Agent, _ *fakeKernel) error {
			return errors.Join(a.Stop(t.Context(), drainingSpec(2)), a.Start(t.Context(), drainingSpec(2)))
		}, nil},
		"its drain is over": {func(a Agent, k *fakeKernel) error {
			err := a.Stop(t.Context(), drainingSpec(2))
			k.Tables.Moves.Draining = nil
			return errors.Join(err, a.Monitor(t.Context(), drainingSpec(5), 0))
		}, []clusterip.Bucket{2}},
		"it is stopped without a drain": {
			func(a Agent, _ *fakeKernel) error { return a.Stop(t.Context(), specOf(clusterip.Multicast, 2)) }, []clusterip.Bucket{2},
		},
		"all are stopped, and the last one without a drain": {func(a Agent, _ *fakeKernel) error {
			return errors.Join(a.Stop(t.Context(), drainingSpec(5)), a.Stop(t.Context(), specOf(clusterip.Multicast, 2)))
		}, []clusterip.Bucket{2}},
		"drain is switched off": {func(a Agent, _ *fakeKernel) error {
			return errors.Join(
				a.Stop(t.Context(), drainingSpec(2)), a.Reload(t.Context(), specOf(clusterip.Multicast, 5)),
				a.Stop(t.Context(), specOf(clusterip.Multicast, 5)),
			)
		}, []clusterip.Bucket{5}},
	} {
		t.Run(name, func(t *testing.T) {
			kernel := &fakeKernel{State: freshNode()}
			agent := drainingAgent(kernel, &fakeCluster{})
			runs(t, agent, 2, 5)
			if err := row.act(agent, kernel); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, kernel.ended); diff != "" {
				t.Errorf("ended (-want +got):\n%s", diff)
			}
		})
	}
}

// A stop succeeds from any state: here the stamp of tables that drain cannot be read.
func TestStopOfADrainingBucketWithoutAStamp(t *testing.T) {
	kernel := &fakeKernel{State: freshNode()}
	agent := drainingAgent(kernel, &fakeCluster{})
	runs(t, agent, 2, 5)
	if err := agent.Stop(t.Context(), drainingSpec(2)); err != nil {
		t.Fatal(err)
	}
	kernel.Tables.Installed, kernel.Tables.Faults = nil, []string{"stamp lost"}
	if err := agent.Stop(t.Context(), drainingSpec(2)); err != nil {
		t.Error(err)
	}
}

// When the time of a drain is over and no sweeper has run, any action cleans up.
func TestAnyActionClearsUp(t *testing.T) {
	for name, act := range map[string]func(Agent) error{
		"monitor": func(a Agent) error { return a.Monitor(t.Context(), drainingSpec(7), 0) },
		"stop":    func(a Agent) error { return a.Stop(t.Context(), drainingSpec(7)) },
		"reload":  func(a Agent) error { return a.Reload(t.Context(), drainingSpec(7)) },
	} {
		t.Run(name, func(t *testing.T) {
			kernel, cluster := &fakeKernel{State: freshNode()}, &fakeCluster{}
			agent := drainingAgent(kernel, cluster)
			runs(t, agent, 2)
			if err := agent.Stop(t.Context(), drainingSpec(2)); err != nil {
				t.Fatal(err)
			}
			kernel.Tables.Moves.Draining = nil // as the kernel does
			if code := ocf.CodeOf(act(agent)); code != ocf.Success && code != ocf.NotRunning {
				t.Errorf("it ends with %s", code)
			}
			if left := clusterip.Leftovers(kernel.State, ""); len(left) > 0 || cluster.drain(2) > 0 {
				t.Errorf("left: %v; published: %v", left, cluster.announcements)
			}
		})
	}
}
