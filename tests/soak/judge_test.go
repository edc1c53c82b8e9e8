package main

import (
	"net/netip"
	"testing"
	"time"

	"ocf-clusterip/tests/probe"
)

var (
	start  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	client = netip.MustParseAddr("192.168.64.7")
)

func after(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// logOf is what a client saw that made a connection to node1 after a second.
func logOf(events ...probe.Event) *probe.Log {
	l := &probe.Log{
		Start:  start,
		Events: []probe.Event{{At: time.Second, Kind: probe.Open, Proto: probe.Stream, Source: client, Node: "node1"}},
	}
	for _, e := range events {
		e.Source, e.Proto = client, probe.Stream
		l.Events = append(l.Events, e)
	}
	return l
}

func TestJudge(t *testing.T) {
	cut := death{node: "node1", from: after(10), off: after(14)}
	reset := func(at time.Duration, by string) probe.Event {
		return probe.Event{At: at * time.Second, Kind: probe.Broken, Node: by, Text: "reset", Number: 1}
	}
	silence := probe.Event{At: 40 * time.Second, After: 30 * time.Second, Kind: probe.Broken, Text: "no answer", Number: 1}
	for _, row := range []struct {
		name   string
		deaths []death
		events []probe.Event
		want   string // the first sign; "" if nothing is wrong
	}{
		{"nothing happens", nil, nil, ""},
		{
			"answered twice", nil, []probe.Event{{At: 2 * time.Second, Kind: probe.Duplicate, Node: "node2", Text: "after node1"}}, "answered twice",
		},
		{
			"answered twice beside a death",
			[]death{cut},
			[]probe.Event{{At: 12 * time.Second, Kind: probe.Duplicate, Node: "node2"}},
			"answered twice",
		},
		{"a wrong MAC", nil, []probe.Event{{At: 2 * time.Second, Kind: probe.WrongMAC}}, "wrong MAC"},
		{"reset while its host lives", nil, []probe.Event{reset(12, "node2")}, "broken"},
		{"reset by another host before the death", []death{cut}, []probe.Event{reset(9, "node2")}, "broken"},
		{"reset by another host while its own is only cut off", []death{cut}, []probe.Event{reset(12, "node2")}, "broken"},
		{"reset by its dying host", []death{cut}, []probe.Event{reset(12, "node1")}, ""},
		{"reset by another host when its own is off", []death{cut}, []probe.Event{reset(15, "node2")}, ""},
		{"reset when another host died", []death{{node: "node3", from: after(10), off: after(14)}}, []probe.Event{reset(15, "node2")}, "broken"},
		{"made after its host came back", []death{{node: "node1", from: after(-9), off: after(-8)}}, []probe.Event{reset(15, "node2")}, "broken"},
		{"silence of a host that lives", nil, []probe.Event{silence}, "broken"},
		{"silence of one that died", []death{cut}, []probe.Event{silence}, ""},
		{"silence of one that is to be fenced, and is not", []death{{node: "node1", from: after(10)}}, []probe.Event{silence}, "broken"},
		{"refused by a host that lives", nil, []probe.Event{{At: 12 * time.Second, Kind: probe.Refused, Node: "node1"}}, "refused"},
		{"refused by a dying host", []death{cut}, []probe.Event{{At: 12 * time.Second, Kind: probe.Refused, Node: "node1"}}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := ""
			if signs := judge(logOf(row.events...), row.deaths).signs; len(signs) > 0 {
				got = signs[0].what
			}
			if got != row.want {
				t.Errorf("judged %q, want %q", got, row.want)
			}
		})
	}
}

func TestDeathsAreTheEventsOrUnasked(t *testing.T) {
	begun := []death{{node: "node1", from: after(10)}, {node: "node1", from: after(50)}}
	losses := map[string][]time.Time{"node1": {after(14), after(52)}, "node2": {after(20)}}
	deaths, unasked := deathsOf(begun, losses)
	if len(deaths) != 3 || deaths[0].off != after(14) || deaths[1].off != after(52) {
		t.Errorf("deaths: %+v", deaths)
	}
	if len(unasked) != 1 || unasked[0].node != "node2" {
		t.Errorf("unasked: %+v", unasked)
	}
}

func TestSignsNearEachOtherAreOneFault(t *testing.T) {
	at := func(seconds float64) sign {
		return sign{flow: flow{client, probe.Stream}, at: after(seconds), what: "broken"}
	}
	faults := group([]sign{at(30), at(1), at(3)})
	if len(faults) != 2 || faults[0].from != after(1) || faults[0].to != after(3) || len(faults[0].flows) != 1 {
		t.Errorf("faults: %+v", faults)
	}
}
