// Package conntrack is the way into the kernel's table of tracked connections.
package conntrack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages and attributes of ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	messageNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	messageGet    = messageNew + 1
	messageDelete = messageNew + 2

	attrTupleOrig  = 1
	attrTupleReply = 2
	attrStatus     = 3
	attrProtoInfo  = 4
	attrTimeout    = 7
	attrID         = 12
	attrZone       = 18
	attrFilter     = 25 // since Linux 5.8; older kernels ignore it and list everything

	tupleIP         = 1
	tupleProto      = 2
	ip4Source       = 1
	ip4Destination  = 2
	ip6Source       = 3
	ip6Destination  = 4
	protoNumber     = 1
	protoSource     = 2
	protoDest       = 3
	protoInfoTCP    = 1
	tcpState        = 1
	tcpFlagsOrig    = 4
	tcpFlagsReply   = 5
	filterOrigFlags = 1
)

// What a filter compares (CTA_FILTER_F_* in net/netfilter/nf_internals.h).
const (
	filterSource      = 1 << 0
	filterDestination = 1 << 1
)

// Status bits of a connection that is established (IPS_* in include/uapi/linux/netfilter/nf_conntrack_common.h).
const (
	statusSeenReply = 1 << 1
	statusAssured   = 1 << 2
	statusConfirmed = 1 << 3
)

// liberal is IP_CT_TCP_FLAG_BE_LIBERAL: no packet is out of window, for the windows before are not known.
const liberal = 0x08

// State is conntrack's state of a TCP connection (enum tcp_conntrack in include/uapi/linux/netfilter/nf_conntrack_tcp.h).
type State uint8

// The states that are looked at.
const (
	SynSent     State = 1
	SynReceived State = 2
	Established State = 3
	FinWait     State = 4
	CloseWait   State = 5
	LastAck     State = 6
)

// Tuple is one direction of a connection.
type Tuple struct {
	Protocol            uint8
	Source, Destination netip.AddrPort
}

// Inverted is the other direction.
func (t Tuple) Inverted() Tuple {
	return Tuple{Protocol: t.Protocol, Source: t.Destination, Destination: t.Source}
}

// Entry is what conntrack knows of a connection. Without address translation Reply is Orig inverted.
type Entry struct {
	Orig, Reply Tuple
	State       State // of TCP
	Left        time.Duration
	Replied     bool // packets have been seen in both directions

	key []byte // the attributes by which the kernel finds this entry, and not a later one of the same addresses and ports
}

// Open tells whether there is still something to be said: a TCP connection that is not closed, or any SCTP association. What nobody here has answered is
// none of this node's: on a bridge that calls iptables, conntrack also sees what clients send to other nodes.
func (e Entry) Open() bool {
	switch {
	case !e.Replied:
		return false
	case e.Orig.Protocol == unix.IPPROTO_TCP:
		return e.State >= SynReceived && e.State <= LastAck
	default:
		return e.Orig.Protocol == unix.IPPROTO_SCTP
	}
}

// Conn is a connection to the table of the network namespace of the calling thread.
type Conn struct{ netlink *netlink.Conn }

// Open connects.
func Open() (*Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("connect to conntrack: %w", err)
	}
	return &Conn{netlink: c}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.netlink.Close() }

