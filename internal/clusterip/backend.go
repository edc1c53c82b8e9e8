package clusterip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"ocf-clusterip/internal/ocf"
)

// Backend is what filters packets.
type Backend string

// The backends.
const (
	Auto     Backend = "auto"
	NFTables Backend = "nftables"
	Match    Backend = "xt_cluster" // iptables' match
	Target   Backend = "clusterip"  // iptables' target
)

// MaxMatchBuckets is how many buckets the match supports (XT_CLUSTER_NODES_MAX in include/uapi/linux/netfilter/xt_cluster.h).
const MaxMatchBuckets = 32

// MaxTargetBuckets is how many buckets the target supports (CLUSTERIP_MAX_NODES in
// include/uapi/linux/netfilter_ipv4/ipt_CLUSTERIP.h).
const MaxTargetBuckets = 16

// Answer is whether a kernel supports something.
type Answer int

// The answers.
const (
	Unknown Answer = iota
	Yes
	No
)

// Backends is a TableKernel that consists of all backends. It uses the one in which an address is installed.
type Backends struct {
	NFTables, Match, Target TableKernel
	installed               map[netip.Addr]Backend // in which an address was last observed or installed
}

// backends returns all backends, the best first.
func backends() []Backend { return []Backend{NFTables, Match, Target} }

// ObserveTables implements TableKernel. An address is in one backend only, so it reads the next one only if the one before has nothing, or
// does not exist in this kernel.
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
		if tables.Present || len(tables.Conflicting) > 0 {
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
	if b.installed == nil {
		b.installed = map[netip.Addr]Backend{}
	}
	b.installed[address] = backend
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
	case InstallTables:
		b.remember(step.Layout.Address(), step.Layout.Backend)
		return b.kernel(step.Layout.Backend).ApplyTables(ctx, step)
	case ChangeBuckets:
		return b.kernel(b.installed[step.Address]).ApplyTables(ctx, step)
	case ExpectTakeover:
		return b.kernel(step.Layout.Backend).ApplyTables(ctx, step)
	case RemoveTables:
		return b.kernel(b.installed[step.Address]).ApplyTables(ctx, step)
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

// Choose returns the backend for a layout: the first that supports it, or else the first of which that is unknown. It also returns why not
// those before it.
func (b *Backends) Choose(ctx context.Context, layout Layout) (chosen Backend, reasons []string, err error) {
	var faults []error
	var perhaps []Backend
	for _, backend := range backends() {
		answer, why := b.can(ctx, backend, layout)
		switch answer {
		case Yes:
			return backend, reasons, nil
		case Unknown:
			perhaps = append(perhaps, backend)
			reasons = append(reasons, fmt.Sprintf("unknown whether %s is supported: %s", backend, ocf.OneLine(why.Error())))
		case No:
			reasons = append(reasons, fmt.Sprintf("not %s: %s", backend, ocf.OneLine(why.Error())))
		}
		faults = append(faults, fmt.Errorf("%s: %w", backend, why))
	}
	if len(perhaps) > 0 {
		return perhaps[0], reasons, nil
	}
	return "", reasons, ocf.Errorf(ocf.ErrInstalled, "no backend supports this: %w", errors.Join(faults...))
}

// WhyNoLinger implements Kernel.
func (b *Backends) WhyNoLinger(ctx context.Context, layout Layout) error {
	answer, why := b.can(ctx, NFTables, layout)
	if answer == Yes {
		return nil
	}
	return why
}

// can returns whether a backend supports a layout, and this kernel the backend.
func (b *Backends) can(ctx context.Context, backend Backend, layout Layout) (Answer, error) {
	if err := layout.Fits(backend); err != nil {
		return No, err
	}
	return b.kernel(backend).Supports(ctx, layout)
}
