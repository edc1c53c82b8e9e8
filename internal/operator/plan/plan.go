// Package plan predicts the load of each node in a cluster of given numbers of nodes and buckets, without failures and after each possible
// failure; what the buckets cost; and how an operator's own clients spread over them.
package plan

import (
	"slices"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
)

// Question is the input of a plan.
type Question struct {
	Nodes    int
	Buckets  int
	Fail     int // up to so many nodes fail at once; less than Nodes
	Monitors []Monitor
	Resource Resource
	Log      *Log            // of the clients' requests; nil: not known
	Secret   *clusterip.Seed // a random seed to propose; nil: none is needed
}

// MaxFail is the largest Fail.
const MaxFail = 4

// Log is a log that was read.
type Log struct {
	Name  string
	Tally *Tally
}

// Monitor is a recurring operation.
type Monitor struct {
	Level    string        `json:"check_level"`
	Interval time.Duration `json:"-"`
	Timeout  time.Duration `json:"-"`
	Seconds  float64       `json:"interval_seconds"`
}

// Every returns the same monitor with another interval.
func (m Monitor) Every(interval time.Duration) Monitor {
	m.Interval, m.Seconds = interval, interval.Seconds()
	return m
}

// Monitors returns the monitors in the agent's meta-data.
func Monitors() []Monitor {
	var all []Monitor
	for _, action := range metadata.Actions() {
		if action.Interval > 0 {
			all = append(all, Monitor{Level: action.Depth, Timeout: action.Timeout}.Every(action.Interval))
		}
	}
	return all
}

// Plan is the result. docs/schema/plan.schema.json describes its JSON.
type Plan struct {
	Nodes        []string  `json:"nodes"`
	Buckets      int       `json:"buckets"`
	Placement    []string  `json:"placement"` // the node of each bucket, while no node fails
	Outcomes     []Outcome `json:"outcomes"`  // by the number of nodes that fail at once: 0, 1, …
	Failures     []Failure `json:"failures"`
	FailuresLeft int       `json:"failures_left_out"` // not in the list, because it would be too long
	Monitors     []Monitor `json:"monitors"`
	Cost         Cost      `json:"cost"`
	Advice       Advice    `json:"advice"`
	Clients      *Clients  `json:"clients,omitempty"`
	Commands     Commands  `json:"commands"`
	Secret       string    `json:"proposed_hash_seed,omitempty"`

	question    Question
	nodes       int
	before      Placement   // while no node fails
	worstOfNode [][]float64 // for each outcome and node, its greatest share of all requests or, where these are not known, of all buckets
}

// Outcome is the effect of the failure of so many nodes at once, whichever they are.
type Outcome struct {
	Failed    int     `json:"failed"`
	Left      int     `json:"left"`
	Failures  int     `json:"failures"` // in how many ways so many nodes can fail
	Tried     int     `json:"tried"`    // so many of these ways were tried, evenly chosen
	Most      int     `json:"most_buckets"`
	MostOn    int     `json:"nodes_with_most"`
	Least     int     `json:"least_buckets"`
	ByBuckets Burden  `json:"by_buckets"`
	ByClients *Burden `json:"by_requests,omitempty"`
}

// Burden is the load of the most loaded node.
type Burden struct {
	Share       float64  `json:"largest_share"` // of all, in the worst failure
	OfEven      float64  `json:"of_even_share"` // the same, in even shares of the remaining nodes
	OfNow       float64  `json:"of_even_share_before"`
	TypicalEven float64  `json:"typical_of_even_share"` // OfEven in the median failure
	Node        string   `json:"node"`                  // the most loaded one
	Failed      []string `json:"failed_nodes"`          // when these fail
}

// Failure is how many buckets each node owns after those nodes have failed at once.
type Failure struct {
	Failed []string       `json:"failed_nodes"`
	Counts map[string]int `json:"buckets"`
}

const (
	mostTried  = 5000 // ways to fail, of each number of nodes
	mostListed = 600  // altogether; all single and double failures of 32 nodes are 528
)

// Make makes a plan.
func Make(q Question) Plan {
	p := Plan{question: q, nodes: q.Nodes, Buckets: q.Buckets, Nodes: NodeNames(q.Nodes), Failures: []Failure{}, Monitors: q.Monitors}
	p.Advice = advise(q)
	p.before = Start(p.Buckets, q.Nodes)
	p.Placement = p.names(p.before)
	var loads []Load // nil: no requests are known
	if q.Log != nil {
		p.Clients = p.clients(q.Log.Tally.Loads())
		if p.knowsRequests() {
			loads = p.Clients.ByBucket
		}
	}
	for count := range q.Fail + 1 {
		p.try(loads, count)
	}
	p.Cost = costOf(p.Buckets, q.Nodes, q.Monitors)
	p.Commands = q.Resource.commands(p.Buckets, q.Monitors)
	if q.Secret != nil {
		p.Secret = q.Secret.String()
	}
	return p
}

