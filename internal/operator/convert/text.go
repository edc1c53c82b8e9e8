package convert

import (
	"fmt"
	"io"
	"strings"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/text"
)

// Write writes a report as a script: prose is comments, so that all of it can be pasted. No line of prose is wider than the width.
func (r Report) Write(to io.Writer, width int) error {
	const narrowest, widest = 40, 100
	w := &writer{width: min(max(width, narrowest), widest)}
	w.prose("", r.NotNodeByNode)
	for _, c := range r.Conversions {
		w.conversion(c)
	}
	_, err := io.WriteString(to, w.written.String())
	return err
}

type writer struct {
	written strings.Builder
	width   int
}

func (w *writer) line(line string) { w.written.WriteString(line + "\n") }

// prose writes a paragraph as a comment. All lines but the first are indented by the width of the bullet.
func (w *writer) prose(bullet, paragraph string) {
	const comment = "# "
	lines := text.Wrap(paragraph, comment+strings.Repeat(" ", len(bullet)), w.width)
	w.line(comment + bullet + strings.TrimPrefix(lines, comment+strings.Repeat(" ", len(bullet))))
}

// comment writes a command that is not run by whoever pastes the whole.
func (w *writer) comment(command string) {
	for line := range strings.SplitSeq(command, "\n") {
		w.line("#   " + line)
	}
}

func (w *writer) conversion(c Conversion) {
	w.line("")
	name := ocf.Quote(c.Resource)
	if isID(c.Resource) {
		name = c.Resource
	}
	if len(c.Faults) > 0 {
		w.prose("", fmt.Sprintf("%s, address %s: CANNOT BE CONVERTED as it is", name, ocf.Quote(c.Address)))
		for _, fault := range c.Faults {
			w.prose("! ", fault)
		}
		return
	}
	w.prose("", fmt.Sprintf("%s, address %s: %s. It becomes ocf:custom:clusterip with %d buckets.", name, c.Address, c.Form, c.Buckets))
	for _, p := range c.Parameters {
		w.prose("- ", p.String())
	}
	for _, remark := range c.Remarks {
		w.prose("! ", remark)
	}
	for number, step := range c.Steps {
		w.line("")
		w.prose("", fmt.Sprintf("%d. %s", number+1, step.Title))
		for _, why := range step.Why {
			w.prose("", why)
		}
		if len(step.EachNode) > 0 {
			w.prose("", "On each node:")
		}
		for _, command := range step.EachNode {
			w.comment(command)
		}
		for _, command := range step.Commands {
			if step.ByHand {
				w.comment(command)
			} else {
				w.line(command)
			}
		}
	}
	w.line("")
	w.prose("", whyWayBack)
	for _, command := range c.WayBack {
		w.comment(command)
	}
}

// String implements fmt.Stringer.
func (p Parameter) String() string {
	var s string
	switch {
	case p.Fate == Added:
		s = "new: " + p.New
	case p.Fate == Dropped:
		s = p.Old + " is left out"
	case p.Fate == Kept && p.Old == p.New:
		s = p.Old
	default:
		s = p.Old + " becomes " + p.New
	}
	if p.Why != "" {
		s += ": " + p.Why
	}
	return s
}
