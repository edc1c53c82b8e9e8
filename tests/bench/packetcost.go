package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/tests/lan"
)

// packetCosts are what one packet costs on a node, for each setting and receiver.
type packetCosts struct {
	receivers []receiver
	missing   string // why the agent has no other receivers
	sites     []*packetSite
	packets   int
	rounds    int
	took      time.Duration
}

// A packetSite is all receivers with one setting.
type packetSite struct {
	setting setting
	nodes   []*receiverNode
}

// Of a bucket that is the only one, no packet is foreign.
func (s setting) hasForeign() bool { return s.buckets > 1 }

func settings() []setting {
	var all []setting
	for _, ipv6 := range []bool{false, true} {
		for _, buckets := range []int{1, 8, 64} {
			for _, addresses := range []int{1, 32} {
				all = append(all, setting{ipv6: ipv6, buckets: buckets, addresses: addresses})
			}
		}
	}
	return append(all, setting{tcp: true, buckets: 8, addresses: 1}, setting{tcp: true, buckets: 64, addresses: 32})
}

// measurePackets measures one setting after the other: with each, every receiver has a node of its own, so that all of them can be measured
// in turns.
func measurePackets(
	ctx context.Context, p *progress, agent, scratch string, settings []setting, rounds, packets int,
) (*packetCosts, error) {
	begin := time.Now()
	costs := &packetCosts{packets: packets, rounds: rounds}
	var err error
	if costs.receivers, costs.missing, err = receivers(ctx, agent); err != nil {
		return nil, err
	}
	for i, s := range settings {
		p.report("packets: %s (%d of %d)", s, i+1, len(settings))
		site := &packetSite{setting: s}
		if err := site.measure(ctx, costs.receivers, filepath.Join(scratch, fmt.Sprint("packets", i)), func(round int) {
			p.report("packets: %s (%d of %d), round %d of %d", s, i+1, len(settings), round+1, rounds)
		}, rounds, packets); err != nil {
			return nil, fmt.Errorf("packets: %s: %w", s, err)
		}
		costs.sites = append(costs.sites, site)
	}
	costs.took = time.Since(begin)
	return costs, nil
}

// measure builds the nodes, sends to each some times, and removes them.
func (t *packetSite) measure(
	ctx context.Context, all []receiver, scratch string, report func(round int), rounds, packets int,
) (err error) {
	network, err := lan.NewEmpty()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	host, err := network.NewHost("generator")
	if err != nil {
		return err
	}
	host.MAC = net.HardwareAddr{2, 0, 0, 0, 2, 1}
	g, err := newGenerator(host)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	for i := range all {
		if !all[i].fits(t.setting) {
			continue
		}
		n, err := newReceiverNode(ctx, network, host, &all[i], t.setting, len(t.nodes)+1, scratch)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.close()) }()
		t.nodes = append(t.nodes, n)
	}
	for round := range rounds {
		report(round)
		for _, foreign := range []bool{true, false} {
			for _, n := range t.nodes {
				if n.fate(foreign) == unmeasured || foreign && !t.setting.hasForeign() {
					continue
				}
				ns, err := g.cost(ctx, n, foreign, packets)
				if err != nil {
					return fmt.Errorf("%s: %w", n.name, err)
				}
				n.costs[foreign] = append(n.costs[foreign], ns)
			}
		}
	}
	return nil
}

// cost returns how many nanoseconds a packet takes on the way from the generator to its end. Packets that did not get as far as they should
// fail it, because what is lost costs nothing: the interface must have received each, and the socket all or none. It starts again if the
// machine was so busy that the cable had no room for some.
func (g *generator) cost(ctx context.Context, n *receiverNode, foreign bool, packets int) (float64, error) {
	frames, err := n.frames(foreign, g.host.MAC)
	if err != nil {
		return 0, err
	}
	const attempts = 10
	for range attempts {
		sent, each, counted, err := g.lap(ctx, n, frames, packets)
		switch {
		case errors.Is(err, errInterrupted) || err == nil && counted.lost > 0:
			continue
		case err != nil:
			return 0, err
		case counted.received < sent:
			return 0, fmt.Errorf("the interface received %d of %d packets, and reports none as lost", counted.received, sent)
		case n.fate(foreign) == dropped && counted.delivered > 0:
			return 0, fmt.Errorf("%d of %d packets came through, none should", counted.delivered, sent)
		case n.fate(foreign) == delivered && counted.delivered != sent:
			return 0, fmt.Errorf("%d of %d packets came through, all should", counted.delivered, sent)
		}
		return each, nil
	}
	return 0, fmt.Errorf("the machine is too busy: %d times a signal came, or the cable had no room for some packets", attempts)
}

