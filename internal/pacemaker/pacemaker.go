// Package pacemaker reads the cluster from Pacemaker, and publishes and reads the nodes' announcements through it.
//
// Announcements are private transient attributes, which pacemaker-attrd keeps in memory on all nodes. They are never in the CIB, and end
// when their node leaves or its Pacemaker is stopped. The package runs Pacemaker's own programs, whose command lines are stable.
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
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
)

// Where Pacemaker's programs are.
const (
	attrdUpdater = "/usr/sbin/attrd_updater"
	cibadmin     = "/usr/sbin/cibadmin"
)

// defaultPatience bounds one query of an action, which has more to do. An answer takes about 30 ms.
const defaultPatience = 2 * time.Second

// NoSuchAttribute reports whether attrd_updater's exit code means that no node has the attribute: CRM_EX_CONFIG in Pacemaker 2.1.5,
// CRM_EX_NOSUCH in later versions (crm_exit_e in include/crm/common/results.h).
func NoSuchAttribute(status int) bool {
	const config, noSuch = 78, 105
	return status == config || status == noSuch
}

// Cluster is this node's cluster.
type Cluster struct {
	Environ  []string      // the agent's environment, in the form of os.Environ
	Patience time.Duration // for the answer to one query; 0: two seconds
}

// Announcements implements agent.Cluster.
func (c Cluster) Announcements(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Announcement, error) {
	values, err := c.query(ctx, attribute(address, bucket), "-A")
	if err != nil {
		return nil, err
	}
	announcements := map[string]handover.Announcement{}
	for node, value := range values {
		if announcement, ok := parseAnnouncement(value); ok {
			announcements[node] = announcement
		}
	}
	return announcements, nil
}

// Publish implements agent.Cluster.
func (c Cluster) Publish(
	ctx context.Context, address netip.Addr, bucket clusterip.Bucket, node string, announcement handover.Announcement,
) error {
	if err := checkNames(announcement.Others); err != nil {
		return err
	}
	return c.update(ctx, attribute(address, bucket), node, formatAnnouncement(announcement))
}

// Relayed implements agent.Cluster.
func (c Cluster) Relayed(ctx context.Context, address netip.Addr, bucket clusterip.Bucket) (map[string]handover.Relayed, error) {
	name := relayedAttribute(address, bucket)
	values, err := c.query(ctx, name, "-A")
	if err != nil {
		return nil, err
	}
	relayed := map[string]handover.Relayed{}
	for node, value := range values {
		if value == "" { // attrd has the node, but no value
			continue
		}
		if relayed[node], err = parseRelayed(value); err != nil {
			return nil, fmt.Errorf("attribute %s of %s: %w", name, ocf.Quote(node), err)
		}
	}
	return relayed, nil
}

// Relay implements agent.Cluster.
func (c Cluster) Relay(ctx context.Context, address netip.Addr, bucket clusterip.Bucket, node string, relayed handover.Relayed) error {
	if err := checkNames(relayed.Drainers); err != nil {
		return err
	}
	return c.update(ctx, relayedAttribute(address, bucket), node, formatRelayed(relayed))
}

// update sets a node's value of an attribute.
func (c Cluster) update(ctx context.Context, name, node, value string) error {
	if !isNodeName(node) {
		return fmt.Errorf("%s cannot be a node's name", ocf.Quote(node))
	}
	_, err := c.run(ctx, attrdUpdater, "--private", "--name", name, "--node", node, "--update", value)
	return err
}

func checkNames(drainers []handover.Drainer) error {
	for _, d := range drainers {
		if !isNodeName(d.Node) {
			return fmt.Errorf("an announcement cannot contain the node's name %s", ocf.Quote(d.Node))
		}
	}
	return nil
}

