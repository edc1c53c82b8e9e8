package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// ObserveTables reads the tables of an address and says what they are.
func (c *Conn) ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error) {
	c.observed = time.Now()
	tables, err := c.read(ctx, tableName(address))
	if err != nil {
		return clusterip.Tables{}, err
	}
	return judge(tables), nil
}

// Layouts returns those of all resources on the node whose stamp can be read.
func (c *Conn) Layouts(ctx context.Context) ([]clusterip.Layout, error) {
	names, err := c.tableNames(ctx, nft.TableFamilyNetdev)
	if err != nil {
		return nil, err
	}
	var layouts []clusterip.Layout
	for _, name := range names {
		if !strings.HasPrefix(name, tablePrefix) {
			continue
		}
		tables, err := c.read(ctx, name)
		if err != nil {
			return layouts, err
		}
		if judged := judge(tables); judged.Laid != nil {
			layouts = append(layouts, *judged.Laid)
		}
	}
	return layouts, nil
}

// ApplyTables does one step, as one batch: the kernel takes all of it or nothing, and no packet meets half a rule set.
func (c *Conn) ApplyTables(ctx context.Context, step clusterip.Step) error {
	if err := c.begin(); err != nil {
		return err
	}
	var err error
	switch step := step.(type) {
	case clusterip.LayTables:
		err = c.lay(ctx, step)
	case clusterip.Own:
		err = c.addElements(ownedSet(tableOf(nft.TableFamilyNetdev, step.Address)), elementsOf(step.Resource, step.Buckets))
	case clusterip.Disown:
		err = c.nft.SetDeleteElements(ownedSet(tableOf(nft.TableFamilyNetdev, step.Address)), elementsOf("", step.Buckets))
	case clusterip.Move:
		err = c.move(step)
	case clusterip.RemoveTables:
		err = c.remove(ctx, step.Address)
	default:
		return fmt.Errorf("%s: not a step for nf_tables", step)
	}
	if err == nil {
		err = c.commit(ctx)
	}
	if lay, ok := step.(clusterip.LayTables); ok && err != nil {
		_, why := c.features(ctx, lay.Layout)
		err = errors.Join(err, why)
	}
	return explain(err)
}

func tableOf(family nft.TableFamily, address netip.Addr) *nft.Table {
	return &nft.Table{Family: family, Name: tableName(address)}
}

func ownedSet(t *nft.Table) *nft.Set { return setOf(t, set{name: setOwned, keyLength: keyLength}) }

func setOf(t *nft.Table, s set) *nft.Set {
	made := &nft.Set{
		Table: t, Name: s.name, Counter: s.name == setOwned,
		// By which the batch that makes the set refers to it. The library's own choice would differ from call to call.
		ID:         uint32(slices.Index(setNames(), s.name) + 1),
		Interval:   s.flags&unix.NFT_SET_INTERVAL != 0,
		HasTimeout: s.flags&unix.NFT_SET_TIMEOUT != 0,
	}
	if made.Interval {
		made.KeyType = nft.TypeInetService
		return made
	}
	// The kernel compares the hash, an integer in host order.
	made.KeyType, made.KeyByteOrder = nft.TypeMark, binaryutil.NativeEndian
	if s.buckets > 0 {
		made.KeyType = nft.TypeInteger
	}
	return made
}

func elementsOf(resource string, buckets []clusterip.Bucket) []nft.SetElement {
	var elements []element
	for _, bucket := range buckets {
		elements = append(elements, element{key: uint32(bucket), comment: commentOf(resource, bucket)})
	}
	return set{keyLength: keyLength}.converted(elements)
}

// converted returns elements as the library takes them.
func (s set) converted(elements []element) []nft.SetElement {
	all := make([]nft.SetElement, 0, len(elements))
	for _, e := range elements {
		key := binary.NativeEndian.AppendUint32(nil, e.key)
		if s.keyLength == portLength {
			key = binary.BigEndian.AppendUint16(nil, uint16(e.key))
		}
		all = append(all, nft.SetElement{Key: key, IntervalEnd: e.end, Comment: e.comment, Timeout: e.left})
	}
	return all
}

