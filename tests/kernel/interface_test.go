//go:build system

package kernel

import (
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// checkReason expects that a call ended with that status and wrote each of the words.
func checkReason(t *testing.T, r lan.Result, want ocf.ExitCode, words ...string) {
	t.Helper()
	if err := status(r, want); err != nil {
		t.Error(err)
	}
	for _, word := range words {
		if !strings.Contains(r.Stderr, word) {
			t.Errorf("%q is not printed:\n%s", word, r.Stderr)
		}
	}
}

// bridged makes eth0 a port of the bridge br0, which takes its address over, as network managers do.
var bridged = commands(
	"ip link add br0 type bridge mcast_snooping 0", "ip link set br0 address 02:00:00:00:01:01", "ip link set br0 up",
	"ip address delete 192.168.10.11/24 dev eth0", "ip link set eth0 master br0", "ip address add 192.168.10.11/24 dev br0")

// TestInterfaceThatIsAPort: a bridge takes the packets of its ports, so start refuses with a port, and monitor sees when the interface
// becomes one.
func TestInterfaceThatIsAPort(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, nic string }{{"asked for", lan.NIC}, {"by default", ""}} {
		t.Run(row.name, func(t *testing.T) {
			p := newTestNode(t, webIP("nic", row.nic))
			p.startBoth(t)
			bridged(t, p)
			words := []string{"eth0 is a port of br0 (bridge)", "set nic=br0"}
			if row.nic == "" { // it is br0 from now on
				words = []string{"tables are on eth0", "requested is br0"}
			}
			checkReason(t, p.monitor(2), ocf.ErrGeneric, words...)
			check(t, status(p.stop(2), ocf.Success))
			check(t, status(p.stop(5), ocf.Success))
			if row.nic == "" {
				p.startBoth(t)
				check(t, status(p.monitor(2), ocf.Success))
				p.by(t, "ip address show dev br0 to 192.168.10.3/32")
				return
			}
			before, err := p.Host.Dump()
			check(t, err)
			checkReason(t, p.start(2), ocf.ErrArgs, words...)
			checkReason(t, p.call("validate-all", 2, "OCF_CHECK_LEVEL=10"), ocf.ErrArgs, words...)
			after, err := p.Host.Dump()
			check(t, err)
			if before != after {
				t.Errorf("the refused start has left (-before +after):\n%s", changes(before, after))
			}
		})
	}
}

// TestDefaultInterface: among the interfaces that clients can reach, the agent takes the one by which the kernel would send packets.
func TestDefaultInterface(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name        string
		plant       func(*testing.T, *testNode)
		code        ocf.ExitCode
		checkReason []string
	}{
		{
			"a VPN with a wider route",
			commands(
				"ip tuntap add dev tun0 mode tun", "ip link set tun0 up", "ip address add 10.8.0.2/24 dev tun0", "ip route add 192.168.0.0/16 dev tun0",
			),
			ocf.Success,
			[]string{"nic is eth0", "tun0 (192.168.0.0/16, without ARP)"},
		},
		{
			"a VPN with a narrower route",
			commands(
				"ip tuntap add dev tun0 mode tun", "ip link set tun0 up", "ip address add 10.8.0.2/24 dev tun0",
				"ip route add 192.168.10.3/32 dev tun0",
			),
			ocf.Success,
			[]string{"nic is eth0", "tun0 (192.168.10.3/32, without ARP)"},
		},
		{
			"a bridge of containers in a wider network",
			commands("ip link add docker0 type bridge", "ip link set docker0 up", "ip address add 192.168.1.1/16 dev docker0"),
			ocf.Success,
			[]string{"nic is eth0", "docker0 (192.168.0.0/16)"},
		},
		{
			"a second interface in the same network",
			commands(
				"ip link add eth9 type veth peer name peer9", "ip link set eth9 up", "ip link set peer9 up", "ip address add 192.168.10.21/24 dev eth9",
			),
			ocf.ErrArgs,
			[]string{"eth0, eth9", "parameter nic"},
		},
		{
			"a port of a bridge that kept its address",
			commands("ip link add br0 type bridge", "ip link set br0 up", "ip link add v9 type veth peer name w9",
				"ip link set v9 up", "ip link set w9 up", "ip link set v9 master br0", "ip address add 192.168.10.21/25 dev v9"),
			ocf.Success,
			[]string{"nic is eth0", "v9 (192.168.10.0/25, a port)"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newTestNode(t, webIP("nic", ""))
			row.plant(t, p)
			checkReason(t, p.start(2), row.code, row.checkReason...)
			if row.code == ocf.Success {
				check(t, status(p.monitor(2), ocf.Success))
			}
		})
	}
}

// TestInterfaceByAnAlternativeName: an interface has several names, and is the same one by each.
func TestInterfaceByAnAlternativeName(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"multicast", "igmp"} {
		t.Run(mode, func(t *testing.T) {
			p := newTestNode(t, webIP("mac_mode", mode, "nic", "a-name-of-more-than-15-characters"))
			p.by(t, "ip link property add dev eth0 altname a-name-of-more-than-15-characters altname enp1s0")
			clean, err := p.Host.Dump()
			check(t, err)
			p.clean = clean
			p.startBoth(t)
			for _, name := range []string{p.Parameters["nic"], "enp1s0", lan.NIC, ""} {
				p.Parameters = p.Parameters.With("nic", name)
				check(t, status(p.monitor(2), ocf.Success))
			}
			p.Parameters = p.Parameters.With("nic", "enp1s0")
			p.by(t, "ip address delete 192.168.10.3/32 dev eth0")
			check(t, status(p.start(2), ocf.Success))
			check(t, status(p.monitor(5), ocf.Success))
			p.checkNothingIsLeft(t)
		})
	}
}