// NodeStates implements agent.Cluster. If fencing is disabled, a lost node counts as dead: Pacemaker starts its resources elsewhere at
// once.
func (c Cluster) NodeStates(ctx context.Context) (map[string]handover.NodeState, error) {
	text, err := c.run(ctx, cibadmin, "--query", "--local", "--xpath", "/cib/status")
	if err != nil {
		return nil, err
	}
	nodes, err := ParseNodeStates(text)
	isLost := func(p handover.NodeState) bool { return p.Membership == handover.Lost }
	if err != nil || !slices.ContainsFunc(slices.Collect(maps.Values(nodes)), isLost) {
		return nodes, err
	}
	configuration, err := c.Configuration(ctx)
	if err != nil || !IsUnfenced(configuration) {
		return nodes, nil //nolint:nilerr // it is unknown whether fencing is disabled: then a lost node may still serve
	}
	for node, p := range nodes {
		if p.Membership == handover.Lost {
			nodes[node] = handover.NodeState{Membership: handover.Dead}
		}
	}
	return nodes, nil
}

// ParseNodeStates reads cibadmin's output of the CIB's status, of any release.
func ParseNodeStates(text string) (map[string]handover.NodeState, error) {
	document := etree.NewDocument()
	if err := document.ReadFromString(text); err != nil {
		return nil, fmt.Errorf("the status of the CIB: %w", err)
	}
	nodes := map[string]handover.NodeState{}
	for _, state := range document.FindElements("//node_state") {
		name := state.SelectAttrValue("uname", "")
		if name == "" {
			continue
		}
		if _, twice := nodes[name]; twice {
			nodes[name] = handover.NodeState{Unrecognised: "two node_state"}
			continue
		}
		nodes[name] = nodeStateOf(state)
	}
	if len(nodes) == 0 {
		return nil, errors.New("the status of the CIB contains no node")
	}
	return nodes, nil
}

// nodeStateOf reads a node_state of the CIB (create_node_state_update in daemons/controld/controld_membership.c, and what the scheduler
// makes of it: determine_online_status_fencing in lib/pengine/unpack.c).
//
// A node that was shut down is expected to be down. So is a fenced node, but Pacemaker deletes its operation history and sets join to down
// (update_node_state_after_fencing in daemons/controld/controld_fencing.c). A missing history alone proves nothing: if a node that joins
// has the newer CIB, its status replaces the others', with neither history nor join. A node that has crashed is expected to be a member. A
// node that is in Corosync's membership without its controller keeps running, and its controller may be back in a moment.
func nodeStateOf(state *etree.Element) handover.NodeState {
	attribute := func(name string) string { return state.SelectAttrValue(name, "") }
	unknown := handover.NodeState{Unrecognised: ocf.OneLine(fmt.Sprintf("node_state with crmd=%q in_ccm=%q expected=%q join=%q",
		attribute("crmd"), attribute("in_ccm"), attribute("expected"), attribute("join")))}
	controller, controllerKnown := isThere(attribute("crmd"), "online", "offline")
	corosync, corosyncKnown := isThere(attribute("in_ccm"), "true", "false")
	expected := attribute("expected")
	switch {
	case !controllerKnown || !corosyncKnown || ocf.IsTrue(attribute("remote_node")):
		return unknown
	case controller:
		return handover.NodeState{Membership: handover.Member}
	case expected == "down" && state.SelectElement("lrm") != nil:
		return handover.NodeState{Membership: handover.Left}
	case expected == "down" && attribute("join") == "down":
		return handover.NodeState{Membership: handover.Dead}
	case expected == "member" && !corosync:
		return handover.NodeState{Membership: handover.Lost}
	default:
		return unknown
	}
}

// isThere reads whether a node is in a group from an attribute of node_state: a word or, since CRM feature set 3.18 (Pacemaker 2.1.7), the
// time since when, in seconds since 1970; 0 means that it is not.
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

// attribute returns the name of the attribute with a node's announcement about a bucket. It has no colons, so that it is easy to type.
func attribute(address netip.Addr, bucket clusterip.Bucket) string {
	return fmt.Sprintf("clusterip-%s-%d", strings.ReplaceAll(address.String(), ":", "-"), bucket)
}

// relayedAttribute returns the name of the attribute with a relayed announcement.
func relayedAttribute(address netip.Addr, bucket clusterip.Bucket) string {
	return attribute(address, bucket) + "-relayed"
}

const (
	noDrain   = "none"     // no drain
	complete  = "complete" // the announcement is complete
	between   = "/"        // separates the parts of an announcement
	separator = ","        // drainers
	takesOver = "takes-over"
	with      = ";" // separates what is written behind the nonce, which for older versions is a part of it
)

