package clusterip

import "context"

// Count is the value of a counter of the kernel.
type Count struct{ Packets, Bytes uint64 }

// Plus adds two counters.
func (c Count) Plus(other Count) Count {
	return Count{Packets: c.Packets + other.Packets, Bytes: c.Bytes + other.Bytes}
}

// Traffic is how many packets for a resource's addresses the kernel has counted on this node.
type Traffic struct {
	Buckets map[Bucket]Count // of each owned bucket, since it is owned
	Foreign Count            // dropped as foreign, since the tables were installed, also by the BPF program
	Early   Count            // of these, dropped by the BPF program
}

// TrafficKernel is the part of a Kernel that counts packets.
type TrafficKernel interface {
	// Traffic returns the counters; nil if the layout's backend counts nothing.
	Traffic(ctx context.Context, layout Layout) (*Traffic, error)
}

// Traffic implements TrafficKernel.
func (b *Backends) Traffic(ctx context.Context, layout Layout) (*Traffic, error) {
	if counting, ok := b.kernel(layout.Backend).(TrafficKernel); ok {
		return counting.Traffic(ctx, layout)
	}
	return nil, nil //nolint:nilnil // the CLUSTERIP target does not count
}
