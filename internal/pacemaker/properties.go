package pacemaker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/ocf"
)

// Version is one of Pacemaker: major, minor and patch level. The zero value stands for one that is not known.
type Version [3]int

// The versions from which on Pacemaker reads the same configuration differently.
var (
	// globally-unique is true by default where clone-node-max is above 1 (detect_unique in lib/pengine/complex.c).
	uniqueByDefault = Version{3, 0, 0}
	// The properties stonith-… are called fencing-… (cluster_options in lib/common/options.c).
	fencingNames = Version{3, 0, 2}
)

// String implements fmt.Stringer.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Known tells whether it is a version.
func (v Version) Known() bool { return v != Version{} }

// from tells whether a version that is known is that one or a later one.
func (v Version) from(first Version) bool { return slices.Compare(v[:], first[:]) >= 0 }

// SchedulerVersion is the version of the node that decides for all, the DC: it writes its own into the configuration when it takes over
// (dc-version, such as 2.1.5-a3f44794f94). Where nodes have several versions, as during an upgrade, the DC's is the oldest one, and this node's
// programs would tell another.
func SchedulerVersion(configuration *etree.Element) Version {
	settings, set := properties(configuration, "dc-version")
	if !set || len(settings) != 1 {
		return Version{}
	}
	var version Version
	number := settings[0].Value
	if end := strings.IndexFunc(number, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); end >= 0 {
		number = number[:end]
	}
	parts := strings.Split(number, ".")
	if len(parts) != len(version) {
		return Version{}
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return Version{}
		}
		version[i] = n
	}
	return version
}

// Setting is a property of the cluster as a whole that is set.
type Setting struct{ Name, Value string }

// String is how the tools write it.
func (s Setting) String() string { return s.Name + "=" + s.Value }

// FencingSettings are those of a property with a name since Pacemaker 3.0.2 and a former one that have an effect, and those that have none.
// The new name counts where it is set, also to nonsense; the former one does where it is not (cluster_option_value in lib/common/options.c).
// Older versions know only the former name. If several settings have an effect it is not known which: the version is not known, or a rule
// decides. set says that one of them has, for certain.
func FencingSettings(configuration *etree.Element, name, former string) (effective, idle []Setting, set bool) {
	now, isSet := properties(configuration, name)
	before, wasSet := properties(configuration, former)
	switch version := SchedulerVersion(configuration); {
	case !version.Known():
		return append(now, before...), nil, wasSet
	case !version.from(fencingNames):
		return before, now, wasSet
	case isSet:
		return now, before, true
	default:
		return append(now, before...), nil, wasSet
	}
}

// FencingSwitch returns what is set of the property that switches fencing on and off, as FencingSettings do.
func FencingSwitch(configuration *etree.Element) (effective, idle []Setting) {
	effective, idle, _ = FencingSettings(configuration, "fencing-enabled", "stonith-enabled")
	return effective, idle
}

// FencingOff returns the settings that switch fencing off, or of which nobody knows that they do not. Fencing is on by default, and where the
// value is no boolean.
func FencingOff(configuration *etree.Element) []Setting {
	effective, _ := FencingSwitch(configuration)
	return slices.DeleteFunc(effective, func(s Setting) bool {
		enabled, isBoolean := ocf.Boolean(s.Value)
		return enabled || !isBoolean
	})
}

// IsUnfenced tells whether nobody fences for certain: each setting that may have an effect switches fencing off, and one has an effect.
func IsUnfenced(configuration *etree.Element) bool {
	effective, _, set := FencingSettings(configuration, "fencing-enabled", "stonith-enabled")
	return set && len(FencingOff(configuration)) == len(effective)
}

// properties returns what a property may be: a single setting, as long as no rule decides. set says that one of them has an effect for certain.
func properties(configuration *etree.Element, name string) (settings []Setting, set bool) {
	if configuration == nil {
		return nil, false
	}
	for _, set := range inOrder(configuration.FindElements("./crm_config/cluster_property_set")) {
		for _, pair := range set.SelectElements("nvpair") {
			if pair.SelectAttrValue("name", "") != name {
				continue
			}
			settings = append(settings, Setting{name, pair.SelectAttrValue("value", "")})
			if set.SelectElement("rule") == nil {
				return settings, true
			}
			break
		}
	}
	return settings, false
}

// Property is the value of a property of the cluster as a whole, if it is set. Rules are not evaluated.
func Property(configuration *etree.Element, name string) (value string, set bool) {
	settings, _ := properties(configuration, name)
	if len(settings) == 0 {
		return "", false
	}
	return settings[0].Value, true
}

// inOrder puts sets of name-value pairs into the order in which Pacemaker reads them, where the first value of a name counts: cib-bootstrap-options,
// then the highest score (pcmk__cmp_nvpair_blocks in lib/common/nvpair.c). Of those with the same score the last comes first: so all
// versions from 2.0.5 to 3.0.3 do it. Within a set the first pair counts.
func inOrder(sets []*etree.Element) []*etree.Element {
	ordered := slices.Clone(sets)
	slices.Reverse(ordered)
	slices.SortStableFunc(ordered, func(a, b *etree.Element) int { return cmp.Compare(rank(b), rank(a)) })
	return ordered
}

// rank tells which set comes before another: that with the greater one.
func rank(set *etree.Element) float64 {
	const infinity = 1000000 // PCMK_SCORE_INFINITY
	score := strings.ToUpper(set.SelectAttrValue("score", "0"))
	known := map[string]float64{"INFINITY": infinity, "+INFINITY": infinity, "-INFINITY": -infinity}
	number, err := strconv.ParseFloat(score, 64)
	switch special, isSpecial := known[score]; {
	case set.SelectAttrValue("id", "") == "cib-bootstrap-options":
		return math.Inf(1)
	case isSpecial:
		return special
	case err != nil:
		return 0
	default:
		return number
	}
}
