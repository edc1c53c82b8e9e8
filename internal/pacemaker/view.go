package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
)

// Where further programs of Pacemaker are.
const (
	crmMon  = "/usr/sbin/crm_mon"
	crmNode = "/usr/sbin/crm_node"
)

// View is the cluster as Pacemaker sees it.
type View struct {
	Quorum      bool
	Fencing     bool // is enabled, as crm_mon of this node reads the configuration
	Maintenance bool // maintenance mode
	Nodes       []Node
	Instances   []Instance
	Failures    []Failure // that were not cleaned up
}

// Node is a node of the cluster.
type Node struct {
	Name        string
	Online      bool
	Standby     bool
	Maintenance bool
	Unclean     bool // it is to be fenced
	Remote      bool // it has no Pacemaker of its own
}

// Instance is an instance of a globally unique clone, or a resource that is not cloned.
type Instance struct {
	Resource string // without the instance number
	Bucket   clusterip.Bucket
	Nodes    []string // where it is active
	Managed  bool
	Failed   bool
	Blocked  bool // Pacemaker does nothing with it after a failure
}

// Failure is an action that has failed.
type Failure struct {
	Action string // such as web-ip:3_monitor_10000
	Node   string
	Reason string // the exit reason, or else the exit status in words
	When   string // as in crm_mon; "" if it is missing there
}

// View reads the cluster with crm_mon.
func (c Cluster) View(ctx context.Context) (*View, error) {
	text, err := c.run(ctx, crmMon, "--one-shot", "--output-as=xml", "--include=none,dc,options,nodes,resources,failures")
	if err != nil {
		return nil, err
	}
	return ParseView(text)
}

// ParseView reads what crm_mon prints as XML.
func ParseView(text string) (*View, error) {
	document := etree.NewDocument()
	if err := document.ReadFromString(text); err != nil {
		return nil, fmt.Errorf("the output of crm_mon: %w", err)
	}
	result := document.FindElement("/pacemaker-result")
	if result == nil {
		return nil, errors.New("the output of crm_mon has no result")
	}
	is := func(e *etree.Element, attribute string) bool {
		return e != nil && e.SelectAttrValue(attribute, "") == "true"
	}
	options := result.FindElement("./summary/cluster_options")
	// crm_mon of Pacemaker 3.0.2 prints both names, and will drop the former one (cluster_options_xml in lib/pengine/pe_output.c).
	fencing := "stonith-enabled"
	if options != nil && options.SelectAttr("fencing-enabled") != nil {
		fencing = "fencing-enabled"
	}
	view := &View{
		Quorum:      is(result.FindElement("./summary/current_dc"), "with_quorum"),
		Fencing:     is(options, fencing),
		Maintenance: is(options, "maintenance-mode"),
	}
	for _, node := range result.FindElements("./nodes/node") {
		view.Nodes = append(view.Nodes, Node{
			Name: node.SelectAttrValue("name", ""), Online: is(node, "online"), Standby: is(node, "standby") || is(node, "standby_onfail"),
			Maintenance: is(node, "maintenance"), Unclean: is(node, "unclean"), Remote: node.SelectAttrValue("type", "member") != "member",
		})
	}
	for _, instance := range result.FindElements("./resources//resource") {
		if !strings.HasSuffix(instance.SelectAttrValue("resource_agent", ""), ":"+agentType) {
			continue
		}
		name, number, isInstance := strings.Cut(instance.SelectAttrValue("id", ""), ":")
		bucket, err := strconv.ParseUint(number, 10, 16)
		if isInstance && err != nil {
			continue
		}
		read := Instance{
			Resource: name, Bucket: clusterip.Bucket(bucket),
			Managed: is(instance, "managed"), Failed: is(instance, "failed"), Blocked: is(instance, "blocked"),
		}
		if instance.SelectAttrValue("role", "") == "Started" {
			for _, node := range instance.SelectElements("node") {
				read.Nodes = append(read.Nodes, node.SelectAttrValue("name", ""))
			}
		}
		view.Instances = append(view.Instances, read)
	}
	for _, failure := range result.FindElements("./failures/failure") {
		read := Failure{
			Action: failure.SelectAttrValue("op_key", ""), Node: failure.SelectAttrValue("node", ""),
			Reason: failure.SelectAttrValue("exitreason", ""), When: failure.SelectAttrValue("last-rc-change", ""),
		}
		if read.Reason == "" {
			read.Reason = failure.SelectAttrValue("exitstatus", "unknown")
		}
		view.Failures = append(view.Failures, read)
	}
	return view, nil
}

// Placement returns the nodes on which the buckets of a resource are active. It leaves lost nodes out: Pacemaker counts their buckets as
// active until they are fenced.
func (v *View) Placement(resource string) map[clusterip.Bucket][]string {
	isThere := func(name string) bool {
		return slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.Name == name && n.Online })
	}
	placement := map[clusterip.Bucket][]string{}
	for _, instance := range v.Instances {
		for _, node := range instance.Nodes {
			if instance.Resource == resource && isThere(node) {
				placement[instance.Bucket] = append(placement[instance.Bucket], node)
			}
		}
	}
	return placement
}

// Of returns the failures of a resource's instances.
func (v *View) Of(resource string) []Failure {
	var found []Failure
	for _, failure := range v.Failures {
		// RESOURCE[:NUMBER]_ACTION_INTERVAL, and names may hold underscores.
		name, _, isInstance := strings.Cut(failure.Action, ":")
		for i := 0; i < 2 && !isInstance; i++ {
			name = name[:max(0, strings.LastIndex(name, "_"))]
		}
		if name == resource {
			found = append(found, failure)
		}
	}
	return found
}

// NodeName returns this node's name in the cluster.
func (c Cluster) NodeName(ctx context.Context) (string, error) {
	text, err := c.run(ctx, crmNode, "--name")
	if name := strings.TrimSpace(text); err != nil || isNodeName(name) {
		return name, err
	}
	return "", errors.New("crm_node printed no node name")
}
