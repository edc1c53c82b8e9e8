//go:build system

package earlydrop

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// A way is one in which a program is attached.
type way struct {
	as    clusterip.EarlyDrop
	oldTC bool
}

// ways are those that this kernel has.
func ways(t testing.TB) map[string]way {
	all := map[string]way{
		"xdp": {clusterip.EarlyDropXDP, false}, "tcx": {clusterip.EarlyDropTC, false}, "clsact": {clusterip.EarlyDropTC, true},
	}
	if !isLinux(t, 6, 6) {
		delete(all, "tcx")
	}
	return all
}

// isLinux reports whether the kernel has this version or a later one.
func isLinux(t testing.TB, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	var have [2]int
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &have[0], &have[1]); err != nil {
		t.Fatal(err)
	}
	return slices.Compare(have[:], []int{major, minor}) >= 0
}

// A site is a network namespace of its own, with an interface eth0 that has native XDP.
type site struct {
	*Conn
	t   testing.TB
	nic clusterip.NIC
}

var theNIC = clusterip.NIC{Index: 2, Name: "eth0", Kind: "veth", ARP: true}

func newSite(t testing.TB, oldTC bool) site {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test's goroutine
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { namespace.Close() })
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: "peer"})
	veth.PeerName = "eth0" // the first that is made: it has index 2
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "peer"} {
		device, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(device)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	c.oldTC, c.tagsStay = oldTC, !isLinux(t, 6, 8)
	t.Cleanup(c.Close)
	return site{c, t, theNIC}
}

// state lists the interfaces as the agent's state does.
func (s site) state() clusterip.State {
	s.t.Helper()
	links, err := s.netlink.LinkList()
	if err != nil {
		s.t.Fatal(err)
	}
	var state clusterip.State
	for _, device := range links {
		a := device.Attrs()
		state.NICs = append(state.NICs, clusterip.NIC{Index: a.Index, Name: a.Name, Kind: device.Type(), ARP: a.Name != "lo"})
	}
	return state
}

func noRecords(*maps) error { return nil }

func (s site) attach(as clusterip.EarlyDrop) (clusterip.EarlyDrop, []string) {
	s.t.Helper()
	attached, reasons, err := s.attachAs(s.nic, clusterip.Layout{EarlyDrop: as}, false, noRecords)
	if err != nil {
		s.t.Fatal(err)
	}
	return attached, reasons
}

func (s site) apply(step clusterip.Step) {
	s.t.Helper()
	if err := s.ApplyEarlyDrop(s.t.Context(), step); err != nil {
		s.t.Fatal(err)
	}
}

func (s site) observe(layout clusterip.Layout) clusterip.EarlyDropState {
	s.t.Helper()
	seen, err := s.ObserveEarlyDrop(s.t.Context(), layout.Addresses(), &layout, s.state().NICs)
	if err != nil {
		s.t.Fatal(err)
	}
	return seen
}

// expect compares what is observed, without what was dropped.
func (s site) expect(layout clusterip.Layout, want clusterip.EarlyDropState) {
	s.t.Helper()
	seen := s.observe(layout)
	seen.Dropped = clusterip.Count{}
	if diff := cmp.Diff(want, seen, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		s.t.Errorf("observed (-want +got):\n%s", diff)
	}
}

// filters returns the filters and qdiscs of eth0 as tc(8) prints them, without ours.
func (s site) trafficControl() string {
	s.t.Helper()
	var all strings.Builder
	for _, arguments := range [][]string{{"qdisc", "show"}, {"filter", "show", "ingress"}, {"filter", "show", "egress"}} {
		arguments = append(arguments[:2:2], append([]string{"dev", "eth0"}, arguments[2:]...)...)
		out, err := exec.CommandContext(s.t.Context(), "tc", arguments...).CombinedOutput()
		if err != nil {
			s.t.Fatalf("tc %s: %v\n%s", arguments, err, out)
		}
		all.Write(out)
	}
	return all.String()
}

