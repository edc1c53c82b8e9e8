//go:build system

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/firewall"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/operator/doctor"
	"ocf-clusterip/internal/services"
	"ocf-clusterip/tests/lan"
)

// TestFirewalls installs rules with the admins' own programs, and checks what doctor reports of a client's first packet to a web
// server at the address: certainly dropped (!), perhaps (?), not tracked (~), or nothing.
func TestFirewalls(t *testing.T) {
	s := &site{Network: lan.Start(t, lan.Options{Nodes: 1, IPv6: true}), folder: t.TempDir()}
	node := s.Nodes[0]
	eth0, err := node.Handle().LinkByName(lan.NIC)
	check(t, err)
	layout := clusterip.Layout{
		Prefixes: []netip.Prefix{netip.MustParsePrefix(shared + "/24"), netip.MustParsePrefix(shared6 + "/64")},
		NIC:      lan.NIC, NICIndex: eth0.Attrs().Index, Backend: clusterip.NFTables,
		MACs: clusterip.PerFamily[clusterip.MAC]{
			IPv4: clusterip.MAC{3, 0xc1, 192, 168, 10, 3}, IPv6: clusterip.MAC{3, 0xc1, 192, 168, 10, 3},
		},
		Services: []services.Service{{Protocol: "tcp", First: 80, Last: 80}},
	}
	const (
		all  = " tcp/80 to 192.168.10.3, tcp/80 to 2001:db8:10::3, neighbour discovery to 2001:db8:10::3"
		tcp  = " tcp/80 to 192.168.10.3, tcp/80 to 2001:db8:10::3"
		tcp4 = " tcp/80 to 192.168.10.3"
		arp  = " ARP requests for 192.168.10.3"
	)
	// input is a base chain of table inet f, with rules.
	input := func(rules ...string) string {
		lines := []string{"add table inet f", "add chain inet f in { type filter hook input priority 0; }"}
		for _, rule := range rules {
			if !strings.HasPrefix(rule, "add ") {
				rule = "add rule inet f in " + rule
			}
			lines = append(lines, rule)
		}
		return "nft '" + strings.Join(lines, "; ") + "'"
	}
	// redirected is a rule that sends the service elsewhere, and what INPUT lets in.
	redirected := func(where, allowed string) string {
		return "nft 'add table ip f; add chain ip f pre { type nat hook prerouting priority dstnat; }; add rule ip f pre tcp dport 80 " + where +
			"; add chain ip f in { type filter hook input priority 0; policy drop; }; add rule ip f in " + allowed + "'"
	}
	chainOf := func(family, hook, rule string) string {
		return fmt.Sprintf(
			"nft 'add table %[1]s f; add chain %[1]s f in { type filter hook %[2]s; }; add rule %[1]s f in %[3]s'", family, hook, rule,
		)
	}
	// firewalld is what it installs for a zone, the more so with the services that the zone lets in.
	firewalld := func(services ...string) string {
		lines := []string{
			"add table inet firewalld", "add chain inet firewalld filter_PREROUTING { type filter hook prerouting priority filter + 10; }",
			"add chain inet firewalld filter_INPUT { type filter hook input priority filter + 10; }", "add chain inet firewalld filter_FORWARD { " +
				"type filter hook forward priority filter + 10; }",
			"add chain inet firewalld filter_INPUT_ZONES", "add chain inet firewalld filter_IN_public", "add chain inet firewalld " +
				"filter_IN_public_allow",
			"add rule inet firewalld filter_PREROUTING icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept", "add rule inet firewalld " +
				"filter_PREROUTING meta nfproto ipv6 fib saddr . mark . iif oif missing drop",
		}
		for _, hook := range []string{"INPUT", "FORWARD"} {
			for _, rule := range []string{
				"ct state { established, related } accept", "ct status dnat accept", "iifname lo accept", "ct state invalid drop",
			} {
				lines = append(lines, "add rule inet firewalld filter_"+hook+" "+rule)
			}
		}
		lines = append(
			lines, "add rule inet firewalld filter_INPUT jump filter_INPUT_ZONES", "add rule inet firewalld filter_INPUT reject with icmpx "+
				"admin-prohibited", "add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
			"add rule inet firewalld filter_INPUT_ZONES iifname eth0 goto filter_IN_public", "add rule inet firewalld filter_INPUT_ZONES goto "+
				"filter_IN_public",
			"add rule inet firewalld filter_IN_public jump filter_IN_public_allow", "add rule inet firewalld filter_IN_public meta l4proto { "+
				"icmp, ipv6-icmp } accept", "add rule inet firewalld filter_IN_public reject with icmpx admin-prohibited",
			"add rule inet firewalld filter_IN_public_allow tcp dport 22 accept", "add rule inet firewalld filter_IN_public_allow ip6 daddr "+
				"fe80::/64 udp dport 546 accept",
		)
		for _, service := range services {
			lines = append(lines, "add rule inet firewalld filter_IN_public_allow "+service+" accept")
		}
		return "nft '" + strings.Join(lines, "; ") + "'"
	}
	// docker is what it installs for a container that has the service, or has none that is published; by iptables-nft or iptables-legacy.
	docker := func(iptables string, published bool, more ...string) string {
		lines := []string{
			"-P FORWARD DROP", "-N DOCKER-USER", "-N DOCKER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -o docker0 -m " +
				"conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"-A FORWARD -o docker0 -j DOCKER", "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT", "-t nat -N DOCKER", "-t nat -A PREROUTING -m " +
				"addrtype --dst-type LOCAL -j DOCKER", "-t nat -A DOCKER -i docker0 -j RETURN",
		}
		if published {
			lines = append(lines, "-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080",
				"-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8080 -j ACCEPT")
		}
		var commands []string
		for _, line := range append(lines, more...) {
			commands = append(commands, iptables+" "+line)
		}
		return strings.Join(commands, "; ")
	}
	const inputDrops = "-P INPUT DROP"
	const flush = `nft flush ruleset
for program in iptables-legacy:ip_tables ip6tables-legacy:ip6_tables; do
	for table in $(cat /proc/net/${program#*:}_names); do
		${program%:*} -t $table -F; ${program%:*} -t $table -X
		[ $table != filter ] || { ${program%:*} -P INPUT ACCEPT; ${program%:*} -P FORWARD ACCEPT; }
	done
done`
	for _, row := range []struct {
		name, rules string
		want        []string
	}{
		{"nothing", "true", nil},
		{"everything", input("drop"), []string{"!" + all}},
		{"the policy", "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }'", []string{"!" + all}},
		{"a table that sleeps", "nft 'add table inet f { flags dormant; }; add chain inet f in { type filter hook input priority 0; policy " +
			"drop; }'", nil},
		{"the address", input("ip daddr 192.168.10.3 drop"), []string{"!" + tcp4}},
		{"another address", input("ip daddr 192.168.10.4 drop"), nil},
		{"all but another address", input("ip daddr != 192.168.10.4 tcp dport 80 drop"), []string{"!" + tcp4}},
		{"a network", input("ip daddr 192.168.0.0/16 drop"), []string{"!" + tcp4}},
		{"a range", input("ip daddr 192.168.10.1-192.168.10.9 reject"), []string{"!" + tcp4}},
		{"a range beside it", input("ip daddr 192.168.10.4-192.168.10.9 reject"), nil},
		{"the port", input("tcp dport 80 drop"), []string{"!" + tcp}},
		{"another port", input("tcp dport 81 drop"), nil},
		{"a set of ports", input("tcp dport { 22, 80, 443 } drop"), []string{"!" + tcp}},
		{"a set without it", input("tcp dport { 22, 443 } drop"), nil},
		{"all but a set", input("tcp dport != { 22, 443 } drop"), []string{"!" + tcp}},
		{"a set of ranges", input("tcp dport { 22, 70-90 } drop"), []string{"!" + tcp}},
		{"a set of ranges without it", input("tcp dport { 22, 81-90, 70-79 } drop"), nil},
		{"an open range", input("tcp dport { 22, 80-65535 } drop"), []string{"!" + tcp}},
		{"addresses with ports", input("ip daddr . tcp dport { 192.168.10.3 . 80, 192.168.10.4 . 81 } drop"), []string{"!" + tcp4}},
		{"other addresses with ports", input("ip daddr . tcp dport { 192.168.10.3 . 81, 192.168.10.4 . 80 } drop"), nil},
		{"networks with ports", input("add set inet f s { type ipv4_addr . inet_service; flags interval; }", "add element inet f s { "+
			"192.168.10.0/24 . 70-90 }", "ip daddr . tcp dport @s drop"), []string{"?" + tcp4}},
		{"a map of verdicts", input("tcp dport vmap { 22 : accept, 80 : drop }"), []string{"!" + tcp}},
		{"a map without it", input("tcp dport vmap { 22 : accept, 81 : drop }"), nil},
		{"a map by state", input("ct state vmap { established : accept, new : drop }"), []string{"!" + all}},
		{"invalid ones", input("ct state invalid drop", "ct state { invalid, untracked } drop"), nil},
		{"new ones", input("tcp flags syn ct state new drop"), []string{"!" + tcp}},
		{"scans", input("tcp flags & (fin | syn | rst | ack) != syn ct state new drop"), nil},
		{"fragments", input("ip frag-off & 0x1fff != 0 drop"), nil},
		{"another interface", input("iifname \"eth1\" drop", "iif lo drop"), nil},
		{"this interface", input("iifname \"eth0\" drop"), []string{"!" + all}},
		{"interfaces by a pattern", input("iifname \"eth*\" drop"), []string{"!" + all}},
		{"some clients", input("ip saddr 192.0.2.0/24 drop", "ip saddr { 192.0.2.1, 192.0.2.9 } drop"), nil},
		{"clients in a range", input("ip saddr 10.0.0.1-10.0.0.9 drop"), nil},
		{"clients in a range that is most of all", input("ip saddr 1.0.0.0-239.255.255.255 drop"), []string{"?" + tcp4}},
		{"clients of low ports", input("tcp sport < 1024 drop"), nil},
		{"clients of ports as clients have them", input("tcp sport >= 1024 drop"), []string{"?" + tcp}},
		{"clients from afar", input("ip ttl < 2 drop"), nil},
		{"clients that are not next door", input("ip ttl > 1 drop"), []string{"?" + tcp4}},
		{
			"a copy, and then the packet",
			input(
				"add table ip g", "add chain ip g in { type filter hook input priority 1; }", "add rule ip g in ip daddr 192.168.10.3 dup to 10.0.0.9",
				"add rule ip g in ip daddr 192.168.10.3 drop",
			),
			[]string{"!" + tcp4},
		},
		{
			"a proxy, and then the packet",
			input(
				"add table ip g", "add chain ip g pre { type filter hook prerouting priority mangle; }",
				"add rule ip g pre ip daddr 192.168.10.3 tcp dport 80 tproxy to :8080", "add rule ip g pre ip daddr 192.168.10.3 drop",
			),
			[]string{"!" + tcp4},
		},
		{
			"a proxy that has it",
			input(
				"add table ip g", "add chain ip g pre { type filter hook prerouting priority mangle; policy drop; }",
				"add rule ip g pre ip daddr 192.168.10.3 tcp dport 80 tproxy to :8080 accept",
			),
			[]string{"?" + tcp4},
		},
		{"all other clients", input("ip saddr != 192.0.2.0/24 drop"), []string{"?" + tcp4}},
		{"too many", input("limit rate over 10/second drop"), nil},
		{"marks of other rules", input("meta mark 7 drop"), []string{"?" + all}},
		{"broadcasts", input("meta pkttype { broadcast, multicast } drop"), nil},
		{"all but unicasts, before all else", chainOf("netdev", "ingress device \"eth0\" priority 0", "meta pkttype != host ip daddr "+
			"192.168.10.3 drop"), []string{"?" + tcp4}},
		{"an order of things", input("tcp dport 80 accept", "tcp dport 80 drop"), nil},
		{"another order of things", input("ip saddr 192.0.2.0/24 accept", "tcp dport 80 drop"), []string{"!" + tcp}},
		{
			"a chain of one's own",
			input("add chain inet f web", "add rule inet f web ct state established return", "add rule inet f web drop", "tcp dport 80 jump web"),
			[]string{"!" + tcp},
		},
		{"a chain for others", input("add chain inet f ssh", "add rule inet f ssh drop", "tcp dport 22 jump ssh"), nil},
		{"addresses that are not the host's", input("fib daddr type != local drop"), nil},
		{"ways back that there are not", input("fib saddr . iif oif missing drop"), nil},
		{"hops", input("ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-solicit drop"), []string{"!" + " neighbour discovery to 2001:db8:10::3"}},
		{"before all else", chainOf("netdev", "ingress device \"eth0\" priority 0", "ip daddr 192.168.10.3 drop"), []string{"!" + tcp4}},
		{"before all else, elsewhere", chainOf("netdev", "ingress device \"lo\" priority 0", "drop"), nil},
		{"prerouting", chainOf("ip", "prerouting priority mangle", "tcp dport 80 drop"), []string{"!" + tcp4}},
		{"what goes through", chainOf("ip", "forward priority filter", "drop"), nil},
		{"ARP", chainOf("arp", "input priority filter", "arp operation request drop"), []string{"!" + arp}},
		{"ARP for others", chainOf("arp", "input priority filter", "arp daddr ip 192.168.10.4 drop"), nil},
		{"ARP for us", chainOf("arp", "input priority filter", "arp daddr ip 192.168.10.3 drop"), []string{"!" + arp}},
		{"no tracking", chainOf("ip", "prerouting priority raw", "tcp dport 80 notrack"), []string{"~!" + tcp4}},
		{"our own", "nft 'add table inet clusterip-10.0.0.1; add chain inet clusterip-10.0.0.1 in { type filter hook input priority 0; policy " +
			"drop; }'", nil},
		{"iptables on nf_tables", "iptables-nft -A INPUT -d 192.168.10.3/32 -p tcp -m tcp --dport 80 -j REJECT", []string{"!" + tcp4}},
		{"its connections", "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; " +
			"iptables-nft -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", []string{"!" + tcp4}},
		{"its service", "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -m conntrack --ctstate INVALID -j DROP; iptables-nft -A INPUT -p " +
			"tcp -m tcp --dport 80 -m comment --comment web -j ACCEPT", nil},
		{"its multiport", "iptables-nft -A INPUT -p tcp -m multiport --dports 80,443 -j DROP", []string{"?" + tcp4}},
		{"our own in it", "iptables-nft -t mangle -N clusterip-192.168.10.3; iptables-nft -t mangle -A clusterip-192.168.10.3 -j DROP; " +
			"iptables-nft -t mangle -A PREROUTING -d 192.168.10.3/32 -j clusterip-192.168.10.3", nil},
		{"its notrack", "iptables-nft -t raw -A PREROUTING -p tcp -m tcp --dport 80 -j CT --notrack", []string{"~!" + tcp4}},
		{"iptables' old interface", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -i lo -j ACCEPT", []string{"!" + tcp4}},
		{"its connections without a beginning", "iptables-legacy -A INPUT -p tcp ! --syn -m state --state NEW -j DROP; iptables-legacy -A " +
			"INPUT -p tcp --tcp-flags ALL NONE -j DROP", nil},
		{"its beginnings", "iptables-legacy -A INPUT -p tcp --syn -j DROP", []string{"!" + tcp4}},
		{"its chains", "iptables-legacy -N web; iptables-legacy -A web -s 192.0.2.0/24 -j RETURN; iptables-legacy -A web -j REJECT; " +
			"iptables-legacy -A INPUT -p tcp -m tcp --dport 80 -j web", []string{"?" + tcp4}},
		{"firewalld, and its zone does not let the service in", firewalld(), []string{"!" + tcp}},
		{"firewalld, and its zone does", firewalld("tcp dport 80"), nil},
		{"docker, and nothing in a container", docker("iptables-nft", false), nil},
		{"docker, and the service in a container", docker("iptables-nft", true, inputDrops), nil},
		{"docker, and a rule of DOCKER-USER", docker("iptables-nft", true, "-I DOCKER-USER -i eth0 -j DROP"), []string{"!" + tcp4}},
		{"docker, and a rule of DOCKER-USER about the container", docker("iptables-nft", true, "-I DOCKER-USER -d 172.17.0.2 -p tcp --dport "+
			"8080 -j DROP"), []string{"!" + tcp4}},
		{"docker, and a rule of DOCKER-USER about another", docker("iptables-nft", true, "-I DOCKER-USER -p tcp --dport 80 -j DROP"), nil},
		{"docker by iptables-legacy", docker("iptables-legacy", true, inputDrops), nil},
		{"docker by iptables-legacy, and a rule of DOCKER-USER", docker("iptables-legacy", true, "-I DOCKER-USER -d 172.17.0.2 -p tcp --dport "+
			"8080 -j DROP"), []string{"!" + tcp4}},
		{"docker beside firewalld", docker("iptables-nft", true) + "; " + firewalld(), []string{"! tcp/80 to 2001:db8:10::3"}},
		{"another port of the host", redirected("redirect to :8080", "tcp dport 80 accept"), []string{"!" + tcp4}},
		{"another port of the host that is let in", redirected("redirect to :8080", "tcp dport 8080 accept"), nil},
		{"another host", redirected("dnat to 10.0.0.9", "accept"), nil},
		{
			"another host, and nothing is forwarded",
			redirected("dnat to 10.0.0.9", "accept") + `; nft 'add chain ip f forward { type filter hook forward priority 0; policy drop; }'`,
			[]string{"!" + tcp4},
		},
		{"another address of the host", redirected("dnat to 192.168.10.11", "ip daddr 192.168.10.3 accept"), []string{"!" + tcp4}},
		{
			"several hosts", redirected("dnat to numgen inc mod 2 map { 0 : 10.0.0.8, 1 : 10.0.0.9 }", "ip daddr 192.168.10.4 accept"),
			[]string{"?" + tcp4},
		},
		{"one of many packets", input("numgen random mod 100 == 0 drop"), nil},
		{"some clients elsewhere", redirected("ip saddr 10.0.0.0/8 dnat to 10.0.0.9", "ip daddr 192.168.10.4 accept"), []string{"!" + tcp4}},
		{"perhaps elsewhere", redirected("meta mark 7 dnat to 10.0.0.9", "ip daddr 192.168.10.4 accept"), []string{"?" + tcp4}},
		{"a bridge's rules where there is no bridge", chainOf("bridge", "input priority 0", "drop"), nil},
		{"IPv6 of it", "ip6tables-legacy -A INPUT -p tcp -m tcp --dport 80 -j DROP", []string{"! tcp/80 to 2001:db8:10::3"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			defer s.shell(t, node, flush)
			s.shell(t, node, row.rules)
			var found []doctor.Obstacle
			err := node.Do(func() error {
				tables, err := nftables.Open()
				if err != nil {
					return err
				}
				defer tables.Close()
				found, err = firewall.Obstacles(t.Context(), tables, layout)
				return err
			})
			check(t, err)
			var got []string
			for _, o := range found {
				mark := "?"
				if o.Certain {
					mark = "!"
				}
				if o.Untracks {
					mark = "~" + mark
				}
				got = append(got, mark+" "+strings.Join(o.Packets, ", "))
				if o.Show == "" || o.Table == "" || o.Rule == "" {
					t.Errorf("its place is missing: %+v", o)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("%q, want %q\n%s", got, row.want, s.shell(t, node, "nft list ruleset 2>/dev/null; iptables-legacy-save; "+
					"ip6tables-legacy-save"))
			}
		})
	}
}
