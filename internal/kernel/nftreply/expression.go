package nftreply

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func expressions(family byte, list *attributes) (all []Expression) {
	nested(list, func(a *attributes) { all = append(all, expression(family, a)) })
	return all
}

func expression(family byte, a *attributes) (e Expression) {
	var data []byte
	nested(a, func(a *attributes) {
		switch a.Type() {
		case unix.NFTA_EXPR_NAME:
			e.Name = a.String()
		case unix.NFTA_EXPR_DATA:
			data = a.Bytes()
		}
	})
	e.Decoded = decoded(family, e.Name, data)
	return e
}

// decoded returns nil for a kind that is not known here, and for one that has an unexpected form.
func decoded(family byte, name string, data []byte) expr.Any {
	var e expr.Any
	switch name {
	case "bitwise":
		e = &expr.Bitwise{}
	case "byteorder":
		return byteorder(data)
	case "cmp":
		e = &expr.Cmp{}
	case "counter":
		e = &expr.Counter{}
	case "ct":
		e = &expr.Ct{}
	case "exthdr":
		e = &expr.Exthdr{}
	case "fib":
		e = &expr.Fib{}
	case "hash":
		e = &expr.Hash{}
	case "immediate":
		e = &expr.Immediate{}
	case "lookup":
		e = &expr.Lookup{}
	case "match":
		e = &expr.Match{}
	case "meta":
		e = &expr.Meta{}
	case "nat":
		e = &expr.NAT{}
	case "payload":
		e = &expr.Payload{}
	case "range":
		e = &expr.Range{}
	case "redir":
		e = &expr.Redir{}
	case "target":
		e = &expr.Target{}
	default:
		return nil
	}
	if expr.Unmarshal(family, data, e) != nil {
		return nil
	}
	if immediate, ok := e.(*expr.Immediate); ok && immediate.Register == unix.NFT_REG_VERDICT {
		return verdict(data)
	}
	return e
}

// verdict decodes an immediate expression for the verdict register. (The library's decoder panics if the verdict is cut short.)
func verdict(immediate []byte) expr.Any {
	a, err := netlink.NewAttributeDecoder(immediate)
	if err != nil {
		return nil
	}
	a.ByteOrder = binary.BigEndian
	var v *expr.Verdict
	for a.Next() {
		if a.Type() == unix.NFTA_IMMEDIATE_DATA {
			_, v = data(a)
		}
	}
	if a.Err() != nil || v == nil {
		return nil
	}
	return v
}

// byteorder does what the library has not implemented.
func byteorder(data []byte) expr.Any {
	a, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil
	}
	a.ByteOrder = binary.BigEndian
	e := &expr.Byteorder{}
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_BYTEORDER_SREG:
			e.SourceRegister = a.Uint32()
		case unix.NFTA_BYTEORDER_DREG:
			e.DestRegister = a.Uint32()
		case unix.NFTA_BYTEORDER_OP:
			e.Op = expr.ByteorderOp(a.Uint32())
		case unix.NFTA_BYTEORDER_LEN:
			e.Len = a.Uint32()
		case unix.NFTA_BYTEORDER_SIZE:
			e.Size = a.Uint32()
		}
	}
	if a.Err() != nil {
		return nil
	}
	return e
}
