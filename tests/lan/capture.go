package lan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Frame is an Ethernet frame that passed an interface.
type Frame struct {
	ethernet.Frame
	Outgoing bool      // sent by the host itself; as it leaves, after every filter and rewriting
	Time     time.Time // when the kernel saw it
}

// ARP decodes an ARP packet for IPv4.
func (f Frame) ARP() (*arp.Packet, bool) {
	p := new(arp.Packet)
	ok := f.EtherType == ethernet.EtherTypeARP && p.UnmarshalBinary(f.Payload) == nil
	return p, ok
}

// Gratuitous decodes an ARP announcement: sender and target are the same address (RFC 5227, section 3).
func (f Frame) Gratuitous() (*arp.Packet, bool) {
	p, ok := f.ARP()
	return p, ok && p.SenderIP == p.TargetIP
}

// Advertisement decodes a neighbour advertisement (RFC 4861 section 4.4).
func (f Frame) Advertisement() (*ndp.NeighborAdvertisement, bool) {
	d, ok := f.Datagram()
	if !ok || d.Protocol != unix.IPPROTO_ICMPV6 {
		return nil, false
	}
	m, err := ndp.ParseMessage(d.Payload)
	if err != nil {
		return nil, false
	}
	a, ok := m.(*ndp.NeighborAdvertisement)
	return a, ok
}

// IPv4 splits an IPv4 packet.
func (f Frame) IPv4() (*ipv4.Header, []byte, bool) {
	if f.EtherType != ethernet.EtherTypeIPv4 {
		return nil, nil, false
	}
	return splitIPv4(f.Payload)
}

// IGMPJoins returns the groups that a membership report asks for: IGMPv2 (RFC 2236), or IGMPv3 (RFC 3376, section 4.2)
// where "exclude nothing" means join.
func (f Frame) IGMPJoins() []netip.Addr {
	header, b, ok := f.IPv4()
	if !ok || header.Protocol != unix.IPPROTO_IGMP || len(b) < 8 {
		return nil
	}
	switch b[0] {
	case 0x16: // version 2 report
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:8]))}
	case 0x22: // version 3 report
		var groups []netip.Addr
		records, rest := int(b[6])<<8|int(b[7]), b[8:]
		for ; records > 0 && len(rest) >= 8; records-- {
			kind, size := rest[0], 8+4*(int(rest[2])<<8|int(rest[3]))+4*int(rest[1])
			if kind == 2 || kind == 4 { // is, or becomes, EXCLUDE{}
				groups = append(groups, netip.AddrFrom4([4]byte(rest[4:8])))
			}
			rest = rest[min(size, len(rest)):]
		}
		return groups
	}
	return nil
}

func splitIPv4(b []byte) (*ipv4.Header, []byte, bool) {
	h, err := ipv4.ParseHeader(b)
	if err != nil || h.Version != 4 || h.Len < ipv4.HeaderLen || h.Len > len(b) {
		return nil, nil, false
	}
	return h, b[h.Len:min(max(h.TotalLen, h.Len), len(b))], true // without Ethernet's padding
}

// Capture collects the frames that pass an interface of a host.
type Capture struct {
	conn   *packet.Conn
	filter func(Frame) bool
	ended  chan struct{} // closed when reading is over
	err    error         // of reading; valid after ended

	mu      sync.Mutex
	frames  []Frame
	changed chan struct{} // closed and replaced with each frame kept
}

// Capture starts to collect the frames that pass the interface and that filter, when not nil, lets through. Frames in
// flight when it returns are seen. The interface is not made promiscuous; frames that the host then ignores are seen too.
func (h *Host) Capture(nic string, filter func(Frame) bool) (*Capture, error) {
	return h.CaptureSome(nic, nil, filter)
}

