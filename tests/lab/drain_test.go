//go:build system

package lab

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/tests/lan"
	"ocf-clusterip/tests/probe"
)

// streaming is how many long-lived connections there are beside the scenario's own, each from a source of its own.
const streaming = 200

// A drained is a scenario in which connections are to survive.
type drained struct {
	*scenario
	streams *probe.Probe
}

// playDraining plays with a drain of that many seconds.
func playDraining(t *testing.T, o Options, seconds int, create ...string) *drained {
	t.Helper()
	d := &drained{scenario: playIn(t, o, append([]string{"drain=" + strconv.Itoa(seconds)}, create...)...)}
	var err error
	d.streams, err = d.ProbeWith(t.Context(), probe.Options{
		Target: shared, Sources: d.Network.Sources(2*asking + streaming)[2*asking:], Protos: []probe.Proto{probe.Stream}, Interval: time.Second,
	})
	check(t, err)
	d.streamsAnswered()
	return d
}

// streamsAnswered waits until each stream has an answer to what it asks from now on.
func (d *drained) streamsAnswered() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), stepTimeout)
	defer cancel()
	check(d.t, d.streams.WaitAnswered(ctx, time.Now()))
}

// change is a step for both probes.
func (d *drained) change(what string, do func(), nodes ...string) {
	d.t.Helper()
	d.streams.Mark(what)
	d.step(what, do, nodes...)
	d.streamsAnswered()
}

// leave is a step after which a node that the others still see has no bucket.
func (d *drained) leave(what string, do func(), node string) {
	d.t.Helper()
	d.t.Logf("%5.1f s: %s", time.Since(d.begin).Seconds(), what)
	d.streams.Mark(what)
	d.probe.Mark(what)
	do()
	d.leftFrom(node)
	d.answered()
	d.streamsAnswered()
}

// finish stops asking, and expects that no connection broke but those that were made to the nodes that died. It returns who broke the
// others, and how many.
func (d *drained) finish(died ...string) (broken map[string]int) {
	d.t.Helper()
	broken = map[string]int{}
	log, err := d.streams.Stop()
	check(d.t, err)
	d.t.Logf("\n%s", log.Summary())
	own, summary := d.stop()
	if summary.Total.Asked == 0 {
		d.t.Error("no client asked anything")
	}
	for _, l := range []*probe.Log{log, own} {
		d.answeredOnce(l)
		for _, e := range l.Of(probe.Broken) {
			made, _ := l.MadeTo(e)
			switch {
			case !slices.Contains(died, made):
				d.t.Errorf("a connection to %s broke: %s", made, e)
			case !strings.Contains(e.Text, "reset"):
				d.t.Errorf("a connection to %s, which died, did not end with a reset: %s", made, e)
			default:
				broken[e.Node]++
			}
		}
	}
	return broken
}

// drainsEnd waits until a host that owns nothing holds nothing.
func (d *drained) drainsEnd(h *Host) {
	d.t.Helper()
	for end := time.Now().Add(stepTimeout); time.Now().Before(end); time.Sleep(pollInterval) {
		if d.dump(h) == d.clean[h.Name] {
			break
		}
	}
	d.clearOf(h)
}

// cluster does something to a host's cluster software.
func (d *drained) cluster(h *Host, does string) {
	d.t.Helper()
	services := []string{"corosync", "pacemaker"}
	if does == "stop" {
		services = []string{"pacemaker", "corosync"}
	}
	for _, service := range services {
		run(d.t, h, "service", service, does)
	}
	if does == "start" {
		check(d.t, d.WaitOnline(d.t.Context()))
	}
}

// Clean changes to the cluster break no connection.
func TestPlannedMovesBreakNoConnection(t *testing.T) {
	t.Parallel()
	d := playDraining(t, Options{}, 600, "op", "monitor", "interval=2s")
	all := []string{"node1", "node2", "node3"}
	for round := 1; round == 1 || time.Since(d.begin) < 2*time.Minute; round++ {
		t.Logf("round %d", round)
		d.change("node2 in standby", func() { d.pcs("node", "standby", "node2") }, "node1", "node3")
		d.change("node2 back", func() { d.pcs("node", "unstandby", "node2") }, all...)
		d.leave("banned from node1", func() { d.pcs("resource", "ban", resource+"-clone", "node1") }, "node1")
		d.change("ban lifted", func() { d.pcs("resource", "clear", resource+"-clone") }, all...)
		d.leave("Pacemaker on node3 stopped", func() { run(t, d.Hosts[2], "service", "pacemaker", "stop") }, "node3")
		d.leave("node1 in standby", func() { d.pcs("node", "standby", "node1") }, "node1")
		d.change("Pacemaker on node3 started", func() {
			run(t, d.Hosts[2], "service", "pacemaker", "start")
			check(t, d.WaitOnline(t.Context()))
		}, "node2", "node3")
		d.change("node1 back", func() { d.pcs("node", "unstandby", "node1") }, all...)
		d.change("cluster software of node2 stopped", func() { d.cluster(d.Hosts[1], "stop") }, "node1", "node3")
		d.change("cluster software of node2 started", func() { d.cluster(d.Hosts[1], "start") }, all...)
		d.change("in and out of standby without a pause", func() {
			for range 3 {
				d.pcs("node", "standby", "node1", "node3")
				d.pcs("node", "unstandby", "node1", "node3")
			}
		}, all...)
		d.exactlyOnce(shared, buckets)
	}
	d.change("address deleted on node3: failed, and recovered in place", func() {
		since := d.Now()
		run(t, d.Hosts[2], "ip", "address", "delete", shared.String()+"/32", "dev", "eth0")
		d.wait("start", 1, since)
	}, all...)
	d.leave("node3 in standby", func() { d.pcs("node", "standby", "node3") }, "node3")
	d.finish()
	d.drainsEnd(d.Hosts[2])
	d.pcs("resource", "delete", resource)
	check(t, d.WaitIdle(t.Context()))
	for _, h := range d.Hosts {
		d.drainsEnd(h)
	}
}

