package plan

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ocf-clusterip/internal/operator/style"
	"ocf-clusterip/internal/text"
)

// WriteText writes the plan for people.
func (p *Plan) WriteText(to io.Writer, look style.Style) error {
	w := &writer{style: look}
	w.line("%s, %s: %s", Counted(p.nodes, "node"), Counted(p.Buckets, "bucket"), shares(p.Outcomes[0]))
	p.writeOutcomes(w)
	p.writeFailures(w)
	if p.Clients != nil {
		p.writeClients(w)
	}
	p.writeCost(w)
	p.writeCommands(w)
	_, err := io.WriteString(to, w.text.String())
	return err
}

func (p *Plan) writeOutcomes(w *writer) {
	w.title("When nodes fail at once, whichever they are")
	t := table{{"FAILED", "LEFT", "BUCKETS ON A NODE", "LARGEST SHARE", "OF EVEN", "OF NOW"}}
	for _, o := range p.Outcomes {
		b := o.ByBuckets
		t.row(fmt.Sprint(o.Failed), fmt.Sprint(o.Left), shares(o), percent(b.Share), times(b.OfEven), times(b.OfNow))
	}
	w.table(t)
	w.prose("LARGEST SHARE: of all buckets on one node; OF EVEN: relative to an even share of the remaining nodes; OF NOW: relative to an " +
		"even share of all nodes. Only the buckets of failed nodes move.")
	if !p.knowsRequests() {
		p.writeWorst(w)
	}
}

func (p *Plan) writeWorst(w *writer) {
	if len(p.Outcomes) > 1 {
		w.prose(p.worst())
	}
}

// worst describes the highest load of a remaining node.
func (p *Plan) worst() string {
	room, which := p.Headroom(), ""
	if p.isSampled() {
		which = " of those tried"
	}
	return fmt.Sprintf("Worst case%s: a remaining node carries %s times an even share of now, so load no node above %s of its capacity.",
		which, times(1/room), wholePercent(room))
}

// writeFailures lists each failure, unless the list is too long or too wide.
func (p *Plan) writeFailures(w *writer) {
	const most = 40
	if p.FailuresLeft > 0 || len(p.Failures) == 0 || len(p.Failures) > most {
		return
	}
	t := table{append([]string{"FAILED"}, p.Nodes...)}
	row := []string{"none"}
	for _, count := range p.before.Counts(p.nodes) {
		row = append(row, fmt.Sprint(count))
	}
	t.row(row...)
	for _, failure := range p.Failures {
		row := []string{strings.Join(failure.Failed, ", ")}
		for _, node := range p.Nodes {
			if count, up := failure.Counts[node]; up {
				row = append(row, fmt.Sprint(count))
			} else {
				row = append(row, "-")
			}
		}
		t.row(row...)
	}
	if t.width() > w.style.Width {
		return
	}
	w.title("Buckets on each node")
	w.table(t)
}

func (p *Plan) writeClients(w *writer) {
	c := p.Clients
	w.title("Clients in " + c.Source)
	ipv4, ipv6 := c.IPv4, c.IPv6
	known := Counted(ipv4+ipv6, "client")
	if ipv6 > 0 && ipv4 > 0 {
		known += fmt.Sprintf(" (%s of IPv4, %s of IPv6)", grouped(ipv4), grouped(ipv6))
	}
	if !c.All {
		known = "more than " + known
	}
	w.prose(fmt.Sprintf("%s, %s, %s.", Counted(int(c.Lines), "line"), Counted(int(c.Requests), "request"), known))
	if !c.All {
		w.prose(fmt.Sprintf("All requests are counted, but only the first %s clients, to limit memory.", grouped(ipv4+ipv6)))
	}
	if ipv4 > 0 && c.Prefix4 < net.IPv4len*8 {
		w.prose(fmt.Sprintf("For IPv4, each network of /%d counts as one client.", c.Prefix4))
	}
	if ipv6 > 0 && c.Prefix6 < net.IPv6len*8 {
		w.prose(fmt.Sprintf("For IPv6, each network of /%d counts as one client.", c.Prefix6))
	}
	if c.Without > 0 {
		w.prose(fmt.Sprintf("Skipped: %s without an address.", Counted(int(c.Without), "line")))
	}
	if c.Unfit > 0 {
		w.prose(fmt.Sprintf("Skipped: %s whose first address cannot be a client's (loopback, multicast).", Counted(int(c.Unfit), "line")))
	}
	if c.Astray > 0 {
		w.prose(fmt.Sprintf("Skipped: %s of clients whose IP version no shared address has.", Counted(int(c.Astray), "line")))
	}
	if !p.knowsRequests() {
		return
	}
	p.writeNodes(w)
	p.writeBuckets(w)
	p.writeBurdens(w)
	p.writeHeaviest(w)
}

