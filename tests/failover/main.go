// Command failover measures how long a cluster needs after a node's sudden death, until the last of its buckets runs
// elsewhere: with this project's agent, and in turns in the same cluster with ocf:pacemaker:Dummy, which does nothing, with the
// same operations. The difference is the agent's own time. Then nodes die while clients ask, and the report has what clients notice.
// The cluster is one of package lab: three nodes, fencing, a token of one second.
//
// It needs root, and what `make build` has built.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"ocf-clusterip/tests/lab"
	"ocf-clusterip/tests/probe"
)

func main() {
	if status, taken := lab.Inside(); taken {
		os.Exit(status)
	}
	runs := flag.Int("runs", 5, "how often each agent's node dies, for each number of instances")
	agent := flag.String("agent", "bin/ocf-clusterip", "the program to measure")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := measure(ctx, *agent, *runs); err != nil {
		fmt.Fprintf(os.Stderr, "failover: %v\n", err)
		os.Exit(1)
	}
}

// sizes are the numbers of instances measured.
var sizes = []int{8, 64}

// promised is how many times the Dummy's time to the last start ours may take.
const promised = 1.05

func measure(ctx context.Context, agent string, runs int) (err error) {
	begin := time.Now()
	l, err := lab.New(ctx, lab.Options{Agent: agent, StayOff: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	var report, felt strings.Builder
	table := tabwriter.NewWriter(&report, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(table, "instances\tagent\tuntil fenced\tuntil all started\tleast\tmost\tin all\tbeside the Dummy\t")
	for _, size := range sizes {
		// In turns, so that changes of the machine's load meet both.
		ours := contender{agent: []string{"ocf:custom:clusterip", "ip=" + address.String()}}
		// The Dummy gets the operations of our meta-data: Pacemaker has work with each. (At check level 10 it would sleep for 30 s.)
		dummys := contender{agent: []string{
			"ocf:pacemaker:Dummy",
			"op", "monitor", "interval=10s", "timeout=20s", "monitor", "interval=60s", "timeout=20s",
		}}
		var detection series // has nothing to do with the agent: both contenders' deaths count
		for run := range runs {
			fmt.Fprintf(os.Stderr, "%3.0f s: %d instances, death %d of %d\n", time.Since(begin).Seconds(), size, run+1, runs)
			for _, c := range []*contender{&ours, &dummys} {
				f, err := failover(ctx, l, c.agent, size, false)
				if err != nil {
					return fmt.Errorf("%s, %d instances: %w", c.agent[0], size, err)
				}
				detection = append(detection, f.fenced)
				c.starts = append(c.starts, f.started)
			}
		}
		until := detection.median()
		ratio := float64(until+ours.starts.median()) / float64(until+dummys.starts.median())
		verdict := fmt.Sprintf("%.3f", ratio)
		if ratio > promised {
			verdict += fmt.Sprintf(" (promised: %.2f)", promised)
		}
		for _, c := range []contender{ours, dummys} {
			least, most := c.starts.bounds()
			_, _ = fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", size, c.agent[0], seconds(until),
				seconds(c.starts.median()), seconds(least), seconds(most), seconds(until+c.starts.median()), verdict)
			verdict = ""
		}
		// Not in the deaths above: the clients' traffic needs the same processors.
		for run := range runs {
			fmt.Fprintf(os.Stderr, "%3.0f s: %d instances, death %d of %d with clients\n", time.Since(begin).Seconds(), size, run+1, runs)
			f, err := failover(ctx, l, ours.agent, size, true)
			if err != nil {
				return fmt.Errorf("%d instances, with clients: %w", size, err)
			}
			_, _ = fmt.Fprintf(&felt, "%4d instances, last start after %s: %s\n", size, seconds(f.fenced+f.started), feelings(f.felt))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Printf("From a node's death to the last start of its instances elsewhere: medians of %d deaths each.\n"+
		"Until the node is fenced no agent is called, so that part is the median of both.\n\n%s\n"+
		"What clients noticed in further deaths:\n\n%s", runs, report.String(), felt.String())
	return nil
}

// contender is an agent, and how long its instances took to start after each death, counted from the fencing.
type contender struct {
	agent  []string
	starts series
}

// times are how long a failover took.
type times struct {
	fenced  time.Duration // from the death to the fencing
	started time.Duration // from the fencing to the last start
	felt    *probe.Summary
}

const (
	resource = "measured" // the clone's primitive
	asking   = 32         // clients

	stepTimeout = 3 * time.Minute // for one failover
)

var address = netip.MustParseAddr("192.168.10.3")

// feelings returns what clients noticed of a death.
func feelings(s *probe.Summary) string {
	effect := s.Effects[len(s.Effects)-1]
	return fmt.Sprintf(
		"%d of %d clients without an answer, the median for %s; the longest by ping %s, by UDP %s, on an open connection %s; answered twice: %d",
		effect.Sources,
		s.Sources,
		seconds(effect.Median),
		seconds(effect.Longest[probe.ICMP]),
		seconds(effect.Longest[probe.UDP]),
		seconds(effect.Longest[probe.Stream]),
		s.Total.Duplicates,
	)
}

// failover makes a clone, lets a node die, and returns how long it took until the last of its instances had started, and, with
// clients that ask meanwhile, what they noticed.
func failover(ctx context.Context, l *lab.Lab, agent []string, size int, clients bool) (times, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	command := append([]string{"pcs", "resource", "create", resource}, agent...)
	command = append(command, "clone", "globally-unique=true", "resource-stickiness=0",
		fmt.Sprintf("clone-max=%d", size), fmt.Sprintf("clone-node-max=%d", size))
	if _, err := l.Hosts[0].Run(ctx, command...); err != nil {
		return times{}, err
	}
	var names []string
	for _, h := range l.Hosts {
		names = append(names, h.Name)
	}
	status, err := l.WaitFor(ctx, func(s *lab.Status) error { return s.Even(resource, size, names...) })
	if err != nil {
		return times{}, err
	}
	if err := l.WaitIdle(ctx); err != nil {
		return times{}, err
	}
	// Never the coordinator: then an election would come on top, of varying length.
	victim := l.Hosts[0]
	if victim.Name == status.DC {
		victim = l.Hosts[1]
	}
	var remaining []string
	for _, name := range names {
		if name != victim.Name {
			remaining = append(remaining, name)
		}
	}
	var p *probe.Probe
	if clients {
		if p, err = l.Probe(ctx, address, asking); err != nil {
			return times{}, err
		}
		defer func() { _, _ = p.Stop() }() // without effect after the one below
		if err := p.WaitAnswered(ctx, time.Now()); err != nil {
			return times{}, err
		}
		p.Mark("death")
	}
	death := time.Now()
	if err := victim.Off(); err != nil {
		return times{}, err
	}
	if _, err := l.WaitFor(ctx, func(s *lab.Status) error { return s.Even(resource, size, remaining...) }); err != nil {
		return times{}, err
	}
	results, err := l.Results(death)
	if err != nil {
		return times{}, err
	}
	var last time.Time
	for _, r := range results {
		if r.Action == "start" && strings.HasPrefix(r.Resource, resource+":") {
			if !r.OK() {
				return times{}, errors.New(r.String())
			}
			last = r.Time
		}
	}
	if last.IsZero() {
		return times{}, errors.New("nothing was started again")
	}
	took := times{fenced: victim.Fenced().Sub(death), started: last.Sub(victim.Fenced())}
	if clients {
		if err := p.WaitAnswered(ctx, time.Now()); err != nil {
			return times{}, err
		}
		log, err := p.Stop()
		if err != nil {
			return times{}, err
		}
		took.felt = log.Summary()
	}
	if err := victim.On(ctx); err != nil {
		return times{}, err
	}
	if err := l.WaitOnline(ctx); err != nil {
		return times{}, err
	}
	if _, err := l.Hosts[0].Run(ctx, "pcs", "resource", "delete", resource); err != nil {
		return times{}, err
	}
	return took, l.WaitIdle(ctx)
}
