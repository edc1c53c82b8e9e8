package clusterip

import "context"

// Count is what a counter of the kernel holds.
type Count struct{ Packets, Bytes uint64 }

// Plus adds two counters.
func (c Count) Plus(other Count) Count {
	return Count{Packets: c.Packets + other.Packets, Bytes: c.Bytes + other.Bytes}
}

// Traffic is what the kernel has counted of the packets for a resource's addresses on this node.
type Traffic struct {
	Buckets map[Bucket]Count // of each owned bucket, since it was taken
	Foreign Count            // dropped, because another node answers it; since the rules were laid
}

// TrafficKernel is the part of a Kernel that counts packets.
type TrafficKernel interface {
	// Traffic returns what was counted; nil where the layout's backend counts nothing.
	Traffic(ctx context.Context, layout Layout) (*Traffic, error)
}

// Traffic implements TrafficKernel.
func (b *Backends) Traffic(ctx context.Context, layout Layout) (*Traffic, error) {
	if counting, ok := b.kernel(layout.Backend).(TrafficKernel); ok {
		return counting.Traffic(ctx, layout)
	}
	return nil, nil //nolint:nilnil // the CLUSTERIP target does not count
}
