package ocf

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestCodeOf(t *testing.T) {
	configured := Errorf(ErrConfigured, "bad address")
	installed := Errorf(ErrInstalled, "no nf_tables")
	perm := Errorf(ErrPerm, "not root")
	args := Errorf(ErrArgs, "no such NIC")
	unimplemented := Errorf(ErrUnimplemented, "no promote")
	notRunning := Errorf(NotRunning, "nothing there")
	degraded := Errorf(Degraded, "half")
	plain := errors.New("boom")

	tests := []struct {
		name string
		err  error
		want ExitCode
	}{
		{"no error is success", nil, Success},
		{"a plain error is generic", plain, ErrGeneric},
		{"an error says its code", configured, ErrConfigured},
		{"a wrapped error says its code", fmt.Errorf("start: %w", fmt.Errorf("link: %w", args)), ErrArgs},
		{"the outermost code on a path wins", Errorf(ErrGeneric, "stop: %w", configured), ErrGeneric},
		{"the outermost code hides a joined tree", Errorf(NotRunning, "all: %w", errors.Join(plain, perm)), NotRunning},
		{"configured wins over installed", errors.Join(installed, configured), ErrConfigured},
		{"installed wins over permission", errors.Join(perm, installed), ErrInstalled},
		{"permission wins over arguments", errors.Join(args, perm), ErrPerm},
		{"arguments win over unimplemented", errors.Join(unimplemented, args), ErrArgs},
		{"unimplemented wins over a plain error", errors.Join(plain, unimplemented), ErrUnimplemented},
		{"a plain error puts not running in doubt", errors.Join(notRunning, plain), ErrGeneric},
		{"not running wins over degraded", errors.Join(degraded, notRunning), NotRunning},
		{"degraded alone stays", errors.Join(degraded), Degraded},
		{"a join in a wrap in a join is searched", errors.Join(plain, fmt.Errorf("x: %w", errors.Join(args, configured))), ErrConfigured},
		{"several %w are a join", fmt.Errorf("%w, then %w", notRunning, perm), ErrPerm},
		{"an error from elsewhere that wraps ours", &fs.PathError{Op: "open", Path: "/", Err: perm}, ErrPerm},
		{"an error cannot be a success", Errorf(Success, "odd"), ErrGeneric},
		{"an error cannot have a foreign code", Errorf(42, "odd"), ErrGeneric},
		{"an error without a cause", &Error{Code: ErrPerm}, ErrPerm},
		{"a wrapper of nothing is generic", emptyWrapper{}, ErrGeneric},
		{"a join of nothing is generic", emptyJoin{}, ErrGeneric},
		{"a nil *Error in an error is generic", (*Error)(nil), ErrGeneric},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := CodeOf(tt.err); got != tt.want {
				t.Errorf("CodeOf = %d (%s), want %d (%s)", got, got, tt.want, tt.want)
			}
		})
	}
}

type emptyWrapper struct{}

func (emptyWrapper) Error() string { return "empty" }
func (emptyWrapper) Unwrap() error { return nil }

type emptyJoin struct{}

func (emptyJoin) Error() string   { return "empty" }
func (emptyJoin) Unwrap() []error { return nil }

func TestErrorKeepsItsCause(t *testing.T) {
	err := Errorf(ErrPerm, "open %s: %w", "/x", fs.ErrPermission)
	if !errors.Is(err, fs.ErrPermission) {
		t.Error("errors.Is does not find the cause")
	}
	if got, want := err.Error(), "open /x: permission denied"; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
	if got, want := (&Error{Code: ErrInstalled}).Error(), "not installed"; got != want {
		t.Errorf("text without a cause = %q, want %q", got, want)
	}
}

func TestExitCodeString(t *testing.T) {
	tests := map[ExitCode]string{
		Success: "ok", ErrGeneric: "error", ErrArgs: "invalid parameter", ErrUnimplemented: "unimplemented feature",
		ErrPerm: "insufficient privileges", ErrInstalled: "not installed", ErrConfigured: "not configured",
		NotRunning: "not running", Degraded: "degraded", 42: "exit code 42",
	}
	for code, want := range tests {
		if got := code.String(); got != want {
			t.Errorf("ExitCode(%d) = %q, want %q", int(code), got, want)
		}
	}
}
