// Package locks has the locks of an address on a node: one for actions, and one for each process in the
// background, the sweeper and the teller. It also starts those.
package locks

import (
	"context"
	"errors"
	"net/netip"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/ocf"
)

// Dir is the folder of the locks.
type Dir string

// Lock waits until no other action works on the address (agent.Agent).
func (d Dir) Lock(ctx context.Context, address netip.Addr) (agent.Unlocker, error) {
	lock, err := ocf.AcquireLock(ctx, string(d), "clusterip-"+address.String())
	if err != nil {
		return nil, err
	}
	return unlocker{lock, func() error { return d.removeOtherLocks(address) }}, nil
}

// LockIfPossible does without a lock where none can be made, and calls warn with the reason. It fails where another action has the lock.
func (d Dir) LockIfPossible(ctx context.Context, address netip.Addr, warn func(error)) (agent.Unlocker, error) {
	lock, err := d.Lock(ctx, address)
	if _, held := errors.AsType[*ocf.HeldError](err); err == nil || held {
		return lock, err
	}
	warn(err)
	return unlocker{}, nil
}

// An unlocker without a lock does nothing.
type unlocker struct {
	*ocf.Lock
	removeOther func() error
}

// Unlock implements agent.Unlocker.
func (u unlocker) Unlock(last bool) error {
	if u.Lock == nil {
		return nil
	}
	var err error
	if last {
		err = errors.Join(u.removeOther(), u.Remove())
	}
	return errors.Join(err, u.Release())
}
