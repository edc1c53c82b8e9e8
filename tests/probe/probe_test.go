//go:build system

package probe

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/lan"
)

// sharedMAC is the article's.
var sharedMAC = net.HardwareAddr{1, 2, 3, 4, 5, 6}

// at lets a probe ask another address.
func at(target netip.Addr, n *lan.Network, sources int) func(*Options) {
	return func(o *Options) { o.Target, o.Sources = target, n.SourcesLike(target, sources) }
}

const testTimeout = time.Minute // for anything that does not hang

// watch starts a probe from that many sources.
func watch(t *testing.T, n *lan.Network, sources int, adapt ...func(*Options)) *Probe {
	t.Helper()
	o := Options{
		Client: n.Client, Target: shared, Sources: n.Sources(sources), SharedMAC: sharedMAC,
		Node: func(mac net.HardwareAddr) string {
			if i := n.NodeByMAC(mac); i != lan.NoNode {
				return n.Nodes[i].Name
			}
			return ""
		},
	}
	for _, f := range adapt {
		f(&o)
	}
	p, err := Start(t.Context(), o)
	check(t, err)
	t.Cleanup(func() { _, _ = p.Stop() })
	return p
}

// allAnswered waits until every source is answered again.
func allAnswered(t *testing.T, p *Probe) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	check(t, p.WaitAnswered(ctx, time.Now()))
}

// until waits for an event of which match is true.
func until(t *testing.T, p *Probe, what string, match func(Event) bool) {
	t.Helper()
	for end := time.Now().Add(testTimeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		found := slices.ContainsFunc(p.events, match)
		p.mu.Unlock()
		if found {
			return
		}
	}
	log, err := p.Stop()
	t.Fatalf("no %s, %v\n%s", what, err, log.Summary())
}

func stop(t *testing.T, p *Probe) *Log {
	t.Helper()
	log, err := p.Stop()
	check(t, err)
	t.Logf("\n%s", log.Summary())
	return log
}

// expect fails for every event of a kind that is not expected, and when none is.
func expect(t *testing.T, log *Log, k Kind, expected func(Event) bool) {
	t.Helper()
	events := log.Of(k)
	if len(events) == 0 {
		t.Errorf("no event is %q", k)
	}
	for _, e := range events {
		if !expected(e) {
			t.Errorf("unexpected: %s", e)
		}
	}
}

// forbid fails for every event of these kinds.
func forbid(t *testing.T, log *Log, kinds ...Kind) {
	t.Helper()
	for _, k := range kinds {
		events := log.Of(k)
		for _, e := range events[:min(len(events), 10)] {
			t.Errorf("unexpected: %s", e)
		}
	}
}

func TestEverythingIsAnsweredByTheOwner(t *testing.T) {
	c := newCluster(t)
	p := watch(t, c.Network, 32)
	allAnswered(t, p)
	allAnswered(t, p) // a second time: the streams' second requests
	log := stop(t, p)
	forbid(t, log, Refused, Duplicate, WrongMAC, Broken)
	for _, e := range slices.Concat(log.Of(Answer), log.Of(Open)) {
		if want := fmt.Sprintf("node%d", homeOf(e.Source)+1); e.Node != want {
			t.Errorf("not by %s: %s", want, e)
		}
	}
	flows := map[flow]int{}
	for _, e := range log.Of(Answer) {
		flows[flow{e.Source, e.Proto}]++
	}
	if len(flows) != 32*4 || slices.Min(slices.Collect(maps.Values(flows))) < 2 {
		t.Errorf("answers of %d flows: %v", len(flows), flows)
	}
	if again, err := p.Stop(); again != log || err != nil {
		t.Errorf("stopped again: %v", err)
	}
}

