package earlydrop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// The versions of what follows. A program with another table is replaced, and the monitor fails before that: so the table changes as little
// as possible. Another memory only means that nothing is known of connections until the next start.
const (
	tableVersion  = 4
	memoryVersion = 1
)

// What bpf/earlydrop.c has too.
const (
	records   = 256 // also how many addresses there may be
	indexBits = 10
	perIndex  = 4
	laneBits  = 16
	lane      = 1<<laneBits - 1
	slotBits  = 17
	markBits  = 16
)

// table is struct table of the program: memory that it reads while we write. So a word that it may read is written at once (sync/atomic).
type table struct {
	Version   uint32
	MadeQdisc uint32 // 1: the clsact qdisc is ours
	Next      uint32 // the record that is used next, so that one is used again as late as possible
	_         [13]uint32
	Index     [1 << indexBits]uint64
	Record    [records]record
}

// tableHeader is what every version's table begins with.
type tableHeader struct{ Version, MadeQdisc uint32 }

// memory is struct memory of the program, which every version's begins with its version.
type memory struct {
	MemoryVersion uint32
	Remembers     uint32 // how many connections the program remembers at most; 0: none
	_             [14]uint32
	Told          [records]told
	Slot          [1 << slotBits]slot
	Mark          [1 << markBits]uint32
}

// The maps' names: as the kernel keeps them, 15 characters; and in the object.
const (
	nameTable       = "clusterip_table"
	nameMemory      = "clusterip_mem"
	nameDropped     = "clusterip_drop"
	nameConnections = "clusterip_conns"

	symbolTable = ".bss"
)

// maps are those of a program, or of several that follow each other on an interface.
type maps struct {
	*table
	*memory // nil: it is of another version
	mapped  [][]byte
	mapSet
}

// mapSet are the maps themselves. Each may be nil, which can be closed.
type mapSet struct {
	inTable     *ebpf.Map
	inMemory    *ebpf.Map
	dropped     *ebpf.Map
	connections *ebpf.Map
}

// all returns pointers to the maps, by their names.
func (s *mapSet) all() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		nameTable: &s.inTable, nameMemory: &s.inMemory, nameDropped: &s.dropped, nameConnections: &s.connections,
	}
}

func (s *mapSet) close() {
	for _, each := range s.all() {
		_ = (*each).Close()
	}
}

// count is struct count, of one CPU.
type count struct{ Packets, Bytes uint64 }

// makeMaps makes empty ones, for that many connections.
func makeMaps(remembers int) (*maps, error) {
	read, err := spec()
	if err != nil {
		return nil, err
	}
	m := &maps{}
	if m.inTable, err = newMap(read.Maps[symbolTable]); err != nil {
		if !hasBPF() {
			err = unix.ENOSYS // the library takes it for an old kernel
		}
		return nil, fmt.Errorf("make the map %s: %w", nameTable, err)
	}
	if m.dropped, err = newMap(read.Maps[nameDropped]); err != nil {
		m.close()
		return nil, fmt.Errorf("make the map %s: %w", nameDropped, err)
	}
	mapped, err := m.mapMemory(m.inTable)
	m.table = valueIn[table](mapped)
	if err == nil {
		err = m.makeMemory(remembers)
	}
	if err == nil {
		err = m.canBeFound()
	}
	if err != nil {
		m.close()
		return nil, err
	}
	m.Version, m.Remembers = tableVersion, uint32(remembers)
	return m, nil
}

func newMap(of *ebpf.MapSpec) (*ebpf.Map, error) {
	return withMemory(func() (*ebpf.Map, error) { return ebpf.NewMap(of) })
}

// hasBPF reports whether the kernel has the bpf system call.
func hasBPF() bool {
	const noCommand = 1<<31 - 1
	_, _, err := unix.Syscall(unix.SYS_BPF, noCommand, 0, 0)
	return err != unix.ENOSYS
}

// canBeFound returns an error unless this process finds the maps by their numbers and names. CAP_BPF and CAP_NET_ADMIN suffice to attach a
// program, but without CAP_SYS_ADMIN nobody could find and detach it.
func (m *maps) canBeFound() error {
	var ids []ebpf.MapID
	for _, each := range m.all() {
		info, err := (*each).Info()
		if err != nil {
			return fmt.Errorf("read a new map: %w", err)
		}
		id, _ := info.ID()
		ids = append(ids, id)
	}
	found, err := openByName(ids)
	for name, each := range found.all() {
		if err == nil && *each == nil {
			err = fmt.Errorf("the kernel keeps %s without its name", name)
		}
	}
	found.close()
	if err != nil {
		return fmt.Errorf("find the new maps: %w", err)
	}
	return nil
}

