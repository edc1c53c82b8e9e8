package convert

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ocf-clusterip/internal/text"
)

// Tool is a shell of Pacemaker for administrators.
type Tool string

// The tools.
const (
	PCS Tool = "pcs"
	CRM Tool = "crm"
)

// Tools returns all tools.
func Tools() []string { return []string{string(PCS), string(CRM)} }

// wait follows a command that starts or stops something. pcs's own --wait is deprecated from 0.12 on.
const wait = "crm_resource --wait --timeout=60s"

// chain joins commands so that a failed one ends them all.
func chain(commands ...string) string { return strings.Join(commands, " &&\n") }

// isStopped returns the command that fails if a resource runs anywhere, and prints where. Pacemaker also ends its waiting when a stop has
// failed and there is no fencing.
func isStopped(resource string) string {
	return "! crm_resource --resource " + text.ShellQuote(resource) + " --locate | grep 'is running on'"
}

// stop returns the commands that stop a clone and fail if it is not stopped. If its primitive has a target-role of its own, that one
// outranks the clone's: crm removes it, but pcs changes only what it is given.
func (t Tool) stop(clone, primitive string, hasTargetRole bool) []string {
	command := "pcs resource disable " + text.ShellQuote(clone)
	switch {
	case t == CRM:
		command = "crm resource stop " + text.ShellQuote(clone)
	case hasTargetRole:
		command += " " + text.ShellQuote(primitive)
	}
	return []string{command, wait, isStopped(clone)}
}

// start returns the commands that start a clone. Both tools remove its primitive's target-role. crm sets the clone's; pcs removes that one,
// too, which starts nothing if rsc_defaults has target-role=Stopped.
func (t Tool) start(clone string, maybeStoppedByDefault bool) string {
	commands := []string{"pcs resource enable " + text.ShellQuote(clone)}
	switch {
	case t == CRM:
		commands = []string{"crm resource start " + text.ShellQuote(clone)}
	case maybeStoppedByDefault:
		commands = append(commands, t.setMeta(clone, []attribute{{targetRole, started}})...)
	}
	return chain(append(commands, wait)...)
}

// refresh returns the command that makes Pacemaker forget what the former agent's actions returned.
func (t Tool) refresh(resource string) string {
	if t == CRM {
		return "crm resource refresh " + text.ShellQuote(resource)
	}
	return "pcs resource refresh " + text.ShellQuote(resource)
}

// An attribute is a meta attribute. No value: it is removed.
type attribute struct{ name, value string }

func (t Tool) setMeta(resource string, attributes []attribute) []string {
	if len(attributes) == 0 {
		return nil
	}
	id := text.ShellQuote(resource)
	var assignments, crm []string
	for _, a := range attributes {
		if a.value == "" {
			assignments = append(assignments, a.name+"=")
			crm = append(crm, fmt.Sprintf("crm resource meta %s delete %s", id, a.name))
			continue
		}
		assignments = append(assignments, a.name+"="+text.ShellQuote(a.value))
		crm = append(crm, fmt.Sprintf("crm resource meta %s set %s %s", id, a.name, text.ShellQuote(a.value)))
	}
	if t == CRM {
		return crm
	}
	return []string{fmt.Sprintf("pcs resource meta %s %s", id, strings.Join(assignments, " "))}
}

// create returns the commands that create a clone that is disabled.
func (t Tool) create(resource string, parameters map[string]string, attributes []attribute) []string {
	name, clone := text.ShellQuote(resource), text.ShellQuote(resource+"-clone")
	var settings, meta, operations []string
	for _, parameter := range slices.Sorted(maps.Keys(parameters)) {
		settings = append(settings, parameter+"="+text.ShellQuote(parameters[parameter]))
	}
	for _, a := range attributes {
		meta = append(meta, a.name+"="+text.ShellQuote(a.value))
	}
	if t == PCS {
		return []string{
			fmt.Sprintf("pcs resource create %s ocf:custom:clusterip %s --disabled", name, strings.Join(settings, " ")),
			fmt.Sprintf("pcs resource clone %s meta %s", name, strings.Join(meta, " ")),
		}
	}
	for _, o := range operationsOfAgent() {
		operations = append(operations, o.crm())
	}
	// Both at once, because a primitive alone would start. crmsh splits lines into words as a shell does.
	primitive := strings.Join(slices.Concat([]string{"primitive", name, "ocf:custom:clusterip", "params"}, settings, operations), " ")
	cloned := strings.Join(slices.Concat([]string{"clone", clone, name, "meta"}, meta, []string{targetRole + "=" + stopped}), " ")
	return []string{fmt.Sprintf("printf '%%s\\n' %s %s | crm configure load update -", text.ShellQuote(primitive), text.ShellQuote(cloned))}
}
