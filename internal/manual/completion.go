package manual

import (
	"errors"
	"fmt"
	"strings"

	"ocf-clusterip/internal/text"
)

// Check says what of the definitions could not be written into a script for a shell as it is: a name or a value that needs quoting. Texts
// are quoted.
func (p Program) Check() error {
	var faults []error
	check := func(what string, words ...string) {
		for _, word := range words {
			if word == "" || strings.ContainsFunc(word, func(r rune) bool { return !isPlain(r) }) {
				faults = append(faults, fmt.Errorf("%s: %q is no plain word, which shells would take as it is", what, word))
			}
		}
	}
	checkOptions := func(where string, options []Option) {
		for _, option := range options {
			check("an option of "+where, option.Names...)
			check("a value of "+where+" "+option.Names[0], option.Values...)
		}
	}
	check("the program's name", p.Name)
	checkOptions(p.Name, p.Options)
	for _, section := range p.Sections {
		for _, command := range section.Commands {
			check("a command", command.names()...)
			checkOptions(command.Name, command.Options)
		}
	}
	return errors.Join(faults...)
}

func isPlain(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./+", r)
}

func (c Command) names() []string { return append([]string{c.Name}, c.Aliases...) }

func (p Program) commands() []Command {
	var all []Command
	for _, section := range p.Sections {
		all = append(all, section.Commands...)
	}
	return all
}

// function is the name of the script's own function, and the beginning of others.
func (p Program) function() string { return "_" + strings.ReplaceAll(p.Name, "-", "_") }

func names(options []Option) []string {
	var all []string
	for _, option := range options {
		all = append(all, option.Names...)
	}
	return all
}

const made = "# Made from the program's own definitions."

// Bash returns the script that completes commands in bash. It needs nothing of the package bash-completion, which loads it.
func Bash(program Program) string {
	var b strings.Builder
	function := program.function()
	write := func(format string, arguments ...any) { fmt.Fprintf(&b, format+"\n", arguments...) }

	write("# bash completion for %s\n%s\n", program.Name, made)
	write(`%s_offer()
{
	local word
	for word; do
		[[ $word == "$current"* ]] && COMPREPLY+=("$word")
	done
}
`, function)
	write(`%s()
{
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= i
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} != -* ]]; then
			command=${COMP_WORDS[i]}
			break
		fi
	done
	# --flag=value is three words.
	if [[ $current == = ]]; then
		current=
	elif [[ $before == = ]]; then
		before=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $command:$before in`, function)
	options := func(commands []string, all []Option) {
		for _, option := range all {
			if option.Value != "" {
				write("\t%s)\n%s\t\treturn\n\t\t;;", bashPattern(commands, option.Names...), bashValues(function, option))
			}
		}
	}
	options([]string{""}, program.Options)
	for _, command := range program.commands() {
		options(command.names(), command.Options)
	}
	write("\tesac\n\tcase $command:$current in")
	write("\t:-*) %s_offer %s ;;", function, strings.Join(names(program.Options), " "))
	var commands []string
	for _, command := range program.commands() {
		commands = append(commands, command.names()...)
		write("\t%s) %s_offer %s ;;", bashPattern(command.names(), "-*"), function, strings.Join(names(command.Options), " "))
	}
	write("\t:*) %s_offer %s ;;", function, strings.Join(commands, " "))
	write("\tesac\n}\n\ncomplete -F %s %s", function, program.Name)
	return b.String()
}

// bashPattern is what a case looks for: any of the commands with any of the words.
func bashPattern(commands []string, words ...string) string {
	var all []string
	for _, command := range commands {
		for _, word := range words {
			all = append(all, command+":"+word)
		}
	}
	return strings.Join(all, " | ")
}

const bashFiles = `		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
`

func bashValues(function string, option Option) string {
	switch {
	case len(option.Values) > 0:
		return fmt.Sprintf("\t\t%s_offer %s\n", function, strings.Join(option.Values, " "))
	case option.Of == Files:
		return bashFiles
	case option.Of == Interfaces:
		return "\t\tmapfile -t COMPREPLY < <(cd /sys/class/net && compgen -f -- \"$current\")\n"
	default:
		return ""
	}
}

