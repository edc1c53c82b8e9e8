package clusterip

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// Bucket is the number of a hash bucket, 0..N-1, equal to Pacemaker's clone instance number.
type Bucket uint32

// Seed is the initial value of the hash. All nodes must use the same one.
type Seed uint32

// String prints the seed as nft(8) does.
func (s Seed) String() string { return fmt.Sprintf("0x%08x", uint32(s)) }

// HashMode says which fields of a packet choose its bucket.
type HashMode string

// The hash modes have the names and the meaning of the CLUSTERIP target's --hashmode (iptables-extensions(8)).
const (
	SourceIP                   HashMode = "sourceip"
	SourceIPSourcePort         HashMode = "sourceip-sourceport"
	SourceIPSourcePortDestPort HashMode = "sourceip-sourceport-destport"
)

const (
	jhashInitval       = 0xdeadbeef // JHASH_INITVAL, include/linux/jhash.h
	defaultSeedInitval = 0x636c7573 // any constant, the same in every version
	bytesPerWord       = 4
	wordsPerRound      = 3 // of jhash

	maxAddressWords = 4 // IPv6
	maxPortWords    = 2
)

// HashModes returns all hash modes.
func HashModes() []HashMode {
	return []HashMode{SourceIP, SourceIPSourcePort, SourceIPSourcePortDestPort}
}

// PortWords returns the number of 32-bit words that the mode hashes beside the source address.
func (m HashMode) PortWords() int {
	switch m {
	case SourceIPSourcePort:
		return 1
	case SourceIPSourcePortDestPort:
		return maxPortWords
	default:
		return 0
	}
}

// Ports reports whether the mode uses ports.
func (m HashMode) Ports() bool { return m.PortWords() > 0 }

// Flow is what the hash uses of a packet. The ports are 0 if the packet has none or hides them: ICMP, other protocols, and every fragment
// (the first too, so that all fragments reach one node).
type Flow struct {
	Source          netip.Addr
	SourcePort      uint16
	DestinationPort uint16
}

// HashCompat is the kernel module whose buckets ours equal, so that old and new nodes can serve one address together. It makes no
// difference for IPv6.
type HashCompat string

// The modules.
const (
	XTCluster HashCompat = "xt_cluster" // iptables' match cluster (net/netfilter/xt_cluster.c)
	ClusterIP HashCompat = "clusterip"  // iptables' target CLUSTERIP (net/ipv4/netfilter/ipt_CLUSTERIP.c of Linux 6.2)
)

// HashCompats returns all of them.
func HashCompats() []HashCompat { return []HashCompat{XTCluster, ClusterIP} }

// BucketOf returns the bucket, 0..n-1, that must answer a packet: reciprocal_scale(jhash(words, seed), n), as
// net/netfilter/nft_hash.c computes it. Jhash reads words in the kernel's own byte order, so all nodes must have the same; only
// sourceip with the CLUSTERIP target's hash does not depend on it.
func BucketOf(mode HashMode, compat HashCompat, flow Flow, seed Seed, n uint32) Bucket {
	words := make([]uint32, 0, maxAddressWords+maxPortWords)
	if source := flow.Source.Unmap(); compat == ClusterIP && source.Is4() {
		words = append(words, wordsOf(source, binary.BigEndian)...) // the target hashes the address in host order
	} else {
		words = append(words, wordsOf(source, binary.NativeEndian)...)
	}
	for _, port := range []uint16{flow.SourcePort, flow.DestinationPort}[:mode.PortWords()] {
		raw := binary.BigEndian.AppendUint16(nil, port) // at the start of its register
		words = append(words, binary.NativeEndian.Uint32(append(raw, 0, 0)))
	}
	return Bucket(ReciprocalScale(Jhash(uint32(seed), words...), n))
}

// wordsOf returns an address as 32-bit words.
func wordsOf(address netip.Addr, order binary.ByteOrder) []uint32 {
	var words []uint32
	for word := range slices.Chunk(address.Unmap().AsSlice(), bytesPerWord) {
		words = append(words, order.Uint32(word))
	}
	return words
}

