package plan

import (
	"slices"

	"ocf-clusterip/internal/ocf"
)

// Cost is how often monitors are called, in a second.
type Cost struct {
	OnNode    float64 `json:"monitor_calls_per_second_on_a_node"`
	InCluster float64 `json:"monitor_calls_per_second_in_the_cluster"`
}

// costOf counts the calls of all monitors of all buckets.
func costOf(buckets, nodes int, monitors []Monitor) Cost {
	var c Cost
	for _, monitor := range monitors {
		c.InCluster += float64(buckets) / monitor.Interval.Seconds()
	}
	c.OnNode = c.InCluster / float64(nodes)
	return c
}

// Advice is how many buckets to take.
type Advice struct {
	Buckets int      `json:"buckets"`
	Choices []Choice `json:"choices"`
}

// Choice is a number of buckets, with what it buys and what it costs.
type Choice struct {
	Buckets int     `json:"buckets"`
	OfEven  float64 `json:"of_even_share"`        // the largest share of a node after any failure that is planned for
	OfNow   float64 `json:"of_even_share_before"` // the same, in even shares of all nodes
	Cost    Cost    `json:"cost"`
}

// enough is how many buckets for each node are enough: s nodes that are left have at most one bucket more than an even share, which is
// buckets/s. So with 4 for each node that there ever is, no node bears more than 5/4 of an even share, whatever fails; for so many nodes as
// there can be 4 buckets for.
const enough = 4

// Advised is how many buckets are advised for so many nodes.
func Advised(nodes int) int { return min(enough*nodes, ocf.MaxBuckets) }

// advise weighs several numbers of buckets, and the asked one.
func advise(q Question) Advice {
	advice := Advice{Buckets: Advised(q.Nodes)}
	numbers := []int{advice.Buckets, q.Buckets}
	for _, each := range []int{1, 2, 8, 16} {
		numbers = append(numbers, each*q.Nodes)
	}
	slices.Sort(numbers)
	for _, buckets := range slices.Compact(numbers) {
		if buckets > ocf.MaxBuckets {
			break
		}
		choice := Choice{Buckets: buckets, Cost: costOf(buckets, q.Nodes, q.Monitors)}
		for failed := range q.Fail + 1 {
			left := q.Nodes - failed
			most := float64((buckets+left-1)/left) / float64(buckets)
			choice.OfEven = max(choice.OfEven, most*float64(left))
			choice.OfNow = max(choice.OfNow, most*float64(q.Nodes))
		}
		advice.Choices = append(advice.Choices, choice)
	}
	return advice
}
