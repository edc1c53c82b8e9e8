// Package lab runs real Pacemaker and Corosync clusters on one machine. A host is a set of namespaces (network, mounts,
// names, IPC, processes) on a LAN of package lan, with a disk of its own; it boots, serves, and is switched off and on by a
// power switch that the cluster fences with.
//
//	client ──── LAN switch ──┬── eth0 node1 eth1 ──┬── management switch ── power switch (fence_lab)
//	                         ├── eth0 node2 eth1 ──┤
//	                         └── eth0 node3 eth1 ──┘
//
// No container program, systemd or D-Bus is needed, but root, and Debian's pacemaker, corosync and pcs. Nothing is left of a
// lab after Close, nor when its process dies in any way: the kernel ends the hosts with it, and the next New removes their
// disks. Any number of labs run side by side.
//
// A program that uses the package must call Inside first of all.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ocf-clusterip/tests/lan"
)

// management is the management network of every lab. Each lab has its own kernel tables, so it may be the same.
var management = netip.MustParsePrefix("192.168.20.0/24")

// Options are what a lab may look like. The zero value is a cluster of three nodes with fencing and no resource.
type Options struct {
	Nodes   int           // 0 means 3
	Token   time.Duration // Corosync's token timeout: how long a silence means death; 0 means 1 s
	Clients netip.Prefix  // as in lan.Options
	IPv6    bool          // likewise

	// Agent is the program that the hosts have as ocf:custom:clusterip; "" means none.
	Agent string
	// Properties are further cluster properties, or other values of those that New sets.
	Properties map[string]string
	// NoFencing leaves out the fencing device, and switches fencing off.
	NoFencing bool
	// FencingTakes is how long the power switch takes until a host is off.
	FencingTakes time.Duration
	// StayOff keeps a host off that was fenced with "reboot"; else it boots again at once.
	StayOff bool
	// StreamTimeout is how long the probes' streams wait for an answer; 0 means 15 s. With a node that took a request and then died in
	// silence, a client would wait for ever. What breaks by itself needs less.
	StreamTimeout time.Duration
	// ManualStart lets a booted host start nothing by itself; else Corosync and Pacemaker.
	ManualStart bool

	// Roots are the root file systems that the hosts run in, in turn, such as tests/make-root makes; none means those of RootVariable
	// in the environment, or else the machine's own. A host sees in it, beside the lab's overlays, the folder for temporary files and the
	// working directory. The program that uses the package must be static (CGO_ENABLED=0), because the hosts run it too.
	Roots []string

	// Log receives a line for everything that happens to a host's power; nil means nowhere.
	Log io.Writer
}

// Lab is a cluster on one machine. Its methods may be called at the same time.
type Lab struct {
	Network *lan.Network
	Hosts   []*Host

	options  Options
	folder   string
	program  string // a copy of this one, which is also the hosts' first process
	shared   []string
	held     []*os.File // locks on the hosts' roots
	power    *powerSwitch
	forks    chan func()   // run on the thread whose death ends the hosts
	forksEnd chan struct{} // closed when that thread has ended
	ctx      context.Context
	cancel   context.CancelFunc
	boots    sync.WaitGroup // after fencing
	logLock  sync.Mutex
}

