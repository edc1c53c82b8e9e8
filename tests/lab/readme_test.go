//go:build system

package lab

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/operator"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// readmeCommands are those of a section of README.md, without what the lab has done already: the nodes form a cluster with fencing.
func readmeCommands(t *testing.T, title string) []string {
	t.Helper()
	section, err := READMESection(title)
	check(t, err)
	return slices.DeleteFunc(slices.Concat(CodeBlocks(section)...), func(line string) bool {
		done := slices.ContainsFunc(
			[]string{"pcs host ", "pcs cluster setup ", "pcs stonith "},
			func(s string) bool { return strings.HasPrefix(line, s) },
		)
		return done || !strings.HasPrefix(line, "pcs ") && !strings.HasPrefix(line, "crm_")
	})
}

func TestCodeBlocks(t *testing.T) {
	const text = "a\n\n    one \\\n    more\n    two\nb\n  c\n    three\n"
	if diff := cmp.Diff([][]string{{"one     more", "two"}, {"three"}}, CodeBlocks(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestComplaints(t *testing.T) {
	for _, row := range []struct {
		stderr string
		want   bool
	}{
		{"Warning: Meta attributes of clone are not validated", false},
		{"\nWARNING: apt does not have a stable CLI interface. Use with caution in scripts.\n\n", false},
		{"\nWARNING: apt does not have a stable CLI interface. Use with caution in scripts.\n\nWarning: stop", true},
		{"Deprecation Warning: use 'meta'", true},
	} {
		if got := Complains(lan.Result{Stderr: row.stderr}); got != row.want {
			t.Errorf("%q: %t", row.stderr, got)
		}
	}
}

// README's commands make a healthy cluster, on this release too, without warnings.
func TestREADMEIsTyped(t *testing.T) {
	t.Parallel()
	agent, err := harness.Program()
	check(t, err)
	l := start(t, Options{Nodes: 2, Agent: agent})
	s := &scenario{Lab: l, t: t, clean: map[string]string{}}
	for _, h := range l.Hosts { // Debian's crm_resource of Pacemaker 3.0 aborts without a system bus, which every real node has
		run(t, h, "mkdir", "-p", "/run/dbus")
		run(t, h, "dbus-daemon", "--system", "--fork")
	}
	started := false
	for i, command := range readmeCommands(t, "Two nodes in ten lines") {
		r, err := l.Hosts[0].Type(t.Context(), "/", command)
		check(t, err)
		t.Logf("%s\n%s%s", command, r.Stdout, r.Stderr)
		if r.ExitCode != 0 {
			t.Fatalf("%s: exit status %d", command, r.ExitCode)
		}
		if Complains(r) {
			t.Errorf("line %d complains: %s\n%s%s", i+1, command, r.Stdout, r.Stderr)
		}
		if strings.HasPrefix(command, "pcs resource enable") && !started { // what follows changes the number of buckets
			s.even(buckets, "node1", "node2")
			started = true
		}
	}
	s.even(2*buckets, "node1", "node2") // as the section ends, after the change of the number of buckets
	s.exactlyOnce(shared, 2*buckets)
	for _, h := range l.Hosts {
		if status := s.status(h, shared); status.Health != operator.Healthy {
			t.Errorf("status on %s is %s: %v", h.Name, status.Health, status.Problems)
		}
		if found := s.doctor(h); !slices.Equal(found, []string{"links"}) { // the lab's nodes have but one
			t.Errorf("doctor on %s finds %v", h.Name, found)
		}
	}
}
