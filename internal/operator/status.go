package operator

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// Health is how well a resource serves its clients; its number is the command's exit status.
type Health int

// The grades, from the best.
const (
	Healthy  Health = iota // each client has one answer, and there is nothing to do
	Degraded               // it has; but somebody should look
	Broken                 // some clients have none, or two, or one from a node that does not know it
)

var healths = [...]string{"healthy", "degraded", "broken"}

func (h Health) String() string { return healths[h] }

// MarshalText writes it into JSON as a word.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads it.
func (h *Health) UnmarshalText(text []byte) error {
	i := slices.Index(healths[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is none of %s", text, strings.Join(healths[:], ", "))
	}
	*h = Health(i)
	return nil
}

// Status is what a survey means, for people and programs. docs/schema/status.schema.json describes its JSON.
type Status struct {
	Node      string           `json:"node"` // that was asked; "" if its name in the cluster is not known
	Time      time.Time        `json:"time"`
	Health    Health           `json:"health"` // the worst of all
	Cluster   *ClusterStatus   `json:"cluster"`
	Problems  []Problem        `json:"problems"` // of the cluster
	Resources []ResourceStatus `json:"resources"`
}

// ClusterStatus is how the cluster manager sees the nodes.
type ClusterStatus struct {
	Quorum      bool         `json:"quorum"`
	Fencing     bool         `json:"fencing"`
	Maintenance bool         `json:"maintenance"`
	Nodes       []NodeStatus `json:"nodes"`
}

// NodeStatus is how it sees one.
type NodeStatus struct {
	Name  string `json:"name"`
	State string `json:"state"` // online, standby, maintenance, unclean, offline
}

// ResourceStatus is what is so of one resource.
type ResourceStatus struct {
	Name            string         `json:"name"` // "" if nobody has told it
	Health          Health         `json:"health"`
	Problems        []Problem      `json:"problems"`
	Addresses       []netip.Addr   `json:"addresses"`
	NIC             string         `json:"nic"` // on this node; "" if it is not known there
	MACMode         string         `json:"mac_mode"`
	MACs            []string       `json:"macs"`
	HashMode        string         `json:"hashmode"`
	HashCompat      string         `json:"hash_compat"`
	HashPrefix4     int            `json:"hash_prefix4"`
	HashPrefix6     int            `json:"hash_prefix6"`
	SeedFingerprint string         `json:"seed_fingerprint"` // to compare nodes by, see fingerprint
	Services        []string       `json:"services"`         // that share load; none: all
	Backend         string         `json:"backend"`          // on this node; "" if nothing is laid there
	BackendReason   string         `json:"backend_reason"`
	DrainSeconds    *float64       `json:"drain_seconds"` // 0: connections do not survive moves; null: they do, for how long is not known
	Shares          []Share        `json:"shares"`
	Foreign         *Traffic       `json:"foreign"` // packets for other nodes, dropped by this one; null: not counted
	Buckets         []BucketStatus `json:"buckets"`
}

// Share is how many buckets a node has.
type Share struct {
	Node    string `json:"node"`
	Buckets int    `json:"buckets"`
}

// BucketStatus is what is so of one bucket.
type BucketStatus struct {
	Bucket  clusterip.Bucket `json:"bucket"`
	State   string           `json:"state"` // see the constants
	Nodes   []string         `json:"nodes"` // that answer
	Drains  []DrainStatus    `json:"drains"`
	Traffic *Traffic         `json:"traffic"` // on this node; null: another one has it, or nobody counts
}

// DrainStatus is a node that serves former connections of a bucket.
type DrainStatus struct {
	Node        string  `json:"node"`
	Seconds     float64 `json:"seconds"`     // at most, from now on this node, or from when another one said so
	Connections *int    `json:"connections"` // on this node; null: not counted
}

// Traffic is what was counted, and how it grew since the status before; null without one.
type Traffic struct {
	Packets          uint64   `json:"packets"`
	Bytes            uint64   `json:"bytes"`
	PacketsPerSecond *float64 `json:"packets_per_second"`
	BytesPerSecond   *float64 `json:"bytes_per_second"`
}

// Problem is something that should not be so, and what mends it.
type Problem struct {
	Health  Health `json:"health"` // that it makes
	Text    string `json:"text"`
	Command string `json:"command"` // to type; "" where there is no single one
}

// Judge says what a survey means.
func Judge(survey Survey, now time.Time) Status {
	status := Status{Node: survey.Node, Time: now.UTC(), Problems: []Problem{}, Resources: []ResourceStatus{}}
	status.judgeCluster(survey)
	for _, p := range status.Problems {
		status.Health = max(status.Health, p.Health)
	}
	for _, r := range survey.Resources {
		judged := r.status(survey)
		status.Health = max(status.Health, judged.Health)
		status.Resources = append(status.Resources, judged)
	}
	return status
}

func (s *Status) judgeCluster(survey Survey) {
	degraded := func(command, format string, args ...any) {
		s.Problems = append(s.Problems, Problem{Degraded, fmt.Sprintf(format, args...), command})
	}
	view := survey.Cluster
	if view == nil {
		why := "nobody has asked it"
		if survey.Why != nil {
			why = ocf.OneLine(survey.Why.Error())
		}
		degraded("systemctl status pacemaker", "Pacemaker does not answer, so only this node is known: %s", why)
		return
	}
	// During an upgrade this node's crm_mon may read the configuration in another way than the node that decides.
	fencing := view.Fencing && len(survey.FencingOff) == 0
	s.Cluster = &ClusterStatus{Quorum: view.Quorum, Fencing: fencing, Maintenance: view.Maintenance, Nodes: []NodeStatus{}}
	if !view.Quorum {
		degraded("corosync-quorumtool", "this part of the cluster has no quorum")
	}
	const withoutFencing = "so a node that is lost and not dead may answer beside the others"
	for _, setting := range survey.FencingOff {
		degraded("pcs property unset "+setting.Name, "fencing is switched off (%s), "+withoutFencing, ocf.OneLine(setting.String()))
	}
	if !fencing && len(survey.FencingOff) == 0 {
		degraded("ocf-clusterip doctor", "fencing is switched off, "+withoutFencing)
	}
	if view.Maintenance {
		degraded("pcs property set maintenance-mode=false", "the cluster is in maintenance mode: Pacemaker starts, stops and moves nothing")
	}
	for _, node := range view.Nodes {
		state := stateOf(node)
		s.Cluster.Nodes = append(s.Cluster.Nodes, NodeStatus{node.Name, state})
		switch state {
		case "unclean":
			degraded("stonith_admin --history "+node.Name+" --verbose", "%s is lost and not yet fenced: its buckets wait for that", node.Name)
		case "offline":
			command := "pcs cluster start " + node.Name
			if node.Remote {
				command = "pcs resource enable " + node.Name
			}
			degraded(command, "%s is offline, so the others do its work", node.Name)
		case "maintenance":
			degraded("pcs node unmaintenance "+node.Name, "%s is in maintenance mode: Pacemaker starts, stops and moves nothing there", node.Name)
		}
	}
}

func stateOf(node pacemaker.Node) string {
	switch {
	case node.Unclean:
		return "unclean"
	case !node.Online:
		return "offline"
	case node.Maintenance:
		return "maintenance"
	case node.Standby:
		return "standby"
	default:
		return "online"
	}
}

// fingerprint is for people who compare nodes, and who must not learn the seed: who knows it can send all he has to one node. So it is short.
// Seeds that differ have the same one in 1 of 256 cases. A long one, of whatever hash, is searched for small seeds in seconds.
func fingerprint(seed clusterip.Seed) string {
	const constant = 0x66707273 // the same in every version
	return fmt.Sprintf("%02x", uint8(clusterip.Jhash(constant, uint32(seed))))
}

func (r Resource) status(survey Survey) ResourceStatus {
	layout := r.Layout
	status := ResourceStatus{
		Name: cmp.Or(r.Asked.Resource, layout.Resource), Problems: []Problem{}, Addresses: layout.Addresses(), NIC: layout.NIC,
		MACMode: string(layout.MACMode), MACs: []string{}, HashMode: string(layout.HashMode), HashCompat: string(layout.HashCompat),
		HashPrefix4: layout.HashPrefixes.IPv4, HashPrefix6: layout.HashPrefixes.IPv6,
		SeedFingerprint: fingerprint(layout.Seed), Services: []string{},
		BackendReason: r.Backend, Shares: []Share{}, Buckets: []BucketStatus{},
	}
	for _, mac := range layout.AllMACs() {
		status.MACs = append(status.MACs, mac.String())
	}
	for _, service := range layout.Services {
		status.Services = append(status.Services, service.String())
	}
	if r.Here.Present {
		status.Backend = string(layout.Backend)
	}
	if limit := r.Asked.Drain.Seconds(); r.Configured != nil || !layout.Drains {
		status.DrainSeconds = &limit
	}
	if r.Traffic != nil {
		status.Foreign = trafficOf(r.Traffic.Foreign)
	}
	shares := map[string]int{}
	if r.Configured == nil && !r.Here.Present { // how many there are is not known
		layout.Buckets, r.Layout.Buckets = 0, 0
	}
	for _, bucket := range r.buckets() {
		b := r.bucket(bucket)
		for _, node := range b.Nodes {
			shares[node]++
		}
		status.Buckets = append(status.Buckets, b)
	}
	for node, buckets := range shares {
		status.Shares = append(status.Shares, Share{node, buckets})
	}
	slices.SortFunc(status.Shares, func(a, b Share) int { return strings.Compare(a.Node, b.Node) })
	r.judge(&status, survey)
	for _, p := range status.Problems {
		status.Health = max(status.Health, p.Health)
	}
	return status
}

func trafficOf(count clusterip.Count) *Traffic {
	return &Traffic{Packets: count.Packets, Bytes: count.Bytes}
}

func (r Resource) bucket(bucket clusterip.Bucket) BucketStatus {
	nodes, state := r.owner(bucket)
	status := BucketStatus{Bucket: bucket, State: state, Nodes: append([]string{}, nodes...), Drains: []DrainStatus{}}
	for _, d := range r.Here.Moves.Draining {
		if d.Bucket == bucket {
			drain := DrainStatus{Node: r.here(), Seconds: seconds(d.Left)}
			if r.Connections != nil {
				count := r.Connections[bucket]
				drain.Connections = &count
			}
			status.Drains = append(status.Drains, drain)
		}
	}
	for _, d := range r.Drainers[bucket] {
		status.Drains = append(status.Drains, DrainStatus{Node: d.Node, Seconds: seconds(d.Left)})
	}
	if adoption, ok := r.Here.Moves.Adoption(bucket); ok {
		for _, node := range adoption.From {
			if !slices.ContainsFunc(status.Drains, func(d DrainStatus) bool { return d.Node == node }) {
				status.Drains = append(status.Drains, DrainStatus{Node: node, Seconds: seconds(adoption.Left)})
			}
		}
	}
	if r.Traffic != nil {
		if count, ok := r.Traffic.Buckets[bucket]; ok && slices.Contains(r.Here.Owned, bucket) {
			status.Traffic = trafficOf(count)
		}
	}
	return status
}

// seconds are whole ones: nobody wants to read more.
func seconds(d time.Duration) float64 { return math.Ceil(d.Seconds()) }

func (r Resource) judge(status *ResourceStatus, survey Survey) {
	problem := func(health Health, command, format string, args ...any) {
		status.Problems = append(status.Problems, Problem{health, fmt.Sprintf(format, args...), command})
	}
	name := status.Name
	if r.Misconfigured != nil {
		problem(Broken, "pcs resource config "+r.id(), "it is configured wrong: %s", ocf.OneLine(r.Misconfigured.Error()))
	}
	for _, fault := range r.Faults {
		problem(Broken, r.mend(), "on %s: %s", r.here(), fault)
	}
	if len(r.Left) > 0 {
		problem(Broken, r.mend(), "no bucket runs on %s, but this is left on the node: %s", r.here(), strings.Join(r.Left, ", "))
	}
	r.judgeBuckets(status, problem)
	for _, err := range r.Unread {
		problem(Degraded, "", "could not be read: %s", ocf.OneLine(err.Error()))
	}
	switch {
	case survey.Cluster == nil:
		return
	case r.Configured == nil && r.Here.Present:
		problem(Degraded, "pcs resource config", "Pacemaker does not know it, so nobody watches it, or takes it over")
		return
	}
	r.judgeInstances(survey.Cluster, problem)
	r.judgeFailures(survey.Cluster.Of(name), problem)
}

// judgeInstances tells what Pacemaker cannot or may not do with instances, each kind at once.
func (r Resource) judgeInstances(cluster *pacemaker.View, problem func(health Health, command, format string, args ...any)) {
	var blocked, failed, unmanaged []string
	isMaintained := func(name string) bool {
		return cluster.Maintenance || slices.ContainsFunc(cluster.Nodes, func(n pacemaker.Node) bool { return n.Name == name && n.Maintenance })
	}
	for _, instance := range cluster.Instances {
		bucket := fmt.Sprint(instance.Bucket)
		if instance.Resource != r.Asked.Resource {
			continue
		}
		// Of itself a node's kernel knows better, and has said.
		if instance.Failed && !slices.Equal(instance.Nodes, []string{r.Node}) {
			failed = append(failed, bucket)
		}
		switch {
		case instance.Blocked:
			blocked = append(blocked, bucket)
		case !instance.Managed && !slices.ContainsFunc(instance.Nodes, isMaintained) && !cluster.Maintenance:
			unmanaged = append(unmanaged, bucket)
		}
	}
	if len(failed) > 0 {
		problem(Broken, "pcs resource refresh "+r.id(), "%s: failed where Pacemaker has it", numbered(failed))
	}
	if len(blocked) > 0 {
		problem(Degraded, "pcs resource cleanup "+r.id(), "%s: Pacemaker can do nothing more after a failure", numbered(blocked))
	}
	if len(unmanaged) > 0 {
		command := "pcs resource manage " + r.Asked.Resource
		if r.Configured != nil && ocf.IsTrue(r.Configured.Meta["maintenance"]) {
			command = "pcs resource meta " + r.id() + " maintenance="
		}
		problem(Degraded, command, "%s: not managed by Pacemaker, which starts, stops and moves nothing", numbered(unmanaged))
	}
}

// judgeFailures tells of what has failed, for each node at once: mostly one fault makes several actions fail.
func (r Resource) judgeFailures(failures []pacemaker.Failure, problem func(health Health, command, format string, args ...any)) {
	byNode := map[string][]pacemaker.Failure{}
	for _, failure := range failures {
		byNode[failure.Node] = append(byNode[failure.Node], failure)
	}
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		failed := byNode[node]
		last := slices.MaxFunc(failed, func(a, b pacemaker.Failure) int { return strings.Compare(a.When, b.When) })
		what := last.Action
		if more := len(failed) - 1; more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
		if last.When != "" {
			what += " at " + last.When
		}
		problem(Degraded, "pcs resource cleanup "+r.id(), "has failed on %s: %s: %s", node, what, ocf.OneLine(last.Reason))
	}
}

