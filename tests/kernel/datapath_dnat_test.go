//go:build system

package kernel

import (
	"fmt"
	"net/netip"
	"testing"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// The service is not on the node but behind it, as a published container is, and the client's link is narrow. The ICMP
// error about the link comes to the address, on every node: the one that has the connection must forward it.
func TestPathMTUDiscoveryToAServiceBehindDNAT(t *testing.T) {
	const mtu, size, serving, behind = 1300, 400_000, 0, 1
	for _, target := range []netip.Addr{shared, shared6} {
		eachMode(t, func(t *testing.T, p harness.Parameters) {
			s := newSite(t, lan.Options{Nodes: 3}, 8, p.With("ip", dualStack))
			check(t, s.AddRouter(t.Context(), mtu))
			check(t, s.Router.Handle().LinkSetGSOMaxSegs(link(t, s.Router, "eth1"), 1))
			check(t, s.startAll(serving, serving, serving, serving, serving, serving, serving, 2))
			node := s.Nodes[serving]
			forward(t, node)
			family, server := "ip", s.Nodes[behind].Addr
			if target.Is6() {
				family, server = "ip6", s.Nodes[behind].Addr6
			}
			nft(t, node, fmt.Sprintf(`table %[1]s published {
				chain in { type nat hook prerouting priority dstnat; %[1]s daddr %[2]s tcp dport %[3]d dnat to %[4]s; }
				chain out { type nat hook postrouting priority srcnat; %[1]s daddr %[4]s masquerade; }
			}
			table inet quiet { # the service is on the same LAN, for once
				chain redirects { type filter hook output priority 0; icmp type redirect drop; icmpv6 type nd-redirect drop; }
			}`, family, target, lan.EchoPort, server))
			download := lan.Flow{Proto: lan.TCP, Src: s.Far.Addr, Dst: target, SrcPort: 40000, DstPort: lan.EchoPort}
			if target.Is6() {
				download.Src = s.Far.Addr6
			}
			for s.owner(download) != serving {
				download.SrcPort++
			}
			tooBig := capture(t, s.Nodes[behind], lan.NIC, func(f lan.Frame) bool { return !f.Outgoing && nextHopMTU(f) == mtu })
			name, err := fetch(t.Context(), s.Far, download, size)
			if err != nil || name != s.Nodes[behind].Name {
				t.Errorf("download from %q: %v", name, err)
			}
			if len(captured(t, tooBig)) == 0 {
				t.Error("the service behind the node got no ICMP error about the narrow link")
			}
		})
	}
}
