package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Traffic implements clusterip.TrafficKernel.
func (c *Conn) Traffic(ctx context.Context, layout clusterip.Layout) (*clusterip.Traffic, error) {
	name := tableName(layout.Address())
	traffic := &clusterip.Traffic{}
	err := c.Consistently(ctx, "the counters of table "+name, func() error {
		tables, err := c.readOnce(ctx, name)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if t.family == nft.TableFamilyNetdev {
				traffic.Foreign = t.foreign()
			}
		}
		traffic.Buckets, err = c.ownedCounts(ctx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return traffic, nil
}

// ownedCounts reads what the elements of set owned have counted.
func (c *Conn) ownedCounts(ctx context.Context, name string) (map[clusterip.Bucket]clusterip.Count, error) {
	counts := map[clusterip.Bucket]clusterip.Count{}
	replies, err := c.request(ctx, unix.NFT_MSG_GETSETELEM, nft.TableFamilyNetdev, netlink.Dump, text(unix.NFTA_SET_ELEM_LIST_TABLE, name),
		text(unix.NFTA_SET_ELEM_LIST_SET, setOwned))
	if errors.Is(err, unix.ENOENT) {
		return counts, nil
	}
	if err == nil {
		err = eachAttribute(replies, func(_ int, a *netlink.AttributeDecoder) {
			if a.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return
			}
			a.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(e *netlink.AttributeDecoder) error { return addCount(counts, e) })
				}
				return nil
			})
		})
	}
	if err != nil {
		return nil, explain(fmt.Errorf("counters of set %s of table netdev %s: %w", setOwned, name, err))
	}
	return counts, nil
}

// foreign adds up what the rules have dropped that end the way of foreign packets.
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

// addCount reads an element's key and counter.
func addCount(into map[clusterip.Bucket]clusterip.Count, element *netlink.AttributeDecoder) error {
	var key []byte
	var count clusterip.Count
	for element.Next() {
		switch element.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			element.Nested(func(data *netlink.AttributeDecoder) error {
				for data.Next() {
					if data.Type() == unix.NFTA_DATA_VALUE {
						key = data.Bytes()
					}
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_EXPR:
			element.Nested(func(e *netlink.AttributeDecoder) error {
				for e.Next() {
					if e.Type() == unix.NFTA_EXPR_DATA {
						e.Nested(func(data *netlink.AttributeDecoder) error {
							for data.Next() {
								switch data.Type() {
								case unix.NFTA_COUNTER_PACKETS:
									count.Packets = data.Uint64()
								case unix.NFTA_COUNTER_BYTES:
									count.Bytes = data.Uint64()
								}
							}
							return nil
						})
					}
				}
				return nil
			})
		}
	}
	if len(key) != keyLength {
		return nil
	}
	bucket := clusterip.Bucket(binary.NativeEndian.Uint32(key))
	if _, twice := into[bucket]; twice {
		return errTorn
	}
	into[bucket] = count
	return nil
}

var _ clusterip.TrafficKernel = (*Conn)(nil)
