package convert

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/text"
)

// backup returns the command that saves the CIB. Passwords of fencing devices are in it, and an earlier backup is not to be replaced by
// what is half converted.
func backup(resource string) string {
	return "(umask 077; set -C; cibadmin --query >" + text.ShellQuote("cib-before-"+resource+"-") + "$(date +%Y%m%d-%H%M%S).xml)"
}

const (
	whyAgain  = "The commands are for the configuration as it is now. If it changes before you run them, run convert again."
	whyBefore = "The program must be installed on all nodes. doctor names the present address and rules as conflicts; do not remove them yet."
	whyStop   = "From here on no node answers until the address runs again: for about ten seconds if you paste without a pause."
	whyChain  = "These commands are one chain: the first that fails ends it. Find out why before you go on. If instances still run, the " +
		"grep prints where. The agent is replaced only if none does; until then, the start below starts the former one."
	whyBackup  = "The file cib-before-… has the whole CIB. Each attempt writes a new one."
	whyRefresh = "refresh makes Pacemaker forget the failures of the former agent."
	whyStopped = "The resource was disabled before, so it stays disabled. To start it:"
	whyStart   = "Clients repeat what was not answered meanwhile. An open connection survives if its bucket starts on the node that had it; " +
		"else the client gets a reset and connects again."
	whyWayBack = "The way back, if it is needed, with the same break:"
)

// describe sets the steps.
func (c clone) describe(result *Conversion, parameters map[string]string) {
	tool := c.options.Tool
	replacement, remarks := c.replacement(parameters)
	result.Remarks = append(result.Remarks, remarks...)
	forward, err := replaceCommand(replacement)
	back, backErr := replaceCommand(c.stoppedPrimitive())
	if err != nil || backErr != nil {
		result.Faults = append(result.Faults, fmt.Sprintf("it cannot be written as XML: %v, %v", err, backErr))
		return
	}
	changed, former := c.metaChanges()
	start := tool.start(c.Clone, c.stoppedByDefault() != clusterip.No)
	stop := tool.stop(c.Clone, c.Name, ownMeta(c.primitive, targetRole) != "")
	// The agent comes before the meta attributes: whichever command fails, what is configured then can be started.
	replace := func(command string, meta []attribute) []string {
		return slices.Concat([]string{command}, tool.setMeta(c.Clone, meta), []string{tool.refresh(c.Clone), wait})
	}
	why := []string{whyStop, whyChain, whyBackup, whyRefresh}
	if c.changesStickiness() {
		why = append(why, "resource-stickiness=0 lets buckets move back when a node returns.")
	}
	result.Steps = []Step{
		before(result, parameters["ip"]),
		{
			Title: "Stop the address and replace the agent; constraints, tags and everything else that names the resource stay", Why: why,
			Commands: []string{chain(slices.Concat([]string{backup(result.Resource)}, stop, replace(forward, changed))...)},
		},
		{Title: "Start it", Why: []string{whyStart}, Commands: []string{start}},
		after(parameters["ip"]),
	}
	result.WayBack = []string{chain(append(stop, replace(back, former)...)...), start}
	if c.disabled() {
		result.Steps[1].Why = why[1:]
		result.Steps[2].Why, result.Steps[2].ByHand = []string{whyStopped}, true
		result.WayBack = result.WayBack[:1]
	}
}

func before(result *Conversion, ip string) Step {
	return Step{
		Title: "Before",
		Why:   []string{whyBefore, whyAgain},
		EachNode: []string{
			fmt.Sprintf("ocf-clusterip doctor --ip %s --buckets %d", text.ShellQuote(ip), result.Buckets),
		},
		Commands: []string{},
	}
}

func after(ip string) Step {
	return Step{
		Title:    "Check it",
		Why:      []string{fmt.Sprintf("ocf-clusterip whois --to %s CLIENT prints which node answers a client.", ip)},
		Commands: []string{"ocf-clusterip status"},
	}
}

// wantedMeta returns the meta attributes of a clone of the agent.
func wantedMeta(buckets uint32) []attribute {
	number := strconv.Itoa(int(buckets))
	return []attribute{{"clone-max", number}, {"clone-node-max", number}, {"globally-unique", "true"}, {"resource-stickiness", "0"}}
}

// metaChanges returns the meta attributes of the clone that change, and what they are now.
func (c clone) metaChanges() (changed, former []attribute) {
	for _, wanted := range wantedMeta(c.buckets()) {
		value := ownMeta(c.around, wanted.name)
		if value == wanted.value || wanted.name == "globally-unique" && ocf.IsTrue(value) {
			continue
		}
		changed = append(changed, wanted)
		former = append(former, attribute{wanted.name, value})
	}
	return changed, former
}

func (c clone) changesStickiness() bool { return ownMeta(c.around, "resource-stickiness") != "0" }

const (
	targetRole = "target-role"
	stopped    = "Stopped"
	started    = "Started"
)

// stoppedPrimitive returns the primitive as it is, but for a target-role of its own: with that, the way back would start it before its
// clone is as it was.
func (c clone) stoppedPrimitive() *etree.Element {
	e := c.primitive.Copy()
	for _, pair := range e.FindElements("./meta_attributes/nvpair") {
		if pair.SelectAttrValue("name", "") == targetRole {
			pair.CreateAttr("value", stopped)
		}
	}
	return e
}

// ownMeta returns a meta attribute that an element has itself.
func ownMeta(e *etree.Element, name string) string {
	for _, pair := range e.FindElements("./meta_attributes/nvpair") {
		if pair.SelectAttrValue("name", "") == name {
			return pair.SelectAttrValue("value", "")
		}
	}
	return ""
}
