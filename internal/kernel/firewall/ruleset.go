package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/kernel/nftreply"
	"ocf-clusterip/internal/ocf"
)

// A ruleset is what nf_tables has.
type ruleset struct {
	tables   []nftreply.Table
	chains   []nftreply.Chain
	rules    []nftreply.Rule
	sets     []nftreply.Set
	elements map[name][]nftreply.Element // of the sets that the rules of others look into
}

// A name is that of a chain or a set.
type name struct {
	family      byte
	table, name string
}

// readRuleset returns an empty ruleset on a kernel without nf_tables.
func readRuleset(ctx context.Context, conn *nftables.Conn) (ruleset, error) {
	var r ruleset
	err := conn.Consistently(ctx, "the ruleset", func() (err error) {
		r, err = readOnce(ctx, conn)
		return err
	})
	if ocf.CodeOf(err) == ocf.ErrInstalled {
		return ruleset{}, nil
	}
	return r, err
}

func readOnce(ctx context.Context, conn *nftables.Conn) (ruleset, error) {
	tables, tablesErr := nftables.Dump[nftreply.Table](ctx, conn, unix.NFT_MSG_GETTABLE)
	chains, chainsErr := nftables.Dump[nftreply.Chain](ctx, conn, unix.NFT_MSG_GETCHAIN)
	rules, rulesErr := nftables.Dump[nftreply.Rule](ctx, conn, unix.NFT_MSG_GETRULE)
	sets, setsErr := nftables.Dump[nftreply.Set](ctx, conn, unix.NFT_MSG_GETSET)
	r := ruleset{tables, chains, rules, sets, map[name][]nftreply.Element{}}
	err := errors.Join(tablesErr, chainsErr, rulesErr, setsErr)
	for _, rule := range r.rules {
		for _, e := range rule.Expressions.All {
			lookup, ok := e.Decode(rule.Family).(*expr.Lookup)
			if !ok || strings.HasPrefix(rule.Table, ours) {
				continue
			}
			set := name{rule.Family, rule.Table, lookup.SetName}
			if _, isRead := r.elements[set]; !isRead && err == nil {
				r.elements[set], err = conn.Elements(ctx, nft.TableFamily(set.family), set.table, set.name)
			}
		}
	}
	return r, err
}

// filtering returns the tables that filter: not ours, and no dormant ones.
func (r ruleset) filtering() []table {
	sets := map[name]set{}
	for _, s := range r.sets {
		key := name{s.Family, s.Table, s.Name}
		if elements, isRead := r.elements[key]; isRead {
			sets[key] = setOf(s, elements)
		}
	}
	rules := map[name][]nftRule{}
	for _, read := range r.rules {
		key := name{read.Family, read.Table, read.Chain}
		rule := nftRule{chain: key, handle: read.Handle, sets: sets}
		for _, e := range read.Expressions.All {
			rule.expressions = append(rule.expressions, expression{e.Name, e.Decode(read.Family)})
		}
		rules[key] = append(rules[key], rule)
	}
	var tables []table
	for _, t := range r.tables {
		const dormant = 1 // NFT_TABLE_F_DORMANT
		if strings.HasPrefix(t.Name, ours) || t.Flags&dormant != 0 {
			continue
		}
		converted := table{name: familyName(t.Family) + " " + t.Name}
		for _, c := range r.chains {
			if c.Family != t.Family || c.Table != t.Name {
				continue
			}
			into := chain{name: c.Name, hook: hookOf(c)}
			for _, rule := range rules[name{c.Family, c.Table, c.Name}] {
				rule.early = into.hook != nil && into.hook.isBeforeConntrack()
				into.rules = append(into.rules, rule)
			}
			converted.chains = append(converted.chains, into)
		}
		tables = append(tables, converted)
	}
	return tables
}

