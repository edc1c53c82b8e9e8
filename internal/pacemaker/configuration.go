package pacemaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// Resource is one of this agent as it is configured: a clone whose instances are the buckets, or an address of its own.
type Resource struct {
	Name       string            // of the primitive, without an instance number
	Clone      string            // of the clone around it; "" if there is none
	Parameters map[string]string // instance attributes, by name
	Meta       map[string]string // meta attributes of the clone, or else of the primitive; what both have is the clone's
	Buckets    uint32            // how many instances there are (clone-max; unless it is set, one for each node)
}

// ID is what the tools that clean up and refresh want to be told: they do not find a primitive whose clone is globally unique.
func (r Resource) ID() string { return cmp.Or(r.Clone, r.Name) }

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

// Resources returns those of this agent that are configured.
func (c Cluster) Resources(ctx context.Context) ([]Resource, error) {
	configuration, err := c.Configuration(ctx)
	if err != nil {
		return nil, err
	}
	return Resources(configuration), nil
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
// counts.
func Resources(configuration *etree.Element) []Resource {
	var all []Resource
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
		resource := Resource{Name: primitive.SelectAttrValue("id", ""), Parameters: map[string]string{}, Meta: map[string]string{}}
		if parent := primitive.Parent(); parent.Tag == "clone" {
			resource.Clone = parent.SelectAttrValue("id", "")
			pairs(resource.Meta, parent, "meta_attributes")
		}
		for _, from := range sources {
			pairs(resource.Parameters, from, "instance_attributes")
			pairs(resource.Meta, from, "meta_attributes")
		}
		resource.Buckets = 1
		if resource.Clone != "" {
			resource.Buckets = uint32(len(configuration.FindElements("./nodes/node")))
			if most, err := strconv.ParseUint(resource.Meta["clone-max"], 10, 32); err == nil {
				resource.Buckets = uint32(most)
			}
		}
		all = append(all, resource)
	}
	return all
}

// pairs adds the name-value pairs in an element's sets of that kind, but not over others.
func pairs(into map[string]string, element *etree.Element, kind string) {
	for _, pair := range element.FindElements("./" + kind + "/nvpair") {
		name := pair.SelectAttrValue("name", "")
		if _, known := into[name]; !known {
			into[name] = pair.SelectAttrValue("value", "")
		}
	}
}
