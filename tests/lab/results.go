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
	Time     time.Time // to the millisecond
	Node     string
	Resource string // "web-ip:3"
	Action   string // "start", "stop", "monitor", "probe", …
	Outcome  string // "ok", "not running", …, in small letters: Pacemaker 3.0.3 writes "OK"
}

// resultLine is what log_executor_event of Pacemaker's daemons/controld/controld_execd.c writes.
var resultLine = regexp.MustCompile(`(?m)^(\w{3} \d\d \d\d:\d\d:\d\d\.\d{3}) .*Result of (\S+) operation for (\S+) on (\S+): ([^(|\n]*)`)

// Results returns how all actions ended since a moment, on all nodes, in the order of time.
func (l *Lab) Results(since time.Time) ([]Result, error) {
	var results []Result
	for _, h := range l.Hosts {
		text, err := os.ReadFile(filepath.Join(h.disk, "var-log/pacemaker/pacemaker.log"))
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
		// The log names no year. Across New Year's Eve a line is taken for an old one.
		at, err := time.ParseInLocation("2006 Jan 02 15:04:05.000", fmt.Sprint(since.Year())+" "+m[1], since.Location())
		if err != nil {
			return nil, err
		}
		if at.Before(since.Truncate(time.Millisecond)) {
			continue
		}
		results = append(results, Result{Time: at, Action: m[2], Resource: m[3], Node: m[4], Outcome: strings.ToLower(strings.TrimSpace(m[5]))})
	}
	return results, nil
}

// OK tells whether an action ended as it should. A probe may find either.
func (r Result) OK() bool {
	return r.Outcome == "ok" || r.Action == "probe" && r.Outcome == "not running"
}

func (r Result) String() string {
	return fmt.Sprintf("%s %s of %s on %s: %s", r.Time.Format("15:04:05.000"), r.Action, r.Resource, r.Node, r.Outcome)
}
