package earlydrop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

const (
	// lockPatience bounds the wait. Whoever of us holds the lock makes a few system calls.
	lockPatience = 5 * time.Second
	lockPause    = 2 * time.Millisecond
)

// namespacePath is the network namespace of the calling thread.
const namespacePath = "/proc/thread-self/ns/net"

// A namespace is which network namespace it is.
type namespace struct{ device, inode uint64 }

// currentNamespace returns that of the calling thread.
func currentNamespace() (namespace, error) {
	var stat unix.Stat_t
	if err := unix.Stat(namespacePath, &stat); err != nil {
		return namespace{}, fmt.Errorf("look which network namespace this is: %w", err)
	}
	return namespace{uint64(stat.Dev), stat.Ino}, nil //nolint:unconvert // of 32 bits on some processors
}

// checkNamespace returns an error on a thread in another network namespace than that of the connection. Some calls of the kernel use the
// thread's, some the connection's.
func (c *Conn) checkNamespace() error {
	current, err := currentNamespace()
	if err == nil && current != c.namespace {
		err = errors.New("the connection to the interfaces is used in another network namespace; open one there")
	}
	return err
}

// locked runs a function while no other resource changes the programs of this network namespace. The lock is that of the namespace's own
// file, so that no other file is needed, and ends with the process.
//
// Every user may lock that file, and nobody may make a stop fail. So after a while it goes on without the lock. If two resources then write
// at once, a record or the program may get lost: more packets pass, which monitor reports and start repairs.
func (c *Conn) locked(ctx context.Context, do func() error) error {
	if err := c.checkNamespace(); err != nil {
		return err
	}
	file, err := os.Open(namespacePath)
	if err != nil {
		return fmt.Errorf("open the network namespace to lock it: %w", err)
	}
	defer func() { _ = file.Close() }() // which ends the lock
	patience := lockPatience
	if c.isBlocked {
		patience = 0
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return do()
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock %s: %w", namespacePath, err)
		}
		err = clusterip.Pause(waiting, lockPause)
		switch {
		case err != nil && ctx.Err() == nil:
			c.isBlocked = true
			return do()
		case err != nil:
			return fmt.Errorf("another process holds the lock %s: %w; the next action tries again", namespacePath, err)
		}
	}
}
