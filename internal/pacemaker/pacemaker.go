// Package pacemaker is the way into the cluster manager: what a node tells the others through it, and what it knows of them.
//
// Nodes speak by private transient attributes, which pacemaker-attrd keeps in memory on all nodes: they are never in the CIB, and go
// with the node that they are attributes of, or when Pacemaker is stopped there. It is asked through its own programs, whose
// command lines are stable.
package pacemaker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Where Pacemaker's programs are.
const (
	attrdUpdater = "/usr/sbin/attrd_updater"
	cibadmin     = "/usr/sbin/cibadmin"
)

// defaultPatience bounds one question of an action, which has other things to do. An answer takes some 30 ms.
const defaultPatience = 2 * time.Second

// NoSuchAttribute tells whether attrd_updater's exit status says that no node has the attribute: CRM_EX_CONFIG in Pacemaker 2.1.5, CRM_EX_NOSUCH
// in later ones (crm_exit_e in include/crm/common/results.h).
func NoSuchAttribute(status int) bool {
	const config, noSuch = 78, 105
	return status == config || status == noSuch
}

// Cluster is the cluster that this node is in.
type Cluster struct {
	Environ  []string      // the agent's environment, in the form of os.Environ
	Patience time.Duration // for the answer to one question; 0: two seconds
}

// Statements implements clusterip.Cluster.
func (c Cluster) Statements(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (clusterip.Statements, error) {
	values, err := c.query(ctx, attribute(address, bucket), "-A")
	if err != nil {
		return nil, err
	}
	said := clusterip.Statements{}
	for node, value := range values {
		if value == "" { // attrd knows of the node, but not of a value
			continue
		}
		if said[node], err = parseStatement(value); err != nil {
			return nil, fmt.Errorf("attribute %s of %s: %w", attribute(address, bucket), ocf.Quote(node), err)
		}
	}
	return said, nil
}

// State implements clusterip.Cluster.
func (c Cluster) State(ctx context.Context, address netip.Addr, bucket clusterip.Bucket, node string, statement clusterip.Statement) error {
	for _, d := range statement.Drainers {
		if !isNodeName(d.Node) {
			return fmt.Errorf("the node's name %s cannot be told to others", ocf.Quote(d.Node))
		}
	}
	if !isNodeName(node) {
		return fmt.Errorf("the node's name %s cannot be used", ocf.Quote(node))
	}
	_, err := c.run(ctx, attrdUpdater, "--private", "--name", attribute(address, bucket), "--node", node, "--update", formatStatement(statement))
	return err
}

// Presence implements clusterip.Cluster. Where nobody fences, a node that is lost counts as dead, as it does for Pacemaker, which starts its
// resources elsewhere at once.
func (c Cluster) Presence(ctx context.Context) (map[string]clusterip.Presence, error) {
	text, err := c.run(ctx, cibadmin, "--query", "--local", "--xpath", "/cib/status")
	if err != nil {
		return nil, err
	}
	nodes, err := ParsePresence(text)
	if err != nil || !slices.ContainsFunc(slices.Collect(maps.Values(nodes)), func(p clusterip.Presence) bool { return p.Place == clusterip.Lost }) {
		return nodes, err
	}
	configuration, err := c.Configuration(ctx)
	if err != nil || !IsUnfenced(configuration) {
		return nodes, nil //nolint:nilerr // whether somebody fences cannot be told: then a lost node may live
	}
	for node, p := range nodes {
		if p.Place == clusterip.Lost {
			nodes[node] = clusterip.Presence{Place: clusterip.Dead}
		}
	}
	return nodes, nil
}

// ParsePresence reads what cibadmin prints of the CIB's status, in the form of any release.
func ParsePresence(text string) (map[string]clusterip.Presence, error) {
	document := etree.NewDocument()
	if err := document.ReadFromString(text); err != nil {
		return nil, fmt.Errorf("the status of the CIB: %w", err)
	}
	nodes := map[string]clusterip.Presence{}
	for _, state := range document.FindElements("//node_state") {
		name := state.SelectAttrValue("uname", "")
		if name == "" {
			continue
		}
		if _, twice := nodes[name]; twice {
			nodes[name] = clusterip.Presence{Said: "two node_state"}
			continue
		}
		nodes[name] = presenceOf(state)
	}
	if len(nodes) == 0 {
		return nil, errors.New("the status of the CIB names no node")
	}
	return nodes, nil
}

// presenceOf reads a node_state of the CIB (create_node_state_update in daemons/controld/controld_membership.c, and what the scheduler makes
// of it: determine_online_status_fencing in lib/pengine/unpack.c).
//
// A node whose Pacemaker is stopped in order is expected to be down, and so is one that was fenced; but of that one the history of what
// it did is deleted (update_node_state_after_fencing in daemons/controld/controld_fencing.c). A node that has crashed is expected to be a
// member. One that is still in Corosync's membership without its controller lives, and may have its controller back in a moment.
func presenceOf(state *etree.Element) clusterip.Presence {
	attribute := func(name string) string { return state.SelectAttrValue(name, "") }
	unknown := clusterip.Presence{Said: ocf.OneLine(fmt.Sprintf("node_state with crmd=%q in_ccm=%q expected=%q", attribute("crmd"), attribute("in_ccm"), attribute("expected")))}
	controller, controllerKnown := isThere(attribute("crmd"), "online", "offline")
	corosync, corosyncKnown := isThere(attribute("in_ccm"), "true", "false")
	expected := attribute("expected")
	switch {
	case !controllerKnown || !corosyncKnown || ocf.IsTrue(attribute("remote_node")):
		return unknown
	case controller:
		return clusterip.Presence{Place: clusterip.Member}
	case expected == "down" && state.SelectElement("lrm") != nil:
		return clusterip.Presence{Place: clusterip.Left}
	case expected == "down":
		return clusterip.Presence{Place: clusterip.Dead}
	case expected == "member" && !corosync:
		return clusterip.Presence{Place: clusterip.Lost}
	default:
		return unknown
	}
}

// isThere reads an attribute of node_state that says whether a node is in a group: in words or, since CRM feature set 3.18 (Pacemaker 2.1.7),
// as the time since when, in seconds since 1970; 0 is not.
func isThere(value, yes, no string) (there, known bool) {
	switch value {
	case yes:
		return true, true
	case no:
		return false, true
	}
	since, err := strconv.ParseUint(value, 10, 63)
	return since > 0, err == nil
}

// attribute is the name of what nodes say of a bucket. IPv6's colons are spared those who type it.
func attribute(address netip.Addr, bucket clusterip.Bucket) string {
	return fmt.Sprintf("clusterip-%s-%d", strings.ReplaceAll(address.String(), ":", "-"), bucket)
}

const (
	nobody    = "none" // no node drains the bucket
	unspoken  = "+"    // goes before the value of a node that has not spoken, but was told of others
	separator = ","
)

func formatStatement(statement clusterip.Statement) string {
	text := nobody
	if drainers := statement.Drainers; len(drainers) > 0 {
		words := make([]string, len(drainers))
		for i, d := range drainers {
			words[i] = fmt.Sprintf("%s:%d", d.Node, (d.Left+time.Second-1)/time.Second)
		}
		text = strings.Join(words, separator)
	}
	if !statement.Spoken {
		text = unspoken + text
	}
	return text
}

func parseStatement(value string) (statement clusterip.Statement, err error) {
	list, told := strings.CutPrefix(value, unspoken)
	statement.Spoken = !told
	statement.Drainers, err = parseDrainers(list)
	return statement, err
}

// MaxDrain is the longest time that a statement may tell.
const MaxDrain = 24 * time.Hour

func parseDrainers(value string) ([]clusterip.Drainer, error) {
	if value == nobody {
		return nil, nil
	}
	var drainers []clusterip.Drainer
	for word := range strings.SplitSeq(value, separator) {
		node, left, _ := strings.Cut(word, ":")
		seconds, ok := parseSeconds(left)
		if !ok || !isNodeName(node) {
			return nil, fmt.Errorf("%s is neither %q nor a list of NODE:SECONDS, up to %d", ocf.Quote(value), nobody, int(MaxDrain.Seconds()))
		}
		drainers = append(drainers, clusterip.Drainer{Node: node, Left: seconds})
	}
	return drainers, nil
}

func parseSeconds(text string) (time.Duration, bool) {
	const most = len("86400")
	number, err := strconv.ParseUint(text, 10, 32)
	seconds := time.Duration(number) * time.Second
	return seconds, err == nil && len(text) <= most && seconds <= MaxDrain
}

// isNodeName tells whether a name can be one of a node, and stand in a list. (Corosync takes what a host name may be, and more.)
func isNodeName(name string) bool { return nodeName().MatchString(name) }

// Compiled when they are needed: most actions need none.
var (
	nodeName = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$`)
	})
	attributeLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^name="([^"]*)" host="([^"]*)" value="([^"]*)"$`)
	})
)