// formatAnnouncement writes an announcement as SECONDS/LAYOUT/NONCE or none/LAYOUT/NONCE, perhaps with /complete and /NODE:SECONDS,...
// behind it. ;takes-over and ;MILLISECONDS:KEY may follow the nonce.
func formatAnnouncement(announcement handover.Announcement) string {
	drain := noDrain
	if announcement.Drain > 0 {
		drain = formatSeconds(announcement.Drain)
	}
	nonce := announcement.Nonce
	if announcement.TakesOver {
		nonce += with + takesOver
	}
	if announcement.Lingers.For > 0 {
		nonce += with + formatLingering(announcement.Lingers)
	}
	parts := []string{drain, announcement.Layout, nonce}
	if announcement.Complete {
		parts = append(parts, complete)
	}
	if len(announcement.Others) > 0 {
		parts = append(parts, formatDrainers(announcement.Others))
	}
	return strings.Join(parts, between)
}

// parseAnnouncement reads the output of formatAnnouncement. Any other text, perhaps of another version of this program, counts as no
// announcement.
func parseAnnouncement(value string) (announcement handover.Announcement, ok bool) {
	const fixed = 3
	parts := strings.Split(value, between)
	if len(parts) < fixed || parts[1] == "" || parts[2] == "" {
		return handover.Announcement{}, false
	}
	behind := strings.Split(parts[2], with)
	announcement.Layout, announcement.Nonce, behind = parts[1], behind[0], behind[1:]
	if ok = announcement.Nonce != ""; len(behind) > 0 && behind[0] == takesOver {
		announcement.TakesOver, behind = true, behind[1:]
	}
	if len(behind) > 0 {
		lingers, err := parseLingering(behind[0])
		announcement.Lingers, ok = lingers, ok && err == nil && len(behind) == 1
	}
	if parts[0] != noDrain {
		drain, valid := parseSeconds(parts[0])
		announcement.Drain, ok = drain, ok && valid && drain > 0
	}
	rest := parts[fixed:]
	if announcement.Complete = len(rest) > 0 && rest[0] == complete; announcement.Complete {
		rest = rest[1:]
	}
	if len(rest) > 0 {
		others, err := parseDrainers(rest[0])
		announcement.Others, rest = others, rest[1:]
		ok = ok && err == nil && len(others) > 0
	}
	if !ok || len(rest) > 0 {
		return handover.Announcement{}, false
	}
	return announcement, true
}

// formatRelayed writes a relayed announcement as none or NODE:SECONDS,..., with /NONCE behind it if it answers the node's announcement with
// that nonce, and /NODE:MILLISECONDS:KEY,... if nodes linger. For older versions the latter is a part of the nonce, so they supersede
// nothing.
func formatRelayed(relayed handover.Relayed) string {
	text := formatDrainers(relayed.Drainers)
	if relayed.Supersedes != "" || len(relayed.Lingering) > 0 {
		text += between + relayed.Supersedes
	}
	if len(relayed.Lingering) > 0 {
		lingerers := make([]string, len(relayed.Lingering))
		for i, l := range relayed.Lingering {
			lingerers[i] = l.Node + ":" + formatLingering(l.Lingering)
		}
		text += between + strings.Join(lingerers, separator)
	}
	return text
}

func parseRelayed(value string) (relayed handover.Relayed, err error) {
	list, rest, _ := strings.Cut(value, between)
	nonce, lingerers, linger := strings.Cut(rest, between)
	relayed.Supersedes = nonce
	if relayed.Drainers, err = parseDrainers(list); err != nil || !linger {
		return relayed, err
	}
	for lingerer := range strings.SplitSeq(lingerers, separator) {
		node, text, _ := strings.Cut(lingerer, ":")
		lingering, err := parseLingering(text)
		if err != nil || !isNodeName(node) {
			return relayed, fmt.Errorf("%s is no list of NODE:MILLISECONDS:KEY", ocf.Quote(lingerers))
		}
		relayed.Lingering = append(relayed.Lingering, handover.Lingerer{Node: node, Lingering: lingering})
	}
	return relayed, nil
}

