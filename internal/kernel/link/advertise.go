package link

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/mdlayher/ndp"

	"ocf-clusterip/internal/clusterip"
)

// An announcer sends the shared MAC of an address to all hosts of the LAN.
type announcer interface {
	announce(address netip.Addr, mac clusterip.MAC) error
	io.Closer
}

// Advertise implements clusterip.LinkKernel, by gratuitous ARP requests (RFC 5227 section 2.3) and unsolicited neighbour advertisements
// (RFC 4861 section 7.2.6). Only the message contains the shared MAC: the Ethernet source is the interface's own MAC, so no switch learns
// the shared one.
func (c *Conn) Advertise(ctx context.Context, layout clusterip.Layout, announcements clusterip.Advertisements) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("announce the shared MAC on %s: %w", layout.NIC, err)
		}
	}()
	if announcements.Count == 0 {
		return nil
	}
	addresses := layout.Addresses()
	announcers := make([]announcer, len(addresses))
	for i, address := range addresses {
		if announcers[i], err = c.openAnnouncer(layout.NICIndex, address); err != nil {
			return err
		}
		defer announcers[i].Close() //nolint:errcheck // the messages were sent
	}
	for n := range announcements.Count {
		if n > 0 {
			if err := clusterip.Pause(ctx, announcements.Interval); err != nil {
				return err
			}
		}
		for i, address := range addresses {
			if err := announcers[i].announce(address, layout.MACs.Of(address)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Conn) openAnnouncer(nicIndex int, address netip.Addr) (announcer, error) {
	if address.Is4() {
		return c.openARP(nicIndex)
	}
	return c.openNDP(nicIndex, ndp.Addr(address.String()))
}
