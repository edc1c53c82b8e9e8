package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/gather"
	"ocf-clusterip/internal/operator/network"
)

const networkDescription = `Prints the configuration that the switches and routers of a shared address
need: commands to copy, with their reasons as comments. It changes
nothing.

On a node it reads the layout from the kernel and from Pacemaker. Anywhere
else, --ip describes the resource, with --mac-mode and --mac where they
are not as by default. Without --vendor it prints what every network
needs, and what hypervisors need.

    ocf-clusterip network --vendor ios --vlan 10 --ports Gi1/0/1,Gi1/0/2
    ocf-clusterip network --ip 192.168.10.3 --mac-mode unicast \
        --vendor linux-bridge --bridge vmbr0 --ports tap101i0,tap102i0

The commands come from the vendors' documentation. A test runs those for
Linux. The text names everything that could not be verified.`

func (c *call) networkCommand() *cli.Command {
	flags := []cli.Flag{
		textFlag("vendor", "whose commands, by `NAME`, one of "+strings.Join(network.Vendors(), ", ")),
		textFlag("ports", "switch ports of the nodes: `NAME,...`"),
		textFlag("vlan", "the `NUMBER` of the VLAN of the address"),
		textFlag("vlan-name", "the `NAME` of the VLAN (junos, mac_mode=igmp)"),
		textFlag("bridge", "the `NAME` of the bridge (routeros, linux-bridge)"),
		textFlag("router-interface", "the router's interface in the network, by `NAME`; by default that of the VLAN"),
		textFlag("router-address", "the router's own `ADDRESS/LENGTH,...` in the network (junos)"),
		textFlag("querier", "source `ADDRESS,...` of IGMP and MLD queries; no host may use it (mac_mode=igmp)"),
		textFlag("to", "the shared `ADDRESS`; needed where there are several"),
	}
	return c.forAdministrators(&cli.Command{
		Name: "network", Usage: "commands to copy for the switches and routers", Description: networkDescription,
		Flags: append(flags, parameterFlags("without asking the kernel and Pacemaker: ", macParameters())...), Action: c.network,
	})
}

func (c *call) network(ctx context.Context, command *cli.Command) error {
	if command.Args().Present() {
		return ocf.Errorf(ocf.ErrArgs, "%s is not a flag; see ocf-clusterip network --help", ocf.Quote(command.Args().First()))
	}
	layout, err := c.networkLayout(ctx, command)
	options := network.Options{
		Vendor: command.String("vendor"), Ports: command.String("ports"), VLAN: command.String("vlan"), VLANName: command.String("vlan-name"),
		Bridge: command.String("bridge"), RouterInterface: command.String("router-interface"),
		RouterAddress: command.String("router-address"), Querier: command.String("querier"),
	}
	if err != nil {
		return errors.Join(err, options.Check()) // all faults that do not depend on the layout
	}
	return network.Write(c.stdout, layout, options, c.screen().Width)
}

// networkLayout is the layout of the address that the flags describe, or else of the one on this node.
func (c *call) networkLayout(ctx context.Context, command *cli.Command) (clusterip.Layout, error) {
	parameters := given(command, macParameters())
	_, isDescribed := parameters["ip"]
	switch {
	case !isDescribed && len(parameters) > 0:
		return clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs,
			"--mac-mode and --mac need --ip; without it they are read from the kernel and from Pacemaker")
	case !isDescribed:
		return c.layoutHere(ctx, command.String("to"))
	case command.IsSet("to"):
		return clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs,
			"--to chooses one of this node's addresses, and --ip describes another: give one of them")
	}
	spec, _, err := gather.Spec(parameters, "", 1)
	if err != nil {
		return clusterip.Layout{}, err
	}
	return spec.Layout(), nil
}

func (c *call) layoutHere(ctx context.Context, to string) (clusterip.Layout, error) {
	var address netip.Addr
	if to != "" {
		var err error
		if address, err = parseAddress("--to ", to); err != nil {
			return clusterip.Layout{}, err
		}
	}
	resource, _, err := c.resourceHere(ctx, address, "give --ip")
	return resource.Layout, err
}
