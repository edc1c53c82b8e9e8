package agent

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
	"testing"
	"time"

	"ocf-clusterip/internal/clusterip"

	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
)

// How far TestEveryOrderOfEvents goes. Each further event takes six times as long: 5 are minutes, 7 are hours.
var depth = flag.Int("depth", 3, "how many events after a beginning TestEveryOrderOfEvents tries, in every order")

// A world is a cluster of nodes with one bucket, fencing and a drain, in which anything may happen in any order. The nodes' actions are the
// agent's own, on fake kernels; the cluster manager, and what clients have, are modelled. A world is changed by events; each has a name.
type world struct {
	nodes []worldNode
	said  memory // the cluster manager's
	owner int    // where the cluster manager runs the bucket; nowhere
	fails bool   // an action on it has failed, and the bucket is to be stopped there
	drain bool   // the parameter is set
	off   bool   // it was, and was switched off: that happens once in a history
	gone  int    // how many nodes have gone since the bucket was last started, and one for that which has started it

	overlaps bool // two actions have been under way at once: that happens once in a history
	held     bool // a node's hearing was held up: that too

	meanwhile *life // what happens while the next action is under way
}

// nowhere stands for no node.
const nowhere = -1

// memory is what is said of the bucket.
type memory struct {
	words map[string]handover.Announcement
	told  map[string]handover.Relayed
}

func newMemory() memory {
	return memory{map[string]handover.Announcement{}, map[string]handover.Relayed{}}
}

func (m memory) clone() memory { return memory{maps.Clone(m.words), maps.Clone(m.told)} } // words and lists are never changed in place

func (m memory) key() string {
	var b strings.Builder
	for _, node := range slices.Sorted(maps.Keys(m.words)) {
		fmt.Fprintf(
			&b, " %s:%s %v %t %t", node, m.words[node].Drain, m.words[node].Others, m.words[node].Complete,
			m.words[node].Nonce == m.told[node].Supersedes,
		)
	}
	for _, node := range slices.Sorted(maps.Keys(m.told)) {
		if told := m.told[node].Drainers; len(told) > 0 {
			fmt.Fprintf(&b, " %s<%v", node, told)
		}
	}
	return b.String()
}

// hearing is how a node's part of the cluster manager keeps up with the others'.
type hearing int

const (
	hearsAll hearing = iota
	isBehind         // it knows what was said up to a moment; when it has heard its own next word, it has heard all
	isNew            // it has come, and does not know yet what was said; of itself it does
)

type worldNode struct {
	name        string
	state       clusterip.State     // of its kernel
	alive       bool                // its kernel runs, whatever its cluster manager does
	place       handover.Membership // as the others see it
	probed      bool                // since it joined
	connections int                 // that live on it
	hearing     hearing
	heard       memory // unless it hears all
}

const (
	worldBucket clusterip.Bucket = 2

	areTold = 2 // how many other nodes know of a drain; not the agent's own constant, so that a wrong one is found
)

func newWorld(nodes int, drain bool) *world {
	w := &world{said: newMemory(), owner: nowhere, drain: drain}
	for i := range nodes {
		w.nodes = append(w.nodes, worldNode{name: nodeName(i), state: freshNode(), alive: true, place: handover.Member})
	}
	return w
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }

