//go:build system

package kernel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// session is a TCP connection of the client, with a server that sends everything back.
type session struct {
	conn   net.Conn
	reader *bufio.Reader
	flow   lan.Flow
	node   string // who has answered first
}

// open makes connections from that many sources, the next port each time, all at once.
func (s *site) open(t *testing.T, target netip.Addr, port uint16, count int) []*session {
	t.Helper()
	check(t, s.Client.Resolve(t.Context(), lan.NIC, target))
	sessions := make([]*session, count)
	errs := make([]error, count)
	var all sync.WaitGroup
	for i, source := range s.SourcesLike(target, count) {
		all.Go(func() {
			sessions[i] = &session{flow: lan.Flow{Proto: lan.TCP, Src: source, Dst: target, SrcPort: port, DstPort: lan.EchoPort}}
			errs[i] = sessions[i].open(t.Context(), s.Client)
		})
	}
	all.Wait()
	check(t, errors.Join(errs...))
	t.Cleanup(func() { closeAll(sessions) })
	return sessions
}

func (c *session) open(ctx context.Context, from *lan.Host) error {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	conn, err := from.Dial(ctx, netip.AddrPortFrom(c.flow.Src, c.flow.SrcPort), netip.AddrPortFrom(c.flow.Dst, c.flow.DstPort))
	if err != nil {
		return err
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		return err
	}
	line, err := c.reader.ReadString('\n')
	c.node = strings.TrimSuffix(line, "\n")
	return err
}

// ask sends something and waits for the answer.
func (c *session) ask() error {
	if err := c.conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		return err
	}
	const question = "still there?"
	if _, err := io.WriteString(c.conn, question); err != nil {
		return err
	}
	answer := make([]byte, len(question))
	_, err := io.ReadFull(c.reader, answer)
	return err
}

// askAll asks on all connections at once, and returns the errors in their order.
func askAll(sessions []*session) []error {
	errs := make([]error, len(sessions))
	var all sync.WaitGroup
	for i, c := range sessions {
		all.Go(func() { errs[i] = c.ask() })
	}
	all.Wait()
	return errs
}

// closeAll closes connections cleanly on both sides.
func closeAll(sessions []*session) {
	for _, c := range sessions {
		if c != nil && c.conn != nil {
			_ = c.conn.Close()
		}
	}
}

// kept expects that all connections go on.
func kept(t *testing.T, what string, sessions []*session) {
	t.Helper()
	broken := 0
	for i, err := range askAll(sessions) {
		if err != nil {
			if broken++; broken <= 3 {
				t.Errorf("%s: connection from %s to %s: %v", what, sessions[i].flow.Src, sessions[i].node, err)
			}
		}
	}
	t.Logf("%s: %d of %d connections kept", what, len(sessions)-broken, len(sessions))
}

// reset expects that each connection gets a reset.
func reset(t *testing.T, what string, sessions []*session) {
	t.Helper()
	for i, err := range askAll(sessions) {
		if !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: connection from %s to %s: %v, want a reset", what, sessions[i].flow.Src, sessions[i].node, err)
		}
	}
}

// endsCleanly expects, after moves, that each new flow is answered once by its owner, that the sessions survive a stop of all buckets, and
// that nothing is left on any node when they have ended.
func (s *site) endsCleanly(t *testing.T, target netip.Addr, sessions []*session, clean []string) {
	t.Helper()
	report := probe(t, s.Network, lan.Traffic{Target: target, Sources: s.SourcesLike(target, 64), Retries: retries})
	check(t, report.ExactlyOnce(s.owner))
	check(t, s.stopAll())
	kept(t, "all stopped", sessions)
	closeAll(sessions)
	for node := range s.Nodes {
		eventually(t, "the sweepers clear up", func() error { return s.isClean(node, clean[node]) })
	}
}

// ownedBy expects that new connections were answered by the owners of their buckets.
func (s *site) ownedBy(t *testing.T, sessions []*session) {
	t.Helper()
	for _, c := range sessions {
		if want := s.Nodes[s.owner(c.flow)].Name; c.node != want {
			t.Errorf("a new connection from %s was answered by %s, bucket %d is on %s", c.flow.Src, c.node, s.bucket(c.flow), want)
		}
	}
}

