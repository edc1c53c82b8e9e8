//go:build system

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/operator"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
	"ocf-clusterip/tests/probe"
)

const (
	resource = "web-ip"
	buckets  = 8
	asking   = 32 // sources
	askEvery = 250 * time.Millisecond

	// stepTimeout bounds what a cluster may need for one step. Nothing here takes a third of it, unless the machine is very busy.
	stepTimeout = 90 * time.Second
)

var (
	shared  = netip.MustParseAddr("192.168.10.3")
	shared6 = netip.MustParseAddr("2001:db8:10::3")
)

// scenario is a cluster that shares an address, and clients that ask all the time.
type scenario struct {
	*Lab
	t     *testing.T
	begin time.Time
	clean map[string]string // what each host's network looked like before, by its name
	probe *probe.Probe
}

// play makes a cluster of three nodes with fencing and the clone, with further arguments of `pcs resource create` before
// "clone", and begins to ask.
func play(t *testing.T, create ...string) *scenario {
	t.Helper()
	return playIn(t, Options{}, create...)
}

// playIn does the same in any cluster.
func playIn(t *testing.T, o Options, create ...string) *scenario {
	t.Helper()
	agent, err := harness.Program()
	check(t, err)
	o.Agent = agent
	s := &scenario{Lab: start(t, o), t: t, begin: time.Now(), clean: map[string]string{}}
	var all []string
	for _, h := range s.Hosts {
		s.clean[h.Name] = s.dump(h)
		all = append(all, h.Name)
	}
	ip := shared.String()
	if o.IPv6 {
		ip += " " + shared6.String()
	}
	s.pcs(append(append([]string{"resource", "create", resource, "ocf:custom:clusterip", "ip=" + ip}, create...),
		"clone", fmt.Sprintf("clone-max=%d", buckets), fmt.Sprintf("clone-node-max=%d", buckets), "globally-unique=true",
		"resource-stickiness=0")...)
	s.even(buckets, all...)
	s.exactlyOnce(shared, buckets)
	s.probe = s.ask(shared)
	return s
}

// ask begins to ask an address.
func (s *scenario) ask(target netip.Addr) *probe.Probe {
	s.t.Helper()
	p, err := s.ProbeWith(s.t.Context(), probe.Options{Target: target, Sources: s.Network.SourcesLike(target, asking), Interval: askEvery})
	check(s.t, err)
	return p
}

// pcs runs pcs on the first host that is on.
func (s *scenario) pcs(arguments ...string) {
	s.t.Helper()
	run(s.t, s.firstOn(), append([]string{"pcs"}, arguments...)...)
}

func (s *scenario) firstOn() *Host {
	for _, h := range s.Hosts {
		if _, err := h.pid(); err == nil {
			return h
		}
	}
	s.t.Fatal("no host is on")
	return nil
}

// step marks what is done now, does it, and waits until all buckets are spread evenly over those nodes and all clients are
// answered again.
func (s *scenario) step(what string, do func(), nodes ...string) {
	s.t.Helper()
	s.t.Logf("%5.1f s: %s", time.Since(s.begin).Seconds(), what)
	s.probe.Mark(what)
	do()
	s.even(buckets, nodes...)
	s.answered()
}

// even waits until the buckets are spread evenly over exactly those nodes, and nothing is left to be done.
func (s *scenario) even(count int, nodes ...string) {
	s.t.Helper()
	s.evenOf(resource, count, nodes...)
}

// evenOf does the same with any resource.
func (s *scenario) evenOf(name string, count int, nodes ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	if _, err := s.WaitFor(ctx, func(status *Status) error { return status.Even(name, count, nodes...) }); err != nil {
		s.t.Fatal(err)
	}
	check(s.t, s.WaitIdle(ctx))
}

// answered waits until each client has an answer to what it asks from now on.
func (s *scenario) answered() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	if err := s.probe.WaitAnswered(ctx, time.Now()); err != nil {
		s.t.Fatal(err)
	}
}

// exactlyOnce asks from other sources, and expects the answers of the nodes where the buckets run in Pacemaker's status.
func (s *scenario) exactlyOnce(target netip.Addr, count int) {
	s.t.Helper()
	first := target
	if target == shared6 {
		first = shared
	}
	s.exactlyOnceIn(resource, target, func(client netip.Addr) int { return Bucket(first, client, count) })
}

