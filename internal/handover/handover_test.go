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

// drains, idle and ignorant are words of this layout, foreign one of another. Who is idle has heard of all drains.
func drains(left time.Duration) Word { return Word{Drain: left, Layout: ours, Mark: "m"} }

func idle(others ...Drainer) Word {
	return Word{Layout: ours, Mark: "m", Others: others, Complete: true}
}
func ignorant() Word                  { return Word{Layout: ours, Mark: "m"} }
func foreign(left time.Duration) Word { return Word{Drain: left, Layout: "00", Mark: "m"} }
func told(drainers ...Drainer) Notice { return Notice{Drainers: drainers} }
func is(place Place) (p Presence)     { return Presence{Place: place} }
func anybody() []string               { return []string{Unnamed} }

type (
	words  = map[string]Word
	notes  = map[string]Notice
	places = map[string]Presence
)

func TestWhatIsLeftOfAnAdoption(t *testing.T) {
	for name, row := range map[string]struct {
		words  words
		told   notes
		places places
		from   []string
		want   []string
	}{
		"nobody drains":                      {words: words{"b": idle(), "c": idle()}, from: anybody()},
		"one does":                           {words: words{"b": drains(long), "c": idle()}, from: anybody(), want: []string{"b"}},
		"one has finished":                   {words: words{"b": idle()}, from: []string{"b"}},
		"one has begun meanwhile":            {words: words{"b": drains(long), "c": drains(long)}, from: []string{"b"}, want: []string{"b", "c"}},
		"self does, as it knows":             {words: words{"a": drains(long), "b": idle(Drainer{"a", long})}, told: notes{"b": told(Drainer{"a", long})}, from: anybody()},
		"a member is silent, as it ever was": {words: words{"b": idle()}, places: places{"c": is(Member)}, from: anybody()},
		"a member has not spoken":            {words: words{"b": ignorant()}, places: places{"c": is(Member)}, from: anybody(), want: anybody()},
		"a member that had left is silent":   {words: words{"b": idle()}, places: places{"c": is(Member)}, from: []string{"b", "c"}, want: []string{"c"}},
		"another member is silent":           {words: words{"b": drains(long)}, places: places{"c": is(Member)}, from: []string{"b"}, want: []string{"b"}},
		"one that has left was told of":      {words: words{"b": idle()}, told: notes{"b": told(Drainer{"c", long})}, places: places{"c": is(Left)}, from: anybody(), want: []string{"c"}},
		"one that has left was overheard":    {words: words{"b": idle(Drainer{"c", long})}, places: places{"c": is(Left)}, from: anybody(), want: []string{"c"}},
		"what was overheard is dealt with":   {words: words{"b": idle(Drainer{"c", long})}, told: notes{"b": {Heard: "m"}}, places: places{"c": is(Left)}, from: anybody()},
		"one that has left, nobody knows of": {words: words{"b": idle()}, places: places{"c": is(Left)}, from: anybody()},
		"one that has left was named":        {words: words{"b": idle()}, places: places{"c": is(Left)}, from: []string{"c"}, want: []string{"c"}},
		"one that is lost":                   {words: words{"b": idle()}, places: places{"c": is(Lost)}, from: []string{"c"}, want: []string{"c"}},
		"one that is dead":                   {words: words{"b": idle()}, told: notes{"b": told(Drainer{"c", long})}, places: places{"c": is(Dead)}, from: []string{"c"}},
		"one that is dead and speaks":        {words: words{"b": drains(long)}, places: places{"b": is(Dead)}, from: []string{"b"}, want: []string{"b"}}, // it has come back
		"one that cannot be told":            {words: words{"b": idle()}, places: places{"c": {Said: "crmd=maybe"}}, from: []string{"c"}, want: []string{"c"}},
		"a remote node says it has finished": {words: words{"b": idle(), "r": idle()}, places: places{"r": {Said: "remote"}}, from: []string{"r"}},
		"one knows better than others":       {words: words{"b": idle(), "c": idle()}, told: notes{"b": told(Drainer{"c", long})}, from: []string{"c"}},
		"another layout":                     {words: words{"b": foreign(0)}, from: anybody(), want: []string{"b"}},
		"nobody has heard of all drains":     {words: words{"b": ignorant()}, places: places{"c": is(Left), "d": is(Lost), "e": is(Dead), "f": {Said: "?"}}, from: anybody(), want: []string{"c", "d", "f"}},
		"another layout, known to be over":   {words: words{"b": foreign(0), "c": idle()}, from: anybody()},
		"another layout that drains":         {words: words{"b": foreign(long), "c": idle()}, from: anybody(), want: []string{"b"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := View{Self: "a", Layout: ours, Words: row.words, Told: row.told, Places: row.places}
			got, left := v.Next(row.from, short, long)
			if diff := cmp.Diff(row.want, got, cmpopts.EquateEmpty()); diff != "" || left != short {
				t.Errorf("for %s from (-want +got):\n%s", left, diff)
			}
		})
	}
}

// A drain that began with a longer time than ours is waited for, once.
func TestALongerDrainIsWaitedFor(t *testing.T) {
	v := View{Self: "a", Layout: ours, Words: words{"b": drains(long)}}
	from, left := v.Next(anybody(), short+Grace, short)
	if left != long+Grace {
		t.Errorf("waits %s for a drain of %s", left, long)
	}
	if _, left = v.Next(from, short, short); left != short {
		t.Errorf("the time begins anew: %s", left)
	}
}

