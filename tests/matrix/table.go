package main

import (
	"fmt"
	"slices"
	"strings"
)

// table is one of a Markdown document: the lines after its heading's, up to the first that is no row. The first cell identifies a row.
type table struct {
	header string // the first cell of its heading, which no other table's begins with
}

var (
	clusters = table{"Cluster of Debian"}
	kernels  = table{"Kernel of Debian"}
)

// put replaces the row with the same first cell, or adds one at the end.
func (t table) put(document string, cells []string) (string, error) {
	lines := strings.Split(document, "\n")
	heading := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "| "+t.header+" |") })
	if heading < 0 {
		return "", fmt.Errorf("the document has no table with the heading %q", t.header)
	}
	row := "| " + strings.Join(cells, " | ") + " |"
	at := heading + 2 // after the line of dashes
	for ; at < len(lines) && strings.HasPrefix(lines[at], "|"); at++ {
		if strings.HasPrefix(lines[at], "| "+cells[0]+" |") {
			lines[at] = row
			return strings.Join(lines, "\n"), nil
		}
	}
	return strings.Join(slices.Insert(lines, at, row), "\n"), nil
}