func TestConnectionsAskWhenTheyAreMade(t *testing.T) {
	c := newCluster(t)
	p := watch(t, c.Network, 32, func(o *Options) { o.Requests = true })
	allAnswered(t, p)
	p.Mark("bucket 3 moves to node3")
	c.call("stop", 3, 0)
	c.call("start", 3, 2)
	allAnswered(t, p)
	log := stop(t, p)
	forbid(t, log, Duplicate, WrongMAC)
	made := map[flow]map[uint32]string{}
	for _, e := range log.Of(Open) {
		f := flow{e.Source, e.Proto}
		if made[f] == nil {
			made[f] = map[uint32]string{}
		}
		made[f][e.Number] = e.Node
	}
	answers := 0
	for _, e := range log.Of(Answer) {
		if e.Proto != Connect {
			continue
		}
		answers++
		if by := made[flow{e.Source, Connect}][e.Number]; by != e.Node {
			t.Errorf("the connection was made to %q: %s", by, e)
		}
	}
	if answers < 2*32 {
		t.Errorf("%d answers", answers)
	}
	moved, still := log.Gaps(bucketOf)
	if len(moved) != 1 || moved[0].Bucket != 3 || moved[0].From != "node1" || moved[0].To != "node3" || moved[0].Length == 0 {
		t.Errorf("moves %+v", moved)
	}
	if len(still) != buckets-1 {
		t.Errorf("%d buckets did not move: %+v", len(still), still)
	}
	t.Logf("\n%s%s", Distribution("moves", moved), Distribution("buckets that did not move", still))
}

func TestUnpluggedNodeIsAnOutageOfItsSources(t *testing.T) {
	c := newCluster(t)
	p := watch(t, c.Network, 32, func(o *Options) { o.StallAfter = 300 * time.Millisecond })
	allAnswered(t, p)
	p.Mark("node2 unplugged")
	check(t, c.UnplugNode(1, lan.NIC))
	hit := func(e Event) bool { return homeOf(e.Source) == 1 }
	for _, proto := range []Proto{ICMP, UDP, Connect} {
		until(t, p, "loss", func(e Event) bool { return e.Kind == Lost && e.Proto == proto && hit(e) })
	}
	until(t, p, "stalled stream", func(e Event) bool { return e.Kind == Stalled && hit(e) })
	for bucket := range buckets {
		if bucket%3 == 1 {
			c.call("start", bucket, 2)
		}
	}
	allAnswered(t, p)
	log := stop(t, p)
	forbid(t, log, Duplicate, WrongMAC, Refused)
	var few int // of others, if the machine is very busy
	for _, e := range log.Of(Lost) {
		if !hit(e) {
			few++
			t.Logf("lost by a source of another node: %s", e)
		}
	}
	if few > 10 {
		t.Errorf("%d questions of other sources were lost", few)
	}
	// The new owner refuses connections that it does not have.
	expect(t, log, Broken, func(e Event) bool { return hit(e) && e.Node == "node3" && e.Text == "reset" && e.Proto == Stream })
	summary := log.Summary()
	sources := 0
	for _, source := range c.Sources(32) {
		if homeOf(source) != 1 {
			continue
		}
		sources++
		protos := map[Proto]bool{}
		for _, o := range summary.Outages[source] {
			if o.Open {
				t.Errorf("not over: %+v", o)
			}
			protos[o.Proto] = true
		}
		if len(protos) != len(Protos()) {
			t.Errorf("outages of %s: %+v", source, summary.Outages[source])
		}
	}
	if len(summary.Effects) == 0 || summary.Effects[len(summary.Effects)-1].Sources < sources {
		t.Errorf("effects %+v, want %d sources", summary.Effects, sources)
	}
}

func TestBucketOwnedTwiceIsADuplicate(t *testing.T) {
	for _, target := range []netip.Addr{shared, shared6} {
		t.Run(target.String(), func(t *testing.T) { testBucketOwnedTwice(t, target) })
	}
}

func testBucketOwnedTwice(t *testing.T, target netip.Addr) {
	c := newCluster(t)
	p := watch(t, c.Network, 32, at(target, c.Network, 32))
	allAnswered(t, p)
	c.call("start", 0, 1) // node1 has it
	for _, proto := range []Proto{ICMP, UDP, Connect, Stream} {
		until(t, p, "duplicate", func(e Event) bool { return e.Kind == Duplicate && e.Proto == proto })
	}
	c.call("stop", 0, 1)
	log := stop(t, p)
	expect(t, log, Duplicate, func(e Event) bool {
		return bucketOf(e.Source) == 0 && (e.Node == "node1" && e.Text == "after node2" || e.Node == "node2" && e.Text == "after node1")
	})
	forbid(t, log, WrongMAC)
}

