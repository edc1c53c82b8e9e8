// Package connections is the way to the connections that this node serves: those that have a socket here, and those that conntrack knows. A
// socket lasts as long as its connection, but there is none where the service is behind address translation. Conntrack's entries decide
// whether a packet belongs to a connection that is known here, but they end after a time, or outlast the socket.
package connections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/conntrack"
	"ocf-clusterip/internal/kernel/sockets"
)

// Kernel implements clusterip.ConnectionKernel for the network namespace of the calling thread.
type Kernel struct{}

var _ clusterip.ConnectionKernel = Kernel{}

// states are those of a socket in whose connection there is still something to be said, with what conntrack calls them. Where the client has
// said that it ends (CloseWait), the program may still be at work on the answer.
var states = map[sockets.State]conntrack.State{
	sockets.Established: conntrack.Established,
	sockets.FinWait1:    conntrack.FinWait,
	sockets.FinWait2:    conntrack.FinWait,
	sockets.CloseWait:   conntrack.CloseWait,
	sockets.LastAck:     conntrack.LastAck,
	sockets.Closing:     conntrack.LastAck,
}

// Connections implements clusterip.ConnectionKernel.
func (Kernel) Connections(ctx context.Context, layout clusterip.Layout) (map[clusterip.Bucket]int, error) {
	return with(ctx, layout, func(n node) (map[clusterip.Bucket]int, error) {
		seen, err := n.look(false)
		return seen.count(), err
	})
}

// prolongBelow is what is left of a connection's entry when it is prolonged: several times the longest pause between two looks.
const prolongBelow = time.Minute

// Keep implements clusterip.ConnectionKernel. It asks for each entry: to list them takes longer, unless they are thousands.
func (Kernel) Keep(ctx context.Context, layout clusterip.Layout, left map[clusterip.Bucket]time.Duration) error {
	_, err := with(ctx, layout, func(n node) (none struct{}, err error) {
		all, err := n.clients()
		if err != nil {
			return none, err
		}
		var faults []error
		for _, s := range all {
			need, kept := left[n.bucketOf(tupleOf(s))]
			if !kept {
				continue
			}
			entry, tracked, err := n.conntrack.Find(tupleOf(s).Inverted())
			if err == nil && (!tracked || entry.Left < min(need, prolongBelow)) {
				err = n.keep(s, need)
			}
			faults = append(faults, err)
		}
		return none, errors.Join(faults...)
	})
	return err
}

// keep makes conntrack remember a socket's connection. An entry that is not there, or began with a packet of ours, is found by either
// direction.
func (n node) keep(s sockets.Socket, left time.Duration) error {
	found, err := n.conntrack.Prolong(tupleOf(s), left)
	if found || err != nil {
		return err
	}
	return n.conntrack.Create(tupleOf(s), states[s.State], left)
}

// Forget implements clusterip.ConnectionKernel. Sockets go first: what a program still says would be tracked again.
func (Kernel) Forget(ctx context.Context, layout clusterip.Layout, buckets []clusterip.Bucket) error {
	_, err := with(ctx, layout, func(n node) (none struct{}, err error) {
		seen, err := n.look(true)
		if err != nil {
			return none, err
		}
		var faults []error
		for _, s := range seen.sockets {
			if bucket := seen.of(s); slices.Contains(buckets, bucket) {
				faults = append(faults, n.destroy(s))
			}
		}
		for _, entry := range seen.entries {
			if slices.Contains(buckets, n.bucketOf(n.incoming(entry))) {
				faults = append(faults, n.conntrack.Delete(entry))
			}
		}
		return none, errors.Join(faults...)
	})
	return err
}

// handshakeTime is how long a client may take to answer a SYN-ACK when its bucket is given up: longer than a packet travels there and back, and shorter
// than the second after which both sides repeat what got no answer (RFC 6298 section 2). Whose answer comes later is connected, and hears nothing until the
// bucket's adoption ends.
const (
	handshakeTime  = 900 * time.Millisecond
	handshakePause = 10 * time.Millisecond
	// afterwards bounds the clearing up of what is half made then: there may be very much of it, and it ends by itself.
	afterwards = time.Second
)

