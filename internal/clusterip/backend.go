package clusterip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"ocf-clusterip/internal/ocf"
)

// Backend is the part of the kernel that filters packets.
type Backend string

// The backends.
const (
	Auto     Backend = "auto"
	NFTables Backend = "nftables"
	Target   Backend = "clusterip" // iptables' target
)

// MaxTargetBuckets is how many buckets the CLUSTERIP target can have (CLUSTERIP_MAX_NODES in
// include/uapi/linux/netfilter_ipv4/ipt_CLUSTERIP.h).
const MaxTargetBuckets = 16

// FitsTarget says what of the layout the CLUSTERIP target cannot do (ocf.ErrConfigured).
func (l Layout) FitsTarget() error {
	var faults []error
	unless := func(fits bool, what string, value any) {
		if !fits {
			faults = append(faults, ocf.Errorf(ocf.ErrConfigured, "backend=clusterip cannot do %s %v", what, value))
		}
	}
	unless(len(l.Prefixes) == 1 && l.Address().Is4(), "more than one IPv4 address: ip is", joined(l.Addresses()))
	unless(l.Buckets <= MaxTargetBuckets, fmt.Sprintf("more than %d buckets: clone-max is", MaxTargetBuckets), l.Buckets)
	unless(l.MACMode == Multicast, "anything but mac_mode=multicast: it is", l.MACMode)
	unless(l.HashPrefixes.IPv4 == wholeAddresses.IPv4, "hash_prefix4:", l.HashPrefixes.IPv4)
	unless(len(l.Services) == 0, "services:", joined(l.Services))
	unless(l.HashCompat == ClusterIP, "another hash than hash_compat=clusterip, on all nodes: it is", l.HashCompat)
	return errors.Join(faults...)
}

// Backends is a TableKernel made of all of them: what is there says which one is meant.
type Backends struct {
	NFTables, Target TableKernel
	laid             map[netip.Addr]Backend // which one an address was last seen or laid in
}

// ObserveTables implements TableKernel. A node has an address in one backend only, so the old one is asked only when the new one has
// nothing.
func (b *Backends) ObserveTables(ctx context.Context, address netip.Addr) (Tables, error) {
	tables, err := b.NFTables.ObserveTables(ctx, address)
	if err != nil && ocf.CodeOf(err) != ocf.ErrInstalled { // an old kernel may have no nf_tables at all
		return tables, err
	}
	if tables.Present || len(tables.Foreign) > 0 {
		tables.Backend = NFTables
		b.remember(address, NFTables)
		return tables, nil
	}
	old, oldErr := b.Target.ObserveTables(ctx, address)
	if oldErr != nil {
		return old, errors.Join(err, oldErr)
	}
	if old.Present {
		old.Backend = Target
		b.remember(address, Target)
	}
	return old, nil
}

func (b *Backends) remember(address netip.Addr, backend Backend) {
	if b.laid == nil {
		b.laid = map[netip.Addr]Backend{}
	}
	b.laid[address] = backend
}

func (b *Backends) kernel(backend Backend) TableKernel {
	if backend == Target {
		return b.Target
	}
	return b.NFTables
}

// ApplyTables implements TableKernel.
func (b *Backends) ApplyTables(ctx context.Context, step Step) error {
	switch step := step.(type) {
	case LayTables:
		b.remember(step.Layout.Address(), step.Layout.Backend)
		return b.kernel(step.Layout.Backend).ApplyTables(ctx, step)
	case Own:
		return b.kernel(b.laid[step.Address]).ApplyTables(ctx, step)
	case Disown:
		return b.kernel(b.laid[step.Address]).ApplyTables(ctx, step)
	case RemoveTables:
		return b.kernel(b.laid[step.Address]).ApplyTables(ctx, step)
	default:
		return fmt.Errorf("%s: not a step for tables", step)
	}
}

// Layouts implements TableKernel.
func (b *Backends) Layouts(ctx context.Context) ([]Layout, error) {
	layouts, err := b.NFTables.Layouts(ctx)
	if err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
		return nil, err
	}
	old, err := b.Target.Layouts(ctx)
	return append(layouts, old...), err
}

// Choose says which backend a layout is to be laid in, when it is for the agent to choose: nftables if the kernel has what it needs,
// else the CLUSTERIP target; and why not the others.
func (b *Backends) Choose(ctx context.Context, layout Layout) (chosen Backend, reasons []string, err error) {
	var faults []error
	for _, backend := range []Backend{NFTables, Target} {
		why := b.kernel(backend).Supports(ctx, layout)
		if why == nil {
			return backend, reasons, nil
		}
		reasons = append(reasons, fmt.Sprintf("not %s: %s", backend, ocf.OneLine(why.Error())))
		faults = append(faults, fmt.Errorf("%s: %w", backend, why))
	}
	return "", reasons, ocf.Errorf(ocf.ErrInstalled, "no backend can do this: %w", errors.Join(faults...))
}
