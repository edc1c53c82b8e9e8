//go:build system

package doctor

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

const (
	warning = "warning"
	failure = "failure"
)

// A planted row is one fault in a cluster that is otherwise good.
type planted struct {
	name   string
	plant  func(t *testing.T, s *site)
	files  map[string]string           // that the node has too; see site.files
	repair func(t *testing.T, s *site) // nil: the cluster's files are restored anyway
	args   []string
	want   map[string]string // results of the checks that find it; all others are ok
	text   string            // part of what the check shows or advises
}

// on runs a line on node1.
func on(line string) func(*testing.T, *site) {
	return func(t *testing.T, s *site) { t.Helper(); s.shell(t, s.Nodes[0], line) }
}

// onClient runs a line on the client.
func onClient(line string) func(*testing.T, *site) {
	return func(t *testing.T, s *site) { t.Helper(); s.shell(t, s.Client, line) }
}

// onRouter runs a line on the router.
func onRouter(line string) func(*testing.T, *site) {
	return func(t *testing.T, s *site) { t.Helper(); s.shell(t, s.Router, line) }
}

// inConf replaces text in corosync.conf.
func inConf(old, replacement string) func(*testing.T, *site) {
	return func(t *testing.T, s *site) {
		t.Helper()
		text, err := os.ReadFile(s.corosync())
		check(t, err)
		changed := strings.Replace(string(text), old, replacement, 1)
		if changed == string(text) {
			t.Fatalf("corosync.conf has no %q", old)
		}
		check(t, os.WriteFile(s.corosync(), []byte(changed), 0o644))
	}
}

// restart installs what is missing on node1.
func restart(t *testing.T, s *site) {
	t.Helper()
	s.agent(t, s.Nodes[0], "start", 0)
}

func only(check, result string) map[string]string { return map[string]string{check: result} }

// meta sets a meta attribute of the clone, with Pacemaker's own tool.
func meta(name, value string) func(*testing.T, *site) {
	return on("crm_resource --resource web-ip-clone --meta --set-parameter " + name + " --parameter-value " + value)
}

// create adds XML to the CIB.
func create(scope, xml string) string {
	return "cibadmin --create --scope " + scope + " --xml-text '" + xml + "'"
}

const (
	deleteMonitor = "cibadmin --delete --xpath '//op[@name=\"monitor\"]'"
	nginx         = `<clone id="web-clone"><primitive id="web" class="ocf" provider="heartbeat" type="nginx"/></clone>`
	ordered       = `<rsc_order id="web-first" first="web-clone" then="web-ip-clone"/>`
	secondIP      = `<primitive id="other-ip" class="ocf" provider="custom" type="clusterip"><instance_attributes id="o">` +
		`<nvpair id="o1" name="ip" value="192.168.10.3"/><nvpair id="o2" name="nic" value="eth1"/>` +
		`<nvpair id="o3" name="mac" value="03:c1:00:00:00:09"/></instance_attributes></primitive>`

	onlySSH = "nft 'add table inet mine; add chain inet mine in { type filter hook input priority 0; policy drop; }; " +
		"add rule inet mine in ct state vmap { established : accept, related : accept, invalid : drop }; add rule inet mine in iif lo accept; " +
		"add rule inet mine in meta l4proto ipv6-icmp accept; add rule inet mine in tcp dport { 22, 2222-2224 } accept'"

	container = "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -N DOCKER; " +
		"iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -o docker0 -j DOCKER; " +
		"iptables-nft -A DOCKER -d 172.17.0.2 -o docker0 -p tcp --dport 8080 -j ACCEPT; " +
		"iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080"

	noOwnBridge = "ip link delete up9; ip link delete v9; ip link delete br9"

	losing = "nft 'add table ip lossy; add chain ip lossy out { type filter hook output priority 0; }; " +
		"add rule ip lossy out icmp type echo-reply"

	secondOnLAN = "ip link add eth9 type veth peer name peer9 && ip link set eth9 up && ip link set peer9 up && " +
		"ip address add 192.168.10.91/24 dev eth9 && echo 2 >/proc/sys/net/ipv4/conf/eth9/arp_announce"

	ownBridge = "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables; ip link add br9 type bridge mcast_snooping 0; " +
		"ip link add v9 type veth peer name w9; ip link add link v9 name up9 type macvlan mode passthru; " +
		"ip link set up9 up master br9; ip link set v9 up; ip link set w9 up; ip link set br9 up; ip address add 10.5.0.1/24 dev br9; "

	secondNIC = "ip link add eth9 type veth peer name peer9 && ip link set eth9 up && ip link set peer9 up && " +
		"ip address add 10.9.0.1/24 dev eth9 && ip route add default via 10.9.0.2 dev eth9 metric 500"

	// clientsBehind is a network that has the node as its router.
	clientsBehind = "ip link add eth9 type veth peer name peer9 && ip link set eth9 up && ip link set peer9 up && " +
		"ip address add 10.9.0.1/24 dev eth9 && ip address add 2001:db8:9::1/64 dev eth9 nodad && sleep 0.2"
)