func TestMovedBucketBreaksStreams(t *testing.T) {
	c := newCluster(t)
	p := watch(t, c.Network, 32)
	allAnswered(t, p)
	p.Mark("bucket 3 moves to node3")
	c.call("stop", 3, 0)
	c.call("start", 3, 2)
	moved := map[netip.Addr]bool{}
	for _, source := range c.Sources(32) {
		if bucketOf(source) == 3 {
			moved[source] = true
			until(t, p, "broken stream", func(e Event) bool { return e.Kind == Broken && e.Proto == Stream && e.Source == source })
		}
	}
	allAnswered(t, p)
	log := stop(t, p)
	forbid(t, log, Duplicate, WrongMAC)
	expect(t, log, Broken, func(e Event) bool { return moved[e.Source] && e.Node == "node3" && e.Text == "reset" })
	if broken := log.Summary().Protos[Stream].Broken; broken != len(moved) {
		t.Errorf("%d streams broken, want %d", broken, len(moved))
	}
	last := map[netip.Addr]string{}
	for _, e := range log.Of(Open) {
		last[e.Source] = e.Node
	}
	for source := range moved {
		if last[source] != "node3" {
			t.Errorf("the stream of %s was made again with %q", source, last[source])
		}
	}
}

// nft gives a host rules, or takes them.
func nft(t *testing.T, h *lan.Host, rules string) {
	t.Helper()
	if r := h.Run(t.Context(), []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "nft", rules); r.Err != nil || r.ExitCode != 0 {
		t.Fatalf("nft on %s: %v\n%s", h.Name, r.Err, r.Stderr)
	}
}

func TestARPWithANodesMACIsWrong(t *testing.T) {
	c := newCluster(t)
	for name, known := range map[string]net.HardwareAddr{"shared MAC known": sharedMAC, "not known": nil} {
		t.Run(name, func(t *testing.T) {
			p := watch(t, c.Network, 4, func(o *Options) { o.SharedMAC = known })
			allAnswered(t, p)
			nft(t, c.Nodes[0], "delete table arp clusterip-"+shared.String())
			link, err := c.Client.Handle().LinkByName(lan.NIC)
			check(t, err)
			neighs, err := c.Client.Handle().NeighList(link.Attrs().Index, 2)
			check(t, err)
			for _, n := range neighs { // so that it asks again
				if n.IP.Equal(shared.AsSlice()) {
					check(t, c.Client.Handle().NeighDel(&n))
				}
			}
			until(t, p, "wrong ARP", func(e Event) bool { return e.Kind == WrongMAC })
			log := stop(t, p)
			expect(t, log, WrongMAC, func(e Event) bool {
				return e.Node == "node1" && e.Text == "ARP announces "+c.Nodes[0].MAC.String() && !e.Source.IsValid()
			})
			c.call("start", 0, 0) // repairs it
		})
	}
}

func TestAdvertisementWithANodesMACIsWrong(t *testing.T) {
	c := newCluster(t)
	p := watch(t, c.Network, 4, at(shared6, c.Network, 4))
	allAnswered(t, p)
	nft(t, c.Nodes[0], "delete table ip6 clusterip-"+shared.String())
	link, err := c.Client.Handle().LinkByName(lan.NIC)
	check(t, err)
	neighs, err := c.Client.Handle().NeighList(link.Attrs().Index, unix.AF_INET6)
	check(t, err)
	for _, n := range neighs { // so that it asks again
		if n.IP.Equal(shared6.AsSlice()) {
			check(t, c.Client.Handle().NeighDel(&n))
		}
	}
	until(t, p, "wrong advertisement", func(e Event) bool { return e.Kind == WrongMAC })
	expect(t, stop(t, p), WrongMAC, func(e Event) bool {
		return e.Node == "node1" && e.Text == "an advertisement announces "+c.Nodes[0].MAC.String() && !e.Source.IsValid()
	})
}

