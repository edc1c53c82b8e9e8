//go:build system

package kernel

import (
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// 256 clients, three protocols: each flow gets exactly one answer, from the node that runs its bucket, also after
// buckets have moved.
func TestEveryFlowIsAnsweredOnceByItsOwner(t *testing.T) {
	eachFamily(t, func(t *testing.T, ip string) {
		eachMode(t, func(t *testing.T, p harness.Parameters) {
			if ip == dualStack && p["hashmode"] == "sourceip-sourceport-destport" {
				inGuest(t, "data-path")
			}
			s := newSite(t, lan.Options{}, 8, p.With("ip", ip))
			check(t, s.startAll(0, 0, 0, 1, 1, 1, 2, 2))
			everyFlow(t, s)
			check(t, s.move(0, 2))
			check(t, s.move(7, 1))
			everyFlow(t, s)
			check(t, s.monitorAll())
		})
	})
}

func TestEveryFlowIsAnsweredOnceWithOtherParameters(t *testing.T) {
	tests := []struct {
		name       string
		nodes      int
		parameters harness.Parameters
		at         []int // where each bucket runs
		mac        string
		seed       clusterip.Seed
	}{
		{
			"the article's MAC and a seed", 3, webIP("mac", "01:02:03:04:05:06", "hash_seed", "0x5eed"),
			[]int{2, 1, 0, 0, 1, 2, 1, 0},
			"01:02:03:04:05:06", 0x5eed,
		},
		{
			"a seed near the end of its range", 2, webIP("mac_mode", "unicast", "hashmode", "sourceip-sourceport", "hash_seed", "4294967295"),
			[]int{0, 1, 0},
			"02:c1:c0:a8:0a:03", 0xffffffff,
		},
		{"one bucket", 1, webIP(), []int{0}, "03:c1:c0:a8:0a:03", clusterip.DefaultSeed(shared)},
		{"one bucket on one of three nodes", 3, webIP("mac_mode", "igmp"), []int{1}, "01:00:5e:7f:0a:03", clusterip.DefaultSeed(shared)},
		{
			"one bucket on each of three nodes", 3, webIP("hashmode", "sourceip-sourceport-destport"),
			[]int{0, 1, 2},
			"03:c1:c0:a8:0a:03", clusterip.DefaultSeed(shared),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: tt.nodes}, len(tt.at), tt.parameters)
			if s.spec.MACs.IPv4.String() != tt.mac || s.spec.Seed != tt.seed {
				t.Fatalf("the oracle takes MAC %s and seed %s, want %s and %s", s.spec.MACs.IPv4, s.spec.Seed, tt.mac, tt.seed)
			}
			check(t, s.startAll(tt.at...))
			everyFlow(t, s)
		})
	}
}

// everyFlow probes from 256 addresses. A client whose packets all go to one node's bucket would prove nothing, so the
// ports are those of no pattern.
func everyFlow(t *testing.T, s *site) {
	t.Helper()
	for _, target := range s.spec.Addresses {
		traffic := lan.Traffic{
			Target:     target,
			Sources:    s.SourcesLike(target, 256),
			SourcePort: func(i int) uint16 { return uint16(1024 + 251*i) },
		}
		r := probe(t, s.Network, traffic)
		if err := r.ExactlyOnce(s.owner); err != nil {
			t.Error(err)
		}
		t.Logf("%s: answered by each node: %v, lost %d of %d", target, r.Answered(), r.Lost(), r.Sent())
	}
}

// A datagram of 9000 bytes is 7 fragments, of which only the first shows the ports. All must reach one node, which is
// the one that owns the bucket of the address without ports, as for an echo request, which has none.
func TestAFragmentedDatagramIsAnsweredOnce(t *testing.T) {
	eachHashMode(t, func(t *testing.T, p harness.Parameters) {
		if p["hashmode"] == "sourceip-sourceport" {
			inGuest(t, "data-path")
		}
		s := newSite(t, lan.Options{}, 8, p.With("ip", dualStack))
		check(t, s.startAll(0, 1, 2, 0, 1, 2, 0, 1))
		for _, target := range s.spec.Addresses {
			large := lan.Traffic{Target: target, Sources: s.SourcesLike(target, 64), Protos: []lan.Proto{lan.ICMP, lan.UDP}, Size: 9000}
			if err := probe(t, s.Network, large).ExactlyOnce(s.ownerWithoutPorts); err != nil {
				t.Errorf("%s: %v", target, err)
			}
			small := large
			small.Size = 0
			if err := probe(t, s.Network, small).ExactlyOnce(s.owner); err != nil {
				t.Errorf("%s, small ones from the same ports: %v", target, err)
			}
		}
	})
}
