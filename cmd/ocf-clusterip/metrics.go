package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/output"
)

const metricsDescription = `Writes the status as text for Prometheus. The textfile collector of
node_exporter reads it from a file, which is replaced as a whole:

    folder=/var/lib/prometheus/node-exporter
    ocf-clusterip metrics --output $folder/clusterip.prom

Run it on each node, about every 15 seconds: contrib/ has units for
systemd, alert rules and a dashboard, and lists the metrics. It asks
Pacemaker less than status does: drains on other nodes are in the
metrics of these nodes.

The exit code is 0 when the metrics are written, whatever they are. When
the kernel cannot be read, nothing is written, and the time of the file
and clusterip_last_run_timestamp_seconds grow old.`

func (c *call) metricsCommand() *cli.Command {
	return c.forAdministrators(&cli.Command{
		Name: "metrics", Usage: "the status, for Prometheus", ArgsUsage: "[ADDRESS]", Description: metricsDescription,
		Flags:  []cli.Flag{fileFlag("output", "replace `FILE` as a whole; without it, write to the standard output")},
		Action: c.metrics,
	})
}

func (c *call) metrics(ctx context.Context, command *cli.Command) error {
	address, err := addressOf(command)
	name := command.String("output")
	if name != "" {
		err = errors.Join(err, output.CheckFile("--output", name))
	}
	if err != nil {
		return err
	}
	status, err := c.readStatus(ctx, address, operator.DrainsOfNone)
	if _, none := errors.AsType[*operator.NotSharedError](err); none && (!address.IsValid() || status.Cluster == nil) {
		// Pacemaker may have been stopped on this node: the metrics show that, and replace older ones. But an address that the
		// cluster does not have was mistyped.
		err = nil
	}
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := operator.WriteMetrics(&text, status, version); err != nil {
		return err
	}
	if name != "" {
		return output.ReplaceFile(name, text.Bytes())
	}
	if _, err = c.stdout.Write(text.Bytes()); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}
