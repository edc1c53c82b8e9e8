package plan

import (
	"slices"

	"ocf-clusterip/internal/clusterip"
)

// Clients is how the clients in a log spread over buckets and nodes.
type Clients struct {
	Source   string     `json:"source"`
	Lines    uint64     `json:"lines"`
	Without  uint64     `json:"lines_without_an_address"`
	Unfit    uint64     `json:"lines_of_no_client"`       // loopback, multicast and the like
	Astray   uint64     `json:"lines_of_another_version"` // of which there is no shared address
	Requests uint64     `json:"requests"`
	IPv4     int        `json:"ipv4_clients"` // or networks, where these are hashed
	IPv6     int        `json:"ipv6_clients"`
	All      bool       `json:"all_clients_known"` // false: they were too many, and of some only the requests are counted
	Seed     string     `json:"hash_seed"`
	Prefix4  int        `json:"hash_prefix4"`
	Prefix6  int        `json:"hash_prefix6"`
	ByBucket []Load     `json:"by_bucket"`
	ByNode   []NodeLoad `json:"by_node"`
	Heaviest []Heavy    `json:"heaviest"`
	Reseed   SeedAdvice `json:"seed_advice"`
}

// NodeLoad is the load of a node while no node fails.
type NodeLoad struct {
	Node    string `json:"node"`
	Buckets int    `json:"buckets"`
	Load
	Share  float64 `json:"share"`
	OfEven float64 `json:"of_even_share"`
}

// Heavy is one of the clients with the most requests.
type Heavy struct {
	Client   string  `json:"client"`
	Requests uint64  `json:"requests"`
	Share    float64 `json:"share"`
	Bucket   uint32  `json:"bucket"`
	Node     string  `json:"node"`
}

// shown is how many of the heaviest clients the plan lists.
const shown = 5

func (p *Plan) clients(loads []Load) *Clients {
	tally := p.question.Log.Tally
	c := &Clients{
		Source: p.question.Log.Name, Lines: tally.Lines, Without: tally.Without, Unfit: tally.Unfit, Astray: tally.Astray,
		Requests: tally.Lines - tally.Without - tally.Unfit - tally.Astray, IPv4: len(tally.ipv4), IPv6: len(tally.ipv6), All: tally.complete(),
		Seed: tally.layout.Seed.String(), Prefix4: tally.layout.HashPrefixes.IPv4, Prefix6: tally.layout.HashPrefixes.IPv6,
		ByBucket: loads, ByNode: make([]NodeLoad, p.nodes), Heaviest: []Heavy{},
	}
	share := func(requests uint64) float64 { return float64(requests) / float64(max(1, c.Requests)) }
	for bucket, node := range p.before {
		n := &c.ByNode[node]
		n.Buckets++
		n.Clients += loads[bucket].Clients
		n.Requests += loads[bucket].Requests
	}
	for node := range c.ByNode {
		n := &c.ByNode[node]
		n.Node, n.Share = p.Nodes[node], share(n.Requests)
		n.OfEven = n.Share * float64(p.nodes)
	}
	for _, heavy := range tally.heaviest(shown) {
		bucket := tally.bucket(heavy.address)
		c.Heaviest = append(c.Heaviest,
			Heavy{tally.name(heavy), heavy.requests, share(heavy.requests), uint32(bucket), p.Nodes[p.before[bucket]]})
	}
	c.Reseed = adviseSeed(tally, loads, c.Requests, p.before, p.nodes)
	return c
}

// SeedAdvice is whether another hash_seed would spread these clients better.
type SeedAdvice struct {
	Result string  `json:"result"`
	OfEven float64 `json:"of_even_share"`                // the largest share of a node while no node fails
	Heavy  float64 `json:"share_of_the_heaviest"`        // the 100 heaviest clients' share of all requests
	Seed   string  `json:"hash_seed,omitempty"`          // the better one
	Then   float64 `json:"then_of_even_share,omitempty"` // OfEven with it
}

// The results.
const (
	NoRequests = "no requests"
	Even       = "even"           // no seed is needed
	OneClient  = "one client"     // sends more than a node's share; no seed divides it
	Chance     = "chance"         // many clients of different weight; another seed has other chances
	NoBetter   = "no better seed" // a few heavy clients, and no seed spreads them much better
	Better     = "better seed"
)

const (
	tolerable  = 1.25 // even shares on one node
	seedsTried = 64
	weighty    = 100 // so many heaviest clients decide about the seed; any seed spreads the others evenly
)

// adviseSeed looks for another seed only if a few heavy clients send half of the requests or more. Then the seed is likely to stay better.
func adviseSeed(t *Tally, loads []Load, total uint64, before Placement, nodes int) SeedAdvice {
	now := worstShare(loads, before, nodes)
	advice := SeedAdvice{OfEven: now}
	heavy := t.heaviest(weighty)
	var heavys uint64
	for _, c := range heavy {
		heavys += c.requests
	}
	advice.Heavy = float64(heavys) / float64(max(1, total))
	switch {
	case total == 0:
		advice.Result = NoRequests
		return advice
	case now <= tolerable:
		advice.Result = Even
		return advice
	case float64(heavy[0].requests)*float64(nodes) > tolerable*float64(total):
		advice.Result = OneClient
		return advice
	case heavys < total/2:
		advice.Result = Chance
		return advice
	}
	best, least := *t, now
	for seed := range clusterip.Seed(seedsTried) {
		other := *t
		other.layout.Seed = seed + 1
		shares := make([]float64, nodes)
		for bucket := range before {
			shares[before[bucket]] += float64(total-heavys) / float64(len(before))
		}
		for _, c := range heavy {
			shares[before[other.bucket(c.address)]] += float64(c.requests)
		}
		if share := slices.Max(shares) * float64(nodes) / float64(total); share < least {
			best, least = other, share
		}
	}
	advice.Result = NoBetter
	if !t.complete() || best.layout.Seed == t.layout.Seed {
		return advice
	}
	if then := worstShare(best.Loads(), before, nodes); then-1 <= (now-1)/2 {
		advice.Result, advice.Seed, advice.Then = Better, best.layout.Seed.String(), then
	}
	return advice
}

// worstShare returns the share of the most loaded node, in even shares.
func worstShare(loads []Load, before Placement, nodes int) float64 {
	w := newWeighing(requestsOf(loads), nodes)
	w.weigh(before, nil)
	return w.share(slices.Max(w.now)) * float64(nodes)
}
