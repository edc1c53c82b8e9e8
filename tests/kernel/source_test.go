//go:build system

package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// sharedOnNIC is the address as it is on the interface.
var sharedOnNIC = shared.String() + "/32"

// sharedRoute is the connected route that comes with it in the LAN.
var sharedRoute = fmt.Sprintf("192.168.10.0/24 dev eth0 proto 203 scope link metric %d", clusterip.RouteMetric(shared))

// sharedOfNetwork replaces both by the address with the prefix of the network.
var sharedOfNetwork = commands(
	"ip address add 192.168.10.3/24 dev eth0", "ip address delete "+sharedOnNIC+" dev eth0", "ip route delete "+sharedRoute)

// sourceTo is what the kernel chooses as the source of the host's own connections; "none" if it finds nothing.
func sourceTo(t *testing.T, h *lan.Host, target netip.Addr) string {
	t.Helper()
	source := "none"
	check(t, h.Do(func() error {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, lan.EchoPort)))
		if err != nil {
			return nil //nolint:nilerr // no route, or no address
		}
		source = conn.LocalAddr().(*net.UDPAddr).IP.String()
		return conn.Close()
	}))
	return source
}

// TestTheAddressNeverBecomesASource: the answers to what comes from the shared address go to the owners of their buckets, so that the
// node's own connections would fail. Whatever happens to the node's own address, the kernel never chooses the shared one for them,
// monitor succeeds, and clients are answered all the time.
func TestTheAddressNeverBecomesASource(t *testing.T) {
	const own, lost = "192.168.10.11", "ip address delete 192.168.10.11/24 dev eth0"
	for _, row := range []struct {
		name          string
		before, after []string // commands on node1
		source        string   // of node1's connections then
		inGuest       bool
	}{
		{"the own address goes and comes back", nil, []string{lost, ownAddress}, own, true},
		{"the shared one was first", []string{lost, clientRoute}, []string{farRoute, ownAddress}, own, false},
		{"another own address is left", nil, []string{"ip address add 192.168.10.21/16 dev eth0", lost}, "192.168.10.21", false},
		{
			"the own one has another prefix",
			[]string{lost, clientRoute},
			[]string{farRoute, "ip address add 192.168.10.11/16 dev eth0"},
			own,
			false,
		},
		{"the only own address is on another interface", nil, []string{
			"ip link add eth5 type veth peer name peer5", "ip link set eth5 up", "ip address add 10.5.0.11/24 dev eth5", lost,
		}, "10.5.0.11", false},
		{"nothing own is left", nil, []string{lost}, "none", false},
		{"the interface was switched off", nil, []string{"ip link set eth0 down", "ip link set eth0 up", clientRoute, farRoute}, own, true},
	} {
		for _, promote := range []string{"0", "1"} {
			t.Run(row.name+", promote_secondaries="+promote, func(t *testing.T) {
				t.Parallel()
				if row.inGuest {
					inGuest(t, "data-path")
				}
				s := newSite(t, lan.Options{Nodes: 2}, 8, webIP("cidr_netmask", "24"))
				node := &testNode{agent: s.agents[0]}
				for _, h := range []*lan.Host{s.Client, s.Nodes[0]} {
					for _, scope := range []string{"all", "eth0"} {
						check(t, h.Sysctl("net/ipv4/conf/"+scope+"/promote_secondaries", promote))
					}
				}
				check(t, s.AddRouter(t.Context(), 1500))
				check(t, s.Client.Serve(lan.EchoPort))
				check(t, s.Far.Serve(lan.EchoPort))
				commands(row.before...)(t, node)
				check(t, s.startAll(0, 0, 0, 0, 1, 1, 1, 1))
				for _, command := range row.after {
					node.by(t, command)
					if strings.Contains(command, " address ") {
						everyFlow(t, s)
					}
				}
				check(t, s.Nodes[0].WaitUp(t.Context(), lan.NIC))
				check(t, s.monitorAll())
				targets := append(s.Sources(16), s.Client.Addr, s.Far.Addr)
				for _, target := range targets {
					if source := sourceTo(t, s.Nodes[0], target); source != row.source && (row.source != "none" || source != "0.0.0.0") {
						t.Errorf("connections to %s come from %s, want %s", target, source, row.source)
					}
					if row.source != own {
						continue // the client has no route back
					}
					ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
					conn, err := s.Nodes[0].Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(target, lan.EchoPort))
					cancel()
					if err != nil {
						t.Errorf("node1's own connection: %v", err)
						continue
					}
					check(t, conn.Close())
				}
				everyFlow(t, s)
				check(t, s.stopAll())
			})
		}
	}
}

