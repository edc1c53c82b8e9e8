//go:build system

package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// slowPort is the port of a server that does only what the test makes it do.
const slowPort = 8080

// accepted is a connection to such a server.
type accepted struct{ server, client *net.TCPConn }

// accept connects clients to a node whose program does nothing by itself.
func (s *site) accept(t *testing.T, node int, target netip.Addr, count int) []accepted {
	t.Helper()
	host := s.Nodes[node]
	var listener net.Listener
	check(t, host.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", slowPort)) //nolint:noctx // it ends with the test
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	var all []accepted
	for _, source := range s.SourcesLike(target, count) {
		client, err := s.Client.Dial(t.Context(), netip.AddrPortFrom(source, 0), netip.AddrPortFrom(target, slowPort))
		check(t, err)
		t.Cleanup(func() { client.Close() })
		server, err := listener.Accept()
		check(t, err)
		t.Cleanup(func() { server.Close() })
		all = append(all, accepted{server.(*net.TCPConn), client})
	}
	return all
}

// A server that wants to see a client's first data before it accepts a connection, as Apache httpd does, has no connected socket until
// then.
func TestAConnectionThatWaitsForDataSurvivesAMove(t *testing.T) {
	const count, buckets = 8, 2
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, buckets)
	check(t, s.startAll(0, 0))
	deferring := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		const seconds = 60
		controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds) })
		return errors.Join(err, controlErr)
	}}
	var listener net.Listener
	check(t, s.Nodes[0].Do(func() (err error) {
		listener, err = deferring.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", slowPort))
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	var clients []net.Conn
	for _, source := range s.Sources(count) {
		client, err := s.Client.Dial(t.Context(), netip.AddrPortFrom(source, 0), netip.AddrPortFrom(shared, slowPort))
		check(t, err)
		t.Cleanup(func() { client.Close() })
		clients = append(clients, client)
	}
	for bucket := range buckets {
		check(t, s.move(bucket, 1))
	}
	time.Sleep(3 * time.Second) // longer than the sweeper's first pauses
	check(t, listener.(*net.TCPListener).SetDeadline(time.Now().Add(testTimeout)))
	for i, client := range clients {
		if _, err := io.WriteString(client, "x"); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { server.Close() })
		if err := send(server, client); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// send sends a word over a connection.
func send(from, to net.Conn) error {
	const word = "still there?"
	if _, err := io.WriteString(from, word); err != nil {
		return err
	}
	if err := to.SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
		return err
	}
	heard := make([]byte, len(word))
	_, err := io.ReadFull(to, heard)
	return err
}

// shortenTimeouts makes conntrack entries expire two seconds after their last packet. With loose "0", conntrack makes no entry in
// the middle of a connection.
func (s *site) shortenTimeouts(t *testing.T, loose string) {
	t.Helper()
	for _, node := range s.Nodes {
		check(t, node.Sysctl("net/netfilter/nf_conntrack_tcp_loose", loose))
		for _, state := range []string{"established", "fin_wait", "close_wait"} {
			check(t, node.Sysctl("net/netfilter/nf_conntrack_tcp_timeout_"+state, "2"))
		}
	}
}

// Conntrack removes entries of connections that are idle for a time, or closed on one side. The node that has their sockets keeps serving
// them.
func TestQuietConnectionsSurviveAMove(t *testing.T) {
	client := func(a accepted) (from, to net.Conn) { return a.client, a.server }
	server := func(a accepted) (from, to net.Conn) { return a.server, a.client }
	closesClient := func(a accepted) error { return a.client.CloseWrite() }
	closesServer := func(a accepted) error { return a.server.CloseWrite() }
	neitherCloses := func(accepted) error { return nil }
	for name, row := range map[string]struct {
		address netip.Addr
		loose   string // nf_conntrack_tcp_loose
		closes  func(accepted) error
		sends   func(accepted) (from, to net.Conn)
		inGuest bool
	}{
		"half closed by the client":                           {shared, "1", closesClient, server, false},
		"half closed by the client, and nothing is taken up":  {shared, "0", closesClient, server, true},
		"half closed by the client, IPv6":                     {shared6, "1", closesClient, server, false},
		"half closed by the server":                           {shared, "1", closesServer, client, false},
		"idle, and the client sends":                          {shared, "1", neitherCloses, client, false},
		"idle, and the client sends, IPv6":                    {shared6, "1", neitherCloses, client, true},
		"idle, and the server sends, and nothing is taken up": {shared, "0", neitherCloses, server, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if row.inGuest {
				inGuest(t, "data-path")
			}
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1, "ip", row.address.String())
			clean := s.dumps(t)
			s.shortenTimeouts(t, row.loose)
			check(t, s.startOn(0, 0))
			check(t, status(s.agents[0].monitor(0), ocf.Success)) // which finds that no other node serves the bucket
			connections := s.accept(t, 0, row.address, 4)
			for i, c := range connections {
				check(t, send(c.client, c.server))
				check(t, row.closes(c))
				if i%2 == 0 {
					time.Sleep(2 * time.Second) // these have no conntrack entry any more when the bucket moves
				}
			}
			check(t, s.move(0, 1))
			for round := range 3 {
				time.Sleep(6 * time.Second) // several looks of the sweeper, and longer than conntrack remembers
				check(t, status(s.agents[1].monitor(0), ocf.Success))
				for i, c := range connections {
					from, to := row.sends(c)
					if err := send(from, to); err != nil {
						t.Errorf("round %d, connection %d: %v", round+1, i, err)
					}
				}
			}
			for _, c := range connections {
				check(t, errors.Join(c.client.Close(), c.server.Close()))
			}
			eventually(t, "the sweeper clears up", func() error { return s.isClean(0, clean[0]) })
		})
	}
}

