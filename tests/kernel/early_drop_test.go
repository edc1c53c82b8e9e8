//go:build system

package kernel

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	bpf "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/tests/lan"
)

// attachments are the ways to drop packets early on this kernel: XDP on a veth from Linux 6.8 on.
func attachments(t *testing.T) []clusterip.EarlyDrop {
	t.Helper()
	var name unix.Utsname
	check(t, unix.Uname(&name))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	check(t, err)
	if major < 6 || major == 6 && minor < 8 {
		return []clusterip.EarlyDrop{clusterip.EarlyDropTC}
	}
	return []clusterip.EarlyDrop{clusterip.EarlyDropTC, clusterip.EarlyDropXDP}
}

// A node whose whole rule set was flushed answers for no foreign bucket, because the BPF program is still there.
func TestFlushedRulesetWithEarlyDrop(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		for _, early := range append(attachments(t), clusterip.EarlyDropOff) {
			t.Run(fmt.Sprintf("%s/%s", mode, early), func(t *testing.T) {
				if mode == clusterip.Multicast {
					inGuest(t, "data-path")
				}
				s := newUnwatchedSite(t, lan.Options{}, 8, webIP("mac_mode", string(mode), "early_drop", string(early)))
				check(t, s.startAll(0, 0, 0, 1, 1, 1, 2, 2))
				traffic := lan.Traffic{Target: shared, Sources: s.Sources(256), Protos: []lan.Proto{lan.ICMP, lan.UDP}}
				everyFlow(t, s)
				nft(t, s.Nodes[0], "flush ruleset")
				err := probe(t, s.Network, traffic).AtMostOnce(func(lan.Flow, int) bool { return true })
				switch {
				case early == clusterip.EarlyDropOff && mode != clusterip.Unicast:
					if err == nil {
						t.Error("without early drop no client got two answers: this test shows nothing")
					}
				case err != nil:
					t.Error(err)
				}
				check(t, status(s.agents[0].monitor(0), ocf.ErrGeneric))
				for bucket := range 3 {
					check(t, s.startOn(0, bucket))
				}
				everyFlow(t, s)
			})
		}
	}
}

// attached returns what is attached to eth0 of a host.
func attached(t *testing.T, h *lan.Host) lan.BPFPrograms {
	t.Helper()
	programs, err := h.BPFPrograms(link(t, h, lan.NIC))
	check(t, err)
	return programs
}

// isAttached reports whether one program is attached to eth0, and how.
func isAttached(t *testing.T, h *lan.Host, early clusterip.EarlyDrop) bool {
	t.Helper()
	programs := attached(t, h)
	if early == clusterip.EarlyDropXDP {
		return len(programs.XDP) == 1 && len(programs.TC) == 0
	}
	return len(programs.XDP) == 0 && len(programs.TC) == 1
}

// earlyMap returns a map of the attached program by its name.
func earlyMap(t *testing.T, h *lan.Host, name string) *ebpf.Map {
	t.Helper()
	programs := attached(t, h)
	program := openProgram(t, append(programs.XDP, programs.TC...)[0])
	info, err := program.Info()
	check(t, err)
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		check(t, err)
		t.Cleanup(func() { _ = m.Close() })
		if info, err := m.Info(); err == nil && info.Name == name {
			return m
		}
	}
	t.Fatalf("no map %s", name)
	return nil
}

func openProgram(t *testing.T, id ebpf.ProgramID) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgramFromID(id)
	check(t, err)
	t.Cleanup(func() { _ = program.Close() })
	return program
}

// detach takes the program off the interface, as an admin may.
func detach(t *testing.T, p *testNode) {
	t.Helper()
	programs := attached(t, p.Host)
	switch {
	case len(programs.XDP) > 0:
		setXDP(t, p.Host, -1)
	case programs.Filters:
		p.by(t, "tc qdisc delete dev eth0 clsact")
	default:
		check(t, p.Host.Do(func() error {
			return bpf.RawDetachProgram(bpf.RawDetachProgramOptions{
				Target: link(t, p.Host, lan.NIC).Attrs().Index, Program: openProgram(t, programs.TC[0]), Attach: ebpf.AttachTCXIngress,
			})
		}))
	}
}

// setXDP attaches a program as native XDP; -1 detaches it.
func setXDP(t *testing.T, h *lan.Host, program int) {
	t.Helper()
	nic := link(t, h, lan.NIC)
	check(t, h.Do(func() error { return netlink.LinkSetXdpFdWithFlags(nic, program, unix.XDP_FLAGS_DRV_MODE) }))
}

