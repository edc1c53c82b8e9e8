// Package convert writes the commands that bring a shared address from its present form to this agent: from a clone of
// ocf:heartbeat:IPaddr2, or from rules of iptables. It changes nothing and reads nothing itself.
package convert

import (
	"errors"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// Generation is what an IPaddr2 filters packets with. The agent that is installed shows it, or else the parameters.
type Generation string

// The generations.
const (
	Target  Generation = "target"  // iptables' target CLUSTERIP: the agent of all releases of resource-agents up to 4.18
	Match   Generation = "match"   // nft's jhash or iptables' match cluster: the agent since June 2026
	Unknown Generation = "unknown" // neither shows it
)

// Options are what the administrator wants.
type Options struct {
	Resource string     // the name of one resource or clone; "": all
	Tool     Tool       // whose commands
	Buckets  uint32     // the number of buckets; 0: as many as there are
	KeepHash bool       // clients stay in their buckets
	Agent    Generation // what the IPaddr2 is that is installed here
}

// Report is the result. docs/schema/convert.schema.json describes its JSON.
type Report struct {
	Tool          Tool         `json:"tool"`
	NotNodeByNode string       `json:"not_node_by_node"`
	Conversions   []Conversion `json:"conversions"`
}

// Complete reports whether there are commands for each address.
func (r Report) Complete() bool {
	return !slices.ContainsFunc(r.Conversions, func(c Conversion) bool { return len(c.Faults) > 0 })
}

// Conversion is what happens to one shared address.
type Conversion struct {
	Resource   string      `json:"resource"`
	Clone      string      `json:"clone,omitempty"`
	Generation Generation  `json:"generation,omitempty"`
	Form       string      `json:"form"`    // what shares the address now
	Address    string      `json:"address"` // as it is written
	Buckets    uint32      `json:"buckets"`
	Parameters []Parameter `json:"parameters"`
	Faults     []string    `json:"faults"`   // why there are no steps
	Remarks    []string    `json:"remarks"`  // what to know before
	Steps      []Step      `json:"steps"`    // none if there are faults
	WayBack    []string    `json:"way_back"` // commands
}

// Fate is what becomes of a parameter.
type Fate string

// The fates.
const (
	Kept    Fate = "kept"
	Added   Fate = "added"   // it was not set
	Dropped Fate = "dropped" // the agent does without it
	Refused Fate = "refused" // what it does cannot be had
)

// Parameter is a parameter of the present form, or of the new one if it is added.
type Parameter struct {
	Old  string `json:"old,omitempty"` // name=value
	New  string `json:"new,omitempty"`
	Fate Fate   `json:"fate"`
	Why  string `json:"why,omitempty"`
}

// Step is a part of the conversion.
type Step struct {
	Title    string   `json:"title"`
	Why      []string `json:"why"`                 // paragraphs
	EachNode []string `json:"each_node,omitempty"` // commands for every node
	ByHand   bool     `json:"by_hand,omitempty"`   // the commands are not to be run with those of other steps: the script has them as comments
	Commands []string `json:"commands"`            // for one node; may have several lines
}

// form returns what shares an address in a generation.
func (g Generation) form() string {
	switch g {
	case Target:
		return "iptables' target CLUSTERIP"
	case Match:
		return "nft or iptables' match cluster"
	default:
		return "the target CLUSTERIP, nft or the match cluster (its parameters do not show which)"
	}
}

const notNodeByNode = "A conversion node by node, unnoticed by clients, is not possible. Pacemaker decides which instance of a clone " +
	"runs on which node, and has no rule by which a bucket runs either in the old way or in the new one. With both at once, some clients " +
	"would get two answers and others none. So the address is stopped on all nodes and started again."

// Cluster converts the clones of IPaddr2 in a configuration.
func Cluster(configuration *etree.Element, o Options) (Report, error) {
	resources, err := chosen(pacemaker.ResourcesOf(configuration, pacemaker.IPaddr2()), configuration, o)
	if err != nil {
		return Report{}, err
	}
	report := Report{Tool: o.Tool, NotNodeByNode: notNodeByNode, Conversions: []Conversion{}}
	for _, resource := range resources {
		report.Conversions = append(report.Conversions, convertClone(resource, configuration, o))
	}
	return report, nil
}

// chosen returns the resources to convert: the named one, or all that are clones.
func chosen(all []pacemaker.Resource, configuration *etree.Element, o Options) ([]pacemaker.Resource, error) {
	clones := slices.DeleteFunc(slices.Clone(all), func(r pacemaker.Resource) bool { return r.Clone == "" })
	var names []string
	for _, r := range clones {
		names = append(names, ocf.Quote(r.Name))
	}
	switch {
	case o.Resource != "":
		for _, r := range all {
			if o.Resource == r.Name || o.Resource == r.Clone {
				return []pacemaker.Resource{r}, nil
			}
		}
		return nil, ocf.Errorf(ocf.ErrArgs, "--resource %s: no resource of ocf:heartbeat:IPaddr2 has that name, nor its clone; its clones are %s",
			ocf.Quote(o.Resource), orNone(names))
	case len(clones) > 0:
		return clones, nil
	case len(pacemaker.Resources(configuration)) > 0:
		return nil, ocf.Errorf(ocf.ErrArgs, "the CIB has no clone of ocf:heartbeat:IPaddr2; it has already resources of this agent")
	default:
		return nil, ocf.Errorf(ocf.ErrArgs, "the CIB has no clone of ocf:heartbeat:IPaddr2")
	}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// check returns the layout that new parameters request, or what is wrong with them.
func check(parameters map[string]string, resource string, buckets uint32) (clusterip.Layout, error) {
	values, _, parseErr := metadata.Parse(parameters)
	spec, specErr := clusterip.NewSpec(values, resource, ocf.Clone{Buckets: buckets})
	if err := errors.Join(parseErr, specErr); err != nil {
		return clusterip.Layout{}, err
	}
	return spec.Layout(), nil
}

// setting returns a parameter as it is shown: a name or a value with unusual characters in quotes.
func setting(name, value string) string {
	return quoteUnusual(name) + "=" + quoteUnusual(value)
}

func quoteUnusual(word string) string {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,+"
	if strings.Trim(word, harmless) != "" || word == "" {
		return ocf.Quote(word)
	}
	return word
}
