package handover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	long  = 300 * time.Second
	short = 20 * time.Second
	ours  = "8f"
)

// drains, idle and incomplete are announcements of this layout, foreign of another. An idle node has read of all drains.
func drains(left time.Duration) Announcement {
	return Announcement{Drain: left, Layout: ours, Nonce: "m"}
}

func idle(others ...Drainer) Announcement {
	return Announcement{Layout: ours, Nonce: "m", Others: others, Complete: true}
}
func incomplete() Announcement { return Announcement{Layout: ours, Nonce: "m"} }
func foreign(left time.Duration) Announcement {
	return Announcement{Drain: left, Layout: "00", Nonce: "m"}
}

// lingers is the announcement of a node that lingers, with that key.
func lingers(left time.Duration, key string) Announcement {
	return Announcement{Drain: long, Layout: ours, Nonce: "m", TakesOver: true, Lingers: Lingering{For: left, Key: key}}
}

// ready can take a bucket over.
func ready() Announcement {
	return Announcement{Layout: ours, Nonce: "m", Complete: true, TakesOver: true}
}

func lingerer(node string, left time.Duration, key string) Lingerer {
	return Lingerer{node, Lingering{For: left, Key: key}}
}
func relayed(drainers ...Drainer) Relayed { return Relayed{Drainers: drainers} }
func relayedLingering(lingerers ...Lingerer) Relayed {
	return Relayed{Lingering: lingerers}
}
func is(place Membership) (p NodeState) { return NodeState{Membership: place} }
func anyNode() []string                 { return []string{AnyNode} }

type (
	announced = map[string]Announcement
	relayedAt = map[string]Relayed
	states    = map[string]NodeState
)

func TestRemaining(t *testing.T) {
	for name, row := range map[string]struct {
		announced announced
		relayed   relayedAt
		states    states
		from      []string
		want      []string
	}{
		"nobody drains":    {announced: announced{"b": idle(), "c": idle()}, from: anyNode()},
		"one does":         {announced: announced{"b": drains(long), "c": idle()}, from: anyNode(), want: []string{"b"}},
		"one has finished": {announced: announced{"b": idle()}, from: []string{"b"}},
		"one has begun meanwhile": {
			announced: announced{"b": drains(long), "c": drains(long)}, from: []string{"b"}, want: []string{"b", "c"},
		},
		"it drains itself": {
			announced: announced{"a": drains(long), "b": idle(Drainer{"a", long})}, relayed: relayedAt{"b": relayed(Drainer{"a", long})},
			from: anyNode(),
		},
		"a member never announced anything": {announced: announced{"b": idle()}, states: states{"c": is(Member)}, from: anyNode()},
		"a member has not announced anything yet": {
			announced: announced{"b": incomplete()}, states: states{"c": is(Member)}, from: anyNode(), want: anyNode(),
		},
		"an old owner is a member without an announcement": {
			announced: announced{"b": idle()}, states: states{"c": is(Member)}, from: []string{"b", "c"}, want: []string{"c"},
		},
		"another member is without an announcement": {
			announced: announced{"b": drains(long)}, states: states{"c": is(Member)}, from: []string{"b"}, want: []string{"b"},
		},
		"a relayed announcement of one that left": {
			announced: announced{"b": idle()}, relayed: relayedAt{"b": relayed(Drainer{"c", long})}, states: states{"c": is(Left)}, from: anyNode(),
			want: []string{"c"},
		},
		"another node names one that left": {
			announced: announced{"b": idle(Drainer{"c", long})}, states: states{"c": is(Left)}, from: anyNode(), want: []string{"c"},
		},
		"a superseded announcement names one that left": {
			announced: announced{"b": idle(Drainer{"c", long})}, relayed: relayedAt{"b": {Supersedes: "m"}}, states: states{"c": is(Left)},
			from: anyNode(),
		},
		"one that left, and nobody names it": {announced: announced{"b": idle()}, states: states{"c": is(Left)}, from: anyNode()},
		"one that left was adopted from": {
			announced: announced{"b": idle()}, states: states{"c": is(Left)}, from: []string{"c"}, want: []string{"c"},
		},
		"one that is lost": {
			announced: announced{"b": idle()}, states: states{"c": is(Lost)}, from: []string{"c"}, want: []string{"c"},
		},
		"one that is dead": {
			announced: announced{"b": idle()}, relayed: relayedAt{"b": relayed(Drainer{"c", long})}, states: states{"c": is(Dead)},
			from: []string{"c"},
		},
		// it has come back
		"a dead one with an announcement": {
			announced: announced{"b": drains(long)}, states: states{"b": is(Dead)}, from: []string{"b"}, want: []string{"b"},
		},
		"one in an unknown state": {
			announced: announced{"b": idle()}, states: states{"c": {Unrecognised: "crmd=maybe"}}, from: []string{"c"}, want: []string{"c"},
		},
		"a remote node has finished": {
			announced: announced{"b": idle(), "r": idle()}, states: states{"r": {Unrecognised: "remote"}}, from: []string{"r"},
		},
		"its own announcement wins over a relayed one": {
			announced: announced{"b": idle(), "c": idle()}, relayed: relayedAt{"b": relayed(Drainer{"c", long})}, from: []string{"c"},
		},
		"another layout": {announced: announced{"b": foreign(0)}, from: anyNode(), want: []string{"b"}},
		"no announcement is complete": {
			announced: announced{"b": incomplete()}, states: states{"c": is(Left), "d": is(Lost), "e": is(Dead), "f": {Unrecognised: "?"}},
			from: anyNode(), want: []string{"c", "d", "f"},
		},
		"another layout, known to be over": {announced: announced{"b": foreign(0), "c": idle()}, from: anyNode()},
		"another layout that drains":       {announced: announced{"b": foreign(long), "c": idle()}, from: anyNode(), want: []string{"b"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := View{Self: "a", Layout: ours, Announcements: row.announced, Relayed: row.relayed, Nodes: row.states}
			got, left := v.Remaining(row.from, short, long)
			if diff := cmp.Diff(row.want, got, cmpopts.EquateEmpty()); diff != "" || left != short {
				t.Errorf("for %s from (-want +got):\n%s", left, diff)
			}
		})
	}
}

