//go:build system

package kernel

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/lan"
)

// Nodes that forward and whose interfaces are promiscuous receive and could forward everything. A client then must see neither a
// second answer nor a forwarded copy: before the resource starts, while buckets come and go, and after it has stopped.
func TestForwardingPromiscuousNodesStaySilent(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{}, 4, webIP("ip", dualStack, "mac_mode", string(mode), "arp_interval", "1"))
			for _, h := range s.Nodes {
				forward(t, h)
				check(t, h.Handle().SetPromiscOn(link(t, h, lan.NIC)))
			}
			var streams []*lan.Stream
			for _, target := range s.spec.Addresses {
				// The client has the shared MAC from before.
				check(t, s.Client.SetNeighbour(target, macOf(s, target)))
			}
			silence := func(when string) {
				t.Helper()
				for _, target := range s.spec.Addresses {
					r := probe(t, s.Network, lan.Traffic{Target: target, Sources: s.SourcesLike(target, 64), Timeout: 50 * time.Millisecond})
					if n := r.Answered(); len(n) != 0 {
						t.Errorf("%s: %s is answered by %v", when, target, n)
					}
				}
			}
			silence("before the start")
			for _, target := range s.spec.Addresses {
				stream, err := s.Stream(t.Context(), lan.Traffic{Target: target, Sources: s.SourcesLike(target, 64)}, 1500)
				check(t, err)
				streams = append(streams, stream)
			}
			for range 3 {
				check(t, s.startAll(0, 1, 2, 0))
				check(t, s.stopAll())
			}
			check(t, s.startAll(0, 1, 2, 0))
			for _, stream := range streams {
				r, err := stream.Stop()
				check(t, err)
				if err := r.AtMostOnce(func(f lan.Flow, node int) bool { return s.owner(f) == node }); err != nil {
					t.Errorf("while buckets start and stop: %v", err)
				}
			}
			everyFlow(t, s)
			check(t, s.stopAll())
			silence("after the stop")
		})
	}
}

// forward makes a router of a node, for both families.
func forward(t *testing.T, h *lan.Host) {
	t.Helper()
	check(t, h.Sysctl("net/ipv4/ip_forward", "1"))
	check(t, h.Sysctl("net/ipv6/conf/all/forwarding", "1"))
}

// A node must neither answer nor forward frames for others, even if it is a router and its interface is promiscuous.
func TestFramesForOthersAreLeftAlone(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{}, 1, webIP("mac_mode", string(mode)))
			for _, h := range s.Nodes {
				check(t, h.Sysctl("net/ipv4/ip_forward", "1"))
				check(t, h.Handle().SetPromiscOn(link(t, h, lan.NIC)))
			}
			check(t, s.startAll(0))
			s.awaitDelivery(t)
			unknown := net.HardwareAddr{2, 0, 0, 0, 0x77, 0x77} // the switch floods it
			unused := netip.MustParseAddr("192.168.10.99")
			for _, tt := range []struct {
				name    string
				mac     net.HardwareAddr
				ip      netip.Addr
				answers int // echo replies
			}{
				{"to the shared MAC and the address, as it should be", s.spec.MACs.IPv4[:], shared, 1},
				{"to another host's MAC and the address", unknown, shared, 0},
				{"to another host's MAC and the node's own address", unknown, s.Nodes[0].Addr, 0},
				{"to the shared MAC and an unused address", s.spec.MACs.IPv4[:], unused, 0},
				{"to the shared MAC and an address behind the client", s.spec.MACs.IPv4[:], s.Sources(5)[4], 0},
			} {
				t.Run(tt.name, func(t *testing.T) {
					// All that the nodes send but ARP, IGMP and the echos of awaitDelivery.
					heard := capture(t, s.Client, lan.NIC, func(f lan.Frame) bool {
						h, b, ok := f.IPv4()
						return ok && !f.Outgoing && h.Protocol != unix.IPPROTO_IGMP &&
							(h.Protocol != unix.IPPROTO_ICMP || ipv4.ICMPType(b[0]) != ipv4.ICMPTypeEchoReply || binary.BigEndian.Uint16(b[4:]) == echoID)
					})
					check(t, sendFrames(s.Client, echoRequest(s.Client.MAC, tt.mac, s.Client.Addr, tt.ip)))
					s.awaitDelivery(t)
					frames := captured(t, heard)
					for _, f := range frames {
						if h, _, _ := f.IPv4(); !h.Src.Equal(tt.ip.AsSlice()) || f.Source.String() != s.Nodes[0].MAC.String() {
							t.Errorf("a packet %s -> %s from %s", h.Src, h.Dst, f.Source)
						}
					}
					if len(frames) != tt.answers {
						t.Errorf("%d answers, want %d", len(frames), tt.answers)
					}
				})
			}
		})
	}
}

