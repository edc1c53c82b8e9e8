package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/manual"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/network"
)

const networkDescription = `Prints what the switches and routers of a shared address have to be told: commands to copy, with their reasons as comments. It changes nothing.

On a node it reads from the kernel and the cluster how the address is laid. Anywhere else, say it: --ip, and --mac-mode and --mac where they
are not as by default. Without --vendor it says what any network needs, and what hypervisors do.

   ocf-clusterip network --vendor ios --vlan 10 --ports Gi1/0/1,Gi1/0/2
   ocf-clusterip network --ip 192.168.10.3 --mac-mode unicast \
       --vendor linux-bridge --bridge vmbr0 --ports tap101i0,tap102i0

Commands are verified with the vendors' documentation, those for Linux by a test. Where something could not be verified, the text says so.`

func (c *call) networkCommand() *cli.Command {
	flag := func(name, usage string) cli.Flag { return &cli.StringFlag{Name: name, Usage: usage} }
	return c.forPeople(&cli.Command{
		Name: "network", Usage: "what to tell the switches and routers, as commands to copy", Description: networkDescription,
		Flags: []cli.Flag{
			&manual.Choice{StringFlag: &cli.StringFlag{Name: "vendor", Usage: "whose commands: `NAME`"}, Values: network.Vendors()},
			flag("ports", "the switch's ports that the nodes are plugged into: `NAME,...`"),
			flag("vlan", "the `NUMBER` of the VLAN that the address is in"),
			flag("vlan-name", "its `NAME` (junos, mac_mode=igmp)"),
			flag("bridge", "the `NAME` of the bridge (routeros, linux-bridge)"),
			flag("router-interface", "the router's interface in the network, by `NAME`; by default that of the VLAN"),
			flag("router-address", "the router's own `ADDRESS/LENGTH,...` in the network (junos)"),
			flag("querier", "the source of IGMP and MLD queries, `ADDRESS,...`; unused otherwise (mac_mode=igmp)"),
			flag("to", "the shared `ADDRESS` that it is about; needed where there are several"),
			flag("ip", "ask nobody: the shared `ADDRESS`, or several, the first one first"),
			flag("mac-mode", "with --ip: the resource's parameter mac_mode, `MODE`"),
			flag("mac", "with --ip: the resource's parameter mac, `MAC`"),
		},
		Action: c.network,
	})
}

func (c *call) network(ctx *cli.Context) error {
	if ctx.Args().Present() {
		return ocf.Errorf(ocf.ErrArgs, "%s is too much: all is said by flags; see ocf-clusterip network --help", ocf.Quote(ctx.Args().First()))
	}
	layout, err := c.networkLayout(ctx)
	options := network.Options{
		Vendor: ctx.String("vendor"), Ports: ctx.String("ports"), VLAN: ctx.String("vlan"), VLANName: ctx.String("vlan-name"), Bridge: ctx.String("bridge"),
		RouterInterface: ctx.String("router-interface"), RouterAddress: ctx.String("router-address"), Querier: ctx.String("querier"),
	}
	if err != nil {
		// What is wrong with the rest is worth saying at once, as far as it does not depend on the layout.
		return errors.Join(err, options.Check())
	}
	return network.Write(c.stdout, layout, options, c.screen().width)
}

// networkLayout is what the flags say of the address, or what this node knows of it.
func (c *call) networkLayout(ctx *cli.Context) (clusterip.Layout, error) {
	parameters := given(ctx, macParameters())
	_, offline := parameters["ip"]
	switch {
	case !offline && len(parameters) > 0:
		return clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs, "--mac-mode and --mac are of use only with --ip; without it they are read from the kernel and the cluster")
	case !offline:
		return c.layoutHere(ctx)
	case ctx.IsSet("to"):
		return clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs, "--to chooses among the addresses that this node knows, and --ip asks nobody: say one of them")
	}
	spec, _, err := specOf(parameters, "", 1)
	if err != nil {
		return clusterip.Layout{}, err
	}
	return spec.Layout(), nil
}

func (c *call) layoutHere(ctx *cli.Context) (layout clusterip.Layout, err error) {
	var address netip.Addr
	if to := ctx.String("to"); to != "" {
		if address, err = netip.ParseAddr(to); err != nil || address.Zone() != "" {
			return layout, ocf.Errorf(ocf.ErrArgs, "--to %s is no address such as 192.168.10.3", ocf.Quote(to))
		}
	}
	err = c.withAgent(ctx.Context, func(ctx context.Context, agent agent.Agent) error {
		survey, err := operator.Look(ctx, agent, c.patientCluster(), address.Unmap())
		if err != nil {
			return err
		}
		resource, err := survey.Only()
		layout = resource.Layout
		return err
	})
	if err != nil {
		return layout, fmt.Errorf("%w; or say --ip, and nothing is asked", err)
	}
	return layout, nil
}
