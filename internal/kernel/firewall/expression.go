package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// nftRule is a rule of nf_tables.
type nftRule struct {
	family      byte
	handle      uint64
	early       bool // its chain is before conntrack
	expressions []expression
	sets        map[string]*set // of its table
}

// expression is one of a rule: decoded, if it is of a kind that can be judged, or only its name.
type expression struct {
	name    string
	decoded expr.Any
}

// String says which rule it is, as `nft -a list` numbers it.
func (r nftRule) String() string {
	return fmt.Sprintf("rule with handle %d", r.handle)
}

// The registers: four of 16 bytes, and the same again as sixteen of 4 bytes (enum nft_registers in
// include/uapi/linux/netfilter/nf_tables.h).
const (
	registerBytes  = 64
	wideRegister   = 16
	narrowRegister = 4
	firstNarrow    = 8 // NFT_REG32_00
)

func offsetOf(register uint32) int {
	if register >= firstNarrow {
		return int(register-firstNarrow) * narrowRegister
	}
	return int(register-1) * wideRegister
}

// registers hold the values that a rule works on.
type registers struct {
	all    value
	client [registerBytes]bool
}

func (r *registers) load(register uint32, v value) {
	offset := offsetOf(register)
	if register == 0 || offset < 0 || offset+len(v.bytes) > registerBytes {
		return
	}
	// The kernel fills the last word with zeros.
	for len(v.bytes)%narrowRegister != 0 {
		v.bytes, v.known = append(v.bytes, 0), append(v.known, 0xff)
	}
	copy(r.all.bytes[offset:], v.bytes)
	copy(r.all.known[offset:], v.known)
	for i := range v.bytes {
		if offset+i < registerBytes {
			r.client[offset+i] = v.client
		}
	}
}

// forget is for an expression of which nobody knows what it writes.
func (r *registers) forget() { *r = registers{all: unknown(registerBytes)} }

// known is what is in a register, if all of it is known; nothing of register 0, which stands for none.
func (r *registers) known(register uint32, length int) []byte {
	if v := r.value(register, length); v.isKnown() {
		return v.bytes
	}
	return nil
}

// port is the one in a register; 0 if it is not known.
func (r *registers) port(register uint32) uint16 {
	const length = 2
	if port := r.known(register, length); port != nil {
		return binary.BigEndian.Uint16(port)
	}
	return 0
}

func (r *registers) value(register uint32, length int) value {
	offset := offsetOf(register)
	v := unknown(length)
	if register == 0 || offset < 0 || offset+length > registerBytes {
		return v
	}
	copy(v.bytes, r.all.bytes[offset:])
	copy(v.known, r.all.known[offset:])
	for i := range length {
		v.client = v.client || v.known[i] != 0xff && r.client[offset+i]
	}
	return v
}

// equals tells whether a value is the given one. What depends on who the client is, is so for some.
func (v value) equals(data []byte) match {
	for i := range min(len(v.bytes), len(data)) {
		if (v.bytes[i]^data[i])&v.known[i] != 0 {
			return no
		}
	}
	switch {
	case len(data) <= len(v.bytes) && part(v, 0, len(data)).isKnown():
		return yes
	case v.client:
		return some
	default:
		return perhaps
	}
}

// judge implements rule: it works through the expressions as nft_do_chain does.
func (r nftRule) judge(p probe) []outcome {
	if len(r.expressions) == 0 {
		return nil
	}
	registers := registers{all: unknown(registerBytes)}
	so, outcomes := yes, []outcome(nil)
	for _, e := range r.expressions {
		switch decoded := e.decoded.(type) {
		case *expr.Verdict:
			if strings.HasPrefix(decoded.Chain, ours) { // of iptables-nft, with the match cluster
				return outcomes
			}
			return append(outcomes, verdictOf(decoded, so)...)
		case *expr.Lookup:
			set := r.sets[decoded.SetName]
			if set != nil && set.verdicts && decoded.IsDestRegSet {
				return append(outcomes, set.verdictsOf(registers.value(decoded.SourceRegister, set.keyLength), so)...)
			}
			so = min(so, set.lookup(&registers, decoded))
		case *expr.Notrack:
			outcomes = append(outcomes, outcome{match: so, action: untrack})
		case *expr.Target:
			return append(outcomes, targetOf(decoded, so)...)
		case *expr.Reject:
			return append(outcomes, outcome{match: so, action: drop})
		case *expr.NAT:
			if decoded.Type != expr.NATTypeDestNAT {
				return append(outcomes, outcome{match: so, action: accept})
			}
			host, _ := netip.AddrFromSlice(registers.known(decoded.RegAddrMin, len(p.to.AsSlice())))
			to := destination{here: decoded.RegAddrMin == 0, host: host, port: registers.port(decoded.RegProtoMin)}
			return append(outcomes, outcome{match: so, action: redirect, to: to})
		case *expr.Redir:
			return append(outcomes, outcome{match: so, action: redirect, to: destination{here: true, port: registers.port(decoded.RegisterProtoMin)}})
		default:
			so = min(so, r.condition(&registers, p, decoded))
		}
		switch e.name {
		case "fwd": // to another NIC
			return append(outcomes, outcome{match: so, action: drop})
		case "masq", "queue", "synproxy":
			return append(outcomes, outcome{match: so, action: accept})
		}
		if e.decoded == nil {
			so = min(so, conditionOf(e.name))
			registers.forget()
			if e.name == "numgen" { // a number that some get
				for i := range registers.client {
					registers.client[i] = true
				}
			}
		}
		if so == no {
			return outcomes
		}
	}
	return outcomes
}