// newDrainingSite has nodes that hand their connections over.
func newDrainingSite(t *testing.T, o lan.Options, buckets int, namesAndValues ...string) (*site, attributes) {
	t.Helper()
	s := newSite(
		t,
		o,
		buckets,
		webIP(append([]string{"drain", "3600"}, namesAndValues...)...),
	) // longer than any test takes, emulated ones too
	cluster := newAttributes(t, s.agents...)
	for bucket := range buckets {
		s.probe(t, bucket)
	}
	return s, cluster
}

// probe asks all nodes for the first time what is there of a bucket, as Pacemaker does before it starts anything.
func (s *site) probe(t *testing.T, bucket int) {
	t.Helper()
	for _, a := range s.agents {
		check(t, status(a.call("monitor", bucket, "OCF_RESKEY_CRM_meta_interval=0"), ocf.NotRunning))
	}
}

// eventually waits for something that the agent does by itself.
func eventually(t *testing.T, what string, is func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = is(); err == nil {
			return
		}
	}
	t.Errorf("%s: %v", what, err)
}

// Each bucket moves from node to node, three times round: no client loses a connection, whichever node it was made to.
func TestMovesBreakNoConnection(t *testing.T) {
	const buckets, count = 4, 48
	for name, p := range map[string][]string{
		"IPv4, multicast": {},
		"IPv4, unicast":   {"mac_mode", "unicast", "hashmode", "sourceip-sourceport"},
		"IPv6, igmp":      {"ip", shared6.String(), "mac_mode", "igmp", "hashmode", "sourceip-sourceport-destport"},
		"IPv4, services":  {"services", "tcp/80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "IPv4, multicast" {
				inGuest(t, "data-path")
			}
			s, _ := newDrainingSite(t, lan.Options{}, buckets, p...)
			clean := s.dumps(t)
			check(t, s.startAll(0, 1, 2, 0))
			target := s.spec.Address()
			var all []*session
			for round := range 3 {
				fresh := s.open(t, target, uint16(30000+round), count)
				s.ownedBy(t, fresh)
				all = append(all, fresh...)
				for bucket := range buckets {
					check(t, s.move(bucket, (s.at[bucket]+1)%len(s.Nodes)))
				}
				check(t, s.monitorAll())
				kept(t, fmt.Sprintf("round %d", round+1), all)
			}
			s.endsCleanly(t, target, all, clean)
		})
	}
}

// When the old owner has crashed, its clients get a reset; when it has only left the cluster, they do not.
func TestTheNewOwnerAdoptsFromNoDeadNode(t *testing.T) {
	const count = 16
	t.Run("crashed", func(t *testing.T) {
		t.Parallel()
		s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
		check(t, s.startOn(0, 0))
		sessions := s.open(t, shared, 30000, count)
		check(t, s.UnplugNode(0, lan.NIC))
		cluster.lose(t, s.Nodes[0], isFenced)
		check(t, s.startOn(1, 0))
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		reset(t, "after the first monitor", sessions)
	})
	t.Run("crashes while it drains", func(t *testing.T) {
		t.Parallel()
		s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
		check(t, s.startOn(0, 0))
		sessions := s.open(t, shared, 30000, count)
		check(t, s.move(0, 1))
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		kept(t, "moved", sessions)
		check(t, s.UnplugNode(0, lan.NIC))
		cluster.lose(t, s.Nodes[0], isFenced)
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		reset(t, "after the next monitor", sessions)
	})
	t.Run("its cluster software stops while it drains", func(t *testing.T) {
		t.Parallel()
		s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
		check(t, s.startOn(0, 0))
		sessions := s.open(t, shared, 30000, count)
		check(t, s.move(0, 1))
		cluster.lose(t, s.Nodes[0], hasLeft)
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		kept(t, "after the next monitor", sessions)
	})
	t.Run("its cluster software stops, and with it the bucket", func(t *testing.T) {
		t.Parallel()
		s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
		if announced := cluster.announced(t, "node2", 0); !strings.HasPrefix(announced, "none/") {
			t.Errorf("after its probe node2 announces %q", announced)
		}
		check(t, s.startOn(0, 0))
		sessions := s.open(t, shared, 30000, count)
		check(t, s.stop(0))
		cluster.lose(t, s.Nodes[0], hasLeft)
		check(t, s.startOn(1, 0))
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		kept(t, "started elsewhere", sessions)
		if relayed := cluster.relayed(t, "node2", 0); !strings.HasPrefix(relayed, "node1:") {
			t.Errorf("node2 stores %q: its successor would not find that node1 drains", relayed)
		}
	})
	t.Run("it is lost while it drains, and then fenced", func(t *testing.T) {
		t.Parallel()
		s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
		check(t, s.startOn(0, 0))
		sessions := s.open(t, shared, 30000, count)
		check(t, s.move(0, 1))
		cluster.lose(t, s.Nodes[0], isLost) // its management cable is out
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		kept(t, "lost", sessions)
		check(t, s.UnplugNode(0, lan.NIC))
		cluster.lose(t, s.Nodes[0], isFenced)
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		reset(t, "fenced", sessions)
	})
	t.Run("drain is switched on by reload, and its cluster software stops", func(t *testing.T) {
		t.Parallel()
		s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1, "drain", "0")
		check(t, s.startOn(0, 0))
		for _, a := range s.agents {
			a.Parameters = a.Parameters.With("drain", "60")
		}
		check(t, status(s.agents[0].call("reload-agent", 0), ocf.Success))
		sessions := s.open(t, shared, 30000, count)
		check(t, s.stop(0))
		cluster.lose(t, s.Nodes[0], hasLeft)
		check(t, s.startOn(1, 0))
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		kept(t, "started elsewhere", sessions)
	})
	t.Run("its cluster software stops, and then the new owner crashes", func(t *testing.T) {
		t.Parallel()
		s, cluster := newDrainingSite(t, lan.Options{Nodes: 3}, 1)
		check(t, s.startOn(0, 0))
		sessions := s.open(t, shared, 30000, count)
		check(t, s.stop(0))
		cluster.lose(t, s.Nodes[0], hasLeft)
		check(t, s.startOn(1, 0))
		check(t, status(s.agents[1].monitor(0), ocf.Success))
		check(t, s.UnplugNode(1, lan.NIC))
		cluster.clear(t, s.Nodes[1])
		cluster.status(t, map[string]string{"node1": hasLeft, "node2": isFenced})
		s.at[0] = nowhere
		check(t, s.startOn(2, 0))
		check(t, status(s.agents[2].monitor(0), ocf.Success))
		kept(t, "started elsewhere again", sessions)
	})
}

