package xtcluster

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
)

// The match needs a packet's entry in conntrack, so its chain comes after that.
const (
	table = "mangle"
	chain = "PREROUTING"
)

// prefix of the names of our own chains; the longest, with an address and a mark, is within the 28 bytes of XT_EXTENSION_MAXNAMELEN.
const prefix = "clusterip-"

// chainName is our own chain for an address: with the mark xtables.Twin, or without.
func chainName(address netip.Addr, mark string) string { return prefix + address.String() + mark }

// jump sends packets for the address to our chain.
func jump(address netip.Addr, mark string) []string {
	return []string{"-d", netip.PrefixFrom(address, address.BitLen()).String(), "-j", chainName(address, mark)}
}

// firstBucket is where the rules of the buckets begin, counted from 1. They are in order.
const firstBucket = 3

// chainRules fill our chain: what is heard on other NICs, the buckets, and the end of all others. Not one inverted rule, because the
// match finds nothing, inverted or not, where conntrack has no entry (xt_cluster_mt in net/netfilter/xt_cluster.c): every node would
// answer such packets. And not one rule for all buckets, because iptables takes no mask above 32 (libxt_cluster.c).
func chainRules(layout clusterip.Layout, owned []clusterip.Bucket) [][]string {
	rules := [][]string{
		{"!", "-i", layout.NIC, "-m", "pkttype", "--pkt-type", "unicast", "-j", "RETURN"},
		{"!", "-i", layout.NIC, "-j", "DROP"},
	}
	for _, bucket := range owned {
		rules = append(rules, bucketRule(layout, bucket))
	}
	return append(rules, []string{"-m", "comment", "--comment", xtables.Comment(layout, ""), "-j", "DROP"})
}

const bucketComment = "bucket "

// bucketRule lets a bucket's packets go on. The match itself makes frames for the cluster MAC the host's own.
func bucketRule(layout clusterip.Layout, bucket clusterip.Bucket) []string {
	return []string{
		"-m", "comment", "--comment", bucketComment + strconv.FormatUint(uint64(bucket), 10),
		"-m", "cluster", "--cluster-total-nodes", strconv.FormatUint(uint64(layout.Buckets), 10),
		"--cluster-local-node", strconv.FormatUint(uint64(bucket)+1, 10), // it counts from 1
		"--cluster-hash-seed", layout.Seed.String(), "-j", "RETURN",
	}
}

func isBucketRule(r xtables.Rule) bool {
	_, ok := bucketOf(r)
	return ok && strings.HasPrefix(r.Option("--comment"), bucketComment)
}

// bucketOf reads a bucket's rule, which is listed with a mask.
func bucketOf(r xtables.Rule) (clusterip.Bucket, bool) {
	mask, err := strconv.ParseUint(r.Option("--cluster-local-nodemask"), 0, 32)
	if err != nil || bits.OnesCount64(mask) != 1 {
		return 0, false
	}
	return clusterip.Bucket(bits.TrailingZeros64(mask)), true
}

// listedAs is how iptables lists a rule that was laid with these words.
func listedAs(words []string) []string {
	node := slices.Index(words, "--cluster-local-node")
	if node < 0 {
		return words
	}
	k, _ := strconv.ParseUint(words[node+1], 10, 8)
	listed := slices.Clone(words)
	total := slices.Index(words, "--cluster-total-nodes")
	return slices.Concat(listed[:total], []string{"--cluster-local-nodemask", fmt.Sprintf("0x%08x", uint32(1)<<(k-1))}, listed[total:total+2], listed[node+2:])
}

// ruleset is all of the mangle table that concerns an address.
type ruleset struct {
	prerouting []xtables.Rule
	chains     map[string][]xtables.Rule // our own, by mark
}

// live is the mark of the chain that packets go through: the first that is jumped to; or, if none is, the one that is there.
func (r ruleset) live(address netip.Addr) (mark string, ok bool) {
	for _, rule := range r.prerouting {
		for mark := range r.chains {
			if rule.Option("-j") == chainName(address, mark) {
				return mark, true
			}
		}
	}
	for _, mark := range []string{"", xtables.Twin} {
		if _, ok := r.chains[mark]; ok {
			return mark, true
		}
	}
	return "", false
}

// judge says what the rules are: whose, how they were laid, which buckets are owned, and what differs from what was laid.
func (r ruleset) judge(address netip.Addr) clusterip.Tables {
	var tables clusterip.Tables
	mark, ok := r.live(address)
	if !ok {
		return tables
	}
	rules := r.chains[mark]
	stamped := slices.IndexFunc(rules, xtables.Rule.IsStamped)
	if stamped < 0 && len(rules) > 0 && !slices.ContainsFunc(rules, isBucketRule) {
		tables.Foreign = append(tables.Foreign, "iptables' chain "+chainName(address, mark))
		return tables
	}
	tables.Present = true
	damage := func(format string, args ...any) { tables.Damage = append(tables.Damage, fmt.Sprintf(format, args...)) }
	for _, rule := range rules {
		if bucket, ok := bucketOf(rule); ok {
			tables.Owned = append(tables.Owned, bucket)
		}
	}
	slices.Sort(tables.Owned)
	tables.Owned = slices.Compact(tables.Owned)
	if stamped < 0 {
		damage("the stamp of chain %s is missing", chainName(address, mark))
		return tables
	}
	laid, err := rules[stamped].Layout()
	if err != nil {
		damage("the stamp of chain %s cannot be read: %v", chainName(address, mark), err)
		return tables
	}
	tables.Laid = &laid
	tables.Owned = slices.DeleteFunc(tables.Owned, func(b clusterip.Bucket) bool { return uint32(b) >= laid.Buckets })
	if len(r.chains) > 1 {
		damage("there are two chains for %s", address)
	}
	if !same(rules, chainRules(laid, tables.Owned)) {
		damage("the rules of chain %s are not as laid", chainName(address, mark))
	}
	return r.judgeJumps(address, mark, tables)
}

// same tells whether a chain's rules are those that it should have.
func same(have []xtables.Rule, want [][]string) bool {
	return slices.EqualFunc(have, want, func(h xtables.Rule, w []string) bool { return slices.Equal(h.Spec(), listedAs(w)) })
}

// judgeJumps looks whether every packet for the address goes through our chain.
func (r ruleset) judgeJumps(address netip.Addr, mark string, tables clusterip.Tables) clusterip.Tables {
	damage := func(format string, args ...any) { tables.Damage = append(tables.Damage, fmt.Sprintf(format, args...)) }
	isJump := func(rule xtables.Rule) bool { return slices.Equal(rule.Spec(), jump(address, mark)) }
	first := slices.IndexFunc(r.prerouting, isJump)
	if first < 0 {
		damage("%s does not send packets for %s to chain %s", chain, address, chainName(address, mark))
		return tables
	}
	for i, rule := range r.prerouting {
		switch {
		case i < first && !rule.LetsOn():
			damage("a rule before ours in %s may let packets for the address past it: %s", chain, strings.Join(rule, " "))
		case i > first && isJump(rule):
			damage("%s sends packets to chain %s twice", chain, chainName(address, mark))
		}
	}
	return tables
}
