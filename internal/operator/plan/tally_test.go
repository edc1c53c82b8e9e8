package plan

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

var vip, vip6 = netip.MustParseAddr("192.168.10.3"), netip.MustParseAddr("2001:db8:10::3")

func layout(buckets uint32) clusterip.Layout {
	return clusterip.Layout{
		Prefixes: []netip.Prefix{
			netip.PrefixFrom(vip, 32), netip.PrefixFrom(vip6, 128),
		}, HashMode: clusterip.SourceIP, HashCompat: clusterip.XTCluster,
		HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128}, Seed: clusterip.DefaultSeed(vip), Buckets: buckets,
	}
}

// tallied counts a log, or fails.
func tallied(t *testing.T, buckets uint32, most int, log string) *Tally {
	t.Helper()
	tally := NewTally(layout(buckets), most)
	if err := tally.Read(strings.NewReader(log), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	return tally
}

func clientsOf(loads []Load) (clients int) {
	for _, load := range loads {
		clients += load.Clients
	}
	return clients
}

func TestTally(t *testing.T) {
	const log = `192.0.2.7 - - "GET /"
192.0.2.7 - - "GET /a"

# a remark
2001:db8::7 - - "GET /"
127.0.0.1 - - "GET /server-status"
::1 - - "GET /server-status"
::ffff:192.0.2.7 - - "GET /b"
192.0.2.8:4000 the last, without an end`
	tally := tallied(t, 8, MaxClients, log)
	if tally.Lines != 9 || tally.Without != 2 || tally.Unfit != 2 {
		t.Errorf("%d lines, %d without an address, %d unfit", tally.Lines, tally.Without, tally.Unfit)
	}
	want := make([]Load, 8)
	for client, requests := range map[string]uint64{"192.0.2.7": 3, "192.0.2.8": 1, "2001:db8::7": 1} {
		bucket := layout(8).BucketOf(clusterip.Packet{Flow: clusterip.Flow{Source: netip.MustParseAddr(client)}, Protocol: "tcp"})
		want[bucket].Clients++
		want[bucket].Requests += requests
	}
	if diff := cmp.Diff(want, tally.Loads()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if top := tally.heaviest(1); len(top) != 1 || top[0].address.String() != "192.0.2.7" || top[0].requests != 3 {
		t.Errorf("the heaviest is %v", top)
	}
}

// No client of IPv6 asks an IPv4 address, and the reverse.
func TestTallyPassesOverClientsOfAnotherVersion(t *testing.T) {
	const log = "192.0.2.7\n192.0.2.8\n192.0.2.9\n2001:db8::7\n2001:db8::8\n::ffff:192.0.2.7\n127.0.0.1\nnobody\n"
	for name, row := range map[string]struct {
		addresses []netip.Addr
		want      Tally
	}{
		"one of IPv4":      {[]netip.Addr{vip}, Tally{Lines: 8, Without: 1, Unfit: 1, Astray: 2}},
		"one of IPv6":      {[]netip.Addr{vip6}, Tally{Lines: 8, Without: 1, Unfit: 1, Astray: 4}},
		"one of each kind": {[]netip.Addr{vip, vip6}, Tally{Lines: 8, Without: 1, Unfit: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			shared := layout(8)
			shared.Prefixes = nil
			for _, address := range row.addresses {
				shared.Prefixes = append(shared.Prefixes, netip.PrefixFrom(address, address.BitLen()))
			}
			tally := NewTally(shared, MaxClients)
			if err := tally.Read(strings.NewReader(log), func(int64) {}); err != nil {
				t.Fatal(err)
			}
			got := Tally{Lines: tally.Lines, Without: tally.Without, Unfit: tally.Unfit, Astray: tally.Astray}
			if diff := cmp.Diff(row.want, got, cmpopts.IgnoreUnexported(Tally{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			var requests uint64
			for _, load := range tally.Loads() {
				requests += load.Requests
			}
			if want := got.Lines - got.Without - got.Unfit - got.Astray; requests != want {
				t.Errorf("%d requests, want %d", requests, want)
			}
		})
	}
}

// What lies across the ends of chunks is neither lost nor counted twice.
func TestTallyReadsInPieces(t *testing.T) {
	log := "192.0.2.1\n" + strings.Repeat("x", 3*chunk) + " 192.0.2.2\n" + "192.0.2.3 " + strings.Repeat("y", chunk) + "\n192.0.2.4\n"
	for name, tally := range map[string]*Tally{"at once": NewTally(layout(4), 9), "in halves": NewTally(layout(4), 9)} {
		from := strings.NewReader(log)
		var err error
		if name == "at once" {
			err = tally.Read(from, func(int64) {})
		} else {
			err = tally.Read(iotest.HalfReader(from), func(int64) {})
		}
		if clients := clientsOf(tally.Loads()); err != nil || tally.Lines != 4 || tally.Without != 1 || clients != 3 {
			t.Errorf("%s: %d lines, %d without, %d clients, %v", name, tally.Lines, tally.Without, clients, err)
		}
	}
}

func TestTallySaysWhyItCannotRead(t *testing.T) {
	for head, want := range map[string]string{
		"\x1f\x8b\x08": "zcat", "BZh9": "bzcat", "\xfd7zXZ\x00": "xzcat", "\x28\xb5\x2f\xfd": "zstdcat",
		"\x04\x22\x4d\x18": "lz4cat", "PK\x03\x04": "unzip -p", "BZh": "", "BZhost 192.0.2.7\n": "", "PK 192.0.2.7\n": "",
	} {
		err := NewTally(layout(4), 9).Read(strings.NewReader(head+"rest"), func(int64) {})
		got := ""
		if packed, is := errors.AsType[*CompressedError](err); is {
			got, err = packed.Unpacker, nil
		}
		if got != want || err != nil {
			t.Errorf("%q is unpacked by %q, want %q; %v", head, got, want, err)
		}
	}
	broken := errors.New("disk is on fire")
	if err := NewTally(layout(4), 9).Read(iotest.ErrReader(broken), func(int64) {}); !errors.Is(err, broken) {
		t.Errorf("a broken one: %v", err)
	}
}

// Beyond the bound, every request is still in its bucket.
func TestTallyIsBounded(t *testing.T) {
	var log strings.Builder
	for i := range 100 {
		log.WriteString(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String() + "\n2001:db8::" + string(rune('a'+i%6)) + "\n")
	}
	all, bounded := tallied(t, 8, MaxClients, log.String()).Loads(), tallied(t, 8, 10, log.String())
	clients := clientsOf(bounded.Loads())
	if clients != 10 || bounded.complete() {
		t.Errorf("an account is kept of %d clients", clients)
	}
	for bucket, load := range bounded.Loads() {
		if load.Requests != all[bucket].Requests {
			t.Errorf("bucket %d: %d requests, want %d", bucket, load.Requests, all[bucket].Requests)
		}
	}
}

// What the layout says of the hash is what counts, but not of the services: the log is of one of them.
func TestTallyHashesAsTheAgent(t *testing.T) {
	networks := layout(64)
	networks.HashPrefixes = clusterip.PerFamily[int]{IPv4: 24, IPv6: 64}
	networks.Services = []services.Service{{Protocol: "tcp", First: 80, Last: 80}}
	tally := NewTally(networks, MaxClients)
	const log = "192.0.2.7\n192.0.2.8\n192.0.3.7\n2001:db8::7\n2001:db8::8\n2001:db8:0:1::7\n"
	if err := tally.Read(strings.NewReader(log), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	want := make([]Load, 64)
	for network, requests := range map[string]uint64{"192.0.2.9": 2, "192.0.3.9": 1, "2001:db8::9": 2, "2001:db8:0:1::9": 1} {
		packet := clusterip.Packet{Flow: clusterip.Flow{Source: netip.MustParseAddr(network), DestinationPort: 80}, Protocol: "tcp"}
		bucket := networks.BucketOf(packet)
		want[bucket].Clients++
		want[bucket].Requests += requests
	}
	if diff := cmp.Diff(want, tally.Loads()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	names := []string{tally.name(tally.heaviest(2)[0]), tally.name(tally.heaviest(2)[1])}
	if diff := cmp.Diff([]string{"192.0.2.0/24", "2001:db8::/64"}, names); diff != "" {
		t.Errorf("the heaviest (-want +got)\n%s", diff)
	}
}
