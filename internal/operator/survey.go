package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/internal/text"
)

// Cluster is what status and whois need of Pacemaker.
type Cluster interface {
	NodeName(ctx context.Context) (string, error)
	View(ctx context.Context) (*pacemaker.View, error)
	Configured(ctx context.Context) (pacemaker.Configured, error)
	Announcements(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Announcement, error)
	Relayed(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Relayed, error)
}

// Survey is what was read about the resources of this node and its cluster.
type Survey struct {
	Node       string              // this node's name in the cluster; "" if it is not known
	Cluster    *pacemaker.View     // nil if Pacemaker does not answer
	FencingOff []pacemaker.Setting // the properties that disable fencing
	ClusterErr error               // why Pacemaker does not answer
	Resources  []Resource
}

// Resource is what was read about one resource.
type Resource struct {
	Known
	Spec          clusterip.Spec      // as configured, or else as installed
	Configured    *pacemaker.Resource // in the cluster; nil if it is not, or that is not known
	Misconfigured error               // what is wrong with the configuration
	Faults        []string            // on this node, see agent.Inspection
	Left          []string
	Connections   map[clusterip.Bucket]int // of this node's buckets, if connections survive moves; nil: not counted
	Traffic       *clusterip.Traffic       // on this node; nil: not counted
	Memory        *Memory                  // of this node; nil: it remembers no connections, or they could not be read
	Backend       string                   // why this node has its backend
	EarlyDrop     string                   // why the program of early_drop is, or is not, attached as it is
	Unread        []error                  // what could not be read
}

// Look reads the resource that has an address, or all resources. If Pacemaker does not answer, the survey contains this node alone, and the
// reason. If there is no such resource, the error is a NotSharedError, and the survey contains the rest.
func Look(ctx context.Context, agent agent.Agent, cluster Cluster, address netip.Addr) (Survey, error) {
	var survey Survey
	layouts, err := agent.Kernel.Layouts(ctx)
	if err != nil {
		return survey, err
	}
	var configured pacemaker.Configured
	if survey.Node, survey.ClusterErr = cluster.NodeName(ctx); survey.ClusterErr == nil {
		survey.Cluster, survey.ClusterErr = cluster.View(ctx)
	}
	if survey.ClusterErr == nil {
		if configured, survey.ClusterErr = cluster.Configured(ctx); survey.ClusterErr != nil {
			survey.Cluster = nil // useless without the configuration
		}
	}
	survey.FencingOff = configured.FencingOff
	resources := merge(configured.Resources, layouts)
	survey.Resources = slices.DeleteFunc(slices.Clone(resources), func(r Resource) bool {
		return address.IsValid() && !slices.Contains(r.Spec.Addresses, address)
	})
	known := len(survey.Resources) > 0
	if !known && address.IsValid() {
		survey.Resources = []Resource{{Spec: byDefault(address)}}
	}
	for i := range survey.Resources {
		if err := survey.Resources[i].look(ctx, agent, &survey); err != nil {
			return survey, err
		}
	}
	if !known && (len(survey.Resources) == 0 || len(survey.Resources[0].Left) == 0 && !survey.Resources[0].Here.Present) {
		survey.Resources = nil
		return survey, unknown(resources, address, survey.ClusterErr)
	}
	return survey, nil
}

// byDefault returns the spec of an unknown address with default parameters: enough to find its leftovers.
func byDefault(address netip.Addr) clusterip.Spec {
	values, _, _ := metadata.Parse(map[string]string{"ip": address.String()})
	spec, _ := clusterip.NewSpec(values, "", ocf.Clone{Buckets: 1})
	return spec
}

// merge returns the resources that are configured, and those that are only installed.
func merge(configured []pacemaker.Resource, layouts []clusterip.Layout) []Resource {
	var all []Resource
	for _, c := range configured {
		values, _, parseErr := metadata.Parse(c.Parameters)
		spec, specErr := clusterip.NewSpec(values, c.Name, ocf.Clone{Buckets: c.Buckets})
		all = append(all, Resource{Spec: spec, Configured: &c, Misconfigured: errors.Join(parseErr, c.Fault, specErr)})
	}
	for _, layout := range layouts {
		// By its address: a resource that was started by hand has no name, or another one.
		known := func(r Resource) bool { return r.Spec.Address() == layout.Address() }
		if !slices.ContainsFunc(all, known) {
			all = append(all, Resource{Spec: layout.Spec()})
		}
	}
	return all
}

