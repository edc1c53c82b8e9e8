package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"ocf-clusterip/tests/lan"
)

// Options are what a probe asks, and what it needs to judge the answers.
type Options struct {
	Client  *lan.Host  // who asks
	NIC     string     // of the client; default lan.NIC
	Target  netip.Addr // the shared address
	Port    uint16     // of the echo servers (lan.Serve); default lan.EchoPort
	Sources []netip.Addr
	Protos  []Proto // default all
	// Requests lets a connection of Connect send a request, whose answer counts; else the SYN-ACK is the answer.
	Requests bool

	// Interval is between two questions of one source in one protocol; default 100 ms. The questions of all are spread
	// evenly over it.
	Interval time.Duration

	// Node returns the name of the node whose own MAC that is, "" if it is no node's. A node may have several.
	// It must not call the probe.
	Node func(net.HardwareAddr) string
	// SharedMAC is what ARP must announce for the target; nil means anything but a node's own MAC.
	SharedMAC net.HardwareAddr

	// Timeout is how long a question waits for its answer; default 900 ms, below the second after which TCP repeats a SYN.
	Timeout time.Duration
	// StallAfter is how long a stream's request waits for its answer before it is noted; default 3 s. TCP repeats it after
	// about 0.2, 0.6 and 1.4 s.
	StallAfter time.Duration
	// StreamTimeout is how long a stream's request waits before its connection counts as broken; default 30 s.
	StreamTimeout time.Duration
	// StreamLife is how long a stream keeps a connection before it closes it and makes a new one; 0 means for ever.
	StreamLife time.Duration

	// MaxDuration and MaxEvents bound a forgotten probe; default 30 minutes and 2 million, which is 200 MB.
	MaxDuration time.Duration
	MaxEvents   int
}

func (o Options) withDefaults() (Options, error) {
	byDefault(&o.NIC, lan.NIC)
	byDefault(&o.Port, lan.EchoPort)
	byDefault(&o.Interval, 100*time.Millisecond)
	byDefault(&o.Timeout, 900*time.Millisecond)
	byDefault(&o.StallAfter, 3*time.Second)
	byDefault(&o.StreamTimeout, 30*time.Second)
	byDefault(&o.MaxDuration, 30*time.Minute)
	byDefault(&o.MaxEvents, 2<<20)
	if o.Protos == nil {
		o.Protos = Protos()
	}
	switch {
	case o.Client == nil || o.Node == nil:
		return o, errors.New("a probe needs a client, and the nodes' MACs")
	case !o.Target.IsValid():
		return o, errors.New("a probe needs a target")
	case len(o.Sources) == 0 || len(o.Protos) == 0:
		return o, fmt.Errorf("%d sources with %d protocols", len(o.Sources), len(o.Protos))
	case o.Interval < time.Millisecond || o.Timeout >= time.Second:
		return o, fmt.Errorf("interval %s is not 1 ms or more, or timeout %s not below 1 s", o.Interval, o.Timeout)
	}
	for i, s := range o.Sources {
		if s.Is4() != o.Target.Is4() || slices.Contains(o.Sources[:i], s) {
			return o, fmt.Errorf("source %s is not of the target's family, or given twice", s)
		}
	}
	return o, nil
}

func byDefault[T comparable](v *T, value T) {
	if *v == *new(T) {
		*v = value
	}
}

// Probe is under way from Start to Stop.
type Probe struct {
	o       Options
	begin   time.Time
	token   uint32 // marks our packets
	capture *lan.Capture
	icmp    lan.Sender
	udp     lan.Sender
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the last answer was waited for
	ending  bool          // no more questions; of the asking goroutine
	err     error         // of asking; valid after ended

	stop sync.Once
	log  *Log
	fail error

	mu       sync.Mutex
	events   []Event
	full     bool // MaxEvents reached
	channels []*channel
	bySource map[netip.Addr]*source
	nodes    []string // by the number that questions keep; 0 is Unknown
	byMAC    map[[6]byte]uint8
	conns    map[netip.AddrPort]*conn
	pending  queue[waiting]
	dead     queue[burial]
	closing  []int      // file descriptors
	todo     []*channel // streams to look after before their time
	greeted  []*conn    // of Connect, that are to send their request
	open     int        // questions without an answer so far
}

// source is an address of the client.
type source struct {
	addr netip.Addr
	port uint16               // the last one used for a connection
	by   [Stream + 1]*channel // by Proto
}

// channel is one source with one protocol.
type channel struct {
	*source
	proto     Proto
	questions []question    // number n is at n-1
	answered  time.Duration // when the latest question that is answered was asked; -1 if none
	conn      *conn         // of a stream
}

