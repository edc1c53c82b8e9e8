package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RootVariable names, in the environment, the root file systems of the hosts of a lab whose Options name none, with colons between them.
// `make cluster RELEASE=bookworm,trixie` sets it.
const RootVariable = "LAB_ROOT"

// machineRoot is the root file system of the machine itself.
const machineRoot = "/"

// roots returns the root file system of each host: those of the options in turn.
func (o Options) roots() []string {
	roots := o.Roots
	if len(roots) == 0 {
		roots = filepath.SplitList(os.Getenv(RootVariable))
	}
	if len(roots) == 0 {
		roots = []string{machineRoot}
	}
	var each []string
	for i := range o.Nodes {
		each = append(each, roots[i%len(roots)])
	}
	return each
}

// holdRoots keeps tests/make-root from removing a root file system that hosts run in: it holds a lock on the file that make-root wrote
// last. A root that make-root did not make has none.
func (l *Lab) holdRoots() error {
	for _, root := range l.options.roots() {
		if root == machineRoot {
			continue
		}
		made, err := os.Open(filepath.Join(root, ".made"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		l.held = append(l.held, made)
		if err := unix.Flock(int(made.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
			return fmt.Errorf("%s is being removed: %w", root, err)
		}
		if _, err := os.Stat(made.Name()); err != nil { // before the lock was had
			return fmt.Errorf("%s was removed: %w", root, err)
		}
	}
	return nil
}

// enterRoot makes a root file system the calling process's own, in its mount namespace. It is the lower layer of an overlay whose changes
// are kept on the host's disk, so that nothing is ever written to it. The shared folders are seen in it under their own names.
func enterRoot(root, disk string, shared []string) error {
	changes, work, merged := filepath.Join(disk, "root-changes"), filepath.Join(disk, "root-work"), filepath.Join(disk, "root")
	for _, folder := range []string{changes, work, merged} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+root+",upperdir="+changes+",workdir="+work); err != nil {
		return fmt.Errorf("mount an overlay of %s: %w", root, err)
	}
	for _, folder := range append([]string{"/dev", "/sys"}, shared...) {
		// Not the mounts below a shared folder: this one may be among them.
		var below uintptr
		if folder == "/dev" || folder == "/sys" {
			below = unix.MS_REC
		}
		target := filepath.Join(merged, folder)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(folder, target, "none", unix.MS_BIND|below, ""); err != nil {
			return fmt.Errorf("mount %s in %s: %w", folder, root, err)
		}
	}
	for _, folder := range append([]string{"/proc", "/run"}, mountPoints()...) {
		if err := os.MkdirAll(filepath.Join(merged, folder), 0o755); err != nil {
			return err
		}
	}
	hosts, err := os.OpenFile(filepath.Join(merged, "/etc/hosts"), os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	_ = hosts.Close()
	// The old root is stacked below the new one, and then unmounted (pivot_root(2), "pivot_root(".", ".")").
	if err := os.Chdir(merged); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root to %s: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the machine's root: %w", err)
	}
	return os.Chdir("/")
}

// mountPoints are the folders that a host mounts something on, but which a release may lack.
func mountPoints() []string {
	points := []string{agents}
	for _, to := range onDisk {
		points = append(points, to)
	}
	return points
}

// clusterUser returns the ids of the user and the group that Pacemaker's daemons run as in a root file system.
func clusterUser(root string) (uid, gid int, err error) {
	if uid, err = lookUpID(filepath.Join(root, "etc/passwd"), "hacluster"); err != nil {
		return 0, 0, err
	}
	gid, err = lookUpID(filepath.Join(root, "etc/group"), "haclient")
	return uid, gid, err
}

// lookUpID finds the id of a user in passwd(5), or of a group in group(5).
func lookUpID(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(line, ":"); len(fields) > 2 && fields[0] == name {
			return strconv.Atoi(fields[2])
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}

// packageVersion returns the version of a Debian package in a root file system.
func packageVersion(ctx context.Context, root, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "--admindir="+filepath.Join(root, "var/lib/dpkg"), "-W", "-f", "${Version}", name).
		Output()
	if err != nil {
		return "", fmt.Errorf("the version of %s in %s: %w", name, root, err)
	}
	return string(out), nil
}

// atLeast returns whether all hosts run that release of Pacemaker, or a later one.
func (l *Lab) atLeast(ctx context.Context, release string) (bool, error) {
	for _, root := range l.options.roots() {
		version, err := packageVersion(ctx, root, "pacemaker")
		if err != nil {
			return false, err
		}
		err = exec.CommandContext(ctx, "dpkg", "--compare-versions", version, "ge", release).Run()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("compare the version %s: %w", version, err)
		}
	}
	return true, nil
}

// fencingProperty is the name, which all hosts accept, of the property that switches fencing on. Pacemaker 3.0.2 renamed it, and warns of
// the old name; older releases do not have the new one.
func (l *Lab) fencingProperty(ctx context.Context) (string, error) {
	renamed, err := l.atLeast(ctx, "3.0.2")
	if renamed {
		return "fencing-enabled", err
	}
	return "stonith-enabled", err
}