// New builds a lab, boots its hosts, and returns when all are online in the cluster (with ManualStart: have booted).
func New(ctx context.Context, o Options) (*Lab, error) {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Token == 0 {
		o.Token = time.Second
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if err := sweep(); err != nil {
		return nil, fmt.Errorf("remove what crashed labs left: %w", err)
	}
	l := &Lab{options: o, forks: make(chan func()), forksEnd: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(l.forksEnd)
		_ = lan.OnThread(func() error {
			for fork := range l.forks {
				fork()
			}
			return nil
		})
	}()
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("build a lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) (err error) {
	if err := l.holdRoots(); err != nil {
		return err
	}
	if l.folder, err = os.MkdirTemp("", fmt.Sprintf("lab-%d-", os.Getpid())); err != nil {
		return err
	}
	if err := os.Chmod(l.folder, 0o755); err != nil { // Pacemaker's daemons run as hacluster
		return err
	}
	if l.program, l.shared, err = l.shareProgram(); err != nil {
		return err
	}
	l.Network, err = lan.New(
		ctx,
		lan.Options{Nodes: l.options.Nodes, Clients: l.options.Clients, IPv6: l.options.IPv6, Management: management},
	)
	if err != nil {
		return err
	}
	if err := l.makeOverlays(); err != nil {
		return err
	}
	for i, machine := range l.Network.Nodes {
		h := &Host{
			Name:    machine.Name,
			lab:     l,
			index:   i,
			machine: machine,
			disk:    filepath.Join(l.folder, machine.Name),
			root:    l.options.roots()[i],
		}
		if err := l.makeDisk(ctx, h); err != nil {
			return fmt.Errorf("make the disk of %s: %w", h.Name, err)
		}
		l.Hosts = append(l.Hosts, h)
	}
	if l.power, err = l.startPowerSwitch(); err != nil {
		return err
	}
	if err := l.each(func(h *Host) error { return h.On(ctx) }); err != nil {
		return err
	}
	if l.options.ManualStart {
		return nil
	}
	return l.WaitOnline(ctx)
}

// shareProgram copies this program to where the hosts see it in any root, and returns the folders that they see there.
func (l *Lab) shareProgram() (program string, shared []string, err error) {
	own, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	program = filepath.Join(l.folder, "lab")
	working, err := os.Getwd()
	if filepath.Dir(working) == "/" { // mounted over another root's, it would hide that
		err = errors.Join(err, fmt.Errorf("a lab cannot be made from the working directory %s: go to the sources", working))
	}
	return program, []string{os.TempDir(), working}, errors.Join(err, copyProgram(own, program))
}

// each does something for all hosts at once.
func (l *Lab) each(do func(*Host) error) error {
	errs := make([]error, len(l.Hosts))
	var all sync.WaitGroup
	for i, h := range l.Hosts {
		all.Go(func() { errs[i] = do(h) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Close switches the hosts off and removes everything.
func (l *Lab) Close() error {
	l.cancel()
	var errs []error
	if l.power != nil {
		errs = append(errs, l.power.close())
	}
	l.boots.Wait()
	errs = append(errs, l.each((*Host).Off))
	if l.forks != nil {
		close(l.forks)
		<-l.forksEnd
		l.forks = nil
	}
	if l.Network != nil {
		errs = append(errs, l.Network.Close())
	}
	for _, root := range l.held {
		errs = append(errs, root.Close())
	}
	l.held = nil
	if l.folder != "" {
		errs = append(errs, os.RemoveAll(l.folder))
	}
	return errors.Join(errs...)
}

// fork runs a function that starts a process inside a host, which the kernel kills when this program ends: a parent's death
// signal is sent when the parent's *thread* ends (PR_SET_PDEATHSIG), so it must be one that lasts as long as the lab.
func (l *Lab) fork(start func() error) error {
	done := make(chan error, 1)
	l.forks <- func() { done <- start() }
	return <-done
}

func (l *Lab) logf(format string, args ...any) {
	l.logLock.Lock()
	defer l.logLock.Unlock()
	_, _ = fmt.Fprintf(l.options.Log, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}

// Host returns the host of that name, or nil.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// NodeByMAC returns the name of the host whose LAN interface has that MAC, or "".
func (l *Lab) NodeByMAC(mac net.HardwareAddr) string {
	if i := l.Network.NodeByMAC(mac); i != lan.NoNode {
		return l.Hosts[i].Name
	}
	return ""
}

// names lists the hosts' names.
func (l *Lab) names() string {
	var names []string
	for _, h := range l.Hosts {
		names = append(names, h.Name)
	}
	return strings.Join(names, " ")
}

// sweep removes the folders of labs whose process has ended. The kernel has ended their hosts with it.
func sweep() error {
	folders, err := filepath.Glob(filepath.Join(os.TempDir(), "lab-*-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, folder := range folders {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(folder), "lab-%d-", &pid); err == nil && !alive(pid) {
			errs = append(errs, os.RemoveAll(folder))
		}
	}
	return errors.Join(errs...)
}
