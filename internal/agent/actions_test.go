package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/internal/clusterip"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/ocf"
)

func TestStartRepairsEveryDirtyNode(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		for name, state := range dirtyNodes(t, mode) {
			t.Run(fmt.Sprintf("%s/%s", mode, name), func(t *testing.T) {
				kernel := &fakeKernel{State: state}
				agent, _ := agentOn(kernel)
				ran := slices.Clone(state.Tables.Owned)
				if err := agent.Start(t.Context(), specOf(mode, 5)); err != nil {
					t.Fatal(err)
				}
				if err := agent.Monitor(t.Context(), specOf(mode, 5), 0); err != nil {
					t.Errorf("monitor after start: %v", err)
				}
				for _, bucket := range ran {
					if !kernel.Owns(bucket) {
						t.Errorf("bucket %d ran before and does not any more", bucket)
					}
				}
				kernel.applied = nil
				if err := agent.Start(t.Context(), specOf(mode, 5)); err != nil || len(kernel.applied) > 0 {
					t.Errorf("second start: %v, it did %q", err, kernel.applied)
				}
			})
		}
	}
}

func TestStopCleansEveryDirtyNode(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		for name, state := range dirtyNodes(t, mode) {
			t.Run(fmt.Sprintf("%s/%s", mode, name), func(t *testing.T) {
				kernel := &fakeKernel{State: state}
				agent, lockRemoved := agentOn(kernel)
				for _, bucket := range []clusterip.Bucket{2, 5, 5} { // the last one is stopped already
					if err := agent.Stop(t.Context(), specOf(mode, bucket)); err != nil {
						t.Fatal(err)
					}
				}
				want := freshNode()
				want.NICs, want.Connected = state.NICs, state.Connected
				if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", normal(kernel.State))); diff != "" {
					t.Errorf("left behind (-want +got):\n%s", diff)
				}
				if !*lockRemoved {
					t.Error("the lock is left behind")
				}
				if code, _ := exitCode(func() error { return agent.Monitor(t.Context(), specOf(mode, 5), 0) }); code != ocf.NotRunning {
					t.Errorf("monitor after stop: %s", code)
				}
			})
		}
	}
}

// normal makes no difference between an empty list and none.
func normal(s clusterip.State) clusterip.State {
	if len(s.Addresses) == 0 {
		s.Addresses = nil
	}
	if len(s.Groups) == 0 {
		s.Groups = nil
	}
	if len(s.Filters) == 0 {
		s.Filters = nil
	}
	return s
}

func TestStopWithBadParametersCleansAll(t *testing.T) {
	state := runningNode(t, clusterip.Unicast, 3)
	for name, spec := range map[string]clusterip.Spec{
		"only the address":   {Addresses: []netip.Addr{vip}, Bucket: 3},
		"a NIC that is none": {Addresses: []netip.Addr{vip}, Bucket: 3, NIC: "eth9"},
		"another MAC and N":  {Addresses: []netip.Addr{vip}, Bucket: 3, MACs: clusterip.PerFamily[clusterip.MAC]{IPv4: anyMAC}, Buckets: 2},
		"an orphan instance": {
			Addresses: []netip.Addr{vip}, Bucket: 3, Buckets: 1,
			MACs: clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.DerivedMAC(clusterip.Unicast, vip)},
		},
		"an instance never seen":   {Addresses: []netip.Addr{vip}, Bucket: 99},
		"the resource's name only": {Resource: "web-ip", Bucket: 3},
	} {
		t.Run(name, func(t *testing.T) {
			kernel := &fakeKernel{State: state}
			if name == "an instance never seen" {
				kernel.Tables.Owned = nil
			}
			agent, _ := agentOn(kernel)
			var err error
			if len(spec.Addresses) > 0 {
				err = agent.Stop(t.Context(), spec)
			} else {
				err = agent.StopResource(t.Context(), spec)
			}
			if left := clusterip.Leftovers(kernel.State, ""); err != nil || len(left) > 0 {
				t.Errorf("error %v, left %q", err, left)
			}
		})
	}
}

