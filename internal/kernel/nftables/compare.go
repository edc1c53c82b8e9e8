package nftables

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// judge says what the tables that bear our name are: whose, how they were laid, which buckets are owned, and what differs
// from what was laid.
func judge(tables []table) clusterip.Tables {
	var judged clusterip.Tables
	var ours []table
	for _, t := range tables {
		if t.isOurs() {
			ours = append(ours, t)
		} else {
			judged.Foreign = append(judged.Foreign, fmt.Sprintf("table %s", t))
		}
	}
	if len(ours) == 0 {
		return judged
	}
	judged.Present = true
	layout, err := stampOf(ours)
	judged.Owned = ownedOf(ours)
	judged.Moves = movesIn(ours)
	if err != nil {
		judged.Damage = append(judged.Damage, err.Error())
		return judged
	}
	judged.Laid = &layout
	judged.Owned = slices.DeleteFunc(judged.Owned, func(b clusterip.Bucket) bool { return uint32(b) >= layout.Buckets })
	judged.Moves = judged.Moves.Below(clusterip.Bucket(layout.Buckets))
	if layout.Schema > clusterip.Schema {
		judged.Damage = append(judged.Damage, fmt.Sprintf(
			"laid by a newer version of this agent (schema %d, this one knows %d)", layout.Schema, clusterip.Schema))
		return judged
	}
	if wereLoaded(ours) {
		judged.Damage = append(judged.Damage, "the tables were loaded from a file (nft -f), with the buckets that this node had when it was written: none of them counts")
		judged.Owned, judged.Moves = nil, clusterip.Moves{}
		return judged
	}
	judged.Damage = damage(ours, rulesetOf(layout))
	return judged
}

// wereLoaded tells whether nft(8) has put the tables there. Other nodes may own the buckets by now.
func wereLoaded(tables []table) bool {
	marked := func(r rule) bool { return r.marked }
	for _, t := range tables {
		if ingress, ok := t.chain(chainIngress); ok && len(ingress.rules) > 0 {
			return !slices.ContainsFunc(ingress.rules, marked)
		}
	}
	return false
}

// isOurs tells whether a table that bears our name was laid by us: it carries our stamp, or holds nothing but what we lay.
// Never touch another's table.
func (t table) isOurs() bool {
	s, _ := t.set(setSchema)
	isStamp := func(e element) bool { return clusterip.IsStamp(e.comment) } // its first part, which the kernel need not list first
	if slices.ContainsFunc(s.elements, isStamp) {                           // a newer version's, too, that cannot be read any further
		return true
	}
	chains, sets := namesIn(t.family)
	return !slices.ContainsFunc(t.chains, func(c chain) bool { return !slices.Contains(chains, c.name) }) &&
		!slices.ContainsFunc(t.sets, func(s set) bool { return !slices.Contains(sets, s.name) }) &&
		!t.holdsMore()
}

// namesIn lists the names that we use in a family's table, in any layout.
func namesIn(tables nft.TableFamily) (chains, sets []string) {
	switch tables {
	case nft.TableFamilyNetdev:
		chains = []string{chainIngress, chainARP, chainIPv4, chainIPv6}
		for _, f := range []family{ipv4, ipv6} {
			for _, name := range []string{chainErrors, chainShared, chainPorts, chainPortless} {
				chains = append(chains, name+f.suffix)
			}
		}
		return chains, setNames()
	case nft.TableFamilyARP:
		return []string{chainOutput}, nil
	case nft.TableFamilyIPv6:
		return []string{chainOutput, chainOverheard, chainMoves, chainDelivered, chainDraining, chainAdopting, chainTranslated, chainForwarded}, nil
	default:
		return []string{chainOverheard, chainMoves, chainDelivered, chainDraining, chainAdopting, chainTranslated, chainForwarded}, nil
	}
}

// setNames lists the names of our sets, in any layout.
func setNames() []string {
	names := []string{setOwned, setSchema}
	for _, p := range portProtocols {
		names = append(names, p.name+setServices)
	}
	for _, s := range moveSets() {
		names = append(names, s.name)
	}
	return names
}

// holdsMore tells whether a table holds something that is neither chain nor set: a named counter, a flowtable.
func (t table) holdsMore() bool { return int(t.use) > len(t.chains)+len(t.sets) }

