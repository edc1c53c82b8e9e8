package vm

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	startOfATest = regexp.MustCompile(`^=== RUN +\w+$`)
	endOfATest   = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\w+) \((.*)\)$`)
	failedTest   = regexp.MustCompile(`^\s*--- FAIL: `)
	offer        = regexp.MustCompile(`^ +\w+_test\.go:\d+: the kernel offers (.*)$`) // TestBackendsOfTheKernel
)

// transcript is what a guest's tests print with -test.v, less that of the tests that passed.
type transcript struct {
	kept    []string // of tests that failed
	current []string // since the last test started
	failed  bool     // whether current has a failure
	offered string   // the backends that the agent has found in the kernel
	ended   func(name, verdict, duration string)
}

func (s *transcript) add(line string) {
	if startOfATest.MatchString(line) {
		s.endTest()
	}
	s.current = append(s.current, line)
	s.failed = s.failed || failedTest.MatchString(line)
	if found := offer.FindStringSubmatch(line); found != nil {
		s.offered = found[1]
	}
	if end := endOfATest.FindStringSubmatch(line); end != nil {
		s.ended(end[2], end[1], end[3])
	}
}

func (s *transcript) endTest() {
	if s.failed {
		s.kept = append(s.kept, s.current...)
	}
	s.current, s.failed = nil, false
}

// failures ends the transcript. What comes last is shown whatever it is: a guest that dies has said there why.
func (s *transcript) failures() string {
	return strings.Join(append(s.kept, s.current...), "\n")
}

func TestTranscriptShowsTheTestsThatFailed(t *testing.T) {
	var ends []string
	said := transcript{ended: func(name, verdict, duration string) { ends = append(ends, name+" "+verdict+" "+duration) }}
	for line := range strings.Lines(`booting
=== RUN   TestA
=== RUN   TestA/part
    a_test.go:1: chatter
    a_test.go:2: the kernel offers nftables xt_cluster
--- PASS: TestA (0.10s)
    --- PASS: TestA/part (0.10s)
=== RUN   TestB
    b_test.go:1: why
--- FAIL: TestB (0.10s)
    --- FAIL: TestB/part (0.10s)
=== RUN   TestC
--- PASS: TestC (0.10s)
    --- PASS: TestC/part (0.10s)
FAIL
`) {
		said.add(strings.TrimSuffix(line, "\n"))
	}
	const want = `=== RUN   TestB
    b_test.go:1: why
--- FAIL: TestB (0.10s)
    --- FAIL: TestB/part (0.10s)
=== RUN   TestC
--- PASS: TestC (0.10s)
    --- PASS: TestC/part (0.10s)
FAIL`
	if got := said.failures(); got != want {
		t.Errorf("shown is\n%s\nwant\n%s", got, want)
	}
	if diff := cmp.Diff([]string{"TestA PASS 0.10s", "TestB FAIL 0.10s", "TestC PASS 0.10s"}, ends); diff != "" {
		t.Errorf("the tests that ended (-want +got):\n%s", diff)
	}
	if said.offered != "nftables xt_cluster" {
		t.Errorf("the kernel offers %q", said.offered)
	}
}
