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

// The match needs a packet's conntrack entry, so its chain comes after conntrack.
const (
	table = "mangle"
	chain = "PREROUTING"
)

// prefix of the names of this agent's chains. The longest name, with an address and a mark, has fewer than the 28 bytes of
// XT_EXTENSION_MAXNAMELEN.
const prefix = "clusterip-"

// jump sends packets for the address to a chain.
func jump(address netip.Addr, name string) []string {
	return []string{"-d", netip.PrefixFrom(address, address.BitLen()).String(), "-j", name}
}

// firstBucket is where the rules of the buckets begin, counted from 1. They are in order.
const firstBucket = 3

// chainRules fill a chain: packets that arrive by other interfaces, the owned buckets, and the end of all others. One inverted rule would
// not do, because the match finds nothing, inverted or not, where conntrack has no entry (xt_cluster_mt in net/netfilter/xt_cluster.c):
// every node would answer such packets. Nor would one rule for all buckets, because iptables takes no mask above 32 (libxt_cluster.c).
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

// bucketRule accepts a bucket's packets. The match itself makes frames for the shared MAC the node's own.
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

// bucketOf reads a bucket's rule, which iptables lists with a mask.
func bucketOf(r xtables.Rule) (clusterip.Bucket, bool) {
	mask, err := strconv.ParseUint(r.Option("--cluster-local-nodemask"), 0, 32)
	if err != nil || bits.OnesCount64(mask) != 1 {
		return 0, false
	}
	return clusterip.Bucket(bits.TrailingZeros64(mask)), true
}

// listedAs is how iptables lists a rule that was added with these words.
func listedAs(words []string) []string {
	node := slices.Index(words, "--cluster-local-node")
	if node < 0 {
		return words
	}
	k, _ := strconv.ParseUint(words[node+1], 10, 8)
	total := slices.Index(words, "--cluster-total-nodes")
	mask := []string{"--cluster-local-nodemask", fmt.Sprintf("0x%08x", uint32(1)<<(k-1))}
	return slices.Concat(words[:total], mask, words[total:total+2], words[node+2:])
}

// ruleset is everything in the mangle table that concerns an address, and the program that installed it.
type ruleset struct {
	address    netip.Addr
	program    *xtables.Program
	prerouting []xtables.Rule
	chains     map[string][]xtables.Rule // this agent's for the address, by name
}

// names are those that the address's chain may have, in turn.
func (r ruleset) names() []string {
	name := prefix + r.address.String()
	return []string{name, name + xtables.Twin}
}

// live is the chain that packets go through: the first that a rule jumps to, or the existing one if none does.
func (r ruleset) live() (name string, ok bool) {
	for _, rule := range r.prerouting {
		if _, ok := r.chains[rule.Option("-j")]; ok {
			return rule.Option("-j"), true
		}
	}
	for _, name := range r.names() {
		if _, ok := r.chains[name]; ok {
			return name, true
		}
	}
	return "", false
}

// judge reports what the rules are: whose, of which layout, which buckets the node owns, and how they differ from what was installed.
func (r ruleset) judge() clusterip.Tables {
	var tables clusterip.Tables
	name, ok := r.live()
	if !ok {
		return tables
	}
	rules := r.chains[name]
	stamped := slices.IndexFunc(rules, xtables.Rule.IsStamped)
	if stamped < 0 && len(rules) > 0 && !slices.ContainsFunc(rules, isBucketRule) {
		tables.Conflicting = append(tables.Conflicting, "iptables' chain "+name)
		return tables
	}
	tables.Present = true
	tables.Owned = ownedIn(rules)
	if stamped < 0 {
		tables.Faults = []string{fmt.Sprintf("the stamp of chain %s is missing", name)}
		return tables
	}
	installed, err := rules[stamped].Layout()
	if err != nil {
		tables.Faults = []string{fmt.Sprintf("the stamp of chain %s cannot be read: %v", name, err)}
		return tables
	}
	tables.Installed = &installed
	tables.Owned = slices.DeleteFunc(tables.Owned, func(b clusterip.Bucket) bool { return uint32(b) >= installed.Buckets })
	if len(r.chains) > 1 {
		tables.Faults = append(tables.Faults, fmt.Sprintf("there are two chains for %s", r.address))
	}
	isListed := func(have xtables.Rule, want []string) bool { return slices.Equal(have.Spec(), listedAs(want)) }
	if !slices.EqualFunc(rules, chainRules(installed, tables.Owned), isListed) {
		tables.Faults = append(tables.Faults, fmt.Sprintf("the rules of chain %s are not as installed", name))
	}
	tables.Faults = append(tables.Faults, r.judgeJumps(name)...)
	return tables
}

// ownedIn are the buckets that a chain accepts, in order.
func ownedIn(rules []xtables.Rule) []clusterip.Bucket {
	var owned []clusterip.Bucket
	for _, rule := range rules {
		if bucket, ok := bucketOf(rule); ok {
			owned = append(owned, bucket)
		}
	}
	slices.Sort(owned)
	return slices.Compact(owned)
}

// judgeJumps reports why packets for the address may not go through a chain, or do so twice.
func (r ruleset) judgeJumps(name string) []string {
	isJump := func(rule xtables.Rule) bool { return slices.Equal(rule.Spec(), jump(r.address, name)) }
	first := slices.IndexFunc(r.prerouting, isJump)
	if first < 0 {
		return []string{fmt.Sprintf("%s does not send packets for %s to chain %s", chain, r.address, name)}
	}
	damage := xtables.Bypasses(chain, r.prerouting[:first])
	if slices.ContainsFunc(r.prerouting[first+1:], isJump) {
		damage = append(damage, fmt.Sprintf("%s sends packets to chain %s twice", chain, name))
	}
	return damage
}
