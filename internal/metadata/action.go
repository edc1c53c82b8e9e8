package metadata

import (
	"strconv"
	"time"
)

// Action is what the agent can be asked to do (OCF 1.1, "Resource Agent Actions"), with what the manager should provide.
type Action struct {
	Name     string
	Depth    string        // the check level that an entry is about; empty when the action has no levels
	Timeout  time.Duration // the least that an operation should have
	Interval time.Duration // 0 when the action is not repeated
	Meaning  string        // a sentence or more
}

// Actions returns the table of actions. The two monitors have different intervals because Pacemaker tells the recurring operations of a
// resource apart by name and interval only.
func Actions() []Action {
	const enough = 20 * time.Second
	return []Action{
		{Name: "start", Timeout: enough, Meaning: "Takes the instance's bucket, and lays or mends what the node's buckets share."},
		{Name: "stop", Timeout: enough, Meaning: "Gives the bucket away; the last one on a node takes everything away."},
		{Name: "monitor", Depth: "0", Timeout: enough, Interval: 10 * time.Second, Meaning: "Checks that the node owns the bucket and that addresses, rules and MAC filter match what was installed."},
		{Name: "monitor", Depth: "10", Timeout: enough, Interval: 60 * time.Second, Meaning: "Checks besides, with an ARP request by the first bucket of a node, that no stranger answers for the address."},
		{Name: "meta-data", Timeout: 5 * time.Second, Meaning: "Prints what this page says, for the cluster's tools."},
		{Name: "validate-all", Timeout: enough, Meaning: "Checks the parameters, and reports all faults at once."},
		{Name: "reload-agent", Timeout: enough, Meaning: "Makes changes of the reloadable parameters effective, without touching a connection."},
	}
}

// seconds writes a time as Pacemaker reads it.
func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second)) + "s" }
