//go:build system

package nftables

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	vishvananda "github.com/vishvananda/netlink"
	ip4 "golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Packets arrive while transactions take effect. Rules look up sets one after the other, so one packet may see the buckets before a
// transaction in one set, and those after it in the next. Whatever it sees, a segment of the old owner's connection is never accepted:
// the kernel would answer it with a reset.
func TestNoTransactionLetsAForeignSegmentThrough(t *testing.T) {
	for name, layout := range map[string]clusterip.Layout{
		"draining":  draining(layoutFor(clusterip.Multicast, clusterip.SourceIP)),
		"lingering": lingering(layoutFor(clusterip.Multicast, clusterip.SourceIP)),
	} {
		t.Run(name, func(t *testing.T) { testTransactions(t, layout) })
	}
}

func testTransactions(t *testing.T, layout clusterip.Layout) {
	const moves = 3000
	layout.Buckets, layout.NICIndex = 1, 10 // all packets have the same bucket
	c, send := inFlood(t, layout, strangeSegment(t, layout, netip.MustParseAddr("192.168.10.77")))
	adopted := clusterip.Moves{Adopting: []clusterip.Adoption{{Left: time.Hour, From: []string{"node2"}}}}
	released := clusterip.Moves{Draining: []clusterip.Drain{{Left: time.Hour}}, Announced: []clusterip.Bucket{0}}
	change := clusterip.ChangeBuckets{Address: layout.Address(), Resource: layout.Resource, Takeovers: !layout.Lingers.IsZero()}
	bucket := []clusterip.Bucket{0}
	sent := send.during(t, func() {
		for range moves {
			own, release := change, change
			own.Own, own.Moves = bucket, &adopted
			release.Release, release.Moves = bucket, &released
			apply(t, c, own)
			apply(t, c, own) // as other actions do while the adoption continues
			apply(t, c, release)
		}
	})
	t.Logf("%d segments during %d moves", sent, moves)
	if resets := tcpResets(t); resets != "0" {
		t.Errorf("%s segments were answered with a reset", resets)
	}
	owned := change
	owned.Own, owned.Moves = bucket, &clusterip.Moves{}
	apply(t, c, owned)
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if resets := tcpResets(t); resets == "0" {
		t.Error("without an adoption, too, a segment gets no reset: this test cannot fail")
	}
}

// A bucket that is owned or lingers is never foreign, whatever a packet sees of a transaction.
func TestNoPacketIsForeignInATransaction(t *testing.T) {
	const times = 3000
	layout, client := lingering(layoutFor(clusterip.Multicast, clusterip.SourceIP)), netip.MustParseAddr("192.168.10.77")
	layout.Buckets, layout.NICIndex = 1, 10
	change := clusterip.ChangeBuckets{Address: layout.Address(), Resource: layout.Resource, Takeovers: true, Moves: &clusterip.Moves{}}
	settle, adopt, own, linger := change, change, change, change
	adopt.Moves = &clusterip.Moves{Adopting: []clusterip.Adoption{{Left: time.Hour, From: []string{"node2"}}}}
	own.Own, linger.Release = []clusterip.Bucket{0}, []clusterip.Bucket{0}
	linger.Moves = &clusterip.Moves{Draining: []clusterip.Drain{{Left: time.Hour}}, Announced: []clusterip.Bucket{0}}
	drain := linger
	linger.Linger = &clusterip.Linger{Left: 10 * time.Second}
	for name, row := range map[string]struct {
		frame  []byte
		change func(*testing.T, *Conn)
	}{
		"begins to linger": {datagram(t, layout, client), func(t *testing.T, c *Conn) {
			endUnderWay(t, c, layout) // as when nothing was taken over for long
			apply(t, c, linger)
			apply(t, c, own)
		}},
		"is no longer adopted": {strangeSegment(t, layout, client), func(t *testing.T, c *Conn) {
			apply(t, c, adopt)
			apply(t, c, settle)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c, send := inFlood(t, layout, row.frame)
			apply(t, c, own)
			sent := send.during(t, func() {
				for range times {
					row.change(t, c)
				}
			})
			t.Logf("%d packets", sent)
			if foreign := foreignPackets(t, c, layout); foreign > 0 {
				t.Errorf("%d of %d packets were dropped as foreign", foreign, sent)
			}
			apply(t, c, drain)
			endUnderWay(t, c, layout)
			apply(t, c, clusterip.ChangeBuckets{Address: layout.Address(), Resource: layout.Resource, Moves: &clusterip.Moves{}})
			if err := send(); err != nil {
				t.Fatal(err)
			}
			if foreignPackets(t, c, layout) == 0 {
				t.Error("of a bucket that is not owned, too, no packet is foreign: this test cannot fail")
			}
		})
	}
}

