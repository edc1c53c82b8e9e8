package nftables

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

// What our tables contain, by name. Those for IPv6 are called like those for IPv4, with a 6 behind.
const (
	tablePrefix = "clusterip-"

	chainIngress    = "ingress"
	chainIPv4       = "ipv4"
	chainIPv6       = "ipv6"
	chainPorts      = "ports"
	chainPortless   = "portless"
	chainShared     = "shared"
	chainErrors     = "errors"
	chainARP        = "arp_frames"
	chainTranslated = "translated"
	chainForwarded  = "forwarded"
	chainOutput     = "output"
	chainOverheard  = "overheard"
	chainMoves      = "moves"
	chainDelivered  = "moves_delivered"
	chainDraining   = "draining"
	chainAdopting   = "adopting"

	setOwned      = "owned"
	setSchema     = "schema"
	setDraining   = "draining"
	setAdopting   = "adopting"
	setHandedOver = "handed_over"
	// setServices follows a protocol's name.
	setServices = "_services"
)

// ingressPriority is ahead of flowtables and of other tables' filters, which sit at 0 by convention: a foreign packet
// shall cost nothing and reach nobody.
const ingressPriority = -200

// rawPriority is that of iptables' raw table: before conntrack.
const rawPriority = -300

// movesPriority is behind conntrack, which must know the packet, and ahead of all that admins do to packets by convention.
const movesPriority = -190

// translatedPriority is behind that at which the kernel translates destinations, whatever a chain of type nat says (NF_IP_PRI_NAT_DST).
const translatedPriority = -90

// arpRequest is ARPOP_REQUEST (RFC 826).
const arpRequest = 1

// arpOut is NF_ARP_OUT (include/uapi/linux/netfilter_arp.h): ARP has hook numbers of its own.
const arpOut nft.ChainHook = 1

// Offsets and lengths in the headers, in bytes.
const (
	etherDestination = 0  // IEEE 802.3
	etherType        = 12 // of a frame with a tag: the tag's
	vlanTCI          = 14 // IEEE 802.1Q: priority, DEI and VLAN ID
	arpOperation     = 6  // RFC 826, behind htype, ptype, hlen and plen
	arpSenderMAC     = 8
	arpSenderIP      = 14 // RFC 826, for Ethernet and IPv4
	ipFragmentOffset = 6  // RFC 791 section 3.1
	icmpType         = 0  // RFC 792, RFC 4443
	icmpChecksum     = 2
	ndTarget         = 8  // RFC 4861 section 4.3 and 4.4
	ndOption         = 24 // the first, and of our kernel's messages the only one: a link-layer address
	ndOptionMAC      = 26
	sctpChunkType    = 12 // RFC 9260 section 3: of the first chunk
	tcpFlags         = 13 // RFC 9293 section 3.1
	sourcePort       = 0  // TCP, UDP, UDP-Lite, SCTP and DCCP alike
	destinationPort  = 2

	macLength  = 6
	portLength = 2
)

// ICMPv6 types and options of neighbour discovery (RFC 4861 section 4).
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndSourceMAC     = 1
	ndTargetMAC     = 2
	ndOptionLength  = 1 // in units of 8 bytes
)

// Registers of 4 bytes, each with the name under which the kernel dumps it: it counts whole ones of 16 bytes where it can.
const (
	register0 = unix.NFT_REG_1
	register1 = unix.NFT_REG32_01
	register2 = unix.NFT_REG32_02
	register4 = unix.NFT_REG_2
	register5 = unix.NFT_REG32_05
)

// What begins a connection: a SYN without the flags of any other segment, an INIT chunk (which comes alone).
const (
	tcpFinSynRstAck = 0x17
	tcpSyn          = 0x02
	sctpInit        = 1
)

// vlanIDBits are those of a tag's TCI.
var vlanIDBits = []byte{0x0f, 0xff}

// fragmentBits are the more-fragments flag and the fragment offset.
var fragmentBits = []byte{0x3f, 0xff}

// A family is what our rules must know of IPv4 or IPv6.
type family struct {
	is          func(netip.Addr) bool
	suffix      string // of the chains' names
	chain       string // that its packets go to
	etherType   uint16
	source      uint32 // offset in the header
	destination uint32
	length      uint32    // of an address
	ports       [2]uint32 // the registers behind that of the source address
	icmp        byte
	errors      []icmpKind // for every node
}

