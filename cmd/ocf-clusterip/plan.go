package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/plan"
	"ocf-clusterip/internal/text"
)

const planDescription = `Says before it happens what a cluster of equal nodes will do: how many buckets each node has, what the others must bear when
nodes fail, how many buckets to take and what they cost; and how your own clients would spread. It asks nobody and changes nothing.

   ocf-clusterip plan --nodes 3
   ocf-clusterip plan --nodes 16 --buckets 64 --fail 2
   ocf-clusterip plan --nodes 4 --to 192.168.10.3 --clients access.log
   zcat -f access.log* |
       ocf-clusterip plan --nodes 4 --to 192.168.10.3 --clients -

Of each line of the log the first address counts, as one request. docs/planning.md says how to read the answer.`

func (c *call) planCommand() *cli.Command {
	flags := []cli.Flag{
		&numberFlag{&cli.UintFlag{Name: "nodes", Usage: "there are so many nodes, `N`", DefaultText: "none, it must be said"}},
		&numberFlag{&cli.UintFlag{Name: "buckets", Usage: "so many buckets, `N` (clone-max)", DefaultText: "as many as are advised"}},
		&numberFlag{&cli.UintFlag{Name: "fail", Value: 1, Usage: fmt.Sprintf("up to `N` nodes fail at once, at most %d", plan.MaxFail)}},
		&cli.StringFlag{Name: "clients", Usage: "spread the clients of `FILE`, addresses or any log; - is the standard input. Needs --to"},
		&cli.StringFlag{Name: "svg", Usage: "draw a picture into `FILE`"},
		&cli.BoolFlag{Name: "json", Usage: "write JSON (docs/schema/plan.schema.json)"},
		&cli.StringFlag{Name: "to", Usage: "the shared `ADDRESS`, or a list of them: the seed follows from the first"},
		&cli.StringFlag{Name: "monitor-interval", Usage: "`INTERVALS` of the monitors of OCF_CHECK_LEVEL 0 and 10, such as 30s,300s; by default the agent's"},
	}
	for _, name := range hashParameters() {
		flags = append(flags, &cli.StringFlag{Name: flagOf(name), Usage: "the resource's parameter " + name})
	}
	return c.forPeople(&cli.Command{
		Name: "plan", Usage: "what nodes bear before and after failures, and how clients spread", ArgsUsage: " ", Description: planDescription,
		Flags: flags, Action: c.plan,
	})
}

func (c *call) plan(ctx *cli.Context) error {
	question, layout, err := planQuestion(ctx)
	picture := ctx.String("svg")
	if picture != "" {
		err = errors.Join(err, checkOutput("--svg", picture))
	}
	if err != nil {
		return err
	}
	if name := ctx.String("clients"); name != "" {
		if question.Log, err = c.readLog(name, picture, plan.NewTally(layout, plan.MaxClients)); err != nil {
			return err
		}
	}
	answer := plan.Make(question)
	if picture != "" {
		var svg bytes.Buffer
		if err := answer.WritePicture(&svg); err != nil {
			return err
		}
		if err := replaceFile(picture, svg.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Bool("json") {
		return operator.WriteJSON(c.stdout, answer)
	}
	return answer.WriteText(c.stdout, c.screen().style())
}

// planQuestion reads all flags, and says everything that is wrong with them.
func planQuestion(ctx *cli.Context) (plan.Question, clusterip.Layout, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }

	if ctx.Args().Present() {
		fault("%s is no flag; plan takes nothing else", ocf.Quote(ctx.Args().First()))
	}
	nodes, buckets, fail := ctx.Uint("nodes"), ctx.Uint("buckets"), ctx.Uint("fail")
	switch {
	case !ctx.IsSet("nodes"):
		fault("say with --nodes how many nodes there are")
	case nodes == 0 || nodes > ocf.MaxBuckets:
		fault("--nodes %d is not a number from 1 to %d", nodes, ocf.MaxBuckets)
	case !ctx.IsSet("fail"):
		fail = min(fail, nodes-1)
	case fail > plan.MaxFail:
		fault("--fail %d is not a number from 0 to %d", fail, plan.MaxFail)
	case fail >= nodes:
		fault("--fail %d of %d nodes leaves none; at most %d can fail", fail, nodes, nodes-1)
	}
	if ctx.IsSet("buckets") && (buckets == 0 || buckets > ocf.MaxBuckets) {
		fault("--buckets %d is not a number from 1 to %d", buckets, ocf.MaxBuckets)
	}
	monitors, err := monitorsOf(ctx.String("monitor-interval"))
	faults = append(faults, err)

	if buckets == 0 {
		buckets = uint(plan.Advised(int(min(nodes, ocf.MaxBuckets))))
	}
	resource, layout, err := plannedResource(ctx, uint32(min(max(buckets, 1), ocf.MaxBuckets)))
	faults = append(faults, err)
	if ctx.IsSet("clients") {
		switch {
		case !ctx.IsSet("to"):
			fault("--clients needs --to: the hash depends on the shared address")
		case layout.HashMode.Ports():
			fault("--hashmode %s hashes ports, of which a log tells nothing, so where its clients go cannot be told: each connection goes where its "+
				"port falls, however heavy the client. Leave out --clients, or take --hashmode %s", layout.HashMode, clusterip.SourceIP)
		}
	}
	return plan.Question{
		Nodes: int(nodes), Buckets: int(buckets), Fail: int(fail), Monitors: monitors, Resource: resource,
	}, layout, errors.Join(faults...)
}

// plannedResource reads the flags that are the resource's parameters.
func plannedResource(ctx *cli.Context, buckets uint32) (plan.Resource, clusterip.Layout, error) {
	resource := plan.Resource{Address: plan.ExampleAddress}
	if ctx.IsSet("to") {
		resource.Address = ctx.String("to")
		if _, _, err := metadata.Parse(map[string]string{"ip": resource.Address}); err != nil {
			return resource, clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs, "--to %s is no address such as 192.168.10.3, nor a list of them", ocf.Quote(resource.Address))
		}
	}
	parameters := given(ctx, hashParameters())
	for _, name := range hashParameters() { // in this order
		if value, isGiven := parameters[name]; isGiven {
			resource.Parameters = append(resource.Parameters, plan.Parameter{Name: name, Value: value})
		}
	}
	parameters["ip"] = resource.Address
	spec, _, err := specOf(parameters, "", buckets)
	if err != nil {
		return resource, clusterip.Layout{}, err
	}
	return resource, spec.Layout(), nil
}

