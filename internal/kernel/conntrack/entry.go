package conntrack

import (
	"encoding/binary"
	"errors"
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
	endedUnseen bool // it takes a connection for established that has ended (snapshot.lacksSocket)

	key []byte // the attributes by which the kernel finds this entry, and not a later one of the same addresses and ports
}

// isOpen reports whether the connection may still carry data: a TCP connection that is not closed, or any SCTP association. A connection
// without a reply is not this node's: on a bridge that calls iptables, conntrack also sees the clients' packets to other nodes.
func (e entry) isOpen() bool {
	switch {
	case !e.replied, e.endedUnseen:
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

// decodeEntry decodes a message that describes an entry: a struct nfgenmsg, then the attributes.
func decodeEntry(message []byte) (entry, error) {
	const headerLength = 4
	if len(message) < headerLength {
		return entry{}, fmt.Errorf("conntrack: a message of %d bytes", len(message))
	}
	all, err := netlink.UnmarshalAttributes(message[headerLength:])
	if err != nil {
		return entry{}, fmt.Errorf("conntrack: %w", err)
	}
	a := attributes(all)
	e := entry{
		orig: a.nested(nl.CTA_TUPLE_ORIG).tuple(), reply: a.nested(nl.CTA_TUPLE_REPLY).tuple(),
		state:   uint8(a.nested(nl.CTA_PROTOINFO).nested(nl.CTA_PROTOINFO_TCP).number(nl.CTA_PROTOINFO_TCP_STATE)),
		left:    time.Duration(a.number(nl.CTA_TIMEOUT)) * time.Second,
		replied: a.number(nl.CTA_STATUS)&statusSeenReply != 0,
	}
	if !e.orig.source.IsValid() || !e.reply.source.IsValid() {
		return e, errors.New("conntrack: an entry without addresses")
	}
	for _, one := range all {
		switch one.Type &^ attributeFlags {
		case nl.CTA_TUPLE_ORIG, nl.CTA_ZONE, nl.CTA_ID:
			e.key = append(e.key, attribute(one.Type, one.Data)...)
		}
	}
	return e, nil
}

// attributes are those of one message or nested attribute.
type attributes []netlink.Attribute

const attributeFlags = netlink.Nested | netlink.NetByteOrder

// value is that of the first attribute of the kind; nil if there is none.
func (a attributes) value(kind uint16) []byte {
	for _, one := range a {
		if one.Type&^attributeFlags == kind {
			return one.Data
		}
	}
	return nil
}

// nested are the attributes inside another one; none if they cannot be decoded.
func (a attributes) nested(kind uint16) attributes {
	inner, _ := netlink.UnmarshalAttributes(a.value(kind))
	return inner
}

// number is an unsigned integer in network byte order.
func (a attributes) number(kind uint16) (n uint32) {
	for _, b := range a.value(kind) {
		n = n<<8 | uint32(b)
	}
	return n
}

func (a attributes) tuple() tuple {
	ip, proto := a.nested(nl.CTA_TUPLE_IP), a.nested(nl.CTA_TUPLE_PROTO)
	end := func(kind4, kind6, portKind uint16) netip.AddrPort {
		address, _ := netip.AddrFromSlice(append(ip.value(kind4), ip.value(kind6)...))
		return netip.AddrPortFrom(address, uint16(proto.number(portKind)))
	}
	return tuple{
		protocol:    uint8(proto.number(nl.CTA_PROTO_NUM)),
		source:      end(nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC, nl.CTA_PROTO_SRC_PORT),
		destination: end(nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST, nl.CTA_PROTO_DST_PORT),
	}
}