type icmpKind struct {
	number byte
	name   string
}

// ICMP errors come from a router, whose own address would hash elsewhere; a node without the connection ignores them. Path-MTU
// discovery depends on them (RFC 1191, RFC 8201). Neighbour discovery is what ARP is for IPv4: each node answers for itself, and
// needs the answers.
var (
	ipv4 = family{
		is: netip.Addr.Is4, chain: chainIPv4, etherType: unix.ETH_P_IP,
		source: 12, destination: 16, length: 4, ports: [2]uint32{register1, register2}, // RFC 791 section 3.1
		icmp: unix.IPPROTO_ICMP,
		errors: []icmpKind{
			{3, "ICMP destination unreachable"},
			{11, "ICMP time exceeded"},
			{12, "ICMP parameter problem"},
		},
	}
	ipv6 = family{
		is: netip.Addr.Is6, suffix: "6", chain: chainIPv6, etherType: unix.ETH_P_IPV6,
		source: 8, destination: 24, length: 16, ports: [2]uint32{register4, register5}, // RFC 8200 section 3
		icmp: unix.IPPROTO_ICMPV6,
		errors: []icmpKind{
			{1, "ICMPv6 destination unreachable"},
			{2, "ICMPv6 packet too big"},
			{3, "ICMPv6 time exceeded"},
			{4, "ICMPv6 parameter problem"},
			{ndSolicitation, "neighbour solicitations"},
			{ndAdvertisement, "neighbour advertisements"},
		},
	}
)

// portProtocols have ports where TCP has them.
var portProtocols = []struct {
	number byte
	name   string // as in services.Service
	title  string
}{
	{unix.IPPROTO_TCP, "tcp", "TCP"},
	{unix.IPPROTO_UDP, "udp", "UDP"},
	{unix.IPPROTO_SCTP, "sctp", "SCTP"},
	{unix.IPPROTO_UDPLITE, "udplite", "UDP-Lite"},
	{unix.IPPROTO_DCCP, "dccp", "DCCP"},
}

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
	marked  bool // laid by this program: see userdataMark
	exprs   []expr.Any
	unknown []string // expressions of kinds that we never lay, by name
}

// userdataMark is kept with a rule beside its comment (userdata.TypeComment). nft(8) passes over what it does not know and lists none of it:
// a rule without the mark was loaded from a file.
const userdataMark userdata.Type = 200

// A set holds 4-byte integers in host order, which are bucket numbers or a version of the schema; or intervals of ports, 2 bytes
// as in the packet.
type set struct {
	name      string
	keyLength uint32 // in bytes
	buckets   uint32 // of which the keys are numbers, where nft(8) is told so
	flags     uint32 // NFT_SET_…
	elements  []element
	counts    map[uint32]clusterip.Count // of packets, by the elements' keys; not set in what we lay
}

const keyLength = 4

type element struct {
	key     uint32
	all     bool // of no key of its own: it stands for all that are not there (NFT_SET_ELEM_CATCHALL)
	end     bool // of an interval: the first that does not belong to it
	comment string
	counted bool
	timed   bool          // it ends by itself
	left    time.Duration // until then
}

// tableName is how the tables of an address are called, in every family. nft(8) takes no colon in a name.
func tableName(address netip.Addr) string {
	return tablePrefix + strings.ReplaceAll(address.String(), ":", "-")
}

// rulesetOf returns the tables of a layout, without the owned buckets.
func rulesetOf(layout clusterip.Layout) []table {
	name := tableName(layout.Address())
	sets := append([]set{{name: setOwned, keyLength: keyLength}, schemaSet(layout)}, serviceSets(layout)...)
	if layout.Drains {
		sets = append(sets, moveSets()...)
	}
	for i, s := range sets {
		if s.name == setOwned || isMoveSet(s.name) {
			sets[i].buckets = layout.Buckets
		}
	}
	tables := []table{{family: nft.TableFamilyNetdev, name: name, chains: ingressChains(layout), sets: sets}}
	if layout.Has(ipv4.is) {
		tables = append(tables,
			table{family: nft.TableFamilyARP, name: name, chains: []chain{arpChain(layout)}},
			table{family: nft.TableFamilyIPv4, name: name, chains: slices.Concat(
				[]chain{otherNICsChain(ipv4, layout)}, moveChains(ipv4, layout), translatedChains(ipv4, layout))})
	}
	if layout.Has(ipv6.is) {
		tables = append(tables, table{
			family: nft.TableFamilyIPv6, name: name,
			chains: slices.Concat(
				[]chain{neighbourChain(layout), otherNICsChain(ipv6, layout)}, moveChains(ipv6, layout), translatedChains(ipv6, layout)),
		})
	}
	return tables
}

