package convert

import (
	"fmt"
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

func (t Tool) stop(resource string) []string {
	if t == CRM {
		return []string{"crm resource stop " + text.ShellQuote(resource), wait}
	}
	return []string{"pcs resource disable " + text.ShellQuote(resource), wait}
}

func (t Tool) start(resource string) []string {
	if t == CRM {
		return []string{"crm resource start " + text.ShellQuote(resource), wait}
	}
	return []string{"pcs resource enable " + text.ShellQuote(resource), wait}
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
