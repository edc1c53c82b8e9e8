package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/netns"
)

// demo is the story with its stage.
type demo struct {
	*story
	network *netns.Network
	agent   string             // the program's path
	locks   string             // a folder with one for each node, where the agent keeps its lock
	before  [len(nodes)]string // the nodes' state before anything was started
	// placement is who should answer, at any time in the story.
	placement placement
}

// tell tells the whole story. It goes on past a claim that does not hold, and ends when it is interrupted.
func (d *demo) tell(ctx context.Context) error {
	d.line("%s", d.paint(bold, fmt.Sprintf("Three nodes share one IP address, %s, and one MAC address, %s", address, mac)))
	for _, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"The network: three nodes, a switch and a client, each a network namespace", d.build},
		{"Start: each of the clone's 8 instances is a hash bucket, and each node gets some of them", d.startAll},
		{"Who answers whom? The client asks from 64 addresses, each by ping, UDP and TCP", d.whoAnswers},
		{"What an admin sees", d.look},
		{"node2 dies: here, its cable is pulled", d.nodeDies},
		{"Once node2 is known to be off (fencing sees to that), the others take over its buckets", d.takeOver},
		{"node2 is back after a reboot and gets its buckets again, while the clients go on asking", d.comeBack},
		{"Stop everything: nothing is left behind", d.stopAll},
	} {
		if err := d.chapter(ctx, chapter.title); err != nil {
			return err
		}
		if err := chapter.tell(ctx); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// build shows the network, and starts a server on each node.
func (d *demo) build(context.Context) error {
	for i, n := range d.network.Nodes {
		wire := "+"
		if i == len(nodes)/2 {
			wire = fmt.Sprintf("+-- switch -- client, which asks from 64 addresses: %s", clients)
		}
		d.say("  %s %s --%s", n.Name, n.Addr, wire)
		before, err := n.Dump()
		if err != nil {
			return err
		}
		d.before[i] = before
	}
	if d.enter == nil {
		d.say("To look around: `go run ./tests/demo -step` waits for you after each chapter.")
	} else {
		d.say("To look into node1 from another window: PATH=$PWD/bin:$PATH ip netns exec %s bash", d.network.Nodes[node1].Namespace)
	}
	return d.network.Serve(netns.EchoPort)
}

func (d *demo) startAll(ctx context.Context) error {
	d.say("Pacemaker tells the agent in environment variables what it wants. By hand it is the same:")
	for _, line := range parameters() {
		d.command("all", "export "+strings.Join(line, " "))
	}
	begin := time.Now()
	err := d.start(ctx,
		share{node1, []int{0, 3, 6}},
		share{node2, []int{1, 4, 7}},
		share{node3, []int{2, 5}})
	took := time.Since(begin)
	d.claim(ctx, err, "all 8 instances run, after %d ms", took.Milliseconds())
	d.monitorAll(ctx)
	return nil
}

// monitorAll asks for each bucket on each node, shows the exit statuses, and checks them.
func (d *demo) monitorAll(ctx context.Context) {
	d.command("all", fmt.Sprintf("for b in {0..%d}; do %s; echo $?; done", buckets-1, instance("$b", "monitor")))
	var faults []error
	for node, n := range nodes {
		var statuses strings.Builder
		for bucket, owner := range d.placement {
			want := ocf.NotRunning
			if owner == node {
				want = ocf.Success
			}
			r := d.call(ctx, node, bucket, "monitor")
			if err := failure(r, want); err != nil {
				faults = append(faults, fmt.Errorf("%s, bucket %d: %w", n.name, bucket, err))
			}
			status := fmt.Sprint(r.ExitCode)
			if r.ExitCode == int(ocf.Success) {
				status = d.paint(n.colour, status)
			}
			statuses.WriteString(" " + status)
		}
		d.output(n.name + statuses.String())
	}
	d.claim(ctx, errors.Join(faults...), "monitor says 0, running, where a bucket runs, and 7, not running, everywhere else")
}

func (d *demo) whoAnswers(ctx context.Context) error {
	d.say("One cell for each client. 3A: it is in bucket 3, and node1 (A) answered it. A dot: nobody did.")
	t, err := d.ask(ctx)
	if err != nil {
		return err
	}
	d.claim(ctx, t.fault, "%s, each answered once, and by the node that has the client's bucket", t)
	return nil
}

// look shows how the state of a node and of its neighbours can be seen.
func (d *demo) look(ctx context.Context) error {
	table := "netdev clusterip-" + address.String()
	first := d.network.Nodes[node1]
	var faults []error
	for _, l := range []struct {
		host         *netns.Host
		line, remark string
	}{
		{first, "nft list set " + table + " owned | grep -o '0x[^,}]*'", "answered"},
		{first, "nft list table " + table + " | grep ' drop'", "left to others"},
		{first, "ip -brief address show dev eth0", "a usual address"},
		{first, "ip maddress show dev eth0 | grep " + mac, "the NIC lets the MAC in"},
		{d.network.Client, "ip neighbour show " + address.String(), "what clients see"},
	} {
		faults = append(faults, d.show(ctx, l.host, l.line, l.remark))
	}
	d.claim(ctx, errors.Join(append(faults, d.neverLearned())...),
		"all is there, and the switch knows no port for that MAC address: every node gets each packet")
	return nil
}

// neverLearned returns an error if the switch knows a port for the cluster MAC.
func (d *demo) neverLearned() error {
	entries, err := d.network.BridgeFDB()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.MAC.String() == mac {
			return fmt.Errorf("%s is at port %s", e.MAC, e.Port)
		}
	}
	return nil
}