// While nodes drain buckets of another number of buckets, it is unknown in which of the new buckets their connections are.
func TestConnectionsSurviveAChangeOfCloneMax(t *testing.T) {
	for _, row := range []struct{ before, after int }{{4, 6}, {6, 4}} {
		t.Run(fmt.Sprintf("from %d to %d", row.before, row.after), func(t *testing.T) {
			t.Parallel()
			s, _ := newDrainingSite(t, lan.Options{Nodes: 3}, row.before, "drain", "600")
			for bucket := range row.before {
				check(t, s.startOn(0, bucket))
			}
			sessions := s.open(t, shared, 30000, 32)
			check(t, s.stopAll())
			for _, a := range s.agents {
				a.Buckets = row.after
			}
			for bucket := row.before; bucket < row.after; bucket++ {
				s.probe(t, bucket)
			}
			for bucket := range row.after { // on the others: that node has none
				check(t, status(s.agents[1+bucket%2].start(bucket), ocf.Success))
				check(t, status(s.agents[1+bucket%2].monitor(bucket), ocf.Success))
			}
			kept(t, "running with another clone-max", sessions)
		})
	}
}

// Names never decide whether a bucket runs.
func TestOldOwnersWithLongNames(t *testing.T) {
	for _, row := range []struct{ count, length int }{{2, 43}, {6, 43}, {1, 210}, {24, 10}} {
		t.Run(fmt.Sprintf("%d of %d bytes", row.count, row.length), func(t *testing.T) {
			t.Parallel()
			s, cluster := newDrainingSite(t, lan.Options{Nodes: 1}, 1)
			for i := range row.count {
				cluster.set(t, fmt.Sprintf("clusterip-%s-0", shared), fmt.Sprintf("n%03d", i)+strings.Repeat("x", row.length-4), "3600/layout/mark")
			}
			check(t, s.startOn(0, 0))
			for range 2 {
				check(t, status(s.agents[0].monitor(0), ocf.Success))
			}
			if !s.holds(t, 0, 0, "adopting") {
				t.Error("the start does not adopt")
			}
		})
	}
}

// A drain that is shorter than connections ends them with a reset, and leaves nothing, even without a sweeper.
func TestDrainThatIsTooShort(t *testing.T) {
	inGuest(t, "data-path")
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1, "drain", "3")
	clean := s.dumps(t)
	check(t, s.startOn(0, 0))
	sessions := s.open(t, shared, 30000, 16)
	check(t, s.move(0, 1))
	kept(t, "moved", sessions)
	eventually(t, "the sweeper clears up", func() error { return s.isClean(0, clean[0]) })
	check(t, status(s.agents[1].monitor(0), ocf.Success))
	reset(t, "after the drain", sessions)
}