// inTheCluster are faults of the configuration.
func inTheCluster() []planted {
	return []planted{
		{
			name:  "fencing is switched off",
			plant: on("crm_attribute --name stonith-enabled --update false"),
			want:  only("fencing", failure),
			text:  "pcs property unset stonith-enabled",
		},
		{
			name:  "no fencing device",
			plant: on("cibadmin --delete --xpath '//primitive[@id=\"fence\"]'"),
			want:  only("fencing", failure),
			text:  "stonith create",
		},
		{
			name:  "the fencing device is disabled",
			plant: on("crm_resource --resource fence --meta --set-parameter target-role --parameter-value Stopped"),
			want:  only("fencing", failure),
			text:  "stonith enable fence",
		},
		{
			name:  "no quorum, and no matter",
			plant: on("crm_attribute --name no-quorum-policy --update ignore"),
			want:  only("quorum-policy", failure),
		},
		{
			name:  "maintenance mode",
			plant: on("crm_attribute --name maintenance-mode --update true"),
			want:  only("maintenance", warning),
			text:  "maintenance-mode=false",
		},
		{
			name:  "a node in standby",
			plant: on("crm_attribute --node node2 --name standby --update on"),
			want:  only("maintenance", warning),
			text:  "unstandby node2",
		},
		{
			name:  "instances that are not globally unique",
			plant: meta("globally-unique", "false"),
			want:  only("unique", failure),
			text:  "globally-unique=true",
		},
		{
			name:  "no room for a dead node's buckets",
			plant: on("crm_resource --resource web-ip-clone --meta --delete-parameter clone-node-max"),
			want:  only("clone-node-max", failure),
			text:  "clone-node-max=8",
		},
		{
			name:  "room for one dead node's buckets",
			plant: meta("clone-node-max", "4"),
			want:  only("clone-node-max", warning),
			text:  "clone-node-max=8",
		},
		{
			name: "nodes without a bucket to spare",
			plant: on(
				create("nodes", `<node id="r1" uname="r1" type="remote"/>`) + "; " + create("nodes", `<node id="r2" uname="r2" type="remote"/>`),
			),
			want: only("buckets", warning),
			text: "clone-max=20",
		},
		{name: "notifications", plant: meta("notify", "true"), want: only("notify", warning)},
		{name: "sticky buckets", plant: meta("resource-stickiness", "100"), want: only("stickiness", warning)},
		{
			name:  "buckets as sticky as by default",
			plant: on("crm_resource --resource web-ip-clone --meta --delete-parameter resource-stickiness"),
			want:  only("stickiness", warning),
		},
		{
			name:  "failures that expire too soon",
			plant: on("crm_resource --resource web-ip --meta --set-parameter failure-timeout --parameter-value 5s"),
			want:  only("failure-timeout", warning),
			text:  "failure-timeout=2min",
		},
		{
			name:  "an order that restarts all buckets",
			plant: on(create("resources", nginx) + "; " + create("constraints", ordered)),
			want:  only("interleave", warning),
			text:  "web-first",
		},
		{name: "no monitor", plant: on(deleteMonitor), want: only("monitor", failure), text: "op monitor interval=10s"},
		{
			name:  "a monitor that runs too seldom",
			plant: on(`cibadmin --modify --xml-text '<op id="web-ip-monitor-interval-10s" interval="300s"/>'`),
			want:  only("monitor", warning),
			text:  "5m",
		},
		{
			name:  "a stop that times out too soon",
			plant: on(`cibadmin --modify --xml-text '<op id="web-ip-stop-interval-0s" timeout="5s"/>'`),
			want:  only("timeouts", warning),
			text:  "op stop timeout=20s",
		},
		{
			name:  "disabled",
			plant: on("crm_resource --resource web-ip --meta --set-parameter target-role --parameter-value Stopped"),
			want:  only("managed", warning),
			text:  "resource enable web-ip",
		},
		{
			name:  "not managed",
			plant: on("crm_resource --resource web-ip --meta --set-parameter is-managed --parameter-value false"),
			want:  only("managed", warning),
			text:  "resource manage web-ip",
		},
		{
			name:  "in maintenance by itself",
			plant: meta("maintenance", "true"),
			want:  only("managed", warning),
			text:  "resource meta web-ip-clone maintenance=",
		},
		{
			name: "a public address with the default seed",
			plant: on(create("resources", `<primitive id="public-ip" class="ocf" provider="custom" type="clusterip">`+
				`<instance_attributes id="p"><nvpair id="p1" name="ip" value="9.9.9.9"/></instance_attributes></primitive>`)),
			// It is not shared either, and this node is not in its network.
			want: map[string]string{"hash-seed": warning, "unique": warning, "monitor": failure, "interface": failure},
			text: "proposes a random one",
		},
		{
			name:  "a parameter that is wrong",
			plant: on("crm_resource --resource web-ip --set-parameter hashmode --parameter-value random"),
			want:  only("parameters", failure),
			text:  "hashmode",
		},
		{
			name:  "a parameter that is misspelt",
			plant: on("crm_resource --resource web-ip --set-parameter hash_mode --parameter-value sourceip"),
			want:  only("parameters", warning),
			text:  "did you mean hashmode?",
		},
		{
			name:  "another seed than installed",
			plant: on("crm_resource --resource web-ip --set-parameter hash_seed --parameter-value 5"),
			want:  only("agreement", failure),
			text:  "hash_seed",
		},
		{name: "another number of buckets than installed", plant: func(t *testing.T, s *site) {
			t.Helper()
			meta("clone-max", "16")(t, s)
			meta("clone-node-max", "16")(t, s)
		}, want: only("agreement", failure), text: "clone-max is 8, requested is 16"},
		{
			name:  "another MAC mode than installed",
			plant: on("crm_resource --resource web-ip --set-parameter mac_mode --parameter-value unicast"),
			want:  only("agreement", failure),
			text:  "mac_mode",
		},
		{
			name:  "installed, but not configured",
			plant: on("cibadmin --delete --xpath '//clone'"),
			want:  only("agreement", failure),
			text:  "is not in the cluster's configuration",
		},
		{
			name:  "two nodes' setting for three",
			plant: inConf("corosync_votequorum", "corosync_votequorum\n\ttwo_node: 1"),
			want:  only("quorum", failure),
			text:  "two_node: 1 with 3 nodes",
		},
		{name: "no quorum is counted", plant: inConf("provider: corosync_votequorum", "# nothing"), want: only("quorum", failure)},
		{name: "a token for nervous clusters", plant: inConf("token: 1000", "token: 200\n\ttoken_coefficient: 0"), want: only("token", warning)},
		{
			name:  "a consensus below the token of three",
			plant: inConf("token: 1000", "token: 1000\n\tconsensus: 1500"),
			want:  only("token", failure),
			text:  "1.65s",
		},
		{
			name:  "a token that grows with the nodes",
			plant: inConf("token: 1000", "token: 1000\n\ttoken_coefficient: 9500"),
			want:  only("token", warning),
			text:  "10.5s",
		},
		{name: "a consensus below the token", plant: inConf("token: 1000", "token: 1000\n\tconsensus: 500"), want: only("token", failure)},
		{name: "one node has one link", plant: inConf("\t\tring1_addr: 10.2.0.2\n", ""), want: only("links", warning)},
		{
			name:  "a node that is unknown to Pacemaker",
			plant: inConf("quorum {", "nodelist {\n\tnode {\n\t\tname: node4\n\t\tring0_addr: 10.1.0.4\n\t\tring1_addr: 10.2.0.4\n\t}\n}\nquorum {"),
			want:  only("nodes", warning),
			text:  "node4",
		},
		{name: "corosync.conf that is broken", plant: inConf("version: 2", "version 2"), want: only("corosync", failure), text: "line 3"},
		{
			name:  "no corosync.conf",
			plant: func(t *testing.T, s *site) { t.Helper(); check(t, os.Remove(s.corosync())) },
			want:  only("corosync", warning),
			text:  "unknown: ",
		},
		{name: "an unreadable CIB", plant: func(t *testing.T, s *site) {
			t.Helper()
			check(t, os.WriteFile(s.cib(), []byte("<cib"), 0o644))
		}, want: only("cib", warning), text: "unknown: "},
	}
}

