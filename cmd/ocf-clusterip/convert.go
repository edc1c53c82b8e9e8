package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/beevik/etree"
	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/convert"
	"ocf-clusterip/internal/operator/gather"
)

const convertDescription = `Prints the commands that bring a shared address from a clone of
ocf:heartbeat:IPaddr2, or from rules of iptables, to this agent; what
becomes of each parameter; and the way back. It changes nothing itself.
Everything that names the resource, such as constraints, stays as it is.

    ocf-clusterip convert                  # of the running cluster
    ocf-clusterip convert --cib cib.xml    # cibadmin --query >cib.xml
    iptables-save | ocf-clusterip convert --iptables -

No node answers from the stop to the start, for about ten seconds if you
paste without a pause. Node by node is not possible; the output gives the
reason. It is a script, with all prose as comments: read it, then paste it
step by step.

The exit code is 0 if there are commands for each address, and 2 if not:
then the output names what is in the way. docs/upgrade.md explains it.`

// agentIPaddr2 is where packages install the agent (OCF developer's guide, "Installing and packaging resource agents").
const agentIPaddr2 = "/usr/lib/ocf/resource.d/heartbeat/IPaddr2"

func (c *call) convertCommand() *cli.Command {
	return c.forAdministrators(&cli.Command{
		Name: "convert", Usage: "the commands that replace IPaddr2 by this agent", Description: convertDescription,
		Flags: []cli.Flag{
			fileFlag("cib", "read the CIB in `FILE` instead of the running cluster's; - is the standard input"),
			fileFlag("iptables", "read the rules in `FILE`, saved with iptables-save on one node, instead of a CIB; - is the standard input"),
			textFlag("resource", "convert only the resource or clone with this `NAME`"),
			&cli.StringFlag{Name: "for", Usage: "the commands of `TOOL`, one of " + strings.Join(convert.Tools(), ", "), Value: string(convert.PCS)},
			numberFlag("buckets", "the new number of buckets, `N` (clone-max); by default as many as there are", 0),
			&cli.BoolFlag{Name: "keep-hash", Usage: "keep each client in its bucket, for nodes with kernels before and after 6.3 side by side"},
			&cli.BoolFlag{Name: "json", Usage: "write JSON (docs/schema/convert.schema.json)"},
		},
		Action: c.convert,
	})
}

func (c *call) convert(ctx context.Context, command *cli.Command) error {
	options, err := convertOptions(command)
	if err != nil {
		return err
	}
	report, err := c.conversions(ctx, command, options)
	if err != nil {
		return err
	}
	if command.Bool("json") {
		err = operator.WriteJSON(c.stdout, report)
	} else {
		err = report.Write(c.stdout, c.screen().Width)
	}
	if err == nil && !report.Complete() {
		err = result(ocf.ErrArgs)
	}
	return err
}

// convertOptions reads the flags. The error has everything that is wrong with them.
func convertOptions(command *cli.Command) (convert.Options, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }
	if command.Args().Present() {
		fault("%s is not a flag; see ocf-clusterip convert --help", ocf.Quote(command.Args().First()))
	}
	tool, buckets := command.String("for"), command.Uint("buckets")
	if !slices.Contains(convert.Tools(), tool) {
		fault("--for %s is not one of %s", ocf.Quote(tool), strings.Join(convert.Tools(), ", "))
	}
	if command.IsSet("buckets") && (buckets == 0 || buckets > ocf.MaxBuckets) {
		fault("--buckets %d is not a number from 1 to %d", buckets, ocf.MaxBuckets)
	}
	if command.IsSet("iptables") {
		for _, other := range []string{"cib", "resource"} {
			if command.IsSet(other) {
				fault("--%s is about a CIB, and --iptables about rules that no resource has added: give one of them", other)
			}
		}
	}
	return convert.Options{
		Resource: command.String("resource"), Tool: convert.Tool(tool), Buckets: uint32(min(buckets, ocf.MaxBuckets)),
		KeepHash: command.Bool("keep-hash"), Agent: convert.Unknown,
	}, errors.Join(faults...)
}

// conversions reads what the flags name: rules, a CIB in a file, or else that of this node's cluster, whose IPaddr2 is installed here.
func (c *call) conversions(ctx context.Context, command *cli.Command, options convert.Options) (convert.Report, error) {
	if command.IsSet("iptables") {
		rules, err := gather.Rules(command.String("iptables"), c.stdin)
		if err != nil {
			return convert.Report{}, err
		}
		return convert.Rules(rules, options)
	}
	var configuration *etree.Element
	var err error
	if command.IsSet("cib") {
		configuration, err = gather.CIB(command.String("cib"), c.stdin)
	} else {
		options.Agent = gather.InstalledIPaddr2(agentIPaddr2)
		configuration, err = gather.RunningCIB(ctx, c.patientCluster())
	}
	if err != nil {
		return convert.Report{}, err
	}
	return convert.Cluster(configuration, options)
}
