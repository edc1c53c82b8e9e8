package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// dualSpec is specOf with an IPv6 address beside.
func dualSpec(mode clusterip.MACMode, bucket clusterip.Bucket) clusterip.Spec {
	spec := specOf(mode, bucket)
	spec.Addresses = append(spec.Addresses, vip6)
	spec.MACs.IPv6 = spec.MACs.IPv4
	if mode == clusterip.IGMP {
		spec.MACs.IPv6 = clusterip.DerivedMAC(mode, vip6)
	}
	return spec
}

// dualNode is freshNode with IPv6.
func dualNode() clusterip.State {
	node := freshNode()
	node.Connected = append(node.Connected, clusterip.Route{NICIndex: eth0Index, Prefix: netip.MustParsePrefix("2001:db8:10::/64")})
	return node
}

func TestDualStackIsInstalledRepairedAndRemoved(t *testing.T) {
	vip6At := func(s *clusterip.State) *clusterip.Address {
		i := slices.IndexFunc(s.Addresses, func(a clusterip.Address) bool { return a.Prefix.Addr() == vip6 })
		return &s.Addresses[i]
	}
	for name, spoil := range map[string]func(*clusterip.State){
		"nothing wrong":            func(*clusterip.State) {},
		"both addresses lost":      func(s *clusterip.State) { s.Addresses = nil },
		"IPv6 address tentative":   func(s *clusterip.State) { vip6At(s).Tentative = true },
		"IPv6 address with prefix": func(s *clusterip.State) { vip6At(s).Prefix = netip.PrefixFrom(vip6, 128) },
		"a rule changed":           func(s *clusterip.State) { s.Tables.Faults = []string{"x"} },
		"filters lost":             func(s *clusterip.State) { s.Filters = nil },
	} {
		for _, mode := range clusterip.MACModes() {
			t.Run(name+"/"+string(mode), func(t *testing.T) {
				kernel := &fakeKernel{State: dualNode()}
				agent, _ := agentOn(kernel)
				for _, bucket := range []clusterip.Bucket{2, 5} {
					if err := agent.Start(t.Context(), dualSpec(mode, bucket)); err != nil {
						t.Fatal(err)
					}
				}
				spoil(&kernel.State)
				if err := agent.Start(t.Context(), dualSpec(mode, 2)); err != nil {
					t.Fatal(err)
				}
				if err := agent.Monitor(t.Context(), dualSpec(mode, 2), 0); err != nil {
					t.Error(err)
				}
				before := len(kernel.applied)
				if err := agent.Start(t.Context(), dualSpec(mode, 2)); err != nil || len(kernel.applied) != before {
					t.Errorf("a repeated start: %v, %q", err, kernel.applied[before:])
				}
				for _, bucket := range []clusterip.Bucket{2, 5} {
					if err := agent.Stop(t.Context(), dualSpec(mode, bucket)); err != nil {
						t.Error(err)
					}
				}
				if len(kernel.Addresses)+len(kernel.Groups)+len(kernel.Filters) > 0 || kernel.Tables.Present {
					t.Errorf("left: %+v", kernel.State)
				}
			})
		}
	}
}

// What belongs to another resource is neither used nor removed.
func TestOtherResourcesAreLeftAlone(t *testing.T) {
	other := clusterip.Layout{
		Schema: clusterip.Schema, Resource: "mail-ip", Prefixes: []netip.Prefix{
			netip.MustParsePrefix("192.168.10.5/24"), netip.PrefixFrom(vip6, 64),
		},
		NIC: "eth0", NICIndex: eth0Index, MACMode: clusterip.Multicast, MACs: clusterip.PerFamily[clusterip.MAC]{
			IPv4: clusterip.DerivedMAC(clusterip.Multicast, vip), IPv6: clusterip.DerivedMAC(clusterip.Multicast, vip),
		},
		HashMode: clusterip.SourceIP, HashCompat: clusterip.XTCluster, HashPrefixes: wholeAddresses, Seed: 1, Buckets: 8,
	}
	node := dualNode()
	node.Addresses = []clusterip.Address{{NICIndex: eth0Index, Prefix: netip.PrefixFrom(vip6, 64)}}
	node.Filters = []clusterip.Filter{{NICIndex: eth0Index, MAC: clusterip.DerivedMAC(clusterip.Multicast, vip), Static: true}}
	kernel := &fakeKernel{State: node, others: []clusterip.Layout{other}}
	agent, _ := agentOn(kernel)
	for name, says := range map[string]string{"start": "belongs to mail-ip", "validate-all": "belongs to mail-ip"} {
		err := agent.Start(t.Context(), dualSpec(clusterip.Multicast, 1))
		if name == "validate-all" {
			err = agent.Validate(t.Context(), dualSpec(clusterip.Multicast, 1))
		}
		if ocf.CodeOf(err) != ocf.ErrConfigured || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	kernel.Addresses = nil // that one has no address of it
	err := agent.Start(t.Context(), specOf(clusterip.Multicast, 1))
	if ocf.CodeOf(err) != ocf.ErrConfigured || !strings.Contains(err.Error(), "is that of mail-ip too") {
		t.Errorf("the same MAC: %v", err)
	}
	if err := agent.Stop(t.Context(), dualSpec(clusterip.Multicast, 1)); err != nil {
		t.Error(err)
	}
	if len(kernel.applied) > 0 {
		t.Errorf("something was done: %q", kernel.applied)
	}
}

// A stop whose addresses include one of another resource, which start has refused, leaves what belongs to that one.
func TestStopLeavesTheRouteOfAnotherResource(t *testing.T) {
	node := runningNode(t, clusterip.Multicast, 2)
	other := *node.Tables.Installed
	node.Tables = clusterip.Tables{}
	kernel := &fakeKernel{State: node, others: []clusterip.Layout{other}}
	agent, _ := agentOn(kernel)
	spec := specOf(clusterip.Multicast, 1)
	spec.Resource, spec.Addresses = "mail-ip", []netip.Addr{netip.MustParseAddr("192.168.10.7"), vip}
	if err := agent.Stop(t.Context(), spec); err != nil || len(kernel.applied) > 0 {
		t.Errorf("%v; it did %q", err, kernel.applied)
	}
}
