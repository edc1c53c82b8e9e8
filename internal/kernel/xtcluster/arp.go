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

// observe says what is not as the layout wants.
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
	want := arpRulesOf(layout)
	if len(rules) != len(want) || !slices.EqualFunc(rules, want, sameWords) {
		return []string{"what makes ARP tell the cluster MAC is missing or changed"}, nil
	}
	return nil, nil
}

// isThere tells whether anything mangles ARP for the address.
func (a arp) isThere(ctx context.Context, address netip.Addr) (bool, error) {
	present, err := a.nftables.HasARP(ctx, address)
	if present || err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
		return present, err
	}
	rules, err := arpRules(ctx, address)
	return len(rules) > 0, err
}

func (a arp) lay(ctx context.Context, layout clusterip.Layout) error {
	err := a.nftables.LayARP(ctx, layout)
	if ocf.CodeOf(err) != ocf.ErrInstalled {
		return err
	}
	if len(layout.Ports) > 0 {
		return ocf.Errorf(ocf.ErrInstalled, "a bond's ARP monitor needs ARP to be mangled by nf_tables (%w); set miimon in place of arp_interval in the bond's configuration", err)
	}
	rules, listErr := arpRules(ctx, layout.Address())
	if listErr != nil {
		return listErr
	}
	want := arpRulesOf(layout)
	if slices.EqualFunc(rules, want, sameWords) {
		return nil
	}
	// The right ones first, so that ARP never tells the NIC's own MAC.
	for _, rule := range slices.Backward(want) {
		if _, arpErr := arptables(ctx, append([]string{"-I", arpChain}, rule...)...); arpErr != nil {
			return ocf.Errorf(ocf.ErrInstalled, "ARP can be mangled neither by nf_tables (%w) nor by arptables (%w)", err, arpErr)
		}
	}
	return removeARP(ctx, rules)
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

// arpRulesOf does what nftables' ARP table does.
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

// isARPRule tells whether a rule is one of those of arpRulesOf, on whatever NIC and with whatever MAC. An admin may have others for the
// same address (LVS's direct routing has).
func isARPRule(words []string, address netip.Addr) bool {
	line := strings.Join(words, " ")
	return strings.HasPrefix(line, "-j DROP ! -o ") && strings.HasSuffix(line, " -s "+address.String()) ||
		strings.HasPrefix(line, "-j mangle -o ") && strings.Contains(line, " -s "+address.String()+" ") && slices.Contains(words, "--mangle-mac-s")
}

// arpRules lists the rules of the old ARP table that are ours for an address.
func arpRules(ctx context.Context, address netip.Addr) ([][]string, error) {
	if there, err := hasTable(legacyARPTables, arpTable); err != nil || !there {
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

// arptables runs arptables-legacy, which lists rules as it takes them.
func arptables(ctx context.Context, arguments ...string) (string, error) {
	for _, program := range []string{"/usr/sbin/arptables-legacy", "/sbin/arptables-legacy", "/usr/sbin/arptables", "/sbin/arptables"} {
		if _, err := os.Stat(program); err != nil {
			continue
		}
		var out, complaints bytes.Buffer
		cmd := exec.CommandContext(ctx, program, arguments...) //nolint:gosec // no shell, and the words are addresses, MACs and NICs that were checked
		cmd.Stdout, cmd.Stderr = &out, &complaints
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, ocf.OneLine(complaints.String()))
		}
		return out.String(), nil
	}
	return "", ocf.Errorf(ocf.ErrInstalled, "no arptables is installed")
}
