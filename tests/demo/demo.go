package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/lab"
	"ocf-clusterip/tests/probe"
)

// The numbers of the article.
var (
	address = netip.MustParseAddr("192.168.10.3")

	// clients are the addresses that ask.
	clients = netip.MustParsePrefix("192.168.64.0/18")
)

// nodeDies is the mark of node3's death.
const nodeDies = "node3 dies"

const (
	buckets  = 8
	resource = "web-ip"
	asking   = 64 // sources

	// stepTimeout bounds the wait for each chapter's end.
	stepTimeout = time.Minute

	pollInterval = 200 * time.Millisecond

	// afterwards is how long it looks at what a move costs when all clients are answered again.
	afterwards = time.Second
)

// create is what an admin types to have the shared address.
var create = [][]string{
	{"pcs", "resource", "create", resource, "ocf:custom:clusterip", "ip=" + address.String(), "--disabled"},
	{
		"pcs", "resource", "clone", resource, "meta", fmt.Sprintf("clone-max=%d", buckets), fmt.Sprintf("clone-node-max=%d", buckets),
		"globally-unique=true", "resource-stickiness=0",
	},
	{"pcs", "resource", "enable", resource},
}

// demo is the story with its stage.
type demo struct {
	*story
	*lab.Lab
	out    string
	probe  *probe.Probe
	before map[string]string // each host's network before anything was started, by its name
	plain  period            // node2's standby without drain
	gentle period            // and with drain
}

// period is a part of the time.
type period struct{ from, to time.Time }

// introduce prints what the demo shows. Then the reader waits for the cluster.
func (d *demo) introduce() {
	d.line("%s", d.paint(bold, fmt.Sprintf("Three nodes share one IP address, %s, with no load balancer in front", address)))
	d.line("")
	d.say("                         +-- node1 --+")
	d.say("  %d clients -- switch --+-- node2 --+-- management network -- power switch", asking)
	d.say("                         +-- node3 --+")
	d.line("")
	d.say("All of this is namespaces on this one machine, but Corosync and Pacemaker are real. Booting ...")
}