// lay makes the tables what the layout wants, touching only what differs. The rules of a chain are replaced in place: a
// new chain beside the old one would, for the moment in which the kernel turns from one to the other, let packets by.
func (c *Conn) lay(ctx context.Context, step clusterip.LayTables) error {
	have, err := c.read(ctx, tableName(step.Layout.Address()))
	if err != nil {
		return err
	}
	wanted := rulesetOf(step.Layout)
	moves := moveElements(step.Layout.Resource, step.Moves, c.age())
	for _, h := range have {
		if h.isOurs() && !slices.ContainsFunc(wanted, func(w table) bool { return w.family == h.family }) {
			c.nft.DelTable(&nft.Table{Family: h.family, Name: h.name})
		}
	}
	for _, want := range wanted {
		for i, s := range want.sets {
			if s.name == setOwned {
				for _, bucket := range step.Keep {
					want.sets[i].elements = append(want.sets[i].elements,
						element{key: uint32(bucket), comment: commentOf(step.Layout.Resource, bucket), counted: true})
				}
			}
			if isMoveSet(s.name) {
				want.sets[i].elements = moves[s.name]
			}
		}
		i := slices.IndexFunc(have, func(h table) bool { return h.family == want.family })
		switch {
		case i < 0:
			err = c.create(want)
		case !have[i].isOurs():
			err = refuse(want)
		case have[i].cannotBecome(want):
			c.nft.DelTable(&nft.Table{Family: want.family, Name: want.name})
			err = c.create(want)
		default:
			err = c.mend(have[i], want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) create(want table) error {
	t := c.nft.AddTable(&nft.Table{Family: want.family, Name: want.name})
	for _, s := range want.sets {
		if err := c.addSet(t, s); err != nil {
			return err
		}
	}
	for _, w := range want.chains { // all of them first: rules go to chains
		c.addChain(t, w)
	}
	for _, w := range want.chains {
		c.addRules(t, w)
	}
	return nil
}

func (c *Conn) addSet(t *nft.Table, s set) error {
	if s.buckets > 0 {
		c.buckets[s.name] = s.buckets
	}
	first := min(len(s.elements), elementsPerMessage)
	if err := c.nft.AddSet(setOf(t, s), s.converted(s.elements[:first])); err != nil {
		return err
	}
	return c.addElements(setOf(t, s), s.converted(s.elements[first:]))
}

func (c *Conn) addChain(t *nft.Table, w chain) {
	added := &nft.Chain{Table: t, Name: w.name}
	if w.base != nil {
		added.Type, added.Hooknum, added.Priority = w.base.kind, &w.base.hook, &w.base.priority
		added.Policy, added.Device = &w.base.policy, w.base.device
	}
	c.nft.AddChain(added)
}

// elementsPerMessage keeps a list of elements far below the 64 KiB that a netlink attribute can hold: what is beyond, the
// library cuts off without a word. An element takes less than 200 bytes.
const elementsPerMessage = 256

func (c *Conn) addElements(s *nft.Set, elements []nft.SetElement) error {
	for chunk := range slices.Chunk(elements, elementsPerMessage) {
		if err := c.nft.SetAddElements(s, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) addRules(t *nft.Table, w chain) {
	for _, r := range w.rules {
		data := userdata.AppendString(nil, userdata.TypeComment, r.comment)
		if r.marked {
			data = userdata.Append(data, userdataMark, nil)
		}
		c.nft.AddRule(&nft.Rule{Table: t, Chain: &nft.Chain{Table: t, Name: w.name}, Exprs: r.exprs, UserData: data})
	}
}

// mend makes a table what is wanted without a moment in which it is not there: with what is missing added, and what is too much of
// our own removed.
func (c *Conn) mend(have, want table) error {
	t := &nft.Table{Family: want.family, Name: want.name}
	for _, w := range want.sets {
		if h, there := have.set(w.name); !there {
			if err := c.addSet(t, w); err != nil {
				return err
			}
		} else if err := c.mendSet(t, h, w); err != nil {
			return err
		}
	}
	for _, w := range want.chains {
		if _, there := have.chain(w.name); !there {
			c.addChain(t, w)
		}
	}
	for _, h := range have.chains {
		if _, wanted := want.chain(h.name); !wanted {
			c.nft.FlushChain(&nft.Chain{Table: t, Name: h.name})
		}
	}
	for _, w := range want.chains {
		h, there := have.chain(w.name)
		if len(h.ruleDifferences(w)) > 0 {
			if there {
				c.nft.FlushChain(&nft.Chain{Table: t, Name: w.name})
			}
			c.addRules(t, w)
		}
	}
	for _, h := range have.chains { // nothing goes there any more
		if _, wanted := want.chain(h.name); !wanted {
			c.nft.DelChain(&nft.Chain{Table: t, Name: h.name})
		}
	}
	for _, h := range have.sets {
		if _, wanted := want.set(h.name); !wanted {
			c.nft.DelSet(setOf(t, h))
		}
	}
	return nil
}

func (c *Conn) mendSet(t *nft.Table, have, want set) error {
	ofAll := func(e element) bool { return e.all } // it has no key to be deleted by
	if isMoveSet(want.name) || slices.ContainsFunc(have.elements, ofAll) {
		return c.refill(t, want)
	}
	isIn := func(other set) func(element) bool {
		return func(e element) bool { return slices.Contains(other.elements, e) }
	}
	remove := slices.DeleteFunc(slices.Clone(have.elements), isIn(want))
	add := slices.DeleteFunc(slices.Clone(want.elements), isIn(have))
	if len(remove) > 0 {
		if err := c.nft.SetDeleteElements(setOf(t, want), want.converted(remove)); err != nil {
			return err
		}
	}
	return c.addElements(setOf(t, want), want.converted(add))
}

// remove deletes our tables of an address, and leaves a foreign table of the same name alone.
func (c *Conn) remove(ctx context.Context, address netip.Addr) error {
	have, err := c.read(ctx, tableName(address))
	if err != nil {
		return err
	}
	c.deleteOurs(have)
	return nil
}

func (c *Conn) deleteOurs(tables []table) {
	for _, t := range tables {
		if t.isOurs() {
			c.nft.DelTable(&nft.Table{Family: t.family, Name: t.name})
		}
	}
}

// refuse is the error about a table of our name that is somebody else's.
func refuse(t table) error {
	return ocf.Errorf(ocf.ErrGeneric, "table %s exists and is not ours; look at it (nft list table %s) and delete it", t, t)
}

// Supports implements clusterip.TableKernel.
func (c *Conn) Supports(ctx context.Context, layout clusterip.Layout) (clusterip.Answer, error) {
	_, err := c.generation(ctx)
	switch {
	case err == nil:
		return c.features(ctx, layout)
	case ocf.CodeOf(err) == ocf.ErrInstalled:
		return clusterip.No, err
	default:
		return clusterip.CannotTell, err
	}
}

// features asks the kernel whether it takes all that would be laid, and if not, what it lacks.
func (c *Conn) features(ctx context.Context, layout clusterip.Layout) (clusterip.Answer, error) {
	tables := rulesetOf(layout)
	for i := range tables {
		for j, s := range tables[i].sets {
			if s.name == setOwned {
				tables[i].sets[j].elements = []element{{comment: commentOf(layout.Resource, 0)}}
			}
		}
	}
	answer, refused := c.ask(ctx, tables...)
	if answer != clusterip.No {
		return answer, refused
	}
	var missing []string
	for _, part := range partsOf(layout) {
		part.chain.name = "scratch"
		if answer, _ := c.ask(ctx, table{family: part.family, chains: []chain{part.chain}}); answer == clusterip.No {
			missing = append(missing, part.option)
		}
	}
	if len(missing) == 0 {
		missing = []string{fmt.Sprintf("something (%s)", refused)}
	}
	return clusterip.No, ocf.Errorf(ocf.ErrInstalled, "this kernel lacks %s", strings.Join(missing, ", "))
}

// A part of what is laid depends on an option of the kernel.
type part struct {
	option string
	family nft.TableFamily
	chain  chain
}

func partsOf(layout clusterip.Layout) []part {
	parts := []part{
		{"CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_INGRESS", nft.TableFamilyNetdev, chain{base: ingressBase(layout.NIC)}},
		{"CONFIG_NFT_HASH", nft.TableFamilyNetdev, chain{rules: []rule{{exprs: ipv4.hash(layout, layout.Seed, nil)}}}},
		{"CONFIG_NFT_COUNTER", nft.TableFamilyNetdev, chain{rules: []rule{foreignRule()}}}, // up to Linux 5.16
	}
	if layout.Has(ipv4.is) {
		parts = append(parts,
			part{"CONFIG_NF_TABLES_ARP", nft.TableFamilyARP, chain{base: outputBase()}},
			part{"CONFIG_NF_TABLES_IPV4", nft.TableFamilyIPv4, chain{base: otherNICsChain(ipv4, layout).base}})
	}
	if layout.Has(ipv6.is) {
		parts = append(parts, part{"CONFIG_NF_TABLES_IPV6", nft.TableFamilyIPv6, chain{base: otherNICsChain(ipv6, layout).base}})
	}
	if layout.Drains {
		in := nft.TableFamilyIPv6
		if layout.Has(ipv4.is) {
			in = nft.TableFamilyIPv4
		}
		parts = append(parts, part{"CONFIG_NFT_CT and CONFIG_NF_CONNTRACK", in, chain{rules: []rule{{exprs: state(0)}}}})
	}
	return parts
}

// ask tells whether the kernel takes tables, whatever they are called. The last message of the batch cannot succeed, so that it never takes
// effect.
func (c *Conn) ask(ctx context.Context, tables ...table) (clusterip.Answer, error) {
	const scratch = tablePrefix + "scratch"
	if err := c.begin(); err != nil {
		return clusterip.CannotTell, err
	}
	for _, t := range tables {
		t.name = scratch
		if err := c.create(t); err != nil {
			return clusterip.CannotTell, err
		}
	}
	c.nft.CreateTable(&nft.Table{Family: tables[0].family, Name: scratch}) // EEXIST: it was made a moment ago
	err := c.commit(ctx)
	is := func(known error) bool { return errors.Is(err, known) }
	switch {
	case slices.ContainsFunc([]error{unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT}, is):
		return clusterip.No, err
	case is(unix.EEXIST): // which the last message alone can give: all others were accepted
		return clusterip.Yes, nil
	default:
		return clusterip.CannotTell, fmt.Errorf("ask what the kernel can do: %w", err)
	}
}
