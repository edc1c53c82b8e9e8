//go:build system

package kernel

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"ocf-clusterip/tests/lan"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// An extension is an IPv6 extension header, without its first byte, which names the next one.
type extension struct {
	name   string
	number byte
	rest   []byte
	hides  bool // the ports are not to be looked for behind it
}

// extensions are all kinds (RFC 8200 section 4, RFC 4302 section 2). A fragment header hides ports even where it is alone: an
// atomic fragment (RFC 6946).
func extensions(random *rand.Rand) []extension {
	offset := uint16(1+random.IntN(8000)) << 3
	fragment := func(name string, offsetAndMore uint16) extension {
		rest := binary.BigEndian.AppendUint16([]byte{0}, offsetAndMore)
		return extension{name, unix.IPPROTO_FRAGMENT, binary.BigEndian.AppendUint32(rest, random.Uint32()), true}
	}
	return []extension{
		{"hop-by-hop options", unix.IPPROTO_HOPOPTS, []byte{0, 1, 4, 0, 0, 0, 0}, false},
		{"destination options", unix.IPPROTO_DSTOPTS, append([]byte{1, 1, 12}, make([]byte, 12)...), false},
		{"a routing header", unix.IPPROTO_ROUTING, []byte{0, 4, 0, 0, 0, 0, 0}, false},
		fragment("first fragment", 1), fragment("later fragment", offset|1), fragment("last fragment", offset), fragment("atomic fragment", 0),
		{"an authentication header", unix.IPPROTO_AH, append([]byte{4}, make([]byte, 22)...), true},
	}
}

// tossRandom6 makes any IPv6 packet to the address, and asks the formula for its bucket.
func (s *site) tossRandom6(random *rand.Rand) tossed {
	protocols := map[string]byte{
		"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE,
		"dccp": unix.IPPROTO_DCCP, "icmp": unix.IPPROTO_ICMPV6, "esp": unix.IPPROTO_ESP, "none": unix.IPPROTO_NONE,
	}
	names := slices.Sorted(maps.Keys(protocols))
	proto := names[random.IntN(len(names))]
	var source [16]byte
	binary.BigEndian.PutUint64(source[:], 0x2000_0000_0000_0000|random.Uint64()>>4)
	binary.BigEndian.PutUint64(source[8:], random.Uint64())
	flow := lan.Flow{
		Proto:   lan.Proto(proto),
		Src:     netip.AddrFrom16(source),
		SrcPort: uint16(random.Uint32()),
		DstPort: uint16(random.Uint32()),
	}
	p := tossed{name: flow.String()}
	transport := make([]byte, 24)
	switch proto {
	case "icmp":
		transport[0] = byte(ipv6.ICMPTypeEchoRequest)
	case "esp", "none":
	default:
		binary.BigEndian.PutUint16(transport, flow.SrcPort)
		binary.BigEndian.PutUint16(transport[2:], flow.DstPort)
	}
	portless := proto == "icmp" || proto == "esp" || proto == "none"
	var chain []extension
	if kinds := extensions(random); random.IntN(2) == 0 {
		chain = append(chain, kinds[random.IntN(len(kinds))])
		if chain[0].number != unix.IPPROTO_HOPOPTS && random.IntN(2) == 0 { // which can only be the first
			chain = append([]extension{kinds[0]}, chain...)
		}
	}
	for _, e := range chain {
		p.name += ", " + e.name
		portless = portless || e.hides
	}
	if portless {
		flow.SrcPort, flow.DstPort = 0, 0
	}
	p.ipv6 = packet6(flow.Src, shared6, protocols[proto], chain, transport)
	p.bucket = s.bucketOf(flow, false)
	return p
}

// packet6 puts an IPv6 header and extension headers before a payload.
func packet6(src, dst netip.Addr, protocol byte, chain []extension, payload []byte) []byte {
	for _, e := range slices.Backward(chain) {
		payload = append(append([]byte{protocol}, e.rest...), payload...)
		protocol = e.number
	}
	const hops = 64
	b := []byte{0x60, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, protocol, hops)
	return slices.Concat(b, src.AsSlice(), dst.AsSlice(), payload)
}
