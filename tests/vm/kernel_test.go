package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A test run without a network works with the kernel of an earlier one. Without any, the error shows the reason.
func TestFetchKernelWithoutNetwork(t *testing.T) {
	const version = "6.1.0-50-cloud-amd64"
	boot, modules := "boot/vmlinuz-"+version, "lib/modules/"+version+"/kernel/veth.ko"
	merged, mergedModules := "usr/lib/modules/"+version+"/vmlinuz", "usr/lib/modules/"+version+"/kernel/net/veth.ko.xz"
	for _, tt := range []struct {
		name  string
		files []string // of the kernel
		age   time.Duration
		want  bool // a kernel
		asks  bool // the archive for a newer one, and gets none
	}{
		{name: "a fresh one", files: []string{boot, modules}, age: time.Hour, want: true},
		{name: "a fresh one as sid has it", files: []string{merged, mergedModules}, age: time.Hour, want: true},
		{name: "an old one", files: []string{boot, modules}, age: 2 * askAgainAfter, want: true, asks: true},
		{name: "one without modules", files: []string{boot}, age: time.Hour},
		{name: "one without an image", files: []string{mergedModules}, age: time.Hour},
		{name: "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("PATH", "") // no apt-get is found
			folder := t.TempDir()
			root := filepath.Join(folder, "bookworm", version)
			for _, file := range tt.files {
				check(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
				check(t, os.WriteFile(filepath.Join(root, file), nil, 0o644))
			}
			if tt.files != nil {
				asked, then := filepath.Join(folder, "bookworm", newest), time.Now().Add(-tt.age)
				check(t, os.WriteFile(asked, []byte(version), 0o644))
				check(t, os.Chtimes(asked, then, then))
			}
			var logged []string
			k, err := FetchKernel(
				t.Context(),
				folder,
				"bookworm",
				func(format string, values ...any) { logged = append(logged, fmt.Sprintf(format, values...)) },
			)
			switch {
			case tt.want && (err != nil || k.Version != version || k.image == "" || k.modules["veth"] == ""):
				t.Errorf("got %+v, %v", k, err)
			case !tt.want && !errors.Is(err, exec.ErrNotFound):
				t.Errorf("got %+v, %v; want an error that apt-get is missing", k, err)
			}
			if tt.asks != (len(logged) == 1) || tt.asks && !strings.Contains(logged[0], "apt-get") {
				t.Errorf("logged %q", logged)
			}
			if left, err := filepath.Glob(filepath.Join(folder, "bookworm", "fetch-*")); err != nil || len(left) > 0 {
				t.Errorf("left are %q, %v", left, err)
			}
		})
	}
}

// Leftovers of an interrupted download are removed, and all older kernels but the last.
func TestCacheIsTidied(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"5.10.0-30", "5.10.0-31", "5.10.0-32", "fetch-123"} {
		check(t, os.MkdirAll(filepath.Join(folder, name, "boot"), 0o755))
	}
	check(t, writeCache(folder, Kernel{Version: "5.10.0-32"}, Kernel{Version: "5.10.0-31"}))
	entries, err := filepath.Glob(filepath.Join(folder, "*"))
	check(t, err)
	for i, name := range []string{"5.10.0-31", "5.10.0-32", newest} {
		if len(entries) != 3 || filepath.Base(entries[i]) != name {
			t.Fatalf("there are %q", entries)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
