// Package firewall finds what in the node's other firewalls may stop the packets for an address: in nf_tables, whoever's table it is but
// ours, and in the tables of iptables-legacy.
//
// It asks what would become of one packet of each kind that a client sends, and of which not everything is known: who the client is, for
// instance. Where a condition cannot be judged it says so rather than guess.
package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/operator/doctor"
)

// Look finds the obstacles to what the layout shares. It changes nothing.
func Look(ctx context.Context, tables *nftables.Conn, layout clusterip.Layout) ([]doctor.Obstacle, error) {
	ruleset, err := readRuleset(ctx, tables)
	if err != nil {
		return nil, fmt.Errorf("read the other tables of nf_tables: %w", err)
	}
	legacy, err := readLegacy(ctx, layout)
	if err != nil {
		return nil, fmt.Errorf("read iptables-legacy: %w", err)
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	isLocal := func(a netip.Addr) bool {
		return a.IsLoopback() || slices.ContainsFunc(local, func(l net.Addr) bool {
			prefix, err := netip.ParsePrefix(l.String())
			return err == nil && prefix.Addr() == a
		})
	}
	return inTheWay(append(ruleset, legacy...), probes(layout), isLocal), nil
}

// A match says whether the conditions of a rule hold for a packet. Of several conditions the least counts.
type match int

const (
	no      match = iota
	some          // for some clients, or some of the time: block lists, rates
	perhaps       // cannot be judged
	yes
)

func not(m match) match {
	switch m {
	case yes:
		return no
	case no:
		return yes
	default: // not one of some is nearly everybody
		return perhaps
	}
}

// What a rule does with a packet.
type action int

const (
	goOn action = iota
	accept
	drop
	jump
	jumpForGood // "goto": what the chain does not decide is not brought back
	comeBack    // "return"
	untrack
	redirect // DNAT, REDIRECT
)

// An outcome is what a rule may do.
type outcome struct {
	match  match
	action action
	chain  string      // to jump to
	to     destination // of a redirect
}

// A destination is where a packet is redirected to.
type destination struct {
	here bool       // the host itself, at whichever address
	host netip.Addr // otherwise; not valid: not known
	port uint16     // 0: as before, or not known
}

// A rule judges a packet. Of its outcomes with yes there is at most one.
type rule interface {
	judge(p probe) []outcome
	String() string
}

type chain struct {
	name  string
	rules []rule
	hook  *hook // nil: other chains jump to it
}

// A hook is where a base chain looks at packets.
type hook struct {
	sees     func(p probe) bool
	order    int64 // the lower, the sooner
	drops    bool  // what no rule decides (the policy)
	early    bool  // before conntrack
	showWith string
}

// A table's chains see each other only.
type table struct {
	name   string
	chains []chain
}

// inTheWay sends each packet through all chains that see it, in their order. A service may be elsewhere, such as in a container: what is redirected
// to an address that is not local is forwarded there.
func inTheWay(tables []table, packets []probe, isLocal func(netip.Addr) bool) []doctor.Obstacle {
	type base struct {
		table table
		chain chain
	}
	var bases []base
	for _, t := range tables {
		for _, c := range t.chains {
			if c.hook != nil {
				bases = append(bases, base{t, c})
			}
		}
	}
	slices.SortStableFunc(bases, func(a, b base) int { return int(min(1, max(-1, a.chain.hook.order-b.chain.hook.order))) })
	var found []doctor.Obstacle
	for _, p := range packets {
		reach := yes
		for _, b := range bases {
			if !b.chain.hook.sees(p) {
				continue
			}
			w := walk{table: b.table, base: b.chain, packet: p, found: &found}
			end := w.through(b.chain.name, reach, 0)
			if !end.decided && b.chain.hook.drops {
				w.report("policy drop", end.reach, false)
			}
			if w.dropped {
				break
			}
			if w.redirected != nil && !p.redirect(*w.redirected, isLocal) {
				break
			}
			if w.redirects {
				reach = perhaps
			}
		}
	}
	return found
}

// A walk is that of one packet through one base chain.
type walk struct {
	table   table
	base    chain
	packet  probe
	found   *[]doctor.Obstacle
	accepts int  // how often it may have been accepted
	dropped bool // for certain

	redirected *destination // for certain
	redirects  bool         // nobody knows
}

// An end says how a packet leaves a chain: decided, or as far as reach tells at its end.
type end struct {
	decided bool
	reach   match
}

// maxDepth is how deep the kernel jumps (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// through follows the packet through a chain. reach says which packets of its kind get there: all (yes), those of some clients, or
// nobody knows.
func (w *walk) through(name string, reach match, depth int) end {
	i := slices.IndexFunc(w.table.chains, func(c chain) bool { return c.name == name })
	if i < 0 || depth > maxDepth {
		return end{reach: min(reach, perhaps)}
	}
	for _, r := range w.table.chains[i].rules {
		for _, o := range r.judge(w.packet) {
			if o.match == no {
				continue
			}
			here := min(reach, o.match)
			switch o.action {
			case drop:
				w.reportIn(name, r.String(), here, false)
				if o.match == yes {
					return end{decided: true}
				}
			case redirect:
				if o.match == yes && reach == yes {
					w.redirected = &o.to
				}
				w.redirects = w.redirects || here == perhaps
				if o.match == yes {
					return end{decided: true}
				}
			case untrack:
				w.reportIn(name, r.String(), here, true)
			case accept:
				w.accepts++
				if o.match == yes {
					return end{decided: true}
				}
				reach = min(reach, perhaps)
			case comeBack:
				if o.match == yes {
					return end{reach: reach}
				}
				reach = min(reach, perhaps)
			case jump, jumpForGood:
				accepts := w.accepts
				sub := w.through(o.chain, here, depth+1)
				switch {
				case o.match == yes && (sub.decided || o.action == jumpForGood):
					return sub
				case o.match == yes:
					reach = sub.reach
				case w.accepts > accepts || o.action == jumpForGood:
					reach = min(reach, perhaps)
				}
			case goOn:
			}
		}
	}
	return end{reach: reach}
}

func (w *walk) report(what string, reach match, untracks bool) {
	w.reportIn(w.base.name, what, reach, untracks)
}

func (w *walk) reportIn(chainName, what string, reach match, untracks bool) {
	// What is forwarded is let in by the interface that it leaves by, which is not known here: only what is certain counts.
	if reach < perhaps || w.packet.forwarded && reach < yes {
		return
	}
	if reach == yes && !untracks {
		w.dropped = true
	}
	same := func(o doctor.Obstacle) bool {
		return o.Table == w.table.name && o.Chain == chainName && o.Rule == what && o.Untracks == untracks
	}
	i := slices.IndexFunc(*w.found, same)
	if i < 0 {
		i = len(*w.found)
		*w.found = append(*w.found, doctor.Obstacle{
			Table: w.table.name, Chain: chainName, Rule: what, Untracks: untracks,
			Show: fmt.Sprintf(w.base.hook.showWith, chainName),
		})
	}
	o := &(*w.found)[i]
	o.Certain = o.Certain || reach == yes && !w.packet.spare
	if !slices.Contains(o.Packets, w.packet.name) {
		o.Packets = append(o.Packets, w.packet.name)
	}
}
