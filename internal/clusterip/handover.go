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
	// State makes a node say that these drain the bucket; or, with none, that nobody does.
	State(ctx context.Context, address netip.Addr, bucket Bucket, node string, drainers []Drainer) error
	// Presence tells where the cluster's nodes are. A node that it does not name is one of which nothing is known.
	Presence(ctx context.Context) (map[string]Presence, error)
	// Leaves tells whether the cluster manager is about to stop on the node, in order.
	Leaves(ctx context.Context, node string) (bool, error)
}

// Statements are what nodes say of one bucket: who drains it, by the name of the node that says so. Each node speaks for itself; and for
// nodes that have left the cluster, whose own words went with them, those speak who were told. A node without an entry has not spoken
// yet.
type Statements map[string][]Drainer

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

// The places. Only one that is Lost for sure serves nobody: a wrong guess would make two nodes answer.
const (
	Unknown Place = iota // it cannot be told
	Member               // in the cluster
	Left                 // its cluster manager was stopped in order; its kernel goes on
	Lost                 // it has crashed, or is cut off, or was fenced
)

// Drainers are those who drain the bucket beside self, each once. What a node says of itself beats what others say of it.
func (s Statements) Drainers(self string) []Drainer {
	longest := map[string]time.Duration{}
	for speaker, list := range s {
		for _, d := range list {
			_, speaks := s[d.Node]
			if d.Node != self && d.Left > 0 && (speaker == d.Node || !speaks) {
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

// adoption is what it means for the bucket's new owner; from nobody, if nobody drains.
func (s Statements) adoption(bucket Bucket, self string) Adoption {
	adoption := Adoption{Bucket: bucket}
	for _, d := range s.Drainers(self) {
		adoption.Left = max(adoption.Left, d.Left)
		adoption.From = append(adoption.From, d.Node)
	}
	return adoption
}

// taken is what nodes are to say when the bucket's new owner knows all: each no more than of itself, so that nothing about a node that
// has left outlasts its use.
func (s Statements) taken() Statements {
	changed := Statements{}
	for speaker, list := range s {
		own := slices.DeleteFunc(slices.Clone(list), func(d Drainer) bool { return d.Node != speaker })
		if len(own) < len(list) {
			changed[speaker] = own
		}
	}
	return changed
}

// with is what nodes are to say when self drains the bucket and knows of the adoption, which goes on: self says so, and if it leaves, all
// others do.
func (s Statements) with(self string, left time.Duration, adoption Adoption, leaves bool) Statements {
	drainers := []Drainer{{Node: self, Left: left}}
	for _, node := range adoption.From {
		if node != self {
			drainers = append(drainers, Drainer{Node: node, Left: adoption.Left})
		}
	}
	changed := Statements{self: drainers}
	for speaker, list := range s {
		if leaves && speaker != self {
			about := func(d Drainer) bool {
				return slices.ContainsFunc(drainers, func(ours Drainer) bool { return ours.Node == d.Node })
			}
			own := func(d Drainer) bool { return d.Node == speaker } // what it says of itself it knows better
			changed[speaker] = append(slices.DeleteFunc(slices.Clone(list), func(d Drainer) bool { return about(d) && !own(d) }),
				slices.DeleteFunc(slices.Clone(drainers), own)...)
		}
	}
	return changed
}

// still are those of the nodes that may still serve connections of the bucket: who has not said that it does not, and is not lost. For
// Unnamed stand all nodes but self.
func (s Statements) still(self string, from []string, presence map[string]Presence) []string {
	nodes := slices.DeleteFunc(slices.Clone(from), func(node string) bool { return node == Unnamed })
	if len(nodes) < len(from) {
		nodes = slices.AppendSeq(nodes, maps.Keys(presence))
		for _, d := range s.Drainers(self) {
			nodes = append(nodes, d.Node)
		}
		nodes = slices.DeleteFunc(nodes, func(node string) bool { return node == self })
		slices.Sort(nodes)
		nodes = slices.Compact(nodes)
	}
	return slices.DeleteFunc(nodes, func(node string) bool {
		says, speaks := s[node]
		drains := slices.ContainsFunc(says, func(d Drainer) bool { return d.Node == node && d.Left > 0 })
		switch presence[node].Place {
		case Lost:
			return true
		case Member:
			return speaks && !drains // who has just come, and has not spoken, may drain
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
	var said Statements
	leaves := false
	if err = a.nameless(); err == nil {
		leaves, err = a.Cluster.Leaves(ctx, a.Node)
	}
	if err == nil && leaves {
		said, err = a.Cluster.Statements(ctx, spec.Address(), spec.Bucket)
	}
	if err == nil {
		err = a.state(ctx, spec, spec.Bucket, said.with(a.Node, spec.Drain, adoption, leaves))
	}
	if err != nil {
		a.Log.Warningf("stop without hand-over, so connections break: %v", err)
	}
	return err == nil
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
	if err := allAtOnce(buckets, func(bucket Bucket) error { return a.restate(ctx, spec, bucket, nil) }); err != nil {
		a.Log.Infof("not everybody was told that drains of buckets %s have ended: %v", list(buckets), err)
	}
}

// restate makes this node say of itself what is so, and of others what it said before.
func (a Agent) restate(ctx context.Context, spec Spec, bucket Bucket, own []Drainer) error {
	said, err := a.Cluster.Statements(ctx, spec.Address(), bucket)
	if err != nil {
		return err
	}
	before, spoke := said[a.Node]
	others := slices.DeleteFunc(slices.Clone(before), func(d Drainer) bool { return d.Node == a.Node })
	if now := append(own, others...); !spoke || !slices.Equal(before, now) {
		return a.Cluster.State(ctx, spec.Address(), bucket, a.Node, now)
	}
	return nil
}

// introduce tells the others, when the cluster manager asks for the first time what is here, whether the bucket drains. Before that they
// cannot know whether this node has lost its connections.
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
	if err := a.restate(ctx, spec, spec.Bucket, own); err != nil {
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

// adopted tells whether the adoption is over, because no node serves the bucket's connections any more.
func (a Agent) adopted(ctx context.Context, spec Spec, adoption Adoption) bool {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	said, err := a.Cluster.Statements(ctx, spec.Address(), spec.Bucket)
	var presence map[string]Presence
	if err == nil {
		presence, err = a.Cluster.Presence(ctx)
	}
	if err != nil {
		a.Log.Infof("whether %v still serve connections of bucket %d cannot be told: %v", adoption.From, adoption.Bucket, err)
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
		a.Log.Infof("where %s is cannot be told, so bucket %d is adopted for %s more at most", strings.Join(why, ", "), adoption.Bucket, adoption.Left)
	}
	return len(still) == 0
}
