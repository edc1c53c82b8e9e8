// Package vm boots another kernel than the machine's: Debian 12's, of a package that is downloaded and unpacked but never
// installed, under qemu. The guest is an initramfs with test programs of this project, the tools that they call, and the first
// process of package init. Neither KVM nor root is needed.
package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Kernel is an unpacked package.
type Kernel struct {
	Version string // "6.1.0-56-cloud-amd64"
	folder  string
}

// metaPackage depends on the newest kernel of Debian 12 for virtual machines.
const metaPackage = "linux-image-cloud-amd64"

var dependsOnKernel = regexp.MustCompile(`Depends: linux-image-(\S+)`)

// FetchKernel downloads and unpacks the newest one into a folder, unless it is there.
func FetchKernel(ctx context.Context, folder string) (Kernel, error) {
	out, err := run(ctx, folder, "apt-cache", "depends", metaPackage)
	found := dependsOnKernel.FindStringSubmatch(out)
	if found == nil { // a new machine has no package lists yet
		if _, err = run(ctx, folder, "apt-get", "-q", "update"); err != nil {
			return Kernel{}, err
		}
		out, err = run(ctx, folder, "apt-cache", "depends", metaPackage)
		found = dependsOnKernel.FindStringSubmatch(out)
	}
	if found == nil {
		return Kernel{}, fmt.Errorf("apt knows no %s: %w", metaPackage, err)
	}
	k := Kernel{Version: found[1], folder: filepath.Join(folder, found[1])}
	if _, err := os.Stat(k.image()); err == nil {
		return k, nil
	}
	// In a folder of its own first: a download that was interrupted must not look like a kernel.
	scratch, err := os.MkdirTemp(folder, "fetch-")
	if err != nil {
		return k, err
	}
	defer os.RemoveAll(scratch)
	if _, err := run(ctx, scratch, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "linux-image-"+k.Version); err != nil {
		return k, err
	}
	packages, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(packages) != 1 {
		return k, fmt.Errorf("%d packages were downloaded: %w", len(packages), err)
	}
	unpacked := filepath.Join(scratch, "unpacked")
	if _, err := run(ctx, scratch, "dpkg-deb", "-x", packages[0], unpacked); err != nil {
		return k, err
	}
	return k, os.Rename(unpacked, k.folder)
}

func (k Kernel) image() string { return filepath.Join(k.folder, "boot", "vmlinuz-"+k.Version) }
func (k Kernel) modules() string {
	return filepath.Join(k.folder, "lib", "modules", k.Version, "kernel")
}

func run(ctx context.Context, folder string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = folder
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out), nil
}

// ErrNoVerdict says that the guest ended without one: it panicked or hung.
var ErrNoVerdict = errors.New("the guest ended without a verdict")

// verdict is what the guest's first process prints last.
var verdict = regexp.MustCompile(`^VERDICT (\d+)\r?$`)

// Boot starts the kernel with an initramfs, hands on each line of the guest's console, and returns the exit status of the program
// that it runs. The guest has one processor and no devices but the console.
func Boot(ctx context.Context, k Kernel, initramfs string, line func(string)) (int, error) {
	// Not KVM, which may be there and hang; and a second processor makes the emulation no faster. What is left out of the processor and
	// of the kernel's clocks costs an emulator a third more: wide registers to save at each switch, a timer to set anew for each sleep,
	// a clock to ask that is a device.
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "pc", "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-smp", "1", "-m", "1024",
		"-kernel", k.image(), "-initrd", initramfs, "-serial", "stdio",
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
	status, said := 0, false
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		if found := verdict.FindStringSubmatch(lines.Text()); found != nil {
			status, err = strconv.Atoi(found[1])
			said = err == nil
			continue
		}
		line(strings.TrimSuffix(lines.Text(), "\r"))
	}
	err = errors.Join(lines.Err(), cmd.Wait(), context.Cause(ctx))
	if !said {
		return 0, errors.Join(ErrNoVerdict, err, errors.New(complaints.String()))
	}
	return status, err
}
