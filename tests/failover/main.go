// Command failover measures how long a cluster needs after a node's sudden death, until the last of its buckets runs
// elsewhere: with this project's agent, and in turns in the same cluster with ocf:pacemaker:Dummy, which does nothing, with the
// same operations. What is more than the Dummy's time is ours. The cluster is one of package lab: three nodes, fencing, a token of one second.
//
// It needs root, and what `make build` has built.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"ocf-clusterip/tests/lab"
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

	var report strings.Builder
	table := tabwriter.NewWriter(&report, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(table, "instances\tagent\tuntil fenced\tuntil all started\tleast\tmost\tin all\tbeside the Dummy\t")
	for _, size := range sizes {
		// In turns, so that whatever changes on the machine meanwhile meets both.
		ours := contender{agent: []string{"ocf:custom:clusterip", "ip=192.168.10.3"}}
		// The Dummy gets the operations of our meta-data: Pacemaker has work with each. (At check level 10 it would sleep for 30 s.)
		dummys := contender{agent: []string{
			"ocf:pacemaker:Dummy",
			"op", "monitor", "interval=10s", "timeout=20s", "monitor", "interval=60s", "timeout=20s",
		}}
		var detection series // has nothing to do with the agent: both contenders' deaths count
		for run := range runs {
			fmt.Fprintf(os.Stderr, "%3.0f s: %d instances, death %d of %d\n", time.Since(begin).Seconds(), size, run+1, runs)
			for _, c := range []*contender{&ours, &dummys} {
				f, err := failover(ctx, l, c.agent, size)
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
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Printf("From a node's death to the last start of its instances elsewhere: medians of %d deaths each.\n"+
		"Until the node is fenced no agent is called, so that part is the median of both.\n\n%s", runs, report.String())
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
}

// resource is the clone's primitive.
const resource = "measured"

// failover makes a clone, lets a node die, and returns how long it took until the last of its instances had started.
func failover(ctx context.Context, l *lab.Lab, agent []string, size int) (times, error) {
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
	var survivors []string
	for _, name := range names {
		if name != victim.Name {
			survivors = append(survivors, name)
		}
	}
	death := time.Now()
	if err := victim.Off(); err != nil {
		return times{}, err
	}
	if _, err := l.WaitFor(ctx, func(s *lab.Status) error { return s.Even(resource, size, survivors...) }); err != nil {
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
		return times{}, errors.New("nothing was started anew")
	}
	took := times{fenced: victim.Fenced().Sub(death), started: last.Sub(victim.Fenced())}
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
