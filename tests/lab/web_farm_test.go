//go:build system

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// nginxConf is a whole one: nothing of it is outside the host's own /run.
const nginxConf = `pid /run/nginx.pid;
error_log /run/nginx.error;
events {}
http {
	access_log off;
	client_body_temp_path /run/nginx.body;
	proxy_temp_path /run/nginx.proxy;
	fastcgi_temp_path /run/nginx.fastcgi;
	uwsgi_temp_path /run/nginx.uwsgi;
	scgi_temp_path /run/nginx.scgi;
	server { listen 80; location / { return 200 "ok\n"; } }
}
`

// playWebFarm makes a cluster by the example, as an admin runs it, with that many buckets and those replacements.
func playWebFarm(t *testing.T, count int, replacements ...string) *scenario {
	t.Helper()
	agent, err := harness.Program()
	check(t, err)
	s := &scenario{Lab: start(t, Options{Agent: agent}), t: t, begin: time.Now()}
	conf := filepath.Join(t.TempDir(), "nginx.conf")
	check(t, os.WriteFile(conf, []byte(nginxConf), 0o600))
	text, err := os.ReadFile("../../pacemaker/examples/web-farm/cluster.pcs.sh")
	check(t, err)
	script := string(text)
	replacements = append(
		replacements, "configfile=/etc/nginx/nginx.conf", "configfile="+conf, "-max=8", fmt.Sprintf("-max=%d", count),
		`" buckets=8`, fmt.Sprintf(`" buckets=%d`, count),
	)
	for change := range slices.Chunk(replacements, 2) {
		if !strings.Contains(script, change[0]) {
			t.Fatalf("the example has no %s", change[0])
		}
		script = strings.ReplaceAll(script, change[0], change[1])
	}
	run(t, s.Hosts[0], "sh", "-c", script)
	s.even(count, "node1", "node2", "node3")
	return s
}

// The buckets of a node whose nginx crashes move away, and some come back.
func TestWebFarmExample(t *testing.T) {
	t.Parallel()
	s := playWebFarm(t, buckets, "interval=10s", "interval=2s", "failure-timeout=300s", "failure-timeout=6s")
	s.probe = s.ask(shared)
	s.exactlyOnce(shared, buckets)

	s.probe.Mark("nginx dies on node2")
	pid := strings.TrimSpace(run(t, s.Hosts[1], "cat", "/run/nginx.pid"))
	run(t, s.Hosts[1], "kill", "-KILL", "--", "-"+pid) // and its workers, which hold the port
	s.leftFrom("node2")
	s.answered()
	s.step("node2 gets buckets back by itself", func() {}, "node1", "node2", "node3")
	s.exactlyOnce(shared, buckets)
	s.end()
}

const (
	visitEvery = 5 * time.Millisecond // 200 new connections a second
	mostVisits = 60000                // five minutes
	visitLasts = 20 * time.Second     // at most: TCP repeats a lost SYN after 1, 3 and 7 s
	served     = "served"
	tooLong    = "timeout"
	closed     = "closed before the answer"
)

// visit makes a new connection for each of many HTTP requests, until ctx ends, and returns how many ended how. A node that goes into
// standby stops its nginx, which closes connections of which it has not read the request yet, with a reset if the request has arrived.
// Clients repeat such requests (RFC 9112 section 9.3.1). Nobody else may reset one: resets are the frames that the client received.
func (s *scenario) visit(ctx context.Context, resets *lan.Capture, standby *atomic.Pointer[Host]) map[string]int {
	ends := map[string]int{}
	var lock sync.Mutex
	var all sync.WaitGroup
	tick := time.NewTicker(visitEvery)
	defer tick.Stop()
	sources := s.Network.SourcesLike(shared, streaming)
	for i := 0; i < mostVisits && ctx.Err() == nil; i++ {
		all.Go(func() {
			from := func(firstPort int) netip.AddrPort {
				return netip.AddrPortFrom(sources[i%len(sources)], uint16(firstPort+i/len(sources)))
			}
			client := from(10000)
			end := s.visitOnce(client)
			wasReset := strings.HasSuffix(end, unix.ECONNRESET.Error())
			if end == closed || wasReset && s.resetBy(resets, client) == standby.Load() {
				end = s.visitOnce(from(20000))
			}
			lock.Lock()
			defer lock.Unlock()
			ends[end]++
		})
		<-tick.C
	}
	all.Wait()
	return ends
}