func TestTheProgramFollowsTheBuckets(t *testing.T) {
	for name, way := range ways(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, way.oldTC)
			layout := layoutOf(shared4, shared6)
			s.expect(layout, clusterip.EarlyDropState{})
			before := s.trafficControl()
			if attached, reasons := s.attach(way.as); attached != way.as || len(reasons) > 0 {
				t.Fatalf("attached as %s: %v", attached, reasons)
			}
			missing := func(a netip.Addr) string { return fmt.Sprintf("the BPF program has no record of %s", a) }
			s.expect(layout, clusterip.EarlyDropState{
				NICIndex: 2, Attached: way.as, Idle: true, Faults: []string{missing(shared4), missing(shared6)},
			})
			for _, pass := range [][]clusterip.Bucket{buckets(1, 3), buckets(3, 7), buckets(0, 1, 2, 3, 4, 5, 6, 7), nil} {
				s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: pass})
				s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: way.as, Addresses: layout.Addresses(), Passed: pass})
			}
			s.attach(way.as) // again changes nothing
			s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: way.as, Addresses: layout.Addresses()})

			second := layoutOf(other4)
			s.apply(clusterip.SetEarlyDrop{Layout: second, Pass: buckets(2)})
			s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
			s.expect(layout, clusterip.EarlyDropState{
				NICIndex: 2, Attached: way.as, Faults: []string{missing(shared4), missing(shared6)},
			})
			s.expect(second, clusterip.EarlyDropState{NICIndex: 2, Attached: way.as, Addresses: second.Addresses(), Passed: buckets(2)})
			s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: second.Addresses()})
			s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: second.Addresses()})
			s.expect(second, clusterip.EarlyDropState{})
			if diff := cmp.Diff(before, s.trafficControl()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// The program changes its place with its records and what it has counted.
func TestTheProgramMoves(t *testing.T) {
	s := newSite(t, false)
	layout := layoutOf(shared4)
	s.attach(clusterip.EarlyDropTC)
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(2, 5)})
	for _, as := range []clusterip.EarlyDrop{clusterip.EarlyDropXDP, clusterip.EarlyDropTC, clusterip.EarlyDropAuto} {
		attached, _ := s.attach(as)
		if as == clusterip.EarlyDropAuto {
			as = clusterip.EarlyDropTC // where it is
		}
		if attached != as {
			t.Errorf("attached as %s", attached)
		}
		s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: as, Addresses: layout.Addresses(), Passed: buckets(2, 5)})
	}
}

