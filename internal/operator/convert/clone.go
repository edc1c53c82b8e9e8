package convert

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/internal/text"
)

// A clone is a resource of IPaddr2, most likely one of a clone.
type clone struct {
	pacemaker.Resource
	configuration *etree.Element
	options       Options
	primitive     *etree.Element
	around        *etree.Element // the element of the clone; nil if there is none
}

func convertClone(resource pacemaker.Resource, configuration *etree.Element, o Options) Conversion {
	c := clone{Resource: resource, configuration: configuration, options: o}
	for _, primitive := range configuration.FindElements("./resources//primitive") {
		if primitive.SelectAttrValue("id", "") == resource.Name {
			c.primitive = primitive
		}
	}
	for e := c.primitive; e != nil; e = e.Parent() {
		if e.Tag == "clone" {
			c.around = e
		}
	}
	result := Conversion{
		Resource: resource.Name, Clone: resource.Clone, Form: "ocf:heartbeat:IPaddr2", Address: resource.Parameters["ip"], Buckets: c.buckets(),
		Parameters: []Parameter{}, Remarks: []string{}, Steps: []Step{}, WayBack: []string{},
	}
	if c.around == nil {
		result.Faults = []string{"it is not a clone: one node has the whole address. ocf:heartbeat:IPaddr2 is right for that"}
		return result
	}
	generation, unclear := generationOf(resource.Parameters, o.Agent)
	t := translation{old: maps.Clone(resource.Parameters), generation: generation, options: o}
	t.translate()
	result.Form = "ocf:heartbeat:IPaddr2 with " + generation.form()
	result.Generation, result.Parameters, result.Remarks = generation, t.rows, append(result.Remarks, t.remarks...)
	result.Faults = append([]string{}, slices.Concat(c.unreadable(), unclear, t.faults, c.contradictions(generation))...)
	layout, err := check(t.now, resource.Name, max(1, result.Buckets))
	if _, hasAddress := t.old["ip"]; hasAddress {
		result.Faults = append(result.Faults, split(err)...)
	}
	if len(result.Faults) == 0 {
		result.Remarks = append(result.Remarks, c.remarks(layout, t)...)
		c.describe(&result, t.now)
	}
	return result
}

// buckets returns the number of buckets after the conversion.
func (c clone) buckets() uint32 {
	if c.options.Buckets > 0 {
		return c.options.Buckets
	}
	return c.Buckets
}

// generationOf returns the generation of the agent that is installed here. If that is unknown, the parameters show it: some belong to one
// generation only.
func generationOf(parameters map[string]string, installed Generation) (Generation, []string) {
	if installed == Target || installed == Match {
		return installed, nil
	}
	var newer []string
	for _, name := range []string{"clusterip_firewall", "clusterip_hash_seed", "clusterip_table", "clusterip_chain", "clusterip_mac_mangle"} {
		if _, set := parameters[name]; set {
			newer = append(newer, name)
		}
	}
	_, isTarget := parameters["clusterip_hash"]
	switch {
	case isTarget && len(newer) > 0:
		return Unknown, []string{fmt.Sprintf("only IPaddr2 with the target CLUSTERIP has clusterip_hash, and only IPaddr2 since June 2026 "+
			"has %s. Remove the parameters that the installed one does not have. Or run convert without --cib on a node of the cluster: there "+
			"it reads which one is installed", strings.Join(newer, ", "))}
	case isTarget:
		return Target, nil
	case len(newer) > 0 || strings.Contains(parameters["ip"], ":"): // the target has no IPv6
		return Match, nil
	default:
		return Unknown, nil
	}
}

