package link

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Surroundings reads what is around the resources of the node.
func (c *Conn) Surroundings(ctx context.Context) (clusterip.Surroundings, error) {
	var around clusterip.Surroundings
	links, err := dump(ctx, c.netlink.LinkList)
	if err != nil {
		return around, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		a := link.Attrs()
		around.Links = append(around.Links, clusterip.Link{NICIndex: a.Index, Promiscuous: a.Promisc > 0 || a.RawFlags&unix.IFF_PROMISC != 0})
	}
	routes, err := dump(ctx, func() ([]netlink.Route, error) { return c.netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return around, fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		prefix, ok := prefixOf(route.Dst)
		switch {
		case route.Type != unix.RTN_UNICAST:
		case !ok || prefix.Bits() == 0: // the library writes 0.0.0.0/0 for what has no destination
			around.Gateways = append(around.Gateways, gatewaysOf(route)...)
		case isConnected(route):
			around.Routes = append(around.Routes, clusterip.Route{NICIndex: route.LinkIndex, Prefix: prefix})
		}
	}
	neighbours, err := dump(ctx, func() ([]netlink.Neigh, error) { return c.netlink.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return around, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbours {
		address, ok := netip.AddrFromSlice(n.IP)
		mac := clusterip.MACOf(n.HardwareAddr)
		if ok && !mac.IsZero() && n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE|netlink.NUD_NOARP) == 0 {
			around.Neighbours = append(around.Neighbours, clusterip.Neighbour{NICIndex: n.LinkIndex, Address: address.Unmap(), MAC: mac})
		}
	}
	return around, nil
}

func gatewaysOf(route netlink.Route) []clusterip.Gateway {
	is6 := route.Family == netlink.FAMILY_V6
	address, _ := netip.AddrFromSlice(route.Gw)
	gateways := []clusterip.Gateway{{NICIndex: route.LinkIndex, Address: address.Unmap(), IPv6: is6}}
	for _, hop := range route.MultiPath {
		address, _ := netip.AddrFromSlice(hop.Gw)
		gateways = append(gateways, clusterip.Gateway{NICIndex: hop.LinkIndex, Address: address.Unmap(), IPv6: is6})
	}
	if len(route.MultiPath) > 0 {
		return gateways[1:]
	}
	return gateways
}
