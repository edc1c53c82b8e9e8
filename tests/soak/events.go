package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The kinds of events, by their names in the log.
const (
	standby        kind = "into standby"
	unstandby      kind = "out of standby"
	flap           kind = "in and out of standby, three times without a pause"
	ban            kind = "banned"
	lift           kind = "ban lifted"
	stopPacemaker  kind = "Pacemaker stopped"
	startPacemaker kind = "Pacemaker started"
	stopCluster    kind = "Pacemaker and Corosync stopped"
	startCluster   kind = "Corosync and Pacemaker started"

	powerOff      kind = "loses power"
	killAll       kind = "all processes killed"
	hang          kind = "all processes stopped (SIGSTOP)"
	killCorosync  kind = "Corosync killed"
	cutManagement kind = "management cable cut"
	back          kind = "is to be back"

	blink         kind = "LAN cable out for a moment"
	deleteAddress kind = "the address deleted"
	deleteFilter  kind = "the MAC filter deleted"
	killSweeper   kind = "sweeper killed"
	killAgent     kind = "a monitor of the agent killed"

	refresh    kind = "history refreshed"
	refreshAll kind = "history of all nodes refreshed"
	cleanup    kind = "failures cleaned up"
	setDrain   kind = "drain changed"
)

type kind string

// event is something that happens to a node, or to the cluster.
type event struct {
	pause time.Duration // since the last one began
	kind  kind
	node  int // in lab.Hosts, or everywhere
	drain int // seconds, that setDrain sets
}

const (
	hosts      = 3
	everywhere = -1

	// The two values of drain: both are longer than a run's cut cables and fencing.
	usualDrain, otherDrain = 600, 500
)

func (e event) String() string {
	what := string(e.kind)
	if e.kind == setDrain {
		what = fmt.Sprintf("drain set to %d s", e.drain)
	}
	if e.node == everywhere {
		return what
	}
	return fmt.Sprintf("node%d: %s", e.node+1, what)
}

// place is where a host is, as far as the events decide it.
type place int

const (
	running          place = iota // its cluster software too
	withoutPacemaker              // stopped cleanly; its Corosync still votes
	withoutCorosync               // likewise, and without a vote
	dying                         // it is to be fenced, and has to boot again
)

// host is a host of the model.
type host struct {
	place           place
	standby, banned bool
	disturbed       bool // for a moment: it may not serve what is new
}

// inOrder returns whether the host can own buckets.
func (h host) inOrder() bool { return h.place == running && !h.standby && !h.banned && !h.disturbed }

// votes returns whether the host counts for the quorum.
func (h host) votes() bool { return h.place == running || h.place == withoutPacemaker }

// model is the state that the events lead to. It decides which events may happen next. The cluster may not have reached it yet.
type model struct {
	hosts [hosts]host
	drain int
}

// kills returns whether the host has to be fenced after it.
func (k kind) kills() bool {
	return slices.Contains([]kind{powerOff, killAll, hang, killCorosync, cutManagement}, k)
}

// allowed returns whether the cluster can go on: it has a quorum, and some host can own buckets.
func (m model) allowed() bool {
	votes, inOrder := 0, 0
	for _, h := range m.hosts {
		if h.votes() {
			votes++
		}
		if h.inOrder() {
			inOrder++
		}
	}
	return votes > hosts/2 && inOrder > 0
}

// rule is when a kind of event may happen to a host, and how it changes the host.
type rule struct {
	kind   kind
	weight int // how often, beside the others
	may    func(host) bool
	then   func(*host) // nil: the host is as before, after a moment
}

// A host whose Pacemaker was stopped cleanly does not die: the cluster could not notice (docs/draining.md). Only the address and the MAC
// filter are damaged: without them, a node receives no packets. Without its tables it would answer twice, or lose its drains. Damage is
// only done where buckets run, because a monitor has to find it. Of the agent's processes only monitors are killed: after a failed stop
// Pacemaker fences the node.
var rules = []rule{
	{standby, 3, func(h host) bool { return h.place == running && !h.standby }, func(h *host) { h.standby = true }},
	{unstandby, 4, func(h host) bool { return h.place != dying && h.standby }, func(h *host) { h.standby = false }},
	{flap, 4, func(h host) bool { return h.place == running && !h.standby }, nil},
	{ban, 2, func(h host) bool { return h.place == running && !h.banned }, func(h *host) { h.banned = true }},
	{lift, 4, func(h host) bool { return h.place != dying && h.banned }, func(h *host) { h.banned = false }},
	{stopPacemaker, 3, isRunning, func(h *host) { h.place = withoutPacemaker }},
	{startPacemaker, 6, func(h host) bool { return h.place == withoutPacemaker }, func(h *host) { h.place = running }},
	{stopCluster, 2, isRunning, func(h *host) { h.place = withoutCorosync }},
	{startCluster, 6, func(h host) bool { return h.place == withoutCorosync }, func(h *host) { h.place = running }},
	{powerOff, 1, isRunning, dies},
	{killAll, 1, isRunning, dies},
	{hang, 1, isRunning, dies},
	{killCorosync, 1, isRunning, dies},
	{cutManagement, 2, isRunning, dies},
	{back, 8, func(h host) bool { return h.place == dying }, func(h *host) { h.place = running }},
	{blink, 2, isRunning, nil},
	{deleteAddress, 2, host.inOrder, nil},
	{deleteFilter, 1, host.inOrder, nil},
	{killSweeper, 1, func(h host) bool { return h.place != dying }, nil},
	{killAgent, 2, host.inOrder, nil},
	{refresh, 1, isRunning, nil},
}

