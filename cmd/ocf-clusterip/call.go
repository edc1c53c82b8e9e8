package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/conntrack"
	"ocf-clusterip/internal/kernel/iptclusterip"
	"ocf-clusterip/internal/kernel/link"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/kernel/xtcluster"
	"ocf-clusterip/internal/manual"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// A call is one action asked of the agent.
type call struct {
	process
	environment    ocf.Environment
	environmentErr error
	log            *ocf.Logger
	byHand         bool // a command for people, not an action
}

// run turns a panic into an error: Go would exit with 2, which tells the resource manager that the parameters are wrong.
func (c *call) run(ctx context.Context) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			c.log.Debugf("%s", debug.Stack())
			err = fmt.Errorf("internal error, please report it: %v (HA_debug=1 shows where)", cause)
		}
	}()
	cli.HelpPrinter = func(to io.Writer, _ string, of any) {
		if err := manual.WriteHelp(to, of, c.screen().width); err != nil {
			c.log.Warningf("write help: %v", err)
		}
	}
	app := c.app()
	app.Commands = append(app.Commands, c.makers()...)
	return app.RunContext(ctx, c.args)
}

const description = `An OCF resource agent. The cluster manager calls it with one action; parameters come in the
environment as OCF_RESKEY_name=value; 'pcs resource describe ocf:custom:clusterip' describes them.
By hand, for one node and one bucket:

   OCF_RESKEY_ip=192.168.10.3 OCF_RESOURCE_INSTANCE=web-ip \
       ocf-clusterip start`

// app is the command line. Whatever is behind the action is passed over (OCF RA API 1.1, section "Execution Syntax").
func (c *call) app() *cli.App {
	usage := func(ctx *cli.Context) error { // on stderr: nothing but the meta-data belongs on an action's stdout
		ctx.App.Writer = c.stderr
		return cli.ShowAppHelp(ctx)
	}
	return &cli.App{
		Name: "ocf-clusterip", HelpName: "ocf-clusterip", Version: version,
		Usage:       "several nodes share one IP address, each answers its own hash buckets",
		UsageText:   "ocf-clusterip ACTION\nocf-clusterip COMMAND [--help] [ARGUMENTS]",
		Description: description,
		Writer:      c.stdout, ErrWriter: c.stderr,
		HideHelpCommand: true,
		Flags:           []cli.Flag{cli.HelpFlag}, // which the command of the same name would keep away
		Commands: []*cli.Command{
			action("start", "answer for the instance's bucket on this node", c.start),
			action("stop", "give the bucket up; with the last one remove everything", c.stop),
			action("monitor", "check that the bucket is answered and everything is as laid (OCF_CHECK_LEVEL 0, 10)", c.monitor),
			action("validate-all", "check the parameters (OCF_CHECK_LEVEL 10: against this node too)", c.validateAll),
			action("reload-agent", "take over changed reloadable parameters", c.reloadAgent),
			hidden(action("sweep", "wait until no bucket drains any more, and clear up", c.sweep)),
			action("notify", "does nothing", func(context.Context) error { return nil }),
			action("meta-data", "describe the agent and its parameters in XML", c.metaData),
			c.statusCommand(),
			c.whoisCommand(),
			c.networkCommand(),
			c.planCommand(),
			c.doctorCommand(),
			c.metricsCommand(),
			{Name: "usage", Aliases: []string{"help"}, Usage: "print this", Action: usage, HideHelpCommand: true},
		},
		Action:         c.unknown,
		OnUsageError:   usageError,
		ExitErrHandler: func(*cli.Context, error) {}, // run does that
	}
}

func action(name, usage string, do func(context.Context) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Category: "Actions, for the cluster manager", HideHelpCommand: true, OnUsageError: usageError,
		Action: func(ctx *cli.Context) error { return do(ctx.Context) },
	}
}

