//go:build system

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/ethernet"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// A move loses no packet and answers none twice: while buckets move from node to node, every datagram and ping is answered once, and so is
// every new connection.
func TestMovesLoseNoPacket(t *testing.T) {
	const buckets = 6 // so many that none moves again before a stop may
	for name, p := range map[string][]string{
		"IPv4, multicast":         {},
		"IPv4, unicast, ports":    {"mac_mode", "unicast", "hashmode", "sourceip-sourceport"},
		"IPv4, services":          {"services", "tcp/80 udp/53 udp/7 icmp", "early_drop", "off"},
		"IPv6, igmp, every port":  {"ip", shared6.String(), "mac_mode", "igmp", "hashmode", "sourceip-sourceport-destport"},
		"IPv6, multicast, no XDP": {"ip", shared6.String(), "early_drop", "tc"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newDrainingSite(t, lan.Options{}, buckets, append(p, "linger", "5")...)
			clean := s.dumps(t)
			check(t, s.startAll(0, 1, 2, 0, 1, 2))
			if lost := s.moveUnderTraffic(t, load{rounds: 3, perSecond: 3000, connecting: 16}); lost > 0 {
				t.Errorf("%d packets were lost", lost)
			}
			check(t, s.monitorAll())
			check(t, s.stopAll())
			for node := range s.Nodes {
				eventually(t, "the sweepers clear up", func() error { return s.isClean(node, clean[node]) })
			}
		})
	}
}

// An emulated machine is slow, so there is less to do.
func TestSomeMovesLoseNoPacket(t *testing.T) {
	inGuest(t, "data-path")
	s, _ := newDrainingSite(t, lan.Options{}, 2, "linger", "10")
	check(t, s.startAll(0, 1))
	if lost := s.moveUnderTraffic(t, load{rounds: 1, perSecond: 100, connecting: 1}); lost > 0 {
		t.Errorf("%d packets were lost", lost)
	}
}

// load is what happens while buckets move.
type load struct {
	rounds     int           // of moves of each bucket
	perSecond  int           // packets
	connecting int           // sources that make one connection after the other
	late       time.Duration // by how much answers may come late
}

// moveUnderTraffic moves each bucket from node to node while clients ask and connect. It expects that no packet and no connection is
// answered twice, and returns how many packets were lost.
func (s *site) moveUnderTraffic(t *testing.T, l load) (lost int) {
	t.Helper()
	target := s.spec.Address()
	stream, err := s.Stream(t.Context(), lan.Traffic{Target: target, Sources: s.SourcesLike(target, 64)}, l.perSecond)
	check(t, err)
	connecting := s.keepConnecting(t, target, l.connecting)
	moves := 0
	for range l.rounds {
		for bucket := range s.at {
			check(t, s.move(bucket, (s.at[bucket]+1)%len(s.Nodes)))
			moves++
		}
	}
	time.Sleep(l.late)
	made, err := connecting.stop()
	check(t, err)
	r, err := stream.Stop()
	check(t, err)
	check(t, r.AtMostOnce(func(lan.Flow, int) bool { return true }))
	t.Logf("%d moves; %d packets, %d of them lost; %d connections made", moves, r.Sent(), r.Lost(), made)
	if r.Lost() > 0 {
		t.Logf("the longest gaps:\n%s", r.LongestGaps())
	}
	return r.Lost()
}

// connecting makes one connection after the other, from several sources at the same time.
type connecting struct {
	network *lan.Network
	capture *lan.Capture
	cancel  context.CancelFunc
	all     sync.WaitGroup
	mu      sync.Mutex
	made    int
	errs    map[string]int
}

