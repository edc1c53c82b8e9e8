package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// A lap is what one run of a program cost.
type lap struct {
	wall time.Duration // from before its start to after its end
	cpu  time.Duration // user and system, of it and of the children that it waited for
}

// A series is one program that is run again and again.
type series struct {
	name string
	env  []string
	argv []string
	laps []lap
}

// timeout is how long an action may take. None comes near it.
const timeout = 20 * time.Second

// run runs the program once on the calling thread, which is inside the node, and keeps what it cost. No shell, no pipes.
func (s *series) run(ctx context.Context) error {
	l, err := execute(ctx, s.env, s.argv)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.laps = append(s.laps, l)
	return nil
}

// execute runs an action to its end, which must be a success.
func execute(ctx context.Context, env, argv []string) (lap, error) {
	return executeWithin(ctx, timeout, env, argv)
}

// executeWithin runs a program to its end, which must be a success.
func executeWithin(ctx context.Context, timeout time.Duration, env, argv []string) (lap, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return lap{}, err
	}
	defer null.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := context.Cause(ctx); err != nil {
		return lap{}, err
	}
	attr := &os.ProcAttr{Dir: "/", Env: env, Files: []*os.File{null, null, null}}

	begin := time.Now()
	child, err := os.StartProcess(argv[0], argv, attr)
	if err != nil {
		return lap{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = child.Kill() })
	state, err := child.Wait()
	wall := time.Since(begin)
	stop()

	switch {
	case err != nil:
		return lap{}, err
	case ctx.Err() != nil:
		return lap{}, context.Cause(ctx)
	case !state.Success():
		return lap{}, errors.New(state.String())
	}
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return lap{}, errors.New("no rusage")
	}
	return lap{wall: wall, cpu: time.Duration(usage.Utime.Nano() + usage.Stime.Nano())}, nil
}

// median returns the median wall time and the median CPU time, which need not be of the same run.
func median(laps []lap) lap {
	middle := func(of func(lap) time.Duration) time.Duration {
		all := make([]time.Duration, len(laps))
		for i, l := range laps {
			all[i] = of(l)
		}
		slices.Sort(all)
		n := len(all)
		if n == 0 {
			return 0
		}
		return (all[(n-1)/2] + all[n/2]) / 2
	}
	return lap{
		wall: middle(func(l lap) time.Duration { return l.wall }),
		cpu:  middle(func(l lap) time.Duration { return l.cpu }),
	}
}
