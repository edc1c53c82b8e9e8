package nftables

import (
	"slices"
	"strings"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// movesPriority is behind conntrack, which must have seen the packet, and by convention before everything that admins do to packets.
const movesPriority = -190

// What begins a connection: a SYN without the flags of any other segment, an INIT chunk (which comes alone).
const (
	tcpFinSynRstAck = 0x17
	tcpSyn          = 0x02
	sctpInit        = 1
)

// connectionProtocols have connections that conntrack tracks, and a packet that begins one.
var connectionProtocols = []struct {
	number byte
	title  string
	begins []expr.Any
}{
	{unix.IPPROTO_TCP, "TCP", []expr.Any{
		tcpFlags.loadTo(register0), mask(register0, []byte{tcpFinSynRstAck}), compare(expr.CmpOpEq, tcpSyn),
	}},
	{unix.IPPROTO_SCTP, "SCTP", sctpChunkType.is(sctpInit)},
}

// withoutConnections matches all other protocols.
func withoutConnections() []expr.Any {
	var others []expr.Any
	for _, p := range connectionProtocols {
		others = append(others, meta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, p.number)...)
	}
	return others
}

// moveSets hold the buckets that move.
func moveSets() []set {
	return []set{
		{name: setDraining, keyLength: keyLength, flags: unix.NFT_SET_TIMEOUT},
		{name: setAdopting, keyLength: keyLength, flags: unix.NFT_SET_TIMEOUT},
		{name: setHandedOver, keyLength: keyLength},
	}
}

// A mark is how ingress shows moveChains that a packet's bucket moves: by packet type and destination MAC. The kernel drops only other
// hosts' packets before conntrack (ip_rcv_core), and no transport protocol accepts a packet that is not the node's own.
type mark struct {
	kind byte
	mac  clusterip.MAC
}

// marks returns the marks of draining and adopted buckets. On a bridge, prerouting may be over before ingress sees a packet (moveChains),
// and no later hook can make the packet the node's own. So it is the node's own from ingress on, and the marks are MACs to which no frame
// is sent. Nor may a mark there look like a frame to a group, because prerouting also sees frames that ingress does not, for virtual
// machines too.
func (f family) marks(layout clusterip.Layout) (draining, adopting mark) {
	if layout.Bridged {
		return mark{unix.PACKET_HOST, clusterip.MAC{}}, mark{unix.PACKET_HOST, clusterip.MAC{macLength - 1: 1}}
	}
	mac := of(f, layout.MACs)
	return mark{unix.PACKET_BROADCAST, mac}, mark{unix.PACKET_MULTICAST, mac}
}

// put marks a packet to the shared MAC.
func (f family) put(layout clusterip.Layout, m mark) []expr.Any {
	var exprs []expr.Any
	if m.mac != of(f, layout.MACs) {
		exprs = etherDestination.set(m.mac[:]...)
	}
	if m.kind == unix.PACKET_HOST { // it is the node's own already
		return exprs
	}
	return append(exprs, setPacketType(m.kind)...)
}

// lingeringMark is the mark of buckets that linger: no frame is ever sent to its MAC.
func (f family) lingeringMark(layout clusterip.Layout) mark {
	draining, _ := f.marks(layout)
	return mark{draining.kind, clusterip.MAC{macLength - 1: 2}}
}

// moveChains decide about marked packets, behind conntrack. Of a draining bucket, only packets of a connection of this node pass: all
// others are the new owner's. Of an adopted bucket, packets that conntrack does not know and that begin no connection are the old owner's:
// the kernel would answer them with a reset.
func moveChains(f family, layout clusterip.Layout) []chain {
	if !layout.Drains {
		return nil
	}
	accept := verdict(expr.VerdictAccept)
	if !layout.Bridged {
		accept = append(setPacketType(unix.PACKET_HOST), accept...)
	}
	known := newRule("connections of this node", state(expr.CtStateBitESTABLISHED), accept)
	draining := chain{name: chainDraining}
	adopting := chain{name: chainAdopting, rules: []rule{newRule("invalid", state(expr.CtStateBitINVALID), countAndDrop()), known}}
	for _, p := range connectionProtocols {
		draining.rules = append(draining.rules,
			newRule("new "+p.title+" connections are the new owner's", ipProtocolIs(p.number), p.begins, countAndDrop()))
		adopting.rules = append(adopting.rules, newRule("new "+p.title+" connections", ipProtocolIs(p.number), p.begins, accept))
	}
	draining.rules = append(draining.rules, known, newRule("everything else is the new owner's", countAndDrop()))
	adopting.rules = append(adopting.rules, newRule("connections of the old owner", countAndDrop()))
	moves := chain{name: chainMoves, base: filterBase(nft.ChainHookPrerouting, movesPriority), rules: f.moveRules(layout)}
	chains := []chain{moves, draining, adopting}
	if !layout.Lingers.IsZero() {
		chains = append(chains, lingeringChain(f, accept))
	}
	if layout.Bridged {
		// A bridge that calls iptables runs prerouting for packets at its ports, and not again when they arrive on the bridge itself
		// (ip_sabotage_in in net/bridge/br_netfilter_hooks.c).
		chains = append(chains, chain{name: chainDelivered, base: filterBase(nft.ChainHookInput, movesPriority), rules: moves.rules})
	}
	return chains
}

