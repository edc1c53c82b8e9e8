package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The tables are read without the library's decoder: it leaves out what it does not know (an expression that somebody has
// put into a rule of ours, the device of a chain), and a monitor that does not see it cannot tell that it is there.

// lastPause is the longest between two tries to read what somebody else's change cut in two.
const lastPause = 50 * time.Millisecond

// read returns the tables of that name as the kernel has them, of one generation of the ruleset.
func (c *Conn) read(ctx context.Context, name string) ([]table, error) {
	var tables []table
	err := c.Consistently(ctx, "tables "+name, func() (err error) {
		tables, err = c.readOnce(ctx, name)
		return err
	})
	return tables, err
}

// errTorn says that a dump of a set's elements has some twice, and so others not at all. The kernel resumes a dump that does not fit into one
// message by counting elements, and a moment after some were added it may deal them anew meanwhile (nft_rhash_walk in
// net/netfilter/nft_set_hash.c; seen once in 36000 dumps): the generation of the ruleset stays the same.
var errTorn = errors.New("the kernel has moved the elements while they were read")

// Consistently reads until nothing has changed meanwhile.
func (c *Conn) Consistently(ctx context.Context, what string, readOnce func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, lastPause) {
		before, err := c.generation(ctx)
		if err != nil {
			return err
		}
		readErr := readOnce()
		after, err := c.generation(ctx)
		if err != nil {
			return err
		}
		if before == after && !errors.Is(readErr, errTorn) {
			return readErr
		}
		select { // somebody reloads a firewall: let it finish
		case <-ctx.Done():
			return fmt.Errorf("read %s: the ruleset changed during each try: %w", what, ctx.Err())
		case <-time.After(pause):
		}
	}
}

func (c *Conn) readOnce(ctx context.Context, name string) ([]table, error) {
	var tables []table
	for _, family := range families() {
		t := table{family: family, name: name}
		replies, err := c.request(ctx, unix.NFT_MSG_GETTABLE, family, 0, text(unix.NFTA_TABLE_NAME, name))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = errors.Join(eachAttribute(replies, func(_ int, a *netlink.AttributeDecoder) {
				switch a.Type() {
				case unix.NFTA_TABLE_FLAGS:
					t.flags = a.Uint32()
				case unix.NFTA_TABLE_USE:
					t.use = a.Uint32()
				}
			}), c.readChains(ctx, &t), c.readRules(ctx, &t), c.readSets(ctx, &t))
		}
		if err != nil {
			return nil, explain(fmt.Errorf("read table %s: %w", t, err))
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// generation returns the number of the last change to any table in the namespace (nf_tables_getgen).
func (c *Conn) generation(ctx context.Context) (uint32, error) {
	replies, err := c.request(ctx, unix.NFT_MSG_GETGEN, nft.TableFamilyUnspecified, 0)
	if err != nil {
		return 0, explain(fmt.Errorf("read the ruleset's generation: %w", err))
	}
	var generation uint32
	err = eachAttribute(replies, func(_ int, a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_GEN_ID {
			generation = a.Uint32()
		}
	})
	return generation, err
}

// tableNames lists the tables of a family.
func (c *Conn) tableNames(ctx context.Context, family nft.TableFamily) ([]string, error) {
	replies, err := c.request(ctx, unix.NFT_MSG_GETTABLE, family, netlink.Dump)
	if err != nil {
		return nil, explain(fmt.Errorf("list %s tables: %w", familyName(family), err))
	}
	var names []string
	err = eachAttribute(replies, func(_ int, a *netlink.AttributeDecoder) {
		if a.Type() == unix.NFTA_TABLE_NAME {
			names = append(names, a.String())
		}
	})
	return names, err
}

func (c *Conn) readChains(ctx context.Context, into *table) error {
	replies, err := c.requestChains(ctx, into)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	chains := make([]chain, len(replies))
	tables := make([]string, len(replies))
	policies := make([]nft.ChainPolicy, len(replies))
	kinds := make([]nft.ChainType, len(replies))
	err = eachAttribute(replies, func(i int, a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			tables[i] = a.String()
		case unix.NFTA_CHAIN_NAME:
			chains[i].name = a.String()
		case unix.NFTA_CHAIN_TYPE:
			kinds[i] = nft.ChainType(a.String())
		case unix.NFTA_CHAIN_POLICY:
			policies[i] = nft.ChainPolicy(a.Uint32())
		case unix.NFTA_CHAIN_HOOK:
			hooked := &base{}
			a.Nested(hooked.decode)
			chains[i].base = hooked
		}
	})
	for i, read := range chains {
		if tables[i] != into.name {
			continue
		}
		if read.base != nil {
			read.base.kind, read.base.policy = kinds[i], policies[i]
		}
		into.chains = append(into.chains, read)
	}
	return err
}

// requestChains asks for all chains of a family, because the kernel does not filter them by table. Only in family ip, where
// a host may have thousands of others, it asks for ours alone if the table holds no more.
func (c *Conn) requestChains(ctx context.Context, of *table) ([]netlink.Message, error) {
	names, _ := namesIn(of.family)
	if of.family == nft.TableFamilyIPv4 && int(of.use) <= len(names) {
		var all []netlink.Message
		for _, name := range names {
			replies, err := c.request(ctx, unix.NFT_MSG_GETCHAIN, of.family, 0, text(unix.NFTA_CHAIN_TABLE, of.name), text(unix.NFTA_CHAIN_NAME, name))
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, err
			}
			if all = append(all, replies...); len(all) == int(of.use) {
				return all, nil
			}
		}
	}
	return c.request(ctx, unix.NFT_MSG_GETCHAIN, of.family, netlink.Dump)
}

