package clusterip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// MAC is an Ethernet address, EUI-48.
type MAC [6]byte

// String prints the usual form, 01:02:03:04:05:06.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Group reports whether this is a group address (the I/G bit of IEEE 802 is set).
func (m MAC) Group() bool { return m[0]&1 == 1 }

// IsZero reports whether there is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// MACOf converts the library's form. Anything but six bytes gives the zero MAC.
func MACOf(address net.HardwareAddr) MAC {
	var mac MAC
	if len(address) == len(mac) {
		copy(mac[:], address)
	}
	return mac
}

// MACMode is the kind of MAC address that the nodes share, and how their interfaces receive frames for it.
type MACMode string

// The MAC modes.
const (
	Multicast MACMode = "multicast" // a group address, in the interface's multicast filter (SIOCADDMULTI, as `ip maddr add`)
	IGMP      MACMode = "igmp"      // the MAC of a group that the kernel joins, by IGMP or MLD, for switches with snooping
	Unicast   MACMode = "unicast"   // an individual address, in the interface's unicast filter (`bridge fdb add … self`)
)

// MACModes returns all MAC modes.
func MACModes() []MACMode { return []MACMode{Multicast, IGMP, Unicast} }

// The second byte of a derived MAC differs from that of Microsoft's NLB (02:bf and 03:bf).
const (
	locallyAdministeredUnicast   = 0x02
	locallyAdministeredMulticast = 0x03
	derivedMarker                = 0xc1
)

// The MACs of igmp mode, and their groups, whose scope is the site.
var (
	// igmpPrefix begins the MACs (RFC 1112 section 6.4) of the groups 239.255.0.0/16 (RFC 2365's IPv4 local scope).
	igmpPrefix = [4]byte{0x01, 0x00, 0x5e, 0x7f}
	// mldPrefix begins the MACs of all IPv6 groups (RFC 2464 section 7); the group's last four bytes follow.
	mldPrefix = [2]byte{0x33, 0x33}
	// mldGroups holds our IPv6 groups: transient, of site-local scope (RFC 4291 section 2.7).
	mldGroups = netip.MustParsePrefix("ff15::/96")
)

// firstDynamicGroup is the lowest group ID that a host may assign by itself (RFC 3307 section 4.3).
const firstDynamicGroup = 0x80000000

// DerivedMAC derives the shared MAC from the address alone, so that it is the same on all nodes. Of an IPv6 address it uses a hash of four
// bytes, as long as an IPv4 address.
func DerivedMAC(mode MACMode, address netip.Addr) MAC {
	var a [4]byte
	if address.Unmap().Is4() {
		a = address.Unmap().As4()
	} else {
		binary.BigEndian.PutUint32(a[:], Jhash(defaultSeedInitval, wordsOf(address, binary.LittleEndian)...))
	}
	switch {
	case mode == IGMP && address.Unmap().Is4():
		return MAC{igmpPrefix[0], igmpPrefix[1], igmpPrefix[2], igmpPrefix[3], a[2], a[3]}
	case mode == IGMP:
		return MAC{mldPrefix[0], mldPrefix[1], a[0] | firstDynamicGroup>>24, a[1], a[2], a[3]}
	case mode == Unicast:
		return MAC{locallyAdministeredUnicast, derivedMarker, a[0], a[1], a[2], a[3]}
	default:
		return MAC{locallyAdministeredMulticast, derivedMarker, a[0], a[1], a[2], a[3]}
	}
}

// Check returns why the MAC does not fit the mode.
func (mode MACMode) Check(mac MAC) error {
	switch {
	case mode == Unicast && mac.Group():
		return fmt.Errorf("%s is a group address, mac_mode=unicast needs an individual one (first byte even)", mac)
	case mode == Multicast && !mac.Group():
		return fmt.Errorf("%s is an individual address, mac_mode=multicast needs a group address (first byte odd)", mac)
	case mode == IGMP && !mac.MulticastGroup().IsValid():
		return fmt.Errorf("%s is not the MAC of a group in 239.255.0.0/16 or %s, mac_mode=igmp needs 01:00:5e:7f:x:y for IPv4 or 33:33:w:x:y:z "+
			"for IPv6",
			mac, mldGroups)
	}
	return nil
}

// MulticastGroup returns the group whose MAC this is in igmp mode: 239.255.x.y (RFC 1112 section 6.4) or ff15::wx:yz (RFC 2464
// section 7). It is not valid for any other MAC.
func (m MAC) MulticastGroup() netip.Addr {
	switch {
	case [4]byte(m[:4]) == igmpPrefix:
		return netip.AddrFrom4([4]byte{239, 255, m[4], m[5]})
	case [2]byte(m[:2]) == mldPrefix:
		group := mldGroups.Addr().As16()
		copy(group[12:], m[2:])
		return netip.AddrFrom16(group)
	default:
		return netip.Addr{}
	}
}
