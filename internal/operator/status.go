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

// Health is whether a resource serves its clients; its number is the command's exit code.
type Health int

// The grades, from the best to the worst.
const (
	Healthy  Health = iota // each client gets one answer, and there is no problem
	Degraded               // each client gets one answer, but there is a problem
	Broken                 // some clients get no answer or several, or their connections break
)

var healths = [...]string{"healthy", "degraded", "broken"}

func (h Health) String() string { return healths[h] }

// MarshalText implements encoding.TextMarshaler.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Health) UnmarshalText(text []byte) error {
	i := slices.Index(healths[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is not one of %s", text, strings.Join(healths[:], ", "))
	}
	*h = Health(i)
	return nil
}

// Status is the judgement on a survey, for people and programs. docs/schema/status.schema.json describes its JSON.
type Status struct {
	Node      string           `json:"node"` // this node; "" if its name in the cluster is not known
	Time      time.Time        `json:"time"`
	Health    Health           `json:"health"` // the worst of all
	Cluster   *ClusterStatus   `json:"cluster"`
	Problems  []Problem        `json:"problems"` // of the cluster
	Resources []ResourceStatus `json:"resources"`
}

// ClusterStatus is the cluster as Pacemaker sees it.
type ClusterStatus struct {
	Quorum      bool         `json:"quorum"`
	Fencing     bool         `json:"fencing"`
	Maintenance bool         `json:"maintenance"`
	Nodes       []NodeStatus `json:"nodes"`
}

// NodeStatus is a node as Pacemaker sees it.
type NodeStatus struct {
	Name  string `json:"name"`
	State string `json:"state"` // online, standby, maintenance, unclean, offline
}

// ResourceStatus is the status of one resource.
type ResourceStatus struct {
	Name            string         `json:"name"`  // "" if it is not known
	Clone           string         `json:"clone"` // "" if it is not known, or there is none
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
	Backend         string         `json:"backend"`          // on this node; "" if nothing is installed there
	BackendReason   string         `json:"backend_reason"`
	EarlyDrop       string         `json:"early_drop"` // on this node: xdp, tc or off
	EarlyDropReason string         `json:"early_drop_reason"`
	Memory          *MemoryStatus  `json:"memory"`        // of clients' connections, on this node; null: there is none
	DrainSeconds    *float64       `json:"drain_seconds"` // 0: connections do not survive moves; null: they do, for an unknown time
	Shares          []Share        `json:"shares"`
	Foreign         *Traffic       `json:"foreign"`       // packets of other nodes' buckets, dropped by this one; null: not counted
	EarlyDropped    *Traffic       `json:"early_dropped"` // of these, what the BPF program of early_drop has dropped; null: it is not there
	Buckets         []BucketStatus `json:"buckets"`
}

// MemoryStatus is what this node remembers of clients' TCP connections, and has told clients that their connections are over, since the
// BPF program of early_drop was attached.
type MemoryStatus struct {
	Connections int        `json:"connections"`  // remembered, to all nodes
	Limit       int        `json:"limit"`        // for all resources on the interface
	Told        int        `json:"told"`         // clients
	ToldAt      *time.Time `json:"told_at"`      // when the last ones were; null: none were
	ToldSeconds float64    `json:"told_seconds"` // how long that took
}

// Share is how many buckets a node owns.
type Share struct {
	Node    string `json:"node"`
	Buckets int    `json:"buckets"`
}

// BucketStatus is the status of one bucket.
type BucketStatus struct {
	Bucket   clusterip.Bucket `json:"bucket"`
	Instance string           `json:"instance"` // Pacemaker's name for it; "" if the name of the resource is not known
	State    string           `json:"state"`    // see the constants
	Nodes    []string         `json:"nodes"`    // the owners
	Drains   []DrainStatus    `json:"drains"`
	Traffic  *Traffic         `json:"traffic"` // on this node; null: another one owns the bucket, or it is not counted
}

