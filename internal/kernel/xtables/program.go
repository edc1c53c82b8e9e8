package xtables

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"ocf-clusterip/internal/ocf"
)

// Program is an iptables.
type Program struct {
	*iptables.IPTables
	path string
}

// Flavours of iptables: which interface of the kernel the program writes to. They do not see each other's rules.
const (
	Legacy = "iptables-legacy"
	NFT    = "iptables-nft"
	System = "iptables" // whichever the admin has chosen
)

// Open finds the first of the flavours that is installed. It waits for iptables' own lock no longer than the context lasts.
func Open(ctx context.Context, flavours ...string) (*Program, error) {
	seconds := 0
	if deadline, ok := ctx.Deadline(); ok {
		seconds = max(1, int(time.Until(deadline).Seconds()))
	}
	for _, flavour := range flavours {
		for _, folder := range []string{"/usr/sbin/", "/sbin/"} {
			path := folder + flavour
			if _, err := os.Stat(path); err != nil {
				continue
			}
			program, err := iptables.New(iptables.Path(path), iptables.Timeout(seconds))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return &Program{program, path}, nil
		}
	}
	return nil, ocf.Errorf(ocf.ErrInstalled, "no iptables is installed (there is none of %s)", strings.Join(flavours, ", "))
}

// Rules lists those of a chain.
func (p *Program) Rules(table, chain string) ([]Rule, error) {
	return rulesOf(chain)(p.List(table, chain))
}

// CountedRules lists those of a chain with their counters.
func (p *Program) CountedRules(table, chain string) ([]Rule, error) {
	return rulesOf(chain)(p.ListWithCounters(table, chain))
}

func rulesOf(chain string) func(lines []string, err error) ([]Rule, error) {
	return func(lines []string, err error) ([]Rule, error) {
		if err != nil {
			return nil, fmt.Errorf("list the rules of %s: %w", chain, err)
		}
		var rules []Rule
		for _, line := range lines {
			if strings.HasPrefix(line, "-A ") {
				rules = append(rules, ParseRule(line))
			}
		}
		return rules, nil
	}
}
