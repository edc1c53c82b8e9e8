package pacemaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Resource is one of this agent as it is configured: a clone whose instances are the buckets, or an address of its own.
type Resource struct {
	Name       string            // of the primitive, without an instance number
	Clone      string            // of the clone around it; "" if there is none
	Parameters map[string]string // instance attributes, by name
	Meta       map[string]string // meta attributes that have an effect: the clone's own, or those that all clones have by rsc_defaults; of the rest, the primitive's before the clone's
	Unique     clusterip.Answer  // whether Pacemaker tells the instances apart (globally-unique), as set or by default
	Buckets    uint32            // how many instances there are (clone-max; unless it is set, one for each node)
	Fault      error             // why there cannot be so many
}

// ID is what the tools that clean up and refresh want to be told: they do not find a primitive whose clone is globally unique.
func (r Resource) ID() string { return cmp.Or(r.Clone, r.Name) }

// Instance is what to tell the tools that work on one instance.
func (r Resource) Instance(bucket clusterip.Bucket) string {
	if r.Clone == "" {
		return r.Name
	}
	return fmt.Sprintf("%s:%d", r.Name, bucket)
}

// Disabled tells whether an admin wants it to be stopped.
func (r Resource) Disabled() bool { return strings.EqualFold(r.Meta["target-role"], "Stopped") }

// agentType is what the CIB calls the agent, whoever provides it.
const agentType = "clusterip"

// Configuration returns the cluster's configuration, the CIB's element configuration, as this node has it.
func (c Cluster) Configuration(ctx context.Context) (*etree.Element, error) {
	text, err := c.run(ctx, cibadmin, "--query", "--local", "--scope", "configuration")
	if err != nil {
		return nil, err
	}
	return parseConfiguration(text)
}

// Configured is what a configuration says of sharing addresses.
type Configured struct {
	Resources  []Resource
	FencingOff []Setting // what switches fencing off, see FencingOff
}

// Configured reads it.
func (c Cluster) Configured(ctx context.Context) (Configured, error) {
	configuration, err := c.Configuration(ctx)
	if err != nil {
		return Configured{}, err
	}
	return Configured{Resources(configuration), FencingOff(configuration)}, nil
}

func parseConfiguration(text string) (*etree.Element, error) {
	document := etree.NewDocument()
	if err := document.ReadFromString(text); err != nil {
		return nil, fmt.Errorf("the configuration of the CIB: %w", err)
	}
	configuration := document.FindElement("//configuration")
	if configuration == nil {
		return nil, errors.New("the CIB has no configuration")
	}
	return configuration, nil
}

// Resources returns those of this agent in a configuration. Rules in it are not evaluated: of a name that occurs twice the first value
// counts, in the order in which Pacemaker reads them.
func Resources(configuration *etree.Element) []Resource {
	var all []Resource
	defaults := map[string]string{}
	for _, e := range configuration.SelectElements("rsc_defaults") {
		pairs(defaults, e, "meta_attributes")
	}
	maps.DeleteFunc(defaults, func(name, _ string) bool { return !isOfClone(name) })
	for _, primitive := range configuration.FindElements("./resources//primitive") {
		sources := []*etree.Element{primitive}
		for _, template := range configuration.FindElements("./resources/template") {
			if template.SelectAttrValue("id", "") == primitive.SelectAttrValue("template", "") {
				sources = append(sources, template)
			}
		}
		last := sources[len(sources)-1] // a template says what the agent is
		if last.SelectAttrValue("class", "") != "ocf" || last.SelectAttrValue("type", "") != agentType {
			continue
		}
		resource := Resource{Name: primitive.SelectAttrValue("id", ""), Parameters: map[string]string{}, Meta: map[string]string{}, Buckets: 1}
		for _, from := range sources {
			pairs(resource.Parameters, from, "instance_attributes")
			pairs(resource.Meta, from, "meta_attributes")
		}
		maps.DeleteFunc(resource.Meta, func(name, _ string) bool { return isOfClone(name) })
		// Or the clone is around a group that the primitive is in.
		for around := primitive.Parent(); around != nil; around = around.Parent() {
			if around.Tag == "clone" {
				resource.Clone = around.SelectAttrValue("id", "")
				pairs(resource.Meta, around, "meta_attributes")
				for name, value := range defaults {
					if _, known := resource.Meta[name]; !known {
						resource.Meta[name] = value
					}
				}
				resource.countBuckets(len(configuration.FindElements("./nodes/node")), SchedulerVersion(configuration))
			}
		}
		all = append(all, resource)
	}
	return all
}

// isOfClone tells whether a meta attribute is one that only a clone has.
func isOfClone(name string) bool {
	return strings.HasPrefix(name, "clone-") || slices.Contains([]string{"globally-unique", "interleave", "notify", "ordered", "promotable"}, name)
}

// countBuckets settles how many instances the clone has, as the agent will.
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
	case number > 1 && r.Unique == clusterip.CannotTell:
		r.Fault = fmt.Errorf("clone-max=%d, and globally-unique is not set: whether it is true by default depends on Pacemaker's version (it is from %s on), "+
			"which the cluster's configuration does not tell (dc-version)", number, uniqueByDefault)
	case number > 1 && r.Unique == clusterip.No:
		r.Fault = fmt.Errorf("clone-max=%d without globally-unique=true: every instance is a hash bucket of its own", number)
	}
	r.Buckets = uint32(number)
}

// isUnique tells whether Pacemaker tells the clone's instances apart. A value that is no boolean is not true.
func (r *Resource) isUnique(version Version) clusterip.Answer {
	value, given := r.Meta["globally-unique"]
	most, err := strconv.Atoi(r.Meta["clone-node-max"])
	switch {
	case given && ocf.IsTrue(value):
		return clusterip.Yes
	case given || err != nil || most < 2:
		return clusterip.No
	case !version.Known():
		return clusterip.CannotTell
	case version.from(uniqueByDefault):
		return clusterip.Yes
	default:
		return clusterip.No
	}
}

// pairs adds the name-value pairs in an element's sets of that kind, but not over others.
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
