// Package vm boots other kernels than the machine's: those of Debian's releases, of packages that are downloaded and unpacked but
// never installed, under qemu. A guest is an initramfs with test programs of this project, the machine's tools that they call, and the
// first process of package init. Neither KVM nor root is needed.
package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func run(ctx context.Context, folder string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = folder
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, complaints.String())
	}
	return string(out), nil
}

// ErrNoVerdict means that the guest ended without an exit status: it panicked or hung.
var ErrNoVerdict = errors.New("the guest ended without an exit status")

// verdict is what the guest's first process prints last.
var verdict = regexp.MustCompile(`^VERDICT (\d+)\r?$`)

// Boot starts the kernel with an initramfs, hands on each line of the guest's console, and returns the exit status of the program
// that it runs. The guest has one processor and no devices but the console.
func Boot(ctx context.Context, k Kernel, initramfs string, line func(string)) (int, error) {
	// Not KVM, which may be there and hang; and a second processor makes the emulation no faster. What is left out of the processor and
	// of the kernel's clocks costs an emulator a third more: wide registers to save at each switch, a timer to set for each sleep,
	// a clock to ask that is a device.
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "pc", "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-smp", "1", "-m", "1024",
		"-kernel", k.image, "-initrd", initramfs, "-serial", "stdio",
		"-append", "console=ttyS0 quiet panic=-1 oops=panic mitigations=off random.trust_cpu=on no_timer_check audit=0 "+
			"nohz=off highres=off tsc=reliable clocksource=tsc")
	cmd.WaitDelay = time.Second
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start qemu: %w", err)
	}
	status, ended := 0, false
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		if found := verdict.FindStringSubmatch(lines.Text()); found != nil {
			status, err = strconv.Atoi(found[1])
			ended = err == nil
			continue
		}
		line(strings.TrimSuffix(lines.Text(), "\r"))
	}
	err = errors.Join(lines.Err(), cmd.Wait(), context.Cause(ctx))
	if !ended {
		return 0, errors.Join(ErrNoVerdict, err, errors.New(complaints.String()))
	}
	return status, err
}
