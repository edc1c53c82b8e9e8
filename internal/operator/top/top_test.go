package top

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	gocmp "github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator"
)

var update = flag.Bool("update", false, "write the golden texts")

// golden compares a text with that of a file.
func golden(t *testing.T, file, text string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (make it with: go test ./internal/operator/top -update)", err)
	}
	if diff := gocmp.Diff(string(want), text+"\n"); diff != "" {
		t.Errorf("%s (-want +got; if it is right: go test ./internal/operator/top -update):\n%s", file, diff)
	}
}

var start = time.Date(2026, 11, 26, 2, 0, 0, 0, time.UTC)

// at is the status of node1 of three, which own the buckets in turn, so many seconds after the start. This node's bucket 0 gets 100 packets
// a second, each further one of this node 10 more.
func at(seconds, buckets int, change ...func(*operator.Status)) operator.Status {
	r := operator.ResourceStatus{
		Name: "web-ip", Addresses: []netip.Addr{netip.MustParseAddr("192.168.10.3")}, EarlyDrop: "xdp",
		Foreign:      &operator.Traffic{Packets: uint64(2000 * seconds), Bytes: uint64(128000 * seconds)},
		EarlyDropped: &operator.Traffic{Packets: uint64(1990 * seconds), Bytes: uint64(127000 * seconds)},
	}
	for i := range buckets {
		b := operator.BucketStatus{Bucket: clusterip.Bucket(i), State: operator.Owned, Nodes: []string{fmt.Sprintf("node%d", i%3+1)}}
		if i%3 == 0 {
			packets := uint64((100 + 10*i/3) * seconds)
			b.Traffic = &operator.Traffic{Packets: packets, Bytes: 1500 * packets}
		}
		r.Buckets = append(r.Buckets, b)
	}
	s := operator.Status{
		Node: "node1", Time: start.Add(time.Duration(seconds) * time.Second), Resources: []operator.ResourceStatus{r},
		Cluster: &operator.ClusterStatus{Quorum: true, Fencing: true, Nodes: []operator.NodeStatus{
			{Name: "node1", State: "online"}, {Name: "node2", State: "online"}, {Name: "node3", State: "standby"},
		}},
	}
	for _, do := range change {
		do(&s)
	}
	return s
}

// moving is a node1 that adopts bucket 1 and drains bucket 3, which node2 owns.
func moving(s *operator.Status) {
	open, b := 17, s.Resources[0].Buckets
	b[1].State, b[1].Nodes = operator.Adopting, []string{"node1"}
	b[1].Drains = []operator.DrainStatus{{Node: "node2", Seconds: 600}}
	b[1].Traffic = &operator.Traffic{Packets: 5, Bytes: 400}
	b[3].State, b[3].Nodes, b[3].Traffic = operator.Adopting, []string{"node2"}, nil
	b[3].Drains = []operator.DrainStatus{{Node: "node1", Seconds: 590, Connections: &open}}
	b[6].State, b[6].Nodes, b[6].Traffic = operator.Lingering, nil, nil
	b[6].Drains = []operator.DrainStatus{{Node: "node1", Seconds: 600, LingersSeconds: 5}}
}

// faulty is a cluster in which much is wrong.
func faulty(s *operator.Status) {
	s.Health = operator.Broken
	s.Problems = []operator.Problem{{
		Health: operator.Degraded, Text: "node3 is lost and not fenced yet: its buckets stay unowned until then",
		Command: "stonith_admin --history node3 --verbose",
	}}
	s.Cluster.Nodes[2].State = "unclean"
	r := &s.Resources[0]
	r.Health = operator.Broken
	r.Problems = []operator.Problem{
		{
			Health: operator.Broken, Text: `on node1: table arp clusterip-192.168.10.3: chain output: rule "ARP contains the shared MAC" is ` +
				"missing or changed", Command: "crm_resource --force-start -r web-ip:0",
		},
		{Health: operator.Broken, Text: "buckets 2,5: unowned; clients get no answer", Command: "pcs status --full"},
	}
	for i := range r.Buckets {
		if i%3 == 2 {
			r.Buckets[i].State, r.Buckets[i].Nodes = operator.Unowned, nil
		}
	}
	r.Buckets[4].State, r.Buckets[4].Nodes = operator.SeveralOwners, []string{"node1", "node2"}
}

