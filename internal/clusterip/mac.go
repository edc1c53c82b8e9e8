package clusterip

import (
	"fmt"
	"net"
	"net/netip"
)

// MAC is an Ethernet address, EUI-48.
type MAC [6]byte

// String prints the usual form, 01:02:03:04:05:06.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Group tells whether the group bit (IEEE 802, I/G) is set: the address names several stations.
func (m MAC) Group() bool { return m[0]&1 == 1 }

// IsZero tells whether there is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// MACOf converts the library's form. Anything but six bytes gives the zero MAC.
func MACOf(address net.HardwareAddr) MAC {
	var mac MAC
	if len(address) == len(mac) {
		copy(mac[:], address)
	}
	return mac
}

// MACMode says which kind of link-layer address the nodes share, and by what means their NICs accept it.
type MACMode string

// The MAC modes.
const (
	Multicast MACMode = "multicast" // a group address; a lasting filter on the NIC (SIOCADDMULTI, as `ip maddr add`)
	IGMP      MACMode = "igmp"      // the MAC of an IPv4 group that the kernel itself joins, so that snooping switches know
	Unicast   MACMode = "unicast"   // an individual address; a second unicast filter on the NIC (`bridge fdb add … self`)
)

// MACModes are all of them.
func MACModes() []MACMode { return []MACMode{Multicast, IGMP, Unicast} }

// The second byte of a derived MAC keeps it apart from what Microsoft's NLB derives (02:bf and 03:bf).
const (
	locallyAdministeredUnicast   = 0x02
	locallyAdministeredMulticast = 0x03
	derivedMarker                = 0xc1
)

// igmpPrefix is what RFC 1112 section 6.4 makes of the groups 239.255.0.0/16 (RFC 2365's IPv4 local scope).
var igmpPrefix = [4]byte{0x01, 0x00, 0x5e, 0x7f}

// DerivedMAC returns the cluster MAC that follows from the address alone, so that all nodes agree without being told.
func DerivedMAC(mode MACMode, address netip.Addr) MAC {
	a := address.Unmap().As4()
	switch mode {
	case IGMP:
		return MAC{igmpPrefix[0], igmpPrefix[1], igmpPrefix[2], igmpPrefix[3], a[2], a[3]}
	case Unicast:
		return MAC{locallyAdministeredUnicast, derivedMarker, a[0], a[1], a[2], a[3]}
	default:
		return MAC{locallyAdministeredMulticast, derivedMarker, a[0], a[1], a[2], a[3]}
	}
}

// Check says why the MAC cannot serve in the mode.
func (mode MACMode) Check(mac MAC) error {
	switch {
	case mode == Unicast && mac.Group():
		return fmt.Errorf("%s is a group address, mac_mode=unicast needs an individual one (first byte even)", mac)
	case mode == Multicast && !mac.Group():
		return fmt.Errorf("%s is an individual address, mac_mode=multicast needs a group address (first byte odd)", mac)
	case mode == IGMP && [4]byte(mac[:4]) != igmpPrefix:
		return fmt.Errorf("%s is not the MAC of a group in 239.255.0.0/16, mac_mode=igmp needs 01:00:5e:7f:x:y", mac)
	}
	return nil
}

// MulticastGroup returns the IPv4 group whose MAC this is in igmp mode (RFC 1112 section 6.4): 239.255.x.y.
func (m MAC) MulticastGroup() netip.Addr { return netip.AddrFrom4([4]byte{239, 255, m[4], m[5]}) }