// id is what tools are to be told.
func (r Resource) id() string {
	if r.Configured == nil {
		return r.Asked.Resource
	}
	return r.Configured.ID()
}

// judgeBuckets tells of those that nobody answers, or several nodes, each kind at once.
func (r Resource) judgeBuckets(status *ResourceStatus, problem func(health Health, command, format string, args ...any)) {
	var nobody, several []string
	var nodes []string
	for _, b := range status.Buckets {
		switch b.State {
		case Nobody, Draining:
			nobody = append(nobody, fmt.Sprint(b.Bucket))
		case Doubled:
			several = append(several, fmt.Sprint(b.Bucket))
			nodes = append(nodes, b.Nodes...)
		}
	}
	if len(several) > 0 {
		slices.Sort(nodes)
		nodes = slices.Compact(nodes)
		problem(Broken, "pcs resource refresh "+r.id(), "%s: several nodes answer (%s)", numbered(several), strings.Join(nodes, ", "))
	}
	switch {
	case len(nobody) == 0:
	case r.Configured != nil && r.Configured.Disabled():
		problem(Broken, "pcs resource enable "+status.Name, "it is disabled, so nobody answers")
	default:
		problem(Broken, "pcs status --full", "%s: nobody answers", numbered(nobody))
	}
}

// numbered names some buckets, but no more than can be read.
func numbered(buckets []string) string {
	const most = 16
	switch {
	case len(buckets) == 1:
		return "bucket " + buckets[0]
	case len(buckets) > most:
		return fmt.Sprintf("buckets %s and %d more", strings.Join(buckets[:most], ","), len(buckets)-most)
	default:
		return "buckets " + strings.Join(buckets, ",")
	}
}

