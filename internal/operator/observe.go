package operator

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Kernel is what is read of this node.
type Kernel interface {
	Layouts(ctx context.Context) ([]clusterip.Layout, error)
	ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error)
}

// Cluster is what is read of the cluster manager.
type Cluster interface {
	NodeName(ctx context.Context) (string, error)
	Placement(ctx context.Context, resource string) (map[clusterip.Bucket][]string, error)
}

// Observe reads what is known of the resource that has an address, or of the only one there is. Without a cluster manager it knows of this
// node alone, and says why.
func Observe(ctx context.Context, kernel Kernel, cluster Cluster, address netip.Addr) (known Known, why error, err error) {
	layouts, err := kernel.Layouts(ctx)
	if err != nil {
		return known, nil, err
	}
	known.Layout, err = choose(layouts, address)
	if err != nil {
		return known, nil, err
	}
	if known.Here, err = kernel.ObserveTables(ctx, known.Layout.Address()); err != nil {
		return known, nil, err
	}
	if known.Node, why = cluster.NodeName(ctx); why == nil {
		known.Placement, why = cluster.Placement(ctx, known.Layout.Resource)
	}
	return known, why, nil
}

func choose(layouts []clusterip.Layout, address netip.Addr) (clusterip.Layout, error) {
	var there []string
	for _, layout := range layouts {
		if slices.Contains(layout.Addresses(), address) || !address.IsValid() && len(layouts) == 1 {
			return layout, nil
		}
		there = append(there, fmt.Sprint(layout.Address()))
	}
	switch {
	case len(there) == 0:
		return clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs, "no address is shared on this node; ask on one that runs a bucket, or say --buckets and --to")
	case !address.IsValid():
		return clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs, "several addresses are shared on this node; say --to one of %s", strings.Join(there, ", "))
	default:
		return clusterip.Layout{}, ocf.Errorf(ocf.ErrArgs, "%s is not shared on this node; there are %s", address, strings.Join(there, ", "))
	}
}