func (t table) set(name string) (set, bool) {
	i := slices.IndexFunc(t.sets, func(s set) bool { return s.name == name })
	if i < 0 {
		return set{}, false
	}
	return t.sets[i], true
}

// stampOf reads how the tables were laid, from the one that says so: the netdev table.
func stampOf(tables []table) (clusterip.Layout, error) {
	for _, t := range tables {
		s, ok := t.set(setSchema)
		if !ok || len(s.elements) == 0 {
			continue
		}
		parts := inOrder(s.elements)
		schema := int(parts[0].key & (1<<schemaBits - 1))
		var stamp strings.Builder
		for i, part := range parts {
			if part.key != schemaKey(schema, i, len(parts)-1) {
				return clusterip.Layout{}, fmt.Errorf("the stamp of table %s is not whole", t)
			}
			stamp.WriteString(part.comment)
		}
		layout, err := clusterip.ParseStamp(schema, stamp.String())
		if err != nil {
			return layout, fmt.Errorf("the stamp of table %s cannot be read: %w", t, err)
		}
		if tableName(layout.Address()) != t.name {
			return layout, fmt.Errorf("the stamp of table %s names another address, %s", t, layout.Address())
		}
		return layout, nil
	}
	return clusterip.Layout{}, fmt.Errorf("table netdev %s or its stamp (set %s) is missing", tables[0].name, setSchema)
}

// ownedOf returns the buckets whose elements we have put there, in order.
func ownedOf(tables []table) []clusterip.Bucket {
	var owned []clusterip.Bucket
	for _, t := range tables {
		s, _ := t.set(setOwned)
		for _, e := range s.elements {
			if e.isOurs() {
				owned = append(owned, clusterip.Bucket(e.key))
			}
		}
	}
	slices.Sort(owned)
	return owned
}

// commentOf marks an element of set owned as ours, and tells an admin which instance it belongs to.
func commentOf(resource string, bucket clusterip.Bucket) string {
	const longest = 100 // nft(8) allows 128
	if resource == "" || len(resource) > longest {
		resource = "bucket"
	}
	return fmt.Sprintf("%s:%d", resource, bucket)
}

func (e element) isOurs() bool { return strings.HasSuffix(e.comment, fmt.Sprintf(":%d", e.key)) }

// damage lists in words what of the tables is not as it was laid. Counts of packets and the owned buckets may differ.
func damage(have, want []table) []string {
	var found []string
	for _, w := range want {
		i := slices.IndexFunc(have, func(h table) bool { return h.family == w.family })
		if i < 0 {
			found = append(found, fmt.Sprintf("table %s is missing", w))
			continue
		}
		for _, difference := range have[i].differences(w) {
			found = append(found, fmt.Sprintf("table %s: %s", w, difference))
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w table) bool { return w.family == h.family }) {
			found = append(found, fmt.Sprintf("table %s is left over", h))
		}
	}
	return found
}

func (t table) differences(want table) []string {
	found := t.structuralDifferences(want)
	for _, w := range want.chains {
		if have, ok := t.chain(w.name); ok {
			found = append(found, have.ruleDifferences(w)...)
		}
	}
	for _, w := range want.sets {
		if have, ok := t.set(w.name); ok {
			found = append(found, have.elementDifferences(w, buckets(want))...)
		}
	}
	return found
}

// cannotBecome tells whether only a new table mends what differs: there is something that is not ours, or of another kind.
func (t table) cannotBecome(want table) bool {
	ours, oursSets := namesIn(t.family)
	if t.flags != want.flags || t.holdsMore() {
		return true
	}
	for _, h := range t.chains {
		w, wanted := want.chain(h.name)
		if wanted && !reflect.DeepEqual(h.base, w.base) || !wanted && !slices.Contains(ours, h.name) {
			return true
		}
	}
	for _, h := range t.sets {
		w, wanted := want.set(h.name)
		if wanted && (h.keyLength != w.keyLength || h.flags != w.flags) || !wanted && !slices.Contains(oursSets, h.name) {
			return true
		}
	}
	return false
}