// The bucket comes back, and the node in between drains: an unknown connection counts as that node's. The new owner still
// recognises its own older connections, however idle they are.
func TestQuietConnectionsSurviveAReturn(t *testing.T) {
	t.Parallel()
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
	s.shortenTimeouts(t, "1")
	check(t, s.startOn(0, 0))
	quiet := s.accept(t, 0, shared, 4)
	check(t, s.move(0, 1))
	between := s.accept(t, 1, shared, 4)
	check(t, s.move(0, 0))
	for round := range 3 {
		time.Sleep(4 * time.Second) // longer than conntrack remembers
		check(t, status(s.agents[0].monitor(0), ocf.Success))
		for i, c := range slices.Concat(quiet, between) {
			if err := send(c.client, c.server); err != nil {
				t.Errorf("round %d, connection %d: %v", round+1, i, err)
			}
		}
	}
}

// trackedOn returns the conntrack entries of connections with the shared address on a node: SOURCE:PORT of the client, and the bucket.
func (s *site) trackedOn(t *testing.T, node int) map[string]int {
	t.Helper()
	var flows []*netlink.ConntrackFlow
	check(t, s.Nodes[node].Do(func() (err error) {
		flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		return err
	}))
	known := map[string]int{}
	for _, f := range flows {
		tuple := f.Forward
		if shared.String() == tuple.SrcIP.String() {
			tuple = f.Reverse
		}
		if source, _ := netip.AddrFromSlice(tuple.SrcIP); shared.String() == tuple.DstIP.String() && tuple.Protocol == unix.IPPROTO_TCP {
			flow := lan.Flow{Proto: lan.TCP, Src: source.Unmap(), Dst: shared, SrcPort: tuple.SrcPort, DstPort: tuple.DstPort}
			known[netip.AddrPortFrom(flow.Src, flow.SrcPort).String()] = s.bucket(flow)
		}
	}
	return known
}

