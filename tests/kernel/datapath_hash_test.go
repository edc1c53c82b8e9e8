//go:build system

package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ethernet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// A tossed packet is sent into the network without any host behind it.
type tossed struct {
	name   string
	header ipv4.Header
	b      []byte
	ipv6   []byte // a whole packet, instead of header and b
	bucket int    // where it must be counted
}

// frame is what carries the packet to the nodes.
func (p tossed) frame(s *site) ethernet.Frame {
	if p.ipv6 != nil {
		return ethernet.Frame{Destination: s.spec.MACs.IPv6[:], Source: s.Client.MAC, EtherType: ethernet.EtherTypeIPv6, Payload: p.ipv6}
	}
	return ethernet.Frame{
		Destination: s.spec.MACs.IPv4[:], Source: s.Client.MAC, EtherType: ethernet.EtherTypeIPv4, Payload: packetOf(p.header, p.b),
	}
}

// What Linux 6.1's xt_cluster and CLUSTERIP target decided is what our tables decide.
func TestKernelVectors(t *testing.T) {
	inGuest(t, "data-path")
	text, err := os.ReadFile("../../internal/clusterip/testdata/kernel-hash-vectors.tsv")
	check(t, err)
	type decider struct{ compat, mode, seed, buckets string }
	vectors := map[decider][]tossed{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 9 {
			continue
		}
		d := decider{compat: f[0], mode: f[1], seed: f[2], buckets: f[3]}
		if d.compat == "xt_cluster" {
			d.mode = string(clusterip.SourceIP)
		}
		p := toss(f[4], netip.MustParseAddr(f[5]), atoi(t, f[6]), atoi(t, f[7]))
		p.bucket = int(atoi(t, f[8])) - 1 // they count nodes from 1
		vectors[d] = append(vectors[d], p)
	}
	if len(vectors) != 9 {
		t.Fatalf("there are %d kinds of vectors, want 9", len(vectors))
	}
	for d, packets := range vectors {
		t.Run(fmt.Sprintf("%s, %s in %s with seed %s", d.compat, d.mode, d.buckets, d.seed), func(t *testing.T) {
			p := webIP("hash_compat", d.compat, "hashmode", d.mode, "hash_seed", d.seed)
			if d.seed == "0" && d.mode == string(clusterip.SourceIPSourcePortDestPort) {
				n := newLAN(t, lan.Options{Nodes: 1})
				check(t, status(newAgent(t, n.Nodes[0], 16, p).start(1), ocf.ErrConfigured))
				return
			}
			s := newSite(t, lan.Options{Nodes: 1}, int(atoi(t, d.buckets)), p)
			if len(packets) != 144 {
				t.Errorf("%d vectors, want 144", len(packets))
			}
			s.tossAndCount(t, packets)
			check(t, s.monitorAll())
		})
	}
}

// Hundreds of flows of all kinds, fragments among them, are counted in the bucket that the formula names.
func TestKernelHashesAsTheFormula(t *testing.T) {
	for _, tt := range []struct {
		mode    clusterip.HashMode
		buckets int
		seed    string // empty: derived
	}{
		{clusterip.SourceIP, 16, ""},
		{clusterip.SourceIPSourcePort, 13, "1"},
		{clusterip.SourceIPSourcePort, 16, ""},
		{clusterip.SourceIPSourcePortDestPort, 7, "0xfffffff7"}, // without ports 0xffffffff, the last before 0
		{clusterip.SourceIPSourcePortDestPort, 16, ""},
		// Where the expression must not contain the seed, with or without ports.
		{clusterip.SourceIP, 16, "0"},
		{clusterip.SourceIPSourcePort, 16, "0"},
		{clusterip.SourceIPSourcePort, 16, "0xfffffffc"},
		{clusterip.SourceIPSourcePortDestPort, 16, "0xfffffff8"},
	} {
		t.Run(fmt.Sprintf("%s in %d with seed %s", tt.mode, tt.buckets, tt.seed), func(t *testing.T) {
			for _, compat := range clusterip.HashCompats() {
				s := newSite(
					t,
					lan.Options{Nodes: 1},
					tt.buckets,
					webIP("ip", dualStack, "hashmode", string(tt.mode), "hash_seed", tt.seed, "hash_compat", string(compat)),
				)
				random := rand.New(rand.NewPCG(1, 2))
				var packets []tossed
				for range 400 {
					packets = append(packets, s.tossRandom(random), s.tossRandom6(random))
				}
				s.tossAndCount(t, packets)
			}
		})
	}
}

