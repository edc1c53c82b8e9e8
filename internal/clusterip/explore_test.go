package clusterip

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
)

// How far TestEveryOrderOfEvents goes; `go test ./internal/clusterip -run TestEveryOrderOfEvents -depth 14` takes a quarter of an hour.
var depth = flag.Int("depth", 7, "how many events TestEveryOrderOfEvents tries, in every order")

// A world is a cluster of nodes with one bucket, fencing and a drain, in which anything may happen in any order. The nodes' actions are the
// agent's own, on fake kernels; the cluster manager, and what clients have, are modelled. A world is changed by events; each has a name.
type world struct {
	nodes []worldNode
	said  Statements // in the cluster manager's memory
	owner int        // where the cluster manager runs the bucket; nowhere
	fails bool       // an action on it has failed, and the bucket is to be stopped there
	drain bool       // the parameter is set; once set, it stays
	gone  int        // how many nodes have gone since the bucket was last started, and one for that which has started it
}

// nowhere stands for no node.
const nowhere = -1

type worldNode struct {
	name        string
	state       State // of its kernel
	alive       bool  // its kernel runs, whatever its cluster manager does
	place       Place // as the others see it
	probed      bool  // since it joined
	connections int   // that live on it
}

const (
	worldBucket Bucket = 2

	areTold = 2 // how many other nodes know of a drain; not the agent's own constant, so that a wrong one is found
)

func newWorld(nodes int, drain bool) *world {
	w := &world{said: Statements{}, owner: nowhere, drain: drain}
	for i := range nodes {
		w.nodes = append(w.nodes, worldNode{name: nodeName(i), state: freshNode(), alive: true, place: Member})
	}
	return w
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }

func (w *world) clone() *world {
	c := &world{nodes: slices.Clone(w.nodes), said: Statements{}, owner: w.owner, fails: w.fails, drain: w.drain, gone: w.gone}
	for node, said := range w.said {
		c.said[node] = Statement{Spoken: said.Spoken, Drainers: slices.Clone(said.Drainers)}
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		n.state.Addresses, n.state.Groups, n.state.Filters = slices.Clone(n.state.Addresses), slices.Clone(n.state.Groups), slices.Clone(n.state.Filters)
		n.state.Tables.Owned = slices.Clone(n.state.Tables.Owned)
		n.state.Tables.Moves = n.state.Tables.Moves.without()
	}
	return c
}

// key tells worlds apart.
func (w *world) key() string {
	var b strings.Builder
	gone := 0
	if len(w.nodes) > 1+areTold { // elsewhere it makes no difference
		gone = w.gone
	}
	fmt.Fprintf(&b, "%d %t %t %d", w.owner, w.fails, w.drain, gone)
	for _, n := range w.nodes {
		t := n.state.Tables
		fmt.Fprintf(&b, "|%t %d %t %d %t %v %s %v", n.alive, n.place, n.probed, n.connections, t.Present, t.Owned, t.Moves, t.Moves.HandedOver)
	}
	for _, node := range slices.Sorted(maps.Keys(w.said)) {
		fmt.Fprintf(&b, "|%s %v", node, w.said[node])
	}
	return b.String()
}

// worldCluster is the cluster manager as a node's agent sees it.
type worldCluster struct {
	*world
	life *life
}

// life is what a process may still do before it is killed: so many changes of the kernel and of what is said.
type life struct {
	mu    sync.Mutex // several nodes are spoken for at once
	calls int
}

func (l *life) spend() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls == 0 {
		return errKilled
	}
	l.calls--
	return nil
}

// mortalKernel is that of a process that may be killed.
type mortalKernel struct {
	*fakeKernel
	life *life
}

func (k mortalKernel) Apply(ctx context.Context, step Step) error {
	if err := k.life.spend(); err != nil {
		return err
	}
	return k.fakeKernel.Apply(ctx, step)
}

func (c worldCluster) Statements(context.Context, netip.Addr, Bucket) (Statements, error) {
	return maps.Clone(c.said), nil
}

func (c worldCluster) State(_ context.Context, _ netip.Addr, _ Bucket, node string, statement Statement) error {
	if err := c.life.spend(); err != nil {
		return err
	}
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	for i := range c.nodes {
		if nodeName(i) == node && c.nodes[i].place == Member {
			c.said[node] = statement
		}
	}
	return nil // who has left cannot be spoken for, and nobody says so
}

func (c worldCluster) Presence(context.Context) (map[string]Presence, error) {
	all := map[string]Presence{}
	for i, n := range c.nodes {
		all[nodeName(i)] = Presence{Place: n.place}
	}
	return all, nil
}

