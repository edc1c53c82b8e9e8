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

	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/internal/text"
)

// replacement returns the element that takes the place of the primitive, and remarks. It has the primitive's ID, so that everything that
// names it stays: constraints, tags, permissions. Everything else of it stays too, but parameters, and two meta attributes that would
// outrank those of the clone.
func (c clone) replacement(parameters map[string]string) (*etree.Element, []string) {
	e := c.primitive.Copy()
	e.CreateAttr("provider", "custom")
	e.CreateAttr("type", "clusterip")
	ids := c.freeIDs()
	setID := ids.take(c.Name + "-instance_attributes")
	for _, set := range e.SelectElements("instance_attributes") {
		e.RemoveChild(set)
	}
	for _, set := range e.SelectElements("meta_attributes") {
		for _, pair := range set.SelectElements("nvpair") {
			if slices.Contains([]string{targetRole, "resource-stickiness"}, pair.SelectAttrValue("name", "")) {
				set.RemoveChild(pair)
			}
		}
		if len(set.ChildElements()) == 0 {
			e.RemoveChild(set)
		}
	}
	set := etree.NewElement("instance_attributes")
	set.CreateAttr("id", setID)
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		pair := set.CreateElement("nvpair")
		pair.CreateAttr("id", ids.take(setID+"-"+name))
		pair.CreateAttr("name", name)
		pair.CreateAttr("value", parameters[name])
	}
	e.InsertChildAt(0, set)
	return e, setOperations(e, ids)
}

// ids are those of a configuration outside the primitive.
type ids map[string]bool

func (c clone) freeIDs() ids {
	taken := ids{}
	for _, e := range c.configuration.FindElements(".//*") {
		taken[e.SelectAttrValue("id", "")] = true
	}
	for _, e := range c.primitive.FindElements("./instance_attributes//*") {
		delete(taken, e.SelectAttrValue("id", ""))
	}
	for _, e := range c.primitive.SelectElements("instance_attributes") {
		delete(taken, e.SelectAttrValue("id", ""))
	}
	return taken
}

// take returns an ID that nothing has, like the wanted one.
func (i ids) take(wanted string) string {
	id := wanted
	for n := 2; i[id]; n++ {
		id = fmt.Sprintf("%s-%d", wanted, n)
	}
	i[id] = true
	return id
}

// An operation is one that the agent advertises.
type operation struct {
	metadata.Action
	level string // OCF_CHECK_LEVEL; "": not set
}

// operationsOfAgent returns the operations that pcs creates.
func operationsOfAgent() []operation {
	var all []operation
	for _, action := range metadata.Actions() {
		o := operation{Action: action}
		switch {
		case slices.Contains([]string{"meta-data", "validate-all"}, action.Name):
			continue
		case action.Depth != "0":
			o.level = action.Depth
		}
		all = append(all, o)
	}
	return all
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second)) + "s" }

// crm returns the operation as crmsh writes it.
func (o operation) crm() string {
	s := fmt.Sprintf("op %s interval=%s timeout=%s", o.Name, seconds(o.Interval), seconds(o.Timeout))
	if o.level != "" {
		s += " op_params OCF_CHECK_LEVEL=" + o.level
	}
	return s
}

// setOperations keeps the operations that the agent has too, with at least its timeouts, and adds what is missing. It returns what it has
// changed in those that were there.
func setOperations(primitive *etree.Element, ids ids) []string {
	var remarks []string
	operations := primitive.SelectElement("operations")
	if operations == nil {
		operations = primitive.CreateElement("operations")
	}
	for _, op := range operations.SelectElements("op") {
		name := op.SelectAttrValue("name", "")
		i := slices.IndexFunc(operationsOfAgent(), func(o operation) bool { return o.Name == name })
		if i < 0 {
			remarks = append(remarks, fmt.Sprintf("Operation %s is left out: the agent has no such action.", ocf.Quote(name)))
			operations.RemoveChild(op)
			continue
		}
		least := operationsOfAgent()[i].Timeout
		if timeout, ok := pacemaker.ParseTime(op.SelectAttrValue("timeout", "")); ok && timeout < least {
			remarks = append(remarks, fmt.Sprintf("The timeout of operation %s becomes %s; it was %s.", name, seconds(least), timeout))
			op.CreateAttr("timeout", seconds(least))
		}
	}
	for _, wanted := range operationsOfAgent() {
		if !hasOperation(operations, wanted) {
			addOperation(operations, wanted, primitive.SelectAttrValue("id", ""), ids)
		}
	}
	return remarks
}

// hasOperation reports whether an operation is there. Monitors that are there are of no check level, because IPaddr2 has none.
func hasOperation(operations *etree.Element, wanted operation) bool {
	return wanted.level == "" && slices.ContainsFunc(operations.SelectElements("op"), func(op *etree.Element) bool {
		return op.SelectAttrValue("name", "") == wanted.Name
	})
}

// addOperation adds an operation, with an interval that no other one of that name has: Pacemaker distinguishes them by it.
func addOperation(operations *etree.Element, wanted operation, resource string, ids ids) {
	interval := wanted.Interval
	isTaken := func(op *etree.Element) bool {
		other, _ := pacemaker.ParseTime(op.SelectAttrValue("interval", "0"))
		return op.SelectAttrValue("name", "") == wanted.Name && other == interval
	}
	for slices.ContainsFunc(operations.SelectElements("op"), isTaken) {
		interval += time.Second
	}
	op := operations.CreateElement("op")
	id := ids.take(fmt.Sprintf("%s-%s-interval-%s", resource, wanted.Name, seconds(interval)))
	op.CreateAttr("id", id)
	op.CreateAttr("name", wanted.Name)
	op.CreateAttr("interval", seconds(interval))
	op.CreateAttr("timeout", seconds(wanted.Timeout))
	if wanted.level == "" {
		return
	}
	set := op.CreateElement("instance_attributes")
	set.CreateAttr("id", ids.take(id+"-instance_attributes"))
	pair := set.CreateElement("nvpair")
	pair.CreateAttr("id", ids.take(id+"-instance_attributes-OCF_CHECK_LEVEL"))
	pair.CreateAttr("name", "OCF_CHECK_LEVEL")
	pair.CreateAttr("value", wanted.level)
}

// replaceCommand returns the command that puts an element in the place of the one with its ID.
func replaceCommand(e *etree.Element) (string, error) {
	document := etree.NewDocument()
	document.AddChild(e.Copy())
	document.Indent(2)
	xml, err := document.WriteToString()
	if err != nil {
		return "", err
	}
	var ascii strings.Builder
	for _, r := range strings.TrimSpace(xml) {
		if r == '\n' || r < unicode.MaxASCII && unicode.IsPrint(r) {
			ascii.WriteRune(r)
		} else { // a terminal may do anything with it
			fmt.Fprintf(&ascii, "&#%d;", r)
		}
	}
	return "cibadmin --replace --xml-text " + text.ShellQuote(ascii.String()), nil
}