// Whatever step fails: monitor is truthful, a second start works, stop leaves nothing, and what ran goes on.
func TestEveryStepMayFailOrBeTheLast(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		starts := dirtyNodes(t, mode)
		starts["fresh"] = freshNode()
		for name, state := range starts {
			for n := 1; n <= 12; n++ {
				for _, how := range []string{"fails", "is never reached", "cannot be observed"} {
					t.Run(fmt.Sprintf("%s/%s/start, step %d %s", mode, name, n, how), func(t *testing.T) {
						kernel := unreliable(state, how, n)
						agent, _ := agentOn(kernel)
						ran := slices.Clone(state.Tables.Owned)
						code, killed := exitCode(func() error { return agent.Start(t.Context(), specOf(mode, 1)) })
						if failed := code != ocf.Success && !killed; failed && len(ran) > 0 && kernel.Owns(1) {
							t.Error("start failed beside other buckets, but the node answers for its bucket")
						}
						checkTruth(t, kernel, mode, 1, code == ocf.Success && !killed)
						for _, bucket := range ran {
							if !kernel.Owns(bucket) {
								t.Errorf("bucket %d ran before and does not any more", bucket)
							}
						}
						recoverAndStop(t, kernel, mode, append(ran, 1))
					})
					t.Run(fmt.Sprintf("%s/%s/stop, step %d %s", mode, name, n, how), func(t *testing.T) {
						kernel := unreliable(state, how, n)
						agent, _ := agentOn(kernel)
						_, _ = exitCode(func() error { return agent.Stop(t.Context(), specOf(mode, 5)) })
						kernel.failAt, kernel.dieAt, kernel.unreadableAt = 0, 0, 0
						recoverAndStop(t, kernel, mode, []clusterip.Bucket{2, 5, 1})
					})
				}
			}
		}
	}
}

// unreliable is a kernel on which step n fails, or is never reached.
func unreliable(state clusterip.State, how string, n int) *fakeKernel {
	kernel := &fakeKernel{State: cloned(state)}
	switch how {
	case "fails":
		kernel.failAt = n
	case "is never reached":
		kernel.dieAt = n
	default:
		kernel.unreadableAt = n
	}
	return kernel
}

func cloned(s clusterip.State) clusterip.State {
	s.NICs, s.Connected = slices.Clone(s.NICs), slices.Clone(s.Connected)
	s.Addresses, s.Groups, s.Filters = slices.Clone(s.Addresses), slices.Clone(s.Groups), slices.Clone(s.Filters)
	s.Tables.Owned, s.Tables.Faults = slices.Clone(s.Tables.Owned), slices.Clone(s.Tables.Faults)
	return s
}

// checkTruth compares what monitor says with what is.
func checkTruth(t *testing.T, kernel *fakeKernel, mode clusterip.MACMode, bucket clusterip.Bucket, started bool) {
	t.Helper()
	kernel.failAt, kernel.dieAt, kernel.unreadableAt = 0, 0, 0
	agent, _ := agentOn(kernel)
	code, _ := exitCode(func() error { return agent.Monitor(t.Context(), specOf(mode, bucket), 0) })
	layout, err := specOf(mode, bucket).Resolve(kernel.State)
	healthy := err == nil && len(clusterip.Faults(kernel.State, layout, true)) == 0
	want := ocf.ErrGeneric
	switch {
	case kernel.Owns(bucket) && healthy:
		want = ocf.Success
	case kernel.Owns(bucket):
	case len(kernel.Tables.Owned) > 0 || len(clusterip.Leftovers(kernel.State, "")) == 0:
		want = ocf.NotRunning
	}
	if code != want {
		t.Errorf("monitor returns %s, want %s", code, want)
	}
	if started && code != ocf.Success {
		t.Errorf("start returned success, monitor %s", code)
	}
}

