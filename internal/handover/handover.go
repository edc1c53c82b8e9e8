package handover

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Word is what a node says of itself and a bucket.
type Word struct {
	Drain  time.Duration // it still serves connections of the bucket, for that long at most since it said so: clocks may differ. 0: it serves none
	Layout string        // which layout's bucket it speaks of (clusterip.Layout.Identity)
	Mark   string        // tells the word from those that the node said before
	// Complete says that the node has heard of all drains of the bucket in this layout: of whom nothing is said, then, there is none.
	Complete bool
	// Others are those who may drain it too, as the node knows from the time when it gave the bucket up, or came into the cluster.
	Others []Drainer
}

// Drainer is a node of which deputies were told that it serves connections of a bucket, for that long at most since they were told.
type Drainer struct {
	Node string
	Left time.Duration
}

// Notice is what a node was told by the bucket's owner.
type Notice struct {
	Drainers []Drainer // who drains it
	Heard    string    // the mark of the node's own word whose Others do not count any more, because the owner knows better
}

// Presence is where a node is, as the cluster manager sees it. The zero value is that of a node of which nothing is known.
type Presence struct {
	Place Place
	Said  string // what could not be understood, if the place is Unknown for that
}

// Place is where a node can be.
type Place int

// The places. Of those that have no word, only one that is Dead serves nobody for sure.
const (
	Unknown Place = iota // it cannot be told
	Member               // in the cluster
	Left                 // its cluster manager was stopped in order; its kernel goes on
	Lost                 // it has crashed, or is only cut off; it is to be fenced
	Dead                 // it was fenced; or it is lost, and nobody fences
)

// Unnamed stands for former owners that are not known by name: any other node may serve connections of the bucket. No node's name is like it.
const Unnamed = "?"

// Grace is how much longer than the drains an adoption lasts. A virtual machine may be paused that long, and monitors are seldom more than a minute
// apart: one of them sees the end come.
const Grace = 65 * time.Second

// deputies is how many other nodes are told of a drain. They must not all go while the bucket's owner goes too.
const deputies = 2

// longestNames bounds, in bytes, the names that are kept with a bucket in the kernel, where a comment has 256.
const longestNames = 200

// View is what a node has heard of a bucket.
type View struct {
	Self   string
	Layout string              // of the bucket
	Words  map[string]Word     // what nodes say of themselves
	Told   map[string]Notice   // what nodes were told of others
	Places map[string]Presence // where the nodes are
}

// StillDrain tells without a look at Told and Places, which takes further questions, whether an adoption goes on as it is: all from whom the
// bucket is adopted say themselves that they drain.
func (v View) StillDrain(from []string) bool {
	return !slices.ContainsFunc(from, func(node string) bool {
		word, spoken := v.Words[node]
		return !spoken || word.Drain == 0
	})
}

// serves tells whether a node may serve connections of the bucket. Of a node without a word, named is whether anybody named it.
func (v View) serves(node string, named bool) bool {
	word, spoken := v.Words[node]
	switch {
	case spoken && word.Layout == v.Layout:
		return word.Drain > 0
	case spoken: // of another layout: it does not say which connections of this one it has
		return word.Drain > 0 || !v.Complete()
	case v.Places[node].Place == Dead:
		return false
	case v.Places[node].Place == Member:
		return true
	default:
		return named || !v.Complete()
	}
}

// Complete tells whether a node that has heard of all drains is among those that speak. If not, because all of them came when who knew had gone,
// nodes that have left may drain, and nobody says so.
func (v View) Complete() bool {
	for _, word := range v.Words {
		if word.Complete && word.Layout == v.Layout {
			return true
		}
	}
	return false
}

// Knows tells whether this node, which adopts from these nodes, has heard of all drains itself: each of them is named, or says itself that it drains.
func (v View) Knows(from []string) bool {
	stated := v.stated()
	return !slices.ContainsFunc(from, func(node string) bool {
		_, known := stated[node]
		return !known
	})
}

