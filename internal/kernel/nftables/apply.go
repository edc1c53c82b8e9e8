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

// ObserveTables reads and interprets the tables of an address.
func (c *Conn) ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error) {
	c.observed = time.Now()
	tables, err := c.read(ctx, tableName(address))
	if err != nil {
		return clusterip.Tables{}, err
	}
	c.keys = nil
	for _, t := range tables {
		c.keys = append(c.keys, t.ours(setKeys)...)
	}
	return judge(tables), nil
}

// Layouts returns the layouts of all resources on the node whose stamp can be read.
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
		if judged := judge(tables); judged.Installed != nil {
			layouts = append(layouts, *judged.Installed)
		}
	}
	return layouts, nil
}

// ApplyTables carries out one step in one transaction, so that no packet meets half a rule set.
func (c *Conn) ApplyTables(ctx context.Context, step clusterip.Step) error {
	const tries = 3
	err := c.applyOnce(ctx, step)
	for range tries - 1 {
		if !errors.Is(err, unix.ENOENT) { // an element that was to be deleted may just have ended by itself
			break
		}
		err = c.applyOnce(ctx, step)
	}
	return err
}

func (c *Conn) applyOnce(ctx context.Context, step clusterip.Step) error {
	if err := c.begin(); err != nil {
		return err
	}
	var err error
	switch step := step.(type) {
	case clusterip.InstallTables:
		err = c.install(ctx, step)
	case clusterip.ChangeBuckets:
		err = c.changeBuckets(step)
	case clusterip.ExpectTakeover:
		err = c.expectTakeover(step)
	case clusterip.RemoveTables:
		err = c.remove(ctx, tableName(step.Address))
	default:
		return fmt.Errorf("%s: not a step for nf_tables", step)
	}
	if err == nil {
		err = c.commit(ctx)
	}
	if install, ok := step.(clusterip.InstallTables); ok && err != nil {
		_, why := c.features(ctx, install.Layout)
		err = errors.Join(err, why)
	}
	return explain(err)
}

func netdevTable(address netip.Addr) *nft.Table {
	return &nft.Table{Family: nft.TableFamilyNetdev, Name: tableName(address)}
}

func ownedSet(t *nft.Table) *nft.Set { return setOf(t, set{name: setOwned, keyLength: keyLength}) }

