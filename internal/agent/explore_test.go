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
	"testing/synctest"
	"time"

	"ocf-clusterip/internal/clusterip"

	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
)

// How far TestEveryOrderOfEvents goes. Each further event takes six times as long: 5 are minutes, 7 are hours.
var depth = flag.Int("depth", 2, "how many events after a beginning TestEveryOrderOfEvents tries, in every order")

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

	linger   bool      // the parameter is above 0; it has an effect only with a drain
	trouble  trouble   // of the next start
	promised bool      // since the last stop somebody must answer what is new: everything has worked, and has arrived
	clock    time.Time // until when the lingering nodes have been brought up to date
	wrong    error     // what was seen during an action and must not happen

	meanwhile *life // what happens while the next action is under way
}

// trouble is what a start meets while a bucket lingers elsewhere.
type trouble int

const (
	none trouble = iota
	requestsLost
	confirmationsLost
	nothingSent // the node cannot even send requests
	noAnswer    // Pacemaker does not answer
)

func (f trouble) String() string {
	return map[trouble]string{
		requestsLost: "its requests are lost", confirmationsLost: "the confirmations are lost", nothingSent: "its requests cannot be sent",
		noAnswer: "Pacemaker does not answer",
	}[f]
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

// key identifies it. A takeover key is different in each history: what counts is whether its node still confirms requests with it.
func (m published) key(confirms func(node, key string) bool) string {
	var b strings.Builder
	lingerer := func(node string, l handover.Lingering) {
		if l.For > 0 {
			fmt.Fprintf(&b, " %s lingers %t", node, confirms(node, l.Key))
		}
	}
	for _, node := range slices.Sorted(maps.Keys(m.announcements)) {
		fmt.Fprintf(
			&b, " %s:%s %v %t %t", node, m.announcements[node].Drain, m.announcements[node].Others, m.announcements[node].Complete,
			m.announcements[node].Nonce == m.relayed[node].Supersedes,
		)
		lingerer(node, m.announcements[node].Lingers)
	}
	for _, node := range slices.Sorted(maps.Keys(m.relayed)) {
		relayed := m.relayed[node]
		if len(relayed.Drainers)+len(relayed.Lingering) > 0 {
			fmt.Fprintf(&b, " %s<%v", node, relayed.Drainers)
		}
		for _, l := range relayed.Lingering {
			lingerer(l.Node, l.Lingering)
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
	former      bool      // it has the former version, which knows nothing of lingering
	keys        []string  // with which others may have taken the bucket over from its kernel
}

const (
	worldBucket clusterip.Bucket = 2

	relayCount = 2 // not the package's own constant, so that a wrong one is found
)

func newWorld(nodes int, drain, linger bool) *world {
	w := &world{published: nothingPublished(), owner: nowhere, drain: drain, linger: linger, clock: time.Now()}
	for i := range nodes {
		w.nodes = append(w.nodes, worldNode{name: nodeName(i), state: freshNode(), alive: true, membership: handover.Member})
	}
	return w
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }

func (w *world) clone() *world {
	c := &world{
		nodes: slices.Clone(w.nodes), published: w.published.clone(), owner: w.owner, fails: w.fails, drain: w.drain, off: w.off, gone: w.gone,
		overlaps: w.overlaps, held: w.held, linger: w.linger, promised: w.promised, clock: time.Now(),
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		n.state.Addresses, n.state.Groups = slices.Clone(n.state.Addresses), slices.Clone(n.state.Groups)
		n.state.Filters, n.state.Routes = slices.Clone(n.state.Filters), slices.Clone(n.state.Routes)
		n.state.Tables.Owned = slices.Clone(n.state.Tables.Owned)
		n.state.Tables.Moves = n.state.Tables.Moves.Without()
		n.state.Tables.Lingering, n.keys = slices.Clone(n.state.Tables.Lingering), slices.Clone(n.keys)
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
	fmt.Fprintf(&b, "%d %t %t %t %d %t %t %t", w.owner, w.fails, w.drain, w.off, gone, w.overlaps, w.held, w.promised)
	for _, n := range w.nodes {
		t := n.state.Tables
		fmt.Fprintf(
			&b, "|%t %d %t %d %t %v %s %v", n.alive, n.membership, n.probed, n.connections, t.Present, t.Owned, t.Moves, t.Moves.Announced,
		)
		fmt.Fprintf(&b, " %t %v %v", n.lingers(), t.Lingered, t.Expecting)
		if n.delivery != upToDate {
			fmt.Fprintf(&b, " %d%s", n.delivery, n.delivered.key(w.confirms))
		}
	}
	b.WriteString("|" + w.published.key(w.confirms))
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

	last    time.Time // when it has made its last call
	waits   bool      // it has made a pause since it has changed something
	counted int       // its calls
}

// read and write are calls of the process. It is killed before a write only. After a pause it reads again what it has read before, and an
// event before such a call is the same as before the one before.
func (l *life) read(do func()) {
	now := time.Now()
	l.waits = l.waits || !l.last.IsZero() && now.After(l.last)
	if l.last = now; !l.waits {
		l.call()
	}
	do()
}

func (l *life) write(do func()) error {
	if l.calls == 0 {
		return errKilled
	}
	l.calls--
	l.waits, l.last = false, time.Now()
	l.call()
	do()
	return nil
}

func (l *life) call() {
	l.counted++
	if l.before--; l.before == -1 {
		l.happen()
	}
}

// worldKernel is the kernel of a node, as a process sees it that may be killed.
type worldKernel struct {
	*fakeKernel
	world *world
	here  int
	life  *life
	// passedOn is until when the nodes from which the process has taken the bucket over pass packets on.
	passedOn *time.Time
}

// on does something with the node's state as it is now: others may have changed it, or time may have passed.
func (k worldKernel) on(do func() error) error {
	k.world.pass()
	n := &k.world.nodes[k.here]
	k.State = n.state
	err := do()
	n.state = k.State
	return err
}

func (k worldKernel) Observe(ctx context.Context, addresses []netip.Addr, macs []clusterip.MAC) (seen clusterip.State, err error) {
	return seen, k.on(func() error {
		seen, err = k.fakeKernel.Observe(ctx, addresses, macs)
		return err
	})
}

func (k worldKernel) ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error) {
	seen, err := k.Observe(ctx, []netip.Addr{address}, nil)
	return seen.Tables, err
}

func (k worldKernel) AttachEarlyDrop(
	ctx context.Context, state clusterip.State, layout clusterip.Layout,
) (attached clusterip.EarlyDrop, reasons []string, err error) {
	return attached, reasons, k.on(func() error {
		attached, reasons, err = k.fakeKernel.AttachEarlyDrop(ctx, state, layout)
		return err
	})
}

func (k worldKernel) Apply(ctx context.Context, step clusterip.Step) error {
	if err := k.life.write(func() {}); err != nil {
		return err
	}
	change, _ := step.(clusterip.ChangeBuckets)
	n := &k.world.nodes[k.here]
	err := k.on(func() error {
		if slices.Contains(change.Own, worldBucket) && !n.lingers() && time.Now().After(*k.passedOn) {
			k.world.gap("%s owns the bucket, and nobody has answered for a while", n.name)
		}
		return k.fakeKernel.Apply(ctx, step)
	})
	if changed := slices.Concat(change.Own, change.Release); slices.Contains(changed, worldBucket) && err == nil {
		n.keys = nil
	}
	if change.Linger != nil && err == nil {
		n.keys = append(n.keys, change.Linger.Key.String())
	}
	k.world.checkAnswers()
	return err
}

func (k worldKernel) RequestTakeover(
	ctx context.Context, _ clusterip.Layout, _ clusterip.Bucket, offers []clusterip.Offer,
) (confirmed int, err error) {
	if k.life.read(func() {}); k.world.trouble == nothingSent {
		return 0, errRefused
	}
	var ends time.Time
	for _, offer := range offers {
		if k.world.request(offer.Key.String()) {
			confirmed++
		} else if offer.Ends.After(ends) {
			ends = offer.Ends
		}
	}
	err = clusterip.Pause(ctx, time.Until(ends))
	if confirmed > 0 {
		err = errors.Join(err, clusterip.Pause(ctx, clusterip.SettleTime))
		*k.passedOn = time.Now().Add(clusterip.PassTime)
	}
	return confirmed, err
}

// confirms reports whether a node's kernel confirms requests with a key.
func (w *world) confirms(node, key string) bool {
	return slices.ContainsFunc(w.nodes, func(n worldNode) bool {
		return n.name == node && n.alive && slices.Contains(n.state.Tables.Lingered, worldBucket) && slices.Contains(n.keys, key)
	})
}

// request has the node with this key end its lingering, and reports whether its confirmation arrives.
func (w *world) request(key string) (confirmed bool) {
	w.pass()
	for i := range w.nodes {
		if n := &w.nodes[i]; w.confirms(n.name, key) && w.trouble != requestsLost {
			n.state.Tables.Lingering = nil
			confirmed = w.trouble != confirmationsLost
		}
	}
	return confirmed
}

// lingers reports whether the node answers what is new for the bucket, without owning it.
func (n worldNode) lingers() bool {
	_, lingers := n.state.Tables.Lingers(worldBucket)
	return n.alive && lingers && !n.state.Owns(worldBucket)
}

// pass ends what lingers while an action waits.
func (w *world) pass() {
	passed := time.Since(w.clock)
	if w.clock = time.Now(); passed == 0 {
		return
	}
	for i := range w.nodes {
		t := &w.nodes[i].state.Tables
		left := slices.Clone(t.Lingering)
		for j := range left {
			left[j].Left -= passed
		}
		lingered := w.nodes[i].lingers()
		t.Lingering = slices.DeleteFunc(left, func(l clusterip.Linger) bool { return l.Left <= 0 })
		if lingered && !w.nodes[i].lingers() {
			w.gap("%s does not linger any more, and nobody has taken the bucket over", w.nodes[i].name)
		}
	}
}

// gap notes that nobody answers what is new, which may happen after a fault.
func (w *world) gap(format string, args ...any) {
	if w.promised {
		w.wrong = cmp.Or(w.wrong, fmt.Errorf(format, args...))
	}
}

// checkAnswers notes whether two nodes answer what is new.
func (w *world) checkAnswers() {
	var who []string
	for _, n := range w.nodes {
		if n.alive && n.state.Owns(worldBucket) {
			who = append(who, n.name+", which owns the bucket")
		} else if n.lingers() {
			who = append(who, n.name+", which lingers with it")
		}
	}
	if len(who) > 1 {
		w.wrong = cmp.Or(w.wrong, fmt.Errorf("what is new is answered by %s", strings.Join(who, ", and by ")))
	}
}

// visible is what the node's Pacemaker has received.
func (c worldCluster) visible() published {
	if n := c.nodes[c.here]; n.delivery != upToDate {
		return n.delivered
	}
	return c.published
}

func (c worldCluster) Announcements(
	_ context.Context, _ netip.Addr, bucket clusterip.Bucket,
) (announcements map[string]handover.Announcement, err error) {
	if bucket != worldBucket {
		return nil, nil
	}
	if c.trouble == noAnswer && c.here == c.owner { // of the node that starts
		return nil, errRefused
	}
	c.life.read(func() { announcements = maps.Clone(c.visible().announcements) })
	return announcements, nil
}

func (c worldCluster) Relayed(context.Context, netip.Addr, clusterip.Bucket) (relayed map[string]handover.Relayed, err error) {
	if c.trouble == noAnswer && c.here == c.owner { // of the node that starts
		return nil, errRefused
	}
	c.life.read(func() { relayed = maps.Clone(c.visible().relayed) })
	return relayed, nil
}

// Publish stores an announcement. For a node that has left it stores nothing, and returns no error.
func (c worldCluster) Publish(_ context.Context, _ netip.Addr, _ clusterip.Bucket, node string, announcement handover.Announcement) error {
	if c.trouble == noAnswer && c.here == c.owner { // of the node that starts
		return errRefused
	}
	return c.life.write(func() {
		n := &c.nodes[c.here]
		announcement.TakesOver = announcement.TakesOver && !n.former
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
	c.life.read(func() {
		all = map[string]handover.NodeState{}
		for _, n := range c.nodes {
			all[n.name] = handover.NodeState{Membership: n.membership}
		}
	})
	return all, nil
}

// act runs an action of a node's agent.
func (w *world) act(i int, do func(Agent, clusterip.Spec) error) error {
	life := &life{calls: -1, before: -1}
	if w.meanwhile != nil {
		life, w.meanwhile = w.meanwhile, nil
	}
	return w.actFor(life, i, do)
}

// killed runs an action that is killed after some changes.
func (w *world) killed(calls, i int, do func(Agent, clusterip.Spec) error) error {
	life := &life{calls: calls, before: -1}
	err := w.actFor(life, i, do)
	if life.calls > 0 {
		return errNotReached
	}
	if err != nil && !errors.Is(err, errKilled) && !slices.Contains(
		[]ocf.ExitCode{ocf.ErrGeneric, ocf.NotRunning}, ocf.CodeOf(err),
	) {
		return err
	}
	return nil
}

func (w *world) actFor(life *life, i int, do func(Agent, clusterip.Spec) error) error {
	kernel := &fakeKernel{}
	kernel.open = func() map[clusterip.Bucket]int { return map[clusterip.Bucket]int{worldBucket: w.nodes[i].connections} }
	agent, _ := agentOn(worldKernel{kernel, w, i, life, new(time.Time)})
	agent.Cluster, agent.Node, agent.StartSweeper = worldCluster{w, life, i}, nodeName(i), func() error { return nil }
	spec := drainingSpec(worldBucket)
	spec.Remember = 1 // with other buckets, a start itself ends its adoption, if it can
	if spec.Linger = lingerTime; !w.linger || w.nodes[i].former {
		spec.Linger = 0
	}
	if !w.drain {
		spec.Drain, spec.Linger = 0, 0
	}
	return do(agent, spec)
}

// An event changes a world. It returns what must not have happened.
type event struct {
	name   string
	node   int    // where it happens, or nowhere
	acts   bool   // it is an action of the agent
	within string // the action during which it happens, or that is killed, if any: it may end before that
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
	if slices.ContainsFunc(w.nodes, func(n worldNode) bool { return n.lingers() || len(n.state.Tables.Expecting) > 0 }) {
		all = append(all, event{name: "the time of lingering is over", node: nowhere, beside: true, happen: func(w *world) error {
			w.endLingering()
			return nil
		}})
	}
	for i, n := range w.nodes {
		action := func(what string, beside bool, happen func(*world) error) {
			all = append(all, event{name: what + " on " + n.name, node: i, acts: true, beside: beside, happen: happen})
		}
		owners := func(what string, happen func(*world) error) { action(what, false, happen) }
		killed := func(what string, happen func(w *world, calls int) error) {
			for calls := range mostCalls {
				within := fmt.Sprintf("%s on %s is killed", what, n.name)
				name := fmt.Sprintf("%s before its change %d", within, calls+1)
				all = append(all, event{name: name, node: i, within: within, happen: func(w *world) error { return happen(w, calls) }})
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
			for _, trouble := range w.troubles(i) {
				owners(fmt.Sprintf("start, and %s,", trouble), func(w *world) error {
					w.trouble, w.promised = trouble, false
					err := w.start(i)
					w.trouble = none
					return err
				})
			}
			killed("start", func(w *world, calls int) error {
				w.owner, w.fails, w.promised = i, true, false
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
		}
		if (works && w.owner == i && !w.fails || n.lingers()) && n.connections == 0 {
			fate("gets a client", false, func(w *world) { w.nodes[i].connections = 1 })
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
			// A node takes longer to join than a bucket lingers: no node lingers that has not seen whether the others can take over.
			if !n.former {
				fate("joins", true, func(w *world) { w.join(i) })
			} else if !slices.ContainsFunc(w.nodes, worldNode.lingers) {
				fate("joins", false, func(w *world) { w.join(i) })
			}
			if !w.held && !n.former {
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

// troubles returns what may go wrong in a start on a node.
func (w *world) troubles(i int) []trouble {
	if slices.ContainsFunc(w.nodes, worldNode.lingers) && !w.nodes[i].former {
		return []trouble{requestsLost, confirmationsLost, nothingSent, noAnswer}
	}
	return nil
}

func (w *world) start(i int) error {
	w.owner, w.gone = i, 1
	w.promised = w.promised && w.meanwhile == nil && w.nodes[i].delivery != joining
	w.breakUnlessDrained()
	return w.act(i, func(a Agent, s clusterip.Spec) error { return a.Start(context.Background(), s) })
}

func (w *world) stop(i int) error {
	w.owner, w.fails = nowhere, false
	if installed := w.nodes[i].state.Tables.Installed; installed == nil || !installed.Drains {
		w.nodes[i].connections = 0 // without drain they may break
	}
	w.breakUnlessDrained()
	promised := w.meanwhile == nil && w.mustLinger(i)
	w.promised = false
	err := w.act(i, func(a Agent, s clusterip.Spec) error { return a.Stop(context.Background(), s) })
	w.promised = promised
	return err
}

// mustLinger reports whether a node must linger with the bucket if it stops now.
func (w *world) mustLinger(i int) bool {
	t, others := w.nodes[i].state.Tables, 0
	for j, n := range w.nodes {
		if n.membership != handover.Member {
			continue
		}
		if n.delivery != upToDate || !n.probed {
			return false
		}
		if j != i {
			others++
		}
	}
	isFormer := func(n worldNode) bool { return n.former && n.membership == handover.Member }
	return w.drain && w.linger && others > 0 && !slices.ContainsFunc(w.nodes, isFormer) && w.nodes[i].state.Owns(worldBucket) &&
		t.Installed != nil && !t.Installed.Lingers.IsZero()
}

// endLingering lets so much time pass that the kernels end all lingering.
func (w *world) endLingering() {
	w.promised = false
	for i := range w.nodes {
		t := &w.nodes[i].state.Tables
		t.Lingering, t.Expecting = nil, nil
	}
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
		a.lookAtLingering(context.Background(), s, map[clusterip.Bucket]bool{})
		_, err := a.sweep(context.Background(), s, func() {})
		return err
	})
}

func (w *world) leave(i int) error {
	var err error
	if w.owner == i {
		err = w.stop(i)
	}
	promised := w.promised && err == nil
	w.lose(i, handover.Left)
	w.promised = promised && w.nodes[i].lingers()
	return err
}

// mostCalls is more than any action makes.
const mostCalls = 20

// stopKilled is a stop that fails, so that the node is to be fenced; until then it is a member.
func (w *world) stopKilled(calls, i int) error {
	w.breakUnlessDrained()
	err := w.killed(calls, i, func(a Agent, s clusterip.Spec) error { return a.Stop(context.Background(), s) })
	w.lose(i, handover.Lost)
	return err
}

// set changes the parameter; Pacemaker reloads the instance that runs, and nothing else.
func (w *world) set(drain bool) error {
	// A start without lingering asks nobody: a change is not made while a bucket moves.
	w.endLingering()
	w.drain, w.off = drain, !drain
	if w.owner == nowhere || w.fails || w.nodes[w.owner].membership != handover.Member {
		return nil
	}
	return w.act(w.owner, func(a Agent, s clusterip.Spec) error { return a.Reload(context.Background(), s) })
}

// endDrains lets so much time pass that the kernels end all drains and adoptions. The owner's monitors have run before the end.
func (w *world) endDrains() error {
	w.endLingering()
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
		n.state.Tables.Lingered, n.keys = nil, nil
	}
	return nil
}

// lose removes a node from the cluster, with everything stored under its name.
func (w *world) lose(i int, to handover.Membership) {
	w.gone++
	w.promised = false
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
	n.alive, n.connections, n.state, n.keys = false, 0, freshNode(), nil
}

func (w *world) join(i int) {
	w.nodes[i].alive, w.nodes[i].membership = true, handover.Member
}

// fault returns what is wrong now: no other node may reset a connection that a node serves, and the node itself may not stop serving it.
// Never may two nodes answer what is new.
func (w *world) fault() error {
	w.pass()
	if w.checkAnswers(); w.wrong != nil {
		return w.wrong
	}
	answers := func(n worldNode) bool { return n.alive && n.state.Owns(worldBucket) || n.lingers() }
	if w.promised && !slices.ContainsFunc(w.nodes, answers) {
		return errors.New("nobody answers what is new")
	}
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
	for _, relayed := range w.published.relayed {
		for _, l := range relayed.Lingering {
			if _, announced := w.published.announcements[l.Node]; !announced && w.drain {
				return fmt.Errorf("%s owns the bucket, and it is still relayed that %s lingers with it", nodeName(w.owner), l.Node)
			}
		}
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
		if announcement.Drain > 0 || announcement.Lingers.For > 0 || len(relayed.Drainers)+len(relayed.Lingering) > 0 ||
			len(announcement.Others) > 0 && announcement.Nonce != relayed.Supersedes {
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
		linger bool
		former bool   // the last node has the former version
		begins string // with what
		more   int    // events: with fewer nodes there are fewer orders
	}{
		{2, true, true, false, "nothing", 2},
		{2, true, true, false, "a client of node1", 1},
		{2, true, true, true, "a client of node1", 1},
		{2, true, false, false, "a client of node1", 1},
		{2, false, true, false, "a client of node1", 1},
		{3, true, true, false, "a client of node1", 0},
		{3, true, true, true, "a client of node1", 0},
		{3, true, false, false, "a client of node1", 0},
		{3, false, true, false, "a client of node1", 0},
		{4, true, true, false, "a client of node1", 0},
		{2, true, true, false, "other buckets", 1},
		{3, true, true, false, "other buckets", 0},
	} {
		name := fmt.Sprintf("%d nodes, drain at first %t, linger %t, former version %t, begin with %s",
			row.nodes, row.drain, row.linger, row.former, row.begins)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			depth := *depth + row.more
			states, histories := 0, 0
			synctest.Test(t, func(t *testing.T) { // so that an action that waits takes no time
				w := newWorld(row.nodes, row.drain, row.linger)
				w.nodes[row.nodes-1].former = row.former
				if row.begins == "other buckets" {
					if err := w.occupy(); err != nil {
						t.Fatal(err)
					}
				}
				if row.begins != "nothing" {
					if err := w.begin(); err != nil {
						t.Fatal(err)
					}
				}
				var found []string
				var err error
				if states, histories, found, err = explore(w, depth); err != nil {
					t.Errorf("%v, after:\n  %s", err, strings.Join(found, "\n  "))
				}
			})
			t.Logf(
				"%d states, %d events tried, up to %d one after the other, in %s", states, histories, depth, time.Since(begin).Round(time.Millisecond),
			)
		})
	}
}

// occupy gives each node another bucket, which neither moves nor has clients. (They have no announcements of their own here.)
func (w *world) occupy() error {
	for i := range w.nodes {
		other := newWorld(1, w.drain, w.linger)
		if err := other.start(0); err != nil {
			return err
		}
		state, bucket := other.nodes[0].state, worldBucket+1+clusterip.Bucket(i)
		state.Tables.Owned, state.Tables.Moves = []clusterip.Bucket{bucket}, clusterip.Moves{}
		state.EarlyDrop.Passed = slices.Clone(state.Tables.Owned)
		w.nodes[i].state = state
	}
	return nil
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
