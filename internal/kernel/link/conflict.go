package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/ndp"

	"ocf-clusterip/internal/clusterip"
)

// answerTime is how long other hosts have to answer. A host on the same LAN needs less than a millisecond, but a proxy waits for up to
// 0.8 s, in case the host itself answers (proxy_delay in arp(7), also for neighbour discovery).
const answerTime = time.Second

// Conflicts implements clusterip.LinkKernel. It asks for all addresses at once.
func (c *Conn) Conflicts(ctx context.Context, layout clusterip.Layout) ([]clusterip.Conflict, error) {
	addresses := layout.Addresses()
	conflicts, errs := make([][]clusterip.Conflict, len(addresses)), make([]error, len(addresses))
	var all sync.WaitGroup
	for i, address := range addresses {
		all.Go(func() {
			var err error
			if conflicts[i], err = c.conflictsOf(ctx, layout, address); err != nil {
				errs[i] = fmt.Errorf("look for other hosts with %s on %s: %w", address, layout.NIC, err)
			}
		})
	}
	all.Wait()
	return slices.Concat(conflicts...), errors.Join(errs...)
}

func (c *Conn) conflictsOf(ctx context.Context, layout clusterip.Layout, address netip.Addr) ([]clusterip.Conflict, error) {
	if address.Is4() {
		own, err := c.ownIPv4(ctx, layout.NICIndex, address)
		if err != nil {
			return nil, err
		}
		s, err := c.openARP(layout.NICIndex)
		if err != nil {
			return nil, err
		}
		defer s.Close() //nolint:errcheck // the messages were sent
		return s.conflicts(ctx, address, own, layout.MACs.IPv4)
	}
	s, err := c.openNDP(layout.NICIndex, ndp.LinkLocal)
	if err != nil { // the interface has no link-local address, or none that is usable yet
		s, err = c.openNDP(layout.NICIndex, ndp.Unspecified)
	}
	if err != nil {
		return nil, err
	}
	defer s.Close() //nolint:errcheck // the messages were sent
	return s.conflicts(ctx, address, layout.MACs.IPv6)
}

// collect reads messages until the deadline, and returns the MACs that they contain for the address, except for the shared one.
func collect(address netip.Addr, shared clusterip.MAC, receive func() ([]clusterip.MAC, error)) ([]clusterip.Conflict, error) {
	var conflicts []clusterip.Conflict
	for {
		macs, err := receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return conflicts, nil
		}
		if err != nil {
			return conflicts, err
		}
		for _, mac := range macs {
			conflict := clusterip.Conflict{Address: address, MAC: mac}
			if mac != shared && !slices.Contains(conflicts, conflict) {
				conflicts = append(conflicts, conflict)
			}
		}
	}
}

// deadlineIn is the end of a wait, or of the context.
func deadlineIn(ctx context.Context, wait time.Duration) time.Time {
	deadline := time.Now().Add(wait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		return d
	}
	return deadline
}
