//go:build system

package lab

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/lan"
)

const (
	toldClients = 500 // half of them only wait for an answer, the others also send
	sendEvery   = time.Second
)

// A patron is a client with a connection that lasts.
type patron struct {
	client  netip.Addr
	conn    net.Conn
	node    string
	sends   bool
	err     error // with which the connection ended
	endedAt time.Time
	ended   chan struct{}
}

// enter makes the connections, each from another source and port.
func (s *scenario) enter(count int) []*patron {
	s.t.Helper()
	const eachSource = 10
	patrons := make([]*patron, count)
	errs := make([]error, count)
	sources := s.Network.Sources(2*asking + (count+eachSource-1)/eachSource)[2*asking:]
	var all sync.WaitGroup
	for i := range patrons {
		all.Go(func() {
			p := &patron{client: sources[i/eachSource], sends: i%2 == 1, ended: make(chan struct{})}
			patrons[i] = p
			p.conn, errs[i] = s.Network.Client.Dial(s.t.Context(), netip.AddrPortFrom(p.client, 0), netip.AddrPortFrom(shared, lan.EchoPort))
			if errs[i] == nil {
				p.node, errs[i] = bufio.NewReaderSize(p.conn, 1).ReadString('\n')
				p.node = strings.TrimSpace(p.node)
			}
		})
	}
	all.Wait()
	check(s.t, errors.Join(errs...))
	return patrons
}

// stay holds the connection until it ends.
func (p *patron) stay() {
	stop := make(chan struct{})
	if p.sends {
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(sendEvery):
					_, _ = io.WriteString(p.conn, ".") // the reader sees what is wrong
				}
			}
		}()
	}
	_, err := io.Copy(io.Discard, p.conn)
	p.endedAt, p.err = time.Now(), err
	close(stop)
	close(p.ended)
}

// wait waits until the connection has ended, or for long enough.
func (p *patron) wait() {
	select {
	case <-p.ended:
	case <-time.After(stepTimeout):
	}
}

// A client that has a connection to a host which fails gets a reset as soon as its bucket has been started elsewhere, also one that only
// waits. Without a memory, those that only wait hear nothing.
func TestClientsOfAFailedHostAreTold(t *testing.T) {
	t.Parallel()
	for name, parameters := range map[string][]string{
		"drain": {"drain=600"}, "without drain": {"mac_mode=unicast"}, "remember=0": {"remember=0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := playIn(t, Options{StayOff: true}, append(parameters, "op", "monitor", "interval=2s")...)
			for i, f := range hostFailures[:3] {
				s.failsUnderClients(s.Hosts[i], f.name, func(h *Host) error { return f.fail(s, h) }, name != "remember=0")
				if name == "remember=0" { // one shows it
					break
				}
			}
			s.end()
		})
	}
}

func (s *scenario) failsUnderClients(h *Host, how string, fail func(*Host) error, told bool) {
	s.t.Helper()
	patrons := s.enter(toldClients)
	var all, toBeTold sync.WaitGroup
	for _, p := range patrons {
		all.Go(p.stay)
		if p.node == h.Name && (told || p.sends) {
			toBeTold.Go(p.wait)
		}
	}
	since := s.Now()
	s.t.Logf("%5.1f s: %s: %s", time.Since(s.begin).Seconds(), h.Name, how)
	s.probe.Mark(h.Name + ": " + how)
	check(s.t, fail(h))
	s.takenOver(s.firstBut(h), h.Name)
	toBeTold.Wait()
	starts := s.startTimes(since)
	for _, p := range patrons {
		_ = p.conn.Close()
	}
	all.Wait()
	times, closed, untold := map[bool][]time.Duration{}, 0, map[bool]int{}
	for _, p := range patrons {
		isOpen := errors.Is(p.err, net.ErrClosed) // by this test
		switch {
		case p.node != h.Name && !isOpen:
			s.t.Errorf("%s: the connection of %s to %s ended: %v", how, p.client, p.node, p.err)
		case p.node == h.Name && isOpen:
			untold[p.sends]++
		case p.node == h.Name && errors.Is(p.err, unix.ECONNRESET):
			times[p.sends] = append(times[p.sends], p.endedAt.Sub(starts[Bucket(shared, p.client, buckets)]))
		case p.node == h.Name: // by the kernel of a host whose processes were killed
			closed++
		}
	}
	if untold[true] > 0 || told == (untold[false] > 0) {
		s.t.Errorf("%s: %d clients that only wait and %d that send were not told", how, untold[false], untold[true])
	}
	if closed > 0 {
		s.t.Logf("%s: the host itself closed %d connections", how, closed)
	}
	s.step(h.Name+" back", func() {
		s.fenced(h, since)
		check(s.t, h.On(s.t.Context()))
		check(s.t, s.WaitOnline(s.t.Context()))
	}, "node1", "node2", "node3")
	for _, sends := range []bool{false, true} {
		what := "only wait"
		if sends {
			what = "send every " + sendEvery.String()
		}
		s.t.Logf("%s: %d clients that %s, reset after the first start of their bucket elsewhere: %s", how, len(times[sends]), what,
			distribution(times[sends]))
	}
}

// firstBut is the first host but one.
func (s *scenario) firstBut(h *Host) *Host {
	return s.Hosts[slices.IndexFunc(s.Hosts, func(other *Host) bool { return other != h })]
}

// startTimes are when each bucket was first started since a moment, as the controller of its node logged it.
func (s *scenario) startTimes(since time.Time) map[int]time.Time {
	s.t.Helper()
	results, err := s.Results(since)
	check(s.t, err)
	first := map[int]time.Time{}
	for _, r := range results {
		instance, isOurs := strings.CutPrefix(r.Resource, resource+":")
		bucket, err := strconv.Atoi(instance)
		if _, has := first[bucket]; r.Action == "start" && isOurs && err == nil && r.OK() && !has {
			first[bucket] = r.Time
		}
	}
	return first
}

func distribution(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	slices.Sort(times)
	at := func(share float64) string {
		return times[int(share*float64(len(times)-1))].Round(time.Millisecond).String()
	}
	return "min " + at(0) + ", median " + at(0.5) + ", 90 % " + at(0.9) + ", 99 % " + at(0.99) + ", max " + at(1) //nolint:mnd // shares
}
