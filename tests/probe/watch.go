package probe

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/lan"
)

// ipHeader is where the program of wire finds what, in bytes from the frame's start.
type ipHeader struct {
	etherType           uint32
	protocol            uint32 // offset; extension headers are not looked behind
	source, destination uint32
	transport           []bpf.Instruction // X = bytes from the IP header's start to the transport header
	length              uint32            // offset of the packet's length
	lengthWithoutHeader bool
	icmp                uint32
	answers             []uint32 // types of ICMP, errors among them, and for IPv6 neighbour advertisements
}

const etherHeader = 14 // bytes

func headerFor(target netip.Addr) ipHeader {
	if target.Is6() { // RFC 8200 section 3
		return ipHeader{
			etherType: unix.ETH_P_IPV6, protocol: etherHeader + 6, source: etherHeader + 8, destination: etherHeader + 24,
			transport: []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6.HeaderLen}},
			length:    etherHeader + 4, lengthWithoutHeader: true, icmp: unix.IPPROTO_ICMPV6,
			answers: []uint32{
				uint32(ipv6.ICMPTypeEchoReply), uint32(ipv6.ICMPTypeDestinationUnreachable), uint32(ipv6.ICMPTypePacketTooBig),
				uint32(ipv6.ICMPTypeTimeExceeded), uint32(ipv6.ICMPTypeParameterProblem), uint32(ipv6.ICMPTypeNeighborAdvertisement),
			},
		}
	}
	return ipHeader{ // RFC 791 section 3.1
		etherType: unix.ETH_P_IP, protocol: etherHeader + 9, source: etherHeader + 12, destination: etherHeader + 16,
		transport: []bpf.Instruction{bpf.LoadMemShift{Off: etherHeader}},
		length:    etherHeader + 2, icmp: unix.IPPROTO_ICMP,
		answers: []uint32{
			uint32(ipv4.ICMPTypeEchoReply), uint32(ipv4.ICMPTypeDestinationUnreachable), uint32(ipv4.ICMPTypeTimeExceeded),
			uint32(ipv4.ICMPTypeParameterProblem),
		},
	}
}

// wire is a program for the kernel that lets through what a probe must see, fewer than half of the frames: ARP; coming
// in, what may answer a question; going out, SYNs and TCP data, to count copies.
func wire(target netip.Addr) []bpf.Instruction {
	const (
		take     = 1 << 16
		outgoing = 4 // PACKET_OUTGOING
	)
	h := headerFor(target)
	yes, no := bpf.RetConstant{Val: take}, bpf.RetConstant{Val: 0}
	// when runs a list, which must return, if the accumulator has a value.
	when := func(value uint32, then ...bpf.Instruction) []bpf.Instruction {
		return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: uint8(len(then))}}, then...)
	}
	// address runs a list, which must return, if the target is at the offset, and else returns.
	address := func(offset uint32, then ...bpf.Instruction) []bpf.Instruction {
		var program []bpf.Instruction
		for word := range slices.Chunk(target.AsSlice(), 4) {
			program = append(program,
				bpf.LoadAbsolute{Off: offset, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(word), SkipTrue: 1},
				no)
			offset += 4
		}
		return append(program, then...)
	}
	// tcp takes segments with one of the flags, or with data.
	tcp := func(flags uint32) []bpf.Instruction {
		headers := []bpf.Instruction{bpf.ALUOpX{Op: bpf.ALUOpAdd}} // A = length of the IP header and the TCP header
		if h.lengthWithoutHeader {
			headers = nil
		}
		return slices.Concat(h.transport, []bpf.Instruction{
			bpf.LoadIndirect{Off: etherHeader + 13, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: flags, SkipTrue: 1},
			yes,
			bpf.LoadIndirect{Off: etherHeader + 12, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 2}, // A = length of the TCP header
		}, headers, []bpf.Instruction{
			bpf.TAX{},
			bpf.LoadAbsolute{Off: h.length, Size: 2},
			bpf.JumpIfX{Cond: bpf.JumpGreaterThan, SkipFalse: 1},
			yes,
			no,
		})
	}
	protocol := bpf.LoadAbsolute{Off: h.protocol, Size: 1}
	icmp := append(slices.Clone(h.transport), bpf.LoadIndirect{Off: etherHeader, Size: 1})
	for _, t := range h.answers {
		icmp = append(icmp, when(t, yes)...)
	}
	out := slices.Concat(
		[]bpf.Instruction{protocol},
		when(unix.IPPROTO_TCP, address(h.destination, tcp(lan.TCPSyn)...)...),
		[]bpf.Instruction{no})
	in := slices.Concat(
		[]bpf.Instruction{protocol},
		when(unix.IPPROTO_UDP, address(h.source, yes)...),
		when(h.icmp, append(icmp, no)...),
		when(unix.IPPROTO_TCP, address(h.source, tcp(lan.TCPSyn|lan.TCPRst|lan.TCPFin)...)...),
		[]bpf.Instruction{no})
	return slices.Concat(
		[]bpf.Instruction{bpf.LoadAbsolute{Off: 12, Size: 2}},
		when(unix.ETH_P_ARP, yes),
		[]bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: h.etherType, SkipTrue: 1},
			no,
			bpf.LoadExtension{Num: bpf.ExtType},
		},
		when(outgoing, out...),
		in)
}