// Zsh returns the script that completes commands in zsh, for a folder of its fpath.
func Zsh(program Program) string {
	var b strings.Builder
	function := program.function()
	write := func(format string, arguments ...any) { fmt.Fprintf(&b, format+"\n", arguments...) }

	write("#compdef %s\n%s\n", program.Name, made)
	write("%s_commands() {\n\tlocal -a commands", function)
	for i, section := range program.Sections {
		write("\tcommands=(")
		for _, command := range section.Commands {
			for _, name := range command.names() {
				write("\t\t%s", text.ShellQuote(name+":"+command.Usage))
			}
		}
		title := section.Title
		if title == "" {
			title = "Other commands"
		}
		write("\t)\n\t_describe -t commands-%d %s commands", i, text.ShellQuote(title))
	}
	write("}\n")
	write("%s() {\n\tlocal curcontext=$curcontext state line\n\ttypeset -A opt_args", function)
	arguments := func(indent, command string, options []Option, others ...string) {
		words := []string{command}
		for _, option := range options {
			words = append(words, zshOption(option)...)
		}
		for _, other := range others {
			words = append(words, text.ShellQuote(other))
		}
		write("%s%s", indent, strings.Join(words, " \\\n"+indent+"\t"))
	}
	arguments("\t", "_arguments -C", program.Options, "1:command:"+function+"_commands", "*::argument:->arguments")
	write("\t[[ $state == arguments ]] || return\n\tcase $words[1] in")
	for _, command := range program.commands() {
		write("\t(%s)", strings.Join(command.names(), "|"))
		rest := command.Arguments
		if rest == "" {
			rest = "no argument" // else zsh offers options
		}
		arguments("\t\t", "_arguments", command.Options, "*:"+zshEscape(rest)+": ")
		write("\t\t;;")
	}
	write("\tesac\n}\n\n%s \"$@\"", function)
	return b.String()
}

// zshOption writes a flag as _arguments of zshcompsys(1) reads it, a word for each of its names, which exclude each other.
func zshOption(option Option) []string {
	exclude := "(" + strings.Join(option.Names, " ") + ")"
	var specs []string
	for _, name := range option.Names {
		spec := exclude + name
		if option.Value != "" && strings.HasPrefix(name, "--") {
			spec += "=" // or the value as the next word
		}
		spec += "[" + zshEscape(option.Usage) + "]"
		if option.Value != "" {
			action := " " // there is a value, but none that is known
			switch {
			case len(option.Values) > 0:
				action = "(" + strings.Join(option.Values, " ") + ")"
			case option.Of == Files:
				action = "_files"
			case option.Of == Interfaces:
				action = "_net_interfaces"
			}
			spec += ":" + zshEscape(option.Value) + ":" + action
		}
		specs = append(specs, text.ShellQuote(spec))
	}
	return specs
}

func zshEscape(text string) string {
	return strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `:`, `\:`).Replace(text)
}

// Fish returns the script that completes commands in fish.
func Fish(program Program) string {
	var b strings.Builder
	complete := func(when, what string) {
		fmt.Fprintf(&b, "complete -c %s -n %s %s\n", program.Name, fishQuoted(when), what)
	}

	fmt.Fprintf(&b, "# fish completion for %s\n%s\n\ncomplete -c %s -f\n", program.Name, made, program.Name)
	const noCommand = "__fish_use_subcommand"
	for _, option := range program.Options {
		complete(noCommand, fishOption(option))
	}
	for _, command := range program.commands() {
		b.WriteByte('\n')
		for _, name := range command.names() {
			complete(noCommand, "-a "+name+" -d "+fishQuoted(command.Usage))
		}
		when := "__fish_seen_subcommand_from " + strings.Join(command.names(), " ")
		for _, option := range command.Options {
			complete(when, fishOption(option))
		}
	}
	return b.String()
}

func fishOption(option Option) string {
	var words []string
	for _, name := range option.Names {
		if long, isLong := strings.CutPrefix(name, "--"); isLong {
			words = append(words, "-l "+long)
		} else {
			words = append(words, "-s "+strings.TrimPrefix(name, "-"))
		}
	}
	switch {
	case option.Value == "":
	case len(option.Values) > 0:
		words = append(words, "-x -a "+fishQuoted(strings.Join(option.Values, " ")))
	case option.Of == Files:
		words = append(words, "-r -F")
	case option.Of == Interfaces:
		words = append(words, "-x -a '(__fish_print_interfaces)'")
	default:
		words = append(words, "-x")
	}
	return strings.Join(append(words, "-d "+fishQuoted(option.Usage)), " ")
}

// fishQuoted quotes a text for fish, where a backslash means something between quotes too.
func fishQuoted(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
