package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRowsAreReplacedAndAdded(t *testing.T) {
	const before = `# Title

| Cluster of Debian | Pacemaker |
|---|---|
| trixie | old |
| trixie + sid | kept |

| Kernel of Debian | Linux |
|---|---|
`
	const want = `# Title

| Cluster of Debian | Pacemaker |
|---|---|
| trixie | 3.0.0 |
| trixie + sid | kept |
| sid | 3.0.3 |

| Kernel of Debian | Linux |
|---|---|
| sid | 7.2 |
`
	got := before
	for _, row := range []struct {
		table table
		cells []string
	}{
		{clusters, []string{"trixie", "3.0.0"}},
		{clusters, []string{"sid", "3.0.3"}},
		{kernels, []string{"sid", "7.2"}},
	} {
		var err error
		if got, err = row.table.put(got, row.cells); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := kernels.put("# Title\n", []string{"sid"}); err == nil {
		t.Error("a row went into a document without a table")
	}
}

func TestResultsAreCounted(t *testing.T) {
	var r results
	for _, line := range []string{
		`== cluster tests`, `{"Action":"run","Test":"TestA"}`, `{"Action":"pass","Test":"TestA/one"}`,
		`{"Action":"pass","Test":"TestA","Elapsed":2}`,
		`{"Action":"fail","Test":"TestB"}`, `{"Action":"skip","Test":"TestC"}`, `{"Action":"fail","Package":"x"}`,
		`{"Action":"attr","Test":"TestKernel/match","Key":"guest-test","Value":"PASS TestD"}`,
		`{"Action":"attr","Test":"TestKernel","Key":"linux","Value":"7.2"}`, `{"Action":"pass","Test":"TestKernel"}`,
		`{"Action":"attr","Test":"TestKernel/data-path","Key":"guest-test","Value":"PASS TestD"}`,
		`{"Action":"attr","Test":"TestKernel/match","Key":"guest-test","Value":"PASS TestE"}`,
		`{"Action":"attr","Test":"TestKernel/data-path","Key":"guest-test","Value":"FAIL TestE"}`,
	} {
		r.add(line)
	}
	if diff := cmp.Diff(
		results{
			passed:     []string{"TestA", "TestD"},
			failed:     []string{"TestB", "TestC", "package x", "TestE"},
			attributes: map[string]string{"linux": "7.2"},
		},
		r,
		cmp.AllowUnexported(results{}),
	); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.result(); got != "2 of 6 passed; not: TestB, TestC, package x, TestE" {
		t.Errorf("the table is %q", got)
	}
}
