//go:build system

package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// arpMessage is the ARP message of a frame, with its Ethernet addresses.
type arpMessage struct {
	Op           arp.Operation
	SenderMAC    string
	Sender       string
	Target       string
	EtherSource  string
	EtherToOwner bool // not to all
}

// arpMessages decodes ARP frames.
func arpMessages(frames []lan.Frame) []arpMessage {
	var all []arpMessage
	for _, f := range frames {
		p, _ := f.ARP()
		all = append(all, arpMessage{
			p.Operation, p.SenderHardwareAddr.String(), p.SenderIP.String(), p.TargetIP.String(),
			f.Source.String(), f.Destination.String() != ethernet.Broadcast.String(),
		})
	}
	return all
}

// captureARP captures a node's ARP messages about an address where they enter the switch.
func (s *site) captureARP(t *testing.T, port string, about netip.Addr) *lan.Capture {
	t.Helper()
	return capture(t, s.Switch, port, func(f lan.Frame) bool {
		p, ok := f.ARP()
		return ok && !f.Outgoing && p.SenderIP == about
	})
}

// Gratuitous ARP, replies and requests contain the shared MAC in the payload only. If it were the Ethernet source too, switches would send
// everything to one node. If the interface's own MAC were in the payload, clients would.
func TestSharedMACInARP(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 2}, 2, webIP("mac_mode", string(mode), "arp_count", "2"))
			node := s.Nodes[0]
			announced := []arpMessage{
				{arp.OperationRequest, s.spec.MACs.IPv4.String(), shared.String(), shared.String(), node.MAC.String(), false},
				{arp.OperationRequest, s.spec.MACs.IPv4.String(), shared.String(), shared.String(), node.MAC.String(), false},
			}
			replied := []arpMessage{
				{arp.OperationReply, s.spec.MACs.IPv4.String(), shared.String(), s.Client.Addr.String(), node.MAC.String(), true},
			}
			unheard := s.Sources(9)[8] // whose MAC the node does not have
			asked := []arpMessage{{arp.OperationRequest, s.spec.MACs.IPv4.String(), shared.String(), unheard.String(), node.MAC.String(), false}}
			for _, step := range []struct {
				name string
				do   func() error
				want []arpMessage
			}{
				{"the first bucket starts", func() error { return s.startOn(0, 0) }, announced},
				{"another one starts", func() error { return s.startOn(0, 1) }, nil},
				{"a client asks", func() error { return askARP(s.Client, s.Client.Addr, shared) }, replied},
				{"the node itself asks", func() error { return node.Discard(shared, unheard) }, asked},
				{"one of two buckets stops", func() error { return s.stop(0) }, nil},
				{"the last one stops", func() error { return s.stop(1) }, nil},
				{"a client asks when all have stopped", func() error { return askARP(s.Client, s.Client.Addr, shared) }, nil},
			} {
				heard := s.captureARP(t, node.Name, shared)
				if err := step.do(); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				s.awaitDelivery(t)
				if diff := cmp.Diff(step.want, arpMessages(captured(t, heard))); diff != "" {
					t.Errorf("%s (-want +got):\n%s", step.name, diff)
				}
			}
		})
	}
}

func TestArpCount(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  harness.Parameters
		want int
	}{
		{"by default", webIP(), 3},
		{"none", webIP("arp_count", "0"), 0},
		{"one", webIP("arp_count", "1"), 1},
		{"seven", webIP("arp_count", "7", "arp_interval", "1"), 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 1}, 2, tt.set)
			for range 2 { // each time that the address appears
				heard := s.captureARP(t, s.Nodes[0].Name, shared)
				check(t, s.startAll(0, 0))
				check(t, s.stopAll())
				s.awaitDelivery(t)
				if frames := captured(t, heard); len(frames) != tt.want {
					t.Errorf("announced %d times, want %d: %+v", len(frames), tt.want, arpMessages(frames))
				}
			}
		})
	}
}

// A router that has another MAC for the address uses the shared one at once.
func TestAnnouncementCorrectsANeighbour(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 1}, 1, webIP("mac_mode", string(mode)))
			old := &netlink.Neigh{
				LinkIndex: link(t, s.Client, lan.NIC).Attrs().Index, IP: shared.AsSlice(), State: netlink.NUD_REACHABLE,
				HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 9, 9},
			}
			check(t, s.Client.Handle().NeighSet(old))
			check(t, s.startAll(0))
			s.awaitDelivery(t)
			neighbours, err := s.Client.Handle().NeighList(old.LinkIndex, unix.AF_INET)
			check(t, err)
			i := slices.IndexFunc(neighbours, func(n netlink.Neigh) bool { return n.IP.Equal(old.IP) })
			if i < 0 || neighbours[i].HardwareAddr.String() != s.spec.MACs.IPv4.String() {
				t.Errorf("the client's neighbours are %v, want %s at %s", neighbours, shared, s.spec.MACs.IPv4)
			}
		})
	}
}

