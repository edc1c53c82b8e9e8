package plan

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// A Snapshot is what one node had counted at some time.
type Snapshot struct {
	File      string
	Node      string
	Time      time.Time
	Online    []string // the nodes that are online in the cluster, also those in maintenance mode; none: not known
	Resources []Counters
}

// Counters are what a node has counted of a resource.
type Counters struct {
	Name     string
	Address  string // the first one
	Buckets  int
	HashMode string
	Prefix4  int
	Prefix6  int
	Counted  map[int]Traffic  // since the node owns the bucket; of the buckets that it owns
	Owners   map[int][]string // of all buckets, as far as the node knows them
}

// Traffic is a number of packets and bytes, or how many of them there are in a second.
type Traffic struct {
	Packets float64 `json:"packets"`
	Bytes   float64 `json:"bytes"`
}

// MeasureQuestion is the input of a plan for a running resource.
type MeasureQuestion struct {
	Snapshots []Snapshot
	Address   string // of the resource; "": there is one only
	Fail      int    // up to so many nodes fail at once
}

// Measured is the plan for a running resource, whose nodes have counted its packets. docs/schema/measured.schema.json describes its JSON.
type Measured struct {
	Resource string           `json:"resource"`
	Address  string           `json:"address"`
	Rates    bool             `json:"rates"`    // the traffic is in a second; else since each node owns the bucket
	Seconds  float64          `json:"seconds"`  // with rates: between the snapshots of a node, on average
	Missing  []string         `json:"missing"`  // nodes that are online and have no snapshot
	Nodes    []MeasuredNode   `json:"nodes"`    // in alphabetical order
	Buckets  []MeasuredBucket `json:"buckets"`  // by number
	Heavy    []int            `json:"heavy"`    // buckets, the heaviest first
	Failures []MeasuredLoss   `json:"failures"` // of each single node, and the worst one of more nodes
	Finer    []Finer          `json:"finer"`    // what more buckets could do
	Notes    []string         `json:"notes"`    // what limits these figures
	Advice   []string         `json:"advice"`
	hash     Counters         // the settings of the hash
	before   Placement
	anew     Traffic // as Finer[0], if Pacemaker placed the buckets anew
	names    []string
	weights  [measures][]float64 // of the buckets
}

// MeasuredNode is the load of a node.
type MeasuredNode struct {
	Node    string   `json:"node"`
	Files   []string `json:"files"`
	Buckets int      `json:"buckets"`
	Traffic Traffic  `json:"traffic"`
	Share   Traffic  `json:"share"` // of all
}

// MeasuredBucket is the load of a bucket.
type MeasuredBucket struct {
	Bucket  int     `json:"bucket"`
	Node    string  `json:"node"` // "" if it is not known
	Traffic Traffic `json:"traffic"`
	OfMean  Traffic `json:"of_mean"`
	Known   bool    `json:"known"` // a snapshot counts it; otherwise it is taken for average
	Moved   bool    `json:"moved"` // two nodes have counted it
}

// heaviness is by packets or by bytes, whichever is more.
func (b MeasuredBucket) heaviness() float64 { return max(b.OfMean.Packets, b.OfMean.Bytes) }

// MeasuredLoss is what the failure of nodes costs.
type MeasuredLoss struct {
	Failed  []string `json:"failed_nodes"`
	Moves   Traffic  `json:"moves"`         // the share of the load that moves
	Largest Traffic  `json:"largest_share"` // of all, on a remaining node
	OfEven  Traffic  `json:"of_even_share"` // the same, in even shares of the remaining nodes
	Node    string   `json:"node"`          // the one with the most packets
}

// Finer is the largest share of a node with another number of buckets, also after the planned failures. A bucket of today is divided into
// equal parts of the hash. How its packets divide depends on its clients, which are not known.
type Finer struct {
	Buckets int     `json:"buckets"`
	Best    Traffic `json:"best_of_even_share"`  // each part gets the same
	Worst   Traffic `json:"worst_of_even_share"` // one part gets all
}

// The measures of load.
const (
	byPackets = iota
	byBytes
	measures
)

func (t Traffic) of(measure int) float64 { return [...]float64{t.Packets, t.Bytes}[measure] }

