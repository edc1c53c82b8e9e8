package metadata

import (
	"strings"

	"ocf-clusterip/internal/text"
)

// Description is the agent's own description.
type Description struct {
	Name, Short string
	Long        []string // paragraphs; a command begins with CommandMark
}

// Describe returns the description of the agent.
func Describe() Description {
	return Description{Name: agentName, Short: agentShort, Long: paragraphs(agentLong)}
}

// Paragraphs returns the long description of a parameter, without the options and the other fields.
func (p Parameter) Paragraphs() []string { return paragraphs(p.Long) }

// CommandMark begins a paragraph that is a command. It is not wrapped.
const CommandMark = "$ "

// paragraphs splits the text of the table at its blank lines, and puts each paragraph on one line.
func paragraphs(text string) []string {
	var all []string
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		all = append(all, strings.Join(strings.Fields(paragraph), " "))
	}
	return all
}

// wrap breaks a paragraph into lines of at most width characters, each with the indent in front.
func wrap(paragraph, indent string, width int) string {
	if strings.HasPrefix(paragraph, CommandMark) {
		return indent + paragraph
	}
	return text.Wrap(paragraph, indent, width)
}

// wrapAll wraps paragraphs and puts a blank line between them.
func wrapAll(all []string, indent string, width int) string {
	var wrapped []string
	for _, paragraph := range all {
		wrapped = append(wrapped, wrap(paragraph, indent, width))
	}
	return strings.Join(wrapped, "\n\n")
}

// manual returns the whole description of a parameter. Every paragraph ends with a full stop, because pcs joins them.
func (p Parameter) manual() []string {
	all := paragraphs(p.Long)
	for _, option := range p.Options {
		all = append(all, option.Value+": "+option.Meaning)
	}
	facts := "Allowed: " + p.Allowed() + "."
	if d := p.defaultText(); d != "" {
		facts += " Default: " + d + "."
	}
	facts += " Example: " + p.Name + "=" + p.Example + "."
	if p.Reloadable {
		facts += " A change takes effect without a restart."
	}
	return append(all, facts)
}
