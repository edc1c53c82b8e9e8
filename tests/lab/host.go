package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/lan"
)

const (
	bootTimeout = 20 * time.Second // of the host, not of the cluster
	killTimeout = 20 * time.Second
)

// environment is what programs inside a host find, those of an admin and those of the cluster.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}

// Host is a machine of the lab.
type Host struct {
	Name string // also the cluster node's

	lab     *Lab
	index   int // in Lab.Hosts and in the network's Nodes
	machine *lan.Host
	disk    string // a folder that outlives the host's power
	root    string // the root file system that it runs in

	mu     sync.Mutex    // held while the power changes
	first  *exec.Cmd     // the host's process 1; nil while it is off
	ended  chan struct{} // closed when that process has ended
	losses []time.Time   // when the power was lost, each time

	fenced atomic.Int64 // when last, in nanoseconds since 1970; 0 is never
}

// On boots the host: a new kernel, and the first process, which starts the cluster in the background. It is no error if the
// host is on.
func (h *Host) On(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first != nil && !h.dead() {
		return nil
	}
	if err := h.off(); err != nil {
		return err
	}
	if err := h.boot(ctx); err != nil {
		return errors.Join(fmt.Errorf("boot %s: %w", h.Name, err), h.off())
	}
	h.lab.logf("%s is on", h.Name)
	return nil
}

func (h *Host) boot(ctx context.Context) error {
	if err := h.lab.Network.PowerOff(h.index); err != nil { // a first boot finds the kernel that the network was built with
		return err
	}
	if err := h.lab.Network.PowerOn(ctx, h.index); err != nil {
		return err
	}
	config, err := json.Marshal(
		initConfig{
			Name:        h.Name,
			Disk:        h.disk,
			Root:        h.root,
			Shared:      h.lab.shared,
			Overlays:    h.lab.overlays(),
			ManualStart: h.lab.options.ManualStart,
		},
	)
	if err != nil {
		return err
	}
	console, err := os.OpenFile(filepath.Join(h.disk, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	booted, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer booted.Close()

	cmd := exec.Command(h.lab.program)
	cmd.Args = []string{roleInit}
	cmd.Env = append([]string{initVariable + "=" + string(config)}, environment...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{writer}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL,
	}
	err = h.lab.fork(func() error {
		if err := h.machine.Enter(); err != nil {
			return err
		}
		return cmd.Start()
	})
	writer.Close()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	h.first, h.ended = cmd, ended

	if err := booted.SetReadDeadline(time.Now().Add(bootTimeout)); err != nil {
		return err
	}
	text, err := io.ReadAll(booted)
	if err == nil && string(text) != bootedMark {
		text, _ := os.ReadFile(console.Name())
		err = fmt.Errorf("its first process ended: %s", bytes.TrimSpace(text))
	}
	return err
}

// Off switches the power off: all processes end, the links are cut, and the kernel's state is lost. It returns when that
// is done. It is no error if the host is off.
func (h *Host) Off() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		return nil
	}
	if err := h.off(); err != nil {
		return err
	}
	h.lab.logf("%s is off", h.Name)
	return nil
}

func (h *Host) off() error {
	at := time.Now()
	err := h.lab.Network.PowerOff(h.index) // first: from now on it reaches no other host
	if h.first == nil {
		return err
	}
	h.losses = append(h.losses, at)
	// With its process 1 the kernel kills every other process of the host, stopped ones too.
	if kill := h.first.Process.Kill(); kill != nil && !errors.Is(kill, os.ErrProcessDone) {
		err = errors.Join(err, kill)
	}
	select {
	case <-h.ended:
		h.first = nil
		return err
	case <-time.After(killTimeout):
		return errors.Join(err, fmt.Errorf("%s does not die", h.Name))
	}
}

// dead returns whether the first process has ended by itself. h.mu is held.
func (h *Host) dead() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// Fenced returns when the cluster's request to fence the host was last fulfilled; zero if never.
func (h *Host) Fenced() time.Time {
	if at := h.fenced.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// PowerLosses returns when the host lost its power, each time, for any reason.
func (h *Host) PowerLosses() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.losses)
}

// fence switches the power off because the cluster requests it.
func (h *Host) fence() error {
	if err := h.Off(); err != nil {
		return err
	}
	h.lab.logf("%s is fenced", h.Name)
	h.fenced.Store(time.Now().UnixNano())
	return nil
}

// IsOn returns whether the host has power.
func (h *Host) IsOn() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.first != nil
}

