package pacemaker

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/handover"
)

func TestAttributeName(t *testing.T) {
	for address, want := range map[string]string{"192.168.10.3": "clusterip-192.168.10.3-7", "2001:db8::3": "clusterip-2001-db8--3-7"} {
		if got := attribute(netip.MustParseAddr(address), 7); got != want {
			t.Errorf("attribute of %s is %s, want %s", address, got, want)
		}
	}
}

// key is what a takeover needs.
const key = "00112233445566778899aabb"

func TestAnnouncementsAreReadBack(t *testing.T) {
	for value, word := range map[string]handover.Announcement{
		"none/1f/M":          {Layout: "1f", Nonce: "M"},
		"600/1f/M":           {Drain: 10 * time.Minute, Layout: "1f", Nonce: "M"},
		"none/1f/M/complete": {Layout: "1f", Nonce: "M", Complete: true},
		"86400/1f/M/web-1.example:1,b_2:9": {
			Drain: 24 * time.Hour, Layout: "1f", Nonce: "M",
			Others: []handover.Drainer{{Node: "web-1.example", Left: time.Second}, {Node: "b_2", Left: 9 * time.Second}},
		},
		"5/1f/M/complete/a:86465": {
			Drain: 5 * time.Second, Layout: "1f", Nonce: "M", Complete: true,
			Others: []handover.Drainer{{Node: "a", Left: maxDrain + handover.GracePeriod}},
		},
		"none/1f/M;takes-over":          {Layout: "1f", Nonce: "M", TakesOver: true},
		"none/1f/M;takes-over/complete": {Layout: "1f", Nonce: "M", TakesOver: true, Complete: true},
		"60/1f/M;3000:" + key: {
			Drain: time.Minute, Layout: "1f", Nonce: "M", Lingers: handover.Lingering{For: 3 * time.Second, Key: key},
		},
		"60/1f/M;takes-over;60000:" + key + "/complete/a:5": {
			Drain: time.Minute, Layout: "1f", Nonce: "M", TakesOver: true, Lingers: handover.Lingering{For: time.Minute, Key: key}, Complete: true,
			Others: []handover.Drainer{{Node: "a", Left: 5 * time.Second}},
		},
	} {
		if got := formatAnnouncement(word); got != value {
			t.Errorf("%v is written %q, want %q", word, got, value)
		}
		got, ok := parseAnnouncement(value)
		if diff := cmp.Diff(word, got); !ok || diff != "" {
			t.Errorf("%q: %t (-want +got):\n%s", value, ok, diff)
		}
	}
	if got := formatAnnouncement(handover.Announcement{Drain: 1500 * time.Millisecond, Layout: "1f", Nonce: "M"}); got != "2/1f/M" {
		t.Errorf("a part of a second is left out: %q", got)
	}
}

// Who says something else has not spoken.
func TestNonsenseIsNoAnnouncement(t *testing.T) {
	for _, value := range []string{
		"", "none", "node1:600", "none/1f", "none//M", "none/1f/", "/1f/M", "0/1f/M", "-1/1f/M", "+1/1f/M", "1e3/1f/M", "86466/1f/M",
		"none/1f/M/", "none/1f/M/none",
		"none/1f/M/a:5/complete", "none/1f/M/complete/a:5/b:5", "none/1f/M/a", "none/1f/M/complete/complete", "None/1f/M", "5 /1f/M",
		"none/1f/;takes-over", "none/1f/M;", "none/1f/M;takes-over;", "none/1f/M;takesover", "none/1f/M;takes-over;takes-over",
		"5/1f/M;3000", "5/1f/M;3000:", "5/1f/M;3000:" + key[2:], "5/1f/M;3000:" + key + "cc", "5/1f/M;3000:xx" + key[2:], "5/1f/M;0:" + key,
		"5/1f/M;-1:" + key, "5/1f/M;60001:" + key, "5/1f/M;3s:" + key, "5/1f/M;:" + key, "5/1f/M;3000:" + key + ";takes-over",
		"5/1f/M;3000:" + key + ";3000:" + key, "5/1f/M/complete;takes-over",
	} {
		if got, ok := parseAnnouncement(value); ok {
			t.Errorf("%q is taken for %v", value, got)
		}
	}
}

