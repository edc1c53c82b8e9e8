//go:build system

package earlydrop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
)

// testMemory is the default of the parameter remember.
const testMemory = 65536

// Bits of a TCP header.
const fin, syn, rst, push, ack = 0x01, 0x02, 0x04, 0x08, 0x10

func sameConnections(want, have []clusterip.Connection) string {
	less := func(a, b clusterip.Connection) int {
		if c := a.Client.Compare(b.Client); c != 0 {
			return c
		}
		return a.Local.Compare(b.Local)
	}
	want, have = slices.SortedFunc(slices.Values(want), less), slices.SortedFunc(slices.Values(have), less)
	return cmp.Diff(want, have, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }))
}

func connections(of []clusterip.Remembered) (all []clusterip.Connection) {
	for _, each := range of {
		all = append(all, each.Connection)
	}
	return all
}

func connect(client, address string) clusterip.Connection {
	return clusterip.Connection{Client: netip.MustParseAddrPort(client), Local: netip.MustParseAddrPort(address)}
}

// Which segments make the program remember a connection, and which forget it.
func TestConnectionsAreRemembered(t *testing.T) {
	all := loadAll(t)
	layout := layoutOf(shared4, shared6)
	if all.set(t, layout, buckets(0, 3)) {
		t.Fatal("too many addresses")
	}
	port := uint16(1000) // each time another one
	for symbol := range all.programs {
		for _, address := range []netip.Addr{shared4, shared6} {
			client := "198.51.100.7"
			if address.Is6() {
				client = "2001:db8:99::7"
			}
			for _, tt := range []struct {
				name  string
				flags []byte
				want  bool
			}{
				{"only a SYN", []byte{syn}, false},
				{"a SYN that is repeated", []byte{syn, syn, syn}, false},
				{"a handshake", []byte{syn, ack}, true},
				{"with a request", []byte{syn, ack, ack | push}, true},
				{"it began before the program saw it", []byte{ack | push, ack}, true},
				{"one segment of an unknown one", []byte{ack}, false},
				{"closed by the client", []byte{syn, ack, fin | ack}, false},
				{"closed, the last ACKs follow", []byte{syn, ack, fin | ack, ack, ack, ack}, false},
				{"aborted by the client", []byte{syn, ack, rst}, false},
				{"made again from the same port", []byte{syn, ack, fin | ack, ack, syn, ack}, true},
				{"made again without an end", []byte{syn, ack, syn, ack}, true},
				{"refused: the client answers an old SYN-ACK", []byte{syn, rst, ack, ack}, false},
				{"in ECN's words", []byte{syn | 0xc0, ack}, true},
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", symbol, address, tt.name), func(t *testing.T) {
					port++
					c := clusterip.Connection{
						Client: netip.AddrPortFrom(netip.MustParseAddr(client), port), Local: netip.AddrPortFrom(address, 80),
					}
					for i, flags := range tt.flags { // each with data
						frame := segmentTo(layout, c, flags)
						transport := frame[len(frame)-20-segmentData:]
						binary.BigEndian.PutUint32(transport[4:], 1000+uint32(i))
						binary.BigEndian.PutUint32(transport[8:], 5000)
						all.drops(t, symbol, frame)
					}
					have, err := all.maps.list()
					if err != nil {
						t.Fatal(err)
					}
					n := all.maps.numbersOf(keyOf(c))
					if want := (clusterip.Numbers{Next: 1000 + uint32(len(tt.flags)-1) + segmentData, Expected: 5000, Known: true}); tt.want && n != want {
						t.Errorf("its numbers are %+v, want %+v", n, want)
					}
					if n.Known != tt.want {
						t.Errorf("its numbers are known: %t, want %t", n.Known, tt.want)
					}
					if got := slices.Contains(have, keyOf(c)); got != tt.want {
						t.Errorf("remembered: %t, want %t", got, tt.want)
					}
					_ = all.maps.connections.Delete(keyOf(c))
				})
			}
		}
	}
}

