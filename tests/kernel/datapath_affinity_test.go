//go:build system

package kernel

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"ocf-clusterip/tests/lan"

	"golang.org/x/sys/unix"
)

// With hash_prefix4=24 and hash_prefix6=64 all clients of a network have one bucket, and 4096 networks are spread evenly.
func TestAffinityByNetwork(t *testing.T) {
	const buckets, networks = 16, 4096
	s := newSite(t, lan.Options{Nodes: 1}, buckets, webIP("ip", dualStack, "hash_prefix4", "24", "hash_prefix6", "64"))
	random := rand.New(rand.NewPCG(3, 4))
	var packets []tossed
	spread := map[bool]*[buckets]int{false: {}, true: {}} // by is IPv6
	for i := range networks {
		third, host, other := byte(i), byte(random.Uint32()), byte(random.Uint32())
		second := byte(16 + i>>8)
		of := func(is6 bool, host byte) tossed {
			if !is6 {
				p := toss("icmp", netip.AddrFrom4([4]byte{172, second, third, host}), 1, 0)
				p.bucket = s.bucket(lan.Flow{Proto: lan.ICMP, Src: netip.AddrFrom4([4]byte{172, second, third, 0})})
				return p
			}
			network := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0x64, 0, second, third})
			source := network.As16()
			source[8], source[15] = byte(random.Uint32()), host
			return tossed{
				name:   netip.AddrFrom16(source).String(),
				ipv6:   packet6(netip.AddrFrom16(source), shared6, unix.IPPROTO_NONE, nil, nil),
				bucket: s.bucket(lan.Flow{Src: network}),
			}
		}
		for _, is6 := range []bool{false, true} {
			packets = append(packets, of(is6, host), of(is6, other))
			spread[is6][packets[len(packets)-1].bucket]++
		}
	}
	s.tossAndCount(t, packets)
	for is6, counts := range spread {
		chiSquared := 0.0
		for _, count := range counts {
			deviation := float64(count) - networks/buckets
			chiSquared += deviation * deviation / (networks / buckets)
		}
		const bound = 30.578 // 99 % for 15 degrees of freedom
		t.Logf("IPv6 %t: chi-squared %.1f (99 %% bound %.1f): %v", is6, chiSquared, bound, *counts)
		if chiSquared > bound {
			t.Error("the networks are not spread evenly")
		}
	}
}

// The clients of one network reach one node, by all protocols.
func TestClientsOfANetworkReachOneNode(t *testing.T) {
	s := newSite(t, lan.Options{}, 8, webIP("ip", dualStack, "hash_prefix4", "24", "hash_prefix6", "64"))
	check(t, s.startAll(0, 1, 2, 0, 1, 2, 0, 1))
	for _, target := range s.spec.Addresses {
		r := probe(t, s.Network, lan.Traffic{Target: target, Sources: s.SourcesLike(target, 200)})
		if err := r.ExactlyOnce(s.owner); err != nil {
			t.Error(err)
		}
		if nodes := r.Answered(); len(nodes) != 1 {
			t.Errorf("%s: 200 clients of one network were answered by %v", target, nodes)
		}
	}
	// And those of many networks reach all.
	var sources []netip.Addr
	for _, network := range s.Networks6(64) {
		sources = append(sources, network.Addr().Next())
	}
	r := probe(t, s.Network, lan.Traffic{Target: shared6, Sources: sources})
	if err := r.ExactlyOnce(s.owner); err != nil {
		t.Error(err)
	}
	if nodes := r.Answered(); len(nodes) != 3 {
		t.Errorf("64 networks were answered by %v", nodes)
	}
}
