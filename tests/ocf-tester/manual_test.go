//go:build system

package ocftester

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What is installed beside the program.
const (
	commandPage    = "/usr/share/man/man8/ocf-clusterip.8"
	agentPage      = "/usr/share/man/man7/ocf_custom_clusterip.7"
	bashCompletion = "/usr/share/bash-completion/completions/ocf-clusterip"
	zshCompletion  = "/usr/share/zsh/vendor-completions/_ocf-clusterip"
	fishCompletion = "/usr/share/fish/vendor_completions.d/ocf-clusterip.fish"
)

// tool runs a program of the system. It must succeed, and print no warnings.
func tool(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hung)
	defer cancel()
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Dir = t.TempDir()
	usr := installedFolder(t) + "/usr"
	command.Env = []string{
		"PATH=" + usr + "/sbin:/sbin:/bin:/usr/sbin:/usr/bin", "XDG_DATA_DIRS=" + usr + "/share:/usr/share",
		"HOME=" + command.Dir, "LC_ALL=C.UTF-8", "TERM=dumb", "MANWIDTH=80",
	}
	var stdout, stderr strings.Builder
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("%q: %v\nstdout: %s\nstderr: %s", argv, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func installedFolder(t *testing.T) string {
	t.Helper()
	dir, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// page is a manual page as a reader sees it.
func page(t *testing.T, file string) string {
	t.Helper()
	return tool(t, "man", "--warnings", "--encoding=UTF-8", "--local-file", installedFolder(t)+file)
}

// TestManualPagesAreWellFormed asks the two formatters, and what fills the index of whatis.
func TestManualPagesAreWellFormed(t *testing.T) {
	dir := installedFolder(t)
	for _, file := range []string{commandPage, agentPage} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			tool(t, "man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", dir+file)
			if out := tool(t, "mandoc", "-T", "lint", "-W", "style", dir+file); out != "" {
				t.Errorf("mandoc: %s", out)
			}
			name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
			if out := tool(t, "lexgrog", dir+file); !strings.Contains(out, `"`+name+" - ") {
				t.Errorf("lexgrog finds no name and description: %s", out)
			}
			text := page(t, file)
			for line := range strings.Lines(text) {
				if len([]rune(strings.TrimRight(line, "\n"))) > 80 {
					t.Errorf("does not fit 80 columns: %s", line)
				}
			}
			if !strings.Contains(text, version) || !strings.Contains(text, "2023-11-14") {
				t.Errorf("the page lacks the version %s, or the source's date", version)
			}
		})
	}
}

// The beginnings of lines of help: a flag with what stands for its value, and a command.
var (
	optionOfHelp  = regexp.MustCompile(`(?m)^ {3,5}((?:--?[\w-]+, )*--?[\w-]+(?: [^ a-z]\S*)?)(?:  |$)`)
	commandOfHelp = regexp.MustCompile(`(?m)^ {3,5}([a-z][a-z-]*(?:, [a-z-]+)*)  +\S`)
)

// commandsOfHelp returns what the program's help names as commands.
func commandsOfHelp(t *testing.T) []string {
	t.Helper()
	_, list, _ := strings.Cut(helpText(t), "COMMANDS:\n")
	list, _, _ = strings.Cut(list, "OPTIONS:\n")
	var all []string
	for _, match := range commandOfHelp.FindAllStringSubmatch(list, -1) {
		all = append(all, strings.Split(match[1], ", ")...)
	}
	for _, want := range append([]string{"whois", "usage", "help"}, actions...) {
		if !slices.Contains(all, want) {
			t.Fatalf("help names %q, without %s", all, want)
		}
	}
	return all
}

func helpText(t *testing.T, args ...string) string {
	t.Helper()
	return tool(t, append(append([]string{installedFolder(t) + program}, args...), "--help")...)
}

// optionsOfHelp returns the flags that a command's help names, as lines such as "--help, -h" or "--file FILE".
func optionsOfHelp(t *testing.T, command string) []string {
	t.Helper()
	_, list, _ := strings.Cut(helpText(t, command), "OPTIONS:\n")
	var all []string
	for _, match := range optionOfHelp.FindAllStringSubmatch(list, -1) {
		all = append(all, match[1])
	}
	if len(all) == 0 {
		t.Fatalf("%s --help names no option:\n%s", command, list)
	}
	return all
}

