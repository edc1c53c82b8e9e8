package clusterip

import (
	"bufio"
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
)

// A vector is what a real kernel (Linux 6.1) decided about one packet.
type vector struct {
	target string // clusterip or xt_cluster
	mode   HashMode
	seed   Seed
	total  uint32
	flow   Flow
	node   uint32 // 1..total
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	file, err := os.Open("testdata/kernel-hash-vectors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	number := func(text string, width int) uint64 {
		value, err := strconv.ParseUint(text, 0, width)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	var vectors []vector
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		f := strings.Split(lines.Text(), "\t")
		vectors = append(vectors, vector{
			target: f[0], mode: HashMode(f[1]), seed: Seed(number(f[2], 32)), total: uint32(number(f[3], 32)),
			flow: Flow{
				Source: netip.MustParseAddr(f[5]), SourcePort: uint16(number(f[6], 16)), DestinationPort: uint16(number(f[7], 16)),
			},
			node: uint32(number(f[8], 32)),
		})
	}
	return vectors
}

func TestHashAgreesWithRealKernels(t *testing.T) {
	count := map[string]int{}
	for _, v := range readVectors(t) {
		var got Bucket
		switch v.target {
		case "clusterip":
			got = BucketOf(v.mode, ClusterIP, v.flow, v.seed, v.total)
		case "xt_cluster":
			got = BucketOf(SourceIP, XTCluster, v.flow, v.seed, v.total)
		default:
			t.Fatalf("unknown target %q", v.target)
		}
		if want := Bucket(v.node - 1); got != want {
			t.Errorf("%+v: bucket %d, the kernel said %d", v, got, want)
		}
		count[v.target]++
	}
	for _, target := range []string{"clusterip", "xt_cluster"} {
		if count[target] < 144 {
			t.Errorf("only %d vectors of %s", count[target], target)
		}
	}
}

func TestOwnerOfPortlessPacketsIsThatOfPortsZero(t *testing.T) {
	for _, source := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::abcd:1")} {
		for _, mode := range HashModes() {
			for _, seed := range []Seed{1, 0x9e3779b9, 0xffffffff} {
				got := Jhash(uint32(PortlessSeed(mode, seed)), wordsOf(source, binary.NativeEndian)...)
				if want := BucketOf(mode, XTCluster, Flow{Source: source}, seed, 1024); Bucket(ReciprocalScale(got, 1024)) != want {
					t.Errorf("%s, %s, seed %s: hashing the address alone gives another bucket than ports of 0", source, mode, seed)
				}
			}
		}
	}
}

// What nf_tables is told instead of seed 0 gives the hash of seed 0.
func TestZeroWordSeed(t *testing.T) {
	for _, source := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::abcd:1")} {
		for _, mode := range HashModes() {
			words := wordsOf(source, binary.NativeEndian)
			for i := range mode.PortWords() {
				words = append(words, uint32(i+7))
			}
			equal := Jhash(0, words...) == Jhash(uint32(ZeroWordSeed), append(words, 0)...)
			if equal != ZeroSeedFits(mode) {
				t.Errorf("%s, %s: equal %t", source, mode, equal)
			}
		}
	}
}

func TestOwnerSpreadsEvenly(t *testing.T) {
	const n, sources = 16, 1 << 16
	var counts [n]int
	for i := range sources {
		source := netip.AddrFrom4([4]byte{10, 7, byte(i >> 8), byte(i)})
		counts[BucketOf(SourceIP, XTCluster, Flow{Source: source}, DefaultSeed(netip.MustParseAddr("192.168.10.3")), n)]++
	}
	chiSquared := 0.0
	for _, count := range counts {
		deviation := float64(count) - sources/n
		chiSquared += deviation * deviation / (sources / n)
	}
	const bound = 30.578 // 99 % for 15 degrees of freedom
	if chiSquared > bound {
		t.Errorf("chi-squared %.1f is over %.1f: %v", chiSquared, bound, counts)
	}
}

func TestDefaultSeedIsNeverZero(t *testing.T) {
	for i := range 1 << 12 {
		if address := netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}); DefaultSeed(address) == 0 {
			t.Fatalf("seed of %s is 0", address)
		}
	}
}

func TestFirstPublic(t *testing.T) {
	for address, want := range map[string]bool{
		"9.9.9.9": true, "10.0.0.1": false, "172.16.0.1": false, "192.168.10.3": false, "100.64.0.1": false, "100.128.0.1": true,
		"169.254.0.1": false, "192.0.2.1": false, "224.0.0.1": false, "240.0.0.1": false, "2606:4700::1": true, "2001:db8::1": false,
		"fd00::1": false, "fe80::1": false,
	} {
		got, is := FirstPublic([]netip.Addr{netip.MustParseAddr("192.168.10.3"), netip.MustParseAddr(address)})
		if is != want || is && got.String() != address {
			t.Errorf("%s: %s, %t", address, got, is)
		}
	}
}
