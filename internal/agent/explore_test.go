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
// agent's own, on fake kernels. Pacemaker and the clients' connections are modelled. Events change a world; each has a name.
type world struct {
	nodes     []worldNode
	published published // Pacemaker's attributes
	owner     int       // the index of the node where the bucket runs, or nowhere
	fails     bool      // an action of the bucket has failed there: stop follows
	drain     bool      // the parameter is above 0
	off       bool      // it was set to 0 once; that happens once in a history
	gone      int       // how many nodes have left or failed since the bucket was last started, and one for the node that started it

	overlaps bool // two actions overlapped; that happens once in a history
	held     bool // a node received announcements late; that too

	meanwhile *life // what happens while the next action is under way
}

// nowhere stands for no node.
const nowhere = -1

// published is what the nodes have published about the bucket.
type published struct {
	announcements map[string]handover.Announcement
	relayed       map[string]handover.Relayed
}

func nothingPublished() published {
	return published{map[string]handover.Announcement{}, map[string]handover.Relayed{}}
}

func (m published) clone() published {
	return published{maps.Clone(m.announcements), maps.Clone(m.relayed)}
} // announcements and lists are never changed in place

func (m published) key() string {
	var b strings.Builder
	for _, node := range slices.Sorted(maps.Keys(m.announcements)) {
		fmt.Fprintf(
			&b, " %s:%s %v %t %t", node, m.announcements[node].Drain, m.announcements[node].Others, m.announcements[node].Complete,
			m.announcements[node].Nonce == m.relayed[node].Supersedes,
		)
	}
	for _, node := range slices.Sorted(maps.Keys(m.relayed)) {
		if relayed := m.relayed[node].Drainers; len(relayed) > 0 {
			fmt.Fprintf(&b, " %s<%v", node, relayed)
		}
	}
	return b.String()
}

// delivery is what a node's Pacemaker has received from the others.
type delivery int

const (
	upToDate delivery = iota
	behind            // everything up to a moment; with its own next announcement it has received everything
	joining           // it has joined, and has received nothing yet but its own announcement
)

type worldNode struct {
	name        string
	state       clusterip.State     // of its kernel
	alive       bool                // its kernel runs
	membership  handover.Membership // as the others see it
	probed      bool                // since it joined
	connections int                 // that it serves
	delivery    delivery
	delivered   published // unless it is up to date
}

const (
	worldBucket clusterip.Bucket = 2

	relayCount = 2 // not the package's own constant, so that a wrong one is found
)

func newWorld(nodes int, drain bool) *world {
	w := &world{published: nothingPublished(), owner: nowhere, drain: drain}
	for i := range nodes {
		w.nodes = append(w.nodes, worldNode{name: nodeName(i), state: freshNode(), alive: true, membership: handover.Member})
	}
	return w
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }

func (w *world) clone() *world {
	c := &world{
		nodes: slices.Clone(w.nodes), published: w.published.clone(), owner: w.owner, fails: w.fails, drain: w.drain, off: w.off, gone: w.gone,
		overlaps: w.overlaps, held: w.held,
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		n.state.Addresses, n.state.Groups = slices.Clone(n.state.Addresses), slices.Clone(n.state.Groups)
		n.state.Filters = slices.Clone(n.state.Filters)
		n.state.Tables.Owned = slices.Clone(n.state.Tables.Owned)
		n.state.Tables.Moves = n.state.Tables.Moves.Without()
		n.delivered = n.delivered.clone()
	}
	return c
}

// key identifies a world.
func (w *world) key() string {
	var b strings.Builder
	gone := 0
	if len(w.nodes) > 1+relayCount { // elsewhere it makes no difference
		gone = w.gone
	}
	fmt.Fprintf(&b, "%d %t %t %t %d %t %t", w.owner, w.fails, w.drain, w.off, gone, w.overlaps, w.held)
	for _, n := range w.nodes {
		t := n.state.Tables
		fmt.Fprintf(
			&b, "|%t %d %t %d %t %v %s %v", n.alive, n.membership, n.probed, n.connections, t.Present, t.Owned, t.Moves, t.Moves.Announced,
		)
		if n.delivery != upToDate {
			fmt.Fprintf(&b, " %d%s", n.delivery, n.delivered.key())
		}
	}
	b.WriteString("|" + w.published.key())
	return b.String()
}

// worldCluster is Pacemaker as a node's agent sees it.
type worldCluster struct {
	*world
	life *life
	here int
}

// life is how many calls a process may still make before it is killed.
type life struct {
	calls  int
	before int    // the call before which another event happens
	happen func() // the event
}

// read and write are calls of the process. It is killed before a write only.
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

// mortalKernel is the kernel of a process that may be killed.
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

// visible is what the node's Pacemaker has received.
func (c worldCluster) visible() published {
	if n := c.nodes[c.here]; n.delivery != upToDate {
		return n.delivered
	}
	return c.published
}