// EndHandshakes implements clusterip.ConnectionKernel. A handshake whose SYN-ACK has been repeated, or would be the next moment, is not waited for. The entry
// goes before the socket: in between, the client's ACK is dropped, and else would be answered with a reset.
func (Kernel) EndHandshakes(ctx context.Context, layout clusterip.Layout, bucket clusterip.Bucket) error {
	_, err := with(ctx, layout, func(n node) (none struct{}, err error) {
		entries, err := n.halfMade(bucket)
		if err != nil {
			return none, err
		}
		end := time.Now().Add(handshakeTime)
		for {
			waits, err := n.endHandshakes(ctx, bucket, &entries, time.Until(end))
			if err != nil || !waits {
				return none, err
			}
			if err := clusterip.Pause(ctx, handshakePause); err != nil {
				return none, err
			}
		}
	})
	return err
}

// halfMade are the entries of connections of a bucket that clients have begun, and which are not made.
func (n node) halfMade(bucket clusterip.Bucket) (map[conntrack.Tuple]conntrack.Entry, error) {
	entries, err := n.entries(false)
	half := map[conntrack.Tuple]conntrack.Entry{}
	for _, entry := range entries {
		if isHalfMade(entry) && n.bucketOf(entry.Orig) == bucket {
			half[n.outgoing(entry)] = entry
		}
	}
	return half, err
}

func isHalfMade(entry conntrack.Entry) bool {
	return entry.State == conntrack.SynSent || entry.State == conntrack.SynReceived
}

// endHandshakes ends those that are not waited for, and tells whether others are. Entries are those that were half made at first: those that no socket
// here is behind, with SYN cookies or address translation, are known by them alone.
func (n node) endHandshakes(ctx context.Context, bucket clusterip.Bucket, entries *map[conntrack.Tuple]conntrack.Entry, left time.Duration) (waits bool, err error) {
	half, err := n.sockets.List(n.layout.Addresses(), sockets.SynReceived)
	if err != nil {
		return false, err
	}
	var faults []error
	end := time.Now().Add(afterwards)
	for _, s := range half {
		entry, found, err := n.conntrack.Find(tupleOf(s).Inverted())
		if err != nil {
			return false, err
		}
		delete(*entries, tupleOf(s).Inverted())
		switch {
		case n.isOwn(s.Remote.Addr()):
		case !found && n.bucketOf(tupleOf(s)) == bucket: // conntrack was full, or flushed
			faults = append(faults, n.destroy(s))
		case !found, entry.State != conntrack.SynReceived, n.bucketOf(n.incoming(entry)) != bucket:
		case left > 0 && s.Repeats == 0 && s.Next > 2*handshakePause:
			waits = true
		default:
			faults = append(faults, n.conntrack.Delete(entry), n.destroy(s))
		}
	}
	for tuple, entry := range *entries {
		if ctx.Err() != nil || time.Now().After(end) {
			break
		}
		now, found, err := n.conntrack.Find(tuple)
		switch {
		case err != nil:
			return false, err
		case !found || !isHalfMade(now):
			delete(*entries, tuple)
		case left > 0 && now.State == conntrack.SynReceived:
			waits = true
		default:
			delete(*entries, tuple)
			faults = append(faults, n.conntrack.Delete(entry))
		}
	}
	return waits, errors.Join(faults...)
}

// node is this node's connections of a layout.
type node struct {
	layout    clusterip.Layout
	conntrack *conntrack.Conn
	sockets   *sockets.Conn
	own       []netip.Addr   // all addresses of the node: what it says to itself passes no bucket
	near, off []netip.Prefix // the networks of the addresses' NIC, and of others: what comes from there passes none either
}

func with[T any](ctx context.Context, layout clusterip.Layout, do func(node) (T, error)) (result T, err error) {
	if err := ctx.Err(); err != nil {
		return result, err
	}
	n := node{layout: layout}
	if n.conntrack, err = conntrack.Open(); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.conntrack.Close()) }()
	if n.sockets, err = sockets.Open(); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.sockets.Close()) }()
	if err := n.lookAround(); err != nil {
		return result, err
	}
	return do(n)
}

// lookAround learns which addresses and networks are the node's.
func (n *node) lookAround() error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the node's network interfaces: %w", err)
	}
	for _, nic := range all {
		addresses, err := nic.Addrs()
		if err != nil {
			return fmt.Errorf("list the addresses of %s: %w", nic.Name, err)
		}
		for _, one := range addresses {
			network, ok := one.(*net.IPNet)
			if !ok {
				continue
			}
			address, _ := netip.AddrFromSlice(network.IP)
			address = address.Unmap()
			bits, _ := network.Mask.Size()
			n.own = append(n.own, address)
			if prefix := netip.PrefixFrom(address, bits).Masked(); nic.Index == n.layout.NICIndex {
				n.near = append(n.near, prefix)
			} else {
				n.off = append(n.off, prefix)
			}
		}
	}
	return nil
}

