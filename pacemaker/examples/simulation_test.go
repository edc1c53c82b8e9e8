//go:build system

package examples

import (
	"fmt"
	"os"
	"strings"

	"github.com/beevik/etree"

	"ocf-clusterip/tests/lab"
)

// simulation is a cluster's configuration and state in a file, which Pacemaker's own scheduler carries on.
type simulation struct {
	*desk
	cib     string
	actions []string // of the last step, as crm_simulate prints them
	seen    *lab.Status
}

// started is a cluster after its nodes have joined and all has been started.
func (d *desk) started(cib string, nodes ...string) *simulation {
	d.Helper()
	var events []string
	for _, node := range nodes {
		events = append(events, "--node-up", node)
	}
	return (&simulation{desk: d, cib: cib}).after(append(events, "--quorum", "true")...)
}

// after is the cluster after those events, and all that Pacemaker does about them.
func (s *simulation) after(events ...string) *simulation {
	s.Helper()
	next := s.copy()
	out := s.run(append([]string{"crm_simulate", "--simulate", "--xml-file", s.cib, "--save-output", next.cib}, events...)...)
	for line := range strings.Lines(out) {
		if _, action, ok := strings.Cut(line, "Resource action: "); ok {
			next.actions = append(next.actions, strings.Join(strings.Fields(action), " "))
		}
	}
	return next
}

// copy is the same cluster in another file.
func (s *simulation) copy() *simulation {
	s.Helper()
	f, err := os.CreateTemp(s.dir, "cib-*.xml")
	check(s.T, err)
	check(s.T, f.Close())
	text, err := os.ReadFile(s.cib)
	check(s.T, err)
	check(s.T, os.WriteFile(f.Name(), text, 0o600))
	return &simulation{desk: s.desk, cib: f.Name()}
}

// status is what crm_mon prints about the cluster.
func (s *simulation) status() *lab.Status {
	s.Helper()
	if s.seen == nil {
		status, err := lab.ParseStatus(s.run("env", "CIB_file="+s.cib, "crm_mon", "--one-shot", "--output-as=xml"))
		check(s.T, err)
		s.seen = status
	}
	return s.seen
}

// set gives a node transient attributes, as the agents that watch it would.
func (s *simulation) set(node string, attributes map[string]string) {
	s.Helper()
	doc := etree.NewDocument()
	check(s.T, doc.ReadFromFile(s.cib))
	state := doc.FindElement(fmt.Sprintf("//node_state[@uname='%s']", node))
	if state == nil {
		s.Fatalf("no state of %s", node)
	}
	transient := child(state, "transient_attributes", "id", state.SelectAttrValue("id", ""))
	set := child(transient, "instance_attributes", "id", "status-"+node)
	for name, value := range attributes {
		pair := set.FindElement(fmt.Sprintf("nvpair[@name='%s']", name))
		if pair == nil {
			pair = set.CreateElement("nvpair")
			pair.CreateAttr("id", "status-"+node+"-"+strings.Trim(name, "#"))
			pair.CreateAttr("name", name)
		}
		pair.CreateAttr("value", value)
	}
	check(s.T, doc.WriteToFile(s.cib))
	s.seen = nil
}

// standby switches a node's standby mode.
func (s *simulation) standby(node, value string) {
	s.Helper()
	s.run("env", "CIB_file="+s.cib, "crm_attribute", "--node", node, "--name", "standby", "--update", value)
	s.seen = nil
}

// child finds an element's child, or makes it.
func child(of *etree.Element, tag, attribute, value string) *etree.Element {
	if e := of.SelectElement(tag); e != nil {
		return e
	}
	e := of.CreateElement(tag)
	e.CreateAttr(attribute, value)
	return e
}