// mend is what makes the agent put right whatever is wrong here at once; the next monitor would too.
func (r Resource) mend() string {
	var here []clusterip.Bucket
	for bucket, nodes := range r.Placement {
		if slices.Contains(nodes, r.Node) {
			here = append(here, bucket)
		}
	}
	switch {
	case r.Configured == nil:
		return ""
	case len(here) == 0:
		return "pcs resource refresh " + r.id()
	}
	slices.Sort(here)
	return "crm_resource --force-start -r " + r.Configured.Instance(here[0])
}

// IsConfirmedBy tells whether a status that was made a moment later says of the same thing that it is broken: else an action was half done.
func (s Status) IsConfirmedBy(later Status) bool {
	before := s.broken()
	return slices.ContainsFunc(later.broken(), func(what string) bool { return slices.Contains(before, what) })
}

// broken names what is, a bucket that nobody answers or several by its number.
func (s Status) broken() []string {
	var what []string
	for _, r := range s.Resources {
		for _, b := range r.Buckets {
			if b.State == Nobody || b.State == Draining || b.State == Doubled {
				what = append(what, fmt.Sprintf("bucket %d of %v", b.Bucket, r.Addresses))
			}
		}
		for _, p := range r.Problems {
			if p.Health == Broken {
				what = append(what, fmt.Sprintf("%v: %s", r.Addresses, p.Text))
			}
		}
	}
	return what
}

// Since makes rates of what was counted in the status before.
func (s *Status) Since(before Status) {
	elapsed := s.Time.Sub(before.Time).Seconds()
	if elapsed <= 0 {
		return
	}
	for i := range s.Resources {
		now := &s.Resources[i]
		was := slices.IndexFunc(before.Resources, func(r ResourceStatus) bool { return slices.Equal(r.Addresses, now.Addresses) })
		if was < 0 {
			continue
		}
		then := before.Resources[was]
		now.Foreign.since(then.Foreign, elapsed)
		if len(then.Buckets) != len(now.Buckets) {
			continue
		}
		for b := range now.Buckets {
			now.Buckets[b].Traffic.since(then.Buckets[b].Traffic, elapsed)
		}
	}
}

// since leaves the rates out where a counter began anew.
func (t *Traffic) since(before *Traffic, seconds float64) {
	if t == nil || before == nil || t.Packets < before.Packets || t.Bytes < before.Bytes {
		return
	}
	packets, bytes := float64(t.Packets-before.Packets)/seconds, float64(t.Bytes-before.Bytes)/seconds
	t.PacketsPerSecond, t.BytesPerSecond = &packets, &bytes
}
