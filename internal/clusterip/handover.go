package clusterip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Cluster is the cluster manager: what the nodes tell each other through it. None of it lasts longer than the node that says it.
type Cluster interface {
	// Statements returns what each node says of a bucket.
	Statements(ctx context.Context, address netip.Addr, bucket Bucket) (Statements, error)
	// State keeps a statement under a node's name.
	State(ctx context.Context, address netip.Addr, bucket Bucket, node string, statement Statement) error
	// Presence tells where the cluster's nodes are. A node that it does not name is one of which nothing is known.
	Presence(ctx context.Context) (map[string]Presence, error)
}

// Statements are what is said of one bucket: who drains it, by the name of the node under which it is kept. Each node speaks for itself. For a node
// that has left the cluster, whose own words went with it, those speak who were told.
type Statements map[string]Statement

// Statement is what is kept under a node's name.
type Statement struct {
	Spoken   bool      // the node has said of itself whether it drains; else this is only what it was told of others
	Drainers []Drainer // itself, if it drains; and others
}

// Drainer is a node that still serves the connections of a bucket that it gave away, for that long at most since it said so: the
// nodes' clocks may differ.
type Drainer struct {
	Node string
	Left time.Duration
}

// Unnamed stands for a former owner that could not be told: any other node may still serve connections of the bucket. No node's name is like
// it.
const Unnamed = "?"

// Presence is where a node is, as the cluster manager sees it. The zero value is that of a node of which nothing is known.
type Presence struct {
	Place Place
	Said  string // what could not be understood, if the place is Unknown for that
}

// Place is where a node can be.
type Place int

// The places. Only one that is Dead serves nobody: a wrong guess would make two nodes answer.
const (
	Unknown Place = iota // it cannot be told
	Member               // in the cluster
	Left                 // its cluster manager was stopped in order; its kernel goes on
	Lost                 // it has crashed, or is only cut off; it is to be fenced
	Dead                 // it was fenced; or it is lost, and nobody fences
)

