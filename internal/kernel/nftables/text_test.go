package nftables

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// textOf shows tables much as nft(8) lists them, which only root may do. Values that it has no words for are in hex, as in the packet.
func textOf(tables []table) string {
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "table %s {\n", t)
		for _, s := range t.sets {
			fmt.Fprintf(&b, "\tset %s { %s}\n", s.name, s.text())
		}
		for _, c := range t.chains {
			fmt.Fprintf(&b, "\tchain %s { # %s\n", c.name, c.base)
			for _, r := range c.rules {
				fmt.Fprintf(&b, "\t\t%s comment %q\n", exprsText(r.exprs), r.comment)
			}
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func (s set) text() string {
	text := fmt.Sprintf("keys of %d bytes; ", s.keyLength)
	if s.flags&unix.NFT_SET_INTERVAL != 0 {
		text += "flags interval; "
	}
	if s.flags&unix.NFT_SET_TIMEOUT != 0 {
		text += "flags timeout; "
	}
	for _, e := range s.elements {
		switch {
		case e.end:
			text += fmt.Sprintf("until %d; ", e.key)
		case e.comment != "":
			text += fmt.Sprintf("element %#x comment %q; ", e.key, e.comment)
		default:
			text += fmt.Sprintf("element %d; ", e.key)
		}
	}
	return text
}

var fieldNames = map[field]string{
	etherDestination: "ether daddr", etherType: "ether type", vlanTCI: "vlan tci",
	arpSenderMAC: "arp saddr ether", arpSenderIP: "arp saddr ip",
	ipv4Source: "ip saddr", ipv4Destination: "ip daddr", ipv6Source: "ip6 saddr", ipv6Destination: "ip6 daddr",
	icmpType: "icmp type", ndTarget: "nd target", ndOptionMAC: "nd option mac",
	sourcePort: "th sport", destinationPort: "th dport", tcpFlags: "tcp flags", sctpChunkType: "sctp chunk type",
}

// payloadText writes a field without a name as its place in bits.
func payloadText(e *expr.Payload) string {
	if name, ok := fieldNames[field{e.Base, e.Offset, e.Len}]; ok {
		return name
	}
	const bits = 8
	return fmt.Sprintf("@%s,%d,%d", map[expr.PayloadBase]string{link: "ll", network: "nh", transport: "th"}[e.Base], e.Offset*bits, e.Len*bits)
}

var metaNames = map[expr.MetaKey]string{
	expr.MetaKeyIIF: "iif", expr.MetaKeyOIF: "oif", expr.MetaKeyIIFTYPE: "iiftype", expr.MetaKeyPROTOCOL: "protocol",
	expr.MetaKeyL4PROTO: "l4proto", expr.MetaKeyPKTTYPE: "pkttype", expr.MetaKeyMARK: "mark",
}

// exprsText writes what a rule loads together with what it does with it. Our rules use all that they have loaded at once.
func exprsText(exprs []expr.Any) string {
	var words, loaded []string
	do := func(format string, args ...any) {
		words, loaded = append(words, fmt.Sprintf(format, args...)), nil
	}
	all := func() string { return strings.Join(loaded, " . ") }
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			if e.SourceRegister {
				do("meta %s set %s", metaNames[e.Key], all())
			} else {
				loaded = append(loaded, "meta "+metaNames[e.Key])
			}
		case *expr.Payload:
			if e.OperationType == expr.PayloadWrite {
				do("%s set %s", payloadText(e), all())
			} else {
				loaded = append(loaded, payloadText(e))
			}
		case *expr.Ct:
			loaded = append(loaded, "ct state")
		case *expr.Exthdr:
			loaded = append(loaded, "exthdr frag exists")
		case *expr.Immediate:
			loaded = append(loaded, valueText("", e.Data))
		case *expr.Bitwise:
			loaded[len(loaded)-1] += " & " + valueText(loaded[len(loaded)-1], e.Mask)
		case *expr.Byteorder:
			loaded[len(loaded)-1] = "ntoh(" + loaded[len(loaded)-1] + ")"
		case *expr.Hash:
			loaded = []string{fmt.Sprintf("jhash %s mod %d seed %#x", all(), e.Modulus, e.Seed)}
		case *expr.Lookup:
			words = append(words, all()+map[bool]string{true: " !="}[e.Invert]+" @"+e.SetName) // a second look-up takes the same
		case *expr.Cmp:
			do("%s%s %s", all(), map[expr.CmpOp]string{expr.CmpOpNeq: " !="}[e.Op], valueText(all(), e.Data))
		case *expr.Counter:
			do("counter")
		case *expr.Verdict:
			kinds := map[expr.VerdictKind]string{expr.VerdictAccept: "accept", expr.VerdictDrop: "drop", expr.VerdictGoto: "goto " + e.Chain}
			do("%s", kinds[e.Kind])
		}
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

func valueText(of string, data []byte) string {
	address, _ := netip.AddrFromSlice(data)
	switch {
	case len(data) == macLength:
		return net.HardwareAddr(data).String()
	case address.Is6(), address.Is4() && (strings.HasPrefix(of, "ip ") || strings.HasPrefix(of, "arp ")):
		return address.String()
	default:
		return fmt.Sprintf("%#x", data)
	}
}
