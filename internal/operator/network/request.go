// Package network writes the configuration that switches and routers need for a shared address: commands to paste, with their reasons. It
// connects to no device.
package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/text"
)

// Options are an operator's description of the network, as typed. Every value is checked before it goes into a command, because commands
// are pasted.
type Options struct {
	Vendor          string // one of Vendors; "": the general text
	Ports           string // the switch ports of the nodes; a list
	VLAN            string // its number
	VLANName        string
	Bridge          string
	RouterInterface string // of the router, on the address's network
	RouterAddress   string // the router's own addresses there, with prefix lengths; a list
	Querier         string // the source addresses of IGMP and MLD queries; a list
}

// A request is the checked options, with the layout.
type request struct {
	layout          clusterip.Layout
	vendor          vendor
	ports           []string
	vlan            int // 0: not given
	vlanName        string
	bridge          string
	routerInterface string
	routerAddresses []netip.Prefix
	queriers        clusterip.PerFamily[netip.Addr]
}

const maxVLAN = 4094 // IEEE 802.1Q: 0 and 4095 are reserved

// invalid returns the error for a wrong option.
func invalid(format string, args ...any) error { return ocf.Errorf(ocf.ErrArgs, format, args...) }

// parse checks the options for a layout, and returns all faults.
func (o Options) parse(layout clusterip.Layout) (request, error) {
	r := request{layout: layout}
	if o.Vendor == "" {
		return r, o.withoutVendor()
	}
	var err error
	if r.vendor, err = vendorNamed(o.Vendor); err != nil {
		return r, err
	}
	return r, errors.Join(
		o.unknown(r.vendor), o.unused(r.vendor, layout), o.missing(r.vendor, layout.MACMode),
		r.setNames(o, r.vendor), r.setRouterAddresses(o.RouterAddress), r.setQueriers(o.Querier),
	)
}

// withoutVendor returns an error for each option that needs a vendor.
func (o Options) withoutVendor() error {
	return o.each(func(option option) error {
		return invalid("%s needs --vendor, one of %s", option.flag, strings.Join(Vendors(), ", "))
	})
}

func vendorNamed(name string) (vendor, error) {
	i := slices.IndexFunc(vendors(), func(v vendor) bool { return v.name == name })
	if i < 0 {
		return vendor{}, invalid("--vendor %s is not one of %s", ocf.Quote(name), strings.Join(Vendors(), ", "))
	}
	return vendors()[i], nil
}

// setNames checks and keeps the options that do not depend on the layout.
func (r *request) setNames(o Options, v vendor) error {
	faults := []error{
		r.setPorts(o.Ports), r.setVLAN(o.VLAN), setName("--vlan-name", o.VLANName, &r.vlanName), setName("--bridge", o.Bridge, &r.bridge),
		setName("--router-interface", o.RouterInterface, &r.routerInterface),
	}
	if v.name == linuxBridge {
		for _, name := range append(slices.Clone(r.ports), r.bridge, r.routerInterface) {
			faults = append(faults, checkLinuxName(name))
		}
	}
	return errors.Join(faults...)
}

// Check returns the faults that do not depend on the address.
func (o Options) Check() error {
	if o.Vendor == "" {
		return o.withoutVendor()
	}
	r := request{}
	v, err := vendorNamed(o.Vendor)
	if err != nil {
		return err
	}
	return errors.Join(o.unknown(v), r.setNames(o, v))
}

// given returns the options besides the vendor, with their flags.
func (o Options) given() []option {
	return []option{
		{"--ports", o.Ports},
		{"--vlan", o.VLAN},
		{"--vlan-name", o.VLANName},
		{"--bridge", o.Bridge},
		{"--router-interface", o.RouterInterface},
		{"--router-address", o.RouterAddress},
		{"--querier", o.Querier},
	}
}

type option struct{ flag, value string }

// each returns what is wrong with the options that were given.
func (o Options) each(wrong func(option) error) error {
	var faults []error
	for _, option := range o.given() {
		if option.value != "" {
			faults = append(faults, wrong(option))
		}
	}
	return errors.Join(faults...)
}

// unknown returns an error for each option that no command of the vendor needs.
func (o Options) unknown(v vendor) error {
	return o.each(func(option option) error {
		if _, known := v.use(option.flag); known {
			return nil
		}
		return invalid("--vendor %s has no %s", v.name, option.flag)
	})
}

