package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/ocf"
)

// startSweeper runs this program again as a process of its own, which outlives the action, and the resource manager too. It needs no
// output: what it does is in the kernel.
func (c *call) startSweeper() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start a sweeper: %w", err)
	}
	command := exec.Command(self, "sweep") //nolint:gosec // our own program
	command.Dir, command.Env = "/", c.environ
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start a sweeper: %w", err)
	}
	return command.Process.Release()
}

// sweep is the background process: one for each address, for as long as something drains.
func (c *call) sweep(ctx context.Context) error {
	spec, err := c.spec()
	if len(spec.Addresses) == 0 {
		return err
	}
	lock, err := c.sweeperLock(spec.Address())
	if lock == nil {
		return err // another one is at it
	}
	defer func() { _ = lock.Release() }() // the process ends anyway
	return c.connected(ctx, func(ctx context.Context, agent agent.Agent) error {
		return agent.Sweep(ctx, spec, func() {
			if err := errors.Join(lock.Remove(), lock.Release()); err != nil {
				c.log.Warningf("%v", err)
			}
		})
	})
}

// sweeperLock is the lock that keeps a second sweeper away; nil if there is one that holds it.
func (c *call) sweeperLock(address netip.Addr) (*ocf.Lock, error) {
	atOnce, cancel := context.WithCancel(context.Background())
	cancel()
	lock, err := ocf.AcquireLock(atOnce, c.environment.TempDir, sweeperLockName(address))
	if _, held := errors.AsType[*ocf.HeldError](err); held {
		return nil, nil
	}
	return lock, err
}

func sweeperLockName(address netip.Addr) string { return "clusterip-" + address.String() + ".sweeper" }

// removeSweeperLock removes what a sweeper has left that was killed.
func (c *call) removeSweeperLock(address netip.Addr) error {
	if _, err := os.Lstat(filepath.Join(c.environment.TempDir, sweeperLockName(address)+".lock")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := c.sweeperLock(address)
	if lock == nil {
		return err
	}
	return errors.Join(lock.Remove(), lock.Release())
}