// unreadable returns why the CIB does not show which values are in effect.
func (c clone) unreadable() []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if template := c.primitive.SelectAttrValue("template", ""); template != "" {
		fault("it is made from the template %s, which may have other resources, and may be in constraints. Write what it needs of the "+
			"template into the resource itself", ocf.Quote(template))
	}
	for e := c.primitive; e != nil && e.Tag != "resources"; e = e.Parent() {
		for _, child := range e.ChildElements() {
			if child.Tag == "primitive" && e != c.primitive || child.Tag == "group" {
				continue
			}
			for _, inner := range append(child.FindElements(".//*"), child) {
				if reference := inner.SelectAttrValue("id-ref", ""); reference != "" {
					fault("%s of %s is a reference to %s, which others may share. Write what is in it into the resource itself", inner.Tag,
						ocf.Quote(e.SelectAttrValue("id", "")), ocf.Quote(reference))
				}
				if inner.Tag == "rule" {
					fault("%s of %s has a rule, so the CIB does not show which values are in effect. Remove the rule",
						ocf.Quote(child.SelectAttrValue("id", "")), ocf.Quote(e.SelectAttrValue("id", "")))
				}
			}
		}
	}
	if !c.hasRole() && c.stoppedByDefault() == clusterip.Unknown {
		fault("a rule in rsc_defaults decides about target-role, so the CIB does not show whether the clone is disabled. Set target-role of "+
			"the clone itself, to Started or Stopped: %s", strings.Join(c.options.Tool.setMeta(c.Clone, []attribute{{targetRole, started}}), "; "))
	}
	return append(faults, c.twice()...)
}

// hasRole reports whether the resource or its clone has a target-role of its own.
func (c clone) hasRole() bool {
	_, has := c.Meta[targetRole]
	return has
}

// stoppedByDefault reports whether rsc_defaults disables resources that have no target-role of their own.
func (c clone) stoppedByDefault() clusterip.Answer {
	roles, set := pacemaker.ResourceDefaults(c.configuration, targetRole)
	isStopped := func(s pacemaker.Setting) bool { return strings.EqualFold(s.Value, stopped) }
	others := slices.ContainsFunc(roles, func(s pacemaker.Setting) bool { return !isStopped(s) })
	switch {
	case !slices.ContainsFunc(roles, isStopped):
		return clusterip.No
	case set && !others:
		return clusterip.Yes
	default:
		return clusterip.Unknown
	}
}

// disabled reports whether the clone is disabled: itself, or by default.
func (c clone) disabled() bool {
	return c.Disabled() || !c.hasRole() && c.stoppedByDefault() == clusterip.Yes
}

// twice names the parameters that have several values.
func (c clone) twice() []string {
	values := map[string][]string{}
	for _, pair := range c.primitive.FindElements("./instance_attributes/nvpair") {
		name, value := pair.SelectAttrValue("name", ""), pair.SelectAttrValue("value", "")
		if !slices.Contains(values[name], value) {
			values[name] = append(values[name], value)
		}
	}
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if len(values[name]) > 1 {
			var quoted []string
			for _, value := range values[name] {
				quoted = append(quoted, ocf.Quote(value))
			}
			faults = append(faults, fmt.Sprintf("%s has several values, %s. Leave one", ocf.Quote(name), strings.Join(quoted, " and ")))
		}
	}
	return faults
}

