package nftables

import (
	"net"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

// ingressPriority is before flowtables and the filters of other tables, which by convention have priority 0: a foreign packet is dropped
// first.
const ingressPriority = -200

func ingressBase(device string) *base {
	b := filterBase(nft.ChainHookIngress, ingressPriority)
	b.device = device
	return b
}

// ingressChains accept packets of the buckets that the node owns and drop those of others. They run before ip_rcv, which drops frames for a
// foreign unicast MAC, and before conntrack, which therefore never sees a foreign packet.
func ingressChains(layout clusterip.Layout) []chain {
	ingress := chain{name: chainIngress, base: ingressBase(layout.NIC)}
	chains := []chain{{}}
	if layout.Has(ipv4.is) {
		// With mac_mode=unicast the kernel takes the frame for another host's. Without this the node would never learn the MACs of its clients.
		ingress.rules = append(ingress.rules,
			newRule("ARP to the shared MAC", toMAC(layout.MACs.IPv4), protocolIs(unix.ETH_P_ARP), goTo(chainARP)))
		chains = append(chains, chain{name: chainARP, rules: append(otherVLANs(),
			newRule("frames for the shared MAC are for this node", setPacketType(unix.PACKET_HOST), verdict(expr.VerdictAccept)))})
	}
	for _, address := range layout.Addresses() {
		f := familyOf(address)
		ingress.rules = append(ingress.rules,
			newRule("packets to the address", protocolIs(f.etherType), f.to(address), goTo(f.chain)))
	}
	if !layout.Lingers.IsZero() {
		ingress.rules = append(ingress.rules, newRule("takeover frames", protocolIs(clusterip.TakeoverEtherType), goTo(chainTakeovers)))
		all, requests := takeoverFrames(layout)
		chains = append(chains, all, requests)
	}
	for i := range ingress.rules {
		ingress.rules[i].marked = true
	}
	chains[0] = ingress
	for _, f := range familiesOf(layout) {
		chains = append(chains, f.chains(layout)...)
	}
	return chains
}

// otherVLANs accept frames of other VLANs than the interface's own unchanged. The hook runs before the kernel gives them to the interface
// of the VLAN or to a bridge. The tag is neither in the protocol nor in the packet: the kernel inserts it only for a rule that reads behind
// the MACs (nft_payload_copy_vlan in net/netfilter/nft_payload.c). A tag with VLAN 0 is only a priority.
func otherVLANs() []rule {
	vlanID := vlanTCI.hasAny(0x0f, 0xff) //nolint:mnd // its bits
	accept := verdict(expr.VerdictAccept)
	return []rule{
		newRule("other VLANs' frames (802.1Q)", etherType.is(bigEndian(unix.ETH_P_8021Q)...), vlanID, accept),
		newRule("other VLANs' frames (802.1ad)", etherType.is(bigEndian(unix.ETH_P_8021AD)...), vlanID, accept),
	}
}

// chains are those for packets to the addresses of the family.
func (f family) chains(layout clusterip.Layout) []chain {
	mac := of(f, layout.MACs)
	first := chain{name: f.chain, rules: otherVLANs()}
	// Every node accepts ICMP errors. They come from a router, whose own address has another bucket than the client's. A node without the
	// connection ignores them. Path MTU discovery needs them (RFC 1191, RFC 8201). Neighbour discovery is to IPv6 what ARP is to IPv4: each
	// node needs the answers.
	for _, kind := range slices.Concat(f.errors, f.neighbours) {
		first.rules = append(first.rules,
			newRule(kind.name+": on every node", ipProtocolIs(f.icmp), icmpType.is(kind.number), goTo(chainErrors+f.suffix)))
	}
	// Several nodes may accept the same frame here, so it does not become the node's own: a node that forwards, and just has no address, would
	// send it to all of them again.
	errors := chain{name: chainErrors + f.suffix, rules: []rule{
		newRule("accepted, never forwarded", toMAC(mac), setPacketType(unix.PACKET_MULTICAST)),
		newRule("errors pass on every node", verdict(expr.VerdictAccept)),
	}}
	// Only frames for the shared MAC become the node's own, not others that a promiscuous interface receives.
	first.rules = append(first.rules, newRule("frames for the shared MAC are for this node", toMAC(mac), setPacketType(unix.PACKET_HOST)))
	if layout.Lingers.IsZero() {
		spread := f.spread(layout, first, false)
		return slices.Insert(spread, 1, errors)
	}
	takeover := chain{name: f.chain + chainTakeover}
	// Of what is not passed on, bucketRules look up later whether anything is taken over.
	var passed []expr.Any
	if layout.Schema >= schemaSettled {
		passed = packetTypeIs(unix.PACKET_BROADCAST)
	}
	first.rules = append(first.rules, newRule("takeovers are under way", passed, underWay(), goTo(takeover.name)))
	return slices.Concat(slices.Insert(f.spread(layout, first, false), 1, errors), f.spread(layout, takeover, true),
		[]chain{f.passOn(layout), f.passed(), f.remember(layout)})
}

// spread appends to a chain the rules that decide by the bucket, and returns it with the chains that they need. takeover: the rules are
// those that are in force while anything is taken over.
func (f family) spread(layout clusterip.Layout, first chain, takeover bool) []chain {
	suffix := f.suffix
	if takeover {
		suffix += chainTakeover
	}
	if !layout.HashMode.Ports() && len(layout.Services) == 0 {
		first.rules = append(first.rules, f.bucketRules("owned buckets", layout, nil, takeover)...)
		return []chain{first}
	}
	portless := chain{name: chainShared + suffix, rules: f.bucketRules("owned buckets", layout, nil, takeover)}
	if !layout.HashMode.Ports() {
		first.rules = append(first.rules, f.dispatch(layout, portless.name, portless.name, takeover)...)
		return []chain{first, portless}
	}
	portless.name = chainPortless + suffix
	load := []expr.Any{sourcePort.loadTo(f.ports[0]), destinationPort.loadTo(f.ports[1])}[:layout.HashMode.PortWords()]
	ports := chain{name: chainPorts + suffix, rules: f.bucketRules("owned buckets", layout, load, takeover)}
	first.rules = append(first.rules, f.dispatch(layout, ports.name, portless.name, takeover)...)
	return []chain{first, ports, portless}
}

// dispatch sends packets to the chain that hashes their ports, if they have some, or to the one that does not. What is no service it hashes
// to bucket 0.
func (f family) dispatch(layout clusterip.Layout, ports, portless string, takeover bool) []rule {
	rules := []rule{newRule("fragments hide their ports", f.isFragment(), goTo(portless))}
	if len(layout.Services) == 0 {
		for _, p := range portProtocols {
			rules = append(rules, newRule(p.title+" has ports", ipProtocolIs(p.number), goTo(ports)))
		}
		return append(rules, newRule("other protocols have no ports", goTo(portless)))
	}
	for _, p := range portProtocols {
		if slices.ContainsFunc(layout.Services, func(s services.Service) bool { return s.Protocol == p.name }) {
			rules = append(rules, newRule(p.title+" services that share load", ipProtocolIs(p.number),
				[]expr.Any{destinationPort.loadTo(register0)}, lookup(p.name+setServices), goTo(ports)))
		}
	}
	if slices.Contains(layout.Services, services.ICMP) {
		rules = append(rules, newRule("ICMP shares load", ipProtocolIs(f.icmp), goTo(portless)))
	}
	layout.Buckets = 1 // the owner of the only bucket is that of bucket 0
	return append(rules, f.bucketRules("the rest is bucket 0's", layout, nil, takeover)...)
}

// isFragment matches a fragment, the first one too.
func (f family) isFragment() []expr.Any {
	if f.etherType == ipv4.etherType {
		return fragmentOffset.hasAny(0x3f, 0xff) //nolint:mnd // and the flag for more fragments
	}
	return []expr.Any{&expr.Exthdr{
		DestRegister: register0, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6,
	}, compare(expr.CmpOpEq, 1)}
}

func foreignRule() rule { return newRule("foreign buckets", countAndDrop()) }

// bucketRules accept or drop a packet, by its bucket. With drain, they mark the packets of moving buckets (marks), about which moveChains
// decide. While anything is taken over, there are more rules.
func (f family) bucketRules(comment string, layout clusterip.Layout, ports []expr.Any, takeover bool) []rule {
	accept := verdict(expr.VerdictAccept)
	owned := f.hashRule(comment, layout, ports, lookup(setOwned), accept)
	if !layout.Drains {
		return []rule{owned, foreignRule()}
	}
	var adopting, draining []rule
	drainingMark, adoptingMark := f.marks(layout)
	settled := layout.Schema >= schemaSettled
	adopted := slices.Concat(lookup(setAdopting), lookup(setOwned))
	if settled {
		adopted = lookup(setOwned)
	}
	for _, p := range connectionProtocols {
		marked := func(comment string, m mark, sets []expr.Any) rule {
			r := f.hashRule(p.title+" of "+comment, layout, ports, sets, toMAC(of(f, layout.MACs)), f.put(layout, m), accept)
			r.exprs = slices.Concat(ipProtocolIs(p.number), r.exprs)
			return r
		}
		adopting = append(adopting, marked("adopted buckets", adoptingMark, adopted))
		draining = append(draining, marked("draining buckets", drainingMark, lookup(setDraining)))
	}
	serving := slices.Concat(adopting, []rule{owned})
	if settled {
		serving = f.servingRules(comment, layout, ports, adopting)
	}
	if !takeover {
		if settled && !layout.Lingers.IsZero() {
			// Behind the set of owned buckets: one transaction removes a bucket from it and puts it under way. So a packet that is too late for
			// the one set is in time for the other.
			serving = append(serving, newRule("takeovers are under way", underWay(), goTo(f.chain+chainTakeover)))
		}
		return slices.Concat(serving, draining, []rule{foreignRule()})
	}
	passed := f.hashRule("passed on", layout, ports, lookup(setTakingOver), goTo(chainPassed+f.suffix))
	passed.exprs = slices.Concat(packetTypeIs(unix.PACKET_BROADCAST), passed.exprs)
	return slices.Concat([]rule{passed}, serving, []rule{
		f.hashRule("lingering buckets", layout, ports, lookup(setLingering), toMAC(of(f, layout.MACs)), f.put(layout, f.lingeringMark(layout)),
			accept),
		f.hashRule("buckets that were taken over", layout, ports, lookup(setPassing), jumpTo(chainPassOn+f.suffix)),
		f.hashRule("buckets that are taken over", layout, ports, lookup(setExpecting), goTo(chainRemember+f.suffix)),
	}, draining, []rule{foreignRule()})
}

// schemaSettled is the first schema with the rules of servingRules.
const schemaSettled = 3

// servingRules accept packets of owned buckets, or mark them if the bucket is adopted. A transaction may take effect between two lookups of
// one packet. The first rule is for buckets that are owned and not adopted. A start adds a bucket to both sets, a stop removes it from
// both: what was not adopted before the start may be owned after it, and what was owned before the stop may be adopted no longer after it.
// So the rule looks up whether the bucket is adopted before and after it looks up whether it is owned. (Not the other way round: each
// lookup of an owned bucket counts the packet.) What it leaves, and is owned, is or was adopted: the other rules do not look that up again,
// because an adoption that just ends must not make its packets foreign. The last rule is not for protocols with connections.
func (f family) servingRules(comment string, layout clusterip.Layout, ports []expr.Any, adopting []rule) []rule {
	accept, notAdopted := verdict(expr.VerdictAccept), []expr.Any{&expr.Lookup{SourceRegister: register0, SetName: setAdopting, Invert: true}}
	rest := f.hashRule("protocols without connections of "+comment, layout, ports, lookup(setOwned), accept)
	rest.exprs = slices.Concat(withoutConnections(), rest.exprs)
	return slices.Concat([]rule{f.hashRule(comment, layout, ports, notAdopted, lookup(setOwned), notAdopted, accept)}, adopting, []rule{rest})
}

// hashRule computes a packet's bucket: one hash and one lookup, however many buckets the node owns. Without ports it hashes only the source
// address, with a seed that gives the same result as ports of 0 would (clusterip.PortlessSeed).
func (f family) hashRule(comment string, layout clusterip.Layout, ports []expr.Any, then ...[]expr.Any) rule {
	seed := clusterip.PortlessSeed(layout.HashMode, layout.Seed)
	if len(ports) > 0 {
		seed = layout.Seed
	}
	// The protocol has matched before. Here it makes nft(8) print `ip saddr` instead of `@nh,96,32`.
	return newRule(comment, protocolIs(f.etherType), f.hash(layout, seed, ports), slices.Concat(then...))
}

// hash leaves the bucket in register 0. For seed 0 it appends a zero word (clusterip.ZeroWordSeed).
func (f family) hash(layout clusterip.Layout, seed clusterip.Seed, ports []expr.Any) []expr.Any {
	const word = 4 // bytes, also for a port
	length := f.source.length
	words := []expr.Any{f.source.loadTo(register0)}
	if bits, all := of(f, layout.HashPrefixes), int(length)*8; bits < all { //nolint:mnd // bits in a byte
		words = append(words, mask(register0, net.CIDRMask(bits, all)))
	}
	if layout.HashCompat == clusterip.ClusterIP && length == word {
		words = append(words, &expr.Byteorder{
			SourceRegister: register0, DestRegister: register0, Op: expr.ByteorderNtoh, Len: word, Size: word,
		})
	}
	words = append(words, ports...)
	hashed := length + word*uint32(len(ports))
	if seed == 0 {
		words = append(words, zeroWord(f.ports[len(ports)])...)
		seed = clusterip.ZeroWordSeed
		hashed += word
	}
	return append(words, &expr.Hash{
		SourceRegister: register0, DestRegister: register0, Length: hashed,
		Modulus: layout.Buckets, Seed: uint32(seed), Type: expr.HashTypeJenkins,
	})
}

// zeroWord puts 0 into a register. nft(8) does not load a constant in a hash, not even from its own listing, so no bit of the packet's mark
// is used.
func zeroWord(register uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: register}, mask(register, hostOrder(0))}
}
