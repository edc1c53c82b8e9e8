package doctor

import (
	"fmt"
	"io"
	"strings"

	"ocf-clusterip/internal/operator/style"
	"ocf-clusterip/internal/text"
)

// Report contains all checks, for programs.
type Report struct {
	Node   string    `json:"node,omitempty"`
	Result Result    `json:"result"` // the worst
	Checks []Checked `json:"checks"`
}

// NewReport returns the report on checks that were carried out.
func NewReport(facts Facts, checked []Checked) Report {
	return Report{facts.Node, Worst(checked), checked}
}

// Columns of the text.
const (
	resultColumn = 2
	nameColumn   = 11
	seenColumn   = 28
)

// Write writes the checks for people, by resource and group: one line for each that is ok; for others also the reason and the commands.
func Write(to io.Writer, facts Facts, checked []Checked, look style.Style) error {
	var b strings.Builder
	subject, group := "\x00", ""
	counts := map[Result]int{}
	for _, f := range checked {
		counts[f.Result]++
		if f.Resource != subject {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(heading(facts, f.Resource) + "\n")
			subject, group = f.Resource, ""
		}
		if f.Group != group {
			if f.Resource != "" {
				b.WriteString(strings.Repeat(" ", resultColumn-1) + f.Group + "\n")
			}
			group = f.Group
		}
		writeChecked(&b, f, look)
	}
	fmt.Fprintf(&b, "\n%d checks: %s\n", len(checked), summary(counts))
	_, err := io.WriteString(to, b.String())
	return err
}

func heading(facts Facts, resource string) string {
	for _, r := range facts.Resources {
		if r.name() == resource {
			return fmt.Sprintf("%s, %s", resource, r.Origin)
		}
	}
	return "The cluster"
}

func writeChecked(b *strings.Builder, f Checked, look style.Style) {
	fmt.Fprintf(b, "%s%s %-*s ", strings.Repeat(" ", resultColumn), mark(f.Result, look), seenColumn-nameColumn-1, f.Check)
	if f.Result == OK {
		b.WriteString(cut(f.Seen, look.Width-seenColumn) + "\n")
		return
	}
	const narrowest = 20 // columns of text
	wrapped := func(prose string, column int) string {
		return text.Wrap(prose, strings.Repeat(" ", column), max(look.Width, column+narrowest))
	}
	b.WriteString(strings.TrimLeft(wrapped(f.Seen, seenColumn), " ") + "\n") // the line has begun
	b.WriteString(wrapped(f.Why, nameColumn) + "\n")
	for _, line := range f.Do {
		// Whole, so that it can be copied.
		b.WriteString(strings.Repeat(" ", nameColumn+resultColumn) + line + "\n")
	}
}

// mark returns the result, padded to its column.
func mark(v Result, look style.Style) string {
	text := fmt.Sprintf("%-*s", nameColumn-resultColumn-1, v)
	if v == Failure {
		text = strings.ToUpper(text)
	}
	return look.Paint(map[Result]style.Colour{OK: style.Green, Warning: style.Yellow, Failure: style.Red}[v], text)
}

// cut shortens a text to a number of columns.
func cut(text string, columns int) string {
	runes := []rune(text)
	if len(runes) <= columns || columns < 1 {
		return text
	}
	return string(runes[:columns-1]) + "…"
}

func summary(counts map[Result]int) string {
	var parts []string
	for _, v := range []Result{Failure, Warning} {
		switch n := counts[v]; {
		case n == 1:
			parts = append(parts, "1 "+v.String())
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n, v))
		}
	}
	if len(parts) == 0 {
		return "all ok"
	}
	return strings.Join(parts, ", ")
}
