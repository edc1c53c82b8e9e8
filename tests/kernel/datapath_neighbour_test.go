//go:build system

package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/lan"
)

// ndMessage is a frame's message of neighbour discovery about the address.
type ndMessage struct {
	Kind        string
	MAC         string // announced in the message; empty if none
	EtherSource string
	To          string // IP address
	Sound       bool   // the checksum is right
}

// neighbourDiscovery decodes an advertisement of an address, or a solicitation that comes from it.
func neighbourDiscovery(f lan.Frame, about netip.Addr) (message ndMessage, ok bool) {
	d, isIP := f.Datagram()
	if !isIP || d.Protocol != unix.IPPROTO_ICMPV6 {
		return message, false
	}
	m, err := ndp.ParseMessage(d.Payload)
	if err != nil {
		return message, false
	}
	var options []ndp.Option
	message = ndMessage{EtherSource: f.Source.String(), To: d.Dst.String(), Sound: sumOf(d) == 0xffff}
	switch m := m.(type) {
	case *ndp.NeighborAdvertisement:
		message.Kind, options, ok = "advertisement", m.Options, m.TargetAddress == about
	case *ndp.NeighborSolicitation:
		message.Kind, options, ok = "solicitation", m.Options, d.Src == about
	}
	for _, o := range options {
		if a, isMAC := o.(*ndp.LinkLayerAddress); isMAC {
			message.MAC = a.Addr.String()
		}
	}
	return message, ok
}

// sumOf adds up an ICMPv6 message and its pseudo-header (RFC 4443 section 2.3): with the right checksum 0xffff.
func sumOf(d lan.Datagram) uint32 {
	pseudo := slices.Concat(
		d.Src.AsSlice(),
		d.Dst.AsSlice(),
		binary.BigEndian.AppendUint32(nil, uint32(len(d.Payload))),
		[]byte{0, 0, 0, d.Protocol},
	)
	var sum uint32
	for word := range slices.Chunk(append(append(pseudo, d.Payload...), make([]byte, len(d.Payload)%2)...), 2) {
		sum += uint32(binary.BigEndian.Uint16(word))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

// captureND captures a node's neighbour discovery about the IPv6 address where it enters the switch.
func (s *site) captureND(t *testing.T, port string) *lan.Capture {
	t.Helper()
	return capture(t, s.Switch, port, func(f lan.Frame) bool {
		_, ok := neighbourDiscovery(f, shared6)
		return ok && !f.Outgoing
	})
}

// As TestSharedMACInARP.
func TestSharedMACInNeighbourDiscovery(t *testing.T) {
	inGuest(t, "data-path")
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 2}, 2, webIP("ip", onlyIPv6, "mac_mode", string(mode), "arp_count", "2"))
			node := s.Nodes[0]
			check(t, node.Sysctl("net/ipv6/neigh/"+lan.NIC+"/mcast_solicit", "1")) // no host answers: it asks once, however slow the test is
			mac, own := s.spec.MACs.IPv6.String(), node.MAC.String()
			announced := ndMessage{"advertisement", mac, own, "ff02::1", true}
			ask := func() error {
				if err := s.Client.Run(t.Context(), lan.ToolPath, "ip", "-6", "neighbour", "flush", "dev", lan.NIC).Failure(); err != nil {
					return err
				}
				return s.Client.Discard(netip.Addr{}, shared6)
			}
			unused := lan.Nth(lan.LAN6, 0x77)
			for _, step := range []struct {
				name string
				do   func() error
				want []ndMessage
			}{
				{"the first bucket starts", func() error { return s.startOn(0, 0) }, []ndMessage{announced, announced}},
				{"another one starts", func() error { return s.startOn(0, 1) }, nil},
				{"a client asks", ask, []ndMessage{{"advertisement", mac, own, s.Client.Addr6.String(), true}}},
				{
					"the node itself asks", func() error { return node.Discard(shared6, unused) },
					[]ndMessage{{"solicitation", mac, own, "ff02::1:ff00:77", true}},
				},
				{"one of two buckets stops", func() error { return s.stop(0) }, nil},
				{"the last one stops", func() error { return s.stop(1) }, nil},
				{"a client asks when all have stopped", ask, nil},
			} {
				heard := s.captureND(t, node.Name)
				if err := step.do(); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				s.awaitDelivery(t)
				var sent []ndMessage
				for _, f := range captured(t, heard) {
					one, _ := neighbourDiscovery(f, shared6)
					sent = append(sent, one)
				}
				if diff := cmp.Diff(step.want, sent); diff != "" {
					t.Errorf("%s (-want +got):\n%s", step.name, diff)
				}
			}
		})
	}
}

