//go:build system

package lab

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/tests/harness"
)

// oldClone creates a clone of IPaddr2 with the target CLUSTERIP, a constraint that keeps it off node3, and one that starts it after another
// clone. (The target is in no kernel since 6.3, so on a newer one the instances fail to start on each node; what is printed must convert
// such a clone, too.)
var oldClone = []string{
	"pcs resource create service ocf:pacemaker:Dummy clone",
	"pcs resource create " + resource + " ocf:heartbeat:IPaddr2 ip=192.168.10.3 cidr_netmask=24 clusterip_hash=sourceip arp_count=2 " +
		"op monitor interval=30s timeout=15s --disabled",
	fmt.Sprintf("pcs resource clone %s meta clone-max=%d clone-node-max=2 globally-unique=true", resource, buckets),
	"pcs constraint location " + resource + "-clone avoids node3",
	"pcs constraint order service-clone then " + resource + "-clone",
	"pcs resource enable " + resource,
}

// commandsOf returns the commands of a script, which may have several lines, without its comments. A chain is one command.
func commandsOf(script string) []string {
	var commands []string
	var command strings.Builder
	for line := range strings.Lines(script) {
		if command.Len() == 0 && (strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "") {
			continue
		}
		command.WriteString(line)
		if strings.Count(command.String(), "'")%2 == 0 && !strings.HasSuffix(line, " &&\n") {
			commands = append(commands, strings.TrimSuffix(command.String(), "\n"))
			command.Reset()
		}
	}
	return commands
}

// wayBackOf returns the commands of the way back, which are comments.
func wayBackOf(script string) []string {
	_, back, _ := strings.Cut(script, "\n# The way back")
	_, back, _ = strings.Cut(back, "\n")
	return commandsOf(regexp.MustCompile(`(?m)^#   `).ReplaceAllString(back, ""))
}

// typed runs a command of a script on a host, in a folder of the host's own.
func (s *scenario) typed(h *Host, command string) {
	s.t.Helper()
	argv, err := h.EnterCommand("sh", "-c", "cd /run && "+command)
	check(s.t, err)
	r := h.machine.Run(s.t.Context(), environment, argv...)
	s.t.Logf("%s# %s\n%s%s", h.Name, command, r.Stdout, r.Stderr)
	if r.Err != nil || r.ExitCode != 0 {
		s.t.Fatalf("%s: %s: exit status %d, %v", h.Name, command, r.ExitCode, r.Err)
	}
}

// configured returns the only resource of an agent with its parameters and meta attributes, whether it is disabled or not.
func (s *scenario) configured(agent pacemaker.Agent) pacemaker.Resource {
	s.t.Helper()
	configuration, err := pacemaker.ParseConfiguration(run(s.t, s.Hosts[0], "cibadmin", "--query"))
	check(s.t, err)
	all := pacemaker.ResourcesOf(configuration, agent)
	if len(all) != 1 {
		s.t.Fatalf("%d resources of %s:%s", len(all), agent.Provider, agent.Type)
	}
	maps.DeleteFunc(all[0].Meta, func(name, _ string) bool { return name == "target-role" })
	return all[0]
}

// constrained waits until the buckets are spread evenly over the nodes that the constraint allows.
func (s *scenario) constrained() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	want := map[string]int{"node1": buckets / 2, "node2": buckets / 2, "node3": 0}
	_, err := s.WaitFor(ctx, func(status *Status) error {
		if got := status.Shares(resource); !maps.Equal(want, got) {
			return fmt.Errorf("the shares are %v, not %v", got, want)
		}
		return nil
	})
	check(s.t, err)
	check(s.t, s.WaitIdle(ctx))
}

// converting makes a cluster of three nodes without a resource, for the commands of both tools.
func converting(t *testing.T) *scenario {
	t.Helper()
	agent, err := harness.Program()
	check(t, err)
	s := &scenario{Lab: start(t, Options{Agent: agent}), t: t, clean: map[string]string{}}
	for _, h := range s.Hosts { // Debian's crm_resource of Pacemaker 3.0 aborts without a system bus, which every real node has
		run(t, h, "mkdir", "-p", "/run/dbus")
		run(t, h, "dbus-daemon", "--system", "--fork")
	}
	return s
}

// What convert prints makes a healthy clone of one of IPaddr2, in the same constraints; and its way back restores that one.
func TestConvertIsTyped(t *testing.T) {
	t.Parallel()
	old, ours := pacemaker.Agent{Provider: "heartbeat", Type: "IPaddr2"}, pacemaker.Agent{Provider: "custom", Type: "clusterip"}
	byDefault := func(client netip.Addr) int { return Bucket(shared, client, buckets) }
	// IPaddr2 gives the target no --hash-init, so the seed is 0.
	asTarget := func(client netip.Addr) int {
		return int(clusterip.BucketOf(clusterip.SourceIP, clusterip.ClusterIP, clusterip.Flow{Source: client}, 0, buckets))
	}
	for name, row := range map[string]struct {
		flags    []string
		bucketOf func(client netip.Addr) int // after the conversion
	}{
		"pcs":           {[]string{"--for", "pcs"}, byDefault},
		"crm":           {[]string{"--for", "crm"}, byDefault},
		"pcs_keep-hash": {[]string{"--for", "pcs", "--keep-hash"}, asTarget},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := converting(t)
			for _, command := range oldClone {
				s.typed(s.Hosts[0], command)
			}
			check(t, s.WaitIdle(t.Context()))
			before, constraints := s.configured(old), run(t, s.Hosts[0], "cibadmin", "--query", "--scope", "constraints")

			script := run(t, s.Hosts[0], append([]string{"ocf-clusterip", "convert"}, row.flags...)...)
			for _, command := range commandsOf(script) {
				s.typed(s.Hosts[0], command)
			}
			s.constrained()
			s.exactlyOnceIn(row.bucketOf, shared)
			for _, h := range s.Hosts[:2] {
				s.healthy(h)
			}
			if diff := cmp.Diff(constraints, run(t, s.Hosts[0], "cibadmin", "--query", "--scope", "constraints")); diff != "" {
				t.Errorf("the constraints have changed:\n%s", diff)
			}
			if got := s.configured(ours).Parameters["arp_count"]; got != "2" {
				t.Errorf("arp_count=%s, want 2", got)
			}

			for _, command := range wayBackOf(script) {
				s.typed(s.Hosts[0], command)
			}
			if diff := cmp.Diff(before, s.configured(old)); diff != "" {
				t.Errorf("the way back does not lead there (-before +after):\n%s", diff)
			}
		})
	}
}

// healthy expects that the status on a host is healthy.
func (s *scenario) healthy(h *Host) {
	s.t.Helper()
	if status := s.status(h, shared); status.Health != operator.Healthy {
		s.t.Errorf("status on %s is %s: %v", h.Name, status.Health, status.Problems)
	}
}
