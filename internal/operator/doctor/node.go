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
)

// kernelChecks ask what this kernel can do.
func kernelChecks() []check {
	const group = "kernel"
	return []check{
		{
			group, "backend", "Without a backend that the kernel has, no bucket starts on this node.",
			func(s subject) bool { return len(s.Capabilities) > 0 }, judgeBackend,
		},
		{
			group, "conntrack", "Connections survive moves with drain, and pass the match cluster, because conntrack knows them. When its table is full, new ones are dropped.",
			tracks, judgeConntrack,
		},
		{
			group, "conntrack-loose", "Connections that were there before drain was switched on are known only if conntrack takes them up in their middle.",
			drains, judgeLoose,
		},
	}
}

func judgeBackend(s subject) answer {
	chosen := s.backend()
	var others []string
	var verdict clusterip.Answer
	var why error
	for _, c := range s.Capabilities {
		said := map[clusterip.Answer]string{clusterip.Yes: "yes", clusterip.No: "no", clusterip.CannotTell: "cannot tell"}[c.Answer]
		if c.Backend == chosen {
			verdict, why = c.Answer, c.Why
			continue
		}
		others = append(others, fmt.Sprintf("%s: %s", c.Backend, said))
	}
	seen := string(chosen)
	if len(others) > 0 {
		seen += fmt.Sprintf(" (%s)", strings.Join(others, ", "))
	}
	do := "modprobe nf_tables   # or a kernel with CONFIG_NF_TABLES and its netdev, arp and ip6 families"
	switch {
	case chosen == "":
		var reasons []string
		for _, c := range s.Capabilities {
			reasons = append(reasons, fmt.Sprintf("%s: %v", c.Backend, c.Why))
		}
		return fail("this kernel has no backend that would do: "+strings.Join(reasons, "; "), do)
	case verdict == clusterip.No:
		return fail(fmt.Sprintf("backend=%s will not do here: %v", chosen, why), s.update("backend=auto"))
	case verdict == clusterip.CannotTell:
		return cannotTell(why, do)
	default:
		return ok("%s", seen)
	}
}

// readSysctl is what to type when a kernel parameter could not be read.
const readSysctl = "sysctl -a   # does root get an answer?"

// sysctl is a kernel parameter as a number. One that this kernel does not have is 0: nobody can have switched it on.
func (s subject) sysctl(format string, of ...any) (uint64, error) {
	name := fmt.Sprintf(format, of...)
	told, asked := s.Sysctls[name]
	switch {
	case !asked:
		return 0, fmt.Errorf("%s was not read", name)
	case errors.Is(told.Err, fs.ErrNotExist):
		return 0, nil
	case told.Err != nil:
		return 0, told.Err
	}
	number, err := strconv.ParseUint(told.Value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is %s, no number", name, ocf.Quote(told.Value))
	}
	return number, nil
}

// effective is the greater one of a NIC's own parameter and of all (include/linux/inetdevice.h, IN_DEV_MAXCONF), and the commands that
// set both.
func (s subject) effective(format, nic string) (uint64, error) {
	everywhere, err := s.sysctl(format, "all")
	own, ownErr := s.sysctl(format, nic)
	return max(everywhere, own), errors.Join(err, ownErr)
}

// set is what to type for a kernel parameter: with slashes, which names of interfaces may need.
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
		return cannotTell(err, readSysctl)
	}
	if most == 0 {
		return ok("not in use yet")
	}
	const whole, full, much = 100, 95, 75
	share := count * whole / most
	seen := fmt.Sprintf("%d of %d entries are taken (%d %%)", count, most, share)
	do := fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d   # some 300 bytes each", most*2)
	switch {
	case share >= full:
		return fail(seen, do)
	case share >= much:
		return warn(seen, do)
	default:
		return ok("%s", seen)
	}
}

func judgeLoose(s subject) answer {
	told := s.Sysctls[conntrackLoose]
	loose, err := s.sysctl(conntrackLoose)
	switch {
	case err != nil:
		return cannotTell(err, readSysctl)
	case errors.Is(told.Err, fs.ErrNotExist):
		return ok("not in use yet")
	case loose == 0:
		return warn("nf_conntrack_tcp_loose=0", "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1")
	default:
		return ok("nf_conntrack_tcp_loose=1")
	}
}

