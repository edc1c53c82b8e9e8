package metadata

import (
	"bytes"
	"encoding/xml"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/ocf"
)

var update = flag.Bool("update", false, "write the golden files and docs/parameters.md")

// golden compares a document with the file that is under version control.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (make it with: go test ./internal/metadata -update)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date: go test ./internal/metadata -update (-file +table):\n%s", file, diff)
	}
}

func document(t *testing.T) []byte {
	t.Helper()
	doc, err := XML("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDocumentsAreUpToDate(t *testing.T) {
	golden(t, filepath.Join("testdata", "meta-data.xml"), document(t))
	golden(t, filepath.Join("..", "..", "docs", "parameters.md"), []byte(Markdown()))
}

// TestXMLSuitsPcs asks the schema by which pcs accepts or refuses an agent.
func TestXMLSuitsPcs(t *testing.T) {
	const schema = "/usr/share/pcs/data/ocf-1.1.rng"
	xmllint, err := exec.LookPath("xmllint")
	if _, serr := os.Stat(schema); err != nil || serr != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no xmllint (%v) or no schema (%v)", err, serr)
		}
		t.Skipf("needs libxml2-utils and pcs: %v, %v", err, serr)
	}
	cmd := exec.Command(xmllint, "--nonet", "--noout", "--relaxng", schema, "-")
	cmd.Stdin = bytes.NewReader(document(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestXMLKeepsTheStandard checks what the schemas leave open, and the order that only the official one wants.
func TestXMLKeepsTheStandard(t *testing.T) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(document(t)); err != nil {
		t.Fatal(err)
	}
	agent := doc.Root()
	if got := agent.SelectAttrValue("name", ""); got != "clusterip" {
		t.Errorf("agent %q", got)
	}
	if diff := cmp.Diff([]string{"version", "longdesc", "shortdesc", "parameters", "actions"}, tags(agent)); diff != "" {
		t.Errorf("elements of the agent (-want +got):\n%s", diff)
	}
	if got := agent.SelectElement("version").Text(); got != "1.1" {
		t.Errorf("version of the API = %q", got)
	}
	for _, p := range agent.FindElements("parameters/parameter") {
		if diff := cmp.Diff([]string{"longdesc", "shortdesc", "content"}, tags(p)); diff != "" {
			t.Errorf("elements of %s (-want +got):\n%s", p.SelectAttrValue("name", ""), diff)
		}
	}
	for _, action := range []string{"start", "stop", "monitor", "meta-data"} {
		if agent.FindElement("actions/action[@name='"+action+"']") == nil {
			t.Errorf("the mandatory action %s is missing", action)
		}
	}
	intervals := make(map[string]bool)
	for _, a := range agent.FindElements("actions/action[@name='monitor']") {
		interval := a.SelectAttrValue("interval", "")
		if interval == "" || intervals[interval] {
			t.Errorf("a second monitor with the interval %q: Pacemaker cannot tell them apart", interval)
		}
		intervals[interval] = true
	}
}

func tags(e *etree.Element) []string {
	var all []string
	for _, child := range e.ChildElements() {
		all = append(all, child.Tag)
	}
	return all
}

func TestXMLTakesAnyVersion(t *testing.T) {
	for _, version := range []string{"", "1.0-rc1+git", `"<&>'`, "\xff\n\x00", "v1\u2028"} {
		doc, err := XML(version)
		if err != nil {
			t.Fatal(err)
		}
		var agent struct {
			Version string `xml:"version,attr"`
		}
		if err := xml.Unmarshal(doc, &agent); err != nil || agent.Version != ocf.OneLine(version) {
			t.Errorf("version %q is written as %q, %v", version, agent.Version, err)
		}
	}
}

func TestTablesAreComplete(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range Parameters() {
		if p.Name == "" || seen[p.Name] || p.Short == "" || strings.TrimSpace(p.Long) == "" {
			t.Errorf("parameter %q: no name or description, or twice", p.Name)
		}
		seen[p.Name] = true
		if (p.Kind == Select) != (len(p.Options) > 0) {
			t.Errorf("%s: options and kind do not suit", p.Name)
		}
		if !p.Required && (p.Default == "") == (p.Derived == "") {
			t.Errorf("%s: must have a default or be derived", p.Name)
		}
		if len(p.Options) > 0 && p.Options[0].Value != p.Default {
			t.Errorf("%s: the default %s is not the first option", p.Name, p.Default)
		}
		for _, text := range []string{p.Example, p.Default} {
			if _, err := p.read(text); text != "" && err != nil {
				t.Errorf("%s: the table's own value: %v", p.Name, err)
			}
		}
		for _, paragraph := range p.manual() {
			// pcs runs the paragraphs together.
			if !strings.HasSuffix(paragraph, ".") || !utf8.ValidString(paragraph) {
				t.Errorf("%s: the manual's paragraph does not end in a full stop: %q", p.Name, paragraph)
			}
		}
	}
	for _, a := range Actions() {
		if a.Timeout <= 0 || a.Meaning == "" {
			t.Errorf("action %s is incomplete", a.Name)
		}
	}
}

func TestWrap(t *testing.T) {
	tests := []struct {
		name, text string
		width      int
		want       string
	}{
		{"a short line stays", "a b c", 10, "  a b c"},
		{"the width counts the indent", "aa bb cc", 7, "  aa bb\n  cc"},
		{"letters are counted, not bytes", "üü üü", 7, "  üü üü"},
		{"a long word has a line of its own", "a bbbbbbbbbb c", 6, "  a\n  bbbbbbbbbb\n  c"},
		{"a command is not broken", "$ pcs resource create", 6, "  $ pcs resource create"},
		{"nothing is nothing", "", 6, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, wrap(tt.text, "  ", tt.width)); diff != "" {
				t.Errorf("wrapped (-want +got):\n%s", diff)
			}
		})
	}
}
