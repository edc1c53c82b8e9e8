//go:build system

package kernel

import (
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// TestAddressConflictWithoutALinkLocalAddress: monitor looks for an address conflict whether or not the interface has a link-local address
// to ask from.
func TestAddressConflictWithoutALinkLocalAddress(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		plant func(*testing.T, *testNode)
	}{
		{"none", commands("ip link set eth0 addrgenmode none", "ip -6 address flush dev eth0 scope link")},
		{"tentative", func(t *testing.T, p *testNode) {
			t.Helper()
			check(t, p.Host.Sysctl("net/ipv6/conf/eth0/accept_dad", "1"))
			check(t, p.Host.Sysctl("net/ipv6/conf/eth0/dad_transmits", "600")) // one a second
			commands("ip link set eth0 addrgenmode none", "ip -6 address flush dev eth0 scope link", "ip address add fe80::11/64 dev eth0")(t, p)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := newLAN(t, lan.Options{Nodes: 2, IPv6: true})
			p := &testNode{agent: newAgent(t, n.Nodes[0], 8, webIP("ip", dualStack))}
			other := newAgent(t, n.Nodes[1], 8, p.Parameters)
			row.plant(t, p)
			p.startBoth(t)
			check(t, status(other.start(0), ocf.Success)) // is no address conflict
			check(t, status(p.call("monitor", 2, "OCF_CHECK_LEVEL=10"), ocf.Success))
			check(t, n.Client.Run(t.Context(), lan.ToolPath, "ip", "address", "add", shared6.String()+"/128", "dev", lan.NIC, "nodad").Failure())
			check(t, n.Client.WaitIPv6(t.Context(), lan.NIC))
			checkReason(
				t,
				p.call("monitor", 2, "OCF_CHECK_LEVEL=10"),
				ocf.ErrGeneric,
				"address conflict: another host answers",
				"02:00:00:00:02:01",
				shared6.String(),
			)
		})
	}
}

// TestProxiesAreNoAddressConflict: a neighbour with proxy_arp answers for every address that it would reach by another interface. Monitor
// asks in such a way that no host learns a wrong MAC.
func TestProxiesAreNoAddressConflict(t *testing.T) {
	t.Parallel()
	const proxy = "02:00:00:00:02:01"
	for _, row := range []struct {
		name  string
		plant []string // on the node
		code  ocf.ExitCode
		want  []string
	}{
		{"from the own address", nil, ocf.ErrGeneric, []string{"address conflict: another host answers", proxy, shared.String()}},
		{
			"from an own address of another network",
			[]string{"ip address flush dev eth0 scope global", "ip address add 10.7.0.11/24 dev eth0", clientRoute},
			ocf.ErrGeneric,
			[]string{"address conflict: another host answers", proxy, shared.String()},
		},
		{"without an own address proxies do not answer", []string{"ip address flush dev eth0 scope global", clientRoute}, ocf.Success, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, lan.Options{Nodes: 2}, 2, webIP("cidr_netmask", "24"))
			node := &testNode{agent: s.agents[0]}
			neighbour := &testNode{agent: &agent{Agent: harness.Agent{Host: s.Client}}}
			commands(row.plant...)(t, node)
			check(t, s.startAll(0, 1))
			monitor := func() lan.Result { return node.call("monitor", 0, "OCF_CHECK_LEVEL=10") }
			check(t, status(monitor(), ocf.Success))
			for name, value := range map[string]string{
				"ip_forward": "1", "conf/eth0/proxy_arp": "1", "conf/all/rp_filter": "0", "conf/eth0/rp_filter": "0",
			} {
				check(t, s.Client.Sysctl("net/ipv4/"+name, value))
			}
			commands(
				"ip link add aside type veth peer name peer",
				"ip link set aside up",
				"ip link set peer up",
				"ip route add 10.7.0.0/24 dev eth0",
				"ip route add 192.168.10.3/32 dev aside",
			)(t, neighbour)
			checkReason(t, monitor(), row.code, row.want...)
			for _, h := range []*lan.Host{s.Client, s.Nodes[1]} {
				for line := range strings.Lines((&agent{Agent: harness.Agent{Host: h}}).by(t, "ip neighbour show dev eth0")) {
					address, _, _ := strings.Cut(line, " ")
					want := map[string]string{shared.String(): s.spec.MACs.IPv4.String(), s.Nodes[0].Addr.String(): s.Nodes[0].MAC.String()}[address]
					if strings.Contains(line, "lladdr") && !strings.Contains(line, want) {
						t.Errorf("%s has learned %s", h.Name, line)
					}
				}
			}
		})
	}
}