// writeNodes is a table with a bar for each node's requests.
func (p *Plan) writeNodes(w *writer) {
	c := p.Clients
	t := table{{"NODE", "BUCKETS", "CLIENTS", "REQUESTS", "SHARE", "OF EVEN"}}
	most := 0.0
	for _, n := range c.ByNode {
		t.row(n.Node, fmt.Sprint(n.Buckets), grouped(n.Clients), grouped(int(n.Requests)), percent(n.Share), times(n.OfEven))
		most = max(most, n.OfEven)
	}
	room := min(w.style.Width-t.width()-gap, widestBar)
	lines := t.lines()
	for i, line := range lines {
		if i > 0 && room >= narrowestBar {
			ofEven := c.ByNode[i-1].OfEven
			line += strings.Repeat(" ", gap+t.width()-utf8.RuneCountInString(line)) + w.coloured(bar(ofEven/max(most, 1), room), ofEven)
		}
		w.line("%s", strings.TrimRight(line, " "))
	}
	w.line("")
}

const (
	gap          = 2 // columns between columns
	widestBar    = 40
	narrowestBar = 8
)

// inLine divides the number of buckets in a line, so that they are easy to count.
const inLine = 16

// writeBuckets is a histogram of the requests of each bucket.
func (p *Plan) writeBuckets(w *writer) {
	weights := requestsOf(p.Clients.ByBucket)
	most, least := slices.Max(weights), slices.Min(weights)
	label := len(fmt.Sprint(len(weights) - 1))
	perLine := (w.style.Width - label - gap) / inLine * inLine
	w.prose(fmt.Sprintf("Requests of each bucket: at most %s (bucket %d), at least %s (bucket %d), on average "+
		"%s.", grouped(int(most)), slices.Index(weights, most),
		grouped(int(least)), slices.Index(weights, least), average(p.Clients.Requests, len(weights))))
	number := 0
	for part := range slices.Chunk(weights, max(inLine, perLine)) {
		var columns strings.Builder
		for _, weight := range part {
			columns.WriteString(column(float64(weight) / float64(max(1, most))))
		}
		w.line("%s", strings.TrimRight(fmt.Sprintf("%*d%s%s", label, number, strings.Repeat(" ", gap), columns.String()), " "))
		number += len(part)
	}
	w.line("")
}

// writeBurdens is a table of the highest loads after failures.
func (p *Plan) writeBurdens(w *writer) {
	t := table{{"FAILED", "WORST SHARE", "OF EVEN", "OF NOW", "TYPICAL", "ON", "WHEN THESE FAIL"}}
	var remarks strings.Builder
	for _, o := range p.Outcomes {
		b := o.ByClients
		failed := strings.Join(b.Failed, ", ")
		if failed == "" {
			failed = "none"
		}
		t.row(fmt.Sprint(o.Failed), percent(b.Share), times(b.OfEven), times(b.OfNow), times(b.TypicalEven), b.Node, failed)
		if o.Tried < o.Failures {
			fmt.Fprintf(&remarks, " Of the %s ways in which %d nodes can fail, %s were tried.", grouped(o.Failures), o.Failed, grouped(o.Tried))
		}
	}
	w.line("Requests of the most loaded node, when nodes fail at once")
	w.table(t)
	w.prose("TYPICAL: OF EVEN in the median failure." + remarks.String())
	p.writeWorst(w)
}

