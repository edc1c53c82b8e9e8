package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A story is what the reader sees: chapters with commands, what they print, and claims that hold or do not.
type story struct {
	out      io.Writer
	colour   bool
	enter    <-chan struct{} // a value for each line of input; nil: do not wait
	chapters int
	claims   int
	failed   []string
}

// width is how long a line may be.
const width = 100

// ANSI attributes (ECMA-48, SGR).
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func newStory(out *os.File, step bool) *story {
	noColour := os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" //nolint:misspell // the variable's name, no-color.org
	s := &story{out: out, colour: isTerminal(out) && !noColour}
	if step {
		s.enter = lines(os.Stdin)
	}
	return s
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// lines sends a value for each line read, until the input ends. The reader ends with the process: a read cannot be cancelled.
func lines(r io.Reader) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		for in := bufio.NewScanner(r); in.Scan(); {
			c <- struct{}{}
		}
	}()
	return c
}

// paint gives text an attribute where that can be seen.
func (s *story) paint(attribute, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + attribute + "m" + text + "\x1b[0m"
}

// line prints one line of the story. Errors do not matter: when the reader of a pipe ends, SIGPIPE ends the demo.
func (s *story) line(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }

// chapter begins one, after the reader has seen enough of the last.
func (s *story) chapter(ctx context.Context, title string) error {
	if s.enter != nil && s.chapters > 0 {
		s.line("\n   %s", s.paint(dim, "Enter goes on"))
		select {
		case <-s.enter:
		case <-ctx.Done():
		}
	}
	s.chapters++
	s.line("\n%s", s.paint(bold, fmt.Sprintf("%d  %s", s.chapters, title)))
	return context.Cause(ctx)
}

// say prints an indented line.
func (s *story) say(format string, args ...any) { s.line("   "+format, args...) }

// command shows what is typed, and where.
func (s *story) command(host, line string) {
	s.line("     %s %s", s.paint(dim, host+"#"), s.paint(cyan, line))
}

// output shows what a command printed.
func (s *story) output(text string) {
	const indent, hanging = "         ", "    "
	for line := range strings.Lines(text) {
		for i, part := range wrap(strings.TrimSpace(line), width-len(indent)-len(hanging)) {
			if i > 0 {
				part = hanging + part
			}
			s.line("%s%s", indent, part)
		}
	}
}

// wrap breaks a line between words.
func wrap(line string, width int) []string {
	var parts []string
	for len(line) > width {
		at := strings.LastIndexByte(line[:width+1], ' ')
		if at <= 0 {
			break
		}
		parts = append(parts, line[:at])
		line = line[at+1:]
	}
	return append(parts, line)
}

// claim prints what holds, or the fault if there is one. It prints nothing when the story is interrupted.
func (s *story) claim(ctx context.Context, fault error, format string, args ...any) {
	if ctx.Err() != nil {
		return
	}
	s.claims++
	text := fmt.Sprintf(format, args...)
	if fault == nil {
		s.say("%s %s", s.paint(green, "ok"), text)
		return
	}
	s.failed = append(s.failed, text)
	s.say("%s %s:", s.paint(red, "FAILED:"), text)
	s.output(fault.Error())
}

// end prints the result.
func (s *story) end(took time.Duration) error {
	if len(s.failed) > 0 {
		return fmt.Errorf("%d of %d claims do not hold:\n  %s", len(s.failed), s.claims, strings.Join(s.failed, "\n  "))
	}
	s.line("\n%s", s.paint(bold, fmt.Sprintf("All %d claims hold (%.0f s). The namespaces are gone again.", s.claims, took.Seconds())))
	return nil
}