// A key of set schema has, from the lowest bits on, the schema, the number of the stamp's part, and how many parts follow the first.
// So the key of a stamp of one part is the schema.
const (
	schemaBits     = 16
	stampPartBits  = 8
	stampPartShift = schemaBits
	moreShift      = schemaBits + stampPartBits
)

func schemaKey(schema, part, more int) uint32 {
	return uint32(schema) | uint32(part)<<stampPartShift | uint32(more)<<moreShift
}

// maxComment is the longest that nft(8) loads (NFTNL_UDATA_COMMENT_MAXLEN).
const maxComment = 128

// schemaSet holds the stamp: one element for each part that a comment can hold.
func schemaSet(layout clusterip.Layout) set {
	parts := slices.Collect(slices.Chunk([]byte(layout.Stamp()), maxComment))
	s := set{name: setSchema, keyLength: keyLength}
	for i, part := range parts {
		s.elements = append(s.elements, element{key: schemaKey(layout.Schema, i, len(parts)-1), comment: string(part)})
	}
	return s
}

// serviceSets hold the shared ports, a set of intervals for each protocol that has some.
func serviceSets(layout clusterip.Layout) []set {
	var sets []set
	for _, p := range portProtocols {
		s := set{name: p.name + setServices, keyLength: portLength, flags: unix.NFT_SET_INTERVAL}
		for _, service := range layout.Services {
			if service.Protocol != p.name {
				continue
			}
			s.elements = append(s.elements, element{key: uint32(service.First)})
			if service.Last < math.MaxUint16 {
				s.elements = append(s.elements, element{key: uint32(service.Last) + 1, end: true})
			}
		}
		if len(s.elements) > 0 {
			sets = append(sets, s)
		}
	}
	return sets
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
	ingress := chain{name: chainIngress, base: ingressBase(layout.NIC)}
	if layout.Has(ipv4.is) {
		// In unicast mode the kernel takes the frame for another host's; without this the node would never learn the
		// MACs of its clients.
		ingress.rules = append(ingress.rules, rule{comment: "ARP to the cluster MAC", exprs: join(
			toMAC(layout.MACs.IPv4), protocol(unix.ETH_P_ARP), goTo(chainARP))})
	}
	for _, address := range layout.Addresses() {
		f := familyOf(address)
		ingress.rules = append(ingress.rules, rule{comment: "packets to the address", exprs: join(
			protocol(f.etherType), f.toAddress(address), goTo(f.chain))})
	}
	for i := range ingress.rules {
		ingress.rules[i].marked = true
	}
	chains := []chain{ingress}
	if layout.Has(ipv4.is) {
		chains = append(chains, chain{name: chainARP, rules: append(otherVLANs(), rule{comment: "the cluster MAC is this host's", exprs: join(
			pkttype(unix.PACKET_HOST), verdict(expr.VerdictAccept))})})
	}
	for _, f := range []family{ipv4, ipv6} {
		if layout.Has(f.is) {
			chains = append(chains, f.chains(layout)...)
		}
	}
	return chains
}

// otherVLANs let frames pass as they are that belong to another VLAN than the NIC's own. The hook is before the kernel hands them to the
// VLAN's own NIC or to a bridge, and the tag is neither in the protocol nor in the packet: the kernel puts it back only for who looks
// behind the MACs (nft_payload_copy_vlan in net/netfilter/nft_payload.c). A tag with VLAN 0 has but a priority.
func otherVLANs() []rule {
	var rules []rule
	for _, tag := range []struct {
		etherType uint16
		name      string
	}{{unix.ETH_P_8021Q, "802.1Q"}, {unix.ETH_P_8021AD, "802.1ad"}} {
		rules = append(rules, rule{comment: "other VLANs' frames (" + tag.name + ")", exprs: join(
			loadLink(etherType, 2), equal(binary.BigEndian.AppendUint16(nil, tag.etherType)...), //nolint:mnd // bytes
			loadLink(vlanTCI, 2), []expr.Any{ //nolint:mnd // bytes
				&expr.Bitwise{SourceRegister: register0, DestRegister: register0, Len: 2, Mask: vlanIDBits, Xor: []byte{0, 0}},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: []byte{0, 0}},
			}, verdict(expr.VerdictAccept))})
	}
	return rules
}

