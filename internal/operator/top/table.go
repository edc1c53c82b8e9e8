package top

import (
	"fmt"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/style"
)

// column is a column of the table.
type column struct {
	name    string
	isRight bool // aligned
	width   int
	cell    func(row) string
}

// wideGap is between columns where the terminal has the place.
const wideGap, narrowGap, enoughForWide = "  ", " ", 80

// table returns the head and the rows from first to end. The widths are those of all rows, so that nothing jumps while they scroll.
func (m Model) table(rows []row, first, end int) []string {
	columns, gap := m.columns(rows)
	var head []string
	for _, c := range columns {
		head = append(head, c.fit(c.name))
	}
	lines := []string{m.paint(style.Bold, strings.TrimRight(strings.Join(head, gap), " "))}
	for _, r := range rows[first:end] {
		var cells []string
		for _, c := range columns {
			cell := c.fit(c.cell(r))
			if c.name == stateName && m.age() == 0 {
				cell = m.paint(r.Colour(), cell)
			}
			cells = append(cells, cell)
		}
		lines = append(lines, strings.TrimRight(strings.Join(cells, gap), " "))
	}
	return lines
}

// fit returns a cell of the column's width.
func (c column) fit(cell string) string {
	cell = ansi.Truncate(cell, c.width, "..")
	fill := strings.Repeat(" ", max(0, c.width-ansi.StringWidth(cell)))
	if c.isRight {
		return fill + cell
	}
	return cell + fill
}

const stateName = "STATE"

// columns returns the columns with their widths. Names give way where the terminal is narrow, so that figures are never cut.
func (m Model) columns(rows []row) (columns []column, gap string) {
	resource := column{name: "RESOURCE", cell: func(r row) string { return r.resource }}
	owner := column{name: "OWNER", cell: row.owners}
	all := []*column{
		{name: "BUCKET", isRight: true, cell: func(r row) string { return fmt.Sprint(r.Bucket) }},
		&owner,
		{name: stateName, cell: func(r row) string { return r.State }},
		{name: "HERE", cell: func(r row) string { return r.here }},
		{name: "OPEN", isRight: true, cell: func(r row) string { return r.connections }},
		{name: "PACKETS/S", isRight: true, cell: func(r row) string { packets, _ := rates(r.Traffic); return packets }},
		{name: "BYTES/S", isRight: true, cell: func(r row) string { _, bytes := rates(r.Traffic); return bytes }},
	}
	if len(m.status.Resources) > 1 {
		all = slices.Insert(all, 0, &resource)
	}
	gap = narrowGap
	if m.width >= enoughForWide {
		gap = wideGap
	}
	rest := m.width + len(gap)
	for _, c := range all {
		c.width = len(c.name)
		for _, r := range rows {
			c.width = max(c.width, ansi.StringWidth(c.cell(r)))
		}
		rest -= c.width + len(gap)
	}
	if rest < 0 {
		rest += resource.width + owner.width
		owner.width = min(owner.width, max(rest-resource.width, rest/2))
		owner.width = max(0, owner.width)
		resource.width = max(0, min(resource.width, rest-owner.width))
		rest = 0
	}
	drains := column{name: "DRAINS ON", width: rest - len(gap), cell: func(r row) string { return ocf.OneLine(r.DrainsOn()) }}
	const useful = 20
	if drains.width >= useful && slices.ContainsFunc(rows, func(r row) bool { return len(r.Drains) > 0 }) {
		all = append(all, &drains)
	}
	for _, c := range all {
		columns = append(columns, *c)
	}
	return columns, gap
}
