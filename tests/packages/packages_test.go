//go:build system

// Package packages tests what `make packages` has built: that the same source makes the same bytes, and that dpkg and rpm install,
// upgrade and remove it. `make test-packages` runs it.
package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/tests/lab"
)

// source is the folder of the module.
const source = "../.."

var dist = flag.String("dist", "", "the folder of the packages to test, as an absolute path")

func TestMain(m *testing.M) {
	if status, taken := lab.Inside(); taken {
		os.Exit(status)
	}
	flag.Parse()
	if _, err := os.Stat(filepath.Join(*dist, "SHA256SUMS")); err != nil {
		fmt.Fprintf(os.Stderr, "-dist %q: it has no packages: %v; run make test-packages\n", *dist, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// run runs a program and returns what it prints.
func run(ctx context.Context, argv ...string) (string, error) {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out), err
}

func mustRun(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := run(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// built returns the only file of a folder that matches a pattern.
func built(t *testing.T, folder, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s in %s: %d files, %v", pattern, folder, len(files), err)
	}
	return files[0]
}

// architectures are Go's, Debian's and rpm's names.
var architectures = []struct{ deb, rpm string }{{"amd64", "x86_64"}, {"arm64", "aarch64"}, {"s390x", "s390x"}}

func TestEverythingIsBuilt(t *testing.T) {
	var want []string
	for _, architecture := range architectures {
		want = append(want,
			filepath.Base(built(t, *dist, "ocf-clusterip_*_"+architecture.deb+".deb")),
			filepath.Base(built(t, *dist, "ocf-clusterip_*_"+architecture.deb+".cdx.json")),
			filepath.Base(built(t, *dist, "ocf-clusterip-*-1."+architecture.rpm+".rpm")))
	}
	text, err := os.ReadFile(filepath.Join(*dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		content, err := os.ReadFile(filepath.Join(*dist, name))
		if err != nil {
			t.Fatal(err)
		}
		if is := sha256.Sum256(content); hex.EncodeToString(is[:]) != sum {
			t.Errorf("SHA256SUMS is wrong about %s", name)
		}
		got = append(got, name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SHA256SUMS (-want +got):\n%s", diff)
	}
}

// A second build, in another folder, with nothing from the first one, other permissions of new files, another time zone and language.
func TestTheSameSourceMakesTheSameBytes(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "a folder", "elsewhere")
	if err := os.MkdirAll(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `
		set -euo pipefail
		copied() { (($? == 1)); } # tar: a file of git's has changed meanwhile
		{ tar --create --directory "$1" --exclude ./bin --exclude ./dist . || copied; } | tar --extract --directory "$2"
		cd "$2"
		umask 077
		env TZ=Asia/Kathmandu LC_ALL=C GOCACHE="$2/.cache" make packages DIST=dist`
	mustRun(t, "bash", "-c", script, "bash", source, elsewhere)
	sums := func(folder string) string {
		text, err := os.ReadFile(filepath.Join(folder, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	here, there := sums(*dist), sums(filepath.Join(elsewhere, "dist"))
	if diff := cmp.Diff(strings.Split(here, "\n"), strings.Split(there, "\n")); diff != "" {
		t.Errorf("sha256 of two builds (-here +elsewhere):\n%s", diff)
	}
	t.Logf("two builds:\n%s", here)
}

// The SBOM lists what the program is linked with, as the program itself does.
func TestSBOM(t *testing.T) {
	for _, architecture := range architectures {
		text, err := os.ReadFile(built(t, *dist, "*_"+architecture.deb+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var bom struct {
			BOMFormat  string
			Components []struct {
				Name, Version string
				Evidence      struct{ Licenses []any }
			}
		}
		if err := json.Unmarshal(text, &bom); err != nil || bom.BOMFormat != "CycloneDX" {
			t.Fatalf("%s: %q, %v", architecture.deb, bom.BOMFormat, err)
		}
		var got []string
		for _, c := range bom.Components {
			if c.Name == "std" {
				continue // the program lists no modules of Go itself
			}
			got = append(got, c.Name+" "+c.Version)
			if len(c.Evidence.Licenses) == 0 {
				t.Errorf("%s: no licence of %s", architecture.deb, c.Name)
			}
		}
		slices.Sort(got)

		unpacked := t.TempDir()
		mustRun(t, "dpkg-deb", "--extract", built(t, *dist, "*_"+architecture.deb+".deb"), unpacked)
		var want []string
		module := regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)`)
		version := mustRun(t, "go", "version", "-m", filepath.Join(unpacked, "usr/sbin/ocf-clusterip"))
		for _, found := range module.FindAllStringSubmatch(version, -1) {
			want = append(want, found[1]+" "+found[2])
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-linked +SBOM):\n%s", architecture.deb, diff)
		}
		notice := mustRun(t, "gzip", "-cd", filepath.Join(unpacked, "usr/share/doc/ocf-clusterip/NOTICE.gz"))
		for _, linked := range want {
			if !strings.Contains(notice, "\n"+linked+"\n") {
				t.Errorf("NOTICE.gz has no licence of %s", linked)
			}
		}
	}
}

func TestVersions(t *testing.T) {
	version := func(described, commits string) (string, error) {
		out, err := exec.CommandContext(t.Context(), source+"/packaging/version", described, commits).Output()
		return string(bytes.TrimSpace(out)), err
	}
	// What git describe prints, oldest first.
	rows := []struct{ described, commits, want string }{
		{"unknown", "", "0~0.unknown"},
		{"c828441", "474", "0~474.gc828441"},
		{"c828441-dirty", "474", "0~474.gc828441.dirty"},
		{"0123456", "1005", "0~1005.g0123456"},
		{"v0.9.0", "1", "0.9.0"},
		{"v1.0.0-rc1", "1", "1.0.0~rc1"},
		{"v1.0.0-rc1-2-gabcdef0", "1", "1.0.0~rc1+2.gabcdef0"},
		{"v1.0.0-rc2", "1", "1.0.0~rc2"},
		{"v1.0.0", "1", "1.0.0"},
		{"v1.0.0-dirty", "1", "1.0.0+0.dirty"},
		{"v1.0.0-9-gabcdef0", "1", "1.0.0+9.gabcdef0"},
		{"v1.0.0-9-gabcdef0-dirty", "1", "1.0.0+9.gabcdef0.dirty"},
		{"v1.0.0-10-g0123456", "1", "1.0.0+10.g0123456"},
		{"v1.0.1-rc1", "1", "1.0.1~rc1"},
		{"v1.0.1", "1", "1.0.1"},
		{"v1.0.10", "1", "1.0.10"},
	}
	for i, row := range rows {
		got, err := version(row.described, row.commits)
		if err != nil || got != row.want {
			t.Errorf("%s: %s, %v; want %s", row.described, got, err, row.want)
		}
		if i == 0 {
			continue
		}
		before := rows[i-1].want
		if _, err := run(t.Context(), "dpkg", "--compare-versions", before, "lt", row.want); err != nil {
			t.Errorf("dpkg: %s is not older than %s", before, row.want)
		}
		if order := mustRun(t, "rpm", "--eval", fmt.Sprintf("%%{lua:print(rpm.vercmp(%q, %q))}", before, row.want)); order != "-1\n" {
			t.Errorf("rpm: %s is not older than %s: %s", before, row.want, order)
		}
	}
	for _, described := range []string{"", "1.0.0", "v1.0", "v1.0.0 x", "v1.0.0-rc1;", "v1.0.0_1", "c828"} {
		if got, err := version(described, "474"); err == nil {
			t.Errorf("%q: %s", described, got)
		}
	}
	if got, err := version("c828441", ""); err == nil {
		t.Errorf("no number of commits: %s", got)
	}
}
