//go:build system && guest

package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mdlayher/arp"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// TestBonds: the address is on the bond, not on its ports; and a bond that receives a frame on each port takes no unicast MAC, nor does an
// interface on top of it.
func TestBonds(t *testing.T) {
	inGuest(t, "interfaces")
	const own = "192.168.10.11/24"
	for _, row := range []struct {
		mode, nic, macMode string
		code               ocf.ExitCode
		want               []string
	}{
		{"active-backup", "bond0", "unicast", ocf.Success, nil},
		{"balance-tlb", "bond0", "unicast", ocf.Success, nil},
		{"balance-alb", "bond0", "multicast", ocf.Success, nil},
		{"balance-alb", "bond0", "unicast", ocf.ErrArgs, []string{"bond0 is a bond in mode balance-alb", "set mac_mode=multicast"}},
		{"balance-alb", "bond0.5", "unicast", ocf.ErrArgs, []string{"bond0 is a bond in mode balance-alb"}},
		{"active-backup", lan.NIC, "multicast", ocf.ErrArgs, []string{"eth0 is a port of bond0 (bond)", "set nic=bond0"}},
	} {
		t.Run(row.mode+"/"+row.nic+"/"+row.macMode, func(t *testing.T) {
			p := newTestNode(t, webIP("nic", row.nic, "mac_mode", row.macMode))
			commands(
				"ip link add bond0 type bond mode "+row.mode+" miimon 50",
				"ip address flush dev eth0",
				"ip link set eth0 down",
				"ip link set eth0 master bond0",
				"ip link set bond0 up",
				"ip link add link bond0 name bond0.5 type vlan id 5",
				"ip link set bond0.5 up",
			)(t, p)
			at := row.nic
			if at == lan.NIC {
				at = "bond0"
			}
			p.by(t, "ip address add "+own+" dev "+at)
			check(t, p.Host.WaitUp(t.Context(), "bond0.5"))
			checkReason(t, p.start(2), row.code, row.want...)
			if row.code == ocf.Success {
				check(t, status(p.monitor(2), ocf.Success))
			}
		})
	}
}

