package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Proto is how a question is asked.
type Proto uint8

// The protocols, see the package comment.
const (
	ICMP Proto = 1 + iota
	UDP
	Connect
	Stream
)

// Protos are all of them.
func Protos() []Proto { return []Proto{ICMP, UDP, Connect, Stream} }

var protoNames = []string{none, "icmp", "udp", "connect", "stream"}

func (p Proto) String() string { return protoNames[p] }

// Kind is what an event is.
type Kind uint8

// The kinds of events, see the package comment.
const (
	Mark Kind = iota
	Answer
	Lost
	Refused
	Late
	Duplicate
	WrongMAC
	Open
	Stalled
	Broken
)

var kindNames = []string{"mark", "answer", "lost", "refused", "late", "duplicate", "wrong-mac", "open", "stalled", "broken"}

func (k Kind) String() string { return kindNames[k] }

// Unknown stands for the node where a MAC is that of none.
const Unknown = "?"

// Event is one line of a log. Times are multiples of a microsecond.
type Event struct {
	At     time.Duration // since the start
	After  time.Duration // since the question was asked
	Source netip.Addr    // the client's; not valid where it does not apply
	Node   string        // who answered or broke; empty where it does not apply
	Text   string
	Number uint32 // of the question, from 1 for each source and protocol; 0 where it does not apply
	Kind   Kind
	Proto  Proto // 0 where it does not apply
}

// none stands for what does not apply.
const none = "-"

// String returns the event's line.
func (e Event) String() string { return string(e.append(nil)) }

func (e Event) append(b []byte) []byte {
	source, number, node, after := none, none, none, none
	if e.Source.IsValid() {
		source = e.Source.String()
	}
	if e.Number != 0 {
		number, after = strconv.FormatUint(uint64(e.Number), 10), seconds(e.After)
	}
	if e.Node != "" {
		node = e.Node
	}
	b = fmt.Appendf(b, "%11s %-9s %-7s %-15s %-4s %-6s %-8s %s", seconds(e.At), e.Kind, e.Proto, source, number, node, after, e.Text)
	for b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	return b
}

func seconds(d time.Duration) string {
	return fmt.Sprintf("%d.%06d", d/time.Second, d%time.Second/time.Microsecond)
}

// ParseEvent reads an event's line.
func ParseEvent(line string) (Event, error) {
	e, err := parseEvent(line)
	if err != nil {
		return Event{}, fmt.Errorf("not an event of a probe: %q: %w", line, err)
	}
	return e, nil
}

func parseEvent(line string) (Event, error) {
	var fields [7]string
	rest := line
	for i := range fields {
		fields[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	e := Event{Text: clean(rest)}
	var err error
	if e.At, err = parseSeconds(fields[0]); err != nil {
		return e, err
	}
	kind, proto := slices.Index(kindNames, fields[1]), slices.Index(protoNames, fields[2])
	if kind < 0 || proto < 0 {
		return e, fmt.Errorf("unknown kind %q or protocol %q", fields[1], fields[2])
	}
	e.Kind, e.Proto = Kind(kind), Proto(proto)
	if fields[3] != none {
		if e.Source, err = netip.ParseAddr(fields[3]); err != nil {
			return e, err
		}
	}
	if fields[4] != none {
		number, err := strconv.ParseUint(fields[4], 10, 32)
		if err != nil {
			return e, err
		}
		e.Number = uint32(number)
	}
	if fields[5] != none {
		e.Node = fields[5]
	}
	if fields[6] != none {
		e.After, err = parseSeconds(fields[6])
	}
	return e, err
}

func parseSeconds(s string) (time.Duration, error) {
	whole, fraction, ok := strings.Cut(s, ".")
	if !ok || len(fraction) != 6 {
		return 0, fmt.Errorf("%q is not a number of seconds with six decimals", s)
	}
	const longest = 1 << 32 // seconds; keeps the sum in range
	w, err := strconv.ParseUint(whole, 10, 32)
	if err != nil || w >= longest {
		return 0, fmt.Errorf("%q is not a number of seconds: %w", s, err)
	}
	f, err := strconv.ParseUint(fraction, 10, 32)
	return time.Duration(w)*time.Second + time.Duration(f)*time.Microsecond, err
}

// clean makes a text fit for a line's end.
func clean(text string) string { return strings.Join(strings.Fields(text), " ") }

// word makes a name fit for a line's field.
func word(name string) string {
	if name = strings.Join(strings.Fields(name), "_"); name == none {
		return "_"
	}
	return name
}
