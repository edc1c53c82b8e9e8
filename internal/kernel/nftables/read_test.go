package nftables

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftreply"
)

// A dump that the kernel has torn, so that some elements are there twice and others not at all, is read again.
func TestTornDumpIsReadAgain(t *testing.T) {
	c := fakeConn(t, nil, nil)
	dumps := []set{
		{elements: []element{{key: 1}, {key: 3}, {key: 1}}},
		{elements: []element{{key: 3}, {key: 3}, {key: 2}}},
		{elements: []element{{key: 1}, {key: 2}, {key: 3}}},
	}
	reads := 0
	err := c.Consistently(t.Context(), "a set", func() error {
		reads++
		if dumps[reads-1].isTorn() {
			return fmt.Errorf("elements: %w", errTorn)
		}
		return nil
	})
	if err != nil || reads != len(dumps) {
		t.Errorf("%d reads, %v", reads, err)
	}
}

func TestTwoIntervalsSideBySideAreNoTear(t *testing.T) {
	s := set{elements: []element{{key: 80}, {key: 90, end: true}, {key: 90}, {key: 91, end: true}}}
	if s.isTorn() {
		t.Error("it is taken for one")
	}
}

func TestElementsAreCountedByKey(t *testing.T) {
	data, err := expr.MarshalExprData(unix.NFPROTO_NETDEV, &expr.Counter{Packets: 3, Bytes: 300})
	if err != nil {
		t.Fatal(err)
	}
	key := func(b ...byte) nftreply.Data { return nftreply.Data{Value: b} }
	counter := &nftreply.Expression{Name: "counter", Data: data}
	left := uint64(2000)
	var s set
	s.fill([]nftreply.Element{
		{Key: key(5, 5, 5, 5), Expression: counter, Userdata: []byte{0, 2, 'a', 0}},
		{Key: key(0, 80), Flags: nftreply.ElementEnd},
		{Key: key(6, 6, 6, 6), Expiration: &left},
		{Flags: nftreply.ElementCatchAll, Expression: counter},
		{Key: key(1, 2, 3), Expression: counter}, // of another length
	})
	want := set{
		elements: []element{
			{key: 0x05050505, comment: "a", counted: true},
			{key: 80, end: true},
			{key: 0x06060606, timed: true, left: 2 * time.Second},
			{all: true, counted: true},
		},
		counters: map[uint32]nftreply.Expression{0x05050505: *counter},
	}
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(set{}, element{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, want := s.countOf(s.elements[0]), (clusterip.Count{Packets: 3, Bytes: 300}); got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// An expression that was added to a rule is seen, even if its kind is not known.
func TestUnknownExpressionsStayVisible(t *testing.T) {
	var read nftreply.Rule
	read.Expressions.All = []nftreply.Expression{{Name: "counter"}, {Name: "future"}}
	r := ruleOf(read)
	if len(r.exprs) != 1 || len(r.unknown) != 1 || r.unknown[0] != "future" || (rule{exprs: r.exprs}).equal(r) {
		t.Errorf("%+v", r)
	}
}

// What lingers is read with the key that lasts as long: a probe publishes it.
func TestTakeoversAreRead(t *testing.T) {
	of := func(bucket clusterip.Bucket, left time.Duration) element {
		return element{key: uint32(bucket), comment: commentOf("web-ip", bucket), timed: true, left: left}
	}
	key := func(bucket clusterip.Bucket, left time.Duration, first byte) element {
		e := of(bucket, left)
		e.long = []byte{first, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, byte(bucket)}
		e.value = []byte{first, 10, 11, 12}
		return e
	}
	read := clusterip.Tables{Owned: []clusterip.Bucket{5}}
	takeoversIn([]table{{sets: []set{
		{name: setLingering, elements: []element{of(2, time.Second), of(5, time.Second)}},
		{name: setKeys, elements: []element{key(2, 9*time.Second, 1), key(2, time.Second, 7), key(3, time.Second, 3), key(5, time.Second, 5)}},
		{name: setExpecting, elements: []element{of(4, time.Second), of(5, time.Second)}},
	}}}, &read)
	want := clusterip.Tables{
		Owned: []clusterip.Bucket{5}, Lingered: []clusterip.Bucket{2, 3}, Expecting: []clusterip.Bucket{4},
		Lingering: []clusterip.Linger{{Bucket: 2, Left: time.Second, Key: clusterip.TakeoverKey{
			Secret: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Token: [4]byte{1, 10, 11, 12},
		}}},
	}
	if diff := cmp.Diff(want, read); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
