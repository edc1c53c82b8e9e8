package ocf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holdElsewhere lets another process take the lock and returns its pid, and what ends it.
func holdElsewhere(t *testing.T, dir string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderEnv+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("holder: %v", err)
		}
	})
	t.Cleanup(end)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "locked: <nil>\n" {
		t.Fatalf("holder said %q, %v", line, err)
	}
	return cmd.Process.Pid, end
}

// lockDir is a directory that AcquireLock takes, whatever the umask.
func lockDir(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "run")
}

func acquire(t *testing.T, dir string) *Lock {
	t.Helper()
	lock, err := AcquireLock(t.Context(), dir, "web-ip")
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	t.Cleanup(func() { _ = lock.Release() })
	return lock
}

// soon is a context that ends a wait for a lock that will not come.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestLockMakesWhatIsMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	lock := acquire(t, dir+"/")
	info, err := os.Stat(filepath.Join(dir, "web-ip.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != 0o600 {
		t.Errorf("mode of the file = %s", got)
	}
	content, err := os.ReadFile(filepath.Join(dir, "web-ip.lock"))
	if err != nil || string(content) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("the file says %q, %v", content, err)
	}
	if err := lock.Remove(); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := lock.Remove(); err != nil {
		t.Errorf("remove what is gone: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Errorf("release: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Errorf("second release: %v", err)
	}
	if err := lock.Remove(); err == nil {
		t.Error("a lock that was released removes a file")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestNoLockCanBeReleasedAndRemoved(t *testing.T) {
	var lock *Lock
	if err := errors.Join(lock.Remove(), lock.Release()); err != nil {
		t.Error(err)
	}
}

func TestLockCanBeTakenAgain(t *testing.T) {
	dir := lockDir(t)
	for range 3 {
		if err := acquire(t, dir).Release(); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, "web-ip.lock"))
	if err != nil || len(content) != 0 {
		t.Errorf("a free lock names a holder: %q, %v", content, err)
	}
}

func TestLocksOfOtherNamesAreFree(t *testing.T) {
	dir := lockDir(t)
	acquire(t, dir)
	other, err := AcquireLock(soon(t), dir, "web-ip6")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Release(); err != nil {
		t.Error(err)
	}
}

func TestHeldLockNamesItsHolder(t *testing.T) {
	dir := lockDir(t)
	pid, end := holdElsewhere(t, dir)

	_, err := AcquireLock(soon(t), dir, "web-ip")
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("error = %v, want a *HeldError", err)
	}
	if held.PID != pid || held.Path != filepath.Join(dir, "web-ip.lock") || held.Command == "" {
		t.Errorf("held = %+v, want pid %d", held, pid)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v does not wrap the context's cause", err)
	}
	if CodeOf(err) != ErrGeneric {
		t.Errorf("code = %s", CodeOf(err))
	}
	want := fmt.Sprintf("lock %s/web-ip.lock: held by process %d (", dir, pid)
	if text := err.Error(); !strings.HasPrefix(text, want) || !strings.Contains(text, ") for longer than ") {
		t.Errorf("error = %q, want it to begin with %q", text, want)
	}

	end() // a process that ends without a word gives its lock up
	acquire(t, dir)
}

