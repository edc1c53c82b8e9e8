//go:build system

package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// An interruptedMove is a call in the life of a bucket that moves from node1 to node2, during which the agent is killed.
type interruptedMove struct {
	name    string
	action  string
	node    int // on which it is called, from 0
	drain   string
	linger  string
	ends    ocf.ExitCode // with which the call ends when it is not killed
	prepare func(*testing.T, *site, attributes)
}

const (
	mover  = 2
	stayer = 1 // another bucket of the node that it leaves
)

// readEvery is the interval of the kills among the calls by which the agent mostly reads.
const readEvery = 12

// TestKilledWhileItHandsOver kills with signal 9 at the system calls by which the agent acts, the programs that it has started
// included: its sweeper too. After each, monitor returns the truth on both nodes, the move can be made, the announcements about it are
// true, and nothing is left in the end.
func TestKilledWhileItHandsOver(t *testing.T) {
	owned := func(t *testing.T, s *site, _ attributes) {
		check(t, errors.Join(s.startOn(0, stayer), s.startOn(0, mover)))
	}
	alone := func(t *testing.T, s *site, _ attributes) { check(t, s.startOn(0, mover)) }
	given := func(t *testing.T, s *site, c attributes) { owned(t, s, c); check(t, s.stop(mover)) }
	known := func(t *testing.T, s *site, c attributes) {
		alone(t, s, c)
		check(t, status(s.agents[1].call("monitor", mover, "OCF_RESKEY_CRM_meta_interval=0"), ocf.NotRunning))
	}
	taken := func(t *testing.T, s *site, c attributes) {
		given(t, s, c)
		check(t, s.startOn(1, mover))
		c.lose(t, s.Nodes[0], isFenced)
	}
	lingers := func(t *testing.T, s *site, c attributes) { s.probe(t, mover); given(t, s, c) }
	for _, move := range []interruptedMove{
		{name: "stop that lingers", action: "stop", linger: "1", prepare: func(t *testing.T, s *site, c attributes) {
			s.probe(t, mover)
			owned(t, s, c)
		}},
		{name: "start that takes over", action: "start", node: 1, linger: "1", prepare: lingers},
		{name: "sweep after a takeover", action: "sweep", linger: "1", prepare: func(t *testing.T, s *site, c attributes) {
			lingers(t, s, c)
			killSweeper(t, s.agents[0])
			check(t, s.startOn(1, mover))
		}},
		{name: "stop beside others", action: "stop", prepare: owned},
		{name: "last stop", action: "stop", prepare: alone},
		{name: "last stop, and another node stores announcements", action: "stop", prepare: known},
		{name: "start elsewhere", action: "start", node: 1, prepare: given},
		{name: "start after a node has left", action: "start", node: 1, prepare: func(t *testing.T, s *site, c attributes) {
			known(t, s, c)
			check(t, s.stop(mover))
			c.clear(t, s.Nodes[0])
		}},
		{name: "start on the same node", action: "start", prepare: given},
		{name: "monitor that ends an adoption", action: "monitor", node: 1, prepare: taken},
		{name: "sweep", action: "sweep", prepare: func(t *testing.T, s *site, c attributes) {
			given(t, s, c)
			killSweeper(t, s.agents[0])
		}},
		{name: "monitor after a drain", action: "monitor", drain: "1", ends: ocf.NotRunning, prepare: func(t *testing.T, s *site, c attributes) {
			alone(t, s, c)
			check(t, s.stop(mover))
			time.Sleep(1100 * time.Millisecond) // the drain itself: the kernel ends it
		}},
	} {
		t.Run(move.name, func(t *testing.T) {
			t.Parallel()
			if move.drain == "" {
				move.drain = "600"
			}
			s := newSite(t, lan.Options{Nodes: 2}, 4, webIP("drain", move.drain, "linger", cmp.Or(move.linger, "0"), "arp_count", "0"))
			cluster := newAttributes(t, s.agents...)
			k := &moveKiller{site: s, attributes: cluster, interruptedMove: move, clean: s.dumps(t)}
			counts := k.systemCalls(t)
			kills := 0
			for _, name := range slices.Sorted(maps.Keys(counts)) {
				step := killEvery
				switch {
				case *atEveryCall:
					step = 1
				case name == "sendmsg" || name == "openat":
					step = readEvery
				case move.linger != "": // after some of these kills nobody confirms the takeover
					step *= 4
				}
				for nth := 1; nth <= counts[name] && !t.Failed(); nth += step {
					k.prepare(t, s, cluster)
					if k.traced().killAt(t, name, nth) {
						kills++
					}
					k.checkAfterwards(t, fmt.Sprintf("%s, call %d of %d", name, nth, counts[name]))
				}
			}
			t.Logf("killed %d times, at %v", kills, counts)
			if kills < 5 {
				t.Errorf("only %d kills hit their mark", kills)
			}
		})
	}
}

type moveKiller struct {
	*site
	attributes
	interruptedMove
	clean []string
}

func (k *moveKiller) traced() tracedCall {
	return tracedCall{agent: k.agents[k.node], action: k.action, bucket: mover, ends: k.ends}
}

func (k *moveKiller) systemCalls(t *testing.T) map[string]int {
	t.Helper()
	k.prepare(t, k.site, k.attributes)
	counts := k.traced().systemCalls(t)
	k.checkAfterwards(t, "undisturbed run")
	return counts
}

// checkAfterwards makes the move, however far it had got, and removes everything.
func (k *moveKiller) checkAfterwards(t *testing.T, where string) {
	t.Helper()
	for node, a := range k.agents {
		r := a.monitor(mover)
		want := ocf.NotRunning
		if k.holds(t, node, mover, "owned") {
			want = ocf.Success
		} else if strings.Contains(r.Stderr, "this is left on the node") { // a start that did not get as far
			want = ocf.ErrGeneric
		}
		if err := status(r, want); err != nil {
			t.Errorf("%s: monitor on node%d: %v", where, node+1, err)
		}
	}
	// Pacemaker repeats what has failed, and goes on only when it has not.
	must := func(what string, r lan.Result) {
		if err := status(r, ocf.Success); err != nil {
			t.Errorf("%s: %s: %v", where, what, err)
		}
	}
	must("stop on node1", k.agents[0].stop(mover))
	if k.action == "stop" {
		eventually(t, where+": what node1 announces is true", func() error { // the sweeper may be between the announcement and the kernel
			announced := k.announced(t, "node1", mover)
			if k.holds(t, 0, mover, "draining") && !strings.HasPrefix(announced, k.drain+"/") {
				return fmt.Errorf("it drains, and announces %q", announced)
			}
			return nil
		})
	}
	must("start on node2", k.agents[1].start(mover))
	must("monitor on node2", k.agents[1].monitor(mover))
	for _, a := range k.agents { // without a drain, a stop ends those that there are
		for _, bucket := range []int{stayer, mover} {
			must("stop without drain", a.call("start", bucket, "OCF_RESKEY_drain=0"))
			must("stop without drain", a.call("stop", bucket, "OCF_RESKEY_drain=0"))
		}
	}
	for node, before := range k.clean {
		if err := k.isClean(node, before); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	for _, node := range k.Nodes {
		k.clear(t, node)
	}
	k.at = slices.Repeat([]int{nowhere}, len(k.at))
	k.status(t, nil)
}
