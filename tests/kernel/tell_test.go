//go:build system

package kernel

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// hear waits for what comes from the server without sending anything, not even TCP's keep-alives.
func hear(sessions []*session) []error {
	errs := make([]error, len(sessions))
	var all sync.WaitGroup
	for i, c := range sessions {
		all.Go(func() {
			errs[i] = errors.Join(c.conn.(*net.TCPConn).SetKeepAlive(false), c.conn.SetDeadline(time.Now().Add(testTimeout)))
			if errs[i] == nil {
				_, errs[i] = c.reader.ReadByte()
			}
		})
	}
	all.Wait()
	return errs
}

// toldOf expects that each connection gets a reset although its client sends nothing.
func toldOf(t *testing.T, what string, sessions []*session) {
	t.Helper()
	missing := 0
	for i, err := range hear(sessions) {
		if !errors.Is(err, unix.ECONNRESET) {
			if missing++; missing <= 3 {
				t.Errorf("%s: connection from %s to %s: %v, want a reset", what, sessions[i].flow.Src, sessions[i].node, err)
			}
		}
	}
	t.Logf("%s: %d of %d clients were told", what, len(sessions)-missing, len(sessions))
}

// byNode parts connections: those to the first node, and the others.
func (s *site) byNode(sessions []*session) (there, elsewhere []*session) {
	for _, c := range sessions {
		if c.node == s.Nodes[0].Name {
			there = append(there, c)
		} else {
			elsewhere = append(elsewhere, c)
		}
	}
	return there, elsewhere
}

// crash takes the first node off the LAN for good, and starts its buckets on the others.
func (s *site) crash(t *testing.T, cluster attributes, drains bool) {
	t.Helper()
	const node = 0
	check(t, s.UnplugNode(node, lan.NIC))
	cluster.lose(t, s.Nodes[node], isFenced)
	for bucket, at := range s.at {
		if at != node {
			continue
		}
		next := 1 + bucket%(len(s.Nodes)-1)
		check(t, s.startOn(next, bucket))
		if drains {
			check(t, status(s.agents[next].monitor(bucket), ocf.Success))
		}
	}
}

// A client that waits for an answer of a node that has died is told so, and nobody else. Only early drop remembers clients, so the rows set
// it: `make kernel EARLY_DROP=off` changes its default.
func TestWaitingClientsAreTold(t *testing.T) {
	const buckets, count = 6, 48
	for name, p := range map[string][]string{
		"IPv4, multicast":     {"early_drop", "tc"},
		"IPv4, unicast":       {"mac_mode", "unicast", "hashmode", "sourceip-sourceport", "drain", "0", "early_drop", "auto"},
		"IPv6, igmp":          {"ip", shared6.String(), "mac_mode", "igmp", "hashmode", "sourceip-sourceport-destport", "early_drop", "auto"},
		"IPv6, without drain": {"ip", shared6.String(), "drain", "0", "early_drop", "tc"},
		"dual stack":          {"ip", dualStack, "hash_compat", "clusterip", "early_drop", "auto"},
		"IPv4, services":      {"services", "tcp/7,tcp/80", "drain", "0", "early_drop", "auto"},
		"a slow rate":         {"tell_rate", "100", "drain", "0", "early_drop", "auto"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "IPv4, multicast" {
				inGuest(t, "data-path")
			}
			s, cluster := newDrainingSite(t, lan.Options{}, buckets, p...)
			check(t, s.startAll(0, 1, 2, 0, 1, 2))
			var waiting, others []*session
			for i, target := range s.spec.Addresses {
				all := s.open(t, target, uint16(30000+i), count)
				dead, living := s.byNode(all)
				if len(dead) == 0 || len(living) == 0 {
					t.Fatalf("%d connections to node1, %d to others", len(dead), len(living))
				}
				waiting, others = append(waiting, dead...), append(others, living...)
			}
			s.crash(t, cluster, s.spec.Drain > 0)
			toldOf(t, "node1 has crashed", waiting)
			kept(t, "of the other nodes", others)
		})
	}
}

