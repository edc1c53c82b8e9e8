package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
)

const lingerTime = 3 * time.Second

func lingeringSpec(bucket clusterip.Bucket) clusterip.Spec {
	spec := drainingSpec(bucket)
	spec.Linger = lingerTime
	return spec
}

// publishes publishes an announcement of this layout under another node's name.
func (c *fakeCluster) publishes(node string, bucket clusterip.Bucket, announcement handover.Announcement) {
	if announcement.Layout == "" {
		announcement.Layout = drainingSpec(bucket).Layout().Identity()
	}
	announcement.Nonce = "m"
	_ = c.Publish(context.Background(), netip.Addr{}, bucket, node, announcement)
}

// lingers has another node publish that it lingers with bucket 2.
func (c *fakeCluster) lingers(node string, left time.Duration) {
	c.publishes(node, 2, handover.Announcement{
		Drain: long, Complete: true, TakesOver: true, Lingers: handover.Lingering{For: left, Key: keyOf(node).String()},
	})
}

func keyOf(node string) (key clusterip.TakeoverKey) {
	copy(key.Secret[:], node)
	copy(key.Token[:], node)
	return key
}

// lingeringAgent is node1, in a cluster of members that can take over.
func lingeringAgent(kernel *fakeKernel, others ...string) (Agent, *fakeCluster) {
	cluster := &fakeCluster{presence: map[string]handover.NodeState{"node1": {Membership: handover.Member}}}
	for _, node := range others {
		cluster.presence[node] = handover.NodeState{Membership: handover.Member}
		cluster.publishes(node, 2, handover.Announcement{Complete: true, TakesOver: true})
	}
	cluster.publishes("node1", 2, handover.Announcement{TakesOver: true})
	return drainingAgent(kernel, cluster), cluster
}

// A start owns the bucket last, and has all prepared before it asks: the old owner answers until then.
func TestStartTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeKernel{State: freshNode()}
		agent, cluster := lingeringAgent(kernel, "node2")
		cluster.lingers("node2", lingerTime)
		begin, requested := time.Now(), 0
		kernel.request = func(offers []clusterip.Offer) (int, error) {
			requested++
			want := []clusterip.Offer{{Key: keyOf("node2"), Ends: begin.Add(lingerTime)}}
			if diff := cmp.Diff(want, offers); diff != "" {
				t.Errorf("offers (-want +got):\n%s", diff)
			}
			if kernel.Owns(2) || len(kernel.Addresses) == 0 || !slices.Contains(kernel.Tables.Expecting, 2) {
				t.Errorf("when it asks: %+v", kernel.State)
			}
			if !slices.Contains(kernel.EarlyDrop.Passed, 2) {
				t.Error("when it asks, the BPF program drops the bucket's packets")
			}
			return 1, nil
		}
		if err := agent.Start(t.Context(), lingeringSpec(2)); err != nil {
			t.Fatal(err)
		}
		if requested != 1 || !kernel.Owns(2) || !time.Now().Equal(begin) {
			t.Errorf("after %s and %d requests: %+v", time.Since(begin), requested, kernel.Tables)
		}
		if diff := cmp.Diff([]clusterip.Bucket{2}, kernel.takenOver); diff != "" {
			t.Errorf("taken over (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]clusterip.Offer{{Key: keyOf("node2"), Ends: begin.Add(lingerTime)}}, kernel.endedTakeovers); diff != "" {
			t.Errorf("it has ended the takeover (-want +got):\n%s", diff)
		}
		last := kernel.applied[len(kernel.applied)-2:]
		if !strings.Contains(last[0], "expect to take over") || !strings.Contains(last[1], "own buckets 2") {
			t.Errorf("the last steps are %q", last)
		}
		if own := cluster.announcements[2]["node1"]; own.Nonce == "m" || !own.TakesOver || own.Drain > 0 {
			t.Errorf("it has published %+v", own)
		}
	})
}