// NotSharedError means that an address, or any address, is not a shared one.
type NotSharedError struct {
	Address netip.Addr   // invalid: any
	There   []netip.Addr // the addresses that are shared
	Why     error        // why Pacemaker does not answer, if it does not
}

func (e *NotSharedError) Error() string {
	switch {
	case e.Why != nil && len(e.There) == 0:
		return fmt.Sprintf("no address is shared on this node, and Pacemaker does not answer: %s", ocf.OneLine(e.Why.Error()))
	case e.Why != nil:
		return fmt.Sprintf("%s is not shared on this node (shared: %s), and Pacemaker does not answer: %s",
			e.Address, text.Join(e.There, ", "), ocf.OneLine(e.Why.Error()))
	case len(e.There) == 0:
		return "no address is shared on this node, and none is configured in its cluster"
	}
	return fmt.Sprintf("%s is not shared on this node or in its cluster (shared: %s)", e.Address, text.Join(e.There, ", "))
}

func unknown(all []Resource, address netip.Addr, why error) error {
	fault := &NotSharedError{Address: address, Why: why}
	for _, r := range all {
		fault.There = append(fault.There, r.Spec.Address())
	}
	return ocf.Errorf(ocf.ErrArgs, "%w", fault)
}

// look reads the resource on this node, and its placement in the cluster.
func (r *Resource) look(ctx context.Context, agent agent.Agent, survey *Survey) error {
	r.Node, r.Layout = survey.Node, r.Spec.Layout()
	if len(r.Spec.Addresses) == 0 {
		return nil // without an address there is nothing to read
	}
	seen, err := agent.Inspect(ctx, r.Spec)
	if err != nil {
		return err
	}
	r.Layout, r.Here, r.Early, r.Faults, r.Left = seen.Layout, seen.Tables, seen.Early, seen.Faults, seen.Left
	if survey.Cluster != nil && r.Configured != nil {
		r.Placement = survey.Cluster.Placement(r.Spec.Resource)
	}
	if !r.Here.Present || r.Here.Installed == nil {
		return nil
	}
	if r.Traffic, err = agent.Kernel.Traffic(ctx, r.Layout); err != nil {
		r.Unread = append(r.Unread, err)
	}
	if r.Memory, err = r.lookAtMemory(ctx, agent); err != nil {
		r.Unread = append(r.Unread, err)
	}
	if r.Layout.Drains {
		if r.Connections, err = agent.Kernel.Connections(ctx, r.Layout); err != nil {
			r.Unread = append(r.Unread, err)
		}
	}
	r.Backend, err = r.whyBackend(ctx, agent)
	if err != nil {
		r.Unread = append(r.Unread, err)
	}
	r.EarlyDrop, err = r.whyEarlyDrop(ctx, agent)
	if err != nil {
		r.Unread = append(r.Unread, err)
	}
	return nil
}

// Memory is what this node remembers of clients' connections, and has told clients whose connections were those of another node.
type Memory struct {
	Connections int // to the resource's addresses, on all nodes
	Limit       int // for all resources of the interface
	Told        clusterip.Told
}

func (r Resource) lookAtMemory(ctx context.Context, agent agent.Agent) (*Memory, error) {
	if !r.Early.Judges() || r.Early.Remembers == 0 {
		return nil, nil
	}
	remembered, err := agent.Kernel.Remembered(ctx, r.Layout)
	if err != nil {
		return nil, err
	}
	told, err := agent.Kernel.Told(ctx, r.Layout)
	return &Memory{len(remembered), r.Early.Remembers, told}, err
}

// whyEarlyDrop returns why the BPF program is attached as it is on this node.
func (r Resource) whyEarlyDrop(ctx context.Context, agent agent.Agent) (string, error) {
	here := clusterip.EarlyDropOff
	if r.Early.Judges() {
		here = r.Early.Attached
	}
	switch {
	case r.Configured == nil:
		return "as installed", nil
	case r.Spec.EarlyDrop == here:
		return "as configured", nil
	case r.Spec.EarlyDrop != clusterip.EarlyDropAuto:
		return fmt.Sprintf("early_drop=%s is configured", r.Spec.EarlyDrop), nil
	case r.Layout.Backend != clusterip.NFTables:
		return "auto: only with backend=nftables", nil
	case here == clusterip.EarlyDropXDP:
		return "auto: the first choice", nil
	}
	why, err := agent.Kernel.WhyNoXDP(ctx, clusterip.NIC{Index: r.Layout.NICIndex, Name: r.Layout.NIC})
	return "auto; not XDP: " + cmp.Or(why, "see the log of the first start on this node (early_drop)"), err
}

