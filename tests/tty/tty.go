// Package tty is a terminal for the tests of programs that fill one, with its picture.
package tty

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Terminal is a terminal like xterm, with a program on it.
type Terminal struct {
	far, near *os.File // the ends of the pseudo-terminal: the emulator's, and the program's
	program   *exec.Cmd
	ended     chan error
	idle      sync.WaitGroup

	mu      sync.Mutex
	screen  *vt.Emulator
	answers io.Closer // to the program, from the emulator, whose own Close is a data race with Read
}

// New makes a terminal without a program.
func New(width, height int) (*Terminal, error) {
	far, near, err := pty.Open()
	if err != nil {
		return nil, err
	}
	t := &Terminal{far: far, near: near, screen: vt.NewEmulator(width, height)}
	t.answers = t.screen.InputPipe().(io.Closer)
	if err := t.Resize(width, height); err != nil {
		return nil, errors.Join(err, far.Close(), near.Close())
	}
	t.idle.Go(func() { _, _ = io.Copy(t, far) }) // until Close
	t.idle.Go(func() { _, _ = io.Copy(far, t.screen) })
	return t, nil
}

// Write shows what the program writes.
func (t *Terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.Write(p)
}

// Start starts a program on the terminal, which controls it. start is exec.Cmd.Start, maybe elsewhere.
func (t *Terminal) Start(program *exec.Cmd, start func(func() error) error) error {
	program.Stdin, program.Stdout, program.Stderr = t.near, t.near, t.near
	program.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	t.program, t.ended = program, make(chan error, 1)
	if err := start(program.Start); err != nil {
		return err
	}
	go func() { t.ended <- program.Wait() }()
	return nil
}

// Type types a text.
func (t *Terminal) Type(text string) error {
	_, err := io.WriteString(t.far, text)
	return err
}

// Resize changes the size, and tells the program.
func (t *Terminal) Resize(width, height int) error {
	t.mu.Lock()
	t.screen.Resize(width, height)
	t.mu.Unlock()
	return pty.Setsize(t.far, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)})
}

// Signal sends the program a signal.
func (t *Terminal) Signal(signal os.Signal) error { return t.program.Process.Signal(signal) }

// Ended is how the program ended, once.
func (t *Terminal) Ended() <-chan error { return t.ended }

// Text is what the terminal shows, without spaces at the ends of lines.
func (t *Terminal) Text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(t.screen.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// HasColour reports whether anything that the terminal shows is coloured.
func (t *Terminal) HasColour() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for y := range t.screen.Height() {
		for x := range t.screen.Width() {
			if cell := t.screen.CellAt(x, y); cell != nil && (cell.Style.Fg != nil || cell.Style.Bg != nil) {
				return true
			}
		}
	}
	return false
}

// Mode is what a program must restore: the line discipline, the screen that is shown, the cursor.
func (t *Terminal) Mode() (string, error) {
	discipline, err := unix.IoctlGetTermios(int(t.near.Fd()), unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("read the line discipline: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("%+v, alternate screen: %t, cursor hidden: %t", *discipline, t.screen.IsAltScreen(), t.screen.CursorHidden()), nil
}

// Close kills a program that still runs.
func (t *Terminal) Close() error {
	if t.program != nil && t.program.Process != nil {
		_ = t.program.Process.Kill() // it may have ended
	}
	err := errors.Join(t.near.Close(), t.far.Close(), t.answers.Close())
	t.idle.Wait()
	return err
}
