//go:build system

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/tests/harness"
)

// installedFiles are those of a deb.
const installedFiles = `
/usr/lib/ocf/resource.d/custom/clusterip
/usr/sbin/ocf-clusterip
/usr/share/bash-completion/completions/ocf-clusterip
/usr/share/doc/ocf-clusterip/CHANGELOG.md.gz
/usr/share/doc/ocf-clusterip/NOTICE.gz
/usr/share/doc/ocf-clusterip/changelog.gz
/usr/share/doc/ocf-clusterip/copyright
/usr/share/doc/ocf-clusterip/monitoring.md
/usr/share/fish/vendor_completions.d/ocf-clusterip.fish
/usr/share/lintian/overrides/ocf-clusterip
/usr/share/man/man7/ocf_custom_clusterip.7.gz
/usr/share/man/man8/ocf-clusterip.8.gz
/usr/share/ocf-clusterip/grafana/clusterip.json
/usr/share/ocf-clusterip/prometheus/clusterip.rules.test.yml
/usr/share/ocf-clusterip/prometheus/clusterip.rules.yml
/usr/share/ocf-clusterip/systemd/ocf-clusterip-metrics.service
/usr/share/ocf-clusterip/systemd/ocf-clusterip-metrics.timer
/usr/share/zsh/vendor-completions/_ocf-clusterip
`

// A root is the root file system of a Debian release, with changes of a test that nobody else sees.
type root struct {
	folder  string // what tests/make-root made
	changes string
	usr     string // how /usr is mounted: writable or read-only
}

const (
	writable = "writable"
	readOnly = "read-only"
)

// madeRoot returns the root file system that tests/make-root makes of a release.
func madeRoot(t *testing.T, release string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "../make-root", release)
	command.Stderr = os.Stderr // its progress
	out, err := command.Output()
	if err != nil {
		t.Fatalf("make-root %s: %v", release, err)
	}
	folder := strings.TrimSpace(string(out))
	if folder == "/" {
		t.Fatalf("%s is this machine's own release: run the tests on Debian 12", release)
	}
	return folder
}

// newRoot returns a root in which some files are in the folder /mnt.
func newRoot(t *testing.T, release string, files ...string) root {
	t.Helper()
	r := root{folder: madeRoot(t, release), changes: t.TempDir(), usr: writable}
	mustRun(t, "mkdir", "-p", r.outside("/mnt"))
	mustRun(t, append([]string{"cp", "--target-directory", r.outside("/mnt")}, files...)...)
	return r
}

// outside returns where a file that a test has installed in the root is for programs outside.
func (r root) outside(file string) string { return filepath.Join(r.changes, "upper", file) }

// try runs a command in the root.
func (r root) try(t *testing.T, argv ...string) (string, error) {
	t.Helper()
	return run(t.Context(), append([]string{"./in-root", r.folder, r.changes, r.usr}, argv...)...)
}

func (r root) run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := r.try(t, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// files lists everything in the root: kind, permissions, name, and where a link points to. Not dpkg's own logs and backups.
func (r root) files(t *testing.T) []string {
	t.Helper()
	list := r.run(t, "find", "/", "-xdev", "-printf", "%y %m %p %l\\n")
	lines := strings.Split(list, "\n")
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, " /var/lib/dpkg/status-old ") || strings.Contains(line, " /var/log/dpkg.log ")
	})
}

// installed returns the version and the state of the package, as dpkg knows it.
func (r root) installed(t *testing.T) string {
	t.Helper()
	out, err := r.try(t, "dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Version}", "ocf-clusterip")
	if err != nil {
		return "not installed"
	}
	return out
}

// newer builds a later version for this machine, and returns its deb and its version.
func newer(t *testing.T) (deb, version string) {
	t.Helper()
	folder := t.TempDir()
	if err := harness.Make("packages", "version=v999.0.0", "DIST="+folder, "ARCHITECTURES="+architecture(t)); err != nil {
		t.Fatal(err)
	}
	return built(t, folder, "*.deb"), "999.0.0"
}

func architecture(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(mustRun(t, "dpkg", "--print-architecture"))
}