// monitorsOf reads the intervals of the monitors, with units or in seconds, in the order of the meta-data.
func monitorsOf(text string) ([]plan.Monitor, error) {
	monitors := plan.Monitors()
	if text == "" { // not said
		return monitors, nil
	}
	wrong := ocf.Errorf(ocf.ErrArgs, "--monitor-interval %s is no interval of whole seconds such as 30s, or two different ones such as 30s,300s", ocf.Quote(text))
	parts := strings.Split(text, ",")
	if len(parts) > len(monitors) {
		return monitors, wrong
	}
	seen := map[time.Duration]bool{}
	for i, monitor := range monitors {
		if i < len(parts) {
			interval, err := time.ParseDuration(parts[i])
			if seconds, err2 := strconv.ParseUint(parts[i], 10, 31); err2 == nil {
				interval, err = time.Duration(seconds)*time.Second, nil
			}
			if err != nil || interval < time.Second || interval%time.Second != 0 {
				return monitors, wrong
			}
			monitors[i] = monitor.Every(interval)
		}
		if seen[monitors[i].Interval] { // Pacemaker tells monitors apart by their intervals
			return monitors, wrong
		}
		seen[monitors[i].Interval] = true
	}
	return monitors, nil
}

// readLog counts the clients in a log, which may be long. It must not be the file that the picture is to replace.
func (c *call) readLog(name, picture string, tally *plan.Tally) (*plan.Log, error) {
	from, size, log := c.stdin, int64(0), &plan.Log{Name: "the standard input", Tally: tally}
	if name != "-" {
		file, err := os.Open(name) //nolint:gosec // the admin says which
		if err != nil {
			return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %w", err)
		}
		defer file.Close() //nolint:errcheck // it was only read
		from, log.Name = file, name
	}
	if file, ok := from.(*os.File); ok {
		info, err := file.Stat()
		if err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		if former, formerErr := os.Stat(picture); err == nil && formerErr == nil && os.SameFile(info, former) {
			return nil, ocf.Errorf(ocf.ErrArgs, "--svg %s is the log of --clients, which the picture would replace", ocf.Quote(picture))
		}
	}
	progress := newProgress(c.stderr, size)
	err := tally.Read(from, func(read int64) { progress.report(read, tally.Lines) })
	progress.end()
	packed, isPacked := errors.AsType[*plan.CompressedError](err)
	switch {
	case isPacked && name != "-":
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %s %w; unpack it: %s %s | ocf-clusterip plan --clients - …", name, err, packed.Unpacker, text.ShellQuote(name))
	case isPacked:
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %s %w; unpack it with %s", log.Name, err, packed.Unpacker)
	case err != nil:
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %s: %w", log.Name, err)
	case tally.Lines == tally.Without:
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: there is no address in %s (%s)", log.Name, plan.Counted(int(tally.Lines), "line"))
	}
	return log, nil
}

// A progress is a line that changes, on a terminal only.
type progress struct {
	to   io.Writer // nil: nobody looks
	size int64     // 0: not known
	told time.Time
	any  bool
}

const (
	clearLine    = "\r\x1b[K" // ECMA-48, EL
	progressStep = 200 * time.Millisecond
)

func newProgress(to io.Writer, size int64) *progress {
	if file, ok := to.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		to = nil
	}
	return &progress{to: to, size: size, told: time.Now()}
}

func (p *progress) report(read int64, lines uint64) {
	if p.to == nil || time.Since(p.told) < progressStep {
		return
	}
	p.told, p.any = time.Now(), true
	text := fmt.Sprintf("%d MB, %d lines", read/1e6, lines)
	if p.size > 0 {
		text = fmt.Sprintf("%d%%, %s", min(100, 100*read/p.size), text)
	}
	_, _ = fmt.Fprint(p.to, clearLine+text)
}

// end leaves nothing.
func (p *progress) end() {
	if p.any {
		_, _ = fmt.Fprint(p.to, clearLine)
	}
}