// However a drain ends, nothing is left of the bucket's connections: an entry of conntrack's that outlives them would make the client's
// next one, from the same port, look like a connection of this node when the bucket comes back. Those of other buckets stay.
func TestConnectionsEndWithTheirDrain(t *testing.T) {
	const ended, owned = 0, 1
	for name, row := range map[string]struct {
		drain string
		end   func(t *testing.T, s *site, sessions []*session)
	}{
		"the sweeper ends it": {"600", func(_ *testing.T, s *site, sessions []*session) {
			closeAll(slices.DeleteFunc(slices.Clone(sessions), func(c *session) bool { return s.bucket(c.flow) != ended }))
		}},
		"its time is over, and the sweeper clears up": {"3", func(*testing.T, *site, []*session) {}},
		"its time is over, and a monitor clears up": {"3", func(t *testing.T, s *site, _ []*session) {
			killSweeper(t, s.agents[0])
			time.Sleep(3100 * time.Millisecond) // the drain itself: the kernel ends it
			check(t, status(s.agents[0].monitor(ended), ocf.NotRunning))
		}},
		"all is stopped, without a drain": {"600", func(t *testing.T, s *site, _ []*session) {
			check(t, status(s.agents[0].call("start", ended), ocf.Success))
			check(t, status(s.agents[0].call("stop", ended, "OCF_RESKEY_drain=0"), ocf.Success))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "the sweeper ends it" {
				inGuest(t, "data-path")
			}
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2, "drain", row.drain)
			check(t, s.startAll(0, 0))
			sessions := s.open(t, shared, 30000, 32)
			before := s.trackedOn(t, 0)
			check(t, s.stop(ended))
			row.end(t, s, sessions)
			eventually(t, "the conntrack entries expire", func() error {
				var faults []error
				after := s.trackedOn(t, 0)
				for client, bucket := range before {
					if _, known := after[client]; known != (bucket == owned) {
						faults = append(faults, fmt.Errorf("connection of %s, bucket %d: known %t", client, bucket, known))
					}
				}
				return errors.Join(faults...)
			})
			check(t, s.Nodes[0].Do(func() error {
				for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // a socket for IPv6 may have IPv4 clients
					left, err := netlink.SocketDiagTCP(family)
					check(t, err)
					for _, socket := range left {
						local, _ := netip.AddrFromSlice(socket.ID.Source)
						client, _ := netip.AddrFromSlice(socket.ID.Destination)
						isOpen := slices.Contains([]uint8{netlink.TCP_ESTABLISHED, netlink.TCP_CLOSE_WAIT, netlink.TCP_FIN_WAIT1}, socket.State)
						if local.Unmap() != shared || !isOpen {
							continue
						}
						flow := lan.Flow{Proto: lan.TCP, Src: client.Unmap(), SrcPort: socket.ID.DestinationPort, DstPort: lan.EchoPort}
						if s.bucket(flow) == ended {
							t.Errorf("a socket is connected to %s, of bucket %d", client, ended)
						}
					}
				}
				return nil
			}))
		})
	}
}

// A client whose SYN-ACK was lost repeats its SYN while its bucket moves: only the new owner answers it, and the old owner's SYN-ACK is
// not repeated. (Else the client may take one, and be reset by the other node.)
func TestAConnectionIsMadeWhileItsBucketMoves(t *testing.T) {
	for name, address := range map[string]netip.Addr{"IPv4": shared, "IPv6": shared6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if address == shared {
				inGuest(t, "data-path")
			}
			// While it lingers, node1 answers after the stop, too.
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1, "ip", address.String(), "linger", "0")
			check(t, s.startOn(0, 0))
			check(t, s.Client.Resolve(t.Context(), lan.NIC, address))
			warm := s.open(t, address, 29999, 4) // so that the nodes have resolved the way back
			clientAddr := s.Client.Addr
			if address.Is6() {
				clientAddr = s.Client.Addr6
			}
			for _, h := range s.Nodes {
				check(t, h.Resolve(t.Context(), lan.NIC, clientAddr))
			}
			answers := fmt.Sprintf("tcp sport %d tcp flags & (syn | ack) == (syn | ack)", lan.EchoPort)
			nft(t, s.Client, "table inet lossy { chain in { type filter hook prerouting priority -400; "+answers+" counter drop; }; }")
			for _, h := range s.Nodes {
				nft(t, h, "table inet answers { chain out { type filter hook output priority 400; "+answers+" counter; }; }")
			}
			answered := func(node int) string {
				r := s.Nodes[node].Run(t.Context(), lan.ToolPath, "nft", "list", "table", "inet", "answers")
				_, after, _ := strings.Cut(r.Stdout, "packets ")
				count, _, _ := strings.Cut(after, " ")
				return count
			}
			const count = 16
			sessions := make([]*session, count)
			opened := make(chan error, count)
			for i, source := range s.SourcesLike(address, count) {
				sessions[i] = &session{flow: lan.Flow{Proto: lan.TCP, Src: source, Dst: address, SrcPort: 30000, DstPort: lan.EchoPort}}
				go func() { opened <- sessions[i].open(t.Context(), s.Client) }()
			}
			t.Cleanup(func() { closeAll(sessions) })
			eventually(t, "node1 answers", func() error {
				if heard := answered(0); heard == "0" || heard == "" {
					return errors.New("it does not")
				}
				return nil
			})
			check(t, s.stop(0))
			before := answered(0)
			check(t, s.startOn(1, 0))
			time.Sleep(150 * time.Millisecond)
			nft(t, s.Client, "delete table inet lossy")
			for range count {
				if err := <-opened; err != nil {
					t.Error(err)
				}
			}
			if t.Failed() {
				t.FailNow()
			}
			kept(t, "made meanwhile", sessions)
			kept(t, "made before", warm)
			time.Sleep(2 * time.Second) // a SYN-ACK would be repeated
			kept(t, "made meanwhile", sessions)
			if after := answered(0); after != before {
				t.Errorf("node1 has sent %s SYN-ACKs when it had given the bucket up, and then %s", before, after)
			}
		})
	}
}