// second adds a second resource, which is not on this node, while Pacemaker does not answer.
func second(s *operator.Status) {
	s.Health, s.Cluster = operator.Degraded, nil
	s.Problems = []operator.Problem{{
		Health: operator.Degraded, Command: "systemctl status pacemaker",
		Text: "Pacemaker does not answer, so only the state of this node is known: connection refused",
	}}
	dns := operator.ResourceStatus{
		Name: "dns-ip-of-the-campus", Addresses: []netip.Addr{netip.MustParseAddr("192.168.10.4"), netip.MustParseAddr("2001:db8::4")},
	}
	for i := range 4 {
		dns.Buckets = append(dns.Buckets, operator.BucketStatus{Bucket: clusterip.Bucket(i), State: operator.Unknown})
	}
	s.Resources = append(s.Resources, dns)
}

func nobody() (operator.Status, error) { panic("nothing is read here") }

// shown is the view of two readings on a terminal.
func shown(width, height int, first, second operator.Status) Model {
	m := New(first, nobody, time.Second, false)
	return send(m, tea.WindowSizeMsg{Width: width, Height: height}, reading{second, nil, second.Time})
}

func send(m Model, messages ...tea.Msg) Model {
	for _, message := range messages {
		next, _ := m.Update(message)
		m = next.(Model)
	}
	return m
}

// fits expects that no line is wider than the terminal, and that there are not more than it has.
func fits(t *testing.T, m Model) string {
	t.Helper()
	content := m.View().Content
	lines := strings.Split(content, "\n")
	if len(lines) > max(m.height, 1) {
		t.Errorf("%d lines on a terminal of %dx%d", len(lines), m.width, m.height)
	}
	for _, line := range lines {
		if width := ansi.StringWidth(line); width > max(m.width, 0) {
			t.Errorf("%d columns on a terminal of %dx%d: %q", width, m.width, m.height, line)
		}
	}
	return content
}

// What an operator sees.
func TestFrames(t *testing.T) {
	coloured := shown(80, 24, at(0, 8), at(1, 8, faulty))
	coloured.colour = true
	failed := send(shown(80, 24, at(0, 8), at(1, 8)), reading{
		err: errors.New("read the tables: netlink receive: device or resource busy"), ended: start.Add(13 * time.Second),
	})
	for name, m := range map[string]Model{
		"80x24":              shown(80, 24, at(0, 8), at(1, 8)),
		"120x40-moves":       shown(120, 40, at(0, 8), at(1, 8, moving)),
		"80x24-moves":        shown(80, 24, at(0, 8), at(1, 8, moving)),
		"20x5":               shown(20, 5, at(0, 8), at(1, 8)),
		"72x16-faults":       shown(72, 16, at(0, 8), at(1, 8, faulty)),
		"80x24-faults":       shown(80, 24, at(0, 8), at(1, 8, faulty)),
		"80x24-colour":       coloured,
		"80x24-many":         shown(80, 24, at(0, 1024), at(1, 1024)),
		"80x24-many-by-load": send(shown(80, 24, at(0, 1024), at(1, 1024)), tea.KeyPressMsg{Code: 's', Text: "s"}),
		"80x24-many-the-end": send(shown(80, 24, at(0, 1024), at(1, 1024)), tea.KeyPressMsg{Code: tea.KeyEnd}),
		"80x24-two":          shown(80, 24, at(0, 8, second), at(1, 8, second)),
		"80x24-failed":       failed,
	} {
		t.Run(name, func(t *testing.T) { golden(t, name+".txt", fits(t, m)) })
	}
}

// A command that was cut would do something else.
func TestCommandsAreNotCut(t *testing.T) {
	command := "pcs resource refresh " + strings.Repeat("long", 40) + " --force"
	content := fits(t, shown(80, 24, at(0, 8), at(1, 8, func(s *operator.Status) {
		s.Problems = []operator.Problem{{Health: operator.Broken, Text: "failed", Command: command}}
	})))
	if !strings.Contains(strings.NewReplacer("\n", "", " ", "").Replace(content), strings.ReplaceAll(command, " ", "")) {
		t.Errorf("the command is not shown as a whole:\n%s", content)
	}
}