// DrainStatus is a node that drains a bucket.
type DrainStatus struct {
	Node           string  `json:"node"`
	Seconds        float64 `json:"seconds"`         // at most: from now on this node; on another one from when it published its announcement
	LingersSeconds float64 `json:"lingers_seconds"` // likewise; 0: it does not linger with the bucket
	Connections    *int    `json:"connections"`     // on this node; null: not counted
}

// Traffic is what was counted, and how fast it grew since the previous status; null without one.
type Traffic struct {
	Packets          uint64   `json:"packets"`
	Bytes            uint64   `json:"bytes"`
	PacketsPerSecond *float64 `json:"packets_per_second"`
	BytesPerSecond   *float64 `json:"bytes_per_second"`
}

// Problem is a problem of a resource or the cluster, with the command that solves it.
type Problem struct {
	Health  Health `json:"health"` // the resource's or cluster's, because of it
	Text    string `json:"text"`
	Command string `json:"command"` // "" where no single command solves it
}

// Judge returns the status of what a survey has read.
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
		why := "it was not asked"
		if survey.ClusterErr != nil {
			why = ocf.OneLine(survey.ClusterErr.Error())
		}
		degraded("systemctl status pacemaker", "Pacemaker does not answer, so only the state of this node is known: %s", why)
		return
	}
	// During an upgrade, this node's crm_mon may read the configuration differently from the DC.
	fencing := view.Fencing && len(survey.FencingOff) == 0
	s.Cluster = &ClusterStatus{Quorum: view.Quorum, Fencing: fencing, Maintenance: view.Maintenance, Nodes: []NodeStatus{}}
	if !view.Quorum {
		degraded("corosync-quorumtool", "this part of the cluster has no quorum")
	}
	const withoutFencing = "so a lost node may still answer, and clients may get two answers"
	for _, setting := range survey.FencingOff {
		degraded("pcs property unset "+setting.Name, "fencing is disabled (%s), "+withoutFencing, ocf.OneLine(setting.String()))
	}
	if !fencing && len(survey.FencingOff) == 0 {
		degraded("ocf-clusterip doctor", "fencing is disabled, "+withoutFencing)
	}
	if view.Maintenance {
		degraded("pcs property set maintenance-mode=false", "the cluster is in maintenance mode: Pacemaker starts, stops and moves nothing")
	}
	for _, node := range view.Nodes {
		state := stateOf(node)
		s.Cluster.Nodes = append(s.Cluster.Nodes, NodeStatus{node.Name, state})
		switch state {
		case "unclean":
			degraded("stonith_admin --history "+node.Name+" --verbose", "%s is lost and not fenced yet: its buckets stay unowned until "+
				"then", node.Name)
		case "offline":
			command := "pcs cluster start " + node.Name
			if node.Remote {
				command = "pcs resource enable " + node.Name
			}
			degraded(command, "%s is offline, so the remaining nodes do its work", node.Name)
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

// fingerprint lets people compare the seeds of nodes without learning them: with the seed, a client could direct all its load to one node.
// So the fingerprint is short; different seeds have the same one in 1 of 256 cases. With a long one, of any hash, small seeds could be
// found in seconds.
func fingerprint(seed clusterip.Seed) string {
	const constant = 0x66707273 // the same in every version
	return fmt.Sprintf("%02x", uint8(clusterip.Jhash(constant, uint32(seed))))
}

// instance returns Pacemaker's name of an instance. What is installed without being configured is taken for a clone.
func (r Resource) instance(name string, bucket clusterip.Bucket) string {
	switch {
	case r.Configured != nil:
		return r.Configured.Instance(bucket)
	case name == "":
		return ""
	default:
		return fmt.Sprintf("%s:%d", name, bucket)
	}
}

func (r Resource) status(survey Survey) ResourceStatus {
	layout := r.Layout
	status := ResourceStatus{
		Name: cmp.Or(r.Spec.Resource, layout.Resource), Problems: []Problem{}, Addresses: layout.Addresses(), NIC: layout.NIC,
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
	status.EarlyDrop, status.EarlyDropReason = string(clusterip.EarlyDropOff), r.EarlyDrop
	if r.Early.Judges() {
		status.EarlyDrop = string(r.Early.Attached)
	}
	if m := r.Memory; m != nil {
		status.Memory = &MemoryStatus{Connections: m.Connections, Limit: m.Limit, Told: m.Told.Connections, ToldSeconds: m.Told.Took.Seconds()}
		if m.Told.Connections > 0 {
			status.Memory.ToldAt = &m.Told.When
		}
	}
	if limit := r.Spec.Drain.Seconds(); r.Configured != nil || !layout.Drains {
		status.DrainSeconds = &limit
	}
	if r.Traffic != nil {
		status.Foreign = trafficOf(r.Traffic.Foreign)
		if r.Early.Judges() {
			status.EarlyDropped = trafficOf(r.Traffic.Early)
		}
	}
	if r.Configured != nil {
		status.Clone = r.Configured.Clone
	}
	shares := map[string]int{}
	if r.Configured == nil && !r.Here.Present { // their number is not known
		layout.Buckets, r.Layout.Buckets = 0, 0
	}
	for _, bucket := range r.buckets() {
		b := r.bucket(bucket)
		b.Instance = r.instance(status.Name, bucket)
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
	lingerers := r.lingersHere(bucket)
	if state == Lingering { // otherwise another node's announcement is out of date: the bucket was taken over
		lingerers = r.lingerers(bucket)
	}
	lingers := map[string]float64{}
	for _, l := range lingerers {
		lingers[l.Node] = seconds(l.For)
	}
	for _, d := range r.Here.Moves.Draining {
		if d.Bucket == bucket {
			drain := DrainStatus{Node: r.here(), Seconds: seconds(d.Left), LingersSeconds: lingers[r.here()]}
			if r.Connections != nil {
				count := r.Connections[bucket]
				drain.Connections = &count
			}
			status.Drains = append(status.Drains, drain)
		}
	}
	for _, d := range r.Drainers[bucket] {
		status.Drains = append(status.Drains, DrainStatus{Node: d.Node, Seconds: seconds(d.Left), LingersSeconds: lingers[d.Node]})
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

// seconds rounds up to whole seconds.
func seconds(d time.Duration) float64 { return math.Ceil(d.Seconds()) }

func (r Resource) judge(status *ResourceStatus, survey Survey) {
	problem := func(health Health, command, format string, args ...any) {
		status.Problems = append(status.Problems, Problem{health, fmt.Sprintf(format, args...), command})
	}
	name := status.Name
	if r.Misconfigured != nil {
		problem(Broken, "pcs resource config "+r.id(), "its configuration is wrong: %s", ocf.OneLine(r.Misconfigured.Error()))
	}
	for _, fault := range r.Faults {
		problem(Broken, r.repair(), "on %s: %s", r.here(), fault)
	}
	if len(r.Left) > 0 {
		problem(Broken, r.repair(), "%s owns no bucket, but has leftovers: %s", r.here(), strings.Join(r.Left, ", "))
	}
	r.judgeBuckets(status, problem)
	for _, err := range r.Unread {
		problem(Degraded, "ocf-clusterip doctor", "unknown, because it could not be read: %s", ocf.OneLine(err.Error()))
	}
	switch {
	case survey.Cluster == nil:
		return
	case r.Configured == nil && r.Here.Present:
		problem(Degraded, "pcs resource config", "it is not in Pacemaker's configuration, so it has no monitor, and its buckets do not move if "+
			"this node fails")
		return
	}
	r.judgeInstances(survey.Cluster, problem)
	r.judgeFailures(survey.Cluster.Of(name), problem)
}

// judgeInstances adds the problems that Pacemaker has with instances: one for all instances with the same problem.
func (r Resource) judgeInstances(cluster *pacemaker.View, problem func(health Health, command, format string, args ...any)) {
	var blocked, failed, unmanaged []string
	isMaintained := func(name string) bool {
		return cluster.Maintenance || slices.ContainsFunc(cluster.Nodes, func(n pacemaker.Node) bool { return n.Name == name && n.Maintenance })
	}
	for _, instance := range cluster.Instances {
		bucket := fmt.Sprint(instance.Bucket)
		if instance.Resource != r.Spec.Resource {
			continue
		}
		// For this node its kernel is authoritative: its faults are problems already.
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
		problem(Broken, "pcs resource refresh "+r.id(), "%s: failed on its node, according to Pacemaker", numbered(failed))
	}
	if len(blocked) > 0 {
		problem(Degraded, "pcs resource cleanup "+r.id(), "%s: blocked; Pacemaker does nothing more after a failure", numbered(blocked))
	}
	if len(unmanaged) > 0 {
		command := "pcs resource manage " + r.Spec.Resource
		if r.Configured != nil && ocf.IsTrue(r.Configured.Meta["maintenance"]) {
			command = "pcs resource meta " + r.id() + " maintenance="
		}
		problem(Degraded, command, "%s: unmanaged; Pacemaker does not start, stop or move it", numbered(unmanaged))
	}
}

// judgeFailures adds one problem for all failed actions of a node: usually they have the same cause.
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
		problem(Degraded, "pcs resource cleanup "+r.id(), "failed on %s: %s: %s", node, what, ocf.OneLine(last.Reason))
	}
}

// id returns the name for commands.
func (r Resource) id() string {
	if r.Configured == nil {
		return r.Spec.Resource
	}
	return r.Configured.ID()
}

// judgeBuckets adds a problem for all unowned buckets, and one for all with several owners.
func (r Resource) judgeBuckets(status *ResourceStatus, problem func(health Health, command, format string, args ...any)) {
	var unowned, several, nodes []string
	for _, b := range status.Buckets {
		switch b.State {
		case Unowned, Draining:
			unowned = append(unowned, fmt.Sprint(b.Bucket))
		case SeveralOwners:
			several = append(several, fmt.Sprint(b.Bucket))
			nodes = append(nodes, b.Nodes...)
		}
	}
	if len(several) > 0 {
		slices.Sort(nodes)
		nodes = slices.Compact(nodes)
		problem(Broken, "pcs resource refresh "+r.id(), "%s: several owners (%s)", numbered(several), strings.Join(nodes, ", "))
	}
	switch {
	case len(unowned) == 0:
	case r.Configured != nil && r.Configured.Disabled():
		problem(Broken, "pcs resource enable "+status.Name, "it is disabled, so its buckets are unowned")
	default:
		problem(Broken, "pcs status --full", "%s: unowned; clients get no answer", numbered(unowned))
	}
}

// numbered lists buckets, but no more than an operator can read.
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

// repair returns the command that repairs this node at once. The next monitor would cause that too.
func (r Resource) repair() string {
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

// IsConfirmedBy reports whether a status of a moment later has one of the same problems that break a resource. Otherwise an action was in
// progress.
func (s Status) IsConfirmedBy(later Status) bool {
	before := s.broken()
	return slices.ContainsFunc(later.broken(), func(what string) bool { return slices.Contains(before, what) })
}

// broken lists what is broken: problems, and by their numbers buckets that are unowned or have several owners.
func (s Status) broken() []string {
	var what []string
	for _, r := range s.Resources {
		for _, b := range r.Buckets {
			if b.State == Unowned || b.State == Draining || b.State == SeveralOwners {
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

// Since adds rates, from the counters of a previous status.
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
		now.EarlyDropped.since(then.EarlyDropped, elapsed)
		if len(then.Buckets) != len(now.Buckets) {
			continue
		}
		for b := range now.Buckets {
			now.Buckets[b].Traffic.since(then.Buckets[b].Traffic, elapsed)
		}
	}
}

// since adds the rates, unless a counter was reset.
func (t *Traffic) since(before *Traffic, seconds float64) {
	if t == nil || before == nil || t.Packets < before.Packets || t.Bytes < before.Bytes {
		return
	}
	packets, bytes := float64(t.Packets-before.Packets)/seconds, float64(t.Bytes-before.Bytes)/seconds
	t.PacketsPerSecond, t.BytesPerSecond = &packets, &bytes
}
