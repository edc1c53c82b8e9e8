package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/operator/doctor"
)

// A match is whether the conditions of a rule hold for a packet. Of several conditions the least counts.
type match int

const (
	no      match = iota
	some          // for some clients, or some of the time: block lists, rates
	perhaps       // not known
	yes
)

func is(it bool) match {
	if it {
		return yes
	}
	return no
}

// not inverts a match. All clients but some are nearly all of them, so that is not some.
func not(m match) match {
	switch m {
	case yes:
		return no
	case no:
		return yes
	default:
		return perhaps
	}
}

// An action is what a rule does with a packet.
type action int

const (
	goOn action = iota
	accept
	drop
	jump
	gotoChain
	comeBack // "return"
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
	here bool       // the node itself, at any of its addresses
	host netip.Addr // otherwise; not valid: not known
	port uint16     // 0: unchanged, or not known
}

// A rule has at most one outcome whose match is yes, and it is the last one that ends the packet's way.
type rule interface {
	judge(p packet) []outcome
	String() string
}

type chain struct {
	name  string
	rules []rule
	hook  *hook // nil: not a base chain
}

// A table is the scope in which chains can jump to each other.
type table struct {
	name   string
	chains []chain
}

// A place is where in the kernel a base chain sees packets, in the order in which a packet gets there.
type place int

const (
	nowhere place = iota // a packet to the address does not get there
	atNetdevIngress
	atIngress
	atBridge
	atPrerouting
	atInput
	atForward
)

// natChain is the type of a chain that sees the first packet of a connection, until a rule there has changed its destination.
const natChain = "nat"

// conntrackPriority is where in prerouting conntrack sees packets (NF_IP_PRI_CONNTRACK).
const conntrackPriority = -200

// A hook is where a base chain is attached.
type hook struct {
	family   byte // unix.NFPROTO_*
	place    place
	priority int32
	kind     string   // natChain, or another
	devices  []string // none: all; "eth*": those with the prefix
	drops    bool     // the policy
	showWith string   // the command that lists the chain
}

func (h hook) isBeforeConntrack() bool {
	return h.place < atPrerouting || h.place == atPrerouting && h.priority <= conntrackPriority
}

func (h hook) sees(p packet) bool {
	onDevice := func(name string) bool { return matchesName(name, "*", p.nic) }
	if len(h.devices) > 0 && !slices.ContainsFunc(h.devices, onDevice) || h.kind == natChain && p.redirected {
		return false
	}
	switch h.place {
	case nowhere:
		return false
	case atBridge:
		return p.bridged
	case atInput, atForward:
		if (h.place == atForward) != p.forwarded {
			return false
		}
	}
	switch h.family {
	case unix.NFPROTO_NETDEV:
		return true
	case unix.NFPROTO_INET:
		return !p.arp
	default:
		return p.family() == h.family
	}
}

// matchesName compares the name of an interface with a pattern, which may end with a sign for any further characters.
func matchesName(pattern, sign, name string) bool {
	stem, open := strings.CutSuffix(pattern, sign)
	return pattern == name || open && strings.HasPrefix(name, stem)
}

// obstacles sends each packet through all base chains that see it, in their order. A packet that is redirected to an address that is not
// local, such as that of a container, is forwarded.
func obstacles(tables []table, packets []packet, isLocal func(netip.Addr) bool) []doctor.Obstacle {
	var found []doctor.Obstacle
	var walks []walk
	for _, t := range tables {
		for _, c := range t.chains {
			if c.hook != nil {
				walks = append(walks, walk{table: t, base: c, found: &found})
			}
		}
	}
	slices.SortStableFunc(walks, func(a, b walk) int {
		return cmp.Or(cmp.Compare(a.base.hook.place, b.base.hook.place), cmp.Compare(a.base.hook.priority, b.base.hook.priority))
	})
	for _, p := range packets {
		reach := yes
		for _, w := range walks {
			if !w.base.hook.sees(p) {
				continue
			}
			w.packet = p
			if left := w.through(w.base.name, reach, 0); left != no && w.base.hook.drops {
				w.report(w.base.name, "policy drop", left, false)
			}
			if w.dropped {
				break
			}
			if w.redirected != nil && !p.redirect(*w.redirected, isLocal) || w.mayRedirect {
				reach = perhaps
			}
		}
	}
	return found
}

// A walk is the way of a packet through a base chain.
type walk struct {
	table       table
	base        chain
	packet      packet
	found       *[]doctor.Obstacle
	accepts     int          // how many rules may have accepted it
	dropped     bool         // for certain
	redirected  *destination // for certain
	mayRedirect bool
}

// maxDepth is how deep the kernel jumps (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// through follows the packet through a chain. reach is which packets of its kind get there: all (yes), those of some clients, or perhaps
// any. It returns which of them get to the end of the chain.
func (w *walk) through(name string, reach match, depth int) match {
	i := slices.IndexFunc(w.table.chains, func(c chain) bool { return c.name == name })
	if i < 0 || depth > maxDepth {
		return min(reach, perhaps)
	}
	for _, r := range w.table.chains[i].rules {
		for _, o := range r.judge(w.packet) {
			if o.match == no {
				continue
			}
			here := min(reach, o.match)
			switch o.action {
			case goOn:
				continue
			case untrack:
				w.report(name, r.String(), here, true)
				continue
			case jump, gotoChain:
				accepts := w.accepts
				if !slices.ContainsFunc(w.table.chains, func(c chain) bool { return c.name == o.chain }) { // an unknown target of iptables
					w.report(name, r.String(), min(here, perhaps), false)
				}
				left := w.through(o.chain, here, depth+1)
				switch {
				case o.match == yes && (left == no || o.action == gotoChain):
					return left
				case o.match == yes:
					reach = left
				case w.accepts > accepts || o.action == gotoChain:
					reach = min(reach, perhaps)
				}
				continue
			case drop:
				w.report(name, r.String(), here, false)
			case redirect:
				if here == yes {
					w.redirected = &o.to
				}
				w.mayRedirect = w.mayRedirect || here == perhaps
			case accept:
				w.accepts++
			}
			switch {
			case o.match == yes && o.action == comeBack:
				return reach
			case o.match == yes:
				return no
			case o.action == accept || o.action == comeBack:
				reach = min(reach, perhaps)
			}
		}
	}
	return reach
}

func (w *walk) report(chainName, what string, reach match, untracks bool) {
	// Which interface a forwarded packet leaves by is not known here, so a rule that may drop it is likely one for another way.
	if reach < perhaps || w.packet.forwarded && reach < yes {
		return
	}
	w.dropped = w.dropped || reach == yes && !untracks
	i := slices.IndexFunc(*w.found, func(o doctor.Obstacle) bool {
		return o.Table == w.table.name && o.Chain == chainName && o.Rule == what && o.Untracks == untracks
	})
	if i < 0 {
		i = len(*w.found)
		*w.found = append(*w.found, doctor.Obstacle{
			Table: w.table.name, Chain: chainName, Rule: what, Untracks: untracks,
			Show: fmt.Sprintf(w.base.hook.showWith, chainName),
		})
	}
	o := &(*w.found)[i]
	o.Certain = o.Certain || reach == yes && !w.packet.unasked
	if !slices.Contains(o.Packets, w.packet.name) {
		o.Packets = append(o.Packets, w.packet.name)
	}
}
