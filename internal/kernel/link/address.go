package link

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// readAddresses reads where the addresses are, and the groups of the MACs.
func (c *Conn) readAddresses(ctx context.Context, state *clusterip.State, addresses []netip.Addr, macs []clusterip.MAC) error {
	all, err := c.addressesOn(ctx, nil, familyOf(addresses...))
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		seen, ok := addressOf(a)
		isGroup := func(mac clusterip.MAC) bool { return mac.MulticastGroup() == seen.Prefix.Addr() }
		switch {
		case !ok:
		case slices.Contains(addresses, seen.Prefix.Addr()):
			seen.HostScope = seen.Prefix.Addr().Is4() && a.Scope == unix.RT_SCOPE_HOST
			state.Addresses = append(state.Addresses, seen)
		case slices.ContainsFunc(macs, isGroup):
			state.Groups = append(state.Groups, seen)
		}
	}
	return nil
}

func addressOf(a netlink.Addr) (clusterip.Address, bool) {
	prefix, ok := prefixOf(a.IPNet)
	return clusterip.Address{
		NICIndex: a.LinkIndex, Prefix: prefix,
		AutoJoin:  a.Flags&unix.IFA_F_MCAUTOJOIN != 0,
		Tentative: a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0,
	}, ok
}

// addressesOn lists the addresses of an interface, or of all.
func (c *Conn) addressesOn(ctx context.Context, nic netlink.Link, family int) ([]netlink.Addr, error) {
	return dump(ctx, func() ([]netlink.Addr, error) { return c.netlink.AddrList(nic, family) })
}

func (c *Conn) addAddress(ctx context.Context, step clusterip.AddAddress) error {
	err := unless(unix.EEXIST, c.netlink.AddrAdd(device(step.NIC), newAddress(step)))
	if step.Group && (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)) {
		return tooManyGroups(step.Prefix.Addr(), err)
	}
	if err != nil || step.Group || step.Prefix.Addr().Is4() {
		return err
	}
	return c.waitLocal(ctx, step.Prefix.Addr())
}

// newAddress is an address in a form that is never the source of the node's own connections, whose answers would go to the owner of
// another bucket.
func newAddress(step clusterip.AddAddress) *netlink.Addr {
	const forever = math.MaxUint32 // INFINITY_LIFE_TIME
	address := &netlink.Addr{IPNet: ipNetOf(step.Prefix)}
	if step.Prefix.Addr().Is6() {
		// All nodes have the address, so duplicate address detection would find one. Deprecated addresses are the last choice for a source (RFC
		// 6724 section 5, rule 3).
		address.Flags = unix.IFA_F_NODAD
		address.PreferedLft, address.ValidLft = 0, forever
	} else {
		address.Scope = int(netlink.SCOPE_HOST) // inet_select_addr skips it
		if !step.Group {
			address.Label = labelOn(step.NIC.Name)
		}
	}
	if step.Group {
		// As long as the address is there, the kernel is a member of the group and answers queries. An IPv6 group is never a source
		// (ipv6_dev_get_saddr).
		address.Flags |= unix.IFA_F_MCAUTOJOIN
	}
	return address
}

// labelOn is a label that differs from the interface's name. Programs ask for the interface's own address by that name, and ifconfig
// replaces it (SIOCGIFADDR and SIOCSIFADDR, devinet_ioctl in net/ipv4/devinet.c): they get the first address that has the label, and
// addresses of scope host come first. Where the name leaves no room, the label is empty, and the kernel uses the name.
func labelOn(nic string) string {
	label := nic + ":c"
	if len(label) >= unix.IFNAMSIZ {
		return ""
	}
	return label
}

// tooManyGroups names the limit for the groups of all resources in igmp mode: the kernel joins them with one socket of each family, whose
// memberships and memory are limited (ip_mc_join_group in net/ipv4/igmp.c, sock_kmalloc in net/core/sock.c).
func tooManyGroups(group netip.Addr, err error) error {
	limits := "net.core.optmem_max"
	if group.Is4() {
		limits = "net.ipv4.igmp_max_memberships, which is 20 by default, or net.core.optmem_max"
	}
	return ocf.Errorf(ocf.ErrArgs, "the kernel joins no more multicast groups (%w): each resource with mac_mode=igmp needs one of each "+
		"family on this node; raise sysctl %s, also in /etc/sysctl.d", err, limits)
}

// waitLocal waits until the kernel accepts packets to an IPv6 address. It does so only after a worker has found that there is no
// duplicate to detect (addrconf_dad_work in net/ipv6/addrconf.c); until then a router would forward them.
func (c *Conn) waitLocal(ctx context.Context, address netip.Addr) error {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, lastPause) {
		routes, err := c.netlink.RouteGet(address.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if ctxErr := clusterip.Pause(ctx, pause); ctxErr != nil {
			return errors.Join(fmt.Errorf("the kernel does not accept packets to %s: %w", address, ctxErr), err)
		}
	}
}

// removeAddress removes one address, and no other with it.
func (c *Conn) removeAddress(ctx context.Context, step clusterip.RemoveAddress) error {
	all, err := c.addressesOn(ctx, device(step.NIC), familyOf(step.Prefix.Addr()))
	if err != nil {
		return err
	}
	isIt := func(a netlink.Addr) bool { prefix, ok := prefixOf(a.IPNet); return ok && prefix == step.Prefix }
	i := slices.IndexFunc(all, isIt)
	switch {
	case i < 0:
		return nil
	case step.Prefix.Addr().Is4() && hasSecondaries(all[i], all):
		return c.removePromoting(ctx, step.NIC, step.Prefix)
	default:
		return c.removeAlone(step.NIC, step.Prefix)
	}
}

// removeAlone removes an address that has no secondary ones.
func (c *Conn) removeAlone(nic clusterip.NIC, prefix netip.Prefix) error {
	return unless(unix.EADDRNOTAVAIL, c.netlink.AddrDel(device(nic), &netlink.Addr{IPNet: ipNetOf(prefix)}))
}

// device is an interface as the library takes it.
func device(nic clusterip.NIC) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: nic.Index, Name: nic.Name}}
}
