package nftreply

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
	"sync"

	"github.com/mdlayher/netlink"
)

// The tag nla is the number of the attribute that a field is decoded from, as in include/uapi/linux/netfilter/nf_tables.h. The values of a
// slice come from attributes that are repeated.

// Generation is the reply to NFT_MSG_GETGEN (NFTA_GEN_*).
type Generation struct {
	ID uint32 `nla:"1"` // the number of the last change to the ruleset
}

// Table is a reply to NFT_MSG_GETTABLE (NFTA_TABLE_*). Its family, as that of the others, is one of unix.NFPROTO_*.
type Table struct {
	Family byte
	Name   string `nla:"1"`
	Flags  uint32 `nla:"2"` // NFT_TABLE_F_*
	Use    uint32 `nla:"3"` // how many chains, sets, flowtables and stateful objects it has
}

// Chain is a reply to NFT_MSG_GETCHAIN (NFTA_CHAIN_*).
type Chain struct {
	Family byte
	Table  string `nla:"1"`
	Name   string `nla:"3"`
	Hook   *Hook  `nla:"4"` // nil: not a base chain
	Policy uint32 `nla:"5"` // NF_DROP, NF_ACCEPT
	Type   string `nla:"7"` // "filter", "nat" or "route"
}

// Hook is where a base chain is attached (NFTA_HOOK_*).
type Hook struct {
	Number   uint32  `nla:"1"` // NF_INET_*, NF_NETDEV_*
	Priority int32   `nla:"2"`
	Device   string  `nla:"3"` // if it is only one
	Devices  Devices `nla:"4"`
}

// Devices are those that a base chain is attached to (NFTA_DEVICE_*).
type Devices struct {
	Names    []string `nla:"1"`
	Prefixes []string `nla:"2"` // all devices whose names begin so: since Linux 6.16
}

// Rule is a reply to NFT_MSG_GETRULE (NFTA_RULE_*).
type Rule struct {
	Family      byte
	Table       string           `nla:"1"`
	Chain       string           `nla:"2"`
	Handle      uint64           `nla:"3"`
	Expressions List[Expression] `nla:"4"`
	Userdata    []byte           `nla:"7"`
}

// List is a list of attributes. The kernel numbers all of them alike (NFTA_LIST_ELEM). google/nftables, whose messages tests decode,
// numbers the elements of a set by their place.
type List[T any] struct {
	All []T `nla:"any"`
}

// Expression is one expression of a rule or an element (NFTA_EXPR_*).
type Expression struct {
	Name string `nla:"1"`
	Data []byte `nla:"2"` // see Decode
}

// Set is a reply to NFT_MSG_GETSET (NFTA_SET_*).
type Set struct {
	Family    byte
	Table     string `nla:"1"`
	Name      string `nla:"2"`
	Flags     uint32 `nla:"3"` // NFT_SET_*
	KeyLength uint32 `nla:"5"` // in bytes
	DataType  uint32 `nla:"6"` // of a map
}

// VerdictMap is the DataType of a map to verdicts (NFT_DATA_VERDICT).
const VerdictMap = 0xffffff00

// Elements is a reply to NFT_MSG_GETSETELEM (NFTA_SET_ELEM_LIST_*).
type Elements struct {
	List[Element] `nla:"3"`
}

// Element is an element of a set (NFTA_SET_ELEM_*).
type Element struct {
	Key        Data        `nla:"1"`
	Data       Data        `nla:"2"` // in a map
	Flags      uint32      `nla:"3"` // ElementEnd, ElementCatchAll
	Expiration *uint64     `nla:"5"` // milliseconds until the kernel removes it; nil: never
	Userdata   []byte      `nla:"6"`
	Expression *Expression `nla:"7"`  // such as its counter, if it is only one
	KeyEnd     Data        `nla:"10"` // the last key of a range of concatenated keys

	Expressions List[Expression] `nla:"11"` // if there are several
}

// Flags of an element.
const (
	ElementEnd      = 1 // the first key that does not belong to an interval (NFT_SET_ELEM_INTERVAL_END)
	ElementCatchAll = 2 // it stands for all keys without an element (NFT_SET_ELEM_CATCHALL)
)

