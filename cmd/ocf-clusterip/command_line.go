package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/output"
)

const description = `A resource agent. Pacemaker calls it with an action. The parameters come
in the environment as OCF_RESKEY_name=value;
"pcs resource describe ocf:custom:clusterip" describes them.
By hand, for one node and one bucket:

    OCF_RESKEY_ip=192.168.10.3 OCF_RESOURCE_INSTANCE=web-ip \
        ocf-clusterip start`

// commandLine defines all actions and commands; help, manual page and completion are made from it. Arguments after the action are
// ignored (OCF RA API 1.1, section "Execution Syntax").
func (c *call) commandLine() *cli.Command {
	const maxHelp = 100 // columns: longer lines are hard to read
	cli.HelpPrinter = func(to io.Writer, template string, of any) {
		width := func() int { return min(output.ScreenOf(to, nil).Width, maxHelp) }
		cli.HelpPrinterCustom(to, template, of, map[string]any{"wrapAt": width})
	}
	inOneLine := cli.FlagStringer
	cli.FlagStringer = func(flag cli.Flag) string { return strings.Replace(inOneLine(flag), "\t", "\n", 1) }
	return &cli.Command{
		Name: "ocf-clusterip", Version: version,
		Usage:       "several nodes share one IP address, each answers its buckets",
		UsageText:   "ocf-clusterip ACTION\nocf-clusterip COMMAND [OPTIONS] [ARGUMENTS]",
		Description: description,
		Writer:      c.stdout, ErrWriter: c.stderr,
		HideHelpCommand: true,
		StopOnNthArg:    new(1), // flags behind an unknown action are not those of the program
		Commands: append([]*cli.Command{
			action("start", "own the instance's bucket on this node", c.withSpec(agent.Agent.Start)),
			action("stop", "release the bucket; with the last one, remove everything", c.stop),
			action("monitor", "check what is installed (OCF_CHECK_LEVEL 0 or 10)", c.monitor),
			action("validate-all", "check the parameters (OCF_CHECK_LEVEL=10: and this node)", c.validateAll),
			action("reload-agent", "apply changed reloadable parameters", c.withSpec(agent.Agent.Reload)),
			hidden(action("tell", "tell clients that their connections are over", c.inBackground(c.tell))),
			hidden(action("sweep", "wait until all drains have ended, and clean up", c.inBackground(c.sweep))),
			action("notify", "does nothing", func(context.Context) error { return nil }),
			action("meta-data", "print the agent's description as XML", c.metaData),
			c.usageAction(),
			c.statusCommand(),
			c.topCommand(),
			c.whoisCommand(),
			c.networkCommand(),
			c.planCommand(),
			c.convertCommand(),
			c.doctorCommand(),
			c.metricsCommand(),
		}, c.makers()...),
		Action:         unknown,
		OnUsageError:   usageError,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // run does that
	}
}

func action(name, usage string, do func(context.Context) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Category: "Actions, for Pacemaker", OnUsageError: usageError,
		Action: func(ctx context.Context, _ *cli.Command) error { return do(ctx) },
	}
}

// usageAction prints help on stderr, because an action prints nothing but the meta-data on stdout.
func (c *call) usageAction() *cli.Command {
	usage := action("usage", "print this help", nil)
	usage.Aliases = []string{"help"}
	usage.Action = func(_ context.Context, command *cli.Command) error {
		command.Root().Writer = c.stderr
		return cli.ShowRootCommandHelp(command)
	}
	return usage
}

// forAdministrators makes a command one that prints its errors as such, not as exit reasons.
func (c *call) forAdministrators(command *cli.Command) *cli.Command {
	command.Category = "Commands, for administrators"
	command.Before = func(ctx context.Context, command *cli.Command) (context.Context, error) {
		c.byHand = true
		return ctx, refuseEmpty(command)
	}
	command.OnUsageError = func(_ context.Context, _ *cli.Command, err error, _ bool) error {
		c.byHand = true
		return ocf.Errorf(ocf.ErrArgs, "%w; see ocf-clusterip %s --help", err, command.Name)
	}
	return command
}

// refuseEmpty refuses empty values: an empty one is most likely a variable that is not set, which nobody wants to be ignored.
func refuseEmpty(command *cli.Command) error {
	var faults []error
	for _, flag := range command.Flags {
		if text, isText := flag.(*cli.StringFlag); isText && text.IsSet() && command.String(text.Name) == "" {
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, `--%s "" is empty; leave it out or give it a value`, text.Name))
		}
	}
	return errors.Join(faults...)
}

func hidden(command *cli.Command) *cli.Command {
	command.Hidden = true
	return command
}

func usageError(_ context.Context, _ *cli.Command, err error, _ bool) error {
	return ocf.Errorf(ocf.ErrArgs, "%w; parameters come in the environment, see ocf-clusterip --help", err)
}

func unknown(_ context.Context, command *cli.Command) error {
	const known = "start, stop, monitor, validate-all, reload-agent, notify, meta-data, usage; " +
		"for the commands for administrators see ocf-clusterip --help"
	if !command.Args().Present() {
		return ocf.Errorf(ocf.ErrUnimplemented, "no action given; the actions are %s", known)
	}
	return ocf.Errorf(ocf.ErrUnimplemented, "action %s is not implemented; the actions are %s", ocf.Quote(command.Args().First()), known)
}

func textFlag(name, usage string) *cli.StringFlag { return &cli.StringFlag{Name: name, Usage: usage} }

func fileFlag(name, usage string) *cli.StringFlag {
	flag := textFlag(name, usage)
	flag.TakesFile = true
	return flag
}

// numberFlag reads decimals: by default the library takes 010 for 8.
func numberFlag(name, usage string, value uint) *cli.UintFlag {
	return &cli.UintFlag{Name: name, Usage: usage, Value: value, HideDefault: value == 0, Config: cli.IntegerConfig{Base: 10}}
}
