package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator/doctor"
)

var (
	shared4, shared6 = netip.MustParseAddr("192.168.10.3"), netip.MustParseAddr("2001:db8:10::3")
	sharedMAC        = clusterip.MAC{3, 0xc1, 192, 168, 10, 3}
	ownMAC           = clusterip.MAC{2, 0, 0, 0, 1, 1}
	otherMAC         = clusterip.MAC{2, 0, 0, 0, 9, 9}
	comparePrefixes  = cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})
)

func ipNet(text string) *net.IPNet { return ipNetOf(netip.MustParsePrefix(text)) }

func TestInterfaceOf(t *testing.T) {
	is := func(name string) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: 7, Name: name, HardwareAddr: ownMAC[:], RawFlags: unix.IFF_UP | unix.IFF_RUNNING, NetNsID: -1}
	}
	with := func(change func(*netlink.LinkAttrs)) netlink.LinkAttrs {
		a := is("eth0")
		change(&a)
		return a
	}
	want := func(kind string, change func(*clusterip.NIC)) clusterip.NIC {
		nic := clusterip.NIC{Index: 7, Name: "eth0", MAC: ownMAC, Up: true, Running: true, ARP: true, Kind: kind}
		change(&nic)
		return nic
	}
	same := func(*clusterip.NIC) {}
	bond := netlink.NewLinkBond(is("eth0"))
	bond.Mode, bond.ArpInterval, bond.ArpValidate = netlink.BOND_MODE_ACTIVE_BACKUP, 100, netlink.BOND_ARP_VALIDATE_ALL
	for name, row := range map[string]struct {
		link netlink.Link
		want clusterip.NIC
	}{
		"hardware": {&netlink.Device{LinkAttrs: is("eth0")}, want("device", same)},
		"no carrier": {
			&netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.RawFlags = unix.IFF_UP })},
			want("device", func(n *clusterip.NIC) { n.Running = false }),
		},
		"a tunnel without ARP": {
			&netlink.Dummy{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.RawFlags |= unix.IFF_NOARP })},
			want("dummy", func(n *clusterip.NIC) { n.ARP = false }),
		},
		"no Ethernet": {
			&netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.HardwareAddr = nil })},
			want("device", func(n *clusterip.NIC) { n.ARP, n.MAC = false, clusterip.MAC{} }),
		},
		"a port": {
			&netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.MasterIndex = 9 })},
			want("device", func(n *clusterip.NIC) { n.Master = 9 }),
		},
		"a VLAN": {
			&netlink.Vlan{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.ParentIndex = 5 })},
			want("vlan", func(n *clusterip.NIC) { n.Parent = 5 }),
		},
		"a VLAN whose parent is in another namespace": {
			&netlink.Vlan{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.ParentIndex, a.NetNsID = 5, 0 })}, want("vlan", same),
		},
		"a veth, whose parent is its peer": {
			&netlink.Veth{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.ParentIndex = 5 })}, want("veth", same),
		},
		"a bond with an ARP monitor": {bond, want("bond", func(n *clusterip.NIC) {
			n.BondMode, n.Asks, n.Verifies = "active-backup", true, true
		})},
		"a bond whose options are unknown": {
			netlink.NewLinkBond(is("eth0")),
			want("bond", func(n *clusterip.NIC) { n.BondMode = "BondMode(-1)" }),
		},
	} {
		if diff := cmp.Diff(row.want, interfaceOf(row.link)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestIsInPlace(t *testing.T) {
	installed := clusterip.Layout{
		NIC: "eth0", NICIndex: 2, Prefixes: []netip.Prefix{netip.PrefixFrom(shared4, 24), netip.PrefixFrom(shared6, 64)},
	}
	nic := clusterip.NIC{Index: 2, Name: "eth0", ARP: true}
	route := clusterip.Route{NICIndex: 2, Prefix: netip.MustParsePrefix("192.168.10.0/24"), Metric: clusterip.RouteMetric(shared4)}
	state := clusterip.State{NICs: []clusterip.NIC{nic}, Routes: []clusterip.Route{route}}
	if !isInPlace(state, &installed, []netip.Addr{shared4}) {
		t.Error("all is in place")
	}
	renamed := nic
	renamed.Name = "eth1"
	for name, in := range map[string]bool{
		"no layout":         isInPlace(state, nil, []netip.Addr{shared4}),
		"a new address":     isInPlace(state, &installed, []netip.Addr{shared4, netip.MustParseAddr("192.168.10.4")}),
		"the route is gone": isInPlace(clusterip.State{NICs: state.NICs}, &installed, []netip.Addr{shared4}),
		"renamed":           isInPlace(clusterip.State{NICs: []clusterip.NIC{renamed}, Routes: state.Routes}, &installed, []netip.Addr{shared4}),
	} {
		if in {
			t.Errorf("%s: in place", name)
		}
	}
}

func TestDumpTriesAgain(t *testing.T) {
	tries := 0
	list, err := dump(t.Context(), func() ([]int, error) {
		if tries++; tries < 3 {
			return nil, netlink.ErrDumpInterrupted
		}
		return []int{tries}, nil
	})
	if err != nil || !slices.Equal(list, []int{3}) {
		t.Errorf("%v, %v", list, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = dump(ended, func() ([]int, error) { return nil, netlink.ErrDumpInterrupted })
	if !errors.Is(err, context.Canceled) || !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Error(err)
	}
}

func TestFamilyOf(t *testing.T) {
	for want, addresses := range map[int][]netip.Addr{
		netlink.FAMILY_V4: {shared4}, netlink.FAMILY_V6: {shared6}, netlink.FAMILY_ALL: {shared4, shared6},
	} {
		if got := familyOf(addresses...); got != want {
			t.Errorf("%v: %d", addresses, got)
		}
	}
}

func TestNewAddress(t *testing.T) {
	eth0 := clusterip.NIC{Name: "eth0"}
	for name, row := range map[string]struct {
		step clusterip.AddAddress
		want netlink.Addr
	}{
		"IPv4": {
			clusterip.AddAddress{NIC: eth0, Prefix: netip.PrefixFrom(shared4, 32)},
			netlink.Addr{IPNet: ipNet("192.168.10.3/32"), Scope: unix.RT_SCOPE_HOST, Label: "eth0:c"},
		},
		"a long name leaves no room for a label": {
			clusterip.AddAddress{NIC: clusterip.NIC{Name: "a-very-long-nam"}, Prefix: netip.PrefixFrom(shared4, 32)},
			netlink.Addr{IPNet: ipNet("192.168.10.3/32"), Scope: unix.RT_SCOPE_HOST},
		},
		"IPv4 group": {
			clusterip.AddAddress{NIC: eth0, Prefix: netip.MustParsePrefix("239.1.2.3/32"), Group: true},
			netlink.Addr{IPNet: ipNet("239.1.2.3/32"), Scope: unix.RT_SCOPE_HOST, Flags: unix.IFA_F_MCAUTOJOIN},
		},
		"IPv6": {
			clusterip.AddAddress{NIC: eth0, Prefix: netip.PrefixFrom(shared6, 64)},
			netlink.Addr{IPNet: ipNet("2001:db8:10::3/64"), Flags: unix.IFA_F_NODAD, ValidLft: 0xffffffff},
		},
		"IPv6 group": {
			clusterip.AddAddress{NIC: eth0, Prefix: netip.MustParsePrefix("ff05::3/128"), Group: true},
			netlink.Addr{IPNet: ipNet("ff05::3/128"), Flags: unix.IFA_F_NODAD | unix.IFA_F_MCAUTOJOIN, ValidLft: 0xffffffff},
		},
	} {
		if diff := cmp.Diff(row.want, *newAddress(row.step)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestHasSecondaries(t *testing.T) {
	primary := netlink.Addr{IPNet: ipNet("192.168.10.3/24")}
	secondary := netlink.Addr{IPNet: ipNet("192.168.10.4/24"), Flags: unix.IFA_F_SECONDARY}
	elsewhere := netlink.Addr{IPNet: ipNet("192.168.10.4/25"), Flags: unix.IFA_F_SECONDARY}
	for name, row := range map[string]struct {
		address netlink.Addr
		all     []netlink.Addr
		want    bool
	}{
		"alone":                      {primary, []netlink.Addr{primary}, false},
		"of the same network":        {primary, []netlink.Addr{primary, secondary}, true},
		"of one with another mask":   {primary, []netlink.Addr{primary, elsewhere}, false},
		"a secondary one has none":   {secondary, []netlink.Addr{primary, secondary}, false},
		"another primary is no such": {primary, []netlink.Addr{primary, {IPNet: ipNet("192.168.10.5/24")}}, false},
	} {
		if got := hasSecondaries(row.address, row.all); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestRoutes(t *testing.T) {
	gateway, second := net.IP{192, 168, 10, 254}, net.IP{192, 168, 10, 253}
	connected, gateways := sortRoutes([]netlink.Route{
		{LinkIndex: 2, Family: unix.AF_INET, Type: unix.RTN_UNICAST, Dst: ipNet("192.168.10.0/24"), Scope: netlink.SCOPE_LINK},
		{LinkIndex: 2, Family: unix.AF_INET6, Type: unix.RTN_UNICAST, Dst: ipNet("2001:db8:10::/64")},
		{LinkIndex: 2, Family: unix.AF_INET, Type: unix.RTN_UNICAST, Dst: ipNet("0.0.0.0/0"), Gw: gateway},
		{LinkIndex: 2, Family: unix.AF_INET6, Type: unix.RTN_UNICAST, Gw: net.ParseIP("fe80::1")},
		{Family: unix.AF_INET, Type: unix.RTN_UNICAST, Dst: ipNet("0.0.0.0/0"), MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: 2, Gw: gateway}, {LinkIndex: 3, Gw: second},
		}},
		{LinkIndex: 4, Family: unix.AF_INET, Type: unix.RTN_UNICAST, Dst: ipNet("0.0.0.0/0"), Scope: netlink.SCOPE_LINK}, // a tunnel
		{LinkIndex: 2, Family: unix.AF_INET, Type: unix.RTN_UNICAST, Dst: ipNet("10.0.0.0/8"), Gw: gateway},
		{LinkIndex: 2, Family: unix.AF_INET6, Type: unix.RTN_UNICAST, Dst: ipNet("2001:db8:20::/64"), Gw: net.ParseIP("fe80::1")},
		{LinkIndex: 2, Family: unix.AF_INET, Type: unix.RTN_BLACKHOLE, Dst: ipNet("0.0.0.0/0")},
	})
	if diff := cmp.Diff([]clusterip.Route{
		{NICIndex: 2, Prefix: netip.MustParsePrefix("192.168.10.0/24")}, {NICIndex: 2, Prefix: netip.MustParsePrefix("2001:db8:10::/64")},
	}, connected, comparePrefixes); diff != "" {
		t.Errorf("connected (-want +got):\n%s", diff)
	}
	router, router2 := netip.MustParseAddr("192.168.10.254"), netip.MustParseAddr("192.168.10.253")
	if diff := cmp.Diff([]doctor.Gateway{
		{NICIndex: 2, Address: router},
		{NICIndex: 2, Address: netip.MustParseAddr("fe80::1"), IPv6: true},
		{NICIndex: 2, Address: router},
		{NICIndex: 3, Address: router2},
		{NICIndex: 4},
	}, gateways, comparePrefixes); diff != "" {
		t.Errorf("gateways (-want +got):\n%s", diff)
	}
}

func TestIsOwnRoute(t *testing.T) {
	own := *routeOf(clusterip.NIC{Index: 2}, clusterip.Route{
		NICIndex: 2, Prefix: netip.MustParsePrefix("192.168.10.0/24"), Metric: clusterip.RouteMetric(shared4),
	})
	foreign := own
	foreign.Protocol = unix.RTPROT_KERNEL
	other := netip.MustParseAddr("192.168.10.4") // of another resource in the network
	for name, row := range map[string]struct {
		addresses []netip.Addr
		route     netlink.Route
		want      bool
	}{
		"ours": {[]netip.Addr{shared6, shared4}, own, true}, "another resource's": {[]netip.Addr{other}, own, false},
		"the kernel's": {[]netip.Addr{shared4}, foreign, false}, "no IPv4 address": {[]netip.Addr{shared6}, own, false},
	} {
		if got := isOwnRoute(row.addresses, row.route, netip.MustParsePrefix("192.168.10.0/24")); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestNeighbourOf(t *testing.T) {
	entry := netlink.Neigh{LinkIndex: 2, IP: net.IP{192, 168, 10, 9}, HardwareAddr: otherMAC[:], State: netlink.NUD_STALE}
	want := doctor.Neighbour{NICIndex: 2, Address: netip.MustParseAddr("192.168.10.9"), MAC: otherMAC}
	if got, ok := neighbourOf(entry); !ok || got != want {
		t.Errorf("%+v, %t", got, ok)
	}
	failed, unresolved := entry, entry
	failed.State, unresolved.HardwareAddr = netlink.NUD_FAILED, nil
	for _, bad := range []netlink.Neigh{failed, unresolved} {
		if got, ok := neighbourOf(bad); ok {
			t.Errorf("%+v is read as %+v", bad, got)
		}
	}
}

func TestIsExempt(t *testing.T) {
	for name, row := range map[string]struct {
		entry netlink.Neigh
		want  bool
	}{
		"a client":                 {netlink.Neigh{State: netlink.NUD_REACHABLE}, false},
		"one that does not answer": {netlink.Neigh{State: netlink.NUD_FAILED}, false},
		"set by an admin":          {netlink.Neigh{State: netlink.NUD_PERMANENT}, true},
		"set by a routing daemon":  {netlink.Neigh{State: netlink.NUD_REACHABLE, Flags: netlink.NTF_ROUTER | unix.NTF_EXT_LEARNED}, true},
	} {
		if got := isExempt(row.entry); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestUnicastFilter(t *testing.T) {
	self := netlink.Neigh{LinkIndex: 2, HardwareAddr: ownMAC[:], Flags: netlink.NTF_SELF}
	bridge, learned, group := self, self, self
	bridge.Flags, bridge.MasterIndex = 0, 2
	learned.Flags, learned.MasterIndex = 0, 5
	group.HardwareAddr = sharedMAC[:]
	for name, row := range map[string]struct {
		entry netlink.Neigh
		want  bool
	}{"the interface's": {self, true}, "a bridge's own": {bridge, true}, "learned at a port": {learned, false}, "a group": {group, false}} {
		if filter, ok := unicastFilter(row.entry); ok != row.want || filter.NICIndex != 2 {
			t.Errorf("%s: %+v, %t", name, filter, ok)
		}
	}
}

func TestARP(t *testing.T) {
	frame, err := arpRequest(ownMAC, sharedMAC, shared4, shared4)
	if err != nil {
		t.Fatal(err)
	}
	var ether ethernet.Frame
	err = ether.UnmarshalBinary(frame)
	if err != nil || clusterip.MACOf(ether.Source) != ownMAC || !slices.Equal(ether.Destination, ethernet.Broadcast) {
		t.Errorf("%+v, %v", ether, err)
	}
	if got := senderOf(frame, shared4); !slices.Equal(got, []clusterip.MAC{sharedMAC}) {
		t.Errorf("sender %v", got)
	}
	for _, bad := range [][]byte{nil, frame[:30], slices.Concat(frame[:12], []byte{8, 0}, frame[14:])} {
		if got := senderOf(bad, shared4); got != nil {
			t.Errorf("%x has sender %v", bad, got)
		}
	}
	if got := senderOf(frame, shared4.Next()); got != nil {
		t.Errorf("another address has sender %v", got)
	}
}

func TestAdvertised(t *testing.T) {
	from := func(target netip.Addr, options ...ndp.Option) ndp.Message {
		return &ndp.NeighborAdvertisement{TargetAddress: target, Options: options}
	}
	link := &ndp.LinkLayerAddress{Direction: ndp.Target, Addr: otherMAC[:]}
	if got := advertised(from(shared6, link), shared6); !slices.Equal(got, []clusterip.MAC{otherMAC}) {
		t.Errorf("%v", got)
	}
	for _, message := range []ndp.Message{nil, from(shared6), from(shared6.Next(), link), &ndp.NeighborSolicitation{TargetAddress: shared6}} {
		if got := advertised(message, shared6); got != nil {
			t.Errorf("%+v: %v", message, got)
		}
	}
}

func TestGroupFrame(t *testing.T) {
	group, err := ndp.SolicitedNodeMulticast(shared6)
	if err != nil {
		t.Fatal(err)
	}
	frame, to, err := groupFrame(ownMAC[:], group, []byte("message"))
	if err != nil || to.String() != "33:33:ff:00:00:03" {
		t.Fatal(to, err)
	}
	header, err := ipv6.ParseHeader(frame[ipOffset:])
	if err != nil || !header.Src.IsUnspecified() || header.Dst.String() != group.String() || header.PayloadLen != len("message") ||
		header.NextHeader != unix.IPPROTO_ICMPV6 || header.HopLimit != ndp.HopLimit {
		t.Errorf("%v, %v", header, err)
	}
}

func TestCollect(t *testing.T) {
	answers := [][]clusterip.MAC{{sharedMAC}, nil, {otherMAC}, {otherMAC, ownMAC}}
	receive := func() (macs []clusterip.MAC, err error) {
		if len(answers) == 0 {
			return nil, os.ErrDeadlineExceeded
		}
		macs, answers = answers[0], answers[1:]
		return macs, nil
	}
	got, err := collect(shared4, sharedMAC, receive)
	want := []clusterip.Conflict{{Address: shared4, MAC: otherMAC}, {Address: shared4, MAC: ownMAC}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := collect(shared4, sharedMAC, func() ([]clusterip.MAC, error) { return nil, net.ErrClosed }); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestChooseOwn(t *testing.T) {
	is := func(text string, scope, flags int) netlink.Addr {
		return netlink.Addr{IPNet: ipNet(text), Scope: scope, Flags: flags}
	}
	for want, all := range map[string][]netlink.Addr{
		"192.168.10.11": {is("10.0.0.1/8", 0, 0), is("192.168.10.3/24", 0, 0), is("192.168.10.11/24", 0, 0)},
		"10.0.0.1":      {is("10.0.0.1/8", 0, 0), is("10.0.0.2/8", 0, 0)}, // none in the network: the first
		"invalid IP":    {is("192.168.10.4/32", unix.RT_SCOPE_HOST, 0), is("192.168.10.5/24", 0, unix.IFA_F_SECONDARY)},
	} {
		if got := chooseOwn(all, shared4); got.String() != want {
			t.Errorf("%v: %s, want %s", all, got, want)
		}
	}
}

func TestHasMLDQueries(t *testing.T) {
	line := func(count string) string {
		return "ifIndex                         \t2\nIcmp6InGroupMembQueries         \t" + count + "\nIcmp6OutMsgs                    \t9\n"
	}
	for text, want := range map[string]bool{line("0"): false, line("12"): true, "ifIndex                         \t2\n": false, "": false} {
		if got, err := hasMLDQueries(text); err != nil || got != want {
			t.Errorf("%q: %t, %v", text, got, err)
		}
	}
	if got, err := hasMLDQueries(line("many")); err == nil {
		t.Errorf("nonsense is read as %t", got)
	}
}
