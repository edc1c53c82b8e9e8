package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/tests/probe"
)

// death is one of a host: from the event that makes the cluster fence it, until it has no power.
type death struct {
	node string
	from time.Time
	off  time.Time // zero if it never lost its power
}

// offTakes is how long the power switch may take to unplug a host.
const offTakes = time.Second

// noBucket is the bucket of a fault that concerns no single bucket.
const noBucket = -1

// fault is a violation of what soak checks, from its first sign to its last.
type fault struct {
	from, to time.Time
	bucket   int
	title    string
	detail   string // more lines, if any
	flows    []flow // on which the clients saw it
}

// flow is what one source asks in one way.
type flow struct {
	source netip.Addr
	proto  probe.Proto
}

// sign is a client's sign of a fault.
type sign struct {
	flow
	at   time.Time
	what string // answered twice, …
	how  string // by whom
}

// verdict is what the clients saw.
type verdict struct {
	signs []sign
	// Of the connections whose host died: how many got a reset, and how many timed out. (Where another host drains the bucket too, no node
	// can send a reset: docs/draining.md.)
	reset, timedOut int
}

// judge looks for faults in what the clients saw.
func judge(l *probe.Log, deaths []death) verdict {
	var v verdict
	for _, e := range l.Events {
		at := l.Start.Add(e.At)
		note := func(what, how string) {
			v.signs = append(v.signs, sign{flow{e.Source, e.Proto}, at, what, how})
		}
		switch e.Kind {
		case probe.Duplicate:
			note("answered twice", fmt.Sprintf("by %s %s", e.Node, e.Text))
		case probe.WrongMAC:
			note("wrong MAC", e.Text)
		case probe.Refused:
			if !isDying(deaths, e.Node, at) {
				note("refused", fmt.Sprintf("by %s, which lives", e.Node))
			}
		case probe.Broken:
			made, since := l.MadeTo(e)
			switch {
			case !excused(deaths, made, l.Start.Add(since), at, e.Node):
				if e.Node == "" { // without an answer, the fault began with the question
					at = at.Add(-e.After)
				}
				note("broken", fmt.Sprintf("connection to %s, which lives, made at %s: %s", made, stamp(l.Start.Add(since)), how(e)))
			case e.Node != "":
				v.reset++
			default:
				v.timedOut++
			}
		}
	}
	return v
}

func how(e probe.Event) string {
	if e.Node != "" {
		return e.Text + " by " + e.Node
	}
	return e.Text
}

// isDying returns whether a node is about to lose its power because of an event.
func isDying(deaths []death, node string, at time.Time) bool {
	return slices.ContainsFunc(deaths, func(d death) bool {
		return d.node == node && !at.Before(d.from) && (d.off.IsZero() || at.Before(d.off.Add(offTakes)))
	})
}

// excused returns whether a connection had to break: its host has lost its power since, or the host itself broke it when it was dying. A
// host that is only cut off serves its connections, and no other may break them.
func excused(deaths []death, made string, since, at time.Time, by string) bool {
	return slices.ContainsFunc(deaths, func(d death) bool {
		if d.node != made || !d.off.IsZero() && since.After(d.off.Add(offTakes)) {
			return false
		}
		return !d.off.IsZero() && !at.Before(d.off) || by == made && isDying(deaths, made, at)
	})
}

// deathsOf joins the events that kill hosts with the times at which these lost their power. The second result are the hosts that lost it
// without an event.
func deathsOf(begun []death, losses map[string][]time.Time) (deaths, unasked []death) {
	deaths = slices.Clone(begun)
	for _, node := range sortedKeys(losses) {
		for _, off := range losses[node] {
			i := -1 // the latest event that led to it
			for j, d := range deaths {
				if d.node == node && d.off.IsZero() && !off.Before(d.from) {
					i = j
				}
			}
			if i < 0 {
				unasked = append(unasked, death{node: node, from: off, off: off})
				continue
			}
			deaths[i].off = off
		}
	}
	return append(deaths, unasked...), unasked
}

// together is how near signs are to each other that are taken for one fault.
const together = 5 * time.Second

// group makes faults of the signs: those of one bucket that are near to each other.
func group(signs []sign) []fault {
	slices.SortStableFunc(signs, func(a, b sign) int { return cmp.Or(cmp.Compare(a.bucket(), b.bucket()), a.at.Compare(b.at)) })
	var faults []fault
	for len(signs) > 0 {
		end := 1
		for end < len(signs) && signs[end].bucket() == signs[0].bucket() && signs[end].at.Sub(signs[end-1].at) < together {
			end++
		}
		faults = append(faults, faultOf(signs[:end]))
		signs = signs[end:]
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return a.from.Compare(b.from) })
	return faults
}

// bucket is the source's. A wrong MAC in ARP concerns no single bucket.
func (s sign) bucket() int {
	if !s.source.IsValid() {
		return noBucket
	}
	return bucketOf(s.source)
}

// faultOf makes one fault of signs.
func faultOf(signs []sign) fault {
	f := fault{from: signs[0].at, to: signs[len(signs)-1].at, bucket: signs[0].bucket()}
	counts := map[string]int{}
	var kinds []string
	for _, s := range signs {
		if counts[s.what]++; counts[s.what] == 1 {
			kinds = append(kinds, s.what)
		}
		if s.source.IsValid() && !slices.Contains(f.flows, s.flow) {
			f.flows = append(f.flows, s.flow)
		}
	}
	for i, what := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", counts[what], what)
	}
	where := ""
	if f.bucket != noBucket {
		where = fmt.Sprintf("bucket %d: ", f.bucket)
	}
	first := signs[0]
	f.title = fmt.Sprintf("%s%s; the first: %s", where, strings.Join(kinds, ", "), first.how)
	return f
}
