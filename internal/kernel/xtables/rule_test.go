package xtables

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
)

func layout() clusterip.Layout {
	return clusterip.Layout{
		Schema: 1, Resource: "web-ip", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.10.3/24")}, NIC: "eth0", NICIndex: 2,
		Backend: clusterip.Target, MACMode: clusterip.Multicast,
		MACs:     clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.MAC{3, 0xc1, 192, 168, 10, 3}},
		HashMode: clusterip.SourceIP, HashCompat: clusterip.ClusterIP, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128},
		Seed: 1, Buckets: 8,
	}
}

func TestStampedRule(t *testing.T) {
	for _, mark := range []string{"", Twin} {
		r := ParseRule(`-A INPUT -d 192.168.10.3/32 -m comment --comment "` + Comment(layout(), mark) + `" -j DROP`)
		got, err := r.Layout()
		if err != nil || got.Stamp() != layout().Stamp() || !r.IsStamped() || r.Mark() != mark {
			t.Errorf("mark %q: read as %+v, mark %q (%v)", mark, got, r.Mark(), err)
		}
		if !r.IsTo(netip.MustParseAddr("192.168.10.3")) || r.IsTo(netip.MustParseAddr("192.168.10.4")) || r.Spec()[0] != "-d" {
			t.Errorf("%q is not understood", r)
		}
	}
}

func TestLongNameFitsTheComment(t *testing.T) {
	l := layout()
	l.Resource = strings.Repeat("x", 300)
	if text := Comment(l, Twin); len(text) > maxComment || !clusterip.IsStamp(strings.TrimPrefix(text, "1b ")) {
		t.Errorf("%q", text)
	}
}

func TestQuotedWords(t *testing.T) {
	want := Rule{"-A", "INPUT", "-m", "comment", "--comment", `a "b" \c`, "-j", "ACCEPT"}
	if got := ParseRule(`-A INPUT -m comment --comment "a \"b\" \\c" -j ACCEPT`); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestWhatLetsOn(t *testing.T) {
	for line, want := range map[string]bool{
		"-A INPUT -j LOG": true, "-A INPUT -s 192.0.2.0/24 -j DROP": true, "-A INPUT": true,
		"-A INPUT -j ACCEPT": false, "-A INPUT -j mine": false, "-A INPUT -g mine": false,
	} {
		if got := ParseRule(line).NeverAccepts(); got != want {
			t.Errorf("%s: %t", line, got)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add(`-A INPUT -d 192.168.10.3/32 -m comment --comment "1 ip=192.168.10.3/24" -j DROP`)
	f.Add(`-A INPUT -m comment --comment "a \"b\" \\c" -j ACCEPT`)
	f.Fuzz(func(_ *testing.T, line string) {
		r := ParseRule(line)
		r.IsTo(netip.MustParseAddr("192.168.10.3"))
		_, _ = r.Layout()
		r.NeverAccepts()
		r.Spec()
	})
}