func familyOf(address netip.Addr) family {
	if address.Is4() {
		return ipv4
	}
	return ipv6
}

// mac is the cluster MAC of the family.
func (f family) mac(layout clusterip.Layout) clusterip.MAC {
	if f.length == ipv4.length {
		return layout.MACs.IPv4
	}
	return layout.MACs.IPv6
}

// chains are those for packets to the addresses of the family.
func (f family) chains(layout clusterip.Layout) []chain {
	mac := f.mac(layout)
	first := chain{name: f.chain, rules: otherVLANs()}
	for _, kind := range f.errors {
		first.rules = append(first.rules, rule{comment: kind.name + ": on every node", exprs: join(
			ipProtocolIs(f.icmp), loadTransport(icmpType, 1), equal(kind.number), goTo(chainErrors+f.suffix))})
	}
	// Several nodes may take the same frame here, so it must not become the host's own: a node that has just no address and
	// forwards would send it on, to all of them again.
	errors := chain{name: chainErrors + f.suffix, rules: []rule{
		{comment: "heard, never forwarded", exprs: join(toMAC(mac), pkttype(unix.PACKET_MULTICAST))},
		{comment: "for whoever has the connection", exprs: verdict(expr.VerdictAccept)},
	}}
	// Only frames for the cluster MAC become the host's own: not what a promiscuous NIC overhears.
	first.rules = append(first.rules, rule{comment: "the cluster MAC is this host's", exprs: join(toMAC(mac), pkttype(unix.PACKET_HOST))})
	if !layout.HashMode.Ports() && len(layout.Services) == 0 {
		first.rules = append(first.rules, f.bucketRules("owned buckets", layout, nil)...)
		return []chain{first, errors}
	}
	dispatch, hashed := f.hashedChains(layout)
	first.rules = append(first.rules, dispatch...)
	return append([]chain{first, errors}, hashed...)
}

// hashedChains are where packets are hashed that have ports or not, and the rules that send them there.
func (f family) hashedChains(layout clusterip.Layout) (dispatch []rule, chains []chain) {
	portless := chain{name: chainShared + f.suffix, rules: f.bucketRules("owned buckets", layout, nil)}
	ports := portless
	chains = []chain{portless}
	if layout.HashMode.Ports() {
		portless.name = chainPortless + f.suffix
		load := []expr.Any{
			&expr.Payload{DestRegister: f.ports[0], Base: expr.PayloadBaseTransportHeader, Offset: sourcePort, Len: portLength},
			&expr.Payload{DestRegister: f.ports[1], Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: portLength},
		}[:layout.HashMode.PortWords()]
		ports = chain{name: chainPorts + f.suffix, rules: f.bucketRules("owned buckets", layout, load)}
		chains = []chain{ports, portless}
	}
	dispatch = []rule{{comment: "fragments hide their ports", exprs: join(f.isFragment(), goTo(portless.name))}}
	if len(layout.Services) == 0 {
		for _, p := range portProtocols {
			dispatch = append(dispatch, rule{comment: p.title + " has ports", exprs: join(ipProtocolIs(p.number), goTo(ports.name))})
		}
		return append(dispatch, rule{comment: "all others have none", exprs: goTo(portless.name)}), chains
	}
	for _, p := range portProtocols {
		isListed := func(s services.Service) bool { return s.Protocol == p.name }
		if slices.ContainsFunc(layout.Services, isListed) {
			dispatch = append(dispatch, rule{comment: p.title + " services that share load", exprs: join(
				ipProtocolIs(p.number), loadTransport(destinationPort, portLength),
				lookup(p.name+setServices), goTo(ports.name))})
		}
	}
	if slices.Contains(layout.Services, services.ICMP) {
		dispatch = append(dispatch, rule{comment: "ICMP shares load", exprs: join(ipProtocolIs(f.icmp), goTo(portless.name))})
	}
	everythingElse := layout
	everythingElse.Buckets = 1 // of one bucket the owner is that of bucket 0
	return append(dispatch, f.bucketRules("the rest is bucket 0's", everythingElse, nil)...), chains
}

