package metadata

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

// parse returns the value of a text, or what is wrong with it. A message shows the fault behind the text.
func (p Parameter) parse(text string) (value any, fault string) {
	switch p.Kind {
	case Addresses:
		return p.parseAddresses(text)
	case PrefixLengths:
		return p.parsePrefixLengths(text)
	case Services:
		return p.parseServices(text)
	case InterfaceName:
		return p.parseInterfaceName(text)
	case MAC:
		return p.parseMAC(text)
	case Select:
		if slices.ContainsFunc(p.Options, func(o Option) bool { return o.Value == text }) {
			return text, ""
		}
	case Unsigned:
		if n, ok := p.parseNumber(text, 10); ok {
			return n, ""
		}
	case Milliseconds:
		if n, ok := p.parseNumber(text, 10); ok {
			return time.Duration(n) * time.Millisecond, ""
		}
	case Seconds:
		if n, ok := p.parseNumber(text, 10); ok {
			return time.Duration(n) * time.Second, ""
		}
	case Seed:
		digits, isHex := strings.CutPrefix(strings.ToLower(text), "0x")
		base := 10
		if isHex {
			base = 16
		}
		if n, ok := p.parseNumber(digits, base); ok {
			return n, ""
		}
	case Boolean:
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1":
			return true, ""
		case "false", "no", "off", "0":
			return false, ""
		}
	}
	return nil, "is not " + p.Allowed()
}

func (p Parameter) parseNumber(digits string, base int) (uint32, bool) {
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || uint32(n) < p.Min || uint32(n) > p.Max {
		return 0, false
	}
	return uint32(n), true
}

// list splits a list at spaces and commas.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' })
}

// maxAddresses bounds the work for each packet.
const maxAddresses = 32

func (p Parameter) parseAddresses(text string) (any, string) {
	var addresses []netip.Addr
	var faults []string
	for _, one := range list(text) {
		address, fault := p.parseAddress(one)
		if fault == "" && slices.Contains(addresses, address) {
			fault = "is given twice"
		}
		if fault != "" {
			faults = append(faults, fmt.Sprintf("%s %s", ocf.Quote(one), fault))
		}
		addresses = append(addresses, address)
	}
	switch {
	case len(addresses) == 0:
		return nil, "is not " + p.Allowed()
	case len(addresses) > maxAddresses:
		return nil, fmt.Sprintf("has %d addresses, but at most %d are possible: use two resources", len(addresses), maxAddresses)
	case len(faults) == 1 && len(addresses) == 1:
		_, fault := p.parseAddress(text)
		return nil, fault
	case len(faults) > 0:
		return nil, "has faults: " + strings.Join(faults, "; ")
	}
	return addresses, ""
}

// unfitRanges are the addresses that no host can have, from the IANA IPv4 and IPv6 Special-Purpose Address Registries. The first range that
// contains an address explains.
var unfitRanges = []struct{ prefix, why string }{
	{"0.0.0.0/32", "is the unspecified address"},
	{"0.0.0.0/8", `is in the range 0.0.0.0/8 ("this network")`},
	{"127.0.0.0/8", "is a loopback address"},
	{"224.0.0.0/4", "is a multicast address"},
	{"255.255.255.255/32", "is the broadcast address"},
	{"240.0.0.0/4", "is in the reserved range 240.0.0.0/4"},
	{"::/128", "is the unspecified address"},
	{"::1/128", "is the loopback address"},
	{"ff00::/8", "is a multicast address"},
}

func (p Parameter) parseAddress(text string) (netip.Addr, string) {
	addr, err := netip.ParseAddr(text)
	if prefix, perr := netip.ParsePrefix(text); perr == nil {
		return addr, fmt.Sprintf("has a prefix length: give ip=%s cidr_netmask=%d", prefix.Addr(), prefix.Bits())
	}
	switch {
	case err != nil:
		return addr, "is not " + p.Allowed()
	case addr.Zone() != "":
		return addr, "has a zone: give the interface with parameter nic"
	case addr.Is4In6():
		return addr, "is an IPv4 address in IPv6 form: give " + addr.Unmap().String()
	}
	for _, u := range unfitRanges {
		if netip.MustParsePrefix(u.prefix).Contains(addr) {
			return addr, u.why + ", which no host can have"
		}
	}
	return addr, ""
}

func (p Parameter) parsePrefixLengths(text string) (any, string) {
	const families = 2
	var lengths []uint32
	for _, one := range list(text) {
		n, ok := p.parseNumber(one, 10)
		if !ok {
			return nil, "is not " + p.Allowed()
		}
		lengths = append(lengths, n)
	}
	if len(lengths) == 0 || len(lengths) > families {
		return nil, "is not " + p.Allowed()
	}
	return lengths, ""
}

func (p Parameter) parseServices(text string) (any, string) {
	var all []services.Service
	for _, one := range list(text) {
		service, err := services.Parse(one)
		if err != nil {
			return nil, fmt.Sprintf("is not %s: %v", p.Allowed(), err)
		}
		all = append(all, service)
	}
	if len(all) == 0 {
		return nil, "is not " + p.Allowed()
	}
	return services.Merge(all), ""
}

// parseInterfaceName accepts the kernel's names (dev_valid_name) in printable ASCII, and the length of alternative names.
func (p Parameter) parseInterfaceName(text string) (any, string) {
	const altifnamsiz = 128 // with the NUL behind it
	unfit := func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }
	if text == "" || len(text) >= altifnamsiz || text == "." || text == ".." || strings.ContainsFunc(text, unfit) {
		return nil, "is not " + p.Allowed()
	}
	return text, ""
}

func (p Parameter) parseMAC(text string) (any, string) {
	mac, err := net.ParseMAC(text)
	switch {
	case err != nil || len(mac) != 6:
		return nil, "is not " + p.Allowed()
	case bytes.Equal(mac, []byte{0, 0, 0, 0, 0, 0}):
		return nil, "is all zeros, which no host can have"
	case bytes.Equal(mac, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}):
		return nil, "is the broadcast address, which no host can have"
	default:
		return mac, ""
	}
}