// lingeringTables are those of a node on which bucket 2 of so many lingers.
func lingeringTables(t *testing.T, buckets uint32) clusterip.Tables {
	t.Helper()
	spec := lingeringSpec(2)
	spec.Buckets = buckets
	layout, err := spec.Resolve(freshNode())
	if err != nil {
		t.Fatal(err)
	}
	layout.Backend = clusterip.NFTables
	return clusterip.Tables{
		Present: true, Backend: clusterip.NFTables, Installed: &layout, Lingering: []clusterip.Linger{{Bucket: 2, Left: time.Second}},
		Moves: clusterip.Moves{Draining: []clusterip.Drain{{Bucket: 2, Left: long}}, Announced: []clusterip.Bucket{2}},
	}
}

// While a node may answer for the bucket that does not confirm the takeover, nobody else may: the start waits.
func TestStartWaitsForLingeringNodes(t *testing.T) {
	other := handover.Announcement{Layout: "00", TakesOver: true, Complete: true, Lingers: handover.Lingering{For: 2 * time.Second}}
	for name, row := range map[string]struct {
		prepare   func(*fakeKernel, *fakeCluster)
		spec      func(*clusterip.Spec)
		confirmed int
		fails     error // of the requests
		want      time.Duration
		taken     bool
		asked     int // how many nodes
		silent    bool
	}{
		"nobody lingers": {},
		"it confirms":    {prepare: func(_ *fakeKernel, c *fakeCluster) { c.lingers("node2", lingerTime) }, confirmed: 1, taken: true, asked: 1},
		"it does not":    {prepare: func(_ *fakeKernel, c *fakeCluster) { c.lingers("node2", lingerTime) }, want: lingerTime, asked: 1},
		"one of two does": {prepare: func(_ *fakeKernel, c *fakeCluster) {
			c.lingers("node2", lingerTime)
			c.lingers("node3", 2*time.Second)
		}, confirmed: 1, want: lingerTime, asked: 2},
		"both do": {prepare: func(_ *fakeKernel, c *fakeCluster) {
			c.lingers("node2", lingerTime)
			c.lingers("node3", 2*time.Second)
		}, confirmed: 2, taken: true, asked: 2},
		"it cannot ask": {
			prepare: func(_ *fakeKernel, c *fakeCluster) { c.lingers("node2", lingerTime) }, fails: errRefused, want: lingerTime, asked: 1,
		},
		"the key is not understood": {prepare: func(_ *fakeKernel, c *fakeCluster) {
			c.publishes("node2", 2, handover.Announcement{Complete: true, Lingers: handover.Lingering{For: 2 * time.Second, Key: "?"}})
		}, want: 2 * time.Second},
		"it has left, and is relayed": {prepare: func(_ *fakeKernel, c *fakeCluster) {
			c.presence["node3"] = handover.NodeState{Membership: handover.Left}
			c.relayed = map[clusterip.Bucket]map[string]handover.Relayed{2: {"node2": {Lingering: []handover.Lingerer{
				{Node: "node3", Lingering: handover.Lingering{For: 2 * time.Second, Key: keyOf("node3").String()}},
			}}}}
		}, want: 2 * time.Second, asked: 1},
		"one has left, and nobody knows whether it lingers": {prepare: func(_ *fakeKernel, c *fakeCluster) {
			c.publishes("node2", 2, handover.Announcement{TakesOver: true})
			c.presence["node3"] = handover.NodeState{Membership: handover.Left}
		}, want: lingerTime},
		"Pacemaker does not answer": {
			prepare: func(_ *fakeKernel, c *fakeCluster) { c.unreachable = errors.New("muted by the test") }, want: lingerTime, silent: true,
		},
		"nothing can be read": {
			prepare: func(_ *fakeKernel, c *fakeCluster) { c.unpublished = errors.New("muted by the test") }, want: lingerTime, silent: true,
		},
		"buckets of another layout linger": {
			prepare: func(_ *fakeKernel, c *fakeCluster) { c.publishes("node2", 2, other) }, want: 2 * time.Second,
		},
		"the first bucket of another layout lingers": {
			prepare: func(_ *fakeKernel, c *fakeCluster) { c.publishes("node2", 0, other) }, want: 2 * time.Second,
		},
		"the bucket lingers here": {prepare: func(k *fakeKernel, c *fakeCluster) {
			c.lingers("node2", lingerTime) // stale
			k.Tables = lingeringTables(t, 8)
		}},
		"a bucket of another layout lingers here": {prepare: func(k *fakeKernel, c *fakeCluster) {
			c.lingers("node2", lingerTime)
			k.Tables = lingeringTables(t, 9)
		}, want: lingerTime, asked: 1},
		"linger=0": {
			prepare: func(_ *fakeKernel, c *fakeCluster) { c.lingers("node2", lingerTime) },
			spec:    func(s *clusterip.Spec) { s.Linger = 0 }, silent: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kernel := &fakeKernel{State: freshNode()}
				agent, cluster := lingeringAgent(kernel, "node2")
				spec, asked := lingeringSpec(2), 0
				if row.spec != nil {
					row.spec(&spec)
				}
				if row.prepare != nil {
					row.prepare(kernel, cluster)
				}
				before := cluster.announcements[2]["node1"]
				kernel.request = func(offers []clusterip.Offer) (int, error) {
					asked = len(offers)
					if published := cluster.announcements[2]["node1"]; published.Nonce == before.Nonce {
						t.Error("it asks, and has not published anything before it has read who lingers")
					}
					return row.confirmed, row.fails
				}
				begin := time.Now()
				kernel.forbidden = func(s clusterip.State) error {
					if s.Owns(2) && time.Since(begin) < row.want {
						return fmt.Errorf("it owns the bucket after %s", time.Since(begin))
					}
					return nil
				}
				if err := agent.Start(t.Context(), spec); err != nil || !kernel.Owns(2) {
					t.Fatalf("start: %v", err)
				}
				if waited := time.Since(begin); waited < row.want || waited > row.want+clusterTime && row.silent || waited > row.want && !row.silent {
					t.Errorf("it has waited for %s, not %s", waited, row.want)
				}
				if taken := slices.Contains(kernel.takenOver, 2); taken != row.taken || asked != row.asked {
					t.Errorf("it has asked %d nodes, and has taken the bucket over: %t", asked, taken)
				}
				if published := cluster.announcements[2]["node1"].Nonce != before.Nonce; published == row.silent && name != "nothing can be read" {
					t.Errorf("it has published something: %t", published)
				}
			})
		})
	}
}

