package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// TellTime is how long a teller works at most, and how long it waits for another one: with the lowest rate and the default of remember, the
// first round takes eleven minutes.
const TellTime = 15 * time.Minute

// tellAtOnce is how many connections are forgotten at once, before their clients are told.
const tellAtOnce = 1024

// tellAgainAfter is the pause before clients are told again: the first segment may have been lost.
const tellAgainAfter = time.Second

// startTeller has the clients told whose connections nobody serves any more.
func (a Agent) startTeller(spec clusterip.Spec) {
	if err := a.StartTeller(); err != nil {
		a.Log.Warningf("clients of a node that has died are not told that their connections to %s are over: %v", spec.Address(), err)
	}
}

// Tell tells the clients whose connections to buckets of this node were those of another node, which does not serve them any more, and
// forgets those connections. Such a client may have nothing to send, and would wait for an answer until its own timeout. It calls done as
// soon as another teller may work.
func (a Agent) Tell(ctx context.Context, spec clusterip.Spec, done func()) error {
	o, err := a.tell(ctx, spec)
	done()
	if err != nil || len(o.connections) == 0 {
		return err
	}
	if err := clusterip.Pause(ctx, tellAgainAfter); err != nil {
		return err
	}
	again, err := a.stillOver(ctx, spec, o)
	if err != nil || len(again) == 0 {
		return err
	}
	_, err = a.Kernel.TellClients(ctx, o.layout, again, true, spec.TellRate)
	return err
}

// tell tells them for the first time.
func (a Agent) tell(ctx context.Context, spec clusterip.Spec) (over, error) {
	begin := time.Now()
	o, err := a.over(ctx, spec)
	if err != nil || len(o.connections) == 0 {
		return o, err
	}
	told := 0
	for chunk := range slices.Chunk(o.connections, tellAtOnce) {
		// Before they are told: a client may come again from the same port. If this process ends meanwhile, the next teller goes on.
		if err = a.Kernel.Forget(ctx, o.layout, chunk); err != nil {
			break
		}
		var n int
		n, err = a.Kernel.TellClients(ctx, o.layout, chunk, false, spec.TellRate)
		if told += n; err != nil {
			break
		}
	}
	took := time.Since(begin)
	if told == 0 && err != nil {
		return o, err
	}
	a.Log.Infof("buckets %s of %s: told %d clients in %s that their connections to another node are over",
		clusterip.FormatBuckets(o.buckets), spec.Address(), told, took.Round(time.Millisecond))
	return o, errors.Join(err, a.Kernel.AddTold(ctx, o.layout, clusterip.Told{Connections: told, When: time.Now(), Took: took}))
}

// over is what a teller has found.
type over struct {
	layout      clusterip.Layout
	buckets     []clusterip.Bucket     // which this node has settled
	connections []clusterip.Remembered // of these buckets
}

// over finds the connections that are over. Those of this node are looked for last, so that one which was made meanwhile is not missed.
func (a Agent) over(ctx context.Context, spec clusterip.Spec) (over, error) {
	tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil || tables.Installed == nil {
		return over{}, err
	}
	o := over{layout: *tables.Installed, buckets: tables.Settled()}
	all, err := a.Kernel.Remembered(ctx, o.layout)
	if err != nil {
		return over{}, err
	}
	o.connections, err = a.unserved(ctx, tables, all)
	return o, err
}

// stillOver returns those connections that are over still: a client may have come again from the same port, or its bucket may have moved.
func (a Agent) stillOver(ctx context.Context, spec clusterip.Spec, o over) ([]clusterip.Remembered, error) {
	tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err != nil || tables.Installed == nil || tables.Installed.Identity() != o.layout.Identity() {
		return nil, err
	}
	return a.unserved(ctx, tables, o.connections)
}

// unserved returns those of the connections whose bucket this node has settled, and which are not open on it.
func (a Agent) unserved(
	ctx context.Context, tables clusterip.Tables, connections []clusterip.Remembered,
) ([]clusterip.Remembered, error) {
	layout, settled := *tables.Installed, tables.Settled()
	unserved := slices.DeleteFunc(slices.Clone(connections), func(c clusterip.Remembered) bool {
		return !slices.Contains(settled, layout.BucketOfConnection(c.Connection))
	})
	if len(unserved) == 0 {
		return nil, nil
	}
	open, err := a.Kernel.OpenConnections(ctx, layout)
	if err != nil {
		return nil, fmt.Errorf("cannot tell clients that their connections are over: %w", err)
	}
	isOpen := make(map[clusterip.Connection]bool, len(open))
	for _, each := range open {
		isOpen[each] = true
	}
	return slices.DeleteFunc(unserved, func(c clusterip.Remembered) bool { return isOpen[c.Connection] }), nil
}
