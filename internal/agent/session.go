package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// A session is the part of an action that runs alone on its address: it holds the lock.
type session struct {
	Agent
	spec    clusterip.Spec
	state   clusterip.State // as last observed
	current bool            // nothing was applied since
	// takeover is what a start has found out about other nodes.
	takeover  takeover
	takenOver bool // they have confirmed
}

// alone runs a part of an action in a session.
func (a Agent) alone(ctx context.Context, spec clusterip.Spec, action func(*session) error) error {
	lock, err := a.Lock(ctx, spec.Address())
	if err != nil {
		return err
	}
	s := &session{Agent: a, spec: spec}
	err = action(s)
	// The action is done. A lock's file that stays behind is no reason to fail.
	if err := lock.Unlock(s.nothingLeft()); err != nil {
		a.Log.Warningf("%v", err)
	}
	return err
}

// nothingLeft reports whether the node has certainly nothing of the resource.
func (s *session) nothingLeft() bool {
	return s.current && len(clusterip.Leftovers(s.state, s.spec.NIC)) == 0
}

// observe reads the state of the resource.
func (s *session) observe(ctx context.Context) (err error) {
	s.state, err = Observe(ctx, s.Kernel, s.spec)
	s.current = err == nil
	return err
}

// observeTables reads only the tables again.
func (s *session) observeTables(ctx context.Context) (err error) {
	s.state.Tables, err = s.Kernel.ObserveTables(ctx, s.spec.Address())
	s.current = err == nil
	return err
}

// apply carries out one step.
func (s *session) apply(ctx context.Context, step clusterip.Step) error {
	s.current = false
	s.Log.Debugf("%s", step)
	if err := s.Kernel.Apply(ctx, step); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

// install applies the steps to a goal, and reports success only of what it has observed afterwards.
func (s *session) install(ctx context.Context, goal clusterip.Goal, steps []clusterip.Step) error {
	observe := s.observeTables // after a further bucket's only step the interfaces need not be read again
	for _, step := range steps {
		change, changesBuckets := step.(clusterip.ChangeBuckets)
		if !changesBuckets {
			observe = s.observe
		} else if slices.Contains(change.Own, s.spec.Bucket) {
			var err error
			if change.TakenOver, err = s.takeOver(ctx, goal.Layout); err != nil {
				return err
			}
			s.takenOver, step = change.TakenOver, change
		}
		if err := s.apply(ctx, step); err != nil {
			return err
		}
	}
	if err := observe(ctx); err != nil {
		return err
	}
	if err := s.settleEarlyDrop(ctx); err != nil {
		return err
	}
	faults := clusterip.Faults(s.state, goal.Layout, s.spec.CheckLink)
	if installed := s.state.Tables.Installed; installed != nil && installed.Drains != goal.Layout.Drains {
		faults = append(faults, "the rules for drain are not as requested")
	}
	if missing := clusterip.Subtract(goal.Owned, s.state.Tables.Owned); len(missing) > 0 {
		faults = append(faults, fmt.Sprintf("buckets %s are not owned", clusterip.FormatBuckets(missing)))
	}
	if len(faults) > 0 {
		return fmt.Errorf(
			"bucket %d of %s: every step succeeded, but afterwards: %s", s.spec.Bucket, s.spec.Address(), strings.Join(faults, "; "),
		)
	}
	return nil
}

// remove applies steps that remove something, and continues after an error. But if an address cannot be removed, everything that comes
// after it stays too: the tables keep the node silent, and they and the MAC filter show whose address it is.
func (s *session) remove(ctx context.Context, steps []clusterip.Step) error {
	var faults []error
	for _, step := range steps {
		if err := s.apply(ctx, step); err != nil {
			faults = append(faults, err)
			if _, isAddress := step.(clusterip.RemoveAddress); isAddress {
				break
			}
		}
	}
	return errors.Join(faults...)
}

func (a Agent) warn(prefix string, faults []string) {
	for _, fault := range faults {
		a.Log.Warningf("%s%s", prefix, fault)
	}
}
