package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
)

const (
	// probePatience is how long a stop waits for members that were not probed yet. When a node joins, Pacemaker moves buckets to it while it
	// still probes it.
	probePatience = 1500 * time.Millisecond
	probePause    = 100 * time.Millisecond
	// undoTime is what a start that may not own the bucket in time needs to take back what it has done.
	undoTime = time.Second
)

// A takeover is what a start knows of the nodes that may linger with its bucket.
type takeover struct {
	offers []clusterip.Offer
	nodes  []string  // their names
	ends   time.Time // until then, nodes may linger that cannot be asked; zero: there are none
	drains bool      // this node's own announcement, published anew, says that it drains
	alone  bool      // no other node is known to drain the bucket
}

// isNone reports whether nobody may linger.
func (t takeover) isNone() bool { return len(t.offers) == 0 && t.ends.IsZero() }

// latest is when certainly nobody lingers any more.
func (t takeover) latest() time.Time {
	latest := t.ends
	for _, offer := range t.offers {
		if offer.Ends.After(latest) {
			latest = offer.Ends
		}
	}
	return latest
}

// findLingerers finds out which nodes may linger with the bucket. What they have published before the start is known when this node has
// read its own announcement back. If that cannot be found out, any node may.
func (a Agent) findLingerers(ctx context.Context, spec clusterip.Spec) takeover {
	if spec.Linger == 0 || a.Node == "" {
		return takeover{}
	}
	patience := clusterTime
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)/stopShare)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b := a.board(spec.Address(), spec.Bucket)
	view, longest, err := b.lingerers(ctx, spec)
	now := time.Now()
	t := takeover{drains: view.Announcements[a.Node].Drain > 0, alone: err == nil && len(view.Drainers()) == 0}
	if err == nil && view.HidesLingerers() {
		longest = max(longest, spec.Linger)
	}
	for _, l := range view.Lingerers() {
		key, keyErr := clusterip.ParseTakeoverKey(l.Key)
		if keyErr != nil {
			longest = max(longest, l.For)
			continue
		}
		t.nodes = append(t.nodes, l.Node)
		t.offers = append(t.offers, clusterip.Offer{Key: key, Ends: now.Add(l.For)})
	}
	if err != nil {
		a.Log.Warningf("bucket %d of %s: cannot find out whether other nodes still answer for it, so it starts %s later: %v", spec.Bucket,
			spec.Address(), spec.Linger, err)
		longest = max(longest, spec.Linger)
	}
	if longest > 0 {
		t.ends = now.Add(longest)
	}
	return t
}

// lingerers returns a view in which all nodes are that may linger with the bucket, and for how long, at most, nodes linger with buckets of
// another layout.
func (b board) lingerers(ctx context.Context, spec clusterip.Spec) (view handover.View, otherLayout time.Duration, err error) {
	layout := spec.Layout().Identity()
	if view, err = b.announcements(ctx, layout); err != nil {
		return view, 0, err
	}
	own, announced := view.Announcements[b.node]
	if !announced { // it may drain: its probe could not publish anything
		own = handover.Announcement{Layout: layout, Drain: spec.Drain}
	}
	own.Nonce = newNonce()
	if own.Others, err = b.validOthers(ctx, view); err != nil {
		return view, 0, err
	}
	published, err := b.publishAndRead(ctx, own)
	if err != nil {
		return view, 0, err
	}
	view.Announcements = published.Announcements
	// A bucket that is new in this layout has no announcements of the old one. The first bucket is in all layouts.
	first := handover.View{Layout: layout}
	var reading errgroup.Group
	reading.Go(func() (err error) {
		view.Relayed, err = b.Relayed(ctx, b.address, b.bucket)
		return err
	})
	if b.bucket != 0 {
		reading.Go(func() (err error) {
			first.Announcements, err = b.Announcements(ctx, b.address, 0)
			return err
		})
	}
	if err = reading.Wait(); err == nil && (!view.Complete() || len(view.Lingerers()) > 0) {
		view.Nodes, err = b.NodeStates(ctx)
	}
	return view, max(view.OtherLayoutLingers(), first.OtherLayoutLingers()), err
}

