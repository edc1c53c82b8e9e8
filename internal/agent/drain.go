package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// observeAndTidy observes the resource, after it has brought what the tables contain of the interface up to date (clusterip.PlanInterface)
// and has cleaned up after drains that the kernel has ended because their time was over. Neither may make the action fail.
func (s *session) observeAndTidy(ctx context.Context) error {
	if err := s.observe(ctx); err != nil {
		return err
	}
	if step, changed := clusterip.PlanInterface(s.state); changed {
		s.Log.Infof("%s: updating what the tables contain of %s: ports of a bond %v, MAC %s", clusterip.Joined(s.spec.Addresses), step.Layout.NIC,
			step.Layout.Ports, step.Layout.Lingers)
		if err := s.apply(ctx, step); err != nil {
			s.Log.Warningf("%v", err)
		}
		if err := s.observe(ctx); err != nil {
			return err
		}
	}
	ended := s.state.Tables.Moves.EndedDrains()
	if len(ended) == 0 {
		return nil
	}
	if err := s.endDrains(ctx, ended); err != nil {
		s.Log.Warningf("cannot clean up after the drains of buckets %s: %v", clusterip.FormatBuckets(ended), err)
	}
	return s.observe(ctx)
}

// endAtOnce is how many drains are ended while the lock is held. The next action ends the others.
const endAtOnce = 16

// endDrains ends drains, and with the last one removes everything if no bucket is owned.
//
// The announcements are cleared first: while one remains, other nodes wait for connections that are gone. The kernel's record of the drains
// goes last: if the process is killed before, the next action does everything again.
func (s *session) endDrains(ctx context.Context, buckets []clusterip.Bucket) error {
	buckets = buckets[:min(len(buckets), endAtOnce)]
	tables := s.state.Tables
	s.endConnections(ctx, tables, buckets)
	soon, cancel := context.WithTimeout(ctx, lockedTime)
	defer cancel()
	s.clearAnnouncements(soon, s.spec.Address(), s.state.LayoutIdentity(s.spec), buckets)
	moves := tables.Moves.Without(buckets...)
	if len(tables.Owned)+len(moves.Draining) == 0 {
		return s.remove(ctx, s.spec.PlanRemoval(s.state))
	}
	if err := s.apply(ctx, clusterip.ChangeBuckets{Address: s.spec.Address(), Resource: s.spec.Resource, Moves: &moves}); err != nil {
		return err
	}
	if err := s.observeTables(ctx); err != nil {
		return err
	}
	return s.settleEarlyDrop(ctx)
}

// endConnections ends the connections of buckets that the node no longer serves. A conntrack entry that outlives its connection would make
// a later connection of the same client seem known here when the bucket comes back. But a bucket that is stopped because its tables are
// damaged is started again at once, mostly on this node, and keeps its connections.
func (a Agent) endConnections(ctx context.Context, tables clusterip.Tables, buckets []clusterip.Bucket) {
	if len(buckets) == 0 || tables.Installed == nil || !tables.Installed.Drains || len(tables.Faults) > 0 {
		return
	}
	if err := a.Kernel.EndConnections(ctx, *tables.Installed, buckets); err != nil {
		a.Log.Warningf("cannot end all connections of buckets %s, which this node no longer serves: %v", clusterip.FormatBuckets(buckets), err)
	}
}

// endHandshakes leaves no incomplete handshake of a bucket that was released, and keeps conntrack entries for its connections until the
// drain ends. When it returns, this node answers no client that the new owner may answer too.
func (a Agent) endHandshakes(ctx context.Context, layout clusterip.Layout, drain clusterip.Drain) {
	err := a.Kernel.EndHandshakes(ctx, layout, drain.Bucket)
	if err == nil {
		err = a.Kernel.KeepEntries(ctx, layout, map[clusterip.Bucket]time.Duration{drain.Bucket: drain.Left})
	}
	if err != nil {
		a.Log.Warningf("bucket %d: connections that are idle, or whose handshake is incomplete, may break: %v", drain.Bucket, err)
	}
}

// idleDrains returns the drains that have no connection left, and none if the connections cannot be counted. It keeps conntrack entries for
// the connections of the others.
func (a Agent) idleDrains(ctx context.Context, tables clusterip.Tables) ([]clusterip.Drain, error) {
	if len(tables.Moves.Draining) == 0 || tables.Installed == nil {
		return nil, nil
	}
	left := map[clusterip.Bucket]time.Duration{}
	for _, d := range tables.Moves.Draining {
		left[d.Bucket] = d.Left
	}
	keepErr := a.Kernel.KeepEntries(ctx, *tables.Installed, left)
	connections, err := a.Kernel.Connections(ctx, *tables.Installed)
	if err != nil {
		return nil, fmt.Errorf("cannot count connections; drains will run to their timeout: %w", err)
	}
	isBusy := func(d clusterip.Drain) bool {
		_, lingers := tables.Lingers(d.Bucket)
		return lingers || connections[d.Bucket] > 0
	}
	return slices.DeleteFunc(slices.Clone(tables.Moves.Draining), isBusy), keepErr
}