// The same with the filter of an older kernel, whose qdisc goes with it.
func TestTheProgramMovesFromItsFilter(t *testing.T) {
	s := newSite(t, true)
	layout := layoutOf(shared4)
	before := s.trafficControl()
	s.attach(clusterip.EarlyDropTC)
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
	s.attach(clusterip.EarlyDropXDP)
	s.expect(layout, clusterip.EarlyDropState{
		NICIndex: 2, Attached: clusterip.EarlyDropXDP, Addresses: layout.Addresses(), Passed: buckets(1),
	})
	if diff := cmp.Diff(before, s.trafficControl()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// A layout that differs is a fault. The record is written anew, and what was counted stays.
func TestARecordThatDiffersIsRepaired(t *testing.T) {
	s := newSite(t, false)
	layout := layoutOf(shared4, shared6)
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
	s.count(shared4, clusterip.Count{Packets: 3, Bytes: 100})
	changed := layout
	changed.Buckets, changed.HashMode = 9, clusterip.SourceIPSourcePort
	if seen := s.observe(changed); len(seen.Faults) != 4 {
		t.Errorf("faults: %q", seen.Faults)
	}
	s.apply(clusterip.SetEarlyDrop{Layout: changed, Pass: buckets(1, 8)})
	want := clusterip.EarlyDropState{NICIndex: 2, Attached: clusterip.EarlyDropXDP, Addresses: layout.Addresses(), Passed: buckets(1, 8)}
	s.expect(changed, want)
	if seen := s.observe(changed); seen.Dropped != (clusterip.Count{Packets: 3, Bytes: 100}) {
		t.Errorf("dropped: %+v", seen.Dropped)
	}
	// A process that was killed in the middle.
	found := s.found()
	one := recordOf(changed, shared6, buckets(1))
	if err := found.maps.set(map[netip.Addr]record{shared6: one}); err != nil {
		t.Fatal(err)
	}
	want.Passed, want.Faults = buckets(1), []string{"the BPF program passes other buckets for 2001:db8:10::3 than for 192.168.10.3"}
	s.expect(changed, want)
}

// found returns the program that is attached.
func (s site) found() program {
	s.t.Helper()
	found, err := s.find(s.nic.Index)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(found.close)
	p, ok := found.current()
	if !ok {
		s.t.Fatal("no program is attached")
	}
	return p
}

// count changes what the program has dropped for an address.
func (s site) count(address netip.Addr, sum clusterip.Count) {
	s.t.Helper()
	m := s.found().maps
	_, number, _ := m.recordOf(address)
	counted := make([]count, ebpf.MustPossibleCPU())
	counted[0] = count{sum.Packets, sum.Bytes}
	if err := m.dropped.Put(number, counted); err != nil {
		s.t.Fatal(err)
	}
}

// Records are used again as late as possible, and there is a last one.
func TestThereIsALastRecord(t *testing.T) {
	m := loadAll(t).maps
	layout := layoutOf(shared4)
	var numbers []uint32
	for i := range 3 {
		layout.Buckets = uint32(10 + i)
		if err := m.set(map[netip.Addr]record{shared4: recordOf(layout, shared4, nil)}); err != nil {
			t.Fatal(err)
		}
		number, _, _ := m.find(shared4)
		numbers = append(numbers, number)
	}
	if !slices.Equal(numbers, []uint32{0, 1, 2}) {
		t.Errorf("records %v", numbers)
	}
	address := netip.MustParseAddr("10.0.0.0")
	var err error
	for n := 1; err == nil && n < 2*records; n++ {
		address = address.Next()
		err = m.set(map[netip.Addr]record{address: recordOf(layout, address, nil)})
	}
	if err == nil || !strings.Contains(err.Error(), "has no free record") {
		t.Errorf("%s: %v", address, err)
	}
}

func newProgram(of *ebpf.ProgramSpec) (*ebpf.Program, error) {
	return withMemory(func() (*ebpf.Program, error) { return ebpf.NewProgram(of) })
}

// foreign loads a program of somebody else, with one verdict.
func foreign(t testing.TB, kind ebpf.ProgramType, pass int32) *ebpf.Program {
	t.Helper()
	loaded, err := newProgram(&ebpf.ProgramSpec{
		Name: "somebody", Type: kind, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loaded.Close() })
	return loaded
}

func TestAnotherXDPProgramStays(t *testing.T) {
	s := newSite(t, false)
	theirs := foreign(t, ebpf.XDP, xdpPass)
	if err := setXDP(2, theirs.FD(), unix.XDP_FLAGS_UPDATE_IF_NOEXIST, 0); err != nil {
		t.Fatal(err)
	}
	stays := func() {
		t.Helper()
		device, err := netlink.LinkByIndex(2)
		info, infoErr := theirs.Info()
		if err != nil || infoErr != nil {
			t.Fatal(err, infoErr)
		}
		if id, _ := info.ID(); device.Attrs().Xdp == nil || device.Attrs().Xdp.ProgId != uint32(id) {
			t.Errorf("attached is %+v", device.Attrs().Xdp)
		}
	}
	layout := layoutOf(shared4)
	attached, reasons := s.attach(clusterip.EarlyDropAuto)
	if attached != clusterip.EarlyDropTC || len(reasons) != 1 || !strings.Contains(reasons[0], "another XDP program (somebody, id ") {
		t.Errorf("attached as %s: %q", attached, reasons)
	}
	_, _, err := s.attachAs(s.nic, clusterip.Layout{EarlyDrop: clusterip.EarlyDropXDP}, false, noRecords)
	if ocf.CodeOf(err) != ocf.ErrInstalled || !strings.Contains(err.Error(), "somebody") {
		t.Errorf("xdp: %v", err)
	}
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
	s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: clusterip.EarlyDropTC, Addresses: layout.Addresses(), Passed: buckets(1)})
	s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
	stays()
	// It comes in the moment between the look and the change.
	err = setXDP(2, foreign(t, ebpf.XDP, xdpPass).FD(), unix.XDP_FLAGS_UPDATE_IF_NOEXIST, 0)
	if words := inWords(err); !strings.Contains(words, "another program") {
		t.Errorf("in words: %s", words)
	}
	m, err := makeMaps(testMemory)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	mine, err := load(variant{symbol: nameXDP, name: nameXDP}, m)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	if err := s.detach(2, program{Program: mine, place: atXDP}); err == nil {
		t.Error("a program was detached that is not the expected one")
	}
	stays()
}