// A router that asks a neighbour whether it is still there asks the shared MAC, and is answered (RFC 4861 section 7.3.3).
func TestNeighbourUnreachabilityDetectionKeepsTheEntry(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 2}, 2, webIP("ip", onlyIPv6, "mac_mode", string(mode)))
			check(t, s.startAll(0, 1))
			check(t, s.Client.Resolve(t.Context(), lan.NIC, shared6))
			asked := capture(t, s.Client, lan.NIC, func(f lan.Frame) bool {
				d, ok := f.Datagram()
				return ok && f.Outgoing && d.Dst == shared6 && d.Protocol == unix.IPPROTO_ICMPV6 && d.Payload[0] == 135 &&
					f.Destination.String() == s.spec.MACs.IPv6.String()
			})
			answered := capture(t, s.Client, lan.NIC, func(f lan.Frame) bool {
				message, ok := neighbourDiscovery(f, shared6)
				return ok && !f.Outgoing && message.Kind == "advertisement"
			})
			probing := &netlink.Neigh{
				LinkIndex: link(t, s.Client, lan.NIC).Attrs().Index, IP: shared6.AsSlice(), State: netlink.NUD_PROBE,
				HardwareAddr: s.spec.MACs.IPv6[:],
			}
			check(t, s.Client.Handle().NeighSet(probing))
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			for {
				entry, err := neighbour(s.Client, probing.LinkIndex, shared6)
				check(t, err)
				if entry.State == netlink.NUD_REACHABLE && entry.HardwareAddr.String() == s.spec.MACs.IPv6.String() {
					break
				}
				if entry.State != netlink.NUD_PROBE || ctx.Err() != nil {
					t.Fatalf("the entry is %+v", entry)
				}
				time.Sleep(time.Millisecond)
			}
			if len(captured(t, asked)) == 0 {
				t.Error("no question was seen: the test proves nothing")
			}
			// As with ARP, every node answers for itself, whatever its buckets.
			for _, node := range s.Nodes {
				if _, err := answered.Wait(ctx, func(f lan.Frame) bool { return f.Source.String() == node.MAC.String() }); err != nil {
					t.Errorf("%s: %v", node.Name, err)
				}
			}
		})
	}
}

// A node that does not have the MAC of the router to its clients asks with the shared address. The answer goes to all nodes, and each
// must take it, although the router's own address belongs to one bucket.
func TestEveryNodeLearnsItsRouter(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{}, 8, webIP("ip", onlyIPv6, "mac_mode", string(mode)))
			check(t, s.startAll(0, 1, 2, 0, 1, 2, 0, 1))
			check(t, s.Client.SetNeighbour(shared6, s.spec.MACs.IPv6[:])) // the client does not ask, so the nodes learn nothing by that
			for _, node := range s.Nodes {
				check(t, node.Run(t.Context(), lan.ToolPath, "ip", "-6", "neighbour", "flush", "all").Failure())
			}
			r := probe(t, s.Network, lan.Traffic{Target: shared6, Sources: s.Sources6(64), Protos: []lan.Proto{lan.ICMP}, Retries: 2})
			if err := r.ExactlyOnce(s.owner); err != nil {
				t.Error(err)
			}
		})
	}
}

func neighbour(h *lan.Host, link int, address netip.Addr) (netlink.Neigh, error) {
	entries, err := h.Handle().NeighList(link, unix.AF_INET6)
	i := slices.IndexFunc(entries, func(n netlink.Neigh) bool { return n.IP.Equal(address.AsSlice()) })
	if err == nil && i < 0 {
		return netlink.Neigh{}, fmt.Errorf("no neighbour %s", address)
	}
	if err != nil {
		return netlink.Neigh{}, err
	}
	return entries[i], nil
}

// The nodes' own connections come from their own addresses, although all have the shared one too.
func TestTheAddressIsNoSourceOfTheNodesOwnConnections(t *testing.T) {
	inGuest(t, "data-path")
	s := newSite(t, lan.Options{Nodes: 1}, 1, webIP("ip", dualStack))
	check(t, s.startAll(0))
	for _, tt := range []struct{ target, want netip.Addr }{
		{s.Client.Addr, s.Nodes[0].Addr},
		{s.Client.Addr6, s.Nodes[0].Addr6},
		{lan.Nth(lan.LAN6, 2), s.Nodes[0].Addr6}, // nearer to the shared address
		{s.Sources6(1)[0], s.Nodes[0].Addr6},
	} {
		routes, err := s.Nodes[0].Handle().RouteGet(tt.target.AsSlice())
		check(t, err)
		if len(routes) != 1 || !routes[0].Src.Equal(tt.want.AsSlice()) {
			t.Errorf("to %s: %v, want source %s", tt.target, routes, tt.want)
		}
	}
}

// Another host that has the address is found by monitor at check level 10.
func TestMonitorFindsAnotherHostWithTheIPv6Address(t *testing.T) {
	s := newSite(t, lan.Options{Nodes: 2}, 1, webIP("ip", dualStack))
	check(t, s.startAll(0))
	level10 := func() lan.Result { return s.agents[0].call("monitor", 0, "OCF_CHECK_LEVEL=10") }
	check(t, status(level10(), 0))
	check(t, s.Client.AddAddress(lan.NIC, netip.PrefixFrom(shared6, 64)))
	if r := level10(); r.ExitCode != 1 {
		t.Errorf("status %d: %s", r.ExitCode, r.Stderr)
	}
}