func (s *site) keepConnecting(t *testing.T, target netip.Addr, sources int) *connecting {
	t.Helper()
	const mostEach = 4000
	check(t, s.Client.Resolve(t.Context(), lan.NIC, target))
	capture, err := s.Client.Capture(lan.NIC, func(f lan.Frame) bool {
		p, ok := f.Packet()
		return ok && !f.Outgoing && p.Proto == lan.TCP && p.Flags&(lan.TCPSyn|lan.TCPAck) == lan.TCPSyn|lan.TCPAck
	})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	c := &connecting{network: s.Network, capture: capture, cancel: cancel, errs: map[string]int{}}
	for _, source := range s.SourcesLike(target, sources) {
		c.all.Go(func() {
			for i := 0; i < mostEach && ctx.Err() == nil; i++ {
				one := &session{flow: lan.Flow{Proto: lan.TCP, Src: source, Dst: target, SrcPort: uint16(20000 + i), DstPort: lan.EchoPort}}
				err := one.open(t.Context(), s.Client)
				if err == nil {
					err = one.ask()
				}
				closeAll([]*session{one})
				c.count(err)
			}
		})
	}
	return c
}

func (c *connecting) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	if err != nil {
		c.errs[err.Error()]++
	}
}

// stop returns how many connections were made, and what went wrong: connections that failed, or that two nodes accepted.
func (c *connecting) stop() (int, error) {
	c.cancel()
	c.all.Wait()
	frames, err := c.capture.Stop()
	faults := []error{err}
	for text, count := range c.errs {
		faults = append(faults, fmt.Errorf("%d times: %s", count, text))
	}
	accepted := map[lan.Flow]map[int]bool{}
	for _, f := range frames {
		p, _ := f.Packet()
		if accepted[p.Flow] == nil {
			accepted[p.Flow] = map[int]bool{}
		}
		accepted[p.Flow][c.network.NodeByMAC(f.Source)] = true
	}
	for flow, by := range accepted {
		if len(by) > 1 {
			faults = append(faults, fmt.Errorf("%s was accepted by %d nodes", flow, len(by)))
		}
	}
	return c.made, errors.Join(faults...)
}

// dropTakeovers has the switch drop takeover frames that match. EtherType and payload are those of clusterip.TakeoverFrame.
func (s *site) dropTakeovers(t *testing.T, match string) {
	t.Helper()
	var table strings.Builder
	table.WriteString("table netdev lossy {\n")
	for _, h := range s.Nodes {
		fmt.Fprintf(&table, "chain %[1]s { type filter hook ingress device \"%[1]s\" priority -300; ether type 0x%[2]x %[3]s counter drop; }\n",
			h.Name, clusterip.TakeoverEtherType, match)
	}
	table.WriteString("}")
	nft(t, s.Switch, table.String())
}

// Whatever frames of takeovers are lost, nobody answers twice: the new owner waits until the old one lingers no more. If the requests
// arrive, no other packet is lost either: it is passed on meanwhile.
func TestTakeoverFramesGetLost(t *testing.T) {
	for name, match := range map[string]string{
		"confirmations": "@nh,96,32 > 1",
		"requests":      "@nh,96,32 0",
		"everything":    "",
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2, "linger", "1")
			check(t, s.startAll(0, 1))
			s.dropTakeovers(t, match)
			s.moveUnderTraffic(t, load{rounds: 2, perSecond: 3000, connecting: 16})
			if listed := listNFT(t, s.Switch, "list", "table", "netdev", "lossy"); !regexp.MustCompile(`packets [1-9]`).MatchString(listed) {
				t.Errorf("no takeover frame was dropped:\n%s", listed)
			}
			check(t, s.monitorAll())
		})
	}
}

// Half of the frames get lost: the requests are repeated, and nothing else is lost.
func TestHalfOfTheTakeoverFramesGetLost(t *testing.T) {
	s, _ := newDrainingSite(t, lan.Options{}, 6, "linger", "10")
	check(t, s.startAll(0, 1, 2, 0, 1, 2))
	s.dropTakeovers(t, "numgen random mod 2 0")
	if lost := s.moveUnderTraffic(t, load{rounds: 2, perSecond: 3000, connecting: 16}); lost > 0 {
		t.Errorf("%d packets were lost", lost)
	}
}

// A bucket moves on before the first of its owners has heard that nothing need be passed on any more.
func TestTakeoversInAChain(t *testing.T) {
	s, _ := newDrainingSite(t, lan.Options{}, 1, "linger", "10")
	check(t, s.startAll(0))
	s.dropTakeovers(t, fmt.Sprintf("@nh,96,32 %d", clusterip.TakeoverDone))
	if lost := s.moveUnderTraffic(t, load{rounds: 9, perSecond: 1000, connecting: 16}); lost > 0 {
		t.Errorf("%d packets were lost", lost)
	}
}

