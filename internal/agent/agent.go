// Package agent carries out the actions of the resource agent on one node: start, stop, monitor, reload, validate-all, and two that
// run in the background: sweep after a hand-over, and tell when a node has died.
//
// Every action observes the node, plans with package clusterip, applies one step after the other, and observes again before it returns
// success. The kernel is the only store. What nodes publish about drains goes through Cluster; package handover decides what it means.
package agent

import (
	"context"
	"net/netip"
	"slices"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Agent is the resource agent on one node.
type Agent struct {
	Kernel clusterip.Kernel
	Log    *ocf.Logger
	// Lock keeps other actions on the address away until Unlock. Pacemaker starts several instances of a resource at once.
	Lock func(ctx context.Context, address netip.Addr) (Unlocker, error)
	// StartTeller has Tell run in the background.
	StartTeller func() error

	// The rest is used only with Spec.Drain above 0.

	Cluster Cluster
	Node    string // this node's name in the cluster; "" if unknown
	// StartSweeper has Sweep run in the background.
	StartSweeper func() error
}

// Unlocker ends a lock. With last, nothing of the resource is left on the node, and the lock's file goes too.
type Unlocker interface {
	Unlock(last bool) error
}

// CheckLevel is the thoroughness of monitor and validate-all (OCF RA API 1.1, section "Check Levels").
type CheckLevel int

// NetworkLevel is the level from which monitor also looks for address conflicts in the network, and validate-all also examines the node.
const NetworkLevel CheckLevel = 10

// Observe returns the state of the spec's resource. It leaves out what belongs to other resources.
func Observe(ctx context.Context, kernel clusterip.Kernel, spec clusterip.Spec) (clusterip.State, error) {
	state, err := kernel.Observe(ctx, spec.Addresses, spec.CandidateMACs())
	if err != nil {
		return state, err
	}
	if state = state.Of(spec); !state.HasUnclaimed() {
		return state, nil
	}
	others, err := otherLayouts(ctx, kernel, spec)
	return state.Without(others), err
}

// otherLayouts returns the layouts of the other resources on the node.
func otherLayouts(ctx context.Context, kernel clusterip.Kernel, spec clusterip.Spec) ([]clusterip.Layout, error) {
	layouts, err := kernel.Layouts(ctx)
	return slices.DeleteFunc(layouts, func(l clusterip.Layout) bool { return l.Address() == spec.Address() }), err
}
