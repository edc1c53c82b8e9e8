package lan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// EchoPort is where Serve listens and Traffic goes by default (RFC 862).
const EchoPort = 7

// Traffic is what the client sends, and how long it listens for answers.
type Traffic struct {
	Target  netip.Addr
	Sources []netip.Addr // the client's; one flow for each, and for each protocol
	Protos  []Proto      // nil means ICMP, UDP and TCP
	Port    uint16       // of the target; 0 means EchoPort

	// SourcePort returns the port of the i-th source, so that a test can compute the owner. nil means 20000+i.
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
	t.Size = max(t.Size, StampLen)
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

// Probe sends one packet in each flow, TCP: makes one connection, and reports every answer seen on the client's interface.
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
	token   uint32 // marks our packets, to distinguish late answers to an earlier run
	capture *Capture
	icmp    Sender
	udp     map[Flow]*net.UDPConn
	tcp     []int // file descriptors

	mu        sync.Mutex
	exchanges []Exchange
	index     map[Flow]int        // into exchanges
	isn       map[Flow][]uint32   // initial sequence numbers of the attempts to connect
	accepted  map[synAck]struct{} // SYN-ACKs seen
	open      int                 // flows without an answer
	changed   chan struct{}       // has room for one; poked when open becomes 0
}

// synAck is what a node sends unchanged when it repeats a SYN-ACK (RFC 9293, section 3.8.1).
type synAck struct {
	flow     Flow
	node     int
	seq, ack uint32
}

func (n *Network) newRun(ctx context.Context, t Traffic) (*run, error) {
	r := &run{
		Traffic: t.withDefaults(), net: n, token: rand.Uint32(),
		udp: map[Flow]*net.UDPConn{}, index: map[Flow]int{}, isn: map[Flow][]uint32{}, accepted: map[synAck]struct{}{},
		changed: make(chan struct{}, 1),
	}
	for _, f := range r.flows() {
		if _, twice := r.index[f]; twice {
			return nil, fmt.Errorf("%s asked twice", f)
		}
		r.index[f] = len(r.exchanges)
		r.exchanges = append(r.exchanges, Exchange{Flow: f})
	}
	r.open = len(r.exchanges)
	if err := n.Client.Resolve(ctx, NIC, r.Target); err != nil {
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

// listenUDP opens a socket. The one of an earlier run may not be gone, although it was closed: a command that another test starts at that
// moment has a copy between fork and exec.
func listenUDP(local netip.AddrPort) (conn *net.UDPConn, err error) {
	const tries, pause = 100, 10 * time.Millisecond
	for range tries {
		if conn, err = net.ListenUDP("udp"+familyDigit(local.Addr()), net.UDPAddrFromAddrPort(local)); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		time.Sleep(pause)
	}
	return conn, err
}

func (r *run) openSockets() error {
	var err error
	if r.icmp, err = SendICMP(r.Target); err != nil {
		return err
	}
	for f := range r.index {
		if f.Proto != UDP {
			continue
		}
		conn, err := listenUDP(netip.AddrPortFrom(f.Src, f.SrcPort))
		if err != nil {
			return err
		}
		r.udp[f] = conn
	}
	return nil
}

// send sends the next packet of each flow, not all at once: a veth with an XDP program has a ring for 256 frames (VETH_RING_SIZE in the
// kernel's drivers/net/veth.c), and drops the rest if the processor is busy meanwhile.
func (r *run) send(flows []Flow) error {
	const burst, pause = 64, 5 * time.Millisecond
	return r.net.Client.Do(func() error {
		for i, f := range flows {
			if i > 0 && i%burst == 0 {
				time.Sleep(pause)
			}
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
		b, err := r.stamp(seq).EchoRequest(f.Dst, r.Size)
		if err != nil {
			return err
		}
		return r.icmp.Send(b, f.Src, netip.AddrPortFrom(f.Dst, 0))
	case UDP:
		_, err := r.udp[f].WriteToUDPAddrPort(r.stamp(seq).Payload(r.Size), netip.AddrPortFrom(f.Dst, f.DstPort))
		return err
	case TCP:
		return r.connect(f)
	}
	return fmt.Errorf("unknown protocol %q", f.Proto)
}

// connect starts a connection without waiting for it. When closed it is reset, so that the port is free at once.
func (r *run) connect(f Flow) error {
	fd, err := BindTCP(netip.AddrPortFrom(f.Src, f.SrcPort))
	if err != nil {
		return err
	}
	r.tcp = append(r.tcp, fd)
	return ConnectTCP(fd, netip.AddrPortFrom(f.Dst, f.DstPort))
}

// closeTCP ends the attempts to connect so far.
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

// wait returns when all flows have an answer, or after the timeout.
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

// stamp returns the stamp of a flow's packet.
func (r *run) stamp(seq uint32) Stamp { return Stamp{Token: r.token, Number: seq} }

// readStamp returns the number of a packet of this run.
func (r *run) readStamp(b []byte) (seq uint32, ok bool) {
	s, ok := ReadStamp(b)
	return s.Number, ok && s.Token == r.token
}

// attempt returns which attempt to connect began with that sequence number, from 1; 0 means none.
func (r *run) attempt(f Flow, isn uint32) uint32 { return uint32(slices.Index(r.isn[f], isn) + 1) }

// see records a frame of the client's interface, if it belongs to the run.
func (r *run) see(frame Frame) {
	p, ok := frame.Packet()
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if frame.Outgoing {
		// Our own SYN: its sequence number identifies the attempt that a SYN-ACK answers. TCP repeats it unchanged.
		if isn := r.isn[p.Flow]; p.Proto == TCP && p.Flags&(TCPSyn|TCPAck) == TCPSyn && !slices.Contains(isn, p.Seq) {
			r.isn[p.Flow] = append(isn, p.Seq)
		}
		return
	}
	answer := Answer{Node: r.net.NodeByMAC(frame.Source), MAC: frame.Source, Time: frame.Time}
	flow := p.Reverse()
	switch {
	case p.Failed != nil:
		answer.Kind, flow = Unreachable, p.Failed.Flow
		if flow.Proto == TCP {
			answer.Seq = r.attempt(flow, p.Failed.Seq)
		} else {
			answer.Seq, ok = r.readStamp(p.Failed.Payload)
		}
	case p.Proto == TCP:
		answer.Seq = uint32(len(r.isn[flow])) // the latest
		switch {
		case p.Flags&TCPRst != 0:
			answer.Kind = Reset
		case p.Flags&TCPSyn != 0:
			// On a slow machine the client's ACK takes more than a second, and the node's TCP repeats its answer.
			repeated := synAck{flow, answer.Node, p.Seq, p.Ack}
			if _, ok := r.accepted[repeated]; ok {
				return
			}
			r.accepted[repeated] = struct{}{}
			answer.Kind = SynAck
			answer.Seq = r.attempt(flow, p.Ack-1)
		default:
			answer.Kind = Data
		}
	default:
		answer.Kind = Reply
		answer.Seq, ok = r.readStamp(p.Payload)
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
