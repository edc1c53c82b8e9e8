// Package sysctl reads the kernel's parameters. It never writes them.
package sysctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// folder has the parameters of the reader's network namespace, too.
const folder = "/proc/sys"

// Read returns a parameter, named by its path such as "net/ipv4/conf/eth0.7/rp_filter": names of interfaces may contain dots. The error
// for one that this kernel does not have is fs.ErrNotExist.
func Read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(folder, name)) //nolint:gosec // the names are the kernel's
	if err != nil {
		return "", fmt.Errorf("read the kernel parameter: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// IsSet reports whether a parameter exists and is not 0.
func IsSet(name string) bool {
	value, err := Read(name)
	return err == nil && value != "0"
}
