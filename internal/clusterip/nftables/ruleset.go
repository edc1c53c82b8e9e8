package nftables

import (
	"encoding/binary"
	"net/netip"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// What our tables contain, by name.
const (
	tablePrefix = "clusterip-"

	chainIngress  = "ingress"
	chainIPv4     = "ipv4"
	chainPorts    = "ports"
	chainPortless = "portless"
	chainErrors   = "errors"
	chainOutput   = "output"
	chainOthers   = "other_nics"

	setOwned  = "owned"
	setSchema = "schema"
)

// ingressPriority is ahead of flowtables and of other tables' filters, which sit at 0 by convention: a foreign packet
// shall cost nothing and reach nobody.
const ingressPriority = -200

// rawPriority is that of iptables' raw table: before conntrack.
const rawPriority = -300

// arpOut is NF_ARP_OUT (include/uapi/linux/netfilter_arp.h): ARP has hook numbers of its own.
const arpOut nft.ChainHook = 1

// Offsets and lengths in the headers, in bytes.
const (
	etherDestination = 0  // IEEE 802.3
	arpSenderMAC     = 8  // RFC 826, behind htype, ptype, hlen, plen and op
	arpSenderIP      = 14 // RFC 826, for Ethernet and IPv4
	ipFragmentOffset = 6  // RFC 791 section 3.1
	ipSource         = 12
	ipDestination    = 16
	icmpType         = 0 // RFC 792
	sourcePort       = 0 // TCP, UDP, UDP-Lite, SCTP and DCCP alike
	destinationPort  = 2

	macLength  = 6
	ipv4Length = 4
	portLength = 2
)

// Registers of 4 bytes. Three in a row hold what is hashed; the first is dumped by the kernel under its old name, 1.
const (
	register0 = unix.NFT_REG_1
	register1 = unix.NFT_REG32_01
	register2 = unix.NFT_REG32_02
)

// fragmentBits are the more-fragments flag and the fragment offset.
var fragmentBits = []byte{0x3f, 0xff}

// A table is what we lay, and what the kernel shows of it.
type table struct {
	family nft.TableFamily
	name   string
	flags  uint32 // NFT_TABLE_F_…: a dormant table filters nothing; ours has none
	use    uint32 // how many chains, sets and the like the kernel says it holds; not set in what we lay
	chains []chain
	sets   []set
}

type chain struct {
	name  string
	base  *base // nil: a chain that others go to
	rules []rule
}

// A base says where a chain hooks into the packet path.
type base struct {
	kind     nft.ChainType
	hook     nft.ChainHook
	priority nft.ChainPriority
	policy   nft.ChainPolicy
	device   string // netdev only
}

type rule struct {
	comment string
	exprs   []expr.Any
	unknown []string // expressions of kinds that we never lay, by name
}

// A set holds 4-byte integers in host order: bucket numbers, or the version of the schema.
type set struct {
	name      string
	keyLength uint32 // in bytes
	flags     uint32 // NFT_SET_…: of a map, of intervals, of timeouts; ours has none
	elements  []element
}

const keyLength = 4

type element struct {
	key     uint32
	comment string
	counted bool
}

// tableName is how the tables of an address are called, in every family.
func tableName(address netip.Addr) string { return tablePrefix + address.String() }

// rulesetOf returns the tables that schema 1 has for a layout, without the owned buckets.
func rulesetOf(layout clusterip.Layout) []table {
	schema := set{name: setSchema, keyLength: keyLength, elements: []element{{key: uint32(layout.Schema), comment: layout.Stamp()}}}
	return []table{
		{
			family: nft.TableFamilyNetdev, name: tableName(layout.Address),
			chains: ingressChains(layout),
			sets:   []set{{name: setOwned, keyLength: keyLength}, schema},
		},
		{
			family: nft.TableFamilyARP, name: tableName(layout.Address),
			chains: []chain{outputChain(layout)},
		},
		{
			family: nft.TableFamilyIPv4, name: tableName(layout.Address),
			chains: []chain{otherNICsChain(layout)},
		},
	}
}

func ingressBase(device string) *base {
	return &base{
		kind: nft.ChainTypeFilter, hook: *nft.ChainHookIngress, priority: ingressPriority,
		policy: nft.ChainPolicyAccept, device: device,
	}
}

func outputBase() *base {
	return &base{kind: nft.ChainTypeFilter, hook: arpOut, policy: nft.ChainPolicyAccept}
}

// ingressChains let in what the node owns and drop the rest. They sit before ip_rcv, which drops frames for a foreign
// unicast MAC, and before conntrack, which then never sees a foreign packet.
func ingressChains(layout clusterip.Layout) []chain {
	ingress := chain{name: chainIngress, base: ingressBase(layout.NIC), rules: []rule{
		// In unicast mode the kernel takes the frame for another host's; without this the node would never learn the
		// MACs of its clients.
		{comment: "ARP to the cluster MAC", exprs: join(toMAC(layout.MAC), protocol(unix.ETH_P_ARP), pkttype(unix.PACKET_HOST), verdict(expr.VerdictAccept))},
		{comment: "packets to the address", exprs: join(protocol(unix.ETH_P_IP), toAddress(layout.Address), jump(chainIPv4))},
	}}
	// An ICMP error comes from a router, whose own address would hash elsewhere; a node without the connection ignores it.
	// Path-MTU discovery depends on it (RFC 1191).
	ipv4 := chain{name: chainIPv4}
	for _, kind := range []struct {
		number byte
		name   string
	}{{3, "destination unreachable"}, {11, "time exceeded"}, {12, "parameter problem"}} {
		ipv4.rules = append(ipv4.rules, rule{comment: "ICMP " + kind.name + ": on every node", exprs: join(
			ipProtocolIs(unix.IPPROTO_ICMP), loadTransport(icmpType, 1), equal(kind.number), jump(chainErrors))})
	}
	// Several nodes may take the same frame here, so it must not become the host's own: a node that has just no address and
	// forwards would send it on, to all of them again.
	errors := chain{name: chainErrors, rules: []rule{
		{comment: "heard, never forwarded", exprs: join(toMAC(layout.MAC), pkttype(unix.PACKET_MULTICAST))},
		{comment: "for whoever has the connection", exprs: verdict(expr.VerdictAccept)},
	}}
	// Only frames for the cluster MAC become the host's own: not what a promiscuous NIC overhears.
	ipv4.rules = append(ipv4.rules, rule{comment: "the cluster MAC is this host's", exprs: join(toMAC(layout.MAC), pkttype(unix.PACKET_HOST))})
	drop := rule{comment: "foreign buckets", exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}}
	if !layout.HashMode.Ports() {
		ipv4.rules = append(ipv4.rules, hashRule("owned buckets", layout, nil), drop)
		return []chain{ingress, ipv4, errors}
	}
	ipv4.rules = append(ipv4.rules, rule{comment: "fragments hide their ports", exprs: join(
		loadNetwork(ipFragmentOffset, portLength),
		[]expr.Any{
			&expr.Bitwise{SourceRegister: register0, DestRegister: register0, Len: portLength, Mask: fragmentBits, Xor: []byte{0, 0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: []byte{0, 0}},
		}, jump(chainPortless))})
	for _, p := range []struct {
		number byte
		name   string
	}{
		{unix.IPPROTO_TCP, "TCP"},
		{unix.IPPROTO_UDP, "UDP"},
		{unix.IPPROTO_SCTP, "SCTP"},
		{unix.IPPROTO_UDPLITE, "UDP-Lite"},
		{unix.IPPROTO_DCCP, "DCCP"},
	} {
		ipv4.rules = append(ipv4.rules, rule{comment: p.name + " has ports", exprs: join(ipProtocolIs(p.number), jump(chainPorts))})
	}
	ipv4.rules = append(ipv4.rules, rule{comment: "all others have none", exprs: jump(chainPortless)})

	ports := []expr.Any{
		&expr.Payload{DestRegister: register1, Base: expr.PayloadBaseTransportHeader, Offset: sourcePort, Len: portLength},
		&expr.Payload{DestRegister: register2, Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: portLength},
	}[:layout.HashMode.Words()-1]
	return []chain{
		ingress, ipv4, errors,
		{name: chainPorts, rules: []rule{hashRule("owned buckets", layout, ports), drop}},
		{name: chainPortless, rules: []rule{hashRule("owned buckets", layout, nil), drop}},
	}
}

// hashRule accepts a packet whose bucket is owned. One hash and one lookup, however many buckets the node owns.
// Without ports it hashes the source address alone, with a seed that gives the same result as ports of 0 would
// (clusterip.PortlessSeed).
func hashRule(comment string, layout clusterip.Layout, ports []expr.Any) rule {
	seed := clusterip.PortlessSeed(layout.HashMode, layout.Seed)
	if len(ports) > 0 {
		seed = layout.Seed
	}
	return rule{comment: comment, exprs: join(
		protocol(unix.ETH_P_IP), // has matched long ago; here it makes nft(8) print `ip saddr` instead of `@nh,96,32`
		hash(layout, seed, ports),
		[]expr.Any{&expr.Lookup{SourceRegister: register0, SetName: setOwned}},
		verdict(expr.VerdictAccept),
	)}
}

// hash leaves the bucket in register 0.
func hash(layout clusterip.Layout, seed clusterip.Seed, ports []expr.Any) []expr.Any {
	return join(loadNetwork(ipSource, ipv4Length), ports, []expr.Any{&expr.Hash{
		SourceRegister: register0, DestRegister: register0, Length: uint32(ipv4Length * (1 + len(ports))),
		Modulus: layout.Buckets, Seed: uint32(seed), Type: expr.HashTypeJenkins,
	}})
}

// outputChain puts the cluster MAC into what the node says by ARP about the address, requests as well as replies: a
// request that leaks the NIC's own MAC would destroy the clients' entry. The Ethernet source stays the NIC's own, so that
// no switch ever learns the cluster MAC.
func outputChain(layout clusterip.Layout) chain {
	fromAddress := join(loadNetwork(arpSenderIP, ipv4Length), equal(ipv4Bytes(layout.Address)...))
	return chain{name: chainOutput, base: outputBase(), rules: []rule{
		// Linux answers ARP for any of its addresses on any NIC, with that NIC's MAC.
		{comment: "no ARP for the address on other NICs", exprs: join(fromAddress, notNIC(expr.MetaKeyOIF, layout), verdict(expr.VerdictDrop))},
		{comment: "ARP tells the cluster MAC", exprs: join(fromAddress, []expr.Any{
			&expr.Immediate{Register: register0, Data: layout.MAC[:]},
			&expr.Payload{
				OperationType: expr.PayloadWrite, SourceRegister: register0,
				Base: expr.PayloadBaseNetworkHeader, Offset: arpSenderMAC, Len: macLength,
			},
		})},
	}}
}

// otherNICsChain keeps the node's other NICs from answering: one on the same LAN that hears the cluster MAC, being promiscuous or
// a macvlan, gets frames for a group, and Linux takes a unicast IP packet in such a frame for any of its addresses.
func otherNICsChain(layout clusterip.Layout) chain {
	return chain{name: chainOthers, base: &base{
		kind: nft.ChainTypeFilter, hook: *nft.ChainHookPrerouting, priority: rawPriority, policy: nft.ChainPolicyAccept,
	}, rules: []rule{{comment: "what other NICs overhear", exprs: join(
		notNIC(expr.MetaKeyIIF, layout), toAddress(layout.Address),
		[]expr.Any{
			&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: register0},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: []byte{unix.PACKET_HOST}},
		},
		verdict(expr.VerdictDrop),
	)}}}
}

