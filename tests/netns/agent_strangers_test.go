//go:build system

package netns

import (
	"testing"

	"ocf-clusterip/internal/ocf"
)

// TestStrangersWithoutALinkLocalAddress: monitor asks who else has an address whether or not the interface has a link-local one to ask from.
func TestStrangersWithoutALinkLocalAddress(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		plant func(*testing.T, *patient)
	}{
		{"none", commands("ip link set eth0 addrgenmode none", "ip -6 address flush dev eth0 scope link")},
		{"tentative", func(t *testing.T, p *patient) {
			t.Helper()
			check(t, p.host.Sysctl("net/ipv6/conf/eth0/accept_dad", "1"))
			check(t, p.host.Sysctl("net/ipv6/conf/eth0/dad_transmits", "600")) // one a second
			commands("ip link set eth0 addrgenmode none", "ip -6 address flush dev eth0 scope link", "ip address add fe80::11/64 dev eth0")(t, p)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := Start(t, Options{Nodes: 2, IPv6: true})
			p := &patient{agent: newAgent(t, n.Nodes[0], 8, webIP("ip", dualStack))}
			other := newAgent(t, n.Nodes[1], 8, p.parameters)
			row.plant(t, p)
			p.startBoth(t)
			check(t, status(other.start(0), ocf.Success)) // is no stranger
			check(t, status(p.call("monitor", 2, "OCF_CHECK_LEVEL=10"), ocf.Success))
			check(t, failure(n.Client.Run(t.Context(), path, "ip", "address", "add", shared6.String()+"/128", "dev", NIC, "nodad")))
			says(t, p.call("monitor", 2, "OCF_CHECK_LEVEL=10"), ocf.ErrGeneric, "somebody else answers too", "02:00:00:00:02:01", shared6.String())
		})
	}
}
