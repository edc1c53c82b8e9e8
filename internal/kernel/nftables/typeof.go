package nftables

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What nft(8) stores beside a set to print `typeof numgen inc mod 8` (include/expression.h and src/numgen.c in its sources; include/udata.h
// in libnftnl's).
const (
	typeofExpression userdata.Type = 0
	typeofData       userdata.Type = 1
	numgenKind       userdata.Type = 0
	numgenModulus    userdata.Type = 1
	numgenOffset     userdata.Type = 2

	expressionNumgen = 23 // EXPR_NUMGEN

	payloadDescription userdata.Type = 0
	payloadType        userdata.Type = 1
	payloadBase        userdata.Type = 2
	payloadOffset      userdata.Type = 3 // in bits
	payloadLength      userdata.Type = 4 // likewise

	expressionPayload = 7 // EXPR_PAYLOAD
	networkHeader     = 2 // PROTO_BASE_NETWORK_HDR
	bitsPerByte       = 8
)

// typeof is user data that shows nft(8) the type of a set's keys, and of a map's values; nil: it has a name.
func (s set) typeof() []byte {
	const anyHash = 1<<32 - 1
	switch {
	case s.buckets > 0:
		return typeofBuckets(s.buckets)
	case slices.Contains(packetSets(), s.name):
		return typeofBuckets(anyHash)
	case s.dataLength > 0:
		key := userdata.Append(nil, userdata.NFTNL_UDATA_SET_KEY_TYPEOF, typeofPayload(s.keyLength))
		return userdata.Append(key, userdata.NFTNL_UDATA_SET_DATA_TYPEOF, typeofPayload(s.dataLength))
	default:
		return nil
	}
}

// number appends a number to user data.
func number(to []byte, kind userdata.Type, value uint32) []byte {
	return userdata.Append(to, kind, binary.NativeEndian.AppendUint32(nil, value))
}

// typeofPayload shows nft(8) the type of `@nh,0,BITS`.
func typeofPayload(length uint32) []byte {
	payload := number(number(number(nil, payloadDescription, 0), payloadType, 0), payloadBase, networkHeader)
	payload = number(number(payload, payloadOffset, 0), payloadLength, length*bitsPerByte)
	return userdata.Append(number(nil, typeofExpression, expressionPayload), typeofData, payload)
}

// typeofBuckets is user data that shows nft(8) the type of a set's keys: numbers of so many buckets. The kernel ignores it. nft(8) has no
// name for the type of a hash, and accepts no rule that looks a hash up in a set of another type, not even from its own listing. `typeof`
// names an expression of the type instead. That is a counter, which nft(8) supports since 0.9.8, because nft 1.0.6 fails on the hash
// itself.
func typeofBuckets(buckets uint32) []byte {
	counter := number(number(number(nil, numgenKind, unix.NFT_NG_INCREMENTAL), numgenModulus, buckets), numgenOffset, 0)
	return userdata.Append(nil, userdata.NFTNL_UDATA_SET_KEY_TYPEOF,
		userdata.Append(number(nil, typeofExpression, expressionNumgen), typeofData, counter))
}

// addTypes adds set.typeof to the messages that add sets. The library cannot write it.
func (c *Conn) addTypes() error {
	for i, m := range c.batch {
		if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSET {
			continue
		}
		attributes, err := netlink.UnmarshalAttributes(m.Data[nfgenmsgLength:])
		if err != nil {
			return err
		}
		var typeof []byte
		for j, a := range attributes {
			switch a.Type {
			case unix.NFTA_SET_NAME:
				typeof = c.types[string(a.Data[:len(a.Data)-1])]
			case unix.NFTA_SET_USERDATA:
				attributes[j] = netlink.Attribute{Type: a.Type, Data: append(a.Data, typeof...)}
			}
		}
		data, err := netlink.MarshalAttributes(attributes)
		if err != nil {
			return err
		}
		c.batch[i].Data = append(m.Data[:nfgenmsgLength:nfgenmsgLength], data...)
		c.batch[i].Header.Length = 0 // for the socket to count
	}
	return nil
}
