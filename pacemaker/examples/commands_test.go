package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// renamed are the cluster's properties that some version of Pacemaker calls deprecated, and the names that others do not have.
var renamed = regexp.MustCompile(`^((stonith|fencing)-(enabled|timeout|action|watchdog-timeout|max-attempts)|(fence|fencing)-reaction|` +
	`stop-(orphan|removed)-(resources|actions)|` +
	`cancel-removed-actions|enable-startup-probes|cluster-ipc-limit|remote-clear-port|concurrent-fencing|remove-after-stop)=`)

// deprecated lists what pcs 0.10.8 to 0.12.3, with Pacemaker 2.0.5 to 3.0.3, do not all take without a warning in a command.
func deprecated(command string) string {
	words := strings.Fields(command)
	if len(words) < 3 || words[0] != "pcs" {
		return ""
	}
	options := func(from int) bool {
		return slices.ContainsFunc(words[from:], func(w string) bool { return strings.Contains(w, "=") })
	}
	clone := slices.Index(words, "clone")
	switch {
	case slices.Equal(words[:3], []string{"pcs", "resource", "create"}) && clone > 0 && options(clone):
		return "options of the clone: make it with pcs resource clone"
	case slices.Equal(words[:3], []string{"pcs", "resource", "clone"}) && options(3) && (len(words) < 5 || words[4] != "meta"):
		return "options of the clone without meta"
	case words[1] == "resource" && slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "--wait") }):
		return "--wait of pcs resource: crm_resource --wait --timeout=60s"
	case slices.Equal(words[:3], []string{"pcs", "property", "set"}) && slices.ContainsFunc(words[3:], renamed.MatchString):
		return "a property that has several names, or none in the end"
	default:
		return ""
	}
}

func TestDeprecatedCommands(t *testing.T) {
	for name, row := range map[string]struct {
		command string
		isFine  bool
	}{
		"options of a clone without meta (pcs 0.11.6)": {
			command: "pcs resource create a ocf:custom:clusterip ip=192.0.2.1 clone clone-max=8",
		},
		"options of a clone with meta (of the primitive till 0.12)": {
			command: "pcs resource create a ocf:custom:clusterip clone meta clone-max=8",
		},
		"a clone without meta (pcs 0.11.6)":            {command: "pcs resource clone a clone-max=8"},
		"a wait (pcs 0.12)":                            {command: "pcs resource disable a --wait=60"},
		"a wait for the cluster":                       {"pcs cluster start --wait", true},
		"a name that Pacemaker 3.0.2 calls deprecated": {command: "pcs property set no-quorum-policy=stop stonith-enabled=true"},
		"a name that Pacemaker 3.0.1 does not have":    {command: "pcs property set fencing-enabled=true"},
		"probes that are always made in the end":       {command: "pcs property set enable-startup-probes=false --force"},
		"a clone with meta":                            {"pcs resource clone a meta clone-max=8", true},
		"a clone without options":                      {"pcs resource create a ocf:pacemaker:ping host_list=192.0.2.1 clone", true},
		"a property of one name":                       {"pcs property set no-quorum-policy=stop", true},
		"a property that goes":                         {"pcs property unset stonith-enabled", true},
		"no pcs":                                       {"crm configure property stonith-enabled=true", true},
	} {
		if got := deprecated(row.command); (got == "") != row.isFine {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// commands are those in a text that begin with pcs, also behind the mark of a command, in `quotes` or in a string of JSON. One with an
// ellipsis for some of its words is not to be copied.
func commands(text string) []string {
	var all []string
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, " ")
	for line := range strings.Lines(text) {
		for part := range strings.SplitSeq(line, "`") {
			if part = strings.TrimLeft(part, " \t$\""); strings.HasPrefix(part, "pcs ") && !strings.Contains(part, " … ") {
				all = append(all, strings.TrimSpace(part))
			}
		}
	}
	return all
}

// Nothing that is to be copied warns with any pcs, nor with any Pacemaker.
func TestNothingToCopyIsDeprecated(t *testing.T) {
	const text = "a\n    pcs resource create a \\\n    clone\n  $ pcs b\n of `pcs c` or `pcs … d` and\n\"pcs d\"\n"
	if diff := cmp.Diff([]string{"pcs resource create a  clone", "pcs b", "pcs c", `pcs d"`}, commands(text)); diff != "" {
		t.Fatalf("commands (-want +got):\n%s", diff)
	}
	found := 0
	for _, pattern := range []string{
		"*/*.pcs.sh", "README.md", "../../README.md", "../../docs/*.md", "../../contrib/*.md",
		"../../internal/metadata/testdata/*", "../../internal/operator/testdata/*",
		"../../internal/operator/*/testdata/*",
	} {
		files, err := filepath.Glob(pattern)
		check(t, err)
		if len(files) == 0 {
			t.Errorf("there is no %s", pattern)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			check(t, err)
			for _, command := range commands(string(content)) {
				found++
				if why := deprecated(command); why != "" {
					t.Errorf("%s: %s: %s", file, why, command)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d commands", found)
	}
	for _, pattern := range []string{"*/*.xml", "*/*.crmsh"} {
		files, err := filepath.Glob(pattern)
		check(t, err)
		for _, file := range files {
			content, err := os.ReadFile(file)
			check(t, err)
			for _, word := range regexp.MustCompile(`[a-z]+(-[a-z]+)+`).FindAllString(string(content), -1) {
				if renamed.MatchString(word + "=") {
					t.Errorf("%s: %s has several names", file, word)
				}
			}
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