// decode reads where a chain hooks in. A chain of several devices, which we never lay, has none here.
func (b *base) decode(a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			b.hook = nft.ChainHook(a.Uint32())
		case unix.NFTA_HOOK_PRIORITY:
			b.priority = nft.ChainPriority(a.Int32())
		case unix.NFTA_HOOK_DEV:
			b.device = a.String()
		}
	}
	return nil
}

func (c *Conn) readRules(ctx context.Context, into *table) error {
	replies, err := c.request(ctx, unix.NFT_MSG_GETRULE, into.family, netlink.Dump, text(unix.NFTA_RULE_TABLE, into.name))
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	rules := make([]rule, len(replies))
	tables := make([]string, len(replies))
	chains := make([]string, len(replies))
	err = eachAttribute(replies, func(i int, a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_RULE_TABLE:
			tables[i] = a.String()
		case unix.NFTA_RULE_CHAIN:
			chains[i] = a.String()
		case unix.NFTA_RULE_USERDATA:
			rules[i].comment = commentIn(a.Bytes())
			_, rules[i].marked = userdataIn(a.Bytes(), userdataMark)
		case unix.NFTA_RULE_EXPRESSIONS:
			a.Nested(func(list *netlink.AttributeDecoder) error { return rules[i].decode(byte(into.family), list) })
		}
	})
	for i, read := range rules {
		inChain := func(c chain) bool { return c.name == chains[i] }
		if at := slices.IndexFunc(into.chains, inChain); at >= 0 && tables[i] == into.name {
			into.chains[at].rules = append(into.chains[at].rules, read)
		}
	}
	return err
}

// decode reads the expressions of a rule: the kinds that we lay in full, the others by name.
func (r *rule) decode(family byte, list *netlink.AttributeDecoder) error {
	for list.Next() {
		list.Nested(func(a *netlink.AttributeDecoder) error {
			var name string
			var data []byte
			for a.Next() {
				switch a.Type() {
				case unix.NFTA_EXPR_NAME:
					name = a.String()
				case unix.NFTA_EXPR_DATA:
					data = a.Bytes()
				}
			}
			e, err := decodeExpression(family, name, data)
			if err != nil {
				return fmt.Errorf("expression %s: %w", name, err)
			}
			if e == nil {
				r.unknown = append(r.unknown, name)
				return nil
			}
			r.exprs = append(r.exprs, e)
			return nil
		})
	}
	return nil
}

