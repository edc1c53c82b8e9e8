// Package network says what the switches and routers of a shared address have to be told: commands to copy, with their reasons. It knows
// vendors' command lines; it speaks to no device.
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
)

// Options are what an operator says of the network, as it was typed. Nothing of it goes into a command unchecked: commands are pasted.
type Options struct {
	Vendor          string // as in Vendors; "": the text for all
	Ports           string // of the switch, where nodes are plugged in; a list
	VLAN            string // its number
	VLANName        string
	Bridge          string
	RouterInterface string // of the router, on the address's network
	RouterAddress   string // the router's own there, with prefix lengths; a list
	Querier         string // the source of IGMP and MLD queries; a list
}

// A request is what is asked, with all that was said found good.
type request struct {
	layout          clusterip.Layout
	vendor          vendor
	ports           []string
	vlan            int // 0: not said
	vlanName        string
	bridge          string
	routerInterface string
	routerAddresses []netip.Prefix
	queriers        clusterip.PerFamily[netip.Addr]
}

const maxVLAN = 4094 // IEEE 802.1Q: 0 and 4095 are reserved

// parse reads the options for an address that is laid so, and says everything that is wrong with them.
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

// withoutVendor names what was said and is of use only with one.
func (o Options) withoutVendor() error {
	return o.each(func(option option) error {
		return ocf.Errorf(ocf.ErrArgs, "%s is of use only with --vendor, which is one of %s", option.flag, strings.Join(Vendors(), ", "))
	})
}

func vendorNamed(name string) (vendor, error) {
	i := slices.IndexFunc(vendors(), func(v vendor) bool { return v.name == name })
	if i < 0 {
		return vendor{}, ocf.Errorf(ocf.ErrArgs, "--vendor %s is none of %s", ocf.Quote(name), strings.Join(Vendors(), ", "))
	}
	return vendors()[i], nil
}

// setNames takes what does not depend on the address.
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

// Check says what is wrong with the options whatever the address is.
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

// given are the options besides the vendor, by their flags.
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

// each asks what is wrong with each option that was said.
func (o Options) each(wrong func(option) error) error {
	var faults []error
	for _, option := range o.given() {
		if option.value != "" {
			faults = append(faults, wrong(option))
		}
	}
	return errors.Join(faults...)
}

// unknown names what was said and no command of the vendor has a use for.
func (o Options) unknown(v vendor) error {
	return o.each(func(option option) error {
		if _, known := v.use(option.flag); known {
			return nil
		}
		return ocf.Errorf(ocf.ErrArgs, "%s is of use only with another --vendor", option.flag)
	})
}

// unused names what was said and would have no effect on the commands for this address, but has on others.
func (o Options) unused(v vendor, layout clusterip.Layout) error {
	return o.each(func(option option) error {
		use, _ := v.use(option.flag)
		switch {
		case use.modes != nil && !slices.Contains(use.modes, layout.MACMode):
			return ocf.Errorf(ocf.ErrArgs, "%s is of use only with %s, and this is mac_mode=%s", option.flag, use.by(), layout.MACMode)
		case use.ipv6 && !layout.Has(netip.Addr.Is6):
			return ocf.Errorf(ocf.ErrArgs, "--vendor %s has a use for %s only with an IPv6 address, and there is none", v.name, option.flag)
		case use.instead != "" && o.said(use.instead):
			return ocf.Errorf(ocf.ErrArgs, "%s takes the place of %s: say one of them", use.instead, option.flag)
		}
		return nil
	})
}

// missing names what was not said and is needed.
func (o Options) missing(v vendor, mode clusterip.MACMode) error {
	var faults []error
	for _, use := range v.uses {
		if use.need == "" || use.modes != nil && !slices.Contains(use.modes, mode) || o.said(use.flag) || o.said(use.instead) {
			continue
		}
		flag := use.flag
		if use.instead != "" {
			flag += " or " + use.instead
		}
		faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--vendor %s needs %s: %s", v.name, flag, use.need))
	}
	return errors.Join(faults...)
}

func (o Options) said(flag string) bool {
	return slices.ContainsFunc(o.given(), func(option option) bool { return option.flag == flag && option.value != "" })
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func (r *request) setPorts(text string) error {
	var faults []error
	for _, one := range list(text) {
		var port string
		if err := setName("--ports", one, &port); err != nil {
			faults = append(faults, err)
			continue
		}
		if slices.Contains(r.ports, port) {
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--ports: %s is named twice", port))
		}
		r.ports = append(r.ports, port)
	}
	if text != "" && len(list(text)) == 0 {
		faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--ports %s names no port", ocf.Quote(text)))
	}
	return errors.Join(faults...)
}

func (r *request) setVLAN(text string) error {
	if text == "" {
		return nil
	}
	vlan, err := strconv.ParseUint(text, 10, 16)
	if err != nil || vlan < 1 || vlan > maxVLAN {
		return ocf.Errorf(ocf.ErrArgs, "--vlan %s is not a number from 1 to %d", ocf.Quote(text), maxVLAN)
	}
	r.vlan = int(vlan)
	return nil
}

// setName takes what names of ports, VLANs and bridges are made of on the devices known here, and nothing that a command line gives a
// meaning to: no space, quote, control character or metacharacter, and no hyphen in front.
func setName(flag, text string, into *string) error {
	const longest = 64
	alphanumeric := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	unfit := func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("/.-_:", r) }
	switch {
	case text == "" && flag != "--ports":
		return nil
	case len(text) > longest || strings.ContainsFunc(text, unfit) || text == "" || !alphanumeric(rune(text[0])):
		return ocf.Errorf(ocf.ErrArgs, "%s: %s is no name of letters, digits and / . - _ : that begins with a letter or digit, of %d characters at most", flag, ocf.Quote(text), longest)
	}
	*into = text
	return nil
}

