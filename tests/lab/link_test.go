//go:build system

package lab

import (
	"context"
	"errors"
	"testing"
	"time"

	"ocf-clusterip/tests/lan"
)

// The LAN, not the management network: the cluster stays whole, and only the agent's monitor can notice.
func TestLinksFail(t *testing.T) {
	t.Parallel()
	// Until all buckets have left, or failed on each node, no failure may expire.
	s := play(t, "op", "monitor", "interval=2s", "meta", "failure-timeout=20s")
	all := []string{"node1", "node2", "node3"}

	s.probe.Mark("LAN links of node1 and node2 cut")
	check(t, errors.Join(s.Hosts[0].Cut(lan.NIC), s.Hosts[1].Cut(lan.NIC)))
	s.leftFrom("node1")
	s.leftFrom("node2")
	s.answered()
	s.step("both repaired", func() {
		check(t, errors.Join(s.Hosts[0].Repair(t.Context(), lan.NIC), s.Hosts[1].Repair(t.Context(), lan.NIC)))
	}, all...)
	s.exactlyOnce(shared, buckets)

	s.probe.Mark("LAN links of all cut")
	check(t, s.each(func(h *Host) error { return h.Cut(lan.NIC) }))
	s.nowhere()
	s.step("all repaired", func() {
		check(t, s.each(func(h *Host) error { return h.Repair(t.Context(), lan.NIC) }))
	}, all...)
	s.exactlyOnce(shared, buckets)

	s.step("the port of node3 blinks", func() {
		for range 10 {
			check(t, s.Hosts[2].Cut(lan.NIC))
			time.Sleep(300 * time.Millisecond)
			check(t, s.Hosts[2].Repair(t.Context(), lan.NIC))
			time.Sleep(700 * time.Millisecond)
		}
	}, all...)
	s.exactlyOnce(shared, buckets)
	s.end()
}

// nowhere waits until no bucket is active.
func (s *scenario) nowhere() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	_, err := s.WaitFor(ctx, func(status *Status) error {
		if len(status.Placement(resource)) > 0 {
			return errors.New("some buckets are active")
		}
		return nil
	})
	check(s.t, err)
}
