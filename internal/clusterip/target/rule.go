package target

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// The rule is in the chain that local packets pass (iptables-extensions(8), CLUSTERIP).
const (
	table = "filter"
	chain = "INPUT"
)

// schema is the version of what the rule looks like. It is the first word of its comment; the stamp follows.
const schema = 1

// twin marks every other rule that is laid for an address, behind the schema: iptables deletes the first rule that looks as it is told,
// so a new one must not look like the one that it replaces.
const twin = "b"

// maxComment is XT_MAX_COMMENT_LEN less the final NUL (include/uapi/linux/netfilter/xt_comment.h).
const maxComment = 256 - 1

// comment tells what a rule of ours was laid for. A resource's name that is too long is left out.
func comment(layout clusterip.Layout, mark string) string {
	text := fmt.Sprintf("%d%s %s", schema, mark, layout.Stamp())
	if len(text) > maxComment {
		layout.Resource = ""
		text = fmt.Sprintf("%d%s %s", schema, mark, layout.Stamp())
	}
	return text
}

// ruleOf is the rule of a layout as `iptables -A` and `iptables -S` have it, with a mark or without. The first node to be held is a
// part of a new rule; the kernel shows for ever what it was, so it says nothing.
func ruleOf(layout clusterip.Layout, mark string, first clusterip.Bucket) []string {
	return []string{
		"-d", netip.PrefixFrom(layout.Address(), layout.Address().BitLen()).String(), "-i", layout.NIC,
		"-m", "comment", "--comment", comment(layout, mark),
		"-j", "CLUSTERIP", "--new", "--hashmode", string(layout.HashMode), "--clustermac", layout.MACs.IPv4.String(),
		"--total-nodes", strconv.FormatUint(uint64(layout.Buckets), 10), "--local-node", nodeOf(first),
		"--hash-init", strconv.FormatUint(uint64(layout.Seed), 10),
	}
}

// nodeOf is the number under which the target knows a bucket: it counts from 1.
func nodeOf(bucket clusterip.Bucket) string { return strconv.FormatUint(uint64(bucket)+1, 10) }

// A listed rule is a line of `iptables -S INPUT`, in words, for the target.
type listed []string

// words splits a line as iptables quotes it: double quotes around what has blanks, with backslashes before quotes and backslashes
// (xtables_save_string in libxtables/xtables.c).
var word = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\S+`)

var escaped = regexp.MustCompile(`\\(.)`)

func parseRule(line string) listed {
	var words listed
	for _, w := range word.FindAllString(line, -1) {
		if quoted, ok := strings.CutPrefix(w, `"`); ok {
			w = escaped.ReplaceAllString(strings.TrimSuffix(quoted, `"`), "$1")
		}
		words = append(words, w)
	}
	return words
}

// option returns what follows a word.
func (l listed) option(name string) string {
	if i := slices.Index(l, name); i >= 0 && i+1 < len(l) {
		return l[i+1]
	}
	return ""
}

// isFor tells whether the rule hands packets for the address to the target.
func (l listed) isFor(address netip.Addr) bool {
	prefix, err := netip.ParsePrefix(l.option("-d"))
	return l.option("-j") == "CLUSTERIP" && err == nil && prefix.Addr() == address
}

// layout reads how a rule of ours was laid.
func (l listed) layout() (clusterip.Layout, error) {
	version, stamp, _ := strings.Cut(l.option("--comment"), " ")
	number, err := strconv.ParseUint(strings.TrimSuffix(version, twin), 10, 16)
	if err != nil {
		return clusterip.Layout{}, fmt.Errorf("no stamp of ours: %w", err)
	}
	return clusterip.ParseStamp(int(number), stamp)
}

// isOurs tells whether we have put the rule there.
func (l listed) isOurs() bool {
	_, stamp, _ := strings.Cut(l.option("--comment"), " ")
	return clusterip.IsStamp(stamp)
}

// mark is the one of a rule of ours.
func (l listed) mark() string {
	if version, _, _ := strings.Cut(l.option("--comment"), " "); strings.HasSuffix(version, twin) {
		return twin
	}
	return ""
}

// differsFrom says whether a rule is not as laid. What follows -A and --local-node does not count.
func (l listed) differsFrom(layout clusterip.Layout) bool {
	return !slices.Equal(l.comparable(), listed(ruleOf(layout, l.mark(), 0)).comparable())
}

func (l listed) comparable() []string {
	words := slices.Clone(l)
	if len(words) > 2 && words[0] == "-A" {
		words = words[2:]
	}
	if i := slices.Index(words, "--local-node"); i >= 0 && i+1 < len(words) {
		words = slices.Delete(words, i, i+2)
	}
	if i := slices.Index(words, "--clustermac"); i >= 0 && i+1 < len(words) {
		words[i+1] = strings.ToLower(words[i+1]) // some versions print it in capitals
	}
	return words
}