// contradictions returns what is wrong with the clone.
func (c clone) contradictions(generation Generation) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	toShare := func(attributes ...attribute) string {
		return strings.Join(c.options.Tool.setMeta(c.Clone, attributes), "; ")
	}
	for _, name := range []string{c.Name, c.Clone} {
		if !isID(name) {
			fault("%s is not the ID of a resource: letters, digits and . - _, with a letter in front", ocf.Quote(name))
		}
	}
	if len(c.around.SelectElements("meta_attributes")) > 1 {
		fault("the clone has several sets of meta attributes. Leave one, so that the commands change what counts")
	}
	if ocf.IsTrue(c.Meta["promotable"]) {
		fault("the clone is promotable, but IPaddr2 has no roles. Remove promotable")
	}
	if parent := c.primitive.Parent(); parent.Tag == "group" {
		fault("the clone contains the group %s: its other members would be as many instances as there are buckets. Take the address out of "+
			"the group, make it a clone of its own, and convert that", ocf.Quote(parent.SelectAttrValue("id", "")))
	}
	if c.Fault != nil {
		fault("%v. If the address is to be shared: %s", c.Fault, toShare(attribute{"globally-unique", "true"}, attribute{"clone-max", "8"}))
	} else if c.Unique != clusterip.Yes {
		fault("the clone is not globally unique, so nothing is shared. If it is to be shared: %s", toShare(attribute{"globally-unique", "true"}))
	}
	if c.Fault == nil && c.Buckets == 1 && c.options.Buckets == 0 {
		fault("clone-max=1: one node has the whole address. Give the number of buckets, such as --buckets 8")
	}
	if c.options.KeepHash && c.options.Buckets > 0 && c.options.Buckets != c.Buckets {
		fault("--buckets %d changes the hash, which --keep-hash keeps: the clone has %d instances", c.options.Buckets, c.Buckets)
	}
	if c.options.KeepHash && generation == Target && c.buckets() > clusterip.MaxTargetBuckets {
		fault("--keep-hash: the target CLUSTERIP has at most %d buckets, and the clone has %d", clusterip.MaxTargetBuckets, c.buckets())
	}
	if why := c.unmanaged(); len(why) > 0 {
		fault("Pacemaker does not manage it now, so it would not stop it: %s. End that first", strings.Join(why, ", "))
	}
	return faults
}

// unmanaged returns the settings because of which Pacemaker does not manage the clone, or not everywhere.
func (c clone) unmanaged() []string {
	var why []string
	isOff := func(name, value string) bool { return ocf.IsTrue(value) == (name == "maintenance") }
	if value, _ := pacemaker.Property(c.configuration, "maintenance-mode"); ocf.IsTrue(value) {
		why = append(why, "property maintenance-mode="+ocf.Quote(value))
	}
	for _, name := range []string{"is-managed", "maintenance"} {
		if value, set := c.Meta[name]; set {
			if isOff(name, value) {
				why = append(why, fmt.Sprintf("meta attribute %s=%s", name, ocf.Quote(value)))
			}
			continue // the default does not count
		}
		for _, pair := range c.configuration.FindElements("./rsc_defaults/meta_attributes/nvpair") {
			if value := pair.SelectAttrValue("value", ""); pair.SelectAttrValue("name", "") == name && isOff(name, value) {
				why = append(why, fmt.Sprintf("resource default %s=%s", name, ocf.Quote(value)))
			}
		}
	}
	for _, node := range c.configuration.FindElements("./nodes/node") {
		for _, pair := range node.FindElements("./instance_attributes/nvpair") {
			if value := pair.SelectAttrValue("value", ""); pair.SelectAttrValue("name", "") == "maintenance" && ocf.IsTrue(value) {
				why = append(why, fmt.Sprintf("attribute maintenance=%s of node %s", ocf.Quote(value), ocf.Quote(node.SelectAttrValue("uname", ""))))
			}
		}
	}
	return why
}

// isID reports whether a text is an ID of a CIB (NCName in Namespaces in XML 1.0): it is in commands, where no option begins like it.
func isID(text string) bool {
	for i, r := range text {
		isFirst := unicode.IsLetter(r) || r == '_'
		if !isFirst && (i == 0 || !unicode.IsDigit(r) && !strings.ContainsRune(".-", r)) {
			return false
		}
	}
	return text != ""
}

// split returns the texts of joined errors.
func split(err error) []string {
	var all []string
	for _, one := range ocf.Split(err) {
		all = append(all, one.Error())
	}
	return all
}

// newMAC returns what another MAC address means.
func newMAC(layout clusterip.Layout) string {
	return fmt.Sprintf("The shared MAC address becomes %s. Routers and clients learn it from gratuitous ARP when the address starts; static "+
		"entries in switches and routers must be changed (ocf-clusterip network --ip %s).", text.Join(layout.AllMACs(), ", "), layout.Address())
}

