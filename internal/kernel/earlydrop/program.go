package earlydrop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// The programs' names, as the kernel keeps them. By them, and by the names of their maps, ours are recognised.
const (
	nameXDP     = "clusterip_xdp"
	nameXDPTags = "clusterip_xdpt" // which asks the driver for VLAN tags
	nameTC      = "clusterip_tc"

	// symbolXDPFrags is the variant of XDP that also takes frames in several buffers. It is loaded under the other's name.
	symbolXDPFrags = "clusterip_xdpf"
)

// A place is where a program can be attached.
type place int

const (
	atXDP    place = iota
	atTCX          // tc's list of programs, from Linux 6.6 on
	atFilter       // a filter of the clsact qdisc
)

func (p place) earlyDrop() clusterip.EarlyDrop {
	if p == atXDP {
		return clusterip.EarlyDropXDP
	}
	return clusterip.EarlyDropTC
}

// A program is one of ours that is attached to an interface.
type program struct {
	*ebpf.Program
	place  place
	filter *netlink.BpfFilter // atFilter
	maps   *maps              // nil: it is of another version
	header tableHeader

	asksForTags bool
}

// isReplacedAt reports whether a program that is attached there takes the place of this one.
func (p program) isReplacedAt(at place) bool {
	return p.place == at && (p.filter == nil || p.filter.Priority == filterPriority && p.filter.Handle == filterHandle)
}

func (p program) close() {
	_ = p.Close()
	p.maps.close()
}

// An attachment is what is attached to an interface.
type attachment struct {
	ours  []program
	other ebpf.ProgramID // an XDP program that is not ours; 0: none
}

func (a attachment) close() {
	for _, p := range a.ours {
		p.close()
	}
}

// current returns the first program of this version.
func (a attachment) current() (program, bool) {
	for _, p := range a.ours {
		if p.maps != nil {
			return p, true
		}
	}
	return program{}, false
}

// errGone: a program was detached while it was looked for.
var errGone = errors.New("the program was detached just now")

// find looks for our programs on an interface. One that is replaced meanwhile it looks for again.
func (c *Conn) find(nic int) (found attachment, err error) {
	const tries = 5
	for range tries {
		if found, err = c.findOnce(nic); !errors.Is(err, errGone) {
			break
		}
	}
	return found, err
}

func (c *Conn) findOnce(nic int) (found attachment, err error) {
	defer func() {
		if err != nil {
			found.close()
			found = attachment{}
		}
	}()
	device, err := c.netlink.LinkByIndex(nic)
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
		return found, nil
	}
	if err != nil {
		return found, fmt.Errorf("read interface %d: %w", nic, err)
	}
	if xdp := device.Attrs().Xdp; xdp != nil && xdp.Attached {
		ours, err := found.add(program{place: atXDP}, ebpf.ProgramID(xdp.ProgId))
		if err != nil {
			return found, err
		}
		if !ours {
			found.other = ebpf.ProgramID(xdp.ProgId)
		}
	}
	listed, err := c.listTCX(nic)
	if err == nil {
		for _, p := range listed {
			if _, err := found.add(program{place: atTCX}, p.ID); err != nil {
				return found, err
			}
		}
		return found, nil
	}
	if !errors.Is(err, errNoTCX) {
		return found, err
	}
	filters, err := c.netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return found, fmt.Errorf("list the filters of %s: %w", device.Attrs().Name, err)
	}
	for _, filter := range filters {
		if bpf, ok := filter.(*netlink.BpfFilter); ok && bpf.Id != 0 {
			if _, err := found.add(program{place: atFilter, filter: bpf}, ebpf.ProgramID(bpf.Id)); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// errNoTCX: programs are attached by filters here.
var errNoTCX = errors.New("the kernel has no tcx")

// listTCX lists the programs of tcx. Who may not see them, or has a kernel without BPF, has attached none.
func (c *Conn) listTCX(nic int) ([]link.AttachedProgram, error) {
	if c.oldTC {
		return nil, errNoTCX
	}
	result, err := link.QueryPrograms(link.QueryOptions{Target: nic, Attach: ebpf.AttachTCXIngress})
	switch {
	case err == nil:
		return result.Programs, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return nil, errNoTCX
	case isUnavailable(err), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil, nil
	default:
		return nil, fmt.Errorf("list the programs of tcx on interface %d: %w", nic, err)
	}
}

// add adds a program if it is ours. What this process may not open, it has not attached.
func (a *attachment) add(p program, id ebpf.ProgramID) (ours bool, err error) {
	p.Program, err = ebpf.NewProgramFromID(id)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, errGone
	case isUnavailable(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("open the BPF program %d: %w", id, err)
	}
	info, err := p.Info()
	if err != nil {
		_ = p.Close()
		return false, fmt.Errorf("read the BPF program %d: %w", id, err)
	}
	if !slices.Contains([]string{nameXDP, nameXDPTags, nameTC}, info.Name) {
		return false, p.Close()
	}
	p.asksForTags = info.Name == nameXDPTags
	ids, _ := info.MapIDs()
	if p.maps, p.header, err = openMaps(ids); err != nil {
		_ = p.Close()
		if errors.Is(err, unix.ENOENT) {
			err = errGone
		}
		return false, err
	}
	a.ours = append(a.ours, p)
	return true, nil
}

// describeProgram names a program of somebody else.
func describeProgram(id ebpf.ProgramID) string {
	text := fmt.Sprintf("id %d", id)
	opened, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return text
	}
	defer func() { _ = opened.Close() }()
	if info, err := opened.Info(); err == nil && info.Name != "" {
		text = info.Name + ", " + text
	}
	return text
}

func isUnavailable(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS)
}