// A connection that goes on is remembered again after the map had to forget it for others, and becomes the youngest.
func TestConnectionsAreRenewed(t *testing.T) {
	all := loadAll(t)
	layout := layoutOf(shared4)
	all.set(t, layout, buckets(0))
	c := connect("198.51.100.7:999", "192.168.10.3:80")
	isRemembered := func() bool {
		have, err := all.maps.list()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(have, keyOf(c))
	}
	for symbol := range all.programs {
		all.drops(t, symbol, segmentTo(layout, c, syn))
		all.drops(t, symbol, segmentTo(layout, c, ack))
		if err := all.maps.connections.Delete(keyOf(c)); err != nil {
			t.Fatal(err)
		}
		all.drops(t, symbol, segmentTo(layout, c, ack))
		if isRemembered() {
			t.Errorf("%s: each segment is looked up", symbol)
		}
		slot, _, _ := all.maps.placesOf(keyOf(c))
		slot.Renewed -= 1 << 14
		all.drops(t, symbol, segmentTo(layout, c, ack))
		if !isRemembered() {
			t.Errorf("%s: it is not renewed", symbol)
		}
	}
}

// A flood of first segments from ever other ports takes no place from what lives.
func TestAFloodTakesNoPlace(t *testing.T) {
	all := loadAll(t)
	layout := layoutOf(shared4)
	all.set(t, layout, buckets(0))
	var living []clusterip.Connection
	for i := range 100 {
		c := connect(fmt.Sprintf("198.51.100.7:%d", 2000+i), "192.168.10.3:80")
		living = append(living, c)
		all.drops(t, nameXDP, segmentTo(layout, c, syn))
		all.drops(t, nameXDP, segmentTo(layout, c, ack))
	}
	for network, flags := range map[byte]byte{203: syn, 204: ack} {
		for i := range 2 * testMemory {
			from := netip.AddrFrom4([4]byte{network, byte(i >> 16), byte(i >> 8), byte(i)})
			c := clusterip.Connection{Client: netip.AddrPortFrom(from, uint16(i)), Local: netip.AddrPortFrom(shared4, 80)}
			all.drops(t, nameXDP, segmentTo(layout, c, flags))
		}
	}
	have, err := all.maps.list()
	if err != nil {
		t.Fatal(err)
	}
	var got []clusterip.Connection
	for _, each := range have {
		got = append(got, each.to(shared4))
		if !all.maps.numbersOf(each).Known {
			t.Errorf("the numbers of %+v are lost", each)
		}
	}
	if diff := sameConnections(living, got); diff != "" {
		t.Errorf("remembered (-want +got):\n%s", diff)
	}
}

// remember says how many connections an interface's program remembers, whatever it is changed to, and what it had remembered stays.
func TestTheMemoryGrowsAndShrinks(t *testing.T) {
	for name, way := range ways(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, way.oldTC)
			layout, other := layoutOf(shared4), layoutOf(other4)
			layout.EarlyDrop, other.EarlyDrop = way.as, way.as
			var known []clusterip.Connection
			for i := range 10 {
				known = append(known, connect(fmt.Sprintf("198.51.100.7:%d", 2000+i), "192.168.10.3:80"))
			}
			attach := func(layout clusterip.Layout, remember, want int) {
				t.Helper()
				layout.Remember = remember
				if _, _, err := s.AttachEarlyDrop(t.Context(), s.state(), layout); err != nil {
					t.Fatal(err)
				}
				seen := s.observe(layout)
				if seen.Remembers != want || seen.Attached != way.as || !seen.Judges() {
					t.Errorf("remember=%d: %+v, want %d", remember, seen, want)
				}
			}
			attach(layout, 0, 0)
			attach(layout, 1000, 1000)
			for _, c := range known {
				if err := s.found().maps.connections.Put(keyOf(c), uint32(0)); err != nil {
					t.Fatal(err)
				}
			}
			attach(layout, 2000, 2000)
			attach(layout, 500, 500)
			attach(other, 100, 500) // which another resource needs
			attach(other, 0, 500)
			s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)}) // which does not know it
			have, err := s.Remembered(t.Context(), layout)
			if err != nil {
				t.Fatal(err)
			}
			if diff := sameConnections(known, connections(have)); diff != "" {
				t.Errorf("remembered (-want +got):\n%s", diff)
			}
			if have, err := s.Remembered(t.Context(), other); err != nil || len(have) > 0 {
				t.Errorf("of the other resource: %v, %v", have, err)
			}
			first := clusterip.Remembered{Connection: known[0]}
			if err := s.Forget(t.Context(), layout, []clusterip.Remembered{first, first}); err != nil {
				t.Error(err)
			}
			have, _ = s.Remembered(t.Context(), layout)
			if diff := sameConnections(known[1:], connections(have)); diff != "" {
				t.Errorf("after one was forgotten (-want +got):\n%s", diff)
			}
			s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: other.Addresses()})
			attach(layout, 0, 0)
			if have, err := s.Remembered(t.Context(), layout); err != nil || len(have) > 0 {
				t.Errorf("with remember=0: %v, %v", have, err)
			}
		})
	}
}

