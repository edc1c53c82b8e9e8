//go:build system

package probe

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"ocf-clusterip/tests/lan"
)

// wireOf is a connection without a network: what the capture would see of it.
type wireOf struct {
	*Probe
	conn *conn
}

const (
	isn    = 1000 // the client's
	theirs = 5000 // the server's
	hello  = 6    // length of a greeting
)

func newWire(proto Proto) *wireOf {
	p := &Probe{
		o: Options{Target: shared, MaxEvents: 100, Interval: 100 * ms, Timeout: 900 * ms}, begin: time.Now(), token: 7,
		nodes: []string{Unknown, "node1", "node2"}, conns: map[netip.AddrPort]*conn{},
	}
	ch := &channel{source: &source{addr: client(1)}, proto: proto, answered: -1}
	c := &conn{channel: ch, local: netip.AddrPortFrom(client(1), firstPort), fd: -1}
	c.number = p.question(ch, c)
	p.conns[c.local] = c
	return &wireOf{p, c}
}

func (w *wireOf) sent(flags byte, seq, ack uint32) {
	w.seeSent(lan.Packet{
		Flow: lan.Flow{Proto: lan.TCP, Src: client(1), SrcPort: firstPort, Dst: shared, DstPort: 7}, Seq: seq, Ack: ack, Flags: flags,
	})
}

func (w *wireOf) got(node uint8, flags byte, seq, ack uint32, data []byte) {
	w.seeSegment(w.conn, lan.Packet{Seq: seq, Ack: ack, Flags: flags, Payload: data}, node, w.now())
}

func (w *wireOf) syn()              { w.sent(lan.TCPSyn, isn, 0) }
func (w *wireOf) synAck(node uint8) { w.got(node, lan.TCPSyn|lan.TCPAck, theirs, isn+1, nil) }
func (w *wireOf) refusal(node uint8) {
	w.got(node, lan.TCPRst|lan.TCPAck, 0, isn+1, nil)
}

// open brings a stream to its first request.
func (w *wireOf) open() {
	w.syn()
	w.synAck(1)
	w.greeting()
	w.conn.phase = asking
	w.request()
}
func (w *wireOf) greeting() { w.got(1, lan.TCPAck, theirs+1, isn+1, []byte("hello\n")) }
func (w *wireOf) request()  { w.sent(lan.TCPAck, isn+1, theirs+1+hello) }

func (w *wireOf) answer(node uint8) {
	w.got(node, lan.TCPAck, theirs+1+hello, isn+13, lan.Stamp{Token: w.token, Number: 1}.Payload(0))
}

// reset is what a node without the connection sends, to a segment with that acknowledgement number.
func (w *wireOf) reset(node uint8, ack uint32) { w.got(node, lan.TCPRst, ack, 0, nil) }

