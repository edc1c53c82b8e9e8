package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// A cib is the configuration of the cluster, or nil. Rules in it are not evaluated: if a name occurs twice, the first value counts.
type cib struct{ configuration *etree.Element }

func (c cib) find(path string) []*etree.Element {
	if c.configuration == nil {
		return nil
	}
	return c.configuration.FindElements(path)
}

// first returns the value of the first pair of that name.
func first(pairs []*etree.Element, name string) (string, bool) {
	for _, pair := range pairs {
		if pair.SelectAttrValue("name", "") == name {
			return pair.SelectAttrValue("value", ""), true
		}
	}
	return "", false
}

// property returns a property of the cluster as a whole.
func (c cib) property(name, otherwise string) string {
	if value, set := pacemaker.Property(c.configuration, name); set {
		return value
	}
	return otherwise
}

// nodes returns the names of the nodes, optionally with the remote ones.
func (c cib) nodes(remote bool) []string {
	var names []string
	for _, node := range c.find("./nodes/node") {
		if node.SelectAttrValue("type", "member") == "member" || remote {
			names = append(names, node.SelectAttrValue("uname", ""))
		}
	}
	return names
}

// primitive returns a resource by its name.
func (c cib) primitive(name string) *etree.Element {
	for _, primitive := range c.find("./resources//primitive") {
		if primitive.SelectAttrValue("id", "") == name {
			return primitive
		}
	}
	return nil
}

// ipaddr2 returns the resource of ocf:heartbeat:IPaddr2 that has an address, unless it is disabled.
func (c cib) ipaddr2(address netip.Addr) (pacemaker.Resource, bool) {
	if c.configuration == nil {
		return pacemaker.Resource{}, false
	}
	for _, resource := range pacemaker.ResourcesOf(c.configuration, pacemaker.IPaddr2()) {
		its, err := netip.ParseAddr(strings.TrimSpace(resource.Parameters["ip"]))
		if err == nil && its == address && !resource.Disabled() {
			return resource, true
		}
	}
	return pacemaker.Resource{}, false
}

// template returns the template of a primitive, or the primitive itself.
func (c cib) template(of *etree.Element) *etree.Element {
	name := of.SelectAttrValue("template", "")
	for _, template := range c.find("./resources/template") {
		if name != "" && template.SelectAttrValue("id", "") == name {
			return template
		}
	}
	return of
}

// An operation of a resource.
type operation struct {
	id, name, level   string // level is OCF_CHECK_LEVEL; "" if it is not set
	interval, timeout time.Duration
	enabled           bool
	onFail            string
}

// defaultTimeout is Pacemaker's default timeout of an operation.
const defaultTimeout = 20 * time.Second

// operations returns the operations of a resource, or else of its template.
func (c cib) operations(resource string) []operation {
	primitive := c.primitive(resource)
	if primitive == nil {
		return nil
	}
	elements := primitive.FindElements("./operations/op")
	if len(elements) == 0 {
		elements = c.template(primitive).FindElements("./operations/op")
	}
	standard := defaultTimeout
	if text, ok := first(c.find("./op_defaults/meta_attributes/nvpair"), "timeout"); ok {
		if t, ok := pacemaker.ParseTime(text); ok {
			standard = t
		}
	}
	var all []operation
	for _, element := range elements {
		value := func(name, otherwise string) string {
			if value, ok := first(element.FindElements("./meta_attributes/nvpair"), name); ok {
				return value
			}
			return element.SelectAttrValue(name, otherwise)
		}
		level, _ := first(element.FindElements("./instance_attributes/nvpair"), "OCF_CHECK_LEVEL")
		op := operation{
			id: element.SelectAttrValue("id", ""), name: value("name", ""), level: level, timeout: standard,
			enabled: ocf.IsTrue(value("enabled", "true")), onFail: value("on-fail", ""),
		}
		op.interval, _ = pacemaker.ParseTime(value("interval", "0"))
		if t, ok := pacemaker.ParseTime(value("timeout", "")); ok {
			op.timeout = t
		}
		all = append(all, op)
	}
	return all
}

// A partner is another clone in a constraint with ours that can make its instances start or stop.
type partner struct {
	constraint string
	clone      *etree.Element
}

// partners returns the clones that are in constraints with a clone. An optional order is none of these: it only counts where both clones'
// instances start or stop anyway.
func (c cib) partners(clone string) []partner {
	var all []partner
	for _, kind := range []string{"rsc_order", "rsc_colocation"} {
		for _, constraint := range c.find("./constraints/" + kind) {
			var names []string
			for _, attribute := range []string{"first", "then", "rsc", "with-rsc"} {
				names = append(names, constraint.SelectAttrValue(attribute, ""))
			}
			for _, reference := range constraint.FindElements("./resource_set/resource_ref") {
				names = append(names, reference.SelectAttrValue("id", ""))
			}
			optional := kind == "rsc_order" && strings.EqualFold(constraint.SelectAttrValue("kind", ""), "Optional")
			if optional || !slices.Contains(names, clone) {
				continue
			}
			for _, other := range c.find("./resources/clone") {
				name := other.SelectAttrValue("id", "")
				if name != clone && slices.Contains(names, name) {
					all = append(all, partner{constraint.SelectAttrValue("id", ""), other})
				}
			}
		}
	}
	return all
}

// meta returns a meta attribute of a resource, its clone or its group.
func meta(element *etree.Element, name string) (string, bool) {
	for e := element; e != nil && e.Tag != "resources"; e = e.Parent() {
		if value, ok := first(e.FindElements("./meta_attributes/nvpair"), name); ok {
			return value, true
		}
	}
	return "", false
}

// holders returns the names of a resource and its group and clone, as far as they have a meta attribute themselves and not from a template.
func (c cib) holders(resource, attribute string) []string {
	var names []string
	for e := c.primitive(resource); e != nil && e.Tag != "resources"; e = e.Parent() {
		if _, has := first(e.FindElements("./meta_attributes/nvpair"), attribute); has {
			names = append(names, e.SelectAttrValue("id", ""))
		}
	}
	return names
}

// fenceDevices returns the names of the fencing devices that are enabled, and of those that are disabled.
func (c cib) fenceDevices() (usable, off []string) {
	for _, primitive := range c.find("./resources//primitive") {
		if c.template(primitive).SelectAttrValue("class", "") != "stonith" {
			continue
		}
		name := primitive.SelectAttrValue("id", "")
		if role, _ := meta(primitive, "target-role"); strings.EqualFold(role, "stopped") {
			off = append(off, name)
		} else {
			usable = append(usable, name)
		}
	}
	return usable, off
}