func TestOtherProgramsAtTCStay(t *testing.T) {
	t.Run("tcx", func(t *testing.T) {
		if !isLinux(t, 6, 6) {
			return
		}
		s := newSite(t, false)
		theirs := foreign(t, ebpf.SchedCLS, -1)
		if err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: 2, Program: theirs, Attach: ebpf.AttachTCXIngress}); err != nil {
			t.Fatal(err)
		}
		s.attach(clusterip.EarlyDropTC)
		listed, err := s.listTCX(2)
		info, _ := theirs.Info()
		id, _ := info.ID()
		if err != nil || len(listed) != 2 || listed[1].ID != id {
			t.Errorf("ours is not first: %+v (%v)", listed, err)
		}
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2})
		if listed, err = s.listTCX(2); err != nil || len(listed) != 1 || listed[0].ID != id {
			t.Errorf("left is %+v (%v)", listed, err)
		}
	})
	for name, before := range map[string][]string{
		"a qdisc":         {"qdisc add dev eth0 clsact"},
		"ingress":         {"qdisc add dev eth0 ingress", "filter add dev eth0 ingress prio 1 protocol ip u32 match u32 0 0"},
		"a filter":        {"qdisc add dev eth0 clsact", "filter add dev eth0 ingress prio 1 protocol ip u32 match u32 0 0"},
		"an egress one":   {"qdisc add dev eth0 clsact", "filter add dev eth0 egress prio 203 protocol ip u32 match u32 0 0"},
		"our priority is": {"qdisc add dev eth0 clsact", "filter add dev eth0 ingress prio 203 protocol ip u32 match u32 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, true)
			s.tc(before...)
			is := s.trafficControl()
			attached, reasons, err := s.attachAs(s.nic, clusterip.Layout{EarlyDrop: clusterip.EarlyDropTC}, false, noRecords)
			if taken := name == "our priority is"; taken != (err != nil) || taken == (attached == clusterip.EarlyDropTC) {
				t.Errorf("attached as %s: %q, %v", attached, reasons, err)
			}
			s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2})
			if diff := cmp.Diff(is, s.trafficControl()); diff != "" {
				t.Errorf("changed:\n%s", diff)
			}
		})
	}
	t.Run("a filter in our qdisc", func(t *testing.T) {
		s := newSite(t, true)
		s.attach(clusterip.EarlyDropTC)
		s.tc("filter add dev eth0 egress prio 5 protocol ip u32 match u32 0 0")
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2})
		left := s.trafficControl()
		if strings.Contains(left, nameTC) || !strings.Contains(left, "pref 5 u32") {
			t.Errorf("left is\n%s", left)
		}
	})
}

// tc runs tc(8).
func (s site) tc(commands ...string) {
	s.t.Helper()
	for _, command := range commands {
		if out, err := exec.CommandContext(s.t.Context(), "tc", strings.Fields(command)...).CombinedOutput(); err != nil {
			s.t.Fatalf("tc %s: %v\n%s", command, err, out)
		}
	}
}

// Where the driver may take the link down for XDP, here that of taps, auto does not attach it. But what is there as XDP, of any version,
// stays XDP.
func TestAutoKeepsTheLink(t *testing.T) {
	s := newSite(t, false)
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP, Queues: 1}
	if err := netlink.LinkAdd(tap); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tap.Fds[0].Close() })
	s.nic = clusterip.NIC{Index: tap.Index, Name: tap.Name, Kind: "tun", ARP: true}
	const why = "the driver of tap0 (tun) may take the link down"
	for _, step := range []struct {
		requested, attached clusterip.EarlyDrop
		reasons             int
	}{
		{clusterip.EarlyDropAuto, clusterip.EarlyDropTC, 1},
		{clusterip.EarlyDropXDP, clusterip.EarlyDropXDP, 0},
		{clusterip.EarlyDropAuto, clusterip.EarlyDropXDP, 0},
	} {
		attached, reasons := s.attach(step.requested)
		if attached != step.attached || len(reasons) != step.reasons || len(reasons) > 0 && !strings.Contains(reasons[0], why) {
			t.Errorf("%s: attached as %s: %q", step.requested, attached, reasons)
		}
		if step.attached == clusterip.EarlyDropTC {
			if reason, err := s.WhyNoXDP(t.Context(), s.nic); err != nil || !strings.Contains(reason, why) {
				t.Errorf("why no XDP: %q, %v", reason, err)
			}
		}
	}
	s.found().maps.Version++
	if attached, reasons := s.attach(clusterip.EarlyDropAuto); attached != clusterip.EarlyDropXDP {
		t.Errorf("in place of another version: attached as %s: %q", attached, reasons)
	}
}