// lap sends packets, first to warm up and then to measure, and returns what the receiver counted of the latter.
func (g *generator) lap(
	ctx context.Context, n *receiverNode, frames [][]byte, packets int,
) (sent uint64, each float64, counted counters, err error) {
	passes := (packets + framesPerSet - 1) / framesPerSet
	err = g.host.Do(func() error {
		if err := errors.Join(steady(), g.load(frames)); err != nil {
			return err
		}
		idle, err := n.counters()
		if err != nil {
			return err
		}
		// Fills conntrack, the socket's buffer and the caches.
		const warmUp = 10
		warm, _, err := g.send(n.port, 1+passes/warmUp)
		if err != nil {
			return err
		}
		before, err := n.await(ctx, idle, warm)
		if err != nil {
			return err
		}
		if sent, each, err = g.send(n.port, passes); err != nil {
			return err
		}
		after, err := n.await(ctx, before, sent)
		counted = counters{after.received - before.received, after.lost - before.lost, after.delivered - before.delivered}
		return err
	})
	return sent, each, counted, err
}

// await waits until so many frames have ended at the node since it had these counters, at most a second, and returns the counters.
func (n *receiverNode) await(ctx context.Context, since counters, sent uint64) (counters, error) {
	const patience, pause = 200, 5 * time.Millisecond
	c, err := n.counters()
	for range patience {
		if err != nil {
			return c, err
		}
		ended := c.received-since.received+c.lost-since.lost >= sent
		select {
		case <-ctx.Done():
			return c, context.Cause(ctx)
		case <-time.After(pause):
		}
		// Once more also behind the last frame: the interface counts a frame before the socket does.
		if c, err = n.counters(); ended {
			break
		}
	}
	return c, err
}

// middle returns the median of figures.
func middle(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// cost returns the median of a receiver, or 0 if it was not measured.
func (t *packetSite) cost(name string, foreign bool) float64 {
	for _, n := range t.nodes {
		if n.name == name {
			return middle(n.costs[foreign])
		}
	}
	return 0
}

// report returns all costs as text.
func (c *packetCosts) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, `
One packet on a node, with the generator's work: ns, medians of %d rounds of %d packets of %d bytes, in %.0f s

  A node owns %d buckets: of 8, as in a cluster of two nodes, or of 64, as in one of sixteen. Its interface is the end of a cable with GRO,
  and so with NAPI. Own packets end at the full buffer of a socket, own TCP segments at TCP, because their checksum is wrong. The columns
  are numbers of buckets and addresses. Behind each figure: how many times that of %s, or of own packets that of %s; and that of %s.
`, c.rounds, c.packets, frameLen, c.took.Seconds(), ownedBuckets, xdpDropName, offName, peerName)
	if c.missing != "" {
		fmt.Fprintf(&b, "  Without rows for early_drop=tc and xdp: %s.\n", c.missing)
	}
	for _, packets := range []struct {
		name      string
		ipv6, tcp bool
	}{{"packets, IPv4", false, false}, {"packets, IPv6", true, false}, {"TCP segments, IPv4", false, true}} {
		for _, foreign := range []bool{true, false} {
			kind := "Own"
			if foreign {
				kind = "Foreign"
			}
			fmt.Fprintf(&b, "\n%s %s\n\n%s", kind, packets.name, c.table(packets.ipv6, packets.tcp, foreign))
		}
	}
	return b.String()
}