const oldClone = `<clone id="old-clone"><primitive id="old" class="ocf" provider="heartbeat" type="IPaddr2">` +
	`<instance_attributes id="old-a"><nvpair id="old-ip" name="ip" value="192.168.10.9"/></instance_attributes></primitive></clone>`

// onTheNode are faults of node1's kernel, and of the network.
func onTheNode() []planted {
	return []planted{
		{
			name:   "the address was deleted",
			plant:  on("ip address delete 192.168.10.3/32 dev eth0"),
			repair: restart,
			want:   only("installed", failure),
			text:   "address 192.168.10.3/32 is missing",
		},
		{
			name:   "the rules were flushed",
			plant:  on("nft flush chain netdev clusterip-192.168.10.3 ingress"),
			repair: restart,
			want:   only("installed", failure),
			text:   "pcs resource refresh web-ip-clone",
		},
		{name: "a table is gone", plant: on("nft delete table arp clusterip-192.168.10.3"), repair: restart, want: only("installed", failure)},
		{
			name:   "the MAC filter was deleted",
			plant:  on("ip maddr delete 03:c1:c0:a8:0a:03 dev eth0"),
			repair: restart,
			want:   only("installed", failure),
			text:   "no longer receives frames for the shared MAC",
		},
		{
			name:   "the cable was pulled",
			plant:  func(t *testing.T, s *site) { t.Helper(); check(t, s.UnplugNode(0, lan.NIC)) },
			repair: func(t *testing.T, s *site) { t.Helper(); check(t, s.PlugNode(t.Context(), 0, lan.NIC)) },
			want:   only("link", failure),
			text:   "no carrier",
		},
		{
			name: "a rule drops the address",
			plant: on(
				"nft 'add table inet mine; add chain inet mine in { type filter hook input priority 0; }; " +
					"add rule inet mine in ip daddr 192.168.10.0/28 counter drop'",
			),
			repair: on("nft delete table inet mine"),
			want:   only("firewall", failure),
			text:   "nft -a list chain inet mine in",
		},
		{
			name:   "a firewall that may or may not let services in",
			plant:  on(onlySSH),
			repair: on("nft delete table inet mine"),
			want:   only("firewall", warning),
			text:   "policy drop: may drop tcp to 192.168.10.3",
		},
		{
			name: "firewalld",
			plant: on(
				"nft 'add table inet firewalld; add chain inet firewalld filter_INPUT { type filter hook input priority 10; }; " +
					"add rule inet firewalld filter_INPUT ct state { established, related } accept; " +
					"add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited'",
			),
			repair: on("nft delete table inet firewalld"),
			want:   only("firewalld", failure),
			text:   "firewall-cmd",
		},
		{
			name:   "iptables' policy",
			plant:  on("iptables-legacy -P INPUT DROP"),
			repair: on("iptables-legacy -P INPUT ACCEPT"),
			want:   only("firewall", failure),
			text:   "iptables-legacy",
		},
		{
			name:   "a rule of iptables-nft",
			plant:  on("iptables-nft -A INPUT -d 192.168.10.3 -p tcp -m conntrack --ctstate NEW -j REJECT"),
			repair: on("iptables-nft -F INPUT"),
			want:   only("firewall", failure),
			text:   "tcp to 192.168.10.3",
		},
		{
			name:   "ARP is filtered",
			plant:  on("nft 'add table arp mine; add chain arp mine in { type filter hook input priority 0; policy drop; }'"),
			repair: on("nft delete table arp mine"),
			want:   only("firewall", failure),
			text:   "ARP requests",
		},
		{
			name: "connections are not tracked",
			plant: on(
				"nft 'add table ip mine; add chain ip mine pre { type filter hook prerouting priority raw; }; " +
					"add rule ip mine pre ip daddr 192.168.10.3 notrack'",
			),
			repair: on("nft delete table ip mine"),
			want:   only("notrack", failure),
		},
		{
			name:   "conntrack takes up no connection in its middle",
			plant:  on("echo 0 >/proc/sys/net/netfilter/nf_conntrack_tcp_loose"),
			repair: on("echo 1 >/proc/sys/net/netfilter/nf_conntrack_tcp_loose"),
			want:   only("conntrack-loose", warning),
		},
		{
			name:   "no answer to ARP for scope host",
			plant:  on("echo 3 >/proc/sys/net/ipv4/conf/eth0/arp_ignore"),
			repair: on("echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_ignore"),
			want:   only("arp-ignore", failure),
		},
		{
			name:   "scope host is like scope link",
			plant:  on("echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"),
			repair: on("echo 0 >/proc/sys/net/ipv4/conf/all/route_localnet"),
			want:   only("route-localnet", warning),
			text:   "without a gateway",
		},
		{
			name:   "no answer to ARP",
			plant:  on("echo 8 >/proc/sys/net/ipv4/conf/eth0/arp_ignore"),
			repair: on("echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_ignore"),
			want:   only("arp-ignore", failure),
		},
		{
			name:   "a strict reverse path, and two ways out",
			plant:  on(secondNIC + "; echo 2 >/proc/sys/net/ipv4/conf/eth9/arp_announce; echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter"),
			repair: on("ip link delete eth9; echo 0 >/proc/sys/net/ipv4/conf/eth0/rp_filter"),
			want:   only("reverse-path", warning),
			text:   "eth9",
		},
		{
			name: "ARP answers by one of two interfaces", plant: on(secondOnLAN + "; echo 1 >/proc/sys/net/ipv4/conf/all/arp_filter"),
			repair: on("ip link delete eth9; echo 0 >/proc/sys/net/ipv4/conf/all/arp_filter"), want: only("arp-filter", warning), text: "eth9",
		},
		{
			name:   "the node is the router of clients",
			plant:  on(clientsBehind + "; echo 1 >/proc/sys/net/ipv4/ip_forward"),
			repair: on("ip link delete eth9; echo 0 >/proc/sys/net/ipv4/ip_forward"),
			want:   only("forwarding", warning),
			text:   "10.9.0.0/24",
		},
		{
			name:   "the node is the router of IPv6 clients",
			plant:  on(clientsBehind + "; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"),
			repair: on("ip link delete eth9; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"),
			want:   only("forwarding", warning),
			text:   "2001:db8:9::/64",
		},
		{
			name:   "unicast packets in group frames are dropped",
			plant:  on("echo 1 >/proc/sys/net/ipv6/conf/eth0/drop_unicast_in_l2_multicast"),
			repair: on("echo 0 >/proc/sys/net/ipv6/conf/eth0/drop_unicast_in_l2_multicast"),
			want:   only("group-frames", warning),
		},
		{
			name:  "a clone of IPaddr2 has the address",
			plant: on("ip address add 192.168.10.9/24 dev eth0; " + create("resources", oldClone)),
			repair: func(t *testing.T, s *site) {
				t.Helper()
				s.shell(t, s.Nodes[0], "ip address delete 192.168.10.9/24 dev eth0")
				s.reset(t)
			},
			args: []string{"--ip", "192.168.10.9", "--buckets", "8"}, want: only("interface", failure),
			text: "ocf-clusterip convert --resource old-clone",
		},
		{
			name:   "another host has the address",
			plant:  onClient("ip address add 192.168.10.3/32 dev eth0"),
			repair: onClient("ip address delete 192.168.10.3/32 dev eth0"),
			want:   only("address-conflict", failure),
			text:   "02:00:00:00:02:01",
		},
		{
			name: "a neighbour answers for others",
			plant: onClient(
				"echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv4/conf/eth0/proxy_arp; " +
					"ip link add aside type veth peer name peer; ip link set aside up; ip link set peer up; ip route add 192.168.10.3/32 dev aside",
			),
			repair: onClient("ip link delete aside; echo 0 >/proc/sys/net/ipv4/conf/eth0/proxy_arp; echo 0 >/proc/sys/net/ipv4/ip_forward"),
			want:   only("address-conflict", failure),
			text:   "02:00:00:00:02:01",
		},
		{
			name: "a node with another MAC", plant: func(t *testing.T, s *site) {
				t.Helper()
				s.shell(t, s.Nodes[0], "ip neighbour replace 192.168.10.12 lladdr 02:00:00:00:01:02 dev eth0")
				s.shell(t, s.Nodes[1], "nft delete table arp clusterip-192.168.10.3")
			}, repair: func(t *testing.T, s *site) { t.Helper(); s.agent(t, s.Nodes[1], "start", 1) }, want: only("address-conflict", failure),
			text: "192.168.10.12",
		},
		{
			name:   "the router has another MAC",
			plant:  onRouter("ip neighbour replace 192.168.10.3 lladdr 02:00:00:00:00:99 nud permanent dev eth0"),
			repair: onRouter("ip neighbour delete 192.168.10.3 dev eth0"),
			want:   only("router", failure),
			text:   "02:00:00:00:00:99",
		},
		{
			name:   "the router has one node's MAC",
			plant:  onRouter("ip neighbour replace 192.168.10.3 lladdr 02:00:00:00:01:02 nud permanent dev eth0"),
			repair: onRouter("ip neighbour delete 192.168.10.3 dev eth0"),
			want:   only("router", failure),
			text:   "does not go to the shared MAC",
		},
		{
			name: "the router loses an answer", plant: onRouter(losing + " numgen inc mod 3 0 drop'"),
			repair: onRouter("nft delete table ip lossy"),
		},
		{
			name:   "the router loses the first answer to the address",
			plant:  onRouter(losing + " ip daddr 192.168.10.3 numgen inc mod 2 0 drop'"),
			repair: onRouter("nft delete table ip lossy"),
		},
		{
			name:   "the router answers but once",
			plant:  onRouter(losing + " limit rate over 1/day burst 1 packets drop'"),
			repair: onRouter("nft delete table ip lossy"),
			want:   only("router", warning),
			text:   "it may limit its answers",
		},
		{
			name:   "the router is silent",
			plant:  onRouter("echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all"),
			repair: onRouter("echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_all"),
			want:   only("router", warning),
			text:   "unknown: ",
		},
	}
}