func recoverAndStop(t *testing.T, kernel *fakeKernel, mode clusterip.MACMode, buckets []clusterip.Bucket) {
	t.Helper()
	agent, _ := agentOn(kernel)
	for _, bucket := range buckets {
		if err := agent.Start(t.Context(), specOf(mode, bucket)); err != nil {
			t.Fatalf("start of bucket %d afterwards: %v", bucket, err)
		}
		checkTruth(t, kernel, mode, bucket, true)
	}
	for _, bucket := range buckets {
		if err := agent.Stop(t.Context(), specOf(mode, bucket)); err != nil {
			t.Fatalf("stop of bucket %d afterwards: %v", bucket, err)
		}
	}
	if left := clusterip.Leftovers(kernel.State, ""); len(left) > 0 {
		t.Errorf("left after stop: %q", left)
	}
}

// Filter in before the address appears; address gone before the filter goes; buckets last in, first out.
func TestNoStepLetsForeignPacketsIn(t *testing.T) {
	forbidden := func(s clusterip.State) error {
		if len(s.Addresses) > 0 && !s.Tables.Present {
			return fmt.Errorf("the address is there without a filter")
		}
		if len(s.Tables.Owned) > 0 && len(s.Addresses) == 0 {
			return fmt.Errorf("packets are let in without an address: a router would forward them")
		}
		return nil
	}
	for _, mode := range clusterip.MACModes() {
		kernel := &fakeKernel{State: freshNode(), forbidden: forbidden}
		agent, _ := agentOn(kernel)
		for _, bucket := range []clusterip.Bucket{0, 1} {
			if err := agent.Start(t.Context(), specOf(mode, bucket)); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
		}
		for _, bucket := range []clusterip.Bucket{0, 1} {
			if err := agent.Stop(t.Context(), specOf(mode, bucket)); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
		}
	}
}

// The BPF program passes a bucket's packets before the tables accept them, and as long as they do.
func TestFurtherBucketTakesFewSteps(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 0)}
	agent, _ := agentOn(kernel)
	if err := agent.Start(t.Context(), specOf(clusterip.Multicast, 1)); err != nil {
		t.Fatal(err)
	}
	if err := agent.Stop(t.Context(), specOf(clusterip.Multicast, 0)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"early drop on eth0: pass only buckets 0,1 of 192.168.10.3", "192.168.10.3: own buckets 1",
		"192.168.10.3: release buckets 0", "early drop on eth0: pass only buckets 1 of 192.168.10.3",
	}
	if diff := cmp.Diff(want, kernel.applied); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if kernel.announced != 0 {
		t.Error("a further bucket was announced, although the address had been there")
	}
}

func TestStartAnnouncesTheAddressWhenItAppears(t *testing.T) {
	kernel := &fakeKernel{State: freshNode()}
	agent, _ := agentOn(kernel)
	locked := false
	agent.Lock = func(context.Context, netip.Addr) (Unlocker, error) {
		locked = true
		return unlockFunc(func(bool) error { locked = false; return nil }), nil
	}
	kernel.onAnnounce = func() {
		if locked {
			t.Error("the other instances wait while the address is announced")
		}
	}
	if err := agent.Start(t.Context(), specOf(clusterip.IGMP, 0)); err != nil {
		t.Fatal(err)
	}
	if kernel.announced != 1 {
		t.Errorf("announced %d times", kernel.announced)
	}
}

func TestStartRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(*clusterip.State, *clusterip.Spec)
		code  ocf.ExitCode
		says  string
	}{
		"another N while others run": {
			func(_ *clusterip.State, s *clusterip.Spec) { s.Buckets = 9 }, ocf.ErrConfigured, "clone-max is 8, requested is 9",
		},
		"another seed while others run": {
			func(_ *clusterip.State, s *clusterip.Spec) { s.Seed++ }, ocf.ErrConfigured, "pcs resource disable web-ip",
		},
		"another MAC while others run": {func(_ *clusterip.State, s *clusterip.Spec) { s.MACs.IPv4[5]++ }, ocf.ErrConfigured, "mac is"},
		"another hash mode while others run": {
			func(_ *clusterip.State, s *clusterip.Spec) { s.HashMode = clusterip.SourceIPSourcePort }, ocf.ErrConfigured, "hashmode is",
		},
		"a foreign table of our name": {func(s *clusterip.State, _ *clusterip.Spec) {
			s.Tables.Conflicting = []string{"table netdev clusterip-192.168.10.3"}
		}, ocf.ErrGeneric, "the agent did not install"},
		"a NIC that is not there": {func(_ *clusterip.State, s *clusterip.Spec) { s.NIC = "eth9" }, ocf.ErrArgs, "nic=eth9"},
		"the loopback interface":  {func(_ *clusterip.State, s *clusterip.Spec) { s.NIC = "lo" }, ocf.ErrArgs, "loopback"},
		"a NIC without ARP": {
			func(n *clusterip.State, s *clusterip.Spec) { s.NIC, n.NICs[2].ARP = "eth1", false }, ocf.ErrArgs, "is not an Ethernet interface",
		},
		"a port of a bond that is a port of a bridge": {func(n *clusterip.State, _ *clusterip.Spec) {
			n.NICs[1].Master = 8
			n.NICs = append(
				n.NICs, clusterip.NIC{Index: 8, Name: "bond0", Kind: "bond", Master: 9}, clusterip.NIC{Index: 9, Name: "br0", Kind: "bridge"},
			)
		}, ocf.ErrArgs, "eth0 is a port of bond0 (bond), which receives its packets, so that no client reaches the address; set nic=br0"},
		"a port of Open vSwitch": {func(n *clusterip.State, _ *clusterip.Spec) {
			n.NICs[1].Master = 8
			n.NICs = append(n.NICs, clusterip.NIC{Index: 8, Name: "ovs-system", Kind: "openvswitch"})
		}, ocf.ErrArgs, "ovs-vsctl iface-to-br eth0"},
		"a VLAN of a bond that monitors no link": {func(n *clusterip.State, _ *clusterip.Spec) {
			n.NICs[1].Parent, n.NICs[1].Kind = 8, "vlan"
			n.NICs = append(
				n.NICs, clusterip.NIC{Index: 8, Name: "bond0", Kind: "bond", Up: true, Running: true},
				clusterip.NIC{Index: 9, Name: "eth8", Kind: "device", Master: 8, Up: true},
			)
		}, ocf.ErrGeneric, "bond0 has a carrier, but none of its ports"},
		"a unicast MAC on a VLAN of a bond that lets frames in twice": {func(n *clusterip.State, s *clusterip.Spec) {
			n.NICs[1].Parent, n.NICs[1].Kind = 8, "vlan"
			n.NICs = append(n.NICs, clusterip.NIC{Index: 8, Name: "bond0", Kind: "bond", BondMode: "balance-alb"})
			n.Tables, n.Addresses, n.Filters = clusterip.Tables{}, nil, nil
			s.MACMode, s.MACs.IPv4 = clusterip.Unicast, clusterip.DerivedMAC(clusterip.Unicast, vip)
		}, ocf.ErrArgs, "bond0 is a bond in mode balance-alb"},
		"a unicast MAC on a bond that verifies the answers to its ARP requests": {func(n *clusterip.State, s *clusterip.Spec) {
			n.NICs[1].Asks, n.NICs[1].Verifies = true, true
			n.Tables, n.Addresses, n.Filters = clusterip.Tables{}, nil, nil
			s.MACMode, s.MACs.IPv4 = clusterip.Unicast, clusterip.DerivedMAC(clusterip.Unicast, vip)
		}, ocf.ErrArgs, "eth0 validates the answers to its ARP requests (arp_validate)"},
		"the target on a bond that asks by ARP": {func(n *clusterip.State, s *clusterip.Spec) {
			n.NICs[1].Kind, n.NICs[1].Asks = "bond", true
			n.NICs = append(n.NICs, clusterip.NIC{Index: 8, Name: "eth8", Master: n.NICs[1].Index, Up: true, Running: true})
			n.Tables, n.Addresses, n.Filters = clusterip.Tables{}, nil, nil
			s.Backend, s.HashCompat = clusterip.Target, clusterip.ClusterIP
		}, ocf.ErrArgs, "set miimon in place of arp_interval in the configuration of eth0"},
		"a NIC that is down":    {func(n *clusterip.State, _ *clusterip.Spec) { n.NICs[1].Up = false }, ocf.ErrGeneric, "ip link set eth0 up"},
		"a NIC without carrier": {func(n *clusterip.State, _ *clusterip.Spec) { n.NICs[1].Running = false }, ocf.ErrGeneric, "no carrier"},
		"no connected route": {
			func(n *clusterip.State, _ *clusterip.Spec) { n.Connected, n.Tables = nil, clusterip.Tables{} }, ocf.ErrArgs,
			"no network interface has connected routes",
		},
		"two connected routes": {func(n *clusterip.State, _ *clusterip.Spec) {
			n.Tables = clusterip.Tables{}
			n.Connected = append(n.Connected, clusterip.Route{NICIndex: eth1Index, Prefix: lan.Prefix})
		}, ocf.ErrArgs, "eth0, eth1 all hold"},
		"the address elsewhere": {func(n *clusterip.State, s *clusterip.Spec) {
			n.Addresses = append(n.Addresses, clusterip.Address{NICIndex: eth1Index, Prefix: vip24})
			s.NIC = "eth0"
		}, ocf.ErrArgs, "already on eth1"},
		"the address on loopback": {func(n *clusterip.State, _ *clusterip.Spec) {
			n.Addresses = append(n.Addresses, clusterip.Address{NICIndex: loIndex, Prefix: vip32})
		}, ocf.ErrArgs, "already on lo"},
		"a network's own address": {func(n *clusterip.State, s *clusterip.Spec) {
			n.Tables, n.Addresses = clusterip.Tables{}, nil
			s.Addresses = []netip.Addr{netip.MustParseAddr("192.168.10.0")}
		}, ocf.ErrArgs, "address of the network"},
	} {
		t.Run(name, func(t *testing.T) {
			kernel, spec := &fakeKernel{State: cloned(runningNode(t, clusterip.Multicast, 2, 5))}, specOf(clusterip.Multicast, 1)
			row.spoil(&kernel.State, &spec)
			before := fmt.Sprintf("%+v", kernel.State)
			agent, _ := agentOn(kernel)
			err := agent.Start(t.Context(), spec)
			if code := ocf.CodeOf(err); code != row.code || !strings.Contains(fmt.Sprint(err), row.says) {
				t.Errorf("%s: %v\nwant %s and %q", code, err, row.code, row.says)
			}
			if after := fmt.Sprintf("%+v", kernel.State); after != before {
				t.Errorf("something was changed:\n%s\n%s", before, after)
			}
		})
	}
}