// Jhash is Bob Jenkins' lookup3 for 32-bit words, as jhash2() in include/linux/jhash.h, and jhash() for the bytes that the words are
// in the kernel's byte order.
func Jhash(seed uint32, words ...uint32) uint32 {
	initial := jhashInitval + uint32(len(words))*bytesPerWord + seed
	abc := [wordsPerRound]uint32{initial, initial, initial}
	for len(words) > wordsPerRound {
		for i := range abc {
			abc[i] += words[i]
		}
		abc = jhashMix(abc[0], abc[1], abc[2])
		words = words[wordsPerRound:]
	}
	for i, word := range words {
		abc[i] += word
	}
	return jhashFinal(abc[0], abc[1], abc[2])
}

// jhashMix is __jhash_mix of include/linux/jhash.h.
func jhashMix(a, b, c uint32) [wordsPerRound]uint32 {
	a -= c
	a ^= bits.RotateLeft32(c, 4)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 6)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 8)
	b += a
	a -= c
	a ^= bits.RotateLeft32(c, 16)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 19)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 4)
	b += a
	return [wordsPerRound]uint32{a, b, c}
}

// jhashFinal is __jhash_final of include/linux/jhash.h.
func jhashFinal(a, b, c uint32) uint32 {
	c ^= b
	c -= bits.RotateLeft32(b, 14)
	a ^= c
	a -= bits.RotateLeft32(c, 11)
	b ^= a
	b -= bits.RotateLeft32(a, 25)
	c ^= b
	c -= bits.RotateLeft32(b, 16)
	a ^= c
	a -= bits.RotateLeft32(c, 4)
	b ^= a
	b -= bits.RotateLeft32(a, 14)
	c ^= b
	c -= bits.RotateLeft32(b, 24)
	return c
}

// ReciprocalScale maps a hash evenly to 0..n-1 without a division (include/linux/kernel.h, reciprocal_scale).
func ReciprocalScale(hash, n uint32) uint32 {
	return uint32(uint64(hash) * uint64(n) >> 32)
}

// PortlessSeed is the seed with which the hash of the source address alone equals the mode's own hash with ports of 0.
// jhash starts from the seed plus the length, and a word of 0 behind the address changes nothing else. So the seed corrects the length.
func PortlessSeed(mode HashMode, seed Seed) Seed {
	return seed + Seed(bytesPerWord*mode.PortWords())
}

// ZeroWordSeed replaces the seed 0, which cannot be set in nf_tables: google/nftables leaves it out, and the kernel then picks a random one
// on each node. With a zero word appended before hashing, it gives the hash of seed 0, as long as that word does not begin a new round of
// jhash.
const ZeroWordSeed Seed = -bytesPerWord & 0xffffffff

// ZeroSeedFits reports whether the mode supports the seed 0, see ZeroWordSeed.
func ZeroSeedFits(mode HashMode) bool { return mode.PortWords() < maxPortWords }

// DefaultSeed derives the seed from the address alone, so that it is the same on all nodes, whatever their byte order.
func DefaultSeed(address netip.Addr) Seed {
	return max(1, Seed(Jhash(defaultSeedInitval, wordsOf(address, binary.LittleEndian)...)))
}

// IsGuessable reports whether somebody who knows the first shared address finds the seed with few attempts.
func IsGuessable(seed Seed, address netip.Addr) bool {
	const attempts = 1 << 16
	return seed < attempts || seed == DefaultSeed(address)
}

// FirstPublic returns the first of the addresses that can be reached from the Internet (IANA's registries of special-purpose addresses).
func FirstPublic(addresses []netip.Addr) (netip.Addr, bool) {
	for _, address := range addresses {
		isSpecial := func(network string) bool { return netip.MustParsePrefix(network).Contains(address) }
		if address.IsGlobalUnicast() && !address.IsPrivate() && !slices.ContainsFunc([]string{
			"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
			"64:ff9b:1::/48", "100::/64", "2001:2::/48", "2001:db8::/32", "3fff::/20", "5f00::/16",
		}, isSpecial) {
			return address, true
		}
	}
	return netip.Addr{}, false
}