func (c worldCluster) Announcements(
	context.Context, netip.Addr, clusterip.Bucket,
) (announcements map[string]handover.Announcement, err error) {
	return announcements, c.life.read(func() { announcements = maps.Clone(c.visible().announcements) })
}

func (c worldCluster) Relayed(context.Context, netip.Addr, clusterip.Bucket) (relayed map[string]handover.Relayed, err error) {
	return relayed, c.life.read(func() { relayed = maps.Clone(c.visible().relayed) })
}

// Publish stores an announcement. For a node that has left it stores nothing, and returns no error.
func (c worldCluster) Publish(_ context.Context, _ netip.Addr, _ clusterip.Bucket, node string, announcement handover.Announcement) error {
	return c.life.write(func() {
		n := &c.nodes[c.here]
		if n.membership != handover.Member || node != n.name {
			return
		}
		c.published.announcements[node] = announcement
		switch n.delivery {
		case behind:
			n.delivery, n.delivered = upToDate, published{}
		case joining:
			n.delivered.announcements[node] = announcement
		}
	})
}

func (c worldCluster) Relay(_ context.Context, _ netip.Addr, _ clusterip.Bucket, node string, relayed handover.Relayed) error {
	return c.life.write(func() {
		for _, n := range c.nodes {
			if n.name == node && n.membership == handover.Member && c.nodes[c.here].membership == handover.Member {
				c.published.relayed[node] = relayed
			}
		}
	})
}

func (c worldCluster) NodeStates(context.Context) (all map[string]handover.NodeState, err error) {
	return all, c.life.read(func() {
		all = map[string]handover.NodeState{}
		for _, n := range c.nodes {
			all[n.name] = handover.NodeState{Membership: n.membership}
		}
	})
}

// act runs an action of a node's agent.
func (w *world) act(i int, do func(Agent, clusterip.Spec) error) error {
	life := &life{calls: -1, before: -1}
	if w.meanwhile != nil {
		life, w.meanwhile = w.meanwhile, nil
	}
	return w.actFor(life, i, do)
}

// killed runs an action that is killed after some calls.
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

// An event changes a world. It returns what must not have happened.
type event struct {
	name   string
	node   int    // where it happens, or nowhere
	acts   bool   // it is an action of the agent
	within string // the action during which it happens, if any
	beside bool   // it may happen while another node acts
	happen func(*world) error
}

// events returns what can happen now: single events, and events during an action.
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

// errNotReached: the action makes fewer calls.
var errNotReached = errors.New("not reached")

// single returns the single events.
func (w *world) single() []event {
	var all []event
	// When the last member leaves, everything published is deleted. A node that joins then must see or fence all others before anything starts
	// (startup-fencing, wait_for_all). With more nodes than relays, all relays may leave before the bucket is started; or all but the one
	// that starts it, and then that one.
	mayNotGo := len(w.nodes) > 1+relayCount && w.gone >= relayCount || 1 >= len(
		slices.DeleteFunc(slices.Clone(w.nodes), func(n worldNode) bool { return n.membership != handover.Member }),
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
		works := n.membership == handover.Member && n.alive
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
		if n.alive && n.membership == handover.Member && !mayNotGo {
			fate("is cut off", true, func(w *world) { w.lose(i, handover.Lost) })
			fate("crashes", true, func(w *world) { w.lose(i, handover.Lost); w.nodes[i].die() })
		}
		if n.membership == handover.Lost {
			fate("is fenced", true, func(w *world) { w.fence(i) })
		}
		if n.membership == handover.Left || n.membership == handover.Dead {
			fate("joins", true, func(w *world) { w.join(i) })
			if !w.held {
				fate("joins, and knows nothing yet", true, func(w *world) { w.join(i); w.hold(i, joining, nothingPublished()) })
			}
		}
		if works && !w.held {
			fate("falls behind", true, func(w *world) { w.hold(i, behind, w.published.clone()) })
		}
		if n.delivery != upToDate {
			fate("has caught up", true, func(w *world) { w.nodes[i].delivery, w.nodes[i].delivered = upToDate, published{} })
		}
		if n.alive && len(n.state.Tables.Moves.Announced) > 0 {
			action("a look of the sweeper", true, func(w *world) error { return w.sweep(i) })
			if n.connections > 0 {
				fate("loses its last client", true, func(w *world) { w.nodes[i].connections = 0 })
			}
		}
	}
	return all
}

// hold stops the delivery of the others' announcements to a node.
func (w *world) hold(i int, as delivery, delivered published) {
	w.held, w.nodes[i].delivery, w.nodes[i].delivered = true, as, delivered
}

// mayStart reports whether Pacemaker would start the bucket: not before all nodes are probed (pcmk__order_probes in lib/pacemaker), nor
// while a node is to be fenced (native_start_constraints; stonith_done).
func (w *world) mayStart() bool {
	return w.introduced() && !slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.membership == handover.Lost })
}

