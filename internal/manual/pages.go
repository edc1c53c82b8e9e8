package manual

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"ocf-clusterip/internal/metadata"
)

// CommandPage returns the manual page of the program, for section 8. Of a date that is zero nothing is said.
func CommandPage(program Program, date time.Time) string {
	p := newPage(program.Name, "8", strings.TrimSpace(program.Name+" "+program.Version), "System administration", date)
	p.macro("SH", "NAME")
	p.text(program.Name + " - " + program.Usage)
	p.macro("SH", "SYNOPSIS")
	for i, line := range program.Synopsis {
		if i > 0 {
			p.macro("br")
		}
		p.filled(styled(line))
	}
	p.macro("SH", "DESCRIPTION")
	p.blocks(program.Description)
	p.macro("SH", "OPTIONS")
	p.options(program.Options)
	for _, section := range program.Sections {
		if section.Title == "" {
			section.Title = "Other commands"
		}
		p.macro("SH", strings.ToUpper(section.Title))
		for _, command := range section.Commands {
			p.command(program.Name, command)
		}
	}
	for _, section := range commandSections() {
		p.closing(section)
	}
	p.seeAlso(commandSeeAlso())
	return p.b.String()
}

// command writes a command: a paragraph if there is no more to say of it than what it is for, else a section of its own.
func (p *page) command(program string, command Command) {
	own := slices.DeleteFunc(slices.Clone(command.Options), func(o Option) bool { return slices.Contains(o.Names, "--help") })
	if len(own) == 0 && len(command.Description) == 0 && command.Arguments == "" {
		p.macro("TP")
		p.filled(`\fB` + escape(command.Name) + `\fR` + aliases(command))
		p.text(sentence(command.Usage))
		return
	}
	p.macro("SS", strings.Join(append([]string{command.Name}, command.Aliases...), ", "))
	p.text(sentence(command.Usage))
	p.macro("PP")
	synopsis := program + " " + command.Name
	if len(own) > 0 {
		synopsis += " [OPTIONS]"
	}
	p.filled(styled(strings.TrimSpace(synopsis + " " + command.Arguments)))
	if len(command.Description) > 0 {
		p.macro("PP")
		p.blocks(command.Description)
	}
	if len(own) > 0 {
		p.options(own)
	}
}

func aliases(command Command) string {
	var b strings.Builder
	for _, alias := range command.Aliases {
		b.WriteString(", \\fB" + escape(alias) + "\\fR")
	}
	return b.String()
}

func (p *page) options(options []Option) {
	for _, option := range options {
		p.macro("TP")
		var names []string
		for _, name := range option.Names {
			names = append(names, `\fB`+escape(name)+`\fR`)
		}
		heading := strings.Join(names, ", ")
		if option.Value != "" {
			heading += ` \fI` + escape(option.Value) + `\fR`
		}
		p.filled(heading)
		p.text(sentence(option.text()))
	}
}

func (p *page) blocks(blocks []Block) {
	for i, block := range blocks {
		switch {
		case block.Kind == Item:
			p.macro("IP", "*", "2")
		case i > 0:
			p.macro("PP")
		}
		if block.Kind == Verbatim {
			p.verbatim(block.Lines...)
		} else {
			p.text(block.Lines[0])
		}
	}
}

func (p *page) closing(section closing) {
	p.macro("SH", section.title)
	for _, entry := range section.entries {
		p.macro("TP")
		p.filled(`\fB` + escape(entry.name) + `\fR`)
		p.text(entry.text)
	}
}

// seeAlso writes a list such as pcs(8), nft(8).
func (p *page) seeAlso(pages []string) {
	p.macro("SH", "SEE ALSO")
	for i, page := range pages {
		name, section, _ := strings.Cut(page, "(")
		comma := ","
		if i == len(pages)-1 {
			comma = ""
		}
		p.macro("BR", name, "("+section+comma)
	}
}