func (w *world) clone() *world {
	c := &world{
		nodes: slices.Clone(w.nodes), said: w.said.clone(), owner: w.owner, fails: w.fails, drain: w.drain, off: w.off, gone: w.gone,
		overlaps: w.overlaps, held: w.held,
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		n.state.Addresses, n.state.Groups = slices.Clone(n.state.Addresses), slices.Clone(n.state.Groups)
		n.state.Filters = slices.Clone(n.state.Filters)
		n.state.Tables.Owned = slices.Clone(n.state.Tables.Owned)
		n.state.Tables.Moves = n.state.Tables.Moves.Without()
		n.heard = n.heard.clone()
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
	fmt.Fprintf(&b, "%d %t %t %t %d %t %t", w.owner, w.fails, w.drain, w.off, gone, w.overlaps, w.held)
	for _, n := range w.nodes {
		t := n.state.Tables
		fmt.Fprintf(&b, "|%t %d %t %d %t %v %s %v", n.alive, n.place, n.probed, n.connections, t.Present, t.Owned, t.Moves, t.Moves.HandedOver)
		if n.hearing != hearsAll {
			fmt.Fprintf(&b, " %d%s", n.hearing, n.heard.key())
		}
	}
	b.WriteString("|" + w.said.key())
	return b.String()
}

// worldCluster is the cluster manager as a node's agent sees it.
type worldCluster struct {
	*world
	life *life
	here int
}

// life is what a process may still do before it is killed: so many changes of the kernel and of what is said.
type life struct {
	calls  int
	before int    // which call something else happens before
	happen func() // what
}

// read and write are calls of the process; only before a write is it worth while to kill it.
func (l *life) read(do func()) error {
	if l.before--; l.before == -1 {
		l.happen()
	}
	do()
	return nil
}

func (l *life) write(do func()) error {
	if l.calls == 0 {
		return errKilled
	}
	l.calls--
	return l.read(do)
}

// mortalKernel is that of a process that may be killed.
type mortalKernel struct {
	*fakeKernel
	life *life
}

func (k mortalKernel) Apply(ctx context.Context, step clusterip.Step) error {
	if err := k.life.write(func() {}); err != nil {
		return err
	}
	return k.fakeKernel.Apply(ctx, step)
}

// hears is what the node has heard.
func (c worldCluster) hears() memory {
	if n := c.nodes[c.here]; n.hearing != hearsAll {
		return n.heard
	}
	return c.said
}

func (c worldCluster) Announcements(context.Context, netip.Addr, clusterip.Bucket) (words map[string]handover.Announcement, err error) {
	return words, c.life.read(func() { words = maps.Clone(c.hears().words) })
}

func (c worldCluster) Relayed(context.Context, netip.Addr, clusterip.Bucket) (told map[string]handover.Relayed, err error) {
	return told, c.life.read(func() { told = maps.Clone(c.hears().told) })
}

// Publish keeps a word. Who has left cannot be spoken for, and nobody says so.
func (c worldCluster) Publish(_ context.Context, _ netip.Addr, _ clusterip.Bucket, node string, word handover.Announcement) error {
	return c.life.write(func() {
		n := &c.nodes[c.here]
		if n.place != handover.Member || node != n.name {
			return
		}
		c.said.words[node] = word
		switch n.hearing {
		case isBehind:
			n.hearing, n.heard = hearsAll, memory{}
		case isNew:
			n.heard.words[node] = word
		}
	})
}

func (c worldCluster) Relay(_ context.Context, _ netip.Addr, _ clusterip.Bucket, node string, notice handover.Relayed) error {
	return c.life.write(func() {
		for _, n := range c.nodes {
			if n.name == node && n.place == handover.Member && c.nodes[c.here].place == handover.Member {
				c.said.told[node] = notice
			}
		}
	})
}

func (c worldCluster) NodeStates(context.Context) (all map[string]handover.NodeState, err error) {
	return all, c.life.read(func() {
		all = map[string]handover.NodeState{}
		for _, n := range c.nodes {
			all[n.name] = handover.NodeState{Membership: n.place}
		}
	})
}

// act lets a node's agent do something.
func (w *world) act(i int, do func(Agent, clusterip.Spec) error) error {
	life := &life{calls: -1, before: -1}
	if w.meanwhile != nil {
		life, w.meanwhile = w.meanwhile, nil
	}
	return w.actFor(life, i, do)
}

// killed lets it do so much only.
func (w *world) killed(calls, i int, do func(Agent, clusterip.Spec) error) error {
	if err := w.actFor(&life{calls: calls, before: -1}, i, do); err != nil && !errors.Is(err, errKilled) && !slices.Contains(
		[]ocf.ExitCode{ocf.ErrGeneric, ocf.NotRunning}, ocf.CodeOf(err),
	) {
		return err
	}
	return nil
}

func (w *world) actFor(life *life, i int, do func(Agent, clusterip.Spec) error) error {
	kernel := &fakeKernel{State: w.nodes[i].state}
	kernel.open = func() map[clusterip.Bucket]int { return map[clusterip.Bucket]int{worldBucket: w.nodes[i].connections} }
	agent, _ := agentOn(mortalKernel{kernel, life})
	agent.Cluster, agent.Node, agent.StartSweeper = worldCluster{w, life, i}, nodeName(i), func() error { return nil }
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
	node   int    // where it happens, or nowhere
	acts   bool   // it is an action of the agent, which takes its time
	within string // which action it happens in, if it does
	beside bool   // it may happen while another node acts
	happen func(*world) error
}

// events are those that can happen now: one by one, and those that may happen while a node acts.
func (w *world) events() []event {
	all := w.single()
	if w.overlaps {
		return all
	}
	for _, outer := range slices.Clone(all) {
		if !outer.acts {
			continue
		}
		for _, inner := range slices.Clone(all) {
			if !inner.beside || inner.node == outer.node {
				continue
			}
			within := fmt.Sprintf("%s and %s", outer.name, inner.name)
			for calls := range mostCalls {
				name := fmt.Sprintf("%s; and before call %d of it, %s", outer.name, calls+1, inner.name)
				all = append(all, event{name: name, within: within, happen: func(w *world) error {
					err := errNotReached
					w.overlaps, w.meanwhile = true, &life{calls: -1, before: calls, happen: func() { err = inner.happen(w) }}
					return cmp.Or(outer.happen(w), err)
				}})
			}
		}
	}
	return all
}

// errNotReached says that an action does not make so many calls.
var errNotReached = errors.New("not reached")

// single are the events one by one.
func (w *world) single() []event {
	var all []event
	// With the last member everything is forgotten, and who comes then must have seen, or fence, all others before anything starts
	// (startup-fencing, wait_for_all). And where there are more nodes than are told of a drain, all who were told may go before the bucket is
	// started; or all but the one that starts it, and then that one.
	mayNotGo := len(w.nodes) > 1+areTold && w.gone >= areTold || 1 >= len(
		slices.DeleteFunc(slices.Clone(w.nodes), func(n worldNode) bool { return n.place != handover.Member }),
	)
	if !w.drain && !w.off {
		all = append(all, event{name: "drain is switched on", node: nowhere, happen: func(w *world) error { return w.set(true) }})
	}
	if w.drain {
		all = append(all, event{name: "drain is switched off", node: nowhere, happen: func(w *world) error { return w.set(false) }})
	}
	if slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.alive && n.state.Tables.Moves.Drains(worldBucket) }) {
		all = append(all, event{name: "the time of all drains is over", node: nowhere, happen: (*world).endDrains})
	}
	for i, n := range w.nodes {
		action := func(what string, beside bool, happen func(*world) error) {
			all = append(all, event{name: what + " on " + n.name, node: i, acts: true, beside: beside, happen: happen})
		}
		owners := func(what string, happen func(*world) error) { action(what, false, happen) }
		killed := func(what string, happen func(w *world, calls int) error) {
			for calls := range mostCalls {
				name := fmt.Sprintf("%s on %s is killed before its change %d", what, n.name, calls+1)
				all = append(all, event{name: name, node: i, happen: func(w *world) error { return happen(w, calls) }})
			}
		}
		fate := func(what string, beside bool, happen func(*world)) {
			all = append(all, event{name: n.name + " " + what, node: i, beside: beside, happen: func(w *world) error { happen(w); return nil }})
		}
		works := n.place == handover.Member && n.alive
		if works && !n.probed {
			action("probe", true, func(w *world) error { return w.probe(i) })
		}
		if works && w.owner == nowhere && w.mayStart() {
			owners("start", func(w *world) error { return w.start(i) })
			killed("start", func(w *world, calls int) error {
				w.owner, w.fails = i, true
				w.breakUnlessDrained()
				return w.killed(calls, i, func(a Agent, s clusterip.Spec) error { return a.Start(context.Background(), s) })
			})
		}
		if works && w.owner == i {
			owners("stop", func(w *world) error { return w.stop(i) })
		}
		if works && w.owner == i && !w.fails {
			owners("monitor", func(w *world) error { return w.monitor(i) })
			killed("monitor", func(w *world, calls int) error {
				w.fails = true
				return w.killed(calls, i, func(a Agent, s clusterip.Spec) error { return a.Monitor(context.Background(), s, 0) })
			})
			if !mayNotGo {
				killed("stop", func(w *world, calls int) error { return w.stopKilled(calls, i) })
			}
			if n.connections == 0 {
				fate("gets a client", false, func(w *world) { w.nodes[i].connections = 1 })
			}
		}
		if works && !mayNotGo {
			all = append(
				all, event{name: n.name + " leaves in order", node: i, beside: w.owner != i, happen: func(w *world) error { return w.leave(i) }},
			)
		}
		if n.alive && n.place == handover.Member && !mayNotGo {
			fate("is cut off", true, func(w *world) { w.lose(i, handover.Lost) })
			fate("crashes", true, func(w *world) { w.lose(i, handover.Lost); w.nodes[i].die() })
		}
		if n.place == handover.Lost {
			fate("is fenced", true, func(w *world) { w.fence(i) })
		}
		if n.place == handover.Left || n.place == handover.Dead {
			fate("joins", true, func(w *world) { w.join(i) })
			if !w.held {
				fate("joins, and knows nothing yet", true, func(w *world) { w.join(i); w.hold(i, isNew, newMemory()) })
			}
		}
		if works && !w.held {
			fate("falls behind", true, func(w *world) { w.hold(i, isBehind, w.said.clone()) })
		}
		if n.hearing != hearsAll {
			fate("has caught up", true, func(w *world) { w.nodes[i].hearing, w.nodes[i].heard = hearsAll, memory{} })
		}
		if n.alive && len(n.state.Tables.Moves.HandedOver) > 0 {
			action("a look of the sweeper", true, func(w *world) error { return w.sweep(i) })
			if n.connections > 0 {
				fate("loses its last client", true, func(w *world) { w.nodes[i].connections = 0 })
			}
		}
	}
	return all
}