// moveRules send marked packets to the chains that decide about them.
func (f family) moveRules(layout clusterip.Layout) []rule {
	var rules []rule
	drainingMark, adoptingMark := f.marks(layout)
	for _, address := range f.addresses(layout) {
		has := func(m mark) []expr.Any {
			return slices.Concat(isInterface(expr.MetaKeyIIF, layout.NICIndex), f.to(address), toMAC(m.mac), packetTypeIs(m.kind))
		}
		if !layout.Lingers.IsZero() {
			rules = append(rules, newRule("lingering buckets", has(f.lingeringMark(layout)), goTo(chainLingering)))
		}
		rules = append(rules, newRule("draining buckets", has(drainingMark), goTo(chainDraining)))
		for _, p := range connectionProtocols { // ICMP errors have the same mark
			rules = append(rules, newRule(p.title+" of adopted buckets", has(adoptingMark), ipProtocolIs(p.number), goTo(chainAdopting)))
		}
	}
	return rules
}

// movesIn reads the moves from their sets.
func movesIn(tables []table) clusterip.Moves {
	var moves clusterip.Moves
	for _, t := range tables {
		for _, e := range t.ours(setDraining) {
			moves.Draining = append(moves.Draining, clusterip.Drain{Bucket: clusterip.Bucket(e.key), Left: e.left})
		}
		adopting, _ := t.set(setAdopting)
		for _, e := range inOrder(adopting.elements) {
			if from, ours := strings.CutPrefix(e.comment, adoptedFrom); ours {
				moves.Adopting = append(moves.Adopting,
					clusterip.Adoption{Bucket: clusterip.Bucket(e.key), Left: e.left, From: strings.Split(from, ",")})
			}
		}
		for _, e := range t.ours(setHandedOver) {
			moves.Announced = append(moves.Announced, clusterip.Bucket(e.key))
		}
	}
	return moves
}

// adoptedFrom begins the comment of an adopted bucket. The names of the old owners follow.
const adoptedFrom = "from "

// age is how long ago the times of the moves were observed.
func (c *Conn) age() time.Duration {
	if c.observed.IsZero() {
		return 0
	}
	return time.Since(c.observed)
}

// moveElements returns what the sets hold, by name, when moves continue that were observed that long ago. Drains are shortened by this age:
// else each change would prolong them a little, until they outlast the adoptions of the new owners, and two nodes answer a client.
// Adoptions may last longer. A new drain, too, begins when the node was observed, not when its announcement was published.
func moveElements(resource string, moves clusterip.Moves, age time.Duration) map[string][]element {
	elements := map[string][]element{}
	put := func(name string, bucket clusterip.Bucket, comment string, left time.Duration) {
		elements[name] = append(elements[name], element{key: uint32(bucket), comment: comment, left: left})
	}
	for _, d := range moves.Draining {
		put(setDraining, d.Bucket, commentOf(resource, d.Bucket), max(d.Left-age, time.Millisecond)) // without a time it would never end
	}
	for _, a := range moves.Adopting {
		put(setAdopting, a.Bucket, adoptedFrom+strings.Join(a.From, ","), max(a.Left, time.Millisecond))
	}
	for _, bucket := range moves.Announced {
		put(setHandedOver, bucket, commentOf(resource, bucket), 0)
	}
	return elements
}

// changeBuckets changes the owned buckets, and replaces all elements of the move sets, because an element that is to be deleted may end at
// any moment.
func (c *Conn) changeBuckets(step clusterip.ChangeBuckets) error {
	t := netdevTable(step.Address)
	if len(step.Release) > 0 {
		if err := c.nft.SetDeleteElements(ownedSet(t), elementsOf("", step.Release)); err != nil {
			return err
		}
	}
	if err := c.addElements(ownedSet(t), elementsOf(step.Resource, step.Own)); err != nil {
		return err
	}
	if step.Takeovers {
		if err := c.changeTakeovers(step); err != nil {
			return err
		}
	}
	if step.Moves == nil {
		return nil
	}
	elements := moveElements(step.Resource, *step.Moves, c.age())
	for _, s := range moveSets() {
		s.elements = elements[s.name]
		if err := c.refill(t, s); err != nil {
			return err
		}
	}
	return nil
}

// refill replaces all elements of a set.
func (c *Conn) refill(t *nft.Table, s set) error {
	c.nft.FlushSet(setOf(t, s))
	return c.addElements(setOf(t, s), s.converted(s.elements))
}
