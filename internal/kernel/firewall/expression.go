package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// An nftRule is a rule of nf_tables.
type nftRule struct {
	chain       name
	handle      uint64
	early       bool // its chain is before conntrack
	expressions []expression
	sets        map[name]set
}

type expression struct {
	name    string
	decoded expr.Any // nil: of an unknown kind or form
}

// String names the rule as `nft -a list` does.
func (r nftRule) String() string { return fmt.Sprintf("rule with handle %d", r.handle) }

// registers are what a rule's expressions work on: four of 16 bytes, and the same again as sixteen of 4 bytes (enum nft_registers in
// include/uapi/linux/netfilter/nf_tables.h).
type registers [64]octet

const narrowRegister = 4

// at returns the bytes from a register on. There are none of register 0, which stands for no register.
func (r *registers) at(register uint32) value {
	const wideRegister, firstNarrow = 16, 8 // NFT_REG32_00
	offset := (int(register) - 1) * wideRegister
	if register >= firstNarrow {
		offset = int(register-firstNarrow) * narrowRegister
	}
	if offset < 0 || offset >= len(r) {
		return nil
	}
	return r[offset:]
}

func (r *registers) get(register uint32, length int) value { return r.at(register).part(0, length) }

// load fills a register. The kernel fills the rest of the last word with zeros.
func (r *registers) load(register uint32, v value) {
	for len(v)%narrowRegister != 0 {
		v = append(v, exactly(0)...)
	}
	copy(r.at(register), v)
}

// port returns the one in a register; 0 if it is not known.
func (r *registers) port(register uint32) uint16 {
	const length = 2
	if port, known := r.get(register, length).bytes(); known {
		return binary.BigEndian.Uint16(port)
	}
	return 0
}

// judge implements rule: it carries out the expressions as nft_do_chain does.
func (r nftRule) judge(p packet) []outcome {
	var regs registers
	var all []outcome
	so := yes
	for _, e := range r.expressions {
		holds, outcomes := r.carryOut(e, &regs, p)
		if so = min(so, holds); so == no {
			break
		}
		for _, o := range outcomes {
			o.match = min(o.match, so)
			all = append(all, o)
		}
	}
	return all
}

// carryOut returns whether the rule goes on behind an expression, and what the expression may do with the packet.
func (r nftRule) carryOut(e expression, regs *registers, p packet) (match, []outcome) {
	switch d := e.decoded.(type) {
	case *expr.Immediate:
		regs.load(d.Register, exactly(d.Data...))
	case *expr.Payload:
		headers := map[expr.PayloadBase]value{
			expr.PayloadBaseLLHeader: p.link, expr.PayloadBaseNetworkHeader: p.network, expr.PayloadBaseTransportHeader: p.transport,
		}
		if d.OperationType == expr.PayloadLoad {
			regs.load(d.DestRegister, headers[d.Base].part(int(d.Offset), lengthOf(d.Len)))
		}
	case *expr.Meta:
		if !d.SourceRegister {
			regs.load(d.Register, r.meta(p, d.Key))
		}
	case *expr.Ct:
		if !d.SourceRegister {
			regs.load(d.Register, r.ct(p, d.Key))
		}
	case *expr.Fib:
		regs.load(d.Register, fib(p, d))
	case *expr.Bitwise:
		regs.load(d.DestRegister, bitwise(regs.get(d.SourceRegister, lengthOf(d.Len)), d))
	case *expr.Cmp:
		return compare(regs.get(d.Register, len(d.Data)), d), nil
	case *expr.Range:
		inside := regs.get(d.Register, len(d.FromData)).in(span{first: d.FromData, last: d.ToData})
		if d.Op == expr.CmpOpNeq {
			return not(inside), nil
		}
		return inside, nil
	case *expr.Lookup:
		return r.lookup(regs, d)
	case *expr.Match:
		return p.extension(d), nil
	case *expr.Target:
		return yes, targetOutcome(d)
	case *expr.Verdict:
		if !strings.HasPrefix(d.Chain, ours) { // the match cluster, by iptables-nft
			return yes, []outcome{outcomeOf(d.Kind, d.Chain)}
		}
	case *expr.NAT:
		return yes, []outcome{regs.nat(d, len(p.to.AsSlice()))}
	case *expr.Redir:
		return yes, []outcome{{match: yes, action: redirect, to: destination{here: true, port: regs.port(d.RegisterProtoMin)}}}
	default:
		return regs.other(e.name)
	}
	return yes, nil
}

// other judges an expression by its name alone. One that is not known may drop.
func (r *registers) other(name string) (match, []outcome) {
	switch name {
	case "counter", "log", "last", "objref", "dup", "flow_offload":
		return yes, nil
	case "limit", "connlimit", "quota", "dynset":
		return some, nil
	case "notrack":
		return yes, []outcome{{match: yes, action: untrack}}
	case "reject", "fwd": // fwd: to another interface
		return yes, []outcome{{match: yes, action: drop}}
	case "masq", "queue", "synproxy":
		return yes, []outcome{{match: yes, action: accept}}
	case "numgen": // a number that some packets get
		*r = registers(ofClient(len(r)))
		return yes, nil
	}
	*r = registers{} // what it writes, and where, is not known
	switch name {
	case "byteorder", "hash":
		return yes, nil
	case "exthdr", "osf", "rt", "socket", "tproxy", "tunnel", "xfrm":
		return perhaps, nil
	default:
		return perhaps, []outcome{{match: perhaps, action: drop}}
	}
}