// A firewall on the way that lets nothing pass which does not fit a connection, or translates addresses, does not keep clients from being
// told.
func TestClientsBehindAFirewallAreTold(t *testing.T) {
	const count = 24
	for name, rules := range map[string]string{
		"firewall": `table inet firewall { chain forward { type filter hook forward priority 0;
			ct state invalid drop
		}
		}`,
		"address translation": `table ip firewall { chain post { type nat hook postrouting priority 100;
			oifname "eth0" masquerade
		}
		}`,
	} {
		t.Run(name, func(t *testing.T) {
			if name == "firewall" { // the guests' kernels have no masquerade
				inGuest(t, "data-path")
			}
			s, cluster := newDrainingSite(t, lan.Options{}, 6, "hashmode", "sourceip-sourceport", "drain", "0", "early_drop", "tc")
			check(t, s.AddRouter(t.Context(), 1500))
			nft(t, s.Router, rules)
			check(t, s.startAll(0, 1, 2, 0, 1, 2))
			var all []*session
			for i := range count {
				c := &session{flow: lan.Flow{
					Proto: lan.TCP, Src: s.Far.Addr, Dst: shared, SrcPort: uint16(30000 + 7*i), DstPort: lan.EchoPort,
				}}
				check(t, c.open(t.Context(), s.Far))
				all = append(all, c)
			}
			t.Cleanup(func() { closeAll(all) })
			waiting, others := s.byNode(all)
			kept(t, "before the crash", waiting[:len(waiting)/2]) // what these got is part of the numbers
			s.crash(t, cluster, false)
			toldOf(t, "node1 has crashed", waiting)
			kept(t, "of the other nodes", others)
		})
	}
}

// tickles counts the segments by which clients were told, by the client's port: acknowledgments of no window.
func tickles(frames []lan.Frame) map[uint16]map[netip.Addr]int {
	counts := map[uint16]map[netip.Addr]int{}
	for _, f := range frames {
		header, payload, ok := f.IPv4()
		if !ok || header.Protocol != unix.IPPROTO_TCP || len(payload) < 20 || payload[13] != 0x10 || payload[14] != 0 || payload[15] != 0 {
			continue
		}
		to, _ := netip.AddrFromSlice(header.Dst.To4())
		port := binary.BigEndian.Uint16(payload[2:])
		if counts[port] == nil {
			counts[port] = map[netip.Addr]int{}
		}
		counts[port][to]++
	}
	return counts
}

// Connections that have ended are not told of. Who comes again from the same port is not told again. Nobody minds a client that is gone.
func TestWhoIsTold(t *testing.T) {
	const count = 8
	s, cluster := newDrainingSite(t, lan.Options{Nodes: 2}, 2, "drain", "0", "early_drop", "auto")
	check(t, s.startAll(0, 1)) // a node without a bucket hears of nothing
	var kinds [5][]*session
	const closed, aborted, gone, waiting, returning = 0, 1, 2, 3, 4
	port := func(kind int) uint16 { return uint16(31000 + kind) }
	for kind := range kinds {
		kinds[kind], _ = s.byNode(s.open(t, shared, port(kind), 2*count))
	}
	for _, c := range kinds[aborted] {
		check(t, c.conn.(*net.TCPConn).SetLinger(0))
	}
	closeAll(kinds[closed])
	closeAll(kinds[aborted])
	nft(t, s.Client, fmt.Sprintf(`table inet gone {
		chain in { type filter hook input priority -10; tcp dport %d drop; }
	}`, port(gone)))
	seen := capture(t, s.Client, lan.NIC, func(f lan.Frame) bool { _, _, ok := f.IPv4(); return ok })
	s.crash(t, cluster, false)
	toldOf(t, "node1 has crashed, waiting", kinds[waiting])
	toldOf(t, "node1 has crashed, returning", kinds[returning])
	told := time.Now()
	closeAll(kinds[returning])
	var again []*session
	for _, c := range kinds[returning] {
		made := &session{flow: c.flow}
		check(t, made.open(t.Context(), s.Client))
		again = append(again, made)
	}
	t.Cleanup(func() { closeAll(again) })
	const secondRound = time.Second
	inTime := time.Since(told) < secondRound/2
	eventually(t, "the second round", func() error {
		if n := len(tickles(seen.Frames())[port(waiting)]); n < len(kinds[waiting]) {
			return fmt.Errorf("%d clients", n)
		}
		for _, n := range tickles(seen.Frames())[port(waiting)] {
			if n < 2 {
				return errors.New("not all clients were told again")
			}
		}
		return nil
	})
	kept(t, "made again", again)
	counts := tickles(captured(t, seen))
	for kind, want := range []int{closed: 0, aborted: 0, gone: 2, waiting: 2, returning: 1} {
		for _, c := range kinds[kind] {
			if got := counts[port(kind)][c.flow.Src]; got != want && (kind != returning || inTime) {
				t.Errorf("the client at %s port %d was told %d times, want %d", c.flow.Src, port(kind), got, want)
			}
		}
	}
}

