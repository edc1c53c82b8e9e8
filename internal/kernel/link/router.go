package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator/doctor"
)

// How many pings a router has to answer, and how long each. One may be lost, be dropped while the router resolves an address (RFC 1122
// section 2.3.2.2 asks to save it, but not all do), or exceed the rate at which the router answers.
const (
	routerPings = 3
	routerWait  = 600 * time.Millisecond
)

// AskRouter pings the router of the interface, from the interface's own address and then from a shared one. The second answer goes to the
// MAC that the router has for the shared address; every node receives frames to the shared MAC, whichever owns the address' bucket. The
// router learns nothing new from such a ping: the frame does not come from the shared MAC, and needs no ARP request.
func (c *Conn) AskRouter(ctx context.Context, nicIndex int, address, router netip.Addr) (answer doctor.RouterAnswer, err error) {
	own, err := c.sourceTo(router, nicIndex, address)
	if err != nil {
		return answer, err
	}
	capture, err := c.capture(nicIndex, unix.ETH_P_IP, 9, unix.IPPROTO_ICMP)
	if err != nil {
		return answer, err
	}
	defer capture.Close() //nolint:errcheck // the messages were sent
	p := pinger{capture: capture, router: router, id: uint16(os.Getpid())}
	var direct *echoReply
	for n := 0; n < routerPings && direct == nil; n++ {
		if direct, err = p.ping(ctx, own, nil); err != nil {
			return answer, err
		}
	}
	if direct == nil {
		return answer, nil
	}
	answer.Direct = true
	for range routerPings {
		reply, err := p.ping(ctx, address, direct.fromMAC)
		if err != nil {
			return answer, err
		}
		if reply != nil {
			answer.To = append(answer.To, clusterip.MACOf(reply.toMAC))
			return answer, nil
		}
		again, err := p.ping(ctx, own, nil)
		if err != nil {
			return answer, err
		}
		answer.Missed = answer.Missed || again == nil
	}
	return answer, nil
}

// A pinger pings a router.
type pinger struct {
	*capture
	router   netip.Addr
	id       uint16
	sequence uint16
}

// ping pings from an address, as any program does, or in a frame of its own to the router's MAC, and returns the answer; nil if there was
// none in time.
func (p *pinger) ping(ctx context.Context, from netip.Addr, routerMAC net.HardwareAddr) (reply *echoReply, err error) {
	p.sequence++
	if routerMAC == nil {
		err = sendEcho(from, p.router, echo(p.id, p.sequence))
	} else {
		err = p.sendFrame(from, routerMAC)
	}
	if err != nil {
		return nil, fmt.Errorf("ping %s from %s: %w", p.router, from, err)
	}
	err = p.until(deadlineIn(ctx, routerWait), func(frame []byte) bool {
		r, ok := decodeReply(frame, p.id)
		if ok && r.from == p.router && r.to == from {
			reply = &r
		}
		return reply != nil
	})
	return reply, err
}

func (p *pinger) sendFrame(from netip.Addr, routerMAC net.HardwareAddr) error {
	frame, err := echoFrame(p.nic.HardwareAddr, routerMAC, from, p.router, echo(p.id, p.sequence))
	if err != nil {
		return err
	}
	_, err = p.WriteTo(frame, &packet.Addr{HardwareAddr: routerMAC})
	return err
}

// sourceTo is the node's own address from which it reaches the router.
func (c *Conn) sourceTo(router netip.Addr, nicIndex int, shared netip.Addr) (netip.Addr, error) {
	routes, err := c.netlink.RouteGet(router.AsSlice())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the route to %s: %w", router, err)
	}
	for _, route := range routes {
		if source, ok := netip.AddrFromSlice(route.Src); ok && route.LinkIndex == nicIndex && source.Unmap() != shared {
			return source.Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("the interface has no address of its own from which to ping the router")
}

// sendEcho sends a message as any program does.
func sendEcho(from, to netip.Addr, message []byte) error {
	conn, err := net.ListenPacket("ip4:icmp", from.String())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the message was sent
	_, err = conn.WriteTo(message, &net.IPAddr{IP: to.AsSlice()})
	return err
}

// Types of ICMP messages (RFC 792), and the lengths of headers in bytes.
const (
	echoReplyType   = 0
	echoRequestType = 8
	icmpHeader      = 8
	ipv4Header      = 20
)

// echo is an ICMP echo request (RFC 792). It is built by hand, because golang.org/x/net/icmp would make a table at each start of the
// program.
func echo(id, sequence uint16) []byte {
	message := make([]byte, icmpHeader)
	message[0] = echoRequestType
	binary.BigEndian.PutUint16(message[4:], id)
	binary.BigEndian.PutUint16(message[6:], sequence)
	message = append(message, "ocf-clusterip doctor"...)
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	return message
}

// echoFrame is a frame with an ICMP message in an IP packet.
func echoFrame(fromMAC, toMAC net.HardwareAddr, from, to netip.Addr, message []byte) ([]byte, error) {
	return (&ethernet.Frame{
		Destination: toMAC, Source: fromMAC, EtherType: ethernet.EtherTypeIPv4, Payload: ipv4Packet(from, to, unix.IPPROTO_ICMP, 0, message),
	}).MarshalBinary()
}

// ipv4Packet puts a header before a payload (RFC 791 section 3.1). flags are the header's byte that begins with them.
func ipv4Packet(from, to netip.Addr, protocol, flags byte, payload []byte) []byte {
	const version4, ttl = 0x40, 64
	header := make([]byte, ipv4Header)
	header[0] = version4 | ipv4Header/4
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(payload)))
	header[6], header[8], header[9] = flags, ttl, protocol
	copy(header[12:], from.AsSlice())
	copy(header[16:], to.AsSlice())
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return append(header, payload...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// echoReply is the answer to a ping.
type echoReply struct {
	fromMAC, toMAC net.HardwareAddr
	from, to       netip.Addr
}

// decodeReply decodes a frame, if it is an answer to a ping with that id.
func decodeReply(frame []byte, id uint16) (echoReply, bool) {
	ip := frame[ipOffset:]
	if len(ip) < ipv4Header {
		return echoReply{}, false
	}
	length := int(ip[0]&0xf) * 4
	if length < ipv4Header || len(ip) < length+icmpHeader || ip[length] != echoReplyType || binary.BigEndian.Uint16(ip[length+4:]) != id {
		return echoReply{}, false
	}
	return echoReply{
		toMAC: slices.Clone(frame[:6]), fromMAC: slices.Clone(frame[6:12]),
		from: netip.AddrFrom4([4]byte(ip[12:16])), to: netip.AddrFrom4([4]byte(ip[16:20])),
	}, true
}
