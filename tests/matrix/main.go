// Command matrix runs the cluster tests on each release of Debian and the kernel tests on each of their kernels, and writes the
// results into the tables of docs/compatibility.md. All rows take hours; arguments choose some:
//
//	matrix [bullseye|bookworm|trixie|sid|RELEASE,RELEASE...|linux-RELEASE...]
//
// Rows that do not run stay as they are. It exits with 1 if a test failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// document has the tables, relative to the module's folder, where make runs this program.
const document = "docs/compatibility.md"

// rows are what runs by default, oldest first: clusters of one release, clusters of two, kernels.
var rows = []string{
	"bullseye", "bookworm", "trixie", "sid", "bookworm,trixie", "bookworm,sid", "trixie,sid",
	"linux-bullseye", "linux-bookworm", "linux-trixie", "linux-sid",
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok := runAll(ctx, os.Args[1:])
	stop()
	if !ok {
		os.Exit(1)
	}
}

// runAll runs the chosen rows, or all.
func runAll(ctx context.Context, chosen []string) (ok bool) {
	if len(chosen) == 0 {
		chosen = rows
	}
	ok = true
	for i, name := range chosen {
		fmt.Printf("== %d of %d: %s\n", i+1, len(chosen), name)
		passed, err := run(ctx, name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "matrix: %s: %v\n", name, err)
		}
		ok = ok && passed && err == nil
		if ctx.Err() != nil {
			break
		}
	}
	return ok
}

// run runs a row's tests and writes the row.
func run(ctx context.Context, name string) (ok bool, err error) {
	table, cells, arguments, err := describe(ctx, name)
	if err != nil {
		return false, err
	}
	if text, err := os.ReadFile(document); err != nil {
		return false, err
	} else if _, err = table.put(string(text), cells); err != nil { // now, not after hours
		return false, err
	}
	begin := time.Now()
	seen, err := test(ctx, arguments...)
	if err != nil {
		return false, err
	}
	if len(seen.passed)+len(seen.failed) == 0 {
		return false, errors.New("no test ran")
	}
	if table == kernels {
		cells = append(cells, seen.attributes["linux"], seen.attributes["backends"])
	}
	minutes := fmt.Sprintf("%.0f min", time.Since(begin).Minutes())
	cells = append(cells, seen.result(), minutes, begin.Format(time.DateOnly))
	fmt.Println(strings.Join(cells, " · "))
	text, err := os.ReadFile(document)
	if err != nil {
		return false, err
	}
	changed, err := table.put(string(text), cells)
	if err != nil {
		return false, err
	}
	return len(seen.failed) == 0, os.WriteFile(document, []byte(changed), 0o644)
}

// describe returns into which table a row goes, its first cells, and how make runs its tests.
func describe(ctx context.Context, name string) (t table, cells, arguments []string, err error) {
	if release, isKernel := strings.CutPrefix(name, "linux-"); isKernel {
		return kernels, []string{release}, []string{"test-vm", "KERNEL=" + release}, nil
	}
	cells = []string{strings.ReplaceAll(name, ",", " + ")}
	makeRoot := exec.CommandContext(ctx, "tests/make-root", name)
	makeRoot.Stderr = os.Stderr
	out, err := makeRoot.Output()
	if err != nil {
		return t, nil, nil, fmt.Errorf("tests/make-root %s: %w", name, err)
	}
	roots := strings.Split(strings.TrimSpace(string(out)), ":")
	for _, program := range []string{"pacemaker", "corosync", "pcs", "crmsh", "nftables"} {
		var versions []string
		for _, root := range roots {
			query := []string{"--admindir=" + root + "/var/lib/dpkg", "-W", "-f", "${source:Upstream-Version}", program}
			version, err := exec.CommandContext(ctx, "dpkg-query", query...).Output()
			if err != nil {
				return t, nil, nil, fmt.Errorf("the version of %s in %s: %w", program, root, err)
			}
			versions = append(versions, string(version))
		}
		cells = append(cells, strings.Join(versions, " + "))
	}
	return clusters, cells, []string{"cluster", "RELEASE=" + name}, nil
}