// A start whose timeout is shorter than others may answer fails in time to undo what it has done.
func TestStartFailsBeforeItsTimeout(t *testing.T) {
	for name, running := range map[string][]clusterip.Bucket{"nothing runs": nil, "another bucket runs": {5}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kernel := &fakeKernel{State: freshNode()}
				agent, cluster := lingeringAgent(kernel, "node2")
				runsWith(t, agent, lingeringSpec, running...)
				cluster.lingers("node2", lingerTime)
				ctx, cancel := context.WithTimeout(t.Context(), lingerTime+undoTime/2)
				defer cancel()
				err := agent.Start(ctx, lingeringSpec(2))
				if ocf.CodeOf(err) != ocf.ErrGeneric || !strings.Contains(err.Error(), "longer than the timeout of start allows") || ctx.Err() != nil {
					t.Errorf("start: %v (%v)", err, ctx.Err())
				}
				if diff := cmp.Diff(running, kernel.Tables.Owned, cmpopts.EquateEmpty()); diff != "" || len(kernel.Tables.Expecting) > 0 {
					t.Errorf("expected: %v, owned (-want +got):\n%s", kernel.Tables.Expecting, diff)
				}
				for _, bucket := range running {
					if err := agent.Monitor(t.Context(), lingeringSpec(bucket), 0); err != nil {
						t.Errorf("another bucket: %v", err)
					}
				}
				if left := clusterip.Leftovers(kernel.State, ""); len(running) == 0 && len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

// A start that was killed while it asked leaves nothing behind after the stop, and no fault of another bucket.
func TestStopEndsWhatAKilledStartExpects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeKernel{State: freshNode()}
		agent, cluster := lingeringAgent(kernel, "node2")
		runsWith(t, agent, lingeringSpec, 5)
		cluster.lingers("node2", lingerTime)
		kernel.request = func([]clusterip.Offer) (int, error) { panic(errKilled) }
		_, killed := exitCode(func() error { return agent.Start(t.Context(), lingeringSpec(2)) })
		if !killed || len(kernel.Tables.Expecting) == 0 {
			t.Fatal("the start was not killed: this test shows nothing")
		}
		if err := agent.Stop(t.Context(), lingeringSpec(2)); err != nil {
			t.Error(err)
		}
		if len(kernel.Tables.Expecting) > 0 {
			t.Errorf("it expects buckets %v", kernel.Tables.Expecting)
		}
		if err := agent.Monitor(t.Context(), lingeringSpec(5), 0); err != nil {
			t.Errorf("another bucket: %v", err)
		}
	})
}

