package convert

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/text"
)

// A Rule is one of iptables or ip6tables, in words: "-A", its chain, and what follows. The policy of a chain is "-P", its chain and the
// target. Both have at least a chain.
type Rule struct {
	Table string
	Words []string
}

// agentsChain is how the names of the chains begin that this agent installs.
const agentsChain = "clusterip-"

// option returns the word behind an option; "" without it.
func (r Rule) option(name string) string {
	i := slices.Index(r.Words, name)
	if r.isPolicy() || i < 0 || i == len(r.Words)-1 {
		return ""
	}
	return r.Words[i+1]
}

// generation returns what shares an address in the rule; ok is false if the rule shares none, or is this agent's own.
func (r Rule) generation() (generation Generation, ok bool) {
	_, stamp, _ := strings.Cut(r.option("--comment"), " ") // behind the version of the rules
	switch {
	case strings.HasPrefix(r.option("-A"), agentsChain), clusterip.IsStamp(stamp):
		return Unknown, false
	case r.option("-j") == "CLUSTERIP":
		return Target, true
	default:
		return Match, slices.ContainsFunc(r.Words, func(word string) bool { return strings.HasPrefix(word, "--cluster-total-nodes") })
	}
}

// destination returns the addresses that the rule is for; ok is false if -d does not name them.
func (r Rule) destination() (prefix netip.Prefix, ok bool) {
	prefix, err := netip.ParsePrefix(r.option("-d"))
	i := slices.Index(r.Words, "-d")
	return prefix, err == nil && r.Words[i-1] != "!"
}

// address returns the one address of the rule.
func (r Rule) address() (netip.Addr, bool) {
	prefix, ok := r.destination()
	return prefix.Addr(), ok && prefix.IsSingleIP()
}

// chain returns the chain that the rule is in.
func (r Rule) chain() string { return r.Words[1] }

// isBeside reports whether two rules are in the same chain.
func (r Rule) isBeside(other Rule) bool { return r.Table == other.Table && r.chain() == other.chain() }

// jump returns the target of the rule, or the chain that it goes to; for the policy of a chain ("-P", the chain, and the target), that.
func (r Rule) jump() string {
	if r.isPolicy() {
		return r.Words[len(r.Words)-1]
	}
	return cmp.Or(r.option("-j"), r.option("-g"))
}

// isPrintable reports whether a terminal shows all of the rule as it is.
func (r Rule) isPrintable() bool {
	return !strings.ContainsFunc(strings.Join(r.Words, " "), func(r rune) bool { return !unicode.IsPrint(r) })
}

func (r Rule) isPolicy() bool { return r.Words[0] == "-P" }

// marks reports whether the rule sets a mark of packets or connections, or matches one.
func (r Rule) marks() bool {
	return slices.Contains([]string{"MARK", "CONNMARK"}, r.jump()) || slices.Contains(r.Words, "--mark")
}

// remove returns the command that removes the rule.
func (r Rule) remove(address netip.Addr) string {
	program := "iptables"
	if address.Is6() {
		program = "ip6tables"
	}
	words := []string{program, "-t", text.ShellQuote(r.Table), "-D"}
	for _, word := range readable(r.Words[1:]) { // without -A
		words = append(words, text.ShellQuote(word))
	}
	return strings.Join(words, " ")
}

// readable returns the words of a rule with the number of a node instead of the mask that iptables-save prints for it: iptables 1.8.9 reads
// no mask above 32, which is the one of node 6.
func readable(words []string) []string {
	words = slices.Clone(words)
	i := slices.Index(words, "--cluster-local-nodemask")
	if i < 0 || i == len(words)-1 {
		return words
	}
	if mask, err := strconv.ParseUint(words[i+1], 0, 32); err == nil && bits.OnesCount64(mask) == 1 {
		words[i], words[i+1] = "--cluster-local-node", strconv.Itoa(bits.Len64(mask))
	}
	return words
}

// byHand is a shared address that rules make, with all of them.
type byHand struct {
	address    netip.Addr
	generation Generation
	rules      []Rule // with the target or the match
	drops      []Rule // drop what these have not accepted or marked
	marks      []Rule // others about marks
	faults     []string
}

