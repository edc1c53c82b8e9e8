//go:build system

package nftables

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
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
	defer unix.Close(socket)
	client, err := net.InterfaceByName("client")
	if err != nil {
		t.Fatal(err)
	}
	frame := strangeSegment(t, layout, netip.MustParseAddr("192.168.10.77"))
	to := &unix.SockaddrLinklayer{Ifindex: client.Index}
	var stop atomic.Bool
	sent := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			if err := unix.Sendto(socket, frame, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
				t.Error(err)
				break
			}
		}
		sent <- n
	}()

	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	apply(t, c, clusterip.InstallTables{Layout: layout})
	adopted := clusterip.Moves{Adopting: []clusterip.Adoption{{Left: time.Hour, From: []string{"node2"}}}}
	released := clusterip.Moves{Draining: []clusterip.Drain{{Left: time.Hour}}, Announced: []clusterip.Bucket{0}}
	change := clusterip.ChangeBuckets{Address: layout.Address(), Resource: layout.Resource, Takeovers: !layout.Lingers.IsZero()}
	bucket := []clusterip.Bucket{0}
	for range moves {
		own, release := change, change
		own.Own, own.Moves = bucket, &adopted
		release.Release, release.Moves = bucket, &released
		apply(t, c, own)
		apply(t, c, own) // as other actions do while the adoption continues
		apply(t, c, release)
	}
	stop.Store(true)
	t.Logf("%d segments during %d moves", <-sent, moves)
	if resets := tcpResets(t); resets != "0" {
		t.Errorf("%s segments were answered with a reset", resets)
	}
	owned := change
	owned.Own, owned.Moves = bucket, &clusterip.Moves{}
	apply(t, c, owned)
	if err := unix.Sendto(socket, frame, 0, to); err != nil {
		t.Fatal(err)
	}
	if resets := tcpResets(t); resets == "0" {
		t.Error("without an adoption, too, a segment gets no reset: this test cannot fail")
	}
}

// strangeSegment is a frame with a segment that begins no connection.
func strangeSegment(t *testing.T, layout clusterip.Layout, from netip.Addr) []byte {
	t.Helper()
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment[0:], 40000)
	binary.BigEndian.PutUint16(segment[2:], 80)
	segment[12], segment[13] = 5<<4, 0x10
	header := ip4.Header{
		Version: 4, Len: 20, TotalLen: 40, TTL: 64, Protocol: unix.IPPROTO_TCP, Src: from.AsSlice(), Dst: layout.Address().AsSlice(),
	}
	packet, err := header.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	pseudoHeader := append(packet[12:20:20], 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	binary.BigEndian.PutUint16(packet[10:], checksum(packet))
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudoHeader, segment...)))
	mac := layout.MACs.IPv4
	frame := append(mac[:], 2, 0, 0, 0, 0, 9, 8, 0)
	return append(append(frame, packet...), segment...)
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
