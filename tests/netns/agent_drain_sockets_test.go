//go:build system

package netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
)

// slowPort is that of a server that does what the test tells it.
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

// say sends a word over a connection.
func say(from, to net.Conn) error {
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

// forgetful makes conntrack forget connections two seconds after their last packet, and take up none in the middle if loose is "0".
func (s *site) forgetful(t *testing.T, loose string) {
	t.Helper()
	for _, node := range s.Nodes {
		check(t, node.Sysctl("net/netfilter/nf_conntrack_tcp_loose", loose))
		for _, state := range []string{"established", "fin_wait", "close_wait"} {
			check(t, node.Sysctl("net/netfilter/nf_conntrack_tcp_timeout_"+state, "2"))
		}
	}
}

// Conntrack forgets connections on which nothing is said for a time, or of which one side is closed. The node that has their sockets goes
// on serving them.
func TestQuietConnectionsSurviveAMove(t *testing.T) {
	client := func(a accepted) (from, to net.Conn) { return a.client, a.server }
	server := func(a accepted) (from, to net.Conn) { return a.server, a.client }
	closesClient := func(a accepted) error { return a.client.CloseWrite() }
	closesServer := func(a accepted) error { return a.server.CloseWrite() }
	nobodyCloses := func(accepted) error { return nil }
	for name, row := range map[string]struct {
		address netip.Addr
		loose   string // nf_conntrack_tcp_loose
		closes  func(accepted) error
		speaks  func(accepted) (from, to net.Conn)
	}{
		"half closed by the client":                            {shared, "1", closesClient, server},
		"half closed by the client, and nothing is taken up":   {shared, "0", closesClient, server},
		"half closed by the client, IPv6":                      {shared6, "1", closesClient, server},
		"half closed by the server":                            {shared, "1", closesServer, client},
		"idle, and the client speaks":                          {shared, "1", nobodyCloses, client},
		"idle, and the client speaks, IPv6":                    {shared6, "1", nobodyCloses, client},
		"idle, and the server speaks, and nothing is taken up": {shared, "0", nobodyCloses, server},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newDrainingSite(t, Options{Nodes: 2}, 1, "ip", row.address.String())
			clean := s.dumps(t)
			s.forgetful(t, row.loose)
			check(t, s.startOn(0, 0))
			connections := s.accept(t, 0, row.address, 4)
			for i, c := range connections {
				check(t, say(c.client, c.server))
				check(t, row.closes(c))
				if i%2 == 0 {
					time.Sleep(2 * time.Second) // of these conntrack knows nothing any more when the bucket moves
				}
			}
			check(t, s.move(0, 1))
			for round := range 3 {
				time.Sleep(6 * time.Second) // several looks of the sweeper, and longer than conntrack remembers
				check(t, status(s.agents[1].monitor(0), ocf.Success))
				for i, c := range connections {
					from, to := row.speaks(c)
					if err := say(from, to); err != nil {
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

// The bucket comes back, and the node in between drains: what is not known here is taken for that node's. The node's own connections of the
// time before are known, however quiet they are.
func TestQuietConnectionsSurviveAReturn(t *testing.T) {
	t.Parallel()
	s, _ := newDrainingSite(t, Options{Nodes: 2}, 1)
	s.forgetful(t, "1")
	check(t, s.startOn(0, 0))
	quiet := s.accept(t, 0, shared, 4)
	check(t, s.move(0, 1))
	between := s.accept(t, 1, shared, 4)
	check(t, s.move(0, 0))
	for round := range 3 {
		time.Sleep(4 * time.Second) // longer than conntrack remembers
		check(t, status(s.agents[0].monitor(0), ocf.Success))
		for i, c := range slices.Concat(quiet, between) {
			if err := say(c.client, c.server); err != nil {
				t.Errorf("round %d, connection %d: %v", round+1, i, err)
			}
		}
	}
}
