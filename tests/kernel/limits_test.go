//go:build system

package kernel

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// A resource has up to 32 addresses, whatever they are.
func TestThirtyTwoAddresses(t *testing.T) {
	for name, row := range map[string]struct{ ipv4, ipv6 int }{
		"IPv4":       {32, 0},
		"IPv6":       {0, 32},
		"dual stack": {16, 16},
	} {
		t.Run(name, func(t *testing.T) {
			var addresses []string
			for i := range max(row.ipv4, row.ipv6) {
				if i < row.ipv4 {
					addresses = append(addresses, lan.Nth(netip.PrefixFrom(shared, 24).Masked(), 130+i).String())
				}
				if i < row.ipv6 {
					addresses = append(addresses, lan.Nth(netip.PrefixFrom(shared6, 64).Masked(), 0x30+i).String())
				}
			}
			p := newTestNode(
				t,
				webIP("ip", strings.Join(addresses, " "), "services", "tcp/80", "hashmode", "sourceip-sourceport-destport",
					"drain", "60", "linger", "0"),
			)
			check(t, status(p.start(2), ocf.Success))
			check(t, status(p.start(5), ocf.Success))
			check(t, status(p.monitor(2), ocf.Success))
			check(t, status(p.stop(2), ocf.Success))
			check(t, status(p.monitor(5), ocf.Success))
			p.checkNothingIsLeft(t)
		})
	}
}

// A move rewrites the elements of all running moves.
func TestAsManyBucketsAsThereCanBeOfALongName(t *testing.T) {
	const buckets = 1024
	p := newTestNode(t, webIP("drain", "3600", "linger", "0"))
	p.Buckets = buckets
	resource := "web-ip-" + strings.Repeat("x", 83)
	named := func(bucket int) string { return fmt.Sprintf("OCF_RESOURCE_INSTANCE=%s:%d", resource, bucket) }
	check(t, status(p.call("start", 0, named(0)), ocf.Success))
	check(t, status(p.call("start", 1, named(1)), ocf.Success))

	var elements strings.Builder
	for set, timeout := range map[string]string{"owned": "", "draining": "timeout 3600s", "handed_over": ""} {
		for bucket := 2; bucket < buckets; bucket++ {
			fmt.Fprintf(&elements, "add element netdev %s %s { %d %s comment \"%s:%d\" }\n", ourTable, set, bucket, timeout, resource, bucket)
		}
	}
	file := filepath.Join(t.TempDir(), "elements.nft")
	check(t, os.WriteFile(file, []byte(elements.String()), 0o600))
	p.by(t, "nft -f "+file)

	check(t, status(p.call("start", 5, named(5)), ocf.Success))
	check(t, status(p.call("stop", 1, named(1)), ocf.Success))
	check(t, status(p.call("monitor", 0, named(0)), ocf.Success))
	for _, name := range []string{"draining", "handed_over"} {
		if left := strings.Count(p.by(t, "nft list set netdev "+ourTable+" "+name), resource); left < buckets-3 {
			t.Errorf("set %s: %d elements", name, left)
		}
	}
}