func (d *demo) nodeDies(ctx context.Context) error {
	d.command("switch", "ip link set node2 down")
	if err := d.network.UnplugNode(node2, netns.NIC); err != nil {
		return err
	}
	lost := d.placement.of(node2)
	for _, bucket := range lost {
		d.placement[bucket] = nobody
	}
	t, err := d.ask(ctx)
	if err != nil {
		return err
	}
	fault := t.fault
	if fault == nil && t.unanswered == 0 {
		fault = errors.New("every question was answered")
	}
	d.claim(ctx, fault, "only the clients of its buckets %s are unanswered; the others notice nothing", join(lost))

	d.command("node2", commandFor("monitor", lost[:1]))
	r := d.call(ctx, node2, lost[0], "monitor")
	d.output(r.Stderr)
	d.claim(ctx, failure(r, ocf.ErrGeneric), "monitor tells what is wrong, with exit status %d", r.ExitCode)
	return nil
}

func (d *demo) takeOver(ctx context.Context) error {
	begin := time.Now()
	err := d.start(ctx, share{node1, []int{4}}, share{node3, []int{1, 7}})
	took := time.Since(begin)
	d.claim(ctx, err, "taken over, in %d ms", took.Milliseconds())
	t, err := d.ask(ctx)
	if err != nil {
		return err
	}
	d.claim(ctx, t.fault, "%s, each answered once", t)
	return nil
}

// What the clients send during the planned move, and for how long before and after it.
const (
	perSecond = 1000
	margin    = 300 * time.Millisecond
)

func (d *demo) comeBack(ctx context.Context) error {
	d.say("A reboot forgets everything. Here, the agent does, before the cable is back:")
	again := share{node2, []int{1, 4, 7}}
	d.claim(ctx, d.stop(ctx, again), "stop succeeds without a link")
	d.command("switch", "ip link set node2 up")
	if err := d.network.PlugNode(ctx, node2, netns.NIC); err != nil {
		return err
	}

	stream, err := d.network.Stream(ctx, netns.Traffic{Target: address, Sources: sources()}, perSecond)
	if err != nil {
		return err
	}
	pause(ctx, margin)
	begin := time.Now()
	fault := errors.Join(
		d.stop(ctx, share{node1, []int{4}}, share{node3, []int{1, 7}}),
		d.start(ctx, again))
	took := time.Since(begin)
	pause(ctx, margin)
	r, err := stream.Stop()
	if err != nil {
		return err
	}
	d.claim(ctx, errors.Join(fault, neverTwice(r)), "moved, in %d ms; of %d packets sent meanwhile %d were lost, and none was answered twice",
		took.Milliseconds(), r.Sent(), r.Lost())

	t, err := d.ask(ctx)
	if err != nil {
		return err
	}
	d.claim(ctx, t.fault, "%s, each answered once: all is as it was", t)
	return nil
}

// neverTwice returns an error that names packets with more than one answer, whoever gave them.
func neverTwice(r *netns.Report) error {
	anybody := func(netns.Flow, int) bool { return true }
	return r.AtMostOnce(anybody)
}

// pause waits, but no longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (d *demo) stopAll(ctx context.Context) error {
	var shares []share
	for node := range nodes {
		shares = append(shares, share{node, d.placement.of(node)})
	}
	faults := []error{
		d.stop(ctx, shares...),
		d.show(ctx, d.network.Nodes[node1], "nft list ruleset; ip -brief address show dev eth0", "no rule, no address"),
	}
	for node, before := range d.before {
		faults = append(faults, d.remains(node, before))
	}
	d.claim(ctx, errors.Join(faults...), "on each node every rule, address, route, MAC filter, sysctl and lock file is as before")
	return nil
}
