package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// story is all that was done and happened, beside what the clients saw. It is also told while it goes on. Its methods may be called at the
// same time.
type story struct {
	begin time.Time
	mu    sync.Mutex
	lines []line
}

// line is one moment of a story.
type line struct {
	at   time.Time
	who  string // whose word it is: "event", "power", a node
	text string
}

// tell adds a line, and prints it.
func (s *story) tell(who, text string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.lines = append(s.lines, line{now, who, text})
	fmt.Printf("%7.1f s  %s\n", now.Sub(s.begin).Seconds(), text)
	return now
}

// say tells what the program itself does.
func (s *story) say(format string, args ...any) { s.tell("soak", fmt.Sprintf(format, args...)) }

// Write takes a line of the lab's log, about a host's power. The time in front is the story's to say.
func (s *story) Write(text []byte) (int, error) {
	if _, what, ok := strings.Cut(strings.TrimSpace(string(text)), " "); ok {
		s.tell("power", "   "+what)
	}
	return len(text), nil
}

// told returns all lines so far.
func (s *story) told() []line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]line(nil), s.lines...)
}
