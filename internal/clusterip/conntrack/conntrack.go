// Package conntrack is the way into the kernel's table of connections: it counts those that a drain keeps.
package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Conn reads the table of the network namespace of the calling thread.
type Conn struct{}

// TCP states of conntrack (enum tcp_conntrack in include/uapi/linux/netfilter/nf_conntrack_tcp.h) in which there is still something to
// be said. In TIME_WAIT and CLOSE there is not.
const (
	tcpSynReceived = 2
	tcpLastAck     = 6
)

// tries is how often a table that changes while it is read is read again; then it is taken as it came, for it is only counted.
const tries = 3

// Connections implements clusterip.ConnectionKernel. It counts TCP connections that are neither half made nor closed, and SCTP
// associations of any state.
func (Conn) Connections(ctx context.Context, layout clusterip.Layout) (map[clusterip.Bucket]int, error) {
	counts := map[clusterip.Bucket]int{}
	for _, family := range []struct {
		number netlink.InetFamily
		is     func(netip.Addr) bool
	}{{unix.AF_INET, netip.Addr.Is4}, {unix.AF_INET6, netip.Addr.Is6}} {
		if !layout.Has(family.is) {
			continue
		}
		flows, err := list(ctx, family.number)
		if err != nil {
			return nil, err
		}
		for _, flow := range flows {
			if packet, ok := open(flow, layout.Addresses()); ok {
				counts[layout.Owner(packet)]++
			}
		}
	}
	return counts, nil
}

func list(ctx context.Context, family netlink.InetFamily) ([]*netlink.ConntrackFlow, error) {
	for try := 1; ; try++ {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		switch {
		case err == nil, errors.Is(err, netlink.ErrDumpInterrupted) && try == tries:
			return flows, nil
		case !errors.Is(err, netlink.ErrDumpInterrupted):
			return nil, fmt.Errorf("list the tracked connections: %w", err)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("list the tracked connections: %w", ctx.Err())
		}
	}
}

// open returns the first packet's fields of a flow that is a connection to one of the addresses, and still open.
func open(flow *netlink.ConntrackFlow, addresses []netip.Addr) (clusterip.Packet, bool) {
	source, okSource := netip.AddrFromSlice(flow.Forward.SrcIP)
	destination, okDestination := netip.AddrFromSlice(flow.Forward.DstIP)
	if !okSource || !okDestination || !slices.Contains(addresses, destination.Unmap()) {
		return clusterip.Packet{}, false
	}
	packet := clusterip.Packet{Flow: clusterip.Flow{
		Source: source.Unmap(), SourcePort: flow.Forward.SrcPort, DestinationPort: flow.Forward.DstPort,
	}}
	switch flow.Forward.Protocol {
	case unix.IPPROTO_TCP:
		packet.Protocol = "tcp"
		tcp, ok := flow.ProtoInfo.(*netlink.ProtoInfoTCP)
		return packet, ok && tcp.State >= tcpSynReceived && tcp.State <= tcpLastAck
	case unix.IPPROTO_SCTP:
		packet.Protocol = "sctp"
		return packet, true
	default:
		return packet, false
	}
}

var _ clusterip.ConnectionKernel = Conn{}