func (p *Plan) writeHeaviest(w *writer) {
	c := p.Clients
	t := table{{"HEAVIEST", "REQUESTS", "SHARE", "BUCKET", "NODE"}}
	for _, h := range c.Heaviest {
		t.row(h.Client, grouped(int(h.Requests)), percent(h.Share), fmt.Sprint(h.Bucket), h.Node)
	}
	w.line("")
	w.table(t)
	w.prose(c.Reseed.words(c))
}

// words are the advice on the seed.
func (s SeedAdvice) words(c *Clients) string {
	now := fmt.Sprintf("The seed: one node has %s even shares of the requests. ", times(s.OfEven))
	heaviest := fmt.Sprintf("the %d heaviest send %s", weighty, percent(s.Heavy))
	if known := c.IPv4 + c.IPv6; known <= weighty {
		heaviest = fmt.Sprintf("there are only %d", known)
	}
	switch s.Result {
	case Even:
		return fmt.Sprintf("The seed is good: no node has more than %s even shares of the requests. Another seed would not stay "+
			"better.", times(s.OfEven))
	case OneClient:
		return now + fmt.Sprintf("%s alone sends %s of them, more than a node's share, and no seed divides a client.",
			c.Heaviest[0].Client, percent(c.Heaviest[0].Share))
	case Chance:
		return now + fmt.Sprintf("That is chance, not caused by a few clients: %s. Another seed has other chances; more buckets do not help "+
			"either.", heaviest)
	case Better:
		return now + fmt.Sprintf("A few clients cause that: %s. With hash_seed=%s it would be %s, the best of %d seeds. "+
			"Change it only if these clients stay the heaviest: all buckets must stop for it.", heaviest, s.Seed, times(s.Then), seedsTried)
	case NoBetter:
		return now + fmt.Sprintf("A few clients cause that: %s. None of %d other seeds spreads them much better.", heaviest, seedsTried)
	default:
		return ""
	}
}

func (p *Plan) writeCost(w *writer) {
	w.title("How many buckets")
	t := table{{"BUCKETS", "OF EVEN", "OF NOW", "MONITORS/S: NODE", "CLUSTER", ""}}
	for _, choice := range p.Advice.Choices {
		var remarks []string
		if choice.Buckets == p.Advice.Buckets {
			remarks = append(remarks, "recommended")
		}
		if choice.Buckets == p.Buckets {
			remarks = append(remarks, "planned here")
		}
		t.row(fmt.Sprint(choice.Buckets), times(choice.OfEven), times(choice.OfNow), rate(choice.Cost.OnNode), rate(choice.Cost.InCluster),
			strings.Join(remarks, ", "))
	}
	w.table(t)
	var intervals []string
	for _, monitor := range p.Monitors {
		intervals = append(intervals, fmt.Sprintf("every %vs (OCF_CHECK_LEVEL=%s)", monitor.Seconds, monitor.Level))
	}
	when := "while no node fails"
	if fail := len(p.Outcomes) - 1; fail > 0 {
		when = "in the worst failure of up to " + Counted(fail, "node")
	}
	w.prose(fmt.Sprintf("OF EVEN, OF NOW: %s. Monitors run %s.", when, strings.Join(intervals, " and ")))
	w.prose("Choose the number for the most nodes that you will ever have: to change it, all buckets must stop.")
}

