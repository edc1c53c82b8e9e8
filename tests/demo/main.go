// Command demo shows the main job on one machine: a Pacemaker cluster of three nodes with fencing shares one address, clients
// ask it all the time, a node is put in standby, another one dies, both come back, and with drain the first one is in standby
// again. Nodes, switches, power switch and clients are namespaces that it makes and removes. It leaves a picture of what the
// clients saw, and the log.
//
// It needs root, Debian's pacemaker, corosync and pcs, and what `make build` has built. It exits with status 1 if a claim
// does not hold.
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

	"ocf-clusterip/tests/lab"
)

func main() {
	if status, taken := lab.Inside(); taken {
		os.Exit(status)
	}
	os.Exit(run())
}

func run() int {
	agent := flag.String("agent", "bin/ocf-clusterip", "the program to show")
	out := flag.String("out", "demo-out", "the folder for the picture and the logs")
	step := flag.Bool("step", false, "wait for Enter before each chapter, so that you can look around")
	flag.Parse()

	// SIGPIPE too: `demo | head` must not leave anything behind either.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := show(ctx, *agent, *out, *step); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}

// show plays the demo, removes the cluster, and prints the result.
func show(ctx context.Context, agent, out string, step bool) error {
	if _, err := os.Stat(agent); err != nil {
		return fmt.Errorf("%w; `make build` builds it", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	begin := time.Now()
	s := newStory(os.Stdout, step)
	if err := onStage(ctx, &demo{story: s, out: out}, agent); err != nil {
		return err
	}
	return s.end(time.Since(begin))
}

// onStage boots the cluster, plays the demo there, and removes everything, also after an error.
func onStage(ctx context.Context, d *demo, agent string) (err error) {
	power, err := os.Create(filepath.Join(d.out, "power.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, power.Close()) }()
	d.introduce()
	if d.Lab, err = lab.New(ctx, lab.Options{Agent: agent, Log: power, Clients: clients}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.play(ctx)
}
