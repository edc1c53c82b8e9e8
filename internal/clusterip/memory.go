package clusterip

import (
	"context"
	"net/netip"
	"time"
)

// MemoryKernel is the part of a Kernel that remembers clients' TCP connections to all nodes, and tells clients that theirs are over. It
// needs the BPF program of the early drop.
type MemoryKernel interface {
	// Remembered returns the connections to the layout's addresses that are remembered, as the clients send them, in no order. Without the
	// program, or with Layout.Remember=0 on the interface, there are none.
	Remembered(ctx context.Context, layout Layout) ([]Remembered, error)
	// Forget forgets connections.
	Forget(ctx context.Context, layout Layout, connections []Remembered) error
	// Told returns what was told to clients of the layout's addresses since the program was attached.
	Told(ctx context.Context, layout Layout) (Told, error)
	// AddTold adds to it.
	AddTold(ctx context.Context, layout Layout, more Told) error
}

// ClientKernel is the part of a Kernel that tells clients that their connections are over.
type ClientKernel interface {
	// TellClients sends a segment to each client, so many a second, to which its TCP answers. This node, which has no such connection, answers
	// that with a reset. A second call, with again, tells those that the first one may have missed. It returns how many segments were sent: a
	// client that cannot be reached is left out.
	TellClients(ctx context.Context, layout Layout, connections []Remembered, again bool, rate int) (told int, err error)
}

// Connection is a TCP connection of a client to a shared address.
type Connection struct {
	Client, Local netip.AddrPort
}

// Remembered is a connection that is remembered.
type Remembered struct {
	Connection
	Numbers
}

// Numbers are what a client's last segment showed, if that is Known: the sequence number that it sends next, and the one that it expects.
type Numbers struct {
	Next, Expected uint32
	Known          bool
}

// BucketOfConnection returns the bucket of a connection's segments.
func (l Layout) BucketOfConnection(c Connection) Bucket {
	return l.BucketOf(Packet{Protocol: "tcp", Flow: Flow{
		Source: c.Client.Addr(), SourcePort: c.Client.Port(), DestinationPort: c.Local.Port(),
	}})
}

// Told is what a node has told clients whose connections were those of another node.
type Told struct {
	Connections int           // how many, altogether; 0: the rest is zero
	When        time.Time     // when the last ones were told
	Took        time.Duration // how long that took, for all buckets that were taken over then
}