func TestHeldLockIsTriedOnceWhenTheTimeIsUp(t *testing.T) {
	dir := lockDir(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("too late"))
	lock, err := AcquireLock(ctx, dir, "web-ip")
	if err != nil {
		t.Fatalf("a free lock: %v", err)
	}
	_, err = AcquireLock(ctx, dir, "web-ip")
	var held *HeldError
	if !errors.As(err, &held) || !strings.HasSuffix(err.Error(), ": too late") {
		t.Errorf("error = %v, want a *HeldError with the context's cause", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

func TestHolderMayBeUnknown(t *testing.T) {
	dir := lockDir(t)
	path := filepath.Join(dir, "web-ip.lock")
	acquire(t, dir)
	for content, want := range map[string]string{
		"":            ": held by another process for longer than ",
		"-1\n":        ": held by another process for longer than ",
		"init\n":      ": held by another process for longer than ",
		"999999999\n": ": held by process 999999999 for longer than ", // beyond every pid_max
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := AcquireLock(soon(t), dir, "web-ip"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("file says %q: error = %v, want %q", content, err, want)
		}
	}
}

func TestWaiterGetsTheLockWhenItIsReleased(t *testing.T) {
	tests := []struct {
		name    string
		release func(t *testing.T, lock *Lock, path string)
	}{
		{"released", func(*testing.T, *Lock, string) {}},
		{"removed by its holder", func(t *testing.T, lock *Lock, _ string) {
			if err := lock.Remove(); err != nil {
				t.Error(err)
			}
		}},
		{"removed by an administrator", func(t *testing.T, _ *Lock, path string) {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}},
		{"replaced by another file", func(t *testing.T, _ *Lock, path string) {
			if err := errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path)); err != nil {
				t.Error(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := lockDir(t)
			path := filepath.Join(dir, "web-ip.lock")
			first := acquire(t, dir)
			waiting := make(chan error, 1)
			var second *Lock
			go func() {
				var err error
				second, err = AcquireLock(t.Context(), dir, "web-ip")
				waiting <- err
			}()
			tt.release(t, first, path)
			if err := first.Release(); err != nil {
				t.Error(err)
			}
			if err := <-waiting; err != nil {
				t.Fatalf("waiter: %v", err)
			}
			// The waiter's lock is the one that others meet.
			if _, err := AcquireLock(soon(t), dir, "web-ip"); !errors.As(err, new(*HeldError)) {
				t.Errorf("third: error = %v, want a *HeldError", err)
			}
			if err := second.Release(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRemoveLeavesAnothersFileAlone(t *testing.T) {
	dir := lockDir(t)
	path := filepath.Join(dir, "web-ip.lock")
	lock := acquire(t, dir)
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := lock.Remove(); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file of another is gone: %v", err)
	}
}

func TestLockExcludes(t *testing.T) {
	dir := lockDir(t)
	inside := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for round := range 20 {
				lock, err := AcquireLock(t.Context(), dir, "web-ip")
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case inside <- struct{}{}:
				default:
					t.Error("two have the lock")
				}
				<-inside
				if (worker+round)%3 == 0 { // as a last stop does
					err = lock.Remove()
				}
				if err := errors.Join(err, lock.Release()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestLockRefuses(t *testing.T) {
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name    string
		prepare func(dir string)
		code    ExitCode
		want    string
	}{
		{"a directory that is a symbolic link", func(dir string) {
			must(os.Mkdir(dir+".real", 0o755), os.Symlink(dir+".real", dir))
		}, ErrArgs, "its directory is a symbolic link"},
		{"a directory that is a symbolic link to nothing", func(dir string) {
			must(os.Symlink(dir+".none", dir))
		}, ErrArgs, "its directory is a symbolic link"},
		{"a file in the directory's place", func(dir string) {
			must(os.WriteFile(dir, nil, 0o600))
		}, ErrArgs, "not a directory"},
		{"a directory that everybody may write to", func(dir string) {
			must(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o777))
		}, ErrArgs, "others may write to its directory (mode 0777, not sticky)"},
		{"a directory that a group may write to", func(dir string) {
			must(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o775))
		}, ErrArgs, "others may write to its directory (mode 0775, not sticky)"},
		{"a lock that is a symbolic link", func(dir string) {
			must(os.Mkdir(dir, 0o755), os.Symlink("/dev/null", dir+"/web-ip.lock"))
		}, ErrArgs, "web-ip.lock: is a symbolic link"},
		{"a lock that is a directory", func(dir string) {
			must(os.MkdirAll(dir+"/web-ip.lock", 0o755))
		}, ErrArgs, "is not a regular file"},
		{"a lock that is a pipe, without waiting for its other end", func(dir string) {
			must(os.Mkdir(dir, 0o755), unix.Mkfifo(dir+"/web-ip.lock", 0o600))
		}, ErrArgs, "is not a regular file"},
		{"a lock that is a second name of a file", func(dir string) {
			must(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/precious", []byte("x"), 0o600), os.Link(dir+"/precious", dir+"/web-ip.lock"))
		}, ErrArgs, "has a second name (hard link)"},
	}
	if os.Geteuid() == 0 {
		tests = append(tests, []struct {
			name    string
			prepare func(dir string)
			code    ExitCode
			want    string
		}{
			{"a directory of another user", func(dir string) {
				must(os.Mkdir(dir, 0o755), os.Chown(dir, 65534, 65534))
			}, ErrArgs, "its directory belongs to user 65534, not to root or user 0"},
			{"a lock of another user", func(dir string) {
				must(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/web-ip.lock", nil, 0o600), os.Chown(dir+"/web-ip.lock", 65534, 65534))
			}, ErrArgs, "belongs to user 65534, not to user 0"},
		}...)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := lockDir(t)
			tt.prepare(dir)
			lock, err := AcquireLock(t.Context(), dir, "web-ip")
			if err == nil {
				_ = lock.Release()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "lock "+dir) {
				t.Errorf("error = %q, want it to name %s and %q", err, dir, tt.want)
			}
			if errors.As(err, new(*HeldError)) {
				t.Error("a lock that cannot be made counts as held")
			}
			if got := CodeOf(err); got != tt.code {
				t.Errorf("code = %s, want %s", got, tt.code)
			}
		})
	}
}

func TestLockTakesDebiansDirectory(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o700, 0o755 | os.ModeSticky, 0o777 | os.ModeSticky} {
		dir := lockDir(t)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		if err := acquire(t, dir).Release(); err != nil {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
}

func TestLockInADirectoryThatCannotBeWritten(t *testing.T) {
	// Neither root nor anybody else can make anything in /proc.
	for _, dir := range []string{"/proc/ocf-test", "/proc"} {
		_, err := AcquireLock(t.Context(), dir, "web-ip")
		if err == nil || errors.As(err, new(*HeldError)) {
			t.Errorf("lock in %s: error = %v, want one that it cannot be made", dir, err)
		}
	}
}

func TestLockNames(t *testing.T) {
	for name, good := range map[string]bool{
		"192.168.10.3": true, "fd00::3": true, "web_ip-1": true, strings.Repeat("x", 200): true,
		"": false, ".": false, "..": false, ".x": false, "a/b": false, "../x": false, "a b": false, "a\n": false, "a\x00": false, "ü": false,
		strings.Repeat("x", 201): false,
	} {
		lock, err := AcquireLock(t.Context(), lockDir(t), name)
		if (err == nil) != good {
			t.Errorf("lock %q: error = %v, want none: %t", name, err, good)
		}
		if err != nil {
			checkOneLine(t, err.Error())
		}
		if err := lock.Release(); err != nil {
			t.Errorf("release %q: %v", name, err)
		}
	}
	if _, err := AcquireLock(t.Context(), "relative", "x"); CodeOf(err) != ErrArgs {
		t.Errorf("relative directory: %v", err)
	}
}
