// Command demo shows the main job on one machine, without a cluster manager: three nodes share one address, a client asks
// from 64 addresses and sees who answers, a node dies and comes back. Nodes, switch and client are network namespaces that
// it makes and takes away again. It needs root, and what `make build` has built.
//
// It ends with status 1 if anything was not as it should be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"ocf-clusterip/tests/netns"
)

func main() { os.Exit(run()) }

func run() int {
	agent := flag.String("agent", "bin/ocf-clusterip", "the program to show")
	step := flag.Bool("step", false, "wait for Enter before each chapter, so that you can look around")
	flag.Parse()

	// SIGPIPE too: `demo | head` must not leave anything behind either.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := show(ctx, *agent, *step); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}

// show tells the story, takes the stage away, and says how it went.
func show(ctx context.Context, agent string, step bool) error {
	agent, err := filepath.Abs(agent) // it will run in another folder
	if err != nil {
		return err
	}
	if _, err := os.Stat(agent); err != nil {
		return fmt.Errorf("%w; `make build` builds it", err)
	}
	begin := time.Now()
	s := newStory(os.Stdout, step)
	if err := onStage(ctx, &demo{story: s, agent: agent, placement: placedNowhere()}); err != nil {
		return err
	}
	return s.end(time.Since(begin))
}

// onStage builds the network, tells the story there, and takes away all that was made for it, also after an error.
func onStage(ctx context.Context, d *demo) (err error) {
	if d.locks, err = os.MkdirTemp("", "clusterip-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.locks)) }()
	if d.network, err = netns.New(ctx, netns.Options{Nodes: len(nodes), LAN: lan, Clients: clients}); err != nil {
		return fmt.Errorf("build a network: %w", err)
	}
	defer func() { err = errors.Join(err, d.network.Close()) }()
	return d.tell(ctx)
}
