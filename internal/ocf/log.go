package ocf

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	maxLogLine    = 4000 // below PIPE_BUF (4096), so that lines of several agents do not mix in one pipe
	maxExitReason = 1700 // enough for faults in all parameters; Pacemaker shows the reason in a status line
)

// Logger writes one line for each message, with its level in front. Pacemaker copies an agent's stderr into its own log.
type Logger struct {
	w     io.Writer
	debug bool
}

// NewLogger returns a Logger that writes each line to w with a single call, and debugging lines only when debug is set.
func NewLogger(w io.Writer, debug bool) *Logger { return &Logger{w: w, debug: debug} }

// Debugf logs details for developers.
func (l *Logger) Debugf(format string, args ...any) {
	if l.debug {
		l.line("DEBUG", fmt.Sprintf(format, args...))
	}
}

// Infof logs what the agent did.
func (l *Logger) Infof(format string, args ...any) { l.line("INFO", fmt.Sprintf(format, args...)) }

// Warningf logs a problem that did not stop the action.
func (l *Logger) Warningf(format string, args ...any) {
	l.line("WARNING", fmt.Sprintf(format, args...))
}

// Errorf logs what failed.
func (l *Logger) Errorf(format string, args ...any) { l.line("ERROR", fmt.Sprintf(format, args...)) }

func (l *Logger) line(level, text string) { writeLine(l.w, cut(level+": "+OneLine(text), maxLogLine)) }

// ExitReason writes the line that Pacemaker shows to the operator as the reason of a failure: the prefix and the error's text. It separates
// joined errors by "; ", omits repeated texts, and cuts the line at 1700 bytes. Without an error it writes nothing.
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

// writeLine writes a line with one call. It ignores errors: a closed stderr must not make an action fail.
func writeLine(w io.Writer, line string) { _, _ = io.WriteString(w, line+"\n") }
