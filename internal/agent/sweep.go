package agent

import (
	"context"
	"errors"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// The pauses between two looks of Sweep. Most connections are short, so the first comes soon; then the pauses grow with the time.
const (
	firstSweep  = time.Second
	lastSweep   = 15 * time.Second
	sweepGrowth = 4 // a pause is this part of the time since the beginning
)

// sweepPatience is how much longer than a drain can last Sweep tries when it fails.
const sweepPatience = time.Minute

// Sweep waits until the last drain of the address has ended, because its last connection was closed or its time is over, and cleans up. It
// holds the lock only while it changes something. It calls done, with the lock held, when no drain is left.
//
// An error does not end it: the error may pass, and on a node in standby no other action runs.
func (a Agent) Sweep(ctx context.Context, spec clusterip.Spec, done func()) error {
	begin, ended := time.Now(), map[clusterip.Bucket]bool{}
	for lastSuccess, logged := begin, false; ; {
		pause := min(max(firstSweep, time.Since(begin)/sweepGrowth), lastSweep)
		if err := a.watchLingering(ctx, spec, pause, ended); err != nil {
			return err
		}
		over, err := a.sweep(ctx, spec, done)
		switch {
		case over:
			return nil
		case err == nil:
			lastSuccess = time.Now()
		case time.Since(lastSuccess) > spec.Drain+sweepPatience:
			return err
		case !logged:
			a.Log.Warningf("cannot check the drains of %s, trying again for %s: %v", spec.Address(), spec.Drain+sweepPatience, err)
			logged = true
		}
	}
}

// sweep ends the drains that have no connection left. It reports whether no drain is left.
func (a Agent) sweep(ctx context.Context, spec clusterip.Spec, done func()) (over bool, err error) {
	tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil {
		return false, err
	}
	observed := time.Now()
	idle, err := a.idleDrains(ctx, tables) // without the lock: there may be many connections to count
	if len(tables.Moves.Announced) > 0 && len(tables.Moves.EndedDrains())+len(idle) == 0 {
		return false, err
	}
	err = errors.Join(err, a.alone(ctx, spec, func(s *session) error {
		if err := s.observeAndTidy(ctx); err != nil {
			return err
		}
		if idle := s.state.Tables.Moves.Unrenewed(idle, time.Since(observed)); len(idle) > 0 {
			if err := s.endDrains(ctx, idle); err != nil {
				return err
			}
			if err := s.observe(ctx); err != nil {
				return err
			}
		}
		if over = len(s.state.Tables.Moves.Announced) == 0; over {
			done()
		}
		return nil
	}))
	return over, err
}
