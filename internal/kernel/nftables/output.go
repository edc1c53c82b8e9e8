package nftables

import (
	"net"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// arpOut is NF_ARP_OUT (include/uapi/linux/netfilter_arp.h): ARP has hook numbers of its own.
const arpOut nft.ChainHook = 1

// arpRequest is ARPOP_REQUEST (RFC 826).
const arpRequest = 1

// Options of neighbour discovery (RFC 4861 section 4.6).
const (
	ndSourceMAC    = 1
	ndTargetMAC    = 2
	ndOptionLength = 1 // in units of 8 bytes
)

func arpBase() *base { return filterBase(new(arpOut), 0) }

// arpChain writes the shared MAC into the node's ARP packets about the addresses, requests as well as replies: a request with the
// interface's own MAC would change the clients' entries. The Ethernet source stays the interface's own, so that no switch learns the shared
// MAC.
func arpChain(layout clusterip.Layout) chain {
	output := chain{name: chainOutput, base: arpBase()}
	for _, address := range ipv4.addresses(layout) {
		fromAddress := arpSenderIP.is(address.AsSlice()...)
		elsewhere := notInterface(expr.MetaKeyOIF, layout.NICIndex)
		// The ARP monitor of a bond sends requests by the ports (bond_arp_send). They contain the shared MAC as on the bond itself, or
		// arp_validate would not recognise the answers.
		for _, port := range layout.Ports {
			elsewhere = append(elsewhere, notInterface(expr.MetaKeyOIF, port)...)
		}
		// Linux asks for the next hop of a packet with the packet's source address, by whatever interface it leaves (arp_solicit).
		if layout.HidesInRequests() {
			output.rules = append(output.rules, newRule("ARP requests on other interfaces name no sender",
				fromAddress, elsewhere, arpOperation.is(0, arpRequest), arpSenderIP.set(net.IPv4zero.To4()...)))
		}
		output.rules = append(output.rules,
			// Linux answers ARP for any of its addresses on any interface, with the MAC of that interface.
			newRule("no ARP for the address on other interfaces", fromAddress, elsewhere, verdict(expr.VerdictDrop)),
			newRule("ARP contains the shared MAC", fromAddress, arpSenderMAC.set(layout.MACs.IPv4[:]...)))
	}
	return output
}

// NeighbourChain does the same for IPv6: in advertisements of an address and in solicitations that come from it. A message without a
// link-layer address passes unchanged.
func neighbourChain(layout clusterip.Layout) chain {
	output := chain{name: chainOutput, base: filterBase(nft.ChainHookOutput, 0)}
	for _, address := range ipv6.addresses(layout) {
		for _, message := range []struct {
			name   string
			kind   byte
			option byte
			about  field
		}{
			{"advertisements", ndAdvertisement, ndTargetMAC, ndTarget},
			{"solicitations", ndSolicitation, ndSourceMAC, ipv6Source},
		} {
			about := newRule("", ipProtocolIs(unix.IPPROTO_ICMPV6), icmpType.is(message.kind), message.about.is(address.AsSlice()...)).exprs
			output.rules = append(output.rules,
				newRule("no neighbour "+message.name+" on other interfaces",
					about, notInterface(expr.MetaKeyOIF, layout.NICIndex), verdict(expr.VerdictDrop)),
				newRule("neighbour "+message.name+" contain the shared MAC",
					about, ndOption.is(message.option, ndOptionLength), ndOptionMAC.set(layout.MACs.IPv6[:]...)))
		}
	}
	return output
}
