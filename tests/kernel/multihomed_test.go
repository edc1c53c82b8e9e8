//go:build system

package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/mdlayher/arp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/lan"
)

// The nodes have a second network. A client in it asks through the LAN, as through a router, and the node's way back is its interface in
// the second network: there it must find the client's MAC, and no host may learn anything of the address.
func TestClientsBehindAnotherInterface(t *testing.T) {
	office := netip.MustParsePrefix("10.1.0.0/24")
	const clients = 16
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			if mode == clusterip.Multicast {
				inGuest(t, "data-path")
			}
			s := newSite(t, lan.Options{Nodes: 2, Management: office}, 4, webIP("mac_mode", string(mode)))
			mac := net.HardwareAddr{2, 0, 0, 0, 6, 1}
			check(t, s.Connect(t.Context(), s.Client, lan.ManagementNIC, mac, netip.PrefixFrom(lan.Nth(office, 200), office.Bits())))
			for i := range clients {
				check(t, s.Client.AddAddress(lan.ManagementNIC, netip.PrefixFrom(lan.Nth(office, 100+i), office.Bits())))
			}
			// A host answers what is asked on the interface that has the address, and takes what comes by another way than its own.
			check(t, s.Client.Sysctl("net/ipv4/conf/all/rp_filter", "0"))
			check(t, s.Client.Sysctl("net/ipv4/conf/"+lan.ManagementNIC+"/rp_filter", "0"))
			for _, node := range s.Nodes {
				check(t, node.Sysctl("net/ipv4/conf/all/rp_filter", "0"))
				check(t, node.Sysctl("net/ipv4/conf/"+lan.NIC+"/rp_filter", "0"))
			}
			check(t, s.startAll(0, 1, 0, 1))
			heard := capture(t, s.Client, lan.ManagementNIC, func(f lan.Frame) bool {
				_, isARP := f.ARP()
				return isARP && !f.Outgoing
			})
			for i := range clients {
				flow := lan.Flow{Proto: lan.TCP, Src: lan.Nth(office, 100+i), Dst: shared, SrcPort: 40000, DstPort: lan.EchoPort}
				name, err := fetch(t.Context(), s.Client, flow, 1)
				if want := s.Nodes[s.owner(flow)].Name; err != nil || name != want {
					t.Fatalf("%s is answered by %q, want %s (%v)", flow.Src, name, want, err)
				}
			}
			asked := 0
			for _, f := range captured(t, heard) {
				p, _ := f.ARP()
				if p.SenderIP == shared || p.TargetIP == shared {
					t.Errorf("another interface announces the address: %+v", p)
				}
				if p.Operation == arp.OperationRequest && p.SenderIP.IsUnspecified() {
					asked++
					if p.SenderHardwareAddr.String() != f.Source.String() {
						t.Errorf("asked with %s from %s", p.SenderHardwareAddr, f.Source)
					}
				}
			}
			if asked == 0 {
				t.Error("no question from 0.0.0.0 was seen: the test proves nothing")
			}
			neighbours, err := s.Client.Handle().NeighList(link(t, s.Client, lan.ManagementNIC).Attrs().Index, 0)
			check(t, err)
			for _, n := range neighbours {
				if ip := fmt.Sprint(n.IP); ip == shared.String() || ip == netip.IPv4Unspecified().String() {
					t.Errorf("the client has learned %v", n)
				}
			}
		})
	}
}
