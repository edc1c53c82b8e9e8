package plan

import (
	"fmt"
	"iter"
)

// Placement is the node of each bucket: Placement[bucket] is a node's number, 0..nodes-1 in the alphabetical order of their names, by which
// Pacemaker decides between equal nodes.
type Placement []int

// nowhere is the place of an unowned bucket.
const nowhere = -1

// Start returns where Pacemaker's scheduler places the buckets of a clone when the whole cluster starts.
func Start(buckets, nodes int) Placement {
	stopped := make(Placement, buckets)
	for bucket := range stopped {
		stopped[bucket] = nowhere
	}
	return newScheduler(nodes).place(stopped, nil)
}

// After returns where Pacemaker's scheduler places the buckets when those nodes fail at once.
func (p Placement) After(nodes int, failed []int) Placement {
	return newScheduler(nodes).place(p, failed)
}

// Counts returns how many buckets each node owns.
func (p Placement) Counts(nodes int) []int {
	counts := make([]int, nodes)
	for _, node := range p {
		counts[node]++
	}
	return counts
}

// A scheduler places buckets as Pacemaker places the instances of a clone with clone-node-max=clone-max, globally-unique=true and
// resource-stickiness=0, in a cluster of equal nodes where nothing else runs: lib/pacemaker/pcmk_sched_clone.c, distribute_children, and
// pcmk_sched_nodes.c, compare_nodes, of Pacemaker 2.1.5 (pcmk_sched_instances.c since 2.1.6). It can be used again and again.
type scheduler struct {
	down   []bool
	counts []int
	next   Placement
}

func newScheduler(nodes int) *scheduler {
	return &scheduler{down: make([]bool, nodes), counts: make([]int, nodes)}
}

// place returns the placement that follows now when those nodes are down. It is valid until the next call.
func (s *scheduler) place(now Placement, failed []int) Placement {
	clear(s.down)
	clear(s.counts)
	for _, node := range failed {
		s.down[node] = true
	}
	s.next = append(s.next[:0], now...)
	runs := func(node int) bool { return node != nowhere && !s.down[node] }

	// Running buckets stay, but on no node more than an even share, rounded down.
	share := max(1, len(now)/(len(s.down)-len(failed)))
	for bucket, node := range now {
		if !runs(node) || s.counts[node] >= share {
			s.next[bucket] = nowhere
			continue
		}
		s.counts[node]++
	}
	// The others go to the node with the fewest, running ones first. One whose own node is among those with the fewest stays.
	for _, running := range []bool{true, false} {
		for bucket, node := range now {
			if s.next[bucket] != nowhere || runs(node) != running {
				continue
			}
			best := s.least()
			if running && s.counts[node] == s.counts[best] {
				best = node
			}
			s.next[bucket] = best
			s.counts[best]++
		}
	}
	return s.next
}

// least returns the first of the nodes with the fewest buckets.
func (s *scheduler) least() int {
	best := nowhere
	for node, count := range s.counts {
		if !s.down[node] && (best == nowhere || count < s.counts[best]) {
			best = node
		}
	}
	return best
}

// NodeNames returns example names for nodes. Their alphabetical order is that of their numbers.
func NodeNames(nodes int) []string {
	names := make([]string, nodes)
	width := len(fmt.Sprint(nodes))
	for i := range names {
		names[i] = fmt.Sprintf("node%0*d", width, i+1)
	}
	return names
}

// failures yields the ways in which so many of the nodes can fail at once, evenly chosen if there are more than most. Each is valid until
// the next one.
func failures(nodes, count, most int) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		all := combinations(nodes, count)
		step := max(1, (all+most-1)/most)
		failed := make([]int, count)
		for number := 0; number < all; number += step {
			combination(failed, nodes, number)
			if !yield(failed) {
				return
			}
		}
	}
}

// combinations returns the binomial coefficient.
func combinations(n, k int) int {
	result := 1
	for i := range k {
		result = result * (n - i) / (i + 1)
	}
	return result
}

// combination writes the combination with that number in lexicographic order.
func combination(into []int, n, number int) {
	next := 0
	for i := range into {
		for {
			behind := combinations(n-next-1, len(into)-i-1) // combinations with next in this place
			if number < behind {
				break
			}
			number -= behind
			next++
		}
		into[i] = next
		next++
	}
}
