package lan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a computer of the LAN: a network namespace.
type Host struct {
	Name      string // "node1", "client", …
	Namespace string // its name in `ip netns`
	MAC       net.HardwareAddr
	Addr      netip.Addr // its own
	Addr6     netip.Addr // its own, if there is IPv6

	ipv6    bool
	ns      *namespace
	handle  *netlink.Handle
	servers []io.Closer
}

// start gives the host its kernel, without IPv6 or with one that waits for nothing.
func (h *Host) start() error {
	ns, err := newNamespace(h.Namespace)
	if err != nil {
		return err
	}
	handle, err := netlink.NewHandleAt(ns.net, unix.NETLINK_ROUTE)
	if err != nil {
		return errors.Join(fmt.Errorf("open netlink in %s: %w", h.Namespace, err), ns.close())
	}
	h.ns, h.handle = ns, handle
	for _, conf := range []string{"all", "default"} {
		if h.ipv6 {
			err = errors.Join(err, h.Sysctl("net/ipv6/conf/"+conf+"/accept_dad", "0"), h.Sysctl("net/ipv6/conf/"+conf+"/accept_ra", "0"))
		} else if e := h.Sysctl("net/ipv6/conf/"+conf+"/disable_ipv6", "1"); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, h.SetUp("lo"))
}

// running reports whether the host has a kernel.
func (h *Host) running() bool { return h.ns != nil }

// Handle is a route netlink socket inside the host.
func (h *Host) Handle() *netlink.Handle { return h.handle }

// Do runs fn on a thread inside the host, for instance to open a socket, which then stays there. Goroutines that fn
// starts are outside again, and so is what /proc/self shows, /proc/net included; /proc/thread-self is inside.
func (h *Host) Do(fn func() error) error {
	return OnThread(func() error {
		if err := h.Enter(); err != nil {
			return err
		}
		return fn()
	})
}

// Enter moves the calling thread into the host, for good: call it in a function given to OnThread.
func (h *Host) Enter() error {
	if !h.running() {
		return fmt.Errorf("%s is off", h.Name)
	}
	return h.ns.enter()
}

// Result is how a program ended.
type Result struct {
	Stdout, Stderr string
	ExitCode       int           // -1 when it did not start or a signal ended it
	Err            error         // it did not start, a signal ended it, or ctx did; nil for every exit status
	Duration       time.Duration // from before its start to after its end
	CPU            time.Duration // user and system, of it and the children it waited for
}

// Failure returns what went wrong with a program that should have succeeded.
func (r Result) Failure() error {
	if r.Err == nil && r.ExitCode != 0 {
		return fmt.Errorf("status %d: %s", r.ExitCode, r.Stderr)
	}
	return r.Err
}

// ToolPath is the environment of programs that only have to find others.
var ToolPath = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

// Run runs a program inside the host as Pacemaker would: exactly that environment, working directory /,
// no input. When ctx ends, the program's whole process group is killed.
func (h *Host) Run(ctx context.Context, env []string, argv ...string) Result {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append([]string{}, env...) // not nil, which would mean our own
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second // for a stray child that keeps the pipes open; long, for machines that stand still

	var begin time.Time
	err := h.Do(func() error {
		begin = time.Now()
		return cmd.Start()
	})
	if err != nil {
		return Result{ExitCode: -1, Err: fmt.Errorf("run %s on %s: %w", argv[0], h.Name, err)}
	}
	err = cmd.Wait()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: cmd.ProcessState.ExitCode(), Duration: time.Since(begin)}
	r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || r.ExitCode < 0) {
		r.Err = fmt.Errorf("run %s on %s: %w", argv[0], h.Name, err)
	}
	return r
}

// Mount mounts a file or folder over another one, for the host's programs only.
func (h *Host) Mount(from, at string) error {
	return h.Do(func() error {
		if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", from, at, err)
		}
		return nil
	})
}

// Unmount undoes the last Mount at that place.
func (h *Host) Unmount(at string) error {
	return h.Do(func() error { return unix.Unmount(at, unix.MNT_DETACH) })
}

