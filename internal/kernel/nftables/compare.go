package nftables

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// judge interprets the tables that have our name: whether they are ours, their layout, which buckets are owned, and what differs from what
// was installed.
func judge(tables []table) clusterip.Tables {
	var judged clusterip.Tables
	var ours []table
	for _, t := range tables {
		if t.isOurs() {
			ours = append(ours, t)
		} else {
			judged.Conflicting = append(judged.Conflicting, fmt.Sprintf("table %s", t))
		}
	}
	if len(ours) == 0 {
		return judged
	}
	judged.Present = true
	judged.Owned, judged.Moves = ownedIn(ours), movesIn(ours)
	takeoversIn(ours, &judged)
	layout, err := stampOf(ours)
	if err != nil {
		judged.Faults = []string{err.Error()}
		return judged
	}
	judged.Installed = &layout
	judged.Owned = slices.DeleteFunc(judged.Owned, func(b clusterip.Bucket) bool { return uint32(b) >= layout.Buckets })
	judged.Moves = judged.Moves.Below(clusterip.Bucket(layout.Buckets))
	switch {
	case layout.Schema > clusterip.Schema:
		judged.Faults = []string{fmt.Sprintf("installed by a newer version of this agent (schema %d, this one supports up to %d)",
			layout.Schema, clusterip.Schema)}
	case wereLoaded(ours):
		judged.Faults = []string{
			"the tables were loaded from a file (nft -f), with the buckets that this node had when it was written: none of them counts",
		}
		judged.Owned, judged.Moves = nil, clusterip.Moves{}
		judged.Lingering, judged.Lingered, judged.Expecting, judged.Takeovers = nil, nil, nil, nil
	default:
		judged.Faults = damage(ours, tablesOf(layout))
	}
	return judged
}

// wereLoaded reports whether nft(8) has installed the tables. Meanwhile other nodes may own the buckets.
func wereLoaded(tables []table) bool {
	for _, t := range tables {
		if ingress, _ := t.chain(chainIngress); len(ingress.rules) > 0 {
			return !slices.ContainsFunc(ingress.rules, func(r rule) bool { return r.marked })
		}
	}
	return false
}

// isOurs reports whether we have installed a table that has our name: it has our stamp, or contains nothing but what we install. Others are
// left alone.
func (t table) isOurs() bool {
	s, _ := t.set(setSchema)
	isStamp := func(e element) bool { return clusterip.IsStamp(e.comment) } // the first part, in whatever order the kernel lists them
	if slices.ContainsFunc(s.elements, isStamp) {                           // also that of a newer version, of which nothing else may be known
		return true
	}
	chains, sets := namesIn(t.family)
	return !slices.ContainsFunc(t.chains, func(c chain) bool { return !slices.Contains(chains, c.name) }) &&
		!slices.ContainsFunc(t.sets, func(s set) bool { return !slices.Contains(sets, s.name) }) &&
		!t.holdsMore()
}

// ours returns the elements of a set of buckets that we have added, in order.
func (t table) ours(name string) []element {
	s, _ := t.set(name)
	return slices.DeleteFunc(inOrder(s.elements), func(e element) bool { return !e.isOurs() })
}

func ownedIn(tables []table) []clusterip.Bucket {
	var owned []clusterip.Bucket
	for _, t := range tables {
		for _, e := range t.ours(setOwned) {
			owned = append(owned, clusterip.Bucket(e.key))
		}
	}
	return owned
}

// damage describes what differs from the tables that were installed. The owned buckets and counters may differ.
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
	var found []string
	for _, d := range t.structuralDifferences(want) {
		found = append(found, d.text)
	}
	for _, w := range want.chains {
		if have, ok := t.chain(w.name); ok {
			found = append(found, have.ruleDifferences(w)...)
		}
	}
	for _, w := range want.sets {
		if have, ok := t.set(w.name); ok {
			found = append(found, have.elementDifferences(w)...)
		}
	}
	return found
}