// exactlyOnceIn does the same with any resource, whose clients may be in other buckets than by its default settings.
func (s *scenario) exactlyOnceIn(name string, target netip.Addr, bucketOf func(client netip.Addr) int) {
	s.t.Helper()
	status, err := s.Status(s.t.Context())
	check(s.t, err)
	placement := status.Placement(name)
	owner := func(client netip.Addr) string { return placement[bucketOf(client)] }
	sources := s.Network.SourcesLike(target, 2*asking)[asking:]
	if err := s.ExactlyOnce(s.t.Context(), target, sources, owner); err != nil {
		s.t.Error(err)
	}
	s.agrees(s.Host(placement[0]), target, placement)
	printed := s.whois(s.Host(placement[0]), target, sources)
	for _, source := range sources {
		got := printed[source.String()]
		if nodes := strings.Join(got.Nodes, "+"); nodes != owner(source) || int(got.Bucket) != bucketOf(source) {
			s.t.Errorf("whois prints that %s answers %s, in bucket %d, but %s does, in bucket %d", nodes, source, got.Bucket, owner(source),
				bucketOf(source))
		}
	}
}

// whois asks a host who answers the clients, and returns its answers by client.
func (s *scenario) whois(h *Host, target netip.Addr, clients []netip.Addr) map[string]operator.Answer {
	s.t.Helper()
	argv := []string{"/usr/lib/ocf/resource.d/custom/clusterip", "whois", "--json", "--to", target.String()}
	for _, client := range clients {
		argv = append(argv, client.String())
	}
	var answers []operator.Answer
	check(s.t, json.Unmarshal([]byte(run(s.t, h, argv...)), &answers))
	byClient := map[string]operator.Answer{}
	for _, a := range answers {
		byClient[a.Client] = a
	}
	return byClient
}

// stop stops asking and returns what was seen.
func (s *scenario) stop() (*probe.Log, *probe.Summary) {
	s.t.Helper()
	log, err := s.probe.Stop()
	check(s.t, err)
	summary := log.Summary()
	s.t.Logf("\n%s", summary)
	return log, summary
}

// end stops asking and returns what was seen. No client may have got two answers, or one with a wrong MAC.
func (s *scenario) end() *probe.Summary {
	s.t.Helper()
	log, summary := s.stop()
	s.answeredOnce(log)
	if summary.Total.Asked == 0 {
		s.t.Error("no client asked anything")
	}
	return summary
}

// answeredOnce expects that no client got two answers, or one with a wrong MAC.
func (s *scenario) answeredOnce(log *probe.Log) {
	s.t.Helper()
	for _, kind := range []probe.Kind{probe.Duplicate, probe.WrongMAC} {
		for _, e := range log.Of(kind) {
			s.t.Error(e)
		}
	}
}

// noFailure expects that no action on our resource has failed, except those that the function excuses.
func (s *scenario) noFailure(excused func(Result) bool) {
	s.t.Helper()
	results, err := s.Results(s.begin)
	check(s.t, err)
	if len(results) == 0 {
		s.t.Error("no action is logged")
	}
	for _, r := range results {
		if !r.OK() && r.Outcome != "cancelled" && !excused(r) {
			s.t.Error(r)
		}
	}
}

func nothing(Result) bool { return false }

// dump is the state of a host's network, without what Corosync's own traffic adds.
func (s *scenario) dump(h *Host) string {
	s.t.Helper()
	text, err := h.Dump()
	check(s.t, err)
	return text
}

// clearOf expects that nothing of the resource is on a host.
func (s *scenario) clearOf(h *Host) {
	s.t.Helper()
	if diff := cmp.Diff(s.clean[h.Name], s.dump(h)); diff != "" {
		s.t.Errorf("%s holds no bucket, but something is left (-before +after)\n%s", h.Name, diff)
	}
	if locks := run(s.t, h, "find", "/run/resource-agents", "-name", "clusterip*"); locks != "" {
		s.t.Errorf("%s holds no bucket, but has the files %s", h.Name, locks)
	}
}

// done counts what was done to our resource's instances since a moment: "start", "stop", …
func (s *scenario) done(action string, since time.Time) int {
	s.t.Helper()
	results, err := s.Results(since)
	check(s.t, err)
	count := 0
	for _, r := range results {
		if r.Action == action && strings.HasPrefix(r.Resource, resource+":") {
			count++
		}
	}
	return count
}

