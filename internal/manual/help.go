package manual

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"ocf-clusterip/internal/text"

	"github.com/urfave/cli/v2"
)

// How help is laid out, in columns.
const (
	indent    = "   "
	helpNames = 26 // at most, for the names of commands and flags beside what they do
	gap       = 2
	minHelp   = 60
	maxHelp   = 100 // longer lines are hard to read
)

// WriteHelp writes the help for a program (*cli.App) or for one of its commands (*cli.Command), for a screen of this many columns.
func WriteHelp(to io.Writer, of any, width int) error {
	h := help{width: min(max(width, minHelp), maxHelp)}
	switch definition := of.(type) {
	case *cli.App:
		h.program(Read(definition))
	case *cli.Command:
		h.command(definition.HelpName, readCommand(definition))
	}
	_, err := io.WriteString(to, h.b.String())
	return err
}

type help struct {
	b     strings.Builder
	width int
}

func (h *help) program(program Program) {
	h.title("NAME", program.Name+" - "+program.Usage)
	h.heading("USAGE")
	for _, line := range program.Synopsis {
		h.paragraph(indent, line)
	}
	h.description(program.Description)
	h.heading("COMMANDS")
	var rows []row
	for _, section := range program.Sections {
		rows = append(rows, row{heading: section.Title})
		for _, command := range section.Commands {
			rows = append(rows, row{inside: section.Title != "", name: strings.Join(command.names(), ", "), text: command.Usage})
		}
	}
	h.table(rows)
	h.options(program.Options)
}

func (h *help) command(name string, command Command) {
	h.title("NAME", name+" - "+command.Usage)
	usage := name
	if len(command.Options) > 0 {
		usage += " [OPTIONS]"
	}
	h.title("USAGE", strings.TrimRight(usage+" "+command.Arguments, " "))
	h.description(command.Description)
	h.options(command.Options)
}

func (h *help) heading(text string) {
	if h.b.Len() > 0 {
		h.b.WriteByte('\n')
	}
	fmt.Fprintf(&h.b, "%s:\n", text)
}

func (h *help) title(heading, text string) {
	h.heading(heading)
	h.paragraph(indent, text)
}

func (h *help) description(blocks []Block) {
	if len(blocks) == 0 {
		return
	}
	h.heading("DESCRIPTION")
	for i, block := range blocks {
		if i > 0 && (block.Kind != Item || blocks[i-1].Kind != Item) {
			h.b.WriteByte('\n')
		}
		switch block.Kind {
		case Verbatim:
			for _, line := range block.Lines {
				fmt.Fprintf(&h.b, "%s%s\n", indent+indent, line)
			}
		case Item:
			h.paragraph(indent+"- ", block.Lines[0])
		default:
			h.paragraph(indent, block.Lines[0])
		}
	}
}

func (h *help) options(options []Option) {
	h.heading("OPTIONS")
	var rows []row
	for _, option := range options {
		name := strings.Join(option.Names, ", ")
		if option.Value != "" {
			name += " " + option.Value
		}
		rows = append(rows, row{name: name, text: option.text()})
	}
	h.table(rows)
}

// text says all that there is to say of a flag.
func (o Option) text() string {
	text := o.Usage
	if len(o.Values) > 0 {
		text += "; one of " + strings.Join(o.Values, ", ")
	}
	if o.Default != "" {
		text += " (default: " + o.Default + ")"
	}
	return text
}

// A row is a line of a table; without a name, a heading or an empty line between others.
type row struct {
	heading    string
	inside     bool // below a heading
	name, text string
}

// label is what stands in the first column.
func (r row) label() string {
	if r.inside {
		return strings.Repeat(" ", gap) + r.name
	}
	return r.name
}

func (h *help) table(rows []row) {
	column := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r.label()); n <= helpNames {
			column = max(column, n)
		}
	}
	column += len(indent) + gap
	for i, r := range rows {
		label := indent + r.label()
		switch length := utf8.RuneCountInString(label); {
		case r.name == "":
			if i > 0 {
				h.b.WriteByte('\n')
			}
			if r.heading != "" {
				h.paragraph(indent, r.heading+":")
			}
		case length+gap > column: // too long to have anything beside it
			fmt.Fprintln(&h.b, label)
			h.paragraph(strings.Repeat(" ", column), r.text)
		default:
			h.paragraph(label+strings.Repeat(" ", column-length), r.text)
		}
	}
}

// paragraph writes a text in lines of the screen's width, behind what stands at the left of the first one.
func (h *help) paragraph(lead, prose string) {
	left := strings.Repeat(" ", utf8.RuneCountInString(lead))
	h.b.WriteString(strings.TrimRight(lead+strings.TrimPrefix(text.Wrap(prose, left, h.width), left), " ") + "\n")
}
