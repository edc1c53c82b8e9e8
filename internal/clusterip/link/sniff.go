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
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
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

// routerWait is how long a router has for each answer.
const routerWait = time.Second

// AskRouter pings the router of the NIC twice, from the NIC's own address and from a shared one. The answer to the second goes to the MAC
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
	id := os.Getpid() & 0xffff
	if err := ping(own, router, id); err != nil {
		return answer, err
	}
	var routerMAC net.HardwareAddr
	err = s.until(earlier(ctx, routerWait), func(frame []byte) bool {
		e, ok := echoReply(frame, id)
		if ok && e.from == router && e.to == own {
			answer.Direct, routerMAC = true, slices.Clone(e.ethernetFrom)
		}
		return answer.Direct
	})
	if err != nil || !answer.Direct {
		return answer, err
	}
	frame, err := echoFrame(s.nic.HardwareAddr, routerMAC, address, router, id)
	if err != nil {
		return answer, err
	}
	if _, err := s.conn.WriteTo(frame, &packet.Addr{HardwareAddr: routerMAC}); err != nil {
		return answer, fmt.Errorf("ping %s from %s: %w", router, address, err)
	}
	err = s.until(earlier(ctx, routerWait), func(frame []byte) bool {
		e, ok := echoReply(frame, id)
		if !ok || e.from != router || e.to != address {
			return false
		}
		answer.To = append(answer.To, clusterip.MACOf(e.ethernetTo))
		return true
	})
	return answer, err
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

// ping sends an echo request as any program does.
func ping(from, to netip.Addr, id int) error {
	conn, err := net.ListenPacket("ip4:icmp", from.String())
	if err != nil {
		return fmt.Errorf("ping %s: %w", to, err)
	}
	defer conn.Close() //nolint:errcheck // what was sent is sent
	message, err := echo(id)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(message, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return fmt.Errorf("ping %s: %w", to, err)
	}
	return nil
}

func echo(id int) ([]byte, error) {
	return (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("ocf-clusterip doctor")}}).Marshal(nil)
}

// echoFrame is an echo request with its own IP header.
func echoFrame(fromMAC, toMAC net.HardwareAddr, from, to netip.Addr, id int) ([]byte, error) {
	message, err := echo(id)
	if err != nil {
		return nil, err
	}
	const ttl = 64
	header := make([]byte, ipv4.HeaderLen)
	header[0] = ipv4.Version<<4 | ipv4.HeaderLen/4
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
func echoReply(frame []byte, id int) (heardEcho, bool) {
	ip := frame[ipOffset:]
	if len(ip) < ipv4.HeaderLen {
		return heardEcho{}, false
	}
	length := int(ip[0]&0xf) * 4
	if length < ipv4.HeaderLen || len(ip) < length+8 || ip[length] != byte(ipv4.ICMPTypeEchoReply) ||
		binary.BigEndian.Uint16(ip[length+4:]) != uint16(id) {
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
