package pacemaker

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Resource is a configured address: a clone whose instances are the buckets, or an address that is not shared.
type Resource struct {
	Name       string            // of the primitive, without an instance number
	Clone      string            // of the clone around it; "" if there is none
	Parameters map[string]string // instance attributes, by name
	Meta       map[string]string // effective meta attributes, see Resources
	Unique     clusterip.Answer  // whether the clone is globally unique, as set or by default
	Buckets    uint32            // the number of instances (clone-max; unless it is set, one for each node)
	Fault      error             // why that number is wrong
}

// ID returns the name for cleanup and refresh, which do not find the primitive of a globally unique clone.
func (r Resource) ID() string { return cmp.Or(r.Clone, r.Name) }

// Instance returns the name of one instance, for tools that work on it.
func (r Resource) Instance(bucket clusterip.Bucket) string {
	if r.Clone == "" {
		return r.Name
	}
	return fmt.Sprintf("%s:%d", r.Name, bucket)
}

// Disabled reports whether an admin has disabled the resource.
func (r Resource) Disabled() bool { return strings.EqualFold(r.Meta["target-role"], "Stopped") }

// agentType is the agent's type in the CIB, with any provider.
const agentType = "clusterip"

// Configuration returns the cluster's configuration: the element configuration of this node's CIB.
func (c Cluster) Configuration(ctx context.Context) (*etree.Element, error) {
	text, err := c.run(ctx, cibadmin, "--query", "--local", "--scope", "configuration")
	if err != nil {
		return nil, err
	}
	return ParseConfiguration(text)
}

// Configured is the part of a configuration that concerns shared addresses.
type Configured struct {
	Resources  []Resource
	FencingOff []Setting // see FencingOff
}

// Configured reads the part of the configuration that concerns shared addresses.
func (c Cluster) Configured(ctx context.Context) (Configured, error) {
	configuration, err := c.Configuration(ctx)
	if err != nil {
		return Configured{}, err
	}
	return Configured{Resources(configuration), FencingOff(configuration)}, nil
}

// deepest is the depth of elements to which a CIB is read. Rules within rules are the deepest that tools write.
const deepest = 64

// ParseConfiguration returns the element configuration of a CIB, of which there may be nothing else.
func ParseConfiguration(text string) (*etree.Element, error) {
	if err := checkDepth(text); err != nil {
		return nil, fmt.Errorf("the configuration of the CIB: %w", err)
	}
	document := etree.NewDocument()
	if err := document.ReadFromString(text); err != nil {
		return nil, fmt.Errorf("the configuration of the CIB: %w", err)
	}
	root := document.Root()
	if root != nil && root.Tag == "cib" {
		root = root.SelectElement("configuration")
	}
	if root == nil || root.Tag != "configuration" {
		return nil, errors.New("the CIB has no configuration")
	}
	return root, nil
}

// checkDepth refuses what would only cost memory: etree has no limit of its own.
func checkDepth(text string) error {
	decoder := xml.NewDecoder(strings.NewReader(text))
	for depth := 0; ; {
		token, err := decoder.RawToken()
		switch token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case depth > deepest:
			return fmt.Errorf("elements are nested in more than %d others", deepest)
		}
	}
}

// An Agent is a resource agent's place in the CIB.
type Agent struct {
	Provider string // "": any
	Type     string
}

// IPaddr2 returns the agent whose resources may have an address before this agent shares it.
func IPaddr2() Agent { return Agent{Provider: "heartbeat", Type: "IPaddr2"} }

// Resources returns the resources of this agent in a configuration.
func Resources(configuration *etree.Element) []Resource {
	return ResourcesOf(configuration, Agent{Type: agentType})
}