// Frames that were forged, or that were seen in an earlier takeover, change nothing.
func TestForgedTakeovers(t *testing.T) {
	s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 1, "linger", "10")
	check(t, s.startOn(0, 0))
	overheard, err := s.Client.Capture(lan.NIC, func(f lan.Frame) bool { return f.EtherType == clusterip.TakeoverEtherType })
	check(t, err)
	check(t, s.move(0, 1))
	frames, err := overheard.Stop()
	check(t, err)
	if len(frames) == 0 {
		t.Fatal("no takeover was seen")
	}
	check(t, s.move(0, 0))
	check(t, s.stop(0))
	lingers := func(after string) {
		t.Helper()
		if !s.holds(t, 0, 0, "lingering") {
			t.Errorf("after %s the bucket lingers no more", after)
		}
	}
	lingers("the stop")
	for _, f := range frames {
		s.send(t, f.Payload)
	}
	lingers("what was seen before")
	announced := cluster.announced(t, "node1", 0)
	text := regexp.MustCompile(`;10000:(\w+)`).FindStringSubmatch(announced)
	if text == nil {
		t.Fatalf("node1 announces %q", announced)
	}
	key, err := clusterip.ParseTakeoverKey(text[1])
	check(t, err)
	for i := range key.Secret {
		wrong := key
		wrong.Secret[i] ^= 1
		s.send(t, clusterip.TakeoverFrame(wrong, 0, clusterip.TakeoverRequested, 0))
	}
	s.send(t, clusterip.TakeoverFrame(key, 1, clusterip.TakeoverRequested, 0))
	s.send(t, clusterip.TakeoverFrame(key, 0, clusterip.TakeoverDone, 0))
	lingers("forged frames")
	s.send(t, clusterip.TakeoverFrame(key, 0, clusterip.TakeoverRequested, 0))
	if s.holds(t, 0, 0, "lingering") {
		t.Error("after a request with the secret the bucket still lingers")
	}
}

// The kernel must not go on with an earlier lingering when the bucket is released again without: nobody knows of it.
func TestAnEarlierLingeringEndsWithTheNextRelease(t *testing.T) {
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2, "linger", "10")
	check(t, s.startAll(0, 0))
	check(t, s.stop(0))
	check(t, s.startOn(0, 0))
	if !s.holds(t, 0, 0, "lingering") {
		t.Error("nothing is left of the earlier lingering, so the test shows nothing")
	}
	check(t, status(s.agents[0].call("stop", 0, "OCF_RESKEY_linger=0"), ocf.Success))
	if s.holds(t, 0, 0, "lingering") {
		t.Error("the bucket lingers, and that was not announced")
	}
}

// send broadcasts a takeover frame from the client, and waits until the nodes must have it.
func (s *site) send(t *testing.T, payload []byte) {
	t.Helper()
	check(t, sendFrames(s.Client, ethernet.Frame{
		Destination: ethernet.Broadcast, Source: s.Client.MAC, EtherType: clusterip.TakeoverEtherType, Payload: payload,
	}))
	time.Sleep(20 * time.Millisecond)
}

// A node may stand still for a moment: what the old owner passes on reaches the new owner half a second later than the same packet from the
// client, and still no packet is lost, nor answered twice.
func TestPacketsPassedOnLate(t *testing.T) {
	for _, address := range []netip.Addr{shared, shared6} {
		t.Run(address.String(), func(t *testing.T) {
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2, "ip", address.String(), "linger", "10")
			check(t, s.startAll(0, 0))
			check(t, s.Client.DisableChecksumOffload(lan.NIC))
			const by = 500 * time.Millisecond
			late := s.delayPassedOn(t, 0, 1, by)
			if lost := s.moveUnderTraffic(t, load{rounds: 1, perSecond: 1000, late: 2 * by}); lost > 0 {
				t.Errorf("%d packets were lost", lost)
			}
			if late.end(t) == 0 {
				t.Error("nothing was passed on")
			}
		})
	}
}

// delayed is what the switch forwards late.
type delayed struct {
	capture *lan.Capture
	cancel  context.CancelFunc
	ended   chan error
}

