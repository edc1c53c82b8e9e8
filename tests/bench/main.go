// Command bench measures what each action of the agent costs, from fork to exit, beside Debian's ocf:heartbeat:IPaddr2
// doing the same for a plain address, in turns on the same node; how long many instances on one node take; what one packet costs on a
// node, beside IPaddr2's rules; and how long the command plan takes for a long log. The nodes are network namespaces that bench makes and
// removes.
//
// It needs root, what `make build` has built, the Debian packages that tests/packages.txt lists for the benchmark, and Linux 5.18.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"ocf-clusterip/tests/lan"
)

func main() { os.Exit(run()) }

// options are those of the command line.
type options struct {
	agent  string
	rounds int
	quick  bool
	check  bool
	only   string

	packetRounds, packets int
}

// The values of -only.
const (
	onlyPlan    = "plan"
	onlyPackets = "packets"
)

func run() int {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/ocf-clusterip", "the program to measure")
	flag.IntVar(&o.rounds, "rounds", 30, "how often everything is done")
	flag.BoolVar(&o.quick, "quick", false, "a few seconds only, to test the program: the figures mean little")
	flag.BoolVar(&o.check, "check", false, "exit with status 1 if a promise is not kept")
	flag.StringVar(&o.only, "only", "", "measure nothing but this: "+onlyPlan+" or "+onlyPackets)
	flag.IntVar(&o.packetRounds, "packet-rounds", 5, "how often the packets of each kind are sent")
	flag.IntVar(&o.packets, "packets", 50_000, "how many packets are sent at once")
	flag.Parse()
	if !slices.Contains([]string{"", onlyPlan, onlyPackets}, o.only) {
		fmt.Fprintf(os.Stderr, "bench: -only %q is neither %s nor %s\n", o.only, onlyPlan, onlyPackets)
		return 1
	}
	if o.rounds < 1 || o.packetRounds < 1 || o.packets < 1 || o.packets > maxPackets {
		fmt.Fprintf(os.Stderr, "bench: -rounds, -packet-rounds and -packets must be at least 1, and -packets at most %d\n", maxPackets)
		return 1
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// errNotKept makes -check fail.
var errNotKept = errors.New("a promise is not kept")

// bench makes a node, measures on it, removes it, and prints the results.
func bench(ctx context.Context, o options) error {
	agent, err := filepath.Abs(o.agent) // it will run in another folder
	if err != nil {
		return err
	}
	for name, remedy := range map[string]string{agent: "make build", ipaddr2: "apt-get install resource-agents"} {
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("%w; %s", err, remedy)
		}
	}
	if o.quick {
		o.rounds, o.packetRounds, o.packets = 2, 1, 10_000
	}
	switch o.only {
	case onlyPlan:
		return benchPlan(ctx, agent, o)
	case onlyPackets:
		return benchPackets(ctx, agent, o)
	}
	begin := time.Now()
	var r results
	err = onNode(ctx, func(network *lan.Network, scratch string) error {
		p := newProgress(os.Stderr)
		defer p.end()
		r, err = measure(ctx, p, network, scratch, agent, o)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Print(describe(ctx, agent, o.rounds, time.Since(begin)))
	fmt.Print(r.report(o.quick))
	if o.check && !r.kept() {
		return errNotKept
	}
	return nil
}

// benchPlan measures the command plan alone.
func benchPlan(ctx context.Context, agent string, o options) error {
	scratch, err := os.MkdirTemp("", "clusterip-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	p := newProgress(os.Stderr)
	r, err := races(ctx, p, agent, scratch, o.quick)
	p.end()
	if err != nil {
		return err
	}
	var t table
	t.row(r.verdict()...)
	fmt.Printf(
		"%s on %s\n%s\n%s",
		firstLine(ctx, agent, "--version"),
		machine(),
		r.report(),
		t.String(),
	)
	if o.check && !r.kept() {
		return errNotKept
	}
	return nil
}

// onNode runs do with a node and a folder, and removes both, also after an error.
func onNode(ctx context.Context, do func(network *lan.Network, scratch string) error) (err error) {
	scratch, err := os.MkdirTemp("", "clusterip-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	network, err := lan.New(ctx, lan.Options{Nodes: 1})
	if err != nil {
		return fmt.Errorf("build a network: %w", err)
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	return do(network, scratch)
}

// results are those of all measurements.
type results struct {
	pairs []pair
	floor
	arp     []*arpSetting
	crowds  []*crowd
	floods  []*flood
	packets *packetCosts
	race    *race
}

// measure makes all measurements.
func measure(ctx context.Context, p *progress, network *lan.Network, scratch, agent string, o options) (results, error) {
	node := network.Nodes[0]
	floor, err := newFloor(ctx, scratch)
	if err != nil {
		return results{}, err
	}
	d := newDuel(agent, scratch, floor.all)
	if err := d.run(ctx, p, node, o.rounds); err != nil {
		return results{}, err
	}
	crowds, err := crowds(ctx, p, node, agent, scratch, o.quick)
	if err != nil {
		return results{}, err
	}
	floods, err := floods(ctx, p, network, agent, scratch, o.quick)
	if err != nil {
		return results{}, err
	}
	packets, err := measurePackets(ctx, p, agent, scratch, settings(), o.packetRounds, o.packets)
	if err != nil {
		return results{}, err
	}
	race, err := races(ctx, p, agent, scratch, o.quick)
	return results{pairs: d.pairs(), floor: floor, arp: d.arp, crowds: crowds, floods: floods, packets: packets, race: race}, err
}
