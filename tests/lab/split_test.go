//go:build system

package lab

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"ocf-clusterip/tests/lan"
	"ocf-clusterip/tests/probe"
)

// part cuts the management network between two hosts. Both still reach the power switch.
func (s *scenario) part(a, b *Host) {
	s.t.Helper()
	for _, pair := range [][2]*Host{{a, b}, {b, a}} {
		for _, command := range [][]string{
			{"nft", "add", "table", "ip", "split"},
			{"nft", "add", "chain", "ip", "split", "input", "{ type filter hook input priority 0; }"},
			{"nft", "add", "rule", "ip", "split", "input", "ip", "saddr", s.Network.ManagementAddr(pair[1].index).String(), "drop"},
		} {
			run(s.t, pair[0], command...)
		}
	}
}

// Two nodes that both reach the power switch, and not each other: one is fenced, and the one whose fencing is delayed wins.
func TestSplitOfTwoNodes(t *testing.T) {
	t.Parallel()
	s := playIn(t, Options{Nodes: 2, StayOff: true})
	s.pcs("stonith", "update", "power", "pcmk_delay_base=node1:3s;node2:0s")
	check(t, s.WaitIdle(t.Context()))
	s.step("management network parted", func() {
		since := s.Now()
		s.part(s.Hosts[0], s.Hosts[1])
		s.fenced(s.Hosts[1], since)
	}, "node1")
	if !s.Hosts[0].Fenced().IsZero() {
		t.Error("node1 is fenced too")
	}
	s.exactlyOnce(shared, buckets)
	s.step("node2 switched on", func() {
		check(t, s.Hosts[1].On(t.Context()))
		run(t, s.Hosts[0], "nft", "delete", "table", "ip", "split")
		check(t, s.WaitOnline(t.Context()))
	}, "node1", "node2")
	s.end()
}

// Without fencing, two nodes may answer. This also shows that the probe detects two answers.
func TestWithoutFencing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		nodes int
		fail  func(*scenario) error
		safe  bool // whether no client can get two answers
	}{
		{"two nodes, management network parted", 2, func(s *scenario) error { return s.Hosts[1].Cut(lan.ManagementNIC) }, false},
		{"three nodes, one hangs", 3, func(s *scenario) error { return s.Hosts[1].Hang() }, false},
		{"three nodes, one cut off", 3, func(s *scenario) error { return s.Hosts[1].Cut(lan.ManagementNIC) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := playIn(t, Options{Nodes: row.nodes, NoFencing: true})
			s.probe.Mark(row.name)
			check(t, row.fail(s))
			s.takenOver(s.Hosts[0], s.Hosts[1].Name)
			time.Sleep(time.Second) // both sides have asked and answered, if both do
			log, summary := s.stop()
			duplicates := log.Of(probe.Duplicate)
			if len(duplicates) == 0 && !row.safe {
				t.Error("no client was answered twice")
			}
			if len(duplicates) > 0 {
				first, last := duplicates[0].At, duplicates[len(duplicates)-1].At
				t.Logf("answered twice: %d times, from %.2f s to %.2f s after it", summary.Total.Duplicates,
					(first - summary.Effects[len(summary.Effects)-1].At).Seconds(), (last - summary.Effects[len(summary.Effects)-1].At).Seconds())
			}
		})
	}
}

// takenOver waits until, in a host's status, all buckets are active, and none on a lost node.
func (s *scenario) takenOver(as *Host, lost string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	for {
		status, err := as.Status(ctx)
		if err == nil {
			placement := status.Placement(resource)
			if len(placement) == buckets && status.Shares(resource)[lost] == 0 {
				return
			}
			err = fmt.Errorf("the buckets are at %v", placement)
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			s.t.Fatal(errors.Join(ctx.Err(), err))
		}
	}
}