// question is what becomes of one. A probe keeps all of them, so that duplicates are found however late they are.
type question struct {
	asked time.Duration // since the start
	state state
	node  uint8 // who answered first
}

type state uint8

const (
	unanswered state = iota
	answered
	refused
	lost
)

// waiting is a question that may become lost.
type waiting struct {
	*channel
	number uint32
	conn   *conn // of Connect
	asked  time.Duration
}

// Start begins to ask, until ctx ends or Stop is called.
func Start(ctx context.Context, o Options) (*Probe, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	p := &Probe{
		o: o, token: rand.Uint32(), ended: make(chan struct{}), nodes: []string{Unknown},
		bySource: map[netip.Addr]*source{}, byMAC: map[[6]byte]uint8{}, conns: map[netip.AddrPort]*conn{},
	}
	for _, addr := range o.Sources {
		s := &source{addr: addr, port: firstPort}
		p.bySource[addr] = s
		for _, proto := range o.Protos {
			s.by[proto] = &channel{source: s, proto: proto, answered: -1}
			p.channels = append(p.channels, s.by[proto])
		}
	}
	if err := o.Client.Resolve(ctx, o.NIC, o.Target); err != nil {
		return nil, fmt.Errorf("probe %s: %w", o.Target, err)
	}
	p.begin = time.Now()
	if p.capture, err = o.Client.CaptureSome(o.NIC, wire(o.Target), func(f lan.Frame) bool { p.see(f); return false }); err != nil {
		return nil, fmt.Errorf("probe %s: %w", o.Target, err)
	}
	err = o.Client.Do(func() (err error) {
		if p.icmp, err = lan.SendICMP(p.o.Target); err != nil {
			return err
		}
		everywhere := netip.IPv4Unspecified()
		if p.o.Target.Is6() {
			everywhere = netip.IPv6Unspecified()
		}
		p.udp, err = lan.SendUDP(netip.AddrPortFrom(everywhere, 0))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", o.Target, errors.Join(err, p.close()))
	}
	ctx, p.cancel = context.WithTimeoutCause(ctx, o.MaxDuration, fmt.Errorf("it has run for %s", o.MaxDuration))
	go func() {
		defer close(p.ended)
		// One thread inside the client makes all sockets.
		p.err = o.Client.Do(func() error { return p.askAll(ctx) })
	}()
	return p, nil
}

// close ends the capture and closes the sockets.
func (p *Probe) close() error {
	_, err := p.capture.Stop()
	errs := []error{err}
	for _, c := range []lan.Sender{p.icmp, p.udp} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Mark puts an event of the cluster into the log, such as "node2 killed". Call it before the event happens: what is lost
// from then on counts as its effect.
func (p *Probe) Mark(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record(Event{At: p.now(), Kind: Mark, Text: clean(text)})
}

// WaitAnswered waits until each source has been answered in each protocol: a question that it asked at that moment or
// later.
func (p *Probe) WaitAnswered(ctx context.Context, since time.Time) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		silent := p.silent(since.Sub(p.begin))
		if len(silent) == 0 {
			return nil
		}
		var err error
		select {
		case <-tick.C:
			continue
		case <-p.ended:
			err = errors.New("the probe has ended")
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if few := 5; len(silent) > few {
			silent = append(silent[:few], fmt.Sprintf("and %d more", len(silent)-few))
		}
		return fmt.Errorf("wait for answers to %s: %w", strings.Join(silent, ", "), err)
	}
}

// silent lists the channels without an answer to what they asked since.
func (p *Probe) silent(since time.Duration) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, ch := range p.channels {
		if ch.answered < max(since, 0) {
			list = append(list, fmt.Sprintf("%s %s", ch.proto, ch.addr))
		}
	}
	return list
}

// Stop ends the probe, after it has waited for what is still to be answered, and returns what it saw. It may be called
// more than once.
func (p *Probe) Stop() (*Log, error) {
	p.stop.Do(func() {
		p.cancel()
		<-p.ended
		err := errors.Join(p.err, p.close())
		if err != nil {
			p.fail = fmt.Errorf("probe %s: %w", p.o.Target, err)
		}
		p.log = &Log{Target: p.o.Target, Interval: p.o.Interval, Start: p.begin.UTC().Truncate(time.Microsecond), Events: p.events}
		p.log.sort()
	})
	return p.log, p.fail
}

// now is the time since the start.
func (p *Probe) now() time.Duration { return time.Since(p.begin) }
