package handover

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Announcement is what a node publishes about itself and a bucket.
type Announcement struct {
	// Drain is how long, at most, the node serves connections of the bucket after it has published this; a duration, because clocks may
	// differ. 0: it serves none.
	Drain  time.Duration
	Layout string // of which layout the bucket is (clusterip.Layout.Identity)
	Nonce  string // new each time
	// Complete: the node has read all drains of the bucket in this layout, so a node that nobody names drains nothing.
	Complete bool
	// TakesOver: the node can take over a bucket that lingers.
	TakesOver bool
	// Lingers: the node may linger with the bucket, too.
	Lingers Lingering
	// Others may drain the bucket too, as far as the node knew when it released the bucket or joined the cluster.
	Others []Drainer
}

// Drainer is a node that serves connections of a bucket, for that long at most since it was published.
type Drainer struct {
	Node string
	Left time.Duration
}

// Lingering is what another node must know to take over a bucket that this node has released and still answers for.
type Lingering struct {
	For time.Duration // at most, since it was published; 0: it does not linger
	Key string        // see clusterip.TakeoverKey
}

// Lingerer is a node that lingers with a bucket.
type Lingerer struct {
	Node string
	Lingering
}

// Relayed is what the owner of a bucket stores at another node, the relay, about drains of the bucket.
type Relayed struct {
	Drainers []Drainer
	// Lingering are the nodes that linger with the bucket, or did so when this was stored.
	Lingering []Lingerer
	// Supersedes is the nonce of the relay's own announcement whose Others no longer count, because the owner knows better.
	Supersedes string
}

// NodeState is the state of a node, as Pacemaker sees it. The zero value is that of a node that it does not name.
type NodeState struct {
	Membership   Membership
	Unrecognised string // what was not understood, if Membership is Unknown for that reason
}

// Membership says whether a node is in the cluster, and if not, why.
type Membership int

// Of the nodes without an announcement, only a dead one certainly serves nobody.
const (
	Unknown Membership = iota
	Member             // in the cluster
	Left               // its cluster software was stopped cleanly; its kernel keeps running
	Lost               // it crashed or is cut off, and is not fenced yet
	Dead               // it was fenced; or it was lost, and fencing is off
)

// AnyNode stands for old owners whose names are not known. No node has such a name.
const AnyNode = "?"

// GracePeriod is how much longer than the drains an adoption lasts. A virtual machine may be paused for that long. Monitors are seldom more
// than a minute apart, so one of them runs within the period and ends the adoption.
const GracePeriod = 65 * time.Second

// relayCount is at how many nodes a drain is stored. A drain is forgotten only if all of them leave and the bucket's owner fails.
const relayCount = 2

// longestNames bounds, in bytes, the node names stored with a bucket in the kernel, whose comments have 256 bytes.
const longestNames = 200

// View is what a node has read about a bucket. The keys of the maps are names of nodes.
type View struct {
	Self          string
	Layout        string // of the bucket
	Announcements map[string]Announcement
	Relayed       map[string]Relayed
	Nodes         map[string]NodeState
}

// AllDrain reports whether all old owners of an adoption announce that they drain. Then it continues as it is, and the rest of the view,
// which takes further queries, need not be read.
func (v View) AllDrain(from []string) bool {
	return !slices.ContainsFunc(from, func(node string) bool {
		a, announced := v.Announcements[node]
		return !announced || a.Drain == 0
	})
}

// mayServe reports whether a node may serve connections of the bucket. named: another node names it as a drainer.
func (v View) mayServe(node string, named bool) bool {
	a, announced := v.Announcements[node]
	switch {
	case announced && a.Layout == v.Layout:
		return a.Drain > 0
	case announced: // of another layout: unknown which connections of this layout's bucket it has
		return a.Drain > 0 || !v.Complete()
	case v.Nodes[node].Membership == Dead:
		return false
	case v.Nodes[node].Membership == Member:
		return true
	default:
		return named || !v.Complete()
	}
}

// Complete reports whether any announcement is complete. If none is, because all nodes joined after those that knew had left, nodes that
// have left may drain although no node names them.
func (v View) Complete() bool {
	for _, a := range v.Announcements {
		if a.Complete && a.Layout == v.Layout {
			return true
		}
	}
	return false
}

// KnowsAllDrains reports whether a drain time is known for each of these old owners.
func (v View) KnowsAllDrains(from []string) bool {
	times := v.drainTimes()
	return !slices.ContainsFunc(from, func(node string) bool {
		_, known := times[node]
		return !known
	})
}

