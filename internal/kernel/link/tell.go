package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// TellClients implements clusterip.ClientKernel.
//
// A segment whose sequence number is not in the window makes the client acknowledge what it has received (RFC 9293 section 3.10.7.4). This
// node has no socket for that, and its kernel answers with a reset, whose number the client accepts. Samba's CTDB calls such a segment a
// tickle ACK. It leaves through a packet socket: conntrack would take it for the beginning of a connection of this node.
//
// The number is the one before that which the client expects, as in a keep-alive (RFC 9293 section 3.8.4): firewalls and address
// translation on the way let that pass. Where it is not known, or the second time, it is any number.
func (c *Conn) TellClients(
	ctx context.Context, layout clusterip.Layout, connections []clusterip.Remembered, again bool, rate int,
) (told int, err error) {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("tell clients of %s: open a packet socket: %w", layout.Address(), err)
	}
	defer func() { _ = unix.Close(socket) }()
	t := &teller{
		Conn: c, nic: layout.NICIndex, socket: socket, pace: newPace(rate), sequence: rand.Uint32(), //nolint:gosec // any number does
		hops: map[netip.Addr]hop{}, links: map[int]*netlink.LinkAttrs{}, again: again,
	}
	return t.tell(ctx, connections)
}

// A hop is where packets to a client leave this node, and to whom.
type hop struct {
	nic int
	to  netip.Addr
}

type teller struct {
	*Conn
	nic      int // the layout's
	socket   int
	pace     pace
	sequence uint32
	hops     map[netip.Addr]hop // by client
	links    map[int]*netlink.LinkAttrs
	again    bool
	told     int
}

// How many neighbours are asked for their MAC at once, and how long they are waited for. When the kernel's table is full (gc_thresh3, 1024
// by default), it forgets those that are older than five seconds (neigh_forced_gc in net/core/neighbour.c).
const (
	askAtOnce  = 256
	askTime    = 500 * time.Millisecond
	askedPause = 5 * time.Millisecond
	fullTries  = 20 // times askTime
)

// tell tells the clients first whose next hop has a MAC that is known: most of them, if they are behind a router.
func (t *teller) tell(ctx context.Context, connections []clusterip.Remembered) (int, error) {
	byHop := map[hop][]clusterip.Remembered{}
	var order []hop
	for _, each := range connections {
		if err := ctx.Err(); err != nil {
			return t.told, err
		}
		next, err := t.hopTo(each.Connection)
		if err != nil {
			return t.told, err
		}
		if next == (hop{}) {
			continue
		}
		if byHop[next] == nil {
			order = append(order, next)
		}
		byHop[next] = append(byHop[next], each)
	}
	unknown, err := t.tellKnown(ctx, order, byHop)
	for tries := 0; len(unknown) > 0 && err == nil && tries < fullTries; {
		var asked int
		if asked, err = t.ask(ctx, unknown[:min(len(unknown), askAtOnce)]); asked == 0 && err == nil {
			tries++
			err = clusterip.Pause(ctx, askTime)
			continue
		}
		chunk := unknown[:asked]
		unknown, tries = unknown[asked:], 0
		for deadline := deadlineIn(ctx, askTime); len(chunk) > 0 && err == nil && time.Now().Before(deadline); {
			if err = clusterip.Pause(ctx, askedPause); err == nil {
				chunk, err = t.tellKnown(ctx, chunk, byHop)
			}
		}
	}
	return t.told, err
}

// hopTo returns the next hop; none if the client cannot be reached, or is this node.
func (t *teller) hopTo(c clusterip.Connection) (hop, error) {
	client := c.Client.Addr()
	if known, ok := t.hops[client]; ok {
		return known, nil
	}
	var next hop
	options := &netlink.RouteGetOptions{SrcAddr: c.Local.Addr().AsSlice()}
	if client.IsLinkLocalUnicast() { // each interface has this network
		options.OifIndex = t.nic
	}
	routes, err := t.netlink.RouteGetWithOptions(client.AsSlice(), options)
	isUnreachable := errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) ||
		errors.Is(err, unix.EINVAL)
	if err != nil && !isUnreachable {
		return next, fmt.Errorf("find the route to %s: %w", client, err)
	}
	if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_UNICAST {
		next = hop{routes[0].LinkIndex, client}
		if gateway, ok := netip.AddrFromSlice(routes[0].Gw); ok {
			next.to = gateway.Unmap()
		} else if via, ok := routes[0].Via.(*netlink.Via); ok {
			gateway, _ := netip.AddrFromSlice(via.Addr)
			next.to = gateway.Unmap()
		}
	}
	t.hops[client] = next
	return next, nil
}