// unused returns an error for each option that has no effect on the commands for this layout.
func (o Options) unused(v vendor, layout clusterip.Layout) error {
	return o.each(func(option option) error {
		use, _ := v.use(option.flag)
		switch {
		case use.modes != nil && !slices.Contains(use.modes, layout.MACMode):
			return invalid("%s needs %s, but the resource has mac_mode=%s", option.flag, use.by(), layout.MACMode)
		case use.ipv6 && !layout.Has(netip.Addr.Is6):
			return invalid("--vendor %s needs %s only for IPv6, but there is no IPv6 address", v.name, option.flag)
		case use.instead != "" && o.has(use.instead):
			return invalid("%s replaces %s: give only one of them", use.instead, option.flag)
		}
		return nil
	})
}

// missing returns an error for each option that is needed but was not given.
func (o Options) missing(v vendor, mode clusterip.MACMode) error {
	var faults []error
	for _, use := range v.uses {
		if use.need == "" || use.modes != nil && !slices.Contains(use.modes, mode) || o.has(use.flag) || o.has(use.instead) {
			continue
		}
		flag := use.flag
		if use.instead != "" {
			flag += " or " + use.instead
		}
		faults = append(faults, invalid("--vendor %s needs %s: %s", v.name, flag, use.need))
	}
	return errors.Join(faults...)
}

func (o Options) has(flag string) bool {
	return slices.ContainsFunc(o.given(), func(option option) bool { return option.flag == flag && option.value != "" })
}

func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
}

func (r *request) setPorts(value string) error {
	var faults []error
	for _, one := range list(value) {
		var port string
		if err := setName("--ports", one, &port); err != nil {
			faults = append(faults, err)
			continue
		}
		if slices.Contains(r.ports, port) {
			faults = append(faults, invalid("--ports: %s is given twice", port))
		}
		r.ports = append(r.ports, port)
	}
	if value != "" && len(list(value)) == 0 {
		faults = append(faults, invalid("--ports %s contains no port", ocf.Quote(value)))
	}
	return errors.Join(faults...)
}

func (r *request) setVLAN(value string) error {
	if value == "" {
		return nil
	}
	vlan, err := strconv.ParseUint(value, 10, 16)
	if err != nil || vlan < 1 || vlan > maxVLAN {
		return invalid("--vlan %s is not a number from 1 to %d", ocf.Quote(value), maxVLAN)
	}
	r.vlan = int(vlan)
	return nil
}

// setName accepts the characters that names of ports, VLANs and bridges have on these devices, and none with a meaning on a command line:
// no space, quote, control character or metacharacter, and no hyphen in front.
func setName(flag, value string, into *string) error {
	const longest = 64
	alphanumeric := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	unfit := func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("/.-_:", r) }
	switch {
	case value == "" && flag != "--ports":
		return nil
	case len(value) > longest || strings.ContainsFunc(value, unfit) || value == "" || !alphanumeric(rune(value[0])):
		return invalid("%s: %s is not a name of up to %d letters, digits and / . - _ : that begins with a letter or digit",
			flag, ocf.Quote(value), longest)
	}
	*into = value
	return nil
}

// checkLinuxName checks what the kernel requires (dev_valid_name) beyond setName.
func checkLinuxName(name string) error {
	const ifnamsiz = 16 // with the NUL behind it
	if len(name) >= ifnamsiz || strings.ContainsAny(name, "/:") {
		return invalid("%s is not a name of a Linux interface: it has at most %d characters, and no slash or colon", ocf.Quote(name), ifnamsiz-1)
	}
	return nil
}

