package output

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
)

func TestReplaceFile(t *testing.T) {
	folder := t.TempDir()
	name := filepath.Join(folder, "clusterip.prom")
	for _, content := range []string{"first", "second"} {
		if err := ReplaceFile(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != content {
			t.Errorf("%q, %v, want %q", got, err, content)
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode() != readableByAll {
		t.Errorf("mode %v, %v: a collector runs as another user", info.Mode(), err)
	}
	if files, _ := os.ReadDir(folder); len(files) != 1 {
		t.Errorf("%v are in the folder, want one file", files)
	}
	if err := ReplaceFile(filepath.Join(folder, "none", "file"), nil); err == nil || !strings.Contains(err.Error(), "none/file") {
		t.Errorf("in a folder that does not exist: %v", err)
	}
}

func TestCheckFile(t *testing.T) {
	folder := t.TempDir()
	file, link := filepath.Join(folder, "file"), filepath.Join(folder, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]string{
		file: "", file + "-new": "", link: "not a regular file", folder: "not a regular file", folder + "/": "not the name of a file",
		"/dev/null": "not a regular file", filepath.Join(folder, "none", "file"): "no folder", filepath.Join(file, "x"): "cannot be written",
	} {
		err := CheckFile("--output", name)
		switch {
		case fault == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case fault != "" && (err == nil || !strings.Contains(err.Error(), fault) || !strings.Contains(err.Error(), "--output")):
			t.Errorf("%s: %v, want %q", name, err, fault)
		}
	}
}

func TestTerminal(t *testing.T) {
	far, near, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	defer near.Close()
	if err := pty.Setsize(near, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
		t.Fatal(err)
	}
	if !IsTerminal(near) || IsTerminal(os.DevNull) || IsTerminal(nil) {
		t.Error("a terminal is not told from what is none")
	}
	for environ, want := range map[string]struct{ colour, movesCursor bool }{
		"TERM=xterm": {true, true}, "TERM=xterm NO_COLOR=1": {false, true}, "TERM=xterm NO_COLOR=": {true, true},
		"TERM=dumb": {false, false}, "TERM=": {true, false}, "": {true, false},
	} {
		s := ScreenOf(near, strings.Fields(environ))
		if !s.IsTerminal || s.Width != 100 || s.Colour != want.colour || s.MovesCursor != want.movesCursor {
			t.Errorf("%s: %+v", environ, s)
		}
	}
}

func TestNoTerminal(t *testing.T) {
	var b strings.Builder
	if s := ScreenOf(&b, nil); s.IsTerminal || s.Colour || s.Width != pipeWidth {
		t.Errorf("%+v", s)
	}
	p := NewProgress(&b, 10)
	p.reported = p.reported.Add(-progressStep)
	p.Report(5, 1)
	p.End()
	if b.Len() > 0 {
		t.Errorf("%q goes to what is no terminal", b.String())
	}
}
