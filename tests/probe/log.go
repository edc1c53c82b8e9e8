package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
)

// Log is all that a probe saw.
type Log struct {
	Target   netip.Addr
	Interval time.Duration // between two questions of a source in the same protocol
	Start    time.Time
	Events   []Event // in the order of time
}

// header is the log's first line, for fmt.
const header = "# probe of %s every %s since %s"

// stampLayout is the time in the header.
const stampLayout = "2006-01-02T15:04:05.000000Z"

// WriteTo writes the log as text, see the package comment.
func (l *Log) WriteTo(w io.Writer) (int64, error) {
	out := bufio.NewWriter(w)
	var size int64
	line := fmt.Appendf(nil, header, l.Target, l.Interval, l.Start.UTC().Format(stampLayout))
	for i := 0; ; i++ {
		n, err := out.Write(append(line, '\n'))
		size += int64(n)
		if err != nil {
			return size, fmt.Errorf("write a probe's log: %w", err)
		}
		if i == len(l.Events) {
			break
		}
		line = l.Events[i].append(line[:0])
	}
	if err := out.Flush(); err != nil {
		return size, fmt.Errorf("write a probe's log: %w", err)
	}
	return size, nil
}

// Parse reads what WriteTo wrote.
func Parse(r io.Reader) (*Log, error) {
	in := bufio.NewScanner(r)
	if !in.Scan() {
		return nil, errors.Join(errors.New("a probe's log is empty"), in.Err())
	}
	var target, interval, start string
	if _, err := fmt.Sscanf(in.Text(), header, &target, &interval, &start); err != nil {
		return nil, fmt.Errorf("not the log of a probe: %q", in.Text())
	}
	l := &Log{}
	var errs [3]error
	l.Target, errs[0] = netip.ParseAddr(target)
	l.Interval, errs[1] = time.ParseDuration(interval)
	l.Start, errs[2] = time.Parse(stampLayout, start)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("the header of a probe's log: %w", err)
	}
	for in.Scan() {
		e, err := ParseEvent(in.Text())
		if err != nil {
			return nil, err
		}
		l.Events = append(l.Events, e)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read a probe's log: %w", err)
	}
	l.sort()
	return l, nil
}

// sort puts the events in the order of time; those of one moment stay as they were noticed.
func (l *Log) sort() {
	slices.SortStableFunc(l.Events, func(a, b Event) int { return int(a.At - b.At) })
}

// Sources returns the addresses that asked, in order.
func (l *Log) Sources() []netip.Addr {
	asked := map[netip.Addr]bool{}
	for _, e := range l.Events {
		if e.Source.IsValid() && e.Number != 0 {
			asked[e.Source] = true
		}
	}
	sources := make([]netip.Addr, 0, len(asked))
	for a := range asked {
		sources = append(sources, a)
	}
	slices.SortFunc(sources, netip.Addr.Compare)
	return sources
}

// Of returns the events of one kind.
func (l *Log) Of(k Kind) []Event {
	var events []Event
	for _, e := range l.Events {
		if e.Kind == k {
			events = append(events, e)
		}
	}
	return events
}

// MadeTo returns to which node the connection of an event was made, and when; Unknown if the log does not show it.
func (l *Log) MadeTo(of Event) (node string, at time.Duration) {
	node = Unknown
	for _, e := range l.Events {
		if e.At > of.At {
			break
		}
		if e.Source != of.Source || e.Proto != of.Proto {
			continue
		}
		// There is an event for it. A connection that sends no request is made by its question's answer.
		if of.Proto == Stream && e.Kind == Open || of.Proto == Connect && (e.Kind == Open || e.Kind == Answer) && e.Number == of.Number {
			node, at = e.Node, e.At
		}
	}
	return node, at
}

// Between returns what happened in a part of the time, as the log of a probe that was started at its beginning. The questions keep their
// numbers.
func (l *Log) Between(from, to time.Duration) *Log {
	part := &Log{Target: l.Target, Interval: l.Interval, Start: l.Start.Add(from)}
	for _, e := range l.Events {
		if e.asked() >= from && e.At <= to {
			e.At -= from
			part.Events = append(part.Events, e)
		}
	}
	return part
}

// resolves returns whether the event ends a question, as exactly one does for each.
func (e Event) resolves() bool { return e.Kind == Answer || e.Kind == Lost || e.Kind == Refused }

// asked returns when the event's question was asked.
func (e Event) asked() time.Duration { return e.At - e.After }