// nicChecks look at the interface, and at the other ones.
func nicChecks() []check {
	const group = "interface"
	is4 := func(s subject) bool { return hasNIC(s) && s.layout.Has(netip.Addr.Is4) }
	is6 := func(s subject) bool { return hasNIC(s) && s.layout.Has(netip.Addr.Is6) }
	isGroup := func(s subject) bool {
		return hasNIC(s) && slices.ContainsFunc(s.layout.AllMACs(), clusterip.MAC.Group)
	}
	return []check{
		{
			group, "interface", "The address must be on an Ethernet interface of its own network, the same on all nodes, and on no other one.",
			func(s subject) bool { return s.State.Err == nil && len(s.Spec.Addresses) > 0 }, judgeInterface,
		},
		{group, "link", "Without a link no client reaches this node, and its buckets move away.", hasNIC, judgeLink},
		{
			group, "snooping", "A Linux bridge that snoops delivers unicast packets in frames to a group MAC to nobody, once it has heard a querier: the node goes deaf to all clients at once.",
			isGroup, judgeSnooping,
		},
		{
			group, "bridge-nf", "A bridge that calls iptables has packets go through prerouting before the bridge gets them: DNAT there makes every node answer.",
			hasNIC, judgeBridgeNetfilter,
		},
		{
			group, "guests", "A bridge that a unicast cluster MAC is its own lets no frame to it through: its guests get no answer from other nodes' buckets.",
			func(s subject) bool { return hasNIC(s) && !isGroup(s) }, judgeGuests,
		},
		{group, "ipv6", "An interface without IPv6 cannot have the address.", is6, judgeIPv6},
		{
			group, "reverse-path", "A strict reverse path filter drops packets of clients that the node would answer through another interface.",
			is4, judgeReversePath,
		},
		{group, "arp-ignore", "The node must answer ARP requests for the address, or clients do not find it.", is4, judgeARPIgnore},
		{
			group, "arp-filter", "With arp_filter the node answers an ARP request only by the interface that its own route to the client leaves by.",
			is4, judgeARPFilter,
		},
		{
			group, "route-localnet", "With route_localnet the kernel may take an address of scope host for the node's own connections, whose answers go to other nodes.",
			is4, judgeRouteLocalnet,
		},
		{
			group, "forwarding", "Only what comes in by the interface of the address is filtered: a node that is the router of clients answers all of them, whatever bucket they are in.",
			hasNIC, judgeForwarding,
		},
		{
			group, "arp-announce", "ARP requests name the address as their sender on its own interface only. On others they name none, or are dropped, and the neighbour is not found.",
			is4, judgeARPAnnounce,
		},
		{
			group, "group-frames", "The kernel drops unicast packets in frames to a group MAC: ICMP errors (path MTU), and what moves with drain.",
			isGroup, judgeGroupFrames,
		},
		{
			group, "other-nics", "An interface on the same network that is promiscuous hears the frames for the cluster MAC too, and this backend would answer them a second time.",
			hasNIC, judgeOtherNICs,
		},
	}
}

func judgeInterface(s subject) answer {
	if why := s.State.Value.PortFault(s.nic); why != "" {
		return fail(why, s.update("nic="+s.State.Value.Top(s.nic).Name))
	}
	if why := s.State.Value.VRFFault(s.nic); why != "" {
		return fail(why, "ip -brief link show type vrf", fmt.Sprintf("ip link set %s nomaster   # and in the network's configuration", s.nic.Name))
	}
	if _, err := s.Layout(); err != nil {
		return fail(strings.Join(lines(err), "; "), "ip -brief address", "ip -brief link")
	}
	if why := s.State.Value.UnicastFault(s.layout); why != "" {
		return fail(why, s.update("mac_mode=multicast   # with the resource disabled"))
	}
	return ok("%s has %s", s.nic.Name, addressList(s.layout.Prefixes))
}

func judgeLink(s subject) answer {
	switch {
	case !s.nic.Up:
		return fail(s.nic.Name+" is down", fmt.Sprintf("ip link set %s up", s.nic.Name))
	case !s.nic.Running:
		return fail(s.nic.Name+" has no carrier", fmt.Sprintf("ethtool %s   # and look at its cable and switch port", s.nic.Name))
	}
	if why := s.State.Value.LinkFault(s.nic); why != "" {
		return fail(why, "ip -brief link; bridge link", "# and look at their cables and switch ports; check_link=false if clients come in by other ports")
	}
	return ok("%s is up and has a carrier", s.nic.Name)
}

