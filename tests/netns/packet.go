package netns

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TCP flags (RFC 9293, section 3.1).
const (
	TCPFin = 0x01
	TCPSyn = 0x02
	TCPRst = 0x04
	TCPAck = 0x10
)

// Packet is what a probe needs to know of an IPv4 packet.
type Packet struct {
	Flow             // from its sender's side
	Seq, Ack uint32  // TCP
	Flags    byte    // TCP
	Payload  []byte  // of a segment, datagram or echo
	Failed   *Packet // what an ICMP error is about
}

// Reverse returns the flow that the packet answers.
func (p Packet) Reverse() Flow {
	return Flow{Proto: p.Proto, Src: p.Dst, Dst: p.Src, SrcPort: p.DstPort, DstPort: p.SrcPort}
}

// Packet decodes an IPv4 packet, or the first fragment of one: the others carry no ports.
func (f Frame) Packet() (Packet, bool) {
	header, b, ok := f.IPv4()
	if !ok {
		return Packet{}, false
	}
	return parse(header, b)
}

func parse(h *ipv4.Header, b []byte) (Packet, bool) {
	src, _ := netip.AddrFromSlice(h.Src.To4())
	dst, _ := netip.AddrFromSlice(h.Dst.To4())
	p := Packet{Flow: Flow{Src: src, Dst: dst}}
	if h.FragOff != 0 || len(b) < 8 { // 8 bytes are what an ICMP error quotes at least (RFC 792)
		return p, false
	}
	switch h.Protocol {
	case unix.IPPROTO_UDP:
		p.Proto, p.Payload = UDP, b[8:]
	case unix.IPPROTO_TCP:
		p.Proto = TCP
		p.Seq = binary.BigEndian.Uint32(b[4:])
		if len(b) >= 14 {
			p.Ack, p.Flags = binary.BigEndian.Uint32(b[8:]), b[13]
			p.Payload = b[min(int(b[12]>>4)*4, len(b)):]
		}
	case unix.IPPROTO_ICMP:
		p.Proto, p.Payload = ICMP, b[8:]
		switch ipv4.ICMPType(b[0]) {
		case ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply:
			return p, true
		case ipv4.ICMPTypeDestinationUnreachable, ipv4.ICMPTypeTimeExceeded, ipv4.ICMPTypeParameterProblem:
			if inner, b, ok := splitIPv4(b[8:]); ok {
				if quoted, ok := parse(inner, b); ok {
					p.Failed = &quoted
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

// Stamp is the start of each payload that a probe sends, after a mark.
type Stamp struct {
	Token  uint32 // of the run, so that late answers to an earlier one are told apart
	Number uint32 // of the packet in its flow, from 1
}

const (
	stampLen  = 12
	stampMark = 0x63697031 // "cip1"
)

// Payload returns a payload of that many bytes, at least those of the stamp.
func (s Stamp) Payload(size int) []byte {
	b := make([]byte, max(size, stampLen))
	binary.BigEndian.PutUint32(b, stampMark)
	binary.BigEndian.PutUint32(b[4:], s.Token)
	binary.BigEndian.PutUint32(b[8:], s.Number)
	return b
}

// ReadStamp reads what a payload begins with.
func ReadStamp(b []byte) (s Stamp, ok bool) {
	if len(b) < stampLen || binary.BigEndian.Uint32(b) != stampMark {
		return s, false
	}
	return Stamp{Token: binary.BigEndian.Uint32(b[4:]), Number: binary.BigEndian.Uint32(b[8:])}, true
}

// EchoRequest returns an ICMP echo request with a stamped payload of that many bytes.
func (s Stamp) EchoRequest(size int) ([]byte, error) {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(s.Token & 0xffff), Seq: int(s.Number & 0xffff), Data: s.Payload(size)}}
	return m.Marshal(nil)
}
