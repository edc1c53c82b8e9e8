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
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/kernel/nftreply"
)

// lastPause is the longest pause between two attempts to read a ruleset that others change meanwhile.
const lastPause = 50 * time.Millisecond

// read returns the tables of that name, all from one generation of the ruleset.
func (c *Conn) read(ctx context.Context, name string) ([]table, error) {
	var tables []table
	err := c.Consistently(ctx, "tables "+name, func() (err error) {
		tables, err = c.readOnce(ctx, name)
		return err
	})
	return tables, err
}

// errTorn means that a dump of a set's elements has some twice, and so lacks others. The kernel resumes a dump that does not fit into
// one message by counting elements. Shortly after some were added it may rehash them between two messages (nft_rhash_walk in
// net/netfilter/nft_set_hash.c; seen once in 36000 dumps), and the generation of the ruleset stays the same.
var errTorn = errors.New("the kernel has moved the elements while they were read")

// Consistently calls readOnce until the ruleset did not change during the call.
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
		select { // a firewall may be reloading: let it finish
		case <-ctx.Done():
			return fmt.Errorf("read %s: the ruleset changed during each try: %w", what, ctx.Err())
		case <-time.After(pause):
		}
	}
}

func (c *Conn) readOnce(ctx context.Context, name string) ([]table, error) {
	var tables []table
	for _, family := range families() {
		found, err := get[nftreply.Table](ctx, c, unix.NFT_MSG_GETTABLE, family, 0, text(unix.NFTA_TABLE_NAME, name))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		t := table{family: family, name: name}
		if err == nil {
			t.flags, t.use = found[0].Flags, found[0].Use
			err = errors.Join(c.readChains(ctx, &t), c.readRules(ctx, &t), c.readSets(ctx, &t))
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
	generations, err := get[nftreply.Generation](ctx, c, unix.NFT_MSG_GETGEN, nft.TableFamilyUnspecified, 0)
	if err != nil {
		return 0, explain(fmt.Errorf("read the ruleset's generation: %w", err))
	}
	return generations[0].ID, nil
}

// tableNames lists the tables of a family.
func (c *Conn) tableNames(ctx context.Context, family nft.TableFamily) ([]string, error) {
	tables, err := get[nftreply.Table](ctx, c, unix.NFT_MSG_GETTABLE, family, netlink.Dump)
	if err != nil {
		return nil, explain(fmt.Errorf("list %s tables: %w", familyName(family), err))
	}
	var names []string
	for _, t := range tables {
		names = append(names, t.Name)
	}
	return names, nil
}

func (c *Conn) readChains(ctx context.Context, into *table) error {
	chains, err := c.getChains(ctx, into)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, read := range chains {
		if read.Table == into.name {
			into.chains = append(into.chains, chain{name: read.Name, base: baseOf(read)})
		}
	}
	return nil
}

// getChains requests all chains of a family, because the kernel does not filter them by table. In family ip a node may have
// thousands of others: there it requests only ours, if the table has no more.
func (c *Conn) getChains(ctx context.Context, of *table) ([]nftreply.Chain, error) {
	names, _ := namesIn(of.family)
	if of.family == nft.TableFamilyIPv4 && int(of.use) <= len(names) {
		var all []nftreply.Chain
		for _, name := range names {
			chains, err := get[nftreply.Chain](ctx, c, unix.NFT_MSG_GETCHAIN, of.family, 0,
				text(unix.NFTA_CHAIN_TABLE, of.name), text(unix.NFTA_CHAIN_NAME, name))
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, err
			}
			if all = append(all, chains...); len(all) == int(of.use) {
				return all, nil
			}
		}
	}
	return get[nftreply.Chain](ctx, c, unix.NFT_MSG_GETCHAIN, of.family, netlink.Dump)
}

// baseOf returns where a chain is attached. A chain of several devices, which we never install, has none here.
func baseOf(c nftreply.Chain) *base {
	if c.Hook == nil {
		return nil
	}
	return &base{
		kind: nft.ChainType(c.Type), hook: nft.ChainHook(c.Hook.Number), priority: nft.ChainPriority(c.Hook.Priority),
		policy: nft.ChainPolicy(c.Policy), device: c.Hook.Device,
	}
}

func (c *Conn) readRules(ctx context.Context, into *table) error {
	rules, err := get[nftreply.Rule](ctx, c, unix.NFT_MSG_GETRULE, into.family, netlink.Dump, text(unix.NFTA_RULE_TABLE, into.name))
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	for _, read := range rules {
		inChain := func(c chain) bool { return c.name == read.Chain }
		if at := slices.IndexFunc(into.chains, inChain); at >= 0 && read.Table == into.name {
			into.chains[at].rules = append(into.chains[at].rules, ruleOf(read))
		}
	}
	return nil
}

// ruleOf keeps the expressions of kinds that we never install by name.
func ruleOf(read nftreply.Rule) rule {
	r := rule{comment: commentIn(read.Userdata)}
	_, r.marked = userdataIn(read.Userdata, userdataMark)
	for _, e := range read.Expressions.All {
		if decoded := e.Decode(read.Family); decoded != nil {
			r.exprs = append(r.exprs, decoded)
		} else {
			r.unknown = append(r.unknown, e.Name)
		}
	}
	return r
}

func (c *Conn) readSets(ctx context.Context, into *table) error {
	if into.use == uint32(len(into.chains)) { // there is nothing but chains
		return nil
	}
	sets, err := get[nftreply.Set](ctx, c, unix.NFT_MSG_GETSET, into.family, netlink.Dump, text(unix.NFTA_SET_TABLE, into.name))
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, read := range sets {
		s := set{name: read.Name, keyLength: read.KeyLength, flags: read.Flags}
		if slices.Contains(setNames(), s.name) && !slices.Contains(packetSets(), s.name) {
			elements, err := c.Elements(ctx, into.family, into.name, s.name)
			s.fill(elements)
			if err == nil && s.isTorn() {
				err = errTorn
			}
			if err != nil {
				return fmt.Errorf("list elements of set %s: %w", s.name, err)
			}
		}
		into.sets = append(into.sets, s)
	}
	return nil
}

// isTorn reports whether an element was read twice. (The end of an interval may have the same key as the start of the next.)
func (s set) isTorn() bool {
	type key struct {
		key      uint32
		long     string
		end, all bool
	}
	seen := map[key]bool{}
	for _, e := range s.elements {
		if seen[key{e.key, string(e.long), e.end, e.all}] {
			return true
		}
		seen[key{e.key, string(e.long), e.end, e.all}] = true
	}
	return false
}

// fill leaves out elements with keys of another length than ours: the set differs from what was installed anyway.
func (s *set) fill(read []nftreply.Element) {
	s.counters = map[uint32]nftreply.Expression{}
	for _, r := range read {
		e := element{
			all: r.Flags&nftreply.ElementCatchAll != 0, end: r.Flags&nftreply.ElementEnd != 0,
			comment: commentIn(r.Userdata), counted: r.Expression != nil, timed: r.Expiration != nil,
		}
		switch key := r.Key.Value; {
		case e.all:
		case len(key) == keyLength:
			e.key = binary.NativeEndian.Uint32(key)
		case len(key) == takeoverKeyLength:
			e.key, e.long, e.value = bucketIn(key), key, r.Data.Value
		case len(key) == portLength:
			e.key = uint32(binary.BigEndian.Uint16(key))
		default:
			continue
		}
		if e.timed {
			e.left = time.Duration(*r.Expiration) * time.Millisecond
		}
		if e.counted && !e.all {
			s.counters[e.key] = *r.Expression
		}
		s.elements = append(s.elements, e)
	}
}

// commentIn finds the comment in the user data of a rule or an element.
func commentIn(data []byte) string {
	comment, _ := userdataIn(data, userdata.TypeComment) // which is NFTNL_UDATA_SET_ELEM_COMMENT, too
	return strings.TrimSuffix(string(comment), "\x00")
}

// userdataIn finds a value in user data: a sequence of type, length and value. The kernel accepts any bytes as user data, so unlike
// userdata.GetString this assumes no form.
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

// nfgenmsgLength is the length of struct nfgenmsg, which precedes the attributes (include/uapi/linux/netfilter/nfnetlink.h).
const nfgenmsgLength = 4

// request sends one message of the nf_tables subsystem and returns the replies.
func (c *Conn) request(
	ctx context.Context, message uint16, family nft.TableFamily, flags netlink.HeaderFlags, attributes ...netlink.Attribute,
) ([]netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		return nil, err
	}
	nfgenmsg := [nfgenmsgLength]byte{byte(family), unix.NFNETLINK_V0}
	replies, err := c.execute(ctx, netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | flags,
		},
		Data: append(nfgenmsg[:], data...),
	})
	if errors.Is(err, unix.EINVAL) && len(attributes) == 0 { // the kernel has nfnetlink but not nf_tables (nfnetlink_rcv_msg)
		err = fmt.Errorf("%w (%w)", unix.EPROTONOSUPPORT, err)
	}
	return replies, err
}