// conditionOf is that of an expression of which the name alone is known.
func conditionOf(name string) match {
	switch name {
	case "counter", "log", "last", "objref", "dup", "flow_offload":
		return yes // does something, and goes on
	case "byteorder", "hash", "numgen":
		return yes // what it makes is not known
	case "limit", "connlimit", "quota", "dynset":
		return some
	default:
		return perhaps
	}
}

// condition carries out an expression that is no verdict, and tells whether the rule goes on behind it.
func (r nftRule) condition(registers *registers, p probe, e expr.Any) match {
	switch e := e.(type) {
	case nil:
	case *expr.Immediate:
		registers.load(e.Register, exactly(e.Data...))
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			registers.load(e.DestRegister, p.payload(e))
		}
	case *expr.Meta:
		if !e.SourceRegister {
			v := p.meta(e.Key)
			switch isIIF := e.Key == expr.MetaKeyIIF || e.Key == expr.MetaKeyIIFNAME; {
			case e.Key == expr.MetaKeyPKTTYPE && (r.family == unix.NFPROTO_NETDEV || r.family == unix.NFPROTO_BRIDGE):
				v = unknown(len(v.bytes)) // before or behind our rules
			case isIIF && r.family == unix.NFPROTO_BRIDGE: // the port at which the client is
				v = unknown(len(v.bytes))
				v.client = true
			}
			registers.load(e.Register, v)
		}
	case *expr.Ct:
		if !e.SourceRegister {
			registers.load(e.Register, r.ct(p, e))
		}
	case *expr.Fib:
		registers.load(e.Register, p.fib(e))
	case *expr.Bitwise:
		registers.load(e.DestRegister, bitwise(registers.value(e.SourceRegister, int(e.Len)), e))
	case *expr.Cmp:
		return compare(registers.value(e.Register, len(e.Data)), e)
	case *expr.Range:
		v := registers.value(e.Register, len(e.FromData))
		inside := perhaps
		switch {
		case v.isKnown() && bytes.Compare(v.bytes, e.FromData) >= 0 && bytes.Compare(v.bytes, e.ToData) <= 0:
			inside = yes
		case v.isKnown():
			inside = no
		case v.client:
			inside = some
		}
		if e.Op == expr.CmpOpNeq {
			return not(inside)
		}
		return inside
	case *expr.Match:
		return p.xtMatch(e)
	}
	return yes
}

func compare(v value, e *expr.Cmp) match {
	switch e.Op {
	case expr.CmpOpEq:
		return v.equals(e.Data)
	case expr.CmpOpNeq:
		return not(v.equals(e.Data))
	}
	switch {
	case v.isKnown():
	case v.client:
		return share(e)
	default:
		return perhaps
	}
	order := bytes.Compare(v.bytes, e.Data)
	holds := map[expr.CmpOp]bool{
		expr.CmpOpLt: order < 0, expr.CmpOpLte: order <= 0, expr.CmpOpGt: order > 0, expr.CmpOpGte: order >= 0,
	}
	if holds[e.Op] {
		return yes
	}
	return no
}

// share tells whether a comparison holds for some clients, or for most of the values that a client may send: those are not some.
func share(e *expr.Cmp) match {
	const middle = 0x80 // of the first byte
	upwards := e.Op == expr.CmpOpGt || e.Op == expr.CmpOpGte
	if len(e.Data) > 0 && (upwards && e.Data[0] > middle || !upwards && e.Data[0] < middle) {
		return some
	}
	return perhaps
}

