//go:build system

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/tests/harness"

	"golang.org/x/sys/unix"
)

// crashVariable makes this test binary a program that builds a lab and ends badly, see TestNothingIsLeft.
const crashVariable = "LAB_TEST_CRASH"

func TestMain(m *testing.M) {
	if status, taken := Inside(); taken {
		os.Exit(status)
	}
	if how := os.Getenv(crashVariable); how != "" {
		fmt.Fprintln(os.Stderr, crash(how))
		os.Exit(1)
	}
	os.Exit(harness.Main(m))
}

// crash builds a lab, prints the ids of its hosts' PID namespaces, and ends badly. It returns only what went wrong before.
func crash(how string) error {
	l, err := New(context.Background(), Options{Nodes: 2})
	if err != nil {
		return err
	}
	for _, h := range l.Hosts {
		first, err := h.pid()
		if err != nil {
			return err
		}
		namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
		if err != nil {
			return err
		}
		fmt.Println(namespace)
	}
	switch how {
	case "panic":
		panic("as asked")
	case "panic of another goroutine":
		go func() { panic("as asked") }()
	case "killed while a host hangs":
		if err := errors.Join(l.Hosts[1].Hang(), unix.Kill(os.Getpid(), unix.SIGKILL)); err != nil {
			return err
		}
	}
	time.Sleep(time.Minute)
	return errors.New("it lives on")
}

// start builds a lab for a test, which ends with it.
func start(t *testing.T, o Options) *Lab {
	t.Helper()
	if o.Log == nil {
		o.Log = t.Output()
	}
	l, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range l.Hosts {
				_, _ = fmt.Fprintf(t.Output(), "%s\n%s\n", h.Name, h.logs()) // no message: the report repeats those
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("take the lab away: %v", err)
		}
	})
	return l
}

// logs returns the end of what Pacemaker logged on the host.
func (h *Host) logs() string {
	const most = 20000
	text, err := os.ReadFile(h.log())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// run runs a command on a host, which must succeed.
func run(t *testing.T, h *Host, argv ...string) string {
	t.Helper()
	out, err := h.Run(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	for _, how := range []string{"panic", "panic of another goroutine", "killed while a host hangs"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			self, err := os.Executable()
			check(t, err)
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), crashVariable+"="+how)
			var complaints strings.Builder
			cmd.Stderr = &complaints
			out, err := cmd.Output()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				t.Fatalf("it did not end badly: %v", err)
			}
			namespaces := strings.Fields(string(out))
			if len(namespaces) != 2 {
				t.Fatalf("it printed the namespaces %q, and on stderr %s", namespaces, complaints.String())
			}
			deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for _, namespace := range namespaces {
				for processesIn(t, namespace) > 0 {
					if deadline.Err() != nil {
						t.Fatalf("%d processes of %s live on", processesIn(t, namespace), namespace)
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			// The next lab removes the rest.
			start(t, Options{Nodes: 1, ManualStart: true})
			pid := strconv.Itoa(cmd.Process.Pid)
			for _, pattern := range []string{"/run/netns/cip" + pid + "-*", filepath.Join(os.TempDir(), "lab-"+pid+"-*")} {
				if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
					t.Errorf("left: %q (%v)", left, err)
				}
			}
		})
	}
}

// processesIn counts the processes of a PID namespace.
func processesIn(t *testing.T, namespace string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	check(t, err)
	count := 0
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == namespace {
			count++
		}
	}
	return count
}

func TestHostsAreApart(t *testing.T) {
	one, two := start(t, Options{Nodes: 2, ManualStart: true}), start(t, Options{Nodes: 2, ManualStart: true})
	for _, l := range []*Lab{one, two} {
		for i, h := range l.Hosts {
			if name := strings.TrimSpace(run(t, h, "hostname")); name != fmt.Sprintf("node%d", i+1) {
				t.Errorf("%s is called %q", h.Name, name)
			}
		}
	}
	a, others := one.Hosts[0], []*Host{one.Hosts[1], two.Hosts[0]}
	for _, folder := range []string{"/run", "/dev/shm", "/etc/corosync", "/var/lib/corosync", "/var/lib/pacemaker", "/var/log"} {
		file := filepath.Join(folder, "lab-test-mark")
		run(t, a, "touch", file)
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s is seen outside", file)
		}
		for _, other := range others {
			if _, err := other.Run(t.Context(), "test", "-e", file); err == nil {
				t.Errorf("%s is seen on another host", file)
			}
		}
	}
	if first := run(t, a, "cat", "/proc/1/cmdline"); first != roleInit+"\x00" {
		t.Errorf("process 1 is %q", first)
	}
	if links := run(t, a, "ls", "/sys/class/net"); links != "eth0\neth1\nlo\n" {
		t.Errorf("the host's links: %q", links)
	}
	// A panic of Pacemaker's must not reach the machine.
	if _, err := os.Stat("/proc/sysrq-trigger"); err == nil {
		if kind := run(t, a, "stat", "-c", "%F", "/proc/sysrq-trigger"); kind != "character special file\n" {
			t.Errorf("/proc/sysrq-trigger is a %s", kind)
		}
	}
}

