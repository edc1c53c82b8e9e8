package tty

import (
	"bytes"
	"image/png"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a program writes is shown, what is typed it reads, and the end of a program is told.
func TestProgramOnATerminal(t *testing.T) {
	terminal, err := New(40, 5)
	check(t, err)
	t.Cleanup(func() { check(t, terminal.Close()) })
	before, err := terminal.Mode()
	check(t, err)
	const script = `stty -echo; printf 'first\r\n\033[31msecond\033[0m\033[?1049h'; read answer; stty size; exit 3`
	program := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	check(t, terminal.Start(program, func(start func() error) error { return start() }))
	changed := func() string {
		mode, err := terminal.Mode()
		check(t, err)
		return mode
	}
	for end := time.Now().Add(time.Minute); changed() == before || !strings.Contains(changed(), "alternate screen: true"); {
		if time.Now().After(end) {
			t.Fatalf("the terminal is %s\n%s", changed(), terminal.Text())
		}
		time.Sleep(time.Millisecond)
	}
	check(t, terminal.Resize(30, 4))
	check(t, terminal.Type("yes\r"))
	if err := <-terminal.Ended(); program.ProcessState.ExitCode() != 3 {
		t.Error(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(terminal.Text(), "4 30"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the terminal shows\n%s", terminal.Text())
		}
	}
	var picture bytes.Buffer
	check(t, terminal.WritePNG(&picture))
	image, err := png.Decode(&picture)
	check(t, err)
	if size := image.Bounds(); size.Dx() < 30*5 || size.Dy() < 4*10 {
		t.Errorf("the picture is %v", size)
	}
}
