// Package link reads and changes network interfaces: their addresses, multicast groups, routes and MAC filters. It sends and reads ARP and
// neighbour discovery, and for doctor it listens on the LAN.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	strict  *netlink.Handle // its dumps are filtered by the kernel (NETLINK_GET_STRICT_CHK)
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
	_ = strict.SetStrictCheck(true) // without it, before Linux 4.20, the library filters
	return &Conn{handle, strict}, nil
}

// Close ends the connection.
func (c *Conn) Close() {
	c.netlink.Close()
	c.strict.Close()
}

// ObserveLinks implements clusterip.LinkKernel.
func (c *Conn) ObserveLinks(
	ctx context.Context, addresses []netip.Addr, macs []clusterip.MAC, installed *clusterip.Layout,
) (clusterip.State, error) {
	state := clusterip.State{AltNames: map[string]int{}}
	links, err := dump(ctx, c.netlink.LinkList)
	if err != nil {
		return state, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		state.NICs = append(state.NICs, interfaceOf(link))
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
	if !isInPlace(state, installed, addresses) { // otherwise nobody needs the other routes, which may be many
		if err := c.readConnectedRoutes(ctx, &state, addresses); err != nil {
			return state, err
		}
		readSwitches(&state, addresses)
	}
	if err := readMulticastFilters(&state, macs); err != nil {
		return state, err
	}
	return state, c.readUnicastFilters(ctx, &state, macs)
}

// isInPlace reports whether all addresses were installed, with their routes, and their interface still has the same name and is usable.
func isInPlace(state clusterip.State, installed *clusterip.Layout, addresses []netip.Addr) bool {
	isNew := func(a netip.Addr) bool { return !slices.Contains(installed.Addresses(), a) }
	if installed == nil || slices.ContainsFunc(addresses, isNew) || !state.HasRoutesOf(*installed) {
		return false
	}
	return slices.ContainsFunc(state.NICs, func(n clusterip.NIC) bool {
		return n.Index == installed.NICIndex && n.Name == installed.NIC && state.Usable(n)
	})
}

// ApplyLinks implements clusterip.LinkKernel. It is no error if the state is already as the step wants it.
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
		// The kernel has one route of a metric to a network. This replaces one on another interface, where the resource was before.
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

// lastPause is the longest pause between two tries.
const lastPause = 50 * time.Millisecond

// dump reads a list from the kernel, again when a change has interrupted it.
func dump[T any](ctx context.Context, read func() ([]T, error)) ([]T, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, lastPause) {
		list, err := read()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
		if ctxErr := clusterip.Pause(ctx, pause); ctxErr != nil {
			return nil, fmt.Errorf("%w, at each try: %w", err, ctxErr)
		}
	}
}

func unless(expected, err error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
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
