package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/top"
	"ocf-clusterip/internal/output"
)

const topDescription = `Shows all buckets on the whole terminal, and reads them again every
second: the owner, what this node does for the bucket, the packets and
bytes that it accepts, the connections that a drain still serves here,
what has moved, and every problem with the command that solves it.

    ocf-clusterip top                    # all shared addresses
    ocf-clusterip top 192.168.10.3       # one of them
    ocf-clusterip top --once             # one frame, as plain text

Keys: q quits; s sorts by load, and by bucket again; the cursor keys and
PgUp, PgDn, Home and End scroll. It reads this node's kernel, and asks
Pacemaker for the rest, but less than status does: it shows no drains on
other nodes of buckets that have an owner. A node with very many
connections has less work with a longer --interval.

The exit code is 0 whatever is shown; that of status serves as a check.`

// longestInterval is the longest time between two readings, in seconds.
const longestInterval = 3600

func (c *call) topCommand() *cli.Command {
	return c.forAdministrators(&cli.Command{
		Name: "top", Usage: "watch buckets, load, moves and problems", ArgsUsage: "[ADDRESS]", Description: topDescription,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "once", Usage: "write one frame as plain text, with the rates of one interval"},
			numberFlag("interval", "read every `SECONDS`", 1),
		},
		Action: c.top,
	})
}

func (c *call) top(ctx context.Context, command *cli.Command) error {
	address, err := addressOf(command)
	once, seconds, screen := command.Bool("once"), command.Uint("interval"), c.screen()
	faults := []error{err}
	if seconds == 0 || seconds > longestInterval {
		faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--interval %d is not a number of seconds from 1 to %d", seconds, longestInterval))
	}
	if !once && !c.isFullScreen(screen) {
		faults = append(faults, ocf.Errorf(ocf.ErrArgs, "top needs a terminal, with TERM set to another type than dumb; "+
			"--once writes one frame without one"))
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	ctx, release := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	defer release()
	read := func() (operator.Status, error) { return c.readStatus(ctx, address, operator.DrainsOfUnowned) }
	first, err := read()
	if err != nil {
		return err
	}
	interval := time.Duration(seconds) * time.Second
	view := top.New(first, read, interval, screen.Colour)
	if once {
		return c.topOnce(ctx, view, read, interval, screen)
	}
	return c.showTop(ctx, view, screen.Colour)
}

// isFullScreen reports whether input and output are a terminal that moves its cursor.
func (c *call) isFullScreen(screen output.Screen) bool {
	return screen.IsTerminal && screen.MovesCursor && output.IsTerminal(c.stdin)
}

func (c *call) topOnce(
	ctx context.Context, view top.Model, read func() (operator.Status, error), interval time.Duration, screen output.Screen,
) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("ended before the second reading: %w", context.Cause(ctx))
	case <-time.After(interval):
	}
	second, err := read()
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.stdout, view.Once(second, screen.Width)+"\n")
	return err
}

// showTop shows the view until a key or a signal ends it. Log lines would break the picture: what is wrong is in the status.
func (c *call) showTop(ctx context.Context, view top.Model, colour bool) error {
	c.log = ocf.NewLogger(io.Discard, false)
	colours := colorprofile.ASCII
	if colour {
		colours = colorprofile.ANSI
	}
	program := tea.NewProgram(view, tea.WithInput(c.stdin), tea.WithOutput(c.stdout), tea.WithEnvironment(c.environ),
		tea.WithColorProfile(colours), // the library would run tmux, as root, to find out
		tea.WithoutSignalHandler())
	defer context.AfterFunc(ctx, program.Quit)()
	_, err := program.Run()
	return err
}