func TestOnDebian(t *testing.T) {
	deb := built(t, *dist, "*_"+architecture(t)+".deb")
	version := strings.TrimSpace(mustRun(t, "dpkg-deb", "--field", deb, "Version"))
	newDeb, newVersion := newer(t)
	inRoot := func(file string) string { return "/mnt/" + filepath.Base(file) }
	for _, release := range []string{"bullseye", "trixie", "sid"} {
		t.Run(release, func(t *testing.T) {
			r := newRoot(t, release, deb, newDeb)
			before := r.files(t)
			is := func(want string) {
				t.Helper()
				if got := r.installed(t); got != want {
					t.Errorf("the package is %s, want %s", got, want)
				}
				if damage := r.run(t, "dpkg", "--verify"); strings.Contains(damage, "clusterip") {
					t.Errorf("dpkg --verify: %s", damage)
				}
				if unfinished := r.run(t, "dpkg", "--audit"); unfinished != "" {
					t.Errorf("dpkg --audit: %s", unfinished)
				}
			}

			r.usr = readOnly
			if out, err := r.try(t, "dpkg", "--install", inRoot(deb)); err == nil || !strings.Contains(out, "Read-only file system") {
				t.Errorf("installed on a read-only /usr: %v\n%s", err, out)
			}
			r.usr = writable
			if diff := cmp.Diff(before, r.files(t)); diff != "" {
				t.Errorf("left by the failed installation (-before +after):\n%s", diff)
			}

			if out := r.run(t, "dpkg", "--install", inRoot(deb)); strings.Contains(out, "warning") {
				t.Errorf("the installation warns:\n%s", out)
			}
			is("installed " + version)
			if diff := cmp.Diff(strings.Fields(installedFiles), r.packageFiles(t)); diff != "" {
				t.Errorf("what is installed (-want +got):\n%s", diff)
			}
			r.works(t)

			r.usr = readOnly
			if out, err := r.try(t, "dpkg", "--install", inRoot(newDeb)); err == nil || !strings.Contains(out, "Read-only file system") {
				t.Errorf("upgraded on a read-only /usr: %v\n%s", err, out)
			}
			r.usr = writable
			if damage := r.run(t, "dpkg", "--verify", "ocf-clusterip"); damage != "" { // dpkg records that it has failed; no file has changed
				t.Errorf("dpkg --verify after the failed upgrade: %s", damage)
			}
			r.works(t)

			r.run(t, "dpkg", "--install", inRoot(newDeb))
			is("installed " + newVersion)
			r.works(t)
			r.run(t, "dpkg", "--install", inRoot(deb))
			is("installed " + version)
			r.works(t)

			r.run(t, "dpkg", "--remove", "ocf-clusterip")
			is("not installed")
			r.run(t, "dpkg", "--purge", "ocf-clusterip")
			if diff := cmp.Diff(before, r.files(t)); diff != "" {
				t.Errorf("left after the purge (-before +after):\n%s", diff)
			}
		})
	}
}

// packageFiles lists the files of the package, without folders.
func (r root) packageFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	for file := range strings.Lines(r.run(t, "dpkg", "--listfiles", "ocf-clusterip")) {
		file = strings.TrimSpace(file)
		if info, err := os.Lstat(r.outside(file)); err == nil && info.IsDir() || file == "/." {
			continue
		}
		files = append(files, file)
	}
	slices.Sort(files)
	return files
}

// works checks what the package is for: the program runs, Pacemaker finds the agent, and the manual can be read.
func (r root) works(t *testing.T) {
	t.Helper()
	if out := r.run(t, "ocf-clusterip", "--version"); !strings.HasPrefix(out, "ocf-clusterip version ") {
		t.Errorf("ocf-clusterip --version: %s", out)
	}
	if agents := r.run(t, "crm_resource", "--list-agents", "ocf:custom"); !strings.Contains(agents, "clusterip") {
		t.Errorf("Pacemaker finds these agents: %s", agents)
	}
	if metadata := r.run(t, "crm_resource", "--show-metadata", "ocf:custom:clusterip"); !strings.Contains(metadata, `<parameter name="ip"`) {
		t.Errorf("the meta-data, as Pacemaker reads it: %s", metadata)
	}
	for page, want := range map[string]string{"man8/ocf-clusterip.8.gz": "doctor", "man7/ocf_custom_clusterip.7.gz": "mac_mode"} {
		text := mustRun(t, "man", "--warnings", "--local-file", r.outside("/usr/share/man/"+page))
		if !strings.Contains(text, want) {
			t.Errorf("%s has no %q:\n%s", page, want, text)
		}
	}
}

func TestBrokenDatabase(t *testing.T) {
	deb := built(t, *dist, "*_"+architecture(t)+".deb")
	r := newRoot(t, "trixie", deb)
	r.run(t, "sh", "-c", "echo broken >/var/lib/dpkg/status")
	before := r.files(t)
	out, err := r.try(t, "dpkg", "--install", "/mnt/"+filepath.Base(deb))
	if err == nil || !strings.Contains(out, "/var/lib/dpkg/status") {
		t.Errorf("installed with a broken database: %v\n%s", err, out)
	}
	if diff := cmp.Diff(before, r.files(t)); diff != "" {
		t.Errorf("left by the failed installation (-before +after):\n%s", diff)
	}
}

func TestLintian(t *testing.T) {
	for _, architecture := range architectures {
		deb := built(t, *dist, "*_"+architecture.deb+".deb")
		out := mustRun(t, "lintian", "--allow-root", "--display-info", "--pedantic", "--display-experimental",
			"--fail-on", "error,warning,info,pedantic,experimental", deb)
		if out != "" {
			t.Errorf("%s: lintian:\n%s", architecture.deb, out)
		}
	}
}
