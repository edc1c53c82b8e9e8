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
	MovesCursor bool // a terminal that can show a picture, going by TERM
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
	isSet := func(name string) bool {
		return slices.ContainsFunc(environ, func(variable string) bool {
			value, isIt := strings.CutPrefix(variable, name+"=")
			return isIt && value != ""
		})
	}
	isDumb := slices.Contains(environ, "TERM=dumb")
	s.MovesCursor = isSet("TERM") && !isDumb
	s.Colour = !isSet("NO_COLOR") && !isDumb
	return s
}

// IsTerminal reports whether a stream of the process is a terminal.
func IsTerminal(stream any) bool { return terminal(stream) != nil }

// terminal returns the terminal that a stream is; nil if it is none.
func terminal(stream any) *os.File {
	if file, ok := stream.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return file
	}
	return nil
}