func judgeIPv6(s subject) answer {
	name := fmt.Sprintf(disablesIPv6, s.nic.Name)
	told := s.Sysctls[name]
	off, err := s.sysctl(disablesIPv6, s.nic.Name)
	switch {
	case errors.Is(told.Err, fs.ErrNotExist):
		return fail(s.nic.Name+" has no IPv6: its MTU is below 1280, or the kernel has none", fmt.Sprintf("ip link set %s mtu 1500", s.nic.Name))
	case err != nil:
		return cannotTell(err, readSysctl)
	case off != 0:
		return fail("IPv6 is switched off on "+s.nic.Name, set(0, disablesIPv6, s.nic.Name)...)
	default:
		return ok("switched on")
	}
}

// leadsOut tells whether the node reaches clients through a NIC: it leads to a router, or to the address's own network.
func (s subject) leadsOut(nic clusterip.NIC) bool {
	toRouter := func(g clusterip.Gateway) bool { return g.NICIndex == nic.Index && !g.IPv6 }
	return slices.ContainsFunc(s.Around.Value.Gateways, toRouter) || s.isOnLAN(nic)
}

// isOnLAN tells whether a NIC is connected to an address's network.
func (s subject) isOnLAN(nic clusterip.NIC) bool {
	return slices.ContainsFunc(s.Around.Value.Routes, func(r clusterip.Route) bool {
		return r.NICIndex == nic.Index && slices.ContainsFunc(s.layout.Addresses(), r.Prefix.Contains)
	})
}

// networks are those of IPv4 that a NIC is connected to.
func (s subject) networks(nic clusterip.NIC) []string {
	var networks []string
	for _, route := range s.Around.Value.Routes {
		if route.NICIndex == nic.Index && route.Prefix.Addr().Is4() {
			networks = append(networks, route.Prefix.String())
		}
	}
	return networks
}

// others are the NICs beside the address's that are in use.
func (s subject) others() []clusterip.NIC {
	return slices.DeleteFunc(slices.Clone(s.State.Value.NICs), func(n clusterip.NIC) bool {
		return n.Index == s.nic.Index || !n.Up || n.Loopback
	})
}

func judgeReversePath(s subject) answer {
	filter, err := s.effective(reversePath, s.nic.Name)
	if err := errors.Join(err, s.Around.Err); err != nil {
		return cannotTell(err, readSysctl)
	}
	const strict = 1
	if filter != strict {
		return ok("not strict")
	}
	for _, other := range s.others() {
		if s.leadsOut(other) {
			return warn(fmt.Sprintf("rp_filter is strict on %s, and clients may be answered through %s", s.nic.Name, other.Name), set(2, reversePath, s.nic.Name)...)
		}
	}
	// No warning: a node's other networks, such as that of Corosync's second link, seldom have clients, and strict is the default of some distributions.
	var dropped []string
	for _, other := range s.others() {
		for _, network := range s.networks(other) {
			dropped = append(dropped, fmt.Sprintf("%s (%s)", network, other.Name))
		}
	}
	if len(dropped) > 0 {
		return ok("strict: clients reach the address through %s, but none in %s, which must take rp_filter=2", s.nic.Name, strings.Join(dropped, ", "))
	}
	return ok("strict, but clients come and go through %s only", s.nic.Name)
}

func judgeARPIgnore(s subject) answer {
	ignore, err := s.effective(arpIgnore, s.nic.Name)
	const sameSubnet, neverForHostScope, never = 2, 3, 8
	switch {
	case err != nil:
		return cannotTell(err, readSysctl)
	case ignore == never:
		return fail(fmt.Sprintf("arp_ignore=%d: the node answers no ARP request", ignore), set(0, arpIgnore, "all", s.nic.Name)...)
	case ignore == neverForHostScope:
		return fail(fmt.Sprintf("arp_ignore=%d: the node answers no ARP request for the address, which has scope host", ignore), set(0, arpIgnore, "all", s.nic.Name)...)
	case ignore == sameSubnet:
		return warn(fmt.Sprintf("arp_ignore=%d: hosts of another subnet get no answer, and without an address of the node's own in the network nobody", ignore), set(1, arpIgnore, "all", s.nic.Name)...)
	default:
		return ok("arp_ignore=%d", ignore)
	}
}

