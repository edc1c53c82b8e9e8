//go:build manual

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/manual"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/convert"
	"ocf-clusterip/internal/operator/network"
	"ocf-clusterip/internal/services"
)

// makers are commands that only `make manual` needs. The installed program does without them.
func (c *call) makers() []*cli.Command {
	return []*cli.Command{hidden(c.forAdministrators(&cli.Command{
		Name: "manual", Usage: "write the manual pages and the completion of shells", ArgsUsage: "FOLDER", Action: c.writeManual,
	}))}
}

func (c *call) writeManual(_ context.Context, command *cli.Command) error {
	if command.NArg() != 1 {
		return ocf.Errorf(ocf.ErrArgs, "manual needs a folder to write to, and nothing else")
	}
	date, err := c.sourceDate()
	if err != nil {
		return err
	}
	values := map[string][]string{"protocol": services.Protocols(), "vendor": network.Vendors(), "for": convert.Tools()}
	files, err := manual.Program{Command: command.Root(), Values: values, Time: date}.Files()
	if err != nil {
		return err
	}
	folder := command.Args().First()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil { //nolint:gosec // for everybody to read
			return fmt.Errorf("write the manual: %w", err)
		}
	}
	return nil
}

// sourceDate is SOURCE_DATE_EPOCH (reproducible-builds.org), so that the same source always makes the same pages.
func (c *call) sourceDate() (time.Time, error) {
	for _, variable := range c.environ {
		value, isIt := strings.CutPrefix(variable, "SOURCE_DATE_EPOCH=")
		if !isIt || value == "" {
			continue
		}
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return time.Time{}, ocf.Errorf(ocf.ErrArgs, "SOURCE_DATE_EPOCH=%s is not a number of seconds", ocf.Quote(value))
		}
		return time.Unix(seconds, 0), nil
	}
	return time.Time{}, nil
}
