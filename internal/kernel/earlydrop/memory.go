package earlydrop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// connection is struct connection of the program.
type connection struct {
	Client, Address  [16]byte // an IPv4 address is the last four bytes
	ClientPort, Port [2]byte
}

// slot is struct slot of the program.
type slot struct{ Mark, Next, Expected, Renewed uint32 }

// The lowest bits of a slot's mark.
const (
	progress   = 3
	remembered = 2
	ended      = 3
)

// placesOf returns where the program keeps the slot and the mark of a connection, and the mark, without the progress.
func (m *memory) placesOf(c connection) (s *slot, at *uint32, mark uint32) {
	word := func(b [16]byte) (words [4]uint32) {
		for i := range words {
			words[i] = binary.NativeEndian.Uint32(b[i*wordBytes:])
		}
		return words
	}
	client, address := word(c.Client), word(c.Address)
	// In an IPv4 address the first three words are 0, which change nothing.
	from := client[3] ^ bits.RotateLeft32(client[0], 7) ^ bits.RotateLeft32(client[1], 13) ^ bits.RotateLeft32(client[2], 19)
	to := address[0] ^ address[1] ^ address[2] ^ address[3]
	ports := uint32(binary.NativeEndian.Uint16(c.ClientPort[:]))<<16 | uint32(binary.NativeEndian.Uint16(c.Port[:]))
	hash := scatter(uint64(from^bits.RotateLeft32(to, 16))<<32 | uint64(ports))
	return &m.Slot[hash>>(64-slotBits)], &m.Mark[hash>>(64-slotBits-markBits)&(1<<markBits-1)], uint32(hash) &^ progress
}

// scatter is that of the program.
func scatter(word uint64) uint64 {
	const shift, first, second = 33, 0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53
	word = (word ^ word>>shift) * first
	word = (word ^ word>>shift) * second
	return word ^ word>>shift
}

// numbersOf returns what the client's last segment showed.
func (m *memory) numbersOf(c connection) clusterip.Numbers {
	s, _, mark := m.placesOf(c)
	n := clusterip.Numbers{Next: s.Next, Expected: s.Expected}
	n.Known = atomic.LoadUint32(&s.Mark) == mark|remembered
	return n
}

// told is struct told of the program.
type told struct {
	Connections  uint64
	When         int64 // Unix time in nanoseconds, when the last ones were told
	Microseconds uint64
}

// makeConnections makes the map of connections. One for no connections has one element, which the program leaves alone.
func makeConnections(remembers int) (*ebpf.Map, error) {
	read, err := spec()
	if err != nil {
		return nil, err
	}
	of := read.Maps[nameConnections]
	of.MaxEntries = uint32(max(remembers, 1))
	made, err := newMap(of)
	if err != nil {
		return nil, fmt.Errorf("make the map %s for %d connections (remember): %w", nameConnections, remembers, err)
	}
	return made, nil
}

// makeMemory makes an empty memory, for that many connections.
func (m *maps) makeMemory(remembers int) error {
	read, err := spec()
	if err != nil {
		return err
	}
	if m.inMemory, err = newMap(read.Maps[nameMemory]); err != nil {
		return fmt.Errorf("make the map %s: %w", nameMemory, err)
	}
	mapped, err := m.mapMemory(m.inMemory)
	if err != nil {
		return err
	}
	m.memory = valueIn[memory](mapped)
	m.MemoryVersion = memoryVersion
	m.connections, err = makeConnections(remembers)
	return err
}

// openMemory opens that of a loaded program, unless it is of another version.
func (m *maps) openMemory() {
	if m.inMemory == nil || m.connections == nil {
		return
	}
	mapped, err := m.mapMemory(m.inMemory)
	opened := valueIn[memory](mapped)
	if err == nil && opened != nil && opened.MemoryVersion == memoryVersion {
		m.memory = opened
	}
}

// remembered returns how many connections the program remembers at most, as far as this version can tell.
func (m *maps) remembered() int {
	if m.memory == nil {
		return 0
	}
	return int(m.Remembers)
}

// size returns how many connections the maps have place for, also if the memory is of another version.
func (m *maps) size() int {
	if m.memory == nil && m.connections != nil && m.connections.MaxEntries() > 1 {
		return int(m.connections.MaxEntries())
	}
	return m.remembered()
}

// withPlaceFor returns the same maps, but a new one for that many connections; and a new memory in place of one of another version.
func (m *maps) withPlaceFor(remembers int) (*maps, error) {
	with := &maps{table: m.table, memory: m.memory, mapSet: m.mapSet}
	if m.memory == nil {
		return with, with.makeMemory(remembers)
	}
	made, err := makeConnections(remembers)
	with.connections = made
	return with, err
}

// closeBut closes what another one does not have, too.
func (m *maps) closeBut(other *maps) {
	for _, each := range m.mapped {
		_ = unix.Munmap(each)
	}
	have := other.all()
	for name, each := range m.all() {
		if *each != *have[name] {
			_ = (*each).Close()
		}
	}
}