func TestSegments(t *testing.T) {
	for name, c := range map[string]struct {
		proto Proto
		play  func(*wireOf)
		want  []string
	}{
		"an answer":                         {Connect, func(w *wireOf) { w.syn(); w.synAck(1) }, []string{"answer node1"}},
		"SYN-ACK repeated by the same node": {Connect, func(w *wireOf) { w.syn(); w.synAck(1); w.synAck(1) }, []string{"answer node1"}},
		"two SYN-ACKs": {
			Connect, func(w *wireOf) { w.syn(); w.synAck(1); w.synAck(2) }, []string{"answer node1", "duplicate node2"},
		},
		"a SYN-ACK and a refusal": {
			Connect, func(w *wireOf) { w.syn(); w.synAck(1); w.refusal(2) }, []string{"answer node1", "duplicate node2"},
		},
		"a refusal and a SYN-ACK": {
			Connect, func(w *wireOf) { w.syn(); w.refusal(1); w.synAck(2) }, []string{"refused node1", "duplicate node2"},
		},
		"SYN repeated, to another owner": {
			Connect, func(w *wireOf) { w.syn(); w.syn(); w.synAck(1); w.synAck(2) }, []string{"lost ", "late node1"},
		},
		"SYN-ACK for another host's SYN": {Connect, func(w *wireOf) { w.syn(); w.got(1, lan.TCPSyn|lan.TCPAck, theirs, isn+2, nil) }, nil},
		"moved after the SYN-ACK": {
			Connect, func(w *wireOf) { w.syn(); w.synAck(1); w.reset(2, theirs+1) }, []string{"answer node1", "broken node2"},
		},
		"a reset after the greeting": {
			Connect, func(w *wireOf) { w.syn(); w.synAck(1); w.greeting(); w.reset(1, theirs+1+hello) }, []string{"answer node1"},
		},
		"a stream": {Stream, func(w *wireOf) { w.open(); w.answer(1) }, []string{"open node1", "answer node1"}},
		"data repeated by the same node": {
			Stream, func(w *wireOf) { w.open(); w.answer(1); w.answer(1) }, []string{"open node1", "answer node1"},
		},
		"two nodes answer a request": {
			Stream, func(w *wireOf) { w.open(); w.answer(1); w.answer(2) }, []string{"open node1", "answer node1", "duplicate node2"},
		},
		"moved: the request is reset": {
			Stream, func(w *wireOf) { w.open(); w.reset(2, theirs+1+hello) }, []string{"open node1", "broken node2", "lost "},
		},
		"moved: an acknowledgement is reset": {
			Stream, func(w *wireOf) { w.open(); w.answer(1); w.reset(2, theirs+1+hello+12) }, []string{"open node1", "answer node1", "broken node2"},
		},
		"answer and reset of one request": {
			Stream, func(w *wireOf) { w.open(); w.answer(1); w.reset(2, theirs+1+hello) },
			[]string{"open node1", "answer node1", "duplicate node2", "broken node2"},
		},
		"reset and answer of one request": {
			Stream, func(w *wireOf) { w.open(); w.reset(2, theirs+1+hello); w.answer(1) },
			[]string{"open node1", "broken node2", "lost ", "duplicate node1"},
		},
		"request repeated, to another owner": {
			Stream, func(w *wireOf) { w.open(); w.request(); w.answer(1); w.reset(2, theirs+1+hello) },
			[]string{"open node1", "answer node1", "broken node2"},
		},
		"two resets": {Stream, func(w *wireOf) {
			w.open()
			w.request()
			w.reset(2, theirs+1+hello)
			w.reset(2, theirs+1+hello)
		}, []string{"open node1", "broken node2", "lost "}},
		"closed by the server": {Stream, func(w *wireOf) {
			w.open()
			w.got(1, lan.TCPFin|lan.TCPAck, theirs+1+hello, isn+1, nil)
		}, []string{"open node1", "broken node1", "lost "}},
		"an answer to another probe": {Stream, func(w *wireOf) {
			w.open()
			w.got(1, lan.TCPAck, theirs+1+hello, isn+13, lan.Stamp{Token: w.token + 1, Number: 1}.Payload(0))
		}, []string{"open node1"}},
	} {
		newWire(c.proto).expect(t, name, c.play, c.want)
	}
}

// expect plays what the capture sees, and expects those events.
func (w *wireOf) expect(t *testing.T, name string, play func(*wireOf), want []string) {
	t.Helper()
	play(w)
	var got []string
	for _, e := range w.events {
		got = append(got, e.Kind.String()+" "+e.Node)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

// With requests, the answer to a connection's request is what counts.
func TestSegmentsOfConnectionsWithARequest(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*wireOf)
		want []string
	}{
		"a SYN-ACK is no answer":   {func(w *wireOf) { w.syn(); w.synAck(1) }, nil},
		"a greeting is no answer":  {func(w *wireOf) { w.syn(); w.synAck(1); w.greeting() }, []string{"open node1"}},
		"an answer":                {func(w *wireOf) { w.open(); w.answer(1) }, []string{"open node1", "answer node1"}},
		"a refusal":                {func(w *wireOf) { w.syn(); w.refusal(2) }, []string{"refused node2"}},
		"two SYN-ACKs":             {func(w *wireOf) { w.syn(); w.synAck(1); w.synAck(2) }, []string{"duplicate node2"}},
		"moved after the SYN-ACK":  {func(w *wireOf) { w.syn(); w.synAck(1); w.reset(2, theirs+1) }, []string{"broken node2", "lost "}},
		"moved after the greeting": {func(w *wireOf) { w.open(); w.reset(2, theirs+1+hello) }, []string{"open node1", "broken node2", "lost "}},
		"two nodes answer the request": {
			func(w *wireOf) { w.open(); w.answer(1); w.answer(2) }, []string{"open node1", "answer node1", "duplicate node2"},
		},
		"SYN repeated": {func(w *wireOf) { w.syn(); w.syn(); w.synAck(1); w.greeting() }, []string{"lost ", "late node1"}},
		"answered after it was lost": {func(w *wireOf) {
			w.open()
			w.lose(w.conn.channel, 1, "")
			w.drop(w.conn)
			w.answer(1)
			w.answer(1)
		}, []string{"open node1", "lost ", "late node1"}},
		"closed by the server": {func(w *wireOf) {
			w.open()
			w.got(1, lan.TCPFin|lan.TCPAck, theirs+1+hello, isn+1, nil)
		}, []string{"open node1", "broken node1", "lost "}},
	} {
		w := newWire(Connect)
		w.o.Requests = true
		w.expect(t, name, c.play, c.want)
	}
}
