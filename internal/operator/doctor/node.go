package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/internal/text"
)

// kernelChecks check what this kernel provides.
func kernelChecks() []check {
	const group = "kernel"
	return []check{
		{
			group, "backend", "Without a backend that the kernel supports, no bucket starts on this node.",
			func(s subject) bool { return len(s.Capabilities) > 0 }, judgeBackend,
		},
		{
			group, "conntrack",
			"Hand-overs and the match cluster recognise connections by their conntrack entries. When the table is full, the kernel drops new " +
				"connections.",
			tracks, judgeConntrack,
		},
		{
			group, "conntrack-loose",
			"Connections that are older than the drain setting survive a hand-over only if conntrack picks them up midway.",
			drains, judgeLoose,
		},
		{
			group, "neighbours",
			"Each client in the node's own network needs an entry in the kernel's neighbour table. When the table is full, the kernel drops the " +
				"answers to clients that have none.",
			func(s subject) bool { return hasNIC(s) && len(s.neighbourFamilies()) > 0 }, judgeNeighbours,
		},
	}
}

func judgeBackend(s subject) answer {
	chosen := s.backend()
	var others, reasons []string
	var own clusterip.Capability
	for _, c := range s.Capabilities {
		word := map[clusterip.Answer]string{clusterip.Yes: "yes", clusterip.No: "no", clusterip.Unknown: "unknown"}[c.Answer]
		if c.Backend == chosen {
			own = c
		} else {
			others = append(others, fmt.Sprintf("%s: %s", c.Backend, word))
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", c.Backend, c.Why))
	}
	do := "modprobe nf_tables   # or a kernel with CONFIG_NF_TABLES and its netdev, arp and ip6 families"
	switch {
	case chosen == "":
		return fail("this kernel supports no backend for this resource: "+strings.Join(reasons, "; "), do)
	case own.Answer == clusterip.No:
		return fail(fmt.Sprintf("this kernel does not support backend=%s: %v", chosen, own.Why), s.update("backend=auto"))
	case own.Answer == clusterip.Unknown:
		return unknown(own.Why, do)
	case len(others) > 0:
		return ok("%s (%s)", chosen, strings.Join(others, ", "))
	default:
		return ok("%s", chosen)
	}
}

// What to type when a fact could not be read.
const (
	readSysctl  = "sysctl -a   # as root"
	readNetwork = "ip address; ip route; ip neighbour"
)

// sysctl returns a kernel parameter as a number. One that this kernel does not have is 0, because nobody can have switched it on.
func (s subject) sysctl(format string, of ...any) (uint64, error) {
	name := fmt.Sprintf(format, of...)
	fact, known := s.Sysctls[name]
	switch {
	case !known:
		return 0, fmt.Errorf("%s was not read", name)
	case errors.Is(fact.Err, fs.ErrNotExist):
		return 0, nil
	case fact.Err != nil:
		return 0, fact.Err
	}
	number, err := strconv.ParseUint(fact.Value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is %s, which is not a number", name, ocf.Quote(fact.Value))
	}
	return number, nil
}

// effective returns the greater one of an interface's own parameter and that of all (include/linux/inetdevice.h, IN_DEV_MAXCONF).
func (s subject) effective(format, nic string) (uint64, error) {
	everywhere, err := s.sysctl(format, "all")
	own, ownErr := s.sysctl(format, nic)
	return max(everywhere, own), errors.Join(err, ownErr)
}

// set returns the commands that set a kernel parameter. They have slashes, which names of interfaces may need.
func set(value int, format string, of ...string) []string {
	var commands []string
	for _, one := range of {
		commands = append(commands, fmt.Sprintf("sysctl -w "+format+"=%d", one, value))
	}
	return append(commands, "# and in /etc/sysctl.d/, so that it lasts")
}

func judgeConntrack(s subject) answer {
	count, countErr := s.sysctl(conntrackCount)
	most, mostErr := s.sysctl(conntrackMax)
	if err := errors.Join(countErr, mostErr); err != nil {
		return unknown(err, readSysctl)
	}
	if most == 0 {
		return ok("not in use yet")
	}
	return judgeFilling(count, most, fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d   # about 300 bytes each", most*2))
}

// judgeFilling judges how many entries of a kernel's table are used. The commands in do raise its limit.
func judgeFilling(count, most uint64, do ...string) answer {
	const whole, full, much = 100, 95, 75
	share := count * whole / max(most, 1)
	seen := fmt.Sprintf("%d of %d entries are used (%d %%)", count, most, share)
	switch {
	case share >= full:
		return fail(seen, do...)
	case share >= much:
		return warn(seen, do...)
	default:
		return answer{seen: seen, do: do}
	}
}

// neighbourFamilies returns the families of the address whose neighbour tables have a limit that can be read.
func (s subject) neighbourFamilies() []string {
	isOfFamily := map[string]func(netip.Addr) bool{"ipv4": netip.Addr.Is4, "ipv6": netip.Addr.Is6}
	var families []string
	for _, family := range []string{"ipv4", "ipv6"} {
		if s.layout.Has(isOfFamily[family]) && !errors.Is(s.Sysctls[fmt.Sprintf(neighbourMax, family)].Err, fs.ErrNotExist) {
			families = append(families, family)
		}
	}
	return families
}

func judgeNeighbours(s subject) answer {
	var answers []answer
	var seen []string
	for _, family := range s.neighbourFamilies() {
		table, exempt := s.Neighbours.IPv4, s.Around.Value.Exempt.IPv4
		if family == "ipv6" {
			table, exempt = s.Neighbours.IPv6, s.Around.Value.Exempt.IPv6
		}
		most, err := s.sysctl(neighbourMax, family)
		if err := errors.Join(err, table.Err, s.Around.Err); err != nil {
			answers = append(answers, unknown(err, "ip neighbour; cat /proc/net/stat/arp_cache /proc/net/stat/ndisc_cache", readSysctl))
			continue
		}
		a := judgeNeighbourTable(table.Value, exempt, most, family)
		answers, seen = append(answers, a), append(seen, a.seen)
	}
	return all(strings.Join(seen, "; "), answers...)
}

func judgeNeighbourTable(table NeighbourTable, exempt, most uint64, family string) answer {
	const standard, more = 1024, 4 // the kernel's default limit, and how much more is advised
	advised := max(most, standard) * more
	count := table.Entries - min(table.Entries, exempt)
	a := judgeFilling(count, most,
		fmt.Sprintf("sysctl -w net.%[1]s.neigh.default.gc_thresh3=%[2]d net.%[1]s.neigh.default.gc_thresh2=%[3]d   # about 500 bytes each",
			family, advised, advised/2),
		"# and in /etc/sysctl.d/, so that it lasts")
	a.seen = fmt.Sprintf("%s: %s", family, a.seen)
	if table.Overflows > 0 {
		a.seen += fmt.Sprintf("; packets that found it full since boot: %d", table.Overflows)
		// With more clients than the limit, the kernel's garbage collection leaves at least gc_thresh2 entries, by default half of the limit.
		// With fewer, the limit has been raised since, or the clients have gone.
		if count >= most/2 {
			a.result = max(a.result, Warning)
		}
	}
	return a
}

func judgeLoose(s subject) answer {
	loose, err := s.sysctl(conntrackLoose)
	switch {
	case err != nil:
		return unknown(err, readSysctl)
	case s.Sysctls[conntrackLoose].Err != nil:
		return ok("not in use yet")
	case loose == 0:
		return warn("nf_conntrack_tcp_loose=0", "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1")
	default:
		return ok("nf_conntrack_tcp_loose=1")
	}
}

// nicChecks check the interface, and the node's other interfaces.
func nicChecks() []check {
	const group = "interface"
	is4 := func(s subject) bool { return hasNIC(s) && s.layout.Has(netip.Addr.Is4) }
	is6 := func(s subject) bool { return hasNIC(s) && s.layout.Has(netip.Addr.Is6) }
	isGroup := func(s subject) bool {
		return hasNIC(s) && slices.ContainsFunc(s.layout.AllMACs(), clusterip.MAC.Group)
	}
	return []check{
		{
			group, "interface",
			"The address must be on an Ethernet interface of its own network, on the same one on all nodes, and on no other one.",
			func(s subject) bool { return s.State.Err == nil && len(s.Spec.Addresses) > 0 }, judgeInterface,
		},
		{group, "link", "Without a link no client reaches this node, and its buckets move away.", hasNIC, judgeLink},
		{
			group, "networkd",
			"When systemd-networkd configures the interface anew (networkctl reconfigure, netplan apply), it removes addresses and routes that it " +
				"has not configured itself; newer ones (systemd 262) do so at each start, as with an upgrade of systemd.",
			hasNIC, judgeNetworkd,
		},
		{
			group, "networkmanager",
			"Whenever NetworkManager activates the interface's connection anew (nmcli connection up, a link that was lost for seconds), it " +
				"removes addresses and routes that it has not configured itself. Until the next monitor, clients get no answer.",
			hasNIC, judgeNetworkManager,
		},
		{
			group, "snooping",
			"A Linux bridge with multicast snooping that has heard a querier delivers unicast packets in frames to a group MAC to no port: the " +
				"node then receives nothing from any client.",
			isGroup, judgeSnooping,
		},
		{
			group, "bridge-nf",
			"A bridge that calls iptables runs the prerouting hooks on frames before the node's own interface gets them: a DNAT rule there makes " +
				"every node answer.",
			hasNIC, judgeBridgeNetfilter,
		},
		{
			group, "guests",
			"A bridge does not forward frames to its own MAC. With mac_mode=unicast that is the shared MAC, so the bridge's guests get answers " +
				"only from this node's buckets.",
			func(s subject) bool { return hasNIC(s) && !isGroup(s) }, judgeGuests,
		},
		{group, "ipv6", "An interface without IPv6 cannot have the address.", is6, judgeIPv6},
		{
			group, "reverse-path", "A strict reverse path filter drops packets of clients that the node would answer through another interface.",
			is4, judgeReversePath,
		},
		{group, "arp-ignore", "The node must answer ARP requests for the address, or clients do not find it.", is4, judgeARPIgnore},
		{
			group, "arp-filter", "With arp_filter the node answers an ARP request only on the interface through which it would reach the client.",
			is4, judgeARPFilter,
		},
		{
			group, "route-localnet",
			"With route_localnet the kernel may use an address of scope host as the source of the node's own connections. The answers then reach " +
				"other nodes.",
			is4, judgeRouteLocalnet,
		},
		{
			group, "forwarding",
			"Only packets that arrive on the address's own interface are filtered. A node that routes packets of clients to the address answers " +
				"all of them, whatever their bucket.",
			hasNIC, judgeForwarding,
		},
		{
			group, "arp-announce",
			"Only on the address's own interface do ARP requests contain it as their sender. On others they contain 0.0.0.0, or are dropped, and " +
				"the neighbour is not found.",
			is4, judgeARPAnnounce,
		},
		{
			group, "group-frames",
			"The kernel drops unicast packets in frames to a group MAC: ICMP errors (path MTU), and packets of buckets that drain.",
			isGroup, judgeGroupFrames,
		},
		{
			group, "promiscuous",
			"A promiscuous interface on the same network also receives the frames for the shared MAC, and with this backend the node would answer " +
				"them a second time.",
			hasNIC, judgePromiscuous,
		},
	}
}

func judgeInterface(s subject) answer {
	if why := s.State.Value.PortFault(s.nic); why != "" {
		return fail(why, s.update("nic="+s.State.Value.Top(s.nic).Name))
	}
	if why := s.State.Value.VRFFault(s.nic); why != "" {
		return fail(why, "ip -brief link show type vrf",
			fmt.Sprintf("ip link set %s nomaster   # and in the network's configuration", s.nic.Name))
	}
	if _, err := s.Layout(); err != nil {
		return s.judgeFaults(ocf.Split(err))
	}
	if why := s.State.Value.UnicastFault(s.layout); why != "" {
		return fail(why, s.update("mac_mode=multicast   # with the resource disabled"))
	}
	return ok("%s has %s", s.nic.Name, text.Join(s.layout.Prefixes, ", "))
}

// judgeFaults is the failure for the reasons why the address cannot be installed.
func (s subject) judgeFaults(faults []error) answer {
	var answers []answer
	var others []error
	for _, fault := range faults {
		if foreign, is := errors.AsType[clusterip.ForeignAddressError](fault); is {
			if holder, found := s.cib.ipaddr2(foreign.Address.Addr()); found {
				seen := fmt.Sprintf("%s: %s of ocf:heartbeat:IPaddr2 has it", foreign.Seen(), holder.ID())
				answers = append(answers, fail(seen, s.replace(holder)...))
				continue
			}
		}
		others = append(others, fault)
	}
	if len(others) > 0 {
		answers = append(answers, failed(errors.Join(others...), "ip -brief address", "ip -brief link"))
	}
	return all("", answers...)
}

// replace returns the commands that take an address from a resource of IPaddr2, without deleting the address, which Pacemaker would take
// for a failure. A primitive cannot be converted.
func (s subject) replace(holder pacemaker.Resource) []string {
	do := []string{"# do not delete the address: Pacemaker would find " + holder.Name + " failed"}
	if holder.Clone == "" {
		return append(do, "pcs resource disable "+holder.Name, waitUntilStopped)
	}
	if isConfigured(s) {
		do = append(do, fmt.Sprintf("pcs resource delete %s   # for %s becomes a resource of this agent:", s.name(), holder.Name))
	}
	return append(do, fmt.Sprintf("ocf-clusterip convert --resource %s   # prints the commands: docs/upgrade.md", holder.Clone))
}

func judgeLink(s subject) answer {
	switch {
	case !s.nic.Up:
		return fail(s.nic.Name+" is down", fmt.Sprintf("ip link set %s up", s.nic.Name))
	case !s.nic.Running:
		return fail(s.nic.Name+" has no carrier", fmt.Sprintf("ethtool %s   # and check its cable and switch port", s.nic.Name))
	}
	if why := s.State.Value.LinkFault(s.nic); why != "" {
		return fail(why, "ip -brief link; bridge link", "# and check their cables and switch ports; check_link=false if clients use other ports")
	}
	return ok("%s is up and has a carrier", s.nic.Name)
}

func judgeIPv6(s subject) answer {
	off, err := s.sysctl(disablesIPv6, s.nic.Name)
	switch {
	case err != nil:
		return unknown(err, readSysctl)
	case s.Sysctls[fmt.Sprintf(disablesIPv6, s.nic.Name)].Err != nil:
		return fail(s.nic.Name+" has no IPv6: its MTU is below 1280, or the kernel has no IPv6",
			fmt.Sprintf("ip link set %s mtu 1500", s.nic.Name))
	case off != 0:
		return fail("IPv6 is disabled on "+s.nic.Name, set(0, disablesIPv6, s.nic.Name)...)
	default:
		return ok("enabled")
	}
}

// leadsOut reports whether the node reaches clients through an interface: it leads to a router, or to the address's own network.
func (s subject) leadsOut(nic clusterip.NIC) bool {
	toRouter := func(g Gateway) bool { return g.NICIndex == nic.Index && !g.IPv6 }
	return slices.ContainsFunc(s.Around.Value.Gateways, toRouter) || s.isOnLAN(nic)
}

// isOnLAN reports whether an interface is connected to an address's network.
func (s subject) isOnLAN(nic clusterip.NIC) bool {
	return slices.ContainsFunc(s.Around.Value.Routes, func(r clusterip.Route) bool {
		return r.NICIndex == nic.Index && slices.ContainsFunc(s.layout.Addresses(), r.Prefix.Contains)
	})
}

// networks returns the IPv4 networks that an interface is connected to.
func (s subject) networks(nic clusterip.NIC) []string {
	var networks []string
	for _, route := range s.Around.Value.Routes {
		if route.NICIndex == nic.Index && route.Prefix.Addr().Is4() {
			networks = append(networks, route.Prefix.String())
		}
	}
	return networks
}

// others returns the interfaces beside the address's own that are in use.
func (s subject) others() []clusterip.NIC {
	return slices.DeleteFunc(slices.Clone(s.State.Value.NICs), func(n clusterip.NIC) bool {
		return n.Index == s.nic.Index || !n.Up || n.Loopback
	})
}

func judgeReversePath(s subject) answer {
	filter, err := s.effective(reversePath, s.nic.Name)
	if err := errors.Join(err, s.Around.Err); err != nil {
		return unknown(err, readSysctl)
	}
	const strict = 1
	if filter != strict {
		return ok("not strict")
	}
	// Another network without a route to clients earns no warning: such a network, for instance that of Corosync's second link, seldom has
	// clients, and strict is the default of some distributions.
	var dropped []string
	for _, other := range s.others() {
		if s.leadsOut(other) {
			return warn(fmt.Sprintf("rp_filter is strict on %s, and the node may answer clients through %s", s.nic.Name, other.Name),
				set(2, reversePath, s.nic.Name)...)
		}
		for _, network := range s.networks(other) {
			dropped = append(dropped, fmt.Sprintf("%s (%s)", network, other.Name))
		}
	}
	if len(dropped) > 0 {
		return ok("strict: clients reach the address through %s; clients in %s need rp_filter=2", s.nic.Name, strings.Join(dropped, ", "))
	}
	return ok("strict, but all clients use %s", s.nic.Name)
}

func judgeARPIgnore(s subject) answer {
	ignore, err := s.effective(arpIgnore, s.nic.Name)
	const sameSubnet, neverForHostScope, never = 2, 3, 8
	seen := fmt.Sprintf("arp_ignore=%d", ignore)
	switch {
	case err != nil:
		return unknown(err, readSysctl)
	case ignore == never:
		return fail(seen+": the node answers no ARP request", set(0, arpIgnore, "all", s.nic.Name)...)
	case ignore == neverForHostScope:
		return fail(seen+": the node answers no ARP request for the address, which has scope host", set(0, arpIgnore, "all", s.nic.Name)...)
	case ignore == sameSubnet:
		return warn(seen+": the node answers no hosts of another subnet, and no host at all if it has no address of its own in the network",
			set(1, arpIgnore, "all", s.nic.Name)...)
	default:
		return ok("%s", seen)
	}
}

func judgeARPFilter(s subject) answer {
	filter, err := s.effective(arpFilter, s.nic.Name)
	if err == nil && filter == 0 {
		return ok("arp_filter=0")
	}
	if err := errors.Join(err, s.Around.Err); err != nil {
		return unknown(err, readSysctl)
	}
	for _, other := range s.others() {
		if s.isOnLAN(other) {
			return warn(fmt.Sprintf("arp_filter=%d, and %s is in the network of the address too: clients that the node would answer through it "+
				"get no ARP reply", filter, other.Name), set(0, arpFilter, "all", s.nic.Name)...)
		}
	}
	return ok("arp_filter=%d, but only %s is in the network of the address", filter, s.nic.Name)
}

// judgeRouteLocalnet: with route_localnet, scope host is as good as scope link, and comes first in the kernel's list (inet_select_addr in
// net/ipv4/devinet.c). The connected routes of the node's own addresses have a source of their own.
func judgeRouteLocalnet(s subject) answer {
	localnet, err := s.effective(routeLocalnet, s.nic.Name)
	switch {
	case err != nil:
		return unknown(err, readSysctl)
	case localnet != 0:
		return warn(fmt.Sprintf("route_localnet=%d: the shared address is the source of the node's own packets on routes without a gateway and "+
			"a source (ip route: scope link, no src), and to multicast groups", localnet),
			append(set(0, routeLocalnet, "all", s.nic.Name),
				"# kube-proxy sets it: --iptables-localhost-nodeports=false; or give such routes the node's own src")...)
	default:
		return ok("route_localnet=0")
	}
}

func judgeSnooping(s subject) answer {
	bridge, why := s.State.Value.SnoopFault(s.nic)
	if why != "" {
		return warn(why, fmt.Sprintf("ip link set %s type bridge mcast_router 2", bridge.Name),
			"# and in the network's configuration, so that it lasts")
	}
	return ok("no bridge of this node withholds frames from it")
}

func judgeGuests(s subject) answer {
	if why := s.State.Value.GuestFault(s.nic); why != "" {
		return warn(why, "# if guests are clients: "+s.update("mac_mode=multicast   # with the resource disabled"),
			fmt.Sprintf("# or, on all nodes, a veth pair: one end a port of %s, the other one nic, with the node's own address", s.nic.Name))
	}
	return ok("no bridge of this node withholds frames from its guests")
}

func judgeBridgeNetfilter(s subject) answer {
	bridge, why := s.State.Value.TranslationFault(s.nic, s.layout.Has)
	if why == "" {
		return ok("no bridge passes its packets to iptables")
	}
	if installed := s.State.Value.Tables.Installed; installed != nil && installed.Drains && !installed.Bridged {
		return fail(fmt.Sprintf("%s is a bridge that calls iptables (br_netfilter), and the tables were installed without the rules for that: "+
			"no TCP packet reaches a bucket that has moved", bridge.Name),
			"pcs node standby "+cmp.Or(s.Node, "NODE")+"   # and back when its drains have ended; one node after the other")
	}
	return warn(why, "# if there are such rules (nft list ruleset, iptables-save -t nat):",
		"sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0   # and in /etc/sysctl.d/, so that it lasts",
		fmt.Sprintf("ip link set %s type bridge nf_call_iptables 0 nf_call_ip6tables 0", bridge.Name),
		"# a bridge of containers that needs it: ip link set docker0 type bridge nf_call_iptables 1")
}

// judgeForwarding looks for other networks whose hosts may use this node as their router.
func judgeForwarding(s subject) answer {
	if s.Around.Err != nil {
		return unknown(s.Around.Err, readNetwork)
	}
	var answers []answer
	judge := func(format string, of func(nic string) string, isOfFamily func(netip.Addr) bool) {
		if !s.layout.Has(isOfFamily) {
			return
		}
		for _, other := range s.others() {
			forwarding, err := s.sysctl(format, of(other.Name))
			network, leads := s.networkOf(other, isOfFamily)
			switch {
			case !leads || s.isOnLAN(other) || !s.State.Value.LeadsOut(other):
			case err != nil:
				answers = append(answers, unknown(err, readSysctl))
			case forwarding != 0:
				answers = append(answers, warn(
					fmt.Sprintf("this node forwards, so hosts in %s may use it as their router (%s): it would answer all of them", network, other.Name),
					append([]string{"# route no clients through this node; or, if it need not forward:"}, set(0, format, of(other.Name))...)...))
			}
		}
	}
	judge(forwards4, func(nic string) string { return nic }, netip.Addr.Is4)
	judge(forwards6, func(string) string { return "all" }, netip.Addr.Is6) // IPv6 forwards on all interfaces or on none
	return all("clients can reach it through its own interface only", answers...)
}

// networkOf returns a network of a family that an interface is connected to and that contains other hosts.
func (s subject) networkOf(nic clusterip.NIC, isOfFamily func(netip.Addr) bool) (netip.Prefix, bool) {
	for _, route := range s.Around.Value.Routes {
		address := route.Prefix.Addr()
		if route.NICIndex == nic.Index && isOfFamily(address) &&
			!route.Prefix.IsSingleIP() && !address.IsLinkLocalUnicast() && !address.IsMulticast() {
			return route.Prefix, true
		}
	}
	return netip.Prefix{}, false
}

func judgeARPAnnounce(s subject) answer {
	if s.Around.Err != nil {
		return unknown(s.Around.Err, readNetwork)
	}
	const bestLocal = 2
	installed := s.State.Value.Tables.Installed
	hides := s.layout.Backend == clusterip.NFTables && (installed == nil || installed.HidesInRequests())
	var answers []answer
	var elsewhere []string
	for _, other := range s.others() {
		networks := s.networks(other)
		if len(networks) == 0 && !s.leadsOut(other) {
			continue
		}
		switch announce, err := s.effective(arpAnnounce, other.Name); {
		case err != nil:
			answers = append(answers, unknown(err, readSysctl))
		case announce >= bestLocal:
		case !hides && s.leadsOut(other):
			answers = append(answers, warn(fmt.Sprintf("the node may answer clients through %s, where arp_announce=%d", other.Name, announce),
				set(bestLocal, arpAnnounce, other.Name)...))
		default:
			elsewhere = append(elsewhere, fmt.Sprintf("%s (%s)", other.Name, cmp.Or(strings.Join(networks, ", "), "a router")))
		}
	}
	switch list := strings.Join(elsewhere, ", "); {
	case list == "":
		return all("no request contains an address of another interface", answers...)
	case hides: // a proxy does not answer a request from 0.0.0.0
		return all(fmt.Sprintf("requests on %s come from 0.0.0.0 (with arp_announce=2, from its own address)", list), answers...)
	default: // no warning, as for a strict reverse path filter
		return all(fmt.Sprintf("the node finds no client in the networks of %s, unless arp_announce=2 there", list), answers...)
	}
}

func judgeGroupFrames(s subject) answer {
	var answers []answer
	judge := func(drops uint64, err error, commands []string) {
		seen := "drop_unicast_in_l2_multicast=1 on " + s.nic.Name
		switch {
		case err != nil:
			answers = append(answers, unknown(err, readSysctl))
		case drops != 0 && s.layout.Backend == clusterip.NFTables:
			answers = append(answers, warn(seen, commands...))
		case drops != 0: // the other backends change the packet type after the kernel has dropped the packet
			answers = append(answers, fail(seen+": the kernel drops all packets for the address", commands...))
		}
	}
	if s.layout.Has(netip.Addr.Is4) && s.layout.MACs.IPv4.Group() {
		drops, err := s.effective(dropsGroups4, s.nic.Name)
		judge(drops, err, set(0, dropsGroups4, "all", s.nic.Name))
	}
	if s.layout.Has(netip.Addr.Is6) && s.layout.MACs.IPv6.Group() {
		drops, err := s.sysctl(dropsGroups6, s.nic.Name) // IPv6 ignores the value of all
		judge(drops, err, set(0, dropsGroups6, s.nic.Name))
	}
	return all("the kernel accepts unicast packets in them", answers...)
}

func judgePromiscuous(s subject) answer {
	if s.Around.Err != nil {
		return unknown(s.Around.Err, readNetwork)
	}
	var answers []answer
	for _, other := range s.others() {
		if slices.Contains(s.Around.Value.Promiscuous, other.Index) && s.isOnLAN(other) && s.layout.Backend != clusterip.NFTables {
			answers = append(answers, fail(other.Name+" is on the same network, and promiscuous",
				fmt.Sprintf("ip link set %s promisc off", other.Name)))
		}
	}
	return all("no other interface answers frames for the address", answers...)
}
