package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// EchoPort is where Serve listens and Traffic goes unless told otherwise (RFC 862).
const EchoPort = 7

// Traffic is what the client sends, and how long it listens for answers.
type Traffic struct {
	Target  netip.Addr
	Sources []netip.Addr // the client's; one flow for each, and for each protocol
	Protos  []Proto      // nil means ICMP, UDP and TCP
	Port    uint16       // of the target; 0 means EchoPort

	// SourcePort returns the port of the i-th source, so that an oracle can tell the owner. nil means 20000+i.
	SourcePort func(i int) uint16
	// Size is the payload in bytes of an echo request or datagram, at least 12. More than the MTU makes fragments.
	Size int

	// Timeout is how long the answers of a round may take; 0 means 900 ms, less than TCP waits before it repeats
	// a SYN by itself (1 s, RFC 6298), so that no loss is hidden.
	Timeout time.Duration
	// Settle is how long to listen for second answers after the last first one; 0 means 100 ms.
	Settle time.Duration
	// Retries is how many more rounds Probe makes for flows without any answer. The kernel drops a packet when an ARP
	// request for its next hop gets lost; that is no fault of the answering node. Report.Lost counts them.
	Retries int
}

func (t Traffic) withDefaults() Traffic {
	if t.Protos == nil {
		t.Protos = []Proto{ICMP, UDP, TCP}
	}
	if t.Port == 0 {
		t.Port = EchoPort
	}
	if t.SourcePort == nil {
		t.SourcePort = func(i int) uint16 { return uint16(20000 + i) }
	}
	t.Size = max(t.Size, stampLen)
	if t.Timeout == 0 {
		t.Timeout = 900 * time.Millisecond
	}
	if t.Settle == 0 {
		t.Settle = 100 * time.Millisecond
	}
	return t
}

func (t Traffic) flows() []Flow {
	var flows []Flow
	for _, proto := range t.Protos {
		for i, src := range t.Sources {
			f := Flow{Proto: proto, Src: src, Dst: t.Target}
			if proto != ICMP {
				f.SrcPort, f.DstPort = t.SourcePort(i), t.Port
			}
			flows = append(flows, f)
		}
	}
	return flows
}

// Probe sends one packet in each flow, TCP: makes one connection, and reports every answer seen on the client's NIC.
func (n *Network) Probe(ctx context.Context, t Traffic) (*Report, error) {
	run, err := n.newRun(ctx, t)
	if err != nil {
		return nil, err
	}
	for round := 0; round <= run.Retries && err == nil; round++ {
		pending := run.unanswered()
		if len(pending) == 0 {
			break
		}
		run.closeTCP() // an attempt that failed still holds its port
		if err = run.send(pending); err == nil {
			err = run.wait(ctx)
		}
	}
	if err == nil {
		err = sleep(ctx, run.Settle)
	}
	return run.finish(err)
}

// run is traffic under way: the client's sockets, and the record of what came back.
type run struct {
	Traffic
	net     *Network
	token   uint32 // marks our packets, so that late answers to an earlier run are told apart
	capture *Capture
	icmp    *ipv4.PacketConn
	udp     map[Flow]*net.UDPConn
	tcp     []int // file descriptors

	mu        sync.Mutex
	exchanges []Exchange
	index     map[Flow]int      // into exchanges
	isn       map[Flow][]uint32 // initial sequence numbers of the attempts to connect
	open      int               // flows without an answer
	changed   chan struct{}     // has room for one; poked when open becomes 0
}

