package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
)

// Start makes the node own the spec's bucket. It repairs whatever is wrong with what the buckets share, without disturbing the buckets
// that run.
func (a Agent) Start(ctx context.Context, spec clusterip.Spec) error {
	var done started
	takeover := a.findLingerers(ctx, spec)
	err := a.alone(ctx, spec, func(s *session) (err error) {
		s.takeover = takeover
		done, err = s.start(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if takeover.drains && !slices.Contains(done.drained, spec.Bucket) { // the sweeper may have cleared that before it was published anew
		done.drained = append(done.drained, spec.Bucket)
	}
	// The rest does not hold the lock, for which the other instances wait: Pacemaker takes its time, and there are pauses between the ARP
	// replies.
	a.clearAnnouncements(ctx, spec.Address(), done.layout.Identity(), done.drained)
	if done.takenOver {
		if err := a.Kernel.EndTakeover(ctx, done.layout, spec.Bucket, takeover.offers); err != nil {
			a.Log.Infof("bucket %d of %s: %s may pass packets on in vain for %s: %v", spec.Bucket, spec.Address(),
				strings.Join(takeover.nodes, ", "), clusterip.PassTime, err)
		}
	}
	if !done.addressIsNew {
		a.afterCrash(ctx, spec, done, takeover)
		return nil
	}
	if err := a.Kernel.Advertise(ctx, done.layout, spec.Advertisements); err != nil {
		a.Log.Warningf("%v; neighbours with an old entry learn the shared MAC only when the entry expires", err)
	}
	return nil
}

// afterCrash has the clients of the old owner told, if it may have died. Where the address is new, nothing is remembered.
func (a Agent) afterCrash(ctx context.Context, spec clusterip.Spec, done started, takeover takeover) {
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	switch {
	case !done.remembers:
	case slices.Contains(done.tables.Settled(), spec.Bucket):
		a.startTeller(spec)
	case takeover.alone:
		// The first monitor would find out, too, that nobody serves them, but they wait.
		if err := a.followUp(ctx, spec, done.tables); err != nil {
			a.Log.Warningf("bucket %d of %s: %v; the next monitor tries it again", spec.Bucket, spec.Address(), err)
		}
	}
}

// started is what is left to be done after the lock was released.
type started struct {
	layout       clusterip.Layout
	tables       clusterip.Tables
	drained      []clusterip.Bucket // they drained here until now
	addressIsNew bool               // neighbours may know another MAC for it
	takenOver    bool               // other nodes have confirmed that, and pass packets on
	remembers    bool               // the node may remember connections of the bucket
}

func (s *session) start(ctx context.Context) (started, error) {
	if err := s.observeAndTidy(ctx); err != nil {
		return started{}, err
	}
	layout, err := s.resolve(ctx)
	if err != nil {
		return started{}, err
	}
	goal := clusterip.GoalOfStart(s.state, layout, s.spec, adoptionFromAnyNode(s.spec))
	before, observed := s.state, time.Now()
	done := started{layout: layout, drained: clusterip.Subtract(before.Tables.Moves.Announced, goal.Moves.Announced)}
	steps := clusterip.Plan(before, goal)
	if len(steps) == 0 {
		s.Log.Infof("bucket %d of %s is already running", s.spec.Bucket, s.spec.Address())
		return done, nil
	}
	if slices.ContainsFunc(steps, installsTables) {
		if err := s.checkOtherResources(ctx, layout); err != nil {
			return done, err
		}
		s.warnOfNetwork(layout)
	}
	if s.needsEarlyDrop(layout) {
		if goal.Layout.EarlyDrop, err = s.attachEarlyDrop(ctx, layout); err != nil {
			return done, err
		}
		steps = clusterip.Plan(s.state, goal)
	}
	if before.Tables.Present {
		s.warn("start repairs: ", clusterip.Faults(before, layout, s.spec.CheckLink))
	}
	released := before.Tables.NoLongerServed(goal.Owned, goal.Moves)
	if before.Tables.DisagreesWith(layout) { // each bucket has other connections from now on
		s.endConnections(ctx, before.Tables, before.Tables.NoLongerServed(nil, clusterip.Moves{}))
		released = nil
	}
	if err := s.install(ctx, goal, steps); err != nil {
		s.Log.Errorf("start failed, undoing it: %v", err)
		s.undo(ctx, before, observed, layout)
		return done, err
	}
	s.endConnections(ctx, before.Tables, released)
	done.takenOver, done.tables = s.takenOver, s.state.Tables
	done.remembers = s.spec.Remember > 0 && s.state.EarlyDrop.Judges()
	done.addressIsNew = slices.ContainsFunc(steps, concernsNeighbours)
	s.Log.Infof("bucket %d of %s runs on %s", s.spec.Bucket, s.spec.Address(), layout.NIC)
	return done, nil
}

// resolve decides on the layout: the interface, and the backend if it is for the agent to choose. It logs what it has chosen.
func (s *session) resolve(ctx context.Context) (clusterip.Layout, error) {
	layout, err := s.spec.Admit(s.state)
	if err != nil {
		return layout, err
	}
	if others := s.spec.OtherInterfaces(s.state, layout); len(others) > 0 {
		s.Log.Infof("nic is %s, whose connected route is the longest that holds %s; other interfaces: %s", layout.NIC,
			clusterip.Joined(s.spec.Addresses), strings.Join(others, ", "))
	}
	if layout.Backend == "" {
		withoutLinger := layout
		withoutLinger.Lingers = clusterip.MAC{}
		chosen, reasons, err := s.Kernel.Choose(ctx, withoutLinger)
		if err != nil {
			return layout, err
		}
		s.Log.Infof("backend %s%s", chosen, strings.Join(append([]string{""}, reasons...), "; "))
		layout.Backend = chosen
	}
	layout.Lingers = s.canLinger(ctx, layout)
	return layout, nil
}

// canLinger returns Layout.Lingers, or nothing if this kernel lacks what that needs. Without it moves are as with linger=0.
func (s *session) canLinger(ctx context.Context, layout clusterip.Layout) clusterip.MAC {
	installed := s.state.Tables.Installed
	if layout.Lingers.IsZero() || installed != nil && !installed.Lingers.IsZero() {
		return layout.Lingers
	}
	if why := s.Kernel.WhyNoLinger(ctx, layout); why != nil {
		s.Log.Infof("linger has no effect on this node: %v", why)
		return clusterip.MAC{}
	}
	return layout.Lingers
}

// checkOtherResources returns why a layout cannot be installed beside the other resources of the node (ocf.ErrConfigured: it would be the
// same on every node).
func (s *session) checkOtherResources(ctx context.Context, layout clusterip.Layout) error {
	others, err := otherLayouts(ctx, s.Kernel, s.spec)
	if err != nil {
		return err
	}
	var faults []error
	for _, other := range others {
		faults = append(faults, layout.Collisions(other)...)
	}
	return errors.Join(faults...)
}

// warnOfNetwork logs what a bridge or an interface of the node does to packets for the address.
func (s *session) warnOfNetwork(layout clusterip.Layout) {
	nic, _ := s.state.NICAt(layout.NICIndex)
	if layout.MACMode != clusterip.Unicast {
		if bridge, why := s.state.SnoopFault(nic); why != "" {
			s.Log.Warningf("%s; make the bridge receive them: ip link set %s type bridge mcast_router 2 (and in the network's configuration)",
				why, bridge.Name)
		}
	} else if why := s.state.GuestFault(nic); why != "" {
		s.Log.Warningf("%s; if these are clients, set mac_mode=multicast", why)
	}
	if _, why := s.state.TranslationFault(nic, layout.Has); why != "" {
		s.Log.Warningf("%s; if there are such rules: sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 "+
			"(and in /etc/sysctl.d)", why)
	}
	if why := s.state.ARPFilterFault(nic); why != "" {
		s.Log.Warningf("%s", why)
	}
}

func installsTables(step clusterip.Step) bool {
	_, installs := step.(clusterip.InstallTables)
	return installs
}

// concernsNeighbours reports whether neighbours may have to learn the address's MAC after a step: the address is new on this node, or
// neighbours were given another MAC while the tables were broken.
func concernsNeighbours(step clusterip.Step) bool {
	add, adds := step.(clusterip.AddAddress)
	return installsTables(step) || adds && !add.Group
}

// undo takes a failed start back: the bucket, and everything else if the node served nothing before.
func (s *session) undo(ctx context.Context, before clusterip.State, observed time.Time, layout clusterip.Layout) {
	var err error
	switch servedBefore := len(before.Tables.Owned)+len(before.MovesKept(layout).Draining) > 0; {
	case servedBefore && before.Owns(s.spec.Bucket):
	case servedBefore:
		err = s.undoOwn(ctx, before.Tables.Moves, observed)
	default:
		if err = s.observe(ctx); err == nil {
			if err = s.remove(ctx, s.spec.PlanRemoval(s.state)); err == nil {
				err = s.observe(ctx)
			}
		}
	}
	if err != nil {
		s.Log.Errorf("cannot undo the failed start; stop will remove the rest: %v", err)
	}
}

// undoOwn releases the bucket of a failed start, if it is owned. If it drained before, it drains again for the rest of its time. The other
// buckets' times are what they are now.
func (s *session) undoOwn(ctx context.Context, before clusterip.Moves, observed time.Time) error {
	err := s.observeTables(ctx)
	if err == nil && !s.state.Owns(s.spec.Bucket) {
		return errors.Join(s.endExpecting(ctx), s.settleEarlyDrop(ctx))
	}
	moves := s.state.Tables.Moves.Without(s.spec.Bucket)
	if drain, drained := before.Drain(s.spec.Bucket); drained {
		moves = moves.WithDrain(s.spec.Bucket, drain.Left-time.Since(observed))
	}
	if applyErr := s.apply(ctx, s.state.Tables.Release(s.spec, moves)); applyErr != nil {
		return errors.Join(err, applyErr)
	}
	if err := s.observeTables(ctx); err != nil {
		return err
	}
	return s.settleEarlyDrop(ctx)
}

// adoptionFromAnyNode is the adoption with which a bucket is started. A start asks nobody, because an answer may be older than what
// another node has just published.
func adoptionFromAnyNode(spec clusterip.Spec) clusterip.Adoption {
	adoption := clusterip.Adoption{Bucket: spec.Bucket}
	if spec.Drain > 0 {
		adoption.Left, adoption.From = spec.Drain+handover.GracePeriod, []string{handover.AnyNode}
	}
	return adoption
}

// Validate reports whether the spec could be started on this node. It changes nothing.
func (a Agent) Validate(ctx context.Context, spec clusterip.Spec) error {
	return a.alone(ctx, spec, func(s *session) error {
		if err := s.observe(ctx); err != nil {
			return err
		}
		layout, err := s.resolve(ctx)
		if err != nil {
			return err
		}
		return s.checkOtherResources(ctx, layout)
	})
}