// Other actions on a node must not prolong a drain: it would outlast the adoption of the new owner, and two nodes would answer. Here much
// time passes between the agent's reading of the node's state and its change.
func TestADrainIsNotProlonged(t *testing.T) {
	t.Parallel()
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 3, "drain", "600")
	check(t, s.startAll(0, 0, 0))
	s.open(t, shared, 30000, 16)
	check(t, s.move(0, 1))
	slowly := func(action string, bucket int, want ...ocf.ExitCode) {
		c := tracedCall{agent: s.agents[0], action: action, bucket: bucket}
		check(
			t,
			status(
				c.underStrace("-o", "/dev/null", "-e", "trace=sendto,sendmsg", "-e", "inject=sendto,sendmsg:delay_enter=50ms"),
				append(want, ocf.Success)[0],
			),
		)
	}
	for _, beside := range []struct {
		what string
		do   func()
	}{
		{"another stop", func() { slowly("stop", 1) }},
		{"a start", func() { slowly("start", 1) }},
		{"a start that replaces the tables", func() {
			nft(t, s.Nodes[0], "flush chain netdev "+ourTable+" ipv4")
			slowly("start", 2)
			check(t, s.stop(2))
		}},
		{"a start that fails, and is undone", func() {
			ctx, cancel := context.WithCancel(t.Context())
			var spoilt sync.WaitGroup
			spoilt.Go(func() { // between start's installation and its check of it
				for !s.holds(t, 0, 2, "owned") && ctx.Err() == nil {
				}
				nft(t, s.Nodes[0], "add rule netdev "+ourTable+" ingress counter")
			})
			slowly("start", 2, ocf.ErrGeneric)
			cancel()
			spoilt.Wait()
			if s.holds(t, 0, 2, "owned") {
				t.Error("the start failed, and the bucket is owned")
			}
		}},
	} {
		_, before := s.drainEnds(t, 0, 0)
		beside.do()
		if after, _ := s.drainEnds(t, 0, 0); after.After(before) {
			t.Errorf("%s prolongs a drain by %s or more", beside.what, after.Sub(before))
		}
	}
}

// holds returns whether a node has a bucket in a set.
func (s *site) holds(t *testing.T, node, bucket int, set string) bool {
	t.Helper()
	r := s.Nodes[node].Run(t.Context(), lan.ToolPath, "nft", "list", "set", "netdev", ourTable, set)
	return hasElement(r.Stdout, bucket)
}

// hasElement returns whether nft(8) lists the bucket as an element of a set.
func hasElement(listed string, bucket int) bool {
	return regexp.MustCompile(fmt.Sprintf(`[{,]\s+%d (timeout|counter|comment)`, bucket)).MatchString(listed)
}

// drainEnds returns when a drain on a node ends, at the earliest and at the latest: somewhere between the two the kernel was asked.
func (s *site) drainEnds(t *testing.T, node, bucket int) (earliest, latest time.Time) {
	t.Helper()
	earliest = time.Now()
	r := s.Nodes[node].Run(t.Context(), lan.ToolPath, "nft", "list", "set", "netdev", ourTable, "draining")
	latest = time.Now()
	found := regexp.MustCompile(fmt.Sprintf(`[{,]\s+%d timeout \w+ expires (\w+)`, bucket)).FindStringSubmatch(r.Stdout)
	if found == nil {
		t.Fatalf("bucket %d does not drain:\n%s%s", bucket, r.Stdout, r.Stderr)
	}
	left, err := time.ParseDuration(found[1])
	check(t, err)
	return earliest.Add(left), latest.Add(left)
}

