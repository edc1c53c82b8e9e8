package doctor

import (
	"fmt"
	"io"
	"strings"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/style"
)

// A Report is all that was found, for programs.
type Report struct {
	Node     string    `json:"node,omitempty"`
	Verdict  Verdict   `json:"verdict"` // the worst
	Findings []Finding `json:"findings"`
}

// NewReport makes one.
func NewReport(facts Facts, findings []Finding) Report {
	return Report{facts.Node, Worst(findings), findings}
}

// Columns of the text.
const (
	verdictColumn = 2
	nameColumn    = 11
	seenColumn    = 27
)

// Write writes the findings by what they are about: a line for each that is good, and what matters of the others.
func Write(to io.Writer, facts Facts, findings []Finding, look style.Style) error {
	var b strings.Builder
	subject, group := "\x00", ""
	counts := map[Verdict]int{}
	for _, f := range findings {
		counts[f.Verdict]++
		if f.Resource != subject {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(heading(facts, f.Resource) + "\n")
			subject, group = f.Resource, ""
		}
		if f.Group != group {
			if f.Resource != "" {
				b.WriteString(strings.Repeat(" ", verdictColumn-1) + f.Group + "\n")
			}
			group = f.Group
		}
		writeFinding(&b, f, look)
	}
	fmt.Fprintf(&b, "\n%d checks: %s\n", len(findings), summary(counts))
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

func writeFinding(b *strings.Builder, f Finding, look style.Style) {
	fmt.Fprintf(b, "%s%s %-*s ", strings.Repeat(" ", verdictColumn), mark(f.Verdict, look), seenColumn-nameColumn-1, f.Check)
	if f.Verdict == OK {
		b.WriteString(cut(f.Seen, look.Width-seenColumn) + "\n")
		return
	}
	const narrowest = 20 // columns of text
	wrapped := func(text string, column int) string {
		return ocf.Wrap(text, strings.Repeat(" ", column), max(look.Width, column+narrowest))
	}
	b.WriteString(strings.TrimLeft(wrapped(f.Seen, seenColumn), " ") + "\n") // the line has begun
	b.WriteString(wrapped(f.Why, nameColumn) + "\n")
	for _, line := range f.Do {
		// Whole, so that it can be copied.
		b.WriteString(strings.Repeat(" ", nameColumn+verdictColumn) + line + "\n")
	}
}

// mark is the verdict in its column.
func mark(v Verdict, look style.Style) string {
	text := fmt.Sprintf("%-*s", nameColumn-verdictColumn-1, v)
	if v == Failure {
		text = strings.ToUpper(text)
	}
	return look.Paint(map[Verdict]style.Colour{OK: style.Green, Warning: style.Yellow, Failure: style.Red}[v], text)
}

// cut shortens a text to a number of columns.
func cut(text string, columns int) string {
	runes := []rune(text)
	if len(runes) <= columns || columns < 1 {
		return text
	}
	return string(runes[:columns-1]) + "…"
}

func summary(counts map[Verdict]int) string {
	var parts []string
	for _, v := range []Verdict{Failure, Warning} {
		switch n := counts[v]; {
		case n == 1:
			parts = append(parts, "1 "+v.String())
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n, v))
		}
	}
	if len(parts) == 0 {
		return "all is well"
	}
	return strings.Join(parts, ", ")
}
