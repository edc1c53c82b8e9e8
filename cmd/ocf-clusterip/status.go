package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
)

const statusDescription = `Says which node answers each hash bucket, and what is wrong, with the command that mends it. What it says of this node
it reads from the kernel, the rest it asks Pacemaker.

   ocf-clusterip status               # all shared addresses
   ocf-clusterip status 192.168.10.3  # one of them
   ocf-clusterip status --watch       # again and again, with rates

The exit status is 0 when all is well, 1 when all clients are answered but somebody should look, and 2 when some are not answered, or
twice. docs/schema/status.schema.json describes the JSON.`

const (
	watchInterval = 2 * time.Second
	// looks are how often what seems broken is looked at, at most.
	looks = 4
	// settleTime is what an action may need that is half done when it is looked at.
	settleTime = 300 * time.Millisecond
)

func (c *call) statusCommand() *cli.Command {
	return c.forPeople(&cli.Command{
		Name: "status", Usage: "which node answers which bucket, and what is wrong", ArgsUsage: "[ADDRESS]", Description: statusDescription,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "write JSON"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it again and again, until Ctrl-C (on a terminal)"},
		},
		Action: c.status,
	})
}

func (c *call) status(ctx *cli.Context) error {
	address, err := addressOf(ctx)
	if err != nil {
		return err
	}
	screen := c.screen()
	switch {
	case ctx.Bool("watch") && ctx.Bool("json"):
		return ocf.Errorf(ocf.ErrArgs, "--watch and --json do not go together: call it with --json as often as you like")
	case ctx.Bool("watch") && !screen.isTerminal:
		return ocf.Errorf(ocf.ErrArgs, "--watch needs a terminal; without it the status is written once")
	case ctx.Bool("watch"):
		return c.watch(ctx.Context, address, screen)
	}
	status, err := c.look(ctx.Context, address, true)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		err = operator.WriteJSON(c.stdout, status)
	} else {
		err = operator.WriteStatus(c.stdout, status, screen.style())
	}
	if err == nil && status.Health != operator.Healthy {
		err = verdict(status.Health)
	}
	return err
}

// addressOf reads the only argument of a command; without one all addresses are meant.
func addressOf(ctx *cli.Context) (netip.Addr, error) {
	for _, arg := range ctx.Args().Slice() {
		if strings.HasPrefix(arg, "-") {
			return netip.Addr{}, ocf.Errorf(ocf.ErrArgs, "%s comes after the address: flags go before it", ocf.Quote(arg))
		}
	}
	if ctx.NArg() > 1 {
		return netip.Addr{}, ocf.Errorf(ocf.ErrArgs, "%d addresses are given, one is allowed; without any, all are shown", ctx.NArg())
	}
	if ctx.NArg() == 0 {
		return netip.Addr{}, nil
	}
	text := ctx.Args().First()
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return netip.Addr{}, ocf.Errorf(ocf.ErrArgs, "%s is no address such as 192.168.10.3", ocf.Quote(text))
	}
	return address.Unmap(), nil
}

// look reads the status; what drains on other nodes only if that is wanted, because it takes a question for each bucket. What is broken must be
// so twice: an action may be half done. With an operator.NotSharedError the status says the rest.
func (c *call) look(ctx context.Context, address netip.Addr, drainsElsewhere bool) (status operator.Status, err error) {
	err = c.withAgent(ctx, func(ctx context.Context, agent agent.Agent) error {
		for attempt := 1; ; attempt++ {
			cluster := c.patientCluster()
			survey, err := operator.Look(ctx, agent, cluster, address)
			if _, none := errors.AsType[*operator.NotSharedError](err); err != nil && !none {
				return err
			}
			if drainsElsewhere {
				survey.LookForDrains(ctx, cluster)
			}
			before := status
			status = operator.Judge(survey, time.Now())
			if status.Health != operator.Broken || attempt == looks || before.IsConfirmedBy(status) {
				return err
			}
			select {
			case <-ctx.Done():
				return err // better than nothing
			case <-time.After(settleTime):
			}
		}
	})
	return status, err
}

// watch shows the status until the process is ended.
func (c *call) watch(ctx context.Context, address netip.Addr, screen screen) error {
	const clearScreen = "\x1b[H\x1b[2J" // ECMA-48: cursor to the first line and column; erase all
	var before operator.Status
	for {
		status, err := c.look(ctx, address, true)
		if err != nil {
			return err
		}
		status.Since(before)
		before = status
		var page bytes.Buffer
		page.WriteString(clearScreen)
		if err := operator.WriteStatus(&page, status, screen.style()); err != nil {
			return err
		}
		if _, err := c.stdout.Write(page.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchInterval):
		}
	}
}
