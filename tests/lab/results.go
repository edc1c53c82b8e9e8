package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Result is how an action on a resource ended, as the controller of its node logged it.
type Result struct {
	Time     time.Time // to the millisecond; that of Pacemaker 2.0.5, to the second
	Node     string
	Resource string // "web-ip:3"
	Action   string // "start", "stop", "monitor", "probe", …
	Outcome  string // "ok", "not running", …, in small letters: Pacemaker 3.0.3 writes "OK"
}

// resultLine is what log_executor_event of Pacemaker's daemons/controld/controld_execd.c writes.
var resultLine = regexp.MustCompile(`(?m)^(\w{3} \d\d \d\d:\d\d:\d\d)(\.\d{3})? .*Result of (\S+) operation for (\S+) on (\S+): ([^(|\n]*)`)

// Now returns a moment for Results: where logs have whole seconds only, the beginning of the next one.
func (l *Lab) Now() time.Time {
	now := time.Now()
	for _, h := range l.Hosts {
		text, err := os.ReadFile(h.log())
		if line := resultLine.FindStringSubmatch(string(text)); err == nil && line != nil && line[2] == "" {
			next := now.Truncate(time.Second).Add(time.Second)
			time.Sleep(time.Until(next))
			return next
		}
	}
	return now
}

// log is where Pacemaker's log of the host is on the machine.
func (h *Host) log() string { return filepath.Join(h.disk, "var-log/pacemaker/pacemaker.log") }

// Results returns how all actions ended since a moment of Now, on all nodes, in the order of time.
func (l *Lab) Results(since time.Time) ([]Result, error) {
	var results []Result
	for _, h := range l.Hosts {
		text, err := os.ReadFile(h.log())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		found, err := parseResults(string(text), since)
		if err != nil {
			return nil, fmt.Errorf("the log of %s: %w", h.Name, err)
		}
		results = append(results, found...)
	}
	slices.SortStableFunc(results, func(a, b Result) int { return a.Time.Compare(b.Time) })
	return results, nil
}

func parseResults(text string, since time.Time) ([]Result, error) {
	var results []Result
	for _, m := range resultLine.FindAllStringSubmatch(text, -1) {
		at, err := parseStamp(m[1]+m[2], since)
		if err != nil {
			return nil, err
		}
		if at.Before(since.Truncate(time.Millisecond)) {
			continue
		}
		results = append(results, Result{Time: at, Action: m[3], Resource: m[4], Node: m[5], Outcome: strings.ToLower(strings.TrimSpace(m[6]))})
	}
	return results, nil
}

// parseStamp reads a line's time. The log names no year: across New Year's Eve a line is taken for an old one.
func parseStamp(stamp string, since time.Time) (time.Time, error) {
	return time.ParseInLocation("2006 Jan 02 15:04:05", fmt.Sprint(since.Year())+" "+stamp, since.Location())
}

// LogLine is what a daemon of Pacemaker logged on a host. Pacemaker's executor logs the agents' output, too.
type LogLine struct {
	Time                      time.Time // as exact as in Result
	Node, Daemon, Level, Text string
}

// logLine is what libqb writes as Pacemaker formats it (set_format_string of lib/common/logging.c).
var logLine = regexp.MustCompile(`(?m)^(\w{3} \d\d \d\d:\d\d:\d\d(?:\.\d{3})?) (\S+) +(\S+) +\[\d+\] \([^)\n]*\)\s+(\w+): (.*)$`)

// LogLines returns what all hosts logged since a moment and the function wants, in the order of time.
func (l *Lab) LogLines(since time.Time, wanted func(LogLine) bool) ([]LogLine, error) {
	var lines []LogLine
	for _, h := range l.Hosts {
		text, err := os.ReadFile(h.log())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, m := range logLine.FindAllStringSubmatch(string(text), -1) {
			at, err := parseStamp(m[1], since)
			if err != nil {
				return nil, fmt.Errorf("the log of %s: %w", h.Name, err)
			}
			line := LogLine{Time: at, Node: m[2], Daemon: m[3], Level: m[4], Text: m[5]}
			if !at.Before(since.Truncate(time.Second)) && wanted(line) {
				lines = append(lines, line)
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b LogLine) int { return a.Time.Compare(b.Time) })
	return lines, nil
}

// CopyLogs copies Pacemaker's log of each host to a folder.
func (l *Lab) CopyLogs(folder string) error {
	var errs []error
	for _, h := range l.Hosts {
		text, err := os.ReadFile(h.log())
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, h.Name+"-pacemaker.log"), text, 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// OK returns whether an action succeeded. A probe may also find the resource stopped.
func (r Result) OK() bool {
	return r.Outcome == "ok" || r.Action == "probe" && r.Outcome == "not running"
}

func (r Result) String() string {
	return fmt.Sprintf("%s %s of %s on %s: %s", r.Time.Format("15:04:05.000"), r.Action, r.Resource, r.Node, r.Outcome)
}