// see judges a frame of the client's interface.
func (p *Probe) see(f lan.Frame) {
	at := f.Time.Sub(p.begin)
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.EtherType == ethernet.EtherTypeARP {
		p.seeARP(f, at)
		return
	}
	if a, ok := f.Advertisement(); ok {
		p.seeNeighbour(f, a, at)
		return
	}
	packet, ok := f.Packet()
	switch {
	case !ok:
	case f.Outgoing:
		p.seeSent(packet)
	case packet.Failed != nil:
		p.seeError(f, packet, at)
	default:
		p.seeAnswer(f, packet, at)
	}
}

// seeARP judges what ARP announces about the target.
func (p *Probe) seeARP(f lan.Frame, at time.Duration) {
	if a, ok := f.ARP(); ok && !f.Outgoing && a.SenderIP == p.o.Target {
		p.seeAnnounced(f, "ARP", a.SenderHardwareAddr, at)
	}
}

// seeNeighbour judges what a neighbour advertisement announces about the target.
func (p *Probe) seeNeighbour(f lan.Frame, a *ndp.NeighborAdvertisement, at time.Duration) {
	if f.Outgoing || a.TargetAddress != p.o.Target {
		return
	}
	for _, o := range a.Options {
		if announced, ok := o.(*ndp.LinkLayerAddress); ok {
			p.seeAnnounced(f, "an advertisement", announced.Addr, at)
		}
	}
}

func (p *Probe) seeAnnounced(f lan.Frame, by string, announced net.HardwareAddr, at time.Duration) {
	node := p.node(f.Source)
	wrong := p.o.Node(announced) != ""
	if p.o.SharedMAC != nil {
		wrong = announced.String() != p.o.SharedMAC.String()
	}
	switch {
	case wrong:
		p.record(Event{At: at, Kind: WrongMAC, Node: p.nodes[node], Text: fmt.Sprintf("%s announces %s", by, announced)})
	case node == 0:
		p.record(Event{At: at, Kind: WrongMAC, Node: Unknown, Text: fmt.Sprintf("%s comes from %s", by, f.Source)})
	}
}

// node returns the number of the node whose MAC that is.
func (p *Probe) node(mac net.HardwareAddr) uint8 {
	key := [6]byte(mac)
	if n, known := p.byMAC[key]; known {
		return n
	}
	name := word(p.o.Node(mac))
	if name == "" {
		return 0 // perhaps not yet
	}
	n := slices.Index(p.nodes, name)
	if n < 0 {
		if n = len(p.nodes); n > 255 {
			return 0
		}
		p.nodes = append(p.nodes, name)
	}
	p.byMAC[key] = uint8(n)
	return uint8(n)
}

