// Package link is the way into the kernel's network interfaces: addresses, multicast groups, MAC filters, and what is said
// to the neighbours by ARP and neighbour discovery.
package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Conn is a connection to the interfaces of one network namespace.
type Conn struct {
	netlink *netlink.Handle
	strict  *netlink.Handle // lists only what is asked for, instead of all (NETLINK_GET_STRICT_CHK)
}

var _ clusterip.LinkKernel = (*Conn)(nil)

// Open connects to the network namespace of the calling thread.
func Open() (*Conn, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("connect to rtnetlink: %w", err)
	}
	strict, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("connect to rtnetlink: %w", err)
	}
	_ = strict.SetStrictCheck(true) // Linux before 4.20 lists all, and the library leaves out what was not asked for
	return &Conn{handle, strict}, nil
}

// Close ends the connection.
func (c *Conn) Close() {
	c.netlink.Close()
	c.strict.Close()
}

// ObserveLinks implements clusterip.LinkKernel.
func (c *Conn) ObserveLinks(ctx context.Context, addresses []netip.Addr, macs []clusterip.MAC, laid *clusterip.Layout) (clusterip.State, error) {
	state := clusterip.State{AltNames: map[string]int{}}
	links, err := dump(ctx, c.netlink.LinkList)
	if err != nil {
		return state, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		state.NICs = append(state.NICs, nicOf(link))
		for _, name := range link.Attrs().AltNames {
			state.AltNames[name] = link.Attrs().Index
		}
	}
	if err := c.readAddresses(ctx, &state, addresses, macs); err != nil {
		return state, err
	}
	if err := c.readOwnRoutes(ctx, &state, addresses); err != nil {
		return state, err
	}
	if !isInPlace(state, laid, addresses) { // else nothing is asked of the others, which may be many
		if err := c.readRoutes(ctx, &state, addresses); err != nil {
			return state, err
		}
		for i := range state.NICs {
			nic := &state.NICs[i]
			nic.NoIPv6 = slices.ContainsFunc(addresses, netip.Addr.Is6) && !hasIPv6(nic.Name)
			nic.ARPFilter = filtersARP("all") || filtersARP(nic.Name)
		}
	}
	if err := c.readMulticastFilters(&state, macs); err != nil {
		return state, err
	}
	if err := c.readUnicastFilters(ctx, &state, macs); err != nil {
		return state, err
	}
	return state, nil
}

// ipv6Conf holds the kernel's IPv6 parameters of each NIC that has any, of the reader's network namespace.
const ipv6Conf = "/proc/sys/net/ipv6/conf"

// hasIPv6 tells whether a NIC may have IPv6 addresses. One with an MTU below 1280 has no parameters at all.
func hasIPv6(nic string) bool {
	disabled, err := os.ReadFile(filepath.Join(ipv6Conf, nic, "disable_ipv6")) //nolint:gosec // the name is the kernel's
	return err == nil && string(bytes.TrimSpace(disabled)) == "0"
}

// filtersARP tells whether a NIC, or all, answer only those ARP requests that came in by the way that leads back (arp_filter).
func filtersARP(nic string) bool {
	return isSet(filepath.Join(ipv4Conf, nic, "arp_filter"))
}

// isSet tells whether a switch of the kernel's is there and on.
func isSet(file string) bool {
	value, err := os.ReadFile(file) //nolint:gosec // the name is the kernel's
	return err == nil && string(bytes.TrimSpace(value)) != "0"
}

func nicOf(link netlink.Link) clusterip.NIC {
	attributes := link.Attrs()
	mac := clusterip.MACOf(attributes.HardwareAddr)
	nic := clusterip.NIC{
		Index: attributes.Index, Name: attributes.Name, MAC: mac,
		Up:       attributes.RawFlags&unix.IFF_UP != 0,
		Running:  attributes.RawFlags&unix.IFF_RUNNING != 0,
		Loopback: attributes.RawFlags&unix.IFF_LOOPBACK != 0,
		ARP:      attributes.RawFlags&unix.IFF_NOARP == 0 && !mac.IsZero(),
		Kind:     link.Type(),
		Master:   attributes.MasterIndex,
	}
	switch link := link.(type) {
	case *netlink.Bridge:
		snoops := link.MulticastSnooping != nil && *link.MulticastSnooping
		nic.Snoops = snoops && !takesAllGroups(nic.Name)
		nic.CallsIPTables = clusterip.PerFamily[bool]{IPv4: calls("iptables", nic.Name), IPv6: calls("ip6tables", nic.Name)}
	case *netlink.Bond:
		nic.BondMode = link.Mode.String()
		nic.Asks = link.ArpInterval > 0
		nic.Verifies = link.ArpValidate > 0 && link.ArpValidate&netlink.BOND_ARP_VALIDATE_ACTIVE != 0 // else -1: not told
	case *netlink.Vlan, *netlink.Macvlan, *netlink.Macvtap, *netlink.IPVlan, *netlink.IPVtap:
		if attributes.NetNsID < 0 { // else the index is of another network namespace
			nic.Parent = attributes.ParentIndex
		}
	}
	return nic
}

