package output

import (
	"fmt"
	"io"
	"time"
)

const (
	clearLine    = "\r\x1b[K" // ECMA-48, EL
	progressStep = 200 * time.Millisecond
)

// A Progress is a line that changes while a file is read. It is shown on a terminal only.
type Progress struct {
	to       io.Writer
	size     int64 // of the file in bytes; 0: unknown
	reported time.Time
	shown    bool
}

// NewProgress begins to read a file of this size in bytes; 0 if it is unknown.
func NewProgress(to io.Writer, size int64) *Progress {
	if terminal(to) == nil {
		to = nil
	}
	return &Progress{to: to, size: size, reported: time.Now()}
}

// Report shows how many bytes and lines have been read.
func (p *Progress) Report(read int64, lines uint64) {
	if p.to == nil || time.Since(p.reported) < progressStep {
		return
	}
	p.reported, p.shown = time.Now(), true
	text := fmt.Sprintf("%d MB, %d lines", read/1e6, lines)
	if p.size > 0 {
		text = fmt.Sprintf("%d%%, %s", min(100, 100*read/p.size), text)
	}
	_, _ = fmt.Fprint(p.to, clearLine+text)
}

// End clears the line.
func (p *Progress) End() {
	if p.shown {
		_, _ = fmt.Fprint(p.to, clearLine)
	}
}
