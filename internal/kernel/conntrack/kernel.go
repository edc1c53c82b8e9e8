// Package conntrack counts, keeps and ends the connections to shared addresses that this node serves. It reads them from the kernel's TCP
// sockets and from its connection tracking. A socket lasts as long as its connection, but behind address translation the node has none. A
// conntrack entry decides whether a packet belongs to a connection of this node, but it expires, or outlives the socket.
package conntrack

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Kernel implements clusterip.ConnectionKernel for the network namespace of the calling thread.
type Kernel struct{}

var _ clusterip.ConnectionKernel = Kernel{}

// Connections implements clusterip.ConnectionKernel.
func (Kernel) Connections(ctx context.Context, layout clusterip.Layout) (map[clusterip.Bucket]int, error) {
	s, err := open(ctx, layout)
	if err != nil {
		return nil, err
	}
	defer s.close()
	seen, err := s.observe(false)
	if err != nil {
		return nil, err
	}
	return seen.count(), nil
}

// OpenConnections implements clusterip.ConnectionKernel.
func (Kernel) OpenConnections(ctx context.Context, layout clusterip.Layout) ([]clusterip.Connection, error) {
	s, err := open(ctx, layout)
	if err != nil {
		return nil, err
	}
	defer s.close()
	seen, err := s.observe(true)
	if err != nil {
		return nil, err
	}
	var all []clusterip.Connection
	add := func(from tuple) {
		all = append(all, clusterip.Connection{Client: from.source, Local: from.destination})
	}
	for _, client := range seen.sockets {
		add(client.tuple())
	}
	for _, e := range seen.entries {
		if e.orig.protocol == unix.IPPROTO_TCP && e.isOpen() {
			add(s.incoming(e))
		}
	}
	return all, nil
}

// refreshBelow is the remaining lifetime below which an entry is prolonged: several times the longest pause between two calls of Keep.
const refreshBelow = time.Minute