// hold makes a node hear the others no more.
func (w *world) hold(i int, as hearing, heard memory) {
	w.held, w.nodes[i].hearing, w.nodes[i].heard = true, as, heard
}

// mayStart tells whether Pacemaker would start the bucket: not before all nodes are probed (pcmk__order_probes in lib/pacemaker), nor while
// a node is to be fenced (native_start_constraints; stonith_done).
func (w *world) mayStart() bool {
	return w.introduced() && !slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.place == handover.Lost })
}

func (w *world) introduced() bool {
	return !slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.place == handover.Member && !n.probed })
}

func (w *world) probe(i int) error {
	w.nodes[i].probed = true
	err := w.act(i, func(a Agent, s clusterip.Spec) error { s.Probe = true; return a.Monitor(context.Background(), s, 0) })
	if ocf.CodeOf(err) != ocf.NotRunning {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}

func (w *world) start(i int) error {
	w.owner, w.gone = i, 1
	w.breakUnlessDrained()
	return w.act(i, func(a Agent, s clusterip.Spec) error { return a.Start(context.Background(), s) })
}

func (w *world) stop(i int) error {
	w.owner, w.fails = nowhere, false
	if laid := w.nodes[i].state.Tables.Laid; laid == nil || !laid.Drains {
		w.nodes[i].connections = 0 // nobody has promised anything
	}
	w.breakUnlessDrained()
	return w.act(i, func(a Agent, s clusterip.Spec) error { return a.Stop(context.Background(), s) })
}

// breakUnlessDrained ends what the bucket has of connections, on whatever node: without drain a move may break them all.
func (w *world) breakUnlessDrained() {
	for i := range w.nodes {
		if !w.drain {
			w.nodes[i].connections = 0
		}
	}
}

func (w *world) monitor(i int) error {
	return w.act(i, func(a Agent, s clusterip.Spec) error { return a.Monitor(context.Background(), s, 0) })
}

func (w *world) sweep(i int) error {
	return w.act(i, func(a Agent, s clusterip.Spec) error {
		_, err := a.sweep(context.Background(), s, func() {})
		return err
	})
}

func (w *world) leave(i int) error {
	var err error
	if w.owner == i {
		err = w.stop(i)
	}
	w.lose(i, handover.Left)
	return err
}

// mostCalls is how many calls a process that is killed may have made: no action makes more.
const mostCalls = 8

// stopKilled is a stop that fails, so that the node is to be fenced; until then it is a member.
func (w *world) stopKilled(calls, i int) error {
	w.breakUnlessDrained()
	err := w.killed(calls, i, func(a Agent, s clusterip.Spec) error { return a.Stop(context.Background(), s) })
	w.lose(i, handover.Lost)
	return err
}

// set changes the parameter; Pacemaker reloads the instance that runs, and nothing else.
func (w *world) set(drain bool) error {
	w.drain, w.off = drain, !drain
	if w.owner == nowhere || w.fails || w.nodes[w.owner].place != handover.Member {
		return nil
	}
	return w.act(w.owner, func(a Agent, s clusterip.Spec) error { return a.Reload(context.Background(), s) })
}

// endDrains lets so much time pass that the kernels end all drains and adoptions. Before that, the owner's monitors have seen it come.
func (w *world) endDrains() error {
	if w.owner != nowhere && !w.fails && w.nodes[w.owner].place == handover.Member {
		moves := &w.nodes[w.owner].state.Tables.Moves
		for i := range moves.Adopting {
			moves.Adopting[i].Left = handover.GracePeriod - 1
		}
		if err := w.monitor(w.owner); err != nil {
			return err
		}
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state.Tables.Moves.Drains(worldBucket) {
			n.connections = 0
		}
		n.state.Tables.Moves.Draining, n.state.Tables.Moves.Adopting = nil, nil
	}
	return nil
}

// lose takes a node out of the cluster; what it said goes with it.
func (w *world) lose(i int, to handover.Membership) {
	w.gone++
	n := &w.nodes[i]
	n.place, n.probed, n.hearing, n.heard = to, false, hearsAll, memory{}
	delete(w.said.words, n.name)
	delete(w.said.told, n.name)
}

func (w *world) fence(i int) {
	w.nodes[i].die()
	w.nodes[i].place = handover.Dead
	if w.owner == i {
		w.owner, w.fails = nowhere, false
	}
}

func (n *worldNode) die() {
	n.alive, n.connections, n.state = false, 0, freshNode()
}

func (w *world) join(i int) {
	w.nodes[i].alive, w.nodes[i].place = true, handover.Member
}

// fault says what is wrong now: a connection that lives on a node may be reset by no other, nor be given up by its own.
func (w *world) fault() error {
	for i, n := range w.nodes {
		if !n.alive || n.connections == 0 {
			continue
		}
		if !n.state.Owns(worldBucket) && !n.state.Tables.Moves.Drains(worldBucket) {
			return fmt.Errorf("%s has given up a connection that lives", nodeName(i))
		}
		for j, other := range w.nodes {
			_, adopts := other.state.Tables.Moves.Adoption(worldBucket)
			if j != i && other.alive && other.state.Owns(worldBucket) && !adopts {
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
		w.nodes[i].hearing, w.nodes[i].heard = hearsAll, memory{}
		if w.nodes[i].place == handover.Lost {
			w.fence(i)
		}
	}
	for i := range w.nodes {
		if w.nodes[i].place == handover.Member && !w.nodes[i].probed {
			if err := w.probe(i); err != nil {
				return err
			}
		}
	}
	first := slices.IndexFunc(w.nodes, func(n worldNode) bool { return n.place == handover.Member })
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
		return n.place == handover.Left || n.place == handover.Member && n.state.Tables.Moves.Drains(worldBucket)
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
	if !w.drain {
		laid := w.nodes[w.owner].state.Tables.Laid
		if laid != nil && laid.Drains {
			return fmt.Errorf("the drains are over, and %s still asks about connections", nodeName(w.owner))
		}
		return nil // what deputies were told of drains counts no more
	}
	for node, word := range w.said.words {
		if told := w.said.told[node]; word.Drain > 0 || len(told.Drainers) > 0 || len(word.Others) > 0 && word.Nonce != told.Supersedes {
			return fmt.Errorf("the drains are over, and %s says %v, and was told %v", node, word, told)
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
			tooLate := ""
			for _, e := range v.world.events() {
				if e.within != "" && e.within == tooLate {
					continue
				}
				histories++
				w := v.clone()
				history := append(slices.Clip(v.events), e.name)
				err := e.happen(w)
				if errors.Is(err, errNotReached) {
					tooLate = e.within
					continue
				}
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
		nodes  int
		drain  bool
		begins string // with what
		more   int    // events: with fewer nodes there are fewer orders
	}{
		{2, true, "nothing", 2},
		{2, true, "a client of node1", 1},
		{2, false, "a client of node1", 1},
		{3, true, "a client of node1", 0},
		{3, false, "a client of node1", 0},
		{4, true, "a client of node1", 0},
	} {
		t.Run(fmt.Sprintf("%d nodes, drain at first %t, begin with %s", row.nodes, row.drain, row.begins), func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			w := newWorld(row.nodes, row.drain)
			if row.begins != "nothing" {
				if err := w.begin(); err != nil {
					t.Fatal(err)
				}
			}
			depth := *depth + row.more
			states, histories, found, err := explore(w, depth)
			t.Logf(
				"%d states, %d events tried, up to %d one after the other, in %s", states, histories, depth, time.Since(begin).Round(time.Millisecond),
			)
			if err != nil {
				t.Errorf("%v, after:\n  %s", err, strings.Join(found, "\n  "))
			}
		})
	}
}

// begin has the bucket run on the first node, which all others know, and serve a client.
func (w *world) begin() error {
	for i := range w.nodes {
		if err := w.probe(i); err != nil {
			return err
		}
	}
	err := errors.Join(w.start(0), w.monitor(0))
	w.nodes[0].connections = 1
	return err
}