func isRunning(h host) bool { return h.place == running }
func dies(h *host)          { h.place = dying }

// clusterRules are those of events of the cluster. crm_resource waits for an answer of each host whose history it refreshes.
var clusterRules = []struct {
	kind   kind
	weight int
	may    func(model) bool
}{{refreshAll, 2, model.allRun}, {cleanup, 2, model.allowed}, {setDrain, 4, model.allowed}}

// allRun returns whether the cluster software of all hosts runs.
func (m model) allRun() bool {
	return !slices.ContainsFunc(m.hosts[:], func(h host) bool { return h.place != running })
}

// after returns what an event makes of the model, and whether it may happen.
func (m model) after(r rule, node int) (model, bool) {
	h := m.hosts[node]
	if !r.may(h) {
		return m, false
	}
	next := m
	if r.then == nil {
		next.hosts[node].disturbed = true
		return m, next.allowed()
	}
	r.then(&next.hosts[node])
	return next, next.allowed()
}

// sequence is the events of a seed: always the same, whatever their effects.
type sequence struct {
	model  model
	random *rand.Rand
}

func newSequence(seed uint64) *sequence {
	return &sequence{model: model{drain: usualDrain}, random: rand.New(rand.NewPCG(seed, 0))}
}

// next chooses an event that may happen.
func (s *sequence) next() event {
	type choice struct {
		event
		weight int
		then   model
	}
	var choices []choice
	total := 0
	add := func(c choice) {
		choices = append(choices, c)
		total += c.weight
	}
	for _, r := range rules {
		for node := range hosts {
			if then, may := s.model.after(r, node); may {
				add(choice{event{kind: r.kind, node: node}, r.weight, then})
			}
		}
	}
	for _, r := range clusterRules {
		if !r.may(s.model) {
			continue
		}
		c := choice{event{kind: r.kind, node: everywhere}, r.weight, s.model}
		if r.kind == setDrain {
			c.drain = usualDrain + otherDrain - s.model.drain
			c.then.drain = c.drain
		}
		add(c)
	}
	pick := s.random.IntN(total)
	i := slices.IndexFunc(choices, func(c choice) bool {
		pick -= c.weight
		return pick < 0
	})
	s.model = choices[i].then
	choices[i].pause = s.pause()
	return choices[i].event
}

// pause is between two events. In a third of all cases the cluster has hardly noticed the first one when the next begins.
func (s *sequence) pause() time.Duration {
	longest := []time.Duration{300 * time.Millisecond, 3 * time.Second, 8 * time.Second}[s.random.IntN(3)]
	return time.Duration(s.random.Int64N(longest.Milliseconds())) * time.Millisecond
}

// fencingTakes is how long the power switch takes in the run of a seed.
func fencingTakes(seed uint64) time.Duration {
	times := []time.Duration{0, 3 * time.Second, 8 * time.Second}
	return times[rand.New(rand.NewPCG(seed, 1)).IntN(len(times))]
}

// restore returns the events that restore everything.
func (m model) restore() []event {
	var events []event
	for node := range m.hosts {
		for _, kind := range []kind{back, startPacemaker, startCluster, unstandby, lift} {
			r := rules[slices.IndexFunc(rules, func(r rule) bool { return r.kind == kind })]
			if then, may := m.after(r, node); may {
				m = then
				events = append(events, event{kind: kind, node: node})
			}
		}
	}
	if m.drain != usualDrain {
		events = append(events, event{kind: setDrain, node: everywhere, drain: usualDrain})
	}
	return append(events, event{kind: cleanup, node: everywhere})
}
