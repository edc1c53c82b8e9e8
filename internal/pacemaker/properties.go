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

// Version is a version of Pacemaker: major, minor and patch level. The zero value is an unknown version.
type Version [3]int

// The versions that changed how Pacemaker reads the same configuration.
var (
	// globally-unique is true by default where clone-node-max is above 1 (detect_unique in lib/pengine/complex.c).
	uniqueByDefault = Version{3, 0, 0}
	// The properties stonith-… are called fencing-… (cluster_options in lib/common/options.c).
	fencingNames = Version{3, 0, 2}
)

// String implements fmt.Stringer.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Known reports whether the version is known.
func (v Version) Known() bool { return v != Version{} }

// from reports whether a known version is the first or a later one.
func (v Version) from(first Version) bool { return slices.Compare(v[:], first[:]) >= 0 }

// SchedulerVersion returns the version of the DC, which decides for all nodes. The DC writes it into the configuration when it is elected
// (dc-version, such as 2.1.5-a3f44794f94). During an upgrade the DC has the oldest version of all nodes, and this node's programs may have
// another one.
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

// Setting is a cluster property, or a default of resources, that is set.
type Setting struct{ Name, Value string }

// String returns the setting as tools write it.
func (s Setting) String() string { return s.Name + "=" + s.Value }

// FencingSettings returns the settings, with and without effect, of a property that has a new name since Pacemaker 3.0.2. The new name
// counts if it is set, even to nonsense, and else the former one (cluster_option_value in lib/common/options.c). Older versions have only
// the former name. Several settings are effective if it is unknown which one is: the version is unknown, or a rule decides. set reports
// that one of them certainly has an effect.
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

// FencingSwitch is FencingSettings for the property that enables fencing.
func FencingSwitch(configuration *etree.Element) (effective, idle []Setting) {
	effective, idle, _ = FencingSettings(configuration, "fencing-enabled", "stonith-enabled")
	return effective, idle
}

// FencingOff returns the settings that disable fencing, or may do so. Fencing is enabled by default, and if the value is not a boolean.
func FencingOff(configuration *etree.Element) []Setting {
	effective, _ := FencingSwitch(configuration)
	return slices.DeleteFunc(effective, func(s Setting) bool {
		enabled, isBoolean := ocf.Boolean(s.Value)
		return enabled || !isBoolean
	})
}

// IsUnfenced reports whether fencing is certainly disabled: each setting that may have an effect disables it, and one has an effect.
func IsUnfenced(configuration *etree.Element) bool {
	effective, _, set := FencingSettings(configuration, "fencing-enabled", "stonith-enabled")
	return set && len(FencingOff(configuration)) == len(effective)
}

// properties returns the possible settings of a property, see settingsOf.
func properties(configuration *etree.Element, name string) (settings []Setting, set bool) {
	if configuration == nil {
		return nil, false
	}
	return settingsOf(configuration.FindElements("./crm_config/cluster_property_set"), name)
}

// ResourceDefaults returns the possible defaults of a meta attribute, see settingsOf. They count where neither a resource nor its clone has
// a value of its own (get_meta_attributes in lib/pengine/complex.c).
func ResourceDefaults(configuration *etree.Element, name string) (settings []Setting, set bool) {
	return settingsOf(configuration.FindElements("./rsc_defaults/meta_attributes"), name)
}

// settingsOf returns the possible settings of a name in sets of name-value pairs: a single one, unless a rule decides. set reports that one
// of them certainly has an effect.
func settingsOf(sets []*etree.Element, name string) (settings []Setting, set bool) {
	for _, set := range inOrder(sets) {
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

// Property returns the value of a cluster property, if it is set. It does not evaluate rules.
func Property(configuration *etree.Element, name string) (value string, set bool) {
	settings, _ := properties(configuration, name)
	if len(settings) == 0 {
		return "", false
	}
	return settings[0].Value, true
}

// inOrder returns sets of name-value pairs in the order in which Pacemaker reads them, where the first value of a name counts:
// cib-bootstrap-options, then the highest score (pcmk__cmp_nvpair_blocks in lib/common/nvpair.c). Of those with the same score the last one
// comes first, in all versions from 2.0.5 to 3.0.3. Within a set the first pair counts.
func inOrder(sets []*etree.Element) []*etree.Element {
	ordered := slices.Clone(sets)
	slices.Reverse(ordered)
	slices.SortStableFunc(ordered, func(a, b *etree.Element) int { return cmp.Compare(rank(b), rank(a)) })
	return ordered
}

// rank returns the rank of a set: the set with the greater one comes first.
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
