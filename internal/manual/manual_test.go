package manual

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/metadata"
)

var update = flag.Bool("update", false, "write the golden files")

// sample has one of everything, and texts that shells and roff would take for something else.
func sample() *cli.App {
	return &cli.App{
		Name: "sample-tool", HelpName: "sample-tool", Version: "v1.2-3", Usage: "shows what definitions become", UsageText: "sample-tool ACTION\nsample-tool COMMAND [--help]",
		HideHelpCommand: true, Flags: []cli.Flag{cli.HelpFlag},
		Description: `Prose that is as long as its author likes, however it is broken
into lines.

   an example --that 'stays' \
       as it is

.TH is no macro here; neither is
'br. There are:
- a first item, which goes on
  in a second line
- a second one, with a non-breaking space` + "\u00a0" + `and a "quote"`,
		Commands: []*cli.Command{
			{Name: "start", Usage: "begin", Category: "Actions"},
			{Name: "secret", Usage: "is not for you", Category: "Actions", Hidden: true},
			{Name: "help", Aliases: []string{"usage"}, Usage: "print this"},
			{Name: "stop", Usage: "end; it's $(reboot) `harmless` [really]: \\o/", Category: "Actions"},
			{
				Name: "ask", Usage: "ask for something", Category: "Commands", ArgsUsage: "WHOM[:PORT]...", Description: "Asks.\n\n   sample-tool ask --json them",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "to", Aliases: []string{"t"}, Usage: "the `ADDRESS[:PORT]` to ask; it's \\ $(reboot)"},
					&cli.StringFlag{Name: "file", Usage: "read from `FILE`"},
					&cli.StringFlag{Name: "a-name-of-such-a-length", Usage: "leaves no room beside it for what it means", Value: "some thing"},
					&cli.BoolFlag{Name: "json", Usage: "write JSON"},
					&cli.UintFlag{Name: "buckets", Usage: "how many there are", Value: 8},
					&cli.UintFlag{Name: "fail", Usage: "how many fail"},
					&cli.StringFlag{Name: "ports", Usage: "`NAME,...` of the switch's ports. Those to other switches, too"},
					&cli.StringFlag{Name: "hidden", Hidden: true},
					&Choice{&cli.StringFlag{Name: "colour", Usage: "of `WHICH` colour", Value: "red"}, []string{"red", "green"}},
					&cli.StringFlag{Name: "mac-mode", Usage: "the parameter mac_mode"},
					&cli.StringFlag{Name: "nic", Usage: "the parameter nic"},
				},
			},
			{Name: "watch", Usage: "look again and again", Category: "Commands", ArgsUsage: " "},
		},
	}
}

func helpOf(t *testing.T, of any, width int) string {
	t.Helper()
	var b strings.Builder
	if err := WriteHelp(&b, of, width); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// command returns a command as the library hands it over when help is asked for.
func command(app *cli.App, name string) *cli.Command {
	app.Setup()
	return app.Command(name)
}

// TestGolden shows what becomes of the sample.
func TestGolden(t *testing.T) {
	program := Read(sample())
	for name, got := range map[string]string{
		"help.txt":         helpOf(t, sample(), 80),
		"help-command.txt": helpOf(t, command(sample(), "ask"), 80),
		"help-action.txt":  helpOf(t, command(sample(), "start"), 80),
		"page.8":           CommandPage(program, time.Unix(1700000000, 0)),
		"completion.bash":  Bash(program),
		"completion.zsh":   Zsh(program),
		"completion.fish":  Fish(program),
	} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v (make it with: go test ./internal/manual -update)", err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got), see go test ./internal/manual -update:\n%s", file, diff)
		}
	}
}

