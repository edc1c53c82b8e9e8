//go:build system

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// ownBridge is a node's own bridge, of which its eth0 is a port.
const ownBridge = "br0"

// bridgeNodes gives each node a bridge, which has the interface's MAC, addresses and routes, and on which the resource is.
// Bridges call iptables ("1"), as on a host that has a firewall for its virtual machines or containers, or do not ("0"), or only this one
// does ("alone"). It returns what the nodes are like then.
func (s *site) bridgeNodes(t *testing.T, calls string) []string {
	t.Helper()
	for _, a := range s.agents {
		a.Parameters = a.Parameters.With("nic", ownBridge)
		alone, all := "0", calls
		if calls == "alone" {
			alone, all = "1", "0"
		}
		for _, family := range []string{"iptables", "ip6tables"} {
			check(t, a.Host.Sysctl("net/bridge/bridge-nf-call-"+family, all))
		}
		for _, command := range []string{
			"ip address flush dev eth0 scope global",
			fmt.Sprintf("ip link add br0 address %s type bridge mcast_snooping 0 nf_call_iptables %[2]s nf_call_ip6tables %[2]s", a.Host.MAC, alone),
			"ip link set eth0 master br0", "bridge link set dev eth0 learning off", // so that the bridge stays as it is
			"ip link set br0 up", fmt.Sprintf("ip address add %s/24 dev br0", a.Host.Addr),
			fmt.Sprintf("ip route add %s dev br0", s.Options.Clients),
		} {
			a.by(t, command)
		}
		check(t, a.Host.WaitUp(t.Context(), ownBridge))
		if s.Options.IPv6 {
			a.by(t, fmt.Sprintf("ip address add %s/64 dev br0", a.Host.Addr6))
			check(t, a.Host.WaitIPv6(t.Context(), ownBridge))
			a.by(t, fmt.Sprintf("ip -6 route replace %s via %s dev br0", lan.Clients6, s.Client.Addr6))
		}
	}
	return s.dumps(t)
}

// On a bridge that calls iptables, prerouting sees a packet at the bridge's port, before it comes in by the bridge.
func TestMovesOnABridge(t *testing.T) {
	for name, row := range map[string]struct {
		calls      string
		parameters []string
	}{
		"IPv4, multicast":                {"1", nil},
		"IPv4, unicast":                  {"1", []string{"mac_mode", "unicast"}},
		"IPv6, igmp":                     {"1", []string{"ip", shared6.String(), "mac_mode", "igmp"}},
		"IPv4, iptables is not called":   {"0", nil},
		"IPv4, called by this one alone": {"alone", []string{"hashmode", "sourceip-sourceport"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "IPv4, multicast" || name == "IPv4, unicast" {
				inGuest(t, "interfaces")
			}
			s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 2, row.parameters...)
			clean := s.bridgeNodes(t, row.calls)
			check(t, s.startAll(0, 1))
			target := s.spec.Address()
			sessions := s.open(t, target, 30000, 16)
			s.ownedBy(t, sessions)
			for round, at := range [][]int{{1, 0}, {0, 0}} {
				for bucket, node := range at {
					check(t, s.move(bucket, node))
				}
				check(t, s.monitorAll())
				kept(t, "moved", sessions)
				fresh := s.open(t, target, uint16(30001+round), 16)
				s.ownedBy(t, fresh)
				sessions = append(sessions, fresh...)
			}
			s.endsCleanly(t, target, sessions, clean)
		})
	}
}

// A bridge that calls iptables translates what comes in by its ports on every node. start logs that once, when it installs the address.
func TestABridgeThatCallsIPTablesIsNamed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, calls string
		warns       bool
	}{{"all bridges", "1", true}, {"this one", "alone", true}, {"none", "0", false}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newUnwatchedSite(t, lan.Options{Nodes: 1}, 2, webIP())
			s.bridgeNodes(t, row.calls)
			const warning = "br0 is a bridge that calls iptables for its ports"
			r := s.agents[0].start(0)
			if row.warns {
				checkReason(t, r, ocf.Success, warning, "sysctl -w net.bridge.bridge-nf-call-iptables=0")
				r = s.agents[0].start(1)
			}
			if err := status(r, ocf.Success); err != nil || strings.Contains(r.Stderr, warning) {
				t.Errorf("%v\n%s", err, r.Stderr)
			}
		})
	}
}

// Where it does not, the owner of the bucket forwards to the service behind DNAT.
func TestDNATOnABridge(t *testing.T) {
	t.Parallel()
	s := newSite(t, lan.Options{Nodes: 2}, 8, webIP())
	s.bridgeNodes(t, "0")
	const published = 8080
	for _, node := range s.Nodes {
		nft(
			t,
			node,
			fmt.Sprintf(
				"table ip published { chain in { type nat hook prerouting priority dstnat; "+
					"ip daddr %s meta l4proto { tcp, udp } th dport %d redirect to :%d; }; }",
				shared,
				published,
				lan.EchoPort,
			),
		)
	}
	check(t, s.startAll(0, 0, 0, 0, 1, 1, 1, 1))
	report := probe(
		t,
		s.Network,
		lan.Traffic{Target: shared, Port: published, Protos: []lan.Proto{lan.UDP, lan.TCP}, Sources: s.Sources(32), Retries: retries},
	)
	check(t, report.ExactlyOnce(s.owner))
}

