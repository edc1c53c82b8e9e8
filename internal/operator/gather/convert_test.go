package gather

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/convert"
)

// bigCIB is a CIB of more than 10 MB, with one clone of IPaddr2.
func bigCIB() string {
	var b strings.Builder
	b.WriteString(`<cib><configuration><nodes/><resources>`)
	for i := 0; b.Len() < 10<<20; i++ {
		fmt.Fprintf(&b, `<primitive id="p%d" class="ocf" provider="pacemaker" type="Dummy"><meta_attributes id="m%d">`+
			`<nvpair id="n%d" name="target-role" value="Stopped"/></meta_attributes></primitive>`, i, i, i)
	}
	b.WriteString(`<clone id="c"><primitive id="web-ip" class="ocf" provider="heartbeat" type="IPaddr2"><instance_attributes id="i">` +
		`<nvpair id="ip" name="ip" value="192.168.10.3"/></instance_attributes></primitive><meta_attributes id="m">` +
		`<nvpair id="max" name="clone-max" value="8"/><nvpair id="gu" name="globally-unique" value="true"/></meta_attributes></clone>`)
	b.WriteString(`</resources></configuration></cib>`)
	return b.String()
}

func TestBigCIB(t *testing.T) {
	configuration, err := CIB("-", strings.NewReader(bigCIB()))
	if err != nil {
		t.Fatal(err)
	}
	report, err := convert.Cluster(configuration, convert.Options{Tool: convert.PCS})
	if err != nil || !report.Complete() || len(report.Conversions) != 1 {
		t.Errorf("%v, %+v", err, report)
	}
}

func TestWhatIsNoCIB(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, row := range map[string]struct{ path, stdin, want string }{
		"good":       {file("good.xml", "<cib><configuration/></cib>"), "", ""},
		"empty":      {file("empty", " \n"), "", "is empty"},
		"text":       {file("notes.txt", "buy milk"), "", "is no CIB"},
		"another":    {file("page.html", "<html><body/></html>"), "", "is no CIB"},
		"torn":       {file("torn.xml", "<cib><configuration><resources>"), "", "is no CIB"},
		"folder":     {folder, "", "is a directory"},
		"missing":    {filepath.Join(folder, "none"), "", "no such file"},
		"too large":  {"-", strings.Repeat(" ", MaxInput) + "<cib/>", "more than 32 MiB"},
		"with depth": {"-", "<cib>" + strings.Repeat("<a>", 100), "nested"},
	} {
		_, err := CIB(row.path, strings.NewReader(row.stdin))
		if row.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if text := fmt.Sprint(err); !strings.Contains(text, row.want) || !strings.Contains(text, "--cib") || ocf.CodeOf(err) != ocf.ErrArgs {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

func TestInstalledIPaddr2(t *testing.T) {
	folder := t.TempDir()
	for text, want := range map[string]convert.Generation{
		"OCF_RESKEY_clusterip_hash_default=x":     convert.Target,
		"OCF_RESKEY_clusterip_hash_seed_default=": convert.Match,
		"#!/bin/sh": convert.Unknown,
	} {
		path := filepath.Join(folder, "IPaddr2")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := InstalledIPaddr2(path); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := InstalledIPaddr2(filepath.Join(folder, "none")); got != convert.Unknown {
		t.Errorf("none: %s", got)
	}
}

func TestRules(t *testing.T) {
	const saved = "*mangle\n:PREROUTING ACCEPT [0:0]\n[1:2] -A PREROUTING -d 192.168.10.3/32 -m comment --comment \"a b\" -m cluster " +
		"--cluster-total-nodes 2\n-A PREROUTING -j ACCEPT\nCOMMIT\n*filter\n-A INPUT -j CLUSTERIP\nCOMMIT\n"
	rules, err := Rules("-", strings.NewReader(saved))
	want := []convert.Rule{
		{Table: "mangle", Words: []string{"-P", "PREROUTING", "ACCEPT"}},
		{Table: "mangle", Words: []string{
			"-A", "PREROUTING", "-d", "192.168.10.3/32", "-m", "comment", "--comment", "a b", "-m", "cluster", "--cluster-total-nodes", "2",
		}},
		{Table: "mangle", Words: []string{"-A", "PREROUTING", "-j", "ACCEPT"}},
		{Table: "filter", Words: []string{"-A", "INPUT", "-j", "CLUSTERIP"}},
	}
	if diff := cmp.Diff(want, rules); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for text, want := range map[string]string{
		"buy milk": "no list of rules", "": "empty", "<cib/>": "no list of rules",
		"-P PREROUTING ACCEPT\n-A PREROUTING -j DROP\n": "iptables-save, not",
	} {
		if _, err := Rules("-", strings.NewReader(text)); !strings.Contains(fmt.Sprint(err), want) || ocf.CodeOf(err) != ocf.ErrArgs {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if rules, err := Rules("-", strings.NewReader("*filter\nCOMMIT\n")); err != nil || len(rules) > 0 {
		t.Errorf("no rules: %v, %v", rules, err)
	}
}