// takeOver waits until no other node lingers with the bucket, and asks those that do to end that. It reports whether one was asked and has
// confirmed: that one passes packets on.
func (s *session) takeOver(ctx context.Context, layout clusterip.Layout) (confirmed bool, err error) {
	t := s.takeover
	_, lingersHere := s.state.Tables.Lingers(s.spec.Bucket)
	if t.isNone() || !time.Now().Before(t.latest()) { // other instances may have had the lock for long
		return false, nil
	}
	if lingersHere && !s.state.Tables.DisagreesWith(layout) { // at most one node lingers with a bucket
		return false, nil
	}
	limit := t.latest()
	if deadline, ok := ctx.Deadline(); ok && limit.After(deadline.Add(-undoTime)) {
		limit = deadline.Add(-undoTime)
	}
	inTime, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	// While nodes may linger that cannot be asked, the others had better go on, too.
	if len(t.offers) > 0 && t.ends.IsZero() {
		if confirmed, err = s.request(inTime, layout); err != nil {
			s.Log.Warningf("bucket %d of %s: cannot take it over from %s: %v", s.spec.Bucket, s.spec.Address(), strings.Join(t.nodes, ", "), err)
		}
	}
	wait := t.ends
	if err != nil || len(t.offers) > 0 && !confirmed {
		wait = t.latest()
	}
	if clusterip.Pause(ctx, min(time.Until(wait), time.Until(limit))) != nil || limit.Before(wait) {
		return false, fmt.Errorf("bucket %d of %s: other nodes may answer for it until %s from now, longer than the timeout of start allows",
			s.spec.Bucket, s.spec.Address(), time.Until(wait).Round(time.Millisecond))
	}
	return confirmed, nil
}

// request asks the nodes that linger. It reports whether all of them have confirmed.
func (s *session) request(ctx context.Context, layout clusterip.Layout) (all bool, err error) {
	begin := time.Now()
	if !layout.Lingers.IsZero() {
		expect := clusterip.ExpectTakeover{Layout: layout, Bucket: s.spec.Bucket, Lasts: time.Until(s.takeover.latest()) + time.Second}
		if err := s.apply(ctx, expect); err != nil {
			return false, err
		}
	}
	confirmed, err := s.Kernel.RequestTakeover(ctx, layout, s.spec.Bucket, s.takeover.offers)
	if err != nil {
		return false, err
	}
	nodes := strings.Join(s.takeover.nodes, ", ")
	if all = confirmed == len(s.takeover.offers); all {
		s.Log.Infof("bucket %d of %s: taken over from %s in %s", s.spec.Bucket, s.spec.Address(), nodes,
			time.Since(begin).Round(time.Millisecond))
	} else {
		s.Log.Warningf("bucket %d of %s: %d of the nodes that answered for it (%s) have not confirmed the takeover", s.spec.Bucket,
			s.spec.Address(), len(s.takeover.offers)-confirmed, nodes)
	}
	return all, nil
}

// endExpecting has the kernel no longer expect a bucket that a start has not owned after all. Otherwise the BPF program would pass its
// packets for as long as it is expected, and that would then be a fault.
func (s *session) endExpecting(ctx context.Context) error {
	tables := s.state.Tables
	if !slices.Contains(tables.Expecting, s.spec.Bucket) || tables.Installed == nil {
		return nil
	}
	if err := s.apply(ctx, clusterip.ExpectTakeover{Layout: *tables.Installed, Bucket: s.spec.Bucket}); err != nil {
		return err
	}
	return s.observeTables(ctx)
}

// lingering returns what this node is to publish of its lingering with a bucket that it releases; nothing if it may not linger. Before that
// it waits until no other node passes on packets of the bucket any more: the next owner would accept those, and this node answers them.
func (a Agent) lingering(ctx context.Context, spec clusterip.Spec, tables clusterip.Tables) (*clusterip.Linger, handover.Lingering) {
	if spec.Linger == 0 || tables.Installed.Lingers.IsZero() {
		return nil, handover.Lingering{}
	}
	passed := time.Now().Add(tables.PassesOn(spec.Bucket))
	why := a.mayLinger(ctx, a.board(spec.Address(), spec.Bucket), tables.Installed.Identity())
	if why == "" && clusterip.Pause(ctx, time.Until(passed)) != nil {
		why = "the node that it was taken over from may still pass packets on"
	}
	if why != "" {
		a.Log.Infof("bucket %d of %s: nobody answers until it is started again, because %s", spec.Bucket, spec.Address(), why)
		return nil, handover.Lingering{}
	}
	l := &clusterip.Linger{Bucket: spec.Bucket, Left: spec.Linger}
	_, _ = rand.Read(l.Key.Secret[:]) // it never fails (crypto/rand)
	_, _ = rand.Read(l.Key.Token[:])
	return l, handover.Lingering{For: spec.Linger, Key: l.Key.String()}
}

