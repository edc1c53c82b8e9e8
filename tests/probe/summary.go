package probe

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Counts are numbers of questions, and of what was seen besides.
type Counts struct {
	Asked, Answered, Lost, Refused int // Asked is the sum of the others
	Late                           int // of those lost: answered after they were lost
	Duplicates, WrongMAC           int // frames; WrongMAC in Total has ARP too
	Broken, Stalled                int // connections of streams and of Connect; requests of streams
}

// Unanswered is the number of questions that nobody answered, however late.
func (c Counts) Unanswered() int { return c.Lost - c.Late }

// Outage is a time in which a source had no answer in one protocol: from the asking of the first question that was lost,
// refused or stalled until the first answer. A single lost packet makes an outage of one interval.
type Outage struct {
	Source   netip.Addr
	Proto    Proto
	From, To time.Duration // since the start
	Failed   int           // questions
	Open     bool          // it had not ended when the log did; To is the log's end
}

// Length is how long it was.
func (o Outage) Length() time.Duration { return o.To - o.From }

// Effect is what the clients felt of a marked event, until the next: of each source its longest outage in any protocol.
type Effect struct {
	Text        string        // of the mark; empty for what was before the first
	At          time.Duration // since the start
	Max, Median time.Duration // Median is that of the affected sources
	Sources     int           // affected
	// Longest is the longest outage in each protocol. That of Stream is longer than the others, for TCP waits ever longer
	// before it repeats a segment.
	Longest map[Proto]time.Duration
	Open    int // sources with an outage that had not ended when the log did
}

// Summary is a log in numbers.
type Summary struct {
	Target   netip.Addr
	Interval time.Duration
	Length   time.Duration
	Sources  int
	Protos   map[Proto]Counts
	Total    Counts
	// Answered counts each node's answers.
	Answered map[string]int
	// Outages are those of each source, in the order of time.
	Outages map[netip.Addr][]Outage
	Effects []Effect
}

// Summary sums the log up.
func (l *Log) Summary() *Summary {
	s := &Summary{
		Target: l.Target, Interval: l.Interval, Sources: len(l.Sources()),
		Protos: map[Proto]Counts{}, Answered: map[string]int{}, Outages: map[netip.Addr][]Outage{},
	}
	if n := len(l.Events); n > 0 {
		s.Length = l.Events[n-1].At
	}
	for _, e := range l.Events {
		if e.Kind == Answer {
			s.Answered[e.Node]++
		}
		counts := s.Protos[e.Proto]
		counts.count(e.Kind)
		if e.Proto != 0 {
			s.Protos[e.Proto] = counts
		}
		s.Total.count(e.Kind)
	}
	for _, o := range l.outages(s.Length) {
		s.Outages[o.Source] = append(s.Outages[o.Source], o)
	}
	s.effects(l.Of(Mark))
	return s
}

func (c *Counts) count(k Kind) {
	switch k {
	case Answer:
		c.Asked++
		c.Answered++
	case Lost:
		c.Asked++
		c.Lost++
	case Refused:
		c.Asked++
		c.Refused++
	case Late:
		c.Late++
	case Duplicate:
		c.Duplicates++
	case WrongMAC:
		c.WrongMAC++
	case Broken:
		c.Broken++
	case Stalled:
		c.Stalled++
	case Mark, Open:
	}
}

// flow is one source with one protocol.
type flow struct {
	source netip.Addr
	proto  Proto
}

// questions returns how each question ended, for each flow in the order of asking.
func (l *Log) questions() map[flow][]Event {
	questions := map[flow][]Event{}
	for _, e := range l.Events {
		if e.resolves() {
			f := flow{e.Source, e.Proto}
			questions[f] = append(questions[f], e)
		}
	}
	for _, list := range questions {
		slices.SortFunc(list, func(a, b Event) int { return cmp.Compare(a.Number, b.Number) })
	}
	return questions
}

// outages returns all outages, in the order of time.
func (l *Log) outages(end time.Duration) []Outage {
	type name struct {
		flow
		number uint32
	}
	stalled := map[name]bool{}
	for _, e := range l.Of(Stalled) {
		stalled[name{flow{e.Source, e.Proto}, e.Number}] = true
	}
	var outages []Outage
	for f, questions := range l.questions() {
		var now *Outage
		for _, q := range questions {
			fails := q.Kind != Answer || stalled[name{f, q.Number}]
			if fails && now == nil {
				now = &Outage{Source: f.source, Proto: f.proto, From: q.asked()}
			}
			if fails {
				now.Failed++
			}
			if q.Kind == Answer && now != nil {
				now.To = q.At
				outages = append(outages, *now)
				now = nil
			}
		}
		if now != nil {
			now.To, now.Open = end, true
			outages = append(outages, *now)
		}
	}
	slices.SortFunc(outages, func(a, b Outage) int {
		return cmp.Or(cmp.Compare(a.From, b.From), a.Source.Compare(b.Source), cmp.Compare(a.Proto, b.Proto))
	})
	return outages
}

