// Package output is where the answers of the commands for administrators go: a screen, with a line of progress, or a file.
package output

import (
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"ocf-clusterip/internal/operator/style"
)

// pipeWidth is the width of a text that does not go to a terminal, in columns.
const pipeWidth = 80

// A Screen is what a command writes to.
type Screen struct {
	style.Style // colour only on a terminal, unless NO_COLOR is set (no-color.org)
	IsTerminal  bool
}

// ScreenOf returns the screen behind a writer, in a process with this environment.
func ScreenOf(to io.Writer, environ []string) Screen {
	s := Screen{Style: style.Style{Width: pipeWidth}}
	file := terminal(to)
	if file == nil {
		return s
	}
	s.IsTerminal = true
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		s.Width = width
	}
	s.Colour = !slices.ContainsFunc(environ, func(variable string) bool {
		value, isIt := strings.CutPrefix(variable, "NO_COLOR=")
		return isIt && value != "" || variable == "TERM=dumb"
	})
	return s
}

// terminal returns the terminal that a writer is; nil if it is none.
func terminal(to io.Writer) *os.File {
	if file, ok := to.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return file
	}
	return nil
}