// delayPassedOn has the switch forward what one node passes on to another only after a time.
func (s *site) delayPassedOn(t *testing.T, from, to int, by time.Duration) *delayed {
	t.Helper()
	is := func(f lan.Frame) bool {
		isIP := f.EtherType == ethernet.EtherTypeIPv4 || f.EtherType == ethernet.EtherTypeIPv6
		return !f.Outgoing && isIP && bytes.Equal(f.Destination, ethernet.Broadcast)
	}
	capture, err := s.Switch.Capture(s.Nodes[from].Name, is)
	check(t, err)
	nft(t, s.Switch, fmt.Sprintf("table netdev late { chain in { type filter hook ingress device %q priority -300; "+
		"ether daddr ff:ff:ff:ff:ff:ff ether type { ip, ip6 } drop; }; }", s.Nodes[from].Name))
	ctx, cancel := context.WithCancel(t.Context())
	d := &delayed{capture: capture, cancel: cancel, ended: make(chan error, 1)}
	go func() {
		const pause = 5 * time.Millisecond
		var err error
		for sent := 0; err == nil && clusterip.Pause(ctx, pause) == nil; {
			var due []ethernet.Frame
			for _, f := range capture.Frames()[sent:] {
				if time.Since(f.Time) < by {
					break
				}
				due = append(due, f.Frame)
			}
			sent += len(due)
			err = sendFramesBy(s.Switch, s.Nodes[to].Name, due...)
		}
		d.ended <- err
	}()
	return d
}

// end returns how many frames were forwarded late.
func (d *delayed) end(t *testing.T) int {
	t.Helper()
	d.cancel()
	frames, err := d.capture.Stop()
	check(t, errors.Join(err, <-d.ended))
	return len(frames)
}

// When there are more new packets than the new owner can remember, as in a flood, it loses some, and still none is answered twice.
func TestTakeoversBesideAFlood(t *testing.T) {
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 3, "linger", "10")
	check(t, s.startAll(0, 0, 1))
	s.fill(t, 1, "seen")
	s.fill(t, 1, "seen_too")
	if lost := s.moveUnderTraffic(t, load{rounds: 1, perSecond: 1000, connecting: 16}); lost == 0 {
		t.Error("nothing was lost, so the new owner has remembered everything")
	}
}

// fill fills a set of a node's rules.
func (s *site) fill(t *testing.T, node int, set string) {
	t.Helper()
	const most, atOnce = 1<<16 - 1, 1 << 12 // the kernel's limit, nf_tables' nft_dynset_init
	for first := 0; first < most; first += atOnce {
		var elements []string
		for i := first; i < min(most, first+atOnce); i++ {
			elements = append(elements, fmt.Sprintf("%d timeout 20s", i))
		}
		nft(t, s.Nodes[node], fmt.Sprintf("add element netdev clusterip-%s %s { %s }", s.spec.Address(), set, strings.Join(elements, ", ")))
	}
}

// What lingers answers only where a service listens: when the service has stopped here before the bucket was taken over, a refusal would be
// worse than silence.
func TestLingeringBucketsRefuseNobody(t *testing.T) {
	inGuest(t, "data-path")
	for _, address := range []netip.Addr{shared, shared6} {
		t.Run(address.String(), func(t *testing.T) {
			const closed = 9
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1, "ip", address.String(), "linger", "10")
			check(t, s.startOn(0, 0))
			check(t, s.Client.Resolve(t.Context(), lan.NIC, address))
			source := s.SourcesLike(address, 1)[0]
			connect := func(from, to uint16) error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				conn, err := s.Client.Dial(ctx, netip.AddrPortFrom(source, from), netip.AddrPortFrom(address, to))
				if err == nil {
					_ = conn.Close()
				}
				return err
			}
			if err := connect(30000, closed); !errors.Is(err, unix.ECONNREFUSED) {
				t.Fatalf("a closed port of an owned bucket: %v", err)
			}
			check(t, s.stop(0))
			check(t, connect(30001, lan.EchoPort))
			if err := connect(30002, closed); err == nil || errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a closed port of a bucket that lingers: %v, want no answer", err)
			}
			check(t, connect(30003, lan.EchoPort))
		})
	}
}