func foreignPackets(t *testing.T, c *Conn, layout clusterip.Layout) uint64 {
	t.Helper()
	traffic, err := c.Traffic(t.Context(), layout)
	if err != nil {
		t.Fatal(err)
	}
	return traffic.Foreign.Packets
}

// endUnderWay does what the kernel does underWayTime after the last takeover.
func endUnderWay(t *testing.T, c *Conn, layout clusterip.Layout) {
	t.Helper()
	err := c.begin()
	if err == nil {
		i := slices.IndexFunc(takeoverSets(), func(s set) bool { return s.name == setUnderWay })
		c.nft.FlushSet(setOf(netdevTable(layout.Address()), takeoverSets()[i]))
		err = c.commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inFlood moves the test into a namespace that has the address and its tables. The other end of its interface can send the frame.
func inFlood(t *testing.T, layout clusterip.Layout, frame []byte) (*Conn, sender) {
	t.Helper()
	inNamespaceWith(t, &vishvananda.Veth{LinkAttrs: vishvananda.LinkAttrs{Name: "eth0", Index: layout.NICIndex}, PeerName: "client"})
	for _, name := range []string{"lo", "eth0", "client"} {
		link, err := vishvananda.LinkByName(name)
		if err == nil {
			err = vishvananda.LinkSetUp(link)
		}
		if err == nil && name == "eth0" {
			err = vishvananda.AddrAdd(link, &vishvananda.Addr{IPNet: &net.IPNet{IP: net.IP{192, 168, 10, 3}, Mask: net.CIDRMask(24, 32)}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(socket) })
	client, err := net.InterfaceByName("client")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	apply(t, c, clusterip.InstallTables{Layout: layout})
	return c, func() error { return unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: client.Index}) }
}

// A sender sends a frame.
type sender func() error

// during sends the frame again and again while a function runs, and returns how often.
func (s sender) during(t *testing.T, changes func()) int {
	t.Helper()
	var stop atomic.Bool
	sent := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			if err := s(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				t.Error(err)
				break
			}
		}
		sent <- n
	}()
	changes()
	stop.Store(true)
	return <-sent
}

// strangeSegment is a frame with a segment that begins no connection.
func strangeSegment(t *testing.T, layout clusterip.Layout, from netip.Addr) []byte {
	t.Helper()
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment[0:], 40000)
	binary.BigEndian.PutUint16(segment[2:], 80)
	segment[12], segment[13] = 5<<4, 0x10
	pseudoHeader := append(append(from.AsSlice(), layout.Address().AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudoHeader, segment...)))
	return frameWith(t, layout, from, unix.IPPROTO_TCP, segment)
}

// datagram is a frame with a UDP datagram, without a checksum.
func datagram(t *testing.T, layout clusterip.Layout, from netip.Addr) []byte {
	t.Helper()
	datagram := make([]byte, 8)
	binary.BigEndian.PutUint16(datagram[0:], 40000)
	binary.BigEndian.PutUint16(datagram[2:], 53)
	datagram[5] = byte(len(datagram))
	return frameWith(t, layout, from, unix.IPPROTO_UDP, datagram)
}

// frameWith is a frame to the shared MAC and address.
func frameWith(t *testing.T, layout clusterip.Layout, from netip.Addr, protocol int, behind []byte) []byte {
	t.Helper()
	header := ip4.Header{
		Version: 4, Len: 20, TotalLen: 20 + len(behind), TTL: 64, Protocol: protocol, Src: from.AsSlice(), Dst: layout.Address().AsSlice(),
	}
	packet, err := header.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint16(packet[10:], checksum(packet))
	mac := layout.MACs.IPv4
	frame := append(mac[:], 2, 0, 0, 0, 0, 9, 8, 0)
	return append(append(frame, packet...), behind...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > math.MaxUint16 {
		sum = sum>>16 + sum&math.MaxUint16
	}
	return ^uint16(sum)
}

// tcpResets is how many resets the namespace has sent (RFC 4022, tcpOutRsts).
func tcpResets(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case fields[0] != "Tcp:":
		case names == nil:
			names = fields
		default:
			for i, name := range names {
				if name == "OutRsts" {
					return fields[i]
				}
			}
		}
	}
	t.Fatal("no OutRsts")
	return ""
}
