package nftables

import (
	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// rawPriority is that of iptables' raw table: before conntrack.
const rawPriority = -300

// translatedPriority is behind that at which the kernel translates destinations, whatever the priority of a chain of type nat
// (NF_IP_PRI_NAT_DST).
const translatedPriority = -90

// overheardChain keeps the node's other interfaces from answering. One in the same LAN that receives frames for the shared MAC, because it
// is promiscuous or a macvlan, receives frames for a group, and Linux accepts a unicast IP packet in such a frame for any of its addresses.
// The hook is input, not prerouting: an interface may be a bridge whose guests are clients or nodes, and a bridge that calls iptables runs
// prerouting for frames that it only forwards. Input is early enough, because the kernel forwards no frame that is not the node's own.
func overheardChain(f family, layout clusterip.Layout) chain {
	overheard := chain{name: chainOverheard, base: filterBase(nft.ChainHookInput, rawPriority)}
	for _, address := range f.addresses(layout) {
		overheard.rules = append(overheard.rules, newRule("packets received through other interfaces",
			notInterface(expr.MetaKeyIIF, layout.NICIndex), f.to(address),
			meta(expr.MetaKeyPKTTYPE, expr.CmpOpNeq, unix.PACKET_HOST), verdict(expr.VerdictDrop)))
	}
	return overheard
}

// translatedChains make an ICMP error the node's own again when DNAT has changed its destination. It belongs to a connection of something
// behind this node, and the kernel forwards no packet that is marked as multicast (ip_forward, ip6_forward).
func translatedChains(f family, layout clusterip.Layout) []chain {
	var notOurs []expr.Any
	for _, address := range f.addresses(layout) {
		notOurs = append(notOurs, f.destination.isNot(address.AsSlice()...)...)
	}
	translated := chain{name: chainTranslated, base: filterBase(nft.ChainHookPrerouting, translatedPriority), rules: []rule{
		newRule("ICMP to what is behind the address", packetTypeIs(unix.PACKET_MULTICAST), isInterface(expr.MetaKeyIIF, layout.NICIndex),
			ipProtocolIs(f.icmp), notOurs, toMAC(of(f, layout.MACs)), goTo(chainForwarded)),
	}}
	forwarded := chain{name: chainForwarded}
	for _, kind := range f.errors {
		forwarded.rules = append(forwarded.rules,
			newRule(kind.name+": may be forwarded", icmpType.is(kind.number), setPacketType(unix.PACKET_HOST)))
	}
	return []chain{translated, forwarded}
}
