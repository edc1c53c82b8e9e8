package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// The rules and sets of takeovers (ARCHITECTURE.md, "Moves without a gap"). Their sets are never filled anew: the kernel itself ends a
// lingering, and what it has ended must not come back.

// What the sets of takeovers hold for how long at most; longer is none of ours.
const (
	underWayTime    = 20 * time.Second // more than linger, and the time for which a request is confirmed, together
	longestTakeover = underWayTime
)

// takeoverKeyLength is the length of what a request must contain: the secret and the bucket.
const takeoverKeyLength = clusterip.TakeoverTokenAt

// takeoverSets hold the buckets that are taken over, and what a takeover needs.
func takeoverSets() []set {
	const timed, dynamic = unix.NFT_SET_TIMEOUT, unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL // dynamic: rules change them
	return []set{
		{name: setUnderWay, keyLength: keyLength, flags: timed},
		{name: setLingering, keyLength: keyLength, flags: dynamic},
		{name: setPassing, keyLength: keyLength, flags: dynamic},
		{name: setKeys, keyLength: takeoverKeyLength, dataLength: keyLength, flags: timed | unix.NFT_SET_MAP},
		{name: setExpecting, keyLength: keyLength, flags: timed},
		{name: setTakingOver, keyLength: keyLength, flags: timed},
		{name: setSeen, keyLength: keyLength, flags: dynamic},
		{name: setSeenToo, keyLength: keyLength, flags: dynamic},
	}
}

func isTakeoverSet(name string) bool {
	return slices.ContainsFunc(takeoverSets(), func(s set) bool { return s.name == name })
}

// ipv6HeaderLength is in bytes, without extension headers (RFC 8200 section 3).
const ipv6HeaderLength = 40

// packetSets hold hashes of packets, which nobody reads but the rules.
func packetSets() []string { return []string{setSeen, setSeenToo} }

// takeoverFrames are the rules for takeover frames. A request with the right secret has the kernel begin to pass packets on and end the
// lingering, and only when the bucket lingers no more it is sent back as the confirmation, with the token in it. All that happens in the
// packet path, so no process need be awake.
func takeoverFrames(layout clusterip.Layout) (all, requests chain) {
	secret := field{network, clusterip.TakeoverSecretAt, takeoverKeyLength}
	bucket := field{network, clusterip.TakeoverBucketAt, keyLength}
	token := field{network, clusterip.TakeoverTokenAt, keyLength}
	isKnown := []expr.Any{secret.loadTo(register0), &expr.Lookup{
		SourceRegister: register0, DestRegister: register4, IsDestRegSet: true, SetName: setKeys,
	}}
	loadBucket := []expr.Any{bucket.loadTo(register0), &expr.Byteorder{
		SourceRegister: register0, DestRegister: register0, Op: expr.ByteorderNtoh, Len: keyLength, Size: keyLength,
	}}
	lingersNoMore := []expr.Any{&expr.Lookup{SourceRegister: register0, SetName: setLingering, Invert: true}}
	ofBucket := slices.Concat(isKnown, token.write(register4), loadBucket)
	is := func(kind uint32) []expr.Any { return token.is(binary.BigEndian.AppendUint32(nil, kind)...) }
	return chain{name: chainTakeovers, rules: []rule{
		newRule("requests", is(clusterip.TakeoverRequested), goTo(chainRequests)),
		newRule("the bucket was taken over", is(clusterip.TakeoverDone), ofBucket, deleteFrom(setPassing)),
	}}, chain{name: chainRequests, rules: []rule{
		newRule("pass on what is new", ofBucket, lookup(setLingering), putInto(setPassing, clusterip.PassTime)),
		newRule("go on with it", ofBucket, lookup(setPassing), putInto(setPassing, clusterip.PassTime)),
		newRule("linger no more, and confirm it", ofBucket, deleteFrom(setLingering), lingersNoMore,
			[]expr.Any{etherSource.loadTo(register0)}, etherDestination.write(register0), etherSource.set(layout.Lingers[:]...),
			sendTo(layout.NICIndex), verdict(expr.VerdictDrop)),
	}}
}

// underWay matches while anything is under way: a key that is always 0 (zeroWord) is in the set.
func underWay() []expr.Any { return slices.Concat(zeroWord(register0), lookup(setUnderWay)) }

