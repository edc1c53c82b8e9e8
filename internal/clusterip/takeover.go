package clusterip

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// After a planned stop the old owner lingers: it goes on answering everything for the bucket, until another node takes the bucket over or
// the time is over. The new owner requests that with a frame on the LAN, which the old owner's kernel acts upon and confirms by itself, in
// the packet path (docs/draining.md, "Moves without a gap").

// TakeoverEtherType is the EtherType of takeover frames: IEEE 802's Local Experimental EtherType 1 (IEEE Std 802-2014 section 9.2.4).
const TakeoverEtherType = 0x88b5

// The payload of a takeover frame, in bytes. The confirmation of a request is the same frame with the token.
const (
	TakeoverSecretAt = 0
	TakeoverBucketAt = 8  // big endian
	TakeoverTokenAt  = 12 // or what the frame is, big endian
	takeoverNumberAt = 16 // big endian; comes back with the confirmation
	takeoverLength   = 20
)

// What the frames of a new owner contain in place of the token.
const (
	TakeoverRequested = 0 // the sender is about to own the bucket
	TakeoverDone      = 1 // it owns the bucket: nothing need be passed on any more
)

// The times of a takeover. The kernel counts in jiffies: they are multiples of 20 ms, which are whole jiffies at any usual HZ.
const (
	// PassTime is for how long, at most, the old owner's kernel passes new packets on after each request: the new owner may be busy.
	PassTime = 800 * time.Millisecond
	// SeenTime is for how long the new owner's kernel remembers a packet that it has not answered until it comes the other way, too: one of
	// the two nodes may stand still for a moment. A set holds 65,535, some of which are of the last second before.
	SeenTime = time.Second
	// SettleTime is how long, at least, the new owner waits after the confirmation before it owns the bucket. What the old owner answered
	// before it, the new owner's kernel must have seen by then: the queues of the two nodes' interfaces may differ by that much. On a busy
	// node they may differ by more, and there confirmations take longer, too: it waits SettleLags times the longest, for LongestSettle at
	// most.
	SettleTime    = 40 * time.Millisecond
	SettleLags    = 4
	LongestSettle = time.Second
	// TakenOverTime is for how long the new owner, when it owns the bucket, drops what is passed on and what it has answered itself: longer
	// than packets can be passed on, because the last request was sent before, and the old owner may be slow.
	TakenOverTime = PassTime + 600*time.Millisecond
	// KeyTime is how much longer than the bucket lingers a request is confirmed: a node that asks late is told so at once.
	KeyTime = 8 * time.Second
)

// TakeoverKey is what another node must know to take a bucket over. The old owner draws it for each stop.
type TakeoverKey struct {
	Secret [8]byte // in the request
	Token  [4]byte // in the confirmation: who has seen only the request cannot forge it
}

// String is the key in hexadecimal digits.
func (k TakeoverKey) String() string { return hex.EncodeToString(append(k.Secret[:], k.Token[:]...)) }

// ParseTakeoverKey is the reverse of String.
func ParseTakeoverKey(text string) (TakeoverKey, error) {
	var key TakeoverKey
	raw, err := hex.DecodeString(text)
	if err == nil && len(raw) != len(key.Secret)+len(key.Token) {
		err = errors.New("a takeover key has another length")
	}
	if err == nil {
		copy(key.Secret[:], raw)
		copy(key.Token[:], raw[len(key.Secret):])
	}
	return key, err
}

// TakeoverFrame is the payload of a frame: TakeoverRequested or TakeoverDone. The number is any.
func TakeoverFrame(key TakeoverKey, bucket Bucket, kind, number uint32) []byte {
	payload := make([]byte, takeoverLength)
	binary.BigEndian.PutUint32(payload[takeoverNumberAt:], number)
	binary.BigEndian.PutUint32(payload[TakeoverTokenAt:], kind)
	copy(payload[TakeoverSecretAt:], key.Secret[:])
	binary.BigEndian.PutUint32(payload[TakeoverBucketAt:], uint32(bucket))
	return payload
}

// ConfirmsTakeover reports whether a payload confirms the request for a bucket.
func ConfirmsTakeover(payload []byte, key TakeoverKey, bucket Bucket) bool {
	confirmation := append(TakeoverFrame(key, bucket, TakeoverRequested, 0)[:TakeoverTokenAt], key.Token[:]...)
	return bytes.HasPrefix(payload, confirmation)
}

// TakeoverNumber returns the number of the request that a payload confirms.
func TakeoverNumber(payload []byte) (number uint32, ok bool) {
	if len(payload) < takeoverLength {
		return 0, false
	}
	return binary.BigEndian.Uint32(payload[takeoverNumberAt:]), true
}

// Linger is a bucket that was released, and that this node answers for until another node takes it over.
type Linger struct {
	Bucket Bucket
	Left   time.Duration
	Key    TakeoverKey
}

// Takeover is a bucket that this node owns and has taken over a short while ago. The old owner may still pass packets on for the time that
// is left.
type Takeover struct {
	Bucket Bucket
	Left   time.Duration
}

// PassesOn returns for how long, at most, another node may still pass on packets of a bucket that this node has taken over.
func (t Tables) PassesOn(bucket Bucket) time.Duration {
	takeover, _ := find(t.Takeovers, func(t Takeover) bool { return t.Bucket == bucket })
	return takeover.Left
}

// Lingers returns the lingering of a bucket, if it lingers here.
func (t Tables) Lingers(bucket Bucket) (Linger, bool) {
	return find(t.Lingering, func(l Linger) bool { return l.Bucket == bucket })
}

// EndedLingers returns the buckets that have lingered here a short while ago, and no longer do.
func (t Tables) EndedLingers() []Bucket {
	var lingering []Bucket
	for _, l := range t.Lingering {
		lingering = append(lingering, l.Bucket)
	}
	return Subtract(t.Lingered, lingering)
}

// ExpectTakeover prepares to own a bucket that may linger elsewhere: the kernel remembers new packets that it does not answer, and accepts
// those of them that are passed on.
type ExpectTakeover struct {
	Layout Layout
	Bucket Bucket
	Lasts  time.Duration // 0: it expects the bucket no longer
}

func (s ExpectTakeover) String() string {
	if s.Lasts == 0 {
		return fmt.Sprintf("%s: no longer expect to take over bucket %d", s.Layout.Address(), s.Bucket)
	}
	return fmt.Sprintf("%s: expect to take over bucket %d within %s", s.Layout.Address(), s.Bucket, s.Lasts.Round(time.Millisecond))
}

// Offer is a bucket that lingers elsewhere.
type Offer struct {
	Key  TakeoverKey
	Ends time.Time // the bucket lingers no longer
}

// TakeoverKernel is the part of a Kernel that takes lingering buckets over.
type TakeoverKernel interface {
	// RequestTakeover requests a bucket until each of the offers is confirmed or has ended, and longer (SettleTime). It returns how many were
	// confirmed. The bucket must be expected (ExpectTakeover).
	RequestTakeover(ctx context.Context, layout Layout, bucket Bucket, offers []Offer) (confirmed int, err error)
	// EndTakeover has the nodes that offered the bucket pass nothing on any more, SettleTime after the bucket is owned.
	EndTakeover(ctx context.Context, layout Layout, bucket Bucket, offers []Offer) error
}
