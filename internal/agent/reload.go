package agent

import (
	"context"

	"ocf-clusterip/internal/clusterip"
)

// Reload applies changed parameters that need no restart: with drain, the tables have rules for conntrack. After a change to drain=0 they
// are removed only when the last drain and the last adoption have ended. A change of early_drop attaches, moves or detaches the
// BPF program.
func (a Agent) Reload(ctx context.Context, spec clusterip.Spec) error {
	return a.alone(ctx, spec, func(s *session) error {
		if err := s.observeAndTidy(ctx); err != nil {
			return err
		}
		installed := s.state.Tables.Installed
		if !s.state.Owns(spec.Bucket) || installed == nil {
			return nil
		}
		requested := *installed
		// auto leaves the program as it is while buckets run.
		if spec.EarlyDrop != clusterip.EarlyDropAuto {
			requested.EarlyDrop = spec.EarlyDrop
		}
		sameDrains := installed.Drains == (spec.Drain > 0 || s.state.DrainsContinue(*installed))
		sameLingers := !installed.Lingers.IsZero() == (installed.Drains && spec.Linger > 0)
		sameMemory := !installed.DropsEarly() || s.state.EarlyDrop.Remembers == spec.Remember
		if sameDrains && sameLingers && sameMemory && installed.DropsEarly() == requested.DropsEarly() && !s.needsEarlyDrop(requested) {
			return nil
		}
		layout, err := spec.Admit(s.state)
		if err != nil {
			return err
		}
		layout.Lingers = s.canLinger(ctx, layout)
		if s.needsEarlyDrop(layout) || !sameMemory && layout.DropsEarly() {
			if layout.EarlyDrop, err = s.attachEarlyDrop(ctx, layout); err != nil {
				return err
			}
		}
		goal := clusterip.Goal{Layout: layout, NIC: spec.NIC, Owned: s.state.Tables.Owned, Moves: s.state.MovesKept(layout)}
		if steps := clusterip.Plan(s.state, goal); len(steps) > 0 {
			return s.install(ctx, goal, steps)
		}
		return nil
	})
}
