// Package harness builds the agent for tests, and calls it as Pacemaker does.
package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// scratch is the folder of what is built. Main removes it.
var scratch string

// Main runs the tests of a package that call Program.
func Main(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "agent-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	return m.Run()
}

// Program builds the agent once, as `make build` does, and returns its path. It is for tests in packages two folders below the module's. If
// OCF_CLUSTERIP in the environment names another program, it returns that one.
func Program() (string, error) { return build() }

var build = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("OCF_CLUSTERIP"); given != "" {
		return filepath.Abs(given)
	}
	return filepath.Join(scratch, "ocf-clusterip"), Make("build", "BIN="+scratch)
})

// Make runs make in the module's folder, with targets and variables.
func Make(arguments ...string) error {
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-C", "../.."}, arguments...)...)
	// Not as a part of the make that may have called the tests.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make %s: %w\n%s", strings.Join(arguments, " "), err, out)
	}
	return nil
}