// structuralDifferences are those of what a table consists of.
func (t table) structuralDifferences(want table) []string {
	var found []string
	if t.flags != want.flags {
		found = append(found, "it is switched off or has another flag (dormant, owner, persist)")
	}
	if t.holdsMore() {
		found = append(found, "it holds something that is neither chain nor set, and not ours")
	}
	for _, w := range want.chains {
		have, ok := t.chain(w.name)
		switch {
		case !ok:
			found = append(found, fmt.Sprintf("chain %s is missing", w.name))
		case !reflect.DeepEqual(have.base, w.base):
			found = append(found, fmt.Sprintf("chain %s hooks in differently (%s, laid was %s)", w.name, have.base, w.base))
		}
	}
	for _, h := range t.chains {
		if _, ok := want.chain(h.name); !ok {
			found = append(found, fmt.Sprintf("chain %s is not ours", h.name))
		}
	}
	for _, w := range want.sets {
		have, ok := t.set(w.name)
		switch {
		case !ok:
			found = append(found, fmt.Sprintf("set %s is missing", w.name))
		case have.keyLength != w.keyLength || have.flags != w.flags:
			found = append(found, fmt.Sprintf("set %s is of another type", w.name))
		}
	}
	for _, h := range t.sets {
		if _, ok := want.set(h.name); !ok {
			found = append(found, fmt.Sprintf("set %s is not ours", h.name))
		}
	}
	return found
}

func (t table) chain(name string) (chain, bool) {
	i := slices.IndexFunc(t.chains, func(c chain) bool { return c.name == name })
	if i < 0 {
		return chain{}, false
	}
	return t.chains[i], true
}

func (b *base) String() string {
	if b == nil {
		return "no hook"
	}
	text := fmt.Sprintf("type %s hook %d priority %d policy %d", b.kind, b.hook, b.priority, b.policy)
	if b.device != "" {
		text += " device " + b.device
	}
	return text
}

func (c chain) ruleDifferences(want chain) []string {
	var found []string
	for _, w := range want.rules {
		if !slices.ContainsFunc(c.rules, w.equal) {
			found = append(found, fmt.Sprintf("chain %s: rule %q is missing or changed", c.name, w.comment))
		}
	}
	for _, h := range c.rules {
		if !slices.ContainsFunc(want.rules, h.equal) {
			found = append(found, fmt.Sprintf("chain %s: rule %q is not as laid", c.name, h.comment))
		}
	}
	if len(found) == 0 && !slices.EqualFunc(c.rules, want.rules, rule.equal) {
		found = append(found, fmt.Sprintf("chain %s: its rules are out of order or doubled", c.name))
	}
	return found
}

// equal compares what rules do, not what they have counted.
func (r rule) equal(other rule) bool {
	return r.comment == other.comment && r.marked == other.marked && slices.Equal(r.unknown, other.unknown) && slices.EqualFunc(r.exprs, other.exprs, func(a, b expr.Any) bool {
		_, aCounts := a.(*expr.Counter)
		_, bCounts := b.(*expr.Counter)
		return aCounts && bCounts || reflect.DeepEqual(a, b)
	})
}

// buckets returns N, as the stamp among the wanted elements has it.
func buckets(want table) uint32 {
	layout, err := stampOf([]table{want})
	if err != nil {
		return 0
	}
	return layout.Buckets
}

func (s set) elementDifferences(want set, n uint32) []string {
	var found []string
	if s.name != setOwned && !isMoveSet(s.name) {
		if !slices.Equal(inOrder(s.elements), inOrder(want.elements)) {
			found = append(found, fmt.Sprintf("set %s is not as laid", s.name))
		}
		return found
	}
	for _, e := range s.elements {
		if reason := s.alien(e, n); reason != "" {
			found = append(found, fmt.Sprintf("set %s: element %d %s", s.name, e.key, reason))
		}
	}
	return found
}

// inOrder sorts elements, which the kernel lists as it likes.
func inOrder(elements []element) []element {
	return slices.SortedFunc(slices.Values(elements), func(a, b element) int { return cmp.Compare(a.key, b.key) })
}

// alien says why an element of a set of buckets cannot be one that we put there; empty if it can.
func (s set) alien(e element, n uint32) string {
	isOurs := e.isOurs()
	if s.name == setAdopting {
		isOurs = strings.HasPrefix(e.comment, adoptedFrom)
	}
	switch {
	case e.all:
		return "stands for all buckets"
	case !isOurs:
		return "was not put there by this agent"
	case e.key >= n:
		return fmt.Sprintf("is no bucket of 0..%d", n-1)
	case s.name == setOwned && !e.counted:
		return "has no counter"
	case s.flags&unix.NFT_SET_TIMEOUT != 0 && !e.timed:
		return "never ends"
	default:
		return ""
	}
}
