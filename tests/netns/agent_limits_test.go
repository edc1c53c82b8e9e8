//go:build system

package netns

import (
	"net/netip"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
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
					addresses = append(addresses, nth(netip.PrefixFrom(shared, 24).Masked(), 130+i).String())
				}
				if i < row.ipv6 {
					addresses = append(addresses, nth(netip.PrefixFrom(shared6, 64).Masked(), 0x30+i).String())
				}
			}
			p := newPatient(t, webIP("ip", strings.Join(addresses, " "), "services", "tcp/80", "hashmode", "sourceip-sourceport-destport", "drain", "60"))
			check(t, status(p.start(2), ocf.Success))
			check(t, status(p.start(5), ocf.Success))
			check(t, status(p.monitor(2), ocf.Success))
			check(t, status(p.stop(2), ocf.Success))
			check(t, status(p.monitor(5), ocf.Success))
			p.checkNothingIsLeft(t)
		})
	}
}
