package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"ocf-clusterip/tests/lab"
	"ocf-clusterip/tests/lan"
	"ocf-clusterip/tests/probe"
)

var address = netip.MustParseAddr("192.168.10.3")

const (
	resource = "web-ip"
	clone    = resource + "-clone"
	buckets  = 8

	// token is longer than the lab's: a busy machine must not look like a dead host while so much happens.
	token = 2 * time.Second

	// The clients: sources that ask by all means and renew their connection now and then, and sources that keep theirs.
	asking, keeping   = 48, 96
	askEvery          = 300 * time.Millisecond
	keepEvery         = time.Second
	renewAfter        = 20 * time.Second
	streamTimeout     = 30 * time.Second // far longer than a cable is out, and than TCP's pauses then are
	eventsEachSecond  = 3*asking*4 + 2*keeping
	cableOut          = 3 * time.Second
	agentKillPatience = 2 * time.Second
	agentPollInterval = 5 * time.Millisecond

	// stepTimeout bounds what a cluster may need for one step. Nothing takes a third of it, unless the machine is very busy.
	stepTimeout = 90 * time.Second
	// commandTimeout bounds a command of an admin on one host, which waits while a coordinator is elected; then another host is asked.
	commandTimeout = 15 * time.Second
	pollInterval   = 100 * time.Millisecond

	monitorEvery = 2 * time.Second // the resource's
)

// field is a run: the cluster, the clients, and what has been done and found.
type field struct {
	setting
	*story
	*sequence
	*lab.Lab
	release string            // of Pacemaker
	clean   map[string]string // what each host's network looked like before, by its name
	probes  []*probe.Probe

	cutShort error // why not all of the time was used

	mu     sync.Mutex
	deaths []death
	faults []fault
	events int
	lanes  map[int]chan struct{} // closed when the last event there is done, by node
}

// prepare makes the shared address, and the clients.
func (f *field) prepare(ctx context.Context) error {
	f.clean, f.lanes = map[string]string{}, map[int]chan struct{}{}
	for _, h := range f.Hosts {
		text, err := h.Dump()
		if err != nil {
			return err
		}
		f.clean[h.Name] = text
	}
	version, err := f.Hosts[0].Run(ctx, "pacemakerd", "--version")
	if err != nil {
		return err
	}
	f.release, _, _ = strings.Cut(version, "\n")
	f.say("the cluster is up: %s", f.release)
	_, err = f.Hosts[0].Run(ctx, "pcs", "resource", "create", resource, "ocf:custom:clusterip", "ip="+address.String(), "mac_mode="+f.macMode,
		"drain="+strconv.Itoa(usualDrain), "op", "monitor", "interval="+monitorEvery.String(), "meta", "failure-timeout=10s",
		"clone", fmt.Sprintf("clone-max=%d", buckets), fmt.Sprintf("clone-node-max=%d", buckets), "globally-unique=true", "resource-stickiness=0")
	if err != nil {
		return err
	}
	if err := f.even(ctx); err != nil {
		return err
	}
	sources := f.Network.Sources(asking + keeping)
	maxDuration := time.Duration(f.minutes*float64(time.Minute)) + time.Hour
	options := probe.Options{
		Target: address, StreamTimeout: streamTimeout,
		MaxDuration: maxDuration, MaxEvents: eventsEachSecond * int(maxDuration.Seconds()),
	}
	ask, keep := options, options
	ask.Sources, ask.Interval, ask.StreamLife = sources[:asking], askEvery, renewAfter
	keep.Sources, keep.Interval, keep.Protos = sources[asking:], keepEvery, []probe.Proto{probe.Stream}
	for _, o := range []probe.Options{ask, keep} {
		p, err := f.ProbeWith(ctx, o)
		if err != nil {
			return err
		}
		f.probes = append(f.probes, p)
	}
	return f.answered(ctx)
}

