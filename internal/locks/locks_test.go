package locks

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
)

var address = netip.MustParseAddr("192.168.10.3")

func files(t *testing.T, d Dir) int {
	t.Helper()
	all, err := os.ReadDir(string(d))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestLastUnlockRemovesAll(t *testing.T) {
	d := Dir(t.TempDir())
	sweeper, err := d.Sweeper(address)
	if err != nil || sweeper == nil {
		t.Fatalf("%v, %v", sweeper, err)
	}
	if second, err := d.Sweeper(address); second != nil || err != nil {
		t.Errorf("a second sweeper: %v, %v", second, err)
	}
	teller, err := d.Teller(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(t.Context())
	second := make(chan error)
	go func() {
		_, err := d.Teller(waiting, address)
		second <- err
	}()
	for files(t, d) < 3 { // until it waits
		time.Sleep(time.Millisecond)
	}
	if third, err := d.Teller(t.Context(), address); third != nil || err != nil {
		t.Errorf("a third teller: %v, %v", third, err)
	}
	cancel()
	if err := <-second; !errors.As(err, new(*ocf.HeldError)) {
		t.Errorf("a second teller: %v", err)
	}
	for _, tt := range []struct {
		name    string
		prepare func() error
		last    bool
		left    int
	}{
		{"others run on", func() error { return nil }, false, 3},
		{"both still run", func() error { return nil }, true, 2},
		{"the sweeper was killed", sweeper.Release, true, 1},
		{"the teller was killed", teller.Release, true, 0},
	} {
		if err := tt.prepare(); err != nil {
			t.Fatal(err)
		}
		lock, err := d.Lock(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Unlock(tt.last); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := files(t, d); got != tt.left {
			t.Errorf("%s: %d files are left, want %d", tt.name, got, tt.left)
		}
	}
}

func TestLockIfPossible(t *testing.T) {
	d := Dir(t.TempDir())
	lock, err := d.Lock(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	unexpected := func(err error) { t.Errorf("warns: %v", err) }
	if _, err := d.LockIfPossible(over, address, unexpected); !errors.As(err, new(*ocf.HeldError)) {
		t.Errorf("while another action has it: %v", err)
	}
	if err := lock.Unlock(true); err != nil {
		t.Fatal(err)
	}
	if lock, err = d.LockIfPossible(over, address, unexpected); err != nil || lock.Unlock(true) != nil {
		t.Errorf("while nobody has it: %v", err)
	}
	file := filepath.Join(string(d), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var warning error
	lock, err = Dir(file).LockIfPossible(t.Context(), address, func(err error) { warning = err })
	if err != nil || warning == nil || lock.Unlock(true) != nil {
		t.Errorf("where none can be made: %v, warning %v", err, warning)
	}
}

func TestBackgroundProcessesAreStarted(t *testing.T) {
	for action, start := range map[string]func([]string) error{"sweep": StartSweeper, "tell": StartTeller} {
		file := filepath.Join(t.TempDir(), "started")
		if err := start(append(os.Environ(), started+"="+file)); err != nil {
			t.Fatal(err)
		}
		for {
			if text, err := os.ReadFile(file); err == nil && string(text) == "/ "+action {
				break
			}
			if t.Context().Err() != nil {
				t.Fatalf("%s was not started", action)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// started names the variable that makes this program such a process: it writes to the file how it was started.
const started = "BACKGROUND_OF_TEST"

func TestMain(m *testing.M) {
	if file := os.Getenv(started); file != "" {
		folder, _ := os.Getwd()
		_ = os.WriteFile(file, []byte(folder+" "+os.Args[1]), 0o600)
		return
	}
	m.Run()
}
