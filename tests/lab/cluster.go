package lab

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Status is what crm_mon prints about the cluster.
type Status struct {
	DC        string // the coordinator; "" when there is none
	Quorum    bool
	Nodes     map[string]Node
	Instances []Instance // of all resources, running or not
	Failures  []Failure
}

// Node is a member of the cluster.
type Node struct {
	Online, Standby, Pending, Unclean bool
}

func (n Node) String() string {
	switch {
	case n.Unclean:
		return "unclean" // lost, and not fenced yet
	case n.Pending:
		return "pending" // joining
	case !n.Online:
		return "offline"
	case n.Standby:
		return "standby"
	}
	return "online"
}

// Instance is a resource, or one of a clone's.
type Instance struct {
	ID     string // "web-ip:3"
	Agent  string // "ocf:custom:clusterip"
	Role   string // "Started", "Stopped", …
	Orphan bool   // no longer configured
	Failed bool
	Nodes  []string // where it is active: more than one is a fault
}

// Failure is an action that failed and was not cleaned up.
type Failure struct {
	Node, Action, Reason string
	Exit                 string
}

func (f Failure) String() string {
	return fmt.Sprintf("%s on %s: %s (%s)", f.Action, f.Node, f.Exit, f.Reason)
}

// monitored is crm_mon's XML (xml/api/crm_mon-2.*.rng of Pacemaker).
type monitored struct {
	Summary struct {
		DC struct {
			Name   string `xml:"name,attr"`
			Quorum bool   `xml:"with_quorum,attr"`
		} `xml:"current_dc"`
	} `xml:"summary"`
	Nodes []struct {
		Name    string `xml:"name,attr"`
		Online  bool   `xml:"online,attr"`
		Standby bool   `xml:"standby,attr"`
		Pending bool   `xml:"pending,attr"`
		Unclean bool   `xml:"unclean,attr"`
	} `xml:"nodes>node"`
	Resources []monitoredResource `xml:"resources>resource"`
	Clones    []struct {
		Resources []monitoredResource `xml:"resource"`
	} `xml:"resources>clone"`
	Failures []struct {
		Key    string `xml:"op_key,attr"`
		Node   string `xml:"node,attr"`
		Exit   string `xml:"exitstatus,attr"`
		Reason string `xml:"exitreason,attr"`
	} `xml:"failures>failure"`
}

type monitoredResource struct {
	ID     string `xml:"id,attr"`
	Agent  string `xml:"resource_agent,attr"`
	Role   string `xml:"role,attr"`
	Orphan bool   `xml:"orphaned,attr"`
	Failed bool   `xml:"failed,attr"`
	Nodes  []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

// ParseStatus reads what `crm_mon --output-as=xml` prints.
func ParseStatus(text string) (*Status, error) {
	var m monitored
	if err := xml.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("crm_mon's output: %w", err)
	}
	s := &Status{DC: m.Summary.DC.Name, Quorum: m.Summary.DC.Quorum, Nodes: map[string]Node{}}
	for _, n := range m.Nodes {
		s.Nodes[n.Name] = Node{Online: n.Online, Standby: n.Standby, Pending: n.Pending, Unclean: n.Unclean}
	}
	resources := m.Resources
	for _, c := range m.Clones {
		resources = append(resources, c.Resources...)
	}
	for _, r := range resources {
		i := Instance{ID: r.ID, Agent: r.Agent, Role: r.Role, Orphan: r.Orphan, Failed: r.Failed}
		for _, n := range r.Nodes {
			i.Nodes = append(i.Nodes, n.Name)
		}
		s.Instances = append(s.Instances, i)
	}
	for _, f := range m.Failures {
		s.Failures = append(s.Failures, Failure{Node: f.Node, Action: f.Key, Exit: f.Exit, Reason: f.Reason})
	}
	return s, nil
}

