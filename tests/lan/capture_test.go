//go:build system

package lan

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestCaptureSeesBothEndsOfAnExchange(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	h := n.Nodes[0]
	c, err := h.Capture(NIC, func(f Frame) bool { _, ok := f.ARP(); return ok })
	if err != nil {
		t.Fatal(err)
	}
	probe(t, n, Traffic{Target: h.Addr, Sources: n.Sources(1), Protos: []Proto{ICMP}})
	frames, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	type message struct {
		Op       arp.Operation
		From     netip.Addr
		To       netip.Addr
		MAC      string
		Outgoing bool
	}
	var got []message
	for _, f := range frames {
		p, _ := f.ARP()
		got = append(got, message{p.Operation, p.SenderIP, p.TargetIP, p.SenderHardwareAddr.String(), f.Outgoing})
	}
	src := n.Sources(1)[0]
	want := []message{
		{arp.OperationRequest, n.Client.Addr, h.Addr, n.Client.MAC.String(), false},
		{arp.OperationReply, h.Addr, n.Client.Addr, h.MAC.String(), true},
		{arp.OperationRequest, h.Addr, src, h.MAC.String(), true},
		{arp.OperationReply, src, h.Addr, n.Client.MAC.String(), false},
	}
	byFields := cmpopts.SortSlices(func(a, b message) bool { return a.From.Less(b.From) || a.From == b.From && a.Op < b.Op })
	if diff := cmp.Diff(want, got, byFields, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("ARP (-want +got):\n%s", diff)
	}
}

func TestCaptureGratuitousARP(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	h := n.Nodes[0]
	c, err := n.Client.Capture(NIC, nil)
	if err != nil {
		t.Fatal(err)
	}
	ann, err := arp.NewPacket(arp.OperationRequest, sharedMAC, shared, make(net.HardwareAddr, 6), shared)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := ann.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	frame := ethernet.Frame{Destination: ethernet.Broadcast, Source: h.MAC, EtherType: ethernet.EtherTypeARP, Payload: payload}
	b, err := frame.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		ifi, err := net.InterfaceByName(NIC)
		if err != nil {
			return err
		}
		conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.WriteTo(b, &packet.Addr{HardwareAddr: ethernet.Broadcast})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	f, err := c.Wait(ctx, func(f Frame) bool { _, ok := f.Gratuitous(); return ok })
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := f.ARP(); p.SenderHardwareAddr.String() != sharedMAC.String() || f.Source.String() != h.MAC.String() || f.Outgoing {
		t.Errorf("announced %s by Ethernet source %s (outgoing %v)", p.SenderHardwareAddr, f.Source, f.Outgoing)
	}
	if _, err := c.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := c.Wait(ctx, func(Frame) bool { return false }); err == nil {
		t.Error("waits for a capture that has ended")
	}
}

func TestCaptureIGMPJoin(t *testing.T) {
	for name, version := range map[string]string{"version 2": "2", "version 3": "3"} {
		t.Run(name, func(t *testing.T) {
			n := Start(t, Options{Nodes: 1}) // no querier: a query would put the report off
			h := n.Nodes[0]
			if err := h.Sysctl("net/ipv4/conf/eth0/force_igmp_version", version); err != nil {
				t.Fatal(err)
			}
			c, err := n.Switch.Capture(h.Name, nil)
			if err != nil {
				t.Fatal(err)
			}
			link, err := h.Handle().LinkByName(NIC)
			if err != nil {
				t.Fatal(err)
			}
			group := netip.MustParseAddr("239.255.1.2")
			autojoin := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(group, 32)), Flags: unix.IFA_F_MCAUTOJOIN}
			if err := h.Handle().AddrAdd(link, autojoin); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			if _, err := c.Wait(ctx, func(f Frame) bool { return !f.Outgoing && slices.Contains(f.IGMPJoins(), group) }); err != nil {
				t.Errorf("no report for %s: %v", group, err)
			}
			if _, err := c.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
