//go:build system

package ocftester

import (
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
)

// TestActionsThatDoNotExist covers the optional actions that the agent does not advertise, too. (LSB's status is a command for
// administrators.)
func TestActionsThatDoNotExist(t *testing.T) {
	n := newNode(t)
	for _, action := range []string{"frobnicate", "START", "start ", "promote", "demote", "migrate_to", "migrate_from", "reload", "recover"} {
		t.Run(action, func(t *testing.T) {
			reason := checkStatus(t, n.call(t, service(), action), ocf.ErrUnimplemented)
			if !strings.Contains(reason, strings.TrimSpace(action)) {
				t.Errorf("the reason does not name the action: %q", reason)
			}
			for _, flag := range []string{"--help", "-h", "--version", "--foo", "-x"} {
				checkStatus(t, n.call(t, service(), action, flag), ocf.ErrUnimplemented)
			}
		})
	}
}

// actions are those that a help text must name.
var actions = []string{"start", "stop", "monitor", "meta-data", "validate-all", "reload-agent"}

func TestHelp(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{program, agent} {
		for _, args := range [][]string{{"--help"}, {"-h"}, {"usage"}, {"help"}} {
			t.Run(name+" "+args[0], func(t *testing.T) {
				r := n.run(t, vars{}, append([]string{name}, args...)...)
				if r.ExitCode != 0 {
					t.Errorf("exit status is %d\n%s", r.ExitCode, r.Stderr)
				}
				text := r.Stdout
				if isAction := !strings.HasPrefix(args[0], "-"); isAction {
					if r.Stdout != "" {
						t.Errorf("an action other than meta-data writes to stdout: %q", r.Stdout)
					}
					text = r.Stderr
				} else if r.Stderr != "" {
					t.Errorf("what was asked for goes to stderr: %q", r.Stderr)
				}
				missing := slices.DeleteFunc(slices.Clone(actions), func(action string) bool { return strings.Contains(text, action) })
				if len(missing) > 0 {
					t.Errorf("%q are not named in:\n%s", missing, text)
				}
			})
		}
	}
}

func TestVersion(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{program, agent} {
		for _, flag := range []string{"--version", "-v"} {
			t.Run(name+" "+flag, func(t *testing.T) {
				r := n.run(t, vars{}, name, flag)
				if r.ExitCode != 0 || r.Stderr != "" {
					t.Errorf("exit status is %d, stderr: %q", r.ExitCode, r.Stderr)
				}
				if !strings.Contains(r.Stdout, version) || strings.Count(r.Stdout, "\n") != 1 {
					t.Errorf("stdout is %q, want one line with %s", r.Stdout, version)
				}
			})
		}
	}
}

// TestArgumentsThatAreWrong is about administrators: Pacemaker gives an action and nothing else.
func TestArgumentsThatAreWrong(t *testing.T) {
	n := newNode(t)
	for _, tt := range []struct {
		name  string
		args  []string
		want  ocf.ExitCode
		names string // what the reason must name
	}{
		{"no action", nil, ocf.ErrUnimplemented, "no action"},
		{"an empty action", []string{""}, ocf.ErrUnimplemented, "action"},
		{"an unknown flag", []string{"--frobnicate"}, ocf.ErrArgs, "frobnicate"},
		{"an unknown short flag", []string{"-x"}, ocf.ErrArgs, "-x"},
		{"an unknown flag before an action", []string{"--frobnicate", "start"}, ocf.ErrArgs, "frobnicate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := n.state(t)
			reason := checkStatus(t, n.call(t, service(), tt.args...), tt.want)
			if !strings.Contains(reason, tt.names) {
				t.Errorf("the reason does not name %q: %q", tt.names, reason)
			}
			if n.state(t) != before {
				t.Error("something changed")
			}
		})
	}
}

// TestFurtherArgumentsAreIgnored: "the RA shall ignore all other arguments" (OCF RA API, Execution syntax).
func TestFurtherArgumentsAreIgnored(t *testing.T) {
	n := newNode(t)
	if got, want := n.call(t, nil, "meta-data", "start", "stop"), n.call(t, nil, "meta-data"); got.ExitCode != 0 || got.Stdout != want.Stdout {
		t.Errorf("meta-data start stop: status %d\n%s", got.ExitCode, got.Stderr)
	}
	checkStatus(t, n.call(t, service(), "monitor", "start"), ocf.NotRunning)
	checkStatus(t, n.call(t, service(), "start", "stop"), ocf.Success)
	checkStatus(t, n.call(t, service(), "monitor", "stop"), ocf.Success)
	checkStatus(t, n.call(t, service(), "stop", "monitor", "start"), ocf.Success)
	checkStatus(t, n.call(t, service(), "monitor"), ocf.NotRunning)
}