// even waits until the buckets are spread evenly over all hosts, and nothing is left to be done.
func (f *field) even(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var names []string
	for _, h := range f.Hosts {
		names = append(names, h.Name)
	}
	if _, err := f.WaitFor(ctx, func(s *lab.Status) error { return s.Even(resource, buckets, names...) }); err != nil {
		return err
	}
	return f.WaitIdle(ctx)
}

// answered waits until each client has an answer, by all means, to what it asks from now on.
func (f *field) answered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var errs []error
	since := time.Now()
	for _, p := range f.probes {
		errs = append(errs, p.WaitAnswered(ctx, since))
	}
	return errors.Join(errs...)
}

// play lets events happen until the time is over.
func (f *field) play(ctx context.Context) {
	f.say("%d clients ask, %d more keep a connection; events:", asking, keeping)
	for end := time.Now().Add(time.Duration(f.minutes * float64(time.Minute))); time.Now().Before(end) && ctx.Err() == nil; {
		before := f.model
		if err := f.happen(ctx, f.next(), before); err != nil {
			// This breaks no connection, and the cluster may still recover. Otherwise the end of the run reports it.
			f.cutShort = err
			f.say("cut short: %v", err)
			f.model = before
			break
		}
	}
	f.say("restoring everything")
	for _, e := range f.model.restore() {
		if err := f.happen(ctx, e, f.model); err != nil {
			f.fails(ctx, "before "+e.String(), err)
		}
	}
	for _, done := range f.lanes {
		<-done
	}
}

// happen begins an event once its preconditions hold. If they do not come to hold, the event does not begin.
func (f *field) happen(ctx context.Context, e event, before model) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(e.pause):
	}
	for _, lane := range lanesBefore(e) {
		if last := f.lanes[lane]; last != nil {
			<-last
		}
	}
	if err := f.await(ctx, e, before); err != nil {
		return fmt.Errorf("before \"%s\": %w", e, err)
	}
	f.events++
	at := f.add("event", e.String())
	for _, p := range f.probes {
		p.Mark(e.String())
	}
	if e.kind.kills() {
		f.dies(e, at)
	}
	done := make(chan struct{})
	f.lanes[e.node] = done
	members := f.members(before)
	go func() {
		defer close(done)
		if err := f.do(ctx, e, members); err != nil {
			f.fails(ctx, e.String(), err)
		}
	}()
	return nil
}

// lanesBefore are those of which the last event must be done before one begins. What happens to one host happens in turn. And while a
// host's history is being refreshed, Pacemaker has no record of what runs there: a host that stops then leaves its buckets running, and is
// fenced for it. Before a host leaves or dies, one that died earlier must be back: until the other nodes miss it, it still looks like a
// member. Failures are not cleaned up while Pacemaker stops somewhere: the history that is deleted then may be of the node that leaves, and
// Pacemaker, which probes where it has no history, starts nothing until it can probe there.
func lanesBefore(e event) []int {
	switch {
	case e.kind == refreshAll, e.kind == cleanup, e.kind == stopPacemaker, e.kind == stopCluster:
		return []int{everywhere, 0, 1, 2}
	case e.kind.kills():
		return []int{0, 1, 2}
	default:
		return []int{e.node}
	}
}

// fails notes what could not be done. When the run is interrupted, everything fails.
func (f *field) fails(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	first, rest, _ := strings.Cut(err.Error(), "\n")
	f.say("   %s: %s", what, first)
	f.found(fault{from: time.Now(), to: time.Now(), bucket: noBucket, title: what + ": " + first, detail: rest})
}

func (f *field) found(faults ...fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, faults...)
}

func (f *field) dies(e event, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaths = append(f.deaths, death{node: f.Hosts[e.node].Name, from: at})
}

// members are the hosts whose Pacemaker runs, as far as the events decide it.
func (f *field) members(m model) []*lab.Host {
	var members []*lab.Host
	for i, h := range m.hosts {
		if h.place == running {
			members = append(members, f.Hosts[i])
		}
	}
	return members
}

