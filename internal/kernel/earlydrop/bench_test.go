//go:build system

package earlydrop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// frameTo returns the frame of a UDP packet to a shared address.
func frameTo(layout clusterip.Layout, address, source netip.Addr) []byte {
	mac := layout.MACs.Of(address)
	frame := append(mac[:], 2, 0, 0, 0, 1, 1)
	udp := []byte{0x30, 0x39, 0, 80, 0, 26, 0, 0, 18: 0, 25: 0}
	if address.Is4() {
		header := make([]byte, 20)
		header[0], header[8], header[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(udp)))
		copy(header[12:], source.AsSlice())
		copy(header[16:], address.AsSlice())
		return append(append(append(frame, 0x08, 0x00), header...), udp...)
	}
	header := make([]byte, 40)
	header[0], header[6], header[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(header[4:], uint16(len(udp)))
	copy(header[8:], source.AsSlice())
	copy(header[24:], address.AsSlice())
	return append(append(append(frame, 0x86, 0xdd), header...), udp...)
}

// segmentData is how many bytes of data a segment of segmentTo has.
const segmentData = 6

// segmentTo returns the frame of a TCP segment.
func segmentTo(layout clusterip.Layout, c clusterip.Connection, flags byte) []byte {
	frame := frameTo(layout, c.Local.Addr(), c.Client.Addr())
	transport := frame[len(frame)-20-segmentData:]
	binary.BigEndian.PutUint16(transport, c.Client.Port())
	binary.BigEndian.PutUint16(transport[2:], c.Local.Port())
	transport[12], transport[13] = 5<<4, flags
	protocol := 14 + 9
	if c.Local.Addr().Is6() {
		protocol = 14 + 6
	}
	frame[protocol] = unix.IPPROTO_TCP
	return frame
}

// BenchmarkPacket is what the kernel's own loop measures (BPF_PROG_TEST_RUN), beside a program that drops everything.
func BenchmarkPacket(b *testing.B) {
	run := func(b *testing.B, program *ebpf.Program, frame []byte) {
		verdict, perRun, err := program.Benchmark(frame, max(b.N, 1), b.ResetTimer)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(perRun.Nanoseconds()), "ns/packet")
		b.ReportMetric(float64(verdict), "verdict")
	}
	all := loadAll(b)
	layout := layoutOf(shared4, shared6)
	clients := map[string]netip.Addr{"IPv4": netip.MustParseAddr("198.51.100.7"), "IPv6": netip.MustParseAddr("2001:db8:99::7")}
	b.Run("bare drop", func(b *testing.B) {
		run(b, foreign(b, ebpf.XDP, xdpDrop), frameTo(layout, shared4, clients["IPv4"]))
	})
	b.Run("bare drop at tc", func(b *testing.B) {
		run(b, foreign(b, ebpf.SchedCLS, tcDrop), frameTo(layout, shared4, clients["IPv4"]))
	})
	for _, symbol := range []string{nameXDP, symbolXDPFrags, nameTC} {
		for _, mode := range []clusterip.HashMode{clusterip.SourceIP, clusterip.SourceIPSourcePortDestPort} {
			for family, address := range map[string]netip.Addr{"IPv4": shared4, "IPv6": shared6} {
				for what, pass := range map[string][]clusterip.Bucket{"foreign": nil, "own": {0, 1, 2, 3, 4, 5, 6, 7}} {
					layout.HashMode = mode
					if err := all.maps.set(map[netip.Addr]record{address: recordOf(layout, address, pass)}); err != nil {
						b.Fatal(err)
					}
					name := fmt.Sprintf("%s/%s/%s/%s", symbol, mode, family, what)
					frame := frameTo(layout, address, clients[family])
					b.Run(name, func(b *testing.B) { run(b, all.programs[symbol], frame) })
					c := clusterip.Connection{
						Client: netip.AddrPortFrom(clients[family], 40000), Local: netip.AddrPortFrom(address, 80),
					}
					for _, remembers := range []uint32{0, testMemory} {
						b.Run(fmt.Sprintf("%s/TCP, remember=%d", name, remembers), func(b *testing.B) {
							all.maps.Remembers = remembers
							run(b, all.programs[symbol], segmentTo(layout, c, ack))
						})
					}
				}
			}
		}
		other := frameTo(layoutOf(other4), other4, clients["IPv4"])
		b.Run(symbol+"/to another address", func(b *testing.B) { run(b, all.programs[symbol], other) })
	}
}

// BenchmarkObservation is what a monitor costs more, if the program is attached, and if there is none.
func BenchmarkObservation(b *testing.B) {
	for name, way := range ways(b) {
		for _, attached := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/attached=%v", name, attached), func(b *testing.B) {
				s := newSite(b, way.oldTC)
				layout := layoutOf(shared4, shared6)
				if attached {
					s.attach(way.as)
					s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
				}
				nics := s.state().NICs
				for b.Loop() {
					if seen, err := s.ObserveEarlyDrop(b.Context(), layout.Addresses(), &layout, nics); err != nil || seen.Judges() != attached {
						b.Fatal(seen, err)
					}
				}
			})
		}
	}
}

// BenchmarkSet is what a change of the buckets costs.
func BenchmarkSet(b *testing.B) {
	for name, way := range ways(b) {
		b.Run(name, func(b *testing.B) {
			s := newSite(b, way.oldTC)
			layout := layoutOf(shared4, shared6)
			s.attach(way.as)
			for b.Loop() {
				s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
			}
		})
	}
}
