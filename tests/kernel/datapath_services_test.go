//go:build system

package kernel

import (
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// What is listed is spread; all else is answered by the owner of bucket 0, wherever that is. Fragments count as listed.
func TestServices(t *testing.T) {
	eachHashMode(t, func(t *testing.T, p harness.Parameters) {
		if p["hashmode"] == "sourceip-sourceport" {
			inGuest(t, "data-path")
		}
		const web, single, ranged, last = 80, 25, 5050, 65535
		s := newSite(t, lan.Options{}, 8, p.With("ip", dualStack, "services", "tcp/80, udp/5000-5100 tcp/443 udp/60000-65535 icmp"))
		for _, port := range []uint16{web, single, ranged, last} {
			check(t, s.Serve(port))
		}
		check(t, s.startAll(1, 1, 2, 0, 1, 2, 0, 0))
		for _, bucket0 := range []int{1, 2} {
			if s.at[0] != bucket0 {
				check(t, s.move(0, bucket0))
			}
			for _, target := range s.spec.Addresses {
				for _, tt := range []struct {
					proto  lan.Proto
					port   uint16
					shared bool
				}{
					{lan.TCP, web, true},
					{lan.TCP, single, false},
					{lan.TCP, ranged, false},
					{lan.TCP, last, false},
					{lan.UDP, web, false},
					{lan.UDP, ranged, true},
					{lan.UDP, last, true},
					{lan.ICMP, 0, true},
				} {
					r := probe(t, s.Network, lan.Traffic{Target: target, Sources: s.SourcesLike(target, 48), Protos: []lan.Proto{tt.proto}, Port: tt.port})
					if err := r.ExactlyOnce(s.owner); err != nil {
						t.Errorf("%s %s/%d: %v", target, tt.proto, tt.port, err)
					}
					if nodes := r.Answered(); len(nodes) == 3 != tt.shared || !tt.shared && nodes[bucket0] != 48 {
						t.Errorf("%s %s/%d is answered by %v", target, tt.proto, tt.port, nodes)
					}
				}
				fragments := lan.Traffic{Target: target, Sources: s.SourcesLike(target, 48), Protos: []lan.Proto{lan.UDP}, Port: single, Size: 4000}
				if err := probe(t, s.Network, fragments).ExactlyOnce(s.ownerWithoutPorts); err != nil {
					t.Errorf("%s, fragments: %v", target, err)
				}
			}
		}
		check(t, s.monitorAll())
	})
}

// Without icmp among the services, pings are bucket 0's.
func TestPingsAreNotSharedUnlessListed(t *testing.T) {
	s := newSite(t, lan.Options{}, 4, webIP("ip", dualStack, "services", "tcp/7"))
	check(t, s.startAll(2, 0, 1, 0))
	for _, target := range s.spec.Addresses {
		r := probe(t, s.Network, lan.Traffic{Target: target, Sources: s.SourcesLike(target, 48)})
		if err := r.ExactlyOnce(s.owner); err != nil {
			t.Error(err)
		}
		for _, e := range r.Exchanges {
			if e.Flow.Proto == lan.ICMP && e.Answers[0].Node != 2 {
				t.Fatalf("%s is answered by node%d", e.Flow, e.Answers[0].Node+1)
			}
		}
	}
}

// The only bucket of a node may be started again with other services, in the tables that are there.
func TestServicesChange(t *testing.T) {
	p := newTestNode(t, webIP("services", "tcp/7-11 tcp/17-23"))
	for _, services := range []string{
		"tcp/7-11 tcp/17-23", "tcp/8-13", "tcp/8-13 tcp/14", "tcp/65000-65535 udp/53", "udp/53", "tcp/7-11 tcp/17-23",
	} {
		p.Parameters = p.Parameters.With("services", services)
		check(t, status(p.start(0), ocf.Success))
		check(t, status(p.monitor(0), ocf.Success))
	}
	check(t, status(p.stop(0), ocf.Success))
}
