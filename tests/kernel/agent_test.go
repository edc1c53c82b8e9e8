//go:build system

package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
	"ocf-clusterip/tests/program"
)

// scratch is a folder for all tests, which TestMain removes.
var scratch string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kernel-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch = dir
	return m.Run()
}

// agentProgram builds the agent once.
var agentProgram = sync.OnceValues(func() (string, error) { return program.Agent(scratch) })

// parameters are those of the resource, by name.
type parameters map[string]string

// with returns the parameters with others on top, from pairs of name and value.
func (p parameters) with(namesAndValues ...string) parameters {
	all := maps.Clone(p)
	for pair := range slices.Chunk(namesAndValues, 2) {
		all[pair[0]] = pair[1]
	}
	return all
}

// webIP are the parameters of the resource that the tests are about.
func webIP(namesAndValues ...string) parameters {
	return parameters{"ip": shared.String(), "nic": lan.NIC}.with(namesAndValues...)
}

// agent is the resource agent on a node, which is called as Pacemaker calls it. Its methods may be called at the same time.
type agent struct {
	host       *lan.Host
	parameters parameters
	buckets    int    // clone-max
	program    string // the executable
	tempDir    string // HA_RSCTMP: what Pacemaker gives the agents of a node for their locks
	ctx        context.Context
}

// newAgent installs the agent on a node, so to say.
func newAgent(t testing.TB, h *lan.Host, buckets int, p parameters) *agent {
	t.Helper()
	executable, err := agentProgram()
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{
		host: h, parameters: p, buckets: buckets, program: executable,
		tempDir: filepath.Join(t.TempDir(), "resource-agents"), ctx: t.Context(),
	}
	t.Cleanup(a.endSweepers)
	return a
}

// callTimeout is the operation's timeout in the cluster's configuration: a long one, so that a machine that stands still for a while
// fails no test.
const callTimeout = time.Minute

// environment is what Pacemaker sets for a call. Extra variables ("NAME=value") win.
func (a *agent) environment(action string, bucket int, extra ...string) []string {
	v := map[string]string{
		"PATH":                                "/sbin:/bin:/usr/sbin:/usr/bin",
		"LC_ALL":                              "C",
		"HA_RSCTMP":                           a.tempDir,
		"OCF_ROOT":                            "/usr/lib/ocf",
		"OCF_RA_VERSION_MAJOR":                "1",
		"OCF_RA_VERSION_MINOR":                "1",
		"OCF_EXIT_REASON_PREFIX":              "ocf-exit-reason:",
		"OCF_RESOURCE_PROVIDER":               "custom",
		"OCF_RESOURCE_TYPE":                   "clusterip",
		"OCF_RESOURCE_INSTANCE":               "web-ip:" + strconv.Itoa(bucket),
		"OCF_RESKEY_crm_feature_set":          "3.16.1",
		"OCF_RESKEY_CRM_meta_timeout":         strconv.FormatInt(callTimeout.Milliseconds(), 10),
		"OCF_RESKEY_CRM_meta_on_node":         a.host.Name,
		"OCF_RESKEY_CRM_meta_name":            action,
		"OCF_RESKEY_CRM_meta_clone":           strconv.Itoa(bucket),
		"OCF_RESKEY_CRM_meta_clone_max":       strconv.Itoa(a.buckets),
		"OCF_RESKEY_CRM_meta_clone_node_max":  strconv.Itoa(a.buckets),
		"OCF_RESKEY_CRM_meta_globally_unique": "true",
		"OCF_RESKEY_CRM_meta_record_pending":  "true",
	}
	if action == "monitor" {
		v["OCF_RESKEY_CRM_meta_interval"] = "10000"
	}
	for name, value := range a.parameters {
		v["OCF_RESKEY_"+name] = value
	}
	for _, nameAndValue := range extra {
		name, value, _ := strings.Cut(nameAndValue, "=")
		v[name] = value
	}
	list := make([]string, 0, len(v))
	for name, value := range v {
		list = append(list, name+"="+value)
	}
	return list
}

// call runs an action for a bucket. A call that does not end in time is killed, as Pacemaker does; Result.Err says so.
func (a *agent) call(action string, bucket int, extra ...string) lan.Result {
	ctx, cancel := context.WithTimeout(a.ctx, callTimeout)
	defer cancel()
	return a.host.Run(ctx, a.environment(action, bucket, extra...), a.program, action)
}

func (a *agent) start(bucket int) lan.Result   { return a.call("start", bucket) }
func (a *agent) stop(bucket int) lan.Result    { return a.call("stop", bucket) }
func (a *agent) monitor(bucket int) lan.Result { return a.call("monitor", bucket) }

// status tells whether a call ended with that status, and if not, how.
func status(r lan.Result, want ocf.ExitCode) error {
	if r.Err != nil {
		return fmt.Errorf("%w\n%s", r.Err, r.Stderr)
	}
	if got := ocf.ExitCode(r.ExitCode); got != want {
		return fmt.Errorf("exit status %d (%s), want %d (%s)\n%s", got, got, want, want, r.Stderr)
	}
	return nil
}

// A clone is the resource on all nodes, as the resource manager sees it.
type clone struct {
	agents []*agent // in the order of Network.Nodes
	at     []int    // on which node each bucket runs, or nowhere
}

// nowhere is where a stopped bucket runs.
const nowhere = -1

// newClone configures the resource, and starts nothing.
func newClone(t testing.TB, n *lan.Network, buckets int, p parameters) *clone {
	t.Helper()
	c := &clone{at: slices.Repeat([]int{nowhere}, buckets)}
	for _, h := range n.Nodes {
		c.agents = append(c.agents, newAgent(t, h, buckets, p))
	}
	return c
}

// startOn starts a bucket on a node.
func (c *clone) startOn(node, bucket int) error {
	if err := status(c.agents[node].start(bucket), ocf.Success); err != nil {
		return fmt.Errorf("start bucket %d on node%d: %w", bucket, node+1, err)
	}
	c.at[bucket] = node
	return nil
}

// stop stops a bucket where it runs.
func (c *clone) stop(bucket int) error {
	node := c.at[bucket]
	if err := status(c.agents[node].stop(bucket), ocf.Success); err != nil {
		return fmt.Errorf("stop bucket %d on node%d: %w", bucket, node+1, err)
	}
	c.at[bucket] = nowhere
	return nil
}

// move takes a bucket from one node to another as the resource manager does: the start begins when the stop has ended.
func (c *clone) move(bucket, node int) error {
	if err := c.stop(bucket); err != nil {
		return err
	}
	return c.startOn(node, bucket)
}

// startAll starts bucket i on node at[i].
func (c *clone) startAll(at ...int) error {
	var errs []error
	for bucket, node := range at {
		errs = append(errs, c.startOn(node, bucket))
	}
	return errors.Join(errs...)
}

// stopAll stops all buckets that run.
func (c *clone) stopAll() error {
	var errs []error
	for bucket, node := range c.at {
		if node != nowhere {
			errs = append(errs, c.stop(bucket))
		}
	}
	return errors.Join(errs...)
}

// monitorAll checks that each bucket is monitored as running where it runs, and nowhere else.
func (c *clone) monitorAll() error {
	var errs []error
	for bucket, at := range c.at {
		for node, a := range c.agents {
			want := ocf.NotRunning
			if node == at {
				want = ocf.Success
			}
			if err := status(a.monitor(bucket), want); err != nil {
				errs = append(errs, fmt.Errorf("monitor bucket %d on node%d: %w", bucket, node+1, err))
			}
		}
	}
	return errors.Join(errs...)
}
