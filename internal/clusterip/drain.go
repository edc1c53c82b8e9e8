package clusterip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// observeTidily reads what is there, when what is out of date is renewed (planRenewal), and what is left of drains that are over is
// cleared up: their time has ended them in the kernel, and nobody has swept.
func (a Agent) observeTidily(ctx context.Context, spec Spec) (State, error) {
	seen, err := a.observe(ctx, spec)
	if err != nil {
		return seen, err
	}
	if renewal := planRenewal(seen); len(renewal) > 0 {
		if lay, isTables := renewal[0].(LayTables); isTables {
			a.Log.Infof("%s: updating the ports by which a bond sends ARP requests: %v", joined(spec.Addresses), lay.Layout.Ports)
		}
		if len(renewal) > 1 { // of an address one form comes and one goes
			a.Log.Infof("replacing what an earlier version installed for %s, so that the node never uses it as the source of its own connections", joined(spec.Addresses))
		}
		for _, step := range renewal {
			if err := a.Kernel.Apply(ctx, step); err != nil {
				a.Log.Warningf("%s: %v", step, err)
				break
			}
		}
		if seen, err = a.observe(ctx, spec); err != nil {
			return seen, err
		}
	}
	over := seen.Tables.Moves.over()
	if len(over) == 0 {
		return seen, nil
	}
	if err := a.endDrains(ctx, spec, seen, over); err != nil {
		a.Log.Warningf("cannot clean up after the drains of buckets %s: %v", list(over), err)
	}
	return a.observe(ctx, spec)
}

// endAtOnce bounds for how many buckets the others are told while the lock is held.
const endAtOnce = 16