func (r *request) setRouterAddresses(value string) error {
	if value == "" {
		return nil
	}
	var faults []error
	for _, one := range list(value) {
		prefix, err := netip.ParsePrefix(one)
		if err != nil || prefix.Addr().Is4In6() {
			faults = append(faults, invalid("--router-address: %s is not an address with its prefix length, such as "+
				"192.168.10.1/24", ocf.Quote(one)))
			continue
		}
		r.routerAddresses = append(r.routerAddresses, prefix)
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	for _, address := range r.layout.Addresses() {
		prefix, ok := r.routerAddress(address)
		switch {
		case !ok:
			faults = append(faults, invalid("--router-address %s: none of these networks contains %s", ocf.Quote(value), address))
		case prefix.Addr() == address:
			faults = append(faults, invalid("--router-address: %s is the shared address; give the router's own", address))
		case !isHost(prefix):
			faults = append(faults, invalid("--router-address: %s is a network or broadcast address; give the router's own", prefix))
		}
	}
	return errors.Join(faults...)
}

// routerAddress returns the router's own address in the network of an address.
func (r request) routerAddress(address netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(r.routerAddresses, func(p netip.Prefix) bool { return p.Contains(address) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return r.routerAddresses[i], true
}

// isHost reports whether a host can have an address in its network: not the first one, nor in IPv4 the last one, unless the network has
// only two addresses (RFC 3021, RFC 6164).
func isHost(p netip.Prefix) bool {
	if p.Bits() >= p.Addr().BitLen()-1 {
		return true
	}
	isLast := p.Addr().Is4() && !p.Contains(p.Addr().Next())
	return p.Addr() != p.Masked().Addr() && !isLast
}

// isNoHostHere reports whether an address is the first or the last one of a shared address's network, if its length is known.
func (r *request) isNoHostHere(address netip.Addr) bool {
	return slices.ContainsFunc(r.layout.Prefixes, func(p netip.Prefix) bool {
		return p.Contains(address) && !isHost(netip.PrefixFrom(address, p.Bits()))
	})
}

func (r *request) setQueriers(value string) error {
	var faults []error
	for _, one := range list(value) {
		address, err := netip.ParseAddr(one)
		unfit := err != nil || address.Zone() != "" || address.Is4In6() ||
			address.IsUnspecified() || address.IsMulticast() || address.IsLoopback()
		switch {
		case unfit || address.Is6() && !address.IsLinkLocalUnicast(): // RFC 3810 section 5.1.14
			faults = append(faults, invalid("--querier: %s is neither an IPv4 address of a host nor a link-local IPv6 address, the source of MLD "+
				"queries (RFC 3810)", ocf.Quote(one)))
		case slices.Contains(r.layout.Addresses(), address):
			faults = append(faults, invalid("--querier: %s is the shared address; give an unused one", address))
		case address == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || r.isNoHostHere(address):
			faults = append(faults, invalid("--querier: %s is a network or broadcast address", address))
		case !r.layout.Has(isOfFamily(address)):
			faults = append(faults, invalid("--querier: no shared address has the IP version of %s", address))
		case address.Is4() && !r.queriers.IPv4.IsValid():
			r.queriers.IPv4 = address
		case address.Is6() && !r.queriers.IPv6.IsValid():
			r.queriers.IPv6 = address
		default:
			faults = append(faults, invalid("--querier: %s is the second address of its IP version", address))
		}
	}
	if value != "" && len(list(value)) == 0 {
		faults = append(faults, invalid("--querier %s contains no address", ocf.Quote(value)))
	}
	return errors.Join(faults...)
}

func isOfFamily(address netip.Addr) func(netip.Addr) bool {
	if address.Is4() {
		return netip.Addr.Is4
	}
	return netip.Addr.Is6
}

// An entry is a static ARP or neighbour entry: the MAC of an address.
type entry struct {
	address netip.Addr
	mac     clusterip.MAC
}

func (r request) entries(isOfFamily func(netip.Addr) bool) []entry {
	var entries []entry
	for _, address := range r.layout.Addresses() {
		if isOfFamily(address) {
			entries = append(entries, entry{address, r.layout.MACs.Of(address)})
		}
	}
	return entries
}

func (r request) mode() clusterip.MACMode { return r.layout.MACMode }

// The layout's addresses, MACs and multicast groups, as lists.

func (r request) addresses() string { return text.Join(r.layout.Addresses(), ", ") }
func (r request) macs() string      { return text.Join(r.layout.AllMACs(), ", ") }

func (r request) groups() string {
	var groups []netip.Addr
	for _, mac := range r.layout.AllMACs() {
		groups = append(groups, mac.MulticastGroup())
	}
	return text.Join(groups, ", ")
}

func (r request) has4() bool { return r.layout.Has(netip.Addr.Is4) }
func (r request) has6() bool { return r.layout.Has(netip.Addr.Is6) }

// router returns the router's interface: the given one, or the vendor's name of the VLAN's interface.
func (r request) router(format string) string {
	if r.routerInterface != "" {
		return r.routerInterface
	}
	return fmt.Sprintf(format, r.vlan)
}

// dotted returns a MAC as Cisco and Arista write it.
func dotted(mac clusterip.MAC) string {
	return fmt.Sprintf("%02x%02x.%02x%02x.%02x%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}

// each returns a command for each element of a list.
func each(list []string, format string) []string {
	commands := make([]string, len(list))
	for i, one := range list {
		commands[i] = fmt.Sprintf(format, one)
	}
	return commands
}
