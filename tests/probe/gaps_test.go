package probe

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Clients 1 and 2 are of bucket 1, and client 3 of bucket 3.
func bucketOfThree(source netip.Addr) int { return (int(source.As4()[3])-1)/2*2 + 1 }

func TestGaps(t *testing.T) {
	for name, c := range map[string]struct {
		build func(*handMade)
		want  []Gap
	}{
		"nothing moves": {func(l *handMade) {
			l.steady(UDP, client(1), 0, second, "node1")
			l.silent(UDP, client(1), second, 2*second)
			l.steady(UDP, client(1), 2*second, 3*second, "node1")
		}, nil},
		"a bucket moves": {func(l *handMade) {
			l.steady(UDP, client(1), 0, 2*second, "node1")
			l.silent(UDP, client(1), 2*second, 3*second)
			l.steady(UDP, client(1), 3*second, 5*second, "node2")
		}, []Gap{{1, "node1", "node2", 3001 * ms, 1001 * ms}}},
		"nobody asks meanwhile": {func(l *handMade) {
			l.steady(UDP, client(1), 0, 2*second, "node1")
			l.steady(UDP, client(1), 3*second, 5*second, "node2")
		}, []Gap{{1, "node1", "node2", 3001 * ms, ms}}},
		"another client of the bucket was answered": {func(l *handMade) {
			l.steady(UDP, client(1), 0, 2*second, "node1")
			l.steady(ICMP, client(2), 50*ms, 2*second, "node1")
			l.silent(UDP, client(1), 2*second, 2500*ms)
			l.steady(ICMP, client(2), 2050*ms, 4*second, "node2")
			l.steady(UDP, client(1), 2500*ms, 4*second, "node2")
		}, []Gap{{1, "node1", "node2", 2051 * ms, 51 * ms}}},
		"a gap behind the move": {func(l *handMade) {
			l.steady(UDP, client(1), 0, 2*second, "node1")
			l.steady(UDP, client(1), 2*second, 2200*ms, "node2")
			l.silent(UDP, client(1), 2200*ms, 2600*ms)
			l.steady(UDP, client(1), 2600*ms, 4*second, "node2")
		}, []Gap{{1, "node1", "node2", 2001 * ms, 401 * ms}}},
		"a long gap that begins behind the move": {func(l *handMade) {
			l.steady(UDP, client(1), 0, 2*second, "node1")
			l.steady(UDP, client(1), 2*second, 2200*ms, "node2")
			l.silent(UDP, client(1), 2200*ms, 5*second)
			l.steady(UDP, client(1), 5*second, 6*second, "node2")
		}, []Gap{{1, "node1", "node2", 2001 * ms, 2801 * ms}}},
		"a gap long before the move": {func(l *handMade) {
			l.steady(UDP, client(1), 0, second, "node1")
			l.silent(UDP, client(1), second, 2*second)
			l.steady(UDP, client(1), 2*second, 4*second, "node1")
			l.steady(UDP, client(1), 4*second, 5*second, "node2")
		}, []Gap{{1, "node1", "node2", 4001 * ms, ms}}},
		"old connections end on the old owner": {func(l *handMade) {
			l.steady(UDP, client(1), 0, 2*second, "node1")
			l.steady(UDP, client(1), 2*second, 4*second, "node2")
			l.add(Answer, Connect, client(2), 1950*ms, 200*ms, "node1")
			l.steady(Stream, client(2), 0, 4*second, "node1")
		}, []Gap{{1, "node1", "node2", 2001 * ms, 51 * ms}}},
		"there and back": {func(l *handMade) {
			l.steady(UDP, client(1), 0, 2*second, "node1")
			l.steady(UDP, client(1), 2*second, 5*second, "node2")
			l.silent(UDP, client(1), 5*second, 5200*ms)
			l.steady(UDP, client(1), 5200*ms, 7*second, "node1")
		}, []Gap{{1, "node1", "node2", 2001 * ms, ms}, {1, "node2", "node1", 5201 * ms, 201 * ms}}},
	} {
		l := newHandMade()
		c.build(l)
		got, _ := l.log().Gaps(bucketOfThree)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A bucket that does not move is a measure of what the machine and the probe add.
func TestGapsOfBucketsThatDoNotMove(t *testing.T) {
	l := newHandMade()
	l.steady(UDP, client(1), 0, 2*second, "node1")
	l.steady(UDP, client(1), 2*second, 4*second, "node2")
	l.steady(UDP, client(3), 0, 2*second, "node3")
	l.silent(UDP, client(3), 2*second, 2100*ms)
	l.steady(UDP, client(3), 2100*ms, 4*second, "node3")
	_, still := l.log().Gaps(bucketOfThree)
	if diff := cmp.Diff([]Gap{{Bucket: 3, At: 2001 * ms, Length: 101 * ms}}, still); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDistribution(t *testing.T) {
	var gaps []Gap
	for _, length := range []time.Duration{3, 4, 5, 9, 40, 60, 70, 80, 90, 1500} {
		gaps = append(gaps, Gap{Length: length * ms})
	}
	want := strings.TrimPrefix(`
10 moves: median 40.0 ms, 90 % 90.0 ms, longest 1500.0 ms
    < 5ms     2 ############
   < 10ms     2 ############
   < 50ms     1 ######
  < 100ms     4 ########################
     < 2s     1 ######
`, "\n")
	if diff := cmp.Diff(want, Distribution("moves", gaps)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := Distribution("moves", nil); got != "0 moves: median 0.0 ms, 90 % 0.0 ms, longest 0.0 ms\n" {
		t.Errorf("without any: %q", got)
	}
}