// Whatever happens to the program or its maps, monitor finds it, start repairs it without touching the other bucket, and stop leaves
// nothing.
func TestEveryFaultOfEarlyDrop(t *testing.T) {
	inGuest(t, "data-path")
	faults := []fault{
		{name: "detached", cause: detach, reason: "is no longer attached to eth0"},
		{name: "detached, tables flushed", cause: func(t *testing.T, p *testNode) {
			t.Helper()
			detach(t, p)
			nft(t, p.Host, "flush ruleset")
		}, reason: "this is left on the node", losesAll: true},
		{name: "record deleted", cause: func(t *testing.T, p *testNode) {
			t.Helper()
			const header, index = 64, 8 << 10 // bytes of the table
			table := earlyMap(t, p.Host, "clusterip_table")
			raw, err := table.LookupBytes(uint32(0))
			check(t, err)
			clear(raw[header : header+index])
			check(t, table.Put(uint32(0), raw))
		}, reason: "drops nothing for this resource"},
		{name: "whole ruleset flushed", cause: commands("nft flush ruleset"), reason: "this is left on the node", losesAll: true},
	}
	for _, early := range attachments(t) {
		t.Run(string(early), func(t *testing.T) {
			p := newTestNode(t, webIP("early_drop", string(early)))
			for _, w := range faults {
				t.Run(w.name, func(t *testing.T) {
					p.startBoth(t)
					if !isAttached(t, p.Host, early) {
						t.Fatalf("attached: %v", attached(t, p.Host))
					}
					w.cause(t, p)
					p.checkRepair(t, w)
					p.checkNothingIsLeft(t)
				})
			}
		})
	}
}

// The foreign packets of status are those that either has dropped, and each is counted once.
func TestForeignPacketsAreCountedOnce(t *testing.T) {
	for _, early := range append(attachments(t), clusterip.EarlyDropOff) {
		t.Run(string(early), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 2}, 4, webIP("early_drop", string(early), "hashmode", "sourceip"))
			check(t, s.startAll(0, 1, 0, 1))
			check(t, awaitOwnNeighbour(t, s))
			before := foreignOf(t, s, 0)
			r := probe(t, s.Network, lan.Traffic{Target: shared, Sources: s.Sources(64), Protos: []lan.Proto{lan.ICMP}})
			if err := r.ExactlyOnce(s.owner); err != nil {
				t.Error(err)
			}
			foreign := 0
			for _, e := range r.Exchanges {
				if s.owner(e.Flow) != 0 {
					foreign += int(e.Sent)
				}
			}
			after := foreignOf(t, s, 0)
			if got := int(after.Foreign.Packets - before.Foreign.Packets); got != foreign {
				t.Errorf("%d foreign packets, want %d", got, foreign)
			}
			if early != clusterip.EarlyDropOff && (before.EarlyDropped == nil || after.EarlyDropped == nil) {
				t.Fatal("nothing is attached")
			}
			if early != clusterip.EarlyDropOff && after.EarlyDropped.Packets-before.EarlyDropped.Packets != uint64(foreign) {
				t.Errorf("%d dropped early, want %d", after.EarlyDropped.Packets-before.EarlyDropped.Packets, foreign)
			}
			if after.EarlyDrop != string(early) {
				t.Errorf("status says early_drop %s", after.EarlyDrop)
			}
		})
	}
}

func foreignOf(t *testing.T, s *site, node int) operator.ResourceStatus {
	t.Helper()
	var printed operator.Status
	r := s.Nodes[node].Run(t.Context(), lan.ToolPath, s.agents[node].Program, "status", "--json", shared.String())
	check(t, json.Unmarshal([]byte(r.Stdout), &printed))
	if len(printed.Resources) == 0 {
		t.Fatal(r.Stderr)
	}
	return printed.Resources[0]
}

// A program of somebody else stays where it is.
func TestAnotherXDPProgramIsLeftAlone(t *testing.T) {
	p := newTestNode(t, webIP("early_drop", "xdp"))
	pass := passEverything(t)
	setXDP(t, p.Host, pass.FD())
	if r := p.start(2); status(r, ocf.ErrInstalled) != nil || !strings.Contains(r.Stderr, "another XDP program (pass") {
		t.Errorf("exit status %d: %s", r.ExitCode, r.Stderr)
	}
	p.Parameters = p.Parameters.With("early_drop", "auto")
	p.startBoth(t)
	if programs := attached(t, p.Host); len(programs.TC) != 1 {
		t.Errorf("attached: %v", programs)
	}
	check(t, status(p.stop(2), ocf.Success))
	check(t, status(p.stop(5), ocf.Success))
	info, err := openProgram(t, attached(t, p.Host).XDP[0]).Info()
	check(t, err)
	if info.Name != "pass" {
		t.Errorf("the program is now %q", info.Name)
	}
	setXDP(t, p.Host, -1)
	p.checkNothingIsLeft(t)
}

