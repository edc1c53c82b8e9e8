package lan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDir is where `ip netns` keeps its names, so that an admin can look into a running test with `ip netns exec`.
const namespaceDir = "/run/netns"

var (
	// ourNames matches the namespaces of this package: cip<pid>-<network>-<host>.
	ourNames = regexp.MustCompile(`^cip([0-9]+)-[0-9]+-[a-z0-9]+$`)

	// networks counts the networks of this process, to name them apart.
	networks atomic.Uint32
)

// namespace is one network namespace, with a mount namespace whose /sys shows its devices (as `ip netns exec` makes it).
type namespace struct {
	name string
	net  netns.NsHandle
	mnt  int
}

// newNamespace makes a named namespace. One that already has the name was left by an earlier process with our process id.
func newNamespace(name string) (*namespace, error) {
	ns := &namespace{name: name, net: netns.None(), mnt: -1}
	err := OnThread(func() error {
		if err := shareNamespaceDir(); err != nil {
			return err
		}
		if err := removeName(name); err != nil {
			return err
		}
		var err error
		if ns.net, err = netns.NewNamed(name); err != nil {
			return err
		}
		if ns.mnt, err = mountSys(); err != nil {
			return fmt.Errorf("mount its /sys: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, errors.Join(err, ns.close()))
	}
	return ns, nil
}

// enter moves the calling thread into the namespace.
func (ns *namespace) enter() error {
	// A thread that shares its root and working directory with others may not change its mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the working directory: %w", err)
	}
	if err := unix.Setns(ns.mnt, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the mounts of %s: %w", ns.name, err)
	}
	if err := netns.Set(ns.net); err != nil {
		return fmt.Errorf("enter %s: %w", ns.name, err)
	}
	return nil
}

func (ns *namespace) close() error {
	var errs []error
	if ns.mnt >= 0 {
		errs = append(errs, unix.Close(ns.mnt))
		ns.mnt = -1
	}
	if ns.net.IsOpen() {
		errs = append(errs, ns.net.Close())
	}
	return errors.Join(append(errs, removeName(ns.name))...)
}

// removeName removes a name; the namespace itself exists until its last user has ended.
func removeName(name string) error {
	path := filepath.Join(namespaceDir, name)
	// EINVAL: not mounted; a crash between the file and its mount leaves that.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sweep removes what crashed runs left: names of ours whose process has ended.
func sweep() error {
	names, err := os.ReadDir(namespaceDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range names {
		m := ourNames.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if pid, err := strconv.Atoi(m[1]); err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			errs = append(errs, removeName(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// OnThread runs fn on a thread of its own that ends afterwards, so that no other code sees what fn does to it.
// It avoids the main thread, which cannot end, and whose namespaces /proc/self shows.
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine") // t.FailNow inside fn
		defer func() { done <- err }()
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			err = OnThread(fn) // cannot meet the main thread while this goroutine holds it
			return
		}
		err = fn()
	}()
	return <-done
}

// shareNamespaceDir makes the directory a shared mount as `ip netns add` does, under the same lock. Without it a later
// `ip netns add` would mount it over itself and our names could not be removed any more; and mount namespaces made
// meanwhile would keep our network namespaces alive.
func shareNamespaceDir() error {
	if err := os.MkdirAll(namespaceDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(namespaceDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", namespaceDir, err)
	}
	share := func() error { return unix.Mount("", namespaceDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err = share()
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err = unix.Mount(namespaceDir, namespaceDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = share()
		}
	}
	if err != nil {
		return fmt.Errorf("share the mount %s: %w", namespaceDir, err)
	}
	return nil
}

// mountSys moves the thread to a mount namespace whose /sys shows the devices of its network namespace, and opens it.
// sysfs shows the network namespace it was mounted in, not the reader's: programs would see the machine's own interfaces.
func mountSys() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, err
	}
	if err := unix.Mount("", "/", "none", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return -1, err
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		return -1, err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return -1, err
	}
	return unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}