// checkLinuxName knows what the kernel allows (dev_valid_name) beyond setName.
func checkLinuxName(name string) error {
	const ifnamsiz = 16 // with the NUL behind it
	if len(name) >= ifnamsiz || strings.ContainsAny(name, "/:") {
		return ocf.Errorf(ocf.ErrArgs, "%s is no name of a Linux interface: at most %d characters, and no slash or colon", ocf.Quote(name), ifnamsiz-1)
	}
	return nil
}

func (r *request) setRouterAddresses(text string) error {
	if text == "" {
		return nil
	}
	var faults []error
	for _, one := range list(text) {
		prefix, err := netip.ParsePrefix(one)
		if err != nil || prefix.Addr().Is4In6() {
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--router-address: %s is no address with its prefix length, such as 192.168.10.1/24", ocf.Quote(one)))
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
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--router-address %s: none of these networks holds %s", ocf.Quote(text), address))
		case prefix.Addr() == address:
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--router-address: %s is the shared address itself; say the router's own", address))
		case !isHost(prefix):
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--router-address: %s is its network's own address or that of all its hosts; say the router's", prefix))
		}
	}
	return errors.Join(faults...)
}

// routerAddress is the router's own in the network of an address.
func (r request) routerAddress(address netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(r.routerAddresses, func(p netip.Prefix) bool { return p.Contains(address) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return r.routerAddresses[i], true
}

// isHost tells whether an address can be a host's in its network: not the first one, nor in IPv4 the last one, unless the network has but
// two addresses (RFC 3021, RFC 6164).
func isHost(p netip.Prefix) bool {
	if p.Bits() >= p.Addr().BitLen()-1 {
		return true
	}
	isLast := p.Addr().Is4() && !p.Contains(p.Addr().Next())
	return p.Addr() != p.Masked().Addr() && !isLast
}

// isNoHostHere tells whether an address is the first or the last of a network that a shared one is in, as far as its length is known.
func (r *request) isNoHostHere(address netip.Addr) bool {
	return slices.ContainsFunc(r.layout.Prefixes, func(p netip.Prefix) bool {
		return p.Contains(address) && !isHost(netip.PrefixFrom(address, p.Bits()))
	})
}

func (r *request) setQueriers(text string) error {
	var faults []error
	for _, one := range list(text) {
		address, err := netip.ParseAddr(one)
		unfit := err != nil || address.Zone() != "" || address.Is4In6() || address.IsUnspecified() || address.IsMulticast() || address.IsLoopback()
		switch {
		case unfit || address.Is6() && !address.IsLinkLocalUnicast(): // RFC 3810 section 5.1.14
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--querier: %s is no IPv4 address of a host, and no link-local IPv6 address, from which MLD queries come (RFC 3810)", ocf.Quote(one)))
		case slices.Contains(r.layout.Addresses(), address):
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--querier: %s is the shared address itself; say one that nobody has", address))
		case address == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || r.isNoHostHere(address):
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--querier: %s is a network's own address or that of all its hosts", address))
		case !r.layout.Has(isOfFamily(address)):
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--querier: there is no shared address of the version of %s", address))
		case address.Is4() && !r.queriers.IPv4.IsValid():
			r.queriers.IPv4 = address
		case address.Is6() && !r.queriers.IPv6.IsValid():
			r.queriers.IPv6 = address
		default:
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--querier: %s is the second of its version", address))
		}
	}
	if text != "" && len(list(text)) == 0 {
		faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--querier %s names no address", ocf.Quote(text)))
	}
	return errors.Join(faults...)
}

func isOfFamily(address netip.Addr) func(netip.Addr) bool {
	if address.Is4() {
		return netip.Addr.Is4
	}
	return netip.Addr.Is6
}

// An entry is what a neighbour has to believe: the MAC of an address.
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

func (r request) has4() bool { return r.layout.Has(netip.Addr.Is4) }
func (r request) has6() bool { return r.layout.Has(netip.Addr.Is6) }

// router is the router's interface, as it was said or as the vendor calls that of the VLAN.
func (r request) router(format string) string {
	if r.routerInterface != "" {
		return r.routerInterface
	}
	return fmt.Sprintf(format, r.vlan)
}

// dotted is a MAC as Cisco and Arista write it.
func dotted(mac clusterip.MAC) string {
	return fmt.Sprintf("%02x%02x.%02x%02x.%02x%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}
