package lan

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"
)

// Proto is what a flow is made of.
type Proto string

// The protocols of a flow.
const (
	ICMP Proto = "icmp" // echo; ports are 0
	UDP  Proto = "udp"
	TCP  Proto = "tcp"
)

// Flow is what a client asks with. It can be a map's key.
type Flow struct {
	Proto            Proto
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

func (f Flow) String() string {
	if f.Proto == ICMP {
		return fmt.Sprintf("icmp %s->%s", f.Src, f.Dst)
	}
	return fmt.Sprintf("%s %s:%d->%s:%d", f.Proto, f.Src, f.SrcPort, f.Dst, f.DstPort)
}

// Kind is the kind of an answer.
type Kind string

// Kinds of answers.
const (
	Reply       Kind = "reply"       // an echo reply or a datagram
	SynAck      Kind = "syn-ack"     // the connection is accepted
	Data        Kind = "data"        // what follows a SYN-ACK
	Reset       Kind = "rst"         // the connection is refused, or unknown
	Unreachable Kind = "unreachable" // an ICMP error about our packet
)

// NoNode stands for a node where an answer's Ethernet source is the MAC of no node.
const NoNode = -1

// Answer is one frame that came back.
type Answer struct {
	Node int              // index in Network.Nodes, or NoNode
	MAC  net.HardwareAddr // the Ethernet source, which names the node
	Kind Kind
	Seq  uint32 // the number of the packet that it answers, from 1; 0 if unknown
	Time time.Time
}

// From names who answered.
func (a Answer) From() string {
	if a.Node == NoNode {
		return "another host, " + a.MAC.String()
	}
	return fmt.Sprintf("node%d", a.Node+1)
}

// Exchange is all that happened in one flow.
type Exchange struct {
	Flow    Flow
	Sent    uint32 // packets sent, numbered from 1; for TCP: attempts to connect
	Answers []Answer
}

// answered returns how many answers each packet got, not counting data.
func (e Exchange) answered() map[uint32]int {
	counts := map[uint32]int{}
	for _, a := range e.Answers {
		if a.Kind != Data {
			counts[a.Seq]++
		}
	}
	return counts
}

// Report is what the client saw.
type Report struct {
	Exchanges []Exchange // in the order of the sources, for each protocol
}

// Answered returns for each node how many flows it answered (NoNode included).
func (r *Report) Answered() map[int]int {
	flows := map[int]int{}
	for _, e := range r.Exchanges {
		nodes := map[int]bool{}
		for _, a := range e.Answers {
			nodes[a.Node] = true
		}
		for n := range nodes {
			flows[n]++
		}
	}
	return flows
}

// Sent returns the number of packets (and attempts to connect) of all flows.
func (r *Report) Sent() int {
	n := 0
	for _, e := range r.Exchanges {
		n += int(e.Sent)
	}
	return n
}

// Lost returns how many of them got no answer. In a probe a packet that was sent again counts for one that was lost.
func (r *Report) Lost() int {
	n := r.Sent()
	for _, e := range r.Exchanges {
		n -= len(e.answered())
	}
	return n
}

// LongestGaps describes, for each flow that lost packets, the most that it lost one after the other; the largest gaps first.
func (r *Report) LongestGaps() string {
	type gap struct {
		text string
		lost uint32
	}
	var gaps []gap
	for _, e := range r.Exchanges {
		answers := slices.SortedFunc(slices.Values(e.Answers), func(a, b Answer) int { return cmp.Compare(a.Seq, b.Seq) })
		last, longest := Answer{}, gap{}
		for _, a := range append(answers, Answer{Seq: e.Sent + 1}) {
			if lost := a.Seq - min(a.Seq, last.Seq+1); lost > longest.lost {
				longest = gap{fmt.Sprintf("%s: %d packets, between answers at %s and %s", e.Flow, lost, clock(last.Time), clock(a.Time)), lost}
			}
			last = a
		}
		if longest.lost > 0 {
			gaps = append(gaps, longest)
		}
	}
	slices.SortFunc(gaps, func(a, b gap) int { return cmp.Compare(b.lost, a.lost) })
	var text []string
	for _, g := range gaps[:min(len(gaps), maxFaults)] {
		text = append(text, g.text)
	}
	return strings.Join(text, "\n")
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format("05.000")
}

// ExactlyOnce returns an error that names each flow that was not answered, was answered by another node than owner
// returns (also by one that sent no more than a reset), was refused, or one of whose packets was answered twice.
func (r *Report) ExactlyOnce(owner func(Flow) int) error {
	return r.check(func(e Exchange) []string {
		var faults []string
		if len(e.Answers) == 0 {
			faults = append(faults, fmt.Sprintf("not answered, node%d should (sent %d times)", owner(e.Flow)+1, e.Sent))
		}
		return append(faults, e.faults(func(f Flow, node int) bool { return owner(f) == node })...)
	})
}

// AtMostOnce returns an error that names each flow that was answered by a node that allowed forbids, was refused, or
// one of whose packets was answered twice. Answers may be missing. NoNode is always an error.
func (r *Report) AtMostOnce(allowed func(f Flow, node int) bool) error {
	return r.check(func(e Exchange) []string { return e.faults(allowed) })
}

func (e Exchange) faults(allowed func(Flow, int) bool) []string {
	var faults []string
	reported := map[string]bool{}
	report := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !reported[s] {
			reported[s] = true
			faults = append(faults, s)
		}
	}
	for _, a := range e.Answers {
		switch {
		case a.Node == NoNode || !allowed(e.Flow, a.Node):
			report("foreign answer (%s) from %s", a.Kind, a.From())
		case a.Kind == Reset || a.Kind == Unreachable:
			report("refused (%s) by %s", a.Kind, a.From())
		}
	}
	for seq, n := range e.answered() {
		if n > 1 {
			var from []string
			for _, a := range e.Answers {
				if a.Seq == seq && a.Kind != Data {
					from = append(from, fmt.Sprintf("%s (%s)", a.From(), a.Kind))
				}
			}
			report("packet %d answered %d times: %s", seq, n, strings.Join(from, ", "))
		}
	}
	sort.Strings(faults)
	return faults
}

// maxFaults bounds the length of an error; the first few show what is wrong.
const maxFaults = 10

func (r *Report) check(faults func(Exchange) []string) error {
	var errs []error
	bad := 0
	for _, e := range r.Exchanges {
		found := faults(e)
		if len(found) == 0 {
			continue
		}
		if bad++; bad <= maxFaults {
			errs = append(errs, fmt.Errorf("%s: %s", e.Flow, strings.Join(found, "; ")))
		}
	}
	if bad == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d flows are wrong:\n%w", bad, len(r.Exchanges), errors.Join(errs...))
}