func TestPlannedChanges(t *testing.T) {
	t.Parallel()
	s := play(t)
	all := []string{"node1", "node2", "node3"}

	s.step("node2 in standby", func() { s.pcs("node", "standby", "node2") }, "node1", "node3")
	s.clearOf(s.Hosts[1])
	s.exactlyOnce(shared, buckets)
	s.step("node2 back", func() { s.pcs("node", "unstandby", "node2") }, all...)

	s.step("disabled and enabled", func() {
		s.pcs("resource", "disable", resource, "--wait=60")
		for _, h := range s.Hosts {
			s.clearOf(h)
		}
		s.pcs("resource", "enable", resource)
	}, all...)

	since := s.Now()
	s.step("cleanup", func() { s.pcs("resource", "cleanup", resource+"-clone") }, all...)
	// Pacemaker 2.0 has no reload-agent (OCF 1.1): it restarts.
	reloads, err := s.atLeast(t.Context(), "2.1.0")
	check(t, err)
	action, restarts := "reload-agent", 0
	if !reloads {
		action, restarts = "start", buckets
	}
	s.step("a reloadable parameter", func() {
		s.pcs("resource", "update", resource, "arp_count=4")
		s.wait(action, buckets, since)
	}, all...)
	if starts, stops := s.done("start", since), s.done("stop", since); starts != restarts || stops != restarts {
		t.Errorf("cleanup and reload made %d starts and %d stops, want %d", starts, stops, restarts)
	}

	s.step("node3's cluster software stopped", func() {
		run(t, s.Hosts[2], "service", "pacemaker", "stop")
		s.clearOf(s.Hosts[2])
		run(t, s.Hosts[2], "service", "corosync", "stop")
	}, "node1", "node2")
	s.step("node3's cluster software started", func() {
		run(t, s.Hosts[2], "service", "corosync", "start")
		run(t, s.Hosts[2], "service", "pacemaker", "start")
		check(t, s.WaitOnline(t.Context()))
	}, all...)

	// Another address: all stop, then all start.
	other := netip.MustParseAddr("192.168.10.4")
	s.t.Log("another address")
	s.probe.Mark("another address")
	since = s.Now()
	s.pcs("resource", "update", resource, "ip="+other.String())
	s.wait("start", buckets, since)
	s.even(buckets, all...)
	s.exactlyOnce(other, buckets)
	for _, h := range s.Hosts {
		if strings.Contains(s.dump(h), shared.String()+"/") {
			t.Errorf("%s still has %s", h.Name, shared)
		}
	}
	since = s.Now()
	s.step("the address again", func() {
		s.pcs("resource", "update", resource, "ip="+shared.String())
		s.wait("start", buckets, since)
	}, all...)
	s.exactlyOnce(shared, buckets)

	s.noFailure(nothing)
	if summary := s.end(); summary.Total.Refused > 0 && summary.Total.Broken == 0 {
		t.Error("refused, but not broken")
	}
	s.pcs("resource", "delete", resource)
	check(t, s.WaitIdle(t.Context()))
	for _, h := range s.Hosts {
		s.clearOf(h)
	}
}

// wait waits until that many actions have ended since a moment: so that a change has had its effect.
func (s *scenario) wait(action string, count int, since time.Time) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	for s.done(action, since) < count {
		if ctx.Err() != nil {
			s.t.Fatalf("%d of %d actions %s have ended", s.done(action, since), count, action)
		}
		time.Sleep(pollInterval)
	}
}

func TestNumberOfBucketsChanges(t *testing.T) {
	t.Parallel()
	s := play(t)
	all := []string{"node1", "node2", "node3"}
	meta := func(count int) {
		s.pcs("resource", "meta", resource+"-clone", fmt.Sprintf("clone-max=%d", count), fmt.Sprintf("clone-node-max=%d", count))
	}

	s.probe.Mark("10 buckets")
	s.pcs("resource", "disable", resource, "--wait=60")
	meta(10)
	s.pcs("resource", "enable", resource)
	s.even(10, all...)
	s.answered()
	s.exactlyOnce(shared, 10)
	s.noFailure(nothing)

	// Lowered while they run: the orphans stop. The others go on with 10 buckets, until they are restarted.
	s.probe.Mark("two orphans")
	since := s.Now()
	meta(buckets)
	s.even(buckets, all...)
	if stops := s.done("stop", since); stops != 2 {
		t.Errorf("%d instances were stopped, not the two orphans", stops)
	}
	s.step("8 buckets", func() { s.pcs("resource", "disable", resource, "--wait=60"); s.pcs("resource", "enable", resource) }, all...)
	s.exactlyOnce(shared, buckets)
	s.noFailure(nothing)

	// Raised while they run: nodes that disagree would answer twice, so start refuses on them, and print the solution.
	s.probe.Mark("10 buckets, the wrong way")
	meta(10)
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	defer cancel()
	status, err := s.WaitFor(ctx, func(status *Status) error {
		if len(status.Failures) < 2 {
			return errors.New("the new buckets' starts have not failed")
		}
		return nil
	})
	check(t, err)
	for _, f := range status.Failures {
		if !strings.Contains(f.Reason, "clone-max") {
			t.Errorf("%s does not name the fault", f)
		}
	}
	s.answered()
	s.step("undone", func() { meta(buckets); s.pcs("resource", "cleanup", resource+"-clone") }, all...)
	s.exactlyOnce(shared, buckets)
	s.end()
}