func TestOtherSettingsAreTakenWhenNoOtherBucketRuns(t *testing.T) {
	kernel, spec := &fakeKernel{State: runningNode(t, clusterip.Multicast, 1)}, specOf(clusterip.Unicast, 1)
	spec.Buckets, spec.Seed = 9, 77
	agent, _ := agentOn(kernel)
	if err := agent.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := agent.Monitor(t.Context(), spec, 0); err != nil {
		t.Error(err)
	}
	if len(kernel.Filters) != 1 || kernel.Filters[0].MAC != spec.MACs.IPv4 {
		t.Errorf("filters of the old MAC are left: %v", kernel.Filters)
	}
}

// Tables of an older schema are accepted as they are: no monitor fails and no bucket moves on a package upgrade.
func TestOlderSchemaIsAccepted(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 1)}
	kernel.Tables.Installed.Schema = clusterip.Schema - 1
	agent, _ := agentOn(kernel)
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), 0); err != nil {
		t.Error(err)
	}
	kernel.applied = nil
	if err := agent.Start(t.Context(), specOf(clusterip.Multicast, 2)); err != nil || slices.ContainsFunc(kernel.applied, isInstallation) {
		t.Errorf("%v; start of a further bucket did %q", err, kernel.applied)
	}
}

func isInstallation(step string) bool { return strings.HasPrefix(step, "install") }

