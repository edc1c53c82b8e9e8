package vm

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	startOfATest = regexp.MustCompile(`^=== RUN +\w+$`)
	passedTest   = regexp.MustCompile(`^--- PASS: (\w+) \((.*)\)$`)
	failedTest   = regexp.MustCompile(`^\s*--- FAIL: `)
)

// transcript is what a guest's tests print with -test.v, less that of the tests that passed.
type transcript struct {
	kept    []string          // of tests that failed
	current []string          // since the last test started
	failed  bool              // whether current has a failure
	passed  map[string]string // how long each took, by its name
}

func (s *transcript) add(line string) {
	if startOfATest.MatchString(line) {
		s.endTest()
	}
	s.current = append(s.current, line)
	s.failed = s.failed || failedTest.MatchString(line)
	if passed := passedTest.FindStringSubmatch(line); passed != nil {
		if s.passed == nil {
			s.passed = map[string]string{}
		}
		s.passed[passed[1]] = passed[2]
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
	var said transcript
	for line := range strings.Lines(`booting
=== RUN   TestA
=== RUN   TestA/part
    a_test.go:1: chatter
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
	if diff := cmp.Diff(map[string]string{"TestA": "0.10s", "TestC": "0.10s"}, said.passed); diff != "" {
		t.Errorf("the tests that passed (-want +got):\n%s", diff)
	}
}
