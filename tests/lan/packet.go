package lan

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// TCP flags (RFC 9293, section 3.1).
const (
	TCPFin = 0x01
	TCPSyn = 0x02
	TCPRst = 0x04
	TCPAck = 0x10
)

// Packet is the part of an IP packet that a probe uses.
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

// Packet decodes an IP packet, or the first fragment of one: the others carry no ports.
func (f Frame) Packet() (Packet, bool) {
	d, ok := f.Datagram()
	if !ok {
		return Packet{}, false
	}
	return d.parse()
}

// A Datagram is an IP packet of either family, without its headers.
type Datagram struct {
	Src, Dst netip.Addr
	Protocol byte
	Later    bool // a fragment that is not the first
	Payload  []byte
}

// Datagram decodes an IP packet, or a fragment of one.
func (f Frame) Datagram() (Datagram, bool) {
	switch f.EtherType {
	case ethernet.EtherTypeIPv4:
		return datagram4(f.Payload)
	case ethernet.EtherTypeIPv6:
		return datagram6(f.Payload)
	default:
		return Datagram{}, false
	}
}

func datagram4(b []byte) (Datagram, bool) {
	h, payload, ok := splitIPv4(b)
	if !ok {
		return Datagram{}, false
	}
	src, _ := netip.AddrFromSlice(h.Src.To4())
	dst, _ := netip.AddrFromSlice(h.Dst.To4())
	return Datagram{src, dst, byte(h.Protocol), h.FragOff != 0, payload}, true
}

// datagram6 passes the extension headers over (RFC 8200 section 4).
func datagram6(b []byte) (Datagram, bool) {
	h, err := ipv6.ParseHeader(b)
	if err != nil || len(b) < ipv6.HeaderLen {
		return Datagram{}, false
	}
	src, _ := netip.AddrFromSlice(h.Src)
	dst, _ := netip.AddrFromSlice(h.Dst)
	d := Datagram{Src: src, Dst: dst, Protocol: byte(h.NextHeader)}
	d.Payload = b[ipv6.HeaderLen:min(ipv6.HeaderLen+h.PayloadLen, len(b))]
	for {
		length := 8
		switch d.Protocol {
		case unix.IPPROTO_FRAGMENT:
			if len(d.Payload) >= length {
				d.Later = d.Later || binary.BigEndian.Uint16(d.Payload[2:])&^7 != 0
			}
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(d.Payload) >= length {
				length += 8 * int(d.Payload[1])
			}
		default:
			return d, true
		}
		if len(d.Payload) < length {
			return d, false
		}
		d.Protocol, d.Payload = d.Payload[0], d.Payload[length:]
	}
}

func (d Datagram) parse() (Packet, bool) {
	p, b := Packet{Flow: Flow{Src: d.Src, Dst: d.Dst}}, d.Payload
	if d.Later || len(b) < 8 { // 8 bytes are what an ICMP error quotes at least (RFC 792)
		return p, false
	}
	switch d.Protocol {
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
			return p, p.quote(datagram4(b[8:]))
		}
		return p, false
	case unix.IPPROTO_ICMPV6:
		p.Proto, p.Payload = ICMP, b[8:]
		switch ipv6.ICMPType(b[0]) {
		case ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply:
			return p, true
		case ipv6.ICMPTypeDestinationUnreachable, ipv6.ICMPTypePacketTooBig, ipv6.ICMPTypeTimeExceeded, ipv6.ICMPTypeParameterProblem:
			return p, p.quote(datagram6(b[8:]))
		}
		return p, false
	default:
		return p, false
	}
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	return p, true
}

// quote keeps what an ICMP error is about.
func (p *Packet) quote(d Datagram, ok bool) bool {
	if !ok {
		return false
	}
	quoted, ok := d.parse()
	p.Failed = &quoted
	return ok
}

// Stamp is the start of each payload that a probe sends, after a mark.
type Stamp struct {
	Token  uint32 // of the run, to distinguish late answers to an earlier one
	Number uint32 // of the packet in its flow, from 1
}

const (
	StampLen  = 12         // bytes
	stampMark = 0x63697031 // "cip1"
)

// Payload returns a payload of that many bytes, at least those of the stamp.
func (s Stamp) Payload(size int) []byte {
	b := make([]byte, max(size, StampLen))
	binary.BigEndian.PutUint32(b, stampMark)
	binary.BigEndian.PutUint32(b[4:], s.Token)
	binary.BigEndian.PutUint32(b[8:], s.Number)
	return b
}

// ReadStamp reads what a payload begins with.
func ReadStamp(b []byte) (s Stamp, ok bool) {
	if len(b) < StampLen || binary.BigEndian.Uint32(b) != stampMark {
		return s, false
	}
	return Stamp{Token: binary.BigEndian.Uint32(b[4:]), Number: binary.BigEndian.Uint32(b[8:])}, true
}

// EchoRequest returns an ICMP echo request to an address, with a stamped payload of that many bytes. The kernel fills in the
// checksum that IPv6 wants.
func (s Stamp) EchoRequest(to netip.Addr, size int) ([]byte, error) {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(s.Token & 0xffff), Seq: int(s.Number & 0xffff), Data: s.Payload(size)}}
	if to.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	return m.Marshal(nil)
}