// TestUnprivileged: a user who may not read the kernel's tables gets an error, not a result.
func TestUnprivileged(t *testing.T) {
	n := newNode(t)
	for _, action := range []string{"start", "stop", "monitor"} {
		t.Run(action, func(t *testing.T) {
			before := n.state(t)
			r := n.run(t, n.pacemaker().With(service()), asNobody(agent, action)...)
			if reason := checkStatus(t, r, ocf.ErrPerm); !strings.Contains(reason, "root") {
				t.Errorf("the reason does not name who may: %q", reason)
			}
			if n.state(t) != before {
				t.Error("something changed")
			}
		})
	}
}

func TestExitReasonPrefix(t *testing.T) {
	n := newNode(t)
	for _, prefix := range []string{"ocf-exit-reason:", "because: ", "☛"} {
		t.Run(prefix, func(t *testing.T) {
			r := n.call(t, vars{"OCF_EXIT_REASON_PREFIX": prefix}, "validate-all") // without ip
			checkStatusWithPrefix(t, r, ocf.ErrConfigured, prefix)
			if prefix != "ocf-exit-reason:" && strings.Contains(r.Stderr, "ocf-exit-reason:") {
				t.Errorf("the usual prefix is there too: %q", r.Stderr)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		checkStatus(t, n.run(t, vars{}, agent, "validate-all"), ocf.ErrConfigured)
	})
}

// TestWhois is about the command, without anything to ask.
func TestWhois(t *testing.T) {
	n := newNode(t)
	r := n.run(t, vars{}, program, "whois", "--to", address, "--buckets", "8", "192.168.64.1", "192.168.64.2:4711")
	const want = `CLIENT             BUCKET  NODE  STATE
192.168.64.1       2       -     unknown
192.168.64.2:4711  4       -     unknown
`
	if r.ExitCode != 0 || r.Stdout != want || r.Stderr != "" {
		t.Errorf("exit status %d, stderr %q, stdout:\n%s", r.ExitCode, r.Stderr, r.Stdout)
	}
	// Without root, the error names the flags that need no kernel.
	r = n.run(t, vars{}, asNobody(program, "whois", "192.0.2.7")...)
	if r.ExitCode != int(ocf.ErrPerm) || r.Stdout != "" ||
		!strings.Contains(r.Stderr, "root") || !strings.Contains(r.Stderr, "--to and --buckets") {
		t.Errorf("without root: exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
	}
	offline := []string{"--to", address, "--buckets", "8"}
	for _, tt := range []struct {
		name  string
		args  []string
		names string // what the error must name
	}{
		{"no client", offline, "no client"},
		{"no address", append(offline, "example.org"), "example.org"},
		{"several faults", append(offline, "x", "y"), `"y"`},
		{"a flag that does not exist", []string{"--bucket", "8"}, "bucket"},
		{"no number", []string{"--to", address, "--buckets", "many", "192.0.2.7"}, "many"},
		{"too many buckets", []string{"--to", address, "--buckets", "100000", "192.0.2.7"}, "1024"},
		{"a parameter that is wrong", append(offline, "--hashmode", "random", "192.0.2.7"), "hashmode"},
		{"a parameter that is of no use", []string{"--hashmode", "sourceip", "192.0.2.7"}, "--buckets"},
		{"buckets without an address", []string{"--buckets", "8", "192.0.2.7"}, "--to"},
		{"a protocol that is none", append(offline, "--protocol", "http", "192.0.2.7"), "http"},
		{"a file that is not there", append(offline, "--file", "/nowhere"), "/nowhere"},
		{"a port that is missing", append(offline, "--hashmode", "sourceip-sourceport", "192.0.2.7"), "192.0.2.7:PORT"},
		{"nothing to ask", []string{"192.0.2.7"}, "no address is shared on this node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.run(t, vars{}, append([]string{program, "whois"}, tt.args...)...)
			if r.ExitCode != int(ocf.ErrArgs) || r.Stdout != "" ||
				!strings.Contains(r.Stderr, tt.names) || strings.Contains(r.Stderr, "ocf-exit-reason") {
				t.Errorf("exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
			}
		})
	}
}
