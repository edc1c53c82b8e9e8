package clusterip

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	long  = 300 * time.Second
	short = 20 * time.Second
)

func TestWhoDrains(t *testing.T) {
	for name, row := range map[string]struct {
		said Statements
		want []Drainer
	}{
		"nobody has spoken":       {nil, nil},
		"nobody drains":           {Statements{"node1": nil, "node2": nil}, nil},
		"one does":                {Statements{"node1": {{"node1", long}}, "node2": nil}, []Drainer{{"node1", long}}},
		"two do":                  {Statements{"node1": {{"node1", short}}, "node3": {{"node3", long}, {"node1", short}}}, []Drainer{{"node1", short}, {"node3", long}}},
		"self, as it well knows":  {Statements{"node2": {{"node2", long}}, "node3": {{"node2", long}}}, nil},
		"one that has left":       {Statements{"node3": {{"node1", long}}, "node2": {{"node1", short}}}, []Drainer{{"node1", long}}},
		"one that knows better":   {Statements{"node1": nil, "node3": {{"node1", long}}}, nil},
		"one whose time is over":  {Statements{"node1": {{"node1", 0}}}, nil},
		"one that says otherwise": {Statements{"node1": {{"node1", short}}, "node3": {{"node1", long}}}, []Drainer{{"node1", short}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, row.said.Drainers("node2")); diff != "" {
				t.Errorf("drainers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAdoptionLastsAsLongAsTheLongestDrain(t *testing.T) {
	said := Statements{"node1": {{"node1", short}}, "node3": {{"node3", long}}}
	adoption := said.adoption(4, "node2")
	want := Adoption{Bucket: 4, Left: long, From: []string{"node1", "node3"}}
	if diff := cmp.Diff(want, adoption); diff != "" {
		t.Errorf("adoption (-want +got):\n%s", diff)
	}
}

func TestWhoStillDrains(t *testing.T) {
	said := Statements{"drains": {{"drains", short}}, "done": nil, "other": {{"done", long}, {"silent", long}}, "vague": nil}
	presence := map[string]Presence{
		"self": {Place: Member}, "drains": {Place: Member}, "done": {Place: Member}, "silent": {Place: Member}, "other": {Place: Member},
		"left": {Place: Left}, "crashed": {Place: Lost}, "vague": {Said: "crmd=maybe"},
	}
	for name, row := range map[string]struct{ from, want []string }{
		"each of those named": {
			[]string{"crashed", "done", "drains", "left", "silent", "vague", "never seen"}, []string{"drains", "left", "silent", "vague", "never seen"},
		},
		"one of whom nothing is known": {[]string{"never seen"}, []string{"never seen"}},
		"anybody":                      {[]string{Unnamed}, []string{"drains", "left", "silent", "vague"}},
		"anybody, and one named":       {[]string{Unnamed, "never seen"}, []string{"drains", "left", "never seen", "silent", "vague"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, said.still("self", row.from, presence)); diff != "" {
				t.Errorf("still (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHandOverNamesThoseBefore(t *testing.T) {
	adoption := Adoption{Bucket: 4, Left: short, From: []string{"node1"}}
	said := Statements{"node1": {{"node1", short}}, "node2": nil, "node3": {{"node3", short}}}
	ours := []Drainer{{"node2", long}, {"node1", short}}
	if diff := cmp.Diff(Statements{"node2": ours}, said.with("node2", long, adoption, false)); diff != "" {
		t.Errorf("a node that stays (-want +got):\n%s", diff)
	}
	want := Statements{
		"node2": ours,
		"node1": {{"node1", short}, {"node2", long}}, // of itself it knows better
		"node3": {{"node3", short}, {"node2", long}, {"node1", short}},
	}
	if diff := cmp.Diff(want, said.with("node2", long, adoption, true)); diff != "" {
		t.Errorf("a node that leaves (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Statements{"node2": {{"node2", long}}, "node1": {{"node1", short}}, "node3": {{"node3", short}}}, want.taken()); diff != "" {
		t.Errorf("when all is taken over (-want +got):\n%s", diff)
	}
}
