package top

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
)

// history is what has moved since the first reading.
type history struct {
	since  time.Time
	owners map[place]string
	moves  []move // the newest last
}

// place is a bucket of a resource. With another number of buckets, the same number is another bucket. While a resource is renamed, two have
// the same address.
type place struct {
	resource string
	address  string
	buckets  int
	bucket   clusterip.Bucket
}

type move struct {
	when     time.Time
	resource string
	bucket   clusterip.Bucket
	from, to string
}

func (m move) String() string {
	return fmt.Sprintf("%s %s bucket %d: %s -> %s", m.when.Format(time.TimeOnly), m.resource, m.bucket, m.from, m.to)
}

// maxMoves is more than a screen shows.
const maxMoves = 100

// add compares a status with the one before. What a status lacks, because it was not read, keeps its owners.
func (h history) add(status operator.Status) history {
	next := history{since: h.since, owners: maps.Clone(h.owners), moves: slices.Clone(h.moves)}
	if h.owners == nil {
		next.since, next.owners = status.Time, map[place]string{}
	}
	for _, r := range status.Resources {
		for _, b := range r.Buckets {
			at := place{nameOf(r), addressOf(r), len(r.Buckets), b.Bucket}
			before, known := h.owners[at]
			now, certain := ownersOf(b)
			switch {
			case !certain:
				continue
			case known && now != before:
				next.moves = append(next.moves, move{status.Time, nameOf(r), b.Bucket, before, now})
			}
			next.owners[at] = now
		}
	}
	next.moves = next.moves[max(0, len(next.moves)-maxMoves):]
	return next
}

// ownersOf returns the nodes that answer for a bucket, or that none does. While it lingers it is on the way, and its old owner answers.
func ownersOf(b operator.BucketStatus) (who string, certain bool) {
	switch b.State {
	case operator.Unknown, operator.Lingering:
		return "", false
	case operator.Unowned, operator.Draining:
		return operator.Unowned, true
	default:
		return ocf.OneLine(strings.Join(b.Nodes, "+")), true
	}
}