func (p *probe) payload(e *expr.Payload) value {
	offset, length := int(e.Offset), int(e.Len)
	if length > registerBytes {
		return unknown(0)
	}
	switch e.Base {
	case expr.PayloadBaseLLHeader:
		return part(p.link, offset, length)
	case expr.PayloadBaseNetworkHeader:
		return part(p.network, offset, length)
	case expr.PayloadBaseTransportHeader:
		return p.transportPart(offset, length)
	default:
		return unknown(length)
	}
}

func (p *probe) meta(key expr.MetaKey) value {
	const nameLength, ethernet = 16, 1
	host := func(v uint32) value { return exactly(binary.NativeEndian.AppendUint32(nil, v)...) }
	switch key {
	case expr.MetaKeyPROTOCOL:
		return exactly(binary.BigEndian.AppendUint16(nil, p.etherType())...)
	case expr.MetaKeyNFPROTO:
		return exactly(p.family())
	case expr.MetaKeyPKTTYPE:
		return value{bytes: slices.Clone(p.pktType.bytes), known: slices.Clone(p.pktType.known)}
	case expr.MetaKeyL4PROTO:
		return exactly(p.protocol)
	case expr.MetaKeyIIF:
		return host(uint32(p.nicIndex))
	case expr.MetaKeyIIFNAME:
		name := unknown(nameLength)
		name.set(0, make([]byte, nameLength)...)
		copy(name.bytes, p.nic)
		return name
	case expr.MetaKeyIIFTYPE:
		return exactly(binary.NativeEndian.AppendUint16(nil, ethernet)...)
	default:
		return unknown(nameLength) // of which a name takes all
	}
}

func (p *probe) family() byte {
	switch {
	case p.arp:
		return unix.NFPROTO_ARP
	case p.to.Is4():
		return unix.NFPROTO_IPV4
	default:
		return unix.NFPROTO_IPV6
	}
}

// ct is what conntrack says of a client's first packet.
func (r nftRule) ct(p probe, e *expr.Ct) value {
	switch {
	case r.early:
		return unknown(narrowRegister)
	case e.Key == expr.CtKeySTATUS:
		const redirected = 1 << 5 // IPS_DST_NAT
		v := unknown(narrowRegister)
		binary.NativeEndian.PutUint32(v.known, redirected)
		if p.redirected {
			copy(v.bytes, v.known)
		}
		return v
	case e.Key == expr.CtKeySTATE:
		return exactly(binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)...)
	case e.Key == expr.CtKeyDIRECTION:
		return exactly(0)
	default:
		return unknown(narrowRegister)
	}
}

// fib is what the routes say. The address is our own; where the client is, depends on him.
func (p *probe) fib(e *expr.Fib) value {
	if e.FlagDADDR && e.ResultADDRTYPE && !p.forwarded {
		return exactly(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)...)
	}
	v := unknown(narrowRegister)
	v.client = e.FlagSADDR
	return v
}

func bitwise(v value, e *expr.Bitwise) value {
	if len(e.Mask) != len(v.bytes) || len(e.Xor) != len(v.bytes) { // a shift, or what the kernel will know later
		return unknown(len(v.bytes))
	}
	for i := range v.bytes {
		v.bytes[i] = v.bytes[i]&e.Mask[i] ^ e.Xor[i]
		v.known[i] |= ^e.Mask[i]
	}
	return v
}

func verdictOf(e *expr.Verdict, so match) []outcome {
	actions := map[expr.VerdictKind]action{
		expr.VerdictAccept: accept, expr.VerdictDrop: drop, expr.VerdictReturn: comeBack, expr.VerdictJump: jump, expr.VerdictGoto: jumpForGood,
		expr.VerdictQueue: accept, expr.VerdictStolen: drop,
	}
	return []outcome{{match: so, action: actions[e.Kind], chain: e.Chain}}
}

