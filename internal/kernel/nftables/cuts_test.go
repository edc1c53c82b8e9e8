package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// The kernel looks up the sets of one packet one after the other, and a transaction, a rule or a timeout may change them between any two of
// these lookups: that cuts the packet. These tests bring a bucket into every state that the agent can bring its sets into, and cut each
// kind of packet at each of its lookups, in each change of each state.

// What happens to a packet that was cut is what happens to it before or after the change. The exceptions are listed here, and are harmless.
func TestWhatHappensToAPacketHappensBeforeOrAfterAChange(t *testing.T) {
	lost := map[cut]string{
		{"own", "own segment", "accepted", "dropped", "accepted"}:   "the bucket is found neither owned nor draining; TCP sends it again",
		{"adopt", "own segment", "accepted", "dropped", "accepted"}: "likewise",
	}
	countedTwice := map[string]bool{ // it was not adopted, then is owned, and is adopted when that is looked up again (servingRules)
		"adopt": true, "adopt what was taken over": true,
	}
	all := map[cut]change{}
	for _, layout := range movingLayouts() {
		maps.Copy(all, cutsIn(t, layout))
	}
	for c, in := range all {
		once := c
		once.result = strings.TrimSuffix(c.result, twice)
		if _, harmless := lost[once]; once.result != c.before && once.result != c.after && !harmless {
			t.Errorf("%s: the sets were %q and are %q", c, in.before, in.after)
		}
		if once != c && !countedTwice[c.change] {
			t.Errorf("%s: the sets were %q and are %q", c, in.before, in.after)
		}
	}
	for c := range lost {
		if _, found := all[c]; !found {
			t.Errorf("no longer found: %s", c)
		}
	}
}

// With the rules of schema 2 a packet was accepted that is another node's, or was lost.
func TestCutsAreFound(t *testing.T) {
	for _, c := range []cut{
		{"adopt", "segment", "dropped", "accepted", "dropped"},
		{"adopt what was taken over", "segment", "dropped", "accepted", "dropped"},
		{"linger", "UDP", "accepted", "dropped", "accepted"},
		{"linger", "ping", "accepted", "dropped", "accepted"},
	} {
		layout := movingLayouts()["lingering"]
		layout.Schema = schemaSettled - 1
		if _, found := cutsIn(t, layout)[c]; !found {
			t.Errorf("not found: %s", c)
		}
	}
}

// movingLayouts have buckets that move. All packets have the same bucket.
func movingLayouts() map[string]clusterip.Layout {
	layouts := map[string]clusterip.Layout{
		"draining":                             draining(layoutFor(clusterip.Multicast, clusterip.SourceIP)),
		"lingering":                            lingering(layoutFor(clusterip.Multicast, clusterip.SourceIP)),
		"lingering with ports":                 lingering(layoutFor(clusterip.Unicast, clusterip.SourceIPSourcePort)),
		"lingering on a bridge, with services": lingering(bridged(dualStack(clusterip.Multicast, clusterip.SourceIPSourcePortDestPort))),
	}
	for name, layout := range layouts {
		layout.Buckets = 1
		layouts[name] = layout
	}
	return layouts
}

// A cut is a packet that saw some sets before a change and the others after it, and what happened to it, which is neither what happens
// before the change nor after it.
type cut struct{ change, packet, before, result, after string }

func (c cut) String() string {
	return fmt.Sprintf("%s: %s is %s; before it would be %s, and after it %s", c.change, c.packet, c.result, c.before, c.after)
}

// twice ends the result of a packet that the set of owned buckets has counted more than once.
const twice = ", counted twice"

// cutsIn returns all cuts, each with one change in which it is found.
func cutsIn(t *testing.T, layout clusterip.Layout) map[cut]change {
	t.Helper()
	all, tables := map[cut]change{}, tablesOf(layout)
	for _, c := range changesOf(t, layout) {
		for _, p := range packetsFor(layout) {
			passes := func(before, after contents, at int) (result string, lookups int) {
				r := run{packet: p, layout: layout, tables: tables, before: before, after: after, cutAt: at}
				return r.result(), r.lookups
			}
			before, lookups := passes(c.before, c.before, 0)
			after, _ := passes(c.after, c.after, 0)
			for at := 1; at < lookups; at++ {
				if result, _ := passes(c.before, c.after, at); result != before && result != after {
					all[cut{c.name, p.name, before, result, after}] = c
				}
			}
		}
	}
	return all
}

// contents are the sets that have the bucket. (That of under_way is the key 0, too.)
type contents map[string]bool

func (c contents) String() string { return strings.Join(slices.Sorted(maps.Keys(c)), " ") }

func (c contents) with(name string) contents {
	changed := maps.Clone(c)
	changed[name] = true
	return changed
}