// forPeople makes a command one for people: they see its faults as such and not as an agent's.
func (c *call) forPeople(command *cli.Command) *cli.Command {
	command.Category, command.HideHelpCommand = "Commands, for people", true
	command.Before = func(ctx *cli.Context) error {
		c.byHand = true
		return refuseEmpty(ctx)
	}
	command.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		c.byHand = true
		return ocf.Errorf(ocf.ErrArgs, "%w; see ocf-clusterip %s --help", err, command.Name)
	}
	return command
}

// refuseEmpty refuses flags whose value is empty: it was a variable that is not set, say, and nobody meant that the flag be passed over.
func refuseEmpty(ctx *cli.Context) error {
	var faults []error
	for _, flag := range ctx.Command.Flags {
		if name := flag.Names()[0]; ctx.IsSet(name) && ctx.String(name) == "" {
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, `--%s "" is empty; leave it out, or say what is meant`, name))
		}
	}
	return errors.Join(faults...)
}

func hidden(command *cli.Command) *cli.Command {
	command.Hidden = true
	return command
}

func usageError(_ *cli.Context, err error, _ bool) error {
	return ocf.Errorf(ocf.ErrArgs, "%w; parameters come in the environment, see ocf-clusterip --help", err)
}

func (c *call) unknown(ctx *cli.Context) error {
	const known = "start, stop, monitor, validate-all, reload-agent, notify, meta-data, usage; and commands for people, see ocf-clusterip --help"
	if !ctx.Args().Present() {
		return ocf.Errorf(ocf.ErrUnimplemented, "no action given; there are %s", known)
	}
	return ocf.Errorf(ocf.ErrUnimplemented, "action %s is not implemented; there are %s", ocf.Quote(ctx.Args().First()), known)
}

// metaData writes XML whatever OCF_OUTPUT_FORMAT says: pcs and crm_resource export OCF_OUTPUT_FORMAT=text for their own
// output, and the agent inherits it; they take nothing but XML.
func (c *call) metaData(context.Context) error {
	text, err := metadata.XML(version)
	if err != nil {
		return err
	}
	if _, err = c.stdout.Write(text); err != nil {
		return fmt.Errorf("write meta-data: %w", err)
	}
	return nil
}

// spec reads all that the resource manager says, and everything that is wrong with it.
func (c *call) spec() (clusterip.Spec, error) {
	clone, cloneErr := c.environment.Clone()
	values, unknown, valuesErr := metadata.Parse(c.environment.Parameters)
	spec, specErr := clusterip.NewSpec(values, c.environment.Resource(), clone)
	spec.Probe = c.environment.Meta["interval"] == "" || c.environment.Meta["interval"] == "0"
	for _, name := range unknown {
		meant := ""
		if known, ok := metadata.Suggest(name); ok {
			meant = "; is " + known + " meant?"
		}
		c.log.Warningf("parameter %s is unknown and has no effect%s", ocf.Quote(name), meant)
	}
	return spec, errors.Join(c.environmentErr, valuesErr, cloneErr, specErr)
}

func (c *call) start(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	return c.withAgent(ctx, func(ctx context.Context, agent agent.Agent) error { return agent.Start(ctx, spec) })
}

func (c *call) monitor(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	return c.withAgent(ctx, func(ctx context.Context, a agent.Agent) error {
		return a.Monitor(ctx, spec, agent.CheckLevel(c.environment.CheckLevel))
	})
}

// stop goes on whatever is wrong with the parameters: a failed stop gets the node fenced.
func (c *call) stop(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil {
		c.log.Warningf("stopping in spite of this: %v", err)
	}
	bucket, ok := c.environment.BucketForStop()
	if !ok {
		return ocf.Errorf(ocf.ErrConfigured, "which bucket is to stop cannot be told from OCF_RESOURCE_INSTANCE=%s and OCF_RESKEY_CRM_meta_clone=%s",
			ocf.Quote(c.environment.Instance), ocf.Quote(c.environment.Meta["clone"]))
	}
	spec.Bucket = clusterip.Bucket(bucket)
	return c.withAgent(ctx, func(ctx context.Context, agent agent.Agent) error {
		agent.Lock = c.lockIfPossible
		if len(spec.Addresses) == 0 {
			return agent.StopResource(ctx, spec)
		}
		return agent.Stop(ctx, spec)
	})
}

