// Package xtables is what the backends share that go through iptables: finding the program, reading what it lists, and asking the
// kernel what it has (net/netfilter/x_tables.c).
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

// schema is the version of what our rules look like. It is the first word of a stamped comment; the stamp follows.
const schema = 1

// Twin marks every other rule that is laid for an address, behind the schema: iptables deletes the first rule that looks as it is told,
// so a new one must not look like the one that it replaces.
const Twin = "b"

// maxComment is XT_MAX_COMMENT_LEN less the final NUL (include/uapi/linux/netfilter/xt_comment.h).
const maxComment = 256 - 1

// Comment tells what a rule of ours was laid for, with a mark (Twin) or without. A resource's name that is too long is left out.
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

// words splits a line as iptables quotes it: double quotes around what has blanks, with backslashes before quotes and backslashes
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

// Option returns what follows a word.
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

// Count is what a rule has counted, if it was listed with its counters: "-c PACKETS BYTES".
func (r Rule) Count() clusterip.Count {
	const behind = 2
	i := slices.Index(r, "-c")
	if i < 0 || i+behind >= len(r) {
		return clusterip.Count{}
	}
	packets, packetsErr := strconv.ParseUint(r[i+1], 10, 64)
	bytes, bytesErr := strconv.ParseUint(r[i+behind], 10, 64)
	if packetsErr != nil || bytesErr != nil {
		return clusterip.Count{}
	}
	return clusterip.Count{Packets: packets, Bytes: bytes}
}

// IsTo tells whether the rule is for packets to the address.
func (r Rule) IsTo(address netip.Addr) bool {
	prefix, err := netip.ParsePrefix(r.Option("-d"))
	return err == nil && prefix.Addr() == address
}

// Layout reads from its comment how a rule of ours was laid.
func (r Rule) Layout() (clusterip.Layout, error) {
	version, stamp, _ := strings.Cut(r.Option("--comment"), " ")
	number, err := strconv.ParseUint(strings.TrimSuffix(version, Twin), 10, 16)
	if err != nil {
		return clusterip.Layout{}, fmt.Errorf("no stamp of ours: %w", err)
	}
	return clusterip.ParseStamp(int(number), stamp)
}

// IsStamped tells whether the comment is a stamp, so that we have put the rule there.
func (r Rule) IsStamped() bool {
	_, stamp, _ := strings.Cut(r.Option("--comment"), " ")
	return clusterip.IsStamp(stamp)
}

// Mark is the one of a stamped rule.
func (r Rule) Mark() string {
	if version, _, _ := strings.Cut(r.Option("--comment"), " "); strings.HasSuffix(version, Twin) {
		return Twin
	}
	return ""
}

// LetsOn tells whether what the rule does not stop goes on to the rules behind it.
func (r Rule) LetsOn() bool {
	return slices.Contains([]string{"CLUSTERIP", "DROP", "REJECT", "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "DSCP", "TOS", "TTL", "CLASSIFY", ""},
		r.Option("-j")) && r.Option("-g") == ""
}
