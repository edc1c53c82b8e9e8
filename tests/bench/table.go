package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// A table has its first column on the left and all others on the right.
type table [][]string

func (t *table) row(cells ...string) { *t = append(*t, cells) }

func (t *table) String() string {
	var widths []int
	for _, row := range *t {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range *t {
		cells := make([]string, len(row))
		for i, cell := range row {
			width := widths[i]
			if i == 0 {
				width = -width // to the left
			}
			cells[i] = fmt.Sprintf("%*s", width, cell)
		}
		b.WriteString(strings.TrimRight("  "+strings.Join(cells, "  "), " ") + "\n")
	}
	return b.String()
}

// milliseconds prints three or four digits.
func milliseconds(d time.Duration) string {
	const hundred = 100 * time.Millisecond
	ms := float64(d) / float64(time.Millisecond)
	if d >= hundred {
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.2f", ms)
}

// cells are the wall and the CPU time.
func (l lap) cells() []string { return []string{milliseconds(l.wall), milliseconds(l.cpu)} }