// gather finds the rules that share the address together with those of the match: most likely one that drops the packets of other nodes. If
// only the rule of the match were removed, it would drop all. (The target drops them itself.)
func (b *byHand) gather(all []Rule) {
	if b.generation != Match {
		return
	}
	for i, rule := range all {
		isOfAgent := strings.HasPrefix(rule.jump(), agentsChain)
		if prefix, ok := rule.destination(); ok && !prefix.Contains(b.address) || isOfAgent {
			continue
		}
		if !slices.ContainsFunc(b.rules, rule.isBeside) || b.has(rule) {
			continue
		}
		isBehind := rule.isPolicy() || slices.ContainsFunc(all[:i], func(r Rule) bool { return r.isBeside(rule) && b.has(r) })
		address, ok := rule.address()
		isOwn := ok && address == b.address && b.matchesNoMore(rule) && rule.isPrintable()
		switch isDrop := isBehind && drops(rule, all); {
		case isDrop && isOwn && rule.jump() == "DROP":
			b.drops = append(b.drops, rule)
		case isDrop && rule.isPolicy():
			b.faults = append(b.faults, fmt.Sprintf("the policy of chain %s of table %s is DROP: it drops all packets to the address that no rule "+
				"accepts, so all of them once these rules are removed. Change that first", ocf.Quote(rule.chain()), ocf.Quote(rule.Table)))
		case isDrop:
			b.faults = append(b.faults, fmt.Sprintf("rule %s in table %s may drop packets to the address once the rules in front of it are "+
				"removed. If it is a part of what shares the address, give it the same -d; else move it in front of them",
				ocf.Quote(strings.Join(rule.Words, " ")), ocf.Quote(rule.Table)))
		case isOwn && rule.marks():
			b.marks = append(b.marks, rule)
		}
	}
}

// has reports whether a rule is one with the match for the address.
func (b *byHand) has(rule Rule) bool {
	return slices.ContainsFunc(b.rules, func(own Rule) bool { return own.Table == rule.Table && slices.Equal(own.Words, rule.Words) })
}

// matchesNoMore reports whether a rule matches only what a rule of the match matches too, apart from marks: it is no rule of a firewall.
func (b *byHand) matchesNoMore(rule Rule) bool {
	end := slices.IndexFunc(rule.Words, func(word string) bool { return word == "-j" || word == "-g" })
	if end < 0 {
		return false
	}
	words := slices.Clone(rule.Words[:end])
	for _, option := range []string{"--mark", "--comment"} {
		if i := slices.Index(words, option); i > 0 && i < len(words)-1 {
			words = slices.Delete(words, i, i+2) // with its value
		}
	}
	words = slices.DeleteFunc(words, func(word string) bool { return slices.Contains([]string{"mark", "connmark", "comment", "!"}, word) })
	return slices.ContainsFunc(b.rules, func(own Rule) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !slices.Contains(own.Words, word) })
	})
}

// drops reports whether a rule may drop packets: itself, or in the chain that it goes to.
func drops(rule Rule, all []Rule) bool {
	seen := map[string]bool{}
	var chainDrops func(chain string) bool
	chainDrops = func(chain string) bool {
		if chain == "DROP" || seen[chain] {
			return chain == "DROP"
		}
		seen[chain] = true
		return slices.ContainsFunc(all, func(r Rule) bool {
			return r.Table == rule.Table && r.chain() == chain && !r.isPolicy() && chainDrops(r.jump())
		})
	}
	return chainDrops(rule.jump())
}

// Rules converts the rules of a node that share addresses.
func Rules(rules []Rule, o Options) (Report, error) {
	var all []*byHand
	var faults []error
	for _, rule := range rules {
		generation, shares := rule.generation()
		if !shares {
			continue
		}
		address, ok := rule.address()
		if !ok || !rule.isPrintable() {
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--iptables: rule %s shares no address: -d must be one, and all characters printable",
				ocf.Quote(strings.Join(rule.Words, " "))))
			continue
		}
		i := slices.IndexFunc(all, func(b *byHand) bool { return b.address == address })
		if i < 0 {
			all, i = append(all, &byHand{address: address, generation: generation}), len(all)
		}
		all[i].rules = append(all[i].rules, rule)
		if all[i].generation != generation {
			all[i].generation = Unknown
		}
	}
	if len(all) == 0 && len(faults) == 0 {
		return Report{}, ocf.Errorf(ocf.ErrArgs, "--iptables: no rule has the target CLUSTERIP or the match cluster, except this agent's own")
	}
	if len(faults) > 0 {
		return Report{}, errors.Join(faults...)
	}
	report := Report{Tool: o.Tool, NotNodeByNode: notNodeByNode, Conversions: []Conversion{}}
	for _, b := range all {
		b.gather(rules)
		report.Conversions = append(report.Conversions, b.convert(o))
	}
	return report, nil
}