func (c contents) without(name string) contents {
	changed := maps.Clone(c)
	delete(changed, name)
	return changed
}

// moves are what the agent observes.
func (c contents) moves() clusterip.Moves {
	var moves clusterip.Moves
	if c[setDraining] {
		moves = moves.WithDrain(0, time.Minute)
	}
	if c[setAdopting] {
		moves.Adopting = []clusterip.Adoption{{Left: time.Minute, From: []string{"node2"}}}
	}
	return moves
}

// apply has the agent carry out a step, and returns what the sets have after its transaction.
func (c contents) apply(t *testing.T, step clusterip.Step) contents {
	t.Helper()
	changed := maps.Clone(c)
	conn := fakeConn(t, func(batch []netlink.Message) {
		for _, m := range batch {
			switch name := changedSet(t, m); {
			case name == "" || name == setKeys || name == setHandedOver: // no packet is looked up in these
			case m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM:
				changed[name] = true
			default: // of the only element, or of all
				delete(changed, name)
			}
		}
	}, nil)
	if err := conn.ApplyTables(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	return changed
}

// changedSet returns the set whose elements a message changes, if it is such a message.
func changedSet(t *testing.T, m netlink.Message) string {
	t.Helper()
	const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
	if m.Header.Type != subsystem|unix.NFT_MSG_NEWSETELEM && m.Header.Type != subsystem|unix.NFT_MSG_DELSETELEM {
		return ""
	}
	attributes, err := netlink.UnmarshalAttributes(m.Data[nfgenmsgLength:])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(attributes, func(a netlink.Attribute) bool { return a.Type == unix.NFTA_SET_ELEM_LIST_SET })
	return string(bytes.TrimRight(attributes[i].Data, "\x00"))
}

// A change is one of the sets of a bucket.
type change struct {
	name          string
	before, after contents
}

// changesOf returns all changes of all states that the agent can bring a bucket's sets into.
func changesOf(t *testing.T, layout clusterip.Layout) []change {
	t.Helper()
	var all []change
	seen, next := map[string]bool{"": true}, []contents{{}}
	for len(next) > 0 {
		before := next[0]
		next = next[1:]
		for name, after := range before.successors(t, layout) {
			if after.String() == before.String() {
				continue
			}
			all = append(all, change{name, before, after})
			if !seen[after.String()] {
				seen[after.String()] = true
				next = append(next, after)
			}
		}
	}
	return all
}

// successors are the states that can follow, by what changes them.
func (c contents) successors(t *testing.T, layout clusterip.Layout) map[string]contents {
	t.Helper()
	all, bucket, lingers := map[string]contents{}, []clusterip.Bucket{0}, !layout.Lingers.IsZero()
	change := func(name string, moves clusterip.Moves, set func(*clusterip.ChangeBuckets)) {
		step := clusterip.ChangeBuckets{Address: layout.Address(), Resource: layout.Resource, Takeovers: lingers, Moves: &moves}
		set(&step)
		all[name] = c.apply(t, step)
	}
	none, moves := func(*clusterip.ChangeBuckets) {}, c.moves()
	settled, adopted := moves.Without(0), moves.WithAdoption(clusterip.Adoption{Left: time.Minute, From: []string{"node2"}})
	if c[setOwned] {
		release := func(s *clusterip.ChangeBuckets) { s.Release = bucket }
		change("release", settled, release)
		change("release what is too much", settled, func(s *clusterip.ChangeBuckets) { s.Release, s.Moves = bucket, nil })
		change("drain", moves.WithDrain(0, time.Minute), release)
		if lingers {
			change("linger", moves.WithDrain(0, time.Minute), func(s *clusterip.ChangeBuckets) {
				s.Release, s.Linger = bucket, &clusterip.Linger{Left: time.Second}
			})
		}
		if c[setAdopting] {
			change("end the adoption", settled, none)
		}
	} else {
		own := func(s *clusterip.ChangeBuckets) { s.Own = bucket }
		change("own", settled, own)
		change("adopt", adopted, own)
		if c[setExpecting] {
			change("adopt what was taken over", adopted, func(s *clusterip.ChangeBuckets) { s.Own, s.TakenOver = bucket, true })
			all["expect no longer"] = c.apply(t, clusterip.ExpectTakeover{Layout: layout})
		}
		if lingers && !c[setLingering] {
			all["expect"] = c.apply(t, clusterip.ExpectTakeover{Layout: layout, Lasts: time.Second})
		}
		if c[setDraining] {
			change("end the drain", settled, none)
		}
	}
	// What a request does, rule by rule (takeoverFrames).
	if c[setLingering] {
		all["begin to pass on"] = c.with(setPassing)
		if c[setPassing] {
			all["linger no more"] = c.without(setLingering)
		}
	}
	if c[setPassing] {
		all["pass on no more"] = c.without(setPassing)
	}
	takesOver := c[setExpecting]
	if takesOver { // they were added together, for the same time; of an owned bucket it may have changed (TakenOverTime)
		all["time of "+setExpecting+" ends"] = c.without(setExpecting)
		if !c[setOwned] {
			all["time of "+setExpecting+" ends"] = c.without(setExpecting).without(setTakingOver)
		}
	}
	for _, name := range []string{setDraining, setAdopting, setLingering, setPassing, setTakingOver} {
		if c[name] && (name != setTakingOver || c[setOwned] || !c[setExpecting]) {
			all["time of "+name+" ends"] = c.without(name)
			takesOver = takesOver || isTakeoverSet(name)
		}
	}
	if c[setUnderWay] && !takesOver { // it lasts longer than all others (underWayTime)
		all["time of "+setUnderWay+" ends"] = c.without(setUnderWay)
	}
	return all
}

// A packet is one to the address, of which rules decide.
type packet struct {
	name     string
	protocol byte
	kind     byte // PACKET_…
	link     []byte
	network  []byte // without the header behind it
	behind   []byte
	known    bool // conntrack knows its connection
	seen     bool // it has come the other way before, and was remembered
}

// packetsFor are the packets that rules distinguish: from clients, and as an old owner passes them on.
func packetsFor(layout clusterip.Layout) []packet {
	const syn, ack, length = 0x02, 0x10, 40
	f, client := ipv4, []byte{192, 168, 10, 77}
	made := func(name string, protocol byte, port uint16, flags byte) packet {
		mac := of(f, layout.MACs)
		p := packet{name: name, protocol: protocol, kind: unix.PACKET_OTHERHOST, network: make([]byte, 20), behind: make([]byte, length)}
		p.link = slices.Concat(mac[:], []byte{2, 0, 0, 0, 9, 8}, bigEndian(unix.ETH_P_IP))
		copy(p.network[12:], client)
		copy(p.network[16:], layout.Address().AsSlice())
		copy(p.behind[2:], bigEndian(port))
		if p.behind[13] = flags; protocol == unix.IPPROTO_ICMP {
			p.behind[0] = 8 // an echo request
		}
		return p
	}
	first := []packet{
		made("SYN", unix.IPPROTO_TCP, 80, syn), made("UDP", unix.IPPROTO_UDP, 53, 0), made("ping", unix.IPPROTO_ICMP, 0, 0),
	}
	segment := made("segment", unix.IPPROTO_TCP, 80, ack)
	own := segment
	own.name, own.known = "own segment", true
	all := append(slices.Clone(first), segment, own)
	if layout.Lingers.IsZero() {
		return all
	}
	for _, p := range first {
		copied := p
		copied.name, copied.kind = "copy of "+p.name, unix.PACKET_BROADCAST
		copied.link = slices.Concat(bytes.Repeat([]byte{0xff}, macLength), layout.Lingers[:], bigEndian(unix.ETH_P_IP))
		p.seen, copied.seen = true, true
		p.name += ", after its copy"
		all = append(all, p, copied)
		copied.name, copied.seen = "early "+copied.name, false
		all = append(all, copied)
	}
	return all
}

// A run is one of a packet through the rules.
type run struct {
	packet
	layout        clusterip.Layout
	tables        []table
	chains        []chain // of the table whose hook it passes
	before, after contents
	cutAt         int // after so many lookups the sets are those after the change
	lookups       int
	counted       int // in the set of owned buckets
	remembered    bool
	passedOn      bool
	registers     [20 * 4]byte
}

// result is what happens to the packet. That of a packet with a mark is what moveChains decide, behind conntrack.
func (r *run) result() string {
	r.link = slices.Clone(r.link) // rules write to it
	r.chains = r.tables[0].chains
	accepted := r.through(chainIngress)
	if accepted {
		i := slices.IndexFunc(r.tables, func(t table) bool { return t.family == ipv4.table })
		r.chains = r.tables[i].chains
		// The kernel's TCP accepts only what is the node's own (tcp_v4_rcv), other protocols accept broadcasts too.
		accepted = r.through(chainMoves) && (r.kind == unix.PACKET_HOST || r.protocol != unix.IPPROTO_TCP)
	}
	result := "dropped"
	switch {
	case r.remembered:
		result = "remembered"
	case r.passedOn:
		result = "passed on"
	case accepted:
		result = "accepted"
	}
	if r.counted > 1 {
		result += twice
	}
	return result
}

// through reports whether the packet passes a base chain.
func (r *run) through(name string) bool {
	kind, _ := r.decide(name)
	return kind != expr.VerdictDrop
}

// decide runs a chain, and returns its verdict, if it has one.
func (r *run) decide(name string) (kind expr.VerdictKind, decided bool) {
	c, _ := table{chains: r.chains}.chain(name)
	for _, rule := range c.rules {
		v := r.verdictOf(rule)
		switch {
		case v == nil:
		case v.Kind == expr.VerdictGoto:
			return r.decide(v.Chain)
		case v.Kind == expr.VerdictJump:
			if kind, decided = r.decide(v.Chain); decided {
				return kind, true
			}
		default:
			return v.Kind, true
		}
	}
	return expr.VerdictAccept, false
}

// verdictOf returns the verdict of a rule, if it matches and has one.
func (r *run) verdictOf(rule rule) *expr.Verdict {
	for _, e := range rule.exprs {
		if v, ok := e.(*expr.Verdict); ok {
			return v
		}
		if !r.matches(e) {
			return nil
		}
	}
	return nil
}

// register is a register from its beginning, as the kernel numbers them (nft_parse_register in net/netfilter/nf_tables_api.c).
func (r *run) register(number uint32) []byte {
	const word, words = 4, 4
	if number >= unix.NFT_REG32_00 {
		return r.registers[(number-unix.NFT_REG32_00+words)*word:]
	}
	return r.registers[number*words*word:]
}

// matches evaluates an expression, and reports whether the rule goes on.
func (r *run) matches(e expr.Any) bool {
	switch e := e.(type) {
	case *expr.Meta:
		r.meta(e)
	case *expr.Payload:
		return r.payload(e)
	case *expr.Cmp:
		order := bytes.Compare(r.register(e.Register)[:len(e.Data)], e.Data)
		return e.Op == expr.CmpOpEq && order == 0 || e.Op == expr.CmpOpNeq && order != 0 || e.Op == expr.CmpOpGte && order >= 0
	case *expr.Bitwise:
		for i := range e.Mask {
			r.register(e.DestRegister)[i] = r.register(e.SourceRegister)[i]&e.Mask[i] ^ e.Xor[i]
		}
	case *expr.Immediate:
		copy(r.register(e.Register), e.Data)
	case *expr.Hash:
		copy(r.register(e.DestRegister), hostOrder(0)) // the only bucket; what is remembered is in packet.seen
	case *expr.Lookup:
		return r.lookup(e.SetName) != e.Invert
	case *expr.Dynset:
		r.remembered = r.remembered || e.Operation == unix.NFT_DYNSET_OP_UPDATE
	case *expr.Dup:
		r.passedOn = true
	case *expr.Ct:
		state := expr.CtStateBitNEW
		if r.known {
			state = expr.CtStateBitESTABLISHED
		}
		copy(r.register(e.Register), hostOrder(state))
	case *expr.Counter, *expr.Socket, *expr.Byteorder: // there always is a socket
	default:
		panic(e)
	}
	return true
}

func (r *run) meta(e *expr.Meta) {
	if e.SourceRegister {
		r.kind = r.register(e.Register)[0]
		return
	}
	var value []byte
	switch e.Key { //nolint:exhaustive // what rules ask for
	case expr.MetaKeyPROTOCOL:
		value = bigEndian(unix.ETH_P_IP)
	case expr.MetaKeyL4PROTO:
		value = []byte{r.protocol}
	case expr.MetaKeyPKTTYPE:
		value = []byte{r.kind}
	case expr.MetaKeyIIFTYPE:
		value = binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)
	case expr.MetaKeyIIF:
		value = hostOrder(uint32(r.layout.NICIndex))
	case expr.MetaKeyMARK:
		value = hostOrder(0)
	default:
		panic(e)
	}
	copy(r.register(e.Register), append(value, make([]byte, 4)...))
}

func (r *run) payload(e *expr.Payload) bool {
	header := map[expr.PayloadBase][]byte{link: r.link, network: r.network, transport: r.behind}[e.Base]
	end := int(e.Offset + e.Len)
	switch {
	case end > len(header):
		return false
	case e.OperationType == expr.PayloadWrite:
		copy(header[e.Offset:end], r.register(e.SourceRegister))
	default:
		copy(r.register(e.DestRegister), header[e.Offset:end])
	}
	return true
}

// lookup reports whether a set has the packet's element, at this moment.
func (r *run) lookup(name string) bool {
	switch {
	case slices.Contains(packetSets(), name):
		return r.seen
	case strings.HasSuffix(name, setServices):
		return true
	}
	sets := r.before
	if r.lookups >= r.cutAt {
		sets = r.after
	}
	r.lookups++
	if name == setOwned && sets[name] {
		r.counted++
	}
	return sets[name]
}