// isFragment matches a fragment, the first one too.
func (f family) isFragment() []expr.Any {
	if f.length == ipv4.length {
		return join(loadNetwork(ipFragmentOffset, portLength), []expr.Any{
			&expr.Bitwise{SourceRegister: register0, DestRegister: register0, Len: portLength, Mask: fragmentBits, Xor: []byte{0, 0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: []byte{0, 0}},
		})
	}
	return join([]expr.Any{&expr.Exthdr{
		DestRegister: register0, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6,
	}}, equal(1))
}

func foreignRule() rule {
	return rule{comment: "foreign buckets", exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}}
}

// bucketRules let a packet in or drop it, by its bucket. Where connections survive moves, those of a bucket that is on its way are
// marked for conntrack to be asked (moveChains), by what kind of packet they seem to be: that lasts as far as prerouting, and is
// nobody else's; or by their MAC.
func (f family) bucketRules(comment string, layout clusterip.Layout, ports []expr.Any) []rule {
	owned := f.hashRule(comment, layout, ports, lookup(setOwned), verdict(expr.VerdictAccept))
	if !layout.Drains {
		return []rule{owned, foreignRule()}
	}
	var adopting, draining []rule
	drainingMark, adoptingMark := f.marks(layout)
	for _, p := range connectionProtocols {
		marked := func(comment string, sought []expr.Any, m mark) rule {
			r := f.hashRule(p.title+" of "+comment, layout, ports, sought, toMAC(f.mac(layout)), f.put(layout, m), verdict(expr.VerdictAccept))
			r.exprs = join(ipProtocolIs(p.number), r.exprs)
			return r
		}
		adopting = append(adopting, marked("adopted buckets", join(lookup(setAdopting), lookup(setOwned)), adoptingMark))
		draining = append(draining, marked("draining buckets", lookup(setDraining), drainingMark))
	}
	return slices.Concat(adopting, []rule{owned}, draining, []rule{foreignRule()})
}

// hashRule looks for a packet's bucket. One hash and one lookup, however many buckets the node owns.
// Without ports it hashes the source address alone, with a seed that gives the same result as ports of 0 would
// (clusterip.PortlessSeed).
func (f family) hashRule(comment string, layout clusterip.Layout, ports []expr.Any, then ...[]expr.Any) rule {
	seed := clusterip.PortlessSeed(layout.HashMode, layout.Seed)
	if len(ports) > 0 {
		seed = layout.Seed
	}
	return rule{comment: comment, exprs: join(
		protocol(f.etherType), // has matched long ago; here it makes nft(8) print `ip saddr` instead of `@nh,96,32`
		f.hash(layout, seed, ports),
		join(then...),
	)}
}

// hash leaves the bucket in register 0. For seed 0 it hashes a word of 0 more (clusterip.ZeroWordSeed).
func (f family) hash(layout clusterip.Layout, seed clusterip.Seed, ports []expr.Any) []expr.Any {
	const word = 4 // bytes, which a port takes too
	source := join(loadNetwork(f.source, f.length), f.mask(layout))
	if layout.HashCompat == clusterip.ClusterIP && f.length == ipv4.length {
		source = append(source, &expr.Byteorder{
			SourceRegister: register0, DestRegister: register0, Op: expr.ByteorderNtoh, Len: f.length, Size: word,
		})
	}
	words, hashed := ports, len(ports)
	if seed == 0 {
		words = join(ports, zeroWord(f.ports[len(ports)]))
		seed = clusterip.ZeroWordSeed
		hashed++
	}
	return join(source, words, []expr.Any{&expr.Hash{
		SourceRegister: register0, DestRegister: register0, Length: f.length + word*uint32(hashed),
		Modulus: layout.Buckets, Seed: uint32(seed), Type: expr.HashTypeJenkins,
	}})
}

// zeroWord puts 0 into a register. nft(8) loads no constant in a hash, not even from its own listing: it takes nothing of the packet's mark.
func zeroWord(register uint32) []expr.Any {
	zero := make([]byte, 4) //nolint:mnd // a register has 4 bytes
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(zero)), Mask: zero, Xor: zero},
	}
}