// List lists the connections to the address, of all protocols; with those from it, too, where it is asked for: each takes the kernel a walk through
// its table, some 10 ms for the 262,144 lines that it has on a machine of today.
//
// The kernel leaves out what is not of the address, where it can: that is many times faster than to read a whole table. For IPv6 it
// cannot: ctnetlink_filter_match_tuple has compared the wrong way round since it came, in Linux 5.8.
func (c *Conn) List(address netip.Addr, alsoFrom bool) ([]Entry, error) {
	var messages []netlink.Message
	ends := []uint32{filterDestination}
	switch {
	case address.Is6():
		ends = []uint32{0}
	case alsoFrom:
		ends = append(ends, filterSource)
	}
	for _, end := range ends {
		ae := netlink.NewAttributeEncoder()
		ae.ByteOrder = binary.BigEndian
		if end != 0 {
			of := netip.AddrPortFrom(address, 0)
			putTuple(ae, attrTupleOrig, Tuple{Source: of, Destination: of})
			ae.Nested(attrFilter, func(ae *netlink.AttributeEncoder) error {
				ae.ByteOrder = binary.NativeEndian
				ae.Uint32(filterOrigFlags, end)
				return nil
			})
		}
		answers, err := c.execute(messageGet, netlink.Dump, address, ae)
		if err != nil {
			return nil, fmt.Errorf("list the tracked connections of %s: %w", address, err)
		}
		messages = append(messages, answers...)
	}
	entries := map[string]Entry{} // an old kernel has told each twice
	for _, message := range messages {
		if !bytes.Contains(message.Data, address.AsSlice()) {
			continue // much faster than to parse it
		}
		entry, err := parse(message.Data)
		if err != nil {
			return nil, fmt.Errorf("list the tracked connections of %s: %w", address, err)
		}
		if entry.Orig.Destination.Addr() == address || alsoFrom && entry.Orig.Source.Addr() == address {
			entries[string(entry.key)] = entry
		}
	}
	return slices.Collect(maps.Values(entries)), nil
}

// Find returns the connection of which the tuple is one direction.
func (c *Conn) Find(tuple Tuple) (entry Entry, found bool, err error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	putTuple(ae, attrTupleOrig, tuple)
	// The kernel marks its one answer as the first of many (ctnetlink_fill_info), so that an acknowledgement is needed to end them.
	answers, err := c.execute(messageGet, netlink.Acknowledge, tuple.Source.Addr(), ae)
	switch {
	case errors.Is(err, unix.ENOENT):
		return Entry{}, false, nil
	case err != nil:
		return Entry{}, false, fmt.Errorf("look for a tracked connection of %s: %w", tuple.Source, err)
	case len(answers) == 0:
		return Entry{}, false, nil
	}
	entry, err = parse(answers[0].Data)
	return entry, err == nil, err
}

// Prolong makes conntrack remember a connection for that long, of which the tuple is one direction. It tells whether there was one.
func (c *Conn) Prolong(tuple Tuple, left time.Duration) (found bool, err error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	putTuple(ae, attrTupleOrig, tuple)
	ae.Uint32(attrTimeout, seconds(left))
	_, err = c.execute(messageNew, netlink.Acknowledge, tuple.Source.Addr(), ae)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ETIME): // ETIME: it is on its way out
		return false, nil
	default:
		return false, fmt.Errorf("prolong the tracked connection of %s: %w", tuple.Source, err)
	}
}

// Create makes conntrack know a TCP connection that exists, and that nobody translates.
func (c *Conn) Create(orig Tuple, state State, left time.Duration) error {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	putTuple(ae, attrTupleOrig, orig)
	putTuple(ae, attrTupleReply, orig.Inverted())
	ae.Uint32(attrStatus, statusSeenReply|statusAssured|statusConfirmed)
	ae.Uint32(attrTimeout, seconds(left))
	ae.Nested(attrProtoInfo, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(protoInfoTCP, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(tcpState, uint8(state))
			ae.Bytes(tcpFlagsOrig, []byte{liberal, liberal}) // struct nf_ct_tcp_flags: flags and mask
			ae.Bytes(tcpFlagsReply, []byte{liberal, liberal})
			return nil
		})
		return nil
	})
	_, err := c.execute(messageNew, netlink.Acknowledge|netlink.Create|netlink.Excl, orig.Source.Addr(), ae)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("track the connection of %s: %w", orig.Source, err)
	}
	return nil
}

// Delete makes conntrack forget just that entry.
func (c *Conn) Delete(entry Entry) error {
	message := netlink.Message{
		Header: netlink.Header{Type: messageDelete, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(header(entry.Orig.Source.Addr()), entry.key...),
	}
	if _, err := c.netlink.Execute(message); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget the tracked connection of %s: %w", entry.Orig.Source, err)
	}
	return nil
}