// takesAllGroups tells whether a bridge counts itself among the multicast routers for good (MDB_RTR_TYPE_PERM). What cannot be read it is not.
func takesAllGroups(bridge string) bool {
	const permanent = "2"
	router, err := os.ReadFile(filepath.Join("/sys/class/net", bridge, "bridge/multicast_router")) //nolint:gosec // the name is the kernel's
	return err == nil && string(bytes.TrimSpace(router)) == permanent
}

// calls tells whether a bridge has its ports show their packets to iptables or ip6tables, all bridges do, or this one alone (br_nf_pre_routing in
// net/bridge/br_netfilter_hooks.c). Without br_netfilter none does.
func calls(program, bridge string) bool {
	return isSet(filepath.Join("/proc/sys/net/bridge", "bridge-nf-call-"+program)) ||
		isSet(filepath.Join("/sys/class/net", bridge, "bridge/nf_call_"+program))
}

// isInPlace tells whether the addresses were all laid, with their routes, and the NIC that they were laid on is still there, under the same
// name, and usable.
func isInPlace(state clusterip.State, laid *clusterip.Layout, addresses []netip.Addr) bool {
	isNew := func(a netip.Addr) bool { return !slices.Contains(laid.Addresses(), a) }
	return laid != nil && !slices.ContainsFunc(addresses, isNew) && state.HasRoutesOf(*laid) && slices.ContainsFunc(state.NICs, func(n clusterip.NIC) bool {
		return n.Index == laid.NICIndex && n.Name == laid.NIC && state.Usable(n)
	})
}

func (c *Conn) readAddresses(ctx context.Context, state *clusterip.State, addresses []netip.Addr, macs []clusterip.MAC) error {
	all, err := c.addressesOn(ctx, nil, familyOf(addresses...))
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	groups := map[netip.Addr]bool{}
	for _, mac := range macs {
		if group := mac.MulticastGroup(); group.IsValid() {
			groups[group] = true
		}
	}
	for _, a := range all {
		prefix, ok := prefixOf(a.IPNet)
		if !ok {
			continue
		}
		seen := clusterip.Address{NICIndex: a.LinkIndex, Prefix: prefix, AutoJoin: a.Flags&unix.IFA_F_MCAUTOJOIN != 0}
		seen.Tentative = a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0
		switch {
		case slices.Contains(addresses, prefix.Addr()):
			seen.HostScope = prefix.Addr().Is4() && a.Scope == unix.RT_SCOPE_HOST
			state.Addresses = append(state.Addresses, seen)
		case groups[prefix.Addr()]:
			state.Groups = append(state.Groups, seen)
		}
	}
	return nil
}

// addressesOn lists the addresses of a NIC, or of all.
func (c *Conn) addressesOn(ctx context.Context, nic netlink.Link, family int) ([]netlink.Addr, error) {
	return dump(ctx, func() ([]netlink.Addr, error) { return c.netlink.AddrList(nic, family) })
}

// familyOf returns the one family that the addresses are of, or all.
func familyOf(addresses ...netip.Addr) int {
	switch {
	case !slices.ContainsFunc(addresses, netip.Addr.Is6):
		return netlink.FAMILY_V4
	case !slices.ContainsFunc(addresses, netip.Addr.Is4):
		return netlink.FAMILY_V6
	default:
		return netlink.FAMILY_ALL
	}
}

// lastPause is the longest between two tries to read a list that a change cut in two.
const lastPause = 50 * time.Millisecond

