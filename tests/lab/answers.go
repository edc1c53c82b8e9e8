package lab

import (
	"context"
	"net/netip"
	"slices"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/lan"
)

// Bucket is a client's at the address that a resource has first, by the resource's default settings.
func Bucket(address, client netip.Addr, buckets int) int {
	return int(
		clusterip.BucketOf(
			clusterip.SourceIP, clusterip.XTCluster, clusterip.Flow{Source: client}, clusterip.DefaultSeed(address), uint32(buckets),
		),
	)
}

// ExactlyOnce asks an address from the client's sources. The error lists the questions that were not answered exactly once, by the
// node that owner returns.
func (l *Lab) ExactlyOnce(ctx context.Context, target netip.Addr, sources []netip.Addr, owner func(client netip.Addr) string) error {
	report, err := l.Network.Probe(ctx, lan.Traffic{Target: target, Sources: sources, Retries: 2})
	if err != nil {
		return err
	}
	return report.ExactlyOnce(func(f lan.Flow) int {
		return slices.IndexFunc(l.Hosts, func(h *Host) bool { return h.Name == owner(f.Src) })
	})
}
