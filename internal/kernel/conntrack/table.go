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
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// table is the way to the conntrack table (net/netfilter/nf_conntrack_netlink.c). vishvananda/netlink reads it too, but neither leaves
// the filter to the kernel nor finds or removes one single entry.
type table struct{ *netlink.Conn }

// Messages of ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	messageNew    = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_NEW
	messageGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_GET
	messageDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_DELETE
)

// The filter of a dump: what it compares (CTA_FILTER_F_* in net/netfilter/nf_internals.h).
const (
	attrFilter        = 25 // CTA_FILTER, since Linux 5.8; older kernels ignore it and list everything
	attrOrigFlags     = 1  // CTA_FILTER_ORIG_FLAGS
	filterSource      = 1 << 0
	filterDestination = 1 << 1
)

// list lists the entries of the address, of all protocols: those of connections to it, and on request also from it. Each takes the kernel
// a walk through its table, some 10 ms for the 262,144 hash slots of a large node.
//
// The kernel leaves out other addresses, where it can: that is many times faster than to read the whole table. For IPv6 it
// cannot: ctnetlink_filter_match_tuple has compared the wrong way round since Linux 5.8, which brought it.
func (t table) list(address netip.Addr, alsoFrom bool) ([]entry, error) {
	ends := []uint32{filterDestination}
	switch {
	case address.Is6():
		ends = []uint32{0}
	case alsoFrom:
		ends = append(ends, filterSource)
	}
	entries := map[string]entry{} // an old kernel lists each entry twice
	for _, end := range ends {
		answers, err := t.request(messageGet, netlink.Dump, address, filter(address, end))
		if err != nil {
			return nil, fmt.Errorf("list the conntrack entries of %s: %w", address, err)
		}
		for _, answer := range answers {
			if !bytes.Contains(answer.Data, address.AsSlice()) {
				continue // much faster than to decode it
			}
			e, err := decodeEntry(answer.Data)
			if err != nil {
				return nil, fmt.Errorf("list the conntrack entries of %s: %w", address, err)
			}
			if e.orig.destination.Addr() == address || alsoFrom && e.orig.source.Addr() == address {
				entries[string(e.key)] = e
			}
		}
	}
	return slices.Collect(maps.Values(entries)), nil
}

// filter selects the entries whose first packet had the address at that end, or all entries.
func filter(address netip.Addr, end uint32) []byte {
	if end == 0 {
		return nil
	}
	of := netip.AddrPortFrom(address, 0)
	flags := attribute(attrOrigFlags, binary.NativeEndian.AppendUint32(nil, end))
	return append(tuple{source: of, destination: of}.encode(nl.CTA_TUPLE_ORIG), nested(attrFilter, flags)...)
}

// find returns the entry that has the tuple as one of its directions.
func (t table) find(either tuple) (e entry, found bool, err error) {
	// The kernel marks its one answer as the first of many (ctnetlink_fill_info), so that an acknowledgement is needed to end them.
	answers, err := t.request(messageGet, netlink.Acknowledge, either.source.Addr(), either.encode(nl.CTA_TUPLE_ORIG))
	switch {
	case errors.Is(err, unix.ENOENT), err == nil && len(answers) == 0:
		return entry{}, false, nil
	case err != nil:
		return entry{}, false, fmt.Errorf("find the conntrack entry of %s: %w", either.source, err)
	}
	e, err = decodeEntry(answers[0].Data)
	return e, err == nil, err
}

// prolong sets how long the entry lasts that has the tuple as one of its directions. It reports whether there is one.
func (t table) prolong(either tuple, left time.Duration) (found bool, err error) {
	_, err = t.request(messageNew, netlink.Acknowledge, either.source.Addr(), either.encode(nl.CTA_TUPLE_ORIG), lifetime(left))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ETIME): // ETIME: it has expired just now
		return false, nil
	default:
		return false, fmt.Errorf("prolong the conntrack entry of %s: %w", either.source, err)
	}
}

// create adds an entry for an existing TCP connection without address translation.
func (t table) create(orig tuple, state uint8, left time.Duration) error {
	const flags = netlink.Acknowledge | netlink.Create | netlink.Excl
	_, err := t.request(messageNew, flags, orig.source.Addr(), encodeEntry(orig, state), lifetime(left))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add a conntrack entry of %s: %w", orig.source, err)
	}
	return nil
}

// remove removes an entry that was read, and no later one of the same addresses and ports.
func (t table) remove(e entry) error {
	if _, err := t.request(messageDelete, netlink.Acknowledge, e.orig.source.Addr(), e.key); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the conntrack entry of %s: %w", e.orig.source, err)
	}
	return nil
}

// request sends one message: a struct nfgenmsg with the address's family, NFNETLINK_V0 and no resource, then the attributes.
func (t table) request(
	kind netlink.HeaderType, flags netlink.HeaderFlags, address netip.Addr, attributes ...[]byte,
) ([]netlink.Message, error) {
	return t.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
		Data:   append([]byte{familyOf(address), 0, 0, 0}, slices.Concat(attributes...)...),
	})
}

func familyOf(address netip.Addr) byte {
	if address.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