func decodeExpression(family byte, name string, data []byte) (expr.Any, error) {
	var e expr.Any
	switch name {
	case "bitwise":
		e = &expr.Bitwise{}
	case "byteorder":
		return decodeByteorder(data)
	case "cmp":
		e = &expr.Cmp{}
	case "counter":
		e = &expr.Counter{}
	case "ct":
		e = &expr.Ct{}
	case "exthdr":
		e = &expr.Exthdr{}
	case "hash":
		e = &expr.Hash{}
	case "immediate":
		e = &expr.Immediate{}
	case "lookup":
		e = &expr.Lookup{}
	case "meta":
		e = &expr.Meta{}
	case "payload":
		e = &expr.Payload{}
	default:
		return nil, nil //nolint:nilnil // not an error: somebody else's
	}
	if err := expr.Unmarshal(family, data, e); err != nil {
		return nil, err
	}
	// A verdict is an immediate for the verdict register.
	if immediate, ok := e.(*expr.Immediate); ok && immediate.Register == unix.NFT_REG_VERDICT {
		e = &expr.Verdict{}
		if err := expr.Unmarshal(family, data, e); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// decodeByteorder does what the library has not implemented.
func decodeByteorder(data []byte) (*expr.Byteorder, error) {
	attributes, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil, err
	}
	attributes.ByteOrder = binary.BigEndian
	e := &expr.Byteorder{}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_BYTEORDER_SREG:
			e.SourceRegister = attributes.Uint32()
		case unix.NFTA_BYTEORDER_DREG:
			e.DestRegister = attributes.Uint32()
		case unix.NFTA_BYTEORDER_OP:
			e.Op = expr.ByteorderOp(attributes.Uint32())
		case unix.NFTA_BYTEORDER_LEN:
			e.Len = attributes.Uint32()
		case unix.NFTA_BYTEORDER_SIZE:
			e.Size = attributes.Uint32()
		}
	}
	return e, attributes.Err()
}

func (c *Conn) readSets(ctx context.Context, into *table) error {
	if into.use == uint32(len(into.chains)) { // there is nothing but chains
		return nil
	}
	ofTable := text(unix.NFTA_SET_TABLE, into.name)
	replies, err := c.request(ctx, unix.NFT_MSG_GETSET, into.family, netlink.Dump, ofTable)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	into.sets = make([]set, len(replies))
	err = eachAttribute(replies, func(i int, a *netlink.AttributeDecoder) {
		switch a.Type() {
		case unix.NFTA_SET_NAME:
			into.sets[i].name = a.String()
		case unix.NFTA_SET_KEY_LEN:
			into.sets[i].keyLength = a.Uint32()
		case unix.NFTA_SET_FLAGS:
			into.sets[i].flags = a.Uint32()
		}
	})
	if err != nil {
		return err
	}
	for i, s := range into.sets {
		if !slices.Contains(setNames(), s.name) {
			continue
		}
		replies, err := c.request(ctx, unix.NFT_MSG_GETSETELEM, into.family, netlink.Dump, ofTable, text(unix.NFTA_SET_ELEM_LIST_SET, s.name))
		if err != nil {
			return fmt.Errorf("list elements of set %s: %w", s.name, err)
		}
		err = eachAttribute(replies, func(_ int, a *netlink.AttributeDecoder) {
			if a.Type() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				a.Nested(into.sets[i].decode)
			}
		})
		if err == nil && into.sets[i].isTorn() {
			err = errTorn
		}
		if err != nil {
			return fmt.Errorf("elements of set %s: %w", s.name, err)
		}
	}
	return nil
}

// isTorn tells whether an element was read twice. (An interval's end may be the next one's beginning.)
func (s set) isTorn() bool {
	type key struct {
		key      uint32
		end, all bool
	}
	seen := map[key]bool{}
	for _, e := range s.elements {
		if seen[key{e.key, e.end, e.all}] {
			return true
		}
		seen[key{e.key, e.end, e.all}] = true
	}
	return false
}

// elementCatchAll is NFT_SET_ELEM_CATCHALL of include/uapi/linux/netfilter/nf_tables.h.
const elementCatchAll = 2

