//go:build !manual

package main

import "github.com/urfave/cli/v3"

// makers are commands that only `make manual` needs (manual.go).
func (c *call) makers() []*cli.Command { return nil }
