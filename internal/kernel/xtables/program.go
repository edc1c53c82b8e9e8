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
type Program struct{ *iptables.IPTables }

// Flavours of iptables: which interface of the kernel the program writes to. They do not see each other's rules.
const (
	Legacy = "iptables-legacy"
	NFT    = "iptables-nft"
	System = "iptables" // the one that the admin has chosen
)

// Open returns the first of the flavours that is installed. It waits for iptables' own lock no longer than the context lasts.
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
			return &Program{program}, nil
		}
	}
	return nil, ocf.Errorf(ocf.ErrInstalled, "%s is not installed; install the package iptables", strings.Join(flavours, " or "))
}

// Programs opens each program once.
type Programs struct{ opened map[string]*Program }

// Open returns the first of the flavours that is installed.
func (p *Programs) Open(ctx context.Context, flavours ...string) (*Program, error) {
	if program, ok := p.opened[flavours[0]]; ok {
		return program, nil
	}
	program, err := Open(ctx, flavours...)
	if err != nil {
		return nil, err
	}
	if p.opened == nil {
		p.opened = map[string]*Program{}
	}
	p.opened[flavours[0]] = program
	return program, nil
}

// Rules lists the rules of a chain.
func (p *Program) Rules(table, chain string) ([]Rule, error) { return rulesOf(p.List, table, chain) }

// CountedRules lists the rules of a chain with their counters.
func (p *Program) CountedRules(table, chain string) ([]Rule, error) {
	return rulesOf(p.ListWithCounters, table, chain)
}

func rulesOf(list func(table, chain string) ([]string, error), table, chain string) ([]Rule, error) {
	lines, err := list(table, chain)
	if err != nil {
		return nil, fmt.Errorf("list the rules of chain %s: %w", chain, err)
	}
	var rules []Rule
	for _, line := range lines {
		if strings.HasPrefix(line, "-A ") {
			rules = append(rules, ParseRule(line))
		}
	}
	return rules, nil
}