// The files of services that manage networks and firewalls.
const (
	nftablesUnit = "/usr/lib/systemd/system/nftables.service"
	enabled      = "/etc/systemd/system/sysinit.target.wants/nftables.service"
	loadsRules   = "[Service]\nExecStart=/usr/sbin/nft -f /etc/nftables.conf\n"
	networkdUnit = "/run/systemd/units/invocation:systemd-networkd.service"
	networkFile  = "/etc/systemd/network/10-eth0.network"
	networkMatch = "[Match]\nName=eth0\n[Network]\nAddress=192.168.10.11/24\n"
	managerUnit  = "/run/systemd/units/invocation:NetworkManager.service"
)

// neighbourFiles are those of the machine's first network namespace. All others have none: that of the node gets them for a test.
func neighbourFiles(limit6, statistics6 string) map[string]string {
	const names = "entries  table_fulls\n"
	return map[string]string{
		"/proc/sys/net/ipv4/neigh/default/gc_thresh3": "1024\n", "/proc/net/stat/arp_cache": names + "00000002 00000000\n",
		"/proc/sys/net/ipv6/neigh/default/gc_thresh3": limit6 + "\n", "/proc/net/stat/ndisc_cache": names + statistics6 + "\n",
	}
}

// inServices are faults of services that manage the node's network and firewall. They need not run: their files show what they do.
func inServices(nicIndex string) []planted {
	link := map[string]string{
		networkdUnit: "", "/run/systemd/netif/links/" + nicIndex: "ADMIN_STATE=configured\nNETWORK_FILE=" + networkFile + "\n",
	}
	networkd := func(files map[string]string) map[string]string {
		maps.Copy(files, link)
		return files
	}
	return []planted{
		{
			name: "networkd removes addresses", files: networkd(map[string]string{networkFile: networkMatch}),
			want: only("networkd", warning), text: "/etc/systemd/network/10-eth0.network.d/clusterip.conf",
		},
		{
			name: "networkd removes routes", files: networkd(map[string]string{
				networkFile: networkMatch, networkFile + ".d/clusterip.conf": "[Network]\nKeepConfiguration=static\n",
			}),
			want: only("networkd", warning), text: "ManageForeignRoutes=no",
		},
		{
			name: "networkd keeps both", files: networkd(map[string]string{
				networkFile: networkMatch, networkFile + ".d/clusterip.conf": "[Network]\nKeepConfiguration=static\n",
				"/etc/systemd/networkd.conf.d/clusterip.conf": "[Network]\nManageForeignRoutes=no\n",
			}),
		},
		{
			name: "networkd that shows nothing", files: map[string]string{networkdUnit: ""},
			want: only("networkd", warning), text: "unknown: ",
		},
		{
			name:  "NetworkManager manages the interface",
			files: map[string]string{managerUnit: "", "/run/NetworkManager/devices/" + nicIndex: "[device]\nmanaged=true\n"},
			want:  only("networkmanager", warning), text: "unmanaged-devices+=interface-name:=%s",
		},
		{
			name:  "NetworkManager leaves the interface alone",
			files: map[string]string{managerUnit: "", "/run/NetworkManager/devices/" + nicIndex: "[device]\nmanaged=false\n"},
		},
		{
			name:  "nftables.service loads a flush",
			files: map[string]string{enabled: "", nftablesUnit: loadsRules, "/etc/nftables.conf": "flush ruleset\n"},
			want:  only("flush", warning), text: "/etc/nftables.conf has flush ruleset",
		},
		{
			name: "nftables.service flushes at its end",
			files: map[string]string{
				enabled: "", nftablesUnit: loadsRules + "ExecStop=/usr/sbin/nft flush ruleset\n", "/etc/nftables.conf": "table inet filter\n",
			},
			want: only("flush", warning), text: "systemctl edit nftables.service",
		},
		{
			name: "saved rules of iptables while the agent uses nftables",
			files: map[string]string{
				"/etc/systemd/system/multi-user.target.wants/netfilter-persistent.service": "", "/etc/iptables/rules.v4": "*mangle\nCOMMIT\n",
			},
		},
		{
			name:  "conntrack's table is nearly full",
			files: map[string]string{"/proc/sys/net/netfilter/nf_conntrack_count": "99", "/proc/sys/net/netfilter/nf_conntrack_max": "100"},
			want:  only("conntrack", failure), text: "99 of 100 entries",
		},
		{
			name:  "the table of IPv6 neighbours is nearly full",
			files: neighbourFiles("1024", "000003f0 00000001"),
			want:  only("neighbours", failure), text: "ipv6: 1008 of 1024 entries are used (98 %); packets that found it full since boot: 1",
		},
		{
			name:  "the table of IPv6 neighbours was full once",
			files: neighbourFiles("1024", "00000020 00000001"),
		},
		{
			name:   "the table of IPv6 neighbours is full of those that do not count",
			plant:  on("for i in 1 2 3; do ip neighbour add 2001:db8:10::7$i lladdr 02:00:00:00:00:7$i nud permanent dev eth0; done"),
			repair: on("for i in 1 2 3; do ip neighbour delete 2001:db8:10::7$i dev eth0; done"),
			files:  neighbourFiles("5", "00000005 00000000"),
		},
	}
}

