package xtcluster

import (
	"context"

	"ocf-clusterip/internal/clusterip"
)

// Traffic implements clusterip.TrafficKernel.
func (c *Conn) Traffic(ctx context.Context, layout clusterip.Layout) (*clusterip.Traffic, error) {
	address := layout.Address()
	r, program, err := c.read(ctx, address)
	if err != nil {
		return nil, err
	}
	traffic := &clusterip.Traffic{Buckets: map[clusterip.Bucket]clusterip.Count{}}
	mark, ok := r.live(address)
	if !ok {
		return traffic, nil
	}
	rules, err := program.CountedRules(table, chainName(address, mark))
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if bucket, ok := bucketOf(rule); ok {
			traffic.Buckets[bucket] = rule.Count()
		} else if rule.IsStamped() {
			traffic.Foreign = rule.Count()
		}
	}
	return traffic, nil
}

var _ clusterip.TrafficKernel = (*Conn)(nil)
