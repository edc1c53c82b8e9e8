// Command init is the first process of a guest of package vm: it mounts what programs expect, loads the modules, runs the program
// of the file /command with its arguments, prints its exit status, and switches the guest off.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	status, err := runGuest()
	if err != nil {
		fmt.Println("init:", err)
		status = 125
	}
	fmt.Printf("VERDICT %d\n", status)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func runGuest() (status int, err error) {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return 0, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return 0, err
	}
	for name := range strings.FieldsSeq(string(order)) {
		if err := load(name); err != nil {
			return 0, fmt.Errorf("load %s: %w", name, err)
		}
	}
	command, err := os.ReadFile("/command")
	if err != nil {
		return 0, err
	}
	lines := strings.Split(strings.TrimSuffix(string(command), "\n"), "\n")
	cmd := exec.Command(lines[0], lines[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "OCF_CLUSTERIP=/usr/sbin/ocf-clusterip"}
	cmd.Dir = "/test/package"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