func TestRelayedAnnouncementsAreReadBack(t *testing.T) {
	for value, notice := range map[string]handover.Relayed{
		"none":      {},
		"none/M":    {Supersedes: "M"},
		"node1:600": {Drainers: []handover.Drainer{{Node: "node1", Left: 10 * time.Minute}}},
		"node1:600,b_2:15/M": {
			Drainers: []handover.Drainer{{Node: "node1", Left: 10 * time.Minute}, {Node: "b_2", Left: 15 * time.Second}}, Supersedes: "M",
		},
		"none//node1:3000:" + key: {
			Lingering: []handover.Lingerer{{Node: "node1", Lingering: handover.Lingering{For: 3 * time.Second, Key: key}}},
		},
		"node1:600/M/node1:3000:" + key + ",b_2:1:" + key: {
			Drainers: []handover.Drainer{{Node: "node1", Left: 10 * time.Minute}}, Supersedes: "M",
			Lingering: []handover.Lingerer{
				{Node: "node1", Lingering: handover.Lingering{For: 3 * time.Second, Key: key}},
				{Node: "b_2", Lingering: handover.Lingering{For: time.Millisecond, Key: key}},
			},
		},
	} {
		if got := formatRelayed(notice); got != value {
			t.Errorf("%v is written %q, want %q", notice, got, value)
		}
		got, err := parseRelayed(value)
		if diff := cmp.Diff(notice, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", value, err, diff)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, value := range []string{
		"", "nobody", "node1", "node1:", ":5", "node1:-1", "node1:+1", "node1:86466", "node1:1e3", "node1:999999999999", "node 1:5", "node1:5,",
		"a;b:5", "-n:5",
		"node1:5 ", "?:5", "+", "none+", "/M", strings.Repeat("n", 300) + ":5",
		"none//", "none/M/", "none//node1", "none//node1:3000", "none//node1:0:" + key, "none//node1:60001:" + key, "none//node1:3000:" + key[2:],
		"none//:3000:" + key, "none//-n:3000:" + key, "none//node1:3000:" + key + ",", "none//node1:3000:" + key + "/M",
		"nobody//node1:3000:" + key,
	} {
		if got, err := parseRelayed(value); err == nil {
			t.Errorf("%q is taken for %v", value, got)
		}
	}
}

// The former version, which knows nothing of lingering, takes everything up to the next / for the nonce, and of a relayed announcement
// everything behind the first /. So it reads the same drains, and no nonce that it has read is that of an announcement: it may wait for
// nodes that have finished, and resets no connection. A node that lingers has seen that no member has that version (View.MayLinger).
func TestFormerVersionReadsTheDrains(t *testing.T) {
	lingers := handover.Lingering{For: 3 * time.Second, Key: key}
	word := handover.Announcement{
		Drain: time.Minute, Layout: "1f", Nonce: "M", TakesOver: true, Lingers: lingers, Complete: true,
		Others: []handover.Drainer{{Node: "a", Left: 5 * time.Second}},
	}
	parts := strings.Split(formatAnnouncement(word), between)
	if nonce := parts[2]; nonce == word.Nonce || !strings.HasPrefix(nonce, word.Nonce+with) {
		t.Errorf("the nonce is %q", nonce)
	}
	parts[2] = word.Nonce
	word.TakesOver, word.Lingers = false, handover.Lingering{}
	if got := strings.Join(parts, between); got != formatAnnouncement(word) {
		t.Errorf("apart from the nonce it reads %q", got)
	}
	for _, supersedes := range []string{"", "M"} {
		notice := handover.Relayed{
			Drainers: word.Others, Supersedes: supersedes, Lingering: []handover.Lingerer{{Node: "node1", Lingering: lingers}},
		}
		list, nonce, _ := strings.Cut(formatRelayed(notice), between)
		if list != formatDrainers(word.Others) || nonce == supersedes || nonce == "" {
			t.Errorf("it reads the drains %q, which supersede %q", list, nonce)
		}
	}
}

// releases are those of which testdata has answers (`make record-answers`).
var releases = []string{"2.0.5", "2.1.5", "3.0.0", "3.0.3"}

// answer is what a program of a release printed.
func answer(t testing.TB, program, release, situation string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", program+"-"+release+"-"+situation))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAttributesOfAllNodes(t *testing.T) {
	const name = "clusterip-192.168.10.3-7"
	all := map[string]string{"node1": "node1:60", "node2": "none", "node3": "node3:59,node1:60"}
	without3 := map[string]string{"node1": "node1:60", "node2": "none"} // what a node says goes with it, however it leaves
	for _, release := range releases {
		for situation, want := range map[string]map[string]string{
			"all-members": all, "left": without3, "left-with-corosync": without3, "crashed": without3,
		} {
			got, err := ParseAttributes(answer(t, "attrd_updater", release, situation+".txt"), name)
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("%s, %s: %v, %v", release, situation, got, err)
			}
		}
	}
	const text = `name="clusterip-192.168.10.3-7" host="node2" value=""
`
	if got, err := ParseAttributes(text, name); err != nil || !maps.Equal(got, map[string]string{"node2": ""}) {
		t.Errorf("a node without a value: %v, %v", got, err)
	}
	for name, text := range map[string]string{
		"another attribute":   text,
		"a new form":          `shutdown: "1" on node1`,
		"a truncated line":    `name="shutdown" host="node1" val`,
		"a further attribute": `name="shutdown" host="node1" value="1" since="2"`,
	} {
		if got, err := ParseAttributes(text, "shutdown"); err == nil {
			t.Errorf("%s is taken: %v", name, got)
		}
	}
}