// cannotBecome reports whether only a new table repairs what differs.
func (t table) cannotBecome(want table) bool {
	return slices.ContainsFunc(t.structuralDifferences(want), func(d structuralDifference) bool { return !d.repairable })
}

// A structuralDifference is one of what a table consists of.
type structuralDifference struct {
	text       string
	repairable bool // in place: something of ours is missing, or is left from another layout
}

func (t table) structuralDifferences(want table) []structuralDifference {
	var found []structuralDifference
	differ := func(repairable bool, format string, args ...any) {
		found = append(found, structuralDifference{fmt.Sprintf(format, args...), repairable})
	}
	chains, sets := namesIn(t.family)
	if t.flags != want.flags {
		differ(false, "it is dormant or has another flag (owner, persist)")
	}
	if t.holdsMore() {
		differ(false, "it contains something other than chains and sets")
	}
	for _, w := range want.chains {
		if have, ok := t.chain(w.name); !ok {
			differ(true, "chain %s is missing", w.name)
		} else if !reflect.DeepEqual(have.base, w.base) {
			differ(false, "chain %s has another hook (%s instead of %s)", w.name, have.base, w.base)
		}
	}
	for _, h := range t.chains {
		if _, ok := want.chain(h.name); !ok {
			isOfOtherLayout := slices.Contains(chains, h.name)
			differ(isOfOtherLayout, "%s chain %s", surplus(isOfOtherLayout), h.name)
		}
	}
	for _, w := range want.sets {
		if have, ok := t.set(w.name); !ok {
			differ(true, "set %s is missing", w.name)
		} else if have.keyLength != w.keyLength || have.flags != w.flags {
			differ(false, "set %s has another type", w.name)
		}
	}
	for _, h := range t.sets {
		if _, ok := want.set(h.name); !ok {
			isOfOtherLayout := slices.Contains(sets, h.name)
			differ(isOfOtherLayout, "%s set %s", surplus(isOfOtherLayout), h.name)
		}
	}
	return found
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
			found = append(found, fmt.Sprintf("chain %s: rule %q is not as installed", c.name, h.comment))
		}
	}
	if len(found) == 0 && !slices.EqualFunc(c.rules, want.rules, rule.equal) {
		found = append(found, fmt.Sprintf("chain %s: its rules are out of order, or there twice", c.name))
	}
	return found
}

func (s set) elementDifferences(want set) []string {
	var found []string
	if isTakeoverSet(s.name) {
		for _, e := range s.elements {
			if reason := s.takeoverFault(e); reason != "" {
				found = append(found, fmt.Sprintf("set %s: element %d %s", s.name, e.key, reason))
			}
		}
		return found
	}
	if want.buckets == 0 {
		if !slices.EqualFunc(inOrder(s.elements), inOrder(want.elements), element.equal) {
			found = append(found, fmt.Sprintf("set %s is not as installed", s.name))
		}
		return found
	}
	for _, e := range s.elements {
		if reason := s.alien(e, want.buckets); reason != "" {
			found = append(found, fmt.Sprintf("set %s: element %d %s", s.name, e.key, reason))
		}
	}
	return found
}

// alien explains why an element of a set of buckets cannot be one that we have added; empty if it can.
func (s set) alien(e element, n uint32) string {
	isOurs := e.isOurs()
	if s.name == setAdopting {
		isOurs = strings.HasPrefix(e.comment, adoptedFrom)
	}
	switch {
	case e.all:
		return "covers all buckets"
	case !isOurs:
		return "was not added by this agent"
	case e.key >= n:
		return fmt.Sprintf("is not a bucket (0..%d)", n-1)
	case s.name == setOwned && !e.counted:
		return "has no counter"
	case s.flags&unix.NFT_SET_TIMEOUT != 0 && !e.timed:
		return "has no timeout"
	default:
		return ""
	}
}

// surplus begins the fault of a chain or set that a table has too much.
func surplus(isOfOtherLayout bool) string {
	if isOfOtherLayout {
		return "this layout has no"
	}
	return "the agent did not install"
}