// isOwn tells whether what comes from an address does not come in by the addresses' NIC, where it would pass a bucket: it is the node's own, or in a network
// behind another NIC.
func (n node) isOwn(address netip.Addr) bool {
	holds := func(p netip.Prefix) bool { return p.Contains(address) }
	return address.IsLoopback() || slices.Contains(n.own, address) || slices.ContainsFunc(n.off, holds) && !slices.ContainsFunc(n.near, holds)
}

// bucketOf is the bucket of a packet of the client's.
func (n node) bucketOf(t conntrack.Tuple) clusterip.Bucket {
	packet := clusterip.Packet{Protocol: "tcp", Flow: clusterip.Flow{
		Source: t.Source.Addr(), SourcePort: t.Source.Port(), DestinationPort: t.Destination.Port(),
	}}
	if t.Protocol == unix.IPPROTO_SCTP {
		packet.Protocol = "sctp"
	}
	return n.layout.Owner(packet)
}

// tupleOf is how the client's packets reach a socket.
func tupleOf(s sockets.Socket) conntrack.Tuple {
	return conntrack.Tuple{Protocol: unix.IPPROTO_TCP, Source: s.Remote, Destination: s.Local}
}

// destroy ends a socket, if the kernel can do that.
func (n node) destroy(s sockets.Socket) error {
	if err := n.sockets.Destroy(s); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// clients are the sockets that are connected to clients.
func (n node) clients() ([]sockets.Socket, error) {
	all, err := n.sockets.List(n.layout.Addresses(), slices.Collect(maps.Keys(states))...)
	return slices.DeleteFunc(all, func(s sockets.Socket) bool { return n.isOwn(s.Remote.Addr()) }), err
}

// entries are those of conntrack that are about the addresses: clients' connections, and those that were begun here where it is asked for.
func (n node) entries(alsoBegun bool) ([]conntrack.Entry, error) {
	var all []conntrack.Entry
	for _, address := range n.layout.Addresses() {
		entries, err := n.conntrack.List(address, alsoBegun)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			connects := e.Orig.Protocol == unix.IPPROTO_TCP || e.Orig.Protocol == unix.IPPROTO_SCTP
			if connects && !n.isOwn(n.incoming(e).Source.Addr()) {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// begun tells whether an entry begins with a packet of ours: it is a connection of ours, or conntrack has not seen the client's packets.
func (n node) begun(e conntrack.Entry) bool {
	return slices.Contains(n.layout.Addresses(), e.Orig.Source.Addr())
}

// incoming is the direction of an entry in which packets come in from outside.
func (n node) incoming(e conntrack.Entry) conntrack.Tuple {
	if n.begun(e) {
		return e.Reply
	}
	return e.Orig
}

// outgoing is the other one, as packets leave the socket.
func (n node) outgoing(e conntrack.Entry) conntrack.Tuple {
	if n.begun(e) {
		return e.Orig
	}
	return e.Reply
}

// view is what was seen.
type view struct {
	node
	sockets []sockets.Socket // connected to clients
	entries []conntrack.Entry
	tracked map[conntrack.Tuple]conntrack.Entry // the same, by their outgoing direction
}

// look looks at the sockets first: one that is closed meanwhile leaves an entry that says so.
func (n node) look(alsoBegun bool) (view, error) {
	v := view{node: n, tracked: map[conntrack.Tuple]conntrack.Entry{}}
	var err error
	if v.sockets, err = n.clients(); err != nil {
		return v, err
	}
	if v.entries, err = n.entries(alsoBegun); err != nil {
		return v, err
	}
	for _, entry := range v.entries {
		v.tracked[n.outgoing(entry)] = entry
	}
	return v, nil
}

// of is a socket's bucket: that of the client's packets as they come in, which may be translated.
func (v view) of(s sockets.Socket) clusterip.Bucket {
	if entry, tracked := v.tracked[tupleOf(s).Inverted()]; tracked {
		return v.bucketOf(v.incoming(entry))
	}
	return v.bucketOf(tupleOf(s))
}

// count counts the open connections by bucket, each once: the sockets, and what clients have begun that has none here.
func (v view) count() map[clusterip.Bucket]int {
	counts := map[clusterip.Bucket]int{}
	served := map[conntrack.Tuple]bool{}
	for _, s := range v.sockets {
		counts[v.of(s)]++
		served[tupleOf(s).Inverted()] = true
	}
	for _, entry := range v.entries {
		if entry.Open() && !served[v.outgoing(entry)] {
			counts[v.bucketOf(entry.Orig)]++
		}
	}
	return counts
}
