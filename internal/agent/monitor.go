package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
)

// Monitor returns nil if the bucket runs and everything matches what was installed; ocf.NotRunning if the bucket does not run and, unless
// other buckets do, nothing is left on the node; any other error says what is wrong.
//
// It also follows up on the bucket's adoption, and, for the first bucket of the node, on what is the same for all of them.
func (a Agent) Monitor(ctx context.Context, spec clusterip.Spec, level CheckLevel) error {
	var layout clusterip.Layout
	var tables clusterip.Tables
	observed := false
	err := a.alone(ctx, spec, func(s *session) (err error) {
		if err = s.observeAndTidy(ctx); err != nil {
			return err
		}
		observed, tables = true, s.state.Tables
		layout, err = s.judge()
		return err
	})
	if spec.Probe && observed {
		a.publishProbe(ctx, spec, tables)
	}
	if err != nil {
		return err
	}
	if err := a.followUp(ctx, spec, tables); err != nil {
		return err
	}
	if spec.Bucket != slices.Min(tables.Owned) {
		return nil
	}
	if installed := tables.Installed; installed != nil && installed.Drains && spec.Drain == 0 {
		withoutDrain := spec
		withoutDrain.EarlyDrop = installed.EarlyDrop // no monitor attaches the BPF program
		if err := a.Reload(ctx, withoutDrain); err != nil {
			return err
		}
	}
	if level >= NetworkLevel && !wasJustAdded(tables, spec.Bucket) {
		return a.checkConflicts(ctx, layout)
	}
	return nil
}

// wasJustAdded reports whether a bucket was started a moment ago where others run, one of which has asked the network lately. Asking takes
// a second, and on a busy node Pacemaker runs one action at a time: the first monitor would hold up the starts of other buckets.
func wasJustAdded(tables clusterip.Tables, bucket clusterip.Bucket) bool {
	adoption, _ := tables.Moves.Adoption(bucket)
	return len(tables.Owned) > 1 && (slices.Contains(adoption.From, handover.AnyNode) || tables.PassesOn(bucket) > 0)
}

// judge returns the layout that is wanted, and nil only if the bucket runs and nothing is wrong.
func (s *session) judge() (clusterip.Layout, error) {
	tables := s.state.Tables
	layout, resolveErr := s.spec.Resolve(s.state)
	var faults []string
	if resolveErr != nil {
		faults = append(tables.Faults, ocf.OneLine(resolveErr.Error()))
	} else {
		faults = clusterip.Faults(s.state, layout, s.spec.CheckLink)
	}
	bucket := fmt.Sprintf("bucket %d of %s", s.spec.Bucket, s.spec.Address())
	left := clusterip.Leftovers(s.state, s.spec.NIC)
	switch {
	case s.state.Owns(s.spec.Bucket) && len(faults) == 0:
		return layout, nil
	case s.state.Owns(s.spec.Bucket):
		return layout, fmt.Errorf("%s runs, but: %s", bucket, strings.Join(faults, "; "))
	case len(tables.Owned) == 0 && s.state.Serves() && len(tables.Faults) == 0:
		return layout, ocf.Errorf(ocf.NotRunning, "%s does not run here; the node serves connections of buckets %s until they end", bucket,
			clusterip.FormatBuckets(tables.Moves.DrainingBuckets()))
	case len(tables.Owned) > 0:
		return layout, ocf.Errorf(ocf.NotRunning, "%s does not run here; buckets %s do", bucket, clusterip.FormatBuckets(tables.Owned))
	case len(left) > 0:
		return layout, fmt.Errorf("%s does not run, but this is left on the node: %s", bucket, strings.Join(append(left, tables.Faults...), ", "))
	default:
		return layout, ocf.Errorf(ocf.NotRunning, "nothing of %s is here", s.spec.Address())
	}
}

// checkConflicts asks the network whether another host uses an address.
func (a Agent) checkConflicts(ctx context.Context, layout clusterip.Layout) error {
	conflicts, err := a.Kernel.Conflicts(ctx, layout)
	if err != nil || len(conflicts) == 0 {
		return err
	}
	var who []string
	for _, c := range conflicts {
		who = append(who, fmt.Sprintf("MAC %s for %s (ours is %s)", c.MAC, c.Address, layout.MACs.Of(c.Address)))
	}
	return fmt.Errorf("address conflict: another host answers, with %s; find it and remove its address", strings.Join(who, ", "))
}

// Inspection is what status shows of a resource on this node.
type Inspection struct {
	Layout clusterip.Layout // as installed, or else as it would be
	Tables clusterip.Tables
	Early  clusterip.EarlyDropState
	Faults []string // where the node serves buckets: see clusterip.Faults
	Left   []string // where it serves none: see clusterip.Leftovers
}

// Inspect examines a resource. It takes no lock and changes nothing, so it may see an action that is under way.
func (a Agent) Inspect(ctx context.Context, spec clusterip.Spec) (Inspection, error) {
	state, err := Observe(ctx, a.Kernel, spec)
	if err != nil {
		return Inspection{}, err
	}
	inspection := Inspection{Layout: spec.Layout(), Tables: state.Tables, Early: state.EarlyDrop}
	wanted, resolveErr := spec.Resolve(state)
	switch {
	case !state.Serves():
		inspection.Left = clusterip.Leftovers(state, spec.NIC)
	case resolveErr != nil:
		inspection.Faults = append(state.Tables.Faults, ocf.OneLine(resolveErr.Error()))
	default:
		inspection.Faults = clusterip.Faults(state, wanted, spec.CheckLink)
	}
	switch {
	case state.Tables.Installed != nil:
		inspection.Layout = *state.Tables.Installed
	case resolveErr == nil:
		inspection.Layout = wanted
	}
	return inspection, nil
}