func (c *Conn) execute(kind netlink.HeaderType, flags netlink.HeaderFlags, address netip.Addr, ae *netlink.AttributeEncoder) ([]netlink.Message, error) {
	attributes, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return c.netlink.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
		Data:   append(header(address), attributes...),
	})
}

// headerLength is that of struct nfgenmsg.
const headerLength = 4

// header is a struct nfgenmsg: the address's family, NFNETLINK_V0, and no resource.
func header(address netip.Addr) []byte {
	family := byte(unix.AF_INET6)
	if address.Is4() {
		family = unix.AF_INET
	}
	return []byte{family, 0, 0, 0}
}

// seconds rounds up: an entry may last longer than what it is for, not shorter.
func seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }

func putTuple(ae *netlink.AttributeEncoder, kind uint16, t Tuple) {
	source, destination := uint16(ip6Source), uint16(ip6Destination)
	if t.Source.Addr().Is4() {
		source, destination = ip4Source, ip4Destination
	}
	ae.Nested(kind, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(tupleIP, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(source, t.Source.Addr().AsSlice())
			ae.Bytes(destination, t.Destination.Addr().AsSlice())
			return nil
		})
		if t.Protocol != 0 {
			ae.Nested(tupleProto, func(ae *netlink.AttributeEncoder) error {
				ae.Uint8(protoNumber, t.Protocol)
				ae.Uint16(protoSource, t.Source.Port())
				ae.Uint16(protoDest, t.Destination.Port())
				return nil
			})
		}
		return nil
	})
}

// parse reads a message that describes an entry.
func parse(message []byte) (Entry, error) {
	var e Entry
	if len(message) < headerLength {
		return e, fmt.Errorf("conntrack answers with %d bytes", len(message))
	}
	ad, err := netlink.NewAttributeDecoder(message[headerLength:])
	if err != nil {
		return e, err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case attrTupleOrig:
			ad.Nested(e.Orig.parse)
		case attrTupleReply:
			ad.Nested(e.Reply.parse)
		case attrStatus:
			e.Replied = ad.Uint32()&statusSeenReply != 0
		case attrTimeout:
			e.Left = time.Duration(ad.Uint32()) * time.Second
		case attrProtoInfo:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == protoInfoTCP {
						ad.Nested(e.parseTCP)
					}
				}
				return nil
			})
		}
		switch ad.Type() {
		case attrTupleOrig, attrZone, attrID:
			e.key = appendAttribute(e.key, ad.Type()|ad.TypeFlags(), ad.Bytes())
		}
	}
	return e, ad.Err()
}

// appendAttribute appends an attribute as it was received.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	const headerLength, alignment = 4, 4
	b = binary.NativeEndian.AppendUint16(b, uint16(headerLength+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (alignment-len(value)%alignment)%alignment)...)
}

func (e *Entry) parseTCP(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == tcpState {
			e.State = State(ad.Uint8())
		}
	}
	return nil
}

func (t *Tuple) parse(ad *netlink.AttributeDecoder) error {
	var source, destination netip.Addr
	var sourcePort, destinationPort uint16
	for ad.Next() {
		switch ad.Type() {
		case tupleIP:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case ip4Source, ip6Source:
						source, _ = netip.AddrFromSlice(ad.Bytes())
					case ip4Destination, ip6Destination:
						destination, _ = netip.AddrFromSlice(ad.Bytes())
					}
				}
				return nil
			})
		case tupleProto:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case protoNumber:
						t.Protocol = ad.Uint8()
					case protoSource:
						sourcePort = ad.Uint16()
					case protoDest:
						destinationPort = ad.Uint16()
					}
				}
				return nil
			})
		}
	}
	t.Source, t.Destination = netip.AddrPortFrom(source, sourcePort), netip.AddrPortFrom(destination, destinationPort)
	return nil
}
