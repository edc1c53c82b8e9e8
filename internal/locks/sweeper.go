package locks

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

	"ocf-clusterip/internal/ocf"
)

// StartSweeper runs this program's action sweep as a process of its own, which outlives the action, and Pacemaker too. It needs no
// output, because its work is in the kernel.
func StartSweeper(environ []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start a sweeper: %w", err)
	}
	command := exec.Command(self, "sweep") //nolint:gosec // our own program
	command.Dir, command.Env = "/", environ
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start a sweeper: %w", err)
	}
	return command.Process.Release()
}

// Sweeper returns the lock of the only sweeper of an address; nil if another sweeper has it.
func (d Dir) Sweeper(address netip.Addr) (*ocf.Lock, error) {
	atOnce, cancel := context.WithCancel(context.Background())
	cancel()
	lock, err := ocf.AcquireLock(atOnce, string(d), sweeperName(address))
	if _, held := errors.AsType[*ocf.HeldError](err); held {
		return nil, nil
	}
	return lock, err
}

func sweeperName(address netip.Addr) string { return "clusterip-" + address.String() + ".sweeper" }

// removeSweeperLock removes the file that a killed sweeper has left behind.
func (d Dir) removeSweeperLock(address netip.Addr) error {
	if _, err := os.Lstat(filepath.Join(string(d), sweeperName(address)+".lock")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := d.Sweeper(address)
	if lock == nil {
		return err
	}
	return errors.Join(lock.Remove(), lock.Release())
}
