// Command ocf-clusterip is the resource agent: Pacemaker calls it with an action as its only argument and everything else
// in the environment (OCF RA API 1.1). Its other commands are for administrators.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"ocf-clusterip/internal/ocf"
)

// version is stamped by the linker.
var version = "unknown"

// A process is everything that the program may see of the outside world.
type process struct {
	args    []string
	environ []string
	euid    int
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
}

func main() {
	// An action is a short chain of system calls: more threads would only wake each other. And one thread makes them all, so
	// that their order can be counted, and a test can kill the process at each of them.
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	os.Exit(int(run(context.Background(), process{
		args: os.Args, environ: os.Environ(), euid: os.Geteuid(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	})))
}

// A result is the exit code of a command that checks something and has printed what it found: 0 for healthy, 1 for degraded, 2 for broken.
type result ocf.ExitCode

func (r result) Error() string { return fmt.Sprintf("exit code %d", int(r)) }

// run carries out one call and returns its exit code. A failure leaves its reason as one line on stderr.
func run(ctx context.Context, p process) ocf.ExitCode {
	environment, environmentErr := ocf.ParseEnvironment(p.environ)
	call := &call{
		process: p, environment: environment, environmentErr: environmentErr,
		log: ocf.NewLogger(p.stderr, environment.Debug),
	}
	err := call.run(ctx)
	if found, ok := errors.AsType[result](err); ok {
		return ocf.ExitCode(found)
	}
	code := ocf.CodeOf(err)
	switch code {
	case ocf.Success:
	case ocf.NotRunning:
		call.log.Infof("%v", err)
	default:
		prefix := environment.ExitReasonPrefix
		if call.byHand {
			prefix = "ocf-clusterip: "
		}
		ocf.ExitReason(p.stderr, prefix, err)
	}
	return code
}

// run turns a panic into an error: Go would exit with 2, which means to Pacemaker that the parameters are wrong.
func (c *call) run(ctx context.Context) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			c.log.Debugf("%s", debug.Stack())
			err = fmt.Errorf("internal error, please report it: %v (HA_debug=1 shows where)", cause)
		}
	}()
	return c.commandLine().Run(ctx, c.args)
}