// A bond's ARP monitor uses IPv4 addresses only.
func TestBondsThatVerifyAnswersConcernIPv4Only(t *testing.T) {
	seen := clusterip.State{
		NICs: []clusterip.NIC{{Index: 2, Name: "bond0", Kind: "bond", Asks: true, Verifies: true}, {Index: 3, Name: "eth0", Master: 2}},
	}
	for prefix, fault := range map[netip.Prefix]bool{vip24: true, netip.PrefixFrom(vip6, 64): false} {
		layout := clusterip.Layout{NICIndex: 2, MACMode: clusterip.Unicast, Prefixes: []netip.Prefix{prefix}}
		if why := seen.UnicastFault(layout); (why != "") != fault {
			t.Errorf("%s: %q", prefix, why)
		}
	}
}

// A bond gets a port, or an ARP monitor: the tables are updated, and no bucket moves.
func TestTablesLearnOfPortsThatAskByARP(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 1, 2)}
	kernel.NICs[1].Kind, kernel.NICs[1].Asks = "bond", true
	for _, index := range []int{9, 8} {
		kernel.NICs = append(
			kernel.NICs,
			clusterip.NIC{Index: index, Name: fmt.Sprintf("eth%d", index), Kind: "device", Master: kernel.NICs[1].Index, Up: true, Running: true},
		)
	}
	agent, _ := agentOn(kernel)
	for range 2 {
		if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), 0); err != nil {
			t.Error(err)
		}
	}
	if fmt.Sprint(kernel.Tables.Installed.Ports, kernel.Tables.Owned) != "[8 9] [1 2]" || len(kernel.applied) != 1 {
		t.Errorf("ports %v, owned %v, after %q", kernel.Tables.Installed.Ports, kernel.Tables.Owned, kernel.applied)
	}
}

func TestMonitorNamesConflicts(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 1, 2), conflicts: []clusterip.Conflict{{Address: vip, MAC: anyMAC}}}
	agent, _ := agentOn(kernel)
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), 0); err != nil {
		t.Errorf("level 0 asks no network: %v", err)
	}
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 2), NetworkLevel); err != nil {
		t.Errorf("level 10: the node's first bucket asks for the second: %v", err)
	}
	err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), NetworkLevel)
	if err == nil || !strings.Contains(err.Error(), anyMAC.String()) {
		t.Errorf("level 10: %v", err)
	}
	kernel.Tables.Takeovers = []clusterip.Takeover{{Bucket: 1, Left: time.Second}}
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), NetworkLevel); err != nil {
		t.Errorf("level 10, just after it was taken over: another bucket has asked a short while ago: %v", err)
	}
	kernel.Tables.Owned = []clusterip.Bucket{1}
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), NetworkLevel); err == nil {
		t.Error("level 10, just after it was taken over, with no other bucket: nobody has asked")
	}
}

func TestMonitorOfAnUnusableNodeIsNotRunning(t *testing.T) {
	kernel := &fakeKernel{State: freshNode()}
	kernel.Connected = nil
	agent, _ := agentOn(kernel)
	if code, _ := exitCode(func() error { return agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), 0) }); code != ocf.NotRunning {
		t.Errorf("a probe where the address does not fit: %s", code)
	}
}

func TestMonitorSeesALinkThatIsDown(t *testing.T) {
	for name, row := range map[string]struct {
		checkLink bool
		want      ocf.ExitCode
	}{"checked": {true, ocf.ErrGeneric}, "not checked": {false, ocf.Success}} {
		t.Run(name, func(t *testing.T) {
			kernel, spec := &fakeKernel{State: cloned(runningNode(t, clusterip.Multicast, 1))}, specOf(clusterip.Multicast, 1)
			kernel.NICs[1].Running, spec.CheckLink = false, row.checkLink
			agent, _ := agentOn(kernel)
			if code, _ := exitCode(func() error { return agent.Monitor(t.Context(), spec, 0) }); code != row.want {
				t.Errorf("%s, want %s", code, row.want)
			}
		})
	}
}

