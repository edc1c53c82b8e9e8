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
	usualRetry = 4 * time.Millisecond // about as long as a holder needs it
	lastRetry  = 32 * time.Millisecond
	// waitedShare is the part of the time waited that the next pause may take: who has waited for long has many beside it, who together
	// would keep a processor busy with asking.
	waitedShare = 16
)

// Lock keeps all other calls about the same thing on this node waiting. The kernel gives it up when the process ends, however
// that happens.
type Lock struct {
	dir  *os.File // nil after Release
	file *os.File
	name string
}

// HeldError says that somebody else has the lock and did not give it up in time. Every other error of AcquireLock means that no
// lock can be had at all.
type HeldError struct {
	Path    string
	PID     int           // of the holder; 0 when it is not known
	Command string        // of the holder; empty when it is not known
	Waited  time.Duration // how long we waited
	Err     error         // why we did not wait longer: the context's cause
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

// errReplaced says that the file was removed or replaced while we waited for it: there is another one to lock.
var errReplaced = errors.New("lock file was replaced")

// AcquireLock locks the file dir/name.lock and waits for it until the context is done; the first try is made in any case. It
// makes the directory and its parents when they are missing.
//
// Anybody may be able to write beside us (HA_RSCTMP could be /tmp), so the directory must be a real one, owned by root or by us,
// in which nobody else can replace our file: not writable for others unless it is sticky, as Debian's /run/resource-agents
// (mode 1755) is. The file must be a regular one, ours, and without a second name.
//
// The error is a *HeldError, or an *Error when the lock cannot be made: ErrPerm when we may not, ErrArgs when the directory or the
// file is unsafe, else ErrGeneric.
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

// Release gives the lock up. A second call, and one for a nil Lock, does nothing.
func (l *Lock) Release() error {
	if l == nil || l.dir == nil {
		return nil
	}
	// Without our pid nobody blames us for the next holder's wait; it is advice only, so a failure does not matter.
	_ = l.file.Truncate(0)
	return l.close()
}

// Remove unlinks the lock's file, if it is still ours: the last thing to do before Release, because whoever comes next makes a
// file of its own and does not wait for us. A file that is missing already, and a nil Lock, is no error.
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

// try opens the file unless it is open already, and locks it unless somebody else did (EWOULDBLOCK). A file that has lost its
// name in between is closed: errReplaced.
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
	// The holder's pid is for the message of those who wait. A full file system must not keep anybody from the lock.
	if l.file.Truncate(0) == nil {
		_, _ = l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return nil
}

// checkFile refuses a file that somebody else made for us to trip over.
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

// forget closes a file that has lost its name, so that the next try opens the one that has it now.
func (l *Lock) forget() error {
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return errReplaced
}

// current tells whether the file that we have open is the one that has the name.
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

// holder reads who has the lock. The pid may be that of an earlier holder who was killed.
func (l *Lock) holder() (pid int, command string) {
	if l.file == nil {
		return 0, ""
	}
	content := make([]byte, 16)
	n, _ := l.file.ReadAt(content, 0) // io.EOF is what we expect; nothing read means that nothing is known
	pid, err := strconv.Atoi(strings.TrimSpace(string(content[:n])))
	if err != nil || pid <= 0 {
		return 0, ""
	}
	// The command line would say more, but the pid may be another program's by now, and its arguments are not ours to log.
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return pid, ""
	}
	return pid, OneLine(string(comm))
}

func (l *Lock) close() error {
	var errs []error
	if l.file != nil {
		// Closing would be enough, unless the file descriptor lives on in a child.
		errs = append(errs, unix.Flock(int(l.file.Fd()), unix.LOCK_UN), l.file.Close())
	}
	errs = append(errs, l.dir.Close())
	l.dir, l.file = nil, nil
	return errors.Join(errs...)
}

// openLockDir opens the directory, and makes it when it is missing.
func openLockDir(dir string) (*os.File, error) {
	flags := unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	open := func() (int, error) {
		return ignoringEINTR(func() (int, error) { return unix.Open(dir, flags, 0) })
	}
	fd, err := open()
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // HA_RSCTMP is for every agent, of any user
			return nil, fmt.Errorf("make the directory: %w", err)
		}
		fd, err = open()
	}
	if err != nil {
		if info, lerr := os.Lstat(dir); lerr == nil && info.Mode().Type() == fs.ModeSymlink { //nolint:gosec // the manager says where it is
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

// checkLockDir refuses a directory in which somebody else could replace our file.
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

// unsafeError says that the directory or the file may be somebody else's trap.
type unsafeError struct{ why string }

func (e unsafeError) Error() string { return e.why }

// lockError gives an error the exit code that its cause calls for.
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

// isLockName tells whether a name is safe as a file's: no way out of the directory, nothing that a shell would read otherwise.
func isLockName(name string) bool {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
	return name != "" && len(name) <= 200 && name[0] != '.' && strings.Trim(name, safe) == ""
}

// sleep waits, and tells whether it could wait that long before the context was done.
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
