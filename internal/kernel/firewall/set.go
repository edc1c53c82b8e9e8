package firewall

import (
	"bytes"
	"context"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/kernel/nftables"
)

// A set is one of nf_tables, or a map.
type set struct {
	read      bool
	keyLength int
	verdicts  bool // a map to verdicts
	entries   []entry
}

// An entry is a key, or a range of keys.
type entry struct {
	from, to []byte // to is nil for what has no end
	within   bool   // to is the first that does not belong to it
	joint    bool   // a range of each of several values, which stand one behind the other
	all      bool   // whatever has no other entry
	verdict  outcome
}

// lookup tells whether a key is in the set. What a map makes of it is not known.
func (s *set) lookup(registers *registers, e *expr.Lookup) match {
	found := perhaps
	if s != nil && s.read {
		found = no
		key := registers.value(e.SourceRegister, s.keyLength)
		for _, entry := range s.entries {
			found = max(found, entry.holds(key))
		}
	}
	if e.IsDestRegSet { // a map is made for all that may come
		registers.forget()
		if found == some {
			found = perhaps
		}
	}
	if e.Invert {
		return not(found)
	}
	return found
}

// verdictsOf are those that a key may be mapped to.
func (s *set) verdictsOf(key value, so match) []outcome {
	var outcomes []outcome
	for _, entry := range s.entries {
		o := entry.verdict
		o.match = min(so, entry.holds(key))
		if o.match == no {
			continue
		}
		if entry.all && len(outcomes) > 0 {
			o.match = min(o.match, perhaps)
		}
		outcomes = append(outcomes, o)
		if entry.holds(key) == yes {
			break
		}
	}
	return outcomes
}

func (e entry) holds(key value) match {
	switch {
	case e.all:
		return yes
	case e.to != nil && !e.within && bytes.Equal(e.from, e.to):
		return key.equals(e.from)
	case !key.isKnown() && key.client:
		return some
	case !key.isKnown():
		return perhaps
	}
	below := bytes.Compare(key.bytes, e.from) < 0
	beyond := e.to != nil && (bytes.Compare(key.bytes, e.to) > 0 || e.within && bytes.Equal(key.bytes, e.to))
	switch {
	case below || beyond:
		return no
	case e.joint:
		return perhaps
	default:
		return yes
	}
}

// readSets reads those that rules look into.
func readSets(ctx context.Context, conn *nftables.Conn, sets map[place]map[string]*set) error {
	var asked []place
	var ofTable []place
	intervals := map[*set]bool{}
	err := eachReply(ctx, conn, unix.NFT_MSG_GETSET, nft.TableFamilyUnspecified, func(family byte, a *netlink.AttributeDecoder) {
		var tableName, name string
		var read set
		var flags uint32
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_SET_TABLE:
				tableName = a.String()
			case unix.NFTA_SET_NAME:
				name = a.String()
			case unix.NFTA_SET_KEY_LEN:
				read.keyLength = int(a.Uint32())
			case unix.NFTA_SET_FLAGS:
				flags = a.Uint32()
			case unix.NFTA_SET_DATA_TYPE:
				const verdict = 0xffffff00 // NFT_DATA_VERDICT
				read.verdicts = a.Uint32() == verdict
			}
		}
		s := sets[place{family, tableName}][name]
		if s == nil || read.keyLength > registerBytes {
			return
		}
		*s = read
		intervals[s] = flags&unix.NFT_SET_INTERVAL != 0
		asked, ofTable = append(asked, place{family, name}), append(ofTable, place{family, tableName})
	})
	if err != nil {
		return err
	}
	for i, name := range asked {
		s := sets[ofTable[i]][name.name]
		var elements []element
		err := eachReply(ctx, conn, unix.NFT_MSG_GETSETELEM, nft.TableFamily(name.family), func(_ byte, a *netlink.AttributeDecoder) {
			for a.Next() {
				if a.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					a.Nested(func(list *netlink.AttributeDecoder) error {
						for list.Next() {
							list.Nested(func(a *netlink.AttributeDecoder) error {
								elements = append(elements, readElement(a))
								return nil
							})
						}
						return nil
					})
				}
			}
		}, text(unix.NFTA_SET_ELEM_LIST_TABLE, ofTable[i].name), text(unix.NFTA_SET_ELEM_LIST_SET, name.name))
		if err != nil {
			return err
		}
		s.entries, s.read = entries(elements, intervals[s]), true
	}
	return nil
}

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}

// An element is one of a set as the kernel has it.
type element struct {
	key, keyEnd []byte
	flags       uint32
	verdict     outcome
}

// Flags of an element, and NFTA_SET_ELEM_KEY_END, which x/sys does not have.
const (
	elementEnds   = 1 // NFT_SET_ELEM_INTERVAL_END
	elementIsAll  = 2 // NFT_SET_ELEM_CATCHALL
	elementKeyEnd = 10
)

func readElement(a *netlink.AttributeDecoder) element {
	var e element
	data := func(into *[]byte) func(*netlink.AttributeDecoder) error {
		return func(a *netlink.AttributeDecoder) error {
			for a.Next() {
				switch a.Type() {
				case unix.NFTA_DATA_VALUE:
					*into = a.Bytes()
				case unix.NFTA_DATA_VERDICT:
					a.Nested(func(a *netlink.AttributeDecoder) error {
						e.verdict = readVerdict(a)
						return nil
					})
				}
			}
			return nil
		}
	}
	var ignored []byte
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			a.Nested(data(&e.key))
		case elementKeyEnd:
			a.Nested(data(&e.keyEnd))
		case unix.NFTA_SET_ELEM_DATA:
			a.Nested(data(&ignored))
		case unix.NFTA_SET_ELEM_FLAGS:
			e.flags = a.Uint32()
		}
	}
	return e
}

func readVerdict(a *netlink.AttributeDecoder) outcome {
	verdict := &expr.Verdict{}
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_VERDICT_CODE:
			verdict.Kind = expr.VerdictKind(int32(a.Uint32()))
		case unix.NFTA_VERDICT_CHAIN:
			verdict.Chain = a.String()
		}
	}
	return verdictOf(verdict, yes)[0]
}

// entries makes ranges of elements. The kernel has the ends of intervals as elements of their own, or beside the beginning; what comes
// last is for everything else.
func entries(elements []element, intervals bool) []entry {
	slices.SortStableFunc(elements, func(a, b element) int {
		if order := bytes.Compare(a.key, b.key); order != 0 {
			return order
		}
		return int(b.flags&elementEnds) - int(a.flags&elementEnds) // one ends where the next begins
	})
	var list, all []entry
	for i, e := range elements {
		switch {
		case e.flags&elementIsAll != 0:
			all = append(all, entry{all: true, verdict: e.verdict})
		case e.flags&elementEnds != 0:
		case e.keyEnd != nil:
			list = append(list, entry{from: e.key, to: e.keyEnd, joint: true, verdict: e.verdict})
		case !intervals:
			list = append(list, entry{from: e.key, to: e.key, verdict: e.verdict})
		case i+1 < len(elements) && elements[i+1].key != nil:
			list = append(list, entry{from: e.key, to: elements[i+1].key, within: true, verdict: e.verdict})
		default:
			list = append(list, entry{from: e.key, verdict: e.verdict})
		}
	}
	return append(list, all...)
}