// seeSent counts the copies of what the client sends.
func (p *Probe) seeSent(packet lan.Packet) {
	c := p.conns[netip.AddrPortFrom(packet.Src, packet.SrcPort)]
	if c == nil {
		return
	}
	segment := &c.request
	if packet.Flags&lan.TCPSyn != 0 {
		segment = &c.syn
		c.isn = packet.Seq
	}
	if segment.sent == 0 || segment.seq != packet.Seq {
		segment.seq, segment.ack, segment.sent, segment.by = packet.Seq, packet.Ack, 0, segment.by[:0]
	}
	segment.sent++
}

// seeError judges an ICMP error. It may come from any router; only a node sends one from the target.
func (p *Probe) seeError(f lan.Frame, packet lan.Packet, at time.Duration) {
	failed := packet.Failed
	s := p.bySource[failed.Src]
	if s == nil || failed.Dst != p.o.Target {
		return
	}
	var ch *channel
	var number uint32
	switch failed.Proto {
	case lan.TCP:
		c := p.conns[netip.AddrPortFrom(failed.Src, failed.SrcPort)]
		if c == nil || c.phase != connecting {
			return // TCP does not end an open connection for that (RFC 5461)
		}
		ch, number = c.channel, c.number
		p.drop(c)
	case lan.ICMP, lan.UDP:
		stamp, ok := lan.ReadStamp(failed.Payload)
		if !ok || stamp.Token != p.token {
			return
		}
		ch, number = s.channel(failed.Proto), stamp.Number
	}
	if !ch.asked(number) {
		return
	}
	if packet.Src == p.o.Target && p.node(f.Source) == 0 {
		p.wrongMAC(ch, number, at, f.Source)
	}
	p.answer(ch, number, Event{At: at, Kind: Refused, Text: "ICMP error"}, p.node(f.Source))
}

// channel returns that of ICMP or UDP.
func (s *source) channel(proto lan.Proto) *channel {
	if proto == lan.ICMP {
		return s.by[ICMP]
	}
	return s.by[UDP]
}

// asked returns whether that is one of the channel's questions. A nil channel asks none.
func (ch *channel) asked(number uint32) bool {
	return ch != nil && 0 < number && number <= uint32(len(ch.questions))
}

// seeAnswer judges what comes from the target.
func (p *Probe) seeAnswer(f lan.Frame, packet lan.Packet, at time.Duration) {
	s, node := p.bySource[packet.Dst], p.node(f.Source)
	if s == nil || packet.Src != p.o.Target {
		return
	}
	if packet.Proto == lan.TCP {
		if c := p.conns[netip.AddrPortFrom(packet.Dst, packet.DstPort)]; c != nil {
			if node == 0 {
				p.wrongMAC(c.channel, c.number, at, f.Source)
			}
			p.seeSegment(c, packet, node, at)
		}
		return
	}
	stamp, ok := lan.ReadStamp(packet.Payload)
	ch := s.channel(packet.Proto)
	if !ok || stamp.Token != p.token || !ch.asked(stamp.Number) {
		return
	}
	if node == 0 {
		p.wrongMAC(ch, stamp.Number, at, f.Source)
	}
	p.answer(ch, stamp.Number, Event{At: at, Kind: Answer}, node)
}

func (p *Probe) wrongMAC(ch *channel, number uint32, at time.Duration, mac net.HardwareAddr) {
	p.recordOf(ch, Event{At: at, Kind: WrongMAC, Number: number, Node: Unknown, Text: "answer from " + mac.String()})
}

// answer ends a question with Answer or Refused; or else it is late, or a duplicate.
func (p *Probe) answer(ch *channel, number uint32, e Event, node uint8) {
	q := &ch.questions[number-1]
	e.Number, e.Node = number, p.nodes[node]
	switch q.state {
	case unanswered:
		p.open--
		q.state = refused
		if e.Kind == Answer {
			q.state = answered
			ch.answered = max(ch.answered, q.asked)
		}
	case lost:
		q.state = answered
		e.Kind = Late
	default:
		e.Kind, e.Text = Duplicate, "after "+p.nodes[q.node]
		p.recordOf(ch, e)
		return
	}
	q.node = node
	p.recordOf(ch, e)
}

