//go:build system && guest

package netns

import (
	"testing"

	"ocf-clusterip/internal/ocf"
)

// TestBonds: the address is on the bond, not on its ports; and a bond that lets a frame in by each port takes no unicast MAC, nor does what is
// on top of it.
func TestBonds(t *testing.T) {
	const lan = "192.168.10.11/24"
	for _, row := range []struct {
		mode, nic, macMode string
		code               ocf.ExitCode
		says               []string
	}{
		{"active-backup", "bond0", "unicast", ocf.Success, nil},
		{"balance-tlb", "bond0", "unicast", ocf.Success, nil},
		{"balance-alb", "bond0", "multicast", ocf.Success, nil},
		{"balance-alb", "bond0", "unicast", ocf.ErrArgs, []string{"bond0 is a bond in mode balance-alb", "set mac_mode=multicast"}},
		{"balance-alb", "bond0.5", "unicast", ocf.ErrArgs, []string{"bond0 is a bond in mode balance-alb"}},
		{"active-backup", NIC, "multicast", ocf.ErrArgs, []string{"eth0 is a port of bond0 (bond)", "set nic=bond0"}},
	} {
		t.Run(row.mode+"/"+row.nic+"/"+row.macMode, func(t *testing.T) {
			p := newPatient(t, webIP("nic", row.nic, "mac_mode", row.macMode))
			commands("ip link add bond0 type bond mode "+row.mode+" miimon 50", "ip address flush dev eth0", "ip link set eth0 down", "ip link set eth0 master bond0",
				"ip link set bond0 up", "ip link add link bond0 name bond0.5 type vlan id 5", "ip link set bond0.5 up")(t, p)
			at := row.nic
			if at == NIC {
				at = "bond0"
			}
			p.by(t, "ip address add "+lan+" dev "+at)
			check(t, p.host.waitUp(t.Context(), "bond0.5"))
			says(t, p.start(2), row.code, row.says...)
			if row.code == ocf.Success {
				check(t, status(p.monitor(2), ocf.Success))
			}
		})
	}
}