// Sysctl sets a kernel parameter of the host, named by its path below /proc/sys.
func (h *Host) Sysctl(name, value string) error {
	return h.Do(func() error { return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0) })
}

// Wire makes a link between this host and a new interface of the peer.
func (h *Host) Wire(here netlink.LinkAttrs, peer *Host, nic string, mac net.HardwareAddr) error {
	return h.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: here, PeerName: nic, PeerHardwareAddr: mac, PeerMTU: uint32(here.MTU), PeerNamespace: netlink.NsFd(peer.ns.net),
	})
}

// AddAddress gives the host an address.
func (h *Host) AddAddress(nic string, p netip.Prefix) error {
	link, err := h.handle.LinkByName(nic)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", nic, h.Name, err)
	}
	if err := h.handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("add %s to %s of %s: %w", p, nic, h.Name, err)
	}
	return nil
}

// addRoute adds a route out of eth0.
func (h *Host) addRoute(r *netlink.Route) error {
	link, err := h.handle.LinkByName(NIC)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", NIC, h.Name, err)
	}
	r.LinkIndex = link.Attrs().Index
	if err := h.handle.RouteAdd(r); err != nil {
		return fmt.Errorf("add route %s on %s: %w", r, h.Name, err)
	}
	return nil
}

// SetUp sets an interface up.
func (h *Host) SetUp(nic string) error {
	if err := h.handle.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: nic}}); err != nil {
		return fmt.Errorf("set %s of %s up: %w", nic, h.Name, err)
	}
	return nil
}

// WaitUp waits until a link that was just connected carries frames: the kernel starts the queues of a link
// some time after its carrier is there, and drops frames until then.
func (h *Host) WaitUp(ctx context.Context, nic string) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	for {
		link, err := h.handle.LinkByName(nic)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", nic, h.Name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("wait for %s of %s, which is %s: %w", nic, h.Name, link.Attrs().OperState, err)
		}
	}
}

// WaitIPv6 waits until a link has an IPv6 address of its own, and the kernel listens for neighbours that ask for each that it has: a worker
// sees to that later (addrconf_dad_work in net/ipv6/addrconf.c).
func (h *Host) WaitIPv6(ctx context.Context, nic string) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	for {
		missing, err := h.unheard(nic)
		if err != nil || missing == "" {
			return err
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("wait for IPv6 of %s of %s, which has no %s: %w", nic, h.Name, missing, err)
		}
	}
}

// unheard returns what a link lacks before neighbour discovery finds its addresses.
func (h *Host) unheard(nic string) (string, error) {
	link, err := h.handle.LinkByName(nic)
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w", nic, h.Name, err)
	}
	addresses, err := h.handle.AddrList(link, netlink.FAMILY_V6)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return "list of addresses that does not change", nil
	}
	if err != nil {
		return "", fmt.Errorf("addresses of %s of %s: %w", nic, h.Name, err)
	}
	var groups []byte
	if err := h.Do(func() error {
		groups, err = os.ReadFile("/proc/thread-self/net/igmp6")
		return err
	}); err != nil {
		return "", err
	}
	hasOwn := false
	for _, address := range addresses {
		hasOwn = hasOwn || address.IP.IsLinkLocalUnicast()
		// The solicited-node group (RFC 4291 section 2.7.1).
		group := fmt.Sprintf("ff0200000000000000000001ff%x", []byte(address.IP.To16()[13:]))
		if !bytes.Contains(groups, []byte(nic+" ")) || !bytes.Contains(groups, []byte(group)) {
			return "group " + group, nil
		}
	}
	if !hasOwn {
		return "link-local address", nil
	}
	return "", nil
}

// close removes the host's namespaces.
func (h *Host) close() error {
	if !h.running() {
		return nil
	}
	var errs []error
	for _, s := range h.servers {
		errs = append(errs, s.Close())
	}
	h.handle.Close()
	errs = append(errs, h.ns.close())
	h.ns, h.handle, h.servers = nil, nil, nil
	return errors.Join(errs...)
}

// sleep waits, but no longer than ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
