package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"

	"ocf-clusterip/internal/clusterip"
)

// requestPause is the time between two requests of a takeover. Less than clusterip.PassTime, so that packets are passed on without a pause.
const requestPause = 10 * time.Millisecond

// RequestTakeover implements clusterip.TakeoverKernel.
func (c *Conn) RequestTakeover(
	ctx context.Context, layout clusterip.Layout, bucket clusterip.Bucket, offers []clusterip.Offer,
) (confirmed int, err error) {
	t, err := c.openTakeover(layout, bucket)
	if err != nil {
		return 0, err
	}
	defer func() { _ = t.conn.Close() }()
	t.open = offers
	for len(t.open) > 0 {
		if err := t.round(ctx); err != nil {
			return len(t.confirmed), err
		}
		t.dropEnded(time.Now())
	}
	for begin := time.Now(); len(t.confirmed) > 0 && time.Since(begin) < t.settleTime(); {
		if err := t.round(ctx); err != nil {
			return len(t.confirmed), err
		}
	}
	return len(t.confirmed), nil
}

// EndTakeover implements clusterip.TakeoverKernel.
func (c *Conn) EndTakeover(ctx context.Context, layout clusterip.Layout, bucket clusterip.Bucket, offers []clusterip.Offer) error {
	if err := clusterip.Pause(ctx, clusterip.SettleTime); err != nil {
		return err
	}
	t, err := c.openTakeover(layout, bucket)
	if err != nil {
		return err
	}
	defer func() { _ = t.conn.Close() }()
	return t.send(offers, clusterip.TakeoverDone)
}

func (c *Conn) openTakeover(layout clusterip.Layout, bucket clusterip.Bucket) (*takeoverRequests, error) {
	nic, err := c.netInterface(layout.NICIndex)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(nic, packet.Raw, clusterip.TakeoverEtherType, nil)
	if err != nil {
		return nil, fmt.Errorf("take over bucket %d on %s: %w", bucket, nic.Name, err)
	}
	return &takeoverRequests{conn: conn, own: nic.HardwareAddr, bucket: bucket}, nil
}

// takeoverRequests is one takeover. Requests that were confirmed are repeated, so that the old owner goes on passing packets on.
type takeoverRequests struct {
	conn      *packet.Conn
	own       net.HardwareAddr
	bucket    clusterip.Bucket
	open      []clusterip.Offer // not yet confirmed
	confirmed []clusterip.Offer
	sent      []time.Time   // the requests, by their numbers
	lag       time.Duration // the longest that a confirmation took
}

// settleTime returns how long to wait after the confirmation (clusterip.SettleTime).
func (t *takeoverRequests) settleTime() time.Duration {
	return min(max(clusterip.SettleTime, clusterip.SettleLags*t.lag), clusterip.LongestSettle)
}

// round sends all requests, and reads confirmations until the next round.
func (t *takeoverRequests) round(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, offers := range [][]clusterip.Offer{t.open, t.confirmed} {
		if err := t.send(offers, clusterip.TakeoverRequested); err != nil {
			return err
		}
	}
	deadline := deadlineIn(ctx, requestPause)
	if err := t.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	buffer := make([]byte, ethernetMinimum)
	for time.Now().Before(deadline) {
		n, _, err := t.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for bucket %d: %w", t.bucket, err)
		}
		if wasOpen := len(t.open) > 0; t.read(buffer[:n]) && wasOpen {
			return nil
		}
	}
	return nil
}

// send sends a frame for each offer.
func (t *takeoverRequests) send(offers []clusterip.Offer, kind uint32) error {
	number := uint32(len(t.sent))
	t.sent = append(t.sent, time.Now())
	for _, offer := range offers {
		frame, err := (&ethernet.Frame{
			Destination: ethernet.Broadcast, Source: t.own, EtherType: clusterip.TakeoverEtherType,
			Payload: clusterip.TakeoverFrame(offer.Key, t.bucket, kind, number),
		}).MarshalBinary()
		if err != nil {
			return err
		}
		if _, err := t.conn.WriteTo(frame, &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
			return fmt.Errorf("take over bucket %d: %w", t.bucket, err)
		}
	}
	return nil
}

// ethernetMinimum is the length of the shortest frame, without its checksum; longer ones are cut off.
const ethernetMinimum = 60

// read reports whether no request is open after a frame was read.
func (t *takeoverRequests) read(raw []byte) bool {
	var frame ethernet.Frame
	if frame.UnmarshalBinary(raw) != nil || frame.EtherType != clusterip.TakeoverEtherType {
		return false
	}
	var open []clusterip.Offer
	for _, offer := range t.open {
		if clusterip.ConfirmsTakeover(frame.Payload, offer.Key, t.bucket) {
			t.confirmed = append(t.confirmed, offer)
		} else {
			open = append(open, offer)
		}
	}
	t.open = open
	for _, offer := range t.confirmed {
		number, ok := clusterip.TakeoverNumber(frame.Payload)
		if ok && clusterip.ConfirmsTakeover(frame.Payload, offer.Key, t.bucket) && int(number) < len(t.sent) {
			t.lag = max(t.lag, time.Since(t.sent[number]))
		}
	}
	return len(open) == 0
}

// dropEnded forgets requests for what lingers no longer.
func (t *takeoverRequests) dropEnded(now time.Time) {
	var open []clusterip.Offer
	for _, offer := range t.open {
		if now.Before(offer.Ends) {
			open = append(open, offer)
		}
	}
	t.open = open
}