// targetOf is what a target of iptables does, for which nf_tables has no expression.
func targetOf(e *expr.Target, so match) []outcome {
	switch e.Name {
	case "REJECT", "DROP", "TARPIT":
		return []outcome{{match: so, action: drop}}
	case "NOTRACK":
		return []outcome{{match: so, action: untrack}}
	case "ACCEPT", "NFQUEUE", "TPROXY":
		return []outcome{{match: so, action: accept}}
	case "DNAT", "REDIRECT":
		return []outcome{{match: so, action: redirect, to: destinationOf(e)}}
	case "CT": // may be notrack
		const notrack = 1 // XT_CT_NOTRACK, first of struct xt_ct_target_info
		if info, ok := e.Info.(*xt.Unknown); ok && len(*info) > 1 && binary.NativeEndian.Uint16(*info)&notrack == 0 {
			return nil
		}
		return []outcome{{match: so, action: untrack}}
	default: // LOG, MARK and the like let everything on
		return nil
	}
}

// destinationOf is where a target of iptables sends packets. One that is written in an unknown way leaves it open.
func destinationOf(e *expr.Target) destination {
	to := destination{here: e.Name == "REDIRECT"}
	read := func(r xt.NatRange) {
		if host, ok := netip.AddrFromSlice(r.MinIP); ok && !to.here {
			to.host = host.Unmap()
		}
		if r.Flags&uint(xt.NatRangeProtoSpecified) != 0 && r.MinPort == r.MaxPort {
			to.port = r.MinPort
		}
	}
	switch info := e.Info.(type) {
	case *xt.NatRange:
		read(*info)
	case *xt.NatRange2:
		read(info.NatRange)
	case *xt.NatIPv4MultiRangeCompat:
		for _, r := range *info {
			read(xt.NatRange(r))
		}
	}
	return to
}

// xtMatch judges a match of iptables, for which nf_tables has no expression.
func (p *probe) xtMatch(e *expr.Match) match {
	switch info := e.Info.(type) {
	case *xt.Comment:
		return yes
	case *xt.Tcp:
		if p.protocol != unix.IPPROTO_TCP {
			return no
		}
		ports := p.asksFor(info.DstPorts, info.InvFlags&xt.TcpInvDestPorts != 0)
		flags := syn&info.FlagsMask == info.FlagsCmp
		if info.FlagsMask != 0 && flags == (info.InvFlags&xt.TcpInvFlags != 0) {
			return no
		}
		return min(ports, anySource(info.SrcPorts), unless(info.Option != 0))
	case *xt.Udp:
		if p.protocol != unix.IPPROTO_UDP {
			return no
		}
		return min(p.asksFor(info.DstPorts, info.InvFlags&xt.UdpInvDestPorts != 0), anySource(info.SrcPorts))
	case *xt.ConntrackMtinfo3:
		return p.stateMatch(info.MatchFlags, info.InvertFlags, uint32(info.StateMask))
	case *xt.AddrTypeV1:
		const invertDest, others = 1 << 1, 1<<0 | 1<<2 | 1<<3 // XT_ADDRTYPE_*
		if info.Source != 0 || info.Flags&others != 0 || p.forwarded {
			return perhaps
		}
		if (info.Dest&(1<<unix.RTN_LOCAL) != 0) == (info.Flags&invertDest != 0) {
			return no
		}
		return yes
	}
	switch e.Name {
	case "limit", "hashlimit", "recent", "connlimit", "statistic", "geoip", "mac", "iprange", "quota", "time":
		return some
	default:
		return perhaps
	}
}

// stateMatch judges -m conntrack --ctstate, whose bits are nf_tables' (XT_CONNTRACK_STATE_BIT). Other conditions of that match are left
// open.
func (p *probe) stateMatch(matched, inverted uint16, states uint32) match {
	const state = uint16(xt.ConntrackState)
	const redirected = 1 << 7 // XT_CONNTRACK_STATE_DNAT
	has := yes
	if states&expr.CtStateBitNEW == 0 && (states&redirected == 0 || !p.redirected) {
		has = no
	}
	if inverted&state != 0 {
		has = not(has)
	}
	switch {
	case matched&state == 0:
		return perhaps
	case matched&^uint16(xt.ConntrackState|xt.ConntrackStateAlias) != 0:
		return min(has, perhaps)
	default:
		return has
	}
}

func unless(open bool) match {
	if open {
		return perhaps
	}
	return yes
}

// asksFor tells whether the port that the client asks for is in a range.
func (p *probe) asksFor(ports [2]uint16, inverted bool) match {
	inside := yes
	switch {
	case ports == [2]uint16{0, 0xffff}:
	case p.port == 0:
		inside = perhaps
	case p.port < ports[0] || p.port > ports[1]:
		inside = no
	}
	if inverted {
		return not(inside)
	}
	return inside
}

func anySource(ports [2]uint16) match {
	if ports == [2]uint16{0, 0xffff} {
		return yes
	}
	return some
}
