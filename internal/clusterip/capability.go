package clusterip

import (
	"context"
	"slices"
)

// Capability is whether a kernel supports a backend for a layout.
type Capability struct {
	Backend Backend
	Answer  Answer
	Why     error // why the answer is not Yes
}

// Capabilities probes the layout's backend, if it has one, and then the others as Choose does. It stops at the first that is supported,
// because a probe may load modules into the kernel.
func (b *Backends) Capabilities(ctx context.Context, layout Layout) []Capability {
	order := backends()
	if i := slices.Index(order, layout.Backend); i >= 0 {
		order = append([]Backend{layout.Backend}, slices.Delete(order, i, i+1)...)
	}
	var all []Capability
	for _, backend := range order {
		answer, why := b.can(ctx, backend, layout)
		all = append(all, Capability{backend, answer, why})
		if answer == Yes {
			break
		}
	}
	return all
}
