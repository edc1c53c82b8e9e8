package main

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"ocf-clusterip/internal/operator/style"
)

// pipeWidth is how wide a text is made, in columns, that does not go to a terminal.
const pipeWidth = 80

// A screen is where a command for people writes to.
type screen struct {
	isTerminal bool
	width      int  // in columns
	colour     bool // only on a terminal, and not where NO_COLOR is set (no-color.org)
}

func (c *call) screen() screen {
	file, ok := c.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return screen{width: pipeWidth}
	}
	s := screen{isTerminal: true, width: pipeWidth}
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		s.width = width
	}
	s.colour = !slices.ContainsFunc(c.environ, func(variable string) bool {
		value, isIt := strings.CutPrefix(variable, "NO_COLOR=")
		return isIt && value != "" || variable == "TERM=dumb"
	})
	return s
}

func (s screen) style() style.Style { return style.Style{Width: s.width, Colour: s.colour} }