// TestTooManyGroups: a host joins so many multicast groups, and no more; the error names the kernel's parameter.
func TestTooManyGroups(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("mac_mode", "igmp"))
	check(t, p.Host.Sysctl("net/ipv4/igmp_max_memberships", "0"))
	checkReason(t, p.start(2), ocf.ErrArgs, "net.ipv4.igmp_max_memberships", "239.255.10.3")
	p.checkNothingIsLeft(t)
}

// TestBridgeWhoseUplinkIsDead: a virtual machine keeps the bridge's carrier, which does not show whether clients are reachable.
func TestBridgeWhoseUplinkIsDead(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("nic", "br0"))
	commands(
		"ip link add br0 type bridge mcast_snooping 0", "ip address flush dev eth0",
		// What leads to the network: a macvlan, for want of another kind of interface in a namespace.
		"ip link add link eth0 name uplink0 type macvlan mode passthru", "ip link set uplink0 master br0", "ip link set uplink0 up",
		"ip link add vnet0 type veth peer name guest0", "ip link set guest0 up", "ip link set vnet0 master br0", "ip link set vnet0 up",
		"ip link set br0 up", "ip address add 192.168.10.11/24 dev br0")(t, p)
	check(t, p.Host.WaitUp(t.Context(), "br0"))
	p.startBoth(t)
	check(t, status(p.monitor(2), ocf.Success))
	p.by(t, "ip link set eth0 down")
	checkReason(t, p.monitor(2), ocf.ErrGeneric, "br0 has a carrier, but none of its ports that lead to the network", "uplink0")
	check(t, status(p.stop(2), ocf.Success))
	checkReason(t, p.start(2), ocf.ErrGeneric, "uplink0")
	p.Parameters = p.Parameters.With("check_link", "false")
	check(t, status(p.start(2), ocf.Success))
	check(t, status(p.monitor(2), ocf.Success))
	p.Parameters = p.Parameters.With("check_link", "true")
	p.by(t, "ip link set eth0 up")
	for _, nic := range []string{lan.NIC, "uplink0", "br0"} {
		check(t, p.Host.WaitUp(t.Context(), nic))
	}
	check(t, status(p.monitor(2), ocf.Success))
}

// TestARPAnsweredByOneOfTwoInterfaces: start logs why clients will get no answers, where a route through the other interface leads to them.
func TestARPAnsweredByOneOfTwoInterfaces(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("nic", lan.NIC))
	const warning = "arp_filter is set on eth0, and eth9 is in the network of the address too"
	check(t, p.Host.Sysctl("net/ipv4/conf/all/arp_filter", "1"))
	for _, second := range []bool{false, true} {
		if second {
			commands(
				"ip link add eth9 type veth peer name peer9",
				"ip link set eth9 up",
				"ip link set peer9 up",
				"ip address add 192.168.10.21/24 dev eth9",
			)(t, p)
		}
		r := p.start(2)
		if err := status(r, ocf.Success); err != nil || strings.Contains(r.Stderr, warning) != second {
			t.Errorf("a second interface: %t: %v\n%s", second, err, r.Stderr)
		}
		check(t, status(p.stop(2), ocf.Success))
	}
}

// TestOwnBridgeThatSnoops: start warns of it once, when it installs the address.
func TestOwnBridgeThatSnoops(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("nic", "br0"))
	bridged(t, p)
	check(t, p.Host.WaitUp(t.Context(), "br0"))
	p.by(t, "ip link set br0 type bridge mcast_snooping 1")
	const warning = "ip link set br0 type bridge mcast_router 2"
	checkReason(t, p.start(2), ocf.Success, "br0 is a bridge with IGMP snooping", warning)
	for name, r := range map[string]lan.Result{"a further bucket": p.start(5), "monitor": p.monitor(2)} {
		if err := status(r, ocf.Success); err != nil || strings.Contains(r.Stderr, warning) {
			t.Errorf("%s: %v\n%s", name, err, r.Stderr)
		}
	}
	check(t, status(p.stop(2), ocf.Success))
	check(t, status(p.stop(5), ocf.Success))
	p.by(t, warning)
	r := p.start(2)
	if err := status(r, ocf.Success); err != nil || strings.Contains(r.Stderr, "IGMP snooping") {
		t.Errorf("%v\n%s", err, r.Stderr)
	}
}

// TestStopWithReadOnlyParameters: in a container the kernel's parameters may be read-only, and stop needs none changed.
func TestStopWithReadOnlyParameters(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("cidr_netmask", "24"))
	for _, value := range []string{"0", "1"} {
		for _, scope := range []string{"all", "eth0"} {
			check(t, p.Host.Sysctl("net/ipv4/conf/"+scope+"/promote_secondaries", value))
		}
		check(t, status(p.start(2), ocf.Success))
		p.by(t, "ip address flush dev eth0 scope global")
		sharedOfNetwork(t, p)
		p.by(t, "ip address add 192.168.10.11/24 dev eth0") // hangs on ours
		check(t, p.Host.Mount("/proc/sys", "/proc/sys"))
		p.by(t, "mount -o remount,bind,ro /proc/sys")
		check(t, status(p.stop(2), ocf.Success))
		if seen := p.by(t, "ip -4 -o address show dev eth0"); !strings.Contains(seen, "192.168.10.11/24") ||
			strings.Contains(seen, shared.String()+"/") {
			t.Errorf("promote_secondaries=%s: after stop:\n%s", value, seen)
		}
		check(t, p.Host.Unmount("/proc/sys"))
	}
}