// TestStackedInterfaces: the address's interface may consist of others in many ways. Each flow is answered once, or start refuses.
func TestStackedInterfaces(t *testing.T) {
	inGuest(t, "interfaces")
	const (
		second = "ip link add eth8 type veth peer name peer8;"
		bond   = second + "ip link add bond0 type bond mode MODE miimon 50;ip link set eth0 down;" +
			"ip link set eth0 master bond0;ip link set eth8 master bond0;ip link set peer8 up;ip link set bond0 address MAC;ip link set bond0 up;"
		backup = "active-backup"
		lacp   = "802.3ad"
		vlan   = "ip link add link bond0 name bond0.5 type vlan id 5;ip link set bond0.5 up;"
		tagged = "ip link add br0 address MAC type bridge mcast_snooping 0 vlan_filtering 1;ip link set eth0 master br0;" +
			"ip link set br0 up;bridge vlan add dev eth0 vid 5;"
		overIt = "ip link add br0 address MAC type bridge mcast_snooping 0;ip link set bond0.5 master br0;ip link set br0 up;"
	)
	for _, row := range []struct {
		name, commands, mode, nic string
		macModes                  []string
		vlan                      bool
		code                      ocf.ExitCode
		want                      string
	}{
		{name: "a bond of two", commands: bond, mode: backup, nic: "bond0", macModes: []string{"multicast", "igmp", "unicast"}},
		{name: "a bond with LACP", commands: bond, mode: lacp, nic: "bond0", macModes: []string{"multicast", "unicast"}},
		{
			name: "a VLAN on a bond of two", commands: bond + vlan, mode: backup, nic: "bond0.5", macModes: []string{"multicast", "igmp", "unicast"},
			vlan: true,
		},
		{
			name: "a bridge on a VLAN on a bond", commands: bond + vlan + overIt, mode: backup, nic: "br0",
			macModes: []string{"multicast", "unicast"}, vlan: true,
		},
		{
			name:     "a VLAN on a bridge with tagged ports",
			commands: tagged + "bridge vlan add dev br0 vid 5 self;ip link add link br0 name br0.5 type vlan id 5;ip link set br0.5 up",
			nic:      "br0.5", macModes: []string{"multicast", "igmp", "unicast"}, vlan: true,
		},
		{
			name: "a bridge in a VLAN of its tagged ports", commands: tagged + "bridge vlan add dev br0 vid 5 self pvid untagged", nic: "br0",
			macModes: []string{"multicast", "igmp", "unicast"}, vlan: true,
		},
		{
			name: "a macvlan", commands: "ip link add link eth0 name mac0 address MAC type macvlan mode bridge;ip link set mac0 up", nic: "mac0",
			macModes: []string{"multicast", "igmp"},
		},
		{
			name:     "a macvlan and a unicast MAC",
			commands: "ip link add link eth0 name mac0 address MAC type macvlan mode bridge;ip link set mac0 up", nic: "mac0",
			macModes: []string{"unicast"}, code: ocf.ErrArgs, want: "takes no second unicast MAC",
		},
		{
			name: "an ipvlan", commands: "ip link add link eth0 name ipv0 type ipvlan mode l2;ip link set ipv0 up", nic: "ipv0",
			macModes: []string{"multicast", "igmp", "unicast"},
		},
		{
			name:     "a port of a team",
			commands: "ip link add team0 type team;ip link set eth0 down;ip link set eth0 master team0;ip link set team0 up", nic: lan.NIC,
			macModes: []string{"multicast"}, code: ocf.ErrArgs, want: "eth0 is a port of team0 (team)",
		},
	} {
		for _, macMode := range row.macModes {
			t.Run(row.name+"/"+macMode, func(t *testing.T) {
				s := newUnwatchedSite(t, lan.Options{Nodes: 2}, 8, webIP("mac_mode", macMode, "nic", row.nic))
				if row.vlan { // the nodes' ports are tagged, the client's is not
					for _, command := range []string{
						"ip link set br0 type bridge vlan_filtering 1", "bridge vlan add dev node1 vid 5", "bridge vlan add dev node2 vid 5",
						"bridge vlan add dev client vid 5 pvid untagged",
					} {
						check(t, s.Switch.Run(t.Context(), lan.ToolPath, strings.Fields(command)...).Failure())
					}
				}
				for i, a := range s.agents {
					if strings.Contains(row.commands, "macvlan") { // has a MAC of its own
						a.Host.MAC = net.HardwareAddr{2, 0, 0, 0, 8, byte(i + 1)}
					}
					a.by(t, "ip address flush dev eth0 scope global")
					for command := range strings.SplitSeq(strings.NewReplacer("MAC", a.Host.MAC.String(), "MODE", row.mode).Replace(row.commands), ";") {
						if command != "" {
							a.by(t, command)
						}
					}
					if row.code != ocf.Success && row.nic == lan.NIC {
						continue
					}
					if row.nic != "ipv0" { // whose operational state the kernel does not report
						check(t, a.Host.WaitUp(t.Context(), row.nic))
					}
					a.by(t, fmt.Sprintf("ip address add %s/24 dev %s", a.Host.Addr, row.nic))
					a.by(t, fmt.Sprintf("ip route add %s dev %s", s.Options.Clients, row.nic))
				}
				checkReason(t, s.agents[0].start(0), row.code, row.want)
				if row.code != ocf.Success {
					return
				}
				check(t, s.startAll(0, 0, 0, 0, 1, 1, 1, 1))
				check(t, s.monitorAll())
				report := probe(t, s.Network, lan.Traffic{Target: shared, Sources: s.Sources(32), Retries: retries})
				check(t, report.ExactlyOnce(s.owner))
				check(t, s.UnplugNode(0, lan.NIC))
				if strings.Contains(row.commands, second) {
					s.agents[0].by(t, "ip link set peer8 down")
				}
				eventually(t, "monitor sees that the network is gone", func() error { return status(s.agents[0].monitor(0), ocf.ErrGeneric) })
			})
		}
	}
}