// table shows the packets of a kind.
func (c *packetCosts) table(ipv6, tcp, foreign bool) string {
	references := []string{offName, peerName}
	titles := []string{"/off", "/nft"}
	if foreign {
		references = []string{xdpDropName, peerName}
		titles = []string{"/drop", "/nft"}
	}
	var sites []*packetSite
	head := []string{"buckets/addresses"}
	for _, t := range c.sites {
		if t.setting.ipv6 == ipv6 && t.setting.tcp == tcp && (t.setting.hasForeign() || !foreign) {
			sites = append(sites, t)
			head = append(append(head, fmt.Sprintf("%d/%d", t.setting.buckets, t.setting.addresses)), titles...)
		}
	}
	var out table
	out.row(head...)
	for _, r := range c.receivers {
		if r.fate(foreign) == unmeasured || r.onlyTCP && !tcp || r.noTCP && tcp {
			continue
		}
		row := []string{r.name}
		for _, t := range sites {
			cost := t.cost(r.name, foreign)
			if cost == 0 {
				row = append(row, "-", "", "")
				continue
			}
			row = append(row, fmt.Sprintf("%.0f", cost))
			for _, reference := range references {
				row = append(row, times(cost, t.cost(reference, foreign)))
			}
		}
		out.row(row...)
	}
	return out.String()
}

func times(cost, reference float64) string {
	if reference == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", cost/reference)
}

// targets are what the agent's program that drops early is to reach, in every setting.
var targets = []struct {
	name, reference string
	foreign         bool
	limit           float64
}{
	{xdpName, peerName, true, 0.30},
	{tcName, peerName, true, 0.80},
	{xdpName, xdpDropName, true, 1.30},
	{xdpName, offName, false, 1.05},
	{tcName, offName, false, 1.05},
	{xdpName, xdpForgets, true, 1.10},
	{xdpName, xdpForgets, false, 1.05},
	{tcName, tcForgets, true, 1.05},
	{tcName, tcForgets, false, 1.05},
}

// verdicts returns a row for each target, and whether all that were measured are met.
func (c *packetCosts) verdicts() (rows table, met bool) {
	met = true
	for _, target := range targets {
		kind := "own"
		if target.foreign {
			kind = "foreign"
		}
		what := fmt.Sprintf("%s: a packet that is %s costs at most %.2f times that of %s", target.name, kind, target.limit, target.reference)
		measured, missed := 0, 0
		worst, where := 0.0, ""
		for _, t := range c.sites {
			cost, reference := t.cost(target.name, target.foreign), t.cost(target.reference, target.foreign)
			if cost == 0 || reference == 0 {
				continue
			}
			measured++
			ratio := cost / reference
			if ratio > target.limit {
				missed++
			}
			if ratio > worst {
				worst, where = ratio, t.setting.String()
			}
		}
		switch {
		case measured == 0:
			rows.row(what, "not measured", "")
		case missed > 0:
			met = false
			rows.row(what, "NOT MET", fmt.Sprintf("in %d of %d settings; worst %.2f: %s", missed, measured, worst, where))
		default:
			rows.row(what, "met", fmt.Sprintf("in all %d settings; worst %.2f: %s", measured, worst, where))
		}
	}
	return rows, met
}

// targets shows whether each target is met.
func (c *packetCosts) targets() string {
	rows, _ := c.verdicts()
	return rows.String()
}

// benchPackets measures packets alone.
func benchPackets(ctx context.Context, agent string, o options) error {
	scratch, err := os.MkdirTemp("", "clusterip-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	p := newProgress(os.Stderr)
	c, err := measurePackets(ctx, p, agent, scratch, settings(), o.packetRounds, o.packets)
	p.end()
	if err != nil {
		return err
	}
	fmt.Printf("%s on %s\n%s\nTargets\n\n%s", firstLine(ctx, agent, "--version"), machine(), c.report(), c.targets())
	if _, met := c.verdicts(); o.check && !met {
		return errNotKept
	}
	return nil
}
