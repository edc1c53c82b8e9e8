package ocf

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	maxLogLine    = 4000 // below PIPE_BUF (4096), so that lines of several agents do not mix in one pipe
	maxExitReason = 1500 // all parameters may be at fault; Pacemaker shows the reason in a status line
)

// Logger writes what an agent has to say to the operator, one line for each message with its level in front. Pacemaker puts an
// agent's stderr into its own log.
type Logger struct {
	w     io.Writer
	debug bool
}

// NewLogger returns a Logger that writes each line to w with a single call, and debugging lines only when debug is set.
func NewLogger(w io.Writer, debug bool) *Logger { return &Logger{w: w, debug: debug} }

// Debugf logs what only a developer wants to know.
func (l *Logger) Debugf(format string, args ...any) {
	if l.debug {
		l.line("DEBUG", fmt.Sprintf(format, args...))
	}
}

// Infof logs what was done.
func (l *Logger) Infof(format string, args ...any) { l.line("INFO", fmt.Sprintf(format, args...)) }

// Warningf logs what was odd but did not stop the action.
func (l *Logger) Warningf(format string, args ...any) {
	l.line("WARNING", fmt.Sprintf(format, args...))
}

// Errorf logs what failed.
func (l *Logger) Errorf(format string, args ...any) { l.line("ERROR", fmt.Sprintf(format, args...)) }

func (l *Logger) line(level, text string) { writeLine(l.w, cut(level+": "+OneLine(text), maxLogLine)) }

// ExitReason writes the one line that Pacemaker shows to the operator as the reason of a failure: the prefix and the error's
// text. Joined errors stand beside each other with "; " between them, each text once; the whole is cut at 1500 bytes. No error
// writes nothing.
func ExitReason(w io.Writer, prefix string, err error) {
	if err == nil {
		return
	}
	var reasons []string
	for line := range strings.SplitSeq(err.Error(), "\n") { // errors.Join puts a line break between its errors
		if line = OneLine(line); line != "" && !slices.Contains(reasons, line) {
			reasons = append(reasons, line)
		}
	}
	if len(reasons) == 0 {
		reasons = []string{CodeOf(err).String()}
	}
	writeLine(w, prefix+cut(strings.Join(reasons, "; "), maxExitReason))
}

// writeLine writes a line at once. Nobody can be told that stderr is gone, and no action fails for it.
func writeLine(w io.Writer, line string) { _, _ = io.WriteString(w, line+"\n") }