func hookOf(c nftreply.Chain) *hook {
	if c.Hook == nil {
		return nil
	}
	const inetIngress = 5 // NF_INET_INGRESS
	ip := map[uint32]place{
		unix.NF_INET_PRE_ROUTING: atPrerouting, unix.NF_INET_LOCAL_IN: atInput, unix.NF_INET_FORWARD: atForward, inetIngress: atIngress,
	}
	at := map[byte]map[uint32]place{
		unix.NFPROTO_NETDEV: {unix.NF_NETDEV_INGRESS: atNetdevIngress},
		unix.NFPROTO_BRIDGE: {unix.NF_INET_PRE_ROUTING: atBridge, unix.NF_INET_LOCAL_IN: atBridge},
		unix.NFPROTO_ARP:    {0: atInput}, // NF_ARP_IN
		unix.NFPROTO_IPV4:   ip, unix.NFPROTO_IPV6: ip, unix.NFPROTO_INET: ip,
	}[c.Family][c.Hook.Number]
	if c.Type == "route" || c.Type == natChain && at != atPrerouting {
		at = nowhere
	}
	h := &hook{
		family: c.Family, place: at, priority: c.Hook.Priority, kind: c.Type, devices: c.Hook.Devices.Names, drops: c.Policy == 0, // NF_DROP
		showWith: fmt.Sprintf("nft -a list chain %s %s %%s", familyName(c.Family), c.Table),
	}
	for _, prefix := range c.Hook.Devices.Prefixes {
		h.devices = append(h.devices, prefix+"*")
	}
	return h
}

func familyName(family byte) string {
	names := map[byte]string{
		unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_ARP: "arp",
		unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge",
	}
	if name, ok := names[family]; ok {
		return name
	}
	return fmt.Sprintf("family %d", family)
}

// A set is one of nf_tables, or a map.
type set struct {
	keyLength int
	verdicts  bool // a map to verdicts
	entries   []entry
}

// An entry is for a span of keys.
type entry struct {
	span
	others  bool // it is for all keys that have no entry
	verdict outcome
}

// setOf makes spans of elements. The kernel has the end of an interval as an element of its own; for concatenated keys, in the same one.
func setOf(read nftreply.Set, elements []nftreply.Element) set {
	slices.SortStableFunc(elements, func(a, b nftreply.Element) int {
		if order := bytes.Compare(a.Key.Value, b.Key.Value); order != 0 {
			return order
		}
		return int(b.Flags&nftreply.ElementEnd) - int(a.Flags&nftreply.ElementEnd) // one ends where the next begins
	})
	s := set{keyLength: int(read.KeyLength), verdicts: read.DataType == nftreply.VerdictMap}
	var others []entry
	for i, e := range elements {
		keys := span{first: e.Key.Value, last: e.Key.Value}
		verdict := outcome{match: perhaps, action: drop}
		if v := e.Data.Verdict; v != nil {
			verdict = outcomeOf(expr.VerdictKind(v.Code), v.Chain)
		}
		switch {
		case e.Flags&nftreply.ElementCatchAll != 0:
			others = append(others, entry{others: true, verdict: verdict})
			continue
		case e.Flags&nftreply.ElementEnd != 0:
			continue
		case e.KeyEnd.Value != nil:
			keys = span{first: e.Key.Value, last: e.KeyEnd.Value, joint: true}
		case read.Flags&unix.NFT_SET_INTERVAL != 0:
			keys.last = nil
			if i+1 < len(elements) {
				keys.last = before(elements[i+1].Key.Value)
			}
		}
		s.entries = append(s.entries, entry{span: keys, verdict: verdict})
	}
	s.entries = append(s.entries, others...)
	return s
}

// holds returns whether a key is in the set.
func (s set) holds(key value) match {
	found := no
	for _, e := range s.entries {
		if e.others {
			return yes
		}
		found = max(found, key.in(e.span))
	}
	return found
}

// outcomes returns the verdicts to which a key may be mapped.
func (s set) outcomes(key value) []outcome {
	var all []outcome
	for _, e := range s.entries {
		found := key.in(e.span)
		if e.others {
			found = yes
			if len(all) > 0 {
				found = perhaps
			}
		}
		e.verdict.match = min(e.verdict.match, found)
		if found != no {
			all = append(all, e.verdict)
		}
		if found == yes {
			break
		}
	}
	return all
}
