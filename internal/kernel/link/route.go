package link

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// routeProtocol marks the routes of this agent (RTA_PROTOCOL; numbers can be chosen freely, see include/uapi/linux/rtnetlink.h).
const routeProtocol = 203

// routeOf is a connected route. It names no source, so that the kernel finds one among the node's own addresses.
func routeOf(nic clusterip.NIC, route clusterip.Route) *netlink.Route {
	return &netlink.Route{
		LinkIndex: nic.Index, Dst: ipNetOf(route.Prefix), Scope: netlink.SCOPE_LINK, Protocol: routeProtocol, Priority: int(route.Metric),
	}
}

// readOwnRoutes reads the connected routes that this agent has installed for the addresses.
func (c *Conn) readOwnRoutes(ctx context.Context, state *clusterip.State, addresses []netip.Addr) error {
	routes, err := dump(ctx, func() ([]netlink.Route, error) {
		return c.strict.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list the agent's routes: %w", err)
	}
	for _, route := range routes {
		if prefix, ok := prefixOf(route.Dst); ok && isOwnRoute(addresses, route, prefix) {
			state.Routes = append(state.Routes, clusterip.Route{NICIndex: route.LinkIndex, Prefix: prefix, Metric: uint32(route.Priority)})
		}
	}
	return nil
}

// isOwnRoute reports whether this agent has installed a route for one of the addresses, and not for another resource.
func isOwnRoute(addresses []netip.Addr, route netlink.Route, prefix netip.Prefix) bool {
	return route.Protocol == routeProtocol && slices.ContainsFunc(addresses, func(a netip.Addr) bool {
		return a.Is4() && prefix.Contains(a) && uint32(route.Priority) == clusterip.RouteMetric(a)
	})
}

// readConnectedRoutes reads the connected routes to the addresses' networks. Those that were installed for the addresses prove nothing;
// those of other resources count, where the node has no address of its own in the network.
func (c *Conn) readConnectedRoutes(ctx context.Context, state *clusterip.State, addresses []netip.Addr) error {
	routes, err := dump(ctx, func() ([]netlink.Route, error) { return c.netlink.RouteList(nil, familyOf(addresses...)) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		prefix, ok := prefixOf(route.Dst)
		holds := ok && prefix.Bits() > 0 && slices.ContainsFunc(addresses, prefix.Contains)
		if holds && isConnected(route) && !isOwnRoute(addresses, route, prefix) {
			state.Connected = append(state.Connected, clusterip.Route{NICIndex: route.LinkIndex, Prefix: prefix})
		}
	}
	return nil
}

// isConnected reports whether a route of the main table leads to the interface's own network. The scope shows it, which IPv6 routes do
// not have.
func isConnected(route netlink.Route) bool {
	if route.Family == netlink.FAMILY_V4 {
		return route.Scope == netlink.SCOPE_LINK
	}
	return route.Type == unix.RTN_UNICAST && route.Gw == nil && len(route.MultiPath) == 0
}
