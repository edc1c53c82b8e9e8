package operator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// Cluster is what is read of the cluster manager.
type Cluster interface {
	NodeName(ctx context.Context) (string, error)
	View(ctx context.Context) (*pacemaker.View, error)
	Configured(ctx context.Context) (pacemaker.Configured, error)
	Announcements(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Announcement, error)
	Relayed(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Relayed, error)
}

// A Survey is what this node knows of the resources on it and in its cluster.
type Survey struct {
	Node       string              // this node's name in the cluster; "" if it is not known
	Cluster    *pacemaker.View     // nil if the cluster manager does not answer
	FencingOff []pacemaker.Setting // what switches fencing off in the cluster's configuration
	Why        error               // why the cluster manager does not answer
	Resources  []Resource
}

// Resource is what is known of one of them.
type Resource struct {
	Known
	Asked         clusterip.Spec      // as it is configured; or, where that is not known, as it was laid
	Configured    *pacemaker.Resource // in the cluster; nil if it is not, or that is not known
	Misconfigured error               // what is wrong with that
	Faults        []string            // on this node, see agent.Inspection
	Left          []string
	Connections   map[clusterip.Bucket]int // to this node's buckets, where connections survive moves; nil: not counted
	Traffic       *clusterip.Traffic       // on this node; nil: not counted
	Backend       string                   // why it is this one
	Unread        []error                  // what could not be read of it
}

// Look reads what is known of the resource that has an address, or of all. Without a cluster manager this node knows of itself alone, and the
// survey says why. Where there is none, the error is a NotSharedError, and the survey says the rest.
func Look(ctx context.Context, agent agent.Agent, cluster Cluster, address netip.Addr) (Survey, error) {
	var survey Survey
	layouts, err := agent.Kernel.Layouts(ctx)
	if err != nil {
		return survey, err
	}
	var configured pacemaker.Configured
	if survey.Node, survey.Why = cluster.NodeName(ctx); survey.Why == nil {
		survey.Cluster, survey.Why = cluster.View(ctx)
	}
	if survey.Why == nil {
		if configured, survey.Why = cluster.Configured(ctx); survey.Why != nil {
			survey.Cluster = nil // of no use without
		}
	}
	survey.FencingOff = configured.FencingOff
	resources := merge(configured.Resources, layouts)
	survey.Resources = slices.DeleteFunc(slices.Clone(resources), func(r Resource) bool {
		return address.IsValid() && !slices.Contains(r.Asked.Addresses, address)
	})
	known := len(survey.Resources) > 0
	if !known && address.IsValid() {
		survey.Resources = []Resource{{Asked: byDefault(address)}}
	}
	for i := range survey.Resources {
		if err := survey.Resources[i].look(ctx, agent, &survey); err != nil {
			return survey, err
		}
	}
	if !known && (len(survey.Resources) == 0 || len(survey.Resources[0].Left) == 0 && !survey.Resources[0].Here.Present) {
		survey.Resources = nil
		return survey, unknown(resources, address, survey.Why)
	}
	return survey, nil
}

// byDefault is how an address of which nobody knows would be laid: enough to find what is left of it.
func byDefault(address netip.Addr) clusterip.Spec {
	values, _, _ := metadata.Parse(map[string]string{"ip": address.String()})
	spec, _ := clusterip.NewSpec(values, "", ocf.Clone{Buckets: 1})
	return spec
}

// merge makes one list of what is configured and of what is laid.
func merge(configured []pacemaker.Resource, layouts []clusterip.Layout) []Resource {
	var all []Resource
	for _, c := range configured {
		values, _, parseErr := metadata.Parse(c.Parameters)
		spec, specErr := clusterip.NewSpec(values, c.Name, ocf.Clone{Buckets: c.Buckets})
		all = append(all, Resource{Asked: spec, Configured: &c, Misconfigured: errors.Join(parseErr, c.Fault, specErr)})
	}
	for _, layout := range layouts {
		// By its address: one that was laid by hand has no name, or another one.
		known := func(r Resource) bool { return r.Asked.Address() == layout.Address() }
		if !slices.ContainsFunc(all, known) {
			all = append(all, Resource{Asked: layout.Spec()})
		}
	}
	return all
}

// NotSharedError says that nobody knows of an address, or of any.
type NotSharedError struct {
	Address netip.Addr   // invalid: any
	There   []netip.Addr // that are known
	Why     error        // why the cluster does not answer, if it does not
}

