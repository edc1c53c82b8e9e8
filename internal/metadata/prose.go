package metadata

import (
	"strings"

	"ocf-clusterip/internal/text"
)

// A Description says what the agent is.
type Description struct {
	Name, Short string
	Long        []string // paragraphs; one that is a command begins with CommandMark
}

// Describe returns the description of the agent.
func Describe() Description {
	return Description{Name: agentName, Short: agentShort, Long: paragraphs(agentLong)}
}

// Paragraphs returns what is to be said about a parameter, without its options and what its other fields say.
func (p Parameter) Paragraphs() []string { return paragraphs(p.Long) }

// CommandMark in front of a paragraph says that it is a command: it is never broken into lines.
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

// manual returns everything that is to be said about a parameter. Every paragraph ends in a full stop: pcs runs them together.
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
