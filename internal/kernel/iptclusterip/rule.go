package iptclusterip

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
)

// The rule is in the chain that local packets pass (iptables-extensions(8), CLUSTERIP).
const (
	table = "filter"
	chain = "INPUT"
)

// ruleOf is the rule of a layout as `iptables -A` and `iptables -S` have it, with a mark or without. The first node to be held is a
// part of a new rule; the kernel shows for ever what it was, so it says nothing.
func ruleOf(layout clusterip.Layout, mark string, first clusterip.Bucket) []string {
	return []string{
		"-d", netip.PrefixFrom(layout.Address(), layout.Address().BitLen()).String(), "-i", layout.NIC,
		"-m", "comment", "--comment", xtables.Comment(layout, mark),
		"-j", "CLUSTERIP", "--new", "--hashmode", string(layout.HashMode), "--clustermac", layout.MACs.IPv4.String(),
		"--total-nodes", strconv.FormatUint(uint64(layout.Buckets), 10), "--local-node", nodeOf(first),
		"--hash-init", strconv.FormatUint(uint64(layout.Seed), 10),
	}
}

// nodeOf is the number under which the target knows a bucket: it counts from 1.
func nodeOf(bucket clusterip.Bucket) string { return strconv.FormatUint(uint64(bucket)+1, 10) }

// A listed rule is a line of `iptables -S INPUT`.
type listed struct{ xtables.Rule }

func parseRule(line string) listed { return listed{xtables.ParseRule(line)} }

// isFor tells whether the rule hands packets for the address to the target.
func (l listed) isFor(address netip.Addr) bool {
	return l.Option("-j") == "CLUSTERIP" && l.IsTo(address)
}

// differsFrom says whether a rule is not as laid. What follows -A and --local-node does not count.
func (l listed) differsFrom(layout clusterip.Layout) bool {
	return !slices.Equal(l.comparable(), listed{ruleOf(layout, l.Mark(), 0)}.comparable())
}

func (l listed) comparable() []string {
	words := slices.Clone(l.Spec())
	if i := slices.Index(words, "--local-node"); i >= 0 && i+1 < len(words) {
		words = slices.Delete(words, i, i+2)
	}
	if i := slices.Index(words, "--clustermac"); i >= 0 && i+1 < len(words) {
		words[i+1] = strings.ToLower(words[i+1]) // some versions print it in capitals
	}
	return words
}
