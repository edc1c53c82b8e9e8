//go:build !manual

package main

import "github.com/urfave/cli/v2"

// makers are commands of which only `make manual` has a use (manual.go).
func (c *call) makers() []*cli.Command { return nil }