// guests is how many addresses a guest asks from.
const guests = 16

func (s *site) guestAddr(i int) netip.Addr { return lan.Nth(s.Options.LAN, 160+i) }

// addGuest connects a host to a node's bridge, as a virtual machine is.
func (s *site) addGuest(t *testing.T, node *lan.Host) *lan.Host {
	t.Helper()
	guest, err := s.NewHost("guest")
	check(t, err)
	guest.MAC = net.HardwareAddr{2, 0, 0, 0, 6, 1}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "vnet0", link(t, node, ownBridge).Attrs().Index
	check(t, node.Wire(attrs, guest, lan.NIC, guest.MAC))
	for i := range guests {
		check(t, guest.AddAddress(lan.NIC, netip.PrefixFrom(s.guestAddr(i), s.Options.LAN.Bits())))
	}
	check(t, node.SetUp("vnet0"))
	check(t, guest.SetUp(lan.NIC))
	check(t, node.WaitUp(t.Context(), "vnet0"))
	check(t, guest.WaitUp(t.Context(), lan.NIC))
	return guest
}

// fromGuest connects to the address from each of a guest's, and returns by whom they were answered, or that some were not.
func (s *site) fromGuest(ctx context.Context, guest *lan.Host) error {
	var faults []error
	for i := range guests {
		c := session{flow: lan.Flow{Proto: lan.TCP, Src: s.guestAddr(i), Dst: shared, SrcPort: 30000, DstPort: lan.EchoPort}}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // one second try, where no node answers
		if err := c.open(ctx, guest); err != nil {
			faults = append(faults, err)
		} else if want := s.Nodes[s.owner(c.flow)].Name; c.node != want {
			faults = append(faults, fmt.Errorf("%s was answered by %s, the owner is %s", c.flow.Src, c.node, want))
		}
		cancel()
		closeAll([]*session{&c})
	}
	return errors.Join(faults...)
}

// ownVeth gives the node's bridge a port, whose other end has the node's address.
func (a *agent) ownVeth(t *testing.T, clients netip.Prefix) {
	t.Helper()
	const veth = "veth0"
	a.Parameters = a.Parameters.With("nic", veth)
	for _, command := range []string{
		"ip link set br0 address 02:00:00:00:07:01", fmt.Sprintf("ip link add %s address %s type veth peer name port0", veth, a.Host.MAC),
		"ip link set port0 master br0", "ip link set port0 up", "ip link set veth0 up",
		"ip address flush dev br0", fmt.Sprintf("ip address add %s/24 dev veth0", a.Host.Addr), fmt.Sprintf("ip route add %s dev veth0", clients),
	} {
		a.by(t, command)
	}
	check(t, a.Host.WaitUp(t.Context(), veth))
}

// A node's own virtual machines are clients like others, except with a unicast MAC, which is the bridge's own: start warns of that. An
// interface behind a port of the bridge helps.
func TestGuestsOfANodesBridge(t *testing.T) {
	t.Parallel()
	const warning = "br0 is a bridge with several ports"
	for _, row := range []struct {
		macMode  string
		calls    string // iptables
		veth     bool
		unheard  bool
		warnings bool
	}{
		{macMode: "multicast", calls: "1"},
		{macMode: "igmp", calls: "0"},
		{macMode: "unicast", calls: "0", unheard: true, warnings: true},
		{macMode: "unicast", calls: "1", veth: true},
		{macMode: "multicast", calls: "0", veth: true},
		{macMode: "multicast", calls: "1", veth: true}, // to the veth the bridge is another interface, which lets frames through
	} {
		t.Run(fmt.Sprintf("%s, veth %t, calls %s", row.macMode, row.veth, row.calls), func(t *testing.T) {
			t.Parallel()
			s := newUnwatchedSite(t, lan.Options{Nodes: 2}, 8, webIP("mac_mode", row.macMode))
			s.bridgeNodes(t, row.calls)
			if row.veth {
				for _, a := range s.agents {
					a.ownVeth(t, s.Options.Clients)
				}
			}
			guest := s.addGuest(t, s.Nodes[0])
			r := s.agents[0].start(0)
			if err := status(r, ocf.Success); err != nil || strings.Contains(r.Stderr, warning) != row.warnings {
				t.Errorf("%v\n%s", err, r.Stderr)
			}
			check(t, s.startAll(0, 0, 0, 0, 1, 1, 1, 1))
			check(t, s.monitorAll())
			if err := s.fromGuest(t.Context(), guest); (err != nil) != row.unheard {
				t.Errorf("the guest was answered by all: %t\n%v", err == nil, err)
			}
			report := probe(t, s.Network, lan.Traffic{Target: shared, Sources: s.Sources(32), Retries: retries})
			check(t, report.ExactlyOnce(s.owner))
		})
	}
}