// TestInterfaceThatBecomesAPort: the exit reason names the interface that takes the packets.
func TestInterfaceThatBecomesAPort(t *testing.T) {
	inGuest(t, "interfaces")
	for _, kind := range []string{"bond", "team"} {
		t.Run(kind, func(t *testing.T) {
			p := newTestNode(t, webIP())
			p.startBoth(t)
			commands(
				"ip link add master0 type "+kind,
				"ip link set eth0 down",
				"ip link set eth0 master master0",
				"ip link set master0 up",
				"ip link set eth0 up",
			)(t, p)
			checkReason(t, p.monitor(2), ocf.ErrGeneric, "eth0 is a port of master0 ("+kind+")", "set nic=master0")
			checkReason(t, p.start(2), ocf.ErrArgs, "eth0 is a port of master0 ("+kind+")")
			p.by(t, "ip link set eth0 nomaster")
			p.by(t, "ip link set eth0 up")
			check(t, p.Host.WaitUp(t.Context(), lan.NIC))
			p.by(t, "ip address replace 192.168.10.11/24 dev eth0")
			check(t, status(p.start(2), ocf.Success))
			check(t, status(p.monitor(2), ocf.Success))
		})
	}
}

// TestBondsThatAskByARP: a bond's ARP monitor asks by the ports, with the bond's first address, which is the shared one. The link must stay
// up, and the neighbours must learn no other MAC than the shared one.
func TestBondsThatAskByARP(t *testing.T) {
	inGuest(t, "interfaces")
	for _, row := range []struct {
		macMode, validate string
		refused           bool
	}{
		{"multicast", "none", false},
		{"multicast", "all", false},
		{"unicast", "backup", false},
		{"unicast", "all", true},
	} {
		t.Run(row.macMode+"/"+row.validate, func(t *testing.T) {
			s := newSite(t, lan.Options{Nodes: 1}, 4, webIP("nic", "bond0", "mac_mode", row.macMode, "check_link", "false"))
			node := s.Nodes[0]
			for _, command := range []string{
				"ip link add bond0 type bond mode active-backup arp_interval 100 arp_validate " + row.validate +
					" arp_ip_target " + s.Client.Addr.String(),
				"ip address flush dev eth0", "ip link set eth0 down", "ip link set eth0 master bond0", "ip link set bond0 up",
				"ip address add " + node.Addr.String() + "/24 dev bond0",
			} {
				s.agents[0].by(t, command)
			}
			check(t, node.WaitUp(t.Context(), "bond0"))
			if row.refused {
				checkReason(
					t,
					s.agents[0].start(0),
					ocf.ErrArgs,
					"bond0 validates the answers to its ARP requests (arp_validate)",
					"set mac_mode=multicast",
				)
				return
			}
			// Up to Linux 5.18 a bond does not notice when a veth has sent something (bond_ab_arp_inspect), and takes its link for failed in any
			// case.
			_, before := s.whileBondAsks(t, node.Addr)
			check(t, s.startAll(0, 0, 0, 0))
			frames, after := s.whileBondAsks(t, shared)
			if before == 0 && after != 0 {
				t.Errorf("the bond has taken its link for dead %d times", after)
			}
			t.Logf("link failures: %d before start, %d after it", before, after)
			for _, message := range arpMessages(frames) {
				if message.SenderMAC != s.spec.MACs.IPv4.String() {
					t.Errorf("the bond announces another MAC: %+v", message)
				}
			}
		})
	}
}

// whileBondAsks waits until a bond has asked the client some times, as from an address, and returns its frames and how often its link has
// failed meanwhile.
func (s *site) whileBondAsks(t *testing.T, from netip.Addr) (frames []lan.Frame, failures int) {
	t.Helper()
	const enough = 20
	heard := capture(t, s.Client, lan.NIC, func(f lan.Frame) bool {
		p, isARP := f.ARP()
		return isARP && !f.Outgoing && p.Operation == arp.OperationRequest && p.SenderIP == from && p.TargetIP == s.Client.Addr
	})
	before, asked := linkFailures(t, s.Nodes[0]), 0
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if _, err := heard.Wait(ctx, func(lan.Frame) bool {
		asked++
		return asked == enough
	}); err != nil {
		t.Errorf("heard %d questions from %s: %v", asked, from, err)
	}
	return captured(t, heard), linkFailures(t, s.Nodes[0]) - before
}

// linkFailures is how often the bond has taken the link of its port for failed.
func linkFailures(t *testing.T, h *lan.Host) int {
	t.Helper()
	r := h.Run(t.Context(), lan.ToolPath, "cat", "/proc/net/bonding/bond0")
	found := regexp.MustCompile(`Link Failure Count: (\d+)`).FindStringSubmatch(r.Stdout)
	if found == nil {
		t.Fatalf("no failures are counted:\n%s%s", r.Stdout, r.Stderr)
	}
	failures, err := strconv.Atoi(found[1])
	check(t, err)
	return failures
}
