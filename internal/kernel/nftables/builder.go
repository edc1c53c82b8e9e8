package nftables

import (
	"math"
	"net/netip"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// A family has what differs between the rules of IPv4 and IPv6.
type family struct {
	is          func(netip.Addr) bool
	table       nft.TableFamily
	chain       string // to which ingress sends its packets
	suffix      string // of the names of its other chains there
	etherType   uint16
	source      field
	destination field
	ports       [2]uint32 // the registers behind that of the source address
	icmp        byte
	errors      []icmpKind
	neighbours  []icmpKind
}

type icmpKind struct {
	number byte
	name   string
}

// ICMPv6 types of neighbour discovery (RFC 4861 section 4).
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
)

var (
	ipv4 = family{
		is: netip.Addr.Is4, table: nft.TableFamilyIPv4, chain: chainIPv4, etherType: unix.ETH_P_IP,
		source: ipv4Source, destination: ipv4Destination, ports: [2]uint32{register1, register2},
		icmp: unix.IPPROTO_ICMP,
		errors: []icmpKind{
			{3, "ICMP destination unreachable"},
			{11, "ICMP time exceeded"},
			{12, "ICMP parameter problem"},
		},
	}
	ipv6 = family{
		is: netip.Addr.Is6, table: nft.TableFamilyIPv6, chain: chainIPv6, suffix: "6", etherType: unix.ETH_P_IPV6,
		source: ipv6Source, destination: ipv6Destination, ports: [2]uint32{register4, register5},
		icmp: unix.IPPROTO_ICMPV6,
		errors: []icmpKind{
			{1, "ICMPv6 destination unreachable"},
			{2, "ICMPv6 packet too big"},
			{3, "ICMPv6 time exceeded"},
			{4, "ICMPv6 parameter problem"},
		},
		neighbours: []icmpKind{
			{ndSolicitation, "neighbour solicitations"},
			{ndAdvertisement, "neighbour advertisements"},
		},
	}
)

func familiesOf(layout clusterip.Layout) []family {
	return slices.DeleteFunc([]family{ipv4, ipv6}, func(f family) bool { return !layout.Has(f.is) })
}

func familyOf(address netip.Addr) family {
	if address.Is4() {
		return ipv4
	}
	return ipv6
}

// addresses are those of the family.
func (f family) addresses(layout clusterip.Layout) []netip.Addr {
	return slices.DeleteFunc(layout.Addresses(), func(a netip.Addr) bool { return !f.is(a) })
}

func (f family) to(address netip.Addr) []expr.Any { return f.destination.is(address.AsSlice()...) }

// of chooses the family's value.
func of[T any](f family, values clusterip.PerFamily[T]) T {
	if f.etherType == ipv4.etherType {
		return values.IPv4
	}
	return values.IPv6
}

// portProtocols have ports in the same place as TCP.
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

// tablesOf returns the tables of a layout, without the buckets that the node owns.
func tablesOf(layout clusterip.Layout) []table {
	name := tableName(layout.Address())
	sets := append([]set{{name: setOwned, keyLength: keyLength}, schemaSet(layout)}, serviceSets(layout)...)
	if layout.Drains {
		sets = append(sets, moveSets()...)
	}
	if !layout.Lingers.IsZero() {
		sets = append(sets, takeoverSets()...)
	}
	for i, s := range sets {
		if s.holdsBuckets() {
			sets[i].buckets = layout.Buckets
		}
	}
	tables := []table{{family: nft.TableFamilyNetdev, name: name, chains: ingressChains(layout), sets: sets}}
	if layout.Has(ipv4.is) {
		tables = append(tables, table{family: nft.TableFamilyARP, name: name, chains: []chain{arpChain(layout)}})
	}
	for _, f := range familiesOf(layout) {
		chains := slices.Concat([]chain{overheardChain(f, layout)}, moveChains(f, layout), translatedChains(f, layout))
		if f.table == nft.TableFamilyIPv6 {
			chains = append([]chain{neighbourChain(layout)}, chains...)
		}
		tables = append(tables, table{family: f.table, name: name, chains: chains})
	}
	return tables
}

// holdsBuckets reports whether the keys of a set are buckets.
func (s set) holdsBuckets() bool {
	isOther := s.name == setUnderWay || slices.Contains(packetSets(), s.name) || s.keyLength != keyLength
	return s.name == setOwned || isMoveSet(s.name) || isTakeoverSet(s.name) && !isOther
}

// serviceSets hold the ports of the services: a set of intervals for each protocol that has some.
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