// Clients come all the while that a bucket moves to and fro: each is served by one node, from its first packet to its last.
func TestConnectionsAreMadeWhileBucketsMove(t *testing.T) {
	t.Parallel()
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
	check(t, s.startOn(0, 0))
	s.open(t, shared, 29999, 4)
	stop := make(chan struct{})
	result := make(chan error)
	sources := s.Sources(64)
	begin := func(i int) {
		c := &session{
			flow: lan.Flow{Proto: lan.TCP, Src: sources[i%len(sources)], Dst: shared, SrcPort: uint16(30000 + i), DstPort: lan.EchoPort},
		}
		err := c.open(t.Context(), s.Client)
		for range 3 {
			if err == nil {
				time.Sleep(500 * time.Millisecond)
				err = c.ask()
			}
		}
		if c.conn != nil {
			err = errors.Join(err, c.conn.Close())
		}
		result <- err
	}
	made := make(chan int)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				made <- i
				return
			case <-time.After(3 * time.Millisecond):
				go begin(i)
			}
		}
	}()
	moved := make(chan error)
	go func() {
		var err error
		for round := range 6 {
			err = errors.Join(err, s.move(0, (round+1)%2), status(s.agents[(round+1)%2].monitor(0), ocf.Success))
			time.Sleep(300 * time.Millisecond)
		}
		close(stop)
		moved <- err
	}()
	count, ended := -1, 0
	for ended != count {
		select {
		case count = <-made:
		case err := <-result:
			ended++
			if err != nil {
				t.Error(err)
			}
		case err := <-moved:
			check(t, err)
		}
	}
	t.Logf("%d connections", count)
}