// TestTheLibraryAsksForHelp: all ways to ask for help lead here, and a definition that the library has set up looks as it did before.
func TestTheLibraryAsksForHelp(t *testing.T) {
	before := cli.HelpPrinter
	defer func() { cli.HelpPrinter = before }()
	for _, tt := range []struct{ args, want string }{
		{"--help", helpOf(t, sample(), 80)},
		{"-h", helpOf(t, sample(), 80)},
		{"ask --help", helpOf(t, command(sample(), "ask"), 80)},
		{"start -h", helpOf(t, command(sample(), "start"), 80)},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var got string
			cli.HelpPrinter = func(_ io.Writer, _ string, of any) { got = helpOf(t, of, 80) }
			app := sample()
			for _, c := range app.Commands {
				c.HideHelpCommand = true
			}
			if err := app.Run(append([]string{"sample-tool"}, strings.Fields(tt.args)...)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHelpFitsTheScreen(t *testing.T) {
	for _, tt := range []struct{ screen, want int }{{10, minHelp}, {minHelp, minHelp}, {80, 80}, {500, maxHelp}} {
		widest := 0
		for _, of := range []any{sample(), command(sample(), "ask")} {
			for line := range strings.Lines(helpOf(t, of, tt.screen)) {
				widest = max(widest, utf8.RuneCountInString(strings.TrimRight(line, "\n")))
			}
		}
		if widest > tt.want || widest < tt.want-10 {
			t.Errorf("on a screen of %d columns help has %d, want %d or a word less", tt.screen, widest, tt.want)
		}
	}
}

func TestBlocks(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []Block
	}{
		{"nothing", "", nil},
		{"lines run together", "one\ntwo", []Block{{Prose, []string{"one two"}}}},
		{"paragraphs do not", "one\n\n\ntwo\n", []Block{{Prose, []string{"one"}}, {Prose, []string{"two"}}}},
		{"an example keeps its lines, and its own indent", "say:\n   a \\\n     b", []Block{{Prose, []string{"say:"}}, {Verbatim, []string{`a \`, "  b"}}}},
		{"prose goes on behind an example", "   a\nb", []Block{{Verbatim, []string{"a"}}, {Prose, []string{"b"}}}},
		{"two examples", "\ta\n\n\tb", []Block{{Verbatim, []string{"a"}}, {Verbatim, []string{"b"}}}},
		{"items", "- a\n  more\n- b", []Block{{Item, []string{"a more"}}, {Item, []string{"b"}}}},
		{"an example behind an item", "- a\n\n   b", []Block{{Item, []string{"a"}}, {Verbatim, []string{"b"}}}},
		{"a hyphen within a line", "a - b", []Block{{Prose, []string{"a - b"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, blocks(tt.text)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzBlocks: no word is lost, whatever the text looks like.
func FuzzBlocks(f *testing.F) {
	f.Add(sample().Description)
	f.Add("   a\n\t b\n- c\nd\n\n - e")
	f.Fuzz(func(t *testing.T, text string) {
		var got []string
		for _, block := range blocks(text) {
			if block.Kind == Item {
				got = append(got, "-")
			}
			for _, line := range block.Lines {
				got = append(got, strings.Fields(line)...)
			}
		}
		if diff := cmp.Diff(strings.Fields(text), got); diff != "" && len(got)+len(strings.Fields(text)) > 0 {
			t.Errorf("words (-want +got):\n%s", diff)
		}
	})
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"--to":     `\-\-to`,
		`a\fBb`:    `a\(rsfBb`,
		"it's":     `it\(aqs`,
		"`x` ^ ~":  `\(gax\(ga \(ha \(ti`,
		"ü → 1\t2": `\[u00FC] \[u2192] 1 2`,
	} {
		if got := escape(text); got != want {
			t.Errorf("escape(%q) = %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"plain": "plain", "": `""`, `two "words"`: `"two \(dqwords\(dq"`,
	} {
		if got := argument(text); got != want {
			t.Errorf("argument(%q) = %q, want %q", text, got, want)
		}
	}
}

// FuzzTextIsNoMacro: whatever text is written, roff sees no request in it, and no escape sequence but those of escape.
func FuzzTextIsNoMacro(f *testing.F) {
	f.Add(".br\n'br\n\\n(.x .TH \\")
	f.Add(sample().Description)
	f.Fuzz(func(t *testing.T, text string) {
		var prose, example page
		prose.text(text)
		example.verbatim(strings.Split(text, "\n")...)
		lines := strings.Split(strings.TrimSuffix(prose.b.String(), "\n"), "\n")
		inside := strings.TrimSuffix(strings.TrimPrefix(example.b.String(), ".RS 4\n.nf\n"), ".fi\n.RE\n")
		for _, line := range append(lines, strings.Split(inside, "\n")...) {
			if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
				t.Errorf("a line of %q is a request: %q", text, line)
			}
			for _, rest := range strings.Split(line, `\`)[1:] {
				if !strings.HasPrefix(rest, "-") && !strings.HasPrefix(rest, "(") && !strings.HasPrefix(rest, "[u") && !strings.HasPrefix(rest, "&") {
					t.Errorf("%q has an escape sequence in %q", text, line)
				}
			}
		}
	})
}

func TestCheckFindsWhatShellsWouldTakeApart(t *testing.T) {
	app := sample()
	if err := Read(app).Check(); err != nil {
		t.Errorf("the sample: %v", err)
	}
	app.Commands[0].Name = "two words"
	app.Commands[4].Flags = append(app.Commands[4].Flags, &cli.BoolFlag{Name: "a$b"}, &Choice{&cli.StringFlag{Name: "d"}, []string{"it's", ""}})
	err := Read(app).Check()
	for _, fault := range []string{`"two words"`, `"--a$b"`, `"it's"`, `""`} {
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s is not named: %v", fault, err)
		}
	}
}

// TestAgentPageSaysAll: all of the table is on the page.
func TestAgentPageSaysAll(t *testing.T) {
	page := AgentPage("v1", time.Time{})
	words := strings.Join(strings.Fields(page), " ")
	wants := metadata.Describe().Long[:2]
	for _, p := range metadata.Parameters() {
		wants = append(wants, p.Short, p.Example, p.Default, p.Derived, p.Allowed())
		wants = append(wants, p.Paragraphs()...)
		for _, o := range p.Options {
			wants = append(wants, o.Value, o.Meaning)
		}
	}
	for _, a := range metadata.Actions() {
		wants = append(wants, a.Name, a.Meaning)
	}
	for _, want := range wants {
		if want := strings.Join(strings.Fields(escape(want)), " "); !strings.Contains(words, want) {
			t.Errorf("the page does not say: %s", want)
		}
	}
	if strings.Contains(page, "1970") || strings.Contains(page, "0001") {
		t.Errorf("a date that is not known is on the page:\n%.200s", page)
	}
}