// TestTheConnectedRoute of an interface without an address of the node's own: its absence is a fault, and start repairs it.
func TestTheConnectedRoute(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("cidr_netmask", "24"))
	for _, row := range []struct {
		name   string
		before []string
		code   ocf.ExitCode
		want   string
	}{
		{"beside that of the node's own address", nil, ocf.Success, ""},
		{
			"alone",
			[]string{"ip address delete 192.168.10.11/24 dev eth0"},
			ocf.ErrGeneric,
			"the connected route to 192.168.10.0/24 is missing on eth0",
		},
	} {
		commands(row.before...)(t, p)
		p.startBoth(t)
		p.by(t, "ip route delete "+sharedRoute)
		checkReason(t, p.monitor(2), row.code, row.want)
		check(t, status(p.start(2), ocf.Success))
		check(t, status(p.monitor(2), ocf.Success))
		if routes := p.by(t, "ip route show"); !strings.Contains(routes, sharedRoute) {
			t.Errorf("%s: start has not installed it again:\n%s", row.name, routes)
		}
	}
	commands(ownAddress, clientRoute)(t, p)
	p.checkNothingIsLeft(t)
}

// TestTheConnectedRouteBesideAWiderNetwork: clients are reached by the wider one, too, so it is no fault that the narrower one has gone
// with the interface that was switched off.
func TestTheConnectedRouteBesideAWiderNetwork(t *testing.T) {
	t.Parallel()
	s := newSite(t, lan.Options{Nodes: 1}, 8, webIP("cidr_netmask", "24"))
	p := &testNode{agent: s.agents[0]}
	commands("ip address delete 192.168.10.11/24 dev eth0", "ip address add 192.168.10.11/16 dev eth0")(t, p)
	check(t, s.startAll(0, 0, 0, 0, 0, 0, 0, 0))
	commands("ip link set eth0 down", "ip link set eth0 up", clientRoute)(t, p)
	check(t, p.Host.WaitUp(t.Context(), lan.NIC))
	if routes := p.by(t, "ip route show"); strings.Contains(routes, sharedRoute) {
		t.Fatalf("the route is still there:\n%s", routes)
	}
	check(t, s.monitorAll())
	everyFlow(t, s)
}

// TestTheConnectedRouteMoves with the address to another interface in the same network, while a bucket runs. The kernel has only one of its
// metric.
func TestTheConnectedRouteMoves(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("own address there: %t", own), func(t *testing.T) {
			p := newTestNode(t, webIP("cidr_netmask", "24"))
			p.startBoth(t)
			bridged(t, p)
			check(t, p.Host.WaitUp(t.Context(), ownBridge))
			if !own {
				p.by(t, "ip address delete 192.168.10.11/24 dev br0")
			}
			p.Parameters = p.Parameters.With("nic", ownBridge)
			check(t, status(p.start(2), ocf.Success))
			check(t, status(p.monitor(5), ocf.Success))
			if routes, want := p.by(t, "ip route show"), strings.ReplaceAll(sharedRoute, lan.NIC, ownBridge); !strings.Contains(routes, want) {
				t.Errorf("%q is not among the routes:\n%s", want, routes)
			}
		})
	}
}

// TestRouteLocalnetMakesItASource: that is why doctor warns of it. Connected routes of the node's own addresses name their source.
func TestRouteLocalnetMakesItASource(t *testing.T) {
	t.Parallel()
	n := newLAN(t, lan.Options{Nodes: 1})
	node, inNetwork, byRoute := n.Nodes[0], n.Client.Addr, n.Sources(1)[0]
	a := newAgent(t, node, 1, webIP("arp_count", "0"))
	check(t, status(a.start(0), ocf.Success))
	for value, want := range map[string]string{"0": node.Addr.String(), "1": shared.String()} {
		check(t, node.Sysctl("net/ipv4/conf/all/route_localnet", value))
		for _, change := range []string{"add", "delete"} { // or the kernel keeps to what it has found before
			a.by(t, "ip address "+change+" 192.0.2.1/32 dev lo")
		}
		if source := sourceTo(t, node, byRoute); source != want {
			t.Errorf("route_localnet=%s: connections to %s come from %s, want %s", value, byRoute, source, want)
		}
		if source := sourceTo(t, node, inNetwork); source != node.Addr.String() {
			t.Errorf("route_localnet=%s: connections to %s come from %s", value, inNetwork, source)
		}
	}
}