// sentence makes what stands beside a name in a list one.
func sentence(text string) string {
	word, _, _ := strings.Cut(text, " ")
	word = strings.TrimRight(word, ",;:")
	if isWord := !strings.ContainsFunc(word, func(r rune) bool { return !unicode.IsLower(r) }); isWord && word != "" {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// AgentPage returns the manual page of the resource agent, for section 7: what `pcs resource describe` shows, in the manner of the pages
// that come with the package resource-agents. Of a date that is zero nothing is said.
func AgentPage(version string, date time.Time) string {
	const (
		provider = "custom"
		instance = "web-ip"
	)
	agent := metadata.Describe()
	name := "ocf:" + provider + ":" + agent.Name
	p := newPage(strings.ReplaceAll(name, ":", "_"), "7", strings.TrimSpace("ocf-clusterip "+version), "OCF resource agents", date)
	p.macro("SH", "NAME")
	p.text(strings.ReplaceAll(name, ":", "_") + " - " + agent.Short)
	p.macro("SH", "SYNOPSIS")
	var actions []string
	for _, action := range metadata.Actions() {
		if !slices.Contains(actions, action.Name) {
			actions = append(actions, action.Name)
		}
	}
	p.filled(styled(agent.Name + " [" + strings.Join(actions, " | ") + "]"))
	p.macro("SH", "DESCRIPTION")
	for i, paragraph := range agent.Long {
		if i > 0 {
			p.macro("PP")
		}
		if command, isCommand := strings.CutPrefix(paragraph, metadata.CommandMark); isCommand {
			p.verbatim(broken(command)...)
		} else {
			p.text(paragraph)
		}
	}
	p.macro("SH", "SUPPORTED PARAMETERS")
	for _, parameter := range metadata.Parameters() {
		p.parameter(parameter)
	}
	p.macro("SH", "SUPPORTED ACTIONS")
	p.text("The timeouts are the least that an operation should have.")
	for _, action := range metadata.Actions() {
		p.action(action)
	}
	p.macro("SH", "EXAMPLE CRM SHELL")
	p.verbatim(crmExample(name, instance)...)
	p.macro("SH", "EXAMPLE PCS")
	p.verbatim(pcsExample(name, instance)...)
	p.seeAlso(agentSeeAlso())
	return p.b.String()
}

func (p *page) parameter(parameter metadata.Parameter) {
	p.macro("TP")
	p.filled(`\fB` + escape(parameter.Name) + `\fR`)
	p.text(parameter.Short + ".")
	for _, paragraph := range parameter.Paragraphs() {
		p.macro("IP")
		p.text(paragraph)
	}
	if len(parameter.Options) > 0 {
		p.macro("RS")
		for _, option := range parameter.Options {
			p.macro("TP")
			p.filled(`\fB` + escape(option.Value) + `\fR`)
			p.text(option.Meaning)
		}
		p.macro("RE")
	}
	p.macro("IP")
	p.text("Allowed: " + parameter.Allowed() + ". Example: " + parameter.Name + "=" + parameter.Example + ".")
	p.macro("IP")
	p.text("(" + strings.Join(facts(parameter), ", ") + ")")
}

// facts are what the pages of other agents say of a parameter between brackets.
func facts(parameter metadata.Parameter) []string {
	facts := []string{"optional"}
	if parameter.Required {
		facts[0] = "required"
	}
	if parameter.UniqueGroup != "" {
		facts = append(facts, "unique")
	}
	facts = append(facts, parameter.ContentType())
	switch {
	case parameter.Default != "":
		facts = append(facts, "default "+parameter.Default)
	case parameter.Derived != "":
		facts = append(facts, "by default "+parameter.Derived)
	default:
		facts = append(facts, "no default")
	}
	if parameter.Reloadable {
		facts = append(facts, "a change takes effect without a restart")
	}
	return facts
}

func (p *page) action(action metadata.Action) {
	p.macro("TP")
	heading := `\fB` + escape(action.Name) + `\fR`
	if action.Depth != "" {
		heading += " (OCF_CHECK_LEVEL=" + action.Depth + ")"
	}
	p.filled(heading)
	text := action.Meaning + " Suggested minimum timeout: " + seconds(action.Timeout) + "."
	if action.Interval != 0 {
		text += " Suggested interval: " + seconds(action.Interval) + "."
	}
	p.text(text)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", d/time.Second) }

// required are the parameters that an example needs, with examples.
func required() []string {
	var all []string
	for _, parameter := range metadata.Parameters() {
		if parameter.Required {
			all = append(all, parameter.Name+"="+parameter.Example)
		}
	}
	return all
}

// operations are what the cluster manager shall be told to do again and again; both crm and pcs read them so.
func operations() []string {
	var all []string
	for _, a := range metadata.Actions() {
		if a.Interval != 0 {
			all = append(all, fmt.Sprintf("op %s interval=%s timeout=%s OCF_CHECK_LEVEL=%s", a.Name, seconds(a.Interval), seconds(a.Timeout), a.Depth))
		}
	}
	return all
}

func crmExample(agent, instance string) []string {
	return slices.Concat(
		[]string{"primitive " + instance + " " + agent + ` \`},
		continued(append([]string{"params " + strings.Join(required(), " ")}, operations()...)),
		[]string{"clone " + instance + "-clone " + instance + ` \`},
		continued([]string{"meta " + cloneOptions, stickiness}),
	)
}

func pcsExample(agent, instance string) []string {
	return slices.Concat(
		[]string{"pcs resource create " + instance + " " + agent + " " + strings.Join(required(), " ") + ` \`},
		continued(append(operations(), "--disabled")),
		[]string{"pcs resource clone " + instance + ` \`},
		continued([]string{"meta " + cloneOptions, stickiness}),
		[]string{"pcs resource enable " + instance},
	)
}

const (
	cloneOptions = "clone-max=8 clone-node-max=8 globally-unique=true"
	stickiness   = "resource-stickiness=0"
)

// continued makes lines the rest of a command.
func continued(lines []string) []string {
	var all []string
	for i, line := range lines {
		if i < len(lines)-1 {
			line += ` \`
		}
		all = append(all, "    "+line)
	}
	return all
}

// broken breaks a command into lines that fit a page and can be copied.
func broken(command string) []string {
	const width = 66
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(command) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line+` \`)
			line = "    " + word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