// mask leaves only the leading bits of the source address that are to be hashed.
func (f family) mask(layout clusterip.Layout) []expr.Any {
	bits, all := layout.HashPrefixes.IPv6, int(f.length)*8
	if f.length == ipv4.length {
		bits = layout.HashPrefixes.IPv4
	}
	if bits == all {
		return nil
	}
	return []expr.Any{&expr.Bitwise{
		SourceRegister: register0, DestRegister: register0, Len: f.length, Mask: net.CIDRMask(bits, all), Xor: make([]byte, f.length),
	}}
}

// arpChain puts the cluster MAC into what the node says by ARP about the addresses, requests as well as replies: a
// request that leaks the NIC's own MAC would destroy the clients' entry. The Ethernet source stays the NIC's own, so that
// no switch ever learns the cluster MAC.
func arpChain(layout clusterip.Layout) chain {
	output := chain{name: chainOutput, base: outputBase()}
	for _, address := range layout.Addresses() {
		if !address.Is4() {
			continue
		}
		fromAddress := join(loadNetwork(arpSenderIP, ipv4.length), equal(address.AsSlice()...))
		fromElsewhere := join(fromAddress, notNIC(expr.MetaKeyOIF, layout))
		// A bond's ARP monitor asks by the ports (bond_arp_send): there the address is told as on the bond itself, or arp_validate would not
		// know the answers.
		for _, port := range layout.Ports {
			fromElsewhere = append(fromElsewhere, compareIndex(expr.MetaKeyOIF, expr.CmpOpNeq, port)...)
		}
		// Linux asks for the next hop of a packet with the packet's source, by whatever NIC it leaves (arp_solicit).
		if layout.HidesInRequests() {
			output.rules = append(output.rules, rule{comment: "ARP requests on other NICs tell no address", exprs: join(
				fromElsewhere, loadNetwork(arpOperation, 2), equal(0, arpRequest), write(arpSenderIP, net.IPv4zero.To4()))}) //nolint:mnd // bytes
		}
		output.rules = append(output.rules,
			// Linux answers ARP for any of its addresses on any NIC, with that NIC's MAC.
			rule{comment: "no ARP for the address on other NICs", exprs: join(fromElsewhere, verdict(expr.VerdictDrop))},
			rule{comment: "ARP tells the cluster MAC", exprs: join(fromAddress, write(arpSenderMAC, layout.MACs.IPv4[:]))})
	}
	return output
}

// write puts data into a packet of ARP.
func write(offset uint32, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register0, Data: data},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: register0,
			Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(data)),
		},
	}
}

// neighbourChain does the same for IPv6: in advertisements of an address, and in solicitations that come from it, with the
// checksum. What has no link-layer address in it tells none and passes.
func neighbourChain(layout clusterip.Layout) chain {
	output := chain{name: chainOutput, base: &base{
		kind: nft.ChainTypeFilter, hook: *nft.ChainHookOutput, policy: nft.ChainPolicyAccept,
	}}
	for _, address := range layout.Addresses() {
		if !address.Is6() {
			continue
		}
		for _, message := range []struct {
			name   string
			kind   byte
			option byte
			about  []expr.Any
		}{
			{"advertisements", ndAdvertisement, ndTargetMAC, loadTransport(ndTarget, ipv6.length)},
			{"solicitations", ndSolicitation, ndSourceMAC, loadNetwork(ipv6.source, ipv6.length)},
		} {
			aboutAddress := join(ipProtocolIs(unix.IPPROTO_ICMPV6), loadTransport(icmpType, 1), equal(message.kind),
				message.about, equal(address.AsSlice()...))
			output.rules = append(output.rules,
				rule{comment: "no neighbour " + message.name + " on other NICs", exprs: join(
					aboutAddress, notNIC(expr.MetaKeyOIF, layout), verdict(expr.VerdictDrop))},
				rule{comment: "neighbour " + message.name + " tell the cluster MAC", exprs: join(
					aboutAddress, loadTransport(ndOption, 2), equal(message.option, ndOptionLength), []expr.Any{ //nolint:mnd // type and length
						&expr.Immediate{Register: register0, Data: layout.MACs.IPv6[:]},
						&expr.Payload{
							OperationType: expr.PayloadWrite, SourceRegister: register0,
							Base: expr.PayloadBaseTransportHeader, Offset: ndOptionMAC, Len: macLength,
							CsumType: expr.CsumTypeInet, CsumOffset: icmpChecksum,
						},
					})})
		}
	}
	return output
}

