package agent

import (
	"context"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// needsEarlyDrop reports whether the BPF program has to be attached as a layout requests it.
func (s *session) needsEarlyDrop(layout clusterip.Layout) bool {
	early := s.state.EarlyDrop
	return layout.DropsEarly() && (!early.Judges() || early.NICIndex != layout.NICIndex || early.Remembers < layout.Remember ||
		layout.EarlyDrop != clusterip.EarlyDropAuto && layout.EarlyDrop != early.Attached)
}

// attachEarlyDrop attaches the BPF program, and observes the node again. It returns EarlyDropOff if the program cannot be attached and need
// not be.
func (s *session) attachEarlyDrop(ctx context.Context, layout clusterip.Layout) (clusterip.EarlyDrop, error) {
	if layout.Backend != clusterip.NFTables {
		return clusterip.EarlyDropOff, nil
	}
	nic, _ := s.state.NICAt(layout.NICIndex)
	hadLink := s.state.LinkFault(nic) == ""
	attached, reasons, err := s.Kernel.AttachEarlyDrop(ctx, s.state, layout)
	if err != nil {
		return "", err
	}
	s.Log.Infof("early_drop on %s: %s%s", layout.NIC, attached, strings.Join(append([]string{""}, reasons...), "; "))
	if err := s.observe(ctx); err != nil {
		return "", err
	}
	if hadLink {
		if err := s.awaitLink(ctx, layout.NICIndex); err != nil {
			return "", err
		}
	}
	if attached == clusterip.EarlyDropOff {
		return attached, nil
	}
	return layout.EarlyDrop, nil
}

const (
	linkPatience = 10 * time.Second // longer than a link takes to come up again
	linkPause    = 20 * time.Millisecond
)

// awaitLink observes the node until an interface has its link again, or for long enough: some drivers stop the interface for a moment to
// attach an XDP program, and a start whose interface has no link fails.
func (s *session) awaitLink(ctx context.Context, nicIndex int) error {
	waiting, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	for {
		nic, exists := s.state.NICAt(nicIndex)
		if !exists || s.state.LinkFault(nic) == "" || clusterip.Pause(waiting, linkPause) != nil {
			return nil
		}
		if err := s.observe(ctx); err != nil {
			return err
		}
	}
}

// settleEarlyDrop removes from the BPF program the buckets that the node serves no more. The tables must have been observed.
func (s *session) settleEarlyDrop(ctx context.Context) error {
	if err := s.observeEarlyDrop(ctx); err != nil {
		return err
	}
	steps := clusterip.PlanEarlyDrop(s.state)
	for _, step := range steps {
		if err := s.apply(ctx, step); err != nil {
			return err
		}
	}
	if len(steps) == 0 {
		return nil
	}
	if err := s.observeTables(ctx); err != nil {
		return err
	}
	return s.observeEarlyDrop(ctx)
}

// observeEarlyDrop reads again what the BPF program passes to the tables.
func (s *session) observeEarlyDrop(ctx context.Context) (err error) {
	installed := s.state.Tables.Installed
	if installed == nil || !installed.DropsEarly() {
		return nil
	}
	nic, _ := s.state.NICAt(installed.NICIndex)
	s.state.EarlyDrop, err = s.Kernel.ObserveEarlyDrop(ctx, installed.Addresses(), installed, []clusterip.NIC{nic})
	return err
}

// trySettleEarlyDrop calls settleEarlyDrop where its failure makes no action fail: the tables drop these packets.
func (s *session) trySettleEarlyDrop(ctx context.Context) {
	if err := s.settleEarlyDrop(ctx); err != nil {
		s.Log.Warningf("%v; the next monitor reports it, and start repairs it", err)
	}
}