// play plays all chapters. It goes on after a claim that does not hold, and ends when it is interrupted.
func (d *demo) play(ctx context.Context) error {
	if d.enter == nil {
		d.say("The cluster is up. `go run ./tests/demo -step` waits for you after each chapter; `make lab` makes one to play with.")
	} else {
		d.say("The cluster is up. To look at node1's network from another window: ip netns exec %s bash", d.Network.Nodes[0].Namespace)
	}
	d.before = map[string]string{}
	for _, h := range d.Hosts {
		text, err := h.Dump()
		if err != nil {
			return err
		}
		d.before[h.Name] = text
	}
	for _, chapter := range []struct {
		title string
		play  func(context.Context) error
	}{
		{fmt.Sprintf("Three commands make the shared address: a clone with %d instances, one for each hash bucket", buckets), d.create},
		{fmt.Sprintf("%d clients ask all the time: by ping, UDP, new TCP connections and ones that stay open", asking), d.ask},
		{"Maintenance: node2 goes into standby, and comes back", d.maintain},
		{"node3 loses power", d.die},
		{"Maintenance again, with drain: the old owner of a bucket goes on until the new one takes it over", d.drain},
		{"What the clients saw", d.results},
		{"Remove the address: nothing is left behind", d.remove},
	} {
		if err := d.chapter(ctx, chapter.title); err != nil {
			return err
		}
		if err := chapter.play(ctx); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// types shows a command that an admin types on a host, runs it, and shows what it prints.
func (d *demo) types(ctx context.Context, h *lab.Host, argv ...string) error {
	d.command(h.Name, strings.Join(argv, " "))
	text, err := h.Run(ctx, argv...)
	if err != nil {
		return err
	}
	d.output(text)
	return nil
}

// status shows the part of crm_mon that matters here.
func (d *demo) status(ctx context.Context, h *lab.Host) error {
	argv := []string{"crm_mon", "--one-shot", "--include=none,nodes,resources"}
	d.command(h.Name, strings.Join(argv, " "))
	text, err := h.Run(ctx, argv...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			d.line("         %s", strings.TrimRight(line, "\n"))
		}
	}
	return nil
}

// settles waits until the buckets are spread evenly over exactly those nodes, and prints how long that took.
func (d *demo) settles(ctx context.Context, since time.Time, nodes ...string) {
	waiting, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	status, err := d.WaitFor(waiting, func(s *lab.Status) error { return s.Even(resource, buckets, nodes...) })
	if err == nil {
		err = d.WaitIdle(waiting)
	}
	var shares []string
	if status != nil {
		for _, node := range slices.Sorted(maps.Keys(status.Shares(resource))) {
			shares = append(shares, fmt.Sprintf("%s %d", node, status.Shares(resource)[node]))
		}
	}
	d.claim(ctx, err, "all %d buckets run, after %.1f s: %s", buckets, time.Since(since).Seconds(), strings.Join(shares, ", "))
}

// answered waits until every client is answered by every means.
func (d *demo) answered(ctx context.Context) {
	waiting, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	d.claim(ctx, d.probe.WaitAnswered(waiting, time.Now()), "every client is answered")
}

func (d *demo) create(ctx context.Context) error {
	begin := time.Now()
	for _, command := range create {
		if err := d.types(ctx, d.Hosts[0], command...); err != nil {
			return err
		}
	}
	d.settles(ctx, begin, "node1", "node2", "node3")
	return d.status(ctx, d.Hosts[0])
}

// ask checks with one question each who answers whom, and begins to ask all the time.
func (d *demo) ask(ctx context.Context) error {
	status, err := d.Status(ctx)
	if err != nil {
		return err
	}
	placement := status.Placement(resource)
	once := d.ExactlyOnce(ctx, address, d.Network.Sources(asking), func(client netip.Addr) string { return placement[bucketOf(client)] })
	d.claim(ctx, once, "each question of %d clients is answered once, by the node whose bucket it hashes to", asking)
	if d.probe, err = d.Probe(ctx, address, asking); err != nil {
		return err
	}
	d.answered(ctx)
	return nil
}

func bucketOf(client netip.Addr) int { return lab.Bucket(address, client, buckets) }

func (d *demo) maintain(ctx context.Context) (err error) {
	d.plain, err = d.standby(ctx, "")
	return err
}

// drain lets node2 leave and return again, when moves are to cost nothing.
func (d *demo) drain(ctx context.Context) error {
	if err := d.types(ctx, d.Hosts[0], "pcs", "resource", "update", resource, "drain=600", "linger=5", "--wait=60"); err != nil {
		return err
	}
	var err error
	d.gentle, err = d.standby(ctx, ", with drain")
	return err
}

// standby puts node2 in standby and takes it back. It returns when that was.
func (d *demo) standby(ctx context.Context, how string) (p period, err error) {
	p.from = time.Now()
	begin := p.from
	d.probe.Mark("node2 in standby" + how)
	if err := d.types(ctx, d.Hosts[0], "pcs", "node", "standby", "node2"); err != nil {
		return p, err
	}
	d.settles(ctx, begin, "node1", "node3")
	d.answered(ctx)
	begin = time.Now()
	d.probe.Mark("node2 back" + how)
	if err := d.types(ctx, d.Hosts[0], "pcs", "node", "unstandby", "node2"); err != nil {
		return p, err
	}
	d.settles(ctx, begin, "node1", "node2", "node3")
	d.answered(ctx)
	err = clusterip.Pause(ctx, afterwards)
	p.to = time.Now()
	return p, err
}

func (d *demo) die(ctx context.Context) error {
	node := d.Hosts[2]
	begin := time.Now()
	d.say("The other nodes get no notice. They miss its messages for a second, fence it, and start its buckets.")
	d.probe.Mark(nodeDies)
	if err := node.Off(); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := d.WaitFor(waiting, func(s *lab.Status) error { return placedWithout(s, node.Name) })
	d.claim(ctx, err, "its buckets run elsewhere, after %.1f s (fenced after %.1f s)",
		time.Since(begin).Seconds(), node.Fenced().Sub(begin).Seconds())
	d.answered(ctx)
	d.say("Fencing was a reboot, so it is on its way back:")
	d.probe.Mark("node3 returns")
	d.settles(ctx, begin, "node1", "node2", "node3")
	d.answered(ctx)
	return d.status(ctx, d.Hosts[0])
}

// placedWithout returns an error unless all buckets run on other nodes.
func placedWithout(s *lab.Status, node string) error {
	placement := s.Placement(resource)
	if len(placement) != buckets || slices.Contains(slices.Collect(maps.Values(placement)), node) {
		return fmt.Errorf("the buckets are at %v", placement)
	}
	return nil
}

// results ends the asking, and shows what the clients saw as numbers and as a picture.
func (d *demo) results(ctx context.Context) error {
	log, err := d.probe.Stop()
	if err != nil {
		return err
	}
	summary := log.Summary()
	for line := range strings.Lines(summary.String()) {
		d.line("   %s", strings.TrimRight(line, "\n"))
	}
	picture := probe.Picture{
		Title:  fmt.Sprintf("Who answered the clients of %s", address),
		Bucket: bucketOf,
	}
	files := []struct {
		name  string
		write func(*os.File) error
	}{
		{"answers.svg", func(f *os.File) error { return log.WriteSVG(f, picture) }},
		{"answers.png", func(f *os.File) error { return log.WritePNG(f, picture) }},
		{"probe.log", func(f *os.File) error { _, err := log.WriteTo(f); return err }},
	}
	for _, file := range files {
		f, err := os.Create(filepath.Join(d.out, file.name))
		if err != nil {
			return err
		}
		if err := errors.Join(file.write(f), f.Close()); err != nil {
			return err
		}
	}
	d.line("")
	d.claim(ctx, none(summary.Total.Duplicates, "questions were answered twice"), "no question was answered twice")
	d.claim(ctx, none(summary.Total.WrongMAC, "frames had a wrong MAC"), "no answer had a wrong MAC")
	plain, gentle := d.cost(log, d.plain), d.cost(log, d.gentle)
	d.claim(ctx, none(gentle.Broken, "connections broke"), "node2's standby and return broke %d connections; with drain none", plain.Broken)
	d.claim(ctx, fewer(gentle.Unanswered(), plain.Unanswered()), "they cost the clients %d answers, and with drain %d", plain.Unanswered(),
		gentle.Unanswered())
	d.told(summary)
	d.say("The picture:  %s", d.paint(bold, filepath.Join(d.out, "answers.svg")+" (and .png)"))
	d.say("Every event:  %s, and what the power switch did: power.log", filepath.Join(d.out, "probe.log"))
	return nil
}

// told says how soon clients with an open connection to the node that died knew.
func (d *demo) told(summary *probe.Summary) {
	for _, e := range summary.Effects {
		if e.Text == nodeDies {
			later := (e.Longest[probe.Stream] - e.Longest[probe.ICMP]).Seconds()
			d.say("node3's death: new questions had answers again after %.2f s; open connections were reset, and made again, %.2f s later",
				e.Longest[probe.ICMP].Seconds(), max(later, 0))
		}
	}
}

// cost counts what happened in a part of the time.
func (d *demo) cost(log *probe.Log, p period) probe.Counts {
	return log.Between(p.from.Sub(log.Start), p.to.Sub(log.Start)).Summary().Total
}

// fewer returns an error unless what drain is to prevent is less than a tenth of what happens without. It is not zero where Pacemaker, on a
// busy machine, takes longer than linger from a stop to the start elsewhere.
func fewer(with, without int) error {
	const least = 10
	if without == 0 || with*least > without {
		return fmt.Errorf("%d of %d questions were not answered even with drain", with, without)
	}
	return nil
}

func none(count int, what string) error {
	if count > 0 {
		return fmt.Errorf("%d %s", count, what)
	}
	return nil
}

func (d *demo) remove(ctx context.Context) error {
	if err := d.types(ctx, d.Hosts[0], "pcs", "resource", "delete", resource); err != nil {
		return err
	}
	if err := d.WaitIdle(ctx); err != nil {
		return err
	}
	d.say("The last connections have ended. Each node notices that within 15 s, and removes what served them:")
	waiting, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	fault := d.left()
	for fault != nil && clusterip.Pause(waiting, pollInterval) == nil {
		fault = d.left()
	}
	d.claim(ctx, fault, "on each node every rule, address, route, MAC filter and sysctl is as before")
	return nil
}

// left returns what of the nodes' networks was not there before.
func (d *demo) left() error {
	var faults []error
	for _, h := range d.Hosts {
		after, err := h.Dump()
		if err != nil {
			return err
		}
		for line := range strings.Lines(after) {
			if !strings.Contains(d.before[h.Name], line) {
				faults = append(faults, fmt.Errorf("%s: %s", h.Name, line))
			}
		}
	}
	return errors.Join(faults...)
}