// An XDP program must see VLAN tags. Where it does not, the program goes to tc, also if that changes later.
func TestLostTagsKeepTheProgramAtTC(t *testing.T) {
	s := newSite(t, false)
	layout := layoutOf(shared4)
	s.tagsStay = true
	s.attach(clusterip.EarlyDropXDP)
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
	s.expect(layout, clusterip.EarlyDropState{
		NICIndex: 2, Attached: clusterip.EarlyDropXDP, Addresses: layout.Addresses(), Passed: buckets(1),
	})
	s.tagsStay, s.asBefore68 = false, true
	seen := s.observe(layout)
	if len(seen.Faults) != 1 || !strings.Contains(seen.Faults[0], "only from Linux 6.8 on") {
		t.Errorf("faults: %q", seen.Faults)
	}
	_, _, err := s.attachAs(s.nic, clusterip.Layout{EarlyDrop: clusterip.EarlyDropXDP}, false, noRecords)
	if ocf.CodeOf(err) != ocf.ErrInstalled {
		t.Errorf("xdp: %v", err)
	}
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
	s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: clusterip.EarlyDropTC, Addresses: layout.Addresses(), Passed: buckets(1)})
}

// Nothing is dropped between the attachment and the first SetEarlyDrop, and the program is not idle.
func TestAttachedItPassesEverything(t *testing.T) {
	s := newSite(t, false)
	layout := layoutOf(shared4, shared6)
	layout.EarlyDrop = clusterip.EarlyDropTC
	attached, _, err := s.AttachEarlyDrop(t.Context(), s.state(), layout)
	if err != nil || attached != clusterip.EarlyDropTC {
		t.Errorf("%s, %v", attached, err)
	}
	s.expect(layout, clusterip.EarlyDropState{
		NICIndex: 2, Attached: clusterip.EarlyDropTC, Addresses: layout.Addresses(), Passed: buckets(0, 1, 2, 3, 4, 5, 6, 7),
	})
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(1)})
	if _, _, err := s.AttachEarlyDrop(t.Context(), s.state(), layout); err != nil {
		t.Error(err)
	}
	s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: clusterip.EarlyDropTC, Addresses: layout.Addresses(), Passed: buckets(1)})
}

// A program of another version is a fault. It is replaced at once, and what it had of others passes on.
func TestAProgramOfAnotherVersionIsReplaced(t *testing.T) {
	for name, way := range ways(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, way.oldTC)
			layout := layoutOf(shared4)
			before := s.trafficControl()
			age := func() {
				t.Helper()
				s.attach(way.as)
				s.found().maps.Version++
				s.expect(layout, clusterip.EarlyDropState{
					NICIndex: 2, Attached: way.as, Idle: true, Faults: []string{"the BPF program is of another version of this agent"},
				})
			}
			age()
			if attached, _ := s.attach(way.as); attached != way.as {
				t.Errorf("attached as %s", attached)
			}
			s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(4)})
			s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: way.as, Addresses: layout.Addresses(), Passed: buckets(4)})
			s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
			age()
			s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
			s.expect(layout, clusterip.EarlyDropState{})
			if diff := cmp.Diff(before, s.trafficControl()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// inChild has another process of this test do its part, called with what is in the environment, by a program such as strace.
func (s site) inChild(does string, by ...string) *exec.Cmd {
	s.t.Helper()
	arguments := append(by, os.Args[0], "-test.v", "-test.run=^TestPartOfAnotherTest$")
	child := exec.CommandContext(s.t.Context(), arguments[0], arguments[1:]...)
	child.Env = append(os.Environ(), "EARLYDROP_DOES="+does, fmt.Sprintf("EARLYDROP_OLDTC=%v", s.oldTC))
	child.Stdout = &bytes.Buffer{}
	child.Stderr = child.Stdout
	if err := child.Start(); err != nil {
		s.t.Fatal(err)
	}
	return child
}

// It does what inChild wants.
func TestPartOfAnotherTest(t *testing.T) {
	does := os.Getenv("EARLYDROP_DOES")
	if does == "" {
		return
	}
	runtime.LockOSThread()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.oldTC, c.tagsStay = os.Getenv("EARLYDROP_OLDTC") == "true", !isLinux(t, 6, 8)
	s := site{c, t, theNIC}
	layout := layoutOf(shared4)
	switch does {
	case "set":
		s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(5)})
	case "remove":
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
	case "xdp", "tc":
		s.attach(clusterip.EarlyDrop(does))
	case "nothing":
		attached, reasons := s.attach(clusterip.EarlyDropAuto)
		t.Logf("attached as %s: %q", attached, reasons)
		s.expect(layout, clusterip.EarlyDropState{})
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
		layout.EarlyDrop = clusterip.EarlyDropTC
		_, _, err := s.AttachEarlyDrop(t.Context(), s.state(), layout)
		t.Logf("code %d: %v", ocf.CodeOf(err), err)
	case "flip":
		s.flip(layout)
	default:
		s.comeAndGo(layoutOf(netip.MustParseAddr(does)))
	}
}

