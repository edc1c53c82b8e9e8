// Package sysctl is the way into the kernel's parameters. They are read, never written.
package sysctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// folder holds those of the reader's network namespace, too.
const folder = "/proc/sys"

// Read returns a parameter, named by its path such as "net/ipv4/conf/eth0.7/rp_filter": names of interfaces may contain dots. One that this
// kernel does not have is fs.ErrNotExist.
func Read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(folder, name)) //nolint:gosec // the names are the kernel's
	if err != nil {
		return "", fmt.Errorf("read the kernel parameter: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
