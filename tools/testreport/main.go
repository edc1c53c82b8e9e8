// Command testreport reads the output of `go test -json`, and prints a line for each package, the whole output of failed tests, and
// at once the progress of a long test: t.Attr("progress", …). It exits with 1 when a test failed, when one was skipped, and when
// none ran: a check that did not take place must not look like one that passed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// event is one line of `go test -json` (go doc test2json, go help buildjson).
type event struct {
	Action  string
	Package string
	Test    string // empty: the package as a whole
	Output  string
	Elapsed float64 // seconds
	Key     string  // of an attribute
	Value   string  // of an attribute
}

// test names a test, or a package where there is no name.
type test struct{ pkg, name string }

// report keeps what tests print until they end, because only failures show it.
type report struct {
	out      io.Writer
	output   map[test][]string
	passed   map[string]int // by package
	failed   map[string]int
	skipped  []test
	messages []string // by failed tests, shortened
}

// message is the first line of what a test logged with T.Log or T.Error. Of each message, messageLines lines are repeated.
var message = regexp.MustCompile(`^\s+\w+_test\.go:\d+: `)

const messageLines = 5

func main() {
	ok, err := run(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) (ok bool, err error) {
	r := report{out: out, output: map[test][]string{}, passed: map[string]int{}, failed: map[string]int{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		var e event
		switch {
		case line == "":
		case json.Unmarshal([]byte(line), &e) != nil:
			fmt.Fprint(out, line) // not from a test
		default:
			r.add(e)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	// Again, at the end: the logs of a test can be so long that what it found is far above.
	for _, line := range r.messages {
		fmt.Fprint(out, line)
	}
	for _, t := range r.skipped {
		fmt.Fprintf(out, "SKIPPED, which counts as a failure: %s %s\n", t.pkg, t.name)
	}
	passed, failed := sum(r.passed), sum(r.failed)
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, len(r.skipped))
	return passed > 0 && failed == 0 && len(r.skipped) == 0, nil
}

func sum(counts map[string]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}

func (r *report) add(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.output[t] = append(r.output[t], e.Output)
	case "attr":
		if e.Key == "progress" {
			fmt.Fprintln(r.out, e.Value)
		}
	case "pass", "fail", "skip":
		if t.name == "" {
			r.endPackage(e)
		} else {
			r.endTest(e.Action, t)
		}
	}
}

func (r *report) endTest(action string, t test) {
	switch action {
	case "pass":
		r.passed[t.pkg]++
		delete(r.output, t)
	case "skip":
		r.skipped = append(r.skipped, t)
		r.show(t)
	case "fail":
		r.failed[t.pkg]++
		r.show(t)
	}
}

func (r *report) endPackage(e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok    %-40s %5d tests %7.1f s\n", e.Package, r.passed[e.Package], e.Elapsed)
	case "fail":
		// Tests that have not ended are those that a panic or the time limit interrupted.
		for t := range r.output {
			if t.pkg == e.Package {
				r.show(t)
			}
		}
		if r.failed[e.Package] == 0 {
			r.failed[e.Package] = 1 // for example, it could not be built
		}
		fmt.Fprintf(r.out, "FAIL  %-40s %5d tests %7.1f s\n", e.Package, r.passed[e.Package], e.Elapsed)
	}
}

// show prints the output of a test or package, and keeps its messages.
func (r *report) show(t test) {
	var messages []string
	left := 0
	for _, line := range r.output[t] {
		fmt.Fprint(r.out, line)
		if message.MatchString(line) {
			left = messageLines
		}
		if left > 0 {
			messages = append(messages, line)
			left--
		}
	}
	if len(messages) > 0 {
		r.messages = append(append(r.messages, strings.TrimSpace(t.pkg+" "+t.name)+" logged, shortened:\n"), messages...)
	}
	delete(r.output, t)
}