// Every node lets ICMP errors for the address in. A node that has lost the address (an admin or a network manager has
// removed it, or it is just being started) must not forward them: it would send them to the shared MAC again, to all the
// other nodes, which multiply them.
func TestICMPErrorsAreNotForwardedWithoutTheAddress(t *testing.T) {
	inGuest(t, "data-path")
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 4}, 4, webIP("ip", dualStack, "mac_mode", string(mode)))
			check(t, s.startAll(0, 1, 2, 3))
			for i, h := range s.Nodes {
				forward(t, h)
				if i > 0 { // the first one still answers ARP for it
					s.agents[i].by(t, "ip address delete "+sharedOnNIC+" dev eth0")
					s.agents[i].by(t, "ip address delete "+shared6.String()+"/64 dev eth0")
				}
			}
			const hops = 8 // bounds what a storm can become
			quoted := packetOf(
				ipv4.Header{Protocol: unix.IPPROTO_UDP, TTL: 64, Src: shared.AsSlice(), Dst: s.Client.Addr.AsSlice()},
				make([]byte, 8),
			)
			b, err := (&icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 4, Body: &icmp.DstUnreach{Data: quoted}}).Marshal(nil)
			check(t, err)
			check(t, sendFrames(s.Client, ethernet.Frame{
				Destination: s.spec.MACs.IPv4[:], Source: s.Client.MAC, EtherType: ethernet.EtherTypeIPv4,
				Payload: packetOf(ipv4.Header{Protocol: unix.IPPROTO_ICMP, TTL: hops, Src: s.Client.Addr.AsSlice(), Dst: shared.AsSlice()}, b),
			}))
			tooBig := slices.Concat([]byte{byte(ipv6.ICMPTypePacketTooBig), 0, 0, 0, 0, 0, 5, 0},
				packet6(shared6, s.Client.Addr6, unix.IPPROTO_UDP, nil, make([]byte, 8)))
			solicitation := slices.Concat([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, shared6.AsSlice())
			for _, message := range [][]byte{tooBig, solicitation} {
				check(t, sendFrames(s.Client, ethernet.Frame{
					Destination: s.spec.MACs.IPv6[:], Source: s.Client.MAC, EtherType: ethernet.EtherTypeIPv6,
					Payload: packet6(s.Client.Addr6, shared6, unix.IPPROTO_ICMPV6, nil, withChecksum(s.Client.Addr6, shared6, message)),
				}))
			}
			s.awaitDelivery(t) // the watch reports what was forwarded
		})
	}
}

// A second interface on the same LAN may receive frames for the shared MAC too: it is a port of a bridge, a capture runs on it, or its
// filter is a hash. Packets that come in there for foreign buckets must not be answered either.
func TestASecondInterfaceOnTheLANAnswersNothing(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 2}, 4, webIP("ip", dualStack, "mac_mode", string(mode)))
			for i := range s.Nodes {
				s.addInterface(t, i, netip.MustParseAddr(fmt.Sprintf("192.168.10.%d", 111+i)))
				check(t, s.Nodes[i].Handle().SetPromiscOn(link(t, s.Nodes[i], "eth1")))
			}
			check(t, s.startAll(0, 1, 0, 1))
			everyFlow(t, s)
		})
	}
}

const ndSolicitation = 135 // RFC 4861 section 4.3

// withChecksum fills in the checksum of an ICMPv6 message.
func withChecksum(src, dst netip.Addr, message []byte) []byte {
	sum := sumOf(lan.Datagram{Src: src, Dst: dst, Protocol: unix.IPPROTO_ICMPV6, Payload: message})
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	return message
}

// echoID marks what echoRequest sends.
const echoID = 0x6563

// echoRequest is an ICMP echo request in a frame.
func echoRequest(from, to net.HardwareAddr, src, dst netip.Addr) ethernet.Frame {
	b, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: echoID, Seq: 1}}).Marshal(nil)
	if err != nil {
		panic(err)
	}
	return ethernet.Frame{
		Destination: to, Source: from, EtherType: ethernet.EtherTypeIPv4,
		Payload: packetOf(ipv4.Header{Protocol: unix.IPPROTO_ICMP, TTL: 64, Src: src.AsSlice(), Dst: dst.AsSlice()}, b),
	}
}

// packetOf puts an IPv4 header, whose lengths and checksum it fills in, before a payload.
func packetOf(h ipv4.Header, payload []byte) []byte {
	h.Version, h.Len = 4, ipv4.HeaderLen+len(h.Options)
	h.TotalLen = h.Len + len(payload)
	b, err := h.Marshal()
	if err != nil {
		panic(err)
	}
	var sum uint32 // RFC 1071
	for i := 0; i < h.Len; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return append(b, payload...)
}