// A node whose probe could not publish anything may drain the bucket. A start that fails must not publish that it does not.
func TestStartOfANodeThatHasPublishedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeKernel{State: freshNode(), failAt: 1}
		agent, cluster := lingeringAgent(kernel, "node2")
		delete(cluster.announcements[2], "node1")
		if err := agent.Start(t.Context(), lingeringSpec(2)); err == nil {
			t.Fatal("the start has not failed: this test shows nothing")
		}
		if cluster.drain(2) == 0 {
			t.Error("it publishes that it does not drain")
		}
		kernel.failAt = 0
		if err := agent.Start(t.Context(), lingeringSpec(2)); err != nil || cluster.drain(2) > 0 {
			t.Errorf("it owns the bucket (%v), and publishes that it drains it for %s", err, cluster.drain(2))
		}
	})
}

// After a stop the node lingers only if whatever member Pacemaker chooses can end that.
func TestStopLingers(t *testing.T) {
	for name, row := range map[string]struct {
		prepare  func(*fakeCluster)
		spec     func(*clusterip.Spec)
		noLinger error
		want     bool
		waits    time.Duration
		drains   bool
	}{
		"the other member takes over": {want: true, drains: true},
		"it has a former version": {
			prepare: func(c *fakeCluster) { c.publishes("node2", 2, handover.Announcement{}) }, drains: true,
		},
		"there is no other member": {prepare: func(c *fakeCluster) {
			c.presence["node2"] = handover.NodeState{Membership: handover.Left}
		}, drains: true},
		"the states of the nodes are unknown": {prepare: func(c *fakeCluster) { c.presence = nil }, drains: true},
		"a member is never probed": {
			prepare: func(c *fakeCluster) { c.presence["node3"] = handover.NodeState{Membership: handover.Member} },
			waits:   probePatience, drains: true,
		},
		"a member is probed in time": {prepare: func(c *fakeCluster) {
			c.presence["node3"] = handover.NodeState{Membership: handover.Member}
			go func() {
				time.Sleep(probePatience / 2)
				c.publishes("node3", 2, handover.Announcement{TakesOver: true})
			}()
		}, want: true, waits: probePatience / 2, drains: true},
		"drain=0":                {spec: func(s *clusterip.Spec) { s.Drain = 0 }},
		"linger=0":               {spec: func(s *clusterip.Spec) { s.Linger = 0 }, drains: true},
		"the kernel lacks rules": {noLinger: errRefused, drains: true},
		"Pacemaker does not answer": {prepare: func(c *fakeCluster) {
			c.unreachable = errors.New("muted by the test")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kernel := &fakeKernel{State: freshNode(), noLinger: row.noLinger}
				agent, cluster := lingeringAgent(kernel, "node2")
				runsWith(t, agent, lingeringSpec, 2, 5)
				if lingers := !kernel.Tables.Installed.Lingers.IsZero(); lingers == (kernel.noLinger != nil) {
					t.Errorf("buckets can linger: %t", lingers)
				}
				if row.prepare != nil {
					row.prepare(cluster)
				}
				spec := lingeringSpec(2)
				if row.spec != nil {
					row.spec(&spec)
				}
				published := func() handover.Lingering { return cluster.announcements[2]["node1"].Lingers }
				kernel.forbidden = func(s clusterip.State) error {
					if l, lingers := s.Tables.Lingers(2); lingers && published() != (handover.Lingering{For: l.Left, Key: l.Key.String()}) {
						t.Errorf("it lingers for %s, and has published %v", l.Left, published()) // a stop may succeed although a step fails
					}
					return nil
				}
				begin := time.Now()
				if err := agent.Stop(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
				l, lingers := kernel.Tables.Lingers(2)
				if waited := time.Since(begin); lingers != row.want || kernel.Tables.Moves.Drains(2) != row.drains ||
					waited < row.waits || waited > row.waits+2*probePause && cluster.unreachable == nil {
					t.Errorf("after %s: %+v", waited, kernel.Tables)
				}
				if lingers && (l.Left != lingerTime || l.Key == clusterip.TakeoverKey{}) {
					t.Errorf("it lingers for %s, with key %s", l.Left, l.Key)
				}
				if !lingers && published().For > 0 {
					t.Errorf("it does not linger, and has published %v", published())
				}
				relayed := cluster.relayed[2]["node2"].Lingering
				want := []handover.Lingerer{{Node: "node1", Lingering: published()}}
				if diff := cmp.Diff(want, relayed); lingers && diff != "" || !lingers && len(relayed) > 0 {
					t.Errorf("relayed: %v", relayed)
				}
				// What begins while it lingers is its own, so its handshakes end afterwards.
				if ended := slices.Contains(kernel.handshakes, 2); ended == lingers && row.drains {
					t.Errorf("its handshakes were ended: %t", ended)
				}
			})
		})
	}
}

