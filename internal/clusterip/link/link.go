// Package link is the way into the kernel's network interfaces: addresses, multicast groups, MAC filters, and what is said
// to the neighbours by ARP.
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
}

var _ clusterip.LinkKernel = (*Conn)(nil)

// Open connects to the network namespace of the calling thread.
func Open() (*Conn, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("connect to rtnetlink: %w", err)
	}
	return &Conn{netlink: handle}, nil
}

// Close ends the connection.
func (c *Conn) Close() { c.netlink.Close() }

// ObserveLinks implements clusterip.LinkKernel.
func (c *Conn) ObserveLinks(ctx context.Context, address netip.Addr, macs []clusterip.MAC, laid *clusterip.Layout) (clusterip.State, error) {
	var state clusterip.State
	links, err := dump(ctx, c.netlink.LinkList)
	if err != nil {
		return state, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		state.NICs = append(state.NICs, nicOf(link.Attrs()))
	}
	if err := c.readAddresses(ctx, &state, address, macs); err != nil {
		return state, err
	}
	if !isInPlace(state.NICs, laid) { // else nothing is asked of the routes, which may be many
		if err := c.readRoutes(ctx, &state, address); err != nil {
			return state, err
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

func nicOf(attributes *netlink.LinkAttrs) clusterip.NIC {
	mac := clusterip.MACOf(attributes.HardwareAddr)
	return clusterip.NIC{
		Index: attributes.Index, Name: attributes.Name, MAC: mac,
		Up:       attributes.RawFlags&unix.IFF_UP != 0,
		Running:  attributes.RawFlags&unix.IFF_RUNNING != 0,
		Loopback: attributes.RawFlags&unix.IFF_LOOPBACK != 0,
		ARP:      attributes.RawFlags&unix.IFF_NOARP == 0 && !mac.IsZero(),
	}
}

// isInPlace tells whether the NIC that the tables were laid on is still there, under the same name.
func isInPlace(nics []clusterip.NIC, laid *clusterip.Layout) bool {
	return laid != nil && slices.ContainsFunc(nics, func(n clusterip.NIC) bool {
		return n.Index == laid.NICIndex && n.Name == laid.NIC
	})
}

func (c *Conn) readAddresses(ctx context.Context, state *clusterip.State, address netip.Addr, macs []clusterip.MAC) error {
	all, err := c.addressesOn(ctx, nil)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	groups := map[netip.Addr]bool{}
	for _, mac := range macs {
		if clusterip.IGMP.Check(mac) == nil {
			groups[mac.MulticastGroup()] = true
		}
	}
	for _, a := range all {
		prefix, ok := prefixOf(a.IPNet)
		if !ok {
			continue
		}
		seen := clusterip.Address{NICIndex: a.LinkIndex, Prefix: prefix, AutoJoin: a.Flags&unix.IFA_F_MCAUTOJOIN != 0}
		switch {
		case prefix.Addr() == address:
			state.Addresses = append(state.Addresses, seen)
		case groups[prefix.Addr()]:
			state.Groups = append(state.Groups, seen)
		}
	}
	return nil
}

// addressesOn lists the IPv4 addresses of a NIC, or of all.
func (c *Conn) addressesOn(ctx context.Context, nic netlink.Link) ([]netlink.Addr, error) {
	return dump(ctx, func() ([]netlink.Addr, error) { return c.netlink.AddrList(nic, netlink.FAMILY_V4) })
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

// readRoutes reads the connected routes that hold the address.
func (c *Conn) readRoutes(ctx context.Context, state *clusterip.State, address netip.Addr) error {
	routes, err := dump(ctx, func() ([]netlink.Route, error) { return c.netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		prefix, ok := prefixOf(route.Dst)
		if ok && route.Scope == netlink.SCOPE_LINK && prefix.Bits() > 0 && prefix.Contains(address) {
			state.Connected = append(state.Connected, clusterip.Route{NICIndex: route.LinkIndex, Prefix: prefix})
		}
	}
	return nil
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
		err = c.addAddress(step)
	case clusterip.RemoveAddress:
		err = c.removeAddress(ctx, step)
	default:
		return fmt.Errorf("%s: not a step for a network interface", step)
	}
	if errors.Is(err, unix.EPERM) {
		return ocf.Errorf(ocf.ErrPerm, "%w: root (CAP_NET_ADMIN) is needed", err)
	}
	return err
}

func (c *Conn) addAddress(step clusterip.AddAddress) error {
	address := &netlink.Addr{IPNet: ipNetOf(step.Prefix)}
	if step.Group {
		// The kernel itself joins the group and answers IGMP queries, as long as the address is there. Host scope keeps it from
		// ever becoming the source of a packet: __inet_insert_ifa sorts by scope, and inet_select_addr passes host scope over.
		address.Flags = unix.IFA_F_MCAUTOJOIN
		address.Scope = int(netlink.SCOPE_HOST)
	}
	return unless(unix.EEXIST, c.netlink.AddrAdd(at(step.NIC), address))
}

// removeAddress removes one address, and no other with it.
func (c *Conn) removeAddress(ctx context.Context, step clusterip.RemoveAddress) error {
	all, err := c.addressesOn(ctx, at(step.NIC))
	if err != nil {
		return err
	}
	for _, address := range all {
		if prefix, ok := prefixOf(address.IPNet); !ok || prefix != step.Prefix {
			continue
		}
		remove := func() error {
			return unless(unix.EADDRNOTAVAIL, c.netlink.AddrDel(at(step.NIC), &netlink.Addr{IPNet: ipNetOf(step.Prefix)}))
		}
		if hasSecondaries(address, all) {
			return promoting(step.NIC, remove)
		}
		return remove()
	}
	return nil
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
