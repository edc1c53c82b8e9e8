package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
)

// Cluster is what the nodes publish through Pacemaker. Everything is deleted when the node under whose name it is stored leaves.
type Cluster interface {
	// Announcements returns the nodes' announcements about a bucket. One that cannot be parsed is left out.
	Announcements(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Announcement, error)
	// Publish stores the announcement of a node, which is this one.
	Publish(ctx context.Context, address netip.Addr, bucket clusterip.Bucket, node string, announcement handover.Announcement) error
	// Relayed returns what is stored at nodes about others.
	Relayed(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Relayed, error)
	// Relay stores something at a node about others.
	Relay(ctx context.Context, address netip.Addr, bucket clusterip.Bucket, node string, relayed handover.Relayed) error
	// NodeStates returns the states of the cluster's nodes. The state of a node that it does not name is unknown.
	NodeStates(ctx context.Context) (map[string]handover.NodeState, error)
}

// How long an action uses Pacemaker: less than the action may take.
const (
	clusterTime = 5 * time.Second
	lockedTime  = 2 * time.Second // while it holds the lock
	// A stop takes longer, up to this part of its time, because connections break if it gives up: after a node was lost, nothing is
	// delivered for some seconds, while Corosync forms a new membership.
	stopShare = 2
)

// The pauses between two readings of an announcement that was just published.
const (
	firstRead = 5 * time.Millisecond
	lastRead  = 200 * time.Millisecond
)

// A board is where the nodes publish what concerns a bucket.
type board struct {
	Cluster
	node    string // this one
	address netip.Addr
	bucket  clusterip.Bucket
}

func (a Agent) board(address netip.Addr, bucket clusterip.Bucket) board {
	return board{Cluster: a.Cluster, node: a.Node, address: address, bucket: bucket}
}

func newNonce() string { return rand.Text()[:8] }

var errNoName = errors.New("this node's name in the cluster is not known (CRM_meta_on_node)")

// publish stores this node's announcement.
func (b board) publish(ctx context.Context, own handover.Announcement) error {
	if b.node == "" {
		return errNoName
	}
	own.TakesOver = true
	return b.Publish(ctx, b.address, b.bucket, b.node, own)
}

// announcements returns a view with the nodes' announcements alone.
func (b board) announcements(ctx context.Context, layout string) (handover.View, error) {
	announcements, err := b.Announcements(ctx, b.address, b.bucket)
	return handover.View{Self: b.node, Layout: layout, Announcements: announcements}, err
}

// complete adds the relayed announcements and the nodes' states to a view.
func (b board) complete(ctx context.Context, view handover.View) (handover.View, error) {
	var err error
	if view.Relayed, err = b.Relayed(ctx, b.address, b.bucket); err == nil {
		view.Nodes, err = b.NodeStates(ctx)
	}
	return view, err
}

// publishAndRead publishes an announcement, and waits until this node reads it back. Pacemaker delivers everything in one order
// to all nodes, so by then it has read everything that was published before.
func (b board) publishAndRead(ctx context.Context, own handover.Announcement) (handover.View, error) {
	publishErr := b.publish(ctx, own)
	for pause := firstRead; ; pause = min(2*pause, lastRead) {
		err := publishErr
		if err == nil {
			var view handover.View
			if view, err = b.announcements(ctx, own.Layout); err == nil && view.Announcements[b.node].Nonce == own.Nonce {
				return view, nil
			}
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) { // an answer may only have taken too long
			return handover.View{}, err
		}
		if ended := clusterip.Pause(ctx, pause); ended != nil {
			return handover.View{}, cmp.Or(err, errors.New("this node's own announcement cannot be read back in time"))
		}
		if publishErr != nil {
			publishErr = b.publish(ctx, own)
		}
	}
}

