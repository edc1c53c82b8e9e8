//go:build system

package kernel

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ocf-clusterip/tests/lan"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A Linux bridge that snoops and has a querier keeps a unicast packet in a multicast frame to itself (see
// TestSnoopingSwitchWithQuerier). mac_mode=unicast is what works there.
func TestUnicastWorksWhereASnoopingSwitchSwallowsMulticast(t *testing.T) {
	snooping := lan.Options{Snooping: true, Querier: true}
	t.Run("multicast", func(t *testing.T) {
		s := newSite(t, snooping, 4, webIP())
		check(t, s.startAll(0, 1, 2, 0))
		awaitSilence(t, s)
	})
	t.Run("unicast", func(t *testing.T) {
		s := newSite(t, snooping, 4, webIP("mac_mode", "unicast"))
		// The switch's handling of a group shows when it has begun to snoop.
		check(t, s.Client.SetNeighbour(shared, net.HardwareAddr{1, 2, 3, 4, 5, 6}))
		check(t, s.startAll(0, 1, 2, 0))
		awaitSilence(t, s)
		check(t, s.Client.SetNeighbour(shared, s.spec.MACs.IPv4[:]))
		everyFlow(t, s)
	})
}

// awaitSilence waits until no client is answered any more.
func awaitSilence(t *testing.T, s *site) {
	t.Helper()
	traffic := lan.Traffic{Target: shared, Sources: s.Sources(8), Protos: []lan.Proto{lan.ICMP}, Timeout: 100 * time.Millisecond}
	for end := time.Now().Add(testTimeout); ; {
		r := probe(t, s.Network, traffic)
		if r.Lost() == r.Sent() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still answered: %v", r.Answered())
		}
	}
}

// In igmp mode the kernel itself joins the group, and leaves it with the last bucket.
func TestMembershipReport(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		t.Run("version "+version, func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 1}, 2, webIP("mac_mode", "igmp", "mac", "01:00:5e:7f:12:34"))
			group := netip.MustParseAddr("239.255.18.52")
			node := s.Nodes[0]
			check(t, node.Sysctl("net/ipv4/conf/eth0/force_igmp_version", version))
			before, err := node.Dump()
			check(t, err)
			heard := capture(t, s.Switch, node.Name, func(f lan.Frame) bool { return !f.Outgoing && slices.Contains(f.IGMPJoins(), group) })
			check(t, s.startAll(0, 0))
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			report, err := heard.Wait(ctx, func(lan.Frame) bool { return true })
			if err != nil {
				t.Fatalf("no report for %s: %v", group, err)
			}
			// Switches and routers ignore a report from an address that no host can have (RFC 3376, section 4.2.13).
			if h, _, _ := report.IPv4(); !h.Src.Equal(node.Addr.AsSlice()) {
				t.Errorf("the report comes from %s, want %s", h.Src, node.Addr)
			}
			check(t, s.stopAll())
			after, err := node.Dump()
			check(t, err)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the stop left something (-before +after):\n%s", diff)
			}
		})
	}
}

// The group is an address of the interface, but must never become the source of what the node's programs send.
func TestTheGroupIsNoSource(t *testing.T) {
	for _, to := range []string{"224.0.0.251", "239.1.2.3", "255.255.255.255", "192.168.10.255", "192.168.10.200"} {
		t.Run("to "+to, func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 1}, 1, webIP("mac_mode", "igmp"))
			check(t, s.startAll(0))
			node, target := s.Nodes[0], netip.MustParseAddr(to)
			heard := capture(t, node, lan.NIC, func(f lan.Frame) bool {
				h, _, ok := f.IPv4()
				return ok && f.Outgoing && h.Protocol == unix.IPPROTO_UDP && h.Dst.Equal(target.AsSlice())
			})
			check(t, broadcast(node, target))
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			sent, err := heard.Wait(ctx, func(lan.Frame) bool { return true })
			check(t, err)
			if h, _, _ := sent.IPv4(); !h.Src.Equal(node.Addr.AsSlice()) {
				t.Errorf("a datagram to %s has source %s, want %s", target, h.Src, node.Addr)
			}
		})
	}
}

// broadcast sends a datagram by eth0 as a program does that leaves its source to the kernel; also to many.
func broadcast(h *lan.Host, target netip.Addr) error {
	return h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			return err
		}
		if err := unix.BindToDevice(fd, lan.NIC); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte{0}, 0, &unix.SockaddrInet4{Port: 9, Addr: target.As4()})
	})
}
