package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/gather"
	"ocf-clusterip/internal/operator/plan"
	"ocf-clusterip/internal/output"
)

const planDescription = `Computes what a cluster of equal nodes will do: how many buckets each node
owns, how much the remaining nodes must serve when nodes fail, how many
buckets are advised and what they cost, and how your own clients spread.
It asks neither the cluster nor the network, and changes nothing.

    ocf-clusterip plan --nodes 3
    ocf-clusterip plan --nodes 16 --buckets 64 --fail 2
    ocf-clusterip plan --nodes 4 --to 192.168.10.3 --clients access.log
    zcat -f access.log* |
        ocf-clusterip plan --nodes 4 --to 192.168.10.3 --clients -

The first address of each line of the log counts as one request.

For a running resource, with what its nodes have counted: the files are
those of "metrics", or of "status --json", two of each node for rates:

    ocf-clusterip plan --measured node1.prom node2.prom node3.prom

docs/planning.md explains the answers.`

func (c *call) planCommand() *cli.Command {
	nodes := numberFlag("nodes", "number of nodes, `N`; required without --measured", 0)
	buckets := numberFlag("buckets", "number of buckets, `N` (clone-max)", 0)
	buckets.DefaultText, buckets.HideDefault = "as many as are advised", false
	flags := []cli.Flag{
		nodes, buckets,
		numberFlag("fail", fmt.Sprintf("up to `N` nodes fail at once, at most %d", plan.MaxFail), 1),
		fileFlag("clients", "spread the clients in `FILE`, addresses or any log; - is the standard input. Needs --to"),
		fileFlag("svg", "draw a picture into `FILE`"),
		&cli.BoolFlag{Name: measured, Usage: "judge a running resource by the files with its counters; with --to, that of several"},
		&cli.BoolFlag{Name: "json", Usage: "write JSON (docs/schema/plan.schema.json, measured.schema.json)"},
		textFlag("to", "the shared `ADDRESS`, or a list of them: the first one determines the seed"),
		textFlag("monitor-interval", "`INTERVALS` of the monitors of OCF_CHECK_LEVEL 0 and 10, such as 30s,300s; by default the agent's"),
	}
	return c.forAdministrators(&cli.Command{
		Name: "plan", Usage: "what nodes serve, also after failures; how clients spread", ArgsUsage: "[FILE...]", Description: planDescription,
		Flags: append(flags, parameterFlags("", hashParameters())...), Action: c.plan,
	})
}

func (c *call) plan(_ context.Context, command *cli.Command) error {
	if command.Bool(measured) {
		return c.planMeasured(command)
	}
	question, layout, err := planQuestion(command)
	picture := command.String("svg")
	if picture != "" {
		err = errors.Join(err, output.CheckFile("--svg", picture))
	}
	if err != nil {
		return err
	}
	if name := command.String("clients"); name != "" {
		if question.Log, err = gather.Log(name, picture, c.stdin, c.stderr, plan.NewTally(layout, plan.MaxClients)); err != nil {
			return err
		}
	}
	answer := plan.Make(question)
	if picture != "" {
		var svg bytes.Buffer
		if err := answer.WritePicture(&svg); err != nil {
			return err
		}
		if err := output.ReplaceFile(picture, svg.Bytes()); err != nil {
			return err
		}
	}
	if command.Bool("json") {
		return operator.WriteJSON(c.stdout, answer)
	}
	return answer.WriteText(c.stdout, c.screen().Style)
}

// measured is the flag for a running resource.
const measured = "measured"

func (c *call) planMeasured(command *cli.Command) error {
	question, err := measureQuestion(command)
	if err != nil {
		return err
	}
	if question.Snapshots, err = gather.Snapshots(command.Args().Slice()); err != nil {
		return err
	}
	answer, err := plan.Measure(question)
	if err != nil {
		return err
	}
	if command.Bool("json") {
		return operator.WriteJSON(c.stdout, answer)
	}
	return answer.WriteText(c.stdout, c.screen().Style)
}