func trafficOf(value func(measure int) float64) Traffic {
	return Traffic{value(byPackets), value(byBytes)}
}

// heavyFrom is how many times the mean a heavy bucket has.
const heavyFrom = 2

// Measure makes a plan of what nodes have counted. The error is what is wrong with the snapshots.
func Measure(q MeasureQuestion) (*Measured, error) {
	address, err := q.address()
	if err != nil {
		return nil, err
	}
	nodes, err := q.nodes(address)
	if err != nil {
		return nil, err
	}
	m := &Measured{
		Address: address, hash: nodes[0].last, Resource: nodes[0].last.Name,
		Missing: []string{}, Heavy: []int{}, Failures: []MeasuredLoss{}, Finer: []Finer{}, Notes: []string{}, Advice: []string{},
	}
	var unused []counting
	nodes, unused = m.choose(nodes, q.Snapshots)
	m.count(nodes)
	m.note(nodes, unused)
	if slices.Contains(m.before, nowhere) {
		return m, nil // the load of no node is known
	}
	fail := min(q.Fail, len(m.names)-1)
	for count := range fail {
		m.fail(count + 1)
	}
	m.refine(fail)
	m.advise()
	return m, nil
}

// address chooses the resource.
func (q MeasureQuestion) address() (string, error) {
	all := map[string]bool{}
	for _, s := range q.Snapshots {
		for _, r := range s.Resources {
			all[r.Address] = true
		}
	}
	addresses := slices.Sorted(maps.Keys(all))
	switch {
	case len(addresses) == 0:
		return "", ocf.Errorf(ocf.ErrArgs, "--measured: no file has a shared address")
	case q.Address != "" && !all[q.Address]:
		return "", ocf.Errorf(ocf.ErrArgs, "--to %s is in none of the files; they have %s", q.Address, strings.Join(addresses, ", "))
	case q.Address == "" && len(addresses) > 1:
		return "", ocf.Errorf(ocf.ErrArgs, "--measured: the files have several shared addresses; choose one with --to: %s",
			strings.Join(addresses, ", "))
	case q.Address != "":
		return q.Address, nil
	default:
		return addresses[0], nil
	}
}

// name returns which resource with that address is meant, if there are several, as while a resource is renamed: the one of which most is
// counted.
func (q MeasureQuestion) name(address string) string {
	counted := map[string]int{}
	for _, s := range q.Snapshots {
		for _, r := range s.Resources {
			if r.Address == address {
				counted[r.Name] += len(r.Counted)
			}
		}
	}
	names := slices.Sorted(maps.Keys(counted))
	return slices.MaxFunc(names, func(a, b string) int { return cmp.Compare(counted[a], counted[b]) })
}

// check returns what is wrong with the buckets.
func (c Counters) check() error {
	if c.Buckets < 1 || c.Buckets > ocf.MaxBuckets {
		return fmt.Errorf("%d is not a number of buckets from 1 to %d", c.Buckets, ocf.MaxBuckets)
	}
	for _, buckets := range []iter.Seq[int]{maps.Keys(c.Counted), maps.Keys(c.Owners)} {
		for bucket := range buckets {
			if bucket < 0 || bucket >= c.Buckets {
				return fmt.Errorf("bucket %d of %d", bucket, c.Buckets)
			}
		}
	}
	return nil
}

// A counting is what one node has counted: between two snapshots, or until one.
type counting struct {
	node  string
	files []string
	first *Counters // nil: there is one snapshot only
	last  Counters
	from  time.Time
	to    time.Time
}

func (c counting) seconds() float64 { return c.to.Sub(c.from).Seconds() }

