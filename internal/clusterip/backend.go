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
	Match    Backend = "xt_cluster" // iptables' match
	Target   Backend = "clusterip"  // iptables' target
)

// MaxMatchBuckets is how many buckets the match can tell apart (XT_CLUSTER_NODES_MAX in include/uapi/linux/netfilter/xt_cluster.h).
const MaxMatchBuckets = 32

// MaxTargetBuckets is how many buckets the CLUSTERIP target can have (CLUSTERIP_MAX_NODES in
// include/uapi/linux/netfilter_ipv4/ipt_CLUSTERIP.h).
const MaxTargetBuckets = 16

// Fits says what of the layout its backend, or the given one, cannot do (ocf.ErrConfigured). nftables can do everything.
func (l Layout) Fits(backend Backend) error {
	var faults []error
	unless := func(fits bool, what string, value any) {
		if !fits {
			faults = append(faults, ocf.Errorf(ocf.ErrConfigured, "backend=%s cannot do %s %v", backend, what, value))
		}
	}
	most, compat := uint32(MaxTargetBuckets), ClusterIP
	switch backend {
	case Match:
		most, compat = MaxMatchBuckets, XTCluster
		unless(l.HashMode == SourceIP, "anything but hashmode=sourceip: it is", l.HashMode)
		// ip_rcv drops the frames before the match sees them.
		unless(l.MACMode != Unicast, "mac_mode=unicast: packets for a MAC that is not the NIC's own do not get as far; take multicast or igmp, "+
			"not", l.MACMode)
	case Target:
		unless(l.MACMode == Multicast, "anything but mac_mode=multicast: it is", l.MACMode)
		if len(l.Ports) > 0 { // of another device than the address's it mangles no ARP (arp_mangle in net/ipv4/netfilter/ipt_CLUSTERIP.c)
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "backend=%s cannot keep a bond's ARP monitor from telling neighbours the port's own "+
				"MAC for %s; "+
				"set miimon in place of arp_interval in the configuration of %s, or of the bond below it", backend, l.Address(), l.NIC))
		}
	default:
		return nil
	}
	unless(len(l.Prefixes) == 1 && l.Address().Is4(), "more than one IPv4 address: ip is", Joined(l.Addresses()))
	unless(l.Buckets <= most, fmt.Sprintf("more than %d buckets: clone-max is", most), l.Buckets)
	unless(l.HashPrefixes.IPv4 == wholeAddresses.IPv4, "hash_prefix4:", l.HashPrefixes.IPv4)
	unless(len(l.Services) == 0, "services:", Joined(l.Services))
	unless(!l.Drains, "drain above", 0)
	unless(l.HashCompat == compat, fmt.Sprintf("another hash than hash_compat=%s, on all nodes: it is", compat), l.HashCompat)
	return errors.Join(faults...)
}

// Answer is what a kernel says to the question whether it can do something.
type Answer int

// The answers.
const (
	CannotTell Answer = iota
	Yes
	No
)

// Backends is a TableKernel made of all of them: what is there says which one is meant.
type Backends struct {
	NFTables, Match, Target TableKernel
	laid                    map[netip.Addr]Backend // which one an address was last seen or laid in
}

// backends are those to choose from, the best first.
func backends() []Backend { return []Backend{NFTables, Match, Target} }

// ObserveTables implements TableKernel. A node has an address in one backend only, so the next one is asked only where the one before
// it has nothing, or is not there at all, as may be in an old kernel.
func (b *Backends) ObserveTables(ctx context.Context, address netip.Addr) (Tables, error) {
	var missing []error
	for _, backend := range backends() {
		tables, err := b.kernel(backend).ObserveTables(ctx, address)
		if err != nil && ocf.CodeOf(err) == ocf.ErrInstalled {
			missing = append(missing, err)
			continue
		}
		if err != nil {
			return tables, err
		}
		if tables.Present || len(tables.Foreign) > 0 {
			tables.Backend = backend
			b.remember(address, backend)
			return tables, nil
		}
	}
	if len(missing) == len(backends()) {
		return Tables{}, errors.Join(missing...)
	}
	return Tables{}, nil
}

func (b *Backends) remember(address netip.Addr, backend Backend) {
	if b.laid == nil {
		b.laid = map[netip.Addr]Backend{}
	}
	b.laid[address] = backend
}

func (b *Backends) kernel(backend Backend) TableKernel {
	switch backend {
	case Target:
		return b.Target
	case Match:
		return b.Match
	default:
		return b.NFTables
	}
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
	case Move:
		return b.kernel(b.laid[step.Address]).ApplyTables(ctx, step)
	case RemoveTables:
		return b.kernel(b.laid[step.Address]).ApplyTables(ctx, step)
	default:
		return fmt.Errorf("%s: not a step for tables", step)
	}
}

// Layouts implements TableKernel.
func (b *Backends) Layouts(ctx context.Context) ([]Layout, error) {
	var all []Layout
	for _, backend := range backends() {
		layouts, err := b.kernel(backend).Layouts(ctx)
		if err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
			return nil, err
		}
		all = append(all, layouts...)
	}
	return all, nil
}

// Choose says which backend a layout is to be laid in, when it is for the agent to choose: the first that can do it, or else the first
// of which that cannot be told; and why not the others.
func (b *Backends) Choose(ctx context.Context, layout Layout) (chosen Backend, reasons []string, err error) {
	var faults []error
	var perhaps []Backend
	for _, backend := range backends() {
		answer, why := b.can(ctx, backend, layout)
		switch answer {
		case Yes:
			return backend, reasons, nil
		case CannotTell:
			perhaps = append(perhaps, backend)
			reasons = append(reasons, fmt.Sprintf("cannot tell whether %s would do: %s", backend, ocf.OneLine(why.Error())))
		case No:
			reasons = append(reasons, fmt.Sprintf("not %s: %s", backend, ocf.OneLine(why.Error())))
		}
		faults = append(faults, fmt.Errorf("%s: %w", backend, why))
	}
	if len(perhaps) > 0 {
		return perhaps[0], reasons, nil
	}
	return "", reasons, ocf.Errorf(ocf.ErrInstalled, "no backend can do this: %w", errors.Join(faults...))
}

// can tells whether a backend can do a layout, and this kernel the backend.
func (b *Backends) can(ctx context.Context, backend Backend, layout Layout) (Answer, error) {
	if err := layout.Fits(backend); err != nil {
		return No, err
	}
	return b.kernel(backend).Supports(ctx, layout)
}