// endDrains ends the drains of buckets, as many as can be done in a moment, and with the last one takes everything away, if no bucket is owned.
// The others are told first: a word that nobody takes back would make them wait for connections that are gone. And what shows that something
// drained goes last: killed before, the next action does it all again.
func (a Agent) endDrains(ctx context.Context, spec Spec, seen State, buckets []Bucket) error {
	buckets = buckets[:min(len(buckets), endAtOnce)]
	a.forget(ctx, seen.Tables, buckets)
	soon, cancel := context.WithTimeout(ctx, lockedTime)
	defer cancel()
	a.takeBack(soon, spec.Address(), seen.layoutOr(spec), buckets)
	moves := seen.Tables.Moves.without(buckets...)
	if len(seen.Tables.Owned)+len(moves.Draining) == 0 {
		return a.remove(ctx, spec.removal(seen))
	}
	step := Move{Address: spec.Address(), Resource: spec.Resource, Moves: moves}
	if err := a.Kernel.Apply(ctx, step); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

// revise lays what is left of an adoption. From nobody, the kernel answers for all connections of the bucket: those that it does not know get a
// reset.
func (a Agent) revise(ctx context.Context, spec Spec, before, next Adoption) error {
	return a.locked(ctx, spec.Address(), func() (bool, error) {
		tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
		if err != nil {
			return true, err
		}
		now, ok := tables.Moves.Adoption(spec.Bucket)
		if !ok || !slices.Equal(now.From, before.From) || now.Left > before.Left {
			return true, nil // it was given away and taken over meanwhile
		}
		moves := tables.Moves.without(spec.Bucket)
		if len(next.From) == 0 {
			a.Log.Infof("bucket %d of %s: adoption ended; %s serve no connection of it any more", spec.Bucket, spec.Address(), namesOf(before))
		} else {
			a.Log.Infof("bucket %d of %s: old connections are served by %s", spec.Bucket, spec.Address(), namesOf(next))
			moves = moves.withAdoption(next)
		}
		return true, a.Kernel.Apply(ctx, Move{Address: spec.Address(), Resource: spec.Resource, Moves: moves})
	})
}

// How often Sweep looks: soon at first, for most connections are short, and then the more seldom the longer it has waited.
const (
	firstSweep  = time.Second
	lastSweep   = 15 * time.Second
	sweepGrowth = 4 // the pause is that part of the time that it has waited
)

// sweepPatience is how much longer than the last drain Sweep tries on when it cannot do its work.
const sweepPatience = time.Minute

// Sweep waits until the last drain of the address has ended, by itself or because the last connection was closed, and clears up. It
// holds the lock only while it acts; done is called, with the lock held, when there is nothing left to wait for. An error may pass, and
// nobody else may come: on a node in standby no action is run.
func (a Agent) Sweep(ctx context.Context, spec Spec, done func()) error {
	begin := time.Now()
	for good, told := begin, false; ; {
		if err := Pause(ctx, min(max(firstSweep, time.Since(begin)/sweepGrowth), lastSweep)); err != nil {
			return err
		}
		over, err := a.sweep(ctx, spec, done)
		switch {
		case over:
			return nil
		case err == nil:
			good = time.Now()
		case time.Since(good) > spec.Drain+sweepPatience:
			return err
		case !told:
			a.Log.Warningf("cannot check the drains of %s, trying again for %s: %v", spec.Address(), spec.Drain+sweepPatience, err)
			told = true
		}
	}
}

// Pause waits, or until the context ends: then it returns why.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// sweep ends the drains without a connection. It tells whether no other goes on.
func (a Agent) sweep(ctx context.Context, spec Spec, done func()) (over bool, err error) {
	tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil {
		return false, err
	}
	looked := time.Now()
	idle, err := a.idle(ctx, tables) // outside the lock: a table of connections may be long
	if len(tables.Moves.HandedOver) > 0 && len(tables.Moves.over())+len(idle) == 0 {
		return false, err // no need for the lock
	}
	err = errors.Join(err, a.locked(ctx, spec.Address(), func() (bool, error) {
		seen, err := a.observeTidily(ctx, spec)
		if err == nil {
			if still := seen.Tables.Moves.stillDrained(idle, time.Since(looked)); len(still) > 0 {
				if err = a.endDrains(ctx, spec, seen, still); err == nil {
					seen, err = a.observe(ctx, spec)
				}
			}
		}
		if over = err == nil && len(seen.Tables.Moves.HandedOver) == 0; over {
			done()
		}
		return err != nil || len(Leftovers(seen, spec.NIC)) > 0, err
	}))
	return over, err
}

// idle are the drains without a connection; none if that cannot be told. The connections of the others are kept known to the kernel.
func (a Agent) idle(ctx context.Context, tables Tables) ([]Drain, error) {
	if len(tables.Moves.Draining) == 0 || tables.Laid == nil {
		return nil, nil
	}
	left := map[Bucket]time.Duration{}
	for _, d := range tables.Moves.Draining {
		left[d.Bucket] = d.Left
	}
	kept := a.Kernel.Keep(ctx, *tables.Laid, left)
	connections, err := a.Kernel.Connections(ctx, *tables.Laid)
	if err != nil {
		return nil, fmt.Errorf("cannot count connections; drains will run to their timeout: %w", err)
	}
	return slices.DeleteFunc(slices.Clone(tables.Moves.Draining), func(d Drain) bool { return connections[d.Bucket] > 0 }), kept
}

// settle makes connections of a bucket that was given away either the node's own, known to the kernel for as long as the bucket drains, or
// nobody's. When it returns, this node answers no client that the new owner may answer, too.
func (a Agent) settle(ctx context.Context, layout Layout, drain Drain) {
	err := a.Kernel.EndHandshakes(ctx, layout, drain.Bucket)
	if err == nil {
		err = a.Kernel.Keep(ctx, layout, map[Bucket]time.Duration{drain.Bucket: drain.Left})
	}
	if err != nil {
		a.Log.Warningf("bucket %d: connections that are idle, or whose handshake is incomplete, may break: %v", drain.Bucket, err)
	}
}

// keep makes the kernel know the connections that the node has of a bucket that it adopts: what is not known is taken for another node's.
func (a Agent) keep(ctx context.Context, layout Layout, adoption Adoption) {
	if err := a.Kernel.Keep(ctx, layout, map[Bucket]time.Duration{adoption.Bucket: adoption.Left}); err != nil {
		a.Log.Warningf("bucket %d: idle connections may break while it is adopted: %v", adoption.Bucket, err)
	}
}

// forget ends what there is of connections of buckets that the node no longer serves. Entries of conntrack's that outlive them would make
// later connections of the same clients seem known here, when the bucket comes back. But a bucket that is stopped because its tables are damaged is
// started again at once, mostly here, and goes on with what it had.
func (a Agent) forget(ctx context.Context, tables Tables, buckets []Bucket) {
	if len(buckets) == 0 || tables.Laid == nil || !tables.Laid.Drains || len(tables.Damage) > 0 {
		return
	}
	if err := a.Kernel.Forget(ctx, *tables.Laid, buckets); err != nil {
		a.Log.Warningf("cannot end all connections of buckets %s, which this node no longer serves: %v", list(buckets), err)
	}
}

// Reload takes over changed parameters that need no restart: whether connections survive moves is laid into the tables. Switched off, it is taken
// out of them only when the last of those that have survived one has ended.
func (a Agent) Reload(ctx context.Context, spec Spec) error {
	return a.locked(ctx, spec.Address(), func() (bool, error) {
		seen, err := a.observeTidily(ctx, spec)
		if err != nil {
			return true, err
		}
		if laid := seen.Tables.Laid; !seen.owns(spec.Bucket) || laid == nil || laid.Drains == (spec.Drain > 0 || seen.drainsOn(*laid)) {
			return len(Leftovers(seen, spec.NIC)) > 0, nil
		}
		layout, err := spec.admit(seen)
		if err != nil {
			return true, err
		}
		goal := Goal{Layout: layout, NIC: spec.NIC, Owned: seen.Tables.Owned}
		if steps := Plan(seen, goal); len(steps) > 0 {
			return true, a.lay(ctx, spec, seen, goal, steps)
		}
		return true, nil
	})
}