// seeSegment judges a segment that came in.
func (p *Probe) seeSegment(c *conn, packet lan.Packet, node uint8, at time.Duration) {
	event := Event{At: at, Node: p.nodes[node], Number: c.number}
	twice := func(s *segment) bool {
		if !s.answeredBy(node) {
			return false
		}
		event.Kind, event.Text = Duplicate, "after "+p.nodes[s.by[0]]
		p.recordOf(c.channel, event)
		return true
	}
	refusesSyn := packet.Seq == 0 && packet.Flags&lan.TCPAck != 0 && packet.Ack == c.isn+1
	switch {
	case packet.Flags&lan.TCPSyn != 0:
		if packet.Ack == c.isn+1 && !twice(&c.syn) {
			p.seeSynAck(c, node, at)
		}
	case packet.Flags&lan.TCPRst != 0 && refusesSyn:
		if !twice(&c.syn) && c.phase == connecting {
			p.drop(c)
			p.answer(c.channel, c.number, Event{At: at, Kind: Refused}, node)
		}
	case packet.Flags&lan.TCPRst != 0:
		if packet.Seq == c.request.ack && c.request.sent > 0 {
			twice(&c.request)
		}
		if c.phase != over {
			p.breaks(c, Event{At: at, Node: p.nodes[node], Text: "reset"})
		}
	default:
		if len(packet.Payload) > 0 {
			if packet.Seq == c.request.ack && c.request.sent > 0 {
				twice(&c.request)
			}
			p.seeData(c, packet.Payload, node, at)
		}
		if packet.Flags&lan.TCPFin != 0 && p.sendsRequests(c) && c.phase != over {
			p.breaks(c, Event{At: at, Node: p.nodes[node], Text: errClosed.Error()})
		}
	}
}

// sendsRequests reports whether a connection goes on behind the greeting.
func (p *Probe) sendsRequests(c *conn) bool { return c.proto == Stream || p.o.Requests }

// seeSynAck answers a question of Connect, unless a request follows. If the kernel has repeated the SYN, then one was lost.
func (p *Probe) seeSynAck(c *conn, node uint8, at time.Duration) {
	if c.proto != Connect || c.syn.by[0] != node {
		return
	}
	if q := &c.questions[c.number-1]; q.state == unanswered && c.syn.sent > 1 {
		p.lose(c.channel, c.number, "answered only when the kernel repeated the SYN")
	}
	if q := &c.questions[c.number-1]; q.state == unanswered && !p.o.Requests || q.state == lost {
		p.answer(c.channel, c.number, Event{At: at, Kind: Answer}, node)
	}
}

// seeData takes a server's greeting, or an answer of a stream. What was seen before is TCP's own repetition.
func (p *Probe) seeData(c *conn, data []byte, node uint8, at time.Duration) {
	stamp, ok := lan.ReadStamp(data)
	answers := ok && stamp == (lan.Stamp{Token: p.token, Number: c.number})
	switch {
	case c.phase == over:
		if c.proto == Connect && answers && c.questions[c.number-1].state == lost {
			p.answer(c.channel, c.number, Event{At: at}, node)
		}
	case c.proto == Connect && (!p.o.Requests || c.questions[c.number-1].state != unanswered):
		p.drop(c) // its last event is recorded
	case c.phase == connecting:
		c.phase = greeted
		opened := Event{At: at, Kind: Open, Node: p.nodes[node]}
		if c.proto == Connect {
			opened.Number = c.number
			p.greeted = append(p.greeted, c)
		} else {
			p.todo = append(p.todo, c.channel)
		}
		p.recordOf(c.channel, opened)
	case c.phase == asking && answers:
		p.answer(c.channel, c.number, Event{At: at, Kind: Answer}, node)
		if c.proto == Connect {
			p.drop(c)
			return
		}
		c.phase, c.number, c.stalled = idle, 0, false
	}
}
