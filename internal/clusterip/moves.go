package clusterip

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Moves are the hand-overs of a node's buckets. The old owner keeps serving the connections that it has, and the new owner accepts new
// ones. The kernel ends both after a time.
type Moves struct {
	Draining []Drain    // released; this node still serves their connections
	Adopting []Adoption // owned; unknown connections may be served by an old owner
	// Announced are the buckets whose drain this node has announced, and whose announcement it has not cleared yet. They show that
	// something drained here after the kernel has ended the drain.
	Announced []Bucket
}

// Drain is a bucket that this node drains.
type Drain struct {
	Bucket Bucket
	Left   time.Duration
}

// Adoption is a bucket that this node has adopted.
type Adoption struct {
	Bucket Bucket
	Left   time.Duration
	From   []string // the old owners' names
}

// String is for messages.
func (m Moves) String() string {
	var parts []string
	for _, d := range m.Draining {
		parts = append(parts, fmt.Sprintf("drain %d for %s", d.Bucket, d.Left.Round(time.Second)))
	}
	for _, a := range m.Adopting {
		parts = append(parts, fmt.Sprintf("adopt %d from %s for %s", a.Bucket, strings.Join(a.From, ","), a.Left.Round(time.Second)))
	}
	if len(parts) == 0 {
		return "no moves"
	}
	return strings.Join(parts, ", ")
}

func (m Moves) equal(other Moves) bool {
	same := func(a, b Adoption) bool { return reflect.DeepEqual(a, b) }
	return slices.Equal(m.Draining, other.Draining) && slices.EqualFunc(m.Adopting, other.Adopting, same) &&
		slices.Equal(m.Announced, other.Announced)
}

// Drains reports whether the bucket drains.
func (m Moves) Drains(bucket Bucket) bool { return slices.Contains(m.DrainingBuckets(), bucket) }

// DrainingBuckets returns the buckets that drain.
func (m Moves) DrainingBuckets() []Bucket {
	var buckets []Bucket
	for _, d := range m.Draining {
		buckets = append(buckets, d.Bucket)
	}
	return buckets
}

// EndedDrains returns the buckets whose drain the kernel has ended, and after which no action has cleaned up.
func (m Moves) EndedDrains() []Bucket { return Subtract(m.Announced, m.DrainingBuckets()) }

// Drain returns the drain of a bucket, if it drains.
func (m Moves) Drain(bucket Bucket) (Drain, bool) {
	return find(m.Draining, func(d Drain) bool { return d.Bucket == bucket })
}

// Unrenewed returns the buckets of drains that were observed so long ago and have not begun anew since.
func (m Moves) Unrenewed(drains []Drain, ago time.Duration) []Bucket {
	const atMost = time.Second // of difference between the clocks
	var buckets []Bucket
	for _, d := range drains {
		if now, ok := m.Drain(d.Bucket); ok && now.Left <= d.Left && d.Left-now.Left <= ago+atMost {
			buckets = append(buckets, d.Bucket)
		}
	}
	return buckets
}

// NoLongerServed returns the buckets that the node serves now, but not when it owns these and has these moves.
func (t Tables) NoLongerServed(owned []Bucket, moves Moves) []Bucket {
	return Subtract(Subtract(slices.Concat(t.Owned, t.Moves.DrainingBuckets()), owned), moves.DrainingBuckets())
}

// Settled returns the buckets that the node owns, and of which no other node may still serve connections.
func (t Tables) Settled() []Bucket {
	return slices.DeleteFunc(slices.Clone(t.Owned), func(b Bucket) bool {
		_, adopts := t.Moves.Adoption(b)
		return adopts
	})
}

// Adoption returns the adoption of a bucket, if it is adopted.
func (m Moves) Adoption(bucket Bucket) (Adoption, bool) {
	return find(m.Adopting, func(a Adoption) bool { return a.Bucket == bucket })
}

// Without leaves out the buckets.
func (m Moves) Without(buckets ...Bucket) Moves {
	return m.only(func(b Bucket) bool { return !slices.Contains(buckets, b) })
}

// Below leaves out the buckets from n on.
func (m Moves) Below(n Bucket) Moves {
	return m.only(func(b Bucket) bool { return b < n })
}

func (m Moves) only(is func(Bucket) bool) Moves {
	return Moves{
		Draining:  slices.DeleteFunc(slices.Clone(m.Draining), func(d Drain) bool { return !is(d.Bucket) }),
		Adopting:  slices.DeleteFunc(slices.Clone(m.Adopting), func(a Adoption) bool { return !is(a.Bucket) }),
		Announced: slices.DeleteFunc(slices.Clone(m.Announced), func(b Bucket) bool { return !is(b) }),
	}
}

// WithDrain adds the drain of a bucket, and removes its adoption.
func (m Moves) WithDrain(bucket Bucket, left time.Duration) Moves {
	m = m.Without(bucket)
	m.Draining = append(m.Draining, Drain{Bucket: bucket, Left: left})
	m.Announced = append(m.Announced, bucket)
	slices.SortFunc(m.Draining, func(a, b Drain) int { return cmp.Compare(a.Bucket, b.Bucket) })
	slices.Sort(m.Announced)
	return m
}

// WithAdoption adds an adoption, and removes the bucket's drain.
func (m Moves) WithAdoption(adoption Adoption) Moves {
	m = m.Without(adoption.Bucket)
	m.Adopting = append(m.Adopting, adoption)
	slices.SortFunc(m.Adopting, func(a, b Adoption) int { return cmp.Compare(a.Bucket, b.Bucket) })
	return m
}
