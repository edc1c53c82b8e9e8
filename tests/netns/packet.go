package netns

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	tcpSyn = 0x02
	tcpRst = 0x04
	tcpAck = 0x10
)

// ipPacket is what a probe needs to know of an IPv4 packet.
type ipPacket struct {
	Flow               // from its sender's side
	seq, ack uint32    // TCP
	flags    byte      // TCP
	payload  []byte    // of a datagram or echo
	failed   *ipPacket // what an ICMP error is about
}

// reverse returns the flow that the packet answers.
func (p ipPacket) reverse() Flow {
	return Flow{Proto: p.Proto, Src: p.Dst, Dst: p.Src, SrcPort: p.DstPort, DstPort: p.SrcPort}
}

// parse reads a packet, or the first fragment of one: the others carry no ports.
func parse(h *ipv4.Header, b []byte) (ipPacket, bool) {
	src, _ := netip.AddrFromSlice(h.Src.To4())
	dst, _ := netip.AddrFromSlice(h.Dst.To4())
	p := ipPacket{Flow: Flow{Src: src, Dst: dst}}
	if h.FragOff != 0 || len(b) < 8 { // 8 bytes are what an ICMP error quotes at least (RFC 792)
		return p, false
	}
	switch h.Protocol {
	case unix.IPPROTO_UDP:
		p.Proto, p.payload = UDP, b[8:]
	case unix.IPPROTO_TCP:
		p.Proto = TCP
		p.seq = binary.BigEndian.Uint32(b[4:])
		if len(b) >= 14 {
			p.ack, p.flags = binary.BigEndian.Uint32(b[8:]), b[13]
		}
	case unix.IPPROTO_ICMP:
		p.Proto, p.payload = ICMP, b[8:]
		switch ipv4.ICMPType(b[0]) {
		case ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply:
			return p, true
		case ipv4.ICMPTypeDestinationUnreachable, ipv4.ICMPTypeTimeExceeded, ipv4.ICMPTypeParameterProblem:
			if inner, b, ok := splitIPv4(b[8:]); ok {
				if quoted, ok := parse(inner, b); ok {
					p.failed = &quoted
					return p, true
				}
			}
		}
		return p, false
	default:
		return p, false
	}
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	return p, true
}
