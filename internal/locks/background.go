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

// StartSweeper runs this program's action sweep as a process of its own, which outlives the action, and Pacemaker too. It has no
// output: it logs to syslog.
func StartSweeper(environ []string) error { return startInBackground("sweep", environ) }

// StartTeller likewise runs the action tell.
func StartTeller(environ []string) error { return startInBackground("tell", environ) }

func startInBackground(action string, environ []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start %s in the background: %w", action, err)
	}
	command := exec.Command(self, action) //nolint:gosec // our own program
	command.Dir, command.Env = "/", environ
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s in the background: %w", action, err)
	}
	return command.Process.Release()
}

// Teller waits until no other teller works on the address, and returns the lock; nil if one waits already, which will see whatever this one
// would.
func (d Dir) Teller(ctx context.Context, address netip.Addr) (*ocf.Lock, error) {
	waits, err := d.ifFree(nextTellerName(address))
	if waits == nil {
		return nil, err
	}
	lock, err := ocf.AcquireLock(ctx, string(d), tellerName(address))
	return lock, errors.Join(err, waits.Remove(), waits.Release())
}

// Sweeper returns the lock of the only sweeper of an address; nil if another sweeper has it.
func (d Dir) Sweeper(address netip.Addr) (*ocf.Lock, error) { return d.ifFree(sweeperName(address)) }

func (d Dir) ifFree(name string) (*ocf.Lock, error) {
	atOnce, cancel := context.WithCancel(context.Background())
	cancel()
	lock, err := ocf.AcquireLock(atOnce, string(d), name)
	if _, held := errors.AsType[*ocf.HeldError](err); held {
		return nil, nil
	}
	return lock, err
}

func sweeperName(address netip.Addr) string { return "clusterip-" + address.String() + ".sweeper" }

func tellerName(address netip.Addr) string { return "clusterip-" + address.String() + ".teller" }

func nextTellerName(address netip.Addr) string { return tellerName(address) + ".next" }

// removeOtherLocks removes the files that a sweeper or a teller has left behind which was killed.
func (d Dir) removeOtherLocks(address netip.Addr) error {
	return errors.Join(
		d.removeLeft(sweeperName(address)), d.removeLeft(tellerName(address)), d.removeLeft(nextTellerName(address)),
	)
}

func (d Dir) removeLeft(name string) error {
	if _, err := os.Lstat(filepath.Join(string(d), name+".lock")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := d.ifFree(name)
	if lock == nil {
		return err
	}
	return errors.Join(lock.Remove(), lock.Release())
}
