package metadata

import (
	"fmt"
	"strings"
)

const markdownWidth = 120

// Markdown returns the manual of parameters and actions, docs/parameters.md.
func Markdown() string {
	var b strings.Builder
	section := func(level int, title string) { fmt.Fprintf(&b, "%s %s\n\n", strings.Repeat("#", level), title) }
	paragraph := func(text string) { fmt.Fprintf(&b, "%s\n\n", wrap(text, "", markdownWidth)) }

	fmt.Fprint(&b, "<!-- Made from internal/metadata/table.go by `go test ./internal/metadata -update`: change it there. -->\n\n")
	section(1, "Parameters and actions")
	for _, text := range paragraphs(agentLong) {
		if command, isCommand := strings.CutPrefix(text, CommandMark); isCommand {
			fmt.Fprintf(&b, "```sh\n%s\n```\n\n", command)
		} else {
			paragraph(text)
		}
	}
	paragraph("What follows is also what `pcs resource describe ocf:custom:clusterip` shows. `pcs resource update` changes a parameter, and " +
		"an empty value gives it its default again. All faults are reported together; an unknown parameter " +
		"causes a warning. The number of buckets is not a parameter but the clone's `clone-max`.")

	section(2, "Overview")
	fmt.Fprint(&b, "| parameter | what it is | default | reloadable |\n|---|---|---|---|\n")
	for _, p := range Parameters() {
		fallback := p.Derived
		switch {
		case p.Required:
			fallback = "none: **required**"
		case p.Default != "":
			fallback = code(p.Default)
		}
		row(&b, fmt.Sprintf("[%s](#%s)", code(p.Name), p.Name), p.Short, fallback, yesNo(p.Reloadable))
	}
	fmt.Fprintln(&b)
	paragraph("A change of a *reloadable* parameter takes effect at once, without a restart. For a change of any other one Pacemaker stops " +
		"all instances and starts them again; no node answers for the address in between.")

	for _, p := range Parameters() {
		section(2, p.Name)
		paragraph("*" + p.Short + ".*")
		for _, text := range paragraphs(p.Long) {
			paragraph(text)
		}
		if len(p.Options) > 0 {
			fmt.Fprint(&b, "| value | meaning |\n|---|---|\n")
			for _, o := range p.Options {
				row(&b, code(o.Value), o.Meaning)
			}
			fmt.Fprintln(&b)
		}
		item(&b, "Allowed", p.Allowed())
		switch {
		case p.Required:
			item(&b, "Required", "yes")
		case p.Default != "":
			item(&b, "Default", code(p.Default))
		default:
			item(&b, "Default", p.Derived)
		}
		item(&b, "Example", code(p.Name+"="+p.Example))
		if p.UniqueGroup != "" {
			item(&b, "Unique", "no two resources of this type may have the same")
		}
		item(&b, "Reloadable", yesNo(p.Reloadable))
		fmt.Fprintln(&b)
	}

	section(2, "Actions")
	paragraph("The timeouts are the least that an operation should have. `pcs resource create` sets up the operations with these times " +
		"by itself. `depth` is the check level, `OCF_CHECK_LEVEL`.")
	fmt.Fprint(&b, "| action | depth | interval | timeout | what it does |\n|---|---|---|---|---|\n")
	for _, a := range Actions() {
		interval := ""
		if a.Interval != 0 {
			interval = seconds(a.Interval)
		}
		row(&b, code(a.Name), a.Depth, interval, seconds(a.Timeout), a.Meaning)
	}
	fmt.Fprintln(&b)

	return strings.TrimRight(b.String(), "\n") + "\n"
}

func code(s string) string { return "`" + s + "`" }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func item(b *strings.Builder, name, text string) { fmt.Fprintf(b, "- %s: %s\n", name, text) }

func row(b *strings.Builder, cells ...string) {
	for _, cell := range cells {
		fmt.Fprintf(b, "| %s ", strings.ReplaceAll(cell, "|", `\|`))
	}
	fmt.Fprintln(b, "|")
}