// knowsRequests reports whether there is a log with requests. Otherwise buckets are the measure of load.
func (p *Plan) knowsRequests() bool { return p.Clients != nil && p.Clients.Requests > 0 }

// isSampled reports whether a worse failure may be among those that were not tried. The load in buckets is the same whichever nodes fail.
func (p *Plan) isSampled() bool {
	return p.knowsRequests() && slices.ContainsFunc(p.Outcomes, func(o Outcome) bool { return o.Tried < o.Failures })
}

func (p *Plan) names(nodes []int) []string {
	names := make([]string, len(nodes))
	for i, node := range nodes {
		names[i] = p.Nodes[node]
	}
	return names
}

// try adds the outcome of the failure of so many nodes.
func (p *Plan) try(loads []Load, count int) {
	out := Outcome{Failed: count, Left: p.nodes - count, Failures: combinations(p.nodes, count)}
	scheduler := newScheduler(p.nodes)
	ones := make([]uint64, p.Buckets)
	for bucket := range ones {
		ones[bucket] = 1
	}
	byBuckets, byClients := newWeighing(ones, p.nodes), newWeighing(requestsOf(loads), p.nodes)
	list := len(p.Failures)+out.Failures <= mostListed && count > 0
	for failed := range failures(p.nodes, count, mostTried) {
		after := scheduler.place(p.before, failed)
		out.Tried++
		byBuckets.weigh(after, failed)
		if loads != nil {
			byClients.weigh(after, failed)
		}
		if list {
			p.Failures = append(p.Failures, p.failure(after, failed))
		}
	}
	if !list && count > 0 {
		p.FailuresLeft += out.Failures
	}
	left := p.Buckets / out.Left // Pacemaker keeps shares even, whichever nodes fail
	out.Least, out.Most, out.MostOn = left, left, out.Left
	if more := p.Buckets % out.Left; more > 0 {
		out.Most, out.MostOn = left+1, more
	}
	out.ByBuckets = p.burden(byBuckets, count)
	worst := byBuckets
	if loads != nil {
		burden := p.burden(byClients, count)
		out.ByClients, worst = &burden, byClients
	}
	p.worstOfNode = append(p.worstOfNode, worst.shares())
	p.Outcomes = append(p.Outcomes, out)
}

func (p *Plan) failure(after Placement, failed []int) Failure {
	counts := map[string]int{}
	for node, count := range after.Counts(p.nodes) {
		if !slices.Contains(failed, node) {
			counts[p.Nodes[node]] = count
		}
	}
	return Failure{Failed: p.names(failed), Counts: counts}
}

// A weighing finds the most loaded nodes, by the weight of their buckets.
type weighing struct {
	weights []uint64 // of each bucket
	total   uint64
	now     []uint64 // of each node, in the failure at hand
	worst   []uint64 // of each node, in any
	maxima  []uint64 // of each failure
	node    int      // the most loaded one in any
	failed  []int    // when these fail
}

func newWeighing(weights []uint64, nodes int) *weighing {
	w := &weighing{weights: weights, now: make([]uint64, nodes), worst: make([]uint64, nodes)}
	for _, weight := range weights {
		w.total += weight
	}
	return w
}

func (w *weighing) weigh(after Placement, failed []int) {
	clear(w.now)
	for bucket, node := range after {
		w.now[node] += w.weights[bucket]
	}
	most := slices.Max(w.now)
	if most > slices.Max(w.worst) || len(w.maxima) == 0 {
		w.node, w.failed = slices.Index(w.now, most), slices.Clone(failed)
	}
	w.maxima = append(w.maxima, most)
	for node, weight := range w.now {
		w.worst[node] = max(w.worst[node], weight)
	}
}

func (w *weighing) share(weight uint64) float64 {
	return float64(weight) / float64(max(1, w.total))
}

func (w *weighing) shares() []float64 {
	all := make([]float64, len(w.worst))
	for node, weight := range w.worst {
		all[node] = w.share(weight)
	}
	return all
}

func (p *Plan) burden(w *weighing, failed int) Burden {
	slices.Sort(w.maxima)
	left := float64(p.nodes - failed)
	worst := w.share(w.maxima[len(w.maxima)-1])
	return Burden{
		Share: worst, OfEven: worst * left, OfNow: worst * float64(p.nodes),
		TypicalEven: w.share(w.maxima[len(w.maxima)/2]) * left,
		Node:        p.Nodes[w.node], Failed: p.names(w.failed),
	}
}

func requestsOf(loads []Load) []uint64 {
	weights := make([]uint64, len(loads))
	for bucket, load := range loads {
		weights[bucket] = load.Requests
	}
	return weights
}

// Headroom returns the largest load of a node, as a part of its capacity, with which no failure overloads another node.
func (p *Plan) Headroom() float64 {
	most := 1.0
	for _, outcome := range p.Outcomes {
		burden := outcome.ByBuckets
		if outcome.ByClients != nil {
			burden = *outcome.ByClients
		}
		most = max(most, burden.OfNow)
	}
	return 1 / most
}
