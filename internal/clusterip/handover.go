package clusterip

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"ocf-clusterip/internal/handover"
)

// Cluster is the cluster manager: what the nodes tell each other through it. None of it lasts longer than the node under whose name it is kept.
type Cluster interface {
	// Announcements returns what nodes say of themselves and a bucket. A word that is not understood is left out.
	Announcements(ctx context.Context, address netip.Addr, bucket Bucket) (map[string]handover.Announcement, error)
	// Publish keeps the word of a node, which is this one.
	Publish(ctx context.Context, address netip.Addr, bucket Bucket, node string, word handover.Announcement) error
	// Relayed returns what nodes were told of others.
	Relayed(ctx context.Context, address netip.Addr, bucket Bucket) (map[string]handover.Relayed, error)
	// Relay keeps with a node what it is told.
	Relay(ctx context.Context, address netip.Addr, bucket Bucket, node string, notice handover.Relayed) error
	// NodeStates tells where the cluster's nodes are. A node that it does not name is one of which nothing is known.
	NodeStates(ctx context.Context) (map[string]handover.NodeState, error)
}

// handOverTime bounds how long an action talks to the cluster manager: less than it may take itself.
const handOverTime = 5 * time.Second

// A stop talks longer, for connections break if it gives up: while Corosync forms a new membership, after a node was lost, nothing is heard for some
// seconds. The rest of its time is for what it has to do itself.
const stopShare = 2

// lockedTime bounds how long an action does so while it holds the lock, for which others wait.
const lockedTime = 2 * time.Second

// How often it is asked for a word that has just been said, at first and at most.
const (
	firstListen = 5 * time.Millisecond
	lastListen  = 200 * time.Millisecond
)

func (a Agent) nameless() error {
	if a.Node == "" {
		return errors.New("this node's name in the cluster is not known (CRM_meta_on_node)")
	}
	return nil
}

// say says what is so of a bucket here.
func (a Agent) say(ctx context.Context, address netip.Addr, bucket Bucket, word handover.Announcement) error {
	if err := a.nameless(); err != nil {
		return err
	}
	return a.Cluster.Publish(ctx, address, bucket, a.Node, word)
}

// newMark is one that no earlier word has.
func newMark() string { return rand.Text()[:8] }

// speak says it, and waits until this node hears it. The cluster manager keeps what is said in one order for all nodes, so that then all is heard
// that was said before.
func (a Agent) speak(ctx context.Context, address netip.Addr, bucket Bucket, word handover.Announcement) (handover.View, error) {
	said := a.say(ctx, address, bucket, word)
	for wait := firstListen; ; wait = min(2*wait, lastListen) {
		err := said
		if err == nil {
			var view handover.View
			if view, err = a.listen(ctx, address, bucket, word.Layout); err == nil && view.Announcements[a.Node].Nonce == word.Nonce {
				return view, nil
			}
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) { // else the answer may only have taken too long
			return handover.View{}, err
		}
		if ended := Pause(ctx, wait); ended != nil {
			return handover.View{}, cmp.Or(err, errors.New("what this node says is not heard by itself in time"))
		}
		if said != nil {
			said = a.say(ctx, address, bucket, word)
		}
	}
}

// listen hears what nodes say of themselves.
func (a Agent) listen(ctx context.Context, address netip.Addr, bucket Bucket, layout string) (handover.View, error) {
	words, err := a.Cluster.Announcements(ctx, address, bucket)
	return handover.View{Self: a.Node, Layout: layout, Announcements: words}, err
}

// learn completes a view with what deputies were told, and with where the nodes are.
func (a Agent) learn(ctx context.Context, address netip.Addr, bucket Bucket, view handover.View) (handover.View, error) {
	var err error
	if view.Relayed, err = a.Cluster.Relayed(ctx, address, bucket); err == nil {
		view.Nodes, err = a.Cluster.NodeStates(ctx)
	}
	return view, err
}

// stillHeard are the others of this node's own word, unless the bucket's owner has dealt with them: another word must not bring them back.
func (a Agent) stillHeard(ctx context.Context, address netip.Addr, bucket Bucket, view handover.View) ([]handover.Drainer, error) {
	own := view.Announcements[a.Node]
	if len(own.Others) == 0 {
		return nil, nil
	}
	told, err := a.Cluster.Relayed(ctx, address, bucket)
	if err != nil || told[a.Node].Supersedes == own.Nonce {
		return nil, err
	}
	return own.Others, nil
}

// tell tells nodes what each is to know.
func (a Agent) tell(ctx context.Context, address netip.Addr, bucket Bucket, what map[string]handover.Relayed) error {
	var faults []error
	for _, node := range slices.Sorted(maps.Keys(what)) {
		faults = append(faults, a.Cluster.Relay(ctx, address, bucket, node, what[node]))
	}
	return errors.Join(faults...)
}

