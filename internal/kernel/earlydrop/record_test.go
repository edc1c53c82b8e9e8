package earlydrop

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

var (
	shared4   = netip.MustParseAddr("192.168.10.3")
	shared6   = netip.MustParseAddr("2001:db8:10::3")
	other4    = netip.MustParseAddr("192.168.10.4")
	sharedMAC = clusterip.MAC{3, 0xc1, 192, 168, 10, 3}
)

func layoutOf(addresses ...netip.Addr) clusterip.Layout {
	layout := clusterip.Layout{
		NIC: "eth0", NICIndex: 2, Backend: clusterip.NFTables, MACMode: clusterip.Multicast,
		MACs:     clusterip.PerFamily[clusterip.MAC]{IPv4: sharedMAC, IPv6: sharedMAC},
		HashMode: clusterip.SourceIP, HashCompat: clusterip.XTCluster, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128},
		Seed: 7, Buckets: 8, EarlyDrop: clusterip.EarlyDropAuto,
	}
	for _, address := range addresses {
		layout.Prefixes = append(layout.Prefixes, netip.PrefixFrom(address, 24))
	}
	return layout
}

func buckets(all ...clusterip.Bucket) []clusterip.Bucket { return all }

// Both objects have the maps and programs that this package loads.
func TestTheObjectsAreAsExpected(t *testing.T) {
	for _, file := range []string{"earlydrop_bpfel.o", "earlydrop_bpfeb.o"} {
		read, err := ebpf.LoadCollectionSpec(file)
		if err != nil {
			t.Fatal(err)
		}
		if have, want := read.Maps[symbolTable].ValueSize, uint32(unsafe.Sizeof(table{})); have != want {
			t.Errorf("%s: the table has %d bytes, here %d", file, have, want)
		}
		if have, want := read.Maps[nameDropped].ValueSize, uint32(unsafe.Sizeof(count{})); have != want {
			t.Errorf("%s: a counter has %d bytes, here %d", file, have, want)
		}
		if have, want := read.Maps[nameConnections].KeySize, uint32(unsafe.Sizeof(connection{})); have != want {
			t.Errorf("%s: a connection has %d bytes, here %d", file, have, want)
		}
		for _, symbol := range []string{nameXDP, symbolXDPFrags, nameTC} {
			if p := read.Programs[symbol]; p == nil || p.License != "Apache-2.0" {
				t.Errorf("%s: %s is %+v", file, symbol, p)
			}
		}
	}
	const longest = 15 // of a name in the kernel
	for _, name := range []string{nameXDP, nameTC, nameTable, nameDropped, nameConnections} {
		if len(name) > longest {
			t.Errorf("the kernel cuts %s", name)
		}
	}
}

func TestRecordsTellWhatDiffers(t *testing.T) {
	layout := layoutOf(shared4, shared6)
	for name, row := range map[string]struct {
		change func(*clusterip.Layout)
		want   string
	}{
		"nothing": {func(*clusterip.Layout) {}, ""},
		"the MAC": {func(l *clusterip.Layout) { l.MACs.IPv4[5] = 9 }, "the shared MAC is 03:c1:c0:a8:0a:03, not 03:c1:c0:a8:0a:09"},
		"N":       {func(l *clusterip.Layout) { l.Buckets = 9 }, "clone-max is 8, not 9"},
		"the seed": {
			func(l *clusterip.Layout) { l.Seed = 1 },
			"the hash's start value is 0x0000000b, not 0x00000005",
		},
		"the prefix": {func(l *clusterip.Layout) { l.HashPrefixes.IPv4 = 24 }, "the length of the source prefix is 32, not 24"},
		"the service": {
			func(l *clusterip.Layout) { l.Services = []services.Service{services.ICMP} },
			"the byte order, the ports or the services differ",
		},
		"another family's": {func(l *clusterip.Layout) { l.HashPrefixes.IPv6 = 64 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			changed := layout
			row.change(&changed)
			have, want := recordOf(layout, shared4, buckets(1)), recordOf(changed, shared4, buckets(2))
			if diff := cmp.Diff(row.want, strings.Join(have.differences(want), "; ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRecordsPassBuckets(t *testing.T) {
	layout := layoutOf(shared4)
	layout.Buckets = 1024
	for _, pass := range [][]clusterip.Bucket{nil, buckets(0), buckets(31, 32, 63, 1023)} {
		if got := recordOf(layout, shared4, pass).passed(); !slices.Equal(got, pass) {
			t.Errorf("%v becomes %v", pass, got)
		}
	}
}

// Addresses that share a place in the index are found, whichever of them goes.
func TestTheIndexHasPlaceForCollisions(t *testing.T) {
	var all table
	place := all.indexOf(shared4)
	collide := []netip.Addr{shared4}
	for a := netip.MustParseAddr("10.0.0.1"); len(collide) < perIndex; a = a.Next() {
		if all.indexOf(a) == place {
			collide = append(collide, a)
		}
	}
	for gone := range collide {
		var t1 table
		for i, address := range collide {
			t1.Record[i] = recordOf(layoutOf(address), address, nil)
			*t1.indexOf(address) |= uint64(i+1) << (laneBits * i)
		}
		t1.remove(collide[gone : gone+1])
		for i, address := range collide {
			number, _, has := t1.find(address)
			if has == (i == gone) || has && number != uint32(i) {
				t.Errorf("without %s, %s has record %d: %v", collide[gone], address, number, has)
			}
		}
		t1.remove(collide)
		if !t1.isIdle() {
			t.Errorf("left is %x", *t1.indexOf(shared4))
		}
	}
}