// slowStart is from when on the time of a start is worth a remark.
const slowStart = time.Second

// remarks returns what an administrator should know before.
func (c clone) remarks(layout clusterip.Layout, t translation) []string {
	var remarks []string
	remark := func(format string, args ...any) { remarks = append(remarks, fmt.Sprintf(format, args...)) }
	if !t.sameMAC {
		remarks = append(remarks, newMAC(layout))
	}
	nodes := len(c.configuration.FindElements("./nodes/node"))
	if advised := 4 * nodes; nodes > 1 && int(c.buckets()) < advised && !t.options.KeepHash {
		remark("For %d nodes, %d buckets are advised, so that the work of a failed node is spread. The number can only be changed while the "+
			"resource is stopped, as it is here: --buckets %d.", nodes, advised, advised)
	}
	if takes := t.advertising(); takes >= slowStart {
		remark("On each node, the start of the first bucket takes %s, in which it sends gratuitous ARP (arp_count, arp_interval). The address "+
			"answers meanwhile. With smaller numbers, what is ordered after the address starts earlier.", takes)
	}
	if dependents := c.dependents(); len(dependents) > 0 {
		remark("These resources are ordered after the address or colocated with it, so they stop and start with it: %s. So does what "+
			"depends on them.", strings.Join(dependents, ", "))
	}
	switch {
	case c.Disabled():
		remark("The resource is disabled now, and stays so.")
	case c.disabled():
		remark("The resource is disabled now, by the resource default target-role=Stopped. It stays so, by a target-role of its own.")
	}
	for _, name := range []string{"interleave", "notify", "ordered"} {
		if ocf.IsTrue(c.Meta[name]) {
			remark("The clone keeps %s=%s. ocf-clusterip doctor checks that.", name, ocf.Quote(c.Meta[name]))
		}
	}
	return remarks
}

// dependents returns the resources that the constraints stop with the clone: those that are ordered after it or colocated with it. It does
// not evaluate the sets of a constraint, but names all that are in one with the clone.
func (c clone) dependents() []string {
	names := []string{c.Name, c.Clone}
	for _, tag := range c.configuration.FindElements("./tags/tag") {
		for _, reference := range tag.SelectElements("obj_ref") {
			if slices.Contains(names, reference.SelectAttrValue("id", "")) {
				names = append(names, tag.SelectAttrValue("id", ""))
			}
		}
	}
	var all []string
	add := func(name string) {
		if isID(name) && !slices.Contains(names, name) && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	for _, constraint := range c.configuration.FindElements("./constraints/*") {
		first, then := "first", "then"
		switch {
		case constraint.Tag == "rsc_colocation":
			first, then = "with-rsc", "rsc"
		case constraint.Tag != "rsc_order":
			continue
		}
		if kind := constraint.SelectAttrValue("kind", "Mandatory"); kind != "Mandatory" {
			continue
		}
		score := strings.TrimPrefix(constraint.SelectAttrValue("score", "INFINITY"), "+")
		if slices.Contains(names, constraint.SelectAttrValue(first, "")) && isMandatory(score) {
			add(constraint.SelectAttrValue(then, ""))
		}
		references := constraint.FindElements("./resource_set/resource_ref")
		isOurs := func(e *etree.Element) bool { return slices.Contains(names, e.SelectAttrValue("id", "")) }
		if slices.ContainsFunc(references, isOurs) && isMandatory(score) {
			for _, reference := range references {
				add(reference.SelectAttrValue("id", ""))
			}
		}
	}
	return all
}

// isMandatory reports whether a constraint with the score stops resources (pcmk__parse_score).
func isMandatory(score string) bool {
	number, err := strconv.Atoi(score)
	return strings.EqualFold(score, "INFINITY") || err == nil && number >= infinity
}

const infinity = 1000000 // PCMK_SCORE_INFINITY
