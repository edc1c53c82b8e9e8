package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// Stop releases the spec's bucket, and removes everything of the resource with the last one. Of the spec it needs only the address. It
// succeeds from any state of the node, unless something cannot be removed.
//
// With Spec.Drain above 0 the node keeps serving the bucket's connections until they or the drain end. Until then what the buckets share
// stays.
func (a Agent) Stop(ctx context.Context, spec clusterip.Spec) error {
	announced := a.publishDrain(ctx, spec)
	var done stopped
	err := a.alone(ctx, spec, func(s *session) (err error) {
		done, err = s.stop(ctx, announced)
		return err
	})
	if drain, ok := done.moves.Drain(spec.Bucket); ok && done.layout != nil && err == nil && !done.lingers {
		a.endHandshakes(ctx, *done.layout, drain)
	}
	identity := spec.Layout().Identity()
	if done.layout != nil {
		identity = done.layout.Identity()
	}
	a.clearAnnouncements(ctx, spec.Address(), identity, clusterip.Subtract(done.announced, done.moves.Announced))
	if len(done.moves.Draining) > 0 {
		if err := a.StartSweeper(); err != nil {
			a.Log.Warningf("cannot start the sweeper; the next action cleans up after the drain: %v", err)
		}
	}
	return err
}

// stopped is what is left to be done after the lock was released.
type stopped struct {
	layout    *clusterip.Layout  // that was installed; nil if unknown
	announced []clusterip.Bucket // whose drain is announced
	moves     clusterip.Moves    // that continue
	lingers   bool               // with the bucket; then the sweeper ends its handshakes
}

// stop releases the bucket.
func (s *session) stop(ctx context.Context, announcement drainAnnouncement) (stopped, error) {
	if err := s.observeAndTidy(ctx); err != nil {
		return stopped{}, err
	}
	before := s.state.Tables
	s.warnOfConflicts()
	done := stopped{
		layout: before.Installed, announced: slices.Clone(before.Moves.Announced), moves: s.state.MovesAfterStop(s.spec, announcement.known),
	}
	if announcement.published {
		done.announced = append(done.announced, s.spec.Bucket)
	}
	others := clusterip.Subtract(before.Owned, []clusterip.Bucket{s.spec.Bucket})
	if len(others)+len(done.moves.Draining) == 0 {
		return done, s.stopLast(ctx)
	}
	if !s.state.Owns(s.spec.Bucket) {
		s.Log.Infof("bucket %d of %s does not run here", s.spec.Bucket, s.spec.Address())
		// A start of it may have been killed.
		if err := s.endExpecting(ctx); err != nil {
			s.Log.Warningf("%v", err)
		}
		s.trySettleEarlyDrop(ctx)
		return done, nil
	}
	linger := announcement.linger
	// The tables may have changed since it was announced.
	if !done.moves.Drains(s.spec.Bucket) || before.Installed == nil || before.Installed.Lingers.IsZero() {
		linger = nil
	}
	done.lingers = linger != nil
	if err := s.release(ctx, done.moves, linger); err != nil {
		return done, err
	}
	s.endConnections(ctx, before, before.NoLongerServed(others, done.moves))
	return done, nil
}

// warnOfConflicts logs what has our names or addresses and is not ours. It is left alone.
func (s *session) warnOfConflicts() {
	for _, table := range s.state.Tables.Conflicting {
		s.Log.Warningf("the agent did not install %s, which has its name; left alone", table)
	}
	for _, address := range s.state.Addresses {
		if !s.state.IsOurs(address, s.spec.NIC) {
			s.Log.Warningf("the agent did not install %s on %s; left alone", address.Prefix, s.state.NICName(address.NICIndex))
		}
	}
}

// release stops a bucket beside others that continue.
func (s *session) release(ctx context.Context, moves clusterip.Moves, linger *clusterip.Linger) error {
	step := s.state.Tables.Release(s.spec, moves)
	step.Linger = linger
	applyErr := s.apply(ctx, step)
	if err := s.observeTables(ctx); err != nil {
		return errors.Join(applyErr, err)
	}
	if s.state.Owns(s.spec.Bucket) {
		return errors.Join(applyErr, fmt.Errorf("%s: bucket %d is still owned", step, s.spec.Bucket))
	}
	s.trySettleEarlyDrop(ctx)
	served := ""
	if s.state.Tables.Moves.Drains(s.spec.Bucket) {
		served = fmt.Sprintf("; its connections are served for %s at most", s.spec.Drain)
	}
	if linger != nil {
		served += fmt.Sprintf("; everything else too, until it is taken over, for %s at most", linger.Left)
	}
	s.Log.Infof("bucket %d of %s stopped%s; buckets %s still run", s.spec.Bucket, s.spec.Address(), served,
		clusterip.FormatBuckets(s.state.Tables.Owned))
	return nil
}

// stopLast removes everything of the resource.
func (s *session) stopLast(ctx context.Context) error {
	before, dropsOn := s.state.Tables, s.state.EarlyDrop.NICIndex
	steps := s.spec.PlanRemoval(s.state)
	if len(steps) == 0 {
		s.Log.Infof("nothing of %s is here", s.spec.Address())
		return nil
	}
	if !s.state.Owns(s.spec.Bucket) {
		s.Log.Warningf("bucket %d of %s does not run here, but this is left: %s; removing it", s.spec.Bucket, s.spec.Address(),
			strings.Join(clusterip.Leftovers(s.state, s.spec.NIC), ", "))
	}
	s.warn("stop found: ", before.Faults)
	removeErr := s.remove(ctx, steps)
	s.endConnections(ctx, before, before.NoLongerServed(nil, clusterip.Moves{}))
	if err := s.observe(ctx); err != nil {
		return errors.Join(removeErr, err)
	}
	// A start with another interface that was killed has attached the BPF program there. The tables did not name that interface, so it
	// is observed only now.
	if early := s.state.EarlyDrop; early.Judges() && early.NICIndex != dropsOn {
		removeErr = errors.Join(removeErr, s.remove(ctx, s.spec.PlanRemoval(s.state)))
		if err := s.observe(ctx); err != nil {
			return errors.Join(removeErr, err)
		}
	}
	if left := clusterip.Leftovers(s.state, s.spec.NIC); len(left) > 0 {
		return errors.Join(removeErr, fmt.Errorf("after stop of bucket %d of %s this is still here: %s", s.spec.Bucket, s.spec.Address(),
			strings.Join(left, ", ")))
	}
	if removeErr != nil { // what could not be removed is gone all the same
		s.Log.Warningf("stop has removed everything, although a step failed: %v", removeErr)
	}
	s.Log.Infof("bucket %d of %s stopped; nothing is left", s.spec.Bucket, s.spec.Address())
	return nil
}

// StopResource stops by the resource's name alone, when the address is not known.
func (a Agent) StopResource(ctx context.Context, spec clusterip.Spec) error {
	if spec.Resource == "" {
		a.Log.Warningf("neither parameter ip nor the name of the resource is given, so there is nothing to stop")
		return nil
	}
	layouts, err := a.Kernel.Layouts(ctx)
	if err != nil {
		return err
	}
	layouts = slices.DeleteFunc(layouts, func(l clusterip.Layout) bool { return l.Resource != spec.Resource })
	a.Log.Warningf("parameter ip is missing; stopping all %d resources that are installed for %s", len(layouts), spec.Resource)
	var faults []error
	for _, layout := range layouts {
		spec.Addresses = layout.Addresses()
		faults = append(faults, a.Stop(ctx, spec))
	}
	return errors.Join(faults...)
}
