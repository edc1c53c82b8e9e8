//go:build system

package lan

import (
	"strings"
	"testing"
	"time"
)

func TestStream(t *testing.T) {
	n := Start(t, Options{})
	serve(t, n)
	owner := buckets(t, n)
	s, err := n.Stream(t.Context(), Traffic{Target: shared, Sources: n.Sources(48)}, 2000)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	r, err := s.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.AtMostOnce(func(f Flow, node int) bool { return node == owner(f) }); err != nil {
		t.Error(err)
	}
	if r.Sent() < 96 || r.Lost() != 0 { // every flow had its turn
		t.Errorf("sent %d, lost %d", r.Sent(), r.Lost())
	}
}

func TestStreamSeesEachDuplicate(t *testing.T) {
	n := Start(t, Options{Nodes: 2})
	serve(t, n)
	cluster(t, n)
	s, err := n.Stream(t.Context(), Traffic{Target: shared, Sources: n.Sources(3)}, 500)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	r, err := s.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Exchanges {
		answered := e.answered()
		for seq := uint32(1); seq <= e.Sent; seq++ {
			if answered[seq] != 2 {
				t.Errorf("%s: packet %d of %d has %d answers, want 2", e.Flow, seq, e.Sent, answered[seq])
			}
		}
	}
	if err := r.AtMostOnce(func(Flow, int) bool { return true }); err == nil ||
		!strings.Contains(err.Error(), "answered 2 times: node1 (reply), node2 (reply)") &&
			!strings.Contains(err.Error(), "answered 2 times: node2 (reply), node1 (reply)") {
		t.Errorf("duplicates are not reported: %v", err)
	}
}

func TestStreamRefusesWhatItCannotDo(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	for name, tr := range map[string]Traffic{
		"TCP":        {Target: shared, Sources: n.Sources(1), Protos: []Proto{TCP}},
		"no sources": {Target: shared},
		"twice":      {Target: shared, Sources: append(n.Sources(1), n.Sources(1)...), Protos: []Proto{ICMP}},
	} {
		if s, err := n.Stream(t.Context(), tr, 10); err == nil {
			_, _ = s.Stop()
			t.Errorf("%s: accepted", name)
		}
	}
}
