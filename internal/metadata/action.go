package metadata

import (
	"strconv"
	"time"
)

// Action is an action of the agent (OCF 1.1, "Resource Agent Actions"), with the recommended settings of its operation.
type Action struct {
	Name     string
	Depth    string        // the check level of the entry; empty if the action has no levels
	Timeout  time.Duration // the least that an operation should have
	Interval time.Duration // 0 when the action is not repeated
	Meaning  string        // a sentence or more
}

// Actions returns the table of actions. The two monitors have different intervals because Pacemaker tells the recurring operations of a
// resource apart by name and interval only.
func Actions() []Action {
	const enough = 20 * time.Second
	return []Action{
		{Name: "start", Timeout: enough, Meaning: "Owns the instance's bucket, and installs or repairs what all buckets of the node need."},
		{Name: "stop", Timeout: enough, Meaning: "Releases the bucket; with the last one on a node it removes everything."},
		{Name: "monitor", Depth: "0", Timeout: enough, Interval: 10 * time.Second, Meaning: "Checks that the node owns the bucket and that " +
			"addresses, rules and MAC filter match what was installed."},
		{Name: "monitor", Depth: "10", Timeout: enough, Interval: 60 * time.Second, Meaning: "Also checks, with an ARP request by the first " +
			"bucket of a node, that no other host uses the address."},
		{Name: "meta-data", Timeout: 5 * time.Second, Meaning: "Prints this description, for the cluster's tools."},
		{Name: "validate-all", Timeout: enough, Meaning: "Checks the parameters, and reports all faults at once."},
		{Name: "reload-agent", Timeout: enough, Meaning: "Applies changes of the reloadable parameters, without affecting connections."},
	}
}

// seconds returns a time as Pacemaker reads it.
func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second)) + "s" }