// tellKnown tells the clients behind those hops whose MAC is known, and returns the other hops.
func (t *teller) tellKnown(ctx context.Context, hops []hop, byHop map[hop][]clusterip.Remembered) (unknown []hop, err error) {
	macs, err := t.neighbours(ctx, hops)
	if err != nil {
		return nil, err
	}
	for _, next := range hops {
		attributes, err := t.link(next.nic)
		if err != nil {
			return nil, err
		}
		mac, known := macs[next]
		if !known && attributes.RawFlags&unix.IFF_NOARP == 0 {
			unknown = append(unknown, next)
			continue
		}
		for _, each := range byHop[next] {
			if err := t.pace.wait(ctx); err != nil {
				return nil, err
			}
			if err := t.send(ctx, next.nic, mac, each); err != nil {
				return nil, err
			}
			t.told++
		}
	}
	return unknown, nil
}

func (t *teller) link(nic int) (*netlink.LinkAttrs, error) {
	if known := t.links[nic]; known != nil {
		return known, nil
	}
	device, err := t.netlink.LinkByIndex(nic)
	if err != nil {
		return nil, fmt.Errorf("read interface %d: %w", nic, err)
	}
	t.links[nic] = device.Attrs()
	return device.Attrs(), nil
}

// neighbours returns the MACs of hops that are known. The kernel confirms one that may be old when it is used, but not when a packet socket
// uses it; a client that has moved meanwhile is told by the second segment, or not at all.
func (t *teller) neighbours(ctx context.Context, hops []hop) (map[hop]net.HardwareAddr, error) {
	const valid = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
	macs, read := map[hop]net.HardwareAddr{}, map[int]bool{}
	for _, next := range hops {
		if read[next.nic] {
			continue
		}
		read[next.nic] = true
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			all, err := dump(ctx, func() ([]netlink.Neigh, error) { return t.netlink.NeighList(next.nic, family) })
			if err != nil {
				return nil, fmt.Errorf("list the neighbours: %w", err)
			}
			for _, each := range all {
				if to, ok := netip.AddrFromSlice(each.IP); ok && each.State&valid != 0 && each.HardwareAddr != nil {
					macs[hop{next.nic, to.Unmap()}] = each.HardwareAddr
				}
			}
		}
	}
	return macs, nil
}

// ask has the kernel ask neighbours for their MACs, as if it had a packet for them (NTF_USE, neigh_add in net/core/neighbour.c). It returns
// how many it could ask, the first ones, before the kernel's table was full.
func (t *teller) ask(ctx context.Context, hops []hop) (asked int, err error) {
	conn, err := mdlayher.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return 0, fmt.Errorf("connect to rtnetlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(deadlineIn(ctx, askTime)); err != nil {
		return 0, fmt.Errorf("connect to rtnetlink: %w", err)
	}
	for i, next := range hops {
		const stateOffset, flagsOffset = 8, 10
		message := make([]byte, unix.SizeofNdMsg)
		message[0] = byte(familyOf(next.to))
		binary.NativeEndian.PutUint32(message[4:], uint32(next.nic))
		binary.NativeEndian.PutUint16(message[stateOffset:], netlink.NUD_NONE)
		message[flagsOffset] = netlink.NTF_USE
		encoder := mdlayher.NewAttributeEncoder()
		encoder.Bytes(netlink.NDA_DST, next.to.AsSlice())
		attributes, err := encoder.Encode()
		if err == nil {
			_, err = conn.Execute(mdlayher.Message{
				Header: mdlayher.Header{Type: unix.RTM_NEWNEIGH, Flags: mdlayher.Request | mdlayher.Acknowledge | mdlayher.Create},
				Data:   append(message, attributes...),
			})
		}
		switch {
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			return i, nil
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENETDOWN): // this one cannot be asked
		case err != nil:
			return i, fmt.Errorf("ask for the MAC of %s: %w", next.to, err)
		}
	}
	return len(hops), nil
}