// act lets a node's agent do something.
func (w *world) act(i int, do func(Agent, Spec) error) error {
	return w.actFor(&life{calls: -1}, i, do)
}

// killed lets it do so much only.
func (w *world) killed(calls, i int, do func(Agent, Spec) error) error {
	if err := w.actFor(&life{calls: calls}, i, do); err != nil && !errors.Is(err, errKilled) && !slices.Contains([]ocf.ExitCode{ocf.ErrGeneric, ocf.NotRunning}, ocf.CodeOf(err)) {
		return err
	}
	return nil
}

func (w *world) actFor(life *life, i int, do func(Agent, Spec) error) error {
	kernel := &fakeKernel{State: w.nodes[i].state}
	kernel.open = func() map[Bucket]int { return map[Bucket]int{worldBucket: w.nodes[i].connections} }
	agent, _ := agentOn(mortalKernel{kernel, life})
	agent.Cluster, agent.Node, agent.StartSweeper = worldCluster{w, life}, nodeName(i), func() error { return nil }
	spec := drainingSpec(worldBucket)
	if !w.drain {
		spec.Drain = 0
	}
	err := do(agent, spec)
	w.nodes[i].state = kernel.State
	return err
}

// An event is something that happens to a world; it returns what must not have happened.
type event struct {
	name   string
	happen func(*world) error
}

// events are those that can happen now.
func (w *world) events() []event {
	var all []event
	// With the last member everything is forgotten, and who comes then must have seen, or fence, all others before anything starts
	// (startup-fencing, wait_for_all). And where there are more nodes than are told of a drain, all who were told may go before the bucket is
	// started; or all but the one that starts it, and then that one.
	mayNotGo := len(w.nodes) > 1+areTold && w.gone >= areTold || 1 >= len(slices.DeleteFunc(slices.Clone(w.nodes), func(n worldNode) bool { return n.place != Member }))
	add := func(name string, happen func(*world) error) { all = append(all, event{name, happen}) }
	if !w.drain {
		add("drain is switched on", (*world).switchOn)
	}
	if slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.alive && n.state.Tables.Moves.drains(worldBucket) }) {
		add("the time of all drains is over", (*world).endDrains)
	}
	for i, n := range w.nodes {
		name := nodeName(i)
		works := n.place == Member && n.alive
		if works && !n.probed {
			add("probe on "+name, func(w *world) error { return w.probe(i) })
		}
		if works && w.owner == nowhere && w.mayStart() {
			add("start on "+name, func(w *world) error { return w.start(i) })
			for calls := range mostCalls {
				add(fmt.Sprintf("start on %s is killed after %d calls", name, calls), func(w *world) error {
					w.owner, w.fails = i, true
					return w.killed(calls, i, func(a Agent, s Spec) error { return a.Start(context.Background(), s) })
				})
			}
		}
		if works && w.owner == i {
			add("stop on "+name, func(w *world) error { return w.stop(i) })
		}
		if works && w.owner == i && !w.fails {
			add("monitor on "+name, func(w *world) error { return w.monitor(i) })
			for calls := range mostCalls {
				if !mayNotGo && w.introduced() {
					add(fmt.Sprintf("stop on %s is killed after %d calls", name, calls), func(w *world) error { return w.stopKilled(calls, i) })
				}
				add(fmt.Sprintf("monitor on %s is killed after %d calls", name, calls), func(w *world) error {
					w.fails = true
					return w.killed(calls, i, func(a Agent, s Spec) error { return a.Monitor(context.Background(), s, 0) })
				})
			}
			if n.connections == 0 {
				add("a client connects to "+name, func(w *world) error { w.nodes[i].connections = 1; return nil })
			}
		}
		if works && !mayNotGo && w.introduced() {
			add(name+" leaves in order", func(w *world) error { return w.leave(i) })
		}
		if n.alive && n.place == Member && !mayNotGo && w.introduced() {
			add(name+" is cut off", func(w *world) error { w.lose(i, Lost); return nil })
			add(name+" crashes", func(w *world) error { w.lose(i, Lost); w.nodes[i].die(); return nil })
		}
		if n.place == Lost {
			add(name+" is fenced", func(w *world) error { w.fence(i); return nil })
		}
		if n.place == Left || n.place == Dead {
			add(name+" joins", func(w *world) error { w.join(i); return nil })
		}
		if n.alive && len(n.state.Tables.Moves.HandedOver) > 0 {
			add("the sweeper on "+name+" looks", func(w *world) error { return w.sweep(i) })
			if n.connections > 0 {
				add("the last client of "+name+" goes", func(w *world) error { w.nodes[i].connections = 0; return nil })
			}
		}
	}
	return all
}

