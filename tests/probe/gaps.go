package probe

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The time around a move in which a bucket's answers are looked at.
const (
	// straggle is for how long the old owner's answers belong to the move: a connection that was made before sends its request within the
	// time that a question may take.
	straggle = time.Second
	around   = time.Second // before the first answer of the new owner, and behind the last one of the old owner
)

// Gap is how long the clients of a bucket asked in vain, at most, while the bucket moved: the longest time from the first question behind
// an answer until the next answer on the wire. So a time in which nobody asked, as on a busy machine, does not count. Streams do not count
// either: their answers may be the old owner's for long.
type Gap struct {
	Bucket   int
	From, To string        // nodes
	At       time.Duration // of the new owner's first answer
	Length   time.Duration
}

// Gaps returns the gap of each move of a bucket, in the order of time: of each change of the node that answers. For comparison it returns
// the gaps at the same times of the buckets that did not move then.
func (l *Log) Gaps(bucket func(netip.Addr) int) (moved, still []Gap) {
	answers, asked := map[int][]Event{}, map[int][]time.Duration{}
	for _, e := range l.Events {
		if e.Proto == Stream {
			continue
		}
		if b := bucket(e.Source); e.Kind == Answer || e.Kind == Late {
			answers[b] = append(answers[b], e)
		}
		if e.resolves() {
			asked[bucket(e.Source)] = append(asked[bucket(e.Source)], e.asked())
		}
	}
	for b := range asked {
		slices.Sort(asked[b])
	}
	type window struct {
		Gap
		from, to time.Duration
	}
	var windows []window
	for b, events := range answers {
		owner := events[0].Node
		for i := 0; i < len(events); i++ {
			if events[i].Node == owner {
				continue
			}
			first, last := i, i
			for ; i+1 < len(events) && events[i+1].At-events[first].At <= straggle; i++ {
				if events[i+1].Node == owner {
					last = i + 1
				}
			}
			w := window{Gap: Gap{Bucket: b, From: owner, To: events[first].Node, At: events[first].At}}
			w.from, w.to = min(w.At-around, events[first-1].At), events[last].At+around
			w.Length = longestSilence(events, asked[b], w.from, w.to)
			owner = w.To
			windows = append(windows, w)
		}
	}
	slices.SortFunc(windows, func(a, b window) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Bucket, b.Bucket)) })
	for _, w := range windows {
		moved = append(moved, w.Gap)
		for _, b := range slices.Sorted(maps.Keys(answers)) {
			moves := slices.ContainsFunc(windows, func(o window) bool { return o.Bucket == b && o.from < w.to && o.to > w.from })
			if !moves {
				still = append(still, Gap{Bucket: b, At: w.At, Length: longestSilence(answers[b], asked[b], w.from, w.to)})
			}
		}
	}
	return moved, still
}

// longestSilence is the longest time from a question until the next answer, of those that overlap a part of the time.
func longestSilence(answers []Event, asked []time.Duration, from, to time.Duration) (longest time.Duration) {
	next, _ := slices.BinarySearchFunc(answers, from, func(e Event, at time.Duration) int { return cmp.Compare(e.At, at) })
	for i := max(next, 1); i < len(answers) && answers[i-1].At < to; i++ {
		first, _ := slices.BinarySearch(asked, answers[i-1].At+1)
		if first < len(asked) {
			longest = max(longest, answers[i].At-asked[first])
		}
	}
	return longest
}

// Quantile is the shortest gap that so large a part of the gaps does not exceed: 0.5 is the median.
func Quantile(gaps []Gap, part float64) time.Duration {
	if len(gaps) == 0 {
		return 0
	}
	lengths := sortedLengths(gaps)
	return lengths[max(int(math.Ceil(part*float64(len(lengths))))-1, 0)]
}

func sortedLengths(gaps []Gap) []time.Duration {
	lengths := make([]time.Duration, len(gaps))
	for i, g := range gaps {
		lengths[i] = g.Length
	}
	slices.Sort(lengths)
	return lengths
}

// gapSteps are the limits of the distribution's lines.
func gapSteps() []time.Duration {
	var steps []time.Duration
	for decade := time.Millisecond; decade <= time.Second; decade *= 10 {
		steps = append(steps, decade, 2*decade, 5*decade)
	}
	return append(steps, math.MaxInt64)
}

// Distribution prints gaps: the median and others, and how many are how long.
func Distribution(name string, gaps []Gap) string {
	var b strings.Builder
	millis := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }
	fmt.Fprintf(&b, "%d %s: median %s, 90 %% %s, longest %s\n", len(gaps), name, millis(Quantile(gaps, 0.5)), millis(Quantile(gaps, 0.9)),
		millis(Quantile(gaps, 1)))
	lengths := sortedLengths(gaps)
	const width = 60 // of the longest bar
	for _, step := range gapSteps() {
		count, _ := slices.BinarySearchFunc(lengths, step, cmp.Compare[time.Duration])
		if count == 0 {
			continue
		}
		limit := "longer"
		if step != math.MaxInt64 {
			limit = "< " + step.String()
		}
		fmt.Fprintf(&b, "  %7s %5d %s\n", limit, count, strings.Repeat("#", (count*width+len(gaps)-1)/len(gaps)))
		lengths = lengths[count:]
	}
	return b.String()
}
