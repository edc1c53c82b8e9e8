// Package xtables runs iptables for the backends that need it, reads the rules that it lists, and asks the kernel for its matches and
// targets (net/netfilter/x_tables.c).
package xtables

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// schema is the version of the rules. It is the first word of a stamped comment; the stamp follows.
const schema = 1

// Twin is the mark of every other rule that replaces the one before, behind the schema: iptables deletes the first rule that looks like its
// arguments, so a new rule must not look like the one that it replaces.
const Twin = "b"

// maxComment is XT_MAX_COMMENT_LEN less the final NUL (include/uapi/linux/netfilter/xt_comment.h).
const maxComment = 256 - 1

// Comment is the comment of a rule of this agent: its schema and mark (Twin, or none), and the layout's stamp. It omits a resource name
// that is too long.
func Comment(layout clusterip.Layout, mark string) string {
	text := fmt.Sprintf("%d%s %s", schema, mark, layout.Stamp())
	if len(text) > maxComment {
		layout.Resource = ""
		text = fmt.Sprintf("%d%s %s", schema, mark, layout.Stamp())
	}
	return text
}

// A Rule is a line of `iptables -S`, in words.
type Rule []string

// word matches one word as iptables prints it: in double quotes if it has blanks, with backslashes before quotes and backslashes
// (xtables_save_string in libxtables/xtables.c).
var word = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\S+`)

var escaped = regexp.MustCompile(`\\(.)`)

// ParseRule splits a line.
func ParseRule(line string) Rule {
	var words Rule
	for _, w := range word.FindAllString(line, -1) {
		if quoted, ok := strings.CutPrefix(w, `"`); ok {
			w = escaped.ReplaceAllString(strings.TrimSuffix(quoted, `"`), "$1")
		}
		words = append(words, w)
	}
	return words
}

// Option returns the word behind an option; "" without it.
func (r Rule) Option(name string) string {
	if i := slices.Index(r, name); i >= 0 && i+1 < len(r) {
		return r[i+1]
	}
	return ""
}

// Spec is the rule without the command and the chain, "-A INPUT".
func (r Rule) Spec() []string {
	const command = 2
	if len(r) >= command && r[0] == "-A" {
		return r[command:]
	}
	return r
}

// Count returns the counters of a rule that was listed with them: "-c PACKETS BYTES".
func (r Rule) Count() (count clusterip.Count) {
	const words = 3
	if i := slices.Index(r, "-c"); i >= 0 && i+words <= len(r) {
		count.Packets, _ = strconv.ParseUint(r[i+1], 10, 64)
		count.Bytes, _ = strconv.ParseUint(r[i+2], 10, 64)
	}
	return count
}

// IsTo reports whether the rule is for packets to the address.
func (r Rule) IsTo(address netip.Addr) bool {
	prefix, err := netip.ParsePrefix(r.Option("-d"))
	return err == nil && prefix.Addr() == address
}

// stamp splits the comment of a stamped rule.
func (r Rule) stamp() (version, stamp string) {
	version, stamp, _ = strings.Cut(r.Option("--comment"), " ")
	return version, stamp
}

// IsStamped reports whether the comment is a stamp, so that this agent has installed the rule.
func (r Rule) IsStamped() bool {
	_, stamp := r.stamp()
	return clusterip.IsStamp(stamp)
}

// Mark is the mark of a stamped rule: Twin, or none.
func (r Rule) Mark() string {
	if version, _ := r.stamp(); strings.HasSuffix(version, Twin) {
		return Twin
	}
	return ""
}

// Layout reads the layout from the stamp.
func (r Rule) Layout() (clusterip.Layout, error) {
	version, stamp := r.stamp()
	number, err := strconv.ParseUint(strings.TrimSuffix(version, Twin), 10, 16)
	if err != nil {
		return clusterip.Layout{}, fmt.Errorf("the comment has no version: %w", err)
	}
	return clusterip.ParseStamp(int(number), stamp)
}

// Layouts returns the layouts of the rules whose stamp can be read.
func Layouts(rules []Rule) []clusterip.Layout {
	var layouts []clusterip.Layout
	for _, r := range rules {
		if layout, err := r.Layout(); err == nil && r.IsStamped() {
			layouts = append(layouts, layout)
		}
	}
	return layouts
}

// neverAccepts are the targets that accept no packet: they drop it, or let it go on to the next rule. A rule may have no target.
var neverAccepts = []string{
	"", "CLUSTERIP", "DROP", "REJECT", "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "DSCP", "TOS", "TTL", "CLASSIFY",
}

// NeverAccepts reports whether each packet that the rule does not drop goes on to the next rule.
func (r Rule) NeverAccepts() bool {
	return slices.Contains(neverAccepts, r.Option("-j")) && r.Option("-g") == ""
}

// Bypasses describes the rules of a chain that may let packets past the rules behind them.
func Bypasses(chain string, before []Rule) []string {
	var faults []string
	for _, r := range before {
		if !r.NeverAccepts() {
			faults = append(faults, fmt.Sprintf("a rule before ours in %s may let packets for the address past it: %s", chain, strings.Join(r, " ")))
		}
	}
	return faults
}