// A drain that began with a longer time than ours is waited for, once.
func TestLongerDrainProlongsTheAdoption(t *testing.T) {
	v := View{Self: "a", Layout: ours, Announcements: announced{"b": drains(long)}}
	from, left := v.Remaining(anyNode(), short+GracePeriod, short)
	if left != long+GracePeriod {
		t.Errorf("waits %s for a drain of %s", left, long)
	}
	if _, left = v.Remaining(from, short, short); left != short {
		t.Errorf("the time begins anew: %s", left)
	}
}

// Names never decide whether a bucket runs.
func TestTooManyNamesBecomeAnyNode(t *testing.T) {
	for _, row := range []struct{ nodes, length int }{{6, 43}, {24, 10}, {1, 252}, {20, 10}} {
		said := announced{}
		for i := range row.nodes {
			said[fmt.Sprintf("n%03d", i)+strings.Repeat("x", row.length-4)] = drains(long)
		}
		v := View{Self: "a", Layout: ours, Announcements: said}
		from, _ := v.Remaining(anyNode(), long, long)
		if diff := cmp.Diff(anyNode(), from); diff != "" {
			t.Errorf("%d names of %d bytes (-want +got):\n%s", row.nodes, row.length, diff)
		}
		for node := range said {
			said[node] = idle()
		}
		if from, _ = v.Remaining(from, long, long); len(from) > 0 {
			t.Errorf("all have finished, and it adopts from %v", from)
		}
	}
}

func TestAllDrain(t *testing.T) {
	v := View{Self: "a", Layout: ours, Announcements: announced{"b": drains(long), "c": idle()}}
	for from, want := range map[string]bool{"b": true, "c": false, "d": false, AnyNode: false} {
		if got := v.AllDrain([]string{from}); got != want {
			t.Errorf("%s: %t", from, got)
		}
	}
}