// await waits for an event's preconditions. Before a host leaves, all others that shall run are members, or the rest would have no quorum.
// Before a host stops to serve for a while, another one can serve. Before a host is stopped, Pacemaker has a record of what runs, no other
// node joins, and those that died are fenced. (When Pacemaker stops while another node joins, the coordinator may wait for it: then
// Pacemaker starts nothing until it comes back. And when it stops while it fences another node, the coordinator waits for the end of the
// fencing's timeout, 72 s, and repairs nothing meanwhile. Both were seen on 2.1.5.)
func (f *field) await(ctx context.Context, e event, before model) error {
	if e.node == everywhere || e.kind == back {
		return nil
	}
	after := f.model
	leaves := before.hosts[e.node].place == running && after.hosts[e.node].place != running
	stops := e.kind == stopPacemaker || e.kind == stopCluster
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return f.waitFor(ctx, f.members(before), func(s *lab.Status) error {
		if placement := s.Placement(resource); stops && len(placement) < buckets {
			return fmt.Errorf("only the buckets of %v run", placement)
		}
		serving := 0
		for i, h := range before.hosts {
			n := s.Nodes[f.Hosts[i].Name]
			online := n.Online && !n.Pending && !n.Unclean
			if stops && n.Pending && h.place != withoutPacemaker {
				return fmt.Errorf("%s is %s", f.Hosts[i].Name, n)
			}
			if stops && h.place == dying && (n.Unclean || !f.wasFenced(f.Hosts[i])) {
				return fmt.Errorf("%s is %s, and not fenced yet", f.Hosts[i].Name, n)
			}
			if leaves && h.place == running && !online {
				return fmt.Errorf("%s is %s", f.Hosts[i].Name, n)
			}
			if i != e.node && online && h.inOrder() {
				serving++
			}
		}
		if h := after.hosts[e.node]; (!h.inOrder() || after == before) && serving == 0 {
			return errors.New("no other host serves")
		}
		return nil
	})
}

// waitFor waits until a condition holds, as one of the hosts sees the cluster. (One that is cut off sees another.)
func (f *field) waitFor(ctx context.Context, from []*lab.Host, holds func(*lab.Status) error) error {
	last := errors.New("no host can be asked")
	for {
		for _, h := range from {
			s, err := h.Status(ctx)
			if err == nil {
				err = holds(s)
			}
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("not reached: %w", last)
			}
			last = err
			if s != nil {
				break
			}
		}
		time.Sleep(pollInterval)
	}
}