// When a bucket lingers no more, the sweeper ends its handshakes and publishes that it only drains. Until then, an idle drain goes on.
func TestSweeperEndsLingering(t *testing.T) {
	for name, left := range map[string]time.Duration{"another node takes it over": lingerTime / 2, "its time is over": lingerTime} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kernel := &fakeKernel{State: freshNode()}
				agent, cluster := lingeringAgent(kernel, "node2")
				runsWith(t, agent, lingeringSpec, 2, 5)
				if err := agent.Stop(t.Context(), lingeringSpec(2)); err != nil {
					t.Fatal(err)
				}
				kernel.open = func() map[clusterip.Bucket]int { // connections that begin while it lingers
					if _, lingers := kernel.Tables.Lingers(2); lingers {
						return nil
					}
					return map[clusterip.Bucket]int{2: 1}
				}
				kernel.lingersUntil = time.Now().Add(left)
				sweepFor := func(d time.Duration) {
					t.Helper()
					ctx, cancel := context.WithTimeout(t.Context(), d)
					defer cancel()
					if err := agent.Sweep(ctx, lingeringSpec(2), func() {}); !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				}
				sweepFor(left - 1)
				if own := cluster.announcements[2]["node1"]; len(kernel.handshakes) > 0 || own.Lingers.For == 0 || !kernel.Tables.Moves.Drains(2) {
					t.Errorf("while it lingers: handshakes of %v were ended, published is %+v", kernel.handshakes, own)
				}
				sweepFor(10 * idleLook)
				if diff := cmp.Diff([]clusterip.Bucket{2}, kernel.handshakes); diff != "" {
					t.Errorf("its handshakes (-want +got):\n%s", diff)
				}
				own := cluster.announcements[2]["node1"]
				if own.Lingers.For > 0 || own.Drain != long || !own.Complete || !own.TakesOver {
					t.Errorf("published: %+v", own)
				}
				if !kernel.Tables.Moves.Drains(2) {
					t.Error("it drains no more, although it has a connection")
				}
			})
		})
	}
}