func TestAnswerFromNoNodesMACIsWrong(t *testing.T) {
	c := newCluster(t)
	p := watch(t, c.Network, 16)
	allAnswered(t, p)
	nft(t, c.Nodes[1], `table netdev stand_in { chain out { type filter hook egress device "eth0" priority 0;
		ip saddr 192.168.10.3 ether saddr set 02:02:03:04:05:06; }; }`)
	for _, proto := range Protos() {
		until(t, p, "wrong MAC", func(e Event) bool { return e.Kind == WrongMAC && e.Proto == proto })
	}
	log := stop(t, p)
	expect(t, log, WrongMAC, func(e Event) bool {
		return homeOf(e.Source) == 1 && e.Node == Unknown && e.Text == "answer from 02:02:03:04:05:06"
	})
	forbid(t, log, Duplicate, Broken)
}

// One node, asked at its own address.
func alone(t *testing.T, adapt ...func(*Options)) (*lan.Network, *Probe) {
	t.Helper()
	n := lan.Start(t, lan.Options{Nodes: 1})
	return n, watch(t, n, 4, append(adapt, func(o *Options) { o.Target, o.SharedMAC = n.Nodes[0].Addr, n.Nodes[0].MAC })...)
}

func TestNobodyServes(t *testing.T) {
	_, p := alone(t)
	for _, proto := range []Proto{UDP, Connect, Stream} {
		until(t, p, "refusal", func(e Event) bool { return e.Kind == Refused && e.Proto == proto })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.WaitAnswered(ctx, time.Now()); err == nil || !strings.Contains(err.Error(), "udp 192.168.64.1") {
		t.Errorf("refusals are taken for answers: %v", err)
	}
	log := stop(t, p)
	expect(t, log, Refused, func(e Event) bool { return e.Node == "node1" })
	forbid(t, log, Duplicate, WrongMAC, Broken, Open)
}

// A node that repeats what it sends is caught by what TCP does not repeat. In TCP it may be the kernel.
func TestNodeThatAnswersTwice(t *testing.T) {
	n, p := alone(t)
	check(t, n.Nodes[0].Serve(lan.EchoPort))
	allAnswered(t, p)
	nft(t, n.Nodes[0], `table netdev stand_in { chain out { type filter hook egress device "eth0" priority 0;
		ip saddr 192.168.10.11 dup to "eth0"; }; }`)
	for _, proto := range []Proto{ICMP, UDP} {
		until(t, p, "duplicate", func(e Event) bool { return e.Kind == Duplicate && e.Proto == proto })
	}
	log := stop(t, p)
	expect(t, log, Duplicate, func(e Event) bool {
		return (e.Proto == ICMP || e.Proto == UDP) && e.Node == "node1" && e.Text == "after node1"
	})
	forbid(t, log, WrongMAC, Broken)
}

func TestRepeatedSynHidesNoLoss(t *testing.T) {
	n, p := alone(t, func(o *Options) { o.Protos = []Proto{Connect}; o.Interval = 50 * time.Millisecond })
	check(t, n.Nodes[0].Serve(lan.EchoPort))
	allAnswered(t, p)
	// The first SYN from each port is lost.
	nft(t, n.Nodes[0], `table ip stand_in {
		set seen { type ipv4_addr . inet_service; flags dynamic; size 65535; }
		chain in { type filter hook prerouting priority 0;
			tcp dport 7 tcp flags syn ip saddr . tcp sport != @seen add @seen { ip saddr . tcp sport } drop; }; }`)
	until(t, p, "loss", func(e Event) bool { return e.Kind == Lost })
	nft(t, n.Nodes[0], "delete table ip stand_in")
	allAnswered(t, p)
	log := stop(t, p)
	for _, source := range n.Sources(4) {
		if len(log.Summary().Outages[source]) == 0 {
			t.Errorf("no outage of %s", source)
		}
	}
	forbid(t, log, Duplicate, WrongMAC, Broken)
}

func TestServerThatGoesAway(t *testing.T) {
	n, p := alone(t)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ready, served := make(chan bool), make(chan error, 1)
	go func() {
		served <- n.Nodes[0].Do(func() error { return Serve(ctx, "node1", func() { close(ready) }) })
	}()
	select {
	case <-ready:
	case err := <-served:
		t.Fatal(err)
	}
	allAnswered(t, p)
	end()
	check(t, <-served)
	until(t, p, "broken stream", func(e Event) bool { return e.Kind == Broken && e.Proto == Stream })
	log := stop(t, p)
	expect(t, log, Broken, func(e Event) bool {
		return e.Node == "node1" && (e.Text == "closed by the server" || e.Text == "reset")
	})
	forbid(t, log, Duplicate, WrongMAC)
}

func TestProbeRefuses(t *testing.T) {
	n := lan.Start(t, lan.Options{Nodes: 1})
	fine := Options{Client: n.Client, Target: shared, Sources: n.Sources(1), Node: func(net.HardwareAddr) string { return "" }}
	for name, spoil := range map[string]func(*Options){
		"no client":         func(o *Options) { o.Client = nil },
		"no nodes":          func(o *Options) { o.Node = nil },
		"no target":         func(o *Options) { o.Target = netip.Addr{} },
		"IPv6":              func(o *Options) { o.Target = netip.MustParseAddr("2001:db8::1") },
		"no sources":        func(o *Options) { o.Sources = nil },
		"a source twice":    func(o *Options) { o.Sources = append(o.Sources, o.Sources[0]) },
		"IPv6 source":       func(o *Options) { o.Sources = []netip.Addr{netip.MustParseAddr("2001:db8::1")} },
		"no protocol":       func(o *Options) { o.Protos = []Proto{} },
		"too fast":          func(o *Options) { o.Interval = time.Microsecond },
		"hides lost SYNs":   func(o *Options) { o.Timeout = time.Second },
		"no such interface": func(o *Options) { o.NIC = "eth9" },
		"a foreign source":  func(o *Options) { o.Sources = []netip.Addr{netip.MustParseAddr("203.0.113.1")} },
	} {
		o := fine
		spoil(&o)
		p, err := Start(t.Context(), o)
		if err == nil {
			<-p.ended
			_, err = p.Stop()
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestProbeHasLimits(t *testing.T) {
	n, p := alone(t, func(o *Options) { o.MaxDuration = 300 * time.Millisecond; o.Protos = []Proto{ICMP} })
	<-p.ended
	if err := p.WaitAnswered(t.Context(), time.Now()); err == nil {
		t.Error("answers are expected after the end")
	}
	log := stop(t, p)
	if marks := log.Of(Mark); len(marks) != 1 || !strings.Contains(marks[0].Text, "300ms") {
		t.Errorf("marks %v", marks)
	}
	p = watch(t, n, 4, func(o *Options) { o.Target = n.Nodes[0].Addr; o.MaxEvents = 20 })
	<-p.ended
	if log, err := p.Stop(); err == nil || !strings.Contains(err.Error(), "20 events") || len(log.Events) != 20 {
		t.Errorf("%d events, %v", len(log.Events), err)
	}
}

func TestTurns(t *testing.T) {
	const count, interval = 50, 100 * ms // a turn each 2 ms
	for _, c := range []struct {
		now            time.Duration
		next, from, to int
	}{
		{0, 0, 0, 1},
		{1 * ms, 1, 1, 1},
		{2 * ms, 1, 1, 2},
		{99 * ms, 1, 1, 50},
		{100 * ms, 50, 50, 51},
		{10 * second, 51, 4951, 5001}, // after a long sleep
		{time.Hour, 1799999, 1799999, 1800001},
	} {
		if from, to := due(c.now, interval, count, c.next); from != c.from || to != c.to {
			t.Errorf("after %s, %d is next: turns %d..%d, want %d..%d", c.now, c.next, from, to, c.from, c.to)
		}
	}
}