// passOn sends what is new to the bucket's new owner, as a broadcast from the interface's own MAC: no switch learns anything from it, no
// host forwards it, and only a node that takes the bucket over accepts it. Only the new owner knows which packets it has not answered.
func (f family) passOn(layout clusterip.Layout) chain {
	c := chain{name: chainPassOn + f.suffix}
	broadcast := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for _, kind := range newPackets() {
		c.rules = append(c.rules, newRule(kind.title, kind.protocol, kind.begins, toMAC(of(f, layout.MACs)), etherDestination.set(broadcast...),
			etherSource.set(layout.Lingers[:]...), sendTo(layout.NICIndex), countAndDrop()))
	}
	return c
}

// newPackets are those that a new owner answers: they begin a connection, or are of a protocol that has none.
func newPackets() []newPacket {
	var all []newPacket
	for _, p := range connectionProtocols {
		all = append(all, newPacket{"new " + p.title + " connections", ipProtocolIs(p.number), p.begins, true})
	}
	return append(all, newPacket{"protocols without connections", withoutConnections(), nil, false})
}

type newPacket struct {
	title     string
	protocol  []expr.Any
	begins    []expr.Any // a connection
	connected bool       // the protocol has connections
}

// A way is how a packet has reached this node without being answered: each new packet comes both ways, in any order, and the second one is
// accepted.
type way int

const (
	direct   way = iota // from the client
	passedOn            // from the old owner
)

// remember is for packets of a bucket that this node is about to own. What is new may be passed on to it: then it is accepted, and else
// remembered and dropped.
func (f family) remember(layout clusterip.Layout) chain {
	c, isFamily := chain{name: chainRemember + f.suffix}, protocolIs(f.etherType) // see hashRule
	_, adopting := f.marks(layout)
	for _, kind := range newPackets() {
		for _, id := range f.identities(kind) {
			is := slices.Concat(isFamily, kind.protocol, kind.begins, id.condition)
			c.rules = append(c.rules,
				newRule(kind.title+id.comment+": passed on before", is, id.take(passedOn)),
				newRule(kind.title+id.comment, is, id.remember(direct)))
		}
		c.rules = append(c.rules, newRule(kind.title+": more than can be remembered", kind.protocol, kind.begins, countAndDrop()))
		if kind.connected { // what begins the connection may have been passed on already
			c.rules = append(c.rules, newRule("connections of this node", kind.protocol, toMAC(of(f, layout.MACs)), f.put(layout, adopting),
				verdict(expr.VerdictAccept)))
		}
	}
	return c
}

// passed is for packets that were passed on to this node: it accepts those that it remembers. If it owns the bucket by now, it has answered
// the others, or will when they arrive.
func (f family) passed() chain {
	c, isFamily := chain{name: chainPassed + f.suffix}, protocolIs(f.etherType)
	for _, kind := range newPackets() {
		for _, id := range f.identities(kind) {
			is := slices.Concat(isFamily, kind.protocol, id.condition)
			c.rules = append(c.rules,
				newRule(kind.title+id.comment, is, id.take(direct)),
				newRule(kind.title+id.comment+": not yet here", is, id.remember(passedOn)))
		}
	}
	c.rules = append(c.rules, newRule("more than can be remembered", countAndDrop()))
	return c
}

// An identity is what distinguishes a packet from others, by two hashes: the source, in IPv4 the identification, and the first bytes behind
// the IP header. Those have the ports, TCP's sequence number, the number of a ping, UDP's checksum and the beginning of the data (on a
// virtual network the checksum does not cover the data).
type identity struct {
	comment   string
	condition []expr.Any
	load      []expr.Any // into the registers from register0 on
	length    uint32     // in bytes
}

// hash computes one of the two hashes of the packet. Their seeds are any numbers, others for each way.
func (id identity) hash(w way, which uint32) []expr.Any {
	const all, seed = 1<<32 - 1, 0x6c696e67
	return append(slices.Clone(id.load), &expr.Hash{
		SourceRegister: register0, DestRegister: register0, Length: id.length, Modulus: all, Seed: seed + 2*uint32(w) + which,
		Type: expr.HashTypeJenkins,
	})
}

// take accepts a packet if it is remembered from one way, and forgets it.
func (id identity) take(from way) []expr.Any {
	return slices.Concat(id.hash(from, 0), lookup(setSeen), id.hash(from, 1), lookup(setSeenToo), deleteFrom(setSeenToo),
		id.hash(from, 0), deleteFrom(setSeen), setPacketType(unix.PACKET_HOST), verdict(expr.VerdictAccept))
}