// Once is for scripts: all buckets, without keys and colours.
func TestOnce(t *testing.T) {
	m := New(at(0, 30), nobody, time.Second, true)
	golden(t, "once.txt", m.Once(at(1, 30, moving), 80))
}

// A failed reading, or one that has not ended in time, leaves nothing that looks healthy.
func TestOldIsNotHealthy(t *testing.T) {
	m := shown(80, 24, at(0, 8), at(1, 8))
	if content := fits(t, m); !strings.Contains(content, "healthy") {
		t.Errorf("not healthy at first:\n%s", content)
	}
	for name, old := range map[string]Model{
		"a failed reading": send(m, reading{err: errors.New("busy"), ended: start.Add(2 * time.Second)}),
		"a slow reading":   send(m, tick{start.Add(2 * time.Second)}, tick{start.Add(6 * time.Second)}),
	} {
		content := fits(t, old)
		if strings.Contains(content, "healthy") || !strings.Contains(content, "s old: ") || !strings.Contains(content, operator.Unknown) {
			t.Errorf("%s:\n%s", name, content)
		}
		if content := fits(t, send(old, reading{at(7, 8), nil, start.Add(7 * time.Second)})); !strings.Contains(content, "healthy") {
			t.Errorf("%s, and then a good one:\n%s", name, content)
		}
	}
}

// A reading that takes longer than the interval takes the place of the next one.
func TestReadingsDoNotOverlap(t *testing.T) {
	m := New(at(0, 8), func() (operator.Status, error) { return at(1, 8), nil }, time.Nanosecond, false)
	now := start.Add(time.Second)
	next, command := m.Update(tick{now})
	started := messages(command)
	if len(started) != 2 {
		t.Fatalf("a tick leads to %v, want the next tick and a reading", started)
	}
	again, command := next.Update(tick{now.Add(time.Second)})
	if got := messages(command); len(got) != 1 {
		t.Errorf("a tick during a reading leads to %v, want the next tick only", got)
	}
	for _, message := range started {
		if _, is := message.(reading); is {
			again, _ = again.Update(message)
		}
	}
	if _, command = again.Update(tick{now.Add(2 * time.Second)}); len(messages(command)) != 2 {
		t.Error("a tick after a reading starts no other one")
	}
}

// Ticks come each second, and readings after the interval. So a reading that hangs is noticed soon.
func TestTicksAreMoreThanReadings(t *testing.T) {
	const interval = time.Minute
	m := send(New(at(0, 8), nobody, interval, false), tea.WindowSizeMsg{Width: 80, Height: 24})
	for second := 1; second <= 66; second++ {
		m = send(m, tick{start.Add(time.Duration(second) * time.Second)})
		if want := second >= 60; m.reading != want {
			t.Fatalf("after %d s a reading is in progress: %t", second, m.reading)
		}
		if want := second > 63; (m.age() > 0) != want {
			t.Fatalf("after %d s what is shown is old: %s", second, m.age())
		}
	}
	began := time.Now()
	if _, is := m.nextTick()().(tick); !is || time.Since(began) > interval/2 {
		t.Errorf("the next tick comes after %s", time.Since(began))
	}
}

// messages runs commands and returns their messages.
func messages(command tea.Cmd) []tea.Msg {
	switch message := command().(type) {
	case tea.BatchMsg:
		var all []tea.Msg
		for _, one := range message {
			all = append(all, messages(one)...)
		}
		return all
	default:
		return []tea.Msg{message}
	}
}

