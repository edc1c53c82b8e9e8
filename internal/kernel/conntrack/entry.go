package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tuple is one direction of a connection.
type tuple struct {
	protocol            uint8
	source, destination netip.AddrPort
}

// inverted is the other direction.
func (t tuple) inverted() tuple { return tuple{t.protocol, t.destination, t.source} }

// entry is a conntrack entry. Without address translation reply is orig inverted.
type entry struct {
	orig, reply tuple
	state       uint8 // of TCP: nl.TCP_CONNTRACK_*
	left        time.Duration
	replied     bool // conntrack has seen packets in both directions

	key []byte // the attributes by which the kernel finds this entry, and not a later one of the same addresses and ports
}

// isOpen reports whether the connection may still carry data: a TCP connection that is not closed, or any SCTP association. A connection
// without a reply is not this node's: on a bridge that calls iptables, conntrack also sees the clients' packets to other nodes.
func (e entry) isOpen() bool {
	switch {
	case !e.replied:
		return false
	case e.orig.protocol == unix.IPPROTO_TCP:
		return e.state >= nl.TCP_CONNTRACK_SYN_RECV && e.state <= nl.TCP_CONNTRACK_LAST_ACK
	default:
		return e.orig.protocol == unix.IPPROTO_SCTP
	}
}

// isIncomplete reports whether the handshake is incomplete.
func (e entry) isIncomplete() bool {
	return e.state == nl.TCP_CONNTRACK_SYN_SENT || e.state == nl.TCP_CONNTRACK_SYN_RECV
}

// Bits of CTA_STATUS (IPS_* in include/uapi/linux/netfilter/nf_conntrack_common.h).
const (
	statusSeenReply = 1 << 1
	statusAssured   = 1 << 2
	statusConfirmed = 1 << 3
)

// encodeEntry encodes a new entry of an established TCP connection. Both sides are liberal (IP_CT_TCP_FLAG_BE_LIBERAL): no packet is out
// of window, because conntrack does not know the windows.
func encodeEntry(orig tuple, state uint8) []byte {
	const liberal = 0x08
	flags := []byte{liberal, liberal} // struct nf_ct_tcp_flags: flags and mask
	return slices.Concat(
		orig.encode(nl.CTA_TUPLE_ORIG), orig.inverted().encode(nl.CTA_TUPLE_REPLY),
		attribute(nl.CTA_STATUS, binary.BigEndian.AppendUint32(nil, statusSeenReply|statusAssured|statusConfirmed)),
		nested(nl.CTA_PROTOINFO, nested(nl.CTA_PROTOINFO_TCP,
			attribute(nl.CTA_PROTOINFO_TCP_STATE, []byte{state}),
			attribute(nl.CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, flags),
			attribute(nl.CTA_PROTOINFO_TCP_FLAGS_REPLY, flags),
		)),
	)
}

// lifetime encodes how long an entry lasts, in seconds, rounded up.
func lifetime(d time.Duration) []byte {
	return attribute(nl.CTA_TIMEOUT, binary.BigEndian.AppendUint32(nil, uint32((d+time.Second-1)/time.Second)))
}

// encode encodes a tuple; one without a protocol stands for its addresses.
func (t tuple) encode(kind uint16) []byte {
	source, destination := uint16(nl.CTA_IP_V6_SRC), uint16(nl.CTA_IP_V6_DST)
	if t.source.Addr().Is4() {
		source, destination = nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST
	}
	addresses := nested(nl.CTA_TUPLE_IP,
		attribute(source, t.source.Addr().AsSlice()), attribute(destination, t.destination.Addr().AsSlice()))
	if t.protocol == 0 {
		return nested(kind, addresses)
	}
	return nested(kind, addresses, nested(nl.CTA_TUPLE_PROTO,
		attribute(nl.CTA_PROTO_NUM, []byte{t.protocol}),
		attribute(nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, t.source.Port())),
		attribute(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, t.destination.Port()))))
}

func nested(kind uint16, attributes ...[]byte) []byte {
	return attribute(kind|netlink.Nested, slices.Concat(attributes...))
}

// attribute is a struct nlattr: length, kind, and the value, padded to 4 bytes.
func attribute(kind uint16, value []byte) []byte {
	const headerLength, alignment = 4, 4
	b := binary.NativeEndian.AppendUint16(nil, uint16(headerLength+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (alignment-len(value)%alignment)%alignment)...)
}

// decodeEntry decodes a message that describes an entry.
func decodeEntry(message []byte) (entry, error) {
	const headerLength = 4 // of struct nfgenmsg
	var e entry
	if len(message) < headerLength {
		return e, fmt.Errorf("conntrack: a message of %d bytes", len(message))
	}
	ad, err := netlink.NewAttributeDecoder(message[headerLength:])
	if err != nil {
		return e, fmt.Errorf("conntrack: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case nl.CTA_TUPLE_ORIG:
			ad.Nested(e.orig.decode)
		case nl.CTA_TUPLE_REPLY:
			ad.Nested(e.reply.decode)
		case nl.CTA_STATUS:
			e.replied = ad.Uint32()&statusSeenReply != 0
		case nl.CTA_TIMEOUT:
			e.left = time.Duration(ad.Uint32()) * time.Second
		case nl.CTA_PROTOINFO:
			ad.Nested(e.decodeProtocolInfo)
		}
		switch ad.Type() {
		case nl.CTA_TUPLE_ORIG, nl.CTA_ZONE, nl.CTA_ID:
			e.key = append(e.key, attribute(ad.Type()|ad.TypeFlags(), ad.Bytes())...)
		}
	}
	return e, ad.Err()
}

func (e *entry) decodeProtocolInfo(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == nl.CTA_PROTOINFO_TCP {
			ad.Nested(e.decodeTCP)
		}
	}
	return nil
}

func (e *entry) decodeTCP(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == nl.CTA_PROTOINFO_TCP_STATE {
			e.state = ad.Uint8()
		}
	}
	return nil
}

func (t *tuple) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case nl.CTA_TUPLE_IP:
			ad.Nested(t.decodeAddresses)
		case nl.CTA_TUPLE_PROTO:
			ad.Nested(t.decodePorts)
		}
	}
	return nil
}

func (t *tuple) decodeAddresses(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		address, _ := netip.AddrFromSlice(ad.Bytes())
		switch ad.Type() {
		case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
			t.source = netip.AddrPortFrom(address, t.source.Port())
		case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
			t.destination = netip.AddrPortFrom(address, t.destination.Port())
		}
	}
	return nil
}

func (t *tuple) decodePorts(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case nl.CTA_PROTO_NUM:
			t.protocol = ad.Uint8()
		case nl.CTA_PROTO_SRC_PORT:
			t.source = netip.AddrPortFrom(t.source.Addr(), ad.Uint16())
		case nl.CTA_PROTO_DST_PORT:
			t.destination = netip.AddrPortFrom(t.destination.Addr(), ad.Uint16())
		}
	}
	return nil
}