// mayStart tells whether Pacemaker would start the bucket: not before all nodes are probed (pcmk__order_probes in lib/pacemaker), nor while a node
// is to be fenced (native_start_constraints; stonith_done).
func (w *world) mayStart() bool {
	return w.introduced() && !slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.place == Lost })
}

func (w *world) introduced() bool {
	return !slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.place == Member && !n.probed })
}

func (w *world) probe(i int) error {
	w.nodes[i].probed = true
	err := w.act(i, func(a Agent, s Spec) error { s.Probe = true; return a.Monitor(context.Background(), s, 0) })
	if ocf.CodeOf(err) != ocf.NotRunning {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}

func (w *world) start(i int) error {
	w.owner, w.gone = i, 1
	return w.act(i, func(a Agent, s Spec) error { return a.Start(context.Background(), s) })
}

func (w *world) stop(i int) error {
	w.owner, w.fails = nowhere, false
	if laid := w.nodes[i].state.Tables.Laid; !w.drain || laid == nil || !laid.Drains {
		w.nodes[i].connections = 0 // nobody has promised anything
	}
	return w.act(i, func(a Agent, s Spec) error { return a.Stop(context.Background(), s) })
}

func (w *world) monitor(i int) error {
	return w.act(i, func(a Agent, s Spec) error { return a.Monitor(context.Background(), s, 0) })
}

func (w *world) sweep(i int) error {
	return w.act(i, func(a Agent, s Spec) error {
		_, err := a.sweep(context.Background(), s, func() {})
		return err
	})
}

func (w *world) leave(i int) error {
	var err error
	if w.owner == i {
		err = w.stop(i)
	}
	w.lose(i, Left)
	return err
}

// mostCalls is how many calls a process that is killed may have made: no action makes more.
const mostCalls = 6

// stopKilled is a stop that fails, so that the node is to be fenced; until then it is a member.
func (w *world) stopKilled(calls, i int) error {
	if !w.drain {
		w.nodes[i].connections = 0
	}
	err := w.killed(calls, i, func(a Agent, s Spec) error { return a.Stop(context.Background(), s) })
	w.lose(i, Lost)
	return err
}

// switchOn sets the parameter; Pacemaker reloads the instance that runs.
func (w *world) switchOn() error {
	w.drain = true
	if w.owner == nowhere || w.fails || w.nodes[w.owner].place != Member {
		return nil
	}
	return w.act(w.owner, func(a Agent, s Spec) error { return a.Reload(context.Background(), s) })
}

// endDrains lets so much time pass that the kernels end all drains and adoptions. Before that, the owner's monitors have seen it come.
func (w *world) endDrains() error {
	if w.owner != nowhere && !w.fails && w.nodes[w.owner].place == Member {
		moves := &w.nodes[w.owner].state.Tables.Moves
		for i := range moves.Adopting {
			moves.Adopting[i].Left = soonOver - 1
		}
		if err := w.monitor(w.owner); err != nil {
			return err
		}
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state.Tables.Moves.drains(worldBucket) {
			n.connections = 0
		}
		n.state.Tables.Moves.Draining, n.state.Tables.Moves.Adopting = nil, nil
	}
	return nil
}

// lose takes a node out of the cluster; what it said goes with it.
func (w *world) lose(i int, to Place) {
	w.gone++
	w.nodes[i].place, w.nodes[i].probed = to, false
	delete(w.said, nodeName(i))
}

func (w *world) fence(i int) {
	w.nodes[i].die()
	w.nodes[i].place = Dead
	if w.owner == i {
		w.owner, w.fails = nowhere, false
	}
}

func (n *worldNode) die() {
	n.alive, n.connections, n.state = false, 0, freshNode()
}

func (w *world) join(i int) {
	w.nodes[i].alive, w.nodes[i].place = true, Member
}

// fault says what is wrong now: a connection that lives on a node may be reset by no other, nor be given up by its own.
func (w *world) fault() error {
	for i, n := range w.nodes {
		if !n.alive || n.connections == 0 {
			continue
		}
		if !n.state.owns(worldBucket) && !n.state.Tables.Moves.drains(worldBucket) {
			return fmt.Errorf("%s has given up a connection that lives", nodeName(i))
		}
		for j, other := range w.nodes {
			_, adopts := other.state.Tables.Moves.Adoption(worldBucket)
			if j != i && other.alive && other.state.owns(worldBucket) && !adopts {
				return fmt.Errorf("%s resets a connection that lives on %s", nodeName(j), nodeName(i))
			}
		}
	}
	return nil
}

// settle lets the cluster manager finish, and says what is not as it must be then: the bucket runs, clients of dead nodes are told, and
// when the drains are over nothing is left of them.
func (w *world) settle() error {
	for i := range w.nodes {
		if w.nodes[i].place == Lost {
			w.fence(i)
		}
	}
	for i := range w.nodes {
		if w.nodes[i].place == Member && !w.nodes[i].probed {
			if err := w.probe(i); err != nil {
				return err
			}
		}
	}
	first := slices.IndexFunc(w.nodes, func(n worldNode) bool { return n.place == Member })
	if first < 0 {
		return nil // nobody is left
	}
	if w.owner != nowhere && w.fails {
		if err := w.stop(w.owner); err != nil {
			return err
		}
	}
	if w.owner == nowhere {
		if err := w.start(first); err != nil {
			return err
		}
	}
	for i, n := range w.nodes {
		if n.alive && len(n.state.Tables.Moves.HandedOver) > 0 {
			if err := w.sweep(i); err != nil {
				return err
			}
		}
	}
	look := func() error { return errors.Join(w.monitor(w.owner), w.fault()) }
	if err := look(); err != nil {
		return err
	}
	adoption, _ := w.nodes[w.owner].state.Tables.Moves.Adoption(worldBucket)
	waitsFor := func(name string) bool {
		i := slices.IndexFunc(w.nodes, func(n worldNode) bool { return n.name == name })
		n := w.nodes[i]
		// Who has left cannot say any more that it is done: the end of its drain must do.
		return n.place == Left || n.place == Member && n.state.Tables.Moves.drains(worldBucket)
	}
	if len(adoption.From) > 0 && !slices.ContainsFunc(adoption.From, waitsFor) {
		return fmt.Errorf("%s adopts from %v, and none of them drains", nodeName(w.owner), adoption.From)
	}
	if err := w.end(); err != nil {
		return err
	}
	// A word that has outlasted its drain costs the next owner's clients a wait at most, and ends with that adoption.
	if err := errors.Join(w.stop(w.owner), w.start(first), w.monitor(first), w.end()); err != nil {
		return err
	}
	for node, said := range w.said {
		if len(said.Drainers) > 0 {
			return fmt.Errorf("the drains are over, and %s says %v", node, said.Drainers)
		}
	}
	return nil
}

// end lets all drains come to their end, and be cleared up.
func (w *world) end() error {
	if err := w.endDrains(); err != nil {
		return err
	}
	for i := range w.nodes {
		if w.nodes[i].alive {
			if err := w.sweep(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// explore tries all orders of events up to a depth, breadth first, so that what it finds is found in the shortest way.
func explore(start *world, depth int) (states int, histories int, found []string, err error) {
	type visit struct {
		*world
		events []string
	}
	seen := map[string]bool{start.key(): true}
	for frontier := []visit{{start, nil}}; depth > 0 && len(frontier) > 0; depth-- {
		var next []visit
		for _, v := range frontier {
			for _, e := range v.world.events() {
				histories++
				w := v.clone()
				history := append(slices.Clip(v.events), e.name)
				err := e.happen(w)
				key := w.key()
				if err = cmp.Or(err, w.fault()); err == nil && !seen[key] {
					err = w.clone().settle()
				}
				if err != nil {
					return len(seen), histories, history, err
				}
				if !seen[key] {
					seen[key] = true
					next = append(next, visit{w, history})
				}
			}
		}
		frontier = next
	}
	return len(seen), histories, nil, nil
}

func TestEveryOrderOfEvents(t *testing.T) {
	for _, row := range []struct {
		nodes int
		drain bool
	}{{2, true}, {2, false}, {3, true}, {3, false}, {4, true}} {
		t.Run(fmt.Sprintf("%d nodes, drain at first %t", row.nodes, row.drain), func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			states, histories, found, err := explore(newWorld(row.nodes, row.drain), *depth)
			t.Logf("%d states, %d events tried, up to %d one after the other, in %s", states, histories, *depth, time.Since(begin).Round(time.Millisecond))
			if err != nil {
				t.Errorf("%v, after:\n  %s", err, strings.Join(found, "\n  "))
			}
		})
	}
}