// KeepEntries implements clusterip.ConnectionKernel. It asks for each entry separately, because to list them all takes longer, unless there
// are thousands.
func (Kernel) KeepEntries(ctx context.Context, layout clusterip.Layout, left map[clusterip.Bucket]time.Duration) error {
	s, err := open(ctx, layout)
	if err != nil {
		return err
	}
	defer s.close()
	clients, _, err := s.clients()
	if err != nil {
		return err
	}
	var errs []error
	for _, client := range clients {
		need, kept := left[s.bucketOf(client.tuple())]
		if !kept {
			continue
		}
		e, found, err := s.table.find(client.tuple().inverted())
		if err == nil && (!found || e.left < min(need, refreshBelow)) {
			err = s.keep(client, need)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// keep gives a socket's connection an entry with that lifetime. The kernel finds an entry by either direction.
func (s session) keep(client socket, left time.Duration) error {
	found, err := s.table.prolong(client.tuple(), left)
	if found || err != nil {
		return err
	}
	return s.table.create(client.tuple(), socketStates[client.state], left)
}

// EndConnections implements clusterip.ConnectionKernel. The sockets go first: conntrack would track again what a program still sends.
func (Kernel) EndConnections(ctx context.Context, layout clusterip.Layout, buckets []clusterip.Bucket) error {
	s, err := open(ctx, layout)
	if err != nil {
		return err
	}
	defer s.close()
	seen, err := s.observe(true)
	if err != nil {
		return err
	}
	var errs []error
	for _, client := range seen.sockets {
		if slices.Contains(buckets, seen.bucketOfSocket(client)) {
			errs = append(errs, s.sockets.destroy(client))
		}
	}
	for _, e := range seen.entries {
		if slices.Contains(buckets, s.bucketOf(s.incoming(e))) {
			errs = append(errs, s.table.remove(e))
		}
	}
	return errors.Join(errs...)
}

// snapshot is what was observed of a layout's connections.
type snapshot struct {
	session
	sockets []socket        // connected to clients
	entries []entry         // of the addresses
	tracked map[tuple]entry // the same by their outgoing direction

	hasSocket map[tuple]bool // by the outgoing direction; also sockets that a program has not accepted
}

// observe reads the sockets first: a socket that is closed in the meantime leaves an entry in a closed state.
func (s session) observe(alsoOutgoing bool) (snapshot, error) {
	sockets, answered, err := s.clients(unix.BPF_TCP_SYN_RECV)
	if err != nil {
		return snapshot{}, err
	}
	entries, err := s.tracked(alsoOutgoing)
	seen := s.snapshotOf(sockets, entries)
	if err != nil || !answered || !slices.ContainsFunc(entries, seen.lacksSocket) {
		return seen, err
	}
	after, _, err := s.clients(unix.BPF_TCP_SYN_RECV)
	seen.markUnseenEnds(after)
	return seen, err
}

// lacksSocket reports whether conntrack takes a connection for established that has no socket, although nothing translates its addresses.
// Where no other rules use conntrack, it sees only what happens while a bucket drains, is adopted or lingers. Of a connection that ends at
// another time the entry says for days that it is established. Entries in closing states soon expire.
func (s snapshot) lacksSocket(e entry) bool {
	return e.orig.protocol == unix.IPPROTO_TCP && e.state == nl.TCP_CONNTRACK_ESTABLISHED && e.reply == e.orig.inverted() &&
		!s.hasSocket[s.outgoing(e)]
}

// markUnseenEnds marks the entries whose connection had no socket before they were read, nor after that: those in between may have been
// made meanwhile.
func (s snapshot) markUnseenEnds(after []socket) {
	later := s.snapshotOf(after, nil)
	for i, e := range s.entries {
		s.entries[i].endedUnseen = s.lacksSocket(e) && later.lacksSocket(e)
	}
}

// snapshotOf takes sockets in the state SYN_RECV, too. The client is connected to one, as conntrack has it, if the program wants to see
// data first (TCP_DEFER_ACCEPT, tcp(7)), or accepts too slowly.
func (s session) snapshotOf(sockets []socket, entries []entry) snapshot {
	tracked := map[tuple]entry{}
	for _, e := range entries {
		tracked[s.outgoing(e)] = e
	}
	hasSocket := map[tuple]bool{}
	for _, client := range sockets {
		hasSocket[client.tuple().inverted()] = true
	}
	connected := slices.DeleteFunc(slices.Clone(sockets), func(one socket) bool { return one.state == unix.BPF_TCP_SYN_RECV })
	return snapshot{s, connected, entries, tracked, hasSocket}
}

// bucketOfSocket is that of the client's packets as they come in, before address translation.
func (s snapshot) bucketOfSocket(client socket) clusterip.Bucket {
	if e, ok := s.tracked[client.tuple().inverted()]; ok {
		return s.bucketOf(s.incoming(e))
	}
	return s.bucketOf(client.tuple())
}

// count counts the open connections by bucket, each once: the sockets, and the clients' connections that have none on this node.
func (s snapshot) count() map[clusterip.Bucket]int {
	counts := map[clusterip.Bucket]int{}
	counted := map[tuple]bool{}
	for _, client := range s.sockets {
		counts[s.bucketOfSocket(client)]++
		counted[client.tuple().inverted()] = true
	}
	for _, e := range s.entries {
		if e.isOpen() && !counted[s.outgoing(e)] {
			counts[s.bucketOf(e.orig)]++
		}
	}
	return counts
}

// bucketOf is the bucket of a client's packet.
func (s session) bucketOf(t tuple) clusterip.Bucket {
	packet := clusterip.Packet{Protocol: "tcp", Flow: clusterip.Flow{
		Source: t.source.Addr(), SourcePort: t.source.Port(), DestinationPort: t.destination.Port(),
	}}
	if t.protocol == unix.IPPROTO_SCTP {
		packet.Protocol = "sctp"
	}
	return s.layout.BucketOf(packet)
}
