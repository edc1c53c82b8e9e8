package main

import (
	"slices"
	"testing"
)

func take(seed uint64, count int) []event {
	s := newSequence(seed)
	var events []event
	for range count {
		events = append(events, s.next())
	}
	return events
}

func TestSameSeedSameEvents(t *testing.T) {
	if a, b := take(7, 200), take(7, 200); !slices.Equal(a, b) {
		t.Errorf("two lists of one seed: %v and %v", a, b)
	}
	if slices.Equal(take(7, 20), take(8, 20)) {
		t.Error("two seeds have the same list")
	}
}

// The cluster can go on after each chosen event, and the last events restore everything.
func TestEventsLeaveAQuorumAndAHost(t *testing.T) {
	seen := map[kind]int{}
	for seed := range uint64(10_000) {
		s := newSequence(seed)
		for range 60 {
			before := s.model
			e := s.next()
			seen[e.kind]++
			if !s.model.allowed() {
				t.Fatalf("seed %d: %s makes %+v of %+v", seed, e, s.model, before)
			}
			if e.node != everywhere && before.hosts[e.node].place == dying && e.kind != back {
				t.Fatalf("seed %d: %s, which is dying", seed, e)
			}
			if s.model.hosts != before.hosts && e.node == everywhere {
				t.Fatalf("seed %d: %s changes a host", seed, e)
			}
		}
		m := s.model
		for _, e := range m.restore() {
			switch e.kind {
			case setDrain:
				m.drain = e.drain
			case cleanup:
			default:
				i := slices.IndexFunc(rules, func(r rule) bool { return r.kind == e.kind })
				rules[i].then(&m.hosts[e.node])
			}
		}
		if m != newSequence(seed).model {
			t.Fatalf("seed %d: %v does not restore %+v", seed, s.model.restore(), s.model)
		}
	}
	for _, r := range rules {
		if seen[r.kind] == 0 {
			t.Errorf("%q never happens", r.kind)
		}
	}
}

// Each host that dies is a member that the cluster can fence.
func TestOnlyRunningHostsDie(t *testing.T) {
	for _, r := range rules {
		h := host{place: running}
		if r.then == nil {
			continue
		}
		r.then(&h)
		if (h.place == dying) != r.kind.kills() {
			t.Errorf("%q makes a host at place %d", r.kind, h.place)
		}
		if !r.kind.kills() {
			continue
		}
		for _, p := range []place{withoutPacemaker, withoutCorosync, dying} {
			if r.may(host{place: p}) {
				t.Errorf("%q may happen to a host at place %d", r.kind, p)
			}
		}
		m := model{}
		m.hosts[1].place = withoutCorosync
		if _, may := m.after(r, 0); may {
			t.Errorf("%q may happen while another host has no vote", r.kind)
		}
	}
}
