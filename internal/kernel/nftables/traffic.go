package nftables

import (
	"context"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Traffic implements clusterip.TrafficKernel.
func (c *Conn) Traffic(ctx context.Context, layout clusterip.Layout) (*clusterip.Traffic, error) {
	tables, err := c.read(ctx, tableName(layout.Address()))
	if err != nil {
		return nil, err
	}
	traffic := &clusterip.Traffic{Buckets: map[clusterip.Bucket]clusterip.Count{}}
	for _, t := range tables {
		if t.family != nft.TableFamilyNetdev {
			continue
		}
		traffic.Foreign = t.foreign()
		owned, _ := t.set(setOwned)
		for _, e := range owned.elements {
			if !e.all {
				traffic.Buckets[clusterip.Bucket(e.key)] = owned.countOf(e)
			}
		}
	}
	return traffic, nil
}

// countOf decodes the counter of an element. Only status and metrics need it, not each action that reads the set.
func (s set) countOf(e element) clusterip.Count {
	if counter, ok := s.counters[e.key].Decode(unix.NFPROTO_NETDEV).(*expr.Counter); ok {
		return clusterip.Count{Packets: counter.Packets, Bytes: counter.Bytes}
	}
	return clusterip.Count{}
}

// foreign adds up what the rules that drop foreign packets have counted.
func (t table) foreign() clusterip.Count {
	var sum clusterip.Count
	for _, c := range t.chains {
		for _, r := range c.rules {
			for _, e := range r.exprs {
				if counter, ok := e.(*expr.Counter); ok && r.comment == foreignRule().comment {
					sum = sum.Plus(clusterip.Count{Packets: counter.Packets, Bytes: counter.Bytes})
				}
			}
		}
	}
	return sum
}

var _ clusterip.TrafficKernel = (*Conn)(nil)