func (p *Plan) writeCommands(w *writer) {
	w.title("Commands to create it")
	for _, command := range p.Commands.Create {
		w.line("%s", command)
	}
	w.line("")
	w.line("or, to change the number of buckets of an existing one:")
	for _, command := range p.Commands.Change {
		w.line("%s", command)
	}
	if p.Secret != "" {
		w.line("")
		w.prose("The address is public, and the seed can be guessed: by default it follows from the address. Who knows the seed can choose " +
			"source addresses whose packets all reach one node. A random seed, for the first command:")
		w.line("hash_seed=%s", p.Secret)
	}
}

// A writer collects the text.
type writer struct {
	text  strings.Builder
	style style.Style
}

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(&w.text, format+"\n", args...)
}

func (w *writer) title(text string) {
	w.line("\n%s", w.style.Paint(style.Bold, text))
}

// readable is how many columns are easy to read.
const readable = 100

// prose writes a text as lines.
func (w *writer) prose(prose string) {
	w.line("%s", text.Wrap(prose, "", min(w.style.Width, readable)))
}

func (w *writer) table(t table) {
	for _, line := range t.lines() {
		w.line("%s", line)
	}
}

// coloured returns a bar in the colour of its load.
func (w *writer) coloured(bar string, ofEven float64) string {
	const tooMuch = 1.5
	switch {
	case ofEven > tooMuch:
		return w.style.Paint(style.Red, bar)
	case ofEven > tolerable:
		return w.style.Paint(style.Yellow, bar)
	default:
		return w.style.Paint(style.Green, bar)
	}
}

// bar draws a part of a whole, in eighths of a column.
func bar(part float64, columns int) string {
	const eighths = "▏▎▍▌▋▊▉█"
	n := int(part*float64(columns)*8 + 0.5)
	text := strings.Repeat("█", n/8)
	if rest := n % 8; rest > 0 {
		text += string([]rune(eighths)[rest-1])
	}
	return text
}

// column draws a part of a whole, as high as a line.
func column(part float64) string {
	const eighths = "▁▂▃▄▅▆▇█"
	n := int(part*8 + 0.5)
	if n == 0 && part == 0 {
		return " "
	}
	return string([]rune(eighths)[max(n, 1)-1])
}

// A table aligns words on the left of their columns, and numbers on the right.
type table [][]string

func (t *table) row(cells ...string) { *t = append(*t, cells) }

func (t table) widths() []int {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

func (t table) width() int {
	sum := -gap
	for _, width := range t.widths() {
		sum += width + gap
	}
	return sum
}

func (t table) lines() []string {
	widths := t.widths()
	lines := make([]string, len(t))
	for i, row := range t {
		var b strings.Builder
		for j, cell := range row {
			space := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if t.isNumeric(j) {
				cell = space + cell
			} else {
				cell += space
			}
			if j > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			b.WriteString(cell)
		}
		lines[i] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

// isNumeric reports whether a column has only numbers below its head.
func (t table) isNumeric(column int) bool {
	for _, row := range t[1:] {
		number := strings.NewReplacer(",", "", "%", "").Replace(row[column])
		if _, err := strconv.ParseFloat(number, 64); err != nil && number != "-" {
			return false
		}
	}
	return true
}

// shares returns how many buckets nodes own.
func shares(o Outcome) string {
	if o.MostOn == o.Left {
		return fmt.Sprintf("%d on each", o.Most)
	}
	return fmt.Sprintf("%d on %d, %d on %d", o.Most, o.MostOn, o.Least, o.Left-o.MostOn)
}

// Counted returns a number with its noun.
func Counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return grouped(n) + " " + what + "s"
}

// grouped returns a number with a comma before each three digits.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func average(sum uint64, of int) string {
	const exact = 100 // and more needs no decimals
	if mean := float64(sum) / float64(of); mean < exact {
		return fmt.Sprintf("%.1f", mean)
	}
	return grouped(int(sum) / of)
}

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

func wholePercent(share float64) string { return fmt.Sprintf("%d%%", int(100*share)) }

func times(factor float64) string { return fmt.Sprintf("%.2f", factor) }

func rate(perSecond float64) string { return fmt.Sprintf("%.2f", perSecond) }