// A crash breaks the dead host's connections and no others. Their clients get a reset at once.
func TestCrashBesideDrains(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		o    Options
	}{{"fenced", Options{StayOff: true}}, {"without fencing", Options{NoFencing: true}}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d := playDraining(t, row.o, 600, "op", "monitor", "interval=2s")
			d.change("node3 loses power", func() {
				check(t, d.Hosts[2].Off())
				d.takenOver(d.Hosts[0], "node3")
			}, "node1", "node2")
			if broken := d.finish("node3"); broken["node1"] == 0 || broken["node2"] == 0 {
				t.Errorf("resets by %v", broken)
			}
		})
	}
}

// A host dies while it drains: the next monitors notice, and the clients that still wait for it get a reset.
func TestDrainingHostDies(t *testing.T) {
	t.Parallel()
	d := playDraining(t, Options{StayOff: true}, 600, "op", "monitor", "interval=2s")
	d.change("node3 in standby", func() { d.pcs("node", "standby", "node3") }, "node1", "node2")
	d.change("node3 loses power", func() {
		check(t, d.Hosts[2].Off())
		ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
		defer cancel()
		_, err := d.WaitFor(ctx, func(status *Status) error {
			if status.Nodes["node3"].Online {
				return errors.New("node3 is online")
			}
			return nil
		})
		check(t, err)
	}, "node1", "node2")
	if broken := d.finish("node3"); broken["node1"] == 0 || broken["node2"] == 0 {
		t.Errorf("resets by %v", broken)
	}
}

// A host that is cut off while it drains serves its connections until it is fenced: no other host answers them before.
func TestDrainingHostIsCutOff(t *testing.T) {
	t.Parallel()
	d := playDraining(t, Options{StayOff: true, FencingTakes: 8 * time.Second}, 600, "op", "monitor", "interval=2s")
	d.change("node3 in standby", func() { d.pcs("node", "standby", "node3") }, "node1", "node2")
	d.change("node3's management cable is cut", func() {
		check(t, d.Hosts[2].Cut(lan.ManagementNIC))
		ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
		defer cancel()
		_, err := d.WaitFor(ctx, func(*Status) error {
			if d.Hosts[2].Fenced().IsZero() {
				return errors.New("node3 is not fenced")
			}
			return nil
		})
		check(t, err)
	}, "node1", "node2")
	if broken := d.finish("node3"); broken["node1"] == 0 || broken["node2"] == 0 {
		t.Errorf("resets by %v", broken)
	}
}

// When the drain time is over, the remaining connections are reset. Nothing leaks, even if only a single action follows, without a sweeper.
func TestDrainEnds(t *testing.T) {
	t.Parallel()
	const drain = 20 // seconds: longer than Pacemaker needs to move all buckets
	// Without a sweeper, clients wait until the next action on the old owner.
	d := playDraining(t, Options{StreamTimeout: stepTimeout}, drain, "op", "monitor", "interval=2s")
	d.change("node3 in standby", func() { d.pcs("node", "standby", "node3") }, "node1", "node2")
	d.drainsEnd(d.Hosts[2])
	d.streamsAnswered()
	d.change("node3 back", func() { d.pcs("node", "unstandby", "node3") }, "node1", "node2", "node3")
	time.Sleep(drain * time.Second) // the others' drains: after them clients connect to node3
	d.streamsAnswered()
	d.change("node3 in standby, and its sweeper killed", func() {
		d.pcs("node", "standby", "node3")
		d.even(buckets, "node1", "node2")
		check(t, d.Hosts[2].KillProcess("a sweeper", func(_ string, argv []string) bool { return argv[len(argv)-1] == "sweep" }))
	}, "node1", "node2")
	time.Sleep(drain * time.Second) // the drain itself: its end is what is waited for
	if d.dump(d.Hosts[2]) == d.clean["node3"] {
		t.Error("the drain was swept, although the sweeper was killed")
	}
	d.pcs("resource", "refresh", resource+"-clone", "node=node3")
	check(t, d.WaitIdle(t.Context()))
	d.clearOf(d.Hosts[2])
	d.answered()
	d.streamsAnswered()
	d.finish("node1", "node2", "node3") // each may have reset some
}
