package plan

import (
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/text"
)

// Resource is the resource to create, apart from its number of buckets.
type Resource struct {
	Address    string
	Parameters []Parameter // beside ip
}

// Parameter is a parameter of the resource.
type Parameter struct{ Name, Value string }

// ExampleAddress stands for an address that is not known yet.
const ExampleAddress = "192.168.10.3"

// Commands are the commands for an operator.
type Commands struct {
	Create []string `json:"create"` // create the resource
	Change []string `json:"change"` // change the number of buckets of an existing one, which stop meanwhile
}

func (r Resource) commands(buckets int, monitors []Monitor) Commands {
	var parameters, operations []string
	for _, parameter := range r.Parameters {
		parameters = append(parameters, parameter.Name+"="+text.ShellQuote(parameter.Value))
	}
	for _, monitor := range monitors {
		operation := fmt.Sprintf("monitor interval=%vs timeout=%.0fs", monitor.Seconds, monitor.Timeout.Seconds())
		if monitor.Level != "0" {
			operation += " OCF_CHECK_LEVEL=" + monitor.Level
		}
		operations = append(operations, operation)
	}
	// With stickiness 0 buckets move whenever a node comes back. With drain, that breaks no connection.
	lines := []string{"pcs resource create web-ip ocf:custom:clusterip ip=" + text.ShellQuote(r.Address) + " drain=600"}
	if len(parameters) > 0 {
		lines = append(lines, strings.Join(parameters, " "))
	}
	if !slices.Equal(monitors, Monitors()) { // otherwise pcs uses those of the meta-data
		lines = append(lines, "op "+operations[0])
		lines = append(lines, operations[1:]...)
	}
	meta := fmt.Sprintf("clone-max=%d clone-node-max=%d", buckets, buckets)
	const next = " \\\n    "
	return Commands{
		// `pcs resource create … clone` accepts the clone's options too, but each of its forms is deprecated or wrong in some pcs: without the
		// word meta from 0.11.6 on; with it, the primitive gets the options. The resource is disabled until it is a clone: a single instance
		// would answer all clients.
		Create: []string{
			strings.Join(append(lines, "--disabled"), next),
			"pcs resource clone web-ip meta " + meta + next + "globally-unique=true resource-stickiness=0",
			"pcs resource enable web-ip",
		},
		// pcs's own --wait is deprecated from 0.12 on.
		Change: []string{
			"pcs resource disable web-ip", "crm_resource --wait --timeout=60s   # now pcs status must show no bucket",
			"pcs resource meta web-ip-clone " + meta, "pcs resource enable web-ip",
		},
	}
}
