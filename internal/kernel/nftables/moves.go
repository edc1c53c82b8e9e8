package nftables

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// A mark is how ingress says what conntrack shall be asked about: what kind of packet it seems to be, and to which MAC. The kernel drops only other
// hosts' packets before that (ip_rcv_core), and no transport protocol takes one that is not the host's own.
type mark struct {
	kind byte
	mac  clusterip.MAC
}

// marks are those of the two kinds of moves. Where packets come in by a bridge, prerouting may be over when ingress sees them (moveChains), and no
// later hook can make a packet the host's own: there it must be so from the beginning, and MACs that no frame is sent to make the difference. Nor must
// a mark be like what a frame to a group is by nature, because prerouting then also sees frames that ingress has not, for virtual machines too.
func (f family) marks(layout clusterip.Layout) (draining, adopting mark) {
	if layout.Bridged {
		return mark{unix.PACKET_HOST, clusterip.MAC{}}, mark{unix.PACKET_HOST, clusterip.MAC{macLength - 1: 1}}
	}
	return mark{unix.PACKET_BROADCAST, f.mac(layout)}, mark{unix.PACKET_MULTICAST, f.mac(layout)}
}

// put marks a packet to the cluster MAC.
func (f family) put(layout clusterip.Layout, m mark) []expr.Any {
	if m.mac == f.mac(layout) {
		return pkttype(m.kind)
	}
	return []expr.Any{ // it is the host's own already
		&expr.Immediate{Register: register0, Data: m.mac[:]},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: register0,
			Base: expr.PayloadBaseLLHeader, Offset: etherDestination, Len: macLength,
		},
	}
}

// connectionProtocols have connections that conntrack knows, and a packet that begins one.
var connectionProtocols = []struct {
	number byte
	title  string
	begins []expr.Any
}{
	{unix.IPPROTO_TCP, "TCP", join(loadTransport(tcpFlags, 1), []expr.Any{
		&expr.Bitwise{SourceRegister: register0, DestRegister: register0, Len: 1, Mask: []byte{tcpFinSynRstAck}, Xor: []byte{0}},
	}, equal(tcpSyn))},
	{unix.IPPROTO_SCTP, "SCTP", join(loadTransport(sctpChunkType, 1), equal(sctpInit))},
}

// moveSets hold the buckets that are on their way.
func moveSets() []set {
	return []set{
		{name: setDraining, keyLength: keyLength, flags: unix.NFT_SET_TIMEOUT},
		{name: setAdopting, keyLength: keyLength, flags: unix.NFT_SET_TIMEOUT},
		{name: setHandedOver, keyLength: keyLength},
	}
}

// moveChains decide, behind conntrack, about the marked packets. Of a draining bucket only what belongs to a connection goes on: all else
// is the new owner's. Of an adopted one what conntrack does not know, and what begins no connection, is the former owner's: the
// kernel would answer it with a reset.
func moveChains(f family, layout clusterip.Layout) []chain {
	if !layout.Drains {
		return nil
	}
	const (
		invalid     = expr.CtStateBitINVALID
		established = expr.CtStateBitESTABLISHED
	)
	accept := verdict(expr.VerdictAccept)
	if !layout.Bridged {
		accept = join(pkttype(unix.PACKET_HOST), accept)
	}
	drop := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	moves := chain{name: chainMoves, base: movesBase(nft.ChainHookPrerouting)}
	known := rule{comment: "connections that are known here", exprs: join(state(established), accept)}
	draining := chain{name: chainDraining}
	adopting := chain{name: chainAdopting, rules: []rule{{comment: "invalid", exprs: join(state(invalid), drop)}, known}}
	for _, p := range connectionProtocols {
		draining.rules = append(draining.rules, rule{
			comment: "new " + p.title + " connections are the new owner's", exprs: join(ipProtocolIs(p.number), p.begins, drop),
		})
		adopting.rules = append(adopting.rules, rule{
			comment: "new " + p.title + " connections", exprs: join(ipProtocolIs(p.number), p.begins, accept),
		})
	}
	draining.rules = append(draining.rules, known, rule{comment: "all else is the new owner's", exprs: drop})
	adopting.rules = append(adopting.rules, rule{comment: "connections of the former owner", exprs: drop})
	for _, address := range layout.Addresses() {
		if !f.is(address) {
			continue
		}
		marked := func(m mark) []expr.Any {
			return join(isNIC(expr.MetaKeyIIF, layout), f.toAddress(address), toMAC(m.mac), pkttypeIs(m.kind))
		}
		drainingMark, adoptingMark := f.marks(layout)
		moves.rules = append(moves.rules, rule{comment: "draining buckets", exprs: join(marked(drainingMark), goTo(chainDraining))})
		for _, p := range connectionProtocols { // ICMP errors bear the same mark
			moves.rules = append(moves.rules, rule{
				comment: p.title + " of adopted buckets", exprs: join(marked(adoptingMark), ipProtocolIs(p.number), goTo(chainAdopting)),
			})
		}
	}
	chains := []chain{moves, draining, adopting}
	if layout.Bridged {
		// A bridge that calls iptables has prerouting see packets at its ports, and not again when they come in by the bridge (ip_sabotage_in in
		// net/bridge/br_netfilter_hooks.c).
		chains = append(chains, chain{name: chainDelivered, base: movesBase(nft.ChainHookInput), rules: moves.rules})
	}
	return chains
}