func (c *call) validateAll(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil || agent.CheckLevel(c.environment.CheckLevel) < agent.NetworkLevel {
		return err
	}
	return c.withAgent(ctx, func(ctx context.Context, agent agent.Agent) error { return agent.Validate(ctx, spec) })
}

// reloadAgent changes what of the reloadable parameters is in the kernel; the others are read anew by each action.
func (c *call) reloadAgent(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	return c.withAgent(ctx, func(ctx context.Context, agent agent.Agent) error { return agent.Reload(ctx, spec) })
}

// withAgent connects to the kernel for the time of an action, which ends before the resource manager would end it.
func (c *call) withAgent(ctx context.Context, do func(context.Context, agent.Agent) error) (err error) {
	const marginShare = 10 // of the timeout: to give up, to say why and to exit
	ctx, cancel := context.WithTimeout(ctx, c.environment.Timeout-c.environment.Timeout/marginShare)
	defer cancel()
	return c.connected(ctx, do)
}

// connected connects an agent to the kernel and the cluster manager.
func (c *call) connected(ctx context.Context, do func(context.Context, agent.Agent) error) error {
	return c.withKernel(func(k kernel) error {
		return do(ctx, agent.Agent{
			Kernel: k.Host, Log: c.log, Lock: c.lock,
			Cluster: pacemaker.Cluster{Environ: c.environ}, Node: c.environment.Meta["on_node"], StartSweeper: c.startSweeper,
		})
	})
}

// patientCluster is the cluster for an operator's command: on a busy node it waits for an answer rather than say that there is none.
func (c *call) patientCluster() pacemaker.Cluster {
	const patience = 10 * time.Second
	return pacemaker.Cluster{Environ: c.environ, Patience: patience}
}

// A kernel is this node's, with the ways into it that only those take who look for a fault.
type kernel struct {
	clusterip.Host
	tables *nftables.Conn
	links  *link.Conn
}

func (c *call) withKernel(do func(kernel) error) (err error) {
	if c.euid != 0 {
		return ocf.Errorf(ocf.ErrPerm, "must run as root, not as user %d", c.euid)
	}
	tables, err := nftables.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tables.Close()) }()
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	backends := &clusterip.Backends{NFTables: tables, Match: &xtcluster.Conn{NFTables: tables}, Target: &iptclusterip.Conn{}}
	return do(kernel{clusterip.Host{Backends: backends, LinkKernel: links, ConnectionKernel: conntrack.Kernel{}}, tables, links})
}

func (c *call) lock(ctx context.Context, address netip.Addr) (agent.Unlocker, error) {
	lock, err := ocf.AcquireLock(ctx, c.environment.TempDir, "clusterip-"+address.String())
	if err != nil {
		return nil, err
	}
	return heldLock{lock, func() error { return c.removeSweeperLock(address) }}, nil
}

// lockIfPossible goes on without a lock where none can be made, but not where somebody holds it.
func (c *call) lockIfPossible(ctx context.Context, address netip.Addr) (agent.Unlocker, error) {
	lock, err := c.lock(ctx, address)
	var held *ocf.HeldError
	if err == nil || errors.As(err, &held) {
		return lock, err
	}
	c.log.Warningf("going on without a lock: %v", err)
	return heldLock{}, nil
}

// A heldLock may be none.
type heldLock struct {
	*ocf.Lock
	removeOther func() error
}

// Unlock implements agent.Unlocker.
func (l heldLock) Unlock(last bool) error {
	if l.Lock == nil {
		return nil
	}
	var err error
	if last {
		err = errors.Join(l.removeOther(), l.Remove())
	}
	return errors.Join(err, l.Release())
}
