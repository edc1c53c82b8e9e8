package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initConfig is the configuration of a host's first process, as JSON in initVariable.
type initConfig struct {
	Name        string
	Disk        string            // the folder with the host's own files
	Root        string            // the root file system; machineRoot is the machine's
	Shared      []string          // folders that the host sees in another root than the machine's, too
	Overlays    map[string]string // folder of the overlay, by the folder of the host that it covers
	ManualStart bool
}

const (
	initVariable  = "LAB_HOST"
	bootedMark    = "booted\n" // written when the host is ready to be entered
	serviceSocket = "/run/lab-service.sock"
)

// onDisk are the folders of a host that are its own, by where they are kept on its disk.
var onDisk = map[string]string{
	"etc-corosync":      "/etc/corosync",
	"var-lib-corosync":  "/var/lib/corosync",
	"var-lib-pacemaker": "/var/lib/pacemaker",
	"var-log":           "/var/log",
}

// runInit is the first process of a host: it makes the host's file system, starts the application and the cluster's
// daemons, and buries orphans. It ends only by a signal.
func runInit() error {
	const ready = 3 // the pipe to which bootedMark is written
	unix.CloseOnExec(ready)
	var config initConfig
	if err := json.Unmarshal([]byte(os.Getenv(initVariable)), &config); err != nil {
		return fmt.Errorf("%s: %w", initVariable, err)
	}
	if err := os.Unsetenv(initVariable); err != nil {
		return err
	}
	if err := mountAll(config); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(config.Name)); err != nil {
		return fmt.Errorf("set the host's name: %w", err)
	}
	host := &services{processes: map[string]*process{}}
	go host.bury()
	if err := host.start(roleServers); err != nil {
		return err
	}
	listener, err := net.Listen("unix", serviceSocket)
	if err != nil {
		return err
	}
	if !config.ManualStart {
		go func() {
			for _, name := range []string{"corosync", "pacemaker"} {
				if err := host.start(name); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}()
	}
	pipe := os.NewFile(ready, "ready")
	if _, err := pipe.WriteString(bootedMark); err != nil {
		return err
	}
	if err := pipe.Close(); err != nil {
		return err
	}
	return host.serve(listener)
}