// takeConnections makes the program that has replaced another one remember the other's connections, as far as there is place.
func (m *maps) takeConnections(of *maps, remembers int) error {
	if of.connections == m.connections {
		return nil
	}
	m.Remembers = uint32(remembers)
	if of.memory == nil {
		return nil
	}
	all, err := of.list()
	if remembers == 0 || err != nil {
		return err
	}
	for _, each := range all {
		if err := m.connections.Put(each, uint32(0)); err != nil {
			return fmt.Errorf("remember a connection: %w", err)
		}
	}
	return nil
}

// isShared reports whether another address has a record, too.
func (t *table) isShared(addresses []netip.Addr) bool {
	var own, all int
	for _, address := range addresses {
		if _, _, has := t.find(address); has {
			own++
		}
	}
	for _, numbers := range t.Index {
		for ; numbers != 0; numbers >>= laneBits {
			all++
		}
	}
	return all > own
}

// list returns all connections, of any address.
func (m *maps) list() ([]connection, error) {
	const atOnce = 4096
	var all []connection
	var cursor ebpf.MapBatchCursor
	keys, values := make([]connection, atOnce), make([]uint32, atOnce)
	for {
		n, err := m.connections.BatchLookup(&cursor, keys, values, nil)
		all = append(all, keys[:n]...)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return all, nil
		}
		if err != nil {
			return all, fmt.Errorf("read the remembered connections: %w", err)
		}
	}
}

func keyOf(c clusterip.Connection) connection {
	key := connection{Client: bytesOf(c.Client.Addr()), Address: bytesOf(c.Local.Addr())}
	binary.BigEndian.PutUint16(key.ClientPort[:], c.Client.Port())
	binary.BigEndian.PutUint16(key.Port[:], c.Local.Port())
	return key
}

func bytesOf(address netip.Addr) (b [16]byte) {
	raw := address.AsSlice()
	copy(b[len(b)-len(raw):], raw)
	return b
}

// to returns it as a connection to an address, which has the same bytes.
func (c connection) to(address netip.Addr) clusterip.Connection {
	client, _ := netip.AddrFromSlice(c.Client[len(c.Client)-len(address.AsSlice()):])
	return clusterip.Connection{
		Client: netip.AddrPortFrom(client, binary.BigEndian.Uint16(c.ClientPort[:])),
		Local:  netip.AddrPortFrom(address, binary.BigEndian.Uint16(c.Port[:])),
	}
}

// withMemoryOf calls a function with the maps of the program on the layout's interface, if its memory is of this version.
func (c *Conn) withMemoryOf(layout clusterip.Layout, do func(*maps) error) error {
	if err := c.checkNamespace(); err != nil {
		return err
	}
	found, err := c.find(layout.NICIndex)
	if err != nil {
		return err
	}
	defer found.close()
	if p, known := found.current(); known && p.maps.memory != nil {
		return do(p.maps)
	}
	return nil
}

// Remembered implements clusterip.MemoryKernel.
func (c *Conn) Remembered(_ context.Context, layout clusterip.Layout) (all []clusterip.Remembered, err error) {
	addresses := map[[16]byte]netip.Addr{}
	for _, address := range layout.Addresses() {
		addresses[bytesOf(address)] = address
	}
	err = c.withMemoryOf(layout, func(m *maps) error {
		if m.Remembers == 0 {
			return nil
		}
		listed, err := m.list()
		for _, each := range listed {
			if address, ours := addresses[each.Address]; ours {
				all = append(all, clusterip.Remembered{Connection: each.to(address), Numbers: m.numbersOf(each)})
			}
		}
		return err
	})
	return all, err
}

// Forget implements clusterip.MemoryKernel.
func (c *Conn) Forget(_ context.Context, layout clusterip.Layout, connections []clusterip.Remembered) error {
	return c.withMemoryOf(layout, func(m *maps) error {
		for _, each := range connections {
			if err := m.connections.Delete(keyOf(each.Connection)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("forget a connection: %w", err)
			}
			// Else the client's answer would renew it.
			s, at, mark := m.placesOf(keyOf(each.Connection))
			atomic.StoreUint32(at, mark|ended)
			atomic.CompareAndSwapUint32(&s.Mark, mark|remembered, 0)
		}
		return nil
	})
}

// Told implements clusterip.MemoryKernel.
func (c *Conn) Told(_ context.Context, layout clusterip.Layout) (sum clusterip.Told, err error) {
	err = c.withMemoryOf(layout, func(m *maps) error {
		if number, _, has := m.find(layout.Address()); has {
			sum = m.Told[number].inGo()
		}
		return nil
	})
	return sum, err
}

// AddTold implements clusterip.MemoryKernel.
func (c *Conn) AddTold(ctx context.Context, layout clusterip.Layout, more clusterip.Told) error {
	return c.locked(ctx, func() error {
		return c.withMemoryOf(layout, func(m *maps) error {
			if number, _, has := m.find(layout.Address()); has {
				t := &m.Told[number]
				t.Connections += uint64(more.Connections)
				t.When, t.Microseconds = more.When.UnixNano(), uint64(more.Took.Microseconds())
			}
			return nil
		})
	})
}

func (t told) inGo() clusterip.Told {
	if t.Connections == 0 {
		return clusterip.Told{}
	}
	return clusterip.Told{
		Connections: int(t.Connections), When: time.Unix(0, t.When), Took: time.Duration(t.Microseconds) * time.Microsecond,
	}
}
