//go:build system

package kernel

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// A client behind a router with a narrow link downloads from the address. The ICMP error about the narrow link comes
// from the router, whose own address belongs to another node's bucket (RFC 1191, RFC 8201).
func TestPathMTUDiscoveryThroughARouter(t *testing.T) {
	for _, target := range []netip.Addr{shared, shared6} {
		eachHashMode(t, func(t *testing.T, p harness.Parameters) {
			const mtu, size, serving, other = 1300, 400_000, 0, 1
			s := newSite(t, lan.Options{Nodes: 2}, 8, p.With("ip", dualStack))
			check(t, s.AddRouter(t.Context(), mtu))
			// Packets as a wire would carry them: the kernel otherwise hands a train of segments on as one.
			check(t, s.Router.Handle().LinkSetGSOMaxSegs(link(t, s.Router, "eth1"), 1))
			router, headers := s.Router.Addr, 40 // of IP and TCP
			if target.Is6() {
				router, headers = s.Router.Addr6, 60
			}
			download := s.flowUnlike(t, router, target)
			at := []int{other, other, other, other, other, other, other, other}
			at[s.bucket(download)] = serving
			check(t, s.startAll(at...))

			// The client's segment size, the router's ICMP errors, and the packets that arrive in the end.
			syns := capture(t, s.Nodes[serving], lan.NIC, func(f lan.Frame) bool { return mss(f) > 0 && !f.Outgoing })
			tooBig := capture(t, s.Nodes[serving], lan.NIC, func(f lan.Frame) bool { return !f.Outgoing && nextHopMTU(f) == mtu })
			arrived := capture(t, s.Far, lan.NIC, func(f lan.Frame) bool {
				d, ok := f.Datagram()
				return ok && !f.Outgoing && d.Src == target && d.Protocol == unix.IPPROTO_TCP
			})
			name, err := fetch(t.Context(), s.Far, download, size)
			if err != nil {
				t.Errorf("download: %v", err)
			}
			if name != s.Nodes[serving].Name {
				t.Errorf("answered by %q", name)
			}
			if frames := captured(t, syns); len(frames) != 1 || mss(frames[0]) != 1500-headers {
				t.Errorf("%d SYNs; the client must announce a segment size of %d, or no ICMP error would be needed", len(frames), 1500-headers)
			}
			errs := captured(t, tooBig)
			if len(errs) == 0 {
				t.Error("no \"too big\" came from the router: nothing was shown")
			}
			for _, f := range errs {
				if d, _ := f.Datagram(); d.Src != router || f.Destination.String() != net.HardwareAddr(macOf(s, target)).String() {
					t.Errorf("\"too big\" from %s to MAC %s", d.Src, f.Destination)
				}
			}
			full := 0
			for _, f := range captured(t, arrived) {
				d, _ := f.Datagram()
				length := len(d.Payload) + headers - 20
				if h, _, is4 := f.IPv4(); is4 && h.Flags&ipv4.DontFragment == 0 || length > mtu {
					t.Fatalf("a packet of %d bytes arrived, or one that may be fragmented", length)
				}
				if length == mtu {
					full++
				}
			}
			if full < size/mtu/2 {
				t.Errorf("%d packets of %d bytes arrived: the node did not use the path's MTU", full, mtu)
			}
			t.Logf("%s: %d \"too big\", then %d packets of %d bytes", target, len(errs), full, mtu)
		})
	}
}

// macOf is the shared MAC of an address.
func macOf(s *site, address netip.Addr) []byte {
	mac := s.spec.MACs.Of(address)
	return mac[:]
}

// flowUnlike returns a connection from the far client that falls into another bucket than what comes from an address.
func (s *site) flowUnlike(t *testing.T, from, target netip.Addr) lan.Flow {
	t.Helper()
	network, own := lan.FarNet, s.Far.Addr
	if target.Is6() {
		network, own = lan.FarNet6, s.Far.Addr6
	}
	for port := uint16(40000); port < 40064; port++ {
		for host := range 50 { // in sourceip mode only another address helps
			f := lan.Flow{Proto: lan.TCP, Src: lan.Nth(network, 10+host), Dst: target, SrcPort: port, DstPort: lan.EchoPort}
			if s.bucket(f) != s.bucket(lan.Flow{Proto: lan.ICMP, Src: from}) {
				if f.Src != own {
					check(t, s.Far.AddAddress(lan.NIC, netip.PrefixFrom(f.Src, network.Bits())))
				}
				return f
			}
		}
	}
	t.Fatalf("every flow has the bucket of %s", from)
	return lan.Flow{}
}

// fetch makes a connection, lets the server send that many bytes, and returns the server's name.
func fetch(ctx context.Context, from *lan.Host, f lan.Flow, size int64) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	conn, err := from.Dial(ctx, netip.AddrPortFrom(f.Src, f.SrcPort), netip.AddrPortFrom(f.Dst, f.DstPort))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		return "", err
	}
	answer := bufio.NewReader(conn)
	if name, err = answer.ReadString('\n'); err != nil {
		return "", err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	n, err := io.CopyN(io.Discard, answer, size)
	if err != nil {
		err = fmt.Errorf("%d of %d bytes: %w", n, size, err)
		_ = conn.Close() // ends the writer
	}
	return name[:len(name)-1], errors.Join(err, <-sent)
}

const tcpOptMSS = 2 // RFC 9293, section 3.2

// mss returns the segment size that a SYN announces; 0 for anything else.
func mss(f lan.Frame) int {
	d, ok := f.Datagram()
	if b := d.Payload; ok && d.Protocol == unix.IPPROTO_TCP && len(b) >= 24 && b[13]&(lan.TCPSyn|lan.TCPAck) == lan.TCPSyn &&
		b[20] == tcpOptMSS {
		return int(binary.BigEndian.Uint16(b[22:]))
	}
	return 0
}

// nextHopMTU returns the MTU of an ICMP "fragmentation needed" or an ICMPv6 "packet too big"; 0 for anything else.
func nextHopMTU(f lan.Frame) int {
	d, ok := f.Datagram()
	if !ok || len(d.Payload) < 8 {
		return 0
	}
	switch {
	case d.Protocol == unix.IPPROTO_ICMP && ipv4.ICMPType(d.Payload[0]) == ipv4.ICMPTypeDestinationUnreachable && d.Payload[1] == 4:
		return int(binary.BigEndian.Uint16(d.Payload[6:]))
	case d.Protocol == unix.IPPROTO_ICMPV6 && ipv6.ICMPType(d.Payload[0]) == ipv6.ICMPTypePacketTooBig:
		return int(binary.BigEndian.Uint32(d.Payload[4:]))
	default:
		return 0
	}
}
