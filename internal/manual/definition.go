// Package manual tells people and shells how the program is called: as help on the screen, as manual pages, and as completion for shells.
// All of it is made from the definitions of the command line and of the agent's parameters, so that nothing has to be listed a second time.
package manual

import (
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/metadata"
)

// Choice is a flag with fixed values, which the manual names and shells complete. (Flags named like a parameter of the resource have its
// values without being told.)
type Choice struct {
	*cli.StringFlag
	Values []string
}

// Program is the command line.
type Program struct {
	Name        string
	Usage       string // what it is, in a few words
	Version     string
	Synopsis    []string
	Description []Block
	Options     []Option
	Sections    []Section
}

// Section is a group of commands.
type Section struct {
	Title    string // empty for those that are in no group
	Commands []Command
}

// Command is what the program can be asked.
type Command struct {
	Name        string
	Aliases     []string
	Usage       string
	Arguments   string // as in a synopsis
	Description []Block
	Options     []Option
}

// Option is a flag.
type Option struct {
	Names   []string // with their hyphens, the proper one first
	Value   string   // what stands for the value; empty when the flag takes none
	Usage   string
	Default string
	Values  []string // the only ones possible, if not empty
	Of      Domain   // what kind of name the value is
}

// Domain is a set of names that a shell can look up.
type Domain int

// The domains.
const (
	Anything Domain = iota
	Files
	Interfaces
)

// Read reads the definitions of a command line. What is hidden there stays hidden.
func Read(app *cli.App) Program {
	program := Program{
		Name: app.Name, Usage: app.Usage, Version: app.Version,
		Synopsis: strings.Split(app.UsageText, "\n"), Description: blocks(app.Description),
	}
	flags := slices.Clone(app.Flags)
	if !app.HideHelp {
		flags = withFlag(flags, cli.HelpFlag)
	}
	if !app.HideVersion {
		flags = withFlag(flags, cli.VersionFlag)
	}
	program.Options = options(flags)
	loose := Section{}
	for _, definition := range app.Commands {
		if definition.Hidden {
			continue
		}
		command := readCommand(definition)
		at := slices.IndexFunc(program.Sections, func(s Section) bool { return s.Title == definition.Category })
		switch {
		case definition.Category == "":
			loose.Commands = append(loose.Commands, command)
		case at < 0:
			program.Sections = append(program.Sections, Section{Title: definition.Category, Commands: []Command{command}})
		default:
			program.Sections[at].Commands = append(program.Sections[at].Commands, command)
		}
	}
	if len(loose.Commands) > 0 {
		program.Sections = append(program.Sections, loose)
	}
	return program
}

func readCommand(definition *cli.Command) Command {
	flags := slices.Clone(definition.Flags)
	if !definition.HideHelp {
		flags = withFlag(flags, cli.HelpFlag)
	}
	return Command{
		Name: definition.Name, Aliases: definition.Aliases, Usage: definition.Usage, Arguments: definition.ArgsUsage,
		Description: blocks(definition.Description), Options: options(flags),
	}
}

// withFlag adds a flag that the library adds by itself, if it has not done so yet.
func withFlag(flags []cli.Flag, flag cli.Flag) []cli.Flag {
	if slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Equal(f.Names(), flag.Names()) }) {
		return flags
	}
	return append(flags, flag)
}

// options are the flags that are not hidden.
func options(flags []cli.Flag) []Option {
	var all []Option
	for _, flag := range flags {
		if visible, ok := flag.(cli.VisibleFlag); ok && visible.IsVisible() {
			all = append(all, readOption(flag))
		}
	}
	return all
}

func readOption(flag cli.Flag) Option {
	var option Option
	for _, name := range flag.Names() {
		hyphens := "--"
		if len(name) == 1 {
			hyphens = "-"
		}
		option.Names = append(option.Names, hyphens+name)
	}
	definition, ok := flag.(cli.DocGenerationFlag)
	if !ok {
		return option
	}
	option.Value, option.Usage = unquote(definition.GetUsage())
	option.Default = defaultOf(definition)
	if !definition.TakesValue() {
		option.Value = ""
		return option
	}
	if option.Value == "" {
		option.Value = "VALUE"
	}
	if strings.Contains(option.Value, "FILE") {
		option.Of = Files
	}
	switch f := flag.(type) { // no more types than are in use: each one that is named here makes the program larger
	case *Choice:
		option.Values = f.Values
	case *cli.StringFlag:
		option.takeFromParameter(f.Name)
	}
	return option
}

// takeFromParameter takes over what the parameter of the resource that is named alike may have.
func (o *Option) takeFromParameter(name string) {
	for _, parameter := range metadata.Parameters() {
		if strings.ReplaceAll(parameter.Name, "_", "-") != name {
			continue
		}
		switch parameter.Kind {
		case metadata.Select:
			for _, option := range parameter.Options {
				o.Values = append(o.Values, option.Value)
			}
		case metadata.Boolean:
			o.Values = []string{"true", "false"}
		case metadata.InterfaceName:
			o.Of = Interfaces
		default: // anything that is of this kind
		}
	}
}

// unquote takes what stands for the value out of a flag's usage, where it is between backquotes.
func unquote(usage string) (value, text string) {
	before, rest, _ := strings.Cut(usage, "`")
	value, after, found := strings.Cut(rest, "`")
	if !found {
		return "", usage
	}
	return value, before + value + after
}

// defaultOf is a flag's default that is worth a word.
func defaultOf(flag cli.DocGenerationFlag) string {
	text := flag.GetDefaultText()
	if unquoted, err := strconv.Unquote(text); err == nil {
		text = unquoted
	}
	switch text {
	case "false", "0", "0s":
		return ""
	}
	return text
}

// A Block is a part of a description.
type Block struct {
	Kind  Kind
	Lines []string // one for prose and items, which are to be wrapped
}

// Kind tells blocks apart.
type Kind int

// The kinds of blocks.
const (
	Prose    Kind = iota
	Item          // of a list
	Verbatim      // an example: lines that stay as they are
)

// blocks takes a description apart: prose ends at an empty line, an item begins with a hyphen, and what is indented is an example.
func blocks(text string) []Block {
	var all []Block
	open := false // the last block may go on
	for line := range strings.SplitSeq(text, "\n") {
		trimmed := strings.TrimSpace(line)
		isIndented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		item, isItem := strings.CutPrefix(line, "- ")
		last := len(all) - 1
		switch {
		case trimmed == "":
			open = false
		case isItem:
			all, open = append(all, Block{Item, []string{item}}), true
		case open && all[last].Kind == Verbatim && isIndented:
			all[last].Lines = append(all[last].Lines, strings.TrimRight(line, " "))
		case open && (all[last].Kind == Item || all[last].Kind == Prose && !isIndented):
			all[last].Lines[0] += " " + trimmed
		case isIndented:
			all, open = append(all, Block{Verbatim, []string{strings.TrimRight(line, " ")}}), true
		default:
			all, open = append(all, Block{Prose, []string{trimmed}}), true
		}
	}
	for _, block := range all {
		if block.Kind == Verbatim {
			outdent(block.Lines)
		}
	}
	return all
}

// outdent takes away the indent that lines have in common.
func outdent(lines []string) {
	indent := func(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }
	least := indent(slices.MinFunc(lines, func(a, b string) int { return indent(a) - indent(b) }))
	for i, line := range lines {
		lines[i] = line[least:]
	}
}