// remember remembers a packet that came one way, and drops it.
func (id identity) remember(from way) []expr.Any {
	return slices.Concat(id.hash(from, 0), putInto(setSeen, clusterip.SeenTime), id.hash(from, 1), putInto(setSeenToo, clusterip.SeenTime),
		countAndDrop())
}

// identities are in the order in which they are tried: one that reads behind the end of the packet does not match.
func (f family) identities(kind newPacket) []identity {
	const word = 4
	source, behind := []expr.Any{f.source.loadTo(register0)}, uint32(register4)
	header := f.source.length
	if f.etherType == ipv4.etherType {
		source, behind = append(source, ipv4Identification.loadTo(register1)), register2
		header += ipv4Identification.length
	}
	first := func(bytes uint32, comment string) identity {
		load := append(slices.Clone(source), field{transport, 0, bytes}.loadTo(behind))
		return identity{comment: comment, load: load, length: header + bytes}
	}
	if kind.connected {
		return []identity{first(3*word, "")} //nolint:mnd // words
	}
	fragment := identity{comment: ", fragments", condition: f.isFragment(), load: source, length: header}
	if f.etherType != ipv4.etherType { // the extension header has the identification, mostly the first one
		extension := field{network, ipv6HeaderLength, 2 * word}
		fragment.load, fragment.length = append(slices.Clone(source), extension.loadTo(behind)), header+extension.length
	}
	return []identity{fragment, first(8*word, ""), first(5*word, ", short"), first(2*word, ", without data")} //nolint:mnd // words
}

// lingeringChain decides about packets of buckets that linger, behind conntrack. When the service has stopped here before the bucket was
// taken over, the kernel would answer with a reset or an ICMP error, which is worse than silence.
func lingeringChain(f family, accept []expr.Any) chain {
	hasSocket := []expr.Any{ // compared, so that nft(8) lists it
		&expr.Socket{Key: expr.SocketKeyTransparent, Register: register0}, compare(expr.CmpOpGte, 0),
	}
	c := chain{name: chainLingering, rules: []rule{
		newRule("ICMP", ipProtocolIs(f.icmp), accept),
		newRule("datagrams to a socket", ipProtocolIs(unix.IPPROTO_UDP), hasSocket, accept),
		newRule("nobody listens", ipProtocolIs(unix.IPPROTO_UDP), countAndDrop()),
	}}
	tcp := connectionProtocols[0]
	c.rules = append(c.rules,
		newRule("new TCP connections to a socket", ipProtocolIs(tcp.number), tcp.begins, hasSocket, accept),
		newRule("nobody listens", ipProtocolIs(tcp.number), tcp.begins, countAndDrop()),
		newRule("connections of this node", state(expr.CtStateBitESTABLISHED), accept),
		newRule("everything else is the new owner's", countAndDrop()))
	return c
}

func putInto(set string, lasts time.Duration) []expr.Any {
	return []expr.Any{&expr.Dynset{SrcRegKey: register0, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: lasts}}
}

func deleteFrom(set string) []expr.Any {
	const operation = 2 // NFT_DYNSET_OP_DELETE
	return []expr.Any{&expr.Dynset{SrcRegKey: register0, SetName: set, Operation: operation}}
}

// sendTo sends a copy of the packet from an interface.
func sendTo(nicIndex int) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: register0, Data: hostOrder(uint32(nicIndex))}, &expr.Dup{RegDev: register0, IsRegDevSet: true}}
}

// takeoversIn reads what lingers here and what is expected.
func takeoversIn(tables []table, into *clusterip.Tables) {
	for _, t := range tables {
		keys := map[uint32]element{} // a bucket that was stopped twice has two: the newer one lasts as long as it lingers
		for _, e := range t.ours(setKeys) {
			into.Lingered = append(into.Lingered, clusterip.Bucket(e.key))
			if e.left > keys[e.key].left {
				keys[e.key] = e
			}
		}
		for _, e := range t.ours(setLingering) {
			if !slices.Contains(into.Owned, clusterip.Bucket(e.key)) {
				l := clusterip.Linger{Bucket: clusterip.Bucket(e.key), Left: e.left}
				copy(l.Key.Secret[:], keys[e.key].long)
				copy(l.Key.Token[:], keys[e.key].value)
				into.Lingering = append(into.Lingering, l)
			}
		}
		for _, e := range t.ours(setExpecting) {
			into.Expecting = append(into.Expecting, clusterip.Bucket(e.key))
		}
		for _, e := range t.ours(setTakingOver) {
			if slices.Contains(into.Owned, clusterip.Bucket(e.key)) {
				into.Takeovers = append(into.Takeovers, clusterip.Takeover{Bucket: clusterip.Bucket(e.key), Left: e.left})
			}
		}
	}
	into.Expecting = clusterip.Subtract(into.Expecting, into.Owned)
	slices.Sort(into.Lingered)
	into.Lingered = clusterip.Subtract(slices.Compact(into.Lingered), into.Owned)
}

