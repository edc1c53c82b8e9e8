// Package manual makes the manual pages, and the completion of bash, zsh and fish, from the definitions of the command line and of the
// resource's parameters. Only the program that `make manual` builds contains it, so that the agent, which Pacemaker starts for each action,
// stays small.
//
// The library cli has templates for all of these, which leave out what users need: its manual page has no description and no arguments
// of a command, its completion no values, and in bash and zsh it starts the program at each press of the tabulator.
package manual

import (
	"cmp"
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/text"
)

//go:embed *.tmpl
var templates embed.FS

// Program is the command line of a program.
type Program struct {
	*cli.Command
	Values map[string][]string // of flags that have fixed values, but for the parameters of the resource
	Time   time.Time           // of the source; zero if it is unknown
}

// Files returns what is installed, by name. An error says what of the definitions shells would take apart.
func (p Program) Files() (map[string]string, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for name, file := range map[string]string{
		"page.8.tmpl": p.Name + ".8", "page.7.tmpl": "ocf_custom_clusterip.7",
		"bash.tmpl": p.Name + ".bash", "zsh.tmpl": p.Name + ".zsh", "fish.tmpl": p.Name + ".fish",
	} {
		text, err := p.execute(name)
		if err != nil {
			return nil, err
		}
		files[file] = text
	}
	return files, nil
}

func (p Program) execute(name string) (string, error) {
	functions := template.FuncMap{
		"join": strings.Join, "upper": strings.ToUpper, "markdown": markdown, "command": wrappedCommand, "flags": p.flags,
		"function": func() string { return "_" + strings.ReplaceAll(p.Name, "-", "_") },
		"quote":    func(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" },
		"fish":     func(text string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'" },
		"zsh":      strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `:`, `\:`).Replace,
		"agent":    metadata.Describe, "parameters": metadata.Parameters, "actions": metadata.Actions,
		"isCommand": func(paragraph string) bool { return strings.HasPrefix(paragraph, metadata.CommandMark) },
	}
	parsed, err := template.New(name).Funcs(functions).ParseFS(templates, name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := parsed.Execute(&b, p); err != nil {
		return "", err
	}
	if strings.HasPrefix(name, "page") {
		return roff(b.String()), nil
	}
	return b.String(), nil
}

// Date is the day of the source, empty if it is unknown.
func (p Program) Date() string {
	if p.Time.IsZero() {
		return ""
	}
	return p.Time.UTC().Format(time.DateOnly)
}

// A Flag is a flag of a command.
type Flag struct {
	Names       []string // with their hyphens
	Placeholder string   // of the value; empty if it takes none
	Usage       string
	Text        string   // the usage with the default
	Values      []string // the only ones that are allowed, if there are any
	File, NIC   bool     // the value is the name of one
}

// flags are those of a command that are not hidden.
func (p Program) flags(command *cli.Command) []Flag {
	var all []Flag
	for _, definition := range command.VisibleFlags() {
		documented, _ := definition.(cli.DocGenerationFlag)
		name := definition.Names()[0]
		_, text, _ := strings.Cut(strings.Replace(definition.String(), "\t", "\n", 1), "\n") // behind the names, see cli.FlagStringer
		flag := Flag{Usage: strings.ReplaceAll(documented.GetUsage(), "`", ""), Text: text, Values: p.Values[name]}
		for _, name := range definition.Names() {
			hyphens := "--"
			if len(name) == 1 {
				hyphens = "-"
			}
			flag.Names = append(flag.Names, hyphens+name)
		}
		if documented.TakesValue() {
			_, rest, _ := strings.Cut(documented.GetUsage(), "`")
			placeholder, _, _ := strings.Cut(rest, "`")
			flag.Placeholder = cmp.Or(placeholder, "VALUE")
		}
		if text, isText := definition.(*cli.StringFlag); isText {
			flag.File = text.TakesFile
		}
		for _, parameter := range metadata.Parameters() {
			if strings.ReplaceAll(parameter.Name, "_", "-") == name {
				flag.NIC = parameter.Kind == metadata.InterfaceName
				flag.Values = valuesOf(parameter)
			}
		}
		all = append(all, flag)
	}
	return all
}

func valuesOf(parameter metadata.Parameter) []string {
	if parameter.Kind == metadata.Boolean {
		return []string{"true", "false"}
	}
	var values []string
	for _, option := range parameter.Options {
		values = append(values, option.Value)
	}
	return values
}

// check refuses a name or value that a shell would take apart: the templates write it without quotes.
func (p Program) check() error {
	var words []string
	for _, command := range append(p.VisibleCommands(), p.Command) {
		words = append(words, command.Names()...)
		for _, flag := range p.flags(command) {
			words = slices.Concat(words, flag.Names, flag.Values)
		}
	}
	for _, word := range words {
		if text.ShellQuote(word) != word {
			return fmt.Errorf("%q needs quotes in a shell", word)
		}
	}
	return nil
}

const pageWidth = 74 // of the Markdown in columns, so that a line of roff has 80 at most

// markdown escapes prose that is no Markdown, and wraps it for a paragraph with this indent.
func markdown(indent int, prose string) string {
	escaped := strings.NewReplacer(
		`\`, `\\`, "`", "\\`", `*`, `\*`, `_`, `\_`, `<`, `\<`, `>`, `\>`, `[`, `\[`, `!`, `\!`, `&`, `\&`, `-`, `\-`, `+`, `\+`,
		`#`, `\#`, `:`, `\:`, `|`, `\|`, `~`, `\~`,
	).Replace(prose)
	escaped = regexp.MustCompile(`([0-9])\.`).ReplaceAllString(escaped, `$1\.`) // a line may begin with a number
	return strings.TrimLeft(text.Wrap(escaped, strings.Repeat(" ", indent), pageWidth), " ")
}

// wrappedCommand makes a command an example of several lines that can be copied.
func wrappedCommand(command string) string {
	return strings.ReplaceAll(text.Wrap(strings.TrimPrefix(command, metadata.CommandMark), "    ", pageWidth-2), "\n    ", " \\\n        ")
}

// roff makes a manual page of Markdown. Hyphens can be copied, and names are neither hyphenated nor torn apart by wide gaps: .EE would
// switch hyphenation on again.
func roff(source string) string {
	title, page, _ := strings.Cut(string(md2man.Render([]byte(source))), "\n.SH")
	page = strings.NewReplacer(`\-`, `\-`, "-", `\-`, "\n.EX\n", "\n.RS 4\n.nf\n", "\n.EE\n", "\n.fi\n.RE\n").Replace(page)
	return strings.TrimPrefix(title, ".nh\n") + ".nh\n.ad l\n.SH" + page
}