// Where nodes are, as each release says it.
func TestPresenceInEachRelease(t *testing.T) {
	member, left := handover.NodeState{Membership: handover.Member}, handover.NodeState{Membership: handover.Left}
	lost, dead := handover.NodeState{Membership: handover.Lost}, handover.NodeState{Membership: handover.Dead}
	for _, release := range releases {
		for situation, want := range map[string]map[string]handover.NodeState{
			"all-members":        {"node1": member, "node2": member, "node3": member},
			"left":               {"node1": member, "node2": member, "node3": left},
			"left-with-corosync": {"node1": member, "node2": member, "node3": left},
			"fenced":             {"node1": member, "node2": dead, "node3": member},
			"crashed":            {"node1": member, "node2": member, "node3": lost},
		} {
			t.Run(release+" "+situation, func(t *testing.T) {
				text := answer(t, "cibadmin", release, situation+".xml")
				got, err := ParseNodeStates(text)
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
				for _, part := range []int{1, len(text) / 3, len(text) / 2, len(text) - len("</status>")} {
					if got, err := ParseNodeStates(text[:part]); err == nil {
						t.Errorf("the first %d bytes are taken for %v", part, got)
					}
				}
			})
		}
	}
}

// Forms beside those that were recorded. What is not understood is never lost.
func TestNodeStates(t *testing.T) {
	for name, row := range map[string]struct {
		state string // attributes of node_state
		inner string
		want  handover.Membership
	}{
		"booting, not yet joined": {`in_ccm="true" crmd="online" join="down" expected="down"`, "", handover.Member},
		"booting, not yet joined, with times": {
			`in_ccm="1795737861" crmd="1795737861" join="pending" expected="down"`, "", handover.Member,
		},
		"further attributes": {
			`in_ccm="1795737861" crmd="1795737861" expected="member" mood="good"`, "<lrm/><mood/>", handover.Member,
		},
		"fenced, and its Corosync is back":            {`in_ccm="1795737861" crmd="0" expected="down" join="down"`, "", handover.Dead},
		"down in the status of a node that joined":    {`in_ccm="false" crmd="offline" expected="down"`, "", handover.Unknown},
		"its controller died, Corosync lives":         {`in_ccm="true" crmd="offline" expected="member"`, "<lrm/>", handover.Unknown},
		"its controller died, Corosync lives (times)": {`in_ccm="1795737861" crmd="0" expected="member"`, "<lrm/>", handover.Unknown},
		"a word that is not known":                    {`in_ccm="false" crmd="away" expected="member"`, "<lrm/>", handover.Unknown},
		"a time before 1970":                          {`in_ccm="0" crmd="-1" expected="member"`, "<lrm/>", handover.Unknown},
		"a time in hex":                               {`in_ccm="0x0" crmd="0x0" expected="member"`, "<lrm/>", handover.Unknown},
		"a time with a unit":                          {`in_ccm="0s" crmd="0" expected="member"`, "<lrm/>", handover.Unknown},
		"no crmd":                                     {`in_ccm="false" expected="member"`, "<lrm/>", handover.Unknown},
		"no in_ccm":                                   {`crmd="offline" expected="member"`, "<lrm/>", handover.Unknown},
		"nothing expected":                            {`in_ccm="false" crmd="offline"`, "<lrm/>", handover.Unknown},
		"something else expected":                     {`in_ccm="0" crmd="0" expected="guest"`, "<lrm/>", handover.Unknown},
		"a Pacemaker Remote node": {
			`remote_node="true" in_ccm="false" crm-debug-origin="remote_ra"`, "<lrm/>", handover.Unknown,
		},
		"a Pacemaker Remote node with all": {
			`remote_node="true" in_ccm="false" crmd="offline" expected="member"`, "", handover.Unknown,
		},
		"nothing at all": {"", "", handover.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseNodeStates(fmt.Sprintf(`<status><node_state id="1" uname="node1" %s>%s</node_state></status>`, row.state, row.inner))
			if err != nil || len(got) != 1 || got["node1"].Membership != row.want {
				t.Errorf("%v, %v", got, err)
			}
			if said := got["node1"].Unrecognised != ""; said != (row.want == handover.Unknown) {
				t.Errorf("it says %q", got["node1"].Unrecognised)
			}
		})
	}
	const twice = `<status><node_state uname="a" crmd="0" in_ccm="0" expected="down"/>
		<node_state uname="a" crmd="1" in_ccm="1" expected="member"/></status>`
	if got, err := ParseNodeStates(twice); err != nil || got["a"].Membership != handover.Unknown {
		t.Errorf("two of the same name: %v, %v", got, err)
	}
	var many strings.Builder
	for i := range 32 {
		fmt.Fprintf(&many, `<node_state id="%d" uname="node%d" in_ccm="1795737861" crmd="1795737861" expected="member"><lrm/></node_state>`, i, i)
	}
	got, err := ParseNodeStates("<status>" + many.String() + "</status>")
	if err != nil || len(got) != 32 || got["node31"].Membership != handover.Member {
		t.Errorf("32 nodes: %v, %v", got, err)
	}
	for _, text := range []string{
		"", "<status/>", "<status><node_state/></status>", "no XML <", "<node_state", "<html><body>404</body></html>",
	} {
		if got, err := ParseNodeStates(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func FuzzParseAnnouncements(f *testing.F) {
	for _, value := range []string{
		"none", "none/1f/M", "600/1f/M/complete/a:1,b:2", "node1:600/M", "a:,", ":", "5/1f/M;takes-over;3000:" + key + "/complete",
		"none/M/node1:3000:" + key + ",b:1:" + key,
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if word, ok := parseAnnouncement(value); ok {
			again, ok := parseAnnouncement(formatAnnouncement(word))
			if diff := cmp.Diff(word, again); !ok || diff != "" {
				t.Errorf("%q: %t\n%s", value, ok, diff)
			}
		}
		if notice, err := parseRelayed(value); err == nil {
			again, err := parseRelayed(formatRelayed(notice))
			if diff := cmp.Diff(notice, again); err != nil || diff != "" {
				t.Errorf("%q: %v\n%s", value, err, diff)
			}
		}
	})
}

// Whatever Pacemaker's programs print: an error, not a crash, and no node without a name.
func FuzzParseAnswers(f *testing.F) {
	f.Add(`name="x" host="node1" value="y"`)
	for _, release := range releases {
		f.Add(answer(f, "cibadmin", release, "left.xml"))
		f.Add(answer(f, "crm_mon", release, "all-members.xml"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if values, err := ParseAttributes(text, "x"); err != nil && values != nil {
			t.Errorf("%v with an error", values)
		}
		_, _ = ParseView(text)
		if configuration, err := ParseConfiguration(text); err == nil {
			Resources(configuration)
		}
		if nodes, err := ParseNodeStates(text); err == nil {
			for name, presence := range nodes {
				if name == "" || presence.Membership == handover.Unknown && presence.Unrecognised == "" {
					t.Errorf("node %q is %+v in %q", name, presence, text)
				}
			}
		}
	})
}

// The program takes less than the default patience, so that a patience that has no effect shows.
func TestPatienceEnds(t *testing.T) {
	slow := func(patience time.Duration, seconds string) error {
		_, err := Cluster{Patience: patience}.run(t.Context(), "/bin/sleep", seconds)
		return err
	}
	if err := slow(10*time.Millisecond, "1"); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("a program that takes a second: %v", err)
	}
	if err := slow(time.Hour, "0.1"); err != nil {
		t.Error(err)
	}
}
