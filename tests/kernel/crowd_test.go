//go:build system

package kernel

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// atOnce calls for many buckets at the same time, as Pacemaker does.
func atOnce(buckets int, call func(bucket int) error) error {
	errs := make([]error, buckets)
	var all sync.WaitGroup
	for bucket := range buckets {
		all.Go(func() { errs[bucket] = call(bucket) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// TestSixtyFourInstancesAtOnce starts, monitors and stops 64 instances at the same time, round after round.
func TestSixtyFourInstancesAtOnce(t *testing.T) {
	const buckets, rounds = 64, 3
	n := newLAN(t, lan.Options{Nodes: 1})
	a := newAgent(t, n.Nodes[0], buckets, webIP("arp_count", "1"))
	clean, err := a.Host.Dump()
	check(t, err)
	for round := range rounds {
		each := func(action string, want ocf.ExitCode) func(int) error {
			return func(bucket int) error {
				if err := status(a.call(action, bucket), want); err != nil {
					return fmt.Errorf("round %d, %s of bucket %d: %w", round, action, bucket, err)
				}
				return nil
			}
		}
		check(t, atOnce(buckets, each("start", ocf.Success)))
		if owned := a.owned(t); owned != buckets {
			t.Fatalf("round %d: %d of %d buckets are owned", round, owned, buckets)
		}
		check(t, atOnce(buckets, each("monitor", ocf.Success)))
		// Half of them stop while the other half is started once more.
		check(t, atOnce(buckets, func(bucket int) error {
			return each([]string{"start", "stop"}[bucket%2], ocf.Success)(bucket)
		}))
		if owned := a.owned(t); owned != buckets/2 {
			t.Fatalf("round %d: %d buckets are owned after half of them were stopped", round, owned)
		}
		check(t, atOnce(buckets, func(bucket int) error {
			return each("monitor", []ocf.ExitCode{ocf.Success, ocf.NotRunning}[bucket%2])(bucket)
		}))
		check(t, atOnce(buckets, each("stop", ocf.Success)))
		check(t, atOnce(buckets, each("monitor", ocf.NotRunning)))
	}
	after, err := a.Host.Dump()
	check(t, err)
	if after != clean {
		t.Errorf("something is left (-before +after):\n%s", changes(clean, after))
	}
	a.checkNoFiles(t, "afterwards")
}

// owned counts the buckets that the kernel lets in.
func (a *agent) owned(t *testing.T) int {
	t.Helper()
	r := a.Host.Run(
		t.Context(),
		[]string{"PATH=/usr/sbin:/sbin"},
		"/usr/sbin/nft",
		"list",
		"set",
		"netdev",
		"clusterip-"+shared.String(),
		"owned",
	)
	check(t, status(r, ocf.Success))
	return strings.Count(r.Stdout, `comment "web-ip:`)
}

// TestProbesSeeNoHalfDoneWork probes a bucket that never runs while the only other one is started and stopped.
func TestProbesSeeNoHalfDoneWork(t *testing.T) {
	const rounds = 100
	n := newLAN(t, lan.Options{Nodes: 1})
	a := newAgent(t, n.Nodes[0], 8, webIP("arp_count", "0"))
	for round := range rounds {
		check(t, atOnce(4, func(i int) error {
			switch i {
			case 0:
				return errors.Join(status(a.start(1), ocf.Success), status(a.stop(1), ocf.Success))
			default:
				if err := status(a.monitor(1+i), ocf.NotRunning); err != nil {
					return fmt.Errorf("round %d: %w", round, err)
				}
				return nil
			}
		}))
	}
}