func (n *Network) newRun(ctx context.Context, t Traffic) (*run, error) {
	r := &run{
		Traffic: t.withDefaults(), net: n, token: rand.Uint32(),
		udp: map[Flow]*net.UDPConn{}, index: map[Flow]int{}, isn: map[Flow][]uint32{}, changed: make(chan struct{}, 1),
	}
	for _, f := range r.flows() {
		if _, twice := r.index[f]; twice {
			return nil, fmt.Errorf("%s asked twice", f)
		}
		r.index[f] = len(r.exchanges)
		r.exchanges = append(r.exchanges, Exchange{Flow: f})
	}
	r.open = len(r.exchanges)
	if err := n.resolve(ctx, r.Target); err != nil {
		return nil, err
	}
	var err error
	if r.capture, err = n.Client.Capture(NIC, func(f Frame) bool { r.see(f); return false }); err != nil {
		return nil, err
	}
	if err := n.Client.Do(r.openSockets); err != nil {
		_, err = r.finish(err)
		return nil, err
	}
	return r, nil
}

// resolve makes the client learn the target's MAC first: hundreds of packets that wait for ARP at once would not all
// find room. A target that nobody has is not an error, the report will say so.
func (n *Network) resolve(ctx context.Context, target netip.Addr) error {
	if !n.options.LAN.Contains(target) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	link, err := n.Client.handle.LinkByName(NIC)
	if err != nil {
		return err
	}
	for asked := false; ; asked = true {
		neighs, err := n.Client.handle.NeighList(link.Attrs().Index, unix.AF_INET)
		if err != nil {
			return fmt.Errorf("read the client's neighbours: %w", err)
		}
		known := slices.ContainsFunc(neighs, func(e netlink.Neigh) bool {
			return e.IP.Equal(target.AsSlice()) && e.State&(unix.NUD_INCOMPLETE|unix.NUD_FAILED|unix.NUD_NONE) == 0
		})
		if known {
			return nil
		}
		if !asked {
			if err := n.Client.discard(target); err != nil {
				return err
			}
		}
		if sleep(ctx, time.Millisecond) != nil {
			return nil
		}
	}
}

// discard sends a datagram that nobody wants (port 9, RFC 863), from the host's own address.
func (h *Host) discard(target netip.Addr) error {
	return h.Do(func() error {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 9)))
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte{0})
		return errors.Join(err, conn.Close())
	})
}

func (r *run) openSockets() error {
	raw, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return fmt.Errorf("open an ICMP socket: %w", err)
	}
	r.icmp = ipv4.NewPacketConn(raw)
	var nothing ipv4.ICMPFilter // answers are read from the capture; do not pile them up here
	nothing.SetAll(true)
	if err := r.icmp.SetICMPFilter(&nothing); err != nil {
		return err
	}
	for f := range r.index {
		if f.Proto != UDP {
			continue
		}
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.Src, f.SrcPort)))
		if err != nil {
			return err
		}
		r.udp[f] = conn
	}
	return nil
}

// send sends the next packet of each flow.
func (r *run) send(flows []Flow) error {
	return r.net.Client.Do(func() error {
		for _, f := range flows {
			if err := r.sendOne(f); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
		}
		return nil
	})
}

// sendOne must run inside the client for TCP, whose sockets are made here.
func (r *run) sendOne(f Flow) error {
	r.mu.Lock()
	e := &r.exchanges[r.index[f]]
	e.Sent++
	seq := e.Sent
	r.mu.Unlock()

	switch f.Proto {
	case ICMP:
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(r.token & 0xffff), Seq: int(seq & 0xffff), Data: r.stamp(seq)}}
		b, err := m.Marshal(nil)
		if err != nil {
			return err
		}
		_, err = r.icmp.WriteTo(b, &ipv4.ControlMessage{Src: f.Src.AsSlice()}, &net.IPAddr{IP: f.Dst.AsSlice()})
		return err
	case UDP:
		_, err := r.udp[f].WriteToUDPAddrPort(r.stamp(seq), netip.AddrPortFrom(f.Dst, f.DstPort))
		return err
	case TCP:
		return r.connect(f)
	}
	return fmt.Errorf("unknown protocol %q", f.Proto)
}

// connect starts a connection without waiting for it. When closed it is reset, so that the port is free at once.
func (r *run) connect(f Flow) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.tcp = append(r.tcp, fd)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(f.SrcPort), Addr: f.Src.As4()}),
	); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(f.DstPort), Addr: f.Dst.As4()}); err != unix.EINPROGRESS {
		return err
	}
	return nil
}

