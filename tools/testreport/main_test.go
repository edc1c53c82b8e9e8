package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	longLog := strings.Repeat(`{"Action":"output","Package":"p","Test":"L","Output":"        log\n"}`+"\n", 99)
	talkingTest := `{"Action":"output","Package":"p","Test":"L","Output":"    x_test.go:7: why\n"}` + "\n" + longLog +
		`{"Action":"fail","Package":"p","Test":"L"}` + "\n"
	const (
		passedTest = `{"Action":"output","Package":"p","Test":"T","Output":"chatter\n"}` + "\n" +
			`{"Action":"pass","Package":"p","Test":"T"}` + "\n"
		failedTest = `{"Action":"output","Package":"p","Test":"F","Output":"why\n"}` + "\n" +
			`{"Action":"fail","Package":"p","Test":"F"}` + "\n"
		skippedTest = `{"Action":"output","Package":"p","Test":"S","Output":"excuse\n"}` + "\n" +
			`{"Action":"skip","Package":"p","Test":"S"}` + "\n"
		panickingTest = `{"Action":"output","Package":"p","Test":"P","Output":"panic: oh\n"}` + "\n"
		passedPackage = `{"Action":"pass","Package":"p","Elapsed":1.5}` + "\n"
		failedPackage = `{"Action":"fail","Package":"p","Elapsed":1.5}` + "\n"
		progress      = `{"Action":"attr","Package":"p","Test":"T","Key":"progress","Value":"half of it"}` + "\n"
		attribute     = `{"Action":"attr","Package":"p","Test":"T","Key":"owner","Value":"chatter"}` + "\n"
		noTestFiles   = `{"Action":"skip","Package":"q"}` + "\n"
		failedBuild   = `{"ImportPath":"p","Action":"build-output","Output":"undefined: x\n"}` + "\n" + failedPackage
	)
	for _, tt := range []struct {
		name, input string
		ok          bool
		last        string   // lines
		shown       []string // besides
	}{
		{"all is well", passedTest + passedPackage, true, "1 passed, 0 failed, 0 skipped", []string{"ok    p"}},
		{"a failed test shows why", passedTest + failedTest + failedPackage, false, "1 passed, 1 failed, 0 skipped", []string{"why", "FAIL  p"}},
		{
			"a skipped test is a failure", passedTest + skippedTest + passedPackage, false, "1 passed, 0 failed, 1 skipped",
			[]string{"excuse", "SKIPPED", "p S"},
		},
		{"a package without tests is none", passedTest + passedPackage + noTestFiles, true, "1 passed, 0 failed, 0 skipped", nil},
		{
			"a message is repeated at the end", talkingTest + failedPackage, false,
			"p L logged, shortened:\n    x_test.go:7: why\n" + strings.Repeat("        log\n", 4) + "0 passed, 1 failed, 0 skipped", nil,
		},
		{"progress shows", progress + attribute + passedTest + passedPackage, true, "1 passed, 0 failed, 0 skipped", []string{"half of it\n"}},
		{"a panic shows", passedTest + panickingTest + failedPackage, false, "1 passed, 1 failed, 0 skipped", []string{"panic: oh"}},
		{"what cannot be built shows", failedBuild, false, "0 passed, 1 failed, 0 skipped", []string{"undefined: x"}},
		{"what is no event shows", "warning\n" + passedTest + passedPackage, true, "1 passed, 0 failed, 0 skipped", []string{"warning"}},
		{"no test is no success", "", false, "0 passed, 0 failed, 0 skipped", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := run(strings.NewReader(tt.input), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != tt.ok || !strings.HasSuffix("\n"+out.String(), "\n"+tt.last+"\n") {
				t.Errorf("ok is %t, want %t with %q at the end of:\n%s", ok, tt.ok, tt.last, out.String())
			}
			for _, want := range tt.shown {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), "chatter") {
				t.Errorf("a test that passed is shown:\n%s", out.String())
			}
		})
	}
}
