package manual

import (
	"fmt"
	"strings"
	"time"
)

// A page is a manual page in the making, in the macros of man(7).
type page struct{ b strings.Builder }

// newPage begins a page. Of a date that is zero nothing is said.
func newPage(name, section, source, title string, date time.Time) *page {
	day := ""
	if !date.IsZero() {
		day = date.UTC().Format(time.DateOnly)
	}
	p := &page{}
	p.b.WriteString(".\\\" Made from the program's own definitions; see the target manual of the Makefile.\n")
	// A date with escaped hyphens is none to mandoc.
	fmt.Fprintf(&p.b, ".TH %s %s %q %s %s\n", argument(strings.ToUpper(name)), section, day, argument(source), argument(title))
	// Names of parameters and flags must not be torn apart, neither by hyphens nor by wide gaps.
	p.macro("nh")
	p.macro("ad", "l")
	return p
}

// macro writes a macro. Its arguments are text.
func (p *page) macro(name string, arguments ...string) {
	p.b.WriteString("." + name)
	for _, text := range arguments {
		p.b.WriteString(" " + argument(text))
	}
	p.b.WriteByte('\n')
}

// argument makes text one argument of a macro.
func argument(text string) string {
	escaped := strings.ReplaceAll(escape(text), `"`, `\(dq`)
	if escaped == "" || strings.Contains(escaped, " ") {
		return `"` + escaped + `"`
	}
	return escaped
}

// text writes prose, to be filled.
func (p *page) text(prose string) { p.filled(escape(prose)) }

// filled writes what is escaped already: a line for each sentence, so that roff knows where one ends.
func (p *page) filled(escaped string) {
	const sourceWidth = 78
	column := 0
	for word := range strings.FieldsSeq(escaped) {
		switch {
		case column == 0:
		case column+1+len(word) > sourceWidth:
			p.b.WriteByte('\n')
			column = 0
		default:
			p.b.WriteByte(' ')
			column++
		}
		if column == 0 {
			word = guarded(word)
		}
		p.b.WriteString(word)
		column += len(word)
		switch end := strings.TrimRight(word, ")"); {
		case strings.HasSuffix(end, "..."): // and so on, not the end of a sentence, wherever the line ends
			p.b.WriteString(`\&`)
		case strings.HasSuffix(end, "."):
			p.b.WriteByte('\n')
			column = 0
		}
	}
	if column > 0 {
		p.b.WriteByte('\n')
	}
}

// verbatim writes lines that stay as they are.
func (p *page) verbatim(lines ...string) {
	p.macro("RS", "4")
	p.macro("nf")
	for _, line := range lines {
		p.b.WriteString(guarded(escape(line)) + "\n")
	}
	p.macro("fi")
	p.macro("RE")
}

// escape makes text what roff prints as this text.
func escape(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\\':
			b.WriteString(`\(rs`)
		case r == '-': // a hyphen that can be copied
			b.WriteString(`\-`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '`':
			b.WriteString(`\(ga`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r < ' ':
			b.WriteByte(' ')
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// guarded keeps a line from being taken for a macro.
func guarded(line string) string {
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	return line
}

// styled escapes a synopsis: what is to be typed is bold, what stands for something else is italic.
func styled(synopsis string) string {
	var b strings.Builder
	for len(synopsis) > 0 {
		font := fontOf(synopsis[0])
		n := 1
		for n < len(synopsis) && fontOf(synopsis[n]) == font {
			n++
		}
		run := escape(synopsis[:n])
		if font != "" {
			run = font + run + `\fR`
		}
		b.WriteString(run)
		synopsis = synopsis[n:]
	}
	return b.String()
}

func fontOf(c byte) string {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		return `\fB`
	case 'A' <= c && c <= 'Z', c == '_':
		return `\fI`
	default:
		return ""
	}
}