// After an update, the program may have a memory of another version. It still drops what it should, which the monitor sees. The next start
// replaces the memory, and nothing else.
func TestAMemoryOfAnotherVersion(t *testing.T) {
	for name, way := range ways(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, way.oldTC)
			layout, other := layoutOf(shared4), layoutOf(other4)
			layout.EarlyDrop, other.EarlyDrop = way.as, way.as
			layout.Remember, other.Remember = 1000, 1000
			attach := func(layout clusterip.Layout) {
				t.Helper()
				attached, reasons, err := s.AttachEarlyDrop(t.Context(), s.state(), layout)
				if err != nil || len(reasons) > 0 || attached != layout.EarlyDrop {
					t.Errorf("attached as %s: %q, %v", attached, reasons, err)
				}
			}
			expect := func(layout clusterip.Layout, remembers int, passed ...clusterip.Bucket) {
				t.Helper()
				seen := s.observe(layout)
				if len(seen.Faults) > 0 || seen.Remembers != remembers || !slices.Equal(seen.Passed, passed) {
					t.Errorf("%+v, want no fault, %d connections and buckets %v", seen, remembers, passed)
				}
			}
			updated := func(passed ...clusterip.Bucket) {
				t.Helper()
				s.found().maps.MemoryVersion++
				expect(layout, 0, passed...)
				expect(other, 0, 2)
				if known, err := s.Remembered(t.Context(), layout); err != nil || len(known) > 0 {
					t.Errorf("remembered: %v, %v", known, err)
				}
				if err := s.AddTold(t.Context(), layout, clusterip.Told{Connections: 1}); err != nil {
					t.Error(err)
				}
				if told, err := s.Told(t.Context(), layout); err != nil || told.Connections > 0 {
					t.Errorf("told: %+v, %v", told, err)
				}
			}
			attach(layout)
			attach(other)
			s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
			s.apply(clusterip.SetEarlyDrop{Layout: other, Pass: buckets(2)})
			s.count(other4, clusterip.Count{Packets: 3, Bytes: 100})
			updated(1)
			small := layout
			small.Remember = 10
			attach(small)
			expect(layout, 1000, 1) // which the other resource needs
			updated(1)
			s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1, 3)})
			expect(layout, 1000, 1, 3)
			updated(1, 3)
			layout.Remember = 0
			if way.as == clusterip.EarlyDropXDP { // to another place, with a memory that cannot be taken along
				layout.EarlyDrop, other.EarlyDrop = clusterip.EarlyDropTC, clusterip.EarlyDropTC
			}
			attach(layout)
			expect(layout, 1000, 1, 3)
			expect(other, 1000, 2)
			if seen := s.observe(other); seen.Dropped != (clusterip.Count{Packets: 3, Bytes: 100}) {
				t.Errorf("dropped: %+v", seen.Dropped)
			}
		})
	}
}
