package clusterip

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Moves are the buckets of a node that are on their way to or from another one, so that no connection breaks: the former owner goes on
// serving the connections that it has, while the new one takes those that are new. The kernel itself ends both after a time.
type Moves struct {
	Draining []Drain    // given away; their connections are still served here
	Adopting []Adoption // owned; but connections that are not known here may be another node's
	// HandedOver are those that the node has told the others that it drains, and has not said yet that it no longer does. They are
	// what shows that something drained here, when that is over.
	HandedOver []Bucket
}

// Drain is a bucket whose connections this node still serves.
type Drain struct {
	Bucket Bucket
	Left   time.Duration
}

// Adoption is a bucket some of whose connections other nodes may still serve.
type Adoption struct {
	Bucket Bucket
	Left   time.Duration
	From   []string // the nodes' names
}

// String is for logs.
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
		slices.Equal(m.HandedOver, other.HandedOver)
}

// Drains tells whether the bucket's connections are still served.
func (m Moves) Drains(bucket Bucket) bool { return slices.Contains(m.DrainingBuckets(), bucket) }

// DrainingBuckets returns the buckets that drain.
func (m Moves) DrainingBuckets() []Bucket {
	var buckets []Bucket
	for _, d := range m.Draining {
		buckets = append(buckets, d.Bucket)
	}
	return buckets
}

// EndedDrains are the buckets whose drain has ended without anybody's having cleared up.
func (m Moves) EndedDrains() []Bucket { return Subtract(m.HandedOver, m.DrainingBuckets()) }

// Drain is that of a bucket, if it drains.
func (m Moves) Drain(bucket Bucket) (Drain, bool) {
	return find(m.Draining, func(d Drain) bool { return d.Bucket == bucket })
}

// Unrenewed are the buckets of the drains, seen so long ago, that have not begun anew since, with whatever time.
func (m Moves) Unrenewed(drains []Drain, ago time.Duration) []Bucket {
	const atMost = time.Second // between the two clocks
	var buckets []Bucket
	for _, d := range drains {
		if now, ok := m.Drain(d.Bucket); ok && now.Left <= d.Left && d.Left-now.Left <= ago+atMost {
			buckets = append(buckets, d.Bucket)
		}
	}
	return buckets
}

// NoLongerServed are the buckets of which the node served connections, when it owns these and these moves go on.
func (t Tables) NoLongerServed(owned []Bucket, moves Moves) []Bucket {
	return Subtract(Subtract(slices.Concat(t.Owned, t.Moves.DrainingBuckets()), owned), moves.DrainingBuckets())
}

// Adoption is that of a bucket, if it is adopted.
func (m Moves) Adoption(bucket Bucket) (Adoption, bool) {
	return find(m.Adopting, func(a Adoption) bool { return a.Bucket == bucket })
}

// Without leaves out all that concerns the buckets.
func (m Moves) Without(buckets ...Bucket) Moves {
	return m.only(func(b Bucket) bool { return !slices.Contains(buckets, b) })
}

// Below leaves out what is no bucket of fewer than n.
func (m Moves) Below(n Bucket) Moves {
	return m.only(func(b Bucket) bool { return b < n })
}

func (m Moves) only(is func(Bucket) bool) Moves {
	return Moves{
		Draining:   slices.DeleteFunc(slices.Clone(m.Draining), func(d Drain) bool { return !is(d.Bucket) }),
		Adopting:   slices.DeleteFunc(slices.Clone(m.Adopting), func(a Adoption) bool { return !is(a.Bucket) }),
		HandedOver: slices.DeleteFunc(slices.Clone(m.HandedOver), func(b Bucket) bool { return !is(b) }),
	}
}

// WithDrain gives a bucket away.
func (m Moves) WithDrain(bucket Bucket, left time.Duration) Moves {
	m = m.Without(bucket)
	m.Draining = append(m.Draining, Drain{Bucket: bucket, Left: left})
	m.HandedOver = append(m.HandedOver, bucket)
	slices.SortFunc(m.Draining, func(a, b Drain) int { return cmp.Compare(a.Bucket, b.Bucket) })
	slices.Sort(m.HandedOver)
	return m
}

// WithAdoption takes a bucket over.
func (m Moves) WithAdoption(adoption Adoption) Moves {
	m = m.Without(adoption.Bucket)
	m.Adopting = append(m.Adopting, adoption)
	slices.SortFunc(m.Adopting, func(a, b Adoption) int { return cmp.Compare(a.Bucket, b.Bucket) })
	return m
}
