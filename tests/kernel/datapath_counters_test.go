//go:build system

package kernel

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"

	"github.com/google/go-cmp/cmp"
)

// Debian 12's nft crashes on some hash expressions. It must be able to print ours, as text and as JSON.
func TestNftPrintsOurTables(t *testing.T) {
	eachMode(t, func(t *testing.T, p harness.Parameters) {
		s := newSite(t, lan.Options{Nodes: 1}, 8, p)
		check(t, s.startAll(0, 0, 0))
		text := listNFT(t, s.Nodes[0], "list", "ruleset")
		for _, want := range []string{
			"table netdev clusterip-192.168.10.3", "table arp clusterip-192.168.10.3", "jhash ip saddr", "mod 8",
			fmt.Sprintf("seed 0x%x", uint32(s.spec.Seed)), s.spec.MACs.IPv4.String(), `"web-ip:2"`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("nft list ruleset does not show %q:\n%s", want, text)
			}
		}
		all := listNFT(t, s.Nodes[0], "-j", "list", "ruleset")
		if !json.Valid([]byte(all)) || strings.Count(all, `"clusterip-192.168.10.3"`) < 2 {
			t.Errorf("nft -j list ruleset prints %s", all)
		}
		if text != listNFT(t, s.Nodes[0], "list", "ruleset") {
			t.Error("two lists of the same rules differ")
		}
	})
}

// Each bucket's counter holds exactly the packets that fell into it.
func TestCountersOfTheBuckets(t *testing.T) {
	eachHashMode(t, func(t *testing.T, p harness.Parameters) {
		s := newSite(t, lan.Options{Nodes: 2}, 4, p)
		check(t, s.startAll(0, 1, 0, 1))
		check(t, awaitOwnNeighbour(t, s))
		want := []map[int]counted{s.counters(t, 0), s.counters(t, 1)}
		const echo = 20 + 8 + lan.StampLen // bytes of a packet
		for round := range 4 {             // the i-th client sends 1 to 4 packets
			sources := s.Sources(40)[:40-10*round]
			r := probe(t, s.Network, lan.Traffic{Target: shared, Sources: sources, Protos: []lan.Proto{lan.ICMP}, Settle: time.Millisecond})
			if err := r.ExactlyOnce(s.owner); err != nil {
				t.Error(err)
			}
			for _, e := range r.Exchanges {
				bucket := s.bucket(e.Flow)
				c := want[s.at[bucket]][bucket]
				want[s.at[bucket]][bucket] = counted{c.Packets + int(e.Sent), c.Bytes + int(e.Sent)*echo}
			}
		}
		if diff := cmp.Diff(want, []map[int]counted{s.counters(t, 0), s.counters(t, 1)}); diff != "" {
			t.Errorf("counters of the nodes' buckets (-want +got):\n%s", diff)
		}
		// The counter of a bucket that has moved starts at 0; the others go on.
		check(t, s.move(2, 1))
		delete(want[0], 2)
		want[1][2] = counted{}
		if diff := cmp.Diff(want, []map[int]counted{s.counters(t, 0), s.counters(t, 1)}); diff != "" {
			t.Errorf("counters after a move (-want +got):\n%s", diff)
		}
	})
}

// awaitOwnNeighbour makes the client learn the shared MAC with a packet of its own, which counts like any other.
func awaitOwnNeighbour(t *testing.T, s *site) error {
	t.Helper()
	r := probe(t, s.Network, lan.Traffic{Target: shared, Sources: s.Sources(1), Protos: []lan.Proto{lan.ICMP}})
	return r.ExactlyOnce(s.owner)
}

// counted is what a counter of nftables holds.
type counted struct{ Packets, Bytes int }

// counters reads the counters of the buckets that a node owns, as an admin would.
func (s *site) counters(t *testing.T, node int) map[int]counted {
	t.Helper()
	var listed struct {
		Nftables []struct {
			Set *struct {
				Elem []struct {
					Elem struct {
						Val     int
						Counter *counted
					}
				}
			}
		}
	}
	text := listNFT(t, s.Nodes[node], "-j", "list", "set", "netdev", "clusterip-"+shared.String(), "owned")
	if err := json.Unmarshal([]byte(text), &listed); err != nil {
		t.Fatalf("read %s: %v", text, err)
	}
	buckets := map[int]counted{}
	for _, object := range listed.Nftables {
		if object.Set == nil {
			continue
		}
		for _, e := range object.Set.Elem {
			if e.Elem.Counter == nil {
				t.Fatalf("bucket %d has no counter: %s", e.Elem.Val, text)
			}
			buckets[e.Elem.Val] = *e.Elem.Counter
		}
	}
	return buckets
}

// listNFT lists something with nft, which must succeed and write nothing to stderr.
func listNFT(t *testing.T, h *lan.Host, args ...string) string {
	t.Helper()
	r := h.Run(t.Context(), lan.ToolPath, append([]string{"nft"}, args...)...)
	if err := r.Failure(); err != nil || r.Stderr != "" {
		t.Fatalf("nft %s: %v %s", strings.Join(args, " "), err, r.Stderr)
	}
	return r.Stdout
}