// A drain that cannot be announced does not begin: the bucket is released at once, as without drain.
func TestDrainWithoutAttributes(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(*testing.T, *site, attributes)
		want  string
	}{
		"no Pacemaker": {func(t *testing.T, s *site, c attributes) { c.leave(t, s.agents[0].Host) }, "cannot announce the drain"},
		"pacemaker-attrd hangs": {func(t *testing.T, s *site, c attributes) {
			check(t, os.WriteFile(c.program(s.agents[0].Host, attrdUpdater), []byte("#!/bin/sh\nexec sleep 60\n"), 0o755))
		}, "no answer"},
		"pacemaker-attrd prints nonsense": {func(t *testing.T, _ *site, c attributes) {
			c.set(t, fmt.Sprintf("clusterip-%s-0", shared), "node2", "x\" value=\"y")
		}, "which is not a value of clusterip-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, cluster := newDrainingSite(t, lan.Options{Nodes: 1}, 1)
			clean := s.dumps(t)
			check(t, s.startOn(0, 0))
			row.spoil(t, s, cluster)
			r := s.agents[0].stop(0)
			if err := status(r, ocf.Success); err != nil || !strings.Contains(r.Stderr, row.want) {
				t.Errorf("stop does not log %q: %v\n%s", row.want, err, r.Stderr)
			}
			check(t, s.isClean(0, clean[0]))
		})
	}
}

// While Corosync forms a new membership, an announcement is readable only seconds later, even on its own node. A stop waits for that.
func TestStopWaitsUntilTheDrainIsPublished(t *testing.T) {
	t.Parallel()
	s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
	check(t, s.startOn(0, 0))
	check(t, status(s.agents[0].monitor(0), ocf.Success))
	sessions := s.open(t, shared, 30000, 16)
	cluster.delay(t, s.Nodes[0], 7*time.Second)
	check(t, s.move(0, 1))
	check(t, status(s.agents[1].monitor(0), ocf.Success))
	if !s.holds(t, 1, 0, "adopting") {
		t.Error("the new owner does not adopt")
	}
	kept(t, "moved", sessions)
}

// drain is reloadable: connections from before get a conntrack entry with their next packet. When it is switched off, running drains go on,
// because the node that drains may have no bucket, and then Pacemaker does not call it. After the last drain, conntrack is no longer used.
func TestDrainIsReloadable(t *testing.T) {
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2, "drain", "0")
	clean := s.dumps(t)
	check(t, s.startAll(0, 0))
	sessions := s.open(t, shared, 30000, 16)
	for _, a := range s.agents {
		a.Parameters = a.Parameters.With("drain", "60")
	}
	for bucket := range 2 { // one after the other: no monitor fails meanwhile
		check(t, s.monitorAll())
		check(t, status(s.agents[0].call("reload-agent", bucket), ocf.Success))
	}
	check(t, s.monitorAll())
	kept(t, "reloaded", sessions)
	check(t, s.move(0, 1))
	check(t, s.move(1, 1))
	kept(t, "moved", sessions)
	for _, a := range s.agents {
		a.Parameters = a.Parameters.With("drain", "0")
	}
	for bucket := range 2 {
		check(t, s.monitorAll())
		check(t, status(s.agents[1].call("reload-agent", bucket), ocf.Success))
	}
	check(t, s.monitorAll())
	kept(t, "switched off", sessions)
	closeAll(sessions)
	eventually(t, "the sweeper clears up", func() error { return s.isClean(0, clean[0]) })
	for range 2 { // the first ends the adoption
		check(t, s.monitorAll())
	}
	if rules := listNFT(t, s.Nodes[1], "list", "ruleset"); strings.Contains(rules, " ct ") {
		t.Errorf("connections are tracked without drain:\n%s", rules)
	}
	check(t, s.stopAll())
	check(t, s.isClean(1, clean[1]))
}

// Where nothing else uses conntrack, it sees only what happens while a bucket drains, is adopted or lingers. Of a connection that ends at
// another time its entry says for days that it is established. No drain waits for that.
func TestConnectionsThatConntrackDidNotSeeEnd(t *testing.T) {
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2)
	clean := s.dumps(t)
	check(t, s.startAll(0, 0))
	sessions := s.open(t, shared, 30000, 16)
	reload := func(drain string) {
		s.agents[0].Parameters = s.agents[0].Parameters.With("drain", drain)
		for bucket := range 2 {
			check(t, status(s.agents[0].call("reload-agent", bucket), ocf.Success))
		}
		check(t, status(s.agents[0].monitor(0), ocf.Success))
	}
	reload("0")
	closeAll(sessions)
	if known := s.trackedOn(t, 0); len(known) != len(sessions) {
		t.Fatalf("conntrack knows %d connections, want the %d that it has not seen end", len(known), len(sessions))
	}
	reload("3600")
	check(t, s.move(0, 1))
	check(t, s.move(1, 1))
	eventually(t, "the drain ends", func() error { return s.isClean(0, clean[0]) })
}
