// Package gather reads for the commands for administrators what they judge: this node's kernel, its cluster and its network.
package gather

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/operator"
)

const (
	// maxLooks is how often the status is read until it is believed that something is broken.
	maxLooks = 4
	// settleTime is how long an action may need that is half done when the status is read.
	settleTime = 300 * time.Millisecond
)

// Status reads the status of the address, or of all. What is broken must be so twice: an action may be half done. With an
// operator.NotSharedError the status has the rest.
func Status(
	ctx context.Context, a agent.Agent, cluster operator.Cluster, address netip.Addr, elsewhere operator.Drains,
) (operator.Status, error) {
	var status operator.Status
	for attempt := 1; ; attempt++ {
		survey, err := operator.Look(ctx, a, cluster, address)
		if _, none := errors.AsType[*operator.NotSharedError](err); err != nil && !none {
			return status, err
		}
		survey.LookForDrains(ctx, cluster, elsewhere)
		before := status
		status = operator.Judge(survey, time.Now())
		if status.Health != operator.Broken || attempt == maxLooks || before.IsConfirmedBy(status) {
			return status, err
		}
		select {
		case <-ctx.Done():
			return status, err // unconfirmed is better than nothing
		case <-time.After(settleTime):
		}
	}
}
