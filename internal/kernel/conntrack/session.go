package conntrack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	rtnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// session is the way to the connections of one layout.
type session struct {
	layout  clusterip.Layout
	table   table
	sockets socketTable
	origins origins
}

func open(ctx context.Context, layout clusterip.Layout) (s session, err error) {
	if err := ctx.Err(); err != nil {
		return s, err
	}
	origins, err := observeOrigins(layout.NICIndex)
	if err != nil {
		return s, err
	}
	tracking, err := dial(ctx, unix.NETLINK_NETFILTER)
	if err != nil {
		return s, fmt.Errorf("connect to conntrack: %w", err)
	}
	sockets, err := dial(ctx, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		_ = tracking.Close() // nothing was sent
		return s, fmt.Errorf("connect to sock_diag: %w", err)
	}
	return session{layout, table{tracking}, socketTable{sockets}, origins}, nil
}

// dial connects to a netlink family. Requests fail after the context's deadline.
func dial(ctx context.Context, family int) (*netlink.Conn, error) {
	conn, err := netlink.Dial(family, nil)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline() // without one: never
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (s session) close() {
	_, _ = s.table.Close(), s.sockets.Close() // every request was answered
}

// clients are the sockets that are connected to clients, or in one of these states too, if the kernel lists sockets.
func (s session) clients(alsoIn ...uint8) (found []socket, answered bool, err error) {
	all, answered, err := s.sockets.list(s.layout.Addresses(), slices.AppendSeq(alsoIn, maps.Keys(socketStates))...)
	return slices.DeleteFunc(all, func(one socket) bool { return s.origins.bypassBuckets(one.remote.Addr()) }), answered, err
}

// tracked are the entries of connections to the addresses; on request also of those that begin with a packet of this node.
func (s session) tracked(alsoOutgoing bool) ([]entry, error) {
	var all []entry
	for _, address := range s.layout.Addresses() {
		entries, err := s.table.list(address, alsoOutgoing)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			moves := e.orig.protocol == unix.IPPROTO_TCP || e.orig.protocol == unix.IPPROTO_SCTP
			if moves && !s.origins.bypassBuckets(s.incoming(e).source.Addr()) {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// beginsHere reports whether the first packet of an entry came from this node: it is the node's own connection, or conntrack did not see
// the client's packets.
func (s session) beginsHere(e entry) bool {
	return slices.Contains(s.layout.Addresses(), e.orig.source.Addr())
}

// incoming is the direction of an entry in which packets arrive.
func (s session) incoming(e entry) tuple {
	if s.beginsHere(e) {
		return e.reply
	}
	return e.orig
}

// outgoing is the direction of an entry in which packets leave the socket.
func (s session) outgoing(e entry) tuple {
	if s.beginsHere(e) {
		return e.orig
	}
	return e.reply
}

// origins tell where packets come from.
type origins struct {
	own             []netip.Addr   // the node's addresses
	same, elsewhere []netip.Prefix // the networks of the shared addresses' interface, and those of the others
}

func observeOrigins(nicIndex int) (o origins, err error) {
	all, err := rtnetlink.AddrList(nil, rtnetlink.FAMILY_ALL)
	for tries := 10; tries > 0 && errors.Is(err, rtnetlink.ErrDumpInterrupted); tries-- { // an address was added or removed meanwhile
		all, err = rtnetlink.AddrList(nil, rtnetlink.FAMILY_ALL)
	}
	if err != nil {
		return o, fmt.Errorf("list the node's addresses: %w", err)
	}
	for _, one := range all {
		o.add(one, one.LinkIndex == nicIndex)
	}
	return o, nil
}

// add takes an address of the node in. The network of a point-to-point address is that of its peer.
func (o *origins) add(one rtnetlink.Addr, isOnInterface bool) {
	network := one.IPNet
	if one.Peer != nil {
		network = one.Peer
	}
	own, _ := netip.AddrFromSlice(one.IP)
	first, _ := netip.AddrFromSlice(network.IP)
	bits, _ := network.Mask.Size()
	prefix := netip.PrefixFrom(first.Unmap(), bits).Masked()
	o.own = append(o.own, own.Unmap())
	if isOnInterface {
		o.same = append(o.same, prefix)
	} else {
		o.elsewhere = append(o.elsewhere, prefix)
	}
}

// bypassBuckets reports whether packets from an address arrive by another interface than the shared addresses', so that no bucket decides
// about them: it is one of the node's, or in a network behind another interface.
func (o origins) bypassBuckets(address netip.Addr) bool {
	holds := func(p netip.Prefix) bool { return p.Contains(address) }
	return address.IsLoopback() || slices.Contains(o.own, address) ||
		slices.ContainsFunc(o.elsewhere, holds) && !slices.ContainsFunc(o.same, holds)
}