// nodes returns the oldest and the newest counters of each node, in the order of their names.
func (q MeasureQuestion) nodes(address string) ([]counting, error) {
	var faults []string
	byNode := map[string]*counting{}
	snapshots := slices.Clone(q.Snapshots)
	slices.SortStableFunc(snapshots, func(a, b Snapshot) int { return a.Time.Compare(b.Time) })
	var settings *Counters
	var settingsIn string
	name := q.name(address)
	for _, s := range snapshots {
		i := slices.IndexFunc(s.Resources, func(r Counters) bool { return r.Address == address && r.Name == name })
		if i < 0 { // a file of the time before the resource was renamed
			i = slices.IndexFunc(s.Resources, func(r Counters) bool { return r.Address == address })
		}
		if i < 0 {
			faults = append(faults, fmt.Sprintf("%s does not have %s", s.File, address))
			continue
		}
		counters := s.Resources[i]
		if err := counters.check(); err != nil {
			faults = append(faults, fmt.Sprintf("%s, %s: %s", s.File, address, err))
			continue
		}
		if settings == nil {
			settings, settingsIn = &counters, s.File
		}
		if counters.Buckets != settings.Buckets {
			faults = append(faults, fmt.Sprintf("%s has %s, and %s has %s", s.File, Counted(counters.Buckets, "bucket"), settingsIn,
				Counted(settings.Buckets, "bucket")))
			continue
		}
		c := byNode[s.Node]
		switch {
		case c == nil:
			c = &counting{node: s.Node, from: s.Time}
			byNode[s.Node] = c
		case c.to.Equal(s.Time):
			faults = append(faults, fmt.Sprintf("%s and %s are the same snapshot of %s", c.files[len(c.files)-1], s.File, s.Node))
			continue
		case c.first == nil:
			first := c.last
			c.first = &first
		}
		c.last, c.to, c.files = counters, s.Time, append(c.files, s.File)
	}
	if len(faults) > 0 {
		return nil, ocf.Errorf(ocf.ErrArgs, "--measured: %s", strings.Join(faults, "; "))
	}
	all := make([]counting, 0, len(byNode))
	for _, name := range slices.Sorted(maps.Keys(byNode)) {
		all = append(all, *byNode[name])
	}
	return all, nil
}

// choose finds which nodes there are: those that the newest snapshot lists as online, if it lists any. Others have counted what their
// buckets had before they moved, which counts if it is in the same unit.
func (m *Measured) choose(all []counting, snapshots []Snapshot) (used, unused []counting) {
	newest := slices.MaxFunc(snapshots, func(a, b Snapshot) int { return a.Time.Compare(b.Time) })
	names := map[string]bool{}
	for _, name := range newest.Online {
		names[name] = true
	}
	var online []counting
	for _, n := range all {
		if len(newest.Online) == 0 {
			names[n.node] = true
		}
		if names[n.node] {
			online = append(online, n)
		} else {
			unused = append(unused, n)
		}
	}
	m.names = slices.Sorted(maps.Keys(names))
	for _, name := range m.names {
		if !slices.ContainsFunc(all, func(n counting) bool { return n.node == name }) {
			m.Missing = append(m.Missing, name)
		}
	}
	isSingle := func(n counting) bool { return n.first == nil }
	if len(online) == 0 {
		m.Rates = !slices.ContainsFunc(all, isSingle)
		return all, unused
	}
	m.hash, m.Resource = online[0].last, online[0].last.Name
	m.Rates = !slices.ContainsFunc(online, isSingle)
	return slices.DeleteFunc(slices.Clone(all), func(n counting) bool { return m.Rates && isSingle(n) }), unused
}

