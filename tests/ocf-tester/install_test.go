//go:build system

package ocftester

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ocf-clusterip/tests/harness"

	"github.com/google/go-cmp/cmp"
)

func TestInstall(t *testing.T) {
	dir, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	everything := []string{agent, program, bashCompletion, fishCompletion, agentPage, commandPage, zshCompletion}
	if diff := cmp.Diff(everything, files(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}

	for _, file := range everything[1:] {
		info, err := os.Lstat(dir + file)
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o644)
		if file == program {
			want = 0o755
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v: all may use it, and root may write it", file, info.Mode(), want)
		}
	}

	// Relative, so that a package's build folder may move to / with the link still right.
	target, err := os.Readlink(dir + agent)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.IsAbs(target) || filepath.Join(filepath.Dir(agent), target) != program {
		t.Errorf("%s leads to %s, want a relative path to %s", agent, target, program)
	}

	if again := makeTarget("install", dir); again != nil {
		t.Errorf("installed over itself: %v", again)
	}
	if diff := cmp.Diff(everything, files(t, dir)); diff != "" {
		t.Errorf("files after a second install (-want +got):\n%s", diff)
	}
}

func TestUninstall(t *testing.T) {
	for _, tt := range []struct {
		name    string
		foreign []string // files of others
	}{
		{"nothing else there", nil},
		{"another agent of the same provider", []string{filepath.Join(filepath.Dir(agent), "theirs")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := makeTarget("install", dir); err != nil {
				t.Fatal(err)
			}
			for _, name := range tt.foreign {
				if err := os.WriteFile(dir+name, nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, call := range []string{"first", "second"} {
				if err := makeTarget("uninstall", dir); err != nil {
					t.Errorf("the %s time: %v", call, err)
				}
			}
			if left := files(t, dir); !slices.Equal(left, tt.foreign) {
				t.Errorf("%q is left, want %q", left, tt.foreign)
			}
			_, err := os.Stat(dir + filepath.Dir(agent))
			if gone := os.IsNotExist(err); gone != (tt.foreign == nil) {
				t.Errorf("the provider's folder is gone: %t", gone)
			}
		})
	}
}

// TestStaticBinary: no library of the node can break the agent.
func TestStaticBinary(t *testing.T) {
	dir, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.Open(dir + program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is linked dynamically: it has a %s", p.Type)
		}
	}
}

// TestBothNames: what is started by one name can be seen and stopped by the other.
func TestBothNames(t *testing.T) {
	n := newNode(t)
	before := n.state(t)
	for _, names := range [][2]string{{agent, program}, {program, agent}} {
		env := n.pacemaker().With(service(), harness.Instance(3, 8))
		checkStatus(t, n.run(t, env, names[0], "start"), 0)
		checkStatus(t, n.run(t, env, names[1], "monitor"), 0)
		checkStatus(t, n.run(t, env, names[1], "stop"), 0)
		checkStatus(t, n.run(t, env, names[0], "monitor"), 7)
	}
	if diff := cmp.Diff(before, n.state(t)); diff != "" {
		t.Errorf("the node is not as it was (-before +after):\n%s", diff)
	}
}
