package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress prints on stderr how far the measurement is: on a terminal in one line that changes, elsewhere in few lines.
type progress struct {
	out      *os.File
	terminal bool
	printed  time.Time
}

const (
	clearLine = "\r\x1b[K" // ECMA-48, EL
	seldom    = 15 * time.Second
)

func newProgress(out *os.File) *progress {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &progress{out: out, terminal: err == nil}
}

func (p *progress) report(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case p.terminal:
		_, _ = fmt.Fprint(p.out, clearLine+text)
	case time.Since(p.printed) > seldom:
		p.printed = time.Now()
		_, _ = fmt.Fprintln(p.out, text)
	}
}

// end leaves nothing on a terminal.
func (p *progress) end() {
	if p.terminal {
		_, _ = fmt.Fprint(p.out, clearLine)
	}
}