// Resources that start and stop at once share the program; the last one detaches it.
func TestResourcesThatStartAtOnceShareTheProgram(t *testing.T) {
	const resources, rounds = 4, 5
	for _, early := range attachments(t) {
		t.Run(string(early), func(t *testing.T) {
			p := newTestNode(t, webIP("early_drop", string(early)))
			agents := []*agent{p.agent}
			for i := 1; i < resources; i++ {
				a := newAgent(t, p.Host, 8, webIP("ip", fmt.Sprintf("192.168.10.%d", 100+i), "arp_count", "0", "early_drop", string(early)))
				a.TempDir = p.TempDir
				agents = append(agents, a)
			}
			for range rounds {
				check(t, atOnce(resources, func(i int) error { return status(agents[i].start(2), ocf.Success) }))
				check(t, atOnce(resources, func(i int) error { return status(agents[i].monitor(2), ocf.Success) }))
				if !isAttached(t, p.Host, early) {
					t.Fatalf("attached: %v", attached(t, p.Host))
				}
				check(t, atOnce(resources, func(i int) error { return status(agents[i].stop(2), ocf.Success) }))
				p.checkNothingIsLeft(t)
			}
		})
	}
}

// early_drop changes while buckets run.
func TestEarlyDropIsReloaded(t *testing.T) {
	inGuest(t, "data-path")
	p := newTestNode(t, webIP("early_drop", "off"))
	p.startBoth(t)
	const off = clusterip.EarlyDropOff
	for _, early := range append(attachments(t), off, clusterip.EarlyDropTC, off, clusterip.EarlyDropAuto) {
		p.Parameters = p.Parameters.With("early_drop", string(early))
		for _, bucket := range []int{2, 5} {
			check(t, status(p.call("reload-agent", bucket), ocf.Success))
			check(t, status(p.monitor(7-bucket), ocf.Success))
		}
		programs := attached(t, p.Host)
		isThere := len(programs.XDP)+len(programs.TC) > 0
		isRequested := early == clusterip.EarlyDropXDP || early == clusterip.EarlyDropTC // auto attaches nothing beside buckets that run
		if isThere != isRequested || isRequested && !isAttached(t, p.Host, early) {
			t.Errorf("%s: attached is %v", early, programs)
		}
	}
	p.checkNothingIsLeft(t)
}

func passEverything(t *testing.T) *ebpf.Program {
	t.Helper()
	const xdpPass = 2
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	check(t, err)
	t.Cleanup(func() { _ = program.Close() })
	return program
}

// A start with another interface is killed when the program may be attached there already, while the tables name the old interface. The
// stop that ends the resource finds both.
func TestStartOnAnotherNICIsKilled(t *testing.T) {
	const most = 150
	ways := attachments(t)
	p := newTestNode(t, webIP("early_drop", string(ways[len(ways)-1])))
	for _, command := range []string{
		"ip link add eth1 type veth peer name peer1", "ip address add 192.168.10.201/24 dev eth1", "ip link set peer1 up", "ip link set eth1 up",
	} {
		p.by(t, command)
	}
	onEth0 := p.Parameters
	for n := 1; n < most; n++ {
		p.Parameters = onEth0
		check(t, status(p.start(2), ocf.Success))
		p.Parameters = onEth0.With("nic", "eth1")
		c := tracedCall{agent: p.agent, action: "start", bucket: 5, ends: ocf.Success}
		wasKilled := c.killAt(t, "bpf", n)
		check(t, status(p.stop(2), ocf.Success))
		check(t, status(p.stop(5), ocf.Success))
		for _, nic := range []string{lan.NIC, "eth1"} {
			programs, err := p.Host.BPFPrograms(link(t, p.Host, nic))
			check(t, err)
			if left := len(programs.XDP) + len(programs.TC); left > 0 {
				t.Fatalf("killed at bpf %d: %d programs are left on %s", n, left, nic)
			}
		}
		if !wasKilled {
			return
		}
	}
	t.Errorf("start is still killed at its %d. call of bpf", most)
}
