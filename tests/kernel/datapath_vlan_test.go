//go:build system

package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/lan"
)

// On a trunk the interface receives the frames of all VLANs, and a host in another VLAN may have the same address. Those frames are for
// hosts behind the node. A tag of VLAN 0 has only a priority.
func TestFramesOfOtherVLANsAreLeftAlone(t *testing.T) {
	inGuest(t, "data-path")
	const count, priority = 32, 3 << 13
	conflicting := netip.MustParseAddr("192.168.10.250") // the sender of ARP messages that no other host sends
	tags := []struct {
		name      string
		etherType ethernet.EtherType
		tci       uint16
		ours      bool
	}{
		{name: "untagged", ours: true},
		{"priority", unix.ETH_P_8021Q, priority, true},
		{"VLAN 20", unix.ETH_P_8021Q, priority | 20, false},
		{"VLAN 4095", unix.ETH_P_8021Q, 4095, false},
		{"service VLAN 256", unix.ETH_P_8021AD, 256, false},
		{"service priority", unix.ETH_P_8021AD, priority, true},
	}
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 1}, 4, webIP("ip", dualStack, "mac_mode", string(mode)))
			check(t, s.startOn(0, 0))
			node := s.Nodes[0]
			for _, tag := range tags {
				// Behind ours: what is left of them, and what is taken for the host's own.
				nft(t, node, fmt.Sprintf(`table netdev behind {
					chain c { type filter hook ingress device %[1]s priority 100;
						ether saddr %[2]s jump {
							ip daddr %[3]s counter comment "IPv4"
							ip6 daddr %[4]s counter comment "IPv6"
							arp saddr ip %[5]s meta pkttype host counter comment "ARP"
						}
					}
				}`, lan.NIC, s.Client.MAC, shared, shared6, conflicting))
				var frames []ethernet.Frame
				owned := map[string]int{"ARP": 1}
				send := func(family string, mac clusterip.MAC, inner ethernet.EtherType, flow lan.Flow, packet []byte) {
					f := ethernet.Frame{Destination: mac[:], Source: s.Client.MAC, EtherType: inner, Payload: packet}
					if tag.etherType != 0 {
						f.EtherType, f.Payload = tag.etherType, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tag.tci), uint16(inner))
						f.Payload = append(f.Payload, packet...)
					}
					frames = append(frames, f)
					if flow.Proto != "" && s.bucket(flow) == 0 {
						owned[family]++
					}
				}
				for i := range count {
					udp := []byte{0x9c, byte(i), 0x27, 0x0f, 0, 8, 0, 0} // ports 39936+i and 9999, a length, no checksum
					for family, source := range map[string]netip.Addr{"IPv4": s.Sources(count)[i], "IPv6": s.Sources6(count)[i]} {
						flow := lan.Flow{Proto: lan.UDP, Src: source, Dst: shared, SrcPort: 39936 + uint16(i), DstPort: 9999}
						if family == "IPv6" {
							flow.Dst = shared6
							send(family, s.spec.MACs.IPv6, ethernet.EtherTypeIPv6, flow, packet6(source, shared6, unix.IPPROTO_UDP, nil, udp))
							continue
						}
						send(family, s.spec.MACs.IPv4, ethernet.EtherTypeIPv4, flow,
							packetOf(ipv4.Header{Protocol: unix.IPPROTO_UDP, TTL: 64, Src: source.AsSlice(), Dst: shared.AsSlice()}, udp))
					}
				}
				reply := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, s.Client.MAC, conflicting.AsSlice(), s.spec.MACs.IPv4[:], shared.AsSlice())
				send("ARP", s.spec.MACs.IPv4, ethernet.EtherTypeARP, lan.Flow{}, reply)
				check(t, sendFrames(s.Client, frames...))
				s.awaitDelivery(t)

				listed := node.Run(t.Context(), lan.ToolPath, "nft", "list", "table", "netdev", "behind").Stdout
				for family, ours := range owned {
					want := ours
					if !tag.ours {
						want = map[string]int{"IPv4": count, "IPv6": count, "ARP": 0}[family]
					}
					found := regexp.MustCompile(`packets (\d+) .*comment "` + family + `"`).FindStringSubmatch(listed)
					if found == nil {
						t.Fatalf("no counter of %s:\n%s", family, listed)
					}
					if got, err := strconv.Atoi(found[1]); err != nil || got != want {
						t.Errorf("%s, %s: %d of %d frames are left, want %d (%v)", tag.name, family, got, count, want, err)
					}
				}
				nft(t, node, "delete table netdev behind")
			}
		})
	}
}