func TestKeys(t *testing.T) {
	m := shown(80, 24, at(0, 100), at(1, 100))
	page := m.layOut().lines
	for keys, want := range map[string]struct {
		offset int
		byLoad bool
	}{
		"": {}, "up": {}, "down": {offset: 1}, "j j k": {offset: 1}, "pgdown": {offset: page}, "pgdown pgup": {}, "end": {offset: 100 - page},
		"end down": {offset: 100 - page}, "end up": {offset: 99 - page}, "end home": {}, "s": {byLoad: true}, "s s": {}, "down s": {byLoad: true},
		"x": {},
	} {
		got := m
		for key := range strings.FieldsSeq(keys) {
			next, command := got.press(key)
			if got = next.(Model); command != nil {
				t.Errorf("%s: ends", keys)
			}
		}
		if got.offset != want.offset || got.byLoad != want.byLoad {
			t.Errorf("%q: offset %d, by load: %t, want %+v", keys, got.offset, got.byLoad, want)
		}
	}
	for _, key := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		_, command := m.Update(key)
		if command == nil {
			t.Errorf("%s does not end it", key)
			continue
		}
		if _, ends := command().(tea.QuitMsg); !ends {
			t.Errorf("%s does not end it", key)
		}
	}
	bigger := send(send(m, tea.KeyPressMsg{Code: tea.KeyEnd}), tea.WindowSizeMsg{Width: 80, Height: 200})
	if bigger.offset != 0 {
		t.Errorf("all buckets have a place, and those before %d are not shown", bigger.offset)
	}
}

// Counters that went back, or have just appeared, have no rate.
func TestNoNegativeRates(t *testing.T) {
	m := shown(80, 24, at(5, 8), at(6, 8, func(s *operator.Status) {
		b := s.Resources[0].Buckets
		b[0].Traffic = &operator.Traffic{Packets: 3, Bytes: 200}
		b[1].Traffic = &operator.Traffic{Packets: 3, Bytes: 200}
		b[3].Traffic = nil
	}))
	for _, r := range m.rows() {
		packets, bytes := rates(r.Traffic)
		if want := r.Bucket == 6; (packets != "-") != want || (bytes != "-") != want || r.load() < 0 == want {
			t.Errorf("bucket %d: %s packets and %s a second", r.Bucket, packets, bytes)
		}
	}
}

func TestMoves(t *testing.T) {
	owned := func(nodes ...string) func(*operator.Status) {
		state := operator.Owned
		if len(nodes) > 1 {
			state = operator.SeveralOwners
		}
		return func(s *operator.Status) {
			s.Resources[0].Buckets[1].Nodes, s.Resources[0].Buckets[1].State = nodes, state
		}
	}
	state := func(state string) func(*operator.Status) {
		return func(s *operator.Status) {
			s.Resources[0].Buckets[1].Nodes, s.Resources[0].Buckets[1].State = nil, state
		}
	}
	without := func(s *operator.Status) { s.Resources = nil }
	renamed := func(s *operator.Status) {
		old := s.Resources[0]
		old.Name, old.Buckets = "old-ip", slices.Clone(old.Buckets)
		for i := range old.Buckets {
			old.Buckets[i].State, old.Buckets[i].Nodes = operator.Unowned, nil
		}
		s.Resources = append(s.Resources, old)
	}
	fewer := func(s *operator.Status) {
		owned("node3")(s)
		s.Resources[0].Buckets = s.Resources[0].Buckets[:4]
	}
	for name, row := range map[string]struct {
		changes []func(*operator.Status)
		want    string
	}{
		"nothing":                   {nil, ""},
		"a move":                    {[]func(*operator.Status){owned("node3")}, "node2 -> node3"},
		"a takeover":                {[]func(*operator.Status){state(operator.Lingering), owned("node1")}, "node2 -> node1"},
		"a node fails":              {[]func(*operator.Status){state(operator.Unowned), owned("node1")}, "node2 -> unowned, unowned -> node1"},
		"nobody answers for a time": {[]func(*operator.Status){state(operator.Unknown), owned("node2")}, ""},
		"moved meanwhile":           {[]func(*operator.Status){state(operator.Unknown), owned("node1")}, "node2 -> node1"},
		"two owners":                {[]func(*operator.Status){owned("node1", "node2")}, "node2 -> node1+node2"},
		"another number of buckets": {[]func(*operator.Status){fewer}, ""},
		"missing from one reading":  {[]func(*operator.Status){without, owned("node2")}, ""},
		"moved, and once missing":   {[]func(*operator.Status){without, owned("node1")}, "node2 -> node1"},
		"two with one address":      {[]func(*operator.Status){renamed, renamed, renamed}, ""},
	} {
		m := New(at(0, 8), nobody, time.Second, false)
		for i, change := range row.changes {
			status := at(i+1, 8, change)
			m = send(m, reading{status, nil, status.Time})
		}
		var got []string
		for _, moved := range m.history.moves {
			got = append(got, moved.from+" -> "+moved.to)
		}
		if joined := strings.Join(got, ", "); joined != row.want {
			t.Errorf("%s: %q, want %q", name, joined, row.want)
		}
	}
}

