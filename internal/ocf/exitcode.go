package ocf

import (
	"errors"
	"fmt"
	"strconv"
)

// ExitCode is what an agent returns to the resource manager (OCF 1.1, "Exit Status Codes").
type ExitCode int

// The codes that this agent returns. Promoted instances, which it does not have, have others (8, 9, 191).
const (
	Success          ExitCode = 0   // done; for monitor: properly active
	ErrGeneric       ExitCode = 1   // failed, or unknown; Pacemaker tries again, here or elsewhere
	ErrArgs          ExitCode = 2   // wrong on this node only
	ErrUnimplemented ExitCode = 3   // no such action
	ErrPerm          ExitCode = 4   // the user may not do this
	ErrInstalled     ExitCode = 5   // this node lacks something that is needed
	ErrConfigured    ExitCode = 6   // wrong on every node: Pacemaker does not try again
	NotRunning       ExitCode = 7   // monitor only, and only if nothing is left
	Degraded         ExitCode = 190 // monitor only: active, but likely to fail
)

// String returns the words that Pacemaker's own tools use for the code.
func (c ExitCode) String() string {
	switch c {
	case Success:
		return "ok"
	case ErrGeneric:
		return "error"
	case ErrArgs:
		return "invalid parameter"
	case ErrUnimplemented:
		return "unimplemented feature"
	case ErrPerm:
		return "insufficient privileges"
	case ErrInstalled:
		return "not installed"
	case ErrConfigured:
		return "not configured"
	case NotRunning:
		return "not running"
	case Degraded:
		return "degraded"
	default:
		return "exit code " + strconv.Itoa(int(c))
	}
}

// gravity orders the codes of joined errors. The code that rules out the most nodes wins: with another one the resource manager would try
// again where the other fault stops it. ErrConfigured holds on every node. ErrInstalled, ErrPerm, ErrArgs and ErrUnimplemented hold on this
// one, in the order of the work to repair them. After ErrGeneric another try may succeed. NotRunning comes below every failure: after a
// failure, monitor must not return that the resource is stopped. Degraded, which means that it runs, comes last.
func (c ExitCode) gravity() int {
	switch c {
	case ErrConfigured:
		return 8
	case ErrInstalled:
		return 7
	case ErrPerm:
		return 6
	case ErrArgs:
		return 5
	case ErrUnimplemented:
		return 4
	case ErrGeneric:
		return 3
	case NotRunning:
		return 2
	case Degraded:
		return 1
	default:
		return 0 // Success and unknown codes, which an error must not have
	}
}

// Error is an error with its exit code. The text of Err becomes the exit reason.
type Error struct {
	Code ExitCode
	Err  error
}

// Error returns the text of the cause, without the code.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Code.String()
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf is fmt.Errorf, %w included, for an error with an exit code.
func Errorf(code ExitCode, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Split returns the errors that are joined in an error (errors.Join), or the error alone.
func Split(err error) []error {
	if err == nil {
		return nil
	}
	var several interface{ Unwrap() []error }
	if !errors.As(err, &several) {
		return []error{err}
	}
	var all []error
	for _, one := range several.Unwrap() {
		all = append(all, Split(one)...)
	}
	return all
}

// CodeOf is the one place where an error becomes an exit code. No error is Success. The outermost *Error on a path through the wrapped
// errors determines the code of that path; a path without one is ErrGeneric. If errors are joined (errors.Join, or several %w), the gravest
// code of all branches wins:
//
//	ErrConfigured > ErrInstalled > ErrPerm > ErrArgs > ErrUnimplemented > ErrGeneric > NotRunning > Degraded
//
// An error never leads to Success, whatever code it carries.
func CodeOf(err error) ExitCode {
	if err == nil {
		return Success
	}
	switch e := any(err).(type) {
	case *Error:
		if e == nil || e.Code.gravity() == 0 {
			return ErrGeneric
		}
		return e.Code
	case interface{ Unwrap() error }:
		if cause := e.Unwrap(); cause != nil {
			return CodeOf(cause)
		}
	case interface{ Unwrap() []error }:
		gravest := Success
		for _, cause := range e.Unwrap() {
			if code := CodeOf(cause); code.gravity() > gravest.gravity() {
				gravest = code
			}
		}
		if gravest != Success {
			return gravest
		}
	}
	return ErrGeneric
}