// query returns the values of an attribute by node.
func (c Cluster) query(ctx context.Context, name string, options ...string) (map[string]string, error) {
	text, err := c.run(ctx, attrdUpdater, append([]string{"--name", name, "--query"}, options...)...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && NoSuchAttribute(exit.ExitCode()) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ParseAttributes(text, name)
}

// ParseAttributes reads what attrd_updater prints of an attribute, as values by node: lines such as `name="x" host="node1" value="y"`. XML's escapes do not occur in what we write; in other values they
// are left as they are.
func ParseAttributes(text, name string) (map[string]string, error) {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		fields := attributeLine().FindStringSubmatch(line)
		if fields == nil || fields[1] != name {
			return nil, fmt.Errorf("%s says %s, which is no value of %s", attrdUpdater, ocf.Quote(line), name)
		}
		values[fields[2]] = fields[3]
	}
	return values, nil
}

// run runs one of Pacemaker's programs and returns what it prints.
func (c Cluster) run(ctx context.Context, program string, arguments ...string) (string, error) {
	patience := cmp.Or(c.Patience, defaultPatience)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, complaints bytes.Buffer
	command := exec.CommandContext(ctx, program, arguments...) //nolint:gosec // the programs are constants; there is no shell
	command.Env = slices.DeleteFunc(slices.Clone(c.Environ), func(variable string) bool {
		// An agent's own variables make attrd_updater speak of this node alone, whatever it is told (pcmk__node_attr_target).
		return strings.HasPrefix(variable, "OCF_")
	})
	command.Stdout, command.Stderr = &out, &complaints
	command.WaitDelay = patience // should a child of its keep the pipes
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer: %w", ctx.Err())
		}
		return "", fmt.Errorf("%s: %w %s", program, err, ocf.OneLine(complaints.String()))
	}
	return out.String(), nil
}

var _ clusterip.Cluster = Cluster{}