// only returns the value of an option that all rules with it must have in common.
func (b *byHand) only(option string, faults *[]string) string {
	var values []string
	for _, rule := range b.rules {
		if value := rule.option(option); value != "" && !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	switch len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	default:
		var quoted []string
		for _, value := range values {
			quoted = append(quoted, ocf.Quote(value))
		}
		*faults = append(*faults, fmt.Sprintf("%s has several values, %s", option, strings.Join(quoted, " and ")))
		return ""
	}
}

// An optionOf is an option of a rule that becomes a parameter.
type optionOf struct {
	option, parameter string
	hash              bool // only with KeepHash
}

func (b *byHand) options() []optionOf {
	nic, mac := optionOf{option: "-i", parameter: "nic"}, optionOf{option: "--clustermac", parameter: "mac"}
	if b.generation == Target {
		return []optionOf{nic, {option: "--hashmode", parameter: "hashmode"}, mac, {option: "--hash-init", parameter: "hash_seed", hash: true}}
	}
	return []optionOf{nic, {option: "--cluster-hash-seed", parameter: "hash_seed", hash: true}}
}

func (b *byHand) convert(o Options) Conversion {
	name := "ip-" + strings.NewReplacer(".", "-", ":", "-").Replace(b.address.String())
	result := Conversion{
		Resource: name, Clone: name + "-clone", Generation: b.generation, Form: "rules with " + b.generation.form(), Address: b.address.String(),
		Parameters: []Parameter{}, Faults: []string{}, Remarks: []string{}, Steps: []Step{}, WayBack: []string{},
	}
	if b.generation == Unknown {
		result.Faults = append(result.Faults, "rules with the target CLUSTERIP and with the match cluster share it at once")
		return result
	}
	result.Faults = append(result.Faults, b.faults...)
	parameters := map[string]string{"ip": b.address.String()}
	result.Parameters = append(result.Parameters, Parameter{Old: "-d " + result.Address, New: setting("ip", result.Address), Fate: Kept})
	for _, each := range b.options() {
		value := b.only(each.option, &result.Faults)
		row := Parameter{Old: each.option + " " + value, Fate: Dropped, Why: "the seed is derived from ip; --keep-hash takes it over"}
		if value == "" {
			continue
		}
		if !each.hash || o.KeepHash {
			parameters[each.parameter] = value
			row = Parameter{Old: row.Old, New: setting(each.parameter, value), Fate: Kept}
		}
		result.Parameters = append(result.Parameters, row)
	}
	if o.KeepHash {
		b.keepHash(parameters, &result)
	}
	result.Buckets = b.buckets(o, &result.Faults)
	layout, err := check(parameters, name, max(1, result.Buckets))
	result.Faults = append(result.Faults, split(err)...)
	if len(result.Faults) == 0 {
		b.describe(&result, parameters, layout, o)
	}
	return result
}

// keepHash adds what --keep-hash needs beyond the options that are taken over.
func (b *byHand) keepHash(parameters map[string]string, result *Conversion) {
	add := func(name, value, why string) {
		if _, set := parameters[name]; !set {
			parameters[name] = value
			result.Parameters = append(result.Parameters, Parameter{New: setting(name, value), Fate: Added, Why: why})
		}
	}
	switch {
	case b.generation == Target:
		add("hash_compat", string(clusterip.ClusterIP), "the hash of the target")
		add("hash_seed", "0", "--hash-init is 0 unless it is given")
	case b.address.Is6():
		result.Faults = append(result.Faults, "--keep-hash: iptables' match cluster hashes a part of an IPv6 address, which nothing else does")
	}
}

