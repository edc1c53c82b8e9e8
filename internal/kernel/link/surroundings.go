package link

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator/doctor"
)

// Surroundings reads what doctor needs of the node's network beside the resources.
func (c *Conn) Surroundings(ctx context.Context) (doctor.Surroundings, error) {
	var around doctor.Surroundings
	links, err := dump(ctx, c.netlink.LinkList)
	if err != nil {
		return around, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		if a := link.Attrs(); a.Promisc > 0 || a.RawFlags&unix.IFF_PROMISC != 0 {
			around.Promiscuous = append(around.Promiscuous, a.Index)
		}
	}
	routes, err := dump(ctx, func() ([]netlink.Route, error) { return c.netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return around, fmt.Errorf("list routes: %w", err)
	}
	around.Routes, around.Gateways = sortRoutes(routes)
	neighbours, err := dump(ctx, func() ([]netlink.Neigh, error) { return c.netlink.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return around, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbours {
		switch {
		case !isExempt(n):
		case n.Family == netlink.FAMILY_V4:
			around.Exempt.IPv4++
		case n.Family == netlink.FAMILY_V6:
			around.Exempt.IPv6++
		}
		if neighbour, ok := neighbourOf(n); ok {
			around.Neighbours = append(around.Neighbours, neighbour)
		}
	}
	return around, nil
}

// isExempt reports whether an entry does not count against gc_thresh3 (neigh_update_gc_list in net/core/neighbour.c, from Linux 5.0 on).
func isExempt(n netlink.Neigh) bool {
	return n.State&netlink.NUD_PERMANENT != 0 || n.Flags&unix.NTF_EXT_LEARNED != 0
}

func neighbourOf(n netlink.Neigh) (doctor.Neighbour, bool) {
	address, ok := netip.AddrFromSlice(n.IP)
	mac := clusterip.MACOf(n.HardwareAddr)
	isResolved := n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE|netlink.NUD_NOARP) == 0
	return doctor.Neighbour{NICIndex: n.LinkIndex, Address: address.Unmap(), MAC: mac}, ok && !mac.IsZero() && isResolved
}

// sortRoutes returns the connected routes, and the gateways of the default routes.
func sortRoutes(routes []netlink.Route) (connected []clusterip.Route, gateways []doctor.Gateway) {
	for _, route := range routes {
		prefix, ok := prefixOf(route.Dst)
		switch {
		case route.Type != unix.RTN_UNICAST:
		case !ok || prefix.Bits() == 0: // the library writes 0.0.0.0/0 for a route without a destination
			gateways = append(gateways, gatewaysOf(route)...)
		case isConnected(route):
			connected = append(connected, clusterip.Route{NICIndex: route.LinkIndex, Prefix: prefix})
		}
	}
	return connected, gateways
}

func gatewaysOf(route netlink.Route) []doctor.Gateway {
	hops := route.MultiPath
	if len(hops) == 0 {
		hops = []*netlink.NexthopInfo{{LinkIndex: route.LinkIndex, Gw: route.Gw}}
	}
	var gateways []doctor.Gateway
	for _, hop := range hops {
		address, _ := netip.AddrFromSlice(hop.Gw)
		gateways = append(gateways, doctor.Gateway{
			NICIndex: hop.LinkIndex, Address: address.Unmap(), IPv6: route.Family == netlink.FAMILY_V6,
		})
	}
	return gateways
}