// do carries out an event. It does nothing where there is nothing to damage or to kill.
func (f *field) do(ctx context.Context, e event, members []*lab.Host) error {
	if e.node == everywhere {
		switch e.kind {
		case refreshAll:
			f.vain(f.once(ctx, members, "crm_resource", "--refresh", "--resource", clone))
			return nil
		case cleanup:
			f.vain(f.once(ctx, members, "crm_resource", "--cleanup", "--resource", clone))
			return nil
		default:
			return f.admin(
				ctx,
				members,
				"crm_resource",
				"--resource",
				resource,
				"--set-parameter",
				"drain",
				"--parameter-value",
				strconv.Itoa(e.drain),
			)
		}
	}
	h := f.Hosts[e.node]
	switch e.kind {
	case standby:
		return f.standby(ctx, members, h, true)
	case unstandby:
		return f.standby(ctx, members, h, false)
	case flap:
		for range 3 {
			if err := errors.Join(f.standby(ctx, members, h, true), f.standby(ctx, members, h, false)); err != nil {
				return err
			}
		}
	case ban:
		return f.admin(ctx, members, "crm_resource", "--ban", "--resource", clone, "--node", h.Name)
	case lift:
		return f.admin(ctx, members, "crm_resource", "--clear", "--resource", clone, "--node", h.Name)
	case refresh:
		f.vain(f.once(ctx, members, "crm_resource", "--refresh", "--resource", clone, "--node", h.Name))
	case stopPacemaker:
		return f.services(ctx, h, "stop", "pacemaker")
	case stopCluster:
		return f.services(ctx, h, "stop", "pacemaker", "corosync")
	case startPacemaker:
		return f.services(ctx, h, "start", "pacemaker")
	case startCluster:
		return f.services(ctx, h, "start", "corosync", "pacemaker")
	case powerOff:
		return h.Off()
	case killAll:
		return h.Kill()
	case hang:
		return h.Hang()
	case killCorosync:
		return h.KillProcess("called corosync", func(name string, _ []string) bool { return name == "corosync" })
	case cutManagement:
		return h.Cut(lan.ManagementNIC)
	case back:
		return f.returns(ctx, h, members)
	case blink:
		err := h.Cut(lan.NIC)
		time.Sleep(cableOut)
		return errors.Join(err, h.Repair(ctx, lan.NIC))
	case deleteAddress:
		return f.damage(ctx, h, "ip address", address.String()+"/32")
	case deleteFilter:
		filter := filters[f.macMode]
		return f.damage(ctx, h, filter.command, filter.mac)
	case killSweeper:
		f.vain(h.KillProcess("a sweeper", func(_ string, argv []string) bool { return argv[len(argv)-1] == "sweep" }))
	case killAgent:
		f.vain(f.killMonitor(h))
	}
	return nil
}

// vain logs that an event had nothing to do.
func (f *field) vain(err error) {
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		f.say("   (in vain: %s)", text)
	}
}

// admin runs a command on the first of the hosts that can.
func (f *field) admin(ctx context.Context, members []*lab.Host, argv ...string) (err error) {
	for end := time.Now().Add(stepTimeout); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(pollInterval) {
		if err = f.once(ctx, members, argv...); err == nil {
			return nil
		}
	}
	return err
}