// resetBy returns the host that has reset a client's connection.
func (s *scenario) resetBy(resets *lan.Capture, client netip.AddrPort) *Host {
	ctx, cancel := context.WithTimeout(s.t.Context(), visitLasts)
	defer cancel()
	frame, err := resets.Wait(ctx, func(f lan.Frame) bool {
		header, segment, _ := f.IPv4()
		return header.Dst.String() == client.Addr().String() && binary.BigEndian.Uint16(segment[2:]) == client.Port()
	})
	if err != nil {
		s.t.Errorf("who has reset the connection of %s: %v", client, err)
		return nil
	}
	i := slices.IndexFunc(s.Hosts, func(h *Host) bool { return slices.Equal(h.machine.MAC, frame.Source) })
	if i < 0 {
		s.t.Errorf("the connection of %s was reset by %s", client, frame.Source)
		return nil
	}
	s.t.Logf("%5.1f s: %s has reset the connection of %s", frame.Time.Sub(s.begin).Seconds(), s.Hosts[i].Name, client)
	return s.Hosts[i]
}

// isReset reports whether a frame has a TCP segment with RST, and was received.
func isReset(f lan.Frame) bool {
	const flags, rst = 13, 0x04
	header, segment, ok := f.IPv4()
	return ok && !f.Outgoing && header.Protocol == unix.IPPROTO_TCP && len(segment) > flags && segment[flags]&rst != 0
}

// visitOnce makes one request, and returns how it ended.
func (s *scenario) visitOnce(client netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(s.t.Context(), visitLasts)
	defer cancel()
	conn, err := s.Network.Client.Dial(ctx, client, netip.AddrPortFrom(shared, 80))
	if err != nil {
		return howItFailed("connect", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_, err = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if err := errors.Join(conn.SetDeadline(deadline), err); err != nil {
		return howItFailed("request", err)
	}
	answer, err := io.ReadAll(conn)
	switch {
	case err != nil:
		return howItFailed("answer", err)
	case len(answer) == 0:
		return closed
	case !strings.HasSuffix(string(answer), "\r\n\r\nok\n"):
		return fmt.Sprintf("answer: %q", answer)
	}
	return served
}

// howItFailed leaves out what differs between connections.
func howItFailed(when string, err error) string {
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return tooLong
	}
	if number := unix.Errno(0); errors.As(err, &number) {
		return when + ": " + number.Error()
	}
	return when + ": " + err.Error()
}

// Nobody is refused while nodes go into standby and come back: as long as a node has buckets, its nginx runs.
func TestWebFarmNodeStops(t *testing.T) {
	t.Parallel()
	const many = 24 // so that a node's stops take a while
	s := playWebFarm(t, many)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan map[string]int, 1)
	resets, err := s.Network.Client.Capture(lan.NIC, isReset)
	check(t, err)
	var standby atomic.Pointer[Host]
	go func() { ended <- s.visit(ctx, resets, &standby) }()
	for _, step := range []struct {
		command []string
		nodes   []string
	}{
		{[]string{"standby", "node2"}, []string{"node1", "node3"}},
		{[]string{"unstandby", "node2"}, []string{"node1", "node2", "node3"}},
		{[]string{"standby", "node3"}, []string{"node1", "node2"}},
	} {
		t.Logf("%5.1f s: %s", time.Since(s.begin).Seconds(), step.command)
		if step.command[0] == "standby" {
			standby.Store(s.Host(step.command[1]))
		}
		s.pcs(append([]string{"node"}, step.command...)...)
		s.even(many, step.nodes...)
	}
	cancel()
	ends := <-ended
	_, err = resets.Stop()
	check(t, err)
	t.Logf("%5.1f s: %v", time.Since(s.begin).Seconds(), ends)
	if ends[served] == 0 {
		t.Error("no request was served")
	}
	for end, count := range ends {
		if end != served && end != tooLong { // how long a client waits is not looked at here
			t.Errorf("%d requests ended with %s", count, end)
		}
	}
}