// nat judges a translation. The first address of a range stands for all of them.
func (r *registers) nat(e *expr.NAT, addressLength int) outcome {
	if e.Type != expr.NATTypeDestNAT {
		return outcome{match: yes, action: accept}
	}
	to := destination{here: e.RegAddrMin == 0, port: r.port(e.RegProtoMin)}
	host, _ := r.get(e.RegAddrMin, addressLength).bytes()
	to.host, _ = netip.AddrFromSlice(host)
	return outcome{match: yes, action: redirect, to: to}
}

func outcomeOf(verdict expr.VerdictKind, chain string) outcome {
	does, known := map[expr.VerdictKind]action{
		expr.VerdictAccept: accept, expr.VerdictDrop: drop, expr.VerdictReturn: comeBack, expr.VerdictJump: jump, expr.VerdictGoto: gotoChain,
		expr.VerdictQueue: accept, expr.VerdictStolen: drop, expr.VerdictContinue: goOn, expr.VerdictBreak: goOn,
	}[verdict]
	if !known {
		return outcome{match: perhaps, action: drop}
	}
	return outcome{match: yes, action: does, chain: chain}
}

// lengthOf is a length that the kernel accepts.
func lengthOf(length uint32) int { return int(min(length, uint32(len(registers{})))) }

// fib returns what the routes say. The address is the node's own; where a client is, depends on him.
func fib(p packet, e *expr.Fib) value {
	switch {
	case e.FlagDADDR && e.ResultADDRTYPE && !p.forwarded:
		return inHostOrder(unix.RTN_LOCAL)
	case e.FlagSADDR:
		return ofClient(narrowRegister)
	default:
		return unknown(narrowRegister)
	}
}

func bitwise(v value, e *expr.Bitwise) value {
	if len(e.Mask) != len(v) || len(e.Xor) != len(v) { // a shift, or what a later kernel can do
		return unknown(len(v))
	}
	for i := range v {
		v[i].bits, v[i].known = v[i].bits&e.Mask[i]^e.Xor[i], v[i].known|^e.Mask[i]
	}
	return v
}

func compare(v value, e *expr.Cmp) match {
	switch e.Op {
	case expr.CmpOpEq:
		return v.in(span{first: e.Data, last: e.Data})
	case expr.CmpOpNeq:
		return not(v.in(span{first: e.Data, last: e.Data}))
	case expr.CmpOpLt:
		return v.in(span{last: before(e.Data)})
	case expr.CmpOpLte:
		return v.in(span{last: e.Data})
	case expr.CmpOpGt:
		return not(v.in(span{last: e.Data}))
	case expr.CmpOpGte:
		return v.in(span{first: e.Data})
	default:
		return perhaps
	}
}

// lookup looks a key up in a set. What a map returns is known of verdicts only.
func (r nftRule) lookup(regs *registers, e *expr.Lookup) (match, []outcome) {
	s, isRead := r.sets[name{r.chain.family, r.chain.table, e.SetName}]
	if !isRead {
		return regs.other("")
	}
	key := regs.get(e.SourceRegister, s.keyLength)
	found := s.holds(key)
	switch {
	case e.IsDestRegSet && s.verdicts:
		return yes, s.outcomes(key)
	case e.IsDestRegSet:
		*regs = registers{}
		if found == some { // a map has an entry for whatever may come
			found = perhaps
		}
	case e.Invert:
		found = not(found)
	}
	return found, nil
}

func inHostOrder(number uint32) value {
	return exactly(binary.NativeEndian.AppendUint32(nil, number)...)
}

func (r nftRule) meta(p packet, key expr.MetaKey) value {
	const nameLength = 16 // the longest
	isLinkLayer := r.chain.family == unix.NFPROTO_NETDEV || r.chain.family == unix.NFPROTO_BRIDGE
	switch key {
	case expr.MetaKeyPROTOCOL:
		const etherType = 12
		return p.link.part(etherType, 2) //nolint:mnd // bytes
	case expr.MetaKeyNFPROTO:
		return exactly(p.family())
	case expr.MetaKeyPKTTYPE:
		if isLinkLayer { // before or behind our rules
			return unknown(1)
		}
		return p.kind
	case expr.MetaKeyL4PROTO:
		return exactly(p.protocol)
	case expr.MetaKeyIIF, expr.MetaKeyIIFNAME:
		if r.chain.family == unix.NFPROTO_BRIDGE { // the port at which the client is
			return ofClient(nameLength)
		}
		if key == expr.MetaKeyIIF {
			return inHostOrder(uint32(p.nicIndex))
		}
		return exactly(append([]byte(p.nic), make([]byte, max(0, nameLength-len(p.nic)))...)...)
	case expr.MetaKeyIIFTYPE:
		return exactly(binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)...)
	default:
		return unknown(nameLength)
	}
}

// ct returns what conntrack has about a client's first packet.
func (r nftRule) ct(p packet, key expr.CtKey) value {
	v := unknown(narrowRegister)
	switch {
	case r.early:
	case key == expr.CtKeySTATUS:
		const redirected = 1 << 5 // IPS_DST_NAT
		for i, bits := range binary.NativeEndian.AppendUint32(nil, redirected) {
			v[i].known = bits
			if p.redirected {
				v[i].bits = bits
			}
		}
	case key == expr.CtKeySTATE:
		return inHostOrder(expr.CtStateBitNEW)
	case key == expr.CtKeyDIRECTION:
		return exactly(0)
	}
	return v
}