// killSweeper ends the sweeper that the agent has started on its node.
func killSweeper(t *testing.T, a *agent) {
	t.Helper()
	pid := 0
	eventually(t, "a sweeper runs", func() (err error) {
		pid, err = sweeper(a)
		return err
	})
	if t.Failed() {
		return
	}
	check(t, unix.Kill(pid, unix.SIGKILL))
	eventually(t, "the sweeper is dead", func() error {
		if _, err := sweeper(a); err == nil {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// sweeper is the id of the process that sweeps on the agent's node. Its lock may still name one that was killed before: by an id of a
// namespace of its own, which some other process has out here.
func sweeper(a *agent) (int, error) {
	return a.holderOf(filepath.Join(a.TempDir, "clusterip-"+shared.String()+".sweeper.lock"))
}

// endBackground ends the sweepers and tellers that still work when a test ends. They would make files in its folder.
func (a *agent) endBackground() {
	const tries, pause = 200, 10 * time.Millisecond
	for range tries {
		running := a.background()
		for _, pid := range running {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if len(running) == 0 {
			return
		}
		time.Sleep(pause)
	}
}

// background is the ids of the sweepers and tellers that work. One that was just started has no lock yet, so they are found by their
// environment.
func (a *agent) background() []int {
	var running []int
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environments {
		environment, err := os.ReadFile(name)
		if err != nil || !a.isMine(environment) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			running = append(running, pid)
		}
	}
	return running
}

// checkNoFiles expects that nothing is left in the agent's folder, as soon as no sweeper and no teller works, which remove theirs.
func (a *agent) checkNoFiles(t *testing.T, where string) {
	t.Helper()
	eventually(t, where+": all processes in the background have ended", func() error {
		if running := a.background(); len(running) > 0 {
			return fmt.Errorf("%d work", running)
		}
		return nil
	})
	if files, err := os.ReadDir(a.TempDir); err != nil && !os.IsNotExist(err) || len(files) > 0 {
		t.Errorf("%s: files are left: %v %v", where, files, err)
	}
}

// isMine reports whether a process with that environment is one of the agent's.
func (a *agent) isMine(environment []byte) bool {
	return slices.Contains(strings.Split(string(environment), "\x00"), "HA_RSCTMP="+a.TempDir)
}

// holderOf is the agent's process that holds a lock.
func (a *agent) holderOf(lock string) (int, error) {
	text, err := os.ReadFile(lock)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, err
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return 0, err
	}
	if !a.isMine(environment) {
		return 0, fmt.Errorf("process %d is no sweeper of %s", pid, a.Host.Name)
	}
	return pid, nil
}

// A move waits for clients that answer a SYN-ACK slowly, both for programs on the node and for those behind address translation.
func TestClientsThatAnswerLateKeepTheirConnection(t *testing.T) {
	for _, row := range []struct {
		name string
		dnat bool
	}{{"a program here", false}, {"behind address translation", true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
			if row.dnat {
				for i, h := range s.Nodes {
					check(t, h.AddAddress("lo", netip.MustParsePrefix(fmt.Sprintf("10.99.0.%d/32", i+1))))
					nft(
						t,
						h,
						fmt.Sprintf(
							"table ip svc { chain pre { type nat hook prerouting priority -100; ip daddr %s tcp dport %d dnat to 10.99.0.%d; }; }",
							shared,
							lan.EchoPort,
							i+1,
						),
					)
				}
			}
			check(t, s.startOn(0, 0))
			check(t, status(s.agents[0].monitor(0), ocf.Success))
			check(t, s.Client.Resolve(t.Context(), lan.NIC, shared))
			nft(
				t,
				s.Client,
				fmt.Sprintf(
					"table inet slow { chain out { type filter hook output priority 0; tcp dport %d tcp flags & syn == 0 drop; }; }",
					lan.EchoPort,
				),
			)
			const count = 16
			opened, connected := make(chan error, count), make(chan error, count)
			for i, source := range s.SourcesLike(shared, count) {
				go func() {
					conn, err := s.Client.Dial(t.Context(), netip.AddrPortFrom(source, uint16(30000+i)), netip.AddrPortFrom(shared, lan.EchoPort))
					connected <- err
					if err == nil {
						defer conn.Close()
						if err = conn.SetDeadline(time.Now().Add(testTimeout)); err == nil {
							_, err = io.WriteString(conn, "x") // the kernel repeats it soon, and the ACK with it
						}
						if err == nil {
							_, err = io.ReadFull(conn, make([]byte, len("node1\nx")))
						}
					}
					opened <- err
				}()
			}
			for range count {
				check(t, <-connected)
			}
			stopped := make(chan error)
			go func() { stopped <- s.stop(0) }()
			eventually(t, "the bucket is released", func() error {
				if !s.holds(t, 0, 0, "draining") {
					return errors.New("it is not")
				}
				return nil
			})
			nft(t, s.Client, "delete table inet slow")
			check(t, <-stopped)
			check(t, s.startOn(1, 0))
			check(t, status(s.agents[1].monitor(0), ocf.Success))
			for range count {
				if err := <-opened; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Where conntrack has lost the entries of incomplete handshakes (its table was full, or flushed), the sockets are closed all the same.
func TestIncompleteHandshakesWithoutConntrack(t *testing.T) {
	t.Parallel()
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
	check(t, s.startOn(0, 0))
	check(t, status(s.agents[0].monitor(0), ocf.Success))
	check(t, s.Client.Resolve(t.Context(), lan.NIC, shared))
	s.open(t, shared, 29999, 4) // nodes and client have each other's MAC
	nft(
		t,
		s.Client,
		fmt.Sprintf(
			"table inet lossy { chain in { type filter hook prerouting priority -400; "+
				"tcp sport %d tcp flags & (syn | ack) == (syn | ack) counter drop; }; }",
			lan.EchoPort,
		),
	)
	const count = 16
	opened := make(chan error, count)
	for i, source := range s.SourcesLike(shared, count) {
		c := &session{flow: lan.Flow{Proto: lan.TCP, Src: source, Dst: shared, SrcPort: uint16(30000 + i), DstPort: lan.EchoPort}}
		go func() {
			err := c.open(t.Context(), s.Client)
			if err == nil {
				err = c.ask()
			}
			opened <- err
		}()
	}
	eventually(t, "node1 answers all", func() error {
		if r := s.Client.Run(t.Context(), lan.ToolPath, "nft", "list", "table", "inet", "lossy"); !strings.Contains(
			r.Stdout,
			fmt.Sprintf("packets %d ", count),
		) {
			return errors.New(r.Stdout)
		}
		return nil
	})
	check(t, s.Nodes[0].Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	check(t, s.move(0, 1))
	nft(t, s.Client, "delete table inet lossy")
	for range count {
		if err := <-opened; err != nil {
			t.Error(err)
		}
	}
}

// What talks to the address from behind another interface of the node, a container for example, is in no bucket.
func TestConnectionsFromBehindAnotherInterfaceAreLeftAlone(t *testing.T) {
	t.Parallel()
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2)
	box, err := s.NewHost("box")
	check(t, err)
	node := s.Nodes[0]
	check(t, errors.Join(
		node.Wire(netlink.LinkAttrs{Name: "docker0", MTU: 1500}, box, "eth0", net.HardwareAddr{2, 0, 0, 9, 9, 9}),
		node.AddAddress("docker0", netip.MustParsePrefix("172.31.0.1/24")),
		box.AddAddress("eth0", netip.MustParsePrefix("172.31.0.2/24")),
		node.SetUp("docker0"),
		box.SetUp("eth0"),
		box.Run(t.Context(), lan.ToolPath, "ip", "route", "add", "default", "via", "172.31.0.1").Failure(),
	))
	check(t, s.startAll(0, 0))
	from := netip.MustParseAddrPort("172.31.0.2:33333")
	c := &session{flow: lan.Flow{Proto: lan.TCP, Src: from.Addr(), Dst: shared, SrcPort: from.Port(), DstPort: lan.EchoPort}}
	check(t, c.open(t.Context(), box))
	t.Cleanup(func() { c.conn.Close() })
	bucket := s.bucket(c.flow)
	check(t, s.stop(bucket))
	eventually(t, "the drain ends", func() error { // nothing of the bucket is served
		if s.holds(t, 0, bucket, "draining") {
			return errors.New("it goes on")
		}
		return nil
	})
	check(t, c.ask())
}

// A bucket whose tables were damaged is stopped and started in place. Its connections survive that.
func TestConnectionsSurviveARepair(t *testing.T) {
	t.Parallel()
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2)
	check(t, s.startAll(0, 0))
	check(t, s.monitorAll())
	sessions := s.open(t, shared, 30000, 16)
	nft(t, s.Nodes[0], "flush chain netdev "+ourTable+" ipv4")
	for bucket := range 2 {
		check(t, status(s.agents[0].monitor(bucket), ocf.ErrGeneric))
	}
	for bucket := range 2 {
		check(t, status(s.agents[0].stop(bucket), ocf.Success))
		check(t, status(s.agents[0].start(bucket), ocf.Success))
		check(t, status(s.agents[0].monitor(bucket), ocf.Success))
	}
	kept(t, "restarted", sessions)
}
