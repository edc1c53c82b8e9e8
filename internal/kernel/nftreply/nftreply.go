package nftreply

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Table is a table without its chains and sets. Its family, as those below, is one of unix.NFPROTO_*.
type Table struct {
	Family byte
	Name   string
	Flags  uint32 // NFT_TABLE_F_*
	Use    uint32 // how many chains, sets, flowtables and stateful objects it has
}

// Chain is a chain without its rules.
type Chain struct {
	Family      byte
	Table, Name string
	Hook        *Hook // nil: not a base chain
}

// Hook is where a base chain is attached.
type Hook struct {
	Type     string // "filter", "nat" or "route"
	Number   uint32 // NF_INET_*, NF_NETDEV_*
	Priority int32
	Policy   uint32   // NF_DROP, NF_ACCEPT
	Devices  []string // a name that ends with * stands for all devices with that prefix
}

// Rule is a rule of a chain.
type Rule struct {
	Family       byte
	Table, Chain string
	Handle       uint64
	Userdata     []byte
	Expressions  []Expression
}

// Expression is one expression of a rule or an element.
type Expression struct {
	Name    string
	Decoded expr.Any // nil: of a kind or a form that is not known here
}

// Set is a set or a map without its elements.
type Set struct {
	Family      byte
	Table, Name string
	Flags       uint32 // NFT_SET_*
	KeyLength   uint32 // in bytes
	DataType    uint32 // of a map
}

// VerdictMap is the DataType of a map to verdicts (NFT_DATA_VERDICT).
const VerdictMap = 0xffffff00

// Element is an element of a set.
type Element struct {
	Key, KeyEnd []byte        // KeyEnd is the last key of a range of concatenated keys
	Flags       uint32        // ElementEnd, ElementCatchAll
	Verdict     *expr.Verdict // in a map to verdicts
	Userdata    []byte
	Timed       bool          // the kernel removes it
	Left        time.Duration // until then
	Expressions []Expression  // such as its counter
}

// Flags of an element, as in include/uapi/linux/netfilter/nf_tables.h.
const (
	ElementEnd      = 1 // the first key that does not belong to an interval (NFT_SET_ELEM_INTERVAL_END)
	ElementCatchAll = 2 // it stands for all keys without an element (NFT_SET_ELEM_CATCHALL)
)

// Attributes that x/sys does not have.
const (
	nftaHookDevs           = 4  // NFTA_HOOK_DEVS
	nftaDevicePrefix       = 2  // NFTA_DEVICE_PREFIX, since Linux 6.16
	nftaSetElemKeyEnd      = 10 // NFTA_SET_ELEM_KEY_END
	nftaSetElemExpressions = 11 // NFTA_SET_ELEM_EXPRESSIONS
)

type attributes = netlink.AttributeDecoder

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

// nested decodes an attribute that contains others.
func nested(a *attributes, visit func(a *attributes)) {
	a.Nested(func(inner *attributes) error {
		for inner.Next() {
			visit(inner)
		}
		return nil
	})
}

// Generation decodes the number of the last change to the ruleset.
func Generation(replies []netlink.Message) (generation uint32, err error) {
	err = Each(replies, func(_ byte, a *attributes) {
		for a.Next() {
			if a.Type() == unix.NFTA_GEN_ID {
				generation = a.Uint32()
			}
		}
	})
	return generation, err
}

// Tables decodes the replies to NFT_MSG_GETTABLE.
func Tables(replies []netlink.Message) (tables []Table, err error) {
	err = Each(replies, func(family byte, a *attributes) {
		t := Table{Family: family}
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_TABLE_NAME:
				t.Name = a.String()
			case unix.NFTA_TABLE_FLAGS:
				t.Flags = a.Uint32()
			case unix.NFTA_TABLE_USE:
				t.Use = a.Uint32()
			}
		}
		tables = append(tables, t)
	})
	return tables, err
}

// Chains decodes the replies to NFT_MSG_GETCHAIN.
func Chains(replies []netlink.Message) (chains []Chain, err error) {
	err = Each(replies, func(family byte, a *attributes) {
		c, hook := Chain{Family: family}, Hook{}
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_CHAIN_TABLE:
				c.Table = a.String()
			case unix.NFTA_CHAIN_NAME:
				c.Name = a.String()
			case unix.NFTA_CHAIN_TYPE:
				hook.Type = a.String()
			case unix.NFTA_CHAIN_POLICY:
				hook.Policy = a.Uint32()
			case unix.NFTA_CHAIN_HOOK:
				c.Hook = &hook
				nested(a, hook.decode)
			}
		}
		chains = append(chains, c)
	})
	return chains, err
}

