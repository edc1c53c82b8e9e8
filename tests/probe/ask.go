package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/lan"
)

const (
	tick   = 2 * time.Millisecond   // how often it looks what is due
	settle = 100 * time.Millisecond // how long it listens for second answers after the last first one
)

// askAll asks until ctx ends, and then waits for what is still unanswered. It runs inside the client, and makes all
// system calls of the probe but those of the capture.
func (p *Probe) askAll(ctx context.Context) error {
	defer p.closeAll()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	err := p.askOn(ctx, ticker)
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		p.Mark(fmt.Sprintf("the probe ends: %v", cause))
	}
	p.ending = true
	for deadline := p.now() + p.o.Timeout; err == nil && p.now() < deadline && p.waits(); <-ticker.C {
		err = p.tidy()
	}
	time.Sleep(settle)
	p.giveUp()
	return err
}

func (p *Probe) askOn(ctx context.Context, ticker *time.Ticker) error {
	count := len(p.channels)
	for next := 0; ctx.Err() == nil; <-ticker.C {
		from, to := due(p.now(), p.o.Interval, count, next)
		for i := from; i < to; i++ {
			if err := p.ask(p.channels[i%count]); err != nil {
				return err
			}
		}
		next = to
		if err := p.tidy(); err != nil {
			return err
		}
	}
	return nil
}

// due returns which turns are due, where count of them are spread evenly over an interval and next was not yet taken. What
// a starved machine missed is not made up for, but for the last interval's.
func due(now, interval time.Duration, count, next int) (from, to int) {
	to = int(now*time.Duration(count)/interval) + 1
	return max(next, to-count), to
}

// ask asks the next question of a channel.
func (p *Probe) ask(ch *channel) error {
	switch ch.proto {
	case Connect:
		return p.connect(ch)
	case Stream:
		return p.tend(ch, true)
	}
	p.mu.Lock()
	number := p.question(ch, nil)
	p.mu.Unlock()
	stamp := lan.Stamp{Token: p.token, Number: number}
	if ch.proto == UDP {
		return p.unsent(ch, number, p.udp.Send(stamp.Payload(0), ch.addr, p.target()))
	}
	b, err := stamp.EchoRequest(p.o.Target, 0)
	if err != nil {
		return err
	}
	return p.unsent(ch, number, p.icmp.Send(b, ch.addr, p.target()))
}

func (p *Probe) target() netip.AddrPort { return netip.AddrPortFrom(p.o.Target, p.o.Port) }

// question numbers a new question. The caller holds the lock.
func (p *Probe) question(ch *channel, c *conn) uint32 {
	now := p.now()
	ch.questions = append(ch.questions, question{asked: now})
	p.open++
	number := uint32(len(ch.questions))
	if ch.proto != Stream { // those have times of their own
		p.pending.push(waiting{ch, number, c, now})
	}
	return number
}

// unsent counts a question as lost that could not be sent. An error that will not go away ends the probe.
func (p *Probe) unsent(ch *channel, number uint32, err error) error {
	if err == nil {
		return nil
	}
	for _, fault := range []error{unix.EADDRNOTAVAIL, unix.EINVAL, unix.EMFILE, unix.ENFILE, unix.EBADF, unix.EACCES, net.ErrClosed} {
		if errors.Is(err, fault) {
			return fmt.Errorf("ask %s from %s: %w", ch.proto, ch.addr, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose(ch, number, err.Error())
	return nil
}

// tidy does what is due besides asking: sockets to close, streams to renew, questions that are lost.
func (p *Probe) tidy() error {
	p.mu.Lock()
	now := p.now()
	for p.pending.len() > 0 && p.pending.first().asked+p.o.Timeout <= now {
		w := p.pending.pop()
		p.lose(w.channel, w.number, "")
		if w.conn != nil {
			p.drop(w.conn)
		}
	}
	for p.dead.len() > 0 && p.dead.first().at+rest <= now {
		delete(p.conns, p.dead.pop().local)
	}
	closing, todo, full, requests := p.closing, p.todo, p.full, p.requests()
	p.closing, p.todo = nil, nil
	p.mu.Unlock()
	if full {
		return fmt.Errorf("it has seen %d events", p.o.MaxEvents)
	}
	for _, r := range requests { // before their connections are closed
		if err := p.unsent(r.channel, r.stamp.Number, r.send()); err != nil {
			return err
		}
	}
	for _, fd := range closing {
		_ = unix.Close(fd)
	}
	for _, ch := range todo {
		if err := p.tend(ch, false); err != nil {
			return err
		}
	}
	return nil
}

// lose gives a question up, if it is not answered. The caller holds the lock.
func (p *Probe) lose(ch *channel, number uint32, why string) {
	if q := &ch.questions[number-1]; q.state == unanswered {
		q.state = lost
		p.open--
		p.recordOf(ch, Event{At: p.now(), Kind: Lost, Number: number, Text: clean(why)})
	}
}

// waits returns whether questions are unanswered.
func (p *Probe) waits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open > 0
}

// giveUp ends all questions.
func (p *Probe) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ch := range p.channels {
		for i := range ch.questions {
			p.lose(ch, uint32(i+1), "the probe ended")
		}
	}
}

// closeAll closes all connections.
func (p *Probe) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		p.drop(c)
	}
	for _, fd := range p.closing {
		_ = unix.Close(fd)
	}
	p.closing = nil
}

// recordOf records an event of a channel. The caller holds the lock.
func (p *Probe) recordOf(ch *channel, e Event) {
	e.Source, e.Proto = ch.addr, ch.proto
	if e.Number != 0 {
		e.After = e.At - ch.questions[e.Number-1].asked
	}
	p.record(e)
}

// record keeps an event. The caller holds the lock.
func (p *Probe) record(e Event) {
	if len(p.events) >= p.o.MaxEvents {
		p.full = true
		return
	}
	e.At, e.After = max(e.At, 0).Truncate(time.Microsecond), max(e.After, 0).Truncate(time.Microsecond)
	p.events = append(p.events, e)
}

// queue is first in, first out.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) push(item T) { q.items = append(q.items, item) }
func (q *queue[T]) len() int    { return len(q.items) - q.head }
func (q *queue[T]) first() T    { return q.items[q.head] }

func (q *queue[T]) pop() T {
	item := q.items[q.head]
	q.items[q.head] = *new(T)
	if q.head++; q.head > len(q.items)/2 {
		q.items = q.items[:copy(q.items, q.items[q.head:])]
		q.head = 0
	}
	return item
}
