package doctor

import (
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Result is the result of a check.
type Result int

// The results, from the best to the worst.
const (
	OK Result = iota
	Warning
	Failure
)

// String returns the word for the result, in the text and in JSON.
func (v Result) String() string { return [...]string{"ok", "warning", "failure"}[v] }

// MarshalText implements encoding.TextMarshaler.
func (v Result) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Checked is a check that was carried out, with its result.
type Checked struct {
	Resource string   `json:"resource,omitempty"` // empty: the check is about the cluster
	Group    string   `json:"group"`
	Check    string   `json:"check"`
	Result   Result   `json:"result"`
	Seen     string   `json:"seen"`          // what was observed
	Why      string   `json:"why,omitempty"` // why it matters; only with a warning or failure
	Do       []string `json:"do,omitempty"`  // commands that solve it; a line that begins with # is a remark
}

// A check answers one question about a subject.
type check struct {
	group, name string
	why         string // why it matters; shown with a warning or failure
	applies     func(s subject) bool
	judge       func(s subject) answer
}

// A subject is what a check examines: the cluster, or a resource on this node.
type subject struct {
	Facts
	Resource
	cib    cib
	layout clusterip.Layout // see Resource.Layout
	nic    clusterip.NIC    // the layout's interface; its index is 0 if the node has none
}

// An answer is the result of a check, with what was observed and the commands that solve it.
type answer struct {
	result Result
	seen   string
	do     []string
}

func ok(format string, args ...any) answer { return answer{seen: fmt.Sprintf(format, args...)} }

func warn(seen string, do ...string) answer { return answer{Warning, seen, do} }

func fail(seen string, do ...string) answer { return answer{Failure, seen, do} }

// failed is the failure for an error. Joined errors are in one line.
func failed(err error, do ...string) answer {
	return fail(strings.ReplaceAll(err.Error(), "\n", "; "), do...)
}

// unknown is the answer for what could not be read: it is never ok.
func unknown(err error, do ...string) answer {
	return warn("unknown: "+err.Error(), do...)
}

// all joins answers: the worst result counts. The text good is shown only if all answers are ok.
func all(good string, answers ...answer) answer {
	joined := answer{seen: good}
	var seen []string
	for _, a := range answers {
		joined.result = max(joined.result, a.result)
		if a.result > OK {
			seen = append(seen, a.seen)
			joined.do = append(joined.do, a.do...)
		}
	}
	if len(seen) > 0 {
		joined.seen = strings.Join(seen, "; ")
	}
	return joined
}

// Examine carries out all checks that apply. Texts may contain names from outside, such as that of a node. So each is made one line without
// control characters, which a terminal would obey.
func Examine(facts Facts) []Checked {
	var checked []Checked
	examine := func(s subject, name string, checks []check) {
		for _, c := range checks {
			if !c.applies(s) {
				continue
			}
			a := c.judge(s)
			f := Checked{Resource: name, Group: c.group, Check: c.name, Result: a.result, Seen: ocf.OneLine(a.seen)}
			if a.result > OK {
				f.Why = c.why
				for _, line := range a.do {
					f.Do = append(f.Do, ocf.OneLine(line))
				}
			}
			checked = append(checked, f)
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
	return checked
}

// Worst returns the worst of all results.
func Worst(checked []Checked) Result {
	worst := OK
	for _, f := range checked {
		worst = max(worst, f.Result)
	}
	return worst
}

// resourceChecks returns the checks of each resource, in the order in which they are shown.
func resourceChecks() []check {
	return slices.Concat(cloneChecks(), kernelChecks(), nicChecks(), installedChecks(), firewallChecks(), lanChecks())
}

// Conditions that several checks have.

func always(subject) bool { return true }

func hasNIC(s subject) bool { return s.State.Err == nil && s.nic.Index != 0 }

func isConfigured(s subject) bool { return s.Configured != nil }

func isCloned(s subject) bool { return isConfigured(s) && s.Configured.Clone != "" }

func drains(s subject) bool { return s.Spec.Drain > 0 }

// tracks reports whether conntrack must have entries for the connections of the buckets.
func tracks(s subject) bool { return drains(s) || s.layout.Backend == clusterip.Match }

// update returns the command that changes a parameter.
func (s subject) update(change string) string {
	if s.Configured == nil {
		return "# use another parameter: " + change
	}
	return fmt.Sprintf("pcs resource update %s %s", s.name(), change)
}

func both(a, b func(subject) bool) func(subject) bool {
	return func(s subject) bool { return a(s) && b(s) }
}