// tossRandom makes any packet, and asks the formula for its bucket.
func (s *site) tossRandom(random *rand.Rand) tossed {
	protos := []string{"tcp", "udp", "sctp", "udplite", "dccp", "icmp", "gre"}
	src := netip.AddrFrom4([4]byte{byte(1 + random.IntN(223)), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
	p := toss(protos[random.IntN(len(protos))], src, uint16(random.Uint32()), uint16(random.Uint32()))
	flow := lan.Flow{Src: src}
	switch random.IntN(8) {
	case 0:
		p.name += ", first fragment"
		p.header.Flags |= ipv4.MoreFragments
	case 1:
		p.name += ", later fragment"
		p.header.Flags |= ipv4.MoreFragments
		p.header.FragOff = 1 + random.IntN(8000)
	case 2:
		p.name += ", last fragment"
		p.header.FragOff = 1 + random.IntN(8000)
	case 3:
		p.name += ", may not be fragmented"
		p.header.Flags |= ipv4.DontFragment
		fallthrough
	default:
		if random.IntN(4) == 0 {
			p.name += ", with options"
			p.header.Options = slices.Repeat([]byte{1}, 4*(1+random.IntN(10))) // "no operation"
		}
		if p.header.Protocol != unix.IPPROTO_ICMP && p.header.Protocol != unix.IPPROTO_GRE {
			flow.SrcPort, flow.DstPort = binary.BigEndian.Uint16(p.b), binary.BigEndian.Uint16(p.b[2:])
		}
	}
	p.bucket = s.bucket(flow)
	return p
}

// toss makes a packet to the address. The ports are where the protocol has them, if it has.
func toss(proto string, src netip.Addr, sourcePort, destinationPort uint16) tossed {
	p := tossed{
		name: fmt.Sprintf("%s %s:%d->%d", proto, src, sourcePort, destinationPort),
		header: ipv4.Header{
			Protocol: map[string]int{
				"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE,
				"dccp": unix.IPPROTO_DCCP, "icmp": unix.IPPROTO_ICMP, "gre": unix.IPPROTO_GRE,
			}[proto],
			ID: int(sourcePort), TTL: 64, Src: src.AsSlice(), Dst: shared.AsSlice(),
		},
		b: make([]byte, 24),
	}
	switch proto {
	case "icmp":
		p.b[0] = byte(ipv4.ICMPTypeEcho)
		binary.BigEndian.PutUint16(p.b[4:], sourcePort) // its id, which is not hashed
	case "gre":
	default:
		binary.BigEndian.PutUint16(p.b, sourcePort)
		binary.BigEndian.PutUint16(p.b[2:], destinationPort)
	}
	return p
}

// tossAndCount starts all buckets on the one node, sends the packets of one bucket after the other, and checks that no
// other counter rises.
func (s *site) tossAndCount(t *testing.T, packets []tossed) {
	t.Helper()
	node := s.Nodes[0]
	// They are to be counted, not to be handled: most of the sources are not even reachable.
	nft(
		t,
		node,
		`table inet uninterested { chain in { type filter hook prerouting priority -300;
			ip daddr 192.168.10.3 drop; ip6 daddr 2001:db8:10::3 drop; }; }`,
	)
	check(t, s.startAll(make([]int, len(s.at))...))
	for _, options := range [][]string{{"list"}, {"-j", "list"}} { // Debian 12's nft crashes on some hashes
		check(t, node.Run(t.Context(), lan.ToolPath, append(append([]string{"nft"}, options...), "ruleset")...).Failure())
	}
	byBucket := map[int][]tossed{}
	for _, p := range packets {
		byBucket[p.bucket] = append(byBucket[p.bucket], p)
	}
	for _, bucket := range slices.Sorted(maps.Keys(byBucket)) {
		if diff := s.rise(t, byBucket[bucket]); !cmp.Equal(diff, map[int]int{bucket: len(byBucket[bucket])}) {
			t.Errorf("of %d packets of bucket %d were counted, by bucket: %v", len(byBucket[bucket]), bucket, diff)
			s.findTossed(t, byBucket[bucket])
		}
	}
	if len(byBucket) != len(s.at) {
		t.Errorf("the packets are of %d buckets, want all %d", len(byBucket), len(s.at))
	}
}

// rise sends packets, and returns how many more each bucket has counted then.
func (s *site) rise(t *testing.T, packets []tossed) map[int]int {
	t.Helper()
	before := s.counters(t, 0)
	frames := make([]ethernet.Frame, len(packets))
	for i, p := range packets {
		frames[i] = p.frame(s)
	}
	check(t, sendFrames(s.Client, frames...))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for {
		total, rise := 0, map[int]int{}
		for bucket, now := range s.counters(t, 0) {
			if n := now.Packets - before[bucket].Packets; n > 0 {
				rise[bucket] = n
				total += n
			}
		}
		if total >= len(packets) || ctx.Err() != nil {
			return rise
		}
		time.Sleep(time.Millisecond)
	}
}

// findTossed names the first few packets that are not counted where they should be.
func (s *site) findTossed(t *testing.T, packets []tossed) {
	t.Helper()
	for i, p := range packets[:min(len(packets), shownFaults)] {
		if rise := s.rise(t, packets[i:i+1]); !cmp.Equal(rise, map[int]int{p.bucket: 1}) {
			t.Errorf("%s: want bucket %d, counted %v", p.name, p.bucket, rise)
		}
	}
}

func atoi(t *testing.T, s string) uint16 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 16)
	check(t, err)
	return uint16(n)
}
