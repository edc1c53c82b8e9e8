package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/kernel/nftreply"
	"ocf-clusterip/internal/ocf"
)

// ours is what our tables' names begin with.
const ours = "clusterip-"

// A place names a table or a chain in nf_tables.
type place struct {
	family byte
	name   string
}

// readRuleset reads all tables of nf_tables but ours. A kernel without nf_tables has none.
func readRuleset(ctx context.Context, conn *nftables.Conn) ([]table, error) {
	var tables []table
	err := conn.Consistently(ctx, "the ruleset", func() (err error) {
		tables, err = readOnce(ctx, conn)
		return err
	})
	if ocf.CodeOf(err) == ocf.ErrInstalled {
		return nil, nil
	}
	return tables, err
}

func readOnce(ctx context.Context, conn *nftables.Conn) ([]table, error) {
	names, err := readTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	tables := make([]table, len(names))
	sets := map[place]map[string]*set{}
	for i, name := range names {
		tables[i].name = familyName(name.family) + " " + name.name
		sets[name] = map[string]*set{}
	}
	err = eachReply(ctx, conn, unix.NFT_MSG_GETCHAIN, nft.TableFamilyUnspecified, func(family byte, a *netlink.AttributeDecoder) {
		tableName, c := readChain(family, a)
		if i := slices.Index(names, place{family, tableName}); i >= 0 {
			tables[i].chains = append(tables[i].chains, c)
		}
	})
	if err != nil {
		return nil, err
	}
	if err := readRules(ctx, conn, names, tables, sets); err != nil {
		return nil, err
	}
	return tables, readSets(ctx, conn, sets)
}

func readTables(ctx context.Context, conn *nftables.Conn) ([]place, error) {
	var names []place
	err := eachReply(ctx, conn, unix.NFT_MSG_GETTABLE, nft.TableFamilyUnspecified, func(family byte, a *netlink.AttributeDecoder) {
		var name string
		var flags uint32
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_TABLE_NAME:
				name = a.String()
			case unix.NFTA_TABLE_FLAGS:
				flags = a.Uint32()
			}
		}
		const dormant = 1 // NFT_TABLE_F_DORMANT
		if !strings.HasPrefix(name, ours) && flags&dormant == 0 {
			names = append(names, place{family, name})
		}
	})
	return names, err
}

// eachReply visits all that the kernel has of something, in a family or in all.
func eachReply(ctx context.Context, conn *nftables.Conn, message uint16, in nft.TableFamily,
	visit func(family byte, a *netlink.AttributeDecoder), attributes ...netlink.Attribute,
) error {
	replies, err := conn.Dump(ctx, message, in, attributes...)
	if err != nil {
		return err
	}
	return nftreply.Each(replies, visit)
}

// Where a packet meets base chains, in this order.
const (
	atNetdevIngress = iota
	atIngress
	atBridge
	atPrerouting
	atInput
	atForward
	notOnTheWay
)

// Priorities are 32-bit numbers: those of one hook come before those of the next.
const (
	lowestPriority    = -1 << 31
	ordersPerHook     = 1 << 32
	conntrackPriority = -200 // NF_IP_PRI_CONNTRACK
)

func readChain(family byte, a *netlink.AttributeDecoder) (tableName string, c chain) {
	var number uint32
	var priority int32
	var policy uint32
	var devices []string
	var kind string
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			tableName = a.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = a.String()
		case unix.NFTA_CHAIN_TYPE:
			kind = a.String()
		case unix.NFTA_CHAIN_POLICY:
			policy = a.Uint32()
		case unix.NFTA_CHAIN_HOOK:
			c.hook = &hook{}
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					switch a.Type() {
					case unix.NFTA_HOOK_HOOKNUM:
						number = a.Uint32()
					case unix.NFTA_HOOK_PRIORITY:
						priority = a.Int32()
					case unix.NFTA_HOOK_DEV:
						devices = append(devices, a.String())
					case nftaHookDevs:
						a.Nested(func(a *netlink.AttributeDecoder) error {
							for a.Next() {
								devices = append(devices, a.String())
							}
							return nil
						})
					}
				}
				return nil
			})
		}
	}
	if c.hook == nil {
		return tableName, c
	}
	at := whereOf(family, number, kind)
	c.hook.sees = func(p probe) bool {
		onNIC := len(devices) == 0 || slices.Contains(devices, p.nic)
		return at != notOnTheWay && onNIC && sees(family, p) && meets(at, p) && (kind != natChain || !p.redirected)
	}
	c.hook.order = int64(at)*ordersPerHook + int64(priority) - lowestPriority
	c.hook.drops = policy == 0 // NF_DROP
	c.hook.early = at < atPrerouting || at == atPrerouting && priority <= conntrackPriority
	c.hook.showWith = "nft -a list chain " + familyName(family) + " " + tableName + " %s"
	return tableName, c
}

// nftaHookDevs is NFTA_HOOK_DEVS, which x/sys does not have.
const nftaHookDevs = 4

// natChain is the type of chain that sees the first packet of a connection alone, until one of its hook has decided where it goes.
const natChain = "nat"

// meets tells whether a packet comes to a hook.
func meets(at int, p probe) bool {
	switch at {
	case atBridge:
		return p.bridged
	case atInput:
		return !p.forwarded
	case atForward:
		return p.forwarded
	default:
		return true
	}
}