// askAtOnce is how many questions are put to the cluster manager at the same time: each is a process.
const askAtOnce = 4

// ofEach asks the cluster manager about each bucket, which takes its time.
func ofEach(buckets []Bucket, ask func(Bucket) error) error {
	var guard sync.Mutex
	var faults []error
	var asked sync.WaitGroup
	places := make(chan struct{}, askAtOnce)
	for _, bucket := range buckets {
		places <- struct{}{}
		asked.Go(func() {
			defer func() { <-places }()
			err := ask(bucket)
			guard.Lock()
			defer guard.Unlock()
			faults = append(faults, err)
		})
	}
	asked.Wait()
	return errors.Join(faults...)
}

// fromAnybody is the adoption with which a bucket is started: it asks nobody, because an answer may be older than what another node has just said.
func fromAnybody(spec Spec) Adoption {
	adoption := Adoption{Bucket: spec.Bucket}
	if spec.Drain > 0 {
		adoption.Left, adoption.From = spec.Drain+handover.GracePeriod, []string{handover.AnyNode}
	}
	return adoption
}

// handOver tells the others that this node drains the bucket from now on, if it can. It tells whether they know, and whether they may have heard of
// it all the same.
func (a Agent) handOver(ctx context.Context, spec Spec) (known, said bool) {
	if spec.Drain == 0 {
		return false, false
	}
	seen, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil || seen.Laid == nil || !seen.Laid.Drains || len(seen.Damage) > 0 || !slices.Contains(seen.Owned, spec.Bucket) {
		return false, false // an error will be met again, and told
	}
	patience := handOverTime
	if deadline, ok := ctx.Deadline(); ok {
		patience = max(patience, time.Until(deadline)/stopShare)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	adoption, _ := seen.Moves.Adoption(spec.Bucket)
	if err := a.announce(ctx, spec, seen.Laid.Identity(), adoption); err != nil {
		a.Log.Warningf("stop without hand-over; connections will break: %v", err)
		return false, true
	}
	return true, true
}

// announce says that this node drains the bucket, and tells deputies; also of those whose connections it did not get itself.
func (a Agent) announce(ctx context.Context, spec Spec, layout string, adoption Adoption) error {
	word := handover.Announcement{Drain: spec.Drain, Layout: layout, Nonce: newMark(), Complete: len(adoption.From) == 0}
	var view handover.View
	var err error
	if len(adoption.From) > 0 {
		if view, err = a.listen(ctx, spec.Address(), spec.Bucket, layout); err != nil {
			return err
		}
		if word.Others, err = a.stillHeard(ctx, spec.Address(), spec.Bucket, view); err != nil {
			return err
		}
		word.Complete = view.Complete()
	}
	view, err = a.speak(ctx, spec.Address(), spec.Bucket, word)
	if err == nil && (view.NeedsNodeStates() || slices.Contains(adoption.From, handover.AnyNode)) {
		view, err = a.learn(ctx, spec.Address(), spec.Bucket, view)
	}
	if err != nil {
		return err
	}
	before := word.Others
	if word.Others = view.OldOwners(adoption.From, adoption.Left); !slices.Equal(word.Others, before) {
		err = a.say(ctx, spec.Address(), spec.Bucket, word)
	}
	return errors.Join(err, a.tell(ctx, spec.Address(), spec.Bucket, view.RelayDrain(spec.Drain, word.Others)))
}

// takeBack tells the others that buckets do not drain here any more. If they do not hear it, they wait until the time of the drain is over.
func (a Agent) takeBack(ctx context.Context, address netip.Addr, layout string, buckets []Bucket) {
	if len(buckets) == 0 || a.nameless() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	err := ofEach(buckets, func(bucket Bucket) error {
		view, err := a.listen(ctx, address, bucket, layout)
		before := view.Announcements[a.Node]
		word := handover.Announcement{Layout: layout, Nonce: newMark(), Complete: before.Complete && before.Layout == layout}
		if err == nil {
			word.Others, err = a.stillHeard(ctx, address, bucket, view)
		}
		return errors.Join(err, a.say(ctx, address, bucket, word))
	})
	if err != nil {
		a.Log.Infof("cannot clear the drain announcements of buckets %s; new owners wait until the drain time is over: %v", list(buckets), err)
	}
}

// introduce tells the others, when the cluster manager asks for the first time what is here, whether the bucket drains. Before that they
// cannot know whether this node serves connections of it. It is done without drain, too: it may be switched on later.
func (a Agent) introduce(ctx context.Context, spec Spec, tables Tables) {
	if a.Cluster == nil || a.nameless() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	word := handover.Announcement{Layout: spec.Layout().Identity(), Nonce: newMark()}
	if len(tables.Moves.Draining) > 0 && tables.Laid != nil {
		word.Layout = tables.Laid.Identity()
		if drain, ok := tables.Moves.Drain(spec.Bucket); ok {
			word.Drain = drain.Left
		}
	}
	var err error
	if spec.Drain > 0 {
		word.Others, word.Complete, err = a.overhear(ctx, spec.Address(), spec.Bucket, word.Layout)
	}
	if err = errors.Join(err, a.say(ctx, spec.Address(), spec.Bucket, word)); err != nil {
		a.Log.Infof("cannot publish which drains are under way: %v", err)
	}
	if word.Drain > 0 { // the sweeper may have ended that meanwhile, and have said so before
		if now, err := a.Kernel.ObserveTables(ctx, spec.Address()); err == nil && !now.Moves.drains(spec.Bucket) {
			a.takeBack(ctx, spec.Address(), word.Layout, []Bucket{spec.Bucket})
		}
	}
}

// overhear finds out who drains the bucket, and whether that is all: should all go who know, a node that has just come is left to tell the next owner.
func (a Agent) overhear(ctx context.Context, address netip.Addr, bucket Bucket, layout string) (drainers []handover.Drainer, complete bool, err error) {
	view, err := a.listen(ctx, address, bucket, layout)
	if err == nil {
		view.Relayed, err = a.Cluster.Relayed(ctx, address, bucket)
	}
	return view.Drainers(), view.Complete() && err == nil, err
}

// namesOf is for words to people.
func namesOf(adoption Adoption) string {
	if slices.Contains(adoption.From, handover.AnyNode) {
		return "other nodes"
	}
	return strings.Join(adoption.From, ", ")
}

// look finds out what is left of an adoption. What deputies were told is kept as long as it is true: should this node crash, the next owner must
// know.
func (a Agent) look(ctx context.Context, spec Spec, layout string, adoption Adoption) (Adoption, error) {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	endIsNear := adoption.Left < handover.GracePeriod
	view, err := a.listen(ctx, spec.Address(), spec.Bucket, layout)
	if err != nil || view.AllDrain(adoption.From) && !endIsNear {
		return adoption, err
	}
	word := handover.Announcement{Layout: layout, Nonce: newMark(), Complete: view.Complete()}
	if word.Others, err = a.stillHeard(ctx, spec.Address(), spec.Bucket, view); err != nil {
		return adoption, err
	}
	if view, err = a.speak(ctx, spec.Address(), spec.Bucket, word); err == nil {
		view, err = a.learn(ctx, spec.Address(), spec.Bucket, view)
	}
	if err != nil {
		return adoption, err
	}
	next := adoption
	next.From, next.Left = view.Remaining(adoption.From, adoption.Left, spec.Drain)
	a.tellOfUnknown(view, next)
	what := view.RelayAdoption(next.From, next.Left)
	if len(next.From) == 0 || endIsNear { // the kernel ends it itself, and then nobody would know that something is to be forgotten
		what = view.ClearRelayed()
	}
	err = a.tell(ctx, spec.Address(), spec.Bucket, what)
	if !word.Complete && (endIsNear || view.KnowsAllDrains(next.From)) {
		word.Complete = true
		err = errors.Join(err, a.say(ctx, spec.Address(), spec.Bucket, word))
	}
	if err != nil {
		a.Log.Infof("cannot update the announcements about drains of bucket %d: %v", spec.Bucket, err)
	}
	return next, nil
}

// tellOfUnknown logs of which nodes it cannot be told where they are.
func (a Agent) tellOfUnknown(view handover.View, adoption Adoption) {
	var why []string
	for _, node := range adoption.From {
		_, spoken := view.Announcements[node]
		if p := view.Nodes[node]; p.Membership == handover.Unknown && !spoken && node != handover.AnyNode {
			why = append(why, fmt.Sprintf("%s (%s)", node, cmp.Or(p.Unrecognized, "the cluster's status does not name it")))
		}
	}
	if len(why) > 0 {
		a.Log.Infof("state of %s unknown: bucket %d waits for its connections there, for %s at most", strings.Join(why, ", "), adoption.Bucket,
			adoption.Left.Round(time.Second))
	}
}

// follow looks after the adoption of a bucket, and lays what is left of it.
func (a Agent) follow(ctx context.Context, spec Spec, tables Tables) error {
	adoption, adopts := tables.Moves.Adoption(spec.Bucket)
	if !adopts || tables.Laid == nil {
		return nil
	}
	a.keep(ctx, *tables.Laid, adoption)
	next, err := a.look(ctx, spec, tables.Laid.Identity(), adoption)
	if err != nil {
		a.Log.Infof("cannot check whether %s serve connections of bucket %d: %v", namesOf(adoption), spec.Bucket, err)
		return nil
	}
	if slices.Equal(next.From, adoption.From) && next.Left == adoption.Left {
		return nil
	}
	return a.revise(ctx, spec, adoption, next)
}
