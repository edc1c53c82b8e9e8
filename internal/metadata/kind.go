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
)

// parse returns the value that a text means, or what is wrong with the text, to be read behind it.
func (p Parameter) parse(text string) (value any, fault string) {
	switch p.Kind {
	case Address:
		return p.parseAddress(text)
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
	return nil, "is not " + p.allowed()
}

func (p Parameter) parseNumber(digits string, base int) (uint32, bool) {
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || uint32(n) < p.Min || uint32(n) > p.Max {
		return 0, false
	}
	return uint32(n), true
}

func (p Parameter) parseAddress(text string) (any, string) {
	// Ranges that no host can have, from the IANA IPv4 Special-Purpose Address Registry; the first that fits explains.
	unfit := []struct{ prefix, why string }{
		{"0.0.0.0/32", "is the unspecified address"},
		{"0.0.0.0/8", `is in the range 0.0.0.0/8 ("this network")`},
		{"127.0.0.0/8", "is a loopback address"},
		{"224.0.0.0/4", "is a multicast address"},
		{"255.255.255.255/32", "is the broadcast address"},
		{"240.0.0.0/4", "is in the reserved range 240.0.0.0/4"},
	}
	addr, err := netip.ParseAddr(text)
	if prefix, perr := netip.ParsePrefix(text); perr == nil && prefix.Addr().Is4() {
		return nil, fmt.Sprintf("is not an address alone: give ip=%s cidr_netmask=%d", prefix.Addr(), prefix.Bits())
	}
	if err != nil || !addr.Is4() {
		return nil, "is not " + p.allowed()
	}
	for _, u := range unfit {
		if netip.MustParsePrefix(u.prefix).Contains(addr) {
			return nil, u.why + ", which no host can have"
		}
	}
	return addr, ""
}

// parseInterfaceName allows what the kernel does (dev_valid_name), of printable ASCII.
func (p Parameter) parseInterfaceName(text string) (any, string) {
	const ifnamsiz = 16 // with the NUL behind it
	unfit := func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }
	if text == "" || len(text) >= ifnamsiz || text == "." || text == ".." || strings.ContainsFunc(text, unfit) {
		return nil, "is not " + p.allowed()
	}
	return text, ""
}

func (p Parameter) parseMAC(text string) (any, string) {
	mac, err := net.ParseMAC(text)
	switch {
	case err != nil || len(mac) != 6:
		return nil, "is not " + p.allowed()
	case bytes.Equal(mac, []byte{0, 0, 0, 0, 0, 0}):
		return nil, "is all zeros, which no host can have"
	case bytes.Equal(mac, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}):
		return nil, "is the broadcast address, which no host can have"
	default:
		return mac, ""
	}
}
