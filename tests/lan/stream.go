package lan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxStream bounds what a forgotten stream can send.
const maxStream = 1 << 20

// Stream is traffic that goes on until it is stopped.
type Stream struct {
	run    *run
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of sending; valid after ended
}

// Stream sends that many packets per second, round robin through the flows, until ctx ends or Stop is called. Each
// packet has its number, so that the report names the one that was answered twice, and by which node. It can be UDP and
// ICMP (nil Protos: both); TCP has connections, not packets.
func (n *Network) Stream(ctx context.Context, t Traffic, perSecond int) (*Stream, error) {
	if t.Protos == nil {
		t.Protos = []Proto{ICMP, UDP}
	}
	if slices.Contains(t.Protos, TCP) {
		return nil, errors.New("a stream cannot be TCP")
	}
	if perSecond < 1 || len(t.Sources) == 0 {
		return nil, fmt.Errorf("a stream of %d packets a second from %d addresses", perSecond, len(t.Sources))
	}
	run, err := n.newRun(ctx, t)
	if err != nil {
		return nil, err
	}
	s := &Stream{run: run, ended: make(chan struct{})}
	ctx, s.cancel = context.WithCancel(ctx)
	go func() {
		defer close(s.ended)
		s.err = s.send(ctx, interleave(run.flows(), len(run.Sources)), perSecond)
	}()
	return s, nil
}

// send keeps the rate on average: what a late tick missed, it makes up for, a bounded burst at a time.
func (s *Stream) send(ctx context.Context, flows []Flow, perSecond int) error {
	const maxBurst = 64
	tick := time.NewTicker(max(time.Millisecond, time.Second/time.Duration(perSecond)))
	defer tick.Stop()
	begin := time.Now()
	for sent := 0; sent < maxStream; {
		due := int(time.Since(begin)*time.Duration(perSecond)/time.Second) + 1
		for burst := min(due-sent, maxBurst); burst > 0; burst-- {
			f := flows[sent%len(flows)]
			if err := s.run.sendOne(f); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
			sent++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// Sent returns how many packets each flow has sent so far.
func (s *Stream) Sent() []uint32 {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	sent := make([]uint32, len(s.run.exchanges))
	for i, e := range s.run.exchanges {
		sent[i] = e.Sent
	}
	return sent
}

// Stop ends the stream, listens a little longer (Settle), and returns what was seen.
func (s *Stream) Stop() (*Report, error) {
	s.cancel()
	<-s.ended
	time.Sleep(s.run.Settle)
	return s.run.finish(s.err)
}

// interleave turns a list that has one protocol after the other, n flows each, into one that alternates.
func interleave(flows []Flow, n int) []Flow {
	var mixed []Flow
	for i := range n {
		for j := i; j < len(flows); j += n {
			mixed = append(mixed, flows[j])
		}
	}
	return mixed
}