func judgeARPFilter(s subject) answer {
	filter, err := s.effective(arpFilter, s.nic.Name)
	if err == nil && filter == 0 {
		return ok("arp_filter=0")
	}
	if err := errors.Join(err, s.Around.Err); err != nil {
		return cannotTell(err, readSysctl)
	}
	for _, other := range s.others() {
		if s.isOnLAN(other) {
			return warn(fmt.Sprintf("arp_filter=%d, and %s is in the network of the address too: clients that the node would answer through it find no address", filter, other.Name),
				set(0, arpFilter, "all", s.nic.Name)...)
		}
	}
	return ok("arp_filter=%d, but only %s is in the network of the address", filter, s.nic.Name)
}

// judgeRouteLocalnet: scope host is as good as scope link then, and comes first in the kernel's list (inet_select_addr in net/ipv4/devinet.c). The
// connected routes of the node's own addresses name their source.
func judgeRouteLocalnet(s subject) answer {
	localnet, err := s.effective(routeLocalnet, s.nic.Name)
	switch {
	case err != nil:
		return cannotTell(err, readSysctl)
	case localnet != 0:
		return warn(fmt.Sprintf("route_localnet=%d: by routes without a gateway and a source (ip route: scope link, no src), and to multicast groups, the node's own packets come from the address",
			localnet), append(set(0, routeLocalnet, "all", s.nic.Name), "# kube-proxy sets it: --iptables-localhost-nodeports=false; or give such routes the node's own src")...)
	default:
		return ok("route_localnet=0")
	}
}

func judgeSnooping(s subject) answer {
	bridge, why := s.State.Value.SnoopFault(s.nic)
	if why != "" {
		return warn(why, fmt.Sprintf("ip link set %s type bridge mcast_router 2", bridge.Name), "# and in the network's configuration, so that it lasts")
	}
	return ok("no bridge of this node keeps frames from it")
}

func judgeGuests(s subject) answer {
	if why := s.State.Value.GuestFault(s.nic); why != "" {
		return warn(why, "# where they are clients: "+s.update("mac_mode=multicast   # with the resource disabled"),
			fmt.Sprintf("# or, on all nodes, a veth pair: one end a port of %s, the other one nic, with the node's own address", s.nic.Name))
	}
	return ok("no bridge of this node keeps frames from its guests")
}

func judgeBridgeNetfilter(s subject) answer {
	bridge, why := s.State.Value.TranslationFault(s.nic, s.layout.Has)
	if why == "" {
		return ok("no bridge of this node shows packets for the address to iptables too early")
	}
	if laid := s.State.Value.Tables.Laid; laid != nil && laid.Drains && !laid.Bridged {
		return fail(fmt.Sprintf("%s is a bridge that calls iptables (br_netfilter), and the rules were laid by an older version: no TCP reaches a bucket that has moved", bridge.Name),
			"pcs node standby "+cmp.Or(s.Node, "NODE")+"   # and, when its drains are over, back; one node after the other")
	}
	return warn(why, "# if there are such rules (nft list ruleset, iptables-save -t nat):",
		"sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0   # and in /etc/sysctl.d/, so that it lasts",
		fmt.Sprintf("ip link set %s type bridge nf_call_iptables 0 nf_call_ip6tables 0", bridge.Name),
		"# a bridge of containers that needs it: ip link set docker0 type bridge nf_call_iptables 1")
}

// judgeForwarding looks for other networks whose hosts may have this node as their router.
func judgeForwarding(s subject) answer {
	if s.Around.Err != nil {
		return cannotTell(s.Around.Err, "ip address; ip route; ip neighbour")
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
				answers = append(answers, cannotTell(err, readSysctl))
			case forwarding != 0:
				answers = append(answers, warn(fmt.Sprintf("this node forwards, so hosts in %s may come in by %s: it would answer all of them", network, other.Name),
					append([]string{"# let no client, and no router of clients, have this node as its router; or, if it need not forward:"}, set(0, format, of(other.Name))...)...))
			}
		}
	}
	judge(forwards4, func(nic string) string { return nic }, netip.Addr.Is4)
	judge(forwards6, func(string) string { return "all" }, netip.Addr.Is6) // IPv6 forwards by all interfaces or by none
	return all("clients come in by its own interface only", answers...)
}

