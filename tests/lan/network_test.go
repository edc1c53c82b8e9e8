//go:build system

package lan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestTwoNetworksSideBySide(t *testing.T) {
	one, two := Start(t, Options{}), Start(t, Options{})
	share(t, one.Nodes[0])
	share(t, two.Nodes[1])
	for node, n := range []*Network{one, two} {
		serve(t, n)
		r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(8)})
		if err := r.ExactlyOnce(always(node)); err != nil {
			t.Errorf("network %d: %v", node+1, err)
		}
	}
}

func TestNothingLeft(t *testing.T) {
	n, err := New(t.Context(), Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if names := namespaces(t, n.prefix); len(names) != 3 { // switch, node1, client
		t.Errorf("namespaces of a network with one node: %q", names)
	}
	serve(t, n)
	if err := n.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if names := namespaces(t, n.prefix); len(names) != 0 {
		t.Errorf("left after Close: %q", names)
	}
	if err := n.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func TestSweepRemovesWhatDeadProcessesLeft(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	stale := fmt.Sprintf("cip%d-1-node1", dead.Process.Pid)
	mine := fmt.Sprintf("cip%d-0-node1", os.Getpid())
	foreign := fmt.Sprintf("cip%d", dead.Process.Pid) // not a name of ours
	for _, name := range []string{stale, mine, foreign} {
		ns, err := newNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := ns.close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, name := range []string{stale, mine, foreign} {
		left = append(left, namespaces(t, name)...)
	}
	if diff := cmp.Diff([]string{mine, foreign}, left); diff != "" {
		t.Errorf("left after the sweep (-want +got):\n%s", diff)
	}
}

func TestUnplug(t *testing.T) {
	n := Start(t, Options{Nodes: 2})
	traffic := Traffic{Target: n.Nodes[1].Addr, Sources: n.Sources(4), Protos: []Proto{ICMP}}
	probe := func() error { return probe(t, n, traffic).ExactlyOnce(always(1)) }
	if err := probe(); err != nil {
		t.Fatalf("plugged in: %v", err)
	}
	if err := n.UnplugNode(1, NIC); err != nil {
		t.Fatal(err)
	}
	if link, err := n.Nodes[1].Handle().LinkByName(NIC); err != nil || link.Attrs().OperState == netlink.OperUp {
		t.Errorf("the unplugged node sees its link up (%v)", err)
	}
	if err := probe(); err == nil {
		t.Error("an unplugged node answers")
	}
	if err := n.PlugNode(t.Context(), 1, NIC); err != nil {
		t.Fatal(err)
	}
	if err := probe(); err != nil {
		t.Errorf("plugged in again: %v", err)
	}
}

func TestPathMTU(t *testing.T) {
	const mtu = 1300
	n := Start(t, Options{Nodes: 1})
	serve(t, n)
	if err := n.AddRouter(t.Context(), mtu); err != nil {
		t.Fatal(err)
	}
	tooBig, err := n.Nodes[0].Capture(NIC, func(f Frame) bool {
		h, b, ok := f.IPv4()
		return ok && h.Protocol == 1 && len(b) > 8 && b[0] == 3 && b[1] == 4 && int(b[6])<<8|int(b[7]) == mtu
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := echo(t, n.Far, n.Nodes[0], 100_000); got != "node1" {
		t.Errorf("answered by %q", got)
	}
	if frames, err := tooBig.Stop(); err != nil || len(frames) == 0 {
		t.Errorf("the router sent no \"fragmentation needed\" (%v)", err)
	}
}

func TestBridgeFDB(t *testing.T) {
	n := Start(t, Options{})
	probe(t, n, Traffic{Target: n.Nodes[0].Addr, Sources: n.Sources(1), Protos: []Proto{ICMP}})
	entries, err := n.BridgeFDB()
	if err != nil {
		t.Fatal(err)
	}
	learned := map[string]string{}
	for _, e := range entries {
		if e.Learned {
			learned[e.MAC.String()] = e.Port
		}
	}
	want := map[string]string{n.Client.MAC.String(): "client", n.Nodes[0].MAC.String(): "node1"}
	for mac, port := range want {
		if learned[mac] != port {
			t.Errorf("the switch learned %s at %q, want %s; all it learned: %v", mac, learned[mac], port, learned)
		}
	}
}

// All network namespaces share one table of neighbours, with room for 1024 by default: beside other networks, a node would lose answers to
// clients that have none.
func TestManyNeighbours(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	traffic := Traffic{Target: n.Nodes[0].Addr, Sources: n.Sources(1500), Protos: []Proto{ICMP}, Timeout: testTimeout}
	if err := probe(t, n, traffic).ExactlyOnce(always(0)); err != nil {
		t.Error(err)
	}
}

// A Linux bridge that snoops and has a querier keeps every frame of a multicast shared MAC to itself.
func TestSnoopingSwitchWithQuerier(t *testing.T) {
	n := Start(t, Options{Nodes: 1, Snooping: true, Querier: true})
	cluster(t, n)
	traffic := Traffic{Target: shared, Sources: n.Sources(4), Protos: []Proto{ICMP}, Timeout: 100 * time.Millisecond}
	for end := time.Now().Add(testTimeout); ; {
		if r := probe(t, n, traffic); r.Lost() == 4 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("still answered: %v", r.Answered())
		}
	}
	check(t, n.Client.SetNeighbour(shared, net.HardwareAddr{2, 2, 3, 4, 5, 6}))
	nft(t, n.Nodes[0], "add rule netdev stand_in in ether daddr 02:02:03:04:05:06 meta pkttype set host")
	if err := probe(t, n, traffic).ExactlyOnce(always(0)); err != nil {
		t.Errorf("a unicast shared MAC: %v", err)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	tests := []struct {
		name string
		o    Options
		want string
	}{
		{"too many nodes", Options{Nodes: 190}, "190 nodes"},
		{"no nodes", Options{Nodes: -1}, "-1 nodes"},
		{"a wide LAN", Options{LAN: prefix("10.0.0.0/8")}, "10.0.0.0/8"},
		{"an IPv6 LAN", Options{LAN: prefix("2001:db8::/64")}, "2001:db8::/64"},
		{"IPv6 clients", Options{Clients: prefix("2001:db8::/64")}, "2001:db8::/64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := New(t.Context(), tt.o)
			if err == nil {
				n.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not name %q", err, tt.want)
			}
		})
	}
}

func TestNewThatIsCancelledLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := New(ctx, Options{}); err == nil {
		n.Close()
		t.Fatal("built although cancelled")
	}
	if names := namespaces(t, fmt.Sprintf("cip%d-%d-", os.Getpid(), networks.Load())); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
}

// testTimeout bounds each wait of a test; none is expected to come near.
const testTimeout = 20 * time.Second

func TestPowerOffTakesANodesKernelAway(t *testing.T) {
	n := Start(t, Options{Nodes: 2, Management: netip.MustParsePrefix("192.168.20.0/24")})
	node := n.Nodes[1]
	// reach succeeds when a host refuses the connection: nothing serves that port.
	reach := func(to netip.Addr) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := n.Nodes[0].Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(to, 9)); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("reach %s: %w", to, err)
		}
		return nil
	}
	before, err := node.Dump()
	check(t, err)
	check(t, node.AddAddress(NIC, netip.MustParsePrefix("192.168.10.3/24")))
	check(t, reach(n.ManagementAddr(1)))
	check(t, reach(netip.MustParseAddr("192.168.10.3")))
	check(t, reach(n.Switch.Addr))

	check(t, n.PowerOff(1))
	check(t, n.PowerOff(1)) // is off already
	if err := reach(node.Addr); err == nil {
		t.Error("a node without power answers")
	}
	if err := node.Do(func() error { return nil }); err == nil {
		t.Error("something runs on a node without power")
	}

	check(t, n.PowerOn(t.Context(), 1))
	if err := n.PowerOn(t.Context(), 1); err == nil {
		t.Error("it is switched on twice")
	}
	after, err := node.Dump()
	check(t, err)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("a new kernel has some state (-want +got)\n%s", diff)
	}
	check(t, reach(node.Addr))
	check(t, reach(n.ManagementAddr(1)))
}