// measureQuestion reads all flags that are used with --measured. The error has everything that is wrong with them.
func measureQuestion(command *cli.Command) (plan.MeasureQuestion, error) {
	question := plan.MeasureQuestion{Fail: int(command.Uint("fail"))}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }
	if !command.Args().Present() {
		fault("--%s: no files are given; name those of ocf-clusterip metrics or ocf-clusterip status --json of each node", measured)
	}
	fitting := []string{measured, "json", "to", "fail"}
	for _, flag := range command.Flags {
		if name := flag.Names()[0]; flag.IsSet() && !slices.Contains(fitting, name) {
			fault("--%s and --%s exclude each other: what it sets is in the files; these are used with it: %s", measured, name,
				"--"+strings.Join(fitting[1:], ", --"))
		}
	}
	if question.Fail > plan.MaxFail {
		fault("--fail %d is not a number from 0 to %d", question.Fail, plan.MaxFail)
	}
	if command.IsSet("to") {
		address, err := parseAddress("--to ", command.String("to"))
		faults = append(faults, err)
		question.Address = address.String()
	}
	return question, errors.Join(faults...)
}

// planQuestion reads all flags. The error has everything that is wrong with them.
func planQuestion(command *cli.Command) (plan.Question, clusterip.Layout, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }

	if command.Args().Present() {
		fault("%s is not a flag; plan takes files with --measured only", ocf.Quote(command.Args().First()))
	}
	nodes, buckets, fail := command.Uint("nodes"), command.Uint("buckets"), command.Uint("fail")
	switch {
	case !command.IsSet("nodes"):
		fault("give the number of nodes with --nodes")
	case nodes == 0 || nodes > ocf.MaxBuckets:
		fault("--nodes %d is not a number from 1 to %d", nodes, ocf.MaxBuckets)
	case !command.IsSet("fail"):
		fail = min(fail, nodes-1)
	case fail > plan.MaxFail:
		fault("--fail %d is not a number from 0 to %d", fail, plan.MaxFail)
	case fail >= nodes:
		fault("--fail %d of %d nodes leaves none; at most %d can fail", fail, nodes, nodes-1)
	}
	if command.IsSet("buckets") && (buckets == 0 || buckets > ocf.MaxBuckets) {
		fault("--buckets %d is not a number from 1 to %d", buckets, ocf.MaxBuckets)
	}
	monitors, err := plan.MonitorsEvery(command.String("monitor-interval"))
	if err != nil {
		fault("--monitor-interval %w", err)
	}
	if buckets == 0 {
		buckets = uint(plan.Advised(int(min(nodes, ocf.MaxBuckets))))
	}
	resource, layout, err := plannedResource(command, uint32(min(max(buckets, 1), ocf.MaxBuckets)))
	faults = append(faults, err)
	if command.IsSet("clients") {
		switch {
		case !command.IsSet("to"):
			fault("--clients needs --to: the hash depends on the shared address")
		case layout.HashMode.Ports():
			fault("--hashmode %s hashes ports, which a log does not have: each connection of a client goes to a bucket of its own. "+
				"Leave out --clients, or use --hashmode %s", layout.HashMode, clusterip.SourceIP)
		}
	}
	return plan.Question{
		Nodes: int(nodes), Buckets: int(buckets), Fail: int(fail), Monitors: monitors, Resource: resource, Secret: secretFor(layout),
	}, layout, errors.Join(faults...)
}

// secretFor returns a random seed for a resource with a public address whose seed can be guessed.
func secretFor(layout clusterip.Layout) *clusterip.Seed {
	if _, public := clusterip.FirstPublic(layout.Addresses()); !public {
		return nil
	}
	seed := layout.Seed
	for clusterip.IsGuessable(seed, layout.Address()) {
		var random [4]byte
		_, _ = rand.Read(random[:]) // never fails
		seed = clusterip.Seed(binary.NativeEndian.Uint32(random[:]))
	}
	if seed == layout.Seed {
		return nil
	}
	return &seed
}

// plannedResource reads the flags that are the resource's parameters.
func plannedResource(command *cli.Command, buckets uint32) (plan.Resource, clusterip.Layout, error) {
	resource := plan.Resource{Address: plan.ExampleAddress}
	if command.IsSet("to") {
		resource.Address = command.String("to")
		if _, _, err := metadata.Parse(map[string]string{"ip": resource.Address}); err != nil {
			return resource, clusterip.Layout{},
				ocf.Errorf(ocf.ErrArgs, "--to %s is not an address such as 192.168.10.3, nor a list of them", ocf.Quote(resource.Address))
		}
	}
	parameters := given(command, hashParameters())
	for _, name := range hashParameters() { // in this order
		if value, isGiven := parameters[name]; isGiven {
			resource.Parameters = append(resource.Parameters, plan.Parameter{Name: name, Value: value})
		}
	}
	parameters["ip"] = resource.Address
	spec, _, err := gather.Spec(parameters, "", buckets)
	if err != nil {
		return resource, clusterip.Layout{}, err
	}
	return resource, spec.Layout(), nil
}
