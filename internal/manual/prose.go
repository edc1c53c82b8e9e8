package manual

import (
	"strconv"

	"ocf-clusterip/internal/ocf"
)

// What no definition says. It is kept small, and nowhere else.

// A closing section is a list at the end of a page.
type closing struct {
	title   string
	entries []entry
}

type entry struct{ name, text string }

func commandSections() []closing {
	code := func(c ocf.ExitCode, text string) entry { return entry{strconv.Itoa(int(c)), text} }
	return []closing{
		{"EXIT STATUS", []entry{
			code(ocf.Success, "Done; of a monitor: the bucket is answered, and everything is as laid. Of a command that checks something: healthy."),
			code(ocf.ErrGeneric, "Failed, or in doubt. Of a command that checks something: degraded."),
			code(ocf.ErrArgs, "The arguments are wrong, or the parameters do not suit this node. Of a command that checks something: broken."),
			code(ocf.ErrUnimplemented, "There is no such action."),
			code(ocf.ErrPerm, "Only root may do this."),
			code(ocf.ErrInstalled, "This node lacks something that is needed."),
			code(ocf.ErrConfigured, "The parameters are wrong on every node: the cluster manager does not try again."),
			code(ocf.NotRunning, "Of a monitor: nothing is left of the bucket."),
		}},
		{"ENVIRONMENT", []entry{
			{"OCF_RESKEY_name", "The value of a parameter of the resource."},
			{"OCF_RESOURCE_INSTANCE", "The name of the instance, such as web-ip:4; its number is the bucket."},
			{"OCF_CHECK_LEVEL", "How thorough monitor and validate-all are: 0 (default) or 10."},
			{"OCF_EXIT_REASON_PREFIX", "What stands in front of the reason of a failure on the standard error; default: " + ocf.DefaultExitReasonPrefix},
			{"HA_RSCTMP", "The folder of the locks; default: " + ocf.DefaultTempDir},
			{"HA_debug", "Above 0, messages for debugging are written too."},
			{"NO_COLOR", "If set and not empty, commands for people do without colour."},
		}},
		{"FILES", []entry{
			{"/usr/lib/ocf/resource.d/custom/clusterip", "The resource agent: a link to this program."},
			{ocf.DefaultTempDir + "/clusterip-ADDRESS.lock", "Held during an action, so that a node carries out one at a time for each address."},
			{ocf.DefaultTempDir + "/clusterip-ADDRESS.sweeper.lock", "Held by the process in the background that clears up when a bucket does not drain any more."},
		}},
	}
}

func commandSeeAlso() []string {
	return []string{"ocf_custom_clusterip(7)", "pcs(8)", "crm(8)", "crm_mon(8)", "crm_resource(8)", "nft(8)", "ip(8)"}
}

func agentSeeAlso() []string {
	return []string{"ocf-clusterip(8)", "pcs(8)", "crm(8)", "crm_mon(8)", "ocf_heartbeat_IPaddr2(7)", "nft(8)"}
}
