package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Offsets in an Ethernet frame without a VLAN tag, in bytes.
const (
	typeOffset = 12
	ipOffset   = 14
)

// A sniffer hears the frames of one kind that a NIC lets in, before any firewall does.
type sniffer struct {
	conn *packet.Conn
	nic  *net.Interface
}

// sniff opens a sniffer for IP packets whose byte at that offset has the value.
func (c *Conn) sniff(nicIndex int, etherType uint32, offset, value uint32) (*sniffer, error) {
	link, err := c.netlink.LinkByIndex(nicIndex)
	if err != nil {
		return nil, err
	}
	const reject, whole = 0, 0x40000
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeOffset, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherType, SkipTrue: 3},
		bpf.LoadAbsolute{Off: ipOffset + offset, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: 1},
		bpf.RetConstant{Val: whole},
		bpf.RetConstant{Val: reject},
	})
	if err != nil {
		return nil, fmt.Errorf("assemble a filter: %w", err)
	}
	nic := interfaceOf(link)
	conn, err := packet.Listen(nic, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	return &sniffer{conn, nic}, nil
}

func (s *sniffer) close() { _ = s.conn.Close() }

// until visits frames until one is the last, or the time is over, which is no error.
func (s *sniffer) until(deadline time.Time, visit func(frame []byte) (last bool)) error {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	const longest = 1 << 16
	buffer := make([]byte, longest)
	for {
		n, _, err := s.conn.ReadFrom(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case n > ipOffset && visit(buffer[:n]):
			return nil
		}
	}
}

// A router has so many pings to answer, and so long for each. One may be lost, be dropped while the router looks for whom to answer
// (RFC 1122, section 2.3.2.2, asks to save it, but not all do), or be one too many for a router that limits what it answers.
const (
	routerPings = 3
	routerWait  = 600 * time.Millisecond
)

// AskRouter pings the router of the NIC, from the NIC's own address and then from a shared one. The answer to the second goes to the MAC
// that the router has for the shared address, whichever node owns it, and every node hears what is sent to the cluster MAC. The router
// learns nothing from a ping that it did not know: the frame is not from the cluster MAC, and no ARP request goes out for it.
func (c *Conn) AskRouter(ctx context.Context, nicIndex int, address, router netip.Addr) (clusterip.RouterAnswer, error) {
	var answer clusterip.RouterAnswer
	own, err := c.ownAddress(nicIndex, address, router)
	if err != nil {
		return answer, err
	}
	s, err := c.sniff(nicIndex, unix.ETH_P_IP, 9, unix.IPPROTO_ICMP)
	if err != nil {
		return answer, err
	}
	defer s.close()
	q := questioner{sniffer: s, router: router, id: uint16(os.Getpid())}
	var heard *heardEcho
	for range routerPings {
		if heard, err = q.ping(ctx, own, nil); heard != nil || err != nil {
			break
		}
	}
	if err != nil || heard == nil {
		return answer, err
	}
	answer.Direct = true
	routerMAC := slices.Clone(heard.ethernetFrom)
	for range routerPings {
		heard, err := q.ping(ctx, address, routerMAC)
		if err != nil {
			return answer, err
		}
		if heard != nil {
			answer.To = append(answer.To, clusterip.MACOf(heard.ethernetTo))
			return answer, nil
		}
		again, err := q.ping(ctx, own, nil)
		if err != nil {
			return answer, err
		}
		answer.Missed = answer.Missed || again == nil
	}
	return answer, nil
}

// A questioner pings a router.
type questioner struct {
	*sniffer
	router   netip.Addr
	id       uint16
	sequence uint16
}

// ping pings from an address, as any program does, or in a frame of its own to the router's MAC, and returns the answer; nil if there was
// none in time.
func (q *questioner) ping(ctx context.Context, from netip.Addr, routerMAC net.HardwareAddr) (*heardEcho, error) {
	q.sequence++
	var err error
	if routerMAC == nil {
		err = sendEcho(from, q.router, echo(q.id, q.sequence))
	} else {
		err = q.sendFrame(from, routerMAC)
	}
	if err != nil {
		return nil, fmt.Errorf("ping %s from %s: %w", q.router, from, err)
	}
	var heard *heardEcho
	err = q.until(earlier(ctx, routerWait), func(frame []byte) bool {
		e, ok := echoReply(frame, q.id)
		if ok && e.from == q.router && e.to == from {
			heard = &e
		}
		return heard != nil
	})
	return heard, err
}

func (q *questioner) sendFrame(from netip.Addr, routerMAC net.HardwareAddr) error {
	frame, err := echoFrame(q.nic.HardwareAddr, routerMAC, from, q.router, echo(q.id, q.sequence))
	if err != nil {
		return err
	}
	_, err = q.conn.WriteTo(frame, &packet.Addr{HardwareAddr: routerMAC})
	return err
}