// Next is what is left of an adoption: from whom, and for how long at most. From nobody, it is over. A drain that began with a longer time than
// this node's own is waited for as long.
func (v View) Next(from []string, left, drain time.Duration) ([]string, time.Duration) {
	stated := v.stated()
	unnamed := slices.Contains(from, Unnamed)
	named := map[string]bool{}
	for _, node := range slices.AppendSeq(without(from, Unnamed), maps.Keys(stated)) {
		named[node] = true
	}
	silent := false
	var nodes []string
	for node := range v.all(named) {
		_, spoken := v.Words[node]
		switch {
		case node == v.Self || !v.serves(node, named[node]):
		case !spoken && !named[node] && v.Places[node].Place == Member:
			silent = silent || !v.Complete() // one that never runs the agent stays silent
		default:
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	if unnamed && silent {
		nodes = slices.Insert(nodes, 0, Unnamed)
	}
	short := len(strings.Join(nodes, ",")) <= longestNames
	for _, node := range nodes {
		longer := stated[node]
		if !short { // who is not named seems new each time: what deputies were told does not end by itself
			longer = v.Words[node].Drain
		}
		if longer > drain && !slices.Contains(from, node) {
			left = max(left, longer+Grace)
		}
	}
	if !short {
		return []string{Unnamed}, left
	}
	return nodes, left
}

// all are the nodes that are known of in any way.
func (v View) all(named map[string]bool) map[string]bool {
	all := maps.Clone(named)
	for node := range v.Words {
		all[node] = true
	}
	for node := range v.Places {
		all[node] = true
	}
	return all
}

// stated are the times of all drains that are known: what a node says of itself beats what is said of it.
func (v View) stated() map[string]time.Duration {
	stated := map[string]time.Duration{}
	hear := func(drainers []Drainer) {
		for _, d := range drainers {
			if _, spoken := v.Words[d.Node]; !spoken {
				stated[d.Node] = max(stated[d.Node], d.Left)
			}
		}
	}
	for _, told := range v.Told {
		hear(told.Drainers)
	}
	for node, word := range v.Words {
		if word.Mark != v.Told[node].Heard {
			hear(word.Others)
		}
		if word.Drain > 0 {
			stated[node] = word.Drain
		}
	}
	return stated
}

// Drainers are those other nodes that drain the bucket as far as is known, for people.
func (v View) Drainers() []Drainer {
	var all []Drainer
	for node, left := range v.stated() {
		if node != v.Self {
			all = append(all, Drainer{Node: node, Left: left})
		}
	}
	slices.SortFunc(all, func(a, b Drainer) int { return strings.Compare(a.Node, b.Node) })
	return all
}

// members are the nodes that can be told something.
func (v View) members() map[string]bool {
	members := map[string]bool{}
	for node := range v.Words {
		members[node] = true
	}
	for node, p := range v.Places {
		if p.Place == Member {
			members[node] = true
		}
	}
	delete(members, v.Self)
	return members
}

// NeedsPlaces tells whether words alone do not tell enough nodes that can be deputies.
func (v View) NeedsPlaces() bool { return len(v.members()) < deputies }

// Former are the others that may drain the bucket while this node gives it up too, which has adopted it from these.
func (v View) Former(from []string, left time.Duration) []Drainer {
	nodes := without(from, Unnamed)
	if len(nodes) < len(from) {
		nodes = append(nodes, slices.Collect(maps.Keys(v.stated()))...)
	}
	slices.Sort(nodes)
	var former []Drainer
	for _, node := range slices.Compact(nodes) {
		if node != v.Self && v.serves(node, true) {
			former = append(former, Drainer{Node: node, Left: left})
		}
	}
	return former
}

// Announce is what deputies are to be told when this node begins to drain the bucket, beside others.
func (v View) Announce(drain time.Duration, former []Drainer) map[string]Notice {
	drainers := append([]Drainer{{Node: v.Self, Left: drain}}, former...)
	tell := map[string]Notice{}
	for _, deputy := range v.deputies() {
		others := slices.DeleteFunc(slices.Clone(drainers), func(d Drainer) bool { return d.Node == deputy })
		tell[deputy] = Notice{Drainers: others, Heard: v.Words[deputy].Mark}
	}
	return tell
}

func (v View) deputies() []string {
	members := slices.Sorted(maps.Keys(v.members()))
	return members[:min(len(members), deputies)]
}

// PassOn is what deputies are to be told so that a crash of this node, which adopts, does not make the others forget those who cannot speak: of
// each of them two members shall know, as far as there are so many.
func (v View) PassOn(from []string, left time.Duration) map[string]Notice {
	tell := map[string]Notice{}
	members := slices.Sorted(maps.Keys(v.members()))
	for _, node := range without(from, Unnamed) {
		if _, spoken := v.Words[node]; spoken {
			continue
		}
		knows := func(member string) bool {
			return slices.ContainsFunc(v.Told[member].Drainers, func(d Drainer) bool { return d.Node == node })
		}
		known := 0
		for _, member := range members {
			if knows(member) {
				known++
			}
		}
		for _, member := range members {
			if known >= deputies {
				break
			}
			if member == node || knows(member) {
				continue
			}
			notice, begun := tell[member]
			if !begun {
				notice = v.Told[member]
			}
			notice.Drainers = append(slices.Clone(notice.Drainers), Drainer{Node: node, Left: left})
			tell[member] = notice
			known++
		}
	}
	return tell
}

// Forget is what nodes are to be told when the adoption is over, so that no later owner waits for nothing.
func (v View) Forget() map[string]Notice {
	tell := map[string]Notice{}
	for node, told := range v.Told {
		if len(told.Drainers) > 0 {
			tell[node] = Notice{Heard: v.Words[node].Mark}
		}
	}
	for node, word := range v.Words {
		if len(word.Others) > 0 && v.Told[node].Heard != word.Mark {
			tell[node] = Notice{Heard: word.Mark}
		}
	}
	return tell
}

func without(nodes []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return node == one })
}
