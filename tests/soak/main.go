// Command soak makes many events happen to a cluster, while clients ask and keep connections open. A seed decides their order and the
// pauses between them. Often the next one comes before the cluster has settled. Real Pacemaker runs in the hosts of package lab, with
// fencing, and buckets move with drain. It judges by what the clients see on the wire:
//
//   - no question is answered twice, and no answer has a wrong MAC;
//   - no connection breaks while the host that it was made to lives;
//   - no host is fenced without an event;
//   - when everything was restored, each bucket is answered once, and each client by every means: one whose host died got a reset or a
//     timeout, and has a new connection;
//   - when the clients have gone, the drains end, and nothing is left on the hosts once the resource is deleted.
//
// Single questions may be lost: hosts die, and cables are out.
//
// It needs root, Debian's pacemaker, corosync and pcs, and what `make build` has built. What it finds is in a folder of its own: all
// events, the clients' logs and pictures, and for each fault what happened around it. It exits with status 1 if there is a fault.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"ocf-clusterip/tests/lab"
)

// setting is the options of a run.
type setting struct {
	seed    uint64
	minutes float64
	macMode string
	agent   string
	out     string // a folder of this run
}

// again is the command that runs the same.
func (s setting) again() string {
	text := fmt.Sprintf("make soak SEED=%d MINUTES=%g MAC=%s", s.seed, s.minutes, s.macMode)
	if release := os.Getenv("RELEASE"); release != "" {
		text += " RELEASE=" + release
	}
	return text
}

func main() {
	if status, taken := lab.Inside(); taken {
		os.Exit(status)
	}
	os.Exit(run())
}

func run() int {
	seed := flag.String("seed", "", "what decides the events; by default a new one")
	minutes := flag.Float64("minutes", 3, "how long something happens")
	macMode := flag.String("mac", "multicast", "the resource's mac_mode")
	agent := flag.String("agent", "bin/ocf-clusterip", "the program to judge")
	out := flag.String("out", "bin/soak", "the folder for the folders of all seeds")
	flag.Parse()

	s := setting{seed: uint64(rand.Uint32()), minutes: *minutes, macMode: *macMode, agent: *agent}
	if *seed != "" {
		var err error
		if s.seed, err = strconv.ParseUint(*seed, 10, 64); err != nil {
			fmt.Fprintf(os.Stderr, "soak: seed %q is not a number\n", *seed)
			return 2
		}
	}
	s.out = filepath.Join(*out, strconv.FormatUint(s.seed, 10))

	// SIGPIPE too: `soak | head` must not leave anything behind either.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := soak(ctx, s); err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		return 1
	}
	return 0
}

// soak makes a cluster, plays the events, removes the cluster, and prints the results.
func soak(ctx context.Context, s setting) (err error) {
	if _, err := os.Stat(s.agent); err != nil {
		return fmt.Errorf("%w; `make build` builds it", err)
	}
	if err := errors.Join(os.RemoveAll(s.out), os.MkdirAll(s.out, 0o755)); err != nil {
		return err
	}
	f := &field{setting: s, story: &story{begin: time.Now()}, sequence: newSequence(s.seed)}
	f.say(
		"seed %d, %g minutes, mac_mode=%s, a power switch that takes %s; again: %s",
		s.seed,
		s.minutes,
		s.macMode,
		fencingTakes(s.seed),
		s.again(),
	)
	f.Lab, err = lab.New(ctx, lab.Options{
		Nodes: hosts, Agent: s.agent, Token: token, FencingTakes: fencingTakes(s.seed), Log: f.story,
		// Beside the action's own timeout that is how long the coordinator waits for a result which got lost, as happens when history is
		// refreshed while the node's Pacemaker stops. By default a minute.
		Properties: map[string]string{"cluster-delay": "10s"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.prepare(ctx); err != nil {
		return err
	}
	f.play(ctx)
	f.settle(ctx)
	return f.report(ctx)
}