func (w *world) introduced() bool {
	return !slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.membership == handover.Member && !n.probed })
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
	if installed := w.nodes[i].state.Tables.Installed; installed == nil || !installed.Drains {
		w.nodes[i].connections = 0 // without drain they may break
	}
	w.breakUnlessDrained()
	return w.act(i, func(a Agent, s clusterip.Spec) error { return a.Stop(context.Background(), s) })
}

// breakUnlessDrained ends the bucket's connections on all nodes: without drain a move may break them.
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

// mostCalls is more than any action makes.
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
	if w.owner == nowhere || w.fails || w.nodes[w.owner].membership != handover.Member {
		return nil
	}
	return w.act(w.owner, func(a Agent, s clusterip.Spec) error { return a.Reload(context.Background(), s) })
}

// endDrains lets so much time pass that the kernels end all drains and adoptions. The owner's monitors have run before the end.
func (w *world) endDrains() error {
	if w.owner != nowhere && !w.fails && w.nodes[w.owner].membership == handover.Member {
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

// lose removes a node from the cluster, with everything stored under its name.
func (w *world) lose(i int, to handover.Membership) {
	w.gone++
	n := &w.nodes[i]
	n.membership, n.probed, n.delivery, n.delivered = to, false, upToDate, published{}
	delete(w.published.announcements, n.name)
	delete(w.published.relayed, n.name)
}

func (w *world) fence(i int) {
	w.nodes[i].die()
	w.nodes[i].membership = handover.Dead
	if w.owner == i {
		w.owner, w.fails = nowhere, false
	}
}

func (n *worldNode) die() {
	n.alive, n.connections, n.state = false, 0, freshNode()
}

func (w *world) join(i int) {
	w.nodes[i].alive, w.nodes[i].membership = true, handover.Member
}

// fault returns what is wrong now: no other node may reset a connection that a node serves, and the node itself may not stop serving it.
func (w *world) fault() error {
	for i, n := range w.nodes {
		if !n.alive || n.connections == 0 {
			continue
		}
		if !n.state.Owns(worldBucket) && !n.state.Tables.Moves.Drains(worldBucket) {
			return fmt.Errorf("%s no longer serves an open connection", nodeName(i))
		}
		for j, other := range w.nodes {
			_, adopts := other.state.Tables.Moves.Adoption(worldBucket)
			if j != i && other.alive && other.state.Owns(worldBucket) && !adopts {
				return fmt.Errorf("%s resets a connection that %s serves", nodeName(j), nodeName(i))
			}
		}
	}
	return nil
}

// settle lets Pacemaker finish, and returns what is wrong then: the bucket must run, clients of dead nodes must get resets, and
// after the drains nothing of them may be left.
func (w *world) settle() error {
	for i := range w.nodes {
		w.nodes[i].delivery, w.nodes[i].delivered = upToDate, published{}
		if w.nodes[i].membership == handover.Lost {
			w.fence(i)
		}
	}
	for i := range w.nodes {
		if w.nodes[i].membership == handover.Member && !w.nodes[i].probed {
			if err := w.probe(i); err != nil {
				return err
			}
		}
	}
	first := slices.IndexFunc(w.nodes, func(n worldNode) bool { return n.membership == handover.Member })
	if first < 0 {
		return nil // no node is left
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
		if n.alive && len(n.state.Tables.Moves.Announced) > 0 {
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
		// A node that has left cannot publish that it has finished: the adoption lasts until the end of the drain time.
		return n.membership == handover.Left || n.membership == handover.Member && n.state.Tables.Moves.Drains(worldBucket)
	}
	if len(adoption.From) > 0 && !slices.ContainsFunc(adoption.From, waitsFor) {
		return fmt.Errorf("%s adopts from %v, and none of them drains", nodeName(w.owner), adoption.From)
	}
	if err := w.end(); err != nil {
		return err
	}
	// An announcement that outlasts its drain makes the next owner's clients wait, and ends with that adoption.
	if err := errors.Join(w.stop(w.owner), w.start(first), w.monitor(first), w.end()); err != nil {
		return err
	}
	if !w.drain {
		installed := w.nodes[w.owner].state.Tables.Installed
		if installed != nil && installed.Drains {
			return fmt.Errorf("the drains are over, and %s still has rules for drains", nodeName(w.owner))
		}
		return nil // relayed announcements no longer count
	}
	for node, announcement := range w.published.announcements {
		relayed := w.published.relayed[node]
		if announcement.Drain > 0 || len(relayed.Drainers) > 0 || len(announcement.Others) > 0 && announcement.Nonce != relayed.Supersedes {
			return fmt.Errorf("the drains are over, and %s publishes %v, and stores %v", node, announcement, relayed)
		}
	}
	return nil
}

// end lets all drains end, and the agents clean up after them.
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

// explore tries all orders of events up to a depth, breadth first, so that the first fault that it finds has the shortest history.
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

// begin starts the bucket on the first node, where it serves a client.
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
