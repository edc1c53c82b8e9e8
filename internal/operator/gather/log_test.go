package gather

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ocf-clusterip/internal/operator/plan"
)

func TestLog(t *testing.T) {
	spec, _, err := Spec(map[string]string{"ip": "192.168.10.3"}, "", 8)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	file := filepath.Join(folder, "access.log")
	if err := os.WriteFile(file, []byte("192.0.2.7 GET /\n192.0.2.8 GET /\n-\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ title, name, picture, stdin, log, fault string }{
		{"a file", file, filepath.Join(folder, "new.svg"), "", file, ""},
		{"the standard input", "-", "", "192.0.2.7\n", "the standard input", ""},
		{"no file", filepath.Join(folder, "none"), "", "", "", "none"},
		{"the picture's file", file, file, "", "", "would replace"},
		{"no address", "-", "", "GET /\n", "", "no address in the standard input (1 line)"},
		{"packed", "-", "", "\x1f\x8b\x08\x00\n", "", "unpack it with zcat"},
	} {
		log, err := Log(tt.name, tt.picture, strings.NewReader(tt.stdin), io.Discard, plan.NewTally(spec.Layout(), plan.MaxClients))
		switch {
		case tt.fault == "" && (err != nil || log.Name != tt.log):
			t.Errorf("%s: %v, %v", tt.title, log, err)
		case tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)):
			t.Errorf("%s: %v", tt.title, err)
		}
	}
}
