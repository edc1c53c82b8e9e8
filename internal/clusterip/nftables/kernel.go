// Package nftables is the way into nf_tables: it lays, reads, repairs and removes the tables of one address, over netlink
// (no nft program is needed on the node).
package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Conn is a connection to the nf_tables of one network namespace.
type Conn struct {
	nft *nft.Conn
	raw *netlink.Conn // for what the library does not decode: a chain's device, the ruleset's generation
}

// Open connects to the network namespace of the calling thread. A kernel without nf_tables gives ocf.ErrInstalled.
func Open() (*Conn, error) {
	raw, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, explain(fmt.Errorf("connect to nf_tables: %w", err))
	}
	library, err := nft.New(nft.AsLasting())
	if err != nil {
		return nil, errors.Join(explain(fmt.Errorf("connect to nf_tables: %w", err)), raw.Close())
	}
	return &Conn{nft: library, raw: raw}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return errors.Join(c.nft.CloseLasting(), c.raw.Close()) }

// families are those in which an address has a table.
func families() []nft.TableFamily {
	return []nft.TableFamily{nft.TableFamilyNetdev, nft.TableFamilyARP}
}

func familyName(family nft.TableFamily) string {
	switch family {
	case nft.TableFamilyNetdev:
		return "netdev"
	case nft.TableFamilyARP:
		return "arp"
	default:
		return fmt.Sprintf("family %d", family)
	}
}

func (t table) String() string { return familyName(t.family) + " " + t.name }

// readTries bounds how often a read that somebody else's change cut in two is repeated.
const readTries = 20

// read returns the tables of an address as the kernel has them, of one generation of the ruleset.
func (c *Conn) read(ctx context.Context, address netip.Addr) ([]table, error) {
	for range readTries {
		before, err := c.generation()
		if err != nil {
			return nil, err
		}
		tables, readErr := c.readOnce(address)
		after, err := c.generation()
		if err != nil {
			return nil, err
		}
		if before == after {
			return tables, readErr
		}
		select { // somebody reloads a firewall: let it finish
		case <-ctx.Done():
			return nil, fmt.Errorf("read tables %s: %w", tableName(address), ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil, fmt.Errorf("read tables %s: the ruleset changed %d times meanwhile", tableName(address), readTries)
}

func (c *Conn) readOnce(address netip.Addr) ([]table, error) {
	var tables []table
	for _, family := range families() {
		found, err := c.nft.ListTablesOfFamily(family)
		if err != nil {
			return nil, explain(fmt.Errorf("list %s tables: %w", familyName(family), err))
		}
		for _, t := range found {
			if t.Name != tableName(address) {
				continue
			}
			read := table{family: family, name: t.Name}
			if err := c.readTable(t, &read); err != nil {
				return nil, fmt.Errorf("read table %s: %w", read, err)
			}
			tables = append(tables, read)
		}
	}
	return tables, nil
}

func (c *Conn) readTable(t *nft.Table, into *table) error {
	chains, err := c.nft.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, found := range chains {
		if found.Table.Name != t.Name {
			continue
		}
		read := chain{name: found.Name}
		if found.Hooknum != nil {
			read.base = &base{kind: found.Type, hook: *found.Hooknum, priority: *found.Priority}
			if found.Policy != nil {
				read.base.policy = *found.Policy
			}
			if t.Family == nft.TableFamilyNetdev {
				if read.base.device, err = c.device(t, found.Name); err != nil {
					return fmt.Errorf("chain %s: %w", found.Name, err)
				}
			}
		}
		rules, err := c.nft.GetRules(t, found)
		if err != nil {
			return fmt.Errorf("list rules of chain %s: %w", found.Name, err)
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			read.rules = append(read.rules, rule{comment: comment, exprs: r.Exprs})
		}
		into.chains = append(into.chains, read)
	}
	sets, err := c.nft.GetSets(t)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, found := range sets {
		read := set{name: found.Name}
		elements, err := c.nft.GetSetElements(found)
		if err != nil {
			return fmt.Errorf("list elements of set %s: %w", found.Name, err)
		}
		for _, e := range elements {
			if len(e.Key) != 4 {
				continue // not our kind of set
			}
			read.elements = append(read.elements, element{
				key: binary.NativeEndian.Uint32(e.Key), comment: e.Comment, counted: e.Counter != nil,
			})
		}
		into.sets = append(into.sets, read)
	}
	return nil
}

// generation returns the number of the last change to any table in the namespace (nf_tables_getgen).
func (c *Conn) generation() (uint32, error) {
	replies, err := c.request(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, nil)
	if err != nil {
		return 0, explain(fmt.Errorf("read the ruleset's generation: %w", err))
	}
	var generation uint32
	err = eachAttribute(replies, func(attributes *netlink.AttributeDecoder) {
		if attributes.Type() == unix.NFTA_GEN_ID {
			generation = attributes.Uint32()
		}
	})
	return generation, err
}

// device returns the NIC that a netdev chain hooks into; empty when it hooks into none, or into several.
func (c *Conn) device(t *nft.Table, name string) (string, error) {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CHAIN_TABLE, Data: []byte(t.Name + "\x00")},
		{Type: unix.NFTA_CHAIN_NAME, Data: []byte(name + "\x00")},
	})
	if err != nil {
		return "", err
	}
	replies, err := c.request(unix.NFT_MSG_GETCHAIN, byte(t.Family), attributes)
	if err != nil {
		return "", fmt.Errorf("read its device: %w", err)
	}
	var device string
	err = eachAttribute(replies, func(attributes *netlink.AttributeDecoder) {
		if attributes.Type() != unix.NFTA_CHAIN_HOOK {
			return
		}
		attributes.Nested(func(hook *netlink.AttributeDecoder) error {
			for hook.Next() {
				if hook.Type() == unix.NFTA_HOOK_DEV {
					device = hook.String()
				}
			}
			return nil
		})
	})
	return device, err
}

// request sends one message of the nf_tables subsystem and returns the replies.
func (c *Conn) request(message uint16, family byte, attributes []byte) ([]netlink.Message, error) {
	nfgenmsg := []byte{family, unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h
	return c.raw.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request,
		},
		Data: append(nfgenmsg, attributes...),
	})
}

func eachAttribute(replies []netlink.Message, visit func(*netlink.AttributeDecoder)) error {
	const nfgenmsgLength = 4
	for _, reply := range replies {
		if len(reply.Data) < nfgenmsgLength {
			return fmt.Errorf("a reply of %d bytes is too short", len(reply.Data))
		}
		attributes, err := netlink.NewAttributeDecoder(reply.Data[nfgenmsgLength:])
		if err != nil {
			return err
		}
		attributes.ByteOrder = binary.BigEndian
		for attributes.Next() {
			visit(attributes)
		}
		if err := attributes.Err(); err != nil {
			return err
		}
	}
	return nil
}

// explain gives an error of the kernel the exit code and the words that tell an admin what to do about it.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return ocf.Errorf(ocf.ErrPerm, "%w: root (CAP_NET_ADMIN) is needed", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return ocf.Errorf(ocf.ErrInstalled, "%w: this kernel lacks nf_tables (CONFIG_NF_TABLES)", err)
	default:
		return err
	}
}

var _ clusterip.TableKernel = (*Conn)(nil)
