//go:build system && guest

package kernel

import (
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// TestVRF: start refuses an interface in a VRF, and monitor fails when the interface becomes a member of one. Stop leaves nothing, and
// outside the VRF everything works again.
func TestVRF(t *testing.T) {
	inGuest(t, "interfaces")
	inVRF := commands("ip link set eth0 master red")
	p := newTestNode(t, webIP("ip", dualStack, "cidr_netmask", "24,64"))
	commands("ip link add red type vrf table 10", "ip link set red up")(t, p)
	clean, err := p.Host.Dump()
	check(t, err)
	p.clean = clean
	ask := func(nic string) { p.Parameters = p.Parameters.With("nic", nic) }
	inVRF(t, p)
	before, err := p.Host.Dump()
	check(t, err)
	for nic, words := range map[string][]string{
		lan.NIC: {"eth0 is a member of the VRF red", "ip link set eth0 nomaster"},
		"red":   {"red is a VRF", "choose an interface that is a member of none"},
		"":      {"members of a VRF cannot have the address", "the VRF red"},
	} {
		ask(nic)
		checkReason(t, p.start(2), ocf.ErrArgs, words...)
	}
	after, err := p.Host.Dump()
	check(t, err)
	if before != after {
		t.Errorf("the refused starts have left (-before +after):\n%s", changes(before, after))
	}
	for _, nic := range []string{lan.NIC, ""} {
		ask(nic)
		commands("ip link set eth0 nomaster", clientRoute)(t, p)
		check(t, p.Host.WaitUp(t.Context(), lan.NIC))
		own := "ip address replace 2001:db8:10::b/64 dev eth0 nodad" // an interface that changes its VRF loses IPv6 addresses
		commands(own)(t, p)
		p.startBoth(t)
		check(t, status(p.monitor(2), ocf.Success))
		inVRF(t, p)
		checkReason(t, p.monitor(2), ocf.ErrGeneric, "eth0 is a member of the VRF red")
		checkReason(t, p.start(2), ocf.ErrArgs, "eth0 is a member of the VRF red")
		check(t, status(p.stop(2), ocf.Success))
		check(t, status(p.stop(5), ocf.Success))
		check(t, status(p.monitor(2), ocf.NotRunning))
	}
}
