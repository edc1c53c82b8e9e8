package clusterip

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// Bucket is the number of a hash bucket, 0..N-1, equal to Pacemaker's clone instance number.
type Bucket uint32

// Seed is the initial value of the hash. All nodes must use the same one. It is never 0: google/nftables leaves a seed
// of 0 out of its message, and the kernel then picks a random one on each node.
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

	wordsOfSourceIP              = 1
	wordsOfSourceIPSourcePort    = 2
	wordsOfSourceIPSourceAndDest = 3
)

// HashModes are all of them.
func HashModes() []HashMode {
	return []HashMode{SourceIP, SourceIPSourcePort, SourceIPSourcePortDestPort}
}

// Words is the number of 32-bit words that the mode hashes.
func (m HashMode) Words() int {
	switch m {
	case SourceIPSourcePort:
		return wordsOfSourceIPSourcePort
	case SourceIPSourcePortDestPort:
		return wordsOfSourceIPSourceAndDest
	default:
		return wordsOfSourceIP
	}
}

// Ports tells whether the mode looks at ports.
func (m HashMode) Ports() bool { return m.Words() > wordsOfSourceIP }

// Flow is what the hash may see of a packet. The ports are 0 for everything that carries none or hides them: ICMP, every
// fragment of a fragmented datagram (the first included, so that all of them reach one node), other protocols.
type Flow struct {
	Source          netip.Addr // IPv4
	SourcePort      uint16
	DestinationPort uint16
}

// Owner returns the bucket, 0..n-1, that must answer a packet: reciprocal_scale(jhash(words, seed), n), as
// net/netfilter/nft_hash.c computes it. Every node gets the same result, whatever its byte order.
func Owner(mode HashMode, flow Flow, seed Seed, n uint32) Bucket {
	source := flow.Source.Unmap().As4()
	words := [wordsOfSourceIPSourceAndDest]uint32{
		binary.LittleEndian.Uint32(source[:]),
		uint32(bits.ReverseBytes16(flow.SourcePort)),
		uint32(bits.ReverseBytes16(flow.DestinationPort)),
	}
	return Bucket(ReciprocalScale(Jhash(uint32(seed), words[:mode.Words()]...), n))
}

// Jhash is Bob Jenkins' lookup3 for up to three 32-bit words, as jhash() in include/linux/jhash.h computes it for 4, 8 or
// 12 bytes. It takes the packet's own bytes read as little-endian integers. More than three words panic.
func Jhash(seed uint32, words ...uint32) uint32 {
	initial := jhashInitval + uint32(len(words))*bytesPerWord + seed
	abc := [wordsOfSourceIPSourceAndDest]uint32{initial, initial, initial}
	for i, word := range words {
		abc[i] += word
	}
	return jhashFinal(abc[0], abc[1], abc[2])
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
// jhash starts from seed + 4 bytes a word, and a word of 0 changes nothing else; so the seed makes up for the length.
func PortlessSeed(mode HashMode, seed Seed) Seed {
	return seed + Seed(bytesPerWord*(mode.Words()-wordsOfSourceIP))
}

// DefaultSeed derives the seed from the address, so that all nodes agree without being told.
func DefaultSeed(address netip.Addr) Seed {
	bytes := address.Unmap().As4()
	return max(1, Seed(Jhash(defaultSeedInitval, binary.LittleEndian.Uint32(bytes[:]))))
}