// once tries it on each of the hosts.
func (f *field) once(ctx context.Context, members []*lab.Host, argv ...string) (err error) {
	for _, h := range members {
		limited, cancel := context.WithTimeout(ctx, commandTimeout)
		_, err = h.Run(limited, argv...)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// standby puts a host in standby, or takes it out.
func (f *field) standby(ctx context.Context, members []*lab.Host, h *lab.Host, on bool) error {
	change := []string{"--delete"}
	if on {
		change = []string{"--update", "on"}
	}
	return f.admin(ctx, members, append([]string{"crm_attribute", "--node", h.Name, "--name", "standby"}, change...)...)
}

func (f *field) services(ctx context.Context, h *lab.Host, does string, names ...string) error {
	for _, name := range names {
		if _, err := h.Run(ctx, "service", name, does); err != nil {
			return err
		}
	}
	return nil
}

// returns waits until a host that died was fenced, has booted, and is a member again.
func (f *field) returns(ctx context.Context, h *lab.Host, members []*lab.Host) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return f.waitFor(ctx, members, func(s *lab.Status) error {
		if !f.wasFenced(h) {
			return fmt.Errorf("%s was not fenced", h.Name)
		}
		if n := s.Nodes[h.Name]; !n.Online || n.Pending || n.Unclean {
			return fmt.Errorf("%s was fenced, and is %s", h.Name, n)
		}
		return nil
	})
}

// wasFenced reports whether a host was fenced since it began to die. Before the cluster misses it, it still looks like a member, and after
// it was fenced it boots, and is one again.
func (f *field) wasFenced(h *lab.Host) bool { return h.Fenced().After(f.beganToDie(h.Name)) }

// beganToDie is when the last event was that made the cluster fence a host.
func (f *field) beganToDie(node string) (last time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.deaths {
		if d.node == node {
			last = d.from
		}
	}
	return last
}

// filters are the MAC filter's entries for the shared MAC, by mac_mode: the command that shows and deletes one, and its name there.
var filters = map[string]struct{ command, mac string }{
	"multicast": {"ip maddress", "03:c1:c0:a8:0a:03"},
	"unicast":   {"bridge fdb", "02:c1:c0:a8:0a:03"},
	"igmp":      {"ip address", "239.255.10.3/32"}, // has the kernel send reports
}

// damage deletes something, and waits until it is there again. So nothing else happens to the host before a monitor has found it: if its
// buckets were moved first, no monitor would run there any more.
func (f *field) damage(ctx context.Context, h *lab.Host, command, what string) error {
	words := strings.Fields(command)
	if _, err := h.Run(ctx, append(words, "delete", what, "dev", lan.NIC)...); err != nil {
		f.vain(err)
		return nil
	}
	for end := time.Now().Add(stepTimeout); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(pollInterval) {
		if text, err := h.Run(ctx, append(words, "show", "dev", lan.NIC)...); err == nil && strings.Contains(text, what) {
			return nil
		}
	}
	return fmt.Errorf("%s is not there again", what)
}

// killMonitor kills the next monitor of the agent that is seen.
func (f *field) killMonitor(h *lab.Host) error {
	isMonitor := func(_ string, argv []string) bool {
		return len(argv) == 2 && strings.HasSuffix(argv[0], "/custom/clusterip") && argv[1] == "monitor"
	}
	var err error
	for end := time.Now().Add(agentKillPatience); time.Now().Before(end); time.Sleep(agentPollInterval) {
		if err = h.KillProcess("a monitor", isMonitor); err == nil {
			return nil
		}
	}
	return err
}

// settle waits until the cluster is as it was, checks who answers, ends the clients, and deletes the resource.
func (f *field) settle(ctx context.Context) {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"all buckets run again, spread evenly", f.even},
		{"each client is answered by every means", f.answered},
		{"each bucket is answered once", f.answeredOnce},
		{"the clients go", f.stopProbes},
		{"the resource is deleted, and nothing of it is left", f.remove},
	}
	for _, step := range steps {
		if ctx.Err() != nil {
			return
		}
		f.say("%s ...", step.what)
		if err := step.do(ctx); err != nil {
			f.fails(ctx, "not so: "+step.what, err)
		}
	}
}

// answeredOnce asks from other sources, and expects the answers of the nodes where the buckets run in Pacemaker's status.
func (f *field) answeredOnce(ctx context.Context) error {
	status, err := f.Status(ctx)
	if err != nil {
		return err
	}
	placement := status.Placement(resource)
	return f.ExactlyOnce(ctx, address, f.Network.Sources(2*asking + keeping)[asking+keeping:],
		func(client netip.Addr) string { return placement[bucketOf(client)] })
}

func bucketOf(client netip.Addr) int { return lab.Bucket(address, client, buckets) }

func (f *field) stopProbes(context.Context) error {
	var errs []error
	for _, p := range f.probes {
		_, err := p.Stop()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// remove deletes the resource. Connections are closed, so the drains end.
func (f *field) remove(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, stepTimeout) // pcs waits until the buckets have stopped
	defer cancel()
	if _, err := f.Hosts[0].Run(limited, "pcs", "resource", "delete", resource); err != nil {
		return err
	}
	var left []error
	for end := time.Now().Add(stepTimeout); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(pollInterval) {
		if left = f.left(); len(left) == 0 {
			return nil
		}
	}
	return errors.Join(left...)
}

// left returns what is on the hosts that was not there before.
func (f *field) left() []error {
	var left []error
	for _, h := range f.Hosts {
		text, err := h.Dump()
		if err != nil {
			left = append(left, err)
			continue
		}
		for line := range strings.Lines(text) {
			if !strings.Contains(f.clean[h.Name], line) {
				left = append(left, fmt.Errorf("%s: %s", h.Name, strings.TrimSpace(line)))
			}
		}
	}
	return left
}