func movesBase(hook *nft.ChainHook) *base {
	return &base{kind: nft.ChainTypeFilter, hook: *hook, priority: movesPriority, policy: nft.ChainPolicyAccept}
}

// state matches a packet of which conntrack says one of these.
func state(bits uint32) []expr.Any {
	const length = 4
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register0},
		&expr.Bitwise{
			SourceRegister: register0, DestRegister: register0, Len: length,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, length),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: make([]byte, length)},
	}
}

// movesIn reads the moves from their sets.
func movesIn(tables []table) clusterip.Moves {
	var moves clusterip.Moves
	for _, t := range tables {
		draining, _ := t.set(setDraining)
		for _, e := range inOrder(draining.elements) {
			if e.isOurs() {
				moves.Draining = append(moves.Draining, clusterip.Drain{Bucket: clusterip.Bucket(e.key), Left: e.left})
			}
		}
		adopting, _ := t.set(setAdopting)
		for _, e := range inOrder(adopting.elements) {
			if from, ours := strings.CutPrefix(e.comment, adoptedFrom); ours {
				moves.Adopting = append(moves.Adopting, clusterip.Adoption{
					Bucket: clusterip.Bucket(e.key), Left: e.left, From: strings.Split(from, ","),
				})
			}
		}
		handedOver, _ := t.set(setHandedOver)
		for _, e := range inOrder(handedOver.elements) {
			if e.isOurs() {
				moves.HandedOver = append(moves.HandedOver, clusterip.Bucket(e.key))
			}
		}
	}
	return moves
}

// adoptedFrom begins the comment of an adopted bucket; the names of nodes follow.
const adoptedFrom = "from "

// age is how long ago the times of moves were observed.
func (c *Conn) age() time.Duration {
	if c.observed.IsZero() {
		return 0
	}
	return time.Since(c.observed)
}

// moveElements are what the sets hold, by name, when these moves, of that age, go on. Drains grow older meanwhile: else each change would
// prolong them a little, until they outlast the adoptions of the new owners, and two nodes answer a client. Adoptions may last longer.
// A new drain, too, begins when the node was observed, not when the others have been told of it.
func moveElements(resource string, moves clusterip.Moves, age time.Duration) map[string][]element {
	elements := map[string][]element{setDraining: nil, setAdopting: nil, setHandedOver: nil}
	put := func(name string, bucket clusterip.Bucket, comment string, left time.Duration) {
		elements[name] = append(elements[name], element{key: uint32(bucket), comment: comment, left: left})
	}
	for _, d := range moves.Draining {
		put(setDraining, d.Bucket, commentOf(resource, d.Bucket), max(d.Left-age, time.Millisecond)) // without a time it would last for ever
	}
	for _, a := range moves.Adopting {
		put(setAdopting, a.Bucket, adoptedFrom+strings.Join(a.From, ","), max(a.Left, time.Millisecond))
	}
	for _, bucket := range moves.HandedOver {
		put(setHandedOver, bucket, commentOf(resource, bucket), 0)
	}
	return elements
}

// move changes what is owned and replaces what the sets of moves hold. An element may end at any moment, so that it cannot be deleted
// alone.
func (c *Conn) move(step clusterip.Move) error {
	t := tableOf(nft.TableFamilyNetdev, step.Address)
	if len(step.Disown) > 0 {
		if err := c.nft.SetDeleteElements(ownedSet(t), elementsOf("", step.Disown)); err != nil {
			return err
		}
	}
	if len(step.Own) > 0 {
		if err := c.addElements(ownedSet(t), elementsOf(step.Resource, step.Own)); err != nil {
			return err
		}
	}
	elements := moveElements(step.Resource, step.Moves, c.age())
	for _, s := range moveSets() {
		s.elements = elements[s.name]
		if err := c.refill(t, s); err != nil {
			return err
		}
	}
	return nil
}

// refill makes a set hold its elements and no other.
func (c *Conn) refill(t *nft.Table, s set) error {
	c.nft.FlushSet(setOf(t, s))
	return c.addElements(setOf(t, s), s.converted(s.elements))
}

// isMoveSet tells whether a set of that name holds moves.
func isMoveSet(name string) bool {
	return slices.ContainsFunc(moveSets(), func(s set) bool { return s.name == name })
}
