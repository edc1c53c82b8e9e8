package iptclusterip

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
)

// The rule is in the chain of local packets (iptables-extensions(8), CLUSTERIP).
const (
	table = "filter"
	chain = "INPUT"
)

// ruleOf is the rule of a layout as `iptables -A` and `iptables -S` have it. A new rule names the first bucket to own; iptables lists
// that one for ever, so it means nothing later.
func ruleOf(layout clusterip.Layout, mark string, first clusterip.Bucket) []string {
	return []string{
		"-d", netip.PrefixFrom(layout.Address(), layout.Address().BitLen()).String(), "-i", layout.NIC,
		"-m", "comment", "--comment", xtables.Comment(layout, mark),
		"-j", "CLUSTERIP", "--new", "--hashmode", string(layout.HashMode), "--clustermac", layout.MACs.IPv4.String(),
		"--total-nodes", strconv.FormatUint(uint64(layout.Buckets), 10), "--local-node", nodeOf(first),
		"--hash-init", strconv.FormatUint(uint64(layout.Seed), 10),
	}
}

// nodeOf is the target's number of a bucket: it counts from 1.
func nodeOf(bucket clusterip.Bucket) string { return strconv.FormatUint(uint64(bucket)+1, 10) }

// parseNodes reads the target's file of an address: the numbers of the owned buckets, with commas between (clusterip_seq_show in
// net/ipv4/netfilter/ipt_CLUSTERIP.c). The file is empty when there is none.
func parseNodes(text string) ([]clusterip.Bucket, error) {
	var buckets []clusterip.Bucket
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ",") {
		node, err := strconv.ParseUint(one, 10, 16)
		if err != nil || node == 0 || node > MaxBuckets {
			return nil, fmt.Errorf("%q is not a list of numbers from 1 to %d", text, MaxBuckets)
		}
		buckets = append(buckets, clusterip.Bucket(node-1))
	}
	slices.Sort(buckets)
	return slices.Compact(buckets), nil
}

// isFor reports whether the rule sends packets for the address to the target.
func isFor(r xtables.Rule, address netip.Addr) bool {
	return r.Option("-j") == "CLUSTERIP" && r.IsTo(address)
}

// isOurs reports whether this agent has installed the rule for the address.
func isOurs(r xtables.Rule, address netip.Addr) bool { return isFor(r, address) && r.IsStamped() }

// differs reports whether a rule is not that of the layout.
func differs(r xtables.Rule, layout clusterip.Layout) bool {
	return !slices.Equal(normalised(r.Spec()), normalised(ruleOf(layout, r.Mark(), 0)))
}

// normalised leaves out the first bucket. Some versions of iptables print the MAC in capitals.
func normalised(words []string) []string {
	words = slices.Clone(words)
	if i := slices.Index(words, "--clustermac"); i >= 0 && i+1 < len(words) {
		words[i+1] = strings.ToLower(words[i+1])
	}
	if i := slices.Index(words, "--local-node"); i >= 0 && i+1 < len(words) {
		words = slices.Delete(words, i, i+2)
	}
	return words
}

// judge reports what the chain's rules for an address are: whose, of which layout, and how they differ from it.
func judge(rules []xtables.Rule, address netip.Addr) clusterip.Tables {
	var tables clusterip.Tables
	var ours []xtables.Rule
	first := -1
	for i, r := range rules {
		switch {
		case isOurs(r, address):
			ours = append(ours, r)
			if first < 0 {
				first = i
			}
		case isFor(r, address):
			tables.Conflicting = append(tables.Conflicting, "iptables' CLUSTERIP rule for "+address.String())
		}
	}
	if first < 0 {
		return tables
	}
	tables.Present = true
	damage := func(format string, args ...any) { tables.Faults = append(tables.Faults, fmt.Sprintf(format, args...)) }
	installed, err := ours[0].Layout()
	if err != nil {
		damage("the stamp of the rule in %s cannot be read: %v", chain, err)
		return tables
	}
	tables.Installed = &installed
	if len(ours) > 1 {
		damage("the rule in %s is there %d times", chain, len(ours))
	}
	if differs(ours[0], installed) {
		damage("the rule in %s is not as installed: %s", chain, strings.Join(ours[0], " "))
	}
	tables.Faults = append(tables.Faults, xtables.Bypasses(chain, rules[:first])...)
	return tables
}
