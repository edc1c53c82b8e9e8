//go:build system

package ocftester

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCompletion types the beginnings of commands in real shells.
func TestCompletion(t *testing.T) {
	var flags []string
	for _, option := range optionsOfHelp(t, "whois") {
		for name := range strings.SplitSeq(option, ", ") {
			name, _, _ = strings.Cut(name, " ")
			flags = append(flags, name)
		}
	}
	beginWith := func(all []string, beginning string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, beginning) })
	}
	commands := commandsOfHelp(t)
	tests := []struct {
		name, typed string
		want        []string
	}{
		{"all commands", "ocf-clusterip ", commands},
		{"the beginning of a command", "ocf-clusterip who", []string{"whois"}},
		{"of several", "ocf-clusterip m", []string{"meta-data", "metrics", "monitor"}},
		{"what is hidden", "ocf-clusterip swe", nil},
		{"a flag of the program", "ocf-clusterip --v", []string{"--version"}},
		{"flags of a command", "ocf-clusterip whois --hash", beginWith(flags, "--hash")},
		{"flags behind an argument", "ocf-clusterip whois 192.0.2.7 --to 192.168.10.3 --js", []string{"--json"}},
		{
			"values of a parameter", "ocf-clusterip whois --hashmode source",
			[]string{"sourceip", "sourceip-sourceport", "sourceip-sourceport-destport"},
		},
		{"values behind an equals sign", "ocf-clusterip whois --hash-compat=", []string{"clusterip", "xt_cluster"}},
		{"the beginning of one", "ocf-clusterip whois --hash-compat=xt", []string{"xt_cluster"}},
		{"values of a flag", "ocf-clusterip whois --protocol ud", []string{"udp", "udplite"}},
		{"a file", "ocf-clusterip whois --file cl", []string{"clients.txt"}},
		{"no file where a client stands", "ocf-clusterip whois cl", nil},
		{"nothing for a value that has no list", "ocf-clusterip whois --buckets ", nil},
		{"nothing behind an action", "ocf-clusterip start ", nil},
	}
	for i, tt := range tests {
		if tt.name == "of several" { // not all that are named here need be there
			tests[i].want = slices.DeleteFunc(tt.want, func(s string) bool { return !slices.Contains(commands, s) })
		}
	}
	typed := make([]string, 0, len(tests))
	for _, tt := range tests {
		typed = append(typed, tt.typed)
	}
	for _, shell := range []struct {
		name     string
		complete func(t *testing.T, typed []string) string
	}{
		{"bash", bashCompletes}, {"zsh", zshCompletes}, {"fish", fishCompletes},
	} {
		t.Run(shell.name, func(t *testing.T) {
			offers := offersOf(shell.complete(t, typed))
			for _, tt := range tests {
				if diff := cmp.Diff(slices.Sorted(slices.Values(tt.want)), offers[tt.typed]); diff != "" {
					t.Errorf("%s: %q<TAB> (-want +got):\n%s", tt.name, tt.typed, diff)
				}
			}
		})
	}
}

// offersOf reads what shells are made to print: a line "typed:" with what was typed, and lines "offer:" with what it may become.
func offersOf(output string) map[string][]string {
	offers := map[string][]string{}
	typed := ""
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n")
		if what, isIt := strings.CutPrefix(line, "typed:"); isIt {
			typed = what
		}
		offer, isIt := strings.CutPrefix(line, "offer:")
		if !isIt {
			continue
		}
		offer, _, _ = strings.Cut(offer, "\t") // and the description
		if _, value, found := strings.Cut(strings.TrimSuffix(offer, "="), "="); found {
			offer = value // behind the flag
		}
		offer = strings.TrimSuffix(offer, "=") // of a flag that takes a value
		if !slices.Contains(offers[typed], offer) {
			offers[typed] = append(offers[typed], offer)
		}
	}
	for _, words := range offers {
		slices.Sort(words)
	}
	return offers
}

// bashCompletes calls what bash calls, loaded as the package bash-completion does. Its readline makes three words of --flag=value.
func bashCompletes(t *testing.T, typed []string) string {
	t.Helper()
	return tool(t, append([]string{"bash", "--norc", "-c", `
		source /usr/share/bash-completion/bash_completion
		touch clients.txt other.txt
		_completion_loader ocf-clusterip
		read -r _ _ function _ < <(complete -p ocf-clusterip)
		for typed; do
			COMP_WORDS=(${typed//=/ = })
			[[ $typed != *' ' ]] || COMP_WORDS+=('')
			COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			"$function" ocf-clusterip
			printf '%s\n' "typed:$typed" "${COMPREPLY[@]/#/offer:}"
		done
	`, "bash"}, typed...)...)
}

// zshCompletes presses the tabulator on a terminal, and records what the completion system gets.
func zshCompletes(t *testing.T, typed []string) string {
	t.Helper()
	const rc = `
		fpath=(SITE $fpath)
		PROMPT=
		autoload -Uz compinit && compinit -u -D
		compadd() {
			if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
				local -a hits
				builtin compadd -A hits "$@"
				((${#hits})) && print -rl -- '' "offer:"$^hits
			fi
			builtin compadd "$@"
		}
		ready() { print; print is ready }
		zle -N zle-line-init ready
		complete-and-print() { zle complete-word; ready }
		zle -N complete-and-print
		bindkey '^I' complete-and-print
	`
	folder := t.TempDir()
	site := filepath.Dir(installedFolder(t) + zshCompletion)
	if err := os.WriteFile(filepath.Join(folder, ".zshrc"), []byte(strings.Replace(rc, "SITE", site, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return tool(t, append([]string{"zsh", "-f", "-c", `
		touch clients.txt other.txt
		zmodload zsh/zpty
		export ZDOTDIR=$1
		shift
		zpty terminal zsh -i
		zpty -r -m terminal output '*is ready*'
		for typed; do
			zpty -w -n terminal $'\C-u'$typed$'\t'
			zpty -r -m terminal output '*is ready*'
			print -r -- "typed:$typed"
			print -r -- $output
		done
		zpty -d terminal
	`, "zsh", folder}, typed...)...)
}

// fishCompletes asks fish, which has a command for that, and finds the script itself.
func fishCompletes(t *testing.T, typed []string) string {
	t.Helper()
	return tool(t, append([]string{"fish", "-c", `
		touch clients.txt other.txt
		for typed in $argv
			echo typed:$typed
			complete -C $typed | string replace -r '^' offer:
		end
		true # whatever the last one was
	`}, typed...)...)
}
