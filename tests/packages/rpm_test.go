//go:build system

package packages

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// installedByRPM are the files of an rpm.
const installedByRPM = `
/usr/lib/ocf/resource.d/custom/clusterip
/usr/sbin/ocf-clusterip
/usr/share/bash-completion/completions/ocf-clusterip
/usr/share/doc/ocf-clusterip/CHANGELOG.md.gz
/usr/share/doc/ocf-clusterip/NOTICE.gz
/usr/share/doc/ocf-clusterip/monitoring.md
/usr/share/fish/vendor_completions.d/ocf-clusterip.fish
/usr/share/licenses/ocf-clusterip/LICENSE
/usr/share/man/man7/ocf_custom_clusterip.7.gz
/usr/share/man/man8/ocf-clusterip.8.gz
/usr/share/ocf-clusterip/grafana/clusterip.json
/usr/share/ocf-clusterip/prometheus/clusterip.rules.test.yml
/usr/share/ocf-clusterip/prometheus/clusterip.rules.yml
/usr/share/ocf-clusterip/systemd/ocf-clusterip-metrics.service
/usr/share/ocf-clusterip/systemd/ocf-clusterip-metrics.timer
/usr/share/zsh/site-functions/_ocf-clusterip
`

// filesIn lists the files below a folder, without rpm's own database.
func filesIn(t *testing.T, folder string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, folder)
		if strings.HasPrefix(name, "/var") || strings.HasPrefix(name, "/root") {
			return nil
		}
		if !entry.IsDir() {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

func TestRPM(t *testing.T) {
	for _, architecture := range architectures {
		t.Run(architecture.rpm, func(t *testing.T) {
			file := built(t, *dist, "*."+architecture.rpm+".rpm")
			if out := mustRun(t, "rpm", "--checksig", "--verbose", file); strings.Count(out, "digest: OK") != 2 {
				t.Errorf("digests of header and payload:\n%s", out)
			}
			for question, want := range map[string]string{
				"--requires": "", "--scripts": "", "--triggers": "",
				"--recommends": "pacemaker\n", "--suggests": "iptables\narptables\nprometheus-node-exporter\n",
				"--queryformat=%{ARCH} %{BUILDHOST} %{OS}": architecture.rpm + " localhost linux",
			} {
				if got := mustRun(t, "rpm", "--query", "--package", question, file); got != want {
					t.Errorf("%s: %q, want %q", question, got, want)
				}
			}

			// Debian's rpm has no database of Debian's packages: the folder is empty, and pacemaker is only recommended.
			root := t.TempDir()
			mustRun(t, "rpm", "--root", root, "--initdb")
			mustRun(t, "rpm", "--root", root, "--install", "--ignorearch", file)
			if damage := mustRun(t, "rpm", "--root", root, "--verify", "ocf-clusterip"); damage != "" {
				t.Errorf("rpm --verify:\n%s", damage)
			}
			if diff := cmp.Diff(strings.Fields(installedByRPM), filesIn(t, root)); diff != "" {
				t.Errorf("what is installed (-want +got):\n%s", diff)
			}
			mustRun(t, "rpm", "--root", root, "--erase", "ocf-clusterip")
			if left := mustRun(t, "find", root, "-name", "*ocf*", "-not", "-path", root); left != "" {
				t.Errorf("left after --erase:\n%s", left)
			}
		})
	}
}

// rpmlint unpacks nfpm's files to where they belong, not into its own folder, because their names begin with a slash. So it has a /usr of
// its own.
func TestRPMLint(t *testing.T) {
	const script = `
		set -euo pipefail
		mount -t overlay overlay -o "lowerdir=/usr,upperdir=$1,workdir=$2" /usr
		exec rpmlint --config "$3" "$4"`
	out := mustRun(t, "unshare", "--mount", "bash", "-c", script, "bash", t.TempDir(), t.TempDir(), source+"/packaging/rpmlint.toml", *dist)
	if !strings.Contains(out, " 3 packages ") || !strings.Contains(out, " 0 errors, 0 warnings") {
		t.Errorf("rpmlint:\n%s", out)
	}
}
