//go:build system

package kernel

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"

	"github.com/google/go-cmp/cmp"
)

// Buckets move between nodes for more than a thousand starts and stops while clients keep asking: no node answers for a
// bucket that it does not run, no packet is answered twice, and the clients receive no MAC but the shared one (newSite). The resource
// manager starts a bucket only when its stop on the other node has ended; different buckets go at the same time.
func TestMovesUnderTraffic(t *testing.T) {
	for _, target := range []netip.Addr{shared, shared6} {
		t.Run(target.String(), func(t *testing.T) { testMovesUnderTraffic(t, target) })
	}
}

func testMovesUnderTraffic(t *testing.T, target netip.Addr) {
	eachHashMode(t, func(t *testing.T, p harness.Parameters) {
		const calls, buckets = 200, 8 // for each of three modes and two addresses
		s := newSite(t, lan.Options{}, buckets, p.With("ip", target.String(), "arp_count", "1"))
		empty := s.dumps(t)
		stream, err := s.Stream(t.Context(), lan.Traffic{Target: target, Sources: s.SourcesLike(target, 64)}, 3000)
		check(t, err)
		l := &ledger{site: s, stream: stream, tenures: make([][]tenure, buckets)}
		moveAbout(t, l, calls, empty)
		r, err := stream.Stop()
		check(t, err)
		if err := r.AtMostOnce(func(lan.Flow, int) bool { return true }); err != nil {
			t.Error(err)
		}
		if err := l.audit(r); err != nil {
			t.Error(err)
		}
		t.Logf("%d calls; %d packets, %d answered, by each node: %v", l.calls, r.Sent(), r.Sent()-r.Lost(), r.Answered())
		everyFlow(t, s)
	})
}

// moveAbout makes at least that many calls, and ends with all buckets running.
func moveAbout(t *testing.T, l *ledger, calls int, empty []string) {
	t.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	all := random.Perm(len(l.at))
	l.start(t, all, func(int) int { return random.IntN(3) })
	for l.calls < calls {
		switch random.IntN(8) {
		case 0: // a node is taken out: the last stop removes everything; then it comes back: the first start installs everything
			node := random.IntN(3)
			var here []int
			for bucket, at := range l.at {
				if at == node {
					here = append(here, bucket)
				}
			}
			l.stop(t, here)
			if diff := cmp.Diff(empty[node], l.dumps(t)[node]); diff != "" {
				t.Errorf("node%d without buckets (-before +now):\n%s", node+1, diff)
			}
			l.start(t, here, func(int) int { return (node + 1 + random.IntN(2)) % 3 })
			l.stop(t, here)
			l.start(t, here, func(int) int { return node })
		case 1: // the whole resource is stopped and started
			l.stop(t, all)
			l.start(t, all, func(int) int { return random.IntN(3) })
		case 2: // one node serves all clients
			node := random.IntN(3)
			l.stop(t, all)
			l.start(t, all, func(int) int { return node })
		default: // some buckets move
			some := random.Perm(len(l.at))[:1+random.IntN(3)]
			l.stop(t, some)
			l.start(t, some, func(bucket int) int { return (bucket + random.IntN(3)) % 3 })
		}
	}
}

// A ledger records which node ran which bucket when: time is counted in packets of the stream.
type ledger struct {
	*site
	stream  *lan.Stream
	tenures [][]tenure // of each bucket
	calls   int
}

// tenure is a node's time with a bucket, by how many packets each flow had sent then: from before the start was called
// until the stop had ended.
type tenure struct {
	node     int
	from, to []uint32 // to is nil when it has not ended
}

// start starts buckets, all at the same time.
func (l *ledger) start(t *testing.T, buckets []int, on func(bucket int) int) {
	t.Helper()
	from := l.stream.Sent()
	for _, bucket := range buckets {
		l.tenures[bucket] = append(l.tenures[bucket], tenure{node: on(bucket), from: from})
	}
	l.each(t, buckets, func(bucket int) error {
		return l.startOn(l.tenures[bucket][len(l.tenures[bucket])-1].node, bucket)
	})
}

// stop stops buckets, all at the same time.
func (l *ledger) stop(t *testing.T, buckets []int) {
	t.Helper()
	l.each(t, buckets, l.clone.stop)
	to := l.stream.Sent()
	for _, bucket := range buckets {
		l.tenures[bucket][len(l.tenures[bucket])-1].to = to
	}
}

func (l *ledger) each(t *testing.T, buckets []int, do func(bucket int) error) {
	t.Helper()
	l.calls += len(buckets)
	errs := make([]error, len(buckets))
	var calls sync.WaitGroup
	for i, bucket := range buckets {
		calls.Go(func() { errs[i] = do(bucket) })
	}
	calls.Wait()
	check(t, errors.Join(errs...))
}

// audit returns an error for every answer by a node that did not run the bucket when the packet was sent. It does not know whether a
// packet that was just being counted had been sent; so the last one before a tenure is the node's too.
func (l *ledger) audit(r *lan.Report) error {
	var errs []error
	for i, e := range r.Exchanges {
		bucket := l.bucket(e.Flow)
		for _, a := range e.Answers {
			if !slices.ContainsFunc(l.tenures[bucket], func(t tenure) bool {
				return t.node == a.Node && t.from[i] <= a.Seq && (t.to == nil || a.Seq <= t.to[i])
			}) {
				errs = append(errs, fmt.Errorf("%s: packet %d was answered by %s, which did not run bucket %d", e.Flow, a.Seq, a.From(), bucket))
			}
		}
		if len(e.Answers) == 0 {
			errs = append(errs, fmt.Errorf("%s: no packet of %d was answered", e.Flow, e.Sent))
		}
	}
	if len(errs) > shownFaults {
		errs = append(errs[:shownFaults], fmt.Errorf("and %d more", len(errs)-shownFaults))
	}
	return errors.Join(errs...)
}

// dumps returns the state of each node.
func (s *site) dumps(t *testing.T) []string {
	t.Helper()
	dumps := make([]string, len(s.Nodes))
	for i, h := range s.Nodes {
		var err error
		dumps[i], err = h.Dump()
		check(t, err)
	}
	return dumps
}
