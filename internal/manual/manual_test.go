package manual

import (
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
)

var update = flag.Bool("update", false, "write the golden files")

// sample has one of everything, and texts that shells, roff and Markdown would take for something else.
func sample(t *testing.T, more ...cli.Flag) Program {
	t.Helper()
	app := &cli.Command{
		Name: "sample-tool", Version: "v1.2-3", Usage: "shows what definitions become",
		HideHelpCommand: true, Writer: io.Discard, Action: func(context.Context, *cli.Command) error { return nil },
		Description: "Prose in lines,\nwith a non-breaking\u00a0space and a \"quote\".\n\n" +
			"    an example --that 'stays' \\\n        as it is\n\n" +
			".TH is no macro here; neither is\n'br.",
		Commands: []*cli.Command{
			{Name: "start", Usage: "begin", Category: "Actions"},
			{Name: "secret", Usage: "is not for you", Category: "Actions", Hidden: true},
			{Name: "usage", Aliases: []string{"help"}, Usage: "print this", Category: "Actions"},
			{Name: "stop", Usage: "end; it's $(reboot) `harmless` [really]: \\o/ *_*", Category: "Actions"},
			{
				Name: "ask", Usage: "ask for something", Category: "Commands", ArgsUsage: "WHOM[:PORT]...",
				Description: "Asks.\n\n    sample-tool ask --json them",
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "to", Usage: "the `ADDRESS[:PORT]` to ask; it's \\ $(reboot)"},
					&cli.StringFlag{Name: "file", Usage: "read from `FILE`", TakesFile: true},
					&cli.BoolFlag{Name: "json", Aliases: []string{"j"}, Usage: "write JSON"},
					&cli.UintFlag{Name: "buckets", Usage: "how many there are, `N`", Value: 8},
					&cli.StringFlag{Name: "ports", Usage: "`NAME,...` of the switch's ports. Those to other switches, too"},
					&cli.StringFlag{Name: "hidden", Hidden: true},
					&cli.StringFlag{Name: "colour", Usage: "of `WHICH` colour", Value: "red", DefaultText: "red"},
					&cli.StringFlag{Name: "mac-mode", Usage: "`VALUE` of mac_mode"},
					&cli.StringFlag{Name: "nic", Usage: "`VALUE` of nic"},
				}, more...),
			},
			{Name: "watch", Usage: "look again and again", Category: "Commands"},
		},
	}
	if err := app.Run(t.Context(), []string{"sample-tool"}); err != nil { // the library adds its own flags
		t.Fatal(err)
	}
	return Program{Command: app, Values: map[string][]string{"colour": {"red", "green"}}, Time: time.Unix(1700000000, 0)}
}

// TestGolden shows what becomes of the sample.
func TestGolden(t *testing.T) {
	files, err := sample(t).Files()
	if err != nil {
		t.Fatal(err)
	}
	delete(files, "ocf_custom_clusterip.7") // see TestAgentPageSaysAll
	for name, got := range files {
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

func TestWhatShellsWouldTakeApart(t *testing.T) {
	for _, tt := range []struct {
		name   string
		flag   cli.Flag
		values []string
		fault  string
	}{
		{"a name", &cli.BoolFlag{Name: "a$b"}, nil, `"--a$b"`},
		{"a value", &cli.StringFlag{Name: "d"}, []string{"it's"}, `"it's"`},
		{"an empty value", &cli.StringFlag{Name: "d"}, []string{"x", ""}, `""`},
	} {
		program := sample(t, tt.flag)
		program.Values["d"] = tt.values
		if _, err := program.Files(); err == nil || !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestAgentPageSaysAll: all of the table is on the page.
func TestAgentPageSaysAll(t *testing.T) {
	program := sample(t)
	program.Time = time.Time{}
	files, err := program.Files()
	if err != nil {
		t.Fatal(err)
	}
	page := files["ocf_custom_clusterip.7"]
	words := plain(strings.NewReplacer(`\fB`, "", `\fP`, "").Replace(page))
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
		if want := strings.Join(strings.Fields(want), " "); !strings.Contains(words, want) {
			t.Errorf("the page does not say: %s", want)
		}
	}
	if strings.Contains(page, "1970") || strings.Contains(page, "0001") {
		t.Errorf("a date that is not known is on the page:\n%.200s", page)
	}
}

// FuzzTextIsNoMarkdown: whatever text is written, a reader of the page sees this text, and roff sees no macro in it.
func FuzzTextIsNoMarkdown(f *testing.F) {
	f.Add(".br 'br \\n(.x .TH \\ *a* _b_ `c` <d> [e](f) &amp; - g + h # i : j | k ~ l 1. m !n ... ")
	f.Add("10. an item? - another, and a long text that is wrapped somewhere near the end of the line - here. 2. is another")
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.Join(strings.Fields(ocf.OneLine(text)), " ")
		words := "begin " + markdown(0, text) + " end\n"
		page := roff("# \"T\" 8\n\n# NAME\n\nx\n\n# TEXT\n\n" + words + "\n**term**\n: " + words)
		_, paragraphs, _ := strings.Cut(page, ".SH TEXT\n")
		want := strings.Join(strings.Fields("begin "+strings.ReplaceAll(text, "\uFFFD", "?")+" end"), " ")
		got := strings.Split(strings.ReplaceAll(paragraphs, "\uFFFD", "?"), ".TP\n\\fBterm\\fP\n")
		if len(got) != 2 || plain(got[0]) != want || plain(got[1]) != want {
			t.Errorf("%q becomes %q", text, paragraphs)
		}
	})
}

// plain is what is left of roff that has no macro.
func plain(page string) string {
	var b strings.Builder
	for i := 0; i < len(page); i++ {
		switch {
		case strings.HasPrefix(page[i:], `\&`):
			i++
		case page[i] == '\\' && i+1 < len(page):
			i++
			fallthrough
		default:
			b.WriteByte(page[i])
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