// flip moves the program to and fro. Between two moves others get the lock, as between two actions of the agent.
func (s site) flip(layout clusterip.Layout) {
	for i := range 40 {
		_ = clusterip.Pause(s.t.Context(), 20*time.Millisecond)
		layout.EarlyDrop = []clusterip.EarlyDrop{clusterip.EarlyDropXDP, clusterip.EarlyDropTC}[i%2]
		if _, _, err := s.AttachEarlyDrop(s.t.Context(), s.state(), layout); err != nil {
			s.t.Fatal(err)
		}
	}
}

// comeAndGo sets and removes the records of a layout, and looks at them.
func (s site) comeAndGo(layout clusterip.Layout) {
	for i := range 20 {
		pass := buckets(clusterip.Bucket(i % 8))
		s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: pass})
		if seen := s.observe(layout); !seen.Judges() || !slices.Equal(seen.Passed, pass) || len(seen.Faults) > 0 {
			s.t.Fatalf("seen %+v", seen)
		}
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
	}
}

// Two resources come and go on one interface at the same time, each in processes of its own.
func TestResourcesShareTheProgram(t *testing.T) {
	for name, way := range ways(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, way.oldTC)
			before := s.trafficControl()
			s.attach(way.as)
			var children []*exec.Cmd
			for i := range 4 {
				children = append(children, s.inChild(fmt.Sprintf("192.168.20.%d", i+1)))
			}
			for _, child := range children {
				if err := child.Wait(); err != nil {
					t.Errorf("%v\n%s", err, child.Stdout)
				}
			}
			s.expect(layoutOf(shared4), clusterip.EarlyDropState{})
			if diff := cmp.Diff(before, s.trafficControl()); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// A process that is killed at any of its system calls leaves what the next one describes, repairs and removes.
func TestAKilledProcessLeavesWhatIsRepaired(t *testing.T) {
	for name, way := range ways(t) {
		for _, does := range []string{"set", "remove", "xdp", "tc"} {
			t.Run(name+" "+does, func(t *testing.T) {
				s := newSite(t, way.oldTC)
				before := s.trafficControl()
				kills := 0
				for _, call := range []string{"bpf", "sendto", "sendmsg"} {
					const most = 100
					n := 1
					for ; n < most && s.isKilled(way.as, does, call, n); n++ {
						if diff := cmp.Diff(before, s.trafficControl()); diff != "" {
							t.Fatalf("killed at %s %d: left behind:\n%s", call, n, diff)
						}
						kills++
					}
					if n == most {
						t.Errorf("it is still killed at its %d. %s", n, call)
					}
				}
				const fewest = 10
				if kills < fewest {
					t.Errorf("it was killed only at %d calls", kills)
				}
			})
		}
	}
}

// isKilled has a child do something, kills it at the nth system call of a kind, and repairs and removes what that leaves. It returns false
// if the child makes fewer.
func (s site) isKilled(as clusterip.EarlyDrop, does, call string, n int) bool {
	s.t.Helper()
	layout := layoutOf(shared4)
	s.attach(as)
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(2)})
	if does == "set" {
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
	}
	child := s.inChild(does, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e",
		fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n))
	err := child.Wait()
	if err != nil && child.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		s.t.Fatalf("%s %d: %v\n%s", call, n, err, child.Stdout)
	}
	s.observe(layout)
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(3)})
	if seen := s.observe(layout); !seen.Judges() || len(seen.Faults) > 0 || !slices.Equal(seen.Passed, buckets(3)) {
		s.t.Errorf("killed at %s %d: repaired is %+v", call, n, seen)
	}
	s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
	s.expect(layout, clusterip.EarlyDropState{})
	return err != nil
}