// formatLingering rounds up: another node may wait too long, but not too short.
func formatLingering(l handover.Lingering) string {
	return fmt.Sprintf("%d:%s", (l.For + time.Millisecond - 1).Milliseconds(), l.Key)
}

// parseLingering reads the output of formatLingering.
func parseLingering(text string) (handover.Lingering, error) {
	const longest = 60_000 // milliseconds: more than the parameter allows
	number, key, _ := strings.Cut(text, ":")
	milliseconds, err := strconv.ParseUint(number, 10, 32)
	if err == nil && (milliseconds == 0 || milliseconds > longest) {
		err = fmt.Errorf("%d is not a number of milliseconds from 1 to %d", milliseconds, longest)
	}
	if err == nil {
		_, err = clusterip.ParseTakeoverKey(key)
	}
	return handover.Lingering{For: time.Duration(milliseconds) * time.Millisecond, Key: key}, err
}

func formatDrainers(drainers []handover.Drainer) string {
	if len(drainers) == 0 {
		return noDrain
	}
	texts := make([]string, len(drainers))
	for i, d := range drainers {
		texts[i] = d.Node + ":" + formatSeconds(d.Left)
	}
	return strings.Join(texts, separator)
}

// formatSeconds rounds up: an adoption may last too long, but not too short. It bounds the time to what parseSeconds accepts.
func formatSeconds(d time.Duration) string {
	return strconv.Itoa(int((min(d, maxDrain+handover.GracePeriod) + time.Second - 1) / time.Second))
}

// maxDrain is the longest drain that the parameter allows.
const maxDrain = 24 * time.Hour

func parseDrainers(value string) ([]handover.Drainer, error) {
	if value == noDrain {
		return nil, nil
	}
	var drainers []handover.Drainer
	for drainer := range strings.SplitSeq(value, separator) {
		node, left, _ := strings.Cut(drainer, ":")
		seconds, ok := parseSeconds(left)
		if !ok || !isNodeName(node) {
			return nil, fmt.Errorf("%s is neither %q nor a list of NODE:SECONDS, up to %d",
				ocf.Quote(value), noDrain, int((maxDrain + handover.GracePeriod).Seconds()))
		}
		drainers = append(drainers, handover.Drainer{Node: node, Left: seconds})
	}
	return drainers, nil
}

func parseSeconds(text string) (time.Duration, bool) {
	const most = len("86400")
	number, err := strconv.ParseUint(text, 10, 32)
	seconds := time.Duration(number) * time.Second
	return seconds, err == nil && len(text) <= most && seconds <= maxDrain+handover.GracePeriod
}

// isNodeName reports whether a text can be a node's name in a list. (Corosync accepts all host names, and more.)
func isNodeName(name string) bool { return nodeName().MatchString(name) }

// Compiled on first use, because most actions need none.
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

// ParseAttributes reads attrd_updater's output of an attribute, as values by node: lines such as `name="x" host="node1" value="y"`. It
// leaves XML's escapes unchanged: the agent's values contain none.
func ParseAttributes(text, name string) (map[string]string, error) {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		fields := attributeLine().FindStringSubmatch(line)
		if fields == nil || fields[1] != name {
			return nil, fmt.Errorf("%s printed %s, which is not a value of %s", attrdUpdater, ocf.Quote(line), name)
		}
		values[fields[2]] = fields[3]
	}
	return values, nil
}

// run runs one of Pacemaker's programs and returns its output.
func (c Cluster) run(ctx context.Context, program string, arguments ...string) (string, error) {
	patience := cmp.Or(c.Patience, defaultPatience)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, stderr bytes.Buffer
	command := exec.CommandContext(ctx, program, arguments...) //nolint:gosec // the programs are constants; there is no shell
	command.Env = slices.DeleteFunc(slices.Clone(c.Environ), func(variable string) bool {
		// With an agent's own variables attrd_updater always uses this node, whatever its arguments are (pcmk__node_attr_target).
		return strings.HasPrefix(variable, "OCF_")
	})
	command.Stdout, command.Stderr = &out, &stderr
	command.WaitDelay = patience // in case a child of the program keeps the pipes open
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer: %w", ctx.Err())
		}
		return "", fmt.Errorf("%s: %w %s", program, err, ocf.OneLine(stderr.String()))
	}
	return out.String(), nil
}