// ResourcesOf returns the resources of an OCF agent. It does not evaluate rules: if a name occurs twice, the first value counts, in the
// order in which Pacemaker reads them.
func ResourcesOf(configuration *etree.Element, agent Agent) []Resource {
	var all []Resource
	defaults := map[string]string{}
	for _, e := range configuration.SelectElements("rsc_defaults") {
		pairs(defaults, e, "meta_attributes")
	}
	maps.DeleteFunc(defaults, func(name, _ string) bool { return !isOfClone(name) })
	templates, nodes := configuration.FindElements("./resources/template"), len(configuration.FindElements("./nodes/node"))
	for _, primitive := range configuration.FindElements("./resources//primitive") {
		sources := []*etree.Element{primitive}
		for _, template := range templates {
			if template.SelectAttrValue("id", "") == primitive.SelectAttrValue("template", "") {
				sources = append(sources, template)
			}
		}
		last := sources[len(sources)-1] // a template determines the agent
		if !agent.is(last) {
			continue
		}
		resource := Resource{Name: primitive.SelectAttrValue("id", ""), Parameters: map[string]string{}, Meta: map[string]string{}, Buckets: 1}
		for _, from := range sources {
			pairs(resource.Parameters, from, "instance_attributes")
			pairs(resource.Meta, from, "meta_attributes")
		}
		maps.DeleteFunc(resource.Meta, func(name, _ string) bool { return isOfClone(name) })
		// The clone may contain a group with the primitive.
		for around := primitive.Parent(); around != nil; around = around.Parent() {
			if around.Tag == "clone" {
				resource.Clone = around.SelectAttrValue("id", "")
				pairs(resource.Meta, around, "meta_attributes")
				for name, value := range defaults {
					if _, known := resource.Meta[name]; !known {
						resource.Meta[name] = value
					}
				}
				resource.countBuckets(nodes, SchedulerVersion(configuration))
			}
		}
		all = append(all, resource)
	}
	return all
}

// is reports whether an element names the agent.
func (a Agent) is(e *etree.Element) bool {
	return e.SelectAttrValue("class", "") == "ocf" && e.SelectAttrValue("type", "") == a.Type &&
		(a.Provider == "" || e.SelectAttrValue("provider", "") == a.Provider)
}

// isOfClone reports whether only a clone has a meta attribute.
func isOfClone(name string) bool {
	return strings.HasPrefix(name, "clone-") ||
		slices.Contains([]string{"globally-unique", "interleave", "notify", "ordered", "promotable"}, name)
}

// countBuckets sets the number of instances, as the agent will read it.
func (r *Resource) countBuckets(nodes int, version Version) {
	text, given := r.Meta["clone-max"]
	if !given {
		text = strconv.Itoa(max(1, nodes))
	}
	r.Unique = r.isUnique(version)
	number, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil || number < 1 || number > ocf.MaxBuckets:
		r.Fault = fmt.Errorf("clone-max=%s is not a number from 1 to %d", ocf.Quote(text), ocf.MaxBuckets)
		return
	case number > 1 && r.Unique == clusterip.Unknown:
		r.Fault = fmt.Errorf("clone-max=%d, and globally-unique is not set: its default depends on Pacemaker's version (true from %s on), "+
			"which is not in the CIB (dc-version)", number, uniqueByDefault)
	case number > 1 && r.Unique == clusterip.No:
		r.Fault = fmt.Errorf("clone-max=%d without globally-unique=true, but each instance is one bucket", number)
	}
	r.Buckets = uint32(number)
}

// isUnique returns whether the clone is globally unique. A value that is not a boolean is not true.
func (r *Resource) isUnique(version Version) clusterip.Answer {
	value, given := r.Meta["globally-unique"]
	most, err := strconv.Atoi(r.Meta["clone-node-max"])
	switch {
	case given && ocf.IsTrue(value):
		return clusterip.Yes
	case given || err != nil || most < 2:
		return clusterip.No
	case !version.Known():
		return clusterip.Unknown
	case version.from(uniqueByDefault):
		return clusterip.Yes
	default:
		return clusterip.No
	}
}

// pairs adds the name-value pairs of an element's sets of that kind. It keeps existing values.
func pairs(into map[string]string, element *etree.Element, kind string) {
	for _, set := range inOrder(element.SelectElements(kind)) {
		for _, pair := range set.SelectElements("nvpair") {
			name := pair.SelectAttrValue("name", "")
			if _, known := into[name]; !known {
				into[name] = pair.SelectAttrValue("value", "")
			}
		}
	}
}
