package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"ocf-clusterip/tests/lan"
)

// A crowd is many instances on one node, with so many calls at once.
type crowd struct {
	instances, jobs      int
	start, monitor, stop []lap // of all instances together
}

// crowds measures one call after another, and as many at once as Pacemaker makes (its load-threshold and node-action-limit:
// twice the cores).
func crowds(ctx context.Context, p *progress, node *lan.Host, agent, scratch string, quick bool) ([]*crowd, error) {
	sizes, repeats := []int{64, 256}, 3
	if quick {
		sizes, repeats = sizes[:1], 1
	}
	var all []*crowd
	for _, n := range sizes {
		all = append(all, &crowd{instances: n, jobs: 1}, &crowd{instances: n, jobs: 2 * runtime.NumCPU()})
	}
	for i := range repeats {
		for _, c := range all {
			p.report("many instances: %d, %d at once, round %d of %d", c.instances, c.jobs, i+1, repeats)
			if err := c.run(ctx, node, agent, scratch); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func (c *crowd) run(ctx context.Context, node *lan.Host, agent, scratch string) error {
	for _, phase := range []struct {
		action string
		laps   *[]lap
	}{{"start", &c.start}, {"monitor", &c.monitor}, {"stop", &c.stop}} {
		l, err := c.all(ctx, node, agent, scratch, phase.action)
		if err != nil {
			return fmt.Errorf("%s of %d instances, %d at once: %w", phase.action, c.instances, c.jobs, err)
		}
		*phase.laps = append(*phase.laps, l)
	}
	return nil
}

// all calls the agent for each instance; the wall time is from the first call to the end of the last.
func (c *crowd) all(ctx context.Context, node *lan.Host, agent, scratch, action string) (lap, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, cpu atomic.Int64
	work := func() error {
		for {
			bucket := int(next.Add(1)) - 1
			if bucket >= c.instances {
				return nil
			}
			l, err := execute(ctx, ours(scratch, action, bucket, c.instances).List(), []string{agent, action})
			if err != nil {
				return fmt.Errorf("bucket %d: %w", bucket, err)
			}
			cpu.Add(int64(l.cpu))
		}
	}
	begin := time.Now()
	var workers sync.WaitGroup
	for range c.jobs {
		workers.Go(func() {
			if err := node.Do(work); err != nil {
				cancel(err) // the first one counts, and ends the others
			}
		})
	}
	workers.Wait()
	return lap{wall: time.Since(begin), cpu: time.Duration(cpu.Load())}, context.Cause(ctx)
}
