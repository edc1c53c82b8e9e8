package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
)

// followUp finds out what remains of the bucket's adoption, and installs it.
func (a Agent) followUp(ctx context.Context, spec clusterip.Spec, tables clusterip.Tables) error {
	adoption, adopts := tables.Moves.Adoption(spec.Bucket)
	if !adopts || tables.Installed == nil {
		return nil
	}
	// A connection without a conntrack entry counts as another node's.
	if err := a.Kernel.KeepEntries(ctx, *tables.Installed, map[clusterip.Bucket]time.Duration{spec.Bucket: adoption.Left}); err != nil {
		a.Log.Warningf("bucket %d: idle connections may break while it is adopted: %v", spec.Bucket, err)
	}
	remaining, err := a.remaining(ctx, spec, tables.Installed.Identity(), adoption)
	if err != nil {
		a.Log.Infof("cannot check whether %s serve connections of bucket %d: %v", oldOwners(adoption), spec.Bucket, err)
		return nil
	}
	if slices.Equal(remaining.From, adoption.From) && remaining.Left == adoption.Left {
		return nil
	}
	if err := a.updateAdoption(ctx, spec, adoption, remaining); err != nil || len(remaining.From) > 0 {
		return err
	}
	if tables.Installed.DropsEarly() && spec.Remember > 0 {
		a.startTeller(spec)
	}
	return nil
}

// remaining returns what remains of an adoption. It also publishes what it has found out: if this node crashes, the next owner must know.
func (a Agent) remaining(ctx context.Context, spec clusterip.Spec, layout string, adoption clusterip.Adoption) (clusterip.Adoption, error) {
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	b := a.board(spec.Address(), spec.Bucket)
	endsSoon := adoption.Left < handover.GracePeriod
	view, err := b.announcements(ctx, layout)
	if err != nil || view.AllDrain(adoption.From) && !endsSoon {
		return adoption, err
	}
	own := handover.Announcement{Layout: layout, Nonce: newNonce(), Complete: view.Complete()}
	if own.Others, err = b.validOthers(ctx, view); err != nil {
		return adoption, err
	}
	if view, err = b.publishAndRead(ctx, own); err == nil {
		view, err = b.complete(ctx, view)
	}
	if err != nil {
		return adoption, err
	}
	remaining := adoption
	remaining.From, remaining.Left = view.Remaining(adoption.From, adoption.Left, spec.Drain)
	a.logUnknownNodes(view, remaining)
	if err := b.publishAdoption(ctx, own, view, remaining, endsSoon); err != nil {
		a.Log.Infof("cannot update the announcements about drains of bucket %d: %v", spec.Bucket, err)
	}
	return remaining, nil
}

// logUnknownNodes logs which nodes the adoption waits for because their state is unknown.
func (a Agent) logUnknownNodes(view handover.View, adoption clusterip.Adoption) {
	var why []string
	for _, node := range adoption.From {
		_, announced := view.Announcements[node]
		if state := view.Nodes[node]; state.Membership == handover.Unknown && !announced && node != handover.AnyNode {
			why = append(why, fmt.Sprintf("%s (%s)", node, cmp.Or(state.Unrecognised, "the cluster's status does not name it")))
		}
	}
	if len(why) > 0 {
		a.Log.Infof("this node keeps adopting bucket %d, for %s at most, because the state of %s is unknown", adoption.Bucket,
			adoption.Left.Round(time.Second), strings.Join(why, ", "))
	}
}

// oldOwners is for log lines.
func oldOwners(adoption clusterip.Adoption) string {
	if slices.Contains(adoption.From, handover.AnyNode) {
		return "other nodes"
	}
	return strings.Join(adoption.From, ", ")
}

// updateAdoption installs what remains of an adoption. When no old owner is left, the node answers for all connections of the bucket: an
// unknown one gets a reset.
func (a Agent) updateAdoption(ctx context.Context, spec clusterip.Spec, before, remaining clusterip.Adoption) error {
	return a.alone(ctx, spec, func(s *session) error {
		tables, err := s.Kernel.ObserveTables(ctx, spec.Address())
		if err != nil {
			return err
		}
		now, adopts := tables.Moves.Adoption(spec.Bucket)
		if !adopts || !slices.Equal(now.From, before.From) || now.Left > before.Left {
			return nil // the bucket was released and owned again meanwhile
		}
		moves := tables.Moves.Without(spec.Bucket)
		if len(remaining.From) == 0 {
			s.Log.Infof("bucket %d of %s: adoption ended; %s serve no connection of it any more", spec.Bucket, spec.Address(), oldOwners(before))
		} else {
			s.Log.Infof("bucket %d of %s: old connections are served by %s", spec.Bucket, spec.Address(), oldOwners(remaining))
			moves = moves.WithAdoption(remaining)
		}
		return s.apply(ctx, clusterip.ChangeBuckets{Address: spec.Address(), Resource: spec.Resource, Moves: &moves})
	})
}
