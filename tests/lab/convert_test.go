//go:build system

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/convert"
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
			s.exactlyOnceIn(resource, shared, row.bucketOf)
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

const (
	byHandSeed = 0x5eed
	byHandMAC  = "01:00:5e:00:01:03"
	byHandARP  = "OUTPUT -o eth0 --h-length 6 -s 192.168.10.3 -j mangle --mangle-mac-s " + byHandMAC
)

// othersCommands add what convert must leave alone. Two of the rules are for the same address.
var othersCommands = []string{
	"iptables -t mangle -A PREROUTING -s 203.0.113.0/24 -j DROP",
	"iptables -t mangle -A PREROUTING -d 192.168.10.3/32 -i eth0 -p tcp --dport 8080 -j MARK --set-mark 0x8",
	"iptables -t mangle -A PREROUTING -i lo -j MARK --set-mark 0x7",
	"iptables -A INPUT -d 192.168.10.3/32 -p tcp --dport 23 -j REJECT",
	"arptables -A OUTPUT -o eth0 -s 203.0.113.9 -j DROP",
	"ip maddress add 01:00:5e:00:01:04 dev eth0",
}

// shareByHand gives each host every third bucket with rules of the match cluster, as iptables-extensions(8) advises, between those of
// others. A host is clear when it is as before, with what others have added.
func (s *scenario) shareByHand() {
	s.t.Helper()
	for i, h := range s.Hosts {
		for _, command := range othersCommands {
			s.typed(h, command)
		}
		s.clean[h.Name] = s.dump(h)
		position := 3 // between the rules of others
		share := func(match string) {
			s.typed(h, fmt.Sprintf("iptables -t mangle -I PREROUTING %d -d 192.168.10.3 -i eth0 -m %s", position, match))
			position++
		}
		for bucket := i; bucket < buckets; bucket += len(s.Hosts) {
			share(fmt.Sprintf("cluster --cluster-total-nodes %d --cluster-local-node %d --cluster-hash-seed %d -j MARK --set-mark 0xffff",
				buckets, bucket+1, byHandSeed))
		}
		share("mark ! --mark 0xffff -j DROP")
		s.typed(h, "ip maddress add "+byHandMAC+" dev eth0")
		s.typed(h, "arptables -A "+byHandARP)
		s.typed(h, "ip address add 192.168.10.3/24 dev eth0")
	}
}

// What convert prints for rules that were added by hand leads from them to a healthy clone, with each client in its bucket. Nothing is left
// of them, and what others have in the same chains stays as it is.
func TestConvertFromRulesIsTyped(t *testing.T) {
	t.Parallel()
	const name = "ip-192-168-10-3"
	s := converting(t)
	s.shareByHand()
	bucketOf := func(client netip.Addr) int {
		return int(clusterip.BucketOf(clusterip.SourceIP, clusterip.XTCluster, clusterip.Flow{Source: client}, byHandSeed, buckets))
	}
	check(t, s.ExactlyOnce(t.Context(), shared, s.Network.SourcesLike(shared, asking), func(client netip.Addr) string {
		return s.Hosts[bucketOf(client)%len(s.Hosts)].Name
	}))

	var printed []convert.Conversion // on each host, of its own rules
	for _, h := range s.Hosts {
		var report convert.Report
		check(t, json.Unmarshal([]byte(run(t, h, "sh", "-c", "iptables-save | ocf-clusterip convert --iptables - --keep-hash --json")), &report))
		printed = append(printed, report.Conversions...)
	}
	for i, step := range printed[0].Steps {
		for at, h := range s.Hosts {
			for _, command := range printed[at].Steps[i].EachNode {
				s.typedForEach(h, command)
			}
		}
		for _, command := range step.Commands {
			s.typed(s.Hosts[0], command)
		}
	}
	s.evenOf(name, buckets, "node1", "node2", "node3")
	s.exactlyOnceIn(name, shared, bucketOf)
	for _, h := range s.Hosts {
		s.healthy(h)
	}

	s.typed(s.Hosts[0], printed[0].WayBack[0])
	for _, h := range s.Hosts {
		s.clearOf(h)
	}
}

// typedForEach types a command that is for each node, on one. It reads what doctor finds, and does what the output asks for in words.
func (s *scenario) typedForEach(h *Host, command string) {
	s.t.Helper()
	if strings.HasPrefix(command, "ocf-clusterip doctor") {
		s.typed(h, command+" >doctor; test $? = 2 && grep 'is already on eth0' doctor && grep 'chain PREROUTING' doctor")
		return
	}
	s.typed(h, command)
	if _, then, isOpen := strings.Cut(command, "# then: "); isOpen {
		s.typed(h, strings.NewReplacer("ADDRESS/LENGTH", "192.168.10.3/24", "INTERFACE", "eth0").Replace(then))
		s.typed(h, "ip maddress delete "+byHandMAC+" dev eth0")
		s.typed(h, "arptables -D "+byHandARP)
	}
}
