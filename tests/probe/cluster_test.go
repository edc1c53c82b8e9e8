//go:build system

package probe

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

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
	executable, err := harness.Program()
	check(t, err)
	c := &cluster{lan.Start(t, lan.Options{IPv6: true}), t, executable, t.TempDir()}
	check(t, c.Serve(lan.EchoPort))
	for bucket := range buckets {
		c.call("start", bucket, bucket%len(c.Nodes))
	}
	return c
}

// call calls the agent on a node. It must succeed.
func (c *cluster) call(action string, bucket, node int) {
	c.t.Helper()
	host := c.Nodes[node]
	a := harness.Agent{
		Program: c.program, Host: host, TempDir: filepath.Join(c.locks, host.Name), Buckets: buckets,
		Parameters: harness.Parameters{"ip": shared.String() + " " + shared6.String(), "mac": sharedMAC.String()},
	}
	if err := a.Call(c.t.Context(), action, bucket).Failure(); err != nil {
		c.t.Fatalf("%s of bucket %d on node%d: %v", action, bucket, node+1, err)
	}
}

// homeOf returns the node that newCluster gave a source's bucket to.
func homeOf(source netip.Addr) int { return bucketOf(source) % 3 }