// mayLinger returns why the node may not linger with a bucket; empty if it may.
func (a Agent) mayLinger(ctx context.Context, b board, layout string) string {
	for begin := time.Now(); ; {
		view, err := b.announcements(ctx, layout)
		if err == nil {
			view.Nodes, err = b.NodeStates(ctx)
		}
		if err != nil {
			return err.Error()
		}
		may, unprobed := view.MayLinger()
		switch {
		case may:
			return ""
		case len(unprobed) == 0:
			return "no other node can take it over, or one has a version that cannot"
		case time.Since(begin) > probePatience || clusterip.Pause(ctx, probePause) != nil:
			return fmt.Sprintf("it is unknown whether %s can take it over: it was not probed", strings.Join(unprobed, ", "))
		}
	}
}

// The pauses between two looks at what lingers. Linux repeats a SYN-ACK after one second: by then an incomplete handshake must have ended.
const (
	lingerLook = 50 * time.Millisecond
	idleLook   = 500 * time.Millisecond
)

// watchLingering waits for a while, and looks at what lingers meanwhile. ended are the buckets of which lookAtLingering has seen the end.
func (a Agent) watchLingering(ctx context.Context, spec clusterip.Spec, wait time.Duration, ended map[clusterip.Bucket]bool) error {
	for until := time.Now().Add(wait); ; {
		look := cmp.Or(a.lookAtLingering(ctx, spec, ended), wait)
		if err := clusterip.Pause(ctx, max(0, min(look, time.Until(until)))); err != nil {
			return err
		}
		if !time.Now().Before(until) {
			return nil
		}
	}
}

// lookAtLingering looks whether buckets linger. When one lingers no more, it ends its handshakes, and publishes that it only drains. It
// returns the pause until the next look; 0 if nothing can linger.
func (a Agent) lookAtLingering(ctx context.Context, spec clusterip.Spec, ended map[clusterip.Bucket]bool) (pause time.Duration) {
	tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil || tables.Installed == nil || tables.Installed.Lingers.IsZero() {
		return 0
	}
	pause = idleLook
	for _, l := range tables.Lingering {
		pause = lingerLook
		delete(ended, l.Bucket)
	}
	for _, bucket := range tables.EndedLingers() {
		if tables.Moves.Drains(bucket) && !ended[bucket] {
			ended[bucket] = true
			a.endLingering(ctx, spec, bucket)
		}
	}
	return pause
}

// endLingering ends the handshakes of a bucket that this node has lingered with, and publishes that it only drains. It holds the lock, so
// that the bucket does not come back meanwhile, with new handshakes, and no stop of it can have published anything newer: before a stop,
// this node owns the bucket.
func (a Agent) endLingering(ctx context.Context, spec clusterip.Spec, bucket clusterip.Bucket) {
	err := a.alone(ctx, spec, func(s *session) error {
		tables, err := s.Kernel.ObserveTables(ctx, spec.Address())
		drain, drains := tables.Moves.Drain(bucket)
		_, lingers := tables.Lingers(bucket)
		if err != nil || !drains || lingers || tables.Installed == nil {
			return err
		}
		a.endHandshakes(ctx, *tables.Installed, drain)
		soon, cancel := context.WithTimeout(ctx, lockedTime)
		defer cancel()
		b := a.board(spec.Address(), bucket)
		view, err := b.announcements(soon, tables.Installed.Identity())
		own := view.Announcements[a.Node]
		if err != nil || own.Lingers.For == 0 {
			return err
		}
		if own.Others, err = b.validOthers(soon, view); err != nil {
			return err
		}
		own.Lingers, own.Nonce, own.Drain = handover.Lingering{}, newNonce(), drain.Left
		return b.publish(soon, own)
	})
	if err != nil {
		a.Log.Infof("bucket %d of %s: cannot publish that it lingers here no more; another node may ask in vain: %v", bucket, spec.Address(), err)
	}
}