// mountAll makes the host's view of the file system. Nothing of it is seen outside.
func mountAll(config initConfig) error {
	if err := unix.Mount("", "/", "none", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if config.Root != machineRoot {
		if err := enterRoot(config.Root, config.Disk, config.Shared); err != nil {
			return err
		}
	}
	// The machine's mounts of network namespaces would keep those alive after their time.
	if err := unix.Unmount("/run/netns", unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount /run/netns: %w", err)
	}
	type mount struct {
		source, target, kind string
		flags                uintptr
		options              string
	}
	mounts := []mount{
		{"proc", "/proc", "proc", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		{"tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777"},
		{filepath.Join(config.Disk, "hosts"), "/etc/hosts", "none", unix.MS_BIND, ""},
	}
	for from, to := range onDisk {
		mounts = append(mounts, mount{filepath.Join(config.Disk, from), to, "none", unix.MS_BIND, ""})
	}
	for under, over := range config.Overlays {
		// What a package installs there is on the host's disk.
		changes := filepath.Join(config.Disk, "overlays", under)
		work := changes + ".work"
		if err := errors.Join(os.MkdirAll(changes, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		mounts = append(mounts, mount{
			"overlay", under, "overlay", 0, "lowerdir=" + over + ":" + under + ",upperdir=" + changes + ",workdir=" + work,
		})
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	// Pacemaker's panic writes "b" there: it would reboot the real machine. Some kernels do not have it.
	if err := unix.Mount("/dev/null", "/proc/sysrq-trigger", "none", unix.MS_BIND, ""); err != nil && err != unix.ENOENT {
		return fmt.Errorf("mask /proc/sysrq-trigger: %w", err)
	}
	for _, folder := range []string{"/run/lock", "/run/resource-agents", "/run/fence-agents"} {
		if err := errors.Join(os.Mkdir(folder, 0o777), os.Chmod(folder, 0o777|fs.ModeSticky)); err != nil {
			return err
		}
	}
	uid, gid, err := clusterUser("/")
	if err != nil {
		return err
	}
	return errors.Join(os.Mkdir("/run/crm", 0o750), os.Chown("/run/crm", uid, gid))
}

// services are the daemons of a host.
type services struct {
	mu        sync.Mutex
	processes map[string]*process // by the service's name
}

// process is a daemon that was started.
type process struct {
	pid    int
	ended  chan struct{} // closed when it has ended
	status unix.WaitStatus
	asked  bool // to end
}

// daemon returns how a service is started.
func daemon(name string) (path string, argv, env []string, ready func() error, err error) {
	env = environment
	switch name {
	case roleServers:
		return "/proc/self/exe", []string{roleServers}, env, nil, nil
	case "corosync":
		return "/usr/sbin/corosync", []string{"corosync", "-f"}, env, corosyncAnswers, nil
	case "pacemaker":
		env = append(slices.Clip(env),
			"PCMK_logfile=/var/log/pacemaker/pacemaker.log", "PCMK_logfacility=none", "PCMK_stderr=0",
			"PCMK_cluster_type=corosync", "PCMK_fail_fast=no", "PCMK_node_start_state=default")
		return "/usr/sbin/pacemakerd", []string{"pacemakerd"}, env, nil, nil
	}
	return "", nil, nil, nil, fmt.Errorf("no service %q", name)
}

// corosyncAnswers waits until Pacemaker can connect. Pacemaker would end otherwise.
func corosyncAnswers() error {
	// libqb fills the whole of sun_path with an abstract socket's name (qb_ipcc_us_sock_connect).
	const tries, pause, sunPath = 500, 20 * time.Millisecond, 108
	socket := "@cmap" + strings.Repeat("\x00", sunPath-len("@cmap"))
	for range tries {
		if conn, err := net.Dial("unix", socket); err == nil {
			return conn.Close()
		}
		time.Sleep(pause)
	}
	return errors.New("corosync does not answer")
}

// start starts a service, and returns when it is ready to be used. It is no error if it runs.
func (s *services) start(name string) error {
	path, argv, env, ready, err := daemon(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock() // held over the fork, so that bury finds the process
	if p := s.processes[name]; p != nil && p.running() {
		return nil
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: env, Dir: "/", Files: []uintptr{null.Fd(), 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{pid: pid, ended: make(chan struct{})}
	s.processes[name] = p
	if name == "pacemaker" {
		go s.restartFailed(name, p)
	}
	if ready != nil {
		return ready()
	}
	return nil
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// restartFailed does what pacemaker.service asks of systemd: Restart=on-failure, SuccessExitStatus=100.
func (s *services) restartFailed(name string, p *process) {
	<-p.ended
	time.Sleep(time.Second)
	s.mu.Lock()
	status := p.status.ExitStatus()
	corosync := s.processes["corosync"]
	again := !p.asked && status != 0 && status != 100 && corosync != nil && corosync.running()
	s.mu.Unlock()
	if !again {
		return
	}
	if err := s.start(name); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// stop ends a service gracefully, and returns when it has ended: Pacemaker first stops all resources.
func (s *services) stop(name string) error {
	s.mu.Lock()
	p := s.processes[name]
	if p == nil || !p.running() {
		s.mu.Unlock()
		return nil
	}
	p.asked = true
	err := unix.Kill(p.pid, unix.SIGTERM)
	s.mu.Unlock()
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	<-p.ended
	return nil
}

// bury waits for all children, orphans included, as a first process must.
func (s *services) bury() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	for range died {
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil || pid == 0 {
				break
			}
			s.mu.Lock()
			for _, p := range s.processes {
				if p.pid == pid && p.running() {
					p.status = status
					close(p.ended)
				}
			}
			s.mu.Unlock()
		}
	}
}

// serve answers the service command: one line "NAME ACTION", answered by "ok", or by what is wrong.
func (s *services) serve(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err == nil {
				err = s.do(strings.Fields(line))
			}
			answer := "ok"
			if err != nil {
				answer = err.Error()
			}
			_, _ = fmt.Fprintln(conn, answer)
		}()
	}
}

func (s *services) do(words []string) error {
	if len(words) != 2 {
		return errors.New("usage: service NAME start|stop|status")
	}
	name, action := words[0], words[1]
	if _, _, _, _, err := daemon(name); err != nil {
		return err
	}
	switch action {
	case "start":
		return s.start(name)
	case "stop":
		return s.stop(name)
	case "status":
		s.mu.Lock()
		defer s.mu.Unlock()
		if p := s.processes[name]; p == nil || !p.running() {
			return fmt.Errorf("%s does not run", name)
		}
		return nil
	}
	return fmt.Errorf("no action %q", action)
}

// callService is the command `service NAME ACTION`.
func callService(words []string) error {
	conn, err := net.Dial("unix", serviceSocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, strings.Join(words, " ")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return errors.New(answer)
	}
	return nil
}