func whereOf(family byte, number uint32, kind string) int {
	const inetIngress = 5 // NF_INET_INGRESS
	switch {
	case kind == "route" || kind == natChain && number != unix.NF_INET_PRE_ROUTING:
		return notOnTheWay
	case family == unix.NFPROTO_NETDEV && number == 0:
		return atNetdevIngress
	case family == unix.NFPROTO_INET && number == inetIngress:
		return atIngress
	case family == unix.NFPROTO_ARP && number == 0:
		return atInput
	case family == unix.NFPROTO_BRIDGE && (number == unix.NF_INET_PRE_ROUTING || number == unix.NF_INET_LOCAL_IN):
		return atBridge
	case family == unix.NFPROTO_NETDEV || family == unix.NFPROTO_ARP || family == unix.NFPROTO_BRIDGE:
		return notOnTheWay
	case number == unix.NF_INET_PRE_ROUTING:
		return atPrerouting
	case number == unix.NF_INET_LOCAL_IN:
		return atInput
	case number == unix.NF_INET_FORWARD:
		return atForward
	default:
		return notOnTheWay
	}
}

// sees tells whether a family's chains see such packets.
func sees(family byte, p probe) bool {
	switch family {
	case unix.NFPROTO_NETDEV, unix.NFPROTO_BRIDGE:
		return true
	case unix.NFPROTO_ARP:
		return p.arp
	case unix.NFPROTO_INET:
		return !p.arp
	default:
		return p.family() == family
	}
}

func familyName(family byte) string {
	names := map[byte]string{
		unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev",
		unix.NFPROTO_BRIDGE: "bridge",
	}
	if name, ok := names[family]; ok {
		return name
	}
	return fmt.Sprintf("family %d", family)
}

func readRules(ctx context.Context, conn *nftables.Conn, names []place, tables []table, sets map[place]map[string]*set) error {
	var faults []error
	err := eachReply(ctx, conn, unix.NFT_MSG_GETRULE, nft.TableFamilyUnspecified, func(family byte, a *netlink.AttributeDecoder) {
		var tableName, chainName string
		r := nftRule{family: family}
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_RULE_TABLE:
				tableName = a.String()
			case unix.NFTA_RULE_CHAIN:
				chainName = a.String()
			case unix.NFTA_RULE_HANDLE:
				r.handle = a.Uint64()
			case unix.NFTA_RULE_EXPRESSIONS:
				a.Nested(func(list *netlink.AttributeDecoder) error {
					for list.Next() {
						list.Nested(func(a *netlink.AttributeDecoder) error {
							e, err := readExpression(family, a)
							r.expressions = append(r.expressions, e)
							return err
						})
					}
					return nil
				})
			}
		}
		i := slices.Index(names, place{family, tableName})
		if i < 0 {
			return
		}
		r.sets = sets[names[i]]
		for _, e := range r.expressions {
			if lookup, ok := e.decoded.(*expr.Lookup); ok {
				r.sets[lookup.SetName] = &set{} // to be read
			}
		}
		at := slices.IndexFunc(tables[i].chains, func(c chain) bool { return c.name == chainName })
		if at < 0 {
			faults = append(faults, fmt.Errorf("table %s has a rule in no chain", tables[i].name))
			return
		}
		if hook := tables[i].chains[at].hook; hook != nil {
			r.early = hook.early
		}
		tables[i].chains[at].rules = append(tables[i].chains[at].rules, r)
	})
	return errors.Join(append(faults, err)...)
}

func readExpression(family byte, a *netlink.AttributeDecoder) (expression, error) {
	var e expression
	var data []byte
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_EXPR_NAME:
			e.name = a.String()
		case unix.NFTA_EXPR_DATA:
			data = a.Bytes()
		}
	}
	kinds := map[string]func() expr.Any{
		"bitwise": func() expr.Any { return &expr.Bitwise{} }, "cmp": func() expr.Any { return &expr.Cmp{} }, "ct": func() expr.Any { return &expr.Ct{} },
		"fib": func() expr.Any { return &expr.Fib{} }, "immediate": func() expr.Any { return &expr.Immediate{} }, "lookup": func() expr.Any { return &expr.Lookup{} },
		"match": func() expr.Any { return &expr.Match{} }, "meta": func() expr.Any { return &expr.Meta{} }, "nat": func() expr.Any { return &expr.NAT{} }, "notrack": func() expr.Any { return &expr.Notrack{} },
		"payload": func() expr.Any { return &expr.Payload{} }, "range": func() expr.Any { return &expr.Range{} }, "redir": func() expr.Any { return &expr.Redir{} }, "reject": func() expr.Any { return &expr.Reject{} },
		"target": func() expr.Any { return &expr.Target{} },
	}
	kind, known := kinds[e.name]
	if !known {
		return e, nil
	}
	decoded := kind()
	if err := expr.Unmarshal(family, data, decoded); err != nil {
		return e, fmt.Errorf("expression %s: %w", e.name, err)
	}
	// A verdict is an immediate for the verdict register.
	if immediate, ok := decoded.(*expr.Immediate); ok && immediate.Register == unix.NFT_REG_VERDICT {
		decoded = &expr.Verdict{}
		if err := expr.Unmarshal(family, data, decoded); err != nil {
			return e, fmt.Errorf("verdict: %w", err)
		}
	}
	e.decoded = decoded
	return e, nil
}