// TestPlanted expects that the check for a fault finds it, and that no other check does.
func TestPlanted(t *testing.T) {
	s := newSite(t)
	if bad := s.doctor(t); len(bad.bad()) > 0 {
		t.Fatalf("the good cluster is found fault with:\n%s", bad.text())
	}
	t.Run("in the cluster", func(t *testing.T) {
		for _, row := range inTheCluster() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel() // each has files of its own
				own := *s
				own.folder = t.TempDir()
				own.reset(t)
				row.find(t, &own)
			})
		}
	})
	t.Run("on the node", func(t *testing.T) {
		for _, row := range onTheNode() {
			t.Run(row.name, func(t *testing.T) { row.find(t, s) })
		}
	})
	t.Run("in services", func(t *testing.T) {
		for _, row := range inServices(strings.TrimSpace(s.shell(t, s.Nodes[0], "cat /sys/class/net/eth0/ifindex"))) {
			t.Run(row.name, func(t *testing.T) { row.find(t, s) })
		}
	})
	if bad := s.doctor(t); len(bad.bad()) > 0 {
		t.Errorf("after all of this, the good cluster is found fault with:\n%s", bad.text())
	}
}

func (p planted) find(t *testing.T, s *site) {
	t.Helper()
	if p.plant != nil {
		p.plant(t, s)
	}
	with := *s
	with.files = p.files
	if p.repair != nil {
		defer p.repair(t, s)
	}
	p.compare(t, with.doctor(t, p.args...))
}

