package vm

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// guests run side by side, as many as there are processors. Each runs the tests of package kernel that are marked for it: each thing that
// the agent asks of a kernel, once, and what needs modules that may be removed, or that the machine's own kernel may lack (build tag
// guest). All kernels run the same tests. Together, data-path and target take as long as match.
var guests = []string{"match", "data-path", "target", "interfaces"}

var (
	startOfATest = regexp.MustCompile(`^=== RUN +\w+$`)
	markOfATest  = regexp.MustCompile(`^=== ATTR +(\S+) guests (.*)$`)
	endOfATest   = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \((.*)\)$`)
	offer        = regexp.MustCompile(`^ +\w+_test\.go:\d+: the kernel offers (.*)$`) // TestBackendsOfTheKernel
)

// transcript is what a guest's tests print with -test.v, less that of the tests that passed.
type transcript struct {
	guest   string
	kept    []string // of tests that failed
	current []string // since the last test started
	failed  bool     // whether current has a failure
	offered string   // the backends that the agent has found in the kernel

	marked   []string          // the tests and subtests that are marked for the guest
	misspelt []string          // marks for guests that do not exist
	verdicts map[string]string // of all tests and subtests that ended
	ended    func(name, verdict, duration string)
}

// newTranscript calls ended for each test that has ended, without subtests, of which all or a part is marked for the guest.
func newTranscript(guest string, ended func(name, verdict, duration string)) *transcript {
	return &transcript{guest: guest, verdicts: map[string]string{}, ended: ended}
}

func (s *transcript) add(line string) {
	if startOfATest.MatchString(line) {
		s.endTest()
	}
	s.current = append(s.current, line)
	if found := offer.FindStringSubmatch(line); found != nil {
		s.offered = found[1]
	}
	if found := markOfATest.FindStringSubmatch(line); found != nil {
		s.mark(found[1], strings.Fields(found[2]))
	}
	if end := endOfATest.FindStringSubmatch(line); end != nil {
		verdict, name := end[1], end[2]
		s.verdicts[name] = verdict
		s.failed = s.failed || verdict == "FAIL"
		if !strings.Contains(name, "/") && slices.ContainsFunc(s.marked, func(m string) bool { return strings.HasPrefix(m+"/", name+"/") }) {
			s.ended(name, verdict, end[3])
		}
	}
}

func (s *transcript) mark(name string, forGuests []string) {
	for _, guest := range forGuests {
		if !slices.Contains(guests, guest) {
			s.misspelt = append(s.misspelt, fmt.Sprintf("%s is marked for guest %q, which does not exist", name, guest))
		}
	}
	if slices.Contains(forGuests, s.guest) {
		s.marked = append(s.marked, name)
	}
}

func (s *transcript) endTest() {
	if s.failed {
		s.kept = append(s.kept, s.current...)
	}
	s.current, s.failed = nil, false
}

// failures ends the transcript. What comes last is shown whatever it is: a guest that crashes has printed the reason there.
func (s *transcript) failures() string {
	return strings.Join(append(s.kept, s.current...), "\n")
}

// allPassed returns an error unless there are tests that are marked for the guest, and all of them have passed: one that did not end, or
// was skipped, has not.
func (s *transcript) allPassed() error {
	var errs []error
	if len(s.marked) == 0 {
		errs = append(errs, fmt.Errorf("no test is marked for guest %q", s.guest))
	}
	for _, name := range s.marked {
		if verdict := s.verdicts[name]; verdict != "PASS" {
			errs = append(errs, fmt.Errorf("%s has not passed in the guest: %q", name, verdict))
		}
	}
	for _, text := range s.misspelt {
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

func TestTranscriptShowsTheTestsThatFailed(t *testing.T) {
	var ends []string
	output := newTranscript("match", func(name, verdict, duration string) { ends = append(ends, name+" "+verdict+" "+duration) })
	for line := range strings.Lines(`booting
=== RUN   TestA
=== ATTR  TestA guests match data-path
=== RUN   TestA/part
    a_test.go:1: chatter
    a_test.go:2: the kernel offers nftables xt_cluster
--- PASS: TestA (0.10s)
    --- PASS: TestA/part (0.10s)
=== RUN   TestB
=== ATTR  TestB guests match
    b_test.go:1: why
--- FAIL: TestB (0.10s)
    --- FAIL: TestB/part (0.10s)
=== RUN   TestOther
--- SKIP: TestOther (0.00s)
=== RUN   TestC
=== RUN   TestC/part
=== ATTR  TestC/part guests match
--- PASS: TestC (0.10s)
    --- PASS: TestC/part (0.10s)
FAIL
`) {
		output.add(strings.TrimSuffix(line, "\n"))
	}
	const want = `=== RUN   TestB
=== ATTR  TestB guests match
    b_test.go:1: why
--- FAIL: TestB (0.10s)
    --- FAIL: TestB/part (0.10s)
=== RUN   TestC
=== RUN   TestC/part
=== ATTR  TestC/part guests match
--- PASS: TestC (0.10s)
    --- PASS: TestC/part (0.10s)
FAIL`
	if got := output.failures(); got != want {
		t.Errorf("shown is\n%s\nwant\n%s", got, want)
	}
	if diff := cmp.Diff([]string{"TestA PASS 0.10s", "TestB FAIL 0.10s", "TestC PASS 0.10s"}, ends); diff != "" {
		t.Errorf("the tests that ended (-want +got):\n%s", diff)
	}
	if output.offered != "nftables xt_cluster" {
		t.Errorf("the kernel offers %q", output.offered)
	}
}

func TestMarkedTestsMustHavePassed(t *testing.T) {
	const marked, ofAnother = "=== ATTR  TestA/part guests match\n", "=== ATTR  TestA guests target\n"
	for name, row := range map[string]struct{ output, want string }{
		"passed": {marked + "--- PASS: TestA (0.10s)\n    --- PASS: TestA/part (0.10s)\n", ""},
		"failed": {
			marked + "--- FAIL: TestA (0.10s)\n    --- FAIL: TestA/part (0.10s)\n", `TestA/part has not passed in the guest: "FAIL"`,
		},
		"skipped": {
			marked + "--- PASS: TestA (0.10s)\n    --- SKIP: TestA/part (0.10s)\n", `TestA/part has not passed in the guest: "SKIP"`,
		},
		"has not ended":     {marked, `TestA/part has not passed in the guest: ""`},
		"for another guest": {ofAnother + "--- SKIP: TestA (0.10s)\n", `no test is marked for guest "match"`},
		"for an unknown guest": {
			marked + "--- PASS: TestA/part (0.10s)\n=== ATTR  TestB guests macth\n", `TestB is marked for guest "macth", which does not exist`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			output := newTranscript("match", func(string, string, string) {})
			for line := range strings.Lines(row.output) {
				output.add(strings.TrimSuffix(line, "\n"))
			}
			got := ""
			if err := output.allPassed(); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}