func setOf(t *nft.Table, s set) *nft.Set {
	made := &nft.Set{
		Table: t, Name: s.name, Counter: s.name == setOwned,
		// The messages of one batch refer to a new set by its ID. The library would choose another one in each call.
		ID:         uint32(slices.Index(setNames(), s.name) + 1),
		Interval:   s.flags&unix.NFT_SET_INTERVAL != 0,
		HasTimeout: s.flags&unix.NFT_SET_TIMEOUT != 0,
		Dynamic:    s.flags&unix.NFT_SET_EVAL != 0,
	}
	if made.Interval {
		made.KeyType = nft.TypeInetService
		return made
	}
	if s.dataLength > 0 {
		made.IsMap, made.KeyByteOrder = true, binaryutil.BigEndian
		made.KeyType, made.DataType = nft.TypeInteger, nft.TypeInteger
		made.KeyType.Bytes, made.DataType.Bytes = s.keyLength, s.dataLength
		return made
	}
	// The key is compared with the hash, an integer in host order.
	made.KeyType, made.KeyByteOrder = nft.TypeMark, binaryutil.NativeEndian
	if s.typeof() != nil {
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

// converted returns elements in the form of the library.
func (s set) converted(elements []element) []nft.SetElement {
	all := make([]nft.SetElement, 0, len(elements))
	for _, e := range elements {
		key := binary.NativeEndian.AppendUint32(nil, e.key)
		if s.keyLength == portLength {
			key = binary.BigEndian.AppendUint16(nil, uint16(e.key))
		}
		if e.long != nil {
			key = e.long
		}
		all = append(all, nft.SetElement{Key: key, Val: e.value, IntervalEnd: e.end, Comment: e.comment, Timeout: e.left})
	}
	return all
}

// install makes the tables what the layout wants, and changes only what differs. It replaces the rules of a chain in place: with a new
// chain beside the old one, packets could slip through while the kernel changes from one to the other.
func (c *Conn) install(ctx context.Context, step clusterip.InstallTables) error {
	have, err := c.read(ctx, tableName(step.Layout.Address()))
	if err != nil {
		return err
	}
	installed, stampErr := clusterip.Layout{}, error(nil)
	if len(have) > 0 {
		installed, stampErr = stampOf(have)
	}
	// The buckets of another layout have other packets.
	disagrees := len(have) > 0 && (stampErr != nil || len(installed.Disagreements(step.Layout)) > 0)
	wanted := tablesOf(step.Layout)
	elements := moveElements(step.Layout.Resource, step.Moves, c.age())
	for _, bucket := range step.Keep {
		elements[setOwned] = append(elements[setOwned],
			element{key: uint32(bucket), comment: commentOf(step.Layout.Resource, bucket), counted: true})
	}
	for i, s := range wanted[0].sets { // of the netdev table
		if s.name == setOwned || isMoveSet(s.name) {
			wanted[0].sets[i].elements = elements[s.name]
		}
		wanted[0].sets[i].emptied = disagrees
	}
	for _, h := range have {
		if h.isOurs() && !slices.ContainsFunc(wanted, func(w table) bool { return w.family == h.family }) {
			c.delete(h)
		}
	}
	for _, want := range wanted {
		if err := c.installTable(have, want); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) installTable(have []table, want table) error {
	i := slices.IndexFunc(have, func(h table) bool { return h.family == want.family })
	switch {
	case i < 0:
		return c.create(want)
	case !have[i].isOurs():
		return refuse(want)
	case have[i].cannotBecome(want):
		c.delete(want)
		return c.create(want)
	default:
		return c.repair(have[i], want)
	}
}

func (c *Conn) create(want table) error {
	t := c.nft.AddTable(&nft.Table{Family: want.family, Name: want.name})
	for _, s := range want.sets {
		if err := c.addSet(t, s); err != nil {
			return err
		}
	}
	for _, w := range want.chains { // all chains first, because rules go to chains
		c.addChain(t, w)
	}
	for _, w := range want.chains {
		c.addRules(t, w)
	}
	return nil
}

func (c *Conn) addSet(t *nft.Table, s set) error {
	c.types[s.name] = s.typeof()
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

// elementsPerMessage keeps a list of elements far below the 64 KiB of a netlink attribute. The library would silently cut off the rest. An
// element takes less than 200 bytes.
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

// repair makes a table what is wanted, at no moment without its rules: it adds what is missing, and removes what of ours is too much.
func (c *Conn) repair(have, want table) error {
	t := &nft.Table{Family: want.family, Name: want.name}
	for _, w := range want.sets {
		if err := c.repairSet(t, have, w); err != nil {
			return err
		}
	}
	var surplus []chain
	for _, h := range have.chains {
		if _, wanted := want.chain(h.name); !wanted {
			surplus = append(surplus, h)
		}
	}
	for _, w := range want.chains { // before rules go to them
		if _, there := have.chain(w.name); !there {
			c.addChain(t, w)
		}
	}
	for _, s := range surplus { // their rules go to chains, too
		c.flush(t, s)
	}
	for _, w := range want.chains {
		h, there := have.chain(w.name)
		if len(h.ruleDifferences(w)) == 0 {
			continue
		}
		if there {
			c.flush(t, w)
		}
		c.addRules(t, w)
	}
	for _, s := range surplus { // no rule goes there any more
		c.nft.DelChain(&nft.Chain{Table: t, Name: s.name})
	}
	for _, h := range have.sets {
		if _, wanted := want.set(h.name); !wanted {
			c.nft.DelSet(setOf(t, h))
		}
	}
	return nil
}

func (c *Conn) flush(t *nft.Table, of chain) { c.nft.FlushChain(&nft.Chain{Table: t, Name: of.name}) }

func (c *Conn) repairSet(t *nft.Table, in table, want set) error {
	have, there := in.set(want.name)
	switch {
	case !there:
		return c.addSet(t, want)
	case isTakeoverSet(want.name) && want.emptied:
		c.nft.FlushSet(setOf(t, want))
		return nil
	case isTakeoverSet(want.name):
		return nil
	}
	ofAll := func(e element) bool { return e.all } // it has no key by which it could be deleted
	if isMoveSet(want.name) || slices.ContainsFunc(have.elements, ofAll) {
		return c.refill(t, want)
	}
	without := func(elements, others []element) []element {
		return slices.DeleteFunc(slices.Clone(elements), func(e element) bool { return slices.ContainsFunc(others, e.equal) })
	}
	remove, add := without(have.elements, want.elements), without(want.elements, have.elements)
	if want.flags&unix.NFT_SET_INTERVAL != 0 && len(remove)+len(add) > 0 { // the kernel finds an interval only by both its ends
		return c.refill(t, want)
	}
	if len(remove) > 0 {
		if err := c.nft.SetDeleteElements(setOf(t, want), want.converted(remove)); err != nil {
			return err
		}
	}
	return c.addElements(setOf(t, want), want.converted(add))
}

// remove deletes our tables of that name. It leaves another's alone.
func (c *Conn) remove(ctx context.Context, name string) error {
	have, err := c.read(ctx, name)
	for _, t := range have {
		if t.isOurs() {
			c.delete(t)
		}
	}
	return err
}

func (c *Conn) delete(t table) { c.nft.DelTable(&nft.Table{Family: t.family, Name: t.name}) }

// refuse is the error about a conflicting table.
func refuse(t table) error {
	return ocf.Errorf(ocf.ErrGeneric, "the agent did not install table %s: examine it (nft list table %s) and delete it", t, t)
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
		return clusterip.Unknown, err
	}
}

// features asks the kernel whether it accepts everything that would be installed, and if not, what it lacks.
func (c *Conn) features(ctx context.Context, layout clusterip.Layout) (clusterip.Answer, error) {
	tables := tablesOf(layout)
	owned := &tables[0].sets[0]
	owned.elements = []element{{comment: commentOf(layout.Resource, 0)}}
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

// A part of the tables depends on an option of the kernel.
type part struct {
	option string
	family nft.TableFamily
	chain  chain
}

func partsOf(layout clusterip.Layout) []part {
	parts := []part{
		{"CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_INGRESS", nft.TableFamilyNetdev, chain{base: ingressBase(layout.NIC)}},
		{"CONFIG_NFT_HASH", nft.TableFamilyNetdev, chain{rules: []rule{newRule("", ipv4.hash(layout, layout.Seed, nil))}}},
		{"CONFIG_NFT_COUNTER", nft.TableFamilyNetdev, chain{rules: []rule{foreignRule()}}}, // up to Linux 5.16
	}
	if layout.Has(ipv4.is) {
		parts = append(parts, part{"CONFIG_NF_TABLES_ARP", nft.TableFamilyARP, chain{base: arpBase()}})
	}
	options := map[nft.TableFamily]string{ipv4.table: "CONFIG_NF_TABLES_IPV4", ipv6.table: "CONFIG_NF_TABLES_IPV6"}
	for _, f := range familiesOf(layout) {
		parts = append(parts, part{options[f.table], f.table, chain{base: overheardChain(f, layout).base}})
	}
	if !layout.Lingers.IsZero() {
		send := chain{rules: []rule{newRule("", sendTo(layout.NICIndex))}}
		parts = append(parts, part{"CONFIG_NFT_DUP_NETDEV", nft.TableFamilyNetdev, send})
		f := familiesOf(layout)[0]
		parts = append(parts, part{"CONFIG_NFT_SOCKET", f.table, chain{rules: lingeringChain(f, nil).rules[1:2]}})
	}
	if layout.Drains {
		conntrack := chain{rules: []rule{newRule("", state(0))}}
		parts = append(parts, part{"CONFIG_NFT_CT and CONFIG_NF_CONNTRACK", familiesOf(layout)[0].table, conntrack})
	}
	return parts
}

// ask reports whether the kernel accepts tables, under another name. The last message of the batch cannot succeed, so the batch never takes
// effect.
func (c *Conn) ask(ctx context.Context, tables ...table) (clusterip.Answer, error) {
	const scratch = tablePrefix + "scratch"
	if err := c.begin(); err != nil {
		return clusterip.Unknown, err
	}
	for _, t := range tables {
		t.name = scratch
		if err := c.create(t); err != nil {
			return clusterip.Unknown, err
		}
	}
	c.nft.CreateTable(&nft.Table{Family: tables[0].family, Name: scratch}) // EEXIST: it is in the batch already
	err := c.commit(ctx)
	is := func(known error) bool { return errors.Is(err, known) }
	switch {
	case slices.ContainsFunc([]error{unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT}, is):
		return clusterip.No, err
	case is(unix.EEXIST): // only the last message can fail with it: all others were accepted
		return clusterip.Yes, nil
	default:
		return clusterip.Unknown, fmt.Errorf("ask the kernel what it supports: %w", err)
	}
}