// networkOf is a network of a family that a NIC is connected to, and in which there are other hosts.
func (s subject) networkOf(nic clusterip.NIC, isOfFamily func(netip.Addr) bool) (netip.Prefix, bool) {
	for _, route := range s.Around.Value.Routes {
		address := route.Prefix.Addr()
		if route.NICIndex == nic.Index && isOfFamily(address) && !route.Prefix.IsSingleIP() && !address.IsLinkLocalUnicast() && !address.IsMulticast() {
			return route.Prefix, true
		}
	}
	return netip.Prefix{}, false
}

func judgeARPAnnounce(s subject) answer {
	if s.Around.Err != nil {
		return cannotTell(s.Around.Err, "ip address; ip route; ip neighbour")
	}
	const bestLocal = 2
	laid := s.State.Value.Tables.Laid
	hides := s.layout.Backend == clusterip.NFTables && (laid == nil || laid.HidesInRequests())
	var answers []answer
	var elsewhere []string
	for _, other := range s.others() {
		networks := s.networks(other)
		if len(networks) == 0 && !s.leadsOut(other) {
			continue
		}
		switch announce, err := s.effective(arpAnnounce, other.Name); {
		case err != nil:
			answers = append(answers, cannotTell(err, readSysctl))
		case announce >= bestLocal:
		case !hides && s.leadsOut(other):
			answers = append(answers, warn(fmt.Sprintf("clients may be answered through %s, where arp_announce=%d", other.Name, announce), set(bestLocal, arpAnnounce, other.Name)...))
		default:
			elsewhere = append(elsewhere, fmt.Sprintf("%s (%s)", other.Name, cmp.Or(strings.Join(networks, ", "), "a router")))
		}
	}
	switch {
	case len(elsewhere) == 0:
		return all("requests name no address of another interface", answers...)
	case hides: // also proxies are asked so, and answer only who says who it is
		return all(fmt.Sprintf("through %s it asks as 0.0.0.0, with arp_announce=2 as itself", strings.Join(elsewhere, ", ")), answers...)
	default: // no warning, as for a strict reverse path
		return all(fmt.Sprintf("no client in the networks of %s is found, which takes arp_announce=2 there", strings.Join(elsewhere, ", ")), answers...)
	}
}

func judgeGroupFrames(s subject) answer {
	var answers []answer
	judge := func(drops uint64, err error, commands []string) {
		switch {
		case err != nil:
			answers = append(answers, cannotTell(err, readSysctl))
		case drops != 0 && s.layout.Backend == clusterip.NFTables:
			answers = append(answers, warn("drop_unicast_in_l2_multicast=1 on "+s.nic.Name, commands...))
		case drops != 0: // the other backends make the packets the host's own too late
			answers = append(answers, fail("drop_unicast_in_l2_multicast=1 on "+s.nic.Name+": all packets for the address are dropped", commands...))
		}
	}
	if s.layout.Has(netip.Addr.Is4) && s.layout.MACs.IPv4.Group() {
		drops, err := s.effective(dropsGroups4, s.nic.Name)
		judge(drops, err, set(0, dropsGroups4, "all", s.nic.Name))
	}
	if s.layout.Has(netip.Addr.Is6) && s.layout.MACs.IPv6.Group() {
		drops, err := s.sysctl(dropsGroups6, s.nic.Name) // IPv6 does not ask for all
		judge(drops, err, set(0, dropsGroups6, s.nic.Name))
	}
	return all("unicast packets in them are taken", answers...)
}

func judgeOtherNICs(s subject) answer {
	if s.Around.Err != nil {
		return cannotTell(s.Around.Err, "ip address; ip route; ip neighbour")
	}
	var answers []answer
	deaf := s.layout.Backend == clusterip.NFTables
	for _, other := range s.others() {
		promiscuous := slices.ContainsFunc(s.Around.Value.Links, func(l clusterip.Link) bool { return l.NICIndex == other.Index && l.Promiscuous })
		if promiscuous && s.isOnLAN(other) && !deaf {
			answers = append(answers, fail(other.Name+" is on the same network, and promiscuous", fmt.Sprintf("ip link set %s promisc off", other.Name)))
		}
	}
	return all("none hears frames for the address and answers them", answers...)
}