func (h *Hook) decode(a *attributes) {
	switch a.Type() {
	case unix.NFTA_HOOK_HOOKNUM:
		h.Number = a.Uint32()
	case unix.NFTA_HOOK_PRIORITY:
		h.Priority = a.Int32()
	case unix.NFTA_HOOK_DEV:
		h.attach(a.String())
	case nftaHookDevs:
		nested(a, func(a *attributes) {
			if name := a.String(); a.Type() == nftaDevicePrefix {
				h.attach(name + "*")
			} else {
				h.attach(name)
			}
		})
	}
}

// attach adds a device. The kernel lists a single one in both ways.
func (h *Hook) attach(device string) {
	if !slices.Contains(h.Devices, device) {
		h.Devices = append(h.Devices, device)
	}
}

// Rules decodes the replies to NFT_MSG_GETRULE.
func Rules(replies []netlink.Message) (rules []Rule, err error) {
	err = Each(replies, func(family byte, a *attributes) {
		r := Rule{Family: family}
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_RULE_TABLE:
				r.Table = a.String()
			case unix.NFTA_RULE_CHAIN:
				r.Chain = a.String()
			case unix.NFTA_RULE_HANDLE:
				r.Handle = a.Uint64()
			case unix.NFTA_RULE_USERDATA:
				r.Userdata = a.Bytes()
			case unix.NFTA_RULE_EXPRESSIONS:
				r.Expressions = expressions(family, a)
			}
		}
		rules = append(rules, r)
	})
	return rules, err
}

// Sets decodes the replies to NFT_MSG_GETSET.
func Sets(replies []netlink.Message) (sets []Set, err error) {
	err = Each(replies, func(family byte, a *attributes) {
		s := Set{Family: family}
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_SET_TABLE:
				s.Table = a.String()
			case unix.NFTA_SET_NAME:
				s.Name = a.String()
			case unix.NFTA_SET_FLAGS:
				s.Flags = a.Uint32()
			case unix.NFTA_SET_KEY_LEN:
				s.KeyLength = a.Uint32()
			case unix.NFTA_SET_DATA_TYPE:
				s.DataType = a.Uint32()
			}
		}
		sets = append(sets, s)
	})
	return sets, err
}

// Elements decodes the replies to NFT_MSG_GETSETELEM.
func Elements(replies []netlink.Message) (elements []Element, err error) {
	err = Each(replies, func(family byte, a *attributes) {
		for a.Next() {
			if a.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			nested(a, func(a *attributes) {
				var e Element
				nested(a, func(a *attributes) { e.decode(family, a) })
				elements = append(elements, e)
			})
		}
	})
	return elements, err
}

func (e *Element) decode(family byte, a *attributes) {
	switch a.Type() {
	case unix.NFTA_SET_ELEM_KEY:
		e.Key, _ = data(a)
	case nftaSetElemKeyEnd:
		e.KeyEnd, _ = data(a)
	case unix.NFTA_SET_ELEM_DATA:
		_, e.Verdict = data(a)
	case unix.NFTA_SET_ELEM_FLAGS:
		e.Flags = a.Uint32()
	case unix.NFTA_SET_ELEM_USERDATA:
		e.Userdata = a.Bytes()
	case unix.NFTA_SET_ELEM_EXPIRATION:
		e.Timed, e.Left = true, time.Duration(a.Uint64())*time.Millisecond
	case unix.NFTA_SET_ELEM_EXPR:
		e.Expressions = append(e.Expressions, expression(family, a))
	case nftaSetElemExpressions:
		e.Expressions = expressions(family, a)
	}
}

// data decodes what a register or an element holds: a value or a verdict.
func data(a *attributes) (value []byte, verdict *expr.Verdict) {
	nested(a, func(a *attributes) {
		switch a.Type() {
		case unix.NFTA_DATA_VALUE:
			value = a.Bytes()
		case unix.NFTA_DATA_VERDICT:
			verdict = &expr.Verdict{}
			nested(a, func(a *attributes) {
				switch a.Type() {
				case unix.NFTA_VERDICT_CODE:
					verdict.Kind = expr.VerdictKind(a.Int32())
				case unix.NFTA_VERDICT_CHAIN:
					verdict.Chain = a.String()
				}
			})
		}
	})
	return value, verdict
}
