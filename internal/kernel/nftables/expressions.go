package nftables

import (
	"encoding/binary"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Registers of 4 bytes, by the numbers with which the kernel dumps them: those of 16 bytes where it can.
const (
	register0 = unix.NFT_REG_1
	register1 = unix.NFT_REG32_01
	register2 = unix.NFT_REG32_02
	register4 = unix.NFT_REG_2
	register5 = unix.NFT_REG32_05
)

// A field is a part of a packet. Offset in its header, and length, are in bytes.
type field struct {
	header expr.PayloadBase
	offset uint32
	length uint32
}

const (
	link      = expr.PayloadBaseLLHeader
	network   = expr.PayloadBaseNetworkHeader
	transport = expr.PayloadBaseTransportHeader
)

// The fields that our rules read or write.
var (
	etherDestination   = field{link, 0, macLength}    // IEEE 802.3
	etherSource        = field{link, 6, macLength}    // likewise
	etherType          = field{link, 12, 2}           // of a frame with a tag: the tag's
	vlanTCI            = field{link, 14, 2}           // IEEE 802.1Q: priority, DEI and VLAN ID
	arpOperation       = field{network, 6, 2}         // RFC 826, behind htype, ptype, hlen and plen
	arpSenderMAC       = field{network, 8, macLength} // RFC 826, for Ethernet and IPv4
	arpSenderIP        = field{network, 14, 4}        // likewise
	ipv4Identification = field{network, 4, 4}         // RFC 791 section 3.1, with the flags and the fragment's offset
	fragmentOffset     = field{network, 6, 2}         // RFC 791 section 3.1, with the flags
	ipv4Source         = field{network, 12, 4}        // likewise
	ipv4Destination    = field{network, 16, 4}        // likewise
	ipv6Source         = field{network, 8, 16}        // RFC 8200 section 3
	ipv6Destination    = field{network, 24, 16}       // likewise
	icmpType           = field{transport, 0, 1}       // RFC 792, RFC 4443
	ndTarget           = field{transport, 8, 16}      // RFC 4861 sections 4.3 and 4.4
	ndOption           = field{transport, 24, 2}      // type and length of the first option, the only one in our kernel's messages
	ndOptionMAC        = field{transport, 26, macLength}
	tcpFlags           = field{transport, 13, 1}         // RFC 9293 section 3.1
	sctpChunkType      = field{transport, 12, 1}         // RFC 9260 section 3: of the first chunk
	sourcePort         = field{transport, 0, portLength} // TCP, UDP, UDP-Lite, SCTP and DCCP alike
	destinationPort    = field{transport, 2, portLength} // likewise
)

const (
	macLength  = 6
	portLength = 2

	icmpChecksum = 2 // its offset
)

func (f field) loadTo(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: f.header, Offset: f.offset, Len: f.length}
}

func (f field) is(value ...byte) []expr.Any {
	return []expr.Any{f.loadTo(register0), compare(expr.CmpOpEq, value...)}
}

func (f field) isNot(value ...byte) []expr.Any {
	return []expr.Any{f.loadTo(register0), compare(expr.CmpOpNeq, value...)}
}

// hasAny matches if one of the bits is set.
func (f field) hasAny(bits ...byte) []expr.Any {
	return slices.Concat([]expr.Any{f.loadTo(register0)}, anyOf(bits))
}

// set writes a value into the packet. In the transport header it corrects the checksum of ICMPv6.
func (f field) set(value ...byte) []expr.Any {
	return append([]expr.Any{&expr.Immediate{Register: register0, Data: value}}, f.write(register0)...)
}

// write writes a register into the packet, like set.
func (f field) write(register uint32) []expr.Any {
	write := &expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: register, Base: f.header, Offset: f.offset, Len: f.length}
	if f.header == transport {
		write.CsumType, write.CsumOffset = expr.CsumTypeInet, icmpChecksum
	}
	return []expr.Any{write}
}

func compare(op expr.CmpOp, value ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: register0, Data: value}
}

// mask leaves only some bits of a register.
func mask(register uint32, bits []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(bits)), Mask: bits, Xor: make([]byte, len(bits))}
}

// anyOf matches if one of the bits is set in register 0.
func anyOf(bits []byte) []expr.Any {
	return []expr.Any{mask(register0, bits), compare(expr.CmpOpNeq, make([]byte, len(bits))...)}
}

func meta(key expr.MetaKey, op expr.CmpOp, value ...byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: register0}, compare(op, value...)}
}

func protocolIs(etherType uint16) []expr.Any {
	return meta(expr.MetaKeyPROTOCOL, expr.CmpOpEq, bigEndian(etherType)...)
}

func ipProtocolIs(number byte) []expr.Any { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, number) }

func packetTypeIs(kind byte) []expr.Any { return meta(expr.MetaKeyPKTTYPE, expr.CmpOpEq, kind) }

func setPacketType(kind byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register0, Data: []byte{kind}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: register0},
	}
}

func isInterface(key expr.MetaKey, index int) []expr.Any {
	return meta(key, expr.CmpOpEq, hostOrder(uint32(index))...)
}

func notInterface(key expr.MetaKey, index int) []expr.Any {
	return meta(key, expr.CmpOpNeq, hostOrder(uint32(index))...)
}

func toMAC(mac clusterip.MAC) []expr.Any {
	ethernet := binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)
	return slices.Concat(meta(expr.MetaKeyIIFTYPE, expr.CmpOpEq, ethernet...), etherDestination.is(mac[:]...))
}

// state matches a packet whose conntrack state is one of these.
func state(bits uint32) []expr.Any {
	return slices.Concat([]expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: register0}}, anyOf(hostOrder(bits)))
}

// lookup looks register 0 up in a set.
func lookup(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register0, SetName: set}}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func countAndDrop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func jumpTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func bigEndian(value uint16) []byte { return binary.BigEndian.AppendUint16(nil, value) }

func hostOrder(value uint32) []byte { return binary.NativeEndian.AppendUint32(nil, value) }

func filterBase(hook *nft.ChainHook, priority nft.ChainPriority) *base {
	return &base{kind: nft.ChainTypeFilter, hook: *hook, priority: priority, policy: nft.ChainPolicyAccept}
}
