package plan

import (
	"slices"

	"ocf-clusterip/internal/ocf"
)

// Cost is the number of monitor actions in a second.
type Cost struct {
	OnNode    float64 `json:"monitor_calls_per_second_on_a_node"`
	InCluster float64 `json:"monitor_calls_per_second_in_the_cluster"`
}

// costOf counts all monitors of all buckets.
func costOf(buckets, nodes int, monitors []Monitor) Cost {
	var c Cost
	for _, monitor := range monitors {
		c.InCluster += float64(buckets) / monitor.Interval.Seconds()
	}
	c.OnNode = c.InCluster / float64(nodes)
	return c
}

// Advice is the recommended number of buckets.
type Advice struct {
	Buckets int      `json:"buckets"`
	Choices []Choice `json:"choices"`
}

// Choice is a number of buckets, with its largest share and its cost.
type Choice struct {
	Buckets int     `json:"buckets"`
	OfEven  float64 `json:"of_even_share"`        // the largest share after any planned failure, in even shares of the remaining nodes
	OfNow   float64 `json:"of_even_share_before"` // the same, in even shares of all nodes
	Cost    Cost    `json:"cost"`
}

// enough is the recommended number of buckets for each node. Of s remaining nodes none owns more than one bucket above an even share, which
// is buckets/s. So with 4 buckets for each node, no node carries more than 5/4 of an even share, whichever nodes fail, up to the number of
// nodes for which there can be 4 buckets each.
const enough = 4

// Advised returns the recommended number of buckets for a number of nodes.
func Advised(nodes int) int { return min(enough*nodes, ocf.MaxBuckets) }

// advise compares several numbers of buckets, and the planned one.
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