// closeTCP gives up the attempts to connect so far.
func (r *run) closeTCP() {
	for _, fd := range r.tcp {
		_ = unix.Close(fd)
	}
	r.tcp = nil
}

// unanswered returns the flows without any answer.
func (r *run) unanswered() []Flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	var flows []Flow
	for _, e := range r.exchanges {
		if len(e.Answers) == 0 {
			flows = append(flows, e.Flow)
		}
	}
	return flows
}

// wait returns when all flows have an answer, or no more is to be hoped for.
func (r *run) wait(ctx context.Context) error {
	timer := time.NewTimer(r.Timeout)
	defer timer.Stop()
	select {
	case <-r.changed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (r *run) finish(err error) (*Report, error) {
	_, captureErr := r.capture.Stop()
	errs := []error{err, captureErr}
	r.closeTCP()
	if r.icmp != nil {
		errs = append(errs, r.icmp.Close())
	}
	for _, c := range r.udp {
		errs = append(errs, c.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("probe %s: %w", r.Target, err)
	}
	return &Report{Exchanges: r.exchanges}, nil
}

// A stamp is the start of each payload: the run's token, the packet's number, and a mark.
const (
	stampLen  = 12
	stampMark = 0x63697031 // "cip1"
)

func (r *run) stamp(seq uint32) []byte {
	b := make([]byte, r.Size)
	binary.BigEndian.PutUint32(b, stampMark)
	binary.BigEndian.PutUint32(b[4:], r.token)
	binary.BigEndian.PutUint32(b[8:], seq)
	return b
}

func (r *run) readStamp(b []byte) (seq uint32, ok bool) {
	if len(b) < stampLen || binary.BigEndian.Uint32(b) != stampMark || binary.BigEndian.Uint32(b[4:]) != r.token {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[8:]), true
}

// attempt returns which attempt to connect began with that sequence number, from 1; 0 means none.
func (r *run) attempt(f Flow, isn uint32) uint32 { return uint32(slices.Index(r.isn[f], isn) + 1) }

// see records a frame of the client's NIC, if it belongs to the run.
func (r *run) see(frame Frame) {
	header, b, ok := frame.IPv4()
	if !ok {
		return
	}
	p, ok := parse(header, b)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if frame.Outgoing {
		// Our own SYN: its sequence number will tell which attempt a SYN-ACK answers. TCP repeats it unchanged.
		if isn := r.isn[p.Flow]; p.Proto == TCP && p.flags&(tcpSyn|tcpAck) == tcpSyn && !slices.Contains(isn, p.seq) {
			r.isn[p.Flow] = append(isn, p.seq)
		}
		return
	}
	answer := Answer{Node: r.net.NodeByMAC(frame.Source), MAC: frame.Source, Time: frame.Time}
	flow := p.reverse()
	switch {
	case p.failed != nil:
		answer.Kind, flow = Unreachable, p.failed.Flow
		if flow.Proto == TCP {
			answer.Seq = r.attempt(flow, p.failed.seq)
		} else {
			answer.Seq, ok = r.readStamp(p.failed.payload)
		}
	case p.Proto == TCP:
		answer.Seq = uint32(len(r.isn[flow])) // the latest
		switch {
		case p.flags&tcpRst != 0:
			answer.Kind = Reset
		case p.flags&tcpSyn != 0:
			answer.Kind = SynAck
			answer.Seq = r.attempt(flow, p.ack-1)
		default:
			answer.Kind = Data
		}
	default:
		answer.Kind = Reply
		answer.Seq, ok = r.readStamp(p.payload)
	}
	i, ours := r.index[flow]
	if !ok || !ours {
		return
	}
	e := &r.exchanges[i]
	if e.Answers = append(e.Answers, answer); len(e.Answers) == 1 {
		if r.open--; r.open == 0 {
			r.changed <- struct{}{}
		}
	}
}