// Remaining returns the old owners that an adoption still needs, and how long it may last. With no old owner it is over. A drain time that
// is longer than this node's own prolongs the adoption.
func (v View) Remaining(from []string, left, drain time.Duration) ([]string, time.Duration) {
	times := v.drainTimes()
	anyNode := slices.Contains(from, AnyNode)
	named := map[string]bool{}
	for _, node := range slices.AppendSeq(without(from, AnyNode), maps.Keys(times)) {
		named[node] = true
	}
	unannounced := false
	var nodes []string
	for node := range v.knownNodes(named) {
		_, announced := v.Announcements[node]
		switch {
		case node == v.Self || !v.mayServe(node, named[node]):
		case !announced && !named[node] && v.Nodes[node].Membership == Member:
			unannounced = unannounced || !v.Complete() // a member that never runs the agent never announces anything
		default:
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	if anyNode && unannounced {
		nodes = slices.Insert(nodes, 0, AnyNode)
	}
	short := len(strings.Join(nodes, ",")) <= longestNames
	for _, node := range nodes {
		longer := times[node]
		if !short { // a node that is not in the list seems new each time, and a relayed announcement has no end of its own
			longer = v.Announcements[node].Drain
		}
		if longer > drain && !slices.Contains(from, node) {
			left = max(left, longer+GracePeriod)
		}
	}
	if !short {
		return []string{AnyNode}, left
	}
	return nodes, left
}

// knownNodes returns the named nodes and all others of the view.
func (v View) knownNodes(named map[string]bool) map[string]bool {
	all := maps.Clone(named)
	for node := range v.Announcements {
		all[node] = true
	}
	for node := range v.Nodes {
		all[node] = true
	}
	return all
}

// drainTimes returns the times of all known drains. A node's own announcement wins over what others publish about it.
func (v View) drainTimes() map[string]time.Duration {
	times := map[string]time.Duration{}
	add := func(drainers []Drainer) {
		for _, d := range drainers {
			if _, announced := v.Announcements[d.Node]; !announced {
				times[d.Node] = max(times[d.Node], d.Left)
			}
		}
	}
	for _, relayed := range v.Relayed {
		add(relayed.Drainers)
	}
	for node, a := range v.Announcements {
		if a.Nonce != v.Relayed[node].Supersedes {
			add(a.Others)
		}
		if a.Drain > 0 {
			times[node] = a.Drain
		}
	}
	return times
}

// Drainers returns the other nodes that are known to drain the bucket, by name.
func (v View) Drainers() []Drainer {
	var all []Drainer
	for node, left := range v.drainTimes() {
		if node != v.Self {
			all = append(all, Drainer{Node: node, Left: left})
		}
	}
	slices.SortFunc(all, func(a, b Drainer) int { return strings.Compare(a.Node, b.Node) })
	return all
}

// MayLinger reports whether this node may linger with the bucket when it releases it: some other member can take it over, and none of them
// cannot. unprobed are the members without an announcement. Pacemaker probes them before it starts anything there, so each may soon have
// one.
func (v View) MayLinger() (may bool, unprobed []string) {
	others := 0
	for node, state := range v.Nodes {
		if node == v.Self || state.Membership != Member {
			continue
		}
		others++
		if a, announced := v.Announcements[node]; !announced {
			unprobed = append(unprobed, node)
		} else if !a.TakesOver {
			return false, nil
		}
	}
	slices.Sort(unprobed)
	return others > 0 && len(unprobed) == 0, unprobed
}

// Lingerers returns the other nodes that may linger with the bucket, by name. A node's own announcement wins over what is relayed.
func (v View) Lingerers() []Lingerer {
	all := map[string]Lingerer{}
	for _, relayed := range v.Relayed {
		for _, l := range relayed.Lingering {
			_, announced := v.Announcements[l.Node]
			if !announced && v.Nodes[l.Node].Membership != Dead && l.For >= all[l.Node].For {
				all[l.Node] = l
			}
		}
	}
	for node, a := range v.Announcements {
		if a.Lingers.For > 0 && a.Layout == v.Layout {
			all[node] = Lingerer{node, a.Lingers}
		}
	}
	delete(all, v.Self)
	return slices.SortedFunc(maps.Values(all), func(a, b Lingerer) int { return strings.Compare(a.Node, b.Node) })
}

// HidesLingerers reports whether a node may linger with the bucket although nobody names it: no announcement is complete, so nodes without
// one may drain, and linger too. But only the last owner lingers, and it names itself at its relays: if any node is named, no other does.
func (v View) HidesLingerers() bool {
	if v.Complete() || len(v.Lingerers()) > 0 {
		return false
	}
	for node, state := range v.Nodes {
		if _, announced := v.Announcements[node]; node != v.Self && !announced && state.Membership != Dead {
			return true
		}
	}
	return false
}

// OtherLayoutLingers returns how long, at most, any node lingers with buckets of another layout, which have other packets.
func (v View) OtherLayoutLingers() time.Duration {
	longest := time.Duration(0)
	for _, a := range v.Announcements {
		if a.Layout != v.Layout {
			longest = max(longest, a.Lingers.For)
		}
	}
	return longest
}

// relayCandidates returns the nodes that can store a relayed announcement.
func (v View) relayCandidates() map[string]bool {
	candidates := map[string]bool{}
	for node := range v.Announcements {
		candidates[node] = true
	}
	for node, p := range v.Nodes {
		if p.Membership == Member {
			candidates[node] = true
		}
	}
	delete(candidates, v.Self)
	return candidates
}

// NeedsNodeStates reports whether the announcements name too few nodes that can be relays.
func (v View) NeedsNodeStates() bool { return len(v.relayCandidates()) < relayCount }

// OldOwners returns the other nodes that may still drain the bucket when this node, which has adopted it from these, releases it too.
func (v View) OldOwners(from []string, left time.Duration) []Drainer {
	nodes := without(from, AnyNode)
	if len(nodes) < len(from) {
		nodes = append(nodes, slices.Collect(maps.Keys(v.drainTimes()))...)
	}
	slices.Sort(nodes)
	var oldOwners []Drainer
	for _, node := range slices.Compact(nodes) {
		if node != v.Self && v.mayServe(node, true) {
			oldOwners = append(oldOwners, Drainer{Node: node, Left: left})
		}
	}
	return oldOwners
}

// RelayDrain returns what to store at which relay when this node begins to drain the bucket, and perhaps to linger. oldOwners may drain it
// too.
func (v View) RelayDrain(drain time.Duration, lingers Lingering, oldOwners []Drainer) map[string]Relayed {
	drainers := append([]Drainer{{Node: v.Self, Left: drain}}, oldOwners...)
	changes := map[string]Relayed{}
	for _, relay := range v.relays() {
		others := slices.DeleteFunc(slices.Clone(drainers), func(d Drainer) bool { return d.Node == relay })
		relayed := Relayed{Drainers: others, Supersedes: v.Announcements[relay].Nonce}
		if lingers.For > 0 {
			relayed.Lingering = []Lingerer{{v.Self, lingers}}
		}
		changes[relay] = relayed
	}
	return changes
}

func (v View) relays() []string {
	candidates := slices.Sorted(maps.Keys(v.relayCandidates()))
	return candidates[:min(len(candidates), relayCount)]
}

// RelayAdoption returns what to store at which relay so that the next owner still knows all old owners without an announcement if this
// node, which adopts from these, crashes. Each such old owner is to be stored at relayCount nodes, if there are so many. Nobody lingers any
// more: this node owns the bucket.
func (v View) RelayAdoption(from []string, left time.Duration) map[string]Relayed {
	changes := map[string]Relayed{}
	for node, relayed := range v.Relayed {
		if len(relayed.Lingering) > 0 {
			relayed.Lingering = nil
			changes[node] = relayed
		}
	}
	candidates := slices.Sorted(maps.Keys(v.relayCandidates()))
	for _, node := range without(from, AnyNode) {
		if _, announced := v.Announcements[node]; announced {
			continue
		}
		knows := func(candidate string) bool {
			return slices.ContainsFunc(v.Relayed[candidate].Drainers, func(d Drainer) bool { return d.Node == node })
		}
		known := 0
		for _, candidate := range candidates {
			if knows(candidate) {
				known++
			}
		}
		for _, candidate := range candidates {
			if known >= relayCount {
				break
			}
			if candidate == node || knows(candidate) {
				continue
			}
			relayed, begun := changes[candidate]
			if !begun {
				relayed = v.Relayed[candidate]
			}
			relayed.Drainers = append(slices.Clone(relayed.Drainers), Drainer{Node: node, Left: left})
			changes[candidate] = relayed
			known++
		}
	}
	return changes
}

// ClearRelayed returns what to store at which node when the adoption is over, so that no later owner waits without need.
func (v View) ClearRelayed() map[string]Relayed {
	changes := map[string]Relayed{}
	for node, relayed := range v.Relayed {
		if len(relayed.Drainers)+len(relayed.Lingering) > 0 {
			changes[node] = Relayed{Supersedes: v.Announcements[node].Nonce}
		}
	}
	for node, a := range v.Announcements {
		if len(a.Others) > 0 && v.Relayed[node].Supersedes != a.Nonce {
			changes[node] = Relayed{Supersedes: a.Nonce}
		}
	}
	return changes
}

func without(nodes []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return node == one })
}