// A probe of a node that lingers, which may have left and joined again, publishes that: others take its announcement for the whole truth.
func TestProbePublishesLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeKernel{State: freshNode()}
		agent, cluster := lingeringAgent(kernel, "node2")
		runsWith(t, agent, lingeringSpec, 2, 5)
		if err := agent.Stop(t.Context(), lingeringSpec(2)); err != nil {
			t.Fatal(err)
		}
		want := cluster.announcements[2]["node1"].Lingers
		delete(cluster.announcements[2], "node1")
		probe := lingeringSpec(2)
		probe.Probe = true
		for _, ends := range []bool{false, true} {
			if ends { // between the observation and the publication
				lock := agent.Lock
				agent.Lock = func(ctx context.Context, address netip.Addr) (Unlocker, error) {
					unlocker, err := lock(ctx, address)
					return unlockFunc(func(last bool) error {
						kernel.Tables.Lingering = nil
						return unlocker.Unlock(last)
					}), err
				}
				want = handover.Lingering{}
			}
			if err := agent.Monitor(t.Context(), probe, 0); ocf.CodeOf(err) != ocf.NotRunning {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, cluster.announcements[2]["node1"].Lingers); diff != "" || cluster.drain(2) != long {
				t.Errorf("the lingering ends meanwhile: %t; it drains for %s; it lingers (-want +got):\n%s", ends, cluster.drain(2), diff)
			}
		}
	})
}

// What a node that joins has read of others that linger it does not publish. So it does not count as one that knows everything.
func TestProbeOfANodeThatReadsOfLingering(t *testing.T) {
	for name, lingers := range map[string]bool{"one lingers": true, "none does": false} {
		t.Run(name, func(t *testing.T) {
			kernel := &fakeKernel{State: freshNode()}
			agent, cluster := lingeringAgent(kernel, "node2")
			if lingers {
				cluster.lingers("node2", lingerTime)
			}
			probe := lingeringSpec(2)
			probe.Probe = true
			if err := agent.Monitor(t.Context(), probe, 0); ocf.CodeOf(err) != ocf.NotRunning {
				t.Fatal(err)
			}
			if complete := cluster.announcements[2]["node1"].Complete; complete == lingers {
				t.Errorf("its announcement is complete: %t", complete)
			}
		})
	}
}

// A reload ends no drain and no adoption, whatever it changes.
func TestReloadKeepsMoves(t *testing.T) {
	for name, change := range map[string]func(*clusterip.Spec){
		"linger is switched off": func(s *clusterip.Spec) { s.Linger = 0 },
		"drain is switched off":  func(s *clusterip.Spec) { s.Drain, s.Linger = 0, 0 },
		"early_drop is":          func(s *clusterip.Spec) { s.EarlyDrop = clusterip.EarlyDropOff },
	} {
		t.Run(name, func(t *testing.T) {
			kernel := &fakeKernel{State: freshNode()}
			agent, _ := lingeringAgent(kernel, "node2")
			runsWith(t, agent, lingeringSpec, 2, 5)
			if err := agent.Stop(t.Context(), lingeringSpec(2)); err != nil {
				t.Fatal(err)
			}
			moves, installed := kernel.Tables.Moves, kernel.Tables.Installed
			spec := lingeringSpec(5)
			change(&spec)
			if err := agent.Reload(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(moves, kernel.Tables.Moves); diff != "" || kernel.Tables.Installed == installed {
				t.Errorf("installed anew: %t; moves (-want +got):\n%s", kernel.Tables.Installed != installed, diff)
			}
			if !kernel.Tables.Installed.Drains {
				t.Error("there are no rules for drains any more")
			}
		})
	}
}