func TestPower(t *testing.T) {
	l := start(t, Options{Nodes: 1, ManualStart: true})
	h := l.Hosts[0]
	ask := func(action string) (string, int) {
		var out, complaints strings.Builder
		var status int
		check(t, l.Network.Switch.Do(func() error {
			options := fmt.Sprintf("action=%s\nip=%s\nplug=%s\n", action, l.powerAddress(), h.Name)
			status = fence(nil, strings.NewReader(options), &out, &complaints)
			return nil
		}))
		return out.String() + complaints.String(), status
	}
	expect := func(action string, want int) {
		t.Helper()
		if text, got := ask(action); got != want {
			t.Errorf("%s: status %d, want %d: %s", action, got, want, text)
		}
	}
	expect("status", 0)
	expect("monitor", 0)
	if text, status := ask("list"); text != "node1\n" || status != 0 {
		t.Errorf("list: %q, status %d", text, status)
	}
	if text, status := ask("explode"); status != 1 || !strings.Contains(text, "explode") {
		t.Errorf("an unknown action: %q, status %d", text, status)
	}
	run(t, h, "touch", "/run/memory", "/var/log/disk")
	expect("off", 0)
	expect("status", 2)
	expect("off", 0)
	if _, err := h.Run(t.Context(), "true"); err == nil {
		t.Error("something runs on a host without power")
	}
	expect("on", 0)
	expect("status", 0)
	if _, err := h.Run(t.Context(), "test", "-e", "/run/memory"); err == nil {
		t.Error("memory lives on without power")
	}
	run(t, h, "test", "-e", "/var/log/disk")

	check(t, h.Kill())
	<-h.ended
	if _, err := h.Run(t.Context(), "true"); err == nil {
		t.Error("something runs on a host whose processes were killed")
	}
	check(t, h.machine.Do(func() error { return nil })) // its kernel lives on
	expect("reboot", 0)
	l.boots.Wait()
	run(t, h, "true")

	check(t, h.Hang()) // which waits for it
	expect("off", 0)
}

func TestFenceAgentReadsOptions(t *testing.T) {
	var out strings.Builder
	if status := fence([]string{"-o", "metadata"}, strings.NewReader(""), &out, io.Discard); status != 0 ||
		!strings.Contains(out.String(), `<resource-agent name="fence_lab"`) {
		t.Errorf("meta-data: status %d, %s", status, out.String())
	}
	var complaints strings.Builder
	if status := fence(nil, strings.NewReader("# comment\naction=off\nip=127.0.0.1:1\nplug=node1\n"), io.Discard, &complaints); status != 1 {
		t.Errorf("no power switch: status %d", status)
	}
	if line, _ := bufio.NewReader(strings.NewReader(complaints.String())).ReadString('\n'); !strings.Contains(line, "off node1") {
		t.Errorf("the line is %q", line)
	}
}

// A cluster is made, used and broken, next to another one.
func TestTwoClustersSideBySide(t *testing.T) {
	one, two := start(t, Options{Nodes: 2}), start(t, Options{Nodes: 2})
	begin, err := two.Status(t.Context())
	check(t, err)
	run(t, one.Hosts[0], "pcs", "resource", "create", "nothing", "ocf:pacemaker:Dummy", "clone")
	check(t, one.WaitIdle(t.Context()))
	check(t, one.Hosts[1].Off())
	_, err = one.WaitFor(t.Context(), func(s *Status) error {
		if s.Nodes["node2"].Online {
			return errors.New("node2's death is not noticed")
		}
		return nil
	})
	check(t, err)
	check(t, one.WaitOnline(t.Context())) // fenced, and back
	s, err := two.Status(t.Context())
	check(t, err)
	if s.DC != begin.DC || len(s.Instances) != len(begin.Instances) || !s.Nodes["node2"].Online {
		t.Errorf("the other cluster noticed something: %+v, before %+v", s, begin)
	}
}
