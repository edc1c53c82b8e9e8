package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"

	"ocf-clusterip/internal/clusterip"
)

// probeWait is how long strangers have to answer. A host on the same LAN needs less than a millisecond, but who answers in another one's place
// lets that one answer first: for up to 0.8 s (proxy_delay in arp(7), which holds for neighbour discovery too).
const probeWait = time.Second

// Announce tells all neighbours the cluster MAC of each address: by gratuitous ARP requests (RFC 5227 section 2.3), and by
// unsolicited neighbour advertisements (RFC 4861 section 7.2.6). The cluster MAC is in the message only: the Ethernet source is
// the NIC's own, so that no switch learns the cluster MAC.
func (c *Conn) Announce(ctx context.Context, layout clusterip.Layout, announcements clusterip.Announcements) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("announce on %s: %w", layout.NIC, err)
		}
	}()
	if announcements.Count == 0 {
		return nil
	}
	var tell []func() error
	for _, address := range layout.Addresses() {
		if address.Is4() {
			speaker, err := c.speak(layout.NICIndex)
			if err != nil {
				return err
			}
			defer func() { _ = speaker.close() }() // what was sent is sent
			tell = append(tell, func() error { return speaker.request(layout.MACs.IPv4, address, address) })
			continue
		}
		speaker, err := c.speakNDP(layout.NICIndex, ndp.Addr(address.String()))
		if err != nil {
			return err
		}
		defer func() { _ = speaker.close() }()
		tell = append(tell, func() error { return speaker.advertise(address, layout.MACs.IPv6) })
	}
	for i := range announcements.Count {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(announcements.Interval):
			}
		}
		for _, tellOne := range tell {
			if err := tellOne(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Strangers asks the LAN for each address, of all at once, and returns who answers with another MAC than the cluster's.
func (c *Conn) Strangers(ctx context.Context, layout clusterip.Layout) ([]clusterip.Stranger, error) {
	type answer struct {
		strangers []clusterip.Stranger
		err       error
	}
	answers := make(chan answer, len(layout.Prefixes))
	for _, address := range layout.Addresses() {
		go func() {
			strangers, err := c.strangersTo(ctx, layout, address)
			if err != nil {
				err = fmt.Errorf("ask who has %s on %s: %w", address, layout.NIC, err)
			}
			answers <- answer{strangers, err}
		}()
	}
	var all []clusterip.Stranger
	var errs []error
	for range layout.Prefixes {
		a := <-answers
		all, errs = append(all, a.strangers...), append(errs, a.err)
	}
	return all, errors.Join(errs...)
}

func (c *Conn) strangersTo(ctx context.Context, layout clusterip.Layout, address netip.Addr) ([]clusterip.Stranger, error) {
	if address.Is4() {
		speaker, err := c.speak(layout.NICIndex)
		if err != nil {
			return nil, err
		}
		defer func() { _ = speaker.close() }()
		own, err := c.ownAddressOn(ctx, layout.NICIndex, address)
		if err != nil {
			return nil, err
		}
		return speaker.strangersTo(ctx, address, own, layout.MACs.IPv4)
	}
	speaker, err := c.speakNDP(layout.NICIndex, ndp.LinkLocal)
	if err != nil { // the NIC has no link-local address, or none that is usable yet
		speaker, err = c.speakNDP(layout.NICIndex, ndp.Unspecified)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = speaker.close() }()
	return speaker.strangersTo(ctx, address, layout.MACs.IPv6)
}
