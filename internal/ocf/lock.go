package ocf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstRetry = time.Millisecond
	usualRetry = 4 * time.Millisecond // about the time that an action holds it
	lastRetry  = 32 * time.Millisecond
	// waitedShare bounds the next pause by a part of the time waited so far. After a long wait many processes wait, and with short pauses all
	// of them together would keep a processor busy.
	waitedShare = 16
)

// Lock makes other actions on the same resource on this node wait. The kernel releases it when the process ends, for any reason.
type Lock struct {
	dir  *os.File // nil after Release
	file *os.File
	name string
}

// HeldError means that another process holds the lock and did not release it in time. Every other error of AcquireLock means that the file
// cannot be locked at all.
type HeldError struct {
	Path    string
	PID     int           // of the holder; 0 when it is not known
	Command string        // of the holder; empty when it is not known
	Waited  time.Duration // how long AcquireLock waited
	Err     error         // why it did not wait longer: the context's cause
}

// Error names the lock and its holder.
func (e *HeldError) Error() string {
	holder := "another process"
	if e.PID != 0 {
		holder = "process " + strconv.Itoa(e.PID)
	}
	if e.Command != "" {
		holder += " (" + OneLine(e.Command) + ")"
	}
	return fmt.Sprintf("lock %s: held by %s for longer than %s: %v", e.Path, holder, e.Waited.Round(time.Millisecond), e.Err)
}

// Unwrap returns the context's cause.
func (e *HeldError) Unwrap() error { return e.Err }

// errReplaced means that the file was removed or replaced during the wait: there is another one to lock.
var errReplaced = errors.New("lock file was replaced")

// AcquireLock locks the file dir/name.lock, and waits for it until the context is done. It tries at least once. It creates the directory
// and its parents if they are missing.
//
// Other users may write to the directory (HA_RSCTMP could be /tmp). So it must be a real directory, owned by root or by this user, in which
// no other user can replace the file: not writable for others unless it is sticky, like Debian's /run/resource-agents (mode 1755). The file
// must be regular, owned by this user, and without a second name.
//
// The error is a *HeldError, or an *Error if the file cannot be locked: ErrPerm without permission, ErrArgs if the directory or the file is
// unsafe, else ErrGeneric.
func AcquireLock(ctx context.Context, dir, name string) (*Lock, error) {
	if !filepath.IsAbs(dir) {
		return nil, Errorf(ErrArgs, "lock: the directory %s is not an absolute path", Quote(dir))
	}
	dir = filepath.Clean(dir) // O_NOFOLLOW follows a link that has a slash behind it
	if !isLockName(name) {
		return nil, Errorf(ErrGeneric, "lock in %s: %s is not a safe file name (1 to 200 of ASCII letters, digits, . _ : - and no dot in front)",
			dir, Quote(name))
	}
	path := filepath.Join(dir, name+".lock")
	d, err := openLockDir(dir)
	if err != nil {
		return nil, lockError(path, err)
	}
	lock := &Lock{dir: d, name: name + ".lock"}
	start := time.Now()
	for retry := firstRetry; ; retry = min(2*retry, max(usualRetry, time.Since(start)/waitedShare), lastRetry) {
		err := lock.try(path)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, errReplaced) {
			return nil, errors.Join(lockError(path, err), lock.close())
		}
		if !sleep(ctx, retry) {
			held := &HeldError{Path: path, Waited: time.Since(start), Err: context.Cause(ctx)}
			held.PID, held.Command = lock.holder()
			return nil, errors.Join(held, lock.close())
		}
	}
}

// Release releases the lock. A second call, and one for a nil Lock, does nothing.
func (l *Lock) Release() error {
	if l == nil || l.dir == nil {
		return nil
	}
	// Otherwise a process that waits for the next holder would name this one. The pid is only a hint, so a failure does not matter.
	_ = l.file.Truncate(0)
	return l.close()
}

// Remove unlinks the lock's file, if it is still the locked one. It must be the last step before Release, because the next action creates a
// file of its own and does not wait. A missing file and a nil Lock are no errors.
func (l *Lock) Remove() error {
	if l == nil {
		return nil
	}
	if l.dir == nil {
		return errors.New("remove lock: it was released before")
	}
	path := filepath.Join(l.dir.Name(), l.name)
	ours, err := l.current()
	if err != nil {
		return fmt.Errorf("remove lock %s: %w", path, err)
	}
	if !ours {
		return nil
	}
	if err := unix.Unlinkat(int(l.dir.Fd()), l.name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove lock %s: %w", path, err)
	}
	return nil
}