// decode reads the elements of a set. Keys of another length than ours are not read: the set is not as laid anyway.
func (s *set) decode(list *netlink.AttributeDecoder) error {
	for list.Next() {
		list.Nested(func(a *netlink.AttributeDecoder) error {
			var e element
			var key []byte
			for a.Next() {
				switch a.Type() {
				case unix.NFTA_SET_ELEM_KEY:
					a.Nested(func(data *netlink.AttributeDecoder) error {
						for data.Next() {
							if data.Type() == unix.NFTA_DATA_VALUE {
								key = data.Bytes()
							}
						}
						return nil
					})
				case unix.NFTA_SET_ELEM_USERDATA:
					e.comment = commentIn(a.Bytes())
				case unix.NFTA_SET_ELEM_FLAGS:
					flags := a.Uint32()
					e.end, e.all = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0, flags&elementCatchAll != 0
				case unix.NFTA_SET_ELEM_EXPR:
					e.counted = true
				case unix.NFTA_SET_ELEM_EXPIRATION:
					e.timed, e.left = true, time.Duration(a.Uint64())*time.Millisecond
				}
			}
			switch {
			case e.all:
			case len(key) == keyLength:
				e.key = binary.NativeEndian.Uint32(key)
			case len(key) == portLength:
				e.key = uint32(binary.BigEndian.Uint16(key))
			default:
				return nil
			}
			s.elements = append(s.elements, e)
			return nil
		})
	}
	return nil
}

// commentIn finds a comment in what user space keeps with a rule or an element.
func commentIn(data []byte) string {
	comment, _ := userdataIn(data, userdata.TypeComment) // which is NFTNL_UDATA_SET_ELEM_COMMENT, too
	return strings.TrimSuffix(string(comment), "\x00")
}

// userdataIn finds something in what user space keeps: type, length and value, one behind the other. The kernel keeps anything, so nothing
// may be taken for granted (which userdata.GetString does).
func userdataIn(data []byte, kind userdata.Type) (value []byte, found bool) {
	const header = 2
	for len(data) >= header {
		end := header + int(data[1])
		if len(data) < end {
			return nil, false
		}
		if userdata.Type(data[0]) == kind {
			return data[header:end], true
		}
		data = data[end:]
	}
	return nil, false
}

// request sends one message of the nf_tables subsystem and returns the replies.
func (c *Conn) request(
	ctx context.Context, message uint16, family nft.TableFamily, flags netlink.HeaderFlags, attributes ...netlink.Attribute,
) ([]netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		return nil, err
	}
	nfgenmsg := []byte{byte(family), unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h
	replies, err := c.execute(ctx, netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | flags,
		},
		Data: append(nfgenmsg, data...),
	})
	if errors.Is(err, unix.EINVAL) && len(attributes) == 0 { // nfnetlink is there, but nobody has registered as nf_tables (nfnetlink_rcv_msg)
		err = fmt.Errorf("%w (%w)", unix.EPROTONOSUPPORT, err)
	}
	return replies, err
}

// Dump asks for all that there is of something, whoever's it is, in a family or in all (nft.TableFamilyUnspecified). See EachReply.
func (c *Conn) Dump(ctx context.Context, message uint16, family nft.TableFamily, attributes ...netlink.Attribute) ([]netlink.Message, error) {
	replies, err := c.request(ctx, message, family, netlink.Dump, attributes...)
	return replies, explain(err)
}

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}

// eachAttribute visits the attributes of each reply; i counts the replies.
func eachAttribute(replies []netlink.Message, visit func(i int, a *netlink.AttributeDecoder)) error {
	return EachReply(replies, func(i int, _ byte, attributes *netlink.AttributeDecoder) {
		for attributes.Next() {
			visit(i, attributes)
		}
	})
}

// nfgenmsgLength is that of struct nfgenmsg, which stands before the attributes.
const nfgenmsgLength = 4

// EachReply visits the replies of the nf_tables subsystem: their number, family and attributes.
func EachReply(replies []netlink.Message, visit func(i int, family byte, attributes *netlink.AttributeDecoder)) error {
	for i, reply := range replies {
		if len(reply.Data) < nfgenmsgLength {
			return fmt.Errorf("a reply of %d bytes is too short", len(reply.Data))
		}
		attributes, err := netlink.NewAttributeDecoder(reply.Data[nfgenmsgLength:])
		if err != nil {
			return err
		}
		attributes.ByteOrder = binary.BigEndian
		visit(i, reply.Data[0], attributes)
		if err := attributes.Err(); err != nil {
			return err
		}
	}
	return nil
}