func (p planted) compare(t *testing.T, r report) {
	t.Helper()
	if diff := cmp.Diff(p.want, r.bad(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s%s", diff, r.text())
	}
	matches := func(f finding) bool {
		return f.Result != "ok" && strings.Contains(f.Seen+"\n"+strings.Join(f.Do, "\n"), p.text)
	}
	if p.text != "" && !slices.ContainsFunc(r.Checks, matches) {
		t.Errorf("no check shows %q:\n%+v", p.text, r.Checks)
	}
}

// TestBeforeItExists is about a node without Pacemaker, and a resource that is only planned.
func TestBeforeItExists(t *testing.T) {
	executable, err := harness.Program()
	check(t, err)
	s := &site{Network: lan.Start(t, lan.Options{IPv6: true, Snooping: true, Querier: true}), program: executable, folder: t.TempDir()}
	s.shell(t, s.Switch, "echo 100 >/sys/class/net/br0/bridge/multicast_query_interval") // every second
	for _, row := range []planted{
		{name: "all is well", args: []string{"--ip", shared + " " + shared6, "--buckets", "8"}},
		{
			name: "an address that another host has", args: []string{"--ip", "192.168.10.12"}, want: only("address-conflict", failure),
			text: "02:00:00:00:01:02",
		},
		{name: "no such interface", args: []string{"--ip", shared, "--nic", "eth7"}, want: only("interface", failure), text: "eth7"},
		{name: "a network that is not here", args: []string{"--ip", "10.77.0.1"}, want: only("interface", failure)},
		{
			name: "a backend that this kernel does not have", args: []string{"--ip", shared, "--backend", "clusterip"},
			want: only("backend", failure),
		},
		{
			name: "doctor has not waited for a querier", args: []string{"--ip", shared, "--mac-mode", "igmp"}, want: only("querier", warning),
			text: "--wait 130",
		},
		{name: "a querier is heard", args: []string{"--ip", shared + " " + shared6, "--mac-mode", "igmp", "--wait", "30"}},
		{
			name: "a firewall that does not let the service in", plant: on(onlySSH), repair: on("nft delete table inet mine"),
			args: []string{"--ip", shared, "--services", "tcp/80 tcp/2223"}, want: only("firewall", failure),
			text: "policy drop: drops tcp/80 to 192.168.10.3",
		},
		{
			name: "a firewall that lets the services in", plant: on(onlySSH), repair: on("nft delete table inet mine"),
			args: []string{"--ip", shared + " " + shared6, "--services", "tcp/22 tcp/2223"},
		},
		{
			name:   "the service is in a container, to which nothing is forwarded",
			plant:  on(container + "; iptables-nft -I DOCKER-USER -i eth0 -j DROP"),
			repair: on("iptables-nft -F; iptables-nft -X; iptables-nft -P FORWARD ACCEPT; iptables-nft -t nat -F"),
			args:   []string{"--ip", shared, "--services", "tcp/80"}, want: only("firewall", failure),
			text: "nft -a list chain ip filter DOCKER-USER",
		},
		{
			name: "the service is in a container", plant: on(container + "; iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p icmp -j ACCEPT"),
			repair: on("iptables-nft -F; iptables-nft -X; iptables-nft -P INPUT ACCEPT; iptables-nft -P FORWARD ACCEPT; iptables-nft -t nat -F"),
			args:   []string{"--ip", shared, "--services", "tcp/80 icmp"},
		},
		{
			name: "a bridge that drops frames",
			plant: on(ownBridge + "nft 'add table bridge mine; add chain bridge mine in { type filter hook input priority 0; policy drop; }; " +
				"add rule bridge mine in ether type arp accept'"),
			repair: on(noOwnBridge + "; nft delete table bridge mine"), args: []string{"--ip", "10.5.0.3"}, want: only("firewall", failure),
			text: "nft -a list chain bridge mine in",
		},
		{
			name: "a bridge that drops frames of a guest",
			plant: on(ownBridge + "nft 'add table bridge mine; add chain bridge mine in { type filter hook prerouting priority 0; }; " +
				"add rule bridge mine in iifname v9 drop'"),
			repair: on(noOwnBridge + "; nft delete table bridge mine"), args: []string{"--ip", "10.5.0.3"},
		},
		{
			name: "no IPv6", plant: on("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6"),
			repair: on("echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6"),
			args:   []string{"--ip", "2001:db8:10::3", "--nic", "eth0"}, want: only("ipv6", failure),
		},
		{
			name: "a bridge that snoops", plant: on(ownBridge + "ip link set br9 type bridge mcast_snooping 1"),
			repair: on(noOwnBridge), args: []string{"--ip", "10.5.0.3"}, want: only("snooping", warning), text: "mcast_router 2",
		},
		{
			name: "a bridge that snoops and takes all groups", plant: on(ownBridge + "ip link set br9 type bridge mcast_snooping 1 mcast_router 2"),
			repair: on(noOwnBridge), args: []string{"--ip", "10.5.0.3"},
		},
		{
			name: "a bridge that snoops, and a unicast MAC", plant: on(ownBridge + "ip link set br9 type bridge mcast_snooping 1"),
			repair: on(noOwnBridge), args: []string{"--ip", "10.5.0.3", "--mac-mode", "unicast"},
		},
		{
			name: "a bridge that calls iptables", plant: on(ownBridge + "ip link set br9 type bridge nf_call_iptables 1"),
			repair: on(noOwnBridge), args: []string{"--ip", "10.5.0.3"}, want: only("bridge-nf", warning),
			text: "net.bridge.bridge-nf-call-iptables=0",
		},
		{
			name:   "a bridge with a guest, and a unicast MAC",
			plant:  on(ownBridge + "ip link add g9 type veth peer name h9; ip link set h9 up; ip link set g9 up master br9"),
			repair: on(noOwnBridge + "; ip link delete g9"), args: []string{"--ip", "10.5.0.3", "--mac-mode", "unicast"},
			want: only("guests", warning), text: "one end a port of br9",
		},
		{
			name:   "a bridge whose uplink is dead",
			plant:  on(ownBridge + "ip link add g9 type veth peer name h9; ip link set h9 up; ip link set g9 up master br9; ip link set v9 down"),
			repair: on(noOwnBridge + "; ip link delete g9"), args: []string{"--ip", "10.5.0.3"}, want: only("link", failure), text: "up9",
		},
		{
			name: "a port of a bridge",
			plant: on("ip link add br9 up type bridge; ip link add v9 type veth peer name w9; ip link set v9 up master br9; ip link set w9 up; " +
				"ip address add 10.5.0.1/24 dev v9"),
			repair: on("ip link delete v9; ip link delete br9"), args: []string{"--ip", "10.5.0.3"},
			want: only("interface", failure), text: "nic=br9",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.plant != nil {
				row.plant(t, s)
			}
			if row.repair != nil {
				defer row.repair(t, s)
			}
			// No cluster: cibadmin is not there.
			r := s.without(t, "/usr/sbin/cibadmin", row.args...)
			row.compare(t, r)
			for _, f := range r.Checks {
				if f.Resource == "" {
					t.Errorf("there is no cluster, but %s was checked", f.Check)
				}
			}
		})
	}
}

