package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// story is all that was done and happened, beside what the clients saw. Each line is also printed at once. Its methods may be called at the
// same time.
type story struct {
	begin time.Time
	mu    sync.Mutex
	lines []line
}

// line is one moment of a story.
type line struct {
	at   time.Time
	who  string // the line's origin: "event", "power", a node
	text string
}

// add adds a line, and prints it.
func (s *story) add(who, text string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.lines = append(s.lines, line{now, who, text})
	fmt.Printf("%7.1f s  %s\n", now.Sub(s.begin).Seconds(), text)
	return now
}

// say adds a line about the program itself.
func (s *story) say(format string, args ...any) { s.add("soak", fmt.Sprintf(format, args...)) }

// Write adds a line of the lab's log, about a host's power. The story has its own times, so the line's is cut off.
func (s *story) Write(text []byte) (int, error) {
	if _, what, ok := strings.Cut(strings.TrimSpace(string(text)), " "); ok {
		s.add("power", "   "+what)
	}
	return len(text), nil
}

// all returns all lines so far.
func (s *story) all() []line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]line(nil), s.lines...)
}
