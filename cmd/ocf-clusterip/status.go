package main

import (
	"bytes"
	"context"
	"net/netip"
	"time"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/gather"
	"ocf-clusterip/internal/output"
)

const statusDescription = `Shows which node owns each bucket, and every problem with the command that
solves it. It reads this node's kernel, and asks Pacemaker for the rest.

    ocf-clusterip status               # all shared addresses
    ocf-clusterip status 192.168.10.3  # one of them
    ocf-clusterip status --watch       # every 2 seconds, with rates

The exit code is 0 for healthy, 1 for degraded (all clients are answered,
but there is a problem), and 2 for broken (some clients are not answered,
or twice).`

const watchInterval = 2 * time.Second

func (c *call) statusCommand() *cli.Command {
	return c.forAdministrators(&cli.Command{
		Name: "status", Usage: "which node owns which bucket, and all problems", ArgsUsage: "[ADDRESS]", Description: statusDescription,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "write JSON (docs/schema/status.schema.json)"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it again and again, until Ctrl-C (on a terminal)"},
		},
		Action: c.status,
	})
}

func (c *call) status(ctx context.Context, command *cli.Command) error {
	address, err := addressOf(command)
	if err != nil {
		return err
	}
	screen := c.screen()
	switch {
	case command.Bool("watch") && command.Bool("json"):
		return ocf.Errorf(ocf.ErrArgs, "--watch and --json exclude each other: call it with --json as often as you like")
	case command.Bool("watch") && !screen.IsTerminal:
		return ocf.Errorf(ocf.ErrArgs, "--watch needs a terminal; without it the status is written once")
	case command.Bool("watch"):
		return c.watch(ctx, address, screen)
	}
	status, err := c.readStatus(ctx, address, operator.DrainsOfAll)
	if err != nil {
		return err
	}
	if command.Bool("json") {
		err = operator.WriteJSON(c.stdout, status)
	} else {
		err = operator.WriteStatus(c.stdout, status, screen.Style)
	}
	if err == nil && status.Health != operator.Healthy {
		err = result(status.Health)
	}
	return err
}

// addressOf reads the only argument of a command; without one it is about all addresses.
func addressOf(command *cli.Command) (netip.Addr, error) {
	switch command.NArg() {
	case 0:
		return netip.Addr{}, nil
	case 1:
		return parseAddress("", command.Args().First())
	default:
		return netip.Addr{}, ocf.Errorf(ocf.ErrArgs, "%d addresses are given; give one, or none for all", command.NArg())
	}
}

// parseAddress reads an address that is the value of a flag, or an argument.
func parseAddress(flag, text string) (netip.Addr, error) {
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return netip.Addr{}, ocf.Errorf(ocf.ErrArgs, "%s%s is not an address such as 192.168.10.3", flag, ocf.Quote(text))
	}
	return address.Unmap(), nil
}

// readStatus reads the status; see gather.Status.
func (c *call) readStatus(ctx context.Context, address netip.Addr, elsewhere operator.Drains) (status operator.Status, err error) {
	err = c.withAgent(ctx, func(ctx context.Context, a agent.Agent) error {
		status, err = gather.Status(ctx, a, c.patientCluster(), address, elsewhere)
		return err
	})
	return status, err
}

// watch shows the status until the process is ended.
func (c *call) watch(ctx context.Context, address netip.Addr, screen output.Screen) error {
	const clearScreen = "\x1b[H\x1b[2J" // ECMA-48: cursor to the first line and column; erase all
	var before operator.Status
	for {
		status, err := c.readStatus(ctx, address, operator.DrainsOfAll)
		if err != nil {
			return err
		}
		status.Since(before)
		before = status
		var page bytes.Buffer
		page.WriteString(clearScreen)
		if err := operator.WriteStatus(&page, status, screen.Style); err != nil {
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
