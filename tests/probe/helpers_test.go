package probe

import (
	"net/netip"
	"testing"

	"ocf-clusterip/internal/clusterip"
)

const buckets = 8

// The addresses that are shared, by the same buckets. The first is the article's.
var (
	shared  = netip.MustParseAddr("192.168.10.3")
	shared6 = netip.MustParseAddr("2001:db8:10::3")
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bucketOf is the oracle.
func bucketOf(source netip.Addr) int {
	return int(
		clusterip.BucketOf(clusterip.SourceIP, clusterip.XTCluster, clusterip.Flow{Source: source}, clusterip.DefaultSeed(shared), buckets),
	)
}
