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

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/gather"
	"ocf-clusterip/internal/services"
)

const whoisDescription = `Shows for each client which bucket it falls into, and which node owns it.

On a node that runs a bucket, it reads the layout from the kernel, and
asks Pacemaker which node owns which bucket. Anywhere else, --to and
--buckets describe the resource, with the parameters that are not as by
default.

    ocf-clusterip whois 192.0.2.7 198.51.100.20:4711
    ocf-clusterip whois --to 192.168.10.3 --buckets 8 \
        --file clients.txt

The states: owned; adopting (owned, while an old owner may still serve
connections); lingering (an old owner answers until another node takes the
bucket over); draining (unowned, but an old owner serves connections);
several-owners (act at once); unowned; unknown.`

func (c *call) whoisCommand() *cli.Command {
	protocol := textFlag("protocol", "`PROTOCOL` of the client, one of "+strings.Join(services.Protocols(), ", "))
	protocol.Value, protocol.DefaultText = "tcp", "tcp"
	flags := []cli.Flag{
		textFlag("to", "the shared `ADDRESS[:PORT]`; needed where there are several, or none"),
		protocol,
		fileFlag("file", "read clients from `FILE`, one on each line; - is the standard input"),
		&cli.BoolFlag{Name: "json", Usage: "write JSON"},
		numberFlag("buckets", "number of buckets, `N` (clone-max); the kernel and Pacemaker are not asked", 0),
	}
	return c.forAdministrators(&cli.Command{
		Name: "whois", Usage: "which node answers a client", ArgsUsage: "CLIENT[:PORT]...", Description: whoisDescription,
		Flags: append(flags, parameterFlags("with --buckets: ", hashParameters())...), Action: c.whois,
	})
}

func (c *call) whois(ctx context.Context, command *cli.Command) error {
	target, err := targetOf(command.String("to"), command.String("protocol"))
	clients, clientsErr := c.clientsOf(command)
	if err := errors.Join(err, clientsErr); err != nil {
		return err
	}
	known, err := c.known(ctx, command, target.Address)
	if err != nil {
		return err
	}
	answers, err := operator.WhoAre(known, clients, target)
	if err != nil {
		return err
	}
	// Pacemaker is asked only about the buckets of these clients.
	if err := known.LookForDrains(ctx, c.patientCluster(), operator.BucketsOf(answers)); err != nil {
		c.log.Warningf("cannot read which nodes drain buckets: %v", err)
	}
	if answers, err = operator.WhoAre(known, clients, target); err != nil {
		return err
	}
	return operator.WriteAnswers(c.stdout, answers, command.Bool("json"))
}

// targetOf reads ADDRESS or ADDRESS:PORT. An empty one is the only address that there is.
func targetOf(to, protocol string) (operator.Target, error) {
	target := operator.Target{Protocol: protocol}
	if !slices.Contains(services.Protocols(), protocol) {
		return target, ocf.Errorf(ocf.ErrArgs, "--protocol %s is none of %s", ocf.Quote(protocol), strings.Join(services.Protocols(), ", "))
	}
	if to == "" {
		return target, nil
	}
	parsed, err := operator.ParseClient(to)
	if err != nil {
		return target, ocf.Errorf(ocf.ErrArgs, "--to %s is not an address such as 192.168.10.3 or 192.168.10.3:80", ocf.Quote(to))
	}
	target.Address, target.Port = parsed.Address, parsed.Port
	return target, nil
}

func (c *call) clientsOf(command *cli.Command) ([]operator.Client, error) {
	var clients []operator.Client
	var faults []error
	for _, text := range command.Args().Slice() {
		client, err := operator.ParseClient(text)
		clients, faults = append(clients, client), append(faults, err)
	}
	if file := command.String("file"); file != "" {
		from, name := c.stdin, "the standard input"
		if file != "-" {
			text, err := os.ReadFile(file) //nolint:gosec // the administrator names it
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
		return nil, ocf.Errorf(ocf.ErrArgs, "no client is given; see ocf-clusterip whois --help")
	}
	return clients, nil
}

// known is the resource that the flags describe, or else the one on this node.
func (c *call) known(ctx context.Context, command *cli.Command, address netip.Addr) (operator.Known, error) {
	parameters := given(command, hashParameters())
	if !command.IsSet("buckets") {
		if len(parameters) > 0 {
			return operator.Known{}, ocf.Errorf(ocf.ErrArgs, "parameters of the resource need --buckets; without it they are read from the kernel")
		}
		resource, why, err := c.resourceHere(ctx, address, "give --to and --buckets")
		if why != nil {
			c.log.Warningf("only this node is known: %v", why)
		}
		return resource.Known, err
	}
	if !address.IsValid() {
		return operator.Known{}, ocf.Errorf(ocf.ErrArgs, "--buckets needs --to: the hash depends on the shared address")
	}
	buckets := command.Uint("buckets")
	if buckets == 0 || buckets > ocf.MaxBuckets {
		return operator.Known{}, ocf.Errorf(ocf.ErrArgs, "--buckets %d is not a number from 1 to %d", buckets, ocf.MaxBuckets)
	}
	parameters["ip"] = address.String()
	spec, _, err := gather.Spec(parameters, "", uint32(buckets))
	if err != nil {
		return operator.Known{}, err
	}
	return operator.Known{Layout: spec.Layout()}, nil
}

// resourceHere asks the kernel and Pacemaker for the resource that has the address, or for the only one. Why is the reason why Pacemaker
// does not answer. An error ends with what to do where they cannot be asked.
func (c *call) resourceHere(ctx context.Context, address netip.Addr, instead string) (resource operator.Resource, why, err error) {
	err = c.withAgent(ctx, func(ctx context.Context, a agent.Agent) error {
		survey, err := operator.Look(ctx, a, c.patientCluster(), address)
		if err != nil {
			return err
		}
		why = survey.ClusterErr
		resource, err = survey.Only()
		return err
	})
	if err != nil {
		err = fmt.Errorf("%w; or %s to ask neither the kernel nor Pacemaker", err, instead)
	}
	return resource, why, err
}
