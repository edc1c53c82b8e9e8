package xtcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/ocf"
)

// legacyARPTables lists the tables of arptables-legacy, as legacyTables does those of iptables.
const legacyARPTables = "/proc/thread-self/net/arp_tables_names"

const (
	arpTable = "filter"
	arpChain = "OUTPUT"
)

// arp mangles ARP, which no rule of iptables sees: in nf_tables, or by arptables where the kernel's nf_tables cannot.
type arp struct{ nftables *nftables.Conn }

func (c *Conn) arp() arp { return arp{c.NFTables} }

// observe reports how the rules differ from those of the layout.
func (a arp) observe(ctx context.Context, layout clusterip.Layout) ([]string, error) {
	present, damage, err := a.nftables.ObserveARP(ctx, layout)
	if err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
		return nil, err
	}
	if present {
		return damage, nil
	}
	rules, err := arpRules(ctx, layout.Address())
	if err != nil {
		return nil, err
	}
	if !slices.EqualFunc(rules, arpRulesOf(layout), sameWords) {
		return []string{"the rules that put the shared MAC into ARP are missing or changed"}, nil
	}
	return nil, nil
}

// exists reports whether any rule mangles ARP for the address.
func (a arp) exists(ctx context.Context, address netip.Addr) (bool, error) {
	present, err := a.nftables.HasARP(ctx, address)
	if present || err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
		return present, err
	}
	rules, err := arpRules(ctx, address)
	return len(rules) > 0, err
}

func (a arp) install(ctx context.Context, layout clusterip.Layout) error {
	err := a.nftables.InstallARP(ctx, layout)
	if ocf.CodeOf(err) != ocf.ErrInstalled {
		return err
	}
	if len(layout.Ports) > 0 {
		return ocf.Errorf(ocf.ErrInstalled, "on a bond with an ARP monitor only nf_tables can put the shared MAC into ARP (%w); "+
			"set miimon in place of arp_interval in the bond's configuration", err)
	}
	old, listErr := arpRules(ctx, layout.Address())
	if listErr != nil {
		return listErr
	}
	want := arpRulesOf(layout)
	if slices.EqualFunc(old, want, sameWords) {
		return nil
	}
	// The new rules come first, so that ARP never contains the interface's own MAC.
	for _, rule := range slices.Backward(want) {
		if _, arpErr := arptables(ctx, append([]string{"-I", arpChain}, rule...)...); arpErr != nil {
			return ocf.Errorf(ocf.ErrInstalled, "neither nf_tables (%w) nor arptables (%w) can put the shared MAC into ARP", err, arpErr)
		}
	}
	return removeARP(ctx, old)
}

func (a arp) remove(ctx context.Context, address netip.Addr) error {
	err := a.nftables.RemoveARP(ctx, address)
	if ocf.CodeOf(err) == ocf.ErrInstalled {
		err = nil
	}
	rules, listErr := arpRules(ctx, address)
	return errors.Join(err, listErr, removeARP(ctx, rules))
}

func removeARP(ctx context.Context, rules [][]string) error {
	var errs []error
	for _, rule := range rules {
		_, err := arptables(ctx, append([]string{"-D", arpChain}, rule...)...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// arpRulesOf are the rules that do what nftables' ARP table does.
func arpRulesOf(layout clusterip.Layout) [][]string {
	address := layout.Address().String()
	return [][]string{
		{"-j", "DROP", "!", "-o", layout.NIC, "-s", address},
		{"-j", "mangle", "-o", layout.NIC, "-s", address, "--h-length", "6", "--mangle-mac-s", layout.MACs.IPv4.String()},
	}
}

func sameWords(a, b []string) bool {
	return strings.EqualFold(strings.Join(a, " "), strings.Join(b, " "))
}

// isARPRule reports whether a rule is one of arpRulesOf, for any interface and MAC. An admin may have others for the same address, such
// as those of LVS's direct routing.
func isARPRule(words []string, address netip.Addr) bool {
	line, source := strings.Join(words, " "), " -s "+address.String()
	drops := strings.HasPrefix(line, "-j DROP ! -o ") && strings.HasSuffix(line, source)
	mangles := strings.HasPrefix(line, "-j mangle -o ") && strings.Contains(line, source+" ") && slices.Contains(words, "--mangle-mac-s")
	return drops || mangles
}

// arpRules lists this agent's rules of arptables-legacy for an address.
func arpRules(ctx context.Context, address netip.Addr) ([][]string, error) {
	if exists, err := hasTable(legacyARPTables, arpTable); err != nil || !exists {
		return nil, err
	}
	listed, err := arptables(ctx, "-n", "-L", arpChain)
	if err != nil {
		return nil, err
	}
	var rules [][]string
	for line := range strings.Lines(listed) {
		words := strings.Fields(line)
		if isARPRule(words, address) {
			rules = append(rules, words)
		}
	}
	return rules, nil
}

// arptables runs arptables-legacy, which lists rules in the form that it takes.
func arptables(ctx context.Context, arguments ...string) (string, error) {
	programs := []string{"/usr/sbin/arptables-legacy", "/sbin/arptables-legacy", "/usr/sbin/arptables", "/sbin/arptables"}
	for _, program := range programs {
		if _, err := os.Stat(program); err != nil {
			continue
		}
		var out, errors bytes.Buffer
		cmd := exec.CommandContext(ctx, program, arguments...) //nolint:gosec // no shell; the words are checked addresses, MACs and names
		cmd.Stdout, cmd.Stderr = &out, &errors
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, ocf.OneLine(errors.String()))
		}
		return out.String(), nil
	}
	return "", ocf.Errorf(ocf.ErrInstalled, "arptables is not installed; install the package arptables")
}