// Placement returns the node of each bucket of a resource that is active, by instance number.
func (s *Status) Placement(resource string) map[int]string {
	placement := map[int]string{}
	for _, i := range s.Instances {
		name, number, ok := strings.Cut(i.ID, ":")
		bucket, err := strconv.Atoi(number)
		if ok && err == nil && name == resource && i.Role == "Started" && len(i.Nodes) > 0 {
			placement[bucket] = strings.Join(i.Nodes, "+")
		}
	}
	return placement
}

// Shares returns how many buckets of a resource each node that may have some has, by node.
func (s *Status) Shares(resource string) map[string]int {
	shares := map[string]int{}
	for name, n := range s.Nodes {
		if n.Online && !n.Standby {
			shares[name] = 0
		}
	}
	for _, node := range s.Placement(resource) {
		shares[node]++
	}
	return shares
}

// Even returns an error unless every bucket of a resource is active on one of exactly those nodes, whose shares differ by one at
// most, and the state of every node is known.
func (s *Status) Even(resource string, buckets int, nodes ...string) error {
	for name, n := range s.Nodes {
		if n.Unclean || n.Pending {
			return fmt.Errorf("%s is %s", name, n)
		}
	}
	placement, shares := s.Placement(resource), s.Shares(resource)
	if len(placement) != buckets {
		return fmt.Errorf("%d of %d buckets are active: %v", len(placement), buckets, placement)
	}
	if have := slices.Sorted(maps.Keys(shares)); !slices.Equal(have, slices.Sorted(slices.Values(nodes))) {
		return fmt.Errorf("the buckets are on %v, not on %v", have, nodes)
	}
	sizes := slices.Sorted(maps.Values(shares))
	if len(sizes) == 0 || sizes[len(sizes)-1]-sizes[0] > 1 {
		return fmt.Errorf("the shares are uneven: %v", shares)
	}
	return nil
}

// Status asks any host that answers.
func (l *Lab) Status(ctx context.Context) (*Status, error) {
	var errs []error
	for _, h := range l.Hosts {
		s, err := h.Status(ctx)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Status is the cluster as this host sees it.
func (h *Host) Status(ctx context.Context) (*Status, error) {
	text, err := h.Run(ctx, "crm_mon", "--one-shot", "--output-as=xml")
	if err != nil {
		return nil, err
	}
	return ParseStatus(text)
}

// pollInterval is the shortest time between two looks of a wait.
const pollInterval = 100 * time.Millisecond

// WaitFor waits until a condition on the cluster's state holds: until it returns nil. The error, when ctx ends first, is the
// condition's last.
func (l *Lab) WaitFor(ctx context.Context, holds func(*Status) error) (*Status, error) {
	for {
		asked := time.Now()
		s, err := l.Status(ctx)
		if err == nil {
			if err = holds(s); err == nil {
				return s, nil
			}
		}
		select {
		case <-time.After(max(pollInterval, 2*time.Since(asked))): // on a slow machine, looking must not keep the cluster busy
		case <-ctx.Done():
			return s, fmt.Errorf("not reached (%w): %w", context.Cause(ctx), err)
		}
	}
}

// onlineTimeout bounds the wait for a cluster to form.
const onlineTimeout = 60 * time.Second

// WaitOnline waits until all hosts that are on are members of one cluster with a coordinator, and none of them is to be
// fenced.
func (l *Lab) WaitOnline(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
	defer cancel()
	_, err := l.WaitFor(ctx, l.online)
	if err != nil {
		return fmt.Errorf("wait for the cluster: %w", err)
	}
	return nil
}

func (l *Lab) online(s *Status) error {
	if s.DC == "" {
		return errors.New("no coordinator is elected")
	}
	for _, h := range l.Hosts {
		if n := s.Nodes[h.Name]; h.IsOn() && (!n.Online || n.Pending || n.Unclean) {
			return fmt.Errorf("%s is %s", h.Name, n)
		}
	}
	return nil
}

// WaitIdle waits until the cluster has nothing left to do.
func (l *Lab) WaitIdle(ctx context.Context) error {
	var errs []error
	for _, h := range l.Hosts {
		_, err := h.Run(ctx, "crm_resource", "--wait", "--timeout=60s")
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