// whyBackend returns why this node has its backend.
func (r Resource) whyBackend(ctx context.Context, agent agent.Agent) (string, error) {
	switch {
	case r.Configured == nil:
		return "as installed", nil
	case r.Spec.Backend != clusterip.Auto:
		return "as configured", nil
	case r.Layout.Backend == clusterip.NFTables:
		return "auto: the first choice", nil
	default:
		_, reasons, err := agent.Kernel.Choose(ctx, r.Layout)
		return strings.Join(append([]string{"auto"}, reasons...), "; "), err
	}
}

// askAtOnce is how many queries to Pacemaker run at the same time.
const askAtOnce = 8

// LookForDrains reads which other nodes drain the buckets or linger with them, if connections survive moves. It leaves out what it cannot
// read, and returns the first error.
func (k *Known) LookForDrains(ctx context.Context, cluster Cluster, buckets []clusterip.Bucket) error {
	if !k.Layout.Drains || k.Placement == nil {
		return nil
	}
	var guard sync.Mutex
	k.Drainers, k.Lingerers = map[clusterip.Bucket][]handover.Drainer{}, map[clusterip.Bucket][]handover.Lingerer{}
	// If attrd does not answer one query in time, it will not answer the others: the first error ends them all.
	queries, ctx := errgroup.WithContext(ctx)
	queries.SetLimit(askAtOnce)
	for _, bucket := range buckets {
		queries.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			announcements, err := cluster.Announcements(ctx, k.Layout.Address(), bucket)
			relayed, relayedErr := cluster.Relayed(ctx, k.Layout.Address(), bucket)
			guard.Lock()
			defer guard.Unlock()
			view := handover.View{Self: k.Node, Announcements: announcements, Relayed: relayed}
			if drainers := view.Drainers(); len(drainers) > 0 {
				k.Drainers[bucket] = drainers
			}
			// What is relayed stays until the adoption is over, long after the node has lingered.
			view = handover.View{Self: k.Node, Layout: k.Layout.Identity(), Announcements: announcements}
			if lingerers := view.Lingerers(); len(lingerers) > 0 {
				k.Lingerers[bucket] = lingerers
			}
			return errors.Join(err, relayedErr)
		})
	}
	return queries.Wait()
}

// unowned returns the buckets that no node owns.
func (k Known) unowned() []clusterip.Bucket {
	return slices.DeleteFunc(k.buckets(), func(bucket clusterip.Bucket) bool {
		nodes, _ := k.owner(bucket)
		return len(nodes) > 0
	})
}

// buckets returns all buckets of the layout.
func (k Known) buckets() []clusterip.Bucket {
	all := make([]clusterip.Bucket, k.Layout.Buckets)
	for i := range all {
		all[i] = clusterip.Bucket(i)
	}
	return all
}

// Only returns the resource if there is only one. Several are ErrArgs.
func (s Survey) Only() (Resource, error) {
	if len(s.Resources) == 1 {
		return s.Resources[0], s.Resources[0].Misconfigured
	}
	var there []string
	for _, r := range s.Resources {
		there = append(there, fmt.Sprint(r.Spec.Address()))
	}
	return Resource{}, ocf.Errorf(ocf.ErrArgs, "several addresses are shared; choose one with --to: %s", strings.Join(there, ", "))
}

// Drains is for which buckets a status reads the drains on other nodes. For each bucket it asks Pacemaker twice.
type Drains int

// The choices, from the one that asks least.
const (
	DrainsOfNone    Drains = iota
	DrainsOfUnowned        // of the buckets that no node owns: another node may linger with them, so that clients are answered
	DrainsOfAll
)

// LookForDrains reads the drains of all resources.
func (s *Survey) LookForDrains(ctx context.Context, cluster Cluster, of Drains) {
	for i := range s.Resources {
		r := &s.Resources[i]
		var buckets []clusterip.Bucket
		switch of {
		case DrainsOfNone:
			continue
		case DrainsOfUnowned:
			buckets = r.unowned()
		case DrainsOfAll:
			buckets = r.buckets()
		}
		if err := r.LookForDrains(ctx, cluster, buckets); err != nil {
			r.Unread = append(r.Unread, err)
		}
	}
}