func (e *NotSharedError) Error() string {
	switch {
	case e.Why != nil && len(e.There) == 0:
		return fmt.Sprintf("no address is shared on this node, and Pacemaker does not answer: %s", ocf.OneLine(e.Why.Error()))
	case e.Why != nil:
		return fmt.Sprintf("%s is not shared on this node; there are %s; and Pacemaker does not answer: %s",
			e.Address, strings.ReplaceAll(joined(e.There), " ", ", "), ocf.OneLine(e.Why.Error()))
	case len(e.There) == 0:
		return "no address is shared on this node, and none is configured in its cluster"
	}
	return fmt.Sprintf("%s is not shared on this node or in its cluster; there are %s", e.Address, strings.ReplaceAll(joined(e.There), " ", ", "))
}

func unknown(all []Resource, address netip.Addr, why error) error {
	fault := &NotSharedError{Address: address, Why: why}
	for _, r := range all {
		fault.There = append(fault.There, r.Asked.Address())
	}
	return ocf.Errorf(ocf.ErrArgs, "%w", fault)
}

// look reads of this node what concerns the resource, and of the cluster where its buckets are.
func (r *Resource) look(ctx context.Context, agent agent.Agent, survey *Survey) error {
	r.Node, r.Layout = survey.Node, r.Asked.Layout()
	if len(r.Asked.Addresses) == 0 {
		return nil // it is configured so badly that nothing can be asked
	}
	seen, err := agent.Inspect(ctx, r.Asked)
	if err != nil {
		return err
	}
	r.Layout, r.Here, r.Faults, r.Left = seen.Layout, seen.Tables, seen.Faults, seen.Left
	if survey.Cluster != nil && r.Configured != nil {
		r.Placement = survey.Cluster.Placement(r.Asked.Resource)
	}
	if !r.Here.Present || r.Here.Laid == nil {
		return nil
	}
	if r.Traffic, err = agent.Kernel.Traffic(ctx, r.Layout); err != nil {
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
	return nil
}

// whyBackend says why this node has the backend that it has.
func (r Resource) whyBackend(ctx context.Context, agent agent.Agent) (string, error) {
	switch {
	case r.Configured == nil:
		return "as it was laid", nil
	case r.Asked.Backend != clusterip.Auto:
		return "as configured", nil
	case r.Layout.Backend == clusterip.NFTables:
		return "auto: the first choice", nil
	default:
		_, reasons, err := agent.Kernel.Choose(ctx, r.Layout)
		return strings.Join(append([]string{"auto"}, reasons...), "; "), err
	}
}

// askAtOnce is how many questions are put to the cluster manager at the same time.
const askAtOnce = 8

// LookForDrains asks which other nodes drain the buckets; of those that connections of survive no move nobody is asked. What cannot be told
// is left out, and the error says why, once.
func (k *Known) LookForDrains(ctx context.Context, cluster Cluster, buckets []clusterip.Bucket) error {
	if !k.Layout.Drains || k.Placement == nil {
		return nil
	}
	var guard sync.Mutex
	var fault error
	k.Drainers = map[clusterip.Bucket][]handover.Drainer{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asked sync.WaitGroup
	places := make(chan struct{}, askAtOnce)
	for _, bucket := range buckets {
		places <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		asked.Go(func() {
			defer func() { <-places }()
			words, err := cluster.Announcements(ctx, k.Layout.Address(), bucket)
			told, toldErr := cluster.Relayed(ctx, k.Layout.Address(), bucket)
			err = errors.Join(err, toldErr)
			guard.Lock()
			defer guard.Unlock()
			view := handover.View{Self: k.Node, Announcements: words, Relayed: told}
			if drainers := view.Drainers(); len(drainers) > 0 {
				k.Drainers[bucket] = drainers
			}
			if err != nil && fault == nil {
				fault = err
				cancel() // whoever does not answer one question in time will not answer the others
			}
		})
	}
	asked.Wait()
	return fault
}

// buckets are all of the layout.
func (k Known) buckets() []clusterip.Bucket {
	all := make([]clusterip.Bucket, k.Layout.Buckets)
	for i := range all {
		all[i] = clusterip.Bucket(i)
	}
	return all
}

// Only is the one resource that was found; several are ErrArgs.
func (s Survey) Only() (Resource, error) {
	if len(s.Resources) == 1 {
		return s.Resources[0], s.Resources[0].Misconfigured
	}
	var there []string
	for _, r := range s.Resources {
		there = append(there, fmt.Sprint(r.Asked.Address()))
	}
	return Resource{}, ocf.Errorf(ocf.ErrArgs, "several addresses are shared; say which with --to: %s", strings.Join(there, ", "))
}

// LookForDrains asks about all buckets of all resources.
func (s *Survey) LookForDrains(ctx context.Context, cluster Cluster) {
	for i := range s.Resources {
		r := &s.Resources[i]
		if err := r.LookForDrains(ctx, cluster, r.buckets()); err != nil {
			r.Unread = append(r.Unread, err)
		}
	}
}