// openByName opens those maps that have our names.
func openByName(ids []ebpf.MapID) (found mapSet, err error) {
	defer func() {
		if err != nil {
			found.close()
			found = mapSet{}
		}
	}()
	for _, id := range ids {
		each, err := ebpf.NewMapFromID(id)
		if err != nil {
			return found, fmt.Errorf("open the map %d: %w", id, err)
		}
		info, err := each.Info()
		if err != nil {
			_ = each.Close()
			return found, fmt.Errorf("read the map %d: %w", id, err)
		}
		if ours := found.all()[info.Name]; ours != nil && *ours == nil {
			*ours = each
		} else {
			_ = each.Close()
		}
	}
	return found, nil
}

// openMaps opens the maps of a loaded program. It returns none if their table is of another version, but always the header if there is one.
func openMaps(ids []ebpf.MapID) (opened *maps, header tableHeader, err error) {
	m := &maps{}
	if m.mapSet, err = openByName(ids); err != nil {
		return nil, header, err
	}
	defer func() {
		if opened == nil {
			m.close()
		}
	}()
	if m.inTable == nil {
		return nil, header, nil
	}
	mapped, err := m.mapMemory(m.inTable)
	start := valueIn[tableHeader](mapped)
	if err != nil || start == nil { // of a version whose table is no memory, or frozen by somebody
		return nil, header, nil
	}
	header, m.table = *start, valueIn[table](mapped)
	if header.Version != tableVersion || m.dropped == nil || m.table == nil {
		return nil, header, nil
	}
	m.openMemory()
	return m, header, nil
}

// mapMemory maps the one value of a map.
func (m *maps) mapMemory(of *ebpf.Map) ([]byte, error) {
	size, page := int(of.ValueSize()), os.Getpagesize()
	mapped, err := unix.Mmap(of.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of a map: %w", err)
	}
	m.mapped = append(m.mapped, mapped)
	return mapped[:size], nil
}

// valueIn returns the value at the start of mapped memory; nil if that is shorter.
func valueIn[T any](mapped []byte) *T {
	var value *T
	if len(mapped) < int(unsafe.Sizeof(*value)) {
		return nil
	}
	return (*T)(unsafe.Pointer(&mapped[0])) //nolint:gosec // it is memory that the program reads meanwhile
}

func (m *maps) close() {
	if m == nil {
		return
	}
	for _, each := range m.mapped {
		_ = unix.Munmap(each)
	}
	m.mapped, m.table, m.memory = nil, nil, nil
	m.mapSet.close()
}

// indexOf returns the place of an address in the index.
func (t *table) indexOf(address netip.Addr) *uint64 {
	const factor = 0x9e3779b1 // 2^32 by the golden ratio
	var word uint32
	for raw := range slices.Chunk(address.AsSlice(), wordBytes) {
		word ^= binary.NativeEndian.Uint32(raw)
	}
	return &t.Index[word*factor>>(32-indexBits)] //nolint:mnd // bits of the word
}

// find returns the number of an address's record, and the lowest bit of its lane in the index.
func (t *table) find(address netip.Addr) (number uint32, shift int, has bool) {
	var key [16]byte
	copy(key[:], address.AsSlice())
	for numbers := atomic.LoadUint64(t.indexOf(address)); numbers != 0; numbers >>= laneBits {
		number := uint32(numbers&lane) - 1
		if number < records && t.Record[number].Address == key && t.Record[number].Family == familyOf(address) {
			return number, shift, true
		}
		shift += laneBits
	}
	return 0, 0, false
}

// recordOf returns a copy of the record of an address.
func (t *table) recordOf(address netip.Addr) (r record, number uint32, has bool) {
	if number, _, has = t.find(address); has {
		r = t.Record[number]
	}
	return r, number, has
}

// isIdle reports whether no address has a record.
func (t *table) isIdle() bool {
	return !slices.ContainsFunc(t.Index[:], func(numbers uint64) bool { return numbers != 0 })
}