// Whoever waits for the lock gives up when its time is over.
func TestTheLockIsWaitedFor(t *testing.T) {
	s := newSite(t, false)
	err := s.locked(t.Context(), func() error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return s.locked(ctx, func() error { return nil })
	})
	if err == nil || !strings.Contains(err.Error(), "another process holds the lock") {
		t.Errorf("locked twice: %v", err)
	}
	if err := s.locked(t.Context(), func() error { return nil }); err != nil {
		t.Error(err)
	}
}

// The lock's file can be locked by every user, for ever. That makes nothing fail.
func TestTheLockIsNotWaitedForForEver(t *testing.T) {
	s := newSite(t, false)
	ran := false
	err := s.locked(t.Context(), func() error {
		return s.locked(t.Context(), func() error { ran = true; return nil })
	})
	if err != nil || !ran {
		t.Errorf("ran %v: %v", ran, err)
	}
}

// A thread in another network namespace has other interfaces, with the same numbers.
func TestAnotherNamespaceIsLeftAlone(t *testing.T) {
	first := newSite(t, false)
	second := newSite(t, false)
	layout := layoutOf(shared4)
	_, err := first.ObserveEarlyDrop(t.Context(), layout.Addresses(), &layout, nil)
	_, _, attachErr := first.AttachEarlyDrop(t.Context(), second.state(), layout)
	for _, err := range []error{err, attachErr, first.ApplyEarlyDrop(t.Context(), clusterip.SetEarlyDrop{Layout: layout})} {
		if err == nil || !strings.Contains(err.Error(), "another network namespace") {
			t.Errorf("error: %v", err)
		}
	}
	second.expect(layout, clusterip.EarlyDropState{})
}

// On a kernel without BPF, or where it is forbidden, nothing is attached, and nothing fails; auto says why.
func TestAKernelWithoutBPFIsNoFault(t *testing.T) {
	for errno, want := range map[string]string{"ENOSYS": "no bpf system call", "EPERM": "a capability is missing"} {
		for _, oldTC := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", errno, oldTC), func(t *testing.T) {
				s := newSite(t, oldTC)
				child := s.inChild("nothing", "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=bpf", "-e", "inject=bpf:error="+errno)
				err := child.Wait()
				said := fmt.Sprint(child.Stdout)
				if err != nil || !strings.Contains(said, "attached as off") || strings.Count(said, want) != 2 || !strings.Contains(said, "code 5:") {
					t.Errorf("%v\n%s", err, said)
				}
			})
		}
	}
}

// An interface that is gone has no program.
func TestAnInterfaceThatIsGone(t *testing.T) {
	for _, way := range ways(t) {
		s := newSite(t, way.oldTC)
		layout := layoutOf(shared4)
		layout.NICIndex = 77
		s.expect(layout, clusterip.EarlyDropState{})
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 77, Addresses: layout.Addresses()})
		if err := s.ApplyEarlyDrop(t.Context(), clusterip.SetEarlyDrop{Layout: layout}); err == nil {
			t.Error("it is attached")
		} else {
			t.Log(err)
		}
	}
}

// A monitor of one resource sees no fault while another one moves the program that they share.
func TestAMoveIsNoFault(t *testing.T) {
	s := newSite(t, false)
	layout := layoutOf(shared4)
	s.attach(clusterip.EarlyDropTC)
	s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(3)})
	mover := s.inChild("flip")
	moved := make(chan error)
	go func() { moved <- mover.Wait() }()
	for looks := 0; ; looks++ {
		select {
		case err := <-moved:
			if err != nil || looks == 0 {
				t.Errorf("after %d looks: %v\n%s", looks, err, mover.Stdout)
			}
			return
		default:
			if seen := s.observe(layout); !seen.Judges() || len(seen.Faults) > 0 {
				t.Errorf("look %d: %+v", looks, seen)
			}
		}
	}
}