// Drainers are those who drain the bucket beside self, each once. What a node says of itself beats what others say of it.
func (s Statements) Drainers(self string) []Drainer {
	longest := map[string]time.Duration{}
	for speaker, said := range s {
		for _, d := range said.Drainers {
			if d.Node != self && d.Left > 0 && (speaker == d.Node || !s[d.Node].Spoken) {
				longest[d.Node] = max(longest[d.Node], d.Left)
			}
		}
	}
	var all []Drainer
	for node, left := range longest {
		all = append(all, Drainer{Node: node, Left: left})
	}
	slices.SortFunc(all, func(a, b Drainer) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// hasFinished tells whether a node says of itself that it does not drain.
func (s Statements) hasFinished(node string) bool {
	said := s[node]
	return said.Spoken && !slices.ContainsFunc(said.Drainers, func(d Drainer) bool { return d.Node == node && d.Left > 0 })
}

// longestNames bounds the names of former owners that are kept with a bucket in the kernel, where a comment has 256 bytes.
const longestNames = 200

// adoption is what it means for the bucket's new owner; from nobody, if nobody drains. Where the names would be too long, anybody may drain.
func (s Statements) adoption(bucket Bucket, self string) Adoption {
	adoption := Adoption{Bucket: bucket}
	for _, d := range s.Drainers(self) {
		adoption.Left = max(adoption.Left, d.Left)
		adoption.From = append(adoption.From, d.Node)
	}
	if len(strings.Join(adoption.From, ",")) > longestNames {
		adoption.From = []string{Unnamed}
	}
	return adoption
}

// revised are the statements that change when what nodes were told of others is revised: a word is replaced, or not kept.
func (s Statements) revised(revise func(Drainer) (now Drainer, keep bool)) Statements {
	changed := Statements{}
	for node, said := range s {
		var list []Drainer
		same := true
		for _, d := range said.Drainers {
			now, keep := d, true
			if d.Node != node {
				now, keep = revise(d)
			}
			if keep {
				list = append(list, now)
			}
			same = same && keep && now == d
		}
		if !same {
			changed[node] = Statement{Spoken: said.Spoken, Drainers: list}
		}
	}
	return changed
}

// forgetting are the statements that change when nothing that others were told of a node counts any more; of any node, if it is empty.
func (s Statements) forgetting(node string) Statements {
	return s.revised(func(d Drainer) (Drainer, bool) { return d, node != "" && d.Node != node })
}

// with are the statements that change when self drains the bucket and knows of the adoption, which goes on: self says so, what others were told is
// brought up to date, and some are told.
func (s Statements) with(self string, left time.Duration, adoption Adoption, tell []string) Statements {
	ours := []Drainer{{Node: self, Left: left}}
	for _, node := range adoption.From {
		if node != self && node != Unnamed && !s.hasFinished(node) {
			ours = append(ours, Drainer{Node: node, Left: adoption.Left})
		}
	}
	anybody := slices.Contains(adoption.From, Unnamed) // then what others were told is all that is known
	changed := s.revised(func(d Drainer) (Drainer, bool) {
		our, known := find(ours, func(our Drainer) bool { return our.Node == d.Node })
		switch {
		case known:
			return our, d.Node != self
		default:
			return d, anybody && !s.hasFinished(d.Node)
		}
	})
	changed[self] = Statement{Spoken: true, Drainers: ours}
	for _, node := range tell {
		changed[node] = s.told(node, ours)
	}
	return changed
}

// told is the statement of a node that is told of all drainers: of itself it knows better, and nothing else is true any more.
func (s Statements) told(node string, drainers []Drainer) Statement {
	said := s[node]
	of := func(own bool, list []Drainer) []Drainer {
		return slices.DeleteFunc(slices.Clone(list), func(d Drainer) bool { return (d.Node == node) != own })
	}
	return Statement{Spoken: said.Spoken, Drainers: append(of(true, said.Drainers), of(false, drainers)...)}
}

// passedOn are the statements that change so that a crash of self, which adopts, does not make the others forget drainers that have left: some
// members are told of those that no member but self was told of.
func (s Statements) passedOn(self string, adoption Adoption, presence map[string]Presence) Statements {
	members := without(membersOf(presence), self)
	var unknown []Drainer
	for _, node := range adoption.From {
		carried := func(member string) bool {
			return slices.ContainsFunc(s[member].Drainers, func(d Drainer) bool { return d.Node == node })
		}
		if place := presence[node].Place; node != Unnamed && (place == Left || place == Unknown) && !slices.ContainsFunc(members, carried) {
			unknown = append(unknown, Drainer{Node: node, Left: adoption.Left})
		}
	}
	changed := Statements{}
	if len(unknown) > 0 {
		for _, member := range firstOf(members, deputies) {
			said := s[member]
			changed[member] = Statement{Spoken: said.Spoken, Drainers: append(slices.Clone(said.Drainers), unknown...)}
		}
	}
	return changed
}

// deputies is how many other nodes know of a drain beside the drainer, whose own words go with it when it leaves: in order, too, and then no action is
// run for a bucket that it only drains.
const deputies = 2

// namesOf is for words to people.
func namesOf(adoption Adoption) string {
	if slices.Contains(adoption.From, Unnamed) {
		return "other nodes"
	}
	return strings.Join(adoption.From, ", ")
}

func firstOf(nodes []string, most int) []string { return nodes[:min(len(nodes), most)] }

func without(nodes []string, one string) []string {
	return slices.DeleteFunc(nodes, func(node string) bool { return node == one })
}

func membersOf(presence map[string]Presence) []string {
	var members []string
	for node, p := range presence {
		if p.Place == Member {
			members = append(members, node)
		}
	}
	slices.Sort(members)
	return members
}

// still are those of the nodes that may still serve connections of the bucket: who has not said that it does not, and is not dead. For
// Unnamed stand all nodes but self.
func (s Statements) still(self string, from []string, presence map[string]Presence) []string {
	nodes := slices.DeleteFunc(slices.Clone(from), func(node string) bool { return node == Unnamed })
	if len(nodes) < len(from) {
		nodes = slices.AppendSeq(nodes, maps.Keys(presence))
		for _, d := range s.Drainers(self) {
			nodes = append(nodes, d.Node)
		}
		nodes = without(nodes, self)
		slices.Sort(nodes)
		nodes = slices.Compact(nodes)
	}
	return slices.DeleteFunc(nodes, func(node string) bool {
		switch presence[node].Place {
		case Dead:
			return true
		case Member:
			return s.hasFinished(node) // who has just come, and has not spoken, may drain
		default:
			return false
		}
	})
}

// handOverTime bounds how long an action talks to the cluster manager: less than it may take itself.
const handOverTime = 5 * time.Second

// adoption asks who drains the bucket. Without an answer anybody may: then a dead node's clients wait, for as long as a drain may last, but no
// live node's connection gets a second answer.
func (a Agent) adoption(ctx context.Context, spec Spec) (adoption Adoption, said Statements) {
	if spec.Drain == 0 {
		return Adoption{Bucket: spec.Bucket}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	said, err := a.Cluster.Statements(ctx, spec.Address(), spec.Bucket)
	if err != nil {
		a.Log.Warningf("who drains bucket %d cannot be told, so for up to %s connections that this node does not know get no answer: %v",
			spec.Bucket, spec.Drain, err)
		return Adoption{Bucket: spec.Bucket, Left: spec.Drain, From: []string{Unnamed}}, nil
	}
	return said.adoption(spec.Bucket, a.Node), said
}

// handOver tells the others that this node drains the bucket from now on, if it can. It tells whether they know.
func (a Agent) handOver(ctx context.Context, spec Spec) bool {
	seen, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil || seen.Laid == nil || !seen.Laid.Drains || len(seen.Damage) > 0 || !slices.Contains(seen.Owned, spec.Bucket) {
		return false // an error will be met again, and told
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	adoption, _ := seen.Moves.Adoption(spec.Bucket)
	err = a.nameless()
	if err == nil {
		err = a.publishDrain(ctx, spec, adoption)
	}
	if err != nil {
		a.Log.Warningf("stop without hand-over, so connections break: %v", err)
	}
	return err == nil
}

// publishDrain tells the others that this node drains the bucket, and of those whose connections it did not get itself.
func (a Agent) publishDrain(ctx context.Context, spec Spec, adoption Adoption) error {
	said, err := a.Cluster.Statements(ctx, spec.Address(), spec.Bucket)
	if err != nil {
		return err
	}
	tell := without(slices.Sorted(maps.Keys(said)), a.Node)
	if len(tell) < deputies { // who has not spoken is told, too
		presence, err := a.Cluster.Presence(ctx)
		if err != nil {
			return err
		}
		tell = without(membersOf(presence), a.Node)
	}
	return a.state(ctx, spec, spec.Bucket, said.with(a.Node, spec.Drain, adoption, firstOf(tell, deputies)))
}

func (a Agent) nameless() error {
	if a.Node == "" {
		return errors.New("this node's name in the cluster is not known (CRM_meta_on_node)")
	}
	return nil
}

// takeBack tells the others that the buckets do not drain here any more. Where nobody hears it, nobody has heard of the drain.
func (a Agent) takeBack(ctx context.Context, spec Spec, buckets []Bucket) {
	if len(buckets) == 0 || a.nameless() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	if err := allAtOnce(buckets, func(bucket Bucket) error { return a.restate(ctx, spec, bucket, nil, false) }); err != nil {
		a.Log.Infof("not everybody was told that drains of buckets %s have ended: %v", list(buckets), err)
	}
}

// restate makes this node say of itself what is so, and of others what it said before, or what it learns from them. If it does not drain, what
// others were told of it from an earlier time is forgotten.
func (a Agent) restate(ctx context.Context, spec Spec, bucket Bucket, own []Drainer, learns bool) error {
	said, err := a.Cluster.Statements(ctx, spec.Address(), bucket)
	if err != nil {
		return err
	}
	changed := Statements{}
	if len(own) == 0 {
		changed = said.forgetting(a.Node)
	}
	before := said[a.Node]
	others := slices.DeleteFunc(slices.Clone(before.Drainers), func(d Drainer) bool { return d.Node == a.Node || said.hasFinished(d.Node) })
	if learns {
		others = said.Drainers(a.Node)
	}
	if now := append(slices.Clone(own), others...); !before.Spoken || !slices.Equal(before.Drainers, now) {
		changed[a.Node] = Statement{Spoken: true, Drainers: now}
	}
	if len(own) > 0 {
		for _, node := range firstOf(without(slices.Sorted(maps.Keys(said)), a.Node), deputies) {
			changed[node] = said.told(node, append(slices.Clone(own), others...))
		}
	}
	return a.state(ctx, spec, bucket, changed)
}

// introduce tells the others, when the cluster manager asks for the first time what is here, whether the bucket drains. Before that they
// cannot know whether this node has lost its connections. And it learns who drains.
func (a Agent) introduce(ctx context.Context, spec Spec, moves Moves) {
	if spec.Drain == 0 || a.nameless() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	var own []Drainer
	if i := slices.Index(moves.drained(), spec.Bucket); i >= 0 {
		own = []Drainer{{Node: a.Node, Left: moves.Draining[i].Left}}
	}
	if err := a.restate(ctx, spec, spec.Bucket, own, true); err != nil {
		a.Log.Infof("nobody was told what drains here: %v", err)
	}
}

// state makes nodes say what they shall, all at once.
func (a Agent) state(ctx context.Context, spec Spec, bucket Bucket, changed Statements) error {
	return allAtOnce(slices.Sorted(maps.Keys(changed)), func(node string) error {
		return a.Cluster.State(ctx, spec.Address(), bucket, node, changed[node])
	})
}

// allAtOnce asks the cluster manager about each, which takes its time.
func allAtOnce[T any](each []T, ask func(T) error) error {
	if len(each) == 1 {
		return ask(each[0])
	}
	faults := make(chan error, len(each))
	for _, one := range each {
		go func() { faults <- ask(one) }()
	}
	var all []error
	for range each {
		all = append(all, <-faults)
	}
	return errors.Join(all...)
}

// soonOver is what is left of an adoption when what was said of it is forgotten: longer than it takes to the next monitor, by default 10 s.
// The kernel ends the adoption itself, and then nobody would know that something is to be forgotten.
const soonOver = 15 * time.Second

// adopted tells whether the adoption is over, because no node serves the bucket's connections any more. What was said of it is kept as long as it
// is true: should this node crash, the next owner must know.
func (a Agent) adopted(ctx context.Context, spec Spec, adoption Adoption) bool {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	said, err := a.Cluster.Statements(ctx, spec.Address(), spec.Bucket)
	var presence map[string]Presence
	if err == nil {
		presence, err = a.Cluster.Presence(ctx)
	}
	if err != nil {
		a.Log.Infof("cannot tell whether %s serve connections of bucket %d: %v", namesOf(adoption), adoption.Bucket, err)
		return false
	}
	still := said.still(a.Node, adoption.From, presence)
	var why []string
	for _, node := range still {
		if presence[node].Place == Unknown {
			why = append(why, fmt.Sprintf("%s (%s)", node, cmp.Or(presence[node].Said, "the cluster's status does not name it")))
		}
	}
	if len(why) > 0 {
		a.Log.Infof("cannot tell where %s is: bucket %d waits for its connections there, for %s at most", strings.Join(why, ", "), adoption.Bucket,
			adoption.Left.Round(time.Second))
	}
	var changed Statements
	if over := len(still) == 0; over || adoption.Left < soonOver {
		changed = said.forgetting("")
	} else {
		changed = said.passedOn(a.Node, adoption, presence)
	}
	if err := a.state(ctx, spec, spec.Bucket, changed); err != nil {
		a.Log.Infof("what nodes were told of drains of bucket %d could not be brought up to date: %v", adoption.Bucket, err)
	}
	return len(still) == 0
}
