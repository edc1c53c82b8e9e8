package ocf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The values of variables that are not set.
const (
	// DefaultTempDir is the folder of lock files if HA_RSCTMP is not set.
	DefaultTempDir = "/run/resource-agents"
	// DefaultExitReasonPrefix marks the exit reason for Pacemaker on an agent's stderr.
	DefaultExitReasonPrefix = "ocf-exit-reason:"
	// DefaultTimeout is the timeout of an action if none is set; Pacemaker's own default.
	DefaultTimeout = 20 * time.Second
)

const (
	parameterPrefix = "OCF_RESKEY_"
	metaPrefix      = "CRM_meta_"
	featureSet      = "crm_feature_set" // Pacemaker's own, although it looks like a parameter
)

// Environment is the input of one action (OCF 1.1, "Parameter Passing", and Pacemaker's additions).
type Environment struct {
	Instance         string            // OCF_RESOURCE_INSTANCE, such as "web-ip:4"; empty for meta-data
	Parameters       map[string]string // the resource's parameters as given, by name without OCF_RESKEY_
	Meta             map[string]string // Pacemaker's meta attributes, by name without OCF_RESKEY_CRM_meta_, such as "clone_max"
	CheckLevel       int               // OCF_CHECK_LEVEL (OCF 1.1, "Check Levels"); 0 when absent
	TempDir          string            // HA_RSCTMP, an absolute path
	ExitReasonPrefix string            // OCF_EXIT_REASON_PREFIX
	Timeout          time.Duration     // of the operation, from CRM_meta_timeout (ms)
	Debug            bool              // HA_debug above 0
}

// ParseEnvironment reads the environment in the form of os.Environ. If a variable occurs twice, the first one counts, as for os.Getenv. An
// empty variable counts as absent, except that an empty parameter is kept.
//
// It returns all faults at once, joined, each an *Error that names the variable, its value and the allowed values. A field with a fault has
// its default, the others have their values: meta-data needs none of them, and stop must work with the values that are good. Parameters
// stay as given, even with a fault.
//
// A fault in what the cluster's configuration sets (parameters, the check level, the instance's name) is ErrConfigured; in what the
// resource manager on this node sets, ErrArgs.
func ParseEnvironment(environ []string) (Environment, error) {
	env := Environment{
		Parameters:       map[string]string{},
		Meta:             map[string]string{},
		TempDir:          DefaultTempDir,
		ExitReasonPrefix: DefaultExitReasonPrefix,
		Timeout:          DefaultTimeout,
	}
	seen := make(map[string]string)
	var faults []error
	for _, entry := range environ {
		variable, value, found := strings.Cut(entry, "=")
		if _, again := seen[variable]; again || !found {
			continue
		}
		seen[variable] = value
		name, isParameter := strings.CutPrefix(variable, parameterPrefix)
		meta, isMeta := strings.CutPrefix(name, metaPrefix)
		switch {
		case !isParameter || name == "" || name == featureSet:
		case isMeta:
			env.Meta[meta] = value
		default:
			env.Parameters[name] = value
			if err := CheckParameter(name, value); err != nil {
				faults = append(faults, err)
			}
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })

	fault := func(code ExitCode, variable, allowed string) {
		faults = append(faults, Errorf(code, "%s=%s %s", variable, Quote(seen[variable]), allowed))
	}

	env.Instance = seen["OCF_RESOURCE_INSTANCE"]
	if flaw := textFlaw(env.Instance); flaw != "" {
		fault(ErrConfigured, "OCF_RESOURCE_INSTANCE", flaw)
	}
	if v := seen["OCF_RA_VERSION_MAJOR"]; v != "" {
		if major, err := strconv.ParseUint(v, 10, 32); err != nil || major != 1 {
			fault(ErrArgs, "OCF_RA_VERSION_MAJOR", "is not 1, the only version of the resource agent API that this agent supports")
		}
	}
	if v := seen["OCF_CHECK_LEVEL"]; v != "" {
		level, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			fault(ErrConfigured, "OCF_CHECK_LEVEL", "is not a non-negative integer such as 0 or 10")
		} else {
			env.CheckLevel = int(level)
		}
	}
	if v := seen["HA_RSCTMP"]; v != "" {
		if flaw := textFlaw(v); flaw != "" {
			fault(ErrArgs, "HA_RSCTMP", flaw)
		} else if !filepath.IsAbs(v) {
			fault(ErrArgs, "HA_RSCTMP", "is not an absolute path such as "+DefaultTempDir)
		} else {
			env.TempDir = filepath.Clean(v)
		}
	}
	if v := seen["OCF_EXIT_REASON_PREFIX"]; v != "" {
		if flaw := textFlaw(v); flaw != "" {
			fault(ErrArgs, "OCF_EXIT_REASON_PREFIX", flaw)
		} else {
			env.ExitReasonPrefix = v
		}
	}
	if v := env.Meta["timeout"]; v != "" {
		// Pacemaker keeps times as unsigned 32-bit milliseconds; 0 means that none is set.
		ms, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			fault(ErrArgs, parameterPrefix+metaPrefix+"timeout", "is not a number of milliseconds from 0 to 4294967295")
		} else if ms > 0 {
			env.Timeout = time.Duration(ms) * time.Millisecond
		}
	}
	// A wrong HA_debug must not make an action fail.
	level, err := strconv.Atoi(seen["HA_debug"])
	env.Debug = err == nil && level > 0

	return env, errors.Join(faults...)
}

// CheckParameter returns an error for a value that no parameter may have: one that is not text on one line.
func CheckParameter(name, value string) error {
	if flaw := textFlaw(value); flaw != "" {
		return Errorf(ErrConfigured, "parameter %s=%s %s", OneLine(name), Quote(value), flaw)
	}
	return nil
}

// textFlaw returns why a value is not one line of text, or "".
func textFlaw(value string) string {
	if !utf8.ValidString(value) {
		return "is not valid UTF-8"
	}
	if i := strings.IndexFunc(value, unicode.IsControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(value[i:])
		return fmt.Sprintf("contains the control character %U", r)
	}
	return ""
}
