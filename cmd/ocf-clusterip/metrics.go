package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/operator"
)

const metricsDescription = `Writes what status says as text for Prometheus. node_exporter's textfile collector reads it from a file, which is replaced as a whole:

   folder=/var/lib/prometheus/node-exporter
   ocf-clusterip metrics --output $folder/clusterip.prom

Run it on each node every 15 seconds or so: contrib/ has units for systemd, alert rules and a dashboard, and lists the metrics. It asks
Pacemaker less than status does: what drains on other nodes is in their own metrics.

The exit status is 0 when the metrics are written, whatever they say. When the kernel cannot be read nothing is written, and the file's
time and clusterip_last_run_timestamp_seconds grow old.`

func (c *call) metricsCommand() *cli.Command {
	return c.forPeople(&cli.Command{
		Name: "metrics", Usage: "what status says, for Prometheus", ArgsUsage: "[ADDRESS]", Description: metricsDescription,
		Flags:  []cli.Flag{&cli.StringFlag{Name: "output", Usage: "write to `FILE`, which is replaced as a whole; without it, to the standard output"}},
		Action: c.metrics,
	})
}

func (c *call) metrics(ctx *cli.Context) error {
	address, err := addressOf(ctx)
	output := ctx.String("output")
	if output != "" {
		err = errors.Join(err, checkOutput("--output", output))
	}
	if err != nil {
		return err
	}
	status, err := c.look(ctx.Context, address, false)
	if _, none := errors.AsType[*operator.NotSharedError](err); none && (!address.IsValid() || status.Cluster == nil) {
		// Pacemaker has been stopped here, say: that is to be told, and former metrics must not stay. An address that the cluster
		// does not have is a slip of the pen.
		err = nil
	}
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := operator.WriteMetrics(&text, status, version); err != nil {
		return err
	}
	if output != "" {
		return replaceFile(output, text.Bytes())
	}
	if _, err = c.stdout.Write(text.Bytes()); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}