// hostFailures are how a host can fail so that it must be fenced.
var hostFailures = []struct {
	name string
	fail func(*scenario, *Host) error
}{
	{"power lost", func(_ *scenario, h *Host) error { return h.Off() }},
	{"all processes killed", func(_ *scenario, h *Host) error { return h.Kill() }},
	{"hung", func(_ *scenario, h *Host) error { return h.Hang() }},
	{"corosync killed", func(s *scenario, h *Host) error { return s.kill(h, "corosync") }},
	{"management link cut", func(_ *scenario, h *Host) error { return h.Cut(lan.ManagementNIC) }},
}

// fenced waits until a host was fenced after a moment.
func (s *scenario) fenced(h *Host, since time.Time) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	for !h.Fenced().After(since) {
		if ctx.Err() != nil {
			s.t.Fatalf("%s is not fenced", h.Name)
		}
		time.Sleep(pollInterval)
	}
}

// alone waits until a host has lost its quorum and stopped its buckets.
func (s *scenario) alone(h *Host) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	for {
		status, err := h.Status(ctx)
		check(s.t, err)
		if !status.Quorum && status.Shares(resource)[h.Name] == 0 {
			return
		}
		time.Sleep(pollInterval)
	}
}

func TestHostsFail(t *testing.T) {
	t.Parallel()
	s := play(t)
	all := []string{"node1", "node2", "node3"}
	for i, f := range hostFailures {
		h := s.Hosts[i%len(s.Hosts)]
		s.step(h.Name+": "+f.name, func() {
			since := s.Now()
			check(t, f.fail(s, h))
			s.fenced(h, since)
			check(t, s.WaitOnline(t.Context())) // it has booted again
		}, all...)
		s.exactlyOnce(shared, buckets)
	}
	s.step("two of three lose power", func() {
		// Where the hosts run two releases, the first one's is the older: Pacemaker lets no node join whose release is older than all
		// that are there (verify_feature_set in daemons/controld/controld_messages.c).
		check(t, errors.Join(s.Hosts[1].Off(), s.Hosts[2].Off()))
		// Without quorum the third may not fence, and stops what it has. An admin switches the power on again.
		s.alone(s.Hosts[0])
		check(t, errors.Join(s.Hosts[1].On(t.Context()), s.Hosts[2].On(t.Context())))
		check(t, s.WaitOnline(t.Context()))
	}, all...)
	s.exactlyOnce(shared, buckets)
	s.end()
}

// kill ends the one process of a host that has that name.
func (s *scenario) kill(h *Host, name string) error {
	return h.KillProcess(name, func(comm string, _ []string) bool { return comm == name })
}

func TestPartsOfAHostFail(t *testing.T) {
	t.Parallel()
	// With a failure-timeout Pacemaker starts buckets on the node again without an admin. Here the times are short, so that the test is. In
	// unicast mode a node without its rules receives nothing; in the others it answers all clients until the next monitor.
	s := play(t, "mac_mode=unicast", "op", "monitor", "interval=2s", "meta", "failure-timeout=5s")
	all := []string{"node1", "node2", "node3"}

	s.step("pacemaker-execd killed on node1", func() { check(t, s.kill(s.Hosts[0], "pacemaker-execd")) }, all...)
	s.exactlyOnce(shared, buckets)

	s.probe.Mark("LAN link of node2 cut")
	check(t, s.Hosts[1].Cut(lan.NIC))
	s.leftFrom("node2")
	s.answered()
	s.step("LAN link of node2 repaired", func() { check(t, s.Hosts[1].Repair(t.Context(), lan.NIC)) }, all...)
	s.exactlyOnce(shared, buckets)

	for _, f := range []struct {
		name string
		argv []string
	}{
		{"address deleted on node3", []string{"ip", "address", "del", shared.String() + "/32", "dev", "eth0"}},
		{"rules flushed on node3", []string{"nft", "flush", "ruleset"}},
	} {
		s.step(f.name, func() {
			since := s.Now()
			run(t, s.Hosts[2], f.argv...)
			s.wait("start", 1, since)
		}, all...)
		s.exactlyOnce(shared, buckets)
	}
	s.end()
}

// leftFrom waits until all buckets are active, and none of them on a node that is online.
func (s *scenario) leftFrom(node string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	_, err := s.WaitFor(ctx, func(status *Status) error {
		if placement := status.Placement(resource); len(placement) != buckets || status.Shares(resource)[node] > 0 {
			return fmt.Errorf("%s still has buckets, or some are not active: %v", node, placement)
		}
		return nil
	})
	check(s.t, err)
}
