package gather

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/beevik/etree"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/kernel/xtables"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/convert"
	"ocf-clusterip/internal/pacemaker"
)

// MaxInput is the largest CIB or list of rules that is read, in bytes. Large clusters have CIBs of a few megabytes.
const MaxInput = 32 << 20

// Text reads a file that a flag names, as a whole; the name - is the standard input.
func Text(flag, name string, stdin io.Reader) (string, error) {
	from, shown := stdin, "the standard input"
	if name != "-" {
		shown = ocf.Quote(name)
		file, err := openNamed(name)
		if err != nil {
			return "", ocf.Errorf(ocf.ErrArgs, "%s: %w", flag, err)
		}
		defer file.Close() //nolint:errcheck // it was only read
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, MaxInput+1))
	switch {
	case err != nil:
		return "", ocf.Errorf(ocf.ErrArgs, "%s: %s: %w", flag, shown, err)
	case len(text) > MaxInput:
		return "", ocf.Errorf(ocf.ErrArgs, "%s: %s has more than %d MiB", flag, shown, MaxInput>>20)
	case len(bytes.TrimSpace(text)) == 0:
		return "", ocf.Errorf(ocf.ErrArgs, "%s: %s is empty", flag, shown)
	}
	return string(text), nil
}

// openNamed opens a file that the administrator names. It does not wait for a pipe that nobody writes to, which then is empty.
func openNamed(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) //nolint:gosec // the administrator names it
}

// CIB reads the configuration in a file that --cib names.
func CIB(name string, stdin io.Reader) (*etree.Element, error) {
	text, err := Text("--cib", name, stdin)
	if err != nil {
		return nil, err
	}
	configuration, err := pacemaker.ParseConfiguration(text)
	if err != nil {
		return nil, ocf.Errorf(ocf.ErrArgs, "--cib: %s is no CIB, as cibadmin --query prints it: %w", ocf.Quote(name), err)
	}
	return configuration, nil
}

// InstalledIPaddr2 returns which ocf:heartbeat:IPaddr2 is installed on this node. The parameters that its program names show it.
func InstalledIPaddr2(path string) convert.Generation {
	const largest = 1 << 20
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) //nolint:gosec // main names it
	if err != nil {
		return convert.Unknown
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, largest))
	switch {
	case err != nil:
		return convert.Unknown
	case bytes.Contains(text, []byte("clusterip_hash_seed")):
		return convert.Match
	case bytes.Contains(text, []byte("clusterip_hash")):
		return convert.Target
	default:
		return convert.Unknown
	}
}

// RunningCIB reads the configuration of this node's cluster.
func RunningCIB(ctx context.Context, cluster pacemaker.Cluster) (*etree.Element, error) {
	ctx, cancel := context.WithTimeout(ctx, ocf.DefaultTimeout)
	defer cancel()
	configuration, err := cluster.Configuration(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the CIB of this node's cluster: %w; --cib reads one from a file", err)
	}
	return configuration, nil
}

// Rules reads the rules and policies in a file that --iptables names: the output of iptables-save or ip6tables-save.
func Rules(name string, stdin io.Reader) ([]convert.Rule, error) {
	text, err := Text("--iptables", name, stdin)
	if err != nil {
		return nil, err
	}
	var rules []convert.Rule
	table, isSaved := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if named, isTable := strings.CutPrefix(line, "*"); isTable {
			table, isSaved = named, true
		}
		if policy := strings.Fields(line); len(policy) > 1 && strings.HasPrefix(line, ":") && policy[1] != "-" {
			rules = append(rules, convert.Rule{Table: table, Words: []string{"-P", policy[0][1:], policy[1]}})
		}
		_, rule, counted := strings.Cut(line, "] ") // iptables-save -c
		if !counted || !strings.HasPrefix(line, "[") {
			rule = line
		}
		if !strings.HasPrefix(rule, "-A ") {
			continue
		}
		if table == "" {
			return nil, ocf.Errorf(ocf.ErrArgs, "--iptables: rule %s is in no table, which a line such as *mangle would name: give it the "+
				"output of iptables-save, not that of iptables -S", ocf.Quote(rule))
		}
		rules = append(rules, convert.Rule{Table: table, Words: xtables.ParseRule(rule)})
	}
	if !isSaved {
		return nil, ocf.Errorf(ocf.ErrArgs, "--iptables: %s is no list of rules, as iptables-save prints it", ocf.Quote(name))
	}
	return rules, nil
}