// effects gives each outage to the last event marked before it began, or not later than one interval after: a question
// may have been under way when the event was marked.
func (s *Summary) effects(marks []Event) {
	type felt struct {
		longest map[netip.Addr]time.Duration
		protos  map[Proto]time.Duration
		open    map[netip.Addr]bool
	}
	effects := make([]felt, len(marks)+1)
	for source, outages := range s.Outages {
		for _, o := range outages {
			i, _ := slices.BinarySearchFunc(marks, o.From+s.Interval, func(m Event, at time.Duration) int {
				if m.At <= at {
					return -1
				}
				return 1
			})
			e := &effects[i]
			if e.longest == nil {
				*e = felt{map[netip.Addr]time.Duration{}, map[Proto]time.Duration{}, map[netip.Addr]bool{}}
			}
			e.longest[source] = max(e.longest[source], o.Length())
			e.protos[o.Proto] = max(e.protos[o.Proto], o.Length())
			if o.Open {
				e.open[source] = true
			}
		}
	}
	for i, e := range effects {
		effect := Effect{Sources: len(e.longest), Open: len(e.open), Longest: e.protos}
		if i > 0 {
			effect.Text, effect.At = marks[i-1].Text, marks[i-1].At
		} else if effect.Sources == 0 {
			continue
		}
		if lengths := slices.Sorted(maps.Values(e.longest)); len(lengths) > 0 {
			effect.Max = lengths[len(lengths)-1]
			effect.Median = (lengths[(len(lengths)-1)/2] + lengths[len(lengths)/2]) / 2
		}
		s.Effects = append(s.Effects, effect)
	}
}

// Longest returns the longest outage of all, if there was one.
func (s *Summary) Longest() (longest Outage, ok bool) {
	for _, outages := range s.Outages {
		for _, o := range outages {
			if !ok || o.Length() > longest.Length() {
				longest, ok = o, true
			}
		}
	}
	return longest, ok
}

// String returns tables for a terminal.
func (s *Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sources asked %s for %.1f s, every %s\n\n", s.Sources, s.Target, s.Length.Seconds(), s.Interval)
	s.countTable(&b)
	b.WriteByte('\n')
	s.nodeTable(&b)
	if len(s.Effects) > 0 {
		b.WriteByte('\n')
		s.effectTable(&b)
	}
	return b.String()
}

// line is the most important in one line.
func (s *Summary) line() string {
	t := s.Total
	line := fmt.Sprintf("%d questions, %d answered twice, %d wrong MAC, %d lost, %d refused, %d connections broken",
		t.Asked, t.Duplicates, t.WrongMAC, t.Lost, t.Refused, t.Broken)
	if longest, ok := s.Longest(); ok {
		line += fmt.Sprintf(", longest outage %.1f s", longest.Length().Seconds())
	}
	return line
}

func (s *Summary) countTable(b *strings.Builder) {
	rows := [][]any{{"", "asked", "answered", "lost", "refused", "late", "duplicate", "wrong MAC", "broken", "stalled", ""}}
	row := func(name string, c Counts) {
		rows = append(rows, []any{
			name, c.Asked, c.Answered, c.Lost, c.Refused, c.Late, c.Duplicates, c.WrongMAC, c.Broken, c.Stalled, "",
		})
	}
	for _, p := range slices.Sorted(maps.Keys(s.Protos)) {
		row(p.String(), s.Protos[p])
	}
	row("all", s.Total)
	table(b, rows)
}

func (s *Summary) nodeTable(b *strings.Builder) {
	rows := [][]any{{"", "answers", "share", ""}}
	for _, node := range slices.Sorted(maps.Keys(s.Answered)) {
		n := s.Answered[node]
		rows = append(rows, []any{node, n, fmt.Sprintf("%.1f %%", 100*float64(n)/float64(s.Total.Answered)), ""})
	}
	table(b, rows)
}

func (s *Summary) effectTable(b *strings.Builder) {
	protos := slices.Sorted(maps.Keys(s.Protos))
	head := []any{"at", "longest outage", "median", "sources"}
	for _, p := range protos {
		head = append(head, p)
	}
	rows := [][]any{append(head, "  event")}
	length := func(d time.Duration) string {
		if d == 0 {
			return none
		}
		return fmt.Sprintf("%.3f s", d.Seconds())
	}
	for _, e := range s.Effects {
		row := []any{fmt.Sprintf("%.3f s", e.At.Seconds()), length(e.Max), length(e.Median), fmt.Sprintf("%d of %d", e.Sources, s.Sources)}
		for _, p := range protos {
			row = append(row, length(e.Longest[p]))
		}
		text := cmp.Or(e.Text, "(before the first event)")
		if e.Open > 0 {
			text += fmt.Sprintf(" [%d sources still without answers at the end]", e.Open)
		}
		rows = append(rows, append(row, "  "+text))
	}
	table(b, rows)
}

// table writes columns that end on the right, but for the last, which is not padded.
func table(b *strings.Builder, rows [][]any) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = fmt.Sprint(cell)
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // to memory
	}
	_ = w.Flush()
}
