package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/ocf"
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
	if ctx.IsSet("output") {
		err = errors.Join(err, checkOutput(output))
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

// checkOutput refuses what replaceFile would make a file of that is none: a link, a device, a folder.
func checkOutput(name string) error {
	fault := func(format string, args ...any) error {
		return ocf.Errorf(ocf.ErrArgs, "--output %s "+format, append([]any{ocf.Quote(name)}, args...)...)
	}
	if name == "" || strings.HasSuffix(name, "/") {
		return fault("is no name of a file")
	}
	info, err := os.Lstat(name)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fault("is there, and no regular file")
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fault("cannot be written: %w", err)
	}
	if info, err = os.Stat(filepath.Dir(name)); err != nil || !info.IsDir() {
		return fault("cannot be written: there is no folder %s", filepath.Dir(name))
	}
	return nil
}

const readableByAll = 0o644

// replaceFile puts a new file in the place of another one, so that nobody ever reads half of it. Until then its name is hidden and ends in a
// number, so that no collector takes it for what it looks for. It is made with O_EXCL, which follows no link.
func replaceFile(name string, content []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, writeErr := file.Write(content)
	if err := errors.Join(writeErr, file.Chmod(readableByAll), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}
