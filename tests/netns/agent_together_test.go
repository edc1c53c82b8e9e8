//go:build oldkernel

package netns

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// retries is how often a probe asks again where nobody answered: an emulated machine may be too slow for hundreds at once.
const retries = 3

// byHand is a node on which an admin has laid the CLUSTERIP target, as in the article.
type byHand struct {
	*Host
	t *testing.T
}

// layTarget gives the node the address and the rule, for the first of its hash buckets; they count from 1.
func layTarget(t *testing.T, h *Host, mode clusterip.HashMode, seed string, total, local int) byHand {
	t.Helper()
	for _, command := range [][]string{
		{"ip", "address", "add", shared.String() + "/24", "dev", NIC},
		{
			"iptables-legacy", "-A", "INPUT", "-d", shared.String(), "-i", NIC, "-j", "CLUSTERIP", "--new", "--hashmode", string(mode),
			"--clustermac", "01:02:03:04:05:06", "--total-nodes", strconv.Itoa(total), "--local-node", strconv.Itoa(local), "--hash-init", seed,
		},
	} {
		check(t, failure(h.Run(t.Context(), path, command...)))
	}
	return byHand{h, t}
}

// tell writes what the admin would echo into the target's file: +K or -K.
func (b byHand) tell(format string, node int) {
	b.t.Helper()
	check(b.t, b.Do(func() error {
		return os.WriteFile("/proc/thread-self/net/ipt_CLUSTERIP/"+shared.String(), []byte(fmt.Sprintf(format+"\n", node)), 0)
	}))
}

// A cluster whose nodes are replaced one by one: node1 still runs the kernel's CLUSTERIP target, laid by hand; the others run our
// nftables. Every client is answered exactly once, and buckets can be moved between old and new nodes.
func TestTogetherWithTheTarget(t *testing.T) {
	for mode, seed := range map[clusterip.HashMode]string{
		clusterip.SourceIP: "0", clusterip.SourceIPSourcePort: "0", clusterip.SourceIPSourcePortDestPort: "305419896",
	} {
		t.Run(string(mode), func(t *testing.T) {
			const buckets = 8
			s := newSite(t, Options{}, buckets, webIP("mac", "01:02:03:04:05:06", "hashmode", string(mode), "hash_seed", seed, "hash_compat", "clusterip"))
			old := layTarget(t, s.Nodes[0], mode, seed, buckets, 1)
			old.tell("+%d", 2)
			old.tell("+%d", 3)
			s.at[0], s.at[1], s.at[2] = 0, 0, 0
			for bucket, node := range []int{3: 1, 4: 1, 5: 2, 6: 2, 7: 2} {
				if bucket >= 3 {
					check(t, s.startOn(node, bucket))
				}
			}
			everyFlow(t, s)

			old.tell("-%d", 1) // bucket 0 from the old node to a new one
			check(t, s.startOn(1, 0))
			check(t, s.stop(7)) // and bucket 7 the other way
			old.tell("+%d", 8)
			s.at[7] = 0
			everyFlow(t, s)
			for bucket, node := range s.at {
				if node != 0 {
					check(t, status(s.agents[node].monitor(bucket), ocf.Success))
				}
			}

			for _, bucket := range []int{1, 2, 7} { // the old node is taken out of service
				old.tell("-%d", bucket+1)
				check(t, s.startOn(2, bucket))
			}
			everyFlow(t, s)
		})
	}
}
