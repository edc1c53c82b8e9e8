//go:build system

package lab

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/operator"
	"ocf-clusterip/tests/harness"
)

// complaint matches warnings of tools.
var complaint = regexp.MustCompile(`(?i)deprecat|warning|error`)

// unavoidable is what pcs from 0.12.2 on writes whenever it is given options of a clone, in any form (pacemaker/examples/README.md); and
// what pcs status writes where there is no systemd, as on the lab's hosts.
var unavoidable = regexp.MustCompile(`(?m)^Warning: (Meta attributes of .*clone are not validated|Unable to detect init system).*$`)

// readmeCommands are those of a section of README, without what the lab has done already: the nodes form a cluster with fencing.
func readmeCommands(t *testing.T, section string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	check(t, err)
	_, body, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("README has no section %q", section)
	}
	body, _, _ = strings.Cut(body, "\n## ")
	var commands []string
	for line := range strings.Lines(strings.ReplaceAll(body, "\\\n", "")) {
		command, isCode := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    ")
		done := slices.ContainsFunc(
			[]string{"pcs host ", "pcs cluster setup ", "pcs stonith "},
			func(s string) bool { return strings.HasPrefix(command, s) },
		)
		if isCode && (strings.HasPrefix(command, "pcs ") || strings.HasPrefix(command, "crm_")) && !done {
			commands = append(commands, command)
		}
	}
	return commands
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
		argv, err := l.Hosts[0].EnterCommand("sh", "-c", command)
		check(t, err)
		r := l.Hosts[0].machine.Run(t.Context(), environment, argv...)
		t.Logf("%s\n%s%s", command, r.Stdout, r.Stderr)
		if r.Err != nil || r.ExitCode != 0 {
			t.Fatalf("%s: exit status %d, %v", command, r.ExitCode, r.Err)
		}
		if output := unavoidable.ReplaceAllString(r.Stdout+r.Stderr, ""); complaint.MatchString(output) {
			t.Errorf("line %d complains: %s\n%s", i+1, command, output)
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