// Data is what a register holds (NFTA_DATA_*).
type Data struct {
	Value   []byte   `nla:"1"`
	Verdict *Verdict `nla:"2"`
}

// Verdict is what becomes of a packet (NFTA_VERDICT_*).
type Verdict struct {
	Code  int32  `nla:"1"` // NF_DROP, NF_ACCEPT, NFT_*
	Chain string `nla:"2"`
}

// Each visits the attributes of messages of the nf_tables subsystem, with the family that each message names.
func Each(messages []netlink.Message, visit func(family byte, attributes *netlink.AttributeDecoder)) error {
	const nfgenmsg = 4 // the length of struct nfgenmsg, which precedes the attributes
	for _, m := range messages {
		if len(m.Data) < nfgenmsg {
			return fmt.Errorf("a message of %d bytes is too short for nf_tables", len(m.Data))
		}
		a, err := netlink.NewAttributeDecoder(m.Data[nfgenmsg:])
		if err != nil {
			return err
		}
		a.ByteOrder = binary.BigEndian
		visit(m.Data[0], a)
		if err := a.Err(); err != nil {
			return err
		}
	}
	return nil
}

// All decodes replies to a request for objects of one kind.
func All[T any](replies []netlink.Message) ([]T, error) {
	var all []T
	err := Each(replies, func(family byte, attributes *netlink.AttributeDecoder) {
		var one T
		value := reflect.ValueOf(&one).Elem()
		if f := value.FieldByName("Family"); f.IsValid() {
			f.SetUint(uint64(family))
		}
		fill(value, attributes)
		all = append(all, one)
	})
	return all, err
}

// fill decodes attributes into the fields of a struct.
func fill(into reflect.Value, attributes *netlink.AttributeDecoder) {
	fields := fieldsOf(into.Type())
	for attributes.Next() {
		if i, ok := fields[attributes.Type()]; ok {
			decode(into.Field(i), attributes)
		} else if i, ok := fields[anyNumber]; ok {
			decode(into.Field(i), attributes)
		}
	}
}

// anyNumber stands for all attributes; no attribute has such a number, because the highest bits are flags.
const anyNumber = 0xffff

// known has the result of fieldsOf for each type: to look at tags takes longer than to decode.
var known sync.Map

// fieldsOf returns the fields of a struct by the numbers of their attributes.
func fieldsOf(t reflect.Type) map[uint16]int {
	if fields, ok := known.Load(t); ok {
		return fields.(map[uint16]int)
	}
	fields := map[uint16]int{}
	for i := range t.NumField() {
		switch tag := t.Field(i).Tag.Get("nla"); tag {
		case "":
		case "any":
			fields[anyNumber] = i
		default:
			number, err := strconv.ParseUint(tag, 10, 16)
			if err != nil {
				panic("nftreply: the tag of " + t.Field(i).Name + " is not a number")
			}
			fields[uint16(number)] = i
		}
	}
	known.Store(t, fields)
	return fields
}

// decode decodes one attribute.
func decode(into reflect.Value, a *netlink.AttributeDecoder) {
	switch into.Kind() {
	case reflect.String:
		into.SetString(a.String())
	case reflect.Int32:
		into.SetInt(int64(a.Int32()))
	case reflect.Uint32:
		into.SetUint(uint64(a.Uint32()))
	case reflect.Uint64:
		into.SetUint(a.Uint64())
	case reflect.Struct:
		a.Nested(func(inner *netlink.AttributeDecoder) error {
			fill(into, inner)
			return nil
		})
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		decode(into.Elem(), a)
	case reflect.Slice:
		if into.Type().Elem().Kind() == reflect.Uint8 {
			into.SetBytes(a.Bytes())
			return
		}
		n := into.Len()
		into.Grow(1)
		into.SetLen(n + 1)
		into.Index(n).SetZero()
		decode(into.Index(n), a)
	default:
		panic("nftreply: a field of type " + into.Type().String())
	}
}
