//go:build system

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// webIP are the parameters of the resource that the tests are about.
func webIP(namesAndValues ...string) harness.Parameters {
	return harness.Parameters{"ip": shared.String(), "nic": lan.NIC}.With(namesAndValues...)
}

// agent is the resource agent on a node, for a test.
type agent struct {
	harness.Agent
	ctx   context.Context
	calls *calls
}

// calls are the last calls of an agent, for a test that fails.
type calls struct {
	mu   sync.Mutex
	said []string
}

func (c *calls) add(format string, args ...any) {
	const most = 40
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said[max(0, len(c.said)-most+1):], strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (c *calls) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.said, "\n")
}

// newAgent configures the resource on a node.
func newAgent(t testing.TB, h *lan.Host, buckets int, p harness.Parameters) *agent {
	t.Helper()
	program, err := harness.Program()
	check(t, err)
	tempDir := filepath.Join(t.TempDir(), "resource-agents")
	a := &agent{
		harness.Agent{Program: program, Host: h, TempDir: tempDir, Buckets: buckets, Parameters: p},
		t.Context(),
		&calls{},
	}
	t.Cleanup(func() {
		a.endBackground()
		if t.Failed() {
			t.Logf("the last calls on %s:\n%s", h.Name, a.calls)
		}
	})
	return a
}

// call runs an action for a bucket.
func (a *agent) call(action string, bucket int, extra ...string) lan.Result {
	begin := time.Now()
	r := a.Call(a.ctx, action, bucket, extra...)
	a.calls.add("%s %s %d: %s after %s\n%s", begin.Format("05.000"), action, bucket, ocf.ExitCode(r.ExitCode), r.Duration, r.Stderr)
	return r
}

func (a *agent) start(bucket int) lan.Result   { return a.call("start", bucket) }
func (a *agent) stop(bucket int) lan.Result    { return a.call("stop", bucket) }
func (a *agent) monitor(bucket int) lan.Result { return a.call("monitor", bucket) }

// status returns an error unless a call ended with that status.
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
func newClone(t testing.TB, n *lan.Network, buckets int, p harness.Parameters) *clone {
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