// get requests objects of one kind. Without an error there is at least one, but for a dump.
func get[T any](
	ctx context.Context, c *Conn, message uint16, family nft.TableFamily, flags netlink.HeaderFlags, attributes ...netlink.Attribute,
) ([]T, error) {
	replies, err := c.request(ctx, message, family, flags, attributes...)
	if err != nil {
		return nil, err
	}
	all, err := nftreply.All[T](replies)
	if err == nil && len(all) == 0 && flags&netlink.Dump == 0 {
		err = fmt.Errorf("no reply to message %d of nf_tables", message)
	}
	return all, err
}

// Dump requests all objects of one kind, whoever made them: a type of package nftreply, and the message that requests it.
func Dump[T any](ctx context.Context, c *Conn, message uint16) ([]T, error) {
	all, err := get[T](ctx, c, message, nft.TableFamilyUnspecified, netlink.Dump)
	return all, explain(err)
}

// Elements returns the elements of a set.
func (c *Conn) Elements(ctx context.Context, family nft.TableFamily, tableName, setName string) ([]nftreply.Element, error) {
	var elements []nftreply.Element
	lists, err := get[nftreply.Elements](ctx, c, unix.NFT_MSG_GETSETELEM, family, netlink.Dump,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName), text(unix.NFTA_SET_ELEM_LIST_SET, setName))
	for _, l := range lists {
		elements = append(elements, l.All...)
	}
	return elements, explain(err)
}

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}