// set gives addresses their records. Of a record in use it changes only the bitmap. Everything else takes a free one, to which the index
// then leads, so that a packet never meets half a record. What is to pass, passes everywhere before what is to be dropped is.
func (m *maps) set(wanted map[netip.Addr]record) error {
	for address, want := range wanted {
		if err := m.pass(address, want); err != nil {
			return err
		}
	}
	for address, want := range wanted {
		if number, _, has := m.find(address); has {
			for i, word := range want.Passed {
				atomic.StoreUint32(&m.Record[number].Passed[i], word)
			}
		}
	}
	return nil
}

// passAll gives the addresses of a layout that have no record one that passes all buckets, and returns them. So the program is not idle,
// and no other resource detaches it.
func (m *maps) passAll(layout clusterip.Layout) (added []netip.Addr, err error) {
	all := make([]clusterip.Bucket, layout.Buckets)
	for i := range all {
		all[i] = clusterip.Bucket(i)
	}
	wanted := map[netip.Addr]record{}
	for _, address := range layout.Addresses() {
		if _, _, has := m.find(address); !has {
			wanted[address] = recordOf(layout, address, all)
			added = append(added, address)
		}
	}
	return added, m.set(wanted)
}

// pass lets what is wanted to pass also pass.
func (m *maps) pass(address netip.Addr, want record) error {
	number, shift, has := m.find(address)
	if has && m.Record[number].withoutBitmap() == want.withoutBitmap() {
		for i, word := range want.Passed {
			atomic.OrUint32(&m.Record[number].Passed[i], word)
		}
		return nil
	}
	index := m.indexOf(address)
	numbers := atomic.LoadUint64(index)
	if !has {
		for shift = 0; numbers>>shift != 0; shift += laneBits {
			if shift == (perIndex-1)*laneBits {
				return fmt.Errorf("the index of the BPF program has no place for %s: four other addresses have the same place", address)
			}
		}
	}
	free, err := m.take()
	if err != nil {
		return fmt.Errorf("a record for %s: %w", address, err)
	}
	if err := m.inherit(free, number, has); err != nil {
		return fmt.Errorf("a record for %s: %w", address, err)
	}
	m.Record[free] = want
	atomic.StoreUint64(index, numbers&^(lane<<shift)|uint64(free+1)<<shift)
	return nil
}

// inherit gives a record what was counted and told with the one before it.
func (m *maps) inherit(free, old uint32, hasOld bool) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count the processors: %w", err)
	}
	counted := make([]count, cpus)
	if m.memory != nil {
		m.Told[free] = told{}
	}
	if hasOld {
		if m.memory != nil {
			m.Told[free] = m.Told[old]
		}
		if err := m.dropped.Lookup(old, &counted); err != nil {
			return fmt.Errorf("read what was dropped: %w", err)
		}
	}
	if err := m.dropped.Put(free, counted); err != nil {
		return fmt.Errorf("write what was dropped: %w", err)
	}
	return nil
}

// take returns a record that is not in use, and has not been for the longest time.
func (t *table) take() (uint32, error) {
	var used [records]bool
	for _, numbers := range t.Index {
		for ; numbers != 0; numbers >>= laneBits {
			if number := uint32(numbers&lane) - 1; number < records {
				used[number] = true
			}
		}
	}
	for i := range uint32(records) {
		if number := (t.Next + i) % records; !used[number] {
			t.Next = (number + 1) % records
			return number, nil
		}
	}
	return 0, fmt.Errorf("the BPF program has no free record: one interface has %d", records)
}

// remove lets everything to the addresses pass.
func (t *table) remove(addresses []netip.Addr) {
	for _, address := range addresses {
		if _, shift, has := t.find(address); has {
			index := t.indexOf(address)
			numbers := atomic.LoadUint64(index)
			below := uint64(1)<<shift - 1
			// No gap: to the program, a lane of 0 before another one is the last record.
			atomic.StoreUint64(index, numbers&below|numbers>>laneBits&^below)
		}
	}
}

// droppedBy sums what was dropped on all CPUs.
func (m *maps) droppedBy(number uint32) (clusterip.Count, error) {
	var counted []count
	if err := m.dropped.Lookup(number, &counted); err != nil {
		return clusterip.Count{}, fmt.Errorf("read what the BPF program has dropped: %w", err)
	}
	var sum clusterip.Count
	for _, c := range counted {
		sum = sum.Plus(clusterip.Count(c))
	}
	return sum, nil
}
