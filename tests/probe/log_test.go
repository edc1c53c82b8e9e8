package probe

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func client(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, byte(64 + i/256), byte(i)}) }

const ms = time.Millisecond

// handMade builds a log as a probe would have written it.
type handMade struct {
	Log
	numbers map[flow]uint32
}

func newHandMade() *handMade {
	return &handMade{
		Log:     Log{Target: shared, Interval: 100 * ms, Start: time.Date(2026, 11, 24, 12, 0, 0, 123456000, time.UTC)},
		numbers: map[flow]uint32{},
	}
}

// add adds the end of the next question of a flow.
func (l *handMade) add(k Kind, p Proto, s netip.Addr, asked, after time.Duration, node string) {
	f := flow{s, p}
	l.numbers[f]++
	l.Events = append(l.Events, Event{At: asked + after, After: after, Kind: k, Proto: p, Source: s, Number: l.numbers[f], Node: node})
}

// note adds something else, about the last question of a flow.
func (l *handMade) note(k Kind, p Proto, s netip.Addr, at time.Duration, node, text string) {
	e := Event{At: at, Kind: k, Proto: p, Source: s, Node: node, Text: text}
	if k != Mark {
		e.Number = l.numbers[flow{s, p}]
	}
	l.Events = append(l.Events, e)
}

func (l *handMade) mark(at time.Duration, text string) {
	l.Events = append(l.Events, Event{At: at, Kind: Mark, Text: text})
}

func (l *handMade) log() *Log {
	l.sort()
	return &l.Log
}

// everyKind has one event of each kind.
func everyKind() *Log {
	l := newHandMade()
	l.mark(0, "an event with \"quotes\" and - dashes # not a header")
	l.add(Answer, ICMP, client(1), 0, 213*time.Microsecond, "node1")
	l.note(Duplicate, ICMP, client(1), 250*time.Microsecond, "node2", "after node1")
	l.add(Lost, Connect, client(2), 25*ms, 900*ms, "")
	l.note(Late, Connect, client(2), 2000*ms, "node1", "")
	l.add(Refused, UDP, client(300), 50*ms, ms, "node3")
	l.note(WrongMAC, UDP, client(300), 51*ms, Unknown, "answer from 01:02:03:04:05:06")
	l.Events = append(
		l.Events,
		Event{At: 60 * ms, Kind: Open, Proto: Stream, Source: client(1), Node: "node1"},
		Event{At: 61 * ms, Kind: WrongMAC, Node: "node1", Text: "ARP announces 02:00:00:00:01:01"},
		Event{
			At:     time.Hour,
			After:  12345678 * time.Microsecond,
			Kind:   Broken,
			Proto:  Stream,
			Source: netip.MustParseAddr("2001:db8::1"),
			Number: 1 << 31,
			Node:   "node2",
			Text:   "reset",
		},
	)
	l.add(Answer, Stream, client(1), 100*ms, 4000*ms, "node1")
	l.note(Stalled, Stream, client(1), 3100*ms, "", "")
	return l.log()
}

func TestLogRoundTrip(t *testing.T) {
	want := everyKind()
	var text bytes.Buffer
	n, err := want.WriteTo(&text)
	if err != nil || n != int64(text.Len()) {
		t.Fatalf("wrote %d of %d bytes: %v", n, text.Len(), err)
	}
	if lines := strings.Count(text.String(), "\n"); lines != len(want.Events)+1 {
		t.Errorf("%d lines for %d events:\n%s", lines, len(want.Events), &text)
	}
	got, err := Parse(&text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	seen := map[Kind]bool{}
	for _, e := range want.Events {
		seen[e.Kind] = true
	}
	if len(seen) != len(kindNames) {
		t.Errorf("%d of %d kinds were tried", len(seen), len(kindNames))
	}
}

// The package comment shows lines; they must be such.
func TestEventLines(t *testing.T) {
	for line, want := range map[string]Event{
		"  12.345678 answer    icmp    192.168.64.1    123  node1  0.000213": {
			At: 12345678 * time.Microsecond, After: 213 * time.Microsecond, Kind: Answer, Proto: ICMP, Source: client(1), Number: 123, Node: "node1",
		},
		"  13.000000 mark      -       -               -    -      -        node2 killed": {
			At: 13 * time.Second, Kind: Mark, Text: "node2 killed",
		},
		"  13.345678 duplicate udp     192.168.64.7    133  node3  0.000245 after node1": {
			At: 13345678 * time.Microsecond, After: 245 * time.Microsecond, Kind: Duplicate,
			Proto: UDP, Source: client(7), Number: 133, Node: "node3", Text: "after node1",
		},
	} {
		if got := want.String(); got != line {
			t.Errorf("got  %q\nwant %q", got, line)
		}
		if got, err := ParseEvent(line); err != nil || got != want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "# probe of 192.168.10.3 every 100ms since 2026-11-24T12:00:00.000000Z\n"
	if _, err := Parse(strings.NewReader(head)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"", "\n", "something else\n",
		strings.Replace(head, "100ms", "100", 1),
		strings.Replace(head, "192.168.10.3", "nobody", 1),
		head + "\n",
		head + "1 answer icmp 192.168.64.1 1 node1 0.000001\n",
		head + "1.000000 reply icmp 192.168.64.1 1 node1 0.000001\n",
		head + "1.000000 answer sctp 192.168.64.1 1 node1 0.000001\n",
		head + "1.000000 answer icmp 192.168.64 1 node1 0.000001\n",
		head + "1.000000 answer icmp 192.168.64.1 -1 node1 0.000001\n",
		head + "1.000000 answer icmp 192.168.64.1 1 node1 1\n",
		head + "1.000000 answer icmp 192.168.64.1 1 node1\n",
	} {
		if l, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%q was taken for %+v", text, l)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, e := range everyKind().Events {
		f.Add(e.String())
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, err := ParseEvent(line)
		if err != nil {
			return
		}
		again, err := ParseEvent(e.String())
		if err != nil || fmt.Sprint(e) != fmt.Sprint(again) {
			t.Errorf("%q: %q, then %q, %v", line, e, again, err)
		}
	})
}
