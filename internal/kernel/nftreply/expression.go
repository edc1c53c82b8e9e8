package nftreply

import (
	"encoding/binary"
	"reflect"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Decode returns an expression of a rule in that family. It returns nil if the kind is not known here, or has an unexpected form.
func (e Expression) Decode(family byte) expr.Any {
	kinds := map[string]expr.Any{
		"bitwise": &expr.Bitwise{}, "cmp": &expr.Cmp{}, "counter": &expr.Counter{}, "ct": &expr.Ct{}, "exthdr": &expr.Exthdr{},
		"fib": &expr.Fib{}, "hash": &expr.Hash{}, "immediate": &expr.Immediate{}, "lookup": &expr.Lookup{}, "match": &expr.Match{},
		"meta": &expr.Meta{}, "nat": &expr.NAT{}, "payload": &expr.Payload{}, "range": &expr.Range{}, "redir": &expr.Redir{},
		"target": &expr.Target{},
	}
	decoded, known := kinds[e.Name]
	switch {
	case e.Name == "byteorder":
		return e.byteorder()
	case !known || expr.Unmarshal(family, e.Data, decoded) != nil:
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
