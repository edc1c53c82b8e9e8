package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/manual"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/services"
)

const whoisDescription = `Says for each client which hash bucket it falls into, and which node answers it.

On a node that runs a bucket, it reads from the kernel how the address is laid, and asks Pacemaker where the buckets are. Anywhere else,
say how it is laid: --to and --buckets, and whatever else is not as by default.

   ocf-clusterip whois 192.0.2.7 198.51.100.20:4711
   ocf-clusterip whois --to 192.168.10.3 --buckets 8 --file clients.txt

The states: owned; adopting (owned, while another node may still serve former connections); draining (nobody owns the bucket, but a node
serves former connections); several-owners (several nodes answer: look at once); unowned; unknown.`

func (c *call) whoisCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "to", Usage: "the shared `ADDRESS[:PORT]` that is asked; needed where there are several, or none"},
		&manual.Choice{StringFlag: &cli.StringFlag{Name: "protocol", Value: "tcp", Usage: "`PROTOCOL` that is spoken"}, Values: services.Protocols()},
		&cli.StringFlag{Name: "file", Usage: "read clients from `FILE`, one on each line; - is the standard input"},
		&cli.BoolFlag{Name: "json", Usage: "write JSON"},
		&numberFlag{&cli.UintFlag{Name: "buckets", Usage: "ask nobody: there are so many buckets, `N` (clone-max)"}},
	}
	for _, name := range hashParameters() {
		flags = append(flags, &cli.StringFlag{Name: flagOf(name), Usage: "with --buckets: the resource's parameter " + name})
	}
	return c.forPeople(&cli.Command{
		Name: "whois", Usage: "which node answers a client", ArgsUsage: "CLIENT[:PORT]...", Description: whoisDescription,
		Flags: flags, Action: c.whois,
	})
}

func (c *call) whois(ctx *cli.Context) error {
	target, err := targetOf(ctx.String("to"), ctx.String("protocol"))
	clients, clientsErr := c.clientsOf(ctx)
	if err := errors.Join(err, clientsErr); err != nil {
		return err
	}
	known, err := c.known(ctx, target.Address)
	if err != nil {
		return err
	}
	answers, err := operator.WhoAre(known, clients, target)
	if err != nil {
		return err
	}
	// Of moves, only about the buckets that matter here.
	if err := known.LookForDrains(ctx.Context, c.patientCluster(), operator.BucketsOf(answers)); err != nil {
		c.log.Warningf("whether nodes drain buckets cannot be told: %v", err)
	}
	if answers, err = operator.WhoAre(known, clients, target); err != nil {
		return err
	}
	return operator.WriteAnswers(c.stdout, answers, ctx.Bool("json"))
}

// targetOf reads ADDRESS or ADDRESS:PORT; nothing is the only address that there is.
func targetOf(to, protocol string) (operator.Target, error) {
	target := operator.Target{Protocol: protocol}
	if !slices.Contains(services.Protocols(), protocol) {
		return target, ocf.Errorf(ocf.ErrArgs, "--protocol %s is none of %s", ocf.Quote(protocol), strings.Join(services.Protocols(), ", "))
	}
	if to == "" {
		return target, nil
	}
	asked, err := operator.ParseClient(to)
	if err != nil {
		return target, ocf.Errorf(ocf.ErrArgs, "--to %s is no address such as 192.168.10.3 or 192.168.10.3:80", ocf.Quote(to))
	}
	target.Address, target.Port = asked.Address, asked.Port
	return target, nil
}

func (c *call) clientsOf(ctx *cli.Context) ([]operator.Client, error) {
	var clients []operator.Client
	var faults []error
	for _, text := range ctx.Args().Slice() {
		client, err := operator.ParseClient(text)
		clients, faults = append(clients, client), append(faults, err)
	}
	if file := ctx.String("file"); file != "" {
		from, name := c.stdin, "the standard input"
		if file != "-" {
			text, err := os.ReadFile(file) //nolint:gosec // the admin says which
			if err != nil {
				return nil, ocf.Errorf(ocf.ErrArgs, "--file: %w", err)
			}
			from, name = bytes.NewReader(text), file
		}
		more, err := operator.ReadClients(from, name)
		clients, faults = append(clients, more...), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if len(clients) == 0 {
		return nil, ocf.Errorf(ocf.ErrArgs, "no client is named; see ocf-clusterip whois --help")
	}
	return clients, nil
}

// known is what the flags say of the resource, or what this node knows of it.
func (c *call) known(ctx *cli.Context, address netip.Addr) (operator.Known, error) {
	parameters := given(ctx, hashParameters())
	if !ctx.IsSet("buckets") {
		if len(parameters) > 0 {
			return operator.Known{}, ocf.Errorf(ocf.ErrArgs, "the resource's parameters are of use only with --buckets; without it they are read from the kernel")
		}
		return c.knownHere(ctx.Context, address)
	}
	if !address.IsValid() {
		return operator.Known{}, ocf.Errorf(ocf.ErrArgs, "--buckets needs --to: the hash depends on the shared address")
	}
	buckets := ctx.Uint("buckets")
	if buckets == 0 || buckets > ocf.MaxBuckets {
		return operator.Known{}, ocf.Errorf(ocf.ErrArgs, "--buckets %d is not a number from 1 to %d", buckets, ocf.MaxBuckets)
	}
	parameters["ip"] = address.String()
	spec, _, err := specOf(parameters, "", uint32(buckets))
	if err != nil {
		return operator.Known{}, err
	}
	return operator.Known{Layout: spec.Layout()}, nil
}

// knownHere asks the kernel and the cluster manager.
func (c *call) knownHere(ctx context.Context, address netip.Addr) (known operator.Known, err error) {
	err = c.withAgent(ctx, func(ctx context.Context, agent agent.Agent) error {
		survey, err := operator.Look(ctx, agent, c.patientCluster(), address)
		if err != nil {
			return err
		}
		if survey.Why != nil {
			c.log.Warningf("only this node is known: %v", survey.Why)
		}
		resource, err := survey.Only()
		known = resource.Known
		return err
	})
	if err != nil {
		return known, fmt.Errorf("%w; or say --to and --buckets, and nothing is asked", err)
	}
	return known, nil
}
