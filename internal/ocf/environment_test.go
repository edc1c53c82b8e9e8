package ocf

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// defaults is what an empty environment says, changed by a row of a table.
func defaults(change func(*Environment)) Environment {
	env := Environment{
		Parameters:       map[string]string{},
		Meta:             map[string]string{},
		TempDir:          "/run/resource-agents",
		ExitReasonPrefix: "ocf-exit-reason:",
		Timeout:          20 * time.Second,
	}
	if change != nil {
		change(&env)
	}
	return env
}

func TestParseEnvironment(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		want    Environment
	}{
		{"nothing set gives the defaults", nil, defaults(nil)},
		{
			"a monitor as Pacemaker 2.1.5 calls it",
			[]string{
				"PATH=/usr/bin", "HA_debug=0", "HA_RSCTMP=/run/resource-agents", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
				"OCF_ROOT=/usr/lib/ocf", "OCF_RESOURCE_INSTANCE=web-ip:4", "OCF_RESOURCE_TYPE=clusterip", "OCF_CHECK_LEVEL=10",
				"OCF_RESKEY_ip=192.168.10.3", "OCF_RESKEY_crm_feature_set=3.16.2", "OCF_RESKEY_CRM_meta_clone=4",
				"OCF_RESKEY_CRM_meta_clone_max=8", "OCF_RESKEY_CRM_meta_globally_unique=true", "OCF_RESKEY_CRM_meta_timeout=30000",
			},
			defaults(func(e *Environment) {
				e.Instance = "web-ip:4"
				e.Parameters["ip"] = "192.168.10.3"
				e.Meta = map[string]string{"clone": "4", "clone_max": "8", "globally_unique": "true", "timeout": "30000"}
				e.CheckLevel = 10
				e.Timeout = 30 * time.Second
			}),
		},
		{
			"variables set to nothing count as absent",
			[]string{
				"OCF_CHECK_LEVEL=", "HA_RSCTMP=", "OCF_EXIT_REASON_PREFIX=", "OCF_RA_VERSION_MAJOR=",
				"OCF_RESOURCE_INSTANCE=", "HA_debug=", "OCF_RESKEY_CRM_meta_timeout=",
			},
			defaults(func(e *Environment) { e.Meta["timeout"] = "" }),
		},
		{
			"a parameter set to nothing is kept as given",
			[]string{"OCF_RESKEY_nic="},
			defaults(func(e *Environment) { e.Parameters["nic"] = "" }),
		},
		{
			"a value keeps its equals signs and its spaces",
			[]string{"OCF_RESKEY_nic= a=b "},
			defaults(func(e *Environment) { e.Parameters["nic"] = " a=b " }),
		},
		{
			"of a variable given twice the first counts",
			[]string{"OCF_CHECK_LEVEL=10", "OCF_CHECK_LEVEL=x", "OCF_RESKEY_ip=192.0.2.1", "OCF_RESKEY_ip=\n"},
			defaults(func(e *Environment) {
				e.CheckLevel = 10
				e.Parameters["ip"] = "192.0.2.1"
			}),
		},
		{
			"what is not a variable is ignored",
			[]string{"OCF_CHECK_LEVEL", "", "=", "OCF_RESKEY_=x"},
			defaults(nil),
		},
		{
			"another folder, prefix and format",
			[]string{"HA_RSCTMP=/tmp/x/", "OCF_EXIT_REASON_PREFIX=why: "},
			defaults(func(e *Environment) {
				e.TempDir = "/tmp/x"
				e.ExitReasonPrefix = "why: "
			}),
		},
		{
			"a timeout of zero means that none is set",
			[]string{"OCF_RESKEY_CRM_meta_timeout=0"},
			defaults(func(e *Environment) { e.Meta["timeout"] = "0" }),
		},
		{
			"the longest timeout that Pacemaker can say",
			[]string{"OCF_RESKEY_CRM_meta_timeout=4294967295"},
			defaults(func(e *Environment) {
				e.Meta["timeout"] = "4294967295"
				e.Timeout = 4294967295 * time.Millisecond
			}),
		},
		{"debugging at level 2", []string{"HA_debug=2"}, defaults(func(e *Environment) { e.Debug = true })},
		{"a debugging level that is none fails nothing", []string{"HA_debug=loud"}, defaults(nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseEnvironment(tt.environ)
			if err != nil {
				t.Fatalf("unexpected error: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseEnvironmentRefuses(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		code    ExitCode
		want    string
	}{
		{
			"a check level in words",
			[]string{"OCF_CHECK_LEVEL=ten"},
			ErrConfigured,
			`OCF_CHECK_LEVEL="ten" is not a non-negative integer such as 0 or 10`,
		},
		{
			"a negative check level",
			[]string{"OCF_CHECK_LEVEL=-1"},
			ErrConfigured,
			`OCF_CHECK_LEVEL="-1" is not a non-negative integer such as 0 or 10`,
		},
		{
			"a huge check level",
			[]string{"OCF_CHECK_LEVEL=2147483648"},
			ErrConfigured,
			`OCF_CHECK_LEVEL="2147483648" is not a non-negative integer such as 0 or 10`,
		},
		{
			"another API",
			[]string{"OCF_RA_VERSION_MAJOR=2"},
			ErrArgs,
			`OCF_RA_VERSION_MAJOR="2" is not 1, the only version of the resource agent API that this agent supports`,
		},
		{
			"an API that is no number",
			[]string{"OCF_RA_VERSION_MAJOR=1.1"},
			ErrArgs,
			`OCF_RA_VERSION_MAJOR="1.1" is not 1, the only version of the resource agent API that this agent supports`,
		},
		{"a relative folder", []string{"HA_RSCTMP=run"}, ErrArgs, `HA_RSCTMP="run" is not an absolute path such as /run/resource-agents`},
		{"a folder with a line break", []string{"HA_RSCTMP=/run\n"}, ErrArgs, `HA_RSCTMP="/run\n" contains the control character U+000A`},
		{
			"a prefix with a line break",
			[]string{"OCF_EXIT_REASON_PREFIX=a\n"},
			ErrArgs,
			`OCF_EXIT_REASON_PREFIX="a\n" contains the control character U+000A`,
		},
		{
			"a timeout with a unit",
			[]string{"OCF_RESKEY_CRM_meta_timeout=20s"},
			ErrArgs,
			`OCF_RESKEY_CRM_meta_timeout="20s" is not a number of milliseconds from 0 to 4294967295`,
		},
		{
			"a timeout beyond Pacemaker's",
			[]string{"OCF_RESKEY_CRM_meta_timeout=4294967296"},
			ErrArgs,
			`OCF_RESKEY_CRM_meta_timeout="4294967296" is not a number of milliseconds from 0 to 4294967295`,
		},
		{
			"an instance name with a tab",
			[]string{"OCF_RESOURCE_INSTANCE=a\tb"},
			ErrConfigured,
			`OCF_RESOURCE_INSTANCE="a\tb" contains the control character U+0009`,
		},
		{"a parameter with a NUL", []string{"OCF_RESKEY_ip=a\x00"}, ErrConfigured, `parameter ip="a\x00" contains the control character U+0000`},
		{"a parameter that is not UTF-8", []string{"OCF_RESKEY_ip=\xff"}, ErrConfigured, `parameter ip="\xff" is not valid UTF-8`},
		{
			"a parameter whose name is not text",
			[]string{"OCF_RESKEY_a\n\xff=\n"},
			ErrConfigured,
			"parameter a \ufffd=" + `"\n" contains the control character U+000A`,
		},
		{
			"everything wrong at once, parameters first and in order",
			[]string{"OCF_CHECK_LEVEL=x", "OCF_RESKEY_z=\n", "OCF_RESKEY_a=\n", "HA_RSCTMP=x"},
			ErrConfigured,
			`parameter a="\n" contains the control character U+000A` + "\n" + `parameter z="\n" contains the control character U+000A` + "\n" +
				`OCF_CHECK_LEVEL="x" is not a non-negative integer such as 0 or 10` + "\n" +
				`HA_RSCTMP="x" is not an absolute path such as /run/resource-agents`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseEnvironment(tt.environ)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if got := CodeOf(err); got != tt.code {
				t.Errorf("code = %s, want %s", got, tt.code)
			}
		})
	}
}

func TestParseEnvironmentKeepsWhatIsGood(t *testing.T) {
	got, err := ParseEnvironment([]string{
		"OCF_CHECK_LEVEL=x", "OCF_RESOURCE_INSTANCE=web-ip:4", "HA_RSCTMP=tmp", "OCF_RESKEY_ip=\n", "OCF_RESKEY_nic=eth0",
		"OCF_RA_VERSION_MAJOR=2", "OCF_RESKEY_CRM_meta_timeout=x", "OCF_EXIT_REASON_PREFIX=\t",
	})
	want := defaults(func(e *Environment) {
		e.Instance = "web-ip:4"
		e.Parameters = map[string]string{"ip": "\n", "nic": "eth0"}
		e.Meta["timeout"] = "x"
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	joined, isJoin := any(err).(interface{ Unwrap() []error })
	if !isJoin || len(joined.Unwrap()) != 6 {
		t.Fatalf("want 6 faults, got: %v", err)
	}
	for _, fault := range joined.Unwrap() {
		if _, hasCode := errors.AsType[*Error](fault); !hasCode {
			t.Errorf("fault without a code: %v", fault)
		}
	}
}

func FuzzParseEnvironment(f *testing.F) {
	f.Add("OCF_RESOURCE_INSTANCE=web-ip:4\x01OCF_RESKEY_ip=192.0.2.1\x01OCF_CHECK_LEVEL=10")
	f.Add("OCF_RESKEY_CRM_meta_timeout=99999999999999999999\x01HA_RSCTMP=x\x01HA_debug=1")
	f.Add("OCF_RESKEY_\xff=\xff\x01OCF_EXIT_REASON_PREFIX=\n")
	f.Fuzz(func(t *testing.T, joined string) {
		environ := strings.Split(joined, "\x01")
		env, err := ParseEnvironment(environ)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				checkOneLine(t, line)
				if line == "" {
					t.Error("an error without a text, or a line break in one")
				}
			}
			if CodeOf(err) == Success {
				t.Error("an error that is a success")
			}
		}
		if env.CheckLevel < 0 || env.Timeout <= 0 || !strings.HasPrefix(env.TempDir, "/") || env.ExitReasonPrefix == "" {
			t.Errorf("impossible environment %+v", env)
		}
		checkOneLine(t, env.ExitReasonPrefix)

		again, errAgain := ParseEnvironment(rebuild(env))
		if err == nil && errAgain != nil {
			t.Errorf("what was parsed is refused: %v", errAgain)
		}
		if diff := cmp.Diff(env.Parameters, again.Parameters); diff != "" {
			t.Errorf("parameters parsed again (-first +second):\n%s", diff)
		}
		if diff := cmp.Diff(env.Meta, again.Meta); diff != "" {
			t.Errorf("meta attributes parsed again (-first +second):\n%s", diff)
		}
		if again.TempDir != env.TempDir || again.Timeout != env.Timeout || again.Instance != env.Instance {
			t.Errorf("parsed again: %+v, first %+v", again, env)
		}
	})
}

// rebuild turns an environment back into variables.
func rebuild(env Environment) []string {
	environ := []string{
		"OCF_RESOURCE_INSTANCE=" + env.Instance, "HA_RSCTMP=" + env.TempDir, "OCF_EXIT_REASON_PREFIX=" + env.ExitReasonPrefix,
	}
	for _, name := range slices.Sorted(maps.Keys(env.Parameters)) {
		environ = append(environ, "OCF_RESKEY_"+name+"="+env.Parameters[name])
	}
	for _, name := range slices.Sorted(maps.Keys(env.Meta)) {
		environ = append(environ, "OCF_RESKEY_CRM_meta_"+name+"="+env.Meta[name])
	}
	return environ
}
