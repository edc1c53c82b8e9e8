package probe

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/lan"
)

// The ports that connections come from, one after the other for each source: so a port identifies the connection, long after it
// was closed.
const (
	firstPort = 20000
	lastPort  = 60000
)

// rest is how long a closed connection is remembered, for late answers.
const rest = 5 * time.Second

// burial is a closed connection to be deleted.
type burial struct {
	local netip.AddrPort
	at    time.Duration
}

// conn is a connection of Connect or Stream.
type conn struct {
	*channel
	local  netip.AddrPort
	fd     int // -1 when given away to be closed
	born   time.Duration
	phase  phase
	number uint32 // the question under way, 0 if none

	isn      uint32  // initial sequence number; valid when the SYN was sent
	syn      segment // the SYN
	request  segment // the last one with data
	stalled  bool    // the question under way, and that was recorded
	lastGasp error   // of the socket, at the last look
}

type phase uint8

const (
	connecting phase = iota
	greeted          // the server has named itself: now the first request can go
	asking           // for the answer to a request
	idle
	over
)

// segment is what the client sent and nodes answer. See the package comment.
type segment struct {
	seq, ack uint32 // as it was sent
	sent     int    // copies
	by       []uint8
}

// answeredBy notes a node's answer, and returns whether more nodes have answered than copies were sent.
func (s *segment) answeredBy(node uint8) bool {
	if slices.Contains(s.by, node) {
		return false
	}
	s.by = append(s.by, node)
	return len(s.by) > s.sent
}

// connect asks a question of Connect, or begins a stream with its first one.
func (p *Probe) connect(ch *channel) error {
	fd, local, err := p.bind(ch)
	p.mu.Lock()
	c := &conn{channel: ch, local: local, fd: fd, born: p.now()}
	c.number = p.question(ch, c)
	if err == nil {
		p.conns[local] = c
		if ch.proto == Stream {
			ch.conn = c
		}
	}
	p.mu.Unlock()
	if err == nil {
		err = lan.ConnectTCP(fd, p.target())
	}
	if err != nil {
		p.mu.Lock()
		p.drop(c)
		p.mu.Unlock()
	}
	return p.unsent(ch, c.number, err)
}

// bind makes a socket with the next free port of a source.
func (p *Probe) bind(ch *channel) (fd int, local netip.AddrPort, err error) {
	for range 10 {
		if ch.port++; ch.port > lastPort {
			ch.port = firstPort
		}
		local = netip.AddrPortFrom(ch.addr, ch.port)
		if fd, err = lan.BindTCP(local); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err == nil && ch.proto == Stream {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(p.o.StreamTimeout.Milliseconds())))
	}
	return fd, local, err
}

// tend looks after a stream: because its next question is due, or because something has happened.
func (p *Probe) tend(ch *channel, due bool) error {
	p.mu.Lock()
	c := ch.conn
	if c != nil && c.phase == connecting && p.now()-c.born > p.o.Timeout {
		p.lose(ch, c.number, "")
		p.drop(c)
	}
	if c == nil || c.phase == over {
		p.mu.Unlock()
		if p.ending {
			return nil
		}
		return p.connect(ch)
	}
	if c.phase == connecting || !due && c.phase != greeted {
		p.mu.Unlock()
		return nil
	}
	if c.phase == asking && !c.stalled && p.now()-p.asked(c) > p.o.StallAfter {
		c.stalled = true
		p.recordOf(ch, Event{At: p.now(), Kind: Stalled, Number: c.number})
	}
	// A node that hung acknowledged the request, and died: then TCP waits for ever, for there is nothing to repeat.
	if c.phase == asking && p.now()-p.asked(c) > p.o.StreamTimeout {
		p.breaks(c, Event{At: p.now(), Text: "no answer"})
		p.mu.Unlock()
		return nil
	}
	if err := c.listen(); err != nil {
		// If it was a RST, the capture will show who sent it; that may take a moment longer.
		if c.lastGasp != nil {
			p.breaks(c, Event{At: p.now(), Text: err.Error()})
		}
		c.lastGasp = err
		p.mu.Unlock()
		return nil
	}
	switch c.phase {
	case asking:
		p.mu.Unlock()
		return nil
	case idle:
		if p.o.StreamLife > 0 && p.now()-c.born > p.o.StreamLife {
			p.drop(c)
			p.mu.Unlock()
			return p.connect(ch)
		}
		c.number = p.question(ch, nil)
	}
	c.phase = asking
	r := p.requestOf(c)
	p.mu.Unlock()
	return p.unsent(ch, r.stamp.Number, r.send())
}

// outgoing is a request that is to be sent now.
type outgoing struct {
	*channel
	fd    int
	stamp lan.Stamp
}

// requestOf is the request of the question under way. The caller holds the lock.
func (p *Probe) requestOf(c *conn) outgoing {
	return outgoing{c.channel, c.fd, lan.Stamp{Token: p.token, Number: c.number}}
}

// requests are those of the connections that were greeted. The caller holds the lock.
func (p *Probe) requests() []outgoing {
	var list []outgoing
	for _, c := range p.greeted {
		if c.phase == greeted {
			c.phase = asking
			list = append(list, p.requestOf(c))
		}
	}
	p.greeted = nil
	return list
}

// send sends a request. An error of the connection is not its own: a stream reads it again (listen), and the capture has what broke a
// connection of Connect.
func (r outgoing) send() error {
	if _, err := unix.Write(r.fd, r.stamp.Payload(0)); errors.Is(err, unix.EAGAIN) {
		return err
	}
	return nil
}

// asked returns when the question under way was asked. The caller holds the lock.
func (p *Probe) asked(c *conn) time.Duration { return c.questions[c.number-1].asked }

var errClosed = errors.New("closed by the server")

// listen makes room for what comes in, and returns what became of the connection.
func (c *conn) listen() error {
	var buf [1 << 10]byte
	for {
		switch n, err := unix.Read(c.fd, buf[:]); {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return err
		case n == 0:
			return errClosed
		}
	}
}

// breaks ends a connection that was open. A stream makes a new one at once, unless it just did. The caller holds the lock.
func (p *Probe) breaks(c *conn, e Event) {
	e.Kind, e.Number = Broken, c.number
	p.recordOf(c.channel, e)
	if c.number != 0 {
		p.lose(c.channel, c.number, "connection broken")
	}
	p.drop(c)
	if c.proto == Stream && e.At-c.born > p.o.Interval {
		p.todo = append(p.todo, c.channel)
	}
}

// drop gives a connection away to be closed. The caller holds the lock.
func (p *Probe) drop(c *conn) {
	if c.phase = over; c.fd >= 0 {
		p.closing = append(p.closing, c.fd)
		c.fd = -1
		p.dead.push(burial{c.local, p.now()})
	}
}