// send sends a segment. Where the interface has no room for it, it waits.
func (t *teller) send(ctx context.Context, nic int, mac net.HardwareAddr, c clusterip.Remembered) error {
	to := &unix.SockaddrLinklayer{Ifindex: nic, Halen: uint8(len(mac))}
	copy(to.Addr[:], mac)
	protocol := uint16(unix.ETH_P_IPV6)
	if c.Client.Addr().Is4() {
		protocol = unix.ETH_P_IP
	}
	to.Protocol = binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, protocol))
	segment := tickle(c.Connection, t.numbers(c))
	err := unix.Sendto(t.socket, segment, unix.MSG_DONTWAIT, to)
	for errors.Is(err, unix.EAGAIN) {
		if err := clusterip.Pause(ctx, time.Millisecond); err != nil {
			return err
		}
		err = unix.Sendto(t.socket, segment, unix.MSG_DONTWAIT, to)
	}
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) {
		return nil // as if it were lost on the way
	}
	if err != nil {
		return fmt.Errorf("tell %s: %w", c.Client, err)
	}
	return nil
}

// numbers returns the sequence and acknowledgment numbers to send.
func (t *teller) numbers(c clusterip.Remembered) clusterip.Numbers {
	switch {
	case c.Known && !t.again:
		return clusterip.Numbers{Next: c.Expected - 1, Expected: c.Next}
	case c.Known:
		return clusterip.Numbers{Next: c.Expected + 1<<31, Expected: c.Next}
	case t.again: // whatever the first number was, one of the two is out of the window
		return clusterip.Numbers{Next: t.sequence + 1<<31}
	default:
		return clusterip.Numbers{Next: t.sequence}
	}
}

// Lengths of headers, in bytes.
const (
	ipv6Header = 40
	tcpHeader  = 20
)

// tickle returns an IP packet with a TCP acknowledgment from the connection's server.
func tickle(c clusterip.Connection, n clusterip.Numbers) []byte {
	const acknowledges, wordsShift = 0x10, 4
	segment := make([]byte, tcpHeader)
	binary.BigEndian.PutUint16(segment, c.Local.Port())
	binary.BigEndian.PutUint16(segment[2:], c.Client.Port())
	binary.BigEndian.PutUint32(segment[4:], n.Next)
	binary.BigEndian.PutUint32(segment[8:], n.Expected)
	segment[12], segment[13] = tcpHeader/4<<wordsShift, acknowledges //nolint:mnd // words of four bytes
	addresses := append(c.Local.Addr().AsSlice(), c.Client.Addr().AsSlice()...)
	pseudo := append(append([]byte{}, addresses...), 0, unix.IPPROTO_TCP, 0, tcpHeader) // RFC 9293 section 3.1
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...)))
	if c.Client.Addr().Is4() {
		const dontFragment = 0x40
		return ipv4Packet(c.Local.Addr(), c.Client.Addr(), unix.IPPROTO_TCP, dontFragment, segment)
	}
	const version6, ttl = 0x60, 64
	header := make([]byte, ipv6Header-len(addresses))
	header[0], header[5], header[6], header[7] = version6, tcpHeader, unix.IPPROTO_TCP, ttl
	return append(append(header, addresses...), segment...)
}

// pace lets through so many a second, in bursts of ten milliseconds.
type pace struct {
	each time.Duration
	next time.Time
}

func newPace(rate int) pace { return pace{time.Second / time.Duration(max(rate, 1)), time.Now()} }

func (p *pace) wait(ctx context.Context) error {
	const burst = 10 * time.Millisecond
	p.next = p.next.Add(p.each)
	if ahead := time.Until(p.next); ahead > burst {
		return clusterip.Pause(ctx, ahead)
	} else if ahead < -burst { // it stood still
		p.next = time.Now().Add(-burst)
	}
	return ctx.Err()
}
