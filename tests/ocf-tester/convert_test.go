//go:build system

package ocftester

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
)

// TestConvert is about the command for people; internal/operator/convert tests what it prints, and tests/lab runs that.
func TestConvert(t *testing.T) {
	n := newNode(t)
	const cibs = "../../internal/operator/convert/testdata/"
	target, err := filepath.Abs(cibs + "target.xml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(cibs + "target-crm.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"from a file":             {program, "convert", "--for", "crm", "--cib", target},
		"from the standard input": {"sh", "-c", program + " convert --for crm --cib - <" + target},
	} {
		r := n.run(t, vars{}, args...)
		if r.ExitCode != 0 || r.Stderr != "" || r.Stdout != string(want) {
			t.Errorf("%s: exit status %d, stderr %q, stdout:\n%s", name, r.ExitCode, r.Stderr, r.Stdout)
		}
	}
	broken := filepath.Join(t.TempDir(), "cib.xml")
	text, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), `name="lvs_support" value="false"`, `name="lvs_support" value="true"`, 1)
	if err := os.WriteFile(broken, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	r := n.run(t, vars{}, program, "convert", "--cib", broken)
	if r.ExitCode != int(ocf.ErrArgs) || r.Stderr != "" || !strings.Contains(r.Stdout, "CANNOT BE CONVERTED") {
		t.Errorf("exit status %d, stderr %q, stdout:\n%s", r.ExitCode, r.Stderr, r.Stdout)
	}
	for _, tt := range []struct {
		name  string
		args  []string
		names []string // what the error must name
	}{
		{"no cluster", []string{"convert"}, []string{"--cib"}},
		{"no CIB", []string{"convert", "--cib", "/etc/passwd"}, []string{"/etc/passwd", "no CIB"}},
		{"a tool that is none", []string{"convert", "--cib", target, "--for", "hb_gui"}, []string{`"hb_gui"`, "pcs, crm"}},
		{"another resource", []string{"convert", "--cib", target, "--resource", "x"}, []string{`"x"`, `"old-ip"`}},
		{"no rules", []string{"convert", "--iptables", "/etc/passwd"}, []string{"/etc/passwd", "no list of rules"}},
		{"two sources", []string{"convert", "--iptables", "x", "--cib", "y", "--resource", "z"}, []string{"--cib", "--resource", "--iptables"}},
		{"an empty file", []string{"convert", "--cib", ""}, []string{"--cib"}},
		{
			"several faults",
			[]string{"convert", "--for", "x", "--buckets", "2000", "y"},
			[]string{`"x"`, "2000", `"y"`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.run(t, vars{}, append([]string{program}, tt.args...)...)
			if r.ExitCode == 0 || r.Stdout != "" {
				t.Errorf("exit status %d, stdout %q", r.ExitCode, r.Stdout)
			}
			for _, name := range tt.names {
				if !strings.Contains(r.Stderr, name) {
					t.Errorf("%q is not in %s", name, r.Stderr)
				}
			}
		})
	}
}