func TestRelayDrain(t *testing.T) {
	v := View{
		Self: "a", Layout: ours, Announcements: announced{"b": idle(), "c": drains(short), "d": idle(), "e": idle()},
		Relayed: relayedAt{"e": relayed(Drainer{"gone", long}, Drainer{"c", long})}, Nodes: states{"gone": is(Left), "f": is(Member)},
	}
	if diff := cmp.Diff([]Drainer(nil), v.OldOwners(nil, 0)); diff != "" {
		t.Errorf("without an adoption (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Drainer{{"c", short}}, v.OldOwners([]string{"b", "c"}, short)); diff != "" {
		t.Errorf("adopted by name (-want +got):\n%s", diff)
	}
	former := v.OldOwners(anyNode(), short)
	if diff := cmp.Diff([]Drainer{{"c", short}, {"gone", short}}, former); diff != "" {
		t.Errorf("adopted from anyNode (-want +got):\n%s", diff)
	}
	want := relayedAt{
		"b": {Drainers: []Drainer{{"a", long}, {"c", short}, {"gone", short}}, Supersedes: "m"},
		"c": {Drainers: []Drainer{{"a", long}, {"gone", short}}, Supersedes: "m"}, // of itself it knows better
	}
	if diff := cmp.Diff(want, v.RelayDrain(long, Lingering{}, former)); diff != "" {
		t.Errorf("relayed (-want +got):\n%s", diff)
	}
	v.Announcements = announced{"a": idle()}
	want = relayedAt{"f": {Drainers: []Drainer{{"a", long}}}}
	if diff := cmp.Diff(want, v.RelayDrain(long, Lingering{}, nil)); diff != "" || !v.NeedsNodeStates() {
		t.Errorf("a member that has not spoken is relayed (-want +got):\n%s", diff)
	}
}

func TestRelayAdoption(t *testing.T) {
	v := View{
		Self: "a", Layout: ours, Announcements: announced{"a": idle(), "b": idle(), "c": drains(long)},
		Nodes: states{"d": is(Member), "gone": is(Left)},
	}
	word := Drainer{"gone", short}
	from := []string{"c", "gone"}
	if diff := cmp.Diff(relayedAt{"b": relayed(word), "c": relayed(word)}, v.RelayAdoption(from, short)); diff != "" {
		t.Errorf("nobody knows (-want +got):\n%s", diff)
	}
	v.Relayed = relayedAt{"c": relayed(word)}
	if diff := cmp.Diff(relayedAt{"b": relayed(word)}, v.RelayAdoption(from, short)); diff != "" {
		t.Errorf("one knows (-want +got):\n%s", diff)
	}
	v.Relayed = relayedAt{"c": relayed(word), "d": relayed(word)}
	if got := v.RelayAdoption(append(from, AnyNode), short); len(got) > 0 {
		t.Errorf("two know, and others are relayed: %v", got)
	}
}

// The owner's monitor clears what is relayed of lingering: after a failure of this node, the next owner need not wait for it.
func TestRelayAdoptionEndsLingering(t *testing.T) {
	gone := Drainer{"gone", short}
	v := View{
		Self: "a", Layout: ours, Nodes: states{"gone": is(Left)},
		Announcements: announced{"a": ready(), "b": ready(), "c": ready(), "d": ready()},
		Relayed: relayedAt{
			"b": {Drainers: []Drainer{gone}, Lingering: []Lingerer{lingerer("gone", short, "k")}, Supersedes: "m"},
			"c": relayedLingering(lingerer("gone", short, "k")), "d": relayed(gone),
		},
	}
	want := relayedAt{"b": {Drainers: []Drainer{gone}, Supersedes: "m"}, "c": {}}
	if diff := cmp.Diff(want, v.RelayAdoption([]string{"gone"}, short), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClearRelayed(t *testing.T) {
	v := View{
		Self: "a", Layout: ours, Announcements: announced{
			"a": idle(), "b": idle(), "c": idle(Drainer{"gone", long}), "d": idle(Drainer{"gone", long}),
		},
		Relayed: relayedAt{"b": relayed(Drainer{"gone", long}), "c": {Supersedes: "older"}, "d": {Supersedes: "m"}},
	}
	if diff := cmp.Diff(relayedAt{"b": {Supersedes: "m"}, "c": {Supersedes: "m"}}, v.ClearRelayed()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An owner that knows of all from whom it adopts says so, so that no later one waits for others.
func TestKnowsAllDrains(t *testing.T) {
	v := View{
		Self: "a", Layout: ours, Announcements: announced{"b": drains(long), "c": foreign(0), "d": foreign(long)},
		Relayed: relayedAt{"b": relayed(Drainer{"gone", long})},
	}
	for from, want := range map[string]bool{
		"": true, "b": true, "gone": true, "b,gone": true, "d": true, "c": false, "b,left": false, AnyNode: false,
	} {
		if got := v.KnowsAllDrains(strings.FieldsFunc(from, func(r rune) bool { return r == ',' })); got != want {
			t.Errorf("%q: %t", from, got)
		}
	}
}

func TestDrainers(t *testing.T) {
	v := View{
		Self: "a", Announcements: announced{"a": drains(long), "b": drains(short), "c": idle(Drainer{"b", long})},
		Relayed: relayedAt{"c": relayed(Drainer{"gone", long})},
	}
	if diff := cmp.Diff([]Drainer{{"b", short}, {"gone", long}}, v.Drainers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every member must be able to take the bucket over: which of them is to own it is Pacemaker's decision, after the stop.
func TestMayLinger(t *testing.T) {
	for name, row := range map[string]struct {
		announced announced
		states    states
		may       bool
		unprobed  []string
	}{
		"another member takes over": {announced{"b": ready()}, states{"a": is(Member), "b": is(Member)}, true, nil},
		"two do":                    {announced{"b": ready(), "c": ready()}, states{"b": is(Member), "c": is(Member)}, true, nil},
		"no other node":             {announced{"a": ready()}, states{"a": is(Member)}, false, nil},
		"all others have left":      {nil, states{"b": is(Left), "c": is(Dead), "d": is(Lost), "e": {Unrecognised: "?"}}, false, nil},
		"one that left could not":   {announced{"b": ready()}, states{"b": is(Member), "c": is(Left)}, true, nil},
		"one member cannot":         {announced{"b": ready(), "c": idle()}, states{"b": is(Member), "c": is(Member)}, false, nil},
		"one member cannot, one is not probed": {
			announced{"b": idle()}, states{"b": is(Member), "c": is(Member)}, false, nil,
		},
		"two are not probed": {
			announced{"b": ready()}, states{"d": is(Member), "b": is(Member), "c": is(Member)}, false, []string{"c", "d"},
		},
		"the states are unknown": {announced{"b": ready()}, nil, false, nil},
		"another layout":         {announced{"b": {Layout: "00", Nonce: "m", TakesOver: true}}, states{"b": is(Member)}, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			may, unprobed := View{Self: "a", Layout: ours, Announcements: row.announced, Nodes: row.states}.MayLinger()
			if diff := cmp.Diff(row.unprobed, unprobed, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("unprobed (-want +got):\n%s", diff)
			}
			if may != row.may {
				t.Errorf("it may linger: %t", may)
			}
		})
	}
}

func TestLingerers(t *testing.T) {
	b := lingerer("b", short, "k1")
	for name, row := range map[string]struct {
		announced announced
		relayed   relayedAt
		states    states
		want      []Lingerer
	}{
		"nobody":               {announced: announced{"b": ready(), "c": drains(long)}},
		"one":                  {announced: announced{"b": lingers(short, "k1"), "c": ready()}, want: []Lingerer{b}},
		"it lingers itself":    {announced: announced{"a": lingers(short, "k1")}},
		"it is relayed itself": {relayed: relayedAt{"b": relayedLingering(lingerer("a", short, "k1"))}},
		"two, by name": {
			announced: announced{"c": lingers(1, "k2"), "b": lingers(short, "k1")}, want: []Lingerer{b, lingerer("c", 1, "k2")},
		},
		"one of another layout":   {announced: announced{"b": {Layout: "00", Nonce: "m", Lingers: b.Lingering}}},
		"one that left, relayed":  {relayed: relayedAt{"c": relayedLingering(b)}, states: states{"b": is(Left)}, want: []Lingerer{b}},
		"one that is lost":        {relayed: relayedAt{"c": relayedLingering(b)}, states: states{"b": is(Lost)}, want: []Lingerer{b}},
		"one in an unknown state": {relayed: relayedAt{"c": relayedLingering(b)}, want: []Lingerer{b}},
		"one that is dead":        {relayed: relayedAt{"c": relayedLingering(b)}, states: states{"b": is(Dead)}},
		"a member that has not announced anything yet": {
			relayed: relayedAt{"c": relayedLingering(b)}, states: states{"b": is(Member)}, want: []Lingerer{b},
		},
		"its own announcement wins": {announced: announced{"b": ready()}, relayed: relayedAt{"c": relayedLingering(b)}},
		"its own announcement wins, with another key": {
			announced: announced{"b": lingers(1, "k2")}, relayed: relayedAt{"c": relayedLingering(b)}, want: []Lingerer{lingerer("b", 1, "k2")},
		},
		"relayed twice, the longer counts": {
			relayed: relayedAt{
				"c": relayedLingering(lingerer("b", 1, "k0")), "d": relayedLingering(b), "e": relayedLingering(lingerer("b", 2, "k3")),
			},
			want: []Lingerer{b},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := View{Self: "a", Layout: ours, Announcements: row.announced, Relayed: row.relayed, Nodes: row.states}
			if diff := cmp.Diff(row.want, v.Lingerers(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHidesLingerers(t *testing.T) {
	for name, row := range map[string]struct {
		announced announced
		states    states
		want      bool
	}{
		"one left, and nobody knows all": {announced{"b": incomplete()}, states{"b": is(Member), "c": is(Left)}, true},
		"one is lost":                    {announced{"b": incomplete()}, states{"c": is(Lost)}, true},
		"one is in an unknown state":     {nil, states{"c": {Unrecognised: "?"}}, true},
		"one is dead":                    {nil, states{"c": is(Dead)}, false},
		// Pacemaker starts nothing before it is probed; but the node may have joined, and not yet have read that.
		"one is a member":             {nil, states{"c": is(Member)}, true},
		"one is named":                {announced{"b": lingers(short, "k")}, states{"b": is(Member), "c": is(Left)}, false},
		"one left, and another knows": {announced{"b": idle()}, states{"c": is(Left)}, false},
		"another knows all of another layout": {
			announced{"b": {Layout: "00", Nonce: "m", Complete: true}}, states{"c": is(Left)}, true,
		},
		"one has left, and is announced": {announced{"c": incomplete()}, states{"c": is(Left)}, false},
		"the node itself":                {nil, states{"a": is(Left)}, false},
		"there is no other node":         {nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := View{Self: "a", Layout: ours, Announcements: row.announced, Nodes: row.states}
			if got := v.HidesLingerers(); got != row.want {
				t.Errorf("%t", got)
			}
		})
	}
}

func TestOtherLayoutLingers(t *testing.T) {
	other := func(left time.Duration) Announcement {
		return Announcement{Drain: long, Layout: "00", Nonce: "m", Lingers: Lingering{For: left, Key: "k"}}
	}
	for name, row := range map[string]struct {
		announced announced
		want      time.Duration
	}{
		"nobody":                {announced{"b": ready(), "c": foreign(long)}, 0},
		"one of this layout":    {announced{"b": lingers(short, "k")}, 0},
		"two of another layout": {announced{"b": other(1), "c": other(short), "d": other(2), "e": lingers(long, "k")}, short},
		"the node itself":       {announced{"a": other(short)}, short}, // of which bucket is unknown
	} {
		if got := (View{Self: "a", Layout: ours, Announcements: row.announced}).OtherLayoutLingers(); got != row.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestRelayLingering(t *testing.T) {
	v := View{
		Self: "a", Layout: ours, Announcements: announced{"b": ready(), "c": ready(), "d": ready()},
		Relayed: relayedAt{"b": relayedLingering(lingerer("gone", long, "k0"))},
	}
	// Of others it says nothing: it has owned the bucket, so nobody else lingers.
	both := Relayed{Drainers: []Drainer{{"a", long}}, Lingering: []Lingerer{lingerer("a", short, "k1")}, Supersedes: "m"}
	if diff := cmp.Diff(relayedAt{"b": both, "c": both}, v.RelayDrain(long, Lingering{For: short, Key: "k1"}, nil)); diff != "" {
		t.Errorf("it lingers (-want +got):\n%s", diff)
	}
	both.Lingering = nil
	if diff := cmp.Diff(relayedAt{"b": both, "c": both}, v.RelayDrain(long, Lingering{}, nil)); diff != "" {
		t.Errorf("it does not linger (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(relayedAt{"b": {Supersedes: "m"}}, v.ClearRelayed()); diff != "" {
		t.Errorf("cleared (-want +got):\n%s", diff)
	}
}
