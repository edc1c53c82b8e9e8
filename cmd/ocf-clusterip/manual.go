//go:build manual

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/manual"
	"ocf-clusterip/internal/ocf"
)

// makers are commands of which only `make manual` has a use; the program that is installed does without them.
func (c *call) makers() []*cli.Command {
	return []*cli.Command{hidden(c.forPeople(&cli.Command{
		Name: "manual", Usage: "write the manual pages and what shells complete commands with", ArgsUsage: "FOLDER", Action: c.writeManual,
	}))}
}

func (c *call) writeManual(ctx *cli.Context) error {
	if ctx.NArg() != 1 {
		return ocf.Errorf(ocf.ErrArgs, "manual needs a folder to write to, and nothing else")
	}
	program := manual.Read(c.app())
	if err := program.Check(); err != nil {
		return err
	}
	date, err := c.sourceDate()
	if err != nil {
		return err
	}
	folder := ctx.Args().First()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("write the manual: %w", err)
	}
	for name, text := range map[string]string{
		"ocf-clusterip.8":        manual.CommandPage(program, date),
		"ocf_custom_clusterip.7": manual.AgentPage(version, date),
		"ocf-clusterip.bash":     manual.Bash(program),
		"ocf-clusterip.zsh":      manual.Zsh(program),
		"ocf-clusterip.fish":     manual.Fish(program),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil { //nolint:gosec // for everybody to read
			return fmt.Errorf("write the manual: %w", err)
		}
	}
	return nil
}

// sourceDate is what SOURCE_DATE_EPOCH says (reproducible-builds.org), so that the same source always makes the same pages.
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