// count finds the owner and the load of each bucket.
func (m *Measured) count(nodes []counting) {
	known, sum := 0, Traffic{}
	for bucket := range m.hash.Buckets {
		b := m.measure(bucket, nodes)
		if b.Known {
			known++
			sum = Traffic{sum.Packets + b.Traffic.Packets, sum.Bytes + b.Traffic.Bytes}
		}
		m.Buckets = append(m.Buckets, b)
	}
	mean := trafficOf(func(measure int) float64 { return sum.of(measure) / float64(max(1, known)) })
	for i := range m.Buckets {
		b := &m.Buckets[i]
		if !b.Known {
			b.Traffic = mean
		}
		b.OfMean = trafficOf(func(measure int) float64 { return ratio(b.Traffic.of(measure), mean.of(measure)) })
		m.before = append(m.before, slices.Index(m.names, b.Node))
	}
	for measure := range measures {
		for _, b := range m.Buckets {
			m.weights[measure] = append(m.weights[measure], b.Traffic.of(measure))
		}
	}
	m.listNodes(nodes)
	m.listHeavy()
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// measure returns the load and the owner of a bucket.
func (m *Measured) measure(bucket int, nodes []counting) MeasuredBucket {
	b := MeasuredBucket{Bucket: bucket}
	var since time.Time // of the snapshot that names the owner
	counts := 0
	for _, n := range nodes {
		traffic, owns := n.last.Counted[bucket]
		before, owned := Traffic{}, false
		if n.first != nil {
			before, owned = n.first.Counted[bucket]
		}
		if !owns {
			if owned {
				counts++
			}
			continue
		}
		counts++
		if slices.Contains(m.names, n.node) && (b.Node == "" || n.to.After(since)) {
			b.Node, since = n.node, n.to
		}
		reset := traffic.Packets < before.Packets || traffic.Bytes < before.Bytes
		switch {
		case !m.Rates: // nodes have counted one after another
			b.Traffic = Traffic{b.Traffic.Packets + traffic.Packets, b.Traffic.Bytes + traffic.Bytes}
			b.Known = true
			continue
		case reset || !owned: // counted for a part of the time
			before = Traffic{}
			b.Moved = true
		}
		rate := trafficOf(func(measure int) float64 { return (traffic.of(measure) - before.of(measure)) / n.seconds() })
		b.Traffic = Traffic{max(b.Traffic.Packets, rate.Packets), max(b.Traffic.Bytes, rate.Bytes)}
		b.Known = true
	}
	b.Moved = b.Moved || counts > 1
	if b.Node == "" {
		b.Node = m.ownerElsewhere(bucket, nodes)
	}
	return b
}

// ownerElsewhere returns the owner of a bucket that no node has counted: the one that a node knows, or the only node without a snapshot.
func (m *Measured) ownerElsewhere(bucket int, nodes []counting) string {
	for _, n := range nodes {
		if owners := n.last.Owners[bucket]; len(owners) == 1 && slices.Contains(m.names, owners[0]) {
			return owners[0]
		}
	}
	if len(m.Missing) == 1 {
		return m.Missing[0]
	}
	return ""
}

func (m *Measured) listNodes(nodes []counting) {
	for number, name := range m.names {
		if slices.Contains(m.before, nowhere) && slices.Contains(m.Missing, name) {
			continue // what it owns is not known
		}
		node := MeasuredNode{Node: name, Files: []string{}}
		if i := slices.IndexFunc(nodes, func(n counting) bool { return n.node == name }); i >= 0 {
			node.Files = nodes[i].files
		}
		for bucket, on := range m.before {
			if on == number {
				node.Buckets++
				traffic := m.Buckets[bucket].Traffic
				node.Traffic = Traffic{node.Traffic.Packets + traffic.Packets, node.Traffic.Bytes + traffic.Bytes}
			}
		}
		node.Share = trafficOf(func(measure int) float64 { return m.shares(m.before, whole, measure)[number] })
		m.Nodes = append(m.Nodes, node)
	}
}

func (m *Measured) listHeavy() {
	for bucket, b := range m.Buckets {
		if b.Known && b.heaviness() >= heavyFrom {
			m.Heavy = append(m.Heavy, bucket)
		}
	}
	slices.SortStableFunc(m.Heavy, func(a, b int) int { return cmp.Compare(m.Buckets[b].heaviness(), m.Buckets[a].heaviness()) })
}

// fail adds the failures of so many nodes at once: of each single node, or else the worst.
func (m *Measured) fail(count int) {
	var worst *MeasuredLoss
	scheduler := newScheduler(len(m.names))
	for failed := range failures(len(m.names), count, mostTried) {
		after := scheduler.place(m.before, failed)
		var loss MeasuredLoss
		for _, node := range failed {
			loss.Failed = append(loss.Failed, m.names[node])
		}
		loss.Moves = trafficOf(func(measure int) float64 { return m.moving(failed, measure) })
		loss.Largest = trafficOf(func(measure int) float64 {
			shares := m.shares(after, whole, measure)
			most := slices.Max(shares)
			if measure == byPackets {
				loss.Node = m.names[slices.Index(shares, most)]
			}
			return most
		})
		left := float64(len(m.names) - count)
		loss.OfEven = trafficOf(func(measure int) float64 { return loss.Largest.of(measure) * left })
		if count == 1 {
			m.Failures = append(m.Failures, loss)
		} else if worst == nil || loss.Largest.Packets > worst.Largest.Packets {
			worst = &loss
		}
	}
	if worst != nil {
		m.Failures = append(m.Failures, *worst)
	}
}

// moving returns the share of the load on nodes that fail.
func (m *Measured) moving(failed []int, measure int) float64 {
	sum, shares := 0.0, m.shares(m.before, whole, measure)
	for _, node := range failed {
		sum += shares[node]
	}
	return sum
}

// refine compares this number of buckets with multiples of it, where each bucket of today is some whole buckets: the bucket of a packet is
// its hash, scaled to their number. To change their number, all buckets stop. So they are placed anew, except those of today.
func (m *Measured) refine(fail int) {
	for _, parts := range []int{1, 2, 4} {
		number := parts * m.hash.Buckets
		if number > ocf.MaxBuckets {
			break
		}
		finer := Finer{Buckets: number}
		evenly, unevenly := division{parts, false}, division{parts, true}
		start := m.before
		if parts > 1 {
			start = Start(number, len(m.names))
		}
		for count := range fail + 1 {
			scheduler := newScheduler(len(m.names))
			for failed := range failures(len(m.names), count, mostTried) {
				after := scheduler.place(start, failed)
				if parts == 1 {
					m.anew = larger(m.anew, m.ofEven(after, count, whole))
				}
				if count == 0 {
					after = start
				}
				finer.Best = larger(finer.Best, m.ofEven(after, count, evenly))
				finer.Worst = larger(finer.Worst, m.ofEven(after, count, unevenly))
			}
		}
		m.Finer = append(m.Finer, finer)
	}
}

// ofEven returns the largest share of a node when so many have failed, in even shares of the remaining ones.
func (m *Measured) ofEven(placement Placement, failed int, how division) Traffic {
	left := float64(len(m.names) - failed)
	return trafficOf(func(measure int) float64 { return left * slices.Max(m.shares(placement, how, measure)) })
}

// isLess reports whether less would be shown for one of the measures: figures that are shown as equal lead to no advice.
func (t Traffic) isLess(than Traffic) bool {
	return asShown(t.Packets) < asShown(than.Packets) || asShown(t.Bytes) < asShown(than.Bytes)
}

// asShown rounds as times does.
func asShown(value float64) float64 {
	rounded, _ := strconv.ParseFloat(times(value), 64) // of a number that was just written
	return rounded
}

func larger(a, b Traffic) Traffic { return Traffic{max(a.Packets, b.Packets), max(a.Bytes, b.Bytes)} }

// A division is that of each bucket into parts of the hash.
type division struct {
	parts  int
	uneven bool // whichever node is looked at, the part on it has all packets
}

var whole = division{parts: 1}

// shares returns the share of the load on each node.
func (m *Measured) shares(placement Placement, how division, measure int) []float64 {
	loads := make([]float64, len(m.names))
	total := 0.0
	for bucket, weight := range m.weights[measure] {
		total += weight
		parts := placement[bucket*how.parts : (bucket+1)*how.parts]
		for i, node := range parts {
			switch {
			case node == nowhere:
			case !how.uneven:
				loads[node] += weight / float64(how.parts)
			case !slices.Contains(parts[:i], node):
				loads[node] += weight
			}
		}
	}
	for node := range loads {
		loads[node] = ratio(loads[node], total)
	}
	return loads
}

// note collects what limits the figures.
func (m *Measured) note(nodes, unused []counting) {
	add := func(format string, args ...any) { m.Notes = append(m.Notes, fmt.Sprintf(format, args...)) }
	var seconds float64
	var single []string
	for _, n := range nodes {
		seconds += n.seconds() / float64(len(nodes))
		if n.first == nil {
			single = append(single, n.node)
		}
	}
	switch {
	case m.Rates:
		m.Seconds = seconds
	case len(single) < len(nodes):
		add("%s: one snapshot only. So all figures are totals since each node owns the bucket: give two snapshots of each node for rates.",
			strings.Join(single, ", "))
	default:
		add("These are totals since each node owns the bucket, so a bucket that has moved seems light. Two snapshots of each node give rates.")
	}
	for _, n := range unused {
		add("%s is not one of the nodes here, because the newest file does not list it as online (%s).", n.node, strings.Join(n.files, ", "))
	}
	if len(m.Missing) > 0 {
		add("There is no snapshot of %s (online).", strings.Join(m.Missing, ", "))
	}
	list := func(is func(MeasuredBucket) bool) []string {
		var numbers []string
		for _, b := range m.Buckets {
			if is(b) {
				numbers = append(numbers, fmt.Sprint(b.Bucket))
			}
		}
		return numbers
	}
	if unknown := list(func(b MeasuredBucket) bool { return !b.Known }); len(unknown) > 0 {
		add("No snapshot counts bucket %s: taken for average.", strings.Join(unknown, ","))
	}
	if nowhere := list(func(b MeasuredBucket) bool { return b.Node == "" }); len(nowhere) > 0 {
		add("The owner of bucket %s is not known, so the effect of failures is not either: give a snapshot of each node.",
			strings.Join(nowhere, ","))
	}
	if moved := list(func(b MeasuredBucket) bool { return b.Moved }); len(moved) > 0 {
		how := "two nodes have counted it, and the totals are added"
		if m.Rates {
			how = "counted for a part of the time, so its rate may be higher"
		}
		add("Bucket %s has moved: %s.", strings.Join(moved, ","), how)
	}
}

// fair is how many even shares the most loaded node may have, until something is advised.
const fair = 1.25

// advise collects what would make the load more even, as far as counters show it.
func (m *Measured) advise() {
	add := func(format string, args ...any) { m.Advice = append(m.Advice, fmt.Sprintf(format, args...)) }
	if slices.Max(m.weights[byPackets]) == 0 {
		add("No packets were counted: there is nothing to advise.")
		return
	}
	now := m.Finer[0].Best
	if asShown(max(now.Packets, now.Bytes)) <= fair {
		add("No node has more than %s even shares, also after these failures: change nothing.", times(max(now.Packets, now.Bytes)))
		return
	}
	add("The most loaded node has %s even shares of the packets and %s of the bytes, in the worst of these failures or without one.",
		times(now.Packets), times(now.Bytes))
	if m.anew.isLess(now) && !now.isLess(m.anew) {
		add("If Pacemaker placed the same buckets anew, it would have %s and %s. Something keeps them where they are: resource-stickiness (a "+
			"clone has 1 if it is not set) or a constraint (pcs constraint). Change that first, and more buckets only if new files show "+
			"that they are needed.",
			times(m.anew.Packets), times(m.anew.Bytes))
		return
	}
	helps := slices.IndexFunc(m.Finer[1:], func(f Finer) bool { return f.Best.isLess(now) })
	switch {
	case len(m.Finer) == 1:
		add("More buckets are not possible (at most %d).", ocf.MaxBuckets)
	case helps < 0:
		add("More buckets do not help, even if each is divided evenly.")
	default:
		finer := m.Finer[1+helps]
		add("With %d buckets it would have at best %s and %s, and at worst %s and %s: that depends on how many clients the heavy buckets have.",
			finer.Buckets, times(finer.Best.Packets), times(finer.Best.Bytes), times(finer.Worst.Packets), times(finer.Worst.Bytes))
	}
	if clusterip.HashMode(m.hash.HashMode).Ports() {
		add("With hashmode %s each connection has one bucket, so more buckets or another seed divide everything but one heavy connection.",
			m.hash.HashMode)
		return
	}
	add("Counters do not show clients. All packets of a client have one bucket, so more buckets, or another seed, divide a bucket of many " +
		"clients, but not one heavy client. plan --clients with an access log shows which it is; a hashmode with ports divides that, too.")
	switch {
	case m.hash.Prefix4 == 0 && m.hash.Prefix6 == 0: // not known
	case m.hash.Prefix4 < allBits4 || m.hash.Prefix6 < allBits6:
		add("Each network of /%d (IPv4) or /%d (IPv6) counts as one client: a longer hash_prefix4 or hash_prefix6 divides networks of many "+
			"clients.", m.hash.Prefix4, m.hash.Prefix6)
	default:
		add("Each address counts as one client already. A hash_prefix4 or hash_prefix6 would join clients, and make the load less even.")
	}
}

// The lengths of addresses.
const allBits4, allBits6 = 32, 128