// TestHelpFitsATerminal: 80 columns, of each command.
func TestHelpFitsATerminal(t *testing.T) {
	for _, command := range append(commandsOfHelp(t), "") {
		text := helpText(t, strings.Fields(command)...)
		for line := range strings.Lines(text) {
			if len([]rune(strings.TrimRight(line, "\n"))) > 80 {
				t.Errorf("%s --help does not fit 80 columns: %s", command, line)
			}
		}
	}
}

// TestCommandPageNamesAll: the page of the program names each command and each flag, and nothing that is hidden.
func TestCommandPageNamesAll(t *testing.T) {
	text := page(t, commandPage)
	lines := "\n" + text
	for _, command := range commandsOfHelp(t) {
		if !regexp.MustCompile(`\n {3,7}(\S+, )*` + command + `\b`).MatchString(lines) {
			t.Errorf("the page has no entry for %s", command)
		}
		for _, option := range optionsOfHelp(t, command) {
			if !regexp.MustCompile(`\n {7}` + regexp.QuoteMeta(option) + `(\s|$)`).MatchString(lines) {
				t.Errorf("the page has no entry for %s of %s", option, command)
			}
		}
	}
	for _, want := range []string{"EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO", "default: tcp"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(text, "sweep ") {
		t.Errorf("the page names what is hidden:\n%s", text)
	}
}

// TestAgentPageNamesAll compares the page of the agent with its meta-data.
func TestAgentPageNamesAll(t *testing.T) {
	text := page(t, agentPage)
	m := newNode(t).metaData(t)
	for i, p := range m.Parameters {
		_, entry, found := strings.Cut(text, "\n       "+p.Name)
		if !found {
			t.Errorf("the page has no entry for %s", p.Name)
			continue
		}
		if i+1 < len(m.Parameters) {
			entry, _, _ = strings.Cut(entry, "\n       "+m.Parameters[i+1].Name)
		}
		entry = strings.Join(strings.Fields(entry), " ")
		if p.Content.Default != "" && !strings.Contains(entry, "default "+p.Content.Default) {
			t.Errorf("the default of %s, %q, is not in: %s", p.Name, p.Content.Default, entry)
		}
		if !strings.Contains(entry, p.Shortdesc+".") || !strings.Contains(entry, p.Content.Type) {
			t.Errorf("%s is not described as %q (%s): %s", p.Name, p.Shortdesc, p.Content.Type, entry)
		}
	}
	for _, a := range m.Actions {
		if !strings.Contains(text, "\n       "+a.Name) {
			t.Errorf("the page has no entry for the action %s", a.Name)
		}
	}
}

// TestExamplesOfTheAgentPage: both can be copied, and make what their text describes.
func TestExamplesOfTheAgentPage(t *testing.T) {
	n := newNode(t)
	text := page(t, agentPage)
	for _, tt := range []struct{ title, load string }{
		{"EXAMPLE PCS", `sed 's/^ *pcs /pcs -f cib /' example | sh -e`},
		{"EXAMPLE CRM SHELL", "CIB_file=cib crm -F configure load update example"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			_, example, found := strings.Cut(text, "\n"+tt.title+"\n")
			example, _, closed := strings.Cut(example, "\n\n")
			if !found || !closed {
				t.Fatalf("no such section in:\n%s", text)
			}
			cd := newCIB(t, n)
			n.shell(t, cd+"cat >example <<'EOF'\n"+example+"\nEOF\n"+tt.load)
			n.shell(t, cd+"crm_verify --xml-file cib")
			made := n.shell(t, cd+"cat cib")
			for _, want := range []string{
				`<clone id="web-ip-clone">`, `type="clusterip"`, `name="ip" value="` + address + `"`,
				`name="clone-max" value="8"`, `name="clone-node-max" value="8"`, `name="globally-unique" value="true"`,
				`name="resource-stickiness" value="0"`,
				`interval="10s"`, `interval="60s"`, `name="OCF_CHECK_LEVEL" value="10"`,
			} {
				if !strings.Contains(made, want) {
					t.Errorf("%s is not in what was made: %s", want, made)
				}
			}
		})
	}
}
