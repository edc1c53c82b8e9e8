//go:build system

package kernel

import (
	"net/netip"
	"testing"
	"time"

	"ocf-clusterip/tests/lan"
)

// The shared addresses.
var (
	shared  = netip.MustParseAddr("192.168.10.3")
	shared6 = netip.MustParseAddr("2001:db8:10::3")
)

// testTimeout bounds each wait of a test; none is expected to come near.
const testTimeout = 20 * time.Second

// shownFaults bounds the number of faults that a test shows; the first few show what is wrong.
const shownFaults = 10

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newLAN builds a LAN for a test. Because every test here needs one, it skips those that are not marked in a guest of tests/vm.
func newLAN(t testing.TB, o lan.Options) *lan.Network {
	t.Helper()
	skipUnmarked(t)
	return lan.Start(t, o)
}

func serve(t *testing.T, n *lan.Network) {
	t.Helper()
	check(t, n.Serve(lan.EchoPort))
}

func probe(t *testing.T, n *lan.Network, traffic lan.Traffic) *lan.Report {
	t.Helper()
	traffic.Retries = max(traffic.Retries, retries)
	r, err := n.Probe(t.Context(), traffic)
	check(t, err)
	return r
}

// always is an owner function: one node owns everything.
func always(node int) func(lan.Flow) int { return func(lan.Flow) int { return node } }

// nft runs nft on a host.
func nft(t *testing.T, h *lan.Host, rules string) {
	t.Helper()
	if err := h.Run(t.Context(), lan.ToolPath, "nft", rules).Failure(); err != nil {
		t.Fatalf("nft on %s: %v", h.Name, err)
	}
}
