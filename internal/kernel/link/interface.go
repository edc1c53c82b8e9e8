package link

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/sysctl"
)

// interfaceOf reads what the agent needs of an interface.
func interfaceOf(link netlink.Link) clusterip.NIC {
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
		XDP:      attributes.Xdp != nil && attributes.Xdp.Attached,
	}
	switch link := link.(type) {
	case *netlink.Bridge:
		snoops := link.MulticastSnooping != nil && *link.MulticastSnooping
		nic.Snoops = snoops && !isMulticastRouter(nic.Name)
		nic.CallsIPTables = clusterip.PerFamily[bool]{IPv4: calls("iptables", nic.Name), IPv6: calls("ip6tables", nic.Name)}
	case *netlink.Bond:
		nic.BondMode = link.Mode.String()
		nic.Asks = link.ArpInterval > 0
		nic.Verifies = link.ArpValidate > 0 && link.ArpValidate&netlink.BOND_ARP_VALIDATE_ACTIVE != 0 // -1: unknown
	case *netlink.Vlan, *netlink.Macvlan, *netlink.Macvtap, *netlink.IPVlan, *netlink.IPVtap:
		if attributes.NetNsID < 0 { // otherwise the index is of another network namespace
			nic.Parent = attributes.ParentIndex
		}
	}
	return nic
}

// isMulticastRouter reports whether a bridge is configured as a multicast router (MDB_RTR_TYPE_PERM), so that it receives all groups'
// frames.
func isMulticastRouter(bridge string) bool { return bridgeOption(bridge, "multicast_router") == "2" }

// calls reports whether a bridge passes the packets of its ports to iptables or ip6tables, because all bridges do or this one does
// (br_nf_pre_routing in net/bridge/br_netfilter_hooks.c). Without br_netfilter none does.
func calls(program, bridge string) bool {
	return sysctl.IsSet("net/bridge/bridge-nf-call-"+program) || bridgeOption(bridge, "nf_call_"+program) == "1"
}

// bridgeOption reads an option of a bridge that the netlink library does not decode; "" if it cannot be read.
func bridgeOption(bridge, name string) string {
	value, _ := os.ReadFile(filepath.Join("/sys/class/net", bridge, "bridge", name)) //nolint:gosec // the name is the kernel's
	return string(bytes.TrimSpace(value))
}

// readSwitches reads those parameters of the interfaces that only matter before addresses are installed.
func readSwitches(state *clusterip.State, addresses []netip.Addr) {
	for i := range state.NICs {
		nic := &state.NICs[i]
		nic.NoIPv6 = slices.ContainsFunc(addresses, netip.Addr.Is6) && !hasIPv6(nic.Name)
		nic.ARPFilter = sysctl.IsSet("net/ipv4/conf/all/arp_filter") || sysctl.IsSet("net/ipv4/conf/"+nic.Name+"/arp_filter")
	}
}

// hasIPv6 reports whether an interface may have IPv6 addresses. One with an MTU below 1280 has no IPv6 parameters at all.
func hasIPv6(nic string) bool {
	disabled, err := sysctl.Read("net/ipv6/conf/" + nic + "/disable_ipv6")
	return err == nil && disabled == "0"
}
