package lab

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"ocf-clusterip/tests/probe"
)

// runServers is the application of a host: it answers a probe's questions, under the host's name.
func runServers() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	return probe.Serve(context.Background(), name, nil)
}

const streamTimeout = 15 * time.Second

// Probe begins to ask an address from the client's first sources; see package probe.
func (l *Lab) Probe(ctx context.Context, target netip.Addr, sources int) (*probe.Probe, error) {
	return l.ProbeWith(ctx, probe.Options{Target: target, Sources: l.Network.SourcesLike(target, sources)})
}

// ProbeWith begins to ask with these options. It sets the client, and the names of the nodes.
func (l *Lab) ProbeWith(ctx context.Context, o probe.Options) (*probe.Probe, error) {
	o.Client, o.Node, o.StreamTimeout = l.Network.Client, l.NodeByMAC, cmp.Or(o.StreamTimeout, l.options.StreamTimeout, streamTimeout)
	p, err := probe.Start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", o.Target, err)
	}
	return p, nil
}