// otherNICsChain keeps the node's other NICs from answering: one on the same LAN that hears the cluster MAC, being promiscuous or
// a macvlan, gets frames for a group, and Linux takes a unicast IP packet in such a frame for any of its addresses.
// They may be bridges, whose guests are clients or nodes: one that calls iptables has prerouting see frames that it only lets through. What is not the host's own
// is never forwarded, so input is early enough.
func otherNICsChain(f family, layout clusterip.Layout) chain {
	others := chain{name: chainOverheard, base: &base{
		kind: nft.ChainTypeFilter, hook: *nft.ChainHookInput, priority: rawPriority, policy: nft.ChainPolicyAccept,
	}}
	for _, address := range layout.Addresses() {
		if f.is(address) {
			others.rules = append(others.rules, rule{comment: "what other NICs overhear", exprs: join(
				notNIC(expr.MetaKeyIIF, layout), f.toAddress(address),
				[]expr.Any{
					&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: register0},
					&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: []byte{unix.PACKET_HOST}},
				},
				verdict(expr.VerdictDrop),
			)})
		}
	}
	return others
}

// translatedChains make an ICMP error the host's own again when its destination is no longer the address: conntrack knows the connection,
// which goes to what is behind DNAT here, and the kernel forwards nothing that is marked as heard by many (ip_forward, ip6_forward).
func translatedChains(f family, layout clusterip.Layout) []chain {
	var notOurs []expr.Any
	for _, address := range layout.Addresses() {
		if f.is(address) {
			notOurs = join(notOurs, loadNetwork(f.destination, f.length),
				[]expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: register0, Data: address.AsSlice()}})
		}
	}
	prerouting := chain{name: chainTranslated, base: &base{
		kind: nft.ChainTypeFilter, hook: *nft.ChainHookPrerouting, priority: translatedPriority, policy: nft.ChainPolicyAccept,
	}, rules: []rule{{comment: "ICMP to what is behind the address", exprs: join(
		pkttypeIs(unix.PACKET_MULTICAST), isNIC(expr.MetaKeyIIF, layout), ipProtocolIs(f.icmp), notOurs, toMAC(f.mac(layout)), goTo(chainForwarded))}}}
	forwarded := chain{name: chainForwarded}
	for _, kind := range f.errors {
		if kind.number == ndSolicitation || kind.number == ndAdvertisement {
			continue
		}
		forwarded.rules = append(forwarded.rules, rule{comment: kind.name + ": may be forwarded", exprs: join(
			loadTransport(icmpType, 1), equal(kind.number), pkttype(unix.PACKET_HOST))})
	}
	return []chain{prerouting, forwarded}
}

func isNIC(key expr.MetaKey, layout clusterip.Layout) []expr.Any {
	return compareIndex(key, expr.CmpOpEq, layout.NICIndex)
}

func notNIC(key expr.MetaKey, layout clusterip.Layout) []expr.Any {
	return compareIndex(key, expr.CmpOpNeq, layout.NICIndex)
}

func compareIndex(key expr.MetaKey, op expr.CmpOp, nicIndex int) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: register0},
		&expr.Cmp{Op: op, Register: register0, Data: binary.NativeEndian.AppendUint32(nil, uint32(nicIndex))},
	}
}

func lookup(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register0, SetName: set}}
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

func loadLink(offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseLLHeader, Offset: offset, Len: length}}
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

func (f family) toAddress(address netip.Addr) []expr.Any {
	return join(loadNetwork(f.destination, f.length), equal(address.AsSlice()...))
}

func ipProtocolIs(number byte) []expr.Any {
	return join([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register0}}, equal(number))
}

func protocol(etherType uint16) []expr.Any {
	return join([]expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register0}},
		equal(binary.BigEndian.AppendUint16(nil, etherType)...))
}

func pkttypeIs(kind byte) []expr.Any {
	return join([]expr.Any{&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: register0}}, equal(kind))
}

func pkttype(kind byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register0, Data: []byte{kind}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: register0},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}