// spec reads the object.
func spec() (*ebpf.CollectionSpec, error) {
	read, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read the BPF program that this agent has: %w", err)
	}
	inTable := read.Maps[symbolTable]
	inTable.Name, inTable.Flags, inTable.Contents = nameTable, unix.BPF_F_MMAPABLE, nil
	return read, nil
}

// A variant of a program.
type variant struct {
	symbol string // its name in the object
	name   string // as the kernel keeps it
	frags  bool   // for frames in several buffers
	nic    int    // the interface whose driver it asks for VLAN tags; 0: it does not ask
}

func (v variant) withFrags() variant {
	v.frags = true
	return v
}

// load loads a variant of a program onto maps.
func load(v variant, onto *maps) (*ebpf.Program, error) {
	read, err := spec()
	if err != nil {
		return nil, err
	}
	read.Maps[nameConnections].MaxEntries = onto.connections.MaxEntries()
	wanted := read.Programs[v.symbol]
	wanted.Name = v.name
	if v.nic != 0 {
		if err := callKfunc(wanted, v.nic); err != nil {
			return nil, err
		}
	}
	if v.frags {
		wanted.Flags |= hasFrags
	}
	read.Programs, read.Variables = map[string]*ebpf.ProgramSpec{v.symbol: wanted}, nil
	loaded, err := withMemory(func() (*ebpf.Collection, error) {
		return ebpf.NewCollectionWithOptions(read, ebpf.CollectionOptions{
			MapReplacements: map[string]*ebpf.Map{
				symbolTable: onto.inTable, nameMemory: onto.inMemory, nameDropped: onto.dropped, nameConnections: onto.connections,
			},
		})
	})
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	if info, err := loaded.Programs[v.symbol].Info(); err != nil || info.Name != v.name {
		return nil, errors.Join(err, fmt.Errorf("the kernel keeps the program without its name %s, so it could not be found again", v.name))
	}
	return loaded.DetachProgram(v.symbol), nil
}

// withMemory calls a function without a limit of locked memory. Before Linux 5.11 programs and maps count as such. To set the limit only
// after a failure would not do: where the library cannot make a map to try what the kernel knows, it leaves out names without an error.
func withMemory[T any](do func() (T, error)) (T, error) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited) == nil {
			defer func() { _ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) }() // other processes inherit it
		}
	}
	return do()
}
