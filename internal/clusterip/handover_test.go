package clusterip

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
)

// says is the statement of a node that speaks for itself, told that of one that only was told.
func says(drainers ...Drainer) Statement { return Statement{Spoken: true, Drainers: drainers} }
func told(drainers ...Drainer) Statement { return Statement{Drainers: drainers} }

func TestWhoDrains(t *testing.T) {
	for name, row := range map[string]struct {
		said Statements
		want []Drainer
	}{
		"nobody has spoken":               {nil, nil},
		"nobody drains":                   {Statements{"node1": says(), "node2": says()}, nil},
		"one does":                        {Statements{"node1": says(Drainer{"node1", long}), "node2": says()}, []Drainer{{"node1", long}}},
		"two do":                          {Statements{"node1": says(Drainer{"node1", short}), "node3": says(Drainer{"node3", long}, Drainer{"node1", short})}, []Drainer{{"node1", short}, {"node3", long}}},
		"self, as it well knows":          {Statements{"node2": says(Drainer{"node2", long}), "node3": says(Drainer{"node2", long})}, nil},
		"one that has left":               {Statements{"node3": says(Drainer{"node1", long}), "node2": says(Drainer{"node1", short})}, []Drainer{{"node1", long}}},
		"one that knows better":           {Statements{"node1": says(), "node3": says(Drainer{"node1", long})}, nil},
		"one that was only told":          {Statements{"node1": told(Drainer{"node2", long}), "node3": says(Drainer{"node1", long})}, []Drainer{{"node1", long}}},
		"one whose time is over":          {Statements{"node1": says(Drainer{"node1", 0})}, nil},
		"one that says otherwise":         {Statements{"node1": says(Drainer{"node1", short}), "node3": says(Drainer{"node1", long})}, []Drainer{{"node1", short}}},
		"told by one that has not spoken": {Statements{"node3": told(Drainer{"node1", long})}, []Drainer{{"node1", long}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, row.said.Drainers("node2")); diff != "" {
				t.Errorf("drainers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAdoptionLastsAsLongAsTheLongestDrain(t *testing.T) {
	said := Statements{"node1": says(Drainer{"node1", short}), "node3": says(Drainer{"node3", long})}
	adoption := said.adoption(4, "node2")
	want := Adoption{Bucket: 4, Left: long, From: []string{"node1", "node3"}}
	if diff := cmp.Diff(want, adoption); diff != "" {
		t.Errorf("adoption (-want +got):\n%s", diff)
	}
}

// Names never decide whether a bucket runs.
func TestAdoptionFromManyNamesIsFromAnybody(t *testing.T) {
	for _, row := range []struct{ nodes, length int }{{6, 43}, {24, 10}, {1, 252}, {20, 10}} {
		said := Statements{}
		for i := range row.nodes {
			name := fmt.Sprintf("n%03d", i) + strings.Repeat("x", row.length-4)
			said[name] = says(Drainer{name, long})
		}
		want := Adoption{Bucket: 4, Left: long, From: []string{Unnamed}}
		if diff := cmp.Diff(want, said.adoption(4, "self")); diff != "" {
			t.Errorf("%d names of %d bytes (-want +got):\n%s", row.nodes, row.length, diff)
		}
	}
}

func TestWhoStillDrains(t *testing.T) {
	said := Statements{"drains": says(Drainer{"drains", short}), "done": says(), "other": says(Drainer{"done", long}, Drainer{"silent", long}), "vague": says(), "lost": says()}
	presence := map[string]Presence{
		"self": {Place: Member}, "drains": {Place: Member}, "done": {Place: Member}, "silent": {Place: Member}, "other": {Place: Member},
		"left": {Place: Left}, "lost": {Place: Lost}, "fenced": {Place: Dead}, "vague": {Said: "crmd=maybe"},
	}
	for name, row := range map[string]struct{ from, want []string }{
		"each of those named": {
			[]string{"fenced", "done", "drains", "left", "lost", "silent", "vague", "never seen"},
			[]string{"drains", "left", "lost", "silent", "vague", "never seen"},
		},
		"one of whom nothing is known": {[]string{"never seen"}, []string{"never seen"}},
		"anybody":                      {[]string{Unnamed}, []string{"drains", "left", "lost", "silent", "vague"}},
		"anybody, and one named":       {[]string{Unnamed, "never seen"}, []string{"drains", "left", "lost", "never seen", "silent", "vague"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, said.still("self", row.from, presence)); diff != "" {
				t.Errorf("still (-want +got):\n%s", diff)
			}
		})
	}
}

// A drainer that the cluster's status no longer names is known from others.
func TestAnybodyIncludesWhoOthersWereToldOf(t *testing.T) {
	said := Statements{"self": says(), "node2": says(Drainer{"removed", short})}
	presence := map[string]Presence{"self": {Place: Member}, "node2": {Place: Member}}
	if diff := cmp.Diff([]string{"removed"}, said.still("self", []string{Unnamed}, presence)); diff != "" {
		t.Errorf("still (-want +got):\n%s", diff)
	}
}

func TestHandOverNamesThoseBefore(t *testing.T) {
	adoption := Adoption{Bucket: 4, Left: short, From: []string{"node1"}}
	said := Statements{
		"node1": says(Drainer{"node1", short}), "node2": says(), "node3": says(Drainer{"node3", short}, Drainer{"node1", long}, Drainer{"node5", long}),
	}
	ours := says(Drainer{"node2", long}, Drainer{"node1", short})
	want := Statements{"node2": ours, "node3": says(Drainer{"node3", short}, Drainer{"node1", short})} // brought up to date
	if diff := cmp.Diff(want, said.with("node2", long, adoption, nil)); diff != "" {
		t.Errorf("a node that stays (-want +got):\n%s", diff)
	}
	want = Statements{
		"node2": ours,
		"node1": says(Drainer{"node1", short}, Drainer{"node2", long}), // of itself it knows better
		"node3": says(Drainer{"node3", short}, Drainer{"node2", long}, Drainer{"node1", short}),
		"node4": told(Drainer{"node2", long}, Drainer{"node1", short}), // which has not spoken
	}
	if diff := cmp.Diff(want, said.with("node2", long, adoption, []string{"node1", "node3", "node4"})); diff != "" {
		t.Errorf("a node that leaves (-want +got):\n%s", diff)
	}
}

// Where names could not be kept, what others were told is all that is known.
func TestHandOverOfAnAdoptionFromAnybody(t *testing.T) {
	adoption := Adoption{Bucket: 4, Left: long, From: []string{Unnamed}}
	said := Statements{"node1": says(), "node2": says(), "node3": told(Drainer{"left", short}, Drainer{"node1", long})}
	want := Statements{"node2": says(Drainer{"node2", long}), "node3": told(Drainer{"left", short})} // node1 has finished
	if diff := cmp.Diff(want, said.with("node2", long, adoption, nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWordsAreForgotten(t *testing.T) {
	said := Statements{"node1": says(Drainer{"node1", short}, Drainer{"node2", long}), "node3": told(Drainer{"node1", long}, Drainer{"node2", short})}
	want := Statements{"node1": says(Drainer{"node1", short}), "node3": told(Drainer{"node1", long})}
	if diff := cmp.Diff(want, said.forgetting("node2")); diff != "" {
		t.Errorf("of one node (-want +got):\n%s", diff)
	}
	want = Statements{"node1": says(Drainer{"node1", short}), "node3": told()}
	if diff := cmp.Diff(want, said.forgetting(""), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("of all (-want +got):\n%s", diff)
	}
}

func TestWhoHasLeftIsPassedOn(t *testing.T) {
	presence := map[string]Presence{"self": {Place: Member}, "node2": {Place: Member}, "node3": {Place: Member}, "left": {Place: Left}, "drains": {Place: Member}}
	adoption := Adoption{Left: short, From: []string{"drains", "left"}}
	said := Statements{"self": says(), "node2": says(), "drains": says(Drainer{"drains", long})}
	word := Drainer{"left", short}
	want := Statements{"node2": says(word), "drains": says(Drainer{"drains", long}, word)}
	if diff := cmp.Diff(want, said.passedOn("self", adoption, presence)); diff != "" {
		t.Errorf("nobody knows (-want +got):\n%s", diff)
	}
	delete(presence, "node2")
	want = Statements{"node3": told(word), "drains": says(Drainer{"drains", long}, word)} // which has not spoken
	if diff := cmp.Diff(want, said.passedOn("self", adoption, presence)); diff != "" {
		t.Errorf("nobody knows, and node2 is gone (-want +got):\n%s", diff)
	}
	if got := said.passedOn("self", Adoption{Left: short, From: []string{Unnamed}}, presence); len(got) > 0 {
		t.Errorf("a node without a name is passed on: %v", got)
	}
	said["node3"] = told(word)
	if got := said.passedOn("self", adoption, presence); len(got) > 0 {
		t.Errorf("node3 knows, and others are told: %v", got)
	}
}
