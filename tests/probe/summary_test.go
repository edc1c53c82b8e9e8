package probe

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const second = time.Second

// steady answers every question of a flow from one time to another, but not to it.
func (l *handMade) steady(p Proto, s netip.Addr, from, to time.Duration, node string) {
	for at := from; at < to; at += l.Interval {
		l.add(Answer, p, s, at, ms, node)
	}
}

// silent loses them.
func (l *handMade) silent(p Proto, s netip.Addr, from, to time.Duration) {
	for at := from; at < to; at += l.Interval {
		l.add(Lost, p, s, at, 900*ms, "")
	}
}

func TestSummaryOutages(t *testing.T) {
	a := client(1)
	for name, c := range map[string]struct {
		build func(*handMade)
		want  []Outage
	}{
		"none": {func(l *handMade) { l.steady(UDP, a, 0, second, "node1") }, nil},
		"a single lost packet lasts one interval": {func(l *handMade) {
			l.steady(UDP, a, 0, 500*ms, "node1")
			l.silent(UDP, a, 500*ms, 600*ms)
			l.steady(UDP, a, 600*ms, second, "node1")
		}, []Outage{{a, UDP, 500 * ms, 601 * ms, 1, false}}},
		"a node whose buckets another one starts": {func(l *handMade) {
			l.steady(ICMP, a, 0, 2*second, "node1")
			l.silent(ICMP, a, 2*second, 5*second)
			l.steady(ICMP, a, 5*second, 6*second, "node2")
		}, []Outage{{a, ICMP, 2 * second, 5001 * ms, 30, false}}},
		"a refusal is no answer": {func(l *handMade) {
			l.add(Refused, Connect, a, 0, ms, "node1")
			l.add(Answer, Connect, a, 100*ms, ms, "node1")
		}, []Outage{{a, Connect, 0, 101 * ms, 1, false}}},
		"no answer to the end": {func(l *handMade) {
			l.steady(UDP, a, 0, second, "node1")
			l.silent(UDP, a, second, 1200*ms)
		}, []Outage{{a, UDP, second, 2 * second, 2, true}}},
		"a late answer ends nothing": {func(l *handMade) {
			l.add(Lost, UDP, a, 0, 900*ms, "")
			l.note(Late, UDP, a, 950*ms, "node1", "")
			l.add(Answer, UDP, a, 100*ms, 2*ms, "node1")
		}, []Outage{{a, UDP, 0, 102 * ms, 1, false}}},
		"a stalled request lasts until its own answer": {func(l *handMade) {
			l.steady(Stream, a, 0, second, "node1")
			l.add(Answer, Stream, a, second, 4*second, "node1")
			l.note(Stalled, Stream, a, 4*second, "", "")
			l.steady(Stream, a, 5*second, 6*second, "node1")
		}, []Outage{{a, Stream, second, 5 * second, 1, false}}},
		"a slow request does not": {func(l *handMade) { l.add(Answer, Stream, a, second, 2*second, "node1") }, nil},
		"answers that overtake": {func(l *handMade) {
			l.add(Answer, UDP, a, 0, 500*ms, "node1")
			l.add(Answer, UDP, a, 100*ms, ms, "node1")
		}, nil},
		"a broken connection": {func(l *handMade) {
			l.steady(Stream, a, 0, second, "node1")
			l.add(Lost, Stream, a, second, 3*second, "")
			l.note(Broken, Stream, a, 4*second, "node2", "reset")
			l.add(Answer, Stream, a, 4*second, 3*ms, "node2")
		}, []Outage{{a, Stream, second, 4003 * ms, 1, false}}},
		"each protocol has its own": {func(l *handMade) {
			l.silent(ICMP, a, 0, 100*ms)
			l.steady(ICMP, a, 100*ms, second, "node1")
			l.silent(UDP, a, 50*ms, 150*ms)
			l.steady(UDP, a, 150*ms, second, "node1")
		}, []Outage{{a, ICMP, 0, 101 * ms, 1, false}, {a, UDP, 50 * ms, 151 * ms, 1, false}}},
	} {
		l := newHandMade()
		c.build(l)
		got := l.log().Summary().Outages[a]
		if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// failover is a log in which node2 dies at 2 s, which has two sources of six, and comes back at 8 s.
func failover() *Log {
	l := newHandMade()
	for i := range 6 {
		node := []string{"node1", "node2", "node3"}[i%3]
		for _, p := range Protos() {
			from := 2 * second
			l.steady(p, client(i), 0, from, node)
			if node == "node2" {
				from = 5*second + time.Duration(i)*100*ms
				node = "node3"
				if p == Stream {
					l.add(Lost, Stream, client(i), 2*second, from-2*second, "")
					l.note(Broken, Stream, client(i), from, "node3", "reset")
				} else {
					l.silent(p, client(i), 2*second, from)
				}
			}
			l.steady(p, client(i), from, 10*second, node)
			node = []string{"node1", "node2", "node3"}[i%3]
		}
	}
	l.mark(2010*ms, "node2 killed")
	l.mark(8*second, "node2 is back")
	l.note(Duplicate, UDP, client(0), 9*second, "node2", "after node1")
	return l.log()
}

func TestSummaryCounts(t *testing.T) {
	s := everyKind().Summary()
	want := map[Proto]Counts{
		ICMP:    {Asked: 1, Answered: 1, Duplicates: 1},
		Connect: {Asked: 1, Lost: 1, Late: 1},
		UDP:     {Asked: 1, Refused: 1, WrongMAC: 1},
		Stream:  {Asked: 1, Answered: 1, Broken: 1, Stalled: 1},
	}
	if diff := cmp.Diff(want, s.Protos); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if s.Protos[Connect].Unanswered() != 0 || s.Protos[ICMP].Unanswered() != 0 {
		t.Errorf("nobody answered %+v, late %+v", s.Protos[Connect], s.Protos[ICMP])
	}
	total := Counts{Asked: 4, Answered: 2, Lost: 1, Refused: 1, Late: 1, Duplicates: 1, WrongMAC: 2, Broken: 1, Stalled: 1}
	if s.Total != total {
		t.Errorf("total %+v, want %+v", s.Total, total)
	}
}

func TestSummaryEffects(t *testing.T) {
	s := failover().Summary()
	want := []Effect{
		// client 1 is silent for 3.1 s, client 4 for 3.4 s, and then the answer takes 1 ms.
		{
			Text: "node2 killed", At: 2010 * ms, Max: 3401 * ms, Median: 3251 * ms, Sources: 2,
			Longest: map[Proto]time.Duration{ICMP: 3401 * ms, UDP: 3401 * ms, Connect: 3401 * ms, Stream: 3401 * ms},
		},
		{Text: "node2 is back", At: 8 * second},
	}
	if diff := cmp.Diff(want, s.Effects); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if longest, ok := s.Longest(); !ok || longest.Length() != 3401*ms || longest.Source != client(4) {
		t.Errorf("longest outage %+v, %t", longest, ok)
	}
}

func TestSummaryBeforeTheFirstEvent(t *testing.T) {
	l := newHandMade()
	l.silent(UDP, client(1), 0, 100*ms)
	l.steady(UDP, client(1), 100*ms, second, "node1")
	l.silent(UDP, client(1), second, 1100*ms)
	l.mark(500*ms, "too early to be the cause of that")
	want := []Effect{
		{Max: 101 * ms, Median: 101 * ms, Sources: 1, Longest: map[Proto]time.Duration{UDP: 101 * ms}},
		{
			Text:    "too early to be the cause of that",
			At:      500 * ms,
			Max:     900 * ms,
			Median:  900 * ms,
			Sources: 1,
			Open:    1,
			Longest: map[Proto]time.Duration{UDP: 900 * ms},
		},
	}
	if diff := cmp.Diff(want, l.log().Summary().Effects); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSummaryTable(t *testing.T) {
	want := strings.TrimLeft(`
6 sources asked 192.168.10.3 for 9.9 s, every 100ms

           asked  answered  lost  refused  late  duplicate  wrong MAC  broken  stalled
     icmp    600       535    65        0     0          0          0       0        0
      udp    600       535    65        0     0          1          0       0        0
  connect    600       535    65        0     0          0          0       0        0
   stream    537       535     2        0     0          0          0       2        0
      all   2337      2140   197        0     0          1          0       2        0

         answers   share
  node1      800  37.4 %
  node2      160   7.5 %
  node3     1180  55.1 %

       at  longest outage   median  sources     icmp      udp  connect   stream  event
  2.010 s         3.401 s  3.251 s   2 of 6  3.401 s  3.401 s  3.401 s  3.401 s  node2 killed
  8.000 s               -        -   0 of 6        -        -        -        -  node2 is back
`, "\n")
	if diff := cmp.Diff(want, failover().Summary().String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSummaryOfNothing(t *testing.T) {
	s := newHandMade().log().Summary()
	if _, ok := s.Longest(); ok || s.Total != (Counts{}) || s.String() == "" {
		t.Errorf("%+v", s)
	}
}
