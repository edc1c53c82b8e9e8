package link

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/mdlayher/ndp"

	"ocf-clusterip/internal/clusterip"
)

// An advertiser sends the shared MAC of an address to all hosts of the LAN.
type advertiser interface {
	advertise(address netip.Addr, mac clusterip.MAC) error
	io.Closer
}

// Advertise implements clusterip.LinkKernel, by gratuitous ARP requests (RFC 5227 section 2.3) and unsolicited neighbour advertisements
// (RFC 4861 section 7.2.6). Only the message contains the shared MAC: the Ethernet source is the interface's own MAC, so no switch learns
// the shared one.
func (c *Conn) Advertise(ctx context.Context, layout clusterip.Layout, advertisements clusterip.Advertisements) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("advertise the shared MAC on %s: %w", layout.NIC, err)
		}
	}()
	if advertisements.Count == 0 {
		return nil
	}
	addresses := layout.Addresses()
	advertisers := make([]advertiser, len(addresses))
	for i, address := range addresses {
		if advertisers[i], err = c.openAdvertiser(layout.NICIndex, address); err != nil {
			return err
		}
		defer advertisers[i].Close() //nolint:errcheck // the messages were sent
	}
	for n := range advertisements.Count {
		if n > 0 {
			if err := clusterip.Pause(ctx, advertisements.Interval); err != nil {
				return err
			}
		}
		for i, address := range addresses {
			if err := advertisers[i].advertise(address, layout.MACs.Of(address)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Conn) openAdvertiser(nicIndex int, address netip.Addr) (advertiser, error) {
	if address.Is4() {
		return c.openARP(nicIndex)
	}
	return c.openNDP(nicIndex, ndp.Addr(address.String()))
}