// What does not belong to this resource is not touched, whatever its name, address or MAC.
func TestOthersAreLeftAlone(t *testing.T) {
	own := clusterip.Address{NICIndex: 1, Prefix: netip.PrefixFrom(vip, 24)}
	t.Run("the address is the node's own", func(t *testing.T) {
		kernel := &fakeKernel{State: freshNode()}
		kernel.Addresses = []clusterip.Address{own}
		agent, _ := agentOn(kernel)
		var log strings.Builder
		agent.Log = ocf.NewLogger(&log, false)
		if code, _ := exitCode(func() error { return agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), 0) }); code != ocf.NotRunning {
			t.Errorf("a probe: %s", code)
		}
		code, _ := exitCode(func() error { return agent.Start(t.Context(), specOf(clusterip.Multicast, 1)) })
		if code != ocf.ErrArgs {
			t.Errorf("start: %s", code)
		}
		if err := agent.Stop(t.Context(), specOf(clusterip.Multicast, 1)); err != nil || len(kernel.applied) > 0 {
			t.Errorf("stop: %v, it did %q", err, kernel.applied)
		}
		if !strings.Contains(log.String(), "left alone") {
			t.Errorf("it is not logged: %s", log.String())
		}
	})
	for name, mode := range map[string]clusterip.MACMode{
		"another mode's group": clusterip.Multicast, "another mode's filter": clusterip.IGMP,
	} {
		t.Run(name+" on another NIC", func(t *testing.T) {
			kernel := &fakeKernel{State: freshNode()}
			kernel.NICs = append(kernel.NICs, clusterip.NIC{Index: 7, Name: "eth7", Up: true, Running: true, ARP: true})
			group := clusterip.DerivedMAC(clusterip.IGMP, vip).MulticastGroup()
			kernel.Groups = []clusterip.Address{{NICIndex: 7, Prefix: netip.PrefixFrom(group, 32), AutoJoin: true}}
			kernel.Filters = []clusterip.Filter{{NICIndex: 7, MAC: clusterip.DerivedMAC(clusterip.Multicast, vip), Static: true}}
			groups, filters := len(kernel.Groups), len(kernel.Filters)
			agent, _ := agentOn(kernel)
			spec := specOf(mode, 1)
			spec.NIC = "eth0"
			if err := agent.Start(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			if err := agent.Stop(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			if len(kernel.Groups) != groups || len(kernel.Filters) != filters {
				t.Errorf("left are groups %v and filters %v", kernel.Groups, kernel.Filters)
			}
		})
	}
}

// Neighbours that received another MAC while something was broken must receive the right one again.
func TestMendingIsAnnounced(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 1, 2)}
	kernel.Tables.Faults = []string{"table arp clusterip-192.168.10.3 is gone"}
	agent, _ := agentOn(kernel)
	if err := agent.Start(t.Context(), specOf(clusterip.Multicast, 1)); err != nil || kernel.announced != 1 {
		t.Errorf("%v; announced %d times after the tables were repaired", err, kernel.announced)
	}
	if err := agent.Start(t.Context(), specOf(clusterip.Multicast, 3)); err != nil || kernel.announced != 1 {
		t.Errorf("%v; announced %d times after a further bucket", err, kernel.announced)
	}
}

// A lock's file that stays behind changes no action's outcome.
func TestUnlockMayFail(t *testing.T) {
	kernel := &fakeKernel{State: freshNode()}
	agent, _ := agentOn(kernel)
	var log strings.Builder
	agent.Log = ocf.NewLogger(&log, false)
	agent.Lock = func(context.Context, netip.Addr) (Unlocker, error) {
		return unlockFunc(func(bool) error { return errRefused }), nil
	}
	if code, _ := exitCode(func() error { return agent.Monitor(t.Context(), specOf(clusterip.Multicast, 1), 0) }); code != ocf.NotRunning {
		t.Errorf("a probe: %s", code)
	}
	if err := agent.Stop(t.Context(), specOf(clusterip.Multicast, 1)); err != nil {
		t.Errorf("stop: %v", err)
	}
	if !strings.Contains(log.String(), errRefused.Error()) {
		t.Errorf("it is not logged: %s", log.String())
	}
}
