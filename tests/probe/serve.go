package probe

import (
	"context"

	"ocf-clusterip/tests/lan"
)

// Serve answers all questions of a probe, under a name, on every address that the current network namespace has or will
// have, until ctx ends. It is for a process of its own inside a node; ready, when not nil, is called when it listens.
func Serve(ctx context.Context, name string, ready func()) error {
	return lan.Serve(ctx, name, lan.EchoPort, ready)
}
