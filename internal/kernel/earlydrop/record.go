package earlydrop

import (
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

// What bpf/earlydrop.c has too.
const (
	bitmapWords = 32
	wordBits    = 32

	maxServices     = 32
	tooManyServices = 255

	jhashInitval = 0xdeadbeef // JHASH_INITVAL, include/linux/jhash.h
	wordBytes    = 4
)

// record is struct record of the program: what it knows of one address.
type record struct {
	Address          [16]byte
	Family           uint8 // 4 or 6
	Swaps            uint8
	MAC              clusterip.MAC
	Initial          uint32
	Buckets          uint32
	Mask             [16]byte
	SourcePorts      uint16
	DestinationPorts uint16
	Services         uint8
	ICMP             uint8
	_                [10]byte
	Passed           [bitmapWords]uint32
	Service          [maxServices]service
}

// service is struct service: an interval of ports.
type service struct {
	First, Last uint16
	Protocol    uint8
	_           uint8
}

// protocols are those that a service can have and that have ports.
var protocols = map[string]uint8{
	"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE, "dccp": unix.IPPROTO_DCCP,
}

// recordOf returns the record of an address.
func recordOf(layout clusterip.Layout, address netip.Addr, pass []clusterip.Bucket) record {
	raw := address.AsSlice()
	words := len(raw)/wordBytes + layout.HashMode.PortWords()
	r := record{
		Family:  familyOf(address),
		MAC:     layout.MACs.Of(address),
		Initial: jhashInitval + uint32(words*wordBytes) + uint32(layout.Seed),
		Buckets: layout.Buckets,
	}
	copy(r.Address[:], raw)
	copy(r.Mask[:], net.CIDRMask(layout.HashPrefixes.Of(address), len(raw)*8)) //nolint:mnd // bits in a byte
	if swapsWords && address.Is4() && layout.HashCompat == clusterip.ClusterIP {
		r.Swaps = 1
	}
	const all = 0xffff
	switch layout.HashMode {
	case clusterip.SourceIPSourcePortDestPort:
		r.SourcePorts, r.DestinationPorts = all, all
	case clusterip.SourceIPSourcePort:
		r.SourcePorts = all
	}
	r.setServices(layout.Services)
	for _, bucket := range pass {
		r.Passed[bucket/wordBits] |= 1 << (bucket % wordBits)
	}
	return r
}

// setServices lists them. The program passes what it cannot tell because there are too many.
func (r *record) setServices(all []services.Service) {
	if slices.Contains(all, services.ICMP) {
		r.ICMP = 1
	}
	ports := slices.DeleteFunc(slices.Clone(all), func(s services.Service) bool { return s == services.ICMP })
	switch {
	case len(all) == 0:
		return
	case len(ports) > maxServices:
		r.Services = tooManyServices
		return
	case len(ports) == 0: // 0 would mean that all share load: an interval without a port
		ports = []services.Service{{First: 1}}
	}
	r.Services = uint8(len(ports))
	for i, s := range ports {
		r.Service[i] = service{First: s.First, Last: s.Last, Protocol: protocols[s.Protocol]}
	}
}

// passed returns the buckets that the record passes.
func (r record) passed() []clusterip.Bucket {
	var all []clusterip.Bucket
	for i, word := range r.Passed {
		for ; word != 0; word &= word - 1 {
			if bucket := uint32(i*wordBits + bits.TrailingZeros32(word)); bucket < r.Buckets {
				all = append(all, clusterip.Bucket(bucket))
			}
		}
	}
	return all
}

// withoutBitmap returns the record without its bitmap. Only the bitmap may change in place.
func (r record) withoutBitmap() record {
	r.Passed = [bitmapWords]uint32{}
	return r
}

// differences returns what of the record differs from what a layout gives, in words.
func (r record) differences(want record) []string {
	var found []string
	differ := func(what string, have, want any) {
		if have != want {
			found = append(found, fmt.Sprintf("%s is %v, not %v", what, have, want))
		}
	}
	differ("the shared MAC", r.MAC, want.MAC)
	differ("clone-max", r.Buckets, want.Buckets)
	differ("the hash's start value", clusterip.Seed(r.Initial-jhashInitval), clusterip.Seed(want.Initial-jhashInitval))
	differ("the length of the source prefix", r.prefixLength(), want.prefixLength())
	if len(found) == 0 && r.withoutBitmap() != want.withoutBitmap() {
		found = append(found, "the byte order, the ports or the services differ")
	}
	return found
}

func (r record) prefixLength() int {
	length := 0
	for _, octet := range r.Mask {
		length += bits.OnesCount8(octet)
	}
	return length
}

func familyOf(address netip.Addr) uint8 {
	if address.Is4() {
		return 4 //nolint:mnd // IPv4
	}
	return 6 //nolint:mnd // IPv6
}