// Kill ends all processes of the host, as if its first one had crashed. The kernel lives on, and goes on answering pings.
func (h *Host) Kill() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		return fmt.Errorf("%s is off", h.Name)
	}
	h.lab.logf("%s: all processes killed", h.Name)
	return h.first.Process.Kill()
}

// Hang stops all processes of the host (SIGSTOP), as an overload or a lost disk can. The kernel lives on.
func (h *Host) Hang() error {
	first, err := h.pid()
	if err != nil {
		return err
	}
	h.lab.logf("%s: all processes stopped", h.Name)
	for range 3 { // a process may fork while it is looked for
		pids, err := processesWith(first)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil && err != unix.ESRCH {
				return fmt.Errorf("stop process %d of %s: %w", pid, h.Name, err)
			}
		}
	}
	return h.awaitStop(first)
}

// awaitStop waits until the host's first process has taken the signal, which on a busy machine is not at once.
func (h *Host) awaitStop(first int) error {
	for deadline := time.Now().Add(killTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", first))
		if err != nil {
			return err
		}
		// The state follows the name in brackets, which may hold anything (proc_pid_stat(5)).
		if bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" T ")) {
			return nil
		}
	}
	return fmt.Errorf("process 1 of %s does not stop", h.Name)
}

// Cut pulls a cable: lan.NIC on the LAN or lan.ManagementNIC.
func (h *Host) Cut(nic string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lab.logf("%s: %s cut", h.Name, nic)
	return h.lab.Network.UnplugNode(h.index, nic)
}

// Repair puts a cable back.
func (h *Host) Repair(ctx context.Context, nic string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lab.logf("%s: %s repaired", h.Name, nic)
	return h.lab.Network.PlugNode(ctx, h.index, nic)
}

// pid returns the process id, outside, of the host's first process.
func (h *Host) pid() (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil || h.dead() {
		return 0, fmt.Errorf("%s is down", h.Name)
	}
	return h.first.Process.Pid, nil
}

// EnterCommand returns the arguments that run a program inside the host, for exec.
func (h *Host) EnterCommand(argv ...string) ([]string, error) {
	pid, err := h.pid()
	if err != nil {
		return nil, err
	}
	return append([]string{"/usr/bin/nsenter", "-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "--"}, argv...), nil
}

// Run executes a program inside the host, with an admin's environment, and returns what it prints on stdout. The error of a
// program that fails has all of its output.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	command, err := h.EnterCommand(argv...)
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	r := h.machine.Run(ctx, environment, command...)
	if r.Err == nil && r.ExitCode != 0 {
		r.Err = fmt.Errorf("exit status %d", r.ExitCode)
	}
	if r.Err != nil {
		return r.Stdout, fmt.Errorf("%s# %s: %w\n%s%s", h.Name, strings.Join(argv, " "), r.Err, r.Stdout, r.Stderr)
	}
	return r.Stdout, nil
}

// Dump returns the state of the host's network, see lan.Host.Dump.
func (h *Host) Dump() (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		return "", fmt.Errorf("%s is off", h.Name)
	}
	return h.machine.Dump()
}

// Machine is the host in the network: its MAC and addresses.
func (h *Host) Machine() *lan.Host { return h.machine }

// processesWith lists the processes in the same PID namespace, outside ids.
func processesWith(pid int) ([]int, error) {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		other, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", other)); err == nil && ns == own {
			pids = append(pids, other)
		}
	}
	return pids, nil
}

// KillProcess kills one process of the host that is such a one, by its name and the arguments that it was started with. "what" is for the
// error, when there is none.
func (h *Host) KillProcess(what string, is func(name string, argv []string) bool) error {
	first, err := h.pid()
	if err != nil {
		return err
	}
	pids, err := processesWith(first)
	if err != nil {
		return err
	}
	found := slices.DeleteFunc(pids, func(pid int) bool {
		argv := strings.Split(strings.TrimSuffix(procFile(pid, "cmdline"), "\x00"), "\x00")
		return !is(strings.TrimSuffix(procFile(pid, "comm"), "\n"), argv)
	})
	if len(found) == 0 {
		return fmt.Errorf("no process of %s is %s", h.Name, what)
	}
	return unix.Kill(found[0], unix.SIGKILL)
}

// procFile reads a process's file in /proc; nothing, if the process has ended.
func procFile(pid int, name string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return ""
	}
	return string(text)
}

// alive returns whether a process exists.
func alive(pid int) bool { return unix.Kill(pid, 0) != unix.ESRCH }