// changeTakeovers updates the sets of takeovers when buckets are owned or released.
func (c *Conn) changeTakeovers(step clusterip.ChangeBuckets) error {
	t := netdevTable(step.Address)
	for _, bucket := range slices.Concat(step.Own, step.Release) {
		for _, key := range c.keys { // whoever has overheard it must not end what begins now
			if key.key != uint32(bucket) {
				continue
			}
			if err := c.replace(t, setKeys, key, 0); err != nil {
				return err
			}
		}
	}
	// Of buckets that are owned, these elements have no effect. They stay: a packet that was just looked up in the set of owned buckets, and
	// was not found, must still be found here (rules see the new elements from one lookup to the next, not from one packet to the next).
	for _, bucket := range step.Release {
		for _, name := range []string{setLingering, setExpecting} {
			if err := c.replace(t, name, element{key: uint32(bucket)}, 0); err != nil {
				return err
			}
		}
	}
	if step.TakenOver {
		for _, bucket := range step.Own {
			taken := element{key: uint32(bucket), comment: commentOf(step.Resource, bucket)}
			if err := c.replace(t, setTakingOver, taken, clusterip.TakenOverTime); err != nil {
				return err
			}
		}
	}
	if step.Linger == nil {
		return nil
	}
	l := *step.Linger
	key := element{key: uint32(l.Bucket), comment: commentOf(step.Resource, l.Bucket), value: l.Key.Token[:]}
	key.long = clusterip.TakeoverFrame(l.Key, l.Bucket, clusterip.TakeoverRequested, 0)[:takeoverKeyLength]
	lingers := element{key: uint32(l.Bucket), comment: commentOf(step.Resource, l.Bucket)}
	left := max(l.Left-c.age(), time.Millisecond)
	return errors.Join(c.replace(t, setLingering, lingers, left), c.replace(t, setKeys, key, left+clusterip.KeyTime), c.putUnderWay(t))
}

// expectTakeover has the kernel remember what is new for a bucket, and accept what of it is passed on.
func (c *Conn) expectTakeover(step clusterip.ExpectTakeover) error {
	t := netdevTable(step.Layout.Address())
	e := element{key: uint32(step.Bucket), comment: commentOf(step.Layout.Resource, step.Bucket)}
	lasts := min(step.Lasts, longestTakeover)
	return errors.Join(c.replace(t, setExpecting, e, lasts), c.replace(t, setTakingOver, e, lasts), c.putUnderWay(t))
}

func (c *Conn) putUnderWay(t *nft.Table) error {
	return c.replace(t, setUnderWay, element{comment: fmt.Sprintf("%s:0", setUnderWay)}, underWayTime)
}

// replace removes an element, if it is there, and adds it for that long; for no time, not at all. A deletion of nothing would be an error,
// and so the element is added before. (One that ends by itself in this moment is an error all the same: see ApplyTables.)
func (c *Conn) replace(t *nft.Table, name string, e element, lasts time.Duration) error {
	i := slices.IndexFunc(takeoverSets(), func(s set) bool { return s.name == name })
	s := takeoverSets()[i]
	e.left = longestTakeover
	added := s.converted([]element{e})
	err := errors.Join(c.nft.SetAddElements(setOf(t, s), added), c.nft.SetDeleteElements(setOf(t, s), added))
	if lasts == 0 {
		return err
	}
	e.left = lasts
	return errors.Join(err, c.nft.SetAddElements(setOf(t, s), s.converted([]element{e})))
}

// bucketIn returns the bucket of a key of setKeys.
func bucketIn(key []byte) uint32 { return binary.BigEndian.Uint32(key[clusterip.TakeoverBucketAt:]) }

// takeoverFault explains why an element of a set of takeovers cannot be one that we, or our rules, have added; empty if it can.
func (s set) takeoverFault(e element) string {
	switch {
	case e.all:
		return "covers everything"
	case !e.timed:
		return "has no timeout"
	case e.left > longestTakeover:
		return "lasts longer than this agent lets it"
	default:
		return ""
	}
}