// The list of moves does not grow for ever.
func TestMovesAreBounded(t *testing.T) {
	m := New(at(0, 1024), nobody, time.Second, false)
	status := at(1, 1024, func(s *operator.Status) {
		for i := range s.Resources[0].Buckets {
			s.Resources[0].Buckets[i].Nodes = []string{"node4"}
		}
	})
	m = send(m, reading{status, nil, status.Time})
	if len(m.history.moves) != maxMoves || m.history.moves[maxMoves-1].bucket != 1023 {
		t.Errorf("%d moves, the last one of bucket %d", len(m.history.moves), m.history.moves[len(m.history.moves)-1].bucket)
	}
}

func TestShareOfEarlyDrop(t *testing.T) {
	rate := func(packets float64) *operator.Traffic {
		return &operator.Traffic{PacketsPerSecond: &packets, BytesPerSecond: &packets}
	}
	for want, r := range map[string]operator.ResourceStatus{
		"tc drops 25.0%":  {Foreign: rate(400), EarlyDropped: rate(100)},
		"tc drops 0.0%":   {Foreign: rate(400), EarlyDropped: rate(0)},
		"tc drops -":      {Foreign: rate(0), EarlyDropped: rate(0)},
		"tc drops 100.0%": {Foreign: rate(400), EarlyDropped: rate(401)}, // read a moment later
		"early drop off":  {Foreign: rate(400)},
		"are not counted": {},
		"foreign -/s":     {Foreign: &operator.Traffic{}},
	} {
		r.EarlyDrop = "tc"
		if got := foreign(r); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Whatever the keys, the sizes and the texts are, the frame fits.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 80, 24, 4, 8, 1, 2, 3}, "web-ip", "node1")
	f.Add([]byte{0, 0, 48}, "no", "columns")
	f.Add([]byte{4, 8, 0, 81, 25, 5, 8, 3, 9}, strings.Repeat("long", 100), strings.Repeat("names", 100))
	f.Add([]byte{0, 72, 16, 4, 255, 3, 5, 0, 20, 5, 6, 0, 200, 200, 4, 1}, "\x1b[31m\u3042\u3042", "\u200d\U0001f469\u200d\U0001f467\n\t")
	f.Fuzz(func(t *testing.T, script []byte, resource, node string) {
		change := func(s *operator.Status) {
			s.Resources[0].Name, s.Node = resource, node
			s.Problems = append(s.Problems, operator.Problem{Text: resource, Command: node})
			for i := range s.Resources[0].Buckets {
				s.Resources[0].Buckets[i].Nodes = append(s.Resources[0].Buckets[i].Nodes, cmp.Or(node, "x"))
				s.Resources[0].Buckets[i].Drains = []operator.DrainStatus{{Node: node, Seconds: 1}}
			}
		}
		keys := []tea.KeyPressMsg{
			{Code: tea.KeyUp},
			{Code: tea.KeyDown},
			{Code: tea.KeyPgUp},
			{Code: tea.KeyPgDown},
			{Code: tea.KeyHome},
			{Code: tea.KeyEnd},
			{Code: 's', Text: "s"},
		}
		next := func() int {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return int(b)
		}
		const enough = 64
		script = script[:min(len(script), enough)]
		m := New(at(0, 8, change), nobody, time.Second, true)
		for step := 1; len(script) > 0; step++ {
			switch next() % 7 {
			case 0:
				m = send(m, tea.WindowSizeMsg{Width: next() - 1, Height: next() - 1})
			case 1, 2:
				m = send(m, keys[next()%len(keys)])
			case 3:
				m = send(m, reading{err: errors.New(resource), ended: start.Add(time.Duration(next()) * time.Second)})
			case 4:
				status := at(step, next()%64+4, change, second)
				m = send(m, reading{status, nil, status.Time})
			case 5:
				status := at(step, next()%64+8, faulty, change)
				m = send(m, reading{status, nil, status.Time})
			case 6:
				m = send(m, tick{start.Add(time.Duration(next()) * time.Second)})
			}
			fits(t, m)
		}
	})
}