// addressByName is the kernel's answer to programs that ask for the address of an interface by its name (SIOCGIFADDR).
func addressByName(t *testing.T, h *lan.Host, nic string) string {
	t.Helper()
	request, err := unix.NewIfreq(nic)
	check(t, err)
	check(t, h.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCGIFADDR, uintptr(unsafe.Pointer(request))); errno != 0 {
			return errno
		}
		return nil
	}))
	address, err := request.Inet4Addr()
	check(t, err)
	return net.IP(address).String()
}

// TestTheInterfacesOwnAddressByItsName: the shared one comes first in the kernel's list. But it has another label than the interface's
// name, by which programs ask for its address and DHCP clients remove it.
func TestTheInterfacesOwnAddressByItsName(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP())
	p.startBoth(t)
	if got, want := addressByName(t, p.Host, lan.NIC), p.Host.Addr.String(); got != want {
		t.Errorf("the address of eth0 is %s, want %s", got, want)
	}
	p.by(t, "ip -4 address flush dev eth0 label eth0")
	commands(ownAddress, clientRoute)(t, p)
	check(t, status(p.monitor(2), ocf.Success))
	p.checkNothingIsLeft(t)
}

// TestTheNetworkOfAnotherResource is used by a resource without a prefix length, where the node has no address of its own there; and
// it stays reachable when the other one stops.
func TestTheNetworkOfAnotherResource(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("cidr_netmask", "24"))
	p.by(t, "ip address delete 192.168.10.11/24 dev eth0")
	p.startBoth(t)
	second := netip.MustParseAddr("192.168.10.4")
	other := *p.agent
	other.Parameters = webIP("ip", second.String(), "arp_count", "0")
	check(t, status(other.call("start", 0, "OCF_RESOURCE_INSTANCE=db-ip:0"), ocf.Success))
	check(t, status(p.stop(2), ocf.Success))
	check(t, status(p.stop(5), ocf.Success))
	check(t, status(other.call("monitor", 0, "OCF_RESOURCE_INSTANCE=db-ip:0"), ocf.Success))
	want := fmt.Sprintf("192.168.10.0/24 dev eth0 proto 203 scope link metric %d", clusterip.RouteMetric(second))
	if routes := p.by(t, "ip route show"); !strings.Contains(routes, want) {
		t.Errorf("%q is not among the routes:\n%s", want, routes)
	}
	check(t, status(other.call("stop", 0, "OCF_RESOURCE_INSTANCE=db-ip:0"), ocf.Success))
	commands(ownAddress, clientRoute)(t, p)
	p.checkNothingIsLeft(t)
}

// TestTwoResourcesInOneNetwork do not remove each other's connected route.
func TestTwoResourcesInOneNetwork(t *testing.T) {
	t.Parallel()
	p := newTestNode(t, webIP("cidr_netmask", "24"))
	p.by(t, "ip address delete 192.168.10.11/24 dev eth0")
	other := *p.agent
	other.Parameters = webIP("cidr_netmask", "24", "ip", "192.168.10.4", "arp_count", "0")
	p.startBoth(t)
	r := other.call("start", 0, "OCF_RESOURCE_INSTANCE=db-ip:0")
	check(t, status(r, ocf.Success))
	check(t, status(p.stop(2), ocf.Success))
	check(t, status(p.stop(5), ocf.Success))
	check(t, status(other.call("monitor", 0, "OCF_RESOURCE_INSTANCE=db-ip:0"), ocf.Success))
	check(t, status(other.call("stop", 0, "OCF_RESOURCE_INSTANCE=db-ip:0"), ocf.Success))
	commands(ownAddress, clientRoute)(t, p)
	p.checkNothingIsLeft(t)
}
