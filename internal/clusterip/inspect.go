package clusterip

import (
	"context"

	"ocf-clusterip/internal/ocf"
)

// Inspection is what is so of a resource on this node, and what should not be.
type Inspection struct {
	Layout Layout // as it is laid, or else as it would be
	Tables Tables
	Faults []string // where the node has buckets: what keeps it from serving them, see Faults
	Left   []string // where it has none: what of the resource is on it all the same, see Leftovers
}

// Inspect looks at a resource. It takes no lock and changes nothing, so that it may come upon an action that is half done.
func (a Agent) Inspect(ctx context.Context, spec Spec) (Inspection, error) {
	seen, err := a.observe(ctx, spec)
	if err != nil {
		return Inspection{}, err
	}
	inspection := Inspection{Layout: spec.Layout(), Tables: seen.Tables}
	asked, resolveErr := spec.Resolve(seen)
	switch {
	case len(seen.Tables.Owned) == 0 && len(seen.Tables.Moves.Draining) == 0:
		inspection.Left = Leftovers(seen, spec.NIC)
	case resolveErr != nil:
		inspection.Faults = append(seen.Tables.Damage, ocf.OneLine(resolveErr.Error()))
	default:
		inspection.Faults = Faults(seen, asked, spec.CheckLink)
	}
	switch {
	case seen.Tables.Laid != nil:
		inspection.Layout = *seen.Tables.Laid
	case resolveErr == nil:
		inspection.Layout = asked
	}
	return inspection, nil
}

// Spec is what was asked for when the layout was laid, as far as that shows. Its bucket is not known.
func (l Layout) Spec() Spec {
	spec := Spec{
		Resource: l.Resource, Buckets: l.Buckets, Addresses: l.Addresses(), NIC: l.NIC, Backend: l.Backend, MACMode: l.MACMode, MACs: l.MACs,
		HashMode: l.HashMode, HashCompat: l.HashCompat, HashPrefixes: l.HashPrefixes, Seed: l.Seed, Services: l.Services, CheckLink: true,
	}
	if l.Drains {
		spec.Drain = 1 // for how long is not laid, only that it is above 0
	}
	return spec
}