// dump reads a list from the kernel, again when a change cut it in two.
func dump[T any](ctx context.Context, read func() ([]T, error)) ([]T, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, lastPause) {
		list, err := read()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w, during each try: %w", err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// routeProtocol says of a route that this agent has laid it (RTA_PROTOCOL; the numbers are anybody's to choose, see include/uapi/linux/rtnetlink.h).
const routeProtocol = 203

// readOwnRoutes reads the connected routes that were laid for the addresses.
func (c *Conn) readOwnRoutes(ctx context.Context, state *clusterip.State, addresses []netip.Addr) error {
	routes, err := dump(ctx, func() ([]netlink.Route, error) {
		return c.strict.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list our routes: %w", err)
	}
	for _, route := range routes {
		if prefix, ok := prefixOf(route.Dst); ok && isLaidFor(addresses, route, prefix) {
			state.Routes = append(state.Routes, clusterip.Route{NICIndex: route.LinkIndex, Prefix: prefix, Metric: uint32(route.Priority)})
		}
	}
	return nil
}

// isLaidFor tells whether a route that this agent has laid is of one of the addresses, not of another resource.
func isLaidFor(addresses []netip.Addr, route netlink.Route, prefix netip.Prefix) bool {
	return route.Protocol == routeProtocol && slices.ContainsFunc(addresses, func(a netip.Addr) bool {
		return a.Is4() && prefix.Contains(a) && uint32(route.Priority) == clusterip.RouteMetric(a)
	})
}

// readRoutes reads the connected routes that hold an address, but for those that were laid for it, which say nothing of the network. Those of
// other resources do, where the node has no address of its own there.
func (c *Conn) readRoutes(ctx context.Context, state *clusterip.State, addresses []netip.Addr) error {
	routes, err := dump(ctx, func() ([]netlink.Route, error) { return c.netlink.RouteList(nil, familyOf(addresses...)) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		prefix, ok := prefixOf(route.Dst)
		if ok && isConnected(route) && !isLaidFor(addresses, route, prefix) && prefix.Bits() > 0 && slices.ContainsFunc(addresses, prefix.Contains) {
			state.Connected = append(state.Connected, clusterip.Route{NICIndex: route.LinkIndex, Prefix: prefix})
		}
	}
	return nil
}

// isConnected tells whether a route of the main table leads to the NIC's own network. An IPv6 route has no scope that would say so.
func isConnected(route netlink.Route) bool {
	if route.Family == netlink.FAMILY_V4 {
		return route.Scope == netlink.SCOPE_LINK
	}
	return route.Type == unix.RTN_UNICAST && route.Gw == nil && len(route.MultiPath) == 0
}

func prefixOf(ipNet *net.IPNet) (netip.Prefix, bool) {
	if ipNet == nil {
		return netip.Prefix{}, false
	}
	address, ok := netip.AddrFromSlice(ipNet.IP)
	bits, _ := ipNet.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits), ok
}

func ipNetOf(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

// ApplyLinks implements clusterip.LinkKernel. Something that is already there, or already gone, is no error.
func (c *Conn) ApplyLinks(ctx context.Context, step clusterip.Step) error {
	var err error
	switch step := step.(type) {
	case clusterip.AddFilter:
		err = c.addFilter(step.NIC, step.MAC)
	case clusterip.RemoveFilter:
		err = c.removeFilter(step.NIC, step.MAC)
	case clusterip.AddAddress:
		err = c.addAddress(ctx, step)
	case clusterip.RemoveAddress:
		err = c.removeAddress(ctx, step)
	case clusterip.AddRoute:
		// One on another NIC, where the resource was before, would be in the way: the kernel has one route of a metric to a network.
		err = c.netlink.RouteReplace(routeOf(step.NIC, step.Route))
	case clusterip.RemoveRoute:
		err = unless(unix.ESRCH, c.netlink.RouteDel(routeOf(step.NIC, step.Route)))
	default:
		return fmt.Errorf("%s: not a step for a network interface", step)
	}
	if errors.Is(err, unix.EPERM) {
		return ocf.Errorf(ocf.ErrPerm, "%w: root (CAP_NET_ADMIN) is needed", err)
	}
	return err
}

// routeOf is what the library wants to know of a connected route. It names no source, so that the kernel finds one among the node's own
// addresses.
func routeOf(nic clusterip.NIC, route clusterip.Route) *netlink.Route {
	return &netlink.Route{
		LinkIndex: nic.Index, Dst: ipNetOf(route.Prefix), Scope: netlink.SCOPE_LINK, Protocol: routeProtocol, Priority: int(route.Metric),
	}
}

// forever is an address's lifetime without an end (INFINITY_LIFE_TIME).
const forever = math.MaxUint32

func (c *Conn) addAddress(ctx context.Context, step clusterip.AddAddress) error {
	address := &netlink.Addr{IPNet: ipNetOf(step.Prefix)}
	is6 := step.Prefix.Addr().Is6()
	if is6 {
		// All nodes have it, so the search for a duplicate would find one. And it is no source for the node's own connections,
		// whose answers would go to the owner of another bucket: deprecated addresses come last (RFC 6724 section 5, rule 3).
		address.Flags = unix.IFA_F_NODAD
		address.PreferedLft, address.ValidLft = 0, forever
	}
	if !is6 {
		// It never becomes the source of a packet that has none yet: inet_select_addr passes host scope over.
		address.Scope = int(netlink.SCOPE_HOST)
		if !step.Group {
			address.Label = labelOn(step.NIC.Name)
		}
	}
	if step.Group {
		// The kernel itself joins the group and answers queries, as long as the address is there. No IPv6 group is a source:
		// ipv6_dev_get_saddr passes groups over by itself.
		address.Flags |= unix.IFA_F_MCAUTOJOIN
	}
	err := unless(unix.EEXIST, c.netlink.AddrAdd(at(step.NIC), address))
	if step.Group && (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)) {
		return tooManyGroups(step.Prefix.Addr(), err)
	}
	if err != nil || !is6 || step.Group {
		return err
	}
	return c.waitLocal(ctx, step.Prefix.Addr())
}

// labelOn is another label than the NIC's name. By that name programs ask for the NIC's own address, and ifconfig replaces it (SIOCGIFADDR and
// SIOCSIFADDR, devinet_ioctl in net/ipv4/devinet.c): they get the first address that has it, and those of scope host come before all others. It is
// empty, so that the kernel takes the name, where that leaves no room.
func labelOn(nic string) string {
	label := nic + ":c"
	if len(label) >= unix.IFNAMSIZ {
		return ""
	}
	return label
}

// tooManyGroups says what bounds the groups of all resources in igmp mode: the kernel joins them with one socket of each family, whose
// memberships and memory are bounded (ip_mc_join_group in net/ipv4/igmp.c, sock_kmalloc in net/core/sock.c).
func tooManyGroups(group netip.Addr, err error) error {
	limits := "sysctl net.core.optmem_max"
	if group.Is4() {
		limits = "sysctl net.ipv4.igmp_max_memberships, which is 20 by default, or net.core.optmem_max"
	}
	return ocf.Errorf(ocf.ErrArgs, "the kernel joins no more multicast groups (%w): each resource with mac_mode=igmp needs one of each family on this node; raise %s, also in /etc/sysctl.d",
		err, limits)
}

// waitLocal waits until the kernel takes packets to an IPv6 address for its own. It does so only when a worker has found that no
// duplicate is to be searched for (addrconf_dad_work in net/ipv6/addrconf.c); until then a router would forward them.
func (c *Conn) waitLocal(ctx context.Context, address netip.Addr) error {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, lastPause) {
		routes, err := c.netlink.RouteGet(address.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the kernel does not take %s for its own: %w", address, ctx.Err()), err)
		case <-time.After(pause):
		}
	}
}

// removeAddress removes one address, and no other with it.
func (c *Conn) removeAddress(ctx context.Context, step clusterip.RemoveAddress) error {
	all, err := c.addressesOn(ctx, at(step.NIC), familyOf(step.Prefix.Addr()))
	if err != nil {
		return err
	}
	for _, address := range all {
		if prefix, ok := prefixOf(address.IPNet); !ok || prefix != step.Prefix {
			continue
		}
		if step.Prefix.Addr().Is4() && hasSecondaries(address, all) {
			return c.removePromoting(ctx, step.NIC, step.Prefix)
		}
		return c.removeAlone(step.NIC, step.Prefix)
	}
	return nil
}

// removeAlone removes an address on which no other hangs.
func (c *Conn) removeAlone(nic clusterip.NIC, prefix netip.Prefix) error {
	return unless(unix.EADDRNOTAVAIL, c.netlink.AddrDel(at(nic), &netlink.Addr{IPNet: ipNetOf(prefix)}))
}

// at is what the library wants to know of a NIC.
func at(nic clusterip.NIC) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: nic.Index, Name: nic.Name}}
}

func unless(expected, err error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
