package link

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A lock that another process holds delays a stop, and does not make it fail.
func TestALockThatIsHeldIsNotWaitedForForEver(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	if err := unix.Flock(int(open().Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := flock(t.Context(), open()); err != nil {
		t.Error(err)
	}
}