var (
	floodSeconds = flag.Int("flood-seconds", 3, "how long TestTheMemoryWithstandsAFlood sends SYNs from ever other sources")
	floodRate    = flag.Int("flood-rate", 20_000, "how many a second")
)

// A flood of SYNs pushes nothing out of the memory: clients that were there before are told.
func TestTheMemoryWithstandsAFlood(t *testing.T) {
	for _, early := range attachments(t) {
		t.Run(string(early), func(t *testing.T) {
			s, cluster := newDrainingSite(t, lan.Options{}, 6, "drain", "0", "early_drop", string(early), "remember", "1024")
			check(t, s.startAll(0, 1, 2, 0, 1, 2))
			before, _ := s.byNode(s.open(t, shared, 30000, 48))
			stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			check(t, err)
			defer stats.Close()
			var sending sync.WaitGroup
			var sent [2]int // on two processors
			var errs [len(sent)]error
			begin := time.Now()
			for i := range sent {
				sending.Go(func() {
					sent[i], errs[i] = s.flood(shared, byte(200+i), *floodRate/len(sent), time.Duration(*floodSeconds)*time.Second)
				})
			}
			time.Sleep(time.Second)
			during, _ := s.byNode(s.open(t, shared, 31000, 48))
			sending.Wait()
			check(t, errors.Join(errs[:]...))
			t.Logf("%d SYNs in %s", sent[0]+sent[1], time.Since(begin).Round(time.Millisecond))
			programs := attached(t, s.Nodes[1])
			program := openProgram(t, append(programs.XDP, programs.TC...)[0])
			figures, err := program.Stats()
			check(t, err)
			t.Logf("node2's program ran %d times, %.0f ns each", figures.RunCount, float64(figures.Runtime)/float64(figures.RunCount))
			connections := earlyMap(t, s.Nodes[1], "clusterip_conns")
			bytes, _ := mapInfo(t, connections).Memlock()
			t.Logf("memory for %d connections: %d bytes, %d each", connections.MaxEntries(), bytes, bytes/uint64(connections.MaxEntries()))
			s.crash(t, cluster, false)
			toldOf(t, "before the flood", before)
			told := 0
			for _, err := range hear(during) {
				if errors.Is(err, unix.ECONNRESET) {
					told++
				}
			}
			t.Logf("of %d connections that were made during the flood %d clients were told", len(during), told)
		})
	}
}

func mapInfo(t *testing.T, m *ebpf.Map) *ebpf.MapInfo {
	t.Helper()
	info, err := m.Info()
	check(t, err)
	return info
}

// flood sends SYNs from the client's interface, from sources that are nobody's. Their TCP checksum is wrong, so no TCP answers them.
func (s *site) flood(target netip.Addr, network byte, eachSecond int, long time.Duration) (sent int, err error) {
	err = s.Client.Do(func() error {
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(socket) }()
		nic, err := net.InterfaceByName(lan.NIC)
		if err != nil {
			return err
		}
		to := &unix.SockaddrLinklayer{Ifindex: nic.Index}
		mac := s.spec.MACs.Of(target)
		ethernet := append(append(mac[:], s.Client.MAC...), 0x08, 0x00)
		header := ipv4.Header{Protocol: unix.IPPROTO_TCP, TTL: 64, Src: make([]byte, 4), Dst: target.AsSlice()}
		segment := make([]byte, 20)
		binary.BigEndian.PutUint16(segment[2:], lan.EchoPort)
		segment[12], segment[13] = 5<<4, 0x02
		for begin := time.Now(); time.Since(begin) < long; {
			if ahead := time.Duration(sent)*time.Second/time.Duration(eachSecond) - time.Since(begin); ahead > time.Millisecond {
				time.Sleep(ahead)
			}
			binary.BigEndian.PutUint32(header.Src, uint32(network)<<24|uint32(sent)&0xffffff)
			binary.BigEndian.PutUint16(segment, uint16(1024+sent>>8))
			if err := unix.Sendto(socket, slices.Concat(ethernet, packetOf(header, segment)), 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
			sent++
		}
		return nil
	})
	return sent, err
}