func notNIC(key expr.MetaKey, layout clusterip.Layout) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: register0},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: binary.NativeEndian.AppendUint32(nil, uint32(layout.NICIndex))},
	}
}

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func equal(data ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: register0, Data: data}}
}

func loadNetwork(offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

func loadTransport(offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}}
}

func toMAC(mac clusterip.MAC) []expr.Any {
	ethernet := make([]byte, 2)
	binary.NativeEndian.PutUint16(ethernet, unix.ARPHRD_ETHER)
	return join(
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: register0}}, equal(ethernet...),
		[]expr.Any{&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseLLHeader, Offset: etherDestination, Len: macLength}},
		equal(mac[:]...),
	)
}

func toAddress(address netip.Addr) []expr.Any {
	return join(loadNetwork(ipDestination, ipv4Length), equal(ipv4Bytes(address)...))
}

func ipProtocolIs(number byte) []expr.Any {
	return join([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register0}}, equal(number))
}

func protocol(etherType uint16) []expr.Any {
	return join([]expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register0}},
		equal(binary.BigEndian.AppendUint16(nil, etherType)...))
}

func pkttype(kind byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register0, Data: []byte{kind}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: register0},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func ipv4Bytes(address netip.Addr) []byte {
	bytes := address.As4()
	return bytes[:]
}
