package clusterip

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Kernel is what the actions need of the node.
type Kernel interface {
	// Observe returns the state of a resource: of these addresses, the first of which names its tables, and of those that the tables
	// name. It looks for these MACs, and those of the tables, in the interfaces' MAC filters. Whatever cannot be read is an error.
	Observe(ctx context.Context, addresses []netip.Addr, macs []MAC) (State, error)
	// ObserveTables returns only the part of the state that ChangeBuckets changes.
	ObserveTables(ctx context.Context, address netip.Addr) (Tables, error)
	// Apply carries out one step.
	Apply(ctx context.Context, step Step) error
	// Advertise sends gratuitous ARP and unsolicited neighbour advertisements (RFC 5227 section 2.3, RFC 4861 section 7.2.6).
	Advertise(ctx context.Context, layout Layout, announcements Advertisements) error
	// Conflicts asks the network for other hosts that use an address, with another MAC than the shared one.
	Conflicts(ctx context.Context, layout Layout) ([]Conflict, error)
	// Layouts returns the layouts of all resources on this node whose stamp can be read.
	Layouts(ctx context.Context) ([]Layout, error)
	ConnectionKernel
	EarlyDropKernel
	TrafficKernel
	TakeoverKernel
	ClientKernel
	// WhyNoLinger returns why buckets cannot linger on this kernel; nil if they can.
	WhyNoLinger(ctx context.Context, layout Layout) error
	// Choose returns the backend for a layout, and why not another one. See Backends.
	Choose(ctx context.Context, layout Layout) (chosen Backend, reasons []string, err error)
}

// Conflict is another host that uses a shared address.
type Conflict struct {
	Address netip.Addr
	MAC     MAC
}

// TableKernel is the part of a Kernel that filters packets.
type TableKernel interface {
	ObserveTables(ctx context.Context, address netip.Addr) (Tables, error)
	ApplyTables(ctx context.Context, step Step) error
	Layouts(ctx context.Context) ([]Layout, error)
	// Supports returns whether the kernel has what a layout needs, and why not, or why that is unknown.
	Supports(ctx context.Context, layout Layout) (Answer, error)
}

// LinkKernel is the part of a Kernel for interfaces, addresses and MAC filters.
type LinkKernel interface {
	// ObserveLinks returns everything of State but Tables. Where installed is given, the routes need not be read to find the interface.
	ObserveLinks(ctx context.Context, addresses []netip.Addr, macs []MAC, installed *Layout) (State, error)
	ApplyLinks(ctx context.Context, step Step) error
	Advertise(ctx context.Context, layout Layout, announcements Advertisements) error
	Conflicts(ctx context.Context, layout Layout) ([]Conflict, error)
	TakeoverKernel
	ClientKernel
}

// ConnectionKernel is the part of a Kernel that tracks connections.
type ConnectionKernel interface {
	// Connections counts the open connections to the layout's addresses on this node, by bucket.
	Connections(ctx context.Context, layout Layout) (map[Bucket]int, error)
	// OpenConnections lists the open TCP connections to the layout's addresses on this node, as the clients send them.
	OpenConnections(ctx context.Context, layout Layout) ([]Connection, error)
	// KeepEntries makes conntrack keep entries, for that long at least, for the connections of buckets that have a socket on this node.
	KeepEntries(ctx context.Context, layout Layout, left map[Bucket]time.Duration) error
	// EndHandshakes waits for a moment for clients' answers to SYN-ACKs, and then deletes the handshakes that are still incomplete. The
	// bucket must accept no new connections any more.
	EndHandshakes(ctx context.Context, layout Layout, bucket Bucket) error
	// EndConnections ends the connections of buckets that this node no longer serves.
	EndConnections(ctx context.Context, layout Layout, buckets []Bucket) error
}

// Host is a Kernel that consists of its parts.
type Host struct {
	*Backends
	LinkKernel
	ConnectionKernel
	EarlyDropKernel
}

// Observe implements Kernel.
func (h Host) Observe(ctx context.Context, addresses []netip.Addr, macs []MAC) (State, error) {
	tables, err := h.ObserveTables(ctx, addresses[0])
	if err != nil {
		return State{}, err
	}
	addresses, macs = slices.Clone(addresses), slices.Clone(macs)
	if tables.Installed != nil {
		macs = append(macs, tables.Installed.AllMACs()...)
		for _, address := range tables.Installed.Addresses() {
			if !slices.Contains(addresses, address) {
				addresses = append(addresses, address)
			}
		}
	}
	state, err := h.ObserveLinks(ctx, addresses, macs, tables.Installed)
	if err != nil {
		return state, err
	}
	state.Tables = tables
	state.EarlyDrop, err = h.ObserveEarlyDrop(ctx, addresses, tables.Installed, state.earlyDropNICs())
	return state, err
}

// Apply implements Kernel.
func (h Host) Apply(ctx context.Context, step Step) error {
	switch step.(type) {
	case InstallTables, ChangeBuckets, ExpectTakeover, RemoveTables:
		return h.ApplyTables(ctx, step)
	case SetEarlyDrop, RemoveEarlyDrop:
		return h.ApplyEarlyDrop(ctx, step)
	default:
		return h.ApplyLinks(ctx, step)
	}
}

// Traffic implements Kernel.
func (h Host) Traffic(ctx context.Context, layout Layout) (*Traffic, error) {
	traffic, err := h.Backends.Traffic(ctx, layout)
	if err != nil || traffic == nil || !layout.DropsEarly() {
		return traffic, err
	}
	early, err := h.ObserveEarlyDrop(ctx, layout.Addresses(), &layout, []NIC{{Index: layout.NICIndex, Name: layout.NIC}})
	traffic.Early = early.Dropped
	traffic.Foreign = traffic.Foreign.Plus(early.Dropped)
	return traffic, err
}

// Pause waits, or until the context ends: then it returns the context's error.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