// TestClusterWithoutResource is about a cluster that does not start, so that nothing is installed, and one without the resource.
func TestClusterWithoutResource(t *testing.T) {
	executable, err := harness.Program()
	check(t, err)
	s := &site{Network: lan.Start(t, lan.Options{Nodes: 1}), program: executable, folder: t.TempDir()}
	s.reset(t)
	row := planted{plant: on("cibadmin --delete --xpath '//clone'"), want: only("resources", warning), text: "doctor --ip"}
	row.find(t, s)
	check(t, os.WriteFile(s.corosync(), []byte("totem {\n"), 0o644))
	// Without CIB_file, cibadmin asks a Pacemaker that is not there.
	row = planted{want: map[string]string{"cib": warning, "corosync": failure}}
	r := s.report(t, "/usr/bin/env", "-u", "CIB_file", s.program, "doctor", "--json")
	row.compare(t, r)
	for _, why := range []string{"section totem has no end", "Could not connect"} {
		if !strings.Contains(r.text(), why) {
			t.Errorf("%q is not printed:\n%s", why, r.text())
		}
	}
}

// TestWrongInput checks the errors for mistakes that a new user may make.
func TestWrongInput(t *testing.T) {
	executable, err := harness.Program()
	check(t, err)
	s := &site{Network: lan.Start(t, lan.Options{Nodes: 1}), program: executable, folder: t.TempDir()}
	for _, row := range []struct {
		name  string
		args  []string
		names []string // what the error must name
	}{
		{"nothing to look at", nil, []string{"--ip"}},
		{"an address as an argument", []string{shared}, []string{shared, "--ip"}},
		{"no address", []string{"--ip", "example.org"}, []string{"example.org"}},
		{"an address that is missing", []string{"--nic", "eth0"}, []string{"--ip"}},
		{"buckets without an address", []string{"--buckets", "8"}, []string{"--ip"}},
		{"no number", []string{"--ip", shared, "--buckets", "many"}, []string{"many"}},
		{"too many buckets", []string{"--ip", shared, "--buckets", "2000"}, []string{"2000", "1024"}},
		{"a wait that is too long", []string{"--ip", shared, "--wait", "100000"}, []string{"100000", "3600"}},
		{"several faults", []string{"--ip", shared, "--hashmode", "random", "--mac-mode", "none"}, []string{"random", "none"}},
		{
			"parameters that do not go together",
			[]string{"--ip", shared, "--backend", "xt_cluster", "--drain", "5"},
			[]string{"xt_cluster", "drain"},
		},
		{"a flag that does not exist", []string{"--frobnicate"}, []string{"frobnicate", "doctor --help"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), hung)
			defer cancel()
			r := s.Nodes[0].Run(ctx, s.environ(), hidden("/usr/sbin/cibadmin", append([]string{s.program, "doctor"}, row.args...)...)...)
			if r.Err != nil || r.ExitCode != 2 || r.Stdout != "" || strings.Contains(r.Stderr, "goroutine") ||
				strings.Contains(r.Stderr, "ocf-exit-reason") {
				t.Errorf("status %d, %v, stdout %q, stderr %q", r.ExitCode, r.Err, r.Stdout, r.Stderr)
			}
			for _, name := range row.names {
				if !strings.Contains(r.Stderr, name) {
					t.Errorf("the error does not name %q: %s", name, r.Stderr)
				}
			}
		})
	}
}