// Names never decide whether a bucket runs.
func TestAdoptionFromManyNamesIsFromAnybody(t *testing.T) {
	for _, row := range []struct{ nodes, length int }{{6, 43}, {24, 10}, {1, 252}, {20, 10}} {
		said := words{}
		for i := range row.nodes {
			said[fmt.Sprintf("n%03d", i)+strings.Repeat("x", row.length-4)] = drains(long)
		}
		v := View{Self: "a", Layout: ours, Words: said}
		from, _ := v.Next(anybody(), long, long)
		if diff := cmp.Diff(anybody(), from); diff != "" {
			t.Errorf("%d names of %d bytes (-want +got):\n%s", row.nodes, row.length, diff)
		}
		for node := range said {
			said[node] = idle()
		}
		if from, _ = v.Next(from, long, long); len(from) > 0 {
			t.Errorf("all have finished, and it adopts from %v", from)
		}
	}
}

func TestWhetherAllSayThatTheyDrain(t *testing.T) {
	v := View{Self: "a", Layout: ours, Words: words{"b": drains(long), "c": idle()}}
	for from, want := range map[string]bool{"b": true, "c": false, "d": false, Unnamed: false} {
		if got := v.StillDrain([]string{from}); got != want {
			t.Errorf("%s: %t", from, got)
		}
	}
}

func TestDeputiesAreToldOfAllDrains(t *testing.T) {
	v := View{
		Self: "a", Layout: ours, Words: words{"b": idle(), "c": drains(short), "d": idle(), "e": idle()},
		Told: notes{"e": told(Drainer{"gone", long}, Drainer{"c", long})}, Places: places{"gone": is(Left), "f": is(Member)},
	}
	if diff := cmp.Diff([]Drainer(nil), v.Former(nil, 0)); diff != "" {
		t.Errorf("without an adoption (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Drainer{{"c", short}}, v.Former([]string{"b", "c"}, short)); diff != "" {
		t.Errorf("adopted by name (-want +got):\n%s", diff)
	}
	former := v.Former(anybody(), short)
	if diff := cmp.Diff([]Drainer{{"c", short}, {"gone", short}}, former); diff != "" {
		t.Errorf("adopted from anybody (-want +got):\n%s", diff)
	}
	want := notes{
		"b": {Drainers: []Drainer{{"a", long}, {"c", short}, {"gone", short}}, Heard: "m"},
		"c": {Drainers: []Drainer{{"a", long}, {"gone", short}}, Heard: "m"}, // of itself it knows better
	}
	if diff := cmp.Diff(want, v.Announce(long, former)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	v.Words = words{"a": idle()}
	want = notes{"f": {Drainers: []Drainer{{"a", long}}}}
	if diff := cmp.Diff(want, v.Announce(long, nil)); diff != "" || !v.NeedsPlaces() {
		t.Errorf("a member that has not spoken is told (-want +got):\n%s", diff)
	}
}

func TestWhoHasLeftIsPassedOn(t *testing.T) {
	v := View{Self: "a", Layout: ours, Words: words{"a": idle(), "b": idle(), "c": drains(long)}, Places: places{"d": is(Member), "gone": is(Left)}}
	word := Drainer{"gone", short}
	from := []string{"c", "gone"}
	if diff := cmp.Diff(notes{"b": told(word), "c": told(word)}, v.PassOn(from, short)); diff != "" {
		t.Errorf("nobody knows (-want +got):\n%s", diff)
	}
	v.Told = notes{"c": told(word)}
	if diff := cmp.Diff(notes{"b": told(word)}, v.PassOn(from, short)); diff != "" {
		t.Errorf("one knows (-want +got):\n%s", diff)
	}
	v.Told = notes{"c": told(word), "d": told(word)}
	if got := v.PassOn(append(from, Unnamed), short); len(got) > 0 {
		t.Errorf("two know, and others are told: %v", got)
	}
}

func TestWhatWasToldIsForgotten(t *testing.T) {
	v := View{
		Self: "a", Layout: ours, Words: words{"a": idle(), "b": idle(), "c": idle(Drainer{"gone", long}), "d": idle(Drainer{"gone", long})},
		Told: notes{"b": told(Drainer{"gone", long}), "c": {Heard: "older"}, "d": {Heard: "m"}},
	}
	if diff := cmp.Diff(notes{"b": {Heard: "m"}, "c": {Heard: "m"}}, v.Forget()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An owner that knows of all from whom it adopts says so, so that no later one waits for others.
func TestWhoHasHeardOfAllDrains(t *testing.T) {
	v := View{Self: "a", Layout: ours, Words: words{"b": drains(long), "c": foreign(0), "d": foreign(long)}, Told: notes{"b": told(Drainer{"gone", long})}}
	for from, want := range map[string]bool{"": true, "b": true, "gone": true, "b,gone": true, "d": true, "c": false, "b,left": false, Unnamed: false} {
		if got := v.Knows(strings.FieldsFunc(from, func(r rune) bool { return r == ',' })); got != want {
			t.Errorf("%q: %t", from, got)
		}
	}
}

func TestDrainersForPeople(t *testing.T) {
	v := View{Self: "a", Words: words{"a": drains(long), "b": drains(short), "c": idle(Drainer{"b", long})}, Told: notes{"c": told(Drainer{"gone", long})}}
	if diff := cmp.Diff([]Drainer{{"b", short}, {"gone", long}}, v.Drainers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
