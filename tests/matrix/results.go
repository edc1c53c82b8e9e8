package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// results are those of a row's tests, without subtests; for a kernel, those of the tests in the guests of tests/vm.
type results struct {
	passed     []string          // their names
	failed     []string          // likewise, those of skipped tests among them
	attributes map[string]string // what a guest prints about its kernel: linux, backends
}

// result is a table's cell.
func (r results) result() string {
	if len(r.failed) == 0 {
		return fmt.Sprintf("all %d passed", len(r.passed))
	}
	return fmt.Sprintf("%d of %d passed; not: %s", len(r.passed), len(r.passed)+len(r.failed), strings.Join(r.failed, ", "))
}

// test runs a target of the Makefile with its report as JSON, and counts. Each test's end is a line of progress.
func test(ctx context.Context, arguments ...string) (results, error) {
	cmd := exec.CommandContext(ctx, "make", append(arguments, "--no-print-directory", "report=cat")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return results{}, err
	}
	if err := cmd.Start(); err != nil {
		return results{}, err
	}
	var r results
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		r.add(line)
		if err != nil {
			break // the end, or a crash of the program: Wait returns it
		}
	}
	slices.Sort(r.failed)
	// make fails when a test does; then the results show which.
	if err := cmd.Wait(); err != nil && len(r.failed) == 0 {
		return r, errors.Join(fmt.Errorf("make %s: %w", strings.Join(arguments, " "), err), context.Cause(ctx))
	}
	return r, nil
}

// add counts a line of `go test -json` (go doc test2json).
func (r *results) add(line string) {
	var e struct {
		Action, Package, Test, Key, Value string
		Elapsed                           float64
	}
	if json.Unmarshal([]byte(line), &e) != nil {
		return
	}
	switch {
	case e.Test == "" && e.Action == "fail": // perhaps it was not even built
		r.count("package "+path.Base(e.Package), false)
	case e.Test == "":
	case e.Action == "attr" && e.Key == "progress":
		fmt.Println(e.Value)
	case e.Action == "attr" && e.Key == "guest-test":
		verdict, name, _ := strings.Cut(e.Value, " ")
		r.count(name, verdict == "PASS")
	case e.Action == "attr":
		if r.attributes == nil {
			r.attributes = map[string]string{}
		}
		r.attributes[e.Key] = e.Value
	case strings.Contains(e.Test, "/"):
	case e.Action == "pass" && e.Test == guests:
	case e.Action == "pass", e.Action == "fail", e.Action == "skip":
		r.count(e.Test, e.Action == "pass")
		fmt.Printf("%s %s (%.0f s)\n", e.Action, e.Test, e.Elapsed)
	}
}

// guests is the test of tests/vm that boots guests. Its own result counts if it is a failure: a guest may end without results.
const guests = "TestKernel"

// count counts a test once, though several guests may run it: it passed if it passed in each.
func (r *results) count(name string, passed bool) {
	if !passed {
		r.passed = slices.DeleteFunc(r.passed, func(n string) bool { return n == name })
	}
	switch {
	case slices.Contains(r.failed, name), slices.Contains(r.passed, name):
	case passed:
		r.passed = append(r.passed, name)
	default:
		r.failed = append(r.failed, name)
	}
}