// Who could attach a program but not find it again (CAP_BPF without CAP_SYS_ADMIN) attaches none.
func TestWhatCannotBeFoundAgainIsNotAttached(t *testing.T) {
	s := newSite(t, false)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		t.Fatal(err)
	}
	without := have
	without[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	if err := unix.Capset(&header, &without[0]); err != nil { // of this thread, which ends with the test
		t.Fatal(err)
	}
	attached, reasons := s.attach(clusterip.EarlyDropAuto)
	if attached != clusterip.EarlyDropOff || len(reasons) == 0 || !strings.Contains(reasons[0], "a capability is missing") {
		t.Errorf("attached as %s: %q", attached, reasons)
	}
	if err := unix.Capset(&header, &have[0]); err != nil {
		t.Fatal(err)
	}
	s.expect(layoutOf(shared4), clusterip.EarlyDropState{})
}

// A program that has gone meanwhile is attached as the layout requests it.
func TestSetAttachesAsRequested(t *testing.T) {
	for _, as := range []clusterip.EarlyDrop{clusterip.EarlyDropTC, clusterip.EarlyDropXDP} {
		s := newSite(t, false)
		layout := layoutOf(shared4)
		layout.EarlyDrop = as
		s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(3)})
		s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()}) // as before a change of clone-max
		s.apply(clusterip.SetEarlyDrop{Layout: layout, Pass: buckets(3)})
		s.expect(layout, clusterip.EarlyDropState{NICIndex: 2, Attached: as, Addresses: layout.Addresses(), Passed: buckets(3)})
	}
}

// A program whose table is no memory is one of another version, not an error that would make even a stop fail.
func TestATableThatIsNoMemory(t *testing.T) {
	s := newSite(t, true)
	layout := layoutOf(shared4)
	other, err := newMap(&ebpf.MapSpec{Name: nameTable, Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	loaded, err := newProgram(&ebpf.ProgramSpec{
		Name: nameXDP, Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.LoadMapPtr(asm.R1, other.FD()), asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if err := setXDP(s.nic.Index, loaded.FD(), unix.XDP_FLAGS_UPDATE_IF_NOEXIST, 0); err != nil {
		t.Fatal(err)
	}
	s.expect(layout, clusterip.EarlyDropState{
		NICIndex: 2, Attached: clusterip.EarlyDropXDP, Idle: true, Faults: []string{"the BPF program is of another version of this agent"},
	})
	s.apply(clusterip.RemoveEarlyDrop{NICIndex: 2, Addresses: layout.Addresses()})
	s.expect(layout, clusterip.EarlyDropState{})
}

// A filter of somebody else with the priority and handle of ours stays.
func TestAnotherFilterInOurPlaceStays(t *testing.T) {
	s := newSite(t, true)
	s.tc("qdisc add dev eth0 clsact")
	const bytecode = "1,6 0 0 0," // which matches nothing
	add := append(strings.Fields("filter add dev eth0 ingress pref 203 handle 1 protocol all bpf skip_hw bytecode"), bytecode)
	if out, err := exec.CommandContext(t.Context(), "tc", append(add, "flowid", "1:1")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := s.trafficControl()
	attached, _, err := s.attachAs(s.nic, clusterip.Layout{EarlyDrop: clusterip.EarlyDropTC}, false, noRecords)
	if ocf.CodeOf(err) != ocf.ErrInstalled {
		t.Errorf("attached as %s: %v", attached, err)
	}
	if diff := cmp.Diff(before, s.trafficControl()); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
}

// Addresses for which the program has no place are no reason for auto to fail.
func TestTooManyAddressesAreDroppedLater(t *testing.T) {
	s := newSite(t, false)
	layout := layoutOf()
	address := netip.MustParseAddr("10.0.0.0")
	for range records + 1 {
		address = address.Next()
		layout.Prefixes = append(layout.Prefixes, netip.PrefixFrom(address, 24))
	}
	attached, reasons, err := s.AttachEarlyDrop(t.Context(), s.state(), layout)
	if err != nil || attached != clusterip.EarlyDropOff || len(reasons) != 1 {
		t.Errorf("attached as %s: %q, %v", attached, reasons, err)
	}
	layout.EarlyDrop = clusterip.EarlyDropTC
	if _, _, err := s.AttachEarlyDrop(t.Context(), s.state(), layout); ocf.CodeOf(err) != ocf.ErrInstalled {
		t.Errorf("tc: %v", err)
	}
}