// buckets returns the number of buckets after the conversion; 0 with a fault.
func (b *byHand) buckets(o Options, faults *[]string) uint32 {
	option, most := "--total-nodes", uint64(clusterip.MaxTargetBuckets)
	if b.generation == Match {
		option, most = "--cluster-total-nodes", clusterip.MaxMatchBuckets
	}
	value := b.only(option, faults)
	total, err := strconv.ParseUint(value, 10, 32)
	switch {
	case value == "" && len(*faults) == 0:
		*faults = append(*faults, fmt.Sprintf("no rule has %s; of the target's rules only the one with --new has it", option))
	case value != "" && (err != nil || total < 1 || total > most):
		*faults = append(*faults, fmt.Sprintf("%s %s is not a number from 1 to %d", option, ocf.Quote(value), most))
		return 0
	case o.KeepHash && o.Buckets > 0 && uint64(o.Buckets) != total:
		*faults = append(*faults, fmt.Sprintf("--buckets %d changes the hash, which --keep-hash keeps: %s is %d", o.Buckets, option, total))
	case o.Buckets > 0:
		return o.Buckets
	}
	return uint32(total)
}

const (
	whyIPaddr2 = "If ocf:heartbeat:IPaddr2 has added these rules, convert its resource instead: leave out --iptables."
	whyRemove  = "From here on no node answers until the clone runs. The commands are for the node whose rules were saved. The same " +
		"rules of the other nodes contain another number of the node. Also remove what adds the rules and the address at boot."
	whyRemoveTarget = "Start refuses to run beside a rule with the target."
	whyRemoveMatch  = "Start does not see rules with the match cluster. What is left of them drops packets that the agent accepts; doctor " +
		"names rules that drop (firewall)."
	whyRemoveMAC = "Rules with the match cluster also need a shared MAC address: remove it from the interface (ip maddress delete), and the " +
		"rules of arptables that write it into ARP (arptables-save prints them)."
	whyCreate = "The clone is created disabled, so nothing happens yet. If a command fails, those behind it are not run."
	whyByHand = "Only when the address and the rules are removed on all nodes:"
)

// describe sets remarks, steps and way back.
func (b *byHand) describe(result *Conversion, parameters map[string]string, layout clusterip.Layout, o Options) {
	result.Remarks = append(result.Remarks, whyIPaddr2)
	if parameters["mac"] == "" {
		result.Remarks = append(result.Remarks, newMAC(layout))
	}
	// The address first, so that no two nodes answer a client. Then what drops, which alone would drop all packets to the address.
	remove := []string{"ip address show to " + b.address.String() + "   # then: ip address delete ADDRESS/LENGTH dev INTERFACE"}
	for _, rule := range slices.Concat(b.drops, b.rules, b.marks) {
		remove = append(remove, rule.remove(b.address))
	}
	whyRemoved := []string{whyRemove, whyRemoveTarget}
	if b.generation == Match {
		whyRemoved = []string{whyRemove, whyRemoveMatch, whyRemoveMAC}
	}
	first := before(result, b.address.String())
	first.EachNode = append(b.save(), first.EachNode...)
	create := append([]string{backup(result.Resource)}, o.Tool.create(result.Resource, parameters, wantedMeta(result.Buckets))...)
	result.Steps = []Step{
		first,
		{
			Title: "Create the clone", Why: []string{whyCreate},
			Commands: []string{chain(create...)},
		},
		{Title: "Remove the address and the rules", Why: whyRemoved, EachNode: remove, Commands: []string{}},
		{Title: "Start the clone", Why: []string{whyStart, whyByHand}, ByHand: true, Commands: []string{o.Tool.start(result.Clone, false)}},
		after(b.address.String()),
	}
	again := fmt.Sprintf("# then, on each node, add the rules in %s and what is in %s again", b.file("rules"), b.file("addresses"))
	if b.generation == Match {
		again += "; where iptables refuses a --cluster-local-nodemask, write --cluster-local-node"
	}
	result.WayBack = []string{chain(o.Tool.stop(result.Clone, result.Resource, false)...), again}
}

// file returns the name of the file in which something of a node is saved.
func (b *byHand) file(what string) string { return what + "-before-" + b.address.String() }

// save returns the commands that save what the way back needs on a node.
func (b *byHand) save() []string {
	program, more := "iptables-save", ""
	if b.address.Is6() {
		program = "ip6tables-save"
	}
	if b.generation == Match { // the kernel's target has no such rules
		more = "; ip maddress show"
		if b.address.Is4() {
			more += "; arptables-save"
		}
	}
	return []string{
		fmt.Sprintf("(umask 077; set -C; %s >%s)", program, b.file("rules")),
		fmt.Sprintf("(umask 077; set -C; (ip address show to %s%s) >%s)", b.address, more, b.file("addresses")),
	}
}
