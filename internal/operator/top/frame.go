package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/style"
	"ocf-clusterip/internal/text"
)

// The smallest terminal in which everything has a place.
const (
	minWidth  = 72
	minHeight = 16
)

// What a part of the frame may have of its height, as a divisor, and at least, in lines.
const (
	problemShare, minProblems   = 3, 3
	resourceShare, minResources = 6, 2
	moveShare, minMoves         = 8, 1
	errorShare, minErrors       = 8, 2
)

// layout is a frame without its buckets.
type layout struct {
	above, below []string
	lines        int // for buckets
}

// layOut shares out the lines.
func (m Model) layOut() layout {
	if m.isTooSmall() {
		return layout{}
	}
	l := layout{above: []string{m.title(), m.nodes()}}
	l.above = append(l.above, m.warning()...)
	l.above = append(l.above, m.problems()...)
	l.above = append(l.above, m.resources()...)
	l.below = m.moves()
	l.lines = len(m.rows())
	if !m.all {
		const headAndKeys = 2
		l.lines = min(l.lines, max(0, m.height-len(l.above)-len(l.below)-headAndKeys))
	}
	return l
}

// text returns the frame. No line is wider than the terminal, and there are not more than it has.
func (m Model) text() string {
	if m.isTooSmall() {
		return m.tooSmall()
	}
	l, rows := m.layOut(), m.rows()
	first := max(0, min(m.offset, len(rows)-l.lines))
	lines := append(l.above, m.table(rows, first, first+l.lines)...)
	if !m.all {
		for len(lines) < m.height-len(l.below)-1 {
			lines = append(lines, "")
		}
	}
	lines = append(lines, l.below...)
	if !m.all {
		lines = append(lines, m.keys(first, first+l.lines, len(rows)))
	}
	for i := range lines {
		lines[i] = m.cut(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (m Model) isTooSmall() bool { return !m.all && (m.width < minWidth || m.height < minHeight) }

func (m Model) tooSmall() string {
	if m.width < 1 {
		return ""
	}
	message := fmt.Sprintf("needs at least %dx%d, the terminal is %dx%d; q quits", minWidth, minHeight, m.width, m.height)
	lines := m.wrap("", message)
	return strings.Join(lines[:max(0, min(len(lines), m.height))], "\n")
}

func (m Model) paint(colour style.Colour, text string) string {
	return style.Style{Colour: m.colour}.Paint(colour, text)
}

func (m Model) cut(line string) string { return ansi.Truncate(line, m.width, "..") }

// wrap breaks a text at spaces, and a word that is wider than the terminal anywhere.
func (m Model) wrap(indent, paragraph string) []string {
	var lines []string
	for line := range strings.SplitSeq(text.Wrap(ocf.OneLine(paragraph), indent, m.width), "\n") {
		lines = append(lines, strings.Split(ansi.Hardwrap(line, max(m.width, 1), true), "\n")...)
	}
	return lines
}

// atMost cuts a part of the frame to its share of the height. The last line shows that there is more.
func (m Model) atMost(lines []string, share, least int, more string) []string {
	most := max(m.height/share, least)
	if m.all || len(lines) <= most {
		return lines
	}
	return append(slices.Clone(lines[:most-1]), more)
}

// age is how old the reading is that is shown; 0 if it is a recent one. What is old is not shown as healthy.
func (m Model) age() time.Duration {
	const patience = 3 * time.Second // for a reading of a busy node
	age := m.now.Sub(m.status.Time)
	if m.err == nil && age <= m.interval+patience {
		return 0
	}
	return max(age, 1)
}

// health returns a health for the frame. Healthy is only what was read a moment ago, and as a whole.
func (m Model) health(health operator.Health, isWhole bool) string {
	if m.age() > 0 || health == operator.Healthy && !isWhole {
		return m.paint(style.Yellow, operator.Unknown)
	}
	return m.paint(health.Colour(), health.String())
}

func (m Model) title() string {
	return fmt.Sprintf("%s: %s; %s, read at %s UTC, every %s", m.paint(style.Bold, "ocf-clusterip top"), m.health(m.status.Health, true),
		ocf.OneLine(cmp.Or(m.status.Node, "this node")), m.status.Time.UTC().Format(time.TimeOnly), m.interval)
}

func (m Model) nodes() string {
	if m.status.Cluster == nil {
		return "nodes: unknown"
	}
	var nodes []string
	for _, node := range m.status.Cluster.Nodes {
		nodes = append(nodes, node.Name+" "+node.State)
	}
	return ocf.OneLine("nodes: " + strings.Join(nodes, ", "))
}

// warning returns the lines above a frame that is old, with its age and the reason.
func (m Model) warning() []string {
	age := m.age()
	if age == 0 {
		return nil
	}
	warning := fmt.Sprintf("what follows is %.0f s old: ", age.Seconds())
	if m.err != nil {
		warning += m.err.Error()
	} else {
		warning += "the next reading has not ended"
	}
	return m.painted(style.Red, m.atMost(m.wrap("", "! "+warning), errorShare, minErrors, "! .."))
}

func (m Model) painted(colour style.Colour, lines []string) []string {
	for i := range lines {
		lines[i] = m.paint(colour, lines[i])
	}
	return lines
}

// problems lists the problems of the cluster and of all resources, the worst first, each with the command that solves it.
func (m Model) problems() []string {
	type problem struct {
		of string
		operator.Problem
	}
	var all []problem
	for _, p := range m.status.Problems {
		all = append(all, problem{"", p})
	}
	for _, r := range m.status.Resources {
		for _, p := range r.Problems {
			all = append(all, problem{nameOf(r) + ": ", p})
		}
	}
	slices.SortStableFunc(all, func(a, b problem) int { return cmp.Compare(b.Health, a.Health) })
	var lines []string
	for _, p := range all {
		lines = append(lines, m.painted(p.Health.Colour(), m.wrap("", "! "+p.of+p.Text))...)
		if p.Command != "" {
			lines = append(lines, m.wrap("  ", "$ "+p.Command)...)
		}
	}
	return m.atMost(lines, problemShare, minProblems, fmt.Sprintf("! .. (problems: %d; ocf-clusterip status shows all)", len(all)))
}

// resources has a line for each resource: its address, and what this node drops of other nodes' packets.
func (m Model) resources() []string {
	var lines []string
	for _, r := range m.status.Resources {
		isUnknown := func(b operator.BucketStatus) bool { return b.State == operator.Unknown }
		health := m.health(r.Health, !slices.ContainsFunc(r.Buckets, isUnknown))
		address := addressOf(r)
		if more := len(r.Addresses) - 1; more > 0 {
			address += fmt.Sprintf(" and %d more", more)
		}
		dropped := ", " + foreign(r)
		name := fmt.Sprintf("%s: %s %s", health, m.paint(style.Bold, nameOf(r)), address)
		lines = append(lines, ansi.Truncate(name, max(0, m.width-ansi.StringWidth(dropped)), "..")+dropped)
	}
	return m.atMost(lines, resourceShare, minResources, fmt.Sprintf(".. (resources: %d)", len(lines)))
}

// foreign returns how many packets of other nodes' buckets come here, and the share that early drop takes.
func foreign(r operator.ResourceStatus) string {
	if r.Foreign == nil {
		return "foreign packets are not counted"
	}
	packets, bytes := rates(r.Foreign)
	dropped := fmt.Sprintf("foreign %s/s (%s/s)", packets, bytes)
	if r.EarlyDropped == nil {
		return dropped + ", early drop off"
	}
	share := "-"
	if all, early := r.Foreign.PacketsPerSecond, r.EarlyDropped.PacketsPerSecond; all != nil && early != nil && *all > 0 {
		const percent = 100
		share = fmt.Sprintf("%.1f%%", min(percent, percent**early / *all))
	}
	return fmt.Sprintf("%s, %s drops %s", dropped, r.EarlyDrop, share)
}

// moves lists the last moves, the newest last.
func (m Model) moves() []string {
	if len(m.history.moves) == 0 {
		return []string{fmt.Sprintf("no bucket has moved since %s", m.history.since.UTC().Format(time.TimeOnly))}
	}
	most := len(m.history.moves)
	if !m.all {
		most = min(most, max(m.height/moveShare, minMoves))
	}
	var lines []string
	for _, moved := range m.history.moves[len(m.history.moves)-most:] {
		lines = append(lines, moved.String())
	}
	return lines
}

func (m Model) keys(first, end, all int) string {
	order := "load"
	if m.byLoad {
		order = "bucket"
	}
	shown := fmt.Sprintf("%d-%d of %d", first+1, end, all)
	if first == end {
		shown = fmt.Sprintf("none of %d", all)
	}
	return fmt.Sprintf("q quit, s sort by %s, up/down/PgUp/PgDn scroll; %s", order, shown)
}