// CaptureSome is Capture where the kernel itself drops what the program, when not nil, returns 0 for: that costs much
// less than to look at each frame here. The program sees outgoing frames as packet type 4 (bpf.ExtType).
func (h *Host) CaptureSome(nic string, program []bpf.Instruction, filter func(Frame) bool) (*Capture, error) {
	c := &Capture{filter: filter, ended: make(chan struct{}), changed: make(chan struct{})}
	assembled, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter of a capture: %w", err)
	}
	err = h.Do(func() error {
		ifi, err := net.InterfaceByName(nic)
		if err != nil {
			return err
		}
		c.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: assembled})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s of %s: %w", nic, h.Name, err)
	}
	raw, err := c.conn.SyscallConn()
	if err == nil {
		var stamped error
		// Room for a burst: the answers of hundreds of flows come at once.
		err = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) // Stop reports what overflows
			stamped = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1)
		})
		// Until then there was little room, and frames may have been lost: reading the counters
		// sets them to zero.
		_, statsErr := c.conn.Stats()
		err = errors.Join(err, stamped, statsErr)
	}
	if err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	go func() {
		defer close(c.ended)
		buf := make([]byte, 1<<16)
		err := raw.Read(func(fd uintptr) bool { return !c.drain(int(fd), buf) })
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			c.fail(err)
			return
		}
		// Stop was called; what came before it still counts.
		c.fail(raw.Control(func(fd uintptr) { c.drain(int(fd), buf) }))
	}()
	return c, nil
}

// drain reads until nothing is left, and reports whether more may come.
func (c *Capture) drain(fd int, buf []byte) bool {
	var control [64]byte // room for a time
	for {
		n, m, _, from, err := unix.Recvmsg(fd, buf, control[:], unix.MSG_DONTWAIT)
		switch err {
		case nil:
		case unix.EAGAIN:
			return true
		case unix.EINTR, unix.ENETDOWN: // the link went down; it may come back
			continue
		default:
			c.fail(fmt.Errorf("read a frame: %w", err))
			return false
		}
		f := Frame{Time: seenAt(control[:m])}
		if f.UnmarshalBinary(buf[:n]) != nil {
			continue // not Ethernet II
		}
		if a, ok := from.(*unix.SockaddrLinklayer); ok {
			f.Outgoing = a.Pkttype == unix.PACKET_OUTGOING
		}
		if c.filter != nil && !c.filter(f) {
			continue
		}
		c.mu.Lock()
		c.frames = append(c.frames, f)
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

// seenAt is when the kernel saw the frame that came with a control message; a busy machine may let us read it much later.
func seenAt(control []byte) time.Time {
	header, data, _, err := unix.ParseOneSocketControlMessage(control)
	if err != nil || header.Type != unix.SO_TIMESTAMPNS_NEW || len(data) < 2*word {
		return time.Now()
	}
	seconds, nanoseconds := binary.NativeEndian.Uint64(data), binary.NativeEndian.Uint64(data[word:])
	return time.Unix(int64(seconds), int64(nanoseconds))
}

// word is the length of each of the two numbers of a __kernel_timespec.
const word = 8

// fail is called by the reading goroutine only.
func (c *Capture) fail(err error) { c.err = errors.Join(c.err, err) }

// Frames returns what was collected so far.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Frame{}, c.frames...)
}

// Wait returns the first frame collected, earlier ones included, of which match is true.
func (c *Capture) Wait(ctx context.Context, match func(Frame) bool) (Frame, error) {
	for i := 0; ; {
		c.mu.Lock()
		frames, changed := c.frames, c.changed
		c.mu.Unlock()
		for ; i < len(frames); i++ {
			if match(frames[i]) {
				return frames[i], nil
			}
		}
		select {
		case <-changed:
		case <-c.ended:
			return Frame{}, errors.New("wait for a frame: the capture has ended")
		case <-ctx.Done():
			return Frame{}, fmt.Errorf("wait for a frame: %w", context.Cause(ctx))
		}
	}
}

// Stop ends the capture and returns all that it collected. It is an error if the kernel had to drop a frame.
func (c *Capture) Stop() ([]Frame, error) {
	err := c.conn.SetReadDeadline(time.Unix(1, 0))
	<-c.ended
	stats, statsErr := c.conn.Stats()
	if statsErr == nil && stats.Drops > 0 {
		err = errors.Join(err, fmt.Errorf("the kernel dropped %d of %d frames", stats.Drops, stats.Packets))
	}
	err = errors.Join(err, c.err, statsErr, c.conn.Close())
	if err != nil {
		err = fmt.Errorf("capture: %w", err)
	}
	return c.Frames(), err
}
