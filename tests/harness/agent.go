package harness

import (
	"context"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/tests/lan"
)

// Vars are environment variables, by name.
type Vars map[string]string

// With returns the variables with others on top.
func (v Vars) With(more ...Vars) Vars {
	all := maps.Clone(v)
	for _, m := range more {
		maps.Copy(all, m)
	}
	return all
}

// List returns the variables as a process gets them.
func (v Vars) List() []string {
	list := make([]string, 0, len(v))
	for name, value := range v {
		list = append(list, name+"="+value)
	}
	return list
}

// callTimeout is the timeout of the operation in Pacemaker's configuration: a long one, so that no test fails because the machine is busy.
const callTimeout = time.Minute

// Pacemaker returns what Pacemaker's executor sets for each call of the resource web-ip on a node. tempDir is the folder of the agents'
// locks.
func Pacemaker(node, tempDir, action string) Vars {
	v := Vars{
		"PATH":                               "/sbin:/bin:/usr/sbin:/usr/bin",
		"LC_ALL":                             "C",
		"HA_RSCTMP":                          tempDir,
		"OCF_ROOT":                           "/usr/lib/ocf",
		"OCF_RA_VERSION_MAJOR":               "1",
		"OCF_RA_VERSION_MINOR":               "1",
		"OCF_EXIT_REASON_PREFIX":             "ocf-exit-reason:",
		"OCF_RESOURCE_PROVIDER":              "custom",
		"OCF_RESOURCE_TYPE":                  "clusterip",
		"OCF_RESOURCE_INSTANCE":              "web-ip",
		"OCF_RESKEY_crm_feature_set":         "3.16.1",
		"OCF_RESKEY_CRM_meta_timeout":        strconv.FormatInt(callTimeout.Milliseconds(), 10),
		"OCF_RESKEY_CRM_meta_on_node":        node,
		"OCF_RESKEY_CRM_meta_name":           action,
		"OCF_RESKEY_CRM_meta_record_pending": "true",
	}
	if action == "monitor" {
		v["OCF_RESKEY_CRM_meta_interval"] = "10000"
	}
	return v
}

// Instance returns what Pacemaker adds for an instance of a globally unique clone: for one of so many buckets.
func Instance(bucket, buckets int) Vars {
	i, n := strconv.Itoa(bucket), strconv.Itoa(buckets)
	return Vars{
		"OCF_RESOURCE_INSTANCE":               "web-ip:" + i,
		"OCF_RESKEY_CRM_meta_clone":           i,
		"OCF_RESKEY_CRM_meta_clone_max":       n,
		"OCF_RESKEY_CRM_meta_clone_node_max":  n,
		"OCF_RESKEY_CRM_meta_globally_unique": "true",
	}
}

// Parameters are those of a resource, by name.
type Parameters map[string]string

// With returns the parameters with others on top, from pairs of name and value.
func (p Parameters) With(namesAndValues ...string) Parameters {
	all := maps.Clone(p)
	for pair := range slices.Chunk(namesAndValues, 2) {
		all[pair[0]] = pair[1]
	}
	return all
}

// Vars returns the parameters as the agent gets them.
func (p Parameters) Vars() Vars {
	v := Vars{}
	for name, value := range p {
		v["OCF_RESKEY_"+name] = value
	}
	return v
}

// An Agent is the resource agent on a node. Its methods may be called at the same time.
type Agent struct {
	Program    string // the executable
	Host       *lan.Host
	TempDir    string // HA_RSCTMP
	Buckets    int    // clone-max
	Parameters Parameters
}

// earlyDrop is the value of the parameter early_drop where a test does not set it, nor a backend that refuses it: `make kernel
// EARLY_DROP=tc`. Empty: its default.
var earlyDrop = os.Getenv("CLUSTERIP_EARLY_DROP")

// Environment returns what Pacemaker sets for a call. Extra variables ("NAME=value") win.
func (a *Agent) Environment(action string, bucket int, extra ...string) []string {
	v := Pacemaker(a.Host.Name, a.TempDir, action).With(Instance(bucket, a.Buckets), a.Parameters.Vars())
	_, given := v["OCF_RESKEY_early_drop"]
	refuses := slices.Contains([]string{"xt_cluster", "clusterip"}, v["OCF_RESKEY_backend"])
	if !given && !refuses && earlyDrop != "" {
		v["OCF_RESKEY_early_drop"] = earlyDrop
	}
	for _, variable := range extra {
		name, value, _ := strings.Cut(variable, "=")
		v[name] = value
	}
	return v.List()
}

// Call runs an action for a bucket. A call that does not end in time is killed, as Pacemaker does; Result.Err is set then.
func (a *Agent) Call(ctx context.Context, action string, bucket int, extra ...string) lan.Result {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return a.Host.Run(ctx, a.Environment(action, bucket, extra...), a.Program, action)
}
