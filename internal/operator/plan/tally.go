package plan

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"

	"ocf-clusterip/internal/clusterip"
)

// MaxClients is how many clients a Tally counts one by one, in about 130 MB of memory. Of further clients it counts only the requests of
// each bucket.
const MaxClients = 1_000_000

// Tally counts the requests of clients, one for each line of a log. Its memory is bounded, however long the log is.
type Tally struct {
	Lines   uint64
	Without uint64 // lines without an address
	Unfit   uint64 // lines whose address cannot be a client's: loopback, unspecified, multicast, broadcast
	Astray  uint64 // lines of clients whose IP version no shared address has

	layout     clusterip.Layout
	has4, has6 bool // a shared address has this IP version
	most       int
	ipv4       map[uint32]uint64
	ipv6       map[[16]byte]uint64
	others     []uint64 // for each bucket, the requests of clients beyond the most
}

// NewTally returns an empty tally for up to so many clients. The layout determines the bucket of each client; if it hashes networks, each
// network counts as one client. It must not hash ports, which logs do not contain. All lines of a log count as requests for a listed
// service.
func NewTally(layout clusterip.Layout, mostClients int) *Tally {
	layout.Services = nil
	return &Tally{
		layout: layout, has4: layout.Has(netip.Addr.Is4), has6: layout.Has(netip.Addr.Is6), most: mostClients,
		ipv4: map[uint32]uint64{}, ipv6: map[[16]byte]uint64{}, others: make([]uint64, layout.Buckets),
	}
}

const chunk = 256 << 10 // bytes that are read at once; the rest of a longer line is ignored

// CompressedError means that a log must be unpacked first.
type CompressedError struct{ Unpacker string } // the command that writes it unpacked

func (*CompressedError) Error() string { return "is compressed" }

// Read counts the lines of a log, and reports its progress from time to time.
func (t *Tally) Read(from io.Reader, progress func(bytes int64)) error {
	lines := bufio.NewReaderSize(from, chunk)
	const longestHead = 6
	head, _ := lines.Peek(longestHead) // an error comes again
	if unpacker, packed := unpackerOf(head); packed {
		return &CompressedError{unpacker}
	}
	read, isRest := int64(0), false
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 && !isRest {
			t.count(line)
		}
		isRest = errors.Is(err, bufio.ErrBufferFull)
		before := read
		if read += int64(len(line)); read/chunk > before/chunk {
			progress(read)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil && !isRest:
			return err
		}
	}
}

// unpackerOf detects the compression of a log by its first bytes: RFC 1952, RFC 8878, and the formats' own descriptions.
func unpackerOf(head []byte) (unpacker string, packed bool) {
	for begin, unpacker := range map[string]string{
		"\x1f\x8b": "zcat", "\xfd7zXZ": "xzcat", "\x28\xb5\x2f\xfd": "zstdcat", "\x04\x22\x4d\x18": "lz4cat", "PK\x03\x04": "unzip -p",
	} {
		if bytes.HasPrefix(head, []byte(begin)) {
			return unpacker, true
		}
	}
	level, isBzip := bytes.CutPrefix(head, []byte("BZh"))
	if isBzip && len(level) > 0 && level[0] >= '1' && level[0] <= '9' {
		return "bzcat", true
	}
	return "", false
}

// count counts a line.
func (t *Tally) count(line []byte) {
	t.Lines++
	address, ok := FirstAddress(line)
	switch {
	case !ok:
		t.Without++
		return
	case !isClients(address):
		t.Unfit++
		return
	case address.Is4() && !t.has4 || address.Is6() && !t.has6:
		t.Astray++
		return
	}
	if bits := t.layout.HashPrefixes.Of(address); bits < address.BitLen() {
		address = netip.PrefixFrom(address, bits).Masked().Addr()
	}
	if address.Is4() {
		octets := address.As4()
		add(t, t.ipv4, binary.BigEndian.Uint32(octets[:]), address)
		return
	}
	add(t, t.ipv6, address.As16(), address)
}

func isClients(address netip.Addr) bool {
	return !address.IsLoopback() && !address.IsUnspecified() && !address.IsMulticast() &&
		address != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func add[K comparable](t *Tally, clients map[K]uint64, key K, address netip.Addr) {
	if len(t.ipv4)+len(t.ipv6) >= t.most {
		if _, known := clients[key]; !known {
			t.others[t.bucket(address)]++
			return
		}
	}
	clients[key]++
}

func (t *Tally) bucket(address netip.Addr) clusterip.Bucket {
	return t.layout.BucketOf(clusterip.Packet{Flow: clusterip.Flow{Source: address}})
}

// A client is one that is counted individually, or a network of clients.
type client struct {
	address  netip.Addr
	requests uint64
}

// clients yields the clients that are counted individually.
func (t *Tally) clients(yield func(client) bool) {
	for key, requests := range t.ipv4 {
		if !yield(client{netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, key))), requests}) {
			return
		}
	}
	for key, requests := range t.ipv6 {
		if !yield(client{netip.AddrFrom16(key), requests}) {
			return
		}
	}
}

// name returns the client's address or network.
func (t *Tally) name(c client) string {
	if bits := t.layout.HashPrefixes.Of(c.address); bits < c.address.BitLen() {
		return netip.PrefixFrom(c.address, bits).String()
	}
	return c.address.String()
}

// heaviest returns the clients with the most requests, the most first.
func (t *Tally) heaviest(count int) []client {
	heavier := func(a, b client) int {
		return cmp.Or(cmp.Compare(b.requests, a.requests), a.address.Compare(b.address))
	}
	var top []client
	for c := range t.clients {
		if len(top) >= 2*count { // sorted seldom
			slices.SortFunc(top, heavier)
			top = top[:count]
		}
		top = append(top, c)
	}
	slices.SortFunc(top, heavier)
	return top[:min(count, len(top))]
}

// complete reports whether every client is counted individually.
func (t *Tally) complete() bool {
	return !slices.ContainsFunc(t.others, func(requests uint64) bool { return requests > 0 })
}

// Load is the number of clients and of their requests.
type Load struct {
	Clients  int    `json:"clients"`
	Requests uint64 `json:"requests"`
}

// Loads returns the load of each bucket.
func (t *Tally) Loads() []Load {
	loads := make([]Load, t.layout.Buckets)
	for c := range t.clients {
		bucket := &loads[t.bucket(c.address)]
		bucket.Clients++
		bucket.Requests += c.requests
	}
	for bucket, requests := range t.others {
		loads[bucket].Requests += requests
	}
	return loads
}
