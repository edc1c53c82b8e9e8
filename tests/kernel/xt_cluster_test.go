//go:build system

package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// eachIPTables runs a test with each kind of iptables.
func eachIPTables(t *testing.T, test func(t *testing.T, program string)) {
	t.Helper()
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) { test(t, program) })
	}
}

// chooseIPTables makes one kind of iptables the one that the host's admin has chosen, as update-alternatives(1) does.
func chooseIPTables(t *testing.T, h *lan.Host, program string) {
	t.Helper()
	alternatives := filepath.Join(t.TempDir(), "alternatives")
	check(t, os.Mkdir(alternatives, 0o755))
	check(t, os.Symlink("/usr/sbin/"+program, filepath.Join(alternatives, "iptables")))
	check(t, h.Mount(alternatives, "/etc/alternatives"))
}

// newTestNodeOnIPTables has its buckets in the match, beside rules of an admin.
func newTestNodeOnIPTables(t *testing.T, program string) *testNode {
	t.Helper()
	p := newTestNode(t, webIP("backend", "xt_cluster", "hashmode", "sourceip"))
	chooseIPTables(t, p.Host, program)
	administer(t, p.Host, program)
	clean, err := p.Host.Dump()
	check(t, err)
	p.clean = clean
	return p
}

// stop leaves nothing on a node whose rules another program has deleted.
func TestStopAfterTheMatchBackendsRulesWereDeleted(t *testing.T) {
	inGuest(t, "match")
	eachIPTables(t, func(t *testing.T, program string) {
		p := newTestNodeOnIPTables(t, program)
		p.startBoth(t)
		reload(program)(t, p)
		p.checkNothingIsLeft(t)
	})
}

// adminsRules are some that an admin might have there.
var adminsRules = []string{"-A PREROUTING -s 203.0.113.0/24 -j DROP", "-A PREROUTING -i lo -j MARK --set-mark 0x7"}

// administer gives them to a host.
func administer(t *testing.T, h *lan.Host, program string) {
	t.Helper()
	for _, rule := range adminsRules {
		check(t, h.Run(t.Context(), lan.ToolPath, append([]string{program, "-t", "mangle"}, strings.Fields(rule)...)...).Failure())
	}
}

// The agent on iptables' match serves as it does on nftables, together with nodes that are on nftables.
func TestMatchBackend(t *testing.T) {
	eachIPTables(t, func(t *testing.T, program string) {
		for _, mode := range []clusterip.MACMode{clusterip.Multicast, clusterip.IGMP} {
			t.Run(string(mode), func(t *testing.T) {
				if program == "iptables-legacy" && mode == clusterip.Multicast {
					inGuest(t, "match")
				}
				const buckets = 32
				s := newSite(t, lan.Options{}, buckets, webIP("mac_mode", string(mode), "hashmode", "sourceip"))
				for i, h := range s.Nodes {
					chooseIPTables(t, s.agents[i].Host, program)
					if i < 2 { // the last one stays on nftables
						s.agents[i].Parameters = s.agents[i].Parameters.With("backend", "xt_cluster")
					}
					administer(t, h, program)
				}
				clean := s.dumps(t)
				at := make([]int, buckets)
				for bucket := range at {
					at[bucket] = bucket % len(s.Nodes)
				}
				check(t, s.startAll(at...))
				everyFlow(t, s)
				check(t, s.move(0, 2))
				check(t, s.move(1, 0))
				check(t, s.move(2, 1))
				everyFlow(t, s)
				check(t, s.monitorAll())
				check(t, s.stopAll())
				s.checkClean(t, clean)
			})
		}
	})
}

// The next monitor finds each fault of the match's rules, start repairs it, and the other bucket keeps running.
func TestEveryFaultOfTheMatchBackend(t *testing.T) {
	t.Parallel()
	eachIPTables(t, func(t *testing.T, program string) {
		if program == "iptables-legacy" {
			inGuest(t, "target")
		}
		p := newTestNodeOnIPTables(t, program)
		ours := "clusterip-" + shared.String()
		in := func(format string) func(*testing.T, *testNode) {
			lines := strings.NewReplacer("IPTABLES", program+" -t mangle", "OURS", ours).Replace(format)
			return commands(strings.Split(lines, "\n")...)
		}
		for _, w := range []fault{
			{name: "nothing", cause: commands(), code: -1},
			{name: "PREROUTING flushed", cause: in("IPTABLES -F PREROUTING"), reason: "PREROUTING does not send packets"},
			{name: "accepted before", cause: in("IPTABLES -I PREROUTING -j ACCEPT"), reason: "a rule before ours in PREROUTING may let packets"},
			{name: "our chain flushed", cause: in("IPTABLES -F OURS"), reason: "this is left on the node", losesAll: true},
			{name: "the end of our chain deleted", cause: in("IPTABLES -D OURS 5"), reason: "the stamp of chain " + ours + " is missing"},
			{name: "bucket lost", cause: in("IPTABLES -D OURS 3"), reason: "does not run here; buckets 5 do", code: ocf.NotRunning},
			{name: "a foreign rule in our chain", cause: in("IPTABLES -I OURS -p tcp -j RETURN"), reason: "are not as installed"},
			{name: "mangle table reloaded", cause: reload(program), reason: "this is left on the node", losesAll: true},
			{name: "all of iptables flushed", cause: in("IPTABLES -F\nIPTABLES -X"), reason: "this is left on the node", losesAll: true},
			{name: "ARP table deleted", cause: commands("nft delete table arp clusterip-192.168.10.3-arp"), reason: "ARP"},
			{
				name: "address deleted", cause: commands("ip address delete " + sharedOnNIC + " dev eth0"),
				reason: "address 192.168.10.3/32 is missing on eth0",
			},
		} {
			t.Run(w.name, func(t *testing.T) {
				p.startBoth(t)
				w.cause(t, p)
				if w.code == -1 {
					check(t, status(p.monitor(2), ocf.Success))
				} else {
					p.checkRepair(t, w)
				}
				switch w.name {
				case "accepted before":
					in("IPTABLES -D PREROUTING -j ACCEPT")(t, p)
				case "PREROUTING flushed", "all of iptables flushed":
					administer(t, p.Host, program)
				}
				p.checkNothingIsLeft(t)
			})
		}
	})
}

// reload is what a firewall does: all rules of the table are replaced by its own at once, here by those of administer.
func reload(program string) func(*testing.T, *testNode) {
	return func(t *testing.T, p *testNode) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "rules")
		check(t, os.WriteFile(file, []byte("*mangle\n"+strings.Join(adminsRules, "\n")+"\nCOMMIT\n"), 0o600))
		p.by(t, program+"-restore "+file)
	}
}