// try opens the file unless it is open, and locks it unless another process holds the lock (EWOULDBLOCK). If the file has lost its name in
// between, try closes it and returns errReplaced.
func (l *Lock) try(path string) error {
	if l.file == nil {
		fd, err := ignoringEINTR(func() (int, error) {
			return unix.Openat(int(l.dir.Fd()), l.name, unix.O_CREAT|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
		})
		switch {
		case errors.Is(err, unix.ELOOP):
			return unsafeError{"is a symbolic link"}
		case errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO): // a directory, a socket
			return unsafeError{"is not a regular file"}
		case err != nil:
			return fmt.Errorf("open: %w", err)
		}
		l.file = os.NewFile(uintptr(fd), path)
	}
	if err := l.checkFile(); err != nil {
		return err
	}
	if _, err := ignoringEINTR(func() (int, error) {
		return 0, unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}); err != nil {
		return fmt.Errorf("flock: %w", err)
	}
	current, err := l.current()
	if err != nil {
		return err
	}
	if !current {
		return l.forget()
	}
	// The holder's pid is for the message of waiting processes. A full file system must not prevent locking.
	if l.file.Truncate(0) == nil {
		_, _ = l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return nil
}

// checkFile returns an error for a file that another user may have planted.
func (l *Lock) checkFile() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(l.file.Fd()), &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return unsafeError{"is not a regular file"}
	case int(st.Uid) != os.Geteuid():
		return unsafeError{fmt.Sprintf("belongs to user %d, not to user %d", st.Uid, os.Geteuid())}
	case st.Nlink == 0:
		return l.forget()
	case st.Nlink > 1:
		return unsafeError{"has a second name (hard link)"}
	}
	return nil
}

// forget closes a file that has lost its name, so that the next try opens the one with that name.
func (l *Lock) forget() error {
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return errReplaced
}

// current reports whether the open file is the one with that name.
func (l *Lock) current() (bool, error) {
	var open, named unix.Stat_t
	if err := unix.Fstat(int(l.file.Fd()), &open); err != nil {
		return false, fmt.Errorf("stat: %w", err)
	}
	err := unix.Fstatat(int(l.dir.Fd()), l.name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat: %w", err)
	}
	return open.Dev == named.Dev && open.Ino == named.Ino, nil
}

// holder reads which process holds the lock. The pid may be that of an earlier holder that was killed.
func (l *Lock) holder() (pid int, command string) {
	if l.file == nil {
		return 0, ""
	}
	content := make([]byte, 16)
	n, _ := l.file.ReadAt(content, 0) // io.EOF is expected; an empty file means that the holder is unknown
	pid, err := strconv.Atoi(strings.TrimSpace(string(content[:n])))
	if err != nil || pid <= 0 {
		return 0, ""
	}
	// The command line would contain more, but the pid may belong to another program by now, whose arguments must not be logged.
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return pid, ""
	}
	return pid, OneLine(string(comm))
}

func (l *Lock) close() error {
	var errs []error
	if l.file != nil {
		// Closing would be enough, unless a child has inherited the file descriptor.
		errs = append(errs, unix.Flock(int(l.file.Fd()), unix.LOCK_UN), l.file.Close())
	}
	errs = append(errs, l.dir.Close())
	l.dir, l.file = nil, nil
	return errors.Join(errs...)
}

// openLockDir opens the directory, and creates it if it is missing.
func openLockDir(dir string) (*os.File, error) {
	flags := unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	open := func() (int, error) {
		return ignoringEINTR(func() (int, error) { return unix.Open(dir, flags, 0) })
	}
	fd, err := open()
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // HA_RSCTMP is for every agent, of any user
			return nil, fmt.Errorf("create the directory: %w", err)
		}
		fd, err = open()
	}
	if err != nil {
		if info, lerr := os.Lstat(dir); lerr == nil && info.Mode().Type() == fs.ModeSymlink { //nolint:gosec // HA_RSCTMP is the manager's
			return nil, unsafeError{"its directory is a symbolic link"}
		}
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	file := os.NewFile(uintptr(fd), dir)
	if err := checkLockDir(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// checkLockDir returns an error for a directory in which another user could replace the file.
func checkLockDir(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("stat the directory: %w", err)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return unsafeError{fmt.Sprintf("its directory belongs to user %d, not to root or user %d", st.Uid, os.Geteuid())}
	}
	if st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return unsafeError{fmt.Sprintf("others may write to its directory (mode %04o, not sticky)", st.Mode&0o7777)}
	}
	return nil
}

// unsafeError means that another user may control the directory or the file.
type unsafeError struct{ why string }

func (e unsafeError) Error() string { return e.why }

// lockError returns an error with the exit code for its cause.
func lockError(path string, err error) error {
	code := ErrGeneric
	var refused unsafeError
	switch {
	case errors.As(err, &refused), errors.Is(err, unix.ENOTDIR):
		code = ErrArgs
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		code = ErrPerm
	}
	return Errorf(code, "lock %s: %w", path, err)
}

// isLockName reports whether a name is safe for a file: it stays in the directory, and needs no quotes in a shell.
func isLockName(name string) bool {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
	return name != "" && len(name) <= 200 && name[0] != '.' && strings.Trim(name, safe) == ""
}

// sleep waits, and reports whether the context was not done before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// ignoringEINTR repeats a system call that a signal interrupted.
func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
