package nftreply

import (
	"encoding/binary"
	"reflect"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// decodable are the expressions that the library decodes, by their names.
var decodable = map[string]func() expr.Any{
	"bitwise":   func() expr.Any { return &expr.Bitwise{} },
	"cmp":       func() expr.Any { return &expr.Cmp{} },
	"counter":   func() expr.Any { return &expr.Counter{} },
	"ct":        func() expr.Any { return &expr.Ct{} },
	"dup":       func() expr.Any { return &expr.Dup{IsRegDevSet: true} }, // which the library does not set
	"dynset":    func() expr.Any { return &expr.Dynset{} },
	"exthdr":    func() expr.Any { return &expr.Exthdr{} },
	"fib":       func() expr.Any { return &expr.Fib{} },
	"hash":      func() expr.Any { return &expr.Hash{} },
	"immediate": func() expr.Any { return &expr.Immediate{} },
	"lookup":    func() expr.Any { return &expr.Lookup{} },
	"match":     func() expr.Any { return &expr.Match{} },
	"meta":      func() expr.Any { return &expr.Meta{} },
	"nat":       func() expr.Any { return &expr.NAT{} },
	"payload":   func() expr.Any { return &expr.Payload{} },
	"range":     func() expr.Any { return &expr.Range{} },
	"redir":     func() expr.Any { return &expr.Redir{} },
	"socket":    func() expr.Any { return &expr.Socket{} },
	"target":    func() expr.Any { return &expr.Target{} },
}

// Decode returns an expression of a rule in that family. It returns nil if the kind is not known here, or has an unexpected form.
func (e Expression) Decode(family byte) expr.Any {
	if e.Name == "byteorder" {
		return e.byteorder()
	}
	create, known := decodable[e.Name]
	if !known {
		return nil
	}
	decoded := create()
	if expr.Unmarshal(family, e.Data, decoded) != nil {
		return nil
	}
	if immediate, ok := decoded.(*expr.Immediate); ok && immediate.Register == unix.NFT_REG_VERDICT {
		return e.verdict()
	}
	return decoded
}

// verdict decodes an immediate expression for the verdict register. (The library's decoder panics if the verdict is cut short.)
func (e Expression) verdict() expr.Any {
	var immediate struct {
		Data Data `nla:"2"` // NFTA_IMMEDIATE_DATA
	}
	if err := e.fill(&immediate); err != nil || immediate.Data.Verdict == nil {
		return nil
	}
	return &expr.Verdict{Kind: expr.VerdictKind(immediate.Data.Verdict.Code), Chain: immediate.Data.Verdict.Chain}
}

// byteorder does what the library has not implemented (NFTA_BYTEORDER_*).
func (e Expression) byteorder() expr.Any {
	var data struct {
		Source      uint32 `nla:"1"`
		Destination uint32 `nla:"2"`
		Op          uint32 `nla:"3"`
		Length      uint32 `nla:"4"`
		Size        uint32 `nla:"5"`
	}
	if err := e.fill(&data); err != nil {
		return nil
	}
	return &expr.Byteorder{
		SourceRegister: data.Source, DestRegister: data.Destination, Op: expr.ByteorderOp(data.Op), Len: data.Length, Size: data.Size,
	}
}

func (e Expression) fill(into any) error {
	attributes, err := netlink.NewAttributeDecoder(e.Data)
	if err != nil {
		return err
	}
	attributes.ByteOrder = binary.BigEndian
	fill(reflect.ValueOf(into).Elem(), attributes)
	return attributes.Err()
}