// validOthers returns the Others of this node's own announcement, for its next one. The bucket's owner may have superseded them.
func (b board) validOthers(ctx context.Context, view handover.View) ([]handover.Drainer, error) {
	own := view.Announcements[b.node]
	if len(own.Others) == 0 {
		return nil, nil
	}
	relayed, err := b.Relayed(ctx, b.address, b.bucket)
	if err != nil || relayed[b.node].Supersedes == own.Nonce {
		return nil, err
	}
	return own.Others, nil
}

// relay stores at each node what it is to know.
func (b board) relay(ctx context.Context, changes map[string]handover.Relayed) error {
	var faults []error
	for _, node := range slices.Sorted(maps.Keys(changes)) {
		faults = append(faults, b.Relay(ctx, b.address, b.bucket, node, changes[node]))
	}
	return errors.Join(faults...)
}

// drainAnnouncement is what a stop has published.
type drainAnnouncement struct {
	known     bool              // the other nodes know that this node drains the bucket
	published bool              // they may know it
	linger    *clusterip.Linger // they know that it lingers; nil: it may not
}

// publishDrain publishes that this node drains the bucket from now on, and perhaps lingers with it.
func (a Agent) publishDrain(ctx context.Context, spec clusterip.Spec) drainAnnouncement {
	if spec.Drain == 0 {
		return drainAnnouncement{}
	}
	tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil || tables.Installed == nil || !tables.Installed.Drains ||
		len(tables.Faults) > 0 || !slices.Contains(tables.Owned, spec.Bucket) {
		return drainAnnouncement{} // the action observes again, and returns the error
	}
	patience := clusterTime
	if deadline, ok := ctx.Deadline(); ok {
		patience = max(patience, time.Until(deadline)/stopShare)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	adoption, _ := tables.Moves.Adoption(spec.Bucket)
	linger, lingers := a.lingering(ctx, spec, tables)
	own := handover.Announcement{
		Drain: spec.Drain, Layout: tables.Installed.Identity(), Nonce: newNonce(), Complete: len(adoption.From) == 0, Lingers: lingers,
	}
	if err := a.board(spec.Address(), spec.Bucket).publishDrain(ctx, own, adoption); err != nil {
		a.Log.Warningf("bucket %d of %s: cannot announce the drain, so its connections will break: %v", spec.Bucket, spec.Address(), err)
		return drainAnnouncement{published: true}
	}
	return drainAnnouncement{known: true, published: true, linger: linger}
}

// publishDrain publishes that this node drains the bucket, itself and at the relays. It names the old owners too that the node adopts from.
func (b board) publishDrain(ctx context.Context, own handover.Announcement, adoption clusterip.Adoption) error {
	if len(adoption.From) > 0 {
		view, err := b.announcements(ctx, own.Layout)
		if err != nil {
			return err
		}
		if own.Others, err = b.validOthers(ctx, view); err != nil {
			return err
		}
		own.Complete = view.Complete()
	}
	view, err := b.publishAndRead(ctx, own)
	if err == nil && (view.NeedsNodeStates() || slices.Contains(adoption.From, handover.AnyNode)) {
		view, err = b.complete(ctx, view)
	}
	if err != nil {
		return err
	}
	before := own.Others
	if own.Others = view.OldOwners(adoption.From, adoption.Left); !slices.Equal(own.Others, before) {
		err = b.publish(ctx, own)
	}
	return errors.Join(err, b.relay(ctx, view.RelayDrain(own.Drain, own.Lingers, own.Others)))
}

// publishAdoption publishes what remains of an adoption. When it ends, also soon by itself in the kernel, the relayed announcements are
// cleared: afterwards no action would know that there is something to clear.
func (b board) publishAdoption(
	ctx context.Context, own handover.Announcement, view handover.View, remaining clusterip.Adoption, endsSoon bool,
) error {
	changes := view.RelayAdoption(remaining.From, remaining.Left)
	if len(remaining.From) == 0 || endsSoon {
		changes = view.ClearRelayed()
	}
	err := b.relay(ctx, changes)
	if !own.Complete && (endsSoon || view.KnowsAllDrains(remaining.From)) {
		own.Complete = true
		err = errors.Join(err, b.publish(ctx, own))
	}
	return err
}

// clearAnnouncements publishes that buckets do not drain here any more. If that fails, new owners wait until the drain time is over.
func (a Agent) clearAnnouncements(ctx context.Context, address netip.Addr, layout string, buckets []clusterip.Bucket) {
	if len(buckets) == 0 || a.Node == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	err := forEach(buckets, func(bucket clusterip.Bucket) error {
		b := a.board(address, bucket)
		view, err := b.announcements(ctx, layout)
		before := view.Announcements[a.Node]
		own := handover.Announcement{Layout: layout, Nonce: newNonce(), Complete: before.Complete && before.Layout == layout}
		if err == nil {
			own.Others, err = b.validOthers(ctx, view)
		}
		return errors.Join(err, b.publish(ctx, own))
	})
	if err != nil {
		a.Log.Infof("cannot clear the drain announcements of buckets %s; new owners wait until the drain time is over: %v",
			clusterip.FormatBuckets(buckets), err)
	}
}

// publishProbe publishes, when Pacemaker probes the node, whether the bucket drains here: until then the other nodes cannot know that. It
// does so with drain=0 too, because drain may be changed later.
func (a Agent) publishProbe(ctx context.Context, spec clusterip.Spec, tables clusterip.Tables) {
	if a.Cluster == nil || a.Node == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	b := a.board(spec.Address(), spec.Bucket)
	own := handover.Announcement{Layout: spec.Layout().Identity(), Nonce: newNonce()}
	if len(tables.Moves.Draining) > 0 && tables.Installed != nil {
		own.Layout = tables.Installed.Identity()
		if drain, drains := tables.Moves.Drain(spec.Bucket); drains {
			own.Drain = drain.Left
		}
		if l, lingers := tables.Lingers(spec.Bucket); lingers {
			own.Lingers = handover.Lingering{For: l.Left, Key: l.Key.String()}
		}
	}
	var err error
	if spec.Drain > 0 {
		own.Others, own.Complete, err = b.drainers(ctx, own.Layout)
	}
	if err = errors.Join(err, b.publish(ctx, own)); err != nil {
		a.Log.Infof("bucket %d of %s: cannot announce whether it drains here: %v", spec.Bucket, spec.Address(), err)
	}
	if own.Drain > 0 { // the sweeper may have ended the drain meanwhile, and have published that before
		if now, err := a.Kernel.ObserveTables(ctx, spec.Address()); err == nil && !now.Moves.Drains(spec.Bucket) {
			a.clearAnnouncements(ctx, spec.Address(), own.Layout, []clusterip.Bucket{spec.Bucket})
		}
	}
	if own.Lingers.For > 0 { // likewise
		a.endLingering(ctx, spec, spec.Bucket)
	}
}

// drainers returns which nodes drain the bucket, and whether those are all. A node that joins publishes them: all others that know may
// leave.
func (b board) drainers(ctx context.Context, layout string) (drainers []handover.Drainer, complete bool, err error) {
	view, err := b.announcements(ctx, layout)
	if err == nil {
		view.Relayed, err = b.Relayed(ctx, b.address, b.bucket)
	}
	// What it has read of lingering nodes it does not publish.
	return view.Drainers(), view.Complete() && len(view.Lingerers()) == 0 && err == nil, err
}

// atOnce is for how many buckets Pacemaker is asked at the same time. Each question is a process.
const atOnce = 4

// forEach does something for each bucket, for a few at the same time.
func forEach(buckets []clusterip.Bucket, do func(clusterip.Bucket) error) error {
	faults := make([]error, len(buckets))
	var running errgroup.Group
	running.SetLimit(atOnce)
	for i, bucket := range buckets {
		running.Go(func() error {
			faults[i] = do(bucket)
			return nil
		})
	}
	_ = running.Wait() // faults has all errors, not only the first
	return errors.Join(faults...)
}
