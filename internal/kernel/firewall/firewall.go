// Package firewall finds rules that may keep packets from the shared address: in all tables of nf_tables but ours, and in those of
// iptables-legacy.
//
// It follows one packet of each kind that a client sends through all chains (walk.go). Not everything about such a packet is known, for
// instance who the client is. So the conditions of a rule hold, do not hold, hold for some clients, or may hold. A condition that is not
// understood may hold, and a rule whose effect is not understood may drop packets, so the result is never wrongly ok.
//
// All rules are read first and judged later, so the judgement has tests without a kernel. They come from nf_tables (ruleset.go,
// expression.go, extension.go) and from the text of iptables -S (legacy.go).
package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/operator/doctor"
)

// ours is the prefix of the names of our tables, and of our chains in the mangle table.
const ours = "clusterip-"

// Obstacles returns the rules that keep, or may keep, packets from the shared addresses of the layout. It changes nothing.
func Obstacles(ctx context.Context, tables *nftables.Conn, layout clusterip.Layout) ([]doctor.Obstacle, error) {
	ruleset, err := readRuleset(ctx, tables)
	if err != nil {
		return nil, fmt.Errorf("read the other tables of nf_tables: %w", err)
	}
	legacy, err := readLegacy(ctx, layout)
	if err != nil {
		return nil, fmt.Errorf("read iptables-legacy: %w", err)
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	isLocal := func(a netip.Addr) bool {
		return a.IsLoopback() || slices.ContainsFunc(local, func(l net.Addr) bool {
			prefix, err := netip.ParsePrefix(l.String())
			return err == nil && prefix.Addr() == a
		})
	}
	_, err = os.Stat(filepath.Join("/sys/class/net", layout.NIC, "bridge"))
	return obstacles(append(ruleset.filtering(), legacy...), packets(layout, err == nil), isLocal), nil
}
