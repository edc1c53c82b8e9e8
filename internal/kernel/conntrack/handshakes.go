package conntrack

import (
	"context"
	"errors"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// handshakeTime is how long a client may take to answer a SYN-ACK when its bucket is released: longer than a packet travels there and
// back, and shorter than the second after which both sides repeat what got no answer (RFC 6298 section 2). A client that answers later is
// connected, but gets no answer until the bucket's adoption ends.
const (
	handshakeTime  = 900 * time.Millisecond
	handshakePause = 10 * time.Millisecond
	// removeTime bounds the removal of incomplete handshakes after that: there may be very many, and they expire.
	removeTime = time.Second
)

// EndHandshakes implements clusterip.ConnectionKernel. It does not wait for a handshake whose SYN-ACK was repeated, or is about to be.
// The entry goes before the socket: in between, the client's ACK is dropped, where the kernel would otherwise answer with a reset.
func (Kernel) EndHandshakes(ctx context.Context, layout clusterip.Layout, bucket clusterip.Bucket) error {
	s, err := open(ctx, layout)
	if err != nil {
		return err
	}
	defer s.close()
	entries, err := s.incomplete(bucket)
	if err != nil {
		return err
	}
	for end := time.Now().Add(handshakeTime); ; {
		waits, err := s.endHandshakes(ctx, bucket, entries, time.Now().Before(end))
		if err != nil || !waits {
			return err
		}
		if err := clusterip.Pause(ctx, handshakePause); err != nil {
			return err
		}
	}
}

// incomplete are the entries of a bucket's incomplete handshakes, by their outgoing direction.
func (s session) incomplete(bucket clusterip.Bucket) (map[tuple]entry, error) {
	entries, err := s.tracked(false)
	found := map[tuple]entry{}
	for _, e := range entries {
		if e.isIncomplete() && s.bucketOf(e.orig) == bucket {
			found[s.outgoing(e)] = e
		}
	}
	return found, err
}

// endHandshakes ends the handshakes that are not worth waiting for, and reports whether any is.
func (s session) endHandshakes(ctx context.Context, bucket clusterip.Bucket, entries map[tuple]entry, mayWait bool) (bool, error) {
	waitsForSocket, err := s.endWithSocket(bucket, entries, mayWait)
	waitsForEntry, entryErr := s.endWithoutSocket(ctx, entries, mayWait)
	return waitsForSocket || waitsForEntry, errors.Join(err, entryErr)
}

// endWithSocket ends the handshakes that have a socket, and leaves the others in entries.
func (s session) endWithSocket(bucket clusterip.Bucket, entries map[tuple]entry, mayWait bool) (waits bool, err error) {
	sockets, _, err := s.sockets.list(s.layout.Addresses(), unix.BPF_TCP_SYN_RECV)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, one := range sockets {
		outgoing := one.tuple().inverted()
		e, found, err := s.table.find(outgoing)
		if err != nil {
			return false, err
		}
		delete(entries, outgoing)
		switch s.judge(one, e, found, bucket, mayWait) {
		case wait:
			waits = true
		case remove:
			if found {
				errs = append(errs, s.table.remove(e))
			}
			errs = append(errs, s.sockets.destroy(one))
		}
	}
	return waits, errors.Join(errs...)
}

// endWithoutSocket ends the handshakes that have no socket on this node, with SYN cookies or address translation.
func (s session) endWithoutSocket(ctx context.Context, entries map[tuple]entry, mayWait bool) (waits bool, err error) {
	var errs []error
	end := time.Now().Add(removeTime)
	for outgoing, e := range entries {
		if ctx.Err() != nil || time.Now().After(end) {
			break
		}
		now, found, err := s.table.find(outgoing)
		if err != nil {
			return false, err
		}
		if found && now.state == nl.TCP_CONNTRACK_SYN_RECV && mayWait {
			waits = true
			continue
		}
		delete(entries, outgoing)
		if found && now.isIncomplete() {
			errs = append(errs, s.table.remove(e))
		}
	}
	return waits, errors.Join(errs...)
}

// A verdict is what to do with a handshake.
type verdict int

const (
	ignore verdict = iota
	wait
	remove
)

// judge decides about a handshake that has a socket. It has no entry where conntrack was full, or flushed.
func (s session) judge(one socket, e entry, found bool, bucket clusterip.Bucket, mayWait bool) verdict {
	incoming := one.tuple()
	if found {
		incoming = s.incoming(e)
	}
	switch {
	case s.origins.bypassBuckets(one.remote.Addr()), s.bucketOf(incoming) != bucket:
		return ignore
	case !found:
		return remove
	case e.state != nl.TCP_CONNTRACK_SYN_RECV:
		return ignore
	case mayWait && one.repeats == 0 && one.next > 2*handshakePause:
		return wait
	default:
		return remove
	}
}