// Linux answers ARP for any of its addresses on any interface, with that interface's MAC. Here eth1 is on the same LAN.
func TestNoARPForTheAddressOnAnotherInterface(t *testing.T) {
	s := newSite(t, lan.Options{Nodes: 1}, 1, webIP())
	second := netip.MustParseAddr("192.168.10.111")
	mac := s.addInterface(t, 0, second)
	check(t, s.startAll(0))
	heard := capture(t, s.Client, lan.NIC, func(f lan.Frame) bool {
		p, ok := f.ARP()
		return ok && !f.Outgoing && p.Operation == arp.OperationReply
	})
	check(t, askARP(s.Client, s.Client.Addr, shared))
	// The second question has reached eth1 behind the first.
	check(t, askARP(s.Client, s.Client.Addr, second))
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if _, err := heard.Wait(ctx, func(f lan.Frame) bool {
		p, _ := f.ARP()
		return p.SenderIP == second && f.Source.String() == mac.String()
	}); err != nil {
		t.Fatalf("eth1 does not send ARP at all: %v", err)
	}
	s.awaitDelivery(t)
	var about []arpMessage
	for _, message := range arpMessages(captured(t, heard)) {
		if message.Sender == shared.String() {
			about = append(about, message)
		}
	}
	want := []arpMessage{
		{arp.OperationReply, s.spec.MACs.IPv4.String(), shared.String(), s.Client.Addr.String(), s.Nodes[0].MAC.String(), true},
	}
	if diff := cmp.Diff(want, about); diff != "" {
		t.Errorf("replies for the address (-want +got):\n%s", diff)
	}
}

// addInterface connects an eth1 of a node to the same switch.
func (s *site) addInterface(t *testing.T, node int, address netip.Addr) net.HardwareAddr {
	t.Helper()
	const name = "eth1"
	h := s.Nodes[node]
	mac := net.HardwareAddr{2, 0, 0, 0, 5, byte(node + 1)}
	port := netlink.NewLinkAttrs()
	port.Name, port.MasterIndex = h.Name+"b", link(t, s.Switch, "br0").Attrs().Index
	check(t, s.Switch.Wire(port, h, name, mac))
	check(t, h.AddAddress(name, netip.PrefixFrom(address, 32)))
	check(t, s.Switch.SetUp(port.Name))
	check(t, h.SetUp(name))
	check(t, s.Switch.WaitUp(t.Context(), port.Name))
	check(t, h.WaitUp(t.Context(), name))
	return mac
}

// awaitDelivery returns when every frame that a node or the client has sent so far has arrived: an echo that was sent later has gone from
// the client to each node's own address and back.
func (s *site) awaitDelivery(t *testing.T) {
	t.Helper()
	for node, h := range s.Nodes {
		r := probe(t, s.Network, lan.Traffic{Target: h.Addr, Sources: s.Sources(1), Protos: []lan.Proto{lan.ICMP}, Settle: 1, Retries: 3})
		if err := r.ExactlyOnce(always(node)); err != nil {
			t.Fatal(err)
		}
	}
}

// askARP broadcasts the question who has an address.
func askARP(h *lan.Host, from, about netip.Addr) error {
	unset := net.HardwareAddr{0, 0, 0, 0, 0, 0}
	p, err := arp.NewPacket(arp.OperationRequest, h.MAC, from, unset, about)
	if err != nil {
		return err
	}
	b, err := p.MarshalBinary()
	if err != nil {
		return err
	}
	return sendFrames(h, ethernet.Frame{Destination: ethernet.Broadcast, Source: h.MAC, EtherType: ethernet.EtherTypeARP, Payload: b})
}

// sendFrames sends frames as they are, by eth0.
func sendFrames(h *lan.Host, frames ...ethernet.Frame) error {
	return sendFramesBy(h, lan.NIC, frames...)
}

func sendFramesBy(h *lan.Host, nic string, frames ...ethernet.Frame) error {
	return h.Do(func() error {
		ifi, err := net.InterfaceByName(nic)
		if err != nil {
			return err
		}
		conn, err := packet.Listen(ifi, packet.Raw, 0, nil) // protocol 0: only to send
		if err != nil {
			return err
		}
		defer conn.Close()
		for i, f := range frames {
			b, err := f.MarshalBinary()
			if err != nil {
				return err
			}
			if _, err := conn.WriteTo(b, &packet.Addr{HardwareAddr: f.Destination}); err != nil {
				return fmt.Errorf("send frame %d: %w", i, err)
			}
		}
		return nil
	})
}
