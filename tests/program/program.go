// Package program builds the agent for tests that call it.
package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Agent builds the agent in a folder, as `make build` does, and returns where it is. It is for tests whose package lies two
// folders below the module's. OCF_CLUSTERIP in the environment names another program to test.
func Agent(folder string) (string, error) {
	if given := os.Getenv("OCF_CLUSTERIP"); given != "" {
		return filepath.Abs(given)
	}
	cmd := exec.Command("make", "--no-print-directory", "-C", "../..", "build", "BIN="+folder)
	// Not as a part of the make that may have called the tests.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return filepath.Join(folder, "ocf-clusterip"), nil
}
