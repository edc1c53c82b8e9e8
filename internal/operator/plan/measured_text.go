package plan

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"ocf-clusterip/internal/operator/style"
)

// WriteText writes the plan for people.
func (m *Measured) WriteText(to io.Writer, look style.Style) error {
	w := &writer{style: look}
	unit := "totals"
	perSecond := ""
	if m.Rates {
		unit, perSecond = fmt.Sprintf("rates over %.0f s", m.Seconds), "/S"
	}
	name := m.Address
	if m.Resource != "" {
		name = m.Resource + ", " + name
	}
	w.line("%s: %s on %s, %s", name, Counted(m.hash.Buckets, "bucket"), Counted(len(m.names), "node"), unit)
	for _, note := range m.Notes {
		w.prose(note)
	}

	w.title("Nodes")
	even := float64(len(m.names))
	nodes := table{{"NODE", "BUCKETS", "PACKETS" + perSecond, "SHARE", "OF EVEN", "BYTES" + perSecond, "SHARE", "OF EVEN"}}
	for _, n := range m.Nodes {
		nodes.row(n.Node, fmt.Sprint(n.Buckets), load(n.Traffic.Packets), percent(n.Share.Packets), times(n.Share.Packets*even),
			load(n.Traffic.Bytes), percent(n.Share.Bytes), times(n.Share.Bytes*even))
	}
	w.table(nodes)
	m.writeBuckets(w, perSecond)

	m.writeFailures(w)

	m.writeAdvice(w)
	_, err := io.WriteString(to, w.text.String())
	return err
}

func (m *Measured) writeAdvice(w *writer) {
	if len(m.Finer) == 0 {
		return
	}
	w.title("With more buckets, in the worst of these failures or without one")
	finer := table{{"BUCKETS", "OF EVEN: AT BEST", "AT WORST", "BYTES: AT BEST", "AT WORST"}}
	for _, f := range m.Finer {
		finer.row(fmt.Sprint(f.Buckets), times(f.Best.Packets), times(f.Worst.Packets), times(f.Best.Bytes), times(f.Worst.Bytes))
	}
	w.table(finer)
	w.prose("AT BEST: the packets of each bucket of today divide evenly; AT WORST: they are all of one client.")
	w.title("Advice")
	for _, advice := range m.Advice {
		w.prose(advice)
	}
}

func (m *Measured) writeFailures(w *writer) {
	if len(m.Failures) == 0 {
		return
	}
	w.title("When nodes fail, with this load")
	losses := table{{"FAILED", "MOVES", "LARGEST SHARE", "OF EVEN", "ON", "BYTES: MOVES", "LARGEST SHARE", "OF EVEN"}}
	for _, f := range m.Failures {
		losses.row(strings.Join(f.Failed, ", "), percent(f.Moves.Packets), percent(f.Largest.Packets), times(f.OfEven.Packets), f.Node,
			percent(f.Moves.Bytes), percent(f.Largest.Bytes), times(f.OfEven.Bytes))
	}
	w.table(losses)
	w.prose("MOVES: of all packets, which another node then answers. LARGEST SHARE: on a remaining node; OF EVEN: relative to an even share " +
		"of the remaining nodes. Of several nodes at once, the worst failure is listed.")
}

// writeBuckets lists the buckets, the heaviest first, as many as fit on a page.
func (m *Measured) writeBuckets(w *writer, perSecond string) {
	const most = 20
	w.title("Buckets, the heaviest first")
	buckets := slices.Clone(m.Buckets)
	slices.SortStableFunc(buckets, func(a, b MeasuredBucket) int {
		return cmp.Compare(b.heaviness(), a.heaviness())
	})
	t := table{{"BUCKET", "NODE", "PACKETS" + perSecond, "OF MEAN", "BYTES" + perSecond, "OF MEAN"}}
	for _, b := range buckets[:min(most, len(buckets))] {
		node := b.Node
		if node == "" {
			node = "?"
		}
		t.row(fmt.Sprint(b.Bucket), node, load(b.Traffic.Packets), times(b.OfMean.Packets), load(b.Traffic.Bytes), times(b.OfMean.Bytes))
	}
	w.table(t)
	heavy := fmt.Sprintf("%s at least %d times the mean.", hasOrHave(len(m.Heavy)), heavyFrom)
	if left := len(buckets) - most; left > 0 {
		heavy += fmt.Sprintf(" %s not listed.", isOrAre(left))
	}
	w.prose(heavy)
}

func hasOrHave(buckets int) string {
	switch buckets {
	case 0:
		return "No bucket has"
	case 1:
		return "1 bucket has"
	}
	return Counted(buckets, "bucket") + " have"
}

func isOrAre(buckets int) string {
	if buckets == 1 {
		return "1 lighter bucket is"
	}
	return grouped(buckets) + " lighter buckets are"
}

// load writes a number of packets or bytes: small rates with a digit behind the point.
func load(value float64) string {
	const small = 100
	if value < small && value != math.Trunc(value) {
		return fmt.Sprintf("%.1f", value)
	}
	return grouped(int(math.Round(value)))
}
