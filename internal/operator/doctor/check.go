package doctor

import (
	"errors"
	"fmt"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Verdict is what a check says.
type Verdict int

// The verdicts, from good to bad.
const (
	OK Verdict = iota
	Warning
	Failure
)

// String is how a verdict is written in JSON, too.
func (v Verdict) String() string { return [...]string{"ok", "warning", "failure"}[v] }

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// A Finding is what one check has found.
type Finding struct {
	Resource string   `json:"resource,omitempty"` // none: it is about the cluster
	Group    string   `json:"group"`
	Check    string   `json:"check"`
	Verdict  Verdict  `json:"verdict"`
	Seen     string   `json:"seen"`
	Why      string   `json:"why,omitempty"` // it matters
	Do       []string `json:"do,omitempty"`  // what to type; a line that begins with # is for reading
}

// A check looks at one thing.
type check struct {
	group, name string
	why         string
	applies     func(s subject) bool
	judge       func(s subject) answer
}

// A subject is what a check looks at: the cluster, or a resource on this node.
type subject struct {
	Facts
	Resource
	cib    cib
	layout clusterip.Layout // as far as it can be told
	nic    clusterip.NIC    // of the layout; its index is 0 if it is none
}

// An answer is a check's, without what the table says of it.
type answer struct {
	verdict Verdict
	seen    string
	do      []string
}

func ok(format string, args ...any) answer { return answer{seen: fmt.Sprintf(format, args...)} }

func warn(seen string, do ...string) answer { return answer{Warning, seen, do} }

func fail(seen string, do ...string) answer { return answer{Failure, seen, do} }

// cannotTell is for what could not be read: that is no health.
func cannotTell(err error, do ...string) answer {
	return warn("could not tell: "+err.Error(), do...)
}

// all joins answers: the worst counts, and the good ones are not mentioned beside bad ones.
func all(good string, answers ...answer) answer {
	joined := answer{seen: good}
	var seen []string
	for _, a := range answers {
		joined.verdict = max(joined.verdict, a.verdict)
		if a.verdict > OK {
			seen = append(seen, a.seen)
			joined.do = append(joined.do, a.do...)
		}
	}
	if len(seen) > 0 {
		joined.seen = strings.Join(seen, "; ")
	}
	return joined
}

// lines splits an error that is several into theirs.
func lines(err error) []string {
	var several interface{ Unwrap() []error }
	if !errors.As(err, &several) {
		return []string{err.Error()}
	}
	var all []string
	for _, one := range several.Unwrap() {
		if one != nil {
			all = append(all, lines(one)...)
		}
	}
	return all
}

// Examine carries out all checks that apply. What is said may have come from outside, such as the name of a node: no terminal must take it
// for more than text.
func Examine(facts Facts) []Finding {
	var findings []Finding
	examine := func(s subject, name string, checks []check) {
		for _, c := range checks {
			if !c.applies(s) {
				continue
			}
			a := c.judge(s)
			f := Finding{Resource: name, Group: c.group, Check: c.name, Verdict: a.verdict, Seen: ocf.OneLine(a.seen)}
			if a.verdict > OK {
				f.Why = c.why
				for _, line := range a.do {
					f.Do = append(f.Do, ocf.OneLine(line))
				}
			}
			findings = append(findings, f)
		}
	}
	configuration := cib{facts.Configuration.Value}
	for _, resource := range facts.Resources {
		s := subject{Facts: facts, Resource: resource, cib: configuration}
		s.layout, _ = resource.Layout()
		for _, nic := range resource.State.Value.NICs {
			if nic.Index == s.layout.NICIndex {
				s.nic = nic
			}
		}
		examine(s, resource.name(), resourceChecks())
	}
	examine(subject{Facts: facts, cib: configuration}, "", clusterChecks())
	return findings
}

// Worst is the worst of all verdicts.
func Worst(findings []Finding) Verdict {
	worst := OK
	for _, f := range findings {
		worst = max(worst, f.Verdict)
	}
	return worst
}

// resourceChecks are those of each resource, in the order in which they are shown.
func resourceChecks() []check {
	var checks []check
	for _, more := range [][]check{cloneChecks(), kernelChecks(), nicChecks(), laidChecks(), firewallChecks(), lanChecks()} {
		checks = append(checks, more...)
	}
	return checks
}

// Conditions that several checks have.

func always(subject) bool { return true }

func hasNIC(s subject) bool { return s.State.Err == nil && s.nic.Index != 0 }

func isConfigured(s subject) bool { return s.Configured != nil }

func isCloned(s subject) bool { return isConfigured(s) && s.Configured.Clone != "" }

func drains(s subject) bool { return s.Spec.Drain > 0 }

// tracks tells whether the buckets' connections must be known to conntrack.
func tracks(s subject) bool { return drains(s) || s.layout.Backend == clusterip.Match }

// update is what to type to change a parameter.
func (s subject) update(change string) string {
	if s.Configured == nil {
		return "# take another parameter: " + change
	}
	return fmt.Sprintf("pcs resource update %s %s", s.name(), change)
}

func both(a, b func(subject) bool) func(subject) bool {
	return func(s subject) bool { return a(s) && b(s) }
}
