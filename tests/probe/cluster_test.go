//go:build system

package probe

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"ocf-clusterip/tests/lan"
	"ocf-clusterip/tests/program"
)

// scratch is a folder for all tests, which TestMain removes.
var scratch string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "probe-")
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

// cluster is three nodes that share an address, with echo servers, and no resource manager: the test starts and stops.
type cluster struct {
	*lan.Network
	t       *testing.T
	program string
	locks   string
}

// newCluster starts bucket i on node i%3.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	executable, err := agentProgram()
	check(t, err)
	c := &cluster{lan.Start(t, lan.Options{IPv6: true}), t, executable, t.TempDir()}
	check(t, c.Serve(lan.EchoPort))
	for bucket := range buckets {
		c.call("start", bucket, bucket%len(c.Nodes))
	}
	return c
}

// call calls the agent on a node as a resource manager would.
func (c *cluster) call(action string, bucket, node int) {
	c.t.Helper()
	n := strconv.Itoa(bucket)
	r := c.Nodes[node].Run(c.t.Context(), []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_INSTANCE=web-ip:" + n, "OCF_RESKEY_ip=" + shared.String() + " " + shared6.String(), "OCF_RESKEY_mac=" + clusterMAC.String(),
		"OCF_RESKEY_CRM_meta_clone=" + n, "OCF_RESKEY_CRM_meta_clone_max=" + strconv.Itoa(buckets),
		"OCF_RESKEY_CRM_meta_globally_unique=true", "OCF_RESKEY_CRM_meta_timeout=20000",
		"HA_RSCTMP=" + filepath.Join(c.locks, c.Nodes[node].Name),
	}, c.program, action)
	if r.Err != nil || r.ExitCode != 0 {
		c.t.Fatalf("%s of bucket %d on node%d: status %d, %v\n%s", action, bucket, node+1, r.ExitCode, r.Err, r.Stderr)
	}
}

// homeOf returns the node that newCluster gave a source's bucket to.
func homeOf(source netip.Addr) int { return bucketOf(source) % 3 }