// ownAddress is the one that the node speaks to the router from.
func (c *Conn) ownAddress(nicIndex int, shared, router netip.Addr) (netip.Addr, error) {
	routes, err := c.netlink.RouteGet(router.AsSlice())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the way to %s: %w", router, err)
	}
	for _, route := range routes {
		if source, ok := netip.AddrFromSlice(route.Src); ok && route.LinkIndex == nicIndex && source.Unmap() != shared {
			return source.Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("the interface has no address of its own to ask the router from")
}

// sendEcho sends a message as any program does.
func sendEcho(from, to netip.Addr, message []byte) error {
	conn, err := net.ListenPacket("ip4:icmp", from.String())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // what was sent is sent
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

// echo is an ICMP echo request (RFC 792). It is built by hand: what golang.org/x/net/ipv4 has for it is a table that the program would make
// whenever it starts, for each action.
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
	const version4, ttl = 0x40, 64
	header := make([]byte, ipv4Header)
	header[0] = version4 | ipv4Header/4
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(message)))
	header[8], header[9] = ttl, unix.IPPROTO_ICMP
	copy(header[12:], from.AsSlice())
	copy(header[16:], to.AsSlice())
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return (&ethernet.Frame{Destination: toMAC, Source: fromMAC, EtherType: ethernet.EtherTypeIPv4, Payload: append(header, message...)}).MarshalBinary()
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

type heardEcho struct {
	ethernetFrom, ethernetTo net.HardwareAddr
	from, to                 netip.Addr
}

// echoReply reads a frame that is an answer to a ping of ours.
func echoReply(frame []byte, id uint16) (heardEcho, bool) {
	ip := frame[ipOffset:]
	if len(ip) < ipv4Header {
		return heardEcho{}, false
	}
	length := int(ip[0]&0xf) * 4
	if length < ipv4Header || len(ip) < length+icmpHeader || ip[length] != echoReplyType || binary.BigEndian.Uint16(ip[length+4:]) != id {
		return heardEcho{}, false
	}
	return heardEcho{
		ethernetTo: frame[:6], ethernetFrom: frame[6:12],
		from: netip.AddrFrom4([4]byte(ip[12:16])), to: netip.AddrFrom4([4]byte(ip[16:20])),
	}, true
}

// HearsQuerier waits for somebody on the NIC's LAN to ask for members of groups, of IPv4 (IGMP) or IPv6 (MLD). Of IPv6 the kernel
// remembers whether it has ever heard one.
func (c *Conn) HearsQuerier(ctx context.Context, nic clusterip.NIC, ipv6 bool, wait time.Duration) (bool, error) {
	etherType, nextHeader, value := uint32(unix.ETH_P_IP), uint32(9), uint32(unix.IPPROTO_IGMP)
	isQuery := isIGMPQuery
	if ipv6 {
		if heard, err := heardMLDQuery(nic.Name); err != nil || heard {
			return heard, err
		}
		etherType, nextHeader, value = unix.ETH_P_IPV6, 6, unix.IPPROTO_HOPOPTS
		isQuery = isMLDQuery
	}
	if wait <= 0 {
		return false, nil
	}
	s, err := c.sniff(nic.Index, etherType, nextHeader, value)
	if err != nil {
		return false, err
	}
	defer s.close()
	heard := false
	err = s.until(earlier(ctx, wait), func(frame []byte) bool {
		heard = isQuery(frame)
		return heard
	})
	return heard, err
}

// isIGMPQuery reads an IGMP message of any version (RFC 9776 section 4.1): queries have type 0x11.
func isIGMPQuery(frame []byte) bool {
	const query = 0x11
	ip := frame[ipOffset:]
	length := int(ip[0]&0xf) * 4
	return length < len(ip) && ip[length] == query
}

// isMLDQuery reads an ICMPv6 message behind a hop-by-hop header, as all of MLD are (RFC 9777 section 5).
func isMLDQuery(frame []byte) bool {
	const ipv6Header, query = 40, 130
	ip := frame[ipOffset:]
	if len(ip) < ipv6Header+2 || ip[ipv6Header] != unix.IPPROTO_ICMPV6 {
		return false
	}
	icmpAt := ipv6Header + (int(ip[ipv6Header+1])+1)*8
	return icmpAt < len(ip) && ip[icmpAt] == query
}

// heardMLDQuery reads the kernel's counters of a NIC.
func heardMLDQuery(nic string) (bool, error) {
	text, err := os.ReadFile(filepath.Join("/proc/thread-self/net/dev_snmp6", nic)) //nolint:gosec // the name is the kernel's
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the counters of %s: %w", nic, err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "\t"); strings.TrimSpace(name) == "Icmp6InGroupMembQueries" {
			count, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			return count > 0, err
		}
	}
	return false, nil
}

func earlier(ctx context.Context, wait time.Duration) time.Time {
	deadline := time.Now().Add(wait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		return d
	}
	return deadline
}
