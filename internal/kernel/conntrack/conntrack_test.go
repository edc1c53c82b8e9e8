package conntrack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	rtnetlink "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

var (
	shared   = netip.MustParseAddr("192.0.2.1")
	internal = netip.MustParseAddr("10.0.0.5") // behind address translation
	owned    = netip.MustParseAddr("192.0.2.10")
	other    = netip.MustParseAddr("192.0.2.15")
)

// here is a session of a resource with two buckets.
func here(t *testing.T) session {
	t.Helper()
	s := session{layout: clusterip.Layout{
		Prefixes: []netip.Prefix{netip.PrefixFrom(shared, 24)}, NICIndex: 2, HashMode: clusterip.SourceIP, HashCompat: clusterip.XTCluster,
		HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128}, Buckets: 2,
	}}
	s.origins.add(addressOf(t, "192.0.2.2/24", ""), true)
	s.origins.add(addressOf(t, "10.0.0.1/16", ""), false)
	s.origins.add(addressOf(t, "192.0.0.1/16", ""), false)
	s.origins.add(addressOf(t, "203.0.113.1/32", "203.0.113.2/32"), false)
	s.origins.add(addressOf(t, "2001:db8::1/128", "2001:db8::2/64"), false)
	if s.bucketOf(incoming(owned, 1)) == s.bucketOf(incoming(other, 1)) {
		t.Fatal("both clients are in the same bucket")
	}
	return s
}

func incoming(client netip.Addr, port uint16) tuple {
	return tuple{unix.IPPROTO_TCP, netip.AddrPortFrom(client, port), netip.AddrPortFrom(shared, 80)}
}

func tracked(client netip.Addr, port uint16, state uint8) entry {
	orig := incoming(client, port)
	return entry{orig: orig, reply: orig.inverted(), state: state, replied: true}
}

func socketOf(client netip.Addr, port uint16) socket {
	t := incoming(client, port)
	return socket{local: t.destination, remote: t.source, state: unix.BPF_TCP_ESTABLISHED}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What Linux 6.18 answers about an established connection of 192.0.2.1:30001 to 192.0.2.1:8080, and of 2001:db8::1 likewise.
const (
	entry4 = "02000000" + "340001801400018008000100c000020108000200c00002011c0002800500010006000000060002007531000006000300" + "1f900000" +
		"340002801400018008000100c000020108000200c00002011c0002800500010006000000060002001f9000000600030075310000" +
		"080003000000000e" + "0800080000000000" + "08000c001c1527d7" + "08000b0000000001" + "080007000006977f" +
		"300004802c0001800500010003000000050002000a000000050003000a00000006000400230000000600050023000000"
	entry6 = "0a000000" + "4c0001802c0001801400030020010db80000000000000000000000011400040020010db8000000000000000000000001" +
		"1c00028005000100060000000600020075310000060003001f900000" +
		"4c0002802c0001801400030020010db80000000000000000000000011400040020010db8000000000000000000000001" +
		"1c0002800500010006000000060002001f9000000600030075310000" +
		"080003000000000e" + "0800080000000000" + "08000c00c0f1c934" + "08000b0000000001" + "0800070000069780" +
		"300004802c0001800500010003000000050002000a000000050003000a00000006000400230000000600050023000000"
	socket4 = "020102001f907531" + "c0000201000000000000000000000000" + "c0000201000000000000000000000000" + "00000000a2cc010000000000" +
		"903a0000" + "0000000000000000" + "00000000e7000e00" + "02050008000000000008000f00000000000c00150001000000000000000600160052000000"
	socket6 = "0a0102001f907531" + "20010db8000000000000000000000001" + "20010db8000000000000000000000001" + "00000000a4cc010000000000" +
		"903a0000" + "0000000000000000" + "00000000ee000e00" + "02050008000000000008000f00000000000c00150001000000000000000600160012000000"
)

func TestDecodeEntry(t *testing.T) {
	for address, message := range map[string]string{"192.0.2.1": entry4, "2001:db8::1": entry6} {
		e, err := decodeEntry(unhex(t, message))
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(address), port) }
		want := tuple{unix.IPPROTO_TCP, at(30001), at(8080)}
		if err != nil || e.orig != want || e.reply != want.inverted() {
			t.Errorf("%s: %+v (%v)", address, e, err)
		}
		if !e.isOpen() || e.isIncomplete() || e.state != nl.TCP_CONNTRACK_ESTABLISHED || e.left.Round(time.Minute) != 5*24*time.Hour {
			t.Errorf("%s: %+v", address, e)
		}
		// The kernel finds the entry by the attributes that it has sent itself: the tuple, and the id.
		orig, id := want.encode(nl.CTA_TUPLE_ORIG), e.key[max(0, len(e.key)-8):]
		if !bytes.Equal(e.key, append(orig, id...)) || !bytes.Contains(unhex(t, message), id) {
			t.Errorf("%s: key %x", address, e.key)
		}
	}
	for _, bad := range []string{"", "0200", "02000000ff", "020000000800030000000e", "02000000060003000000"} {
		if e, err := decodeEntry(unhex(t, bad)); err == nil {
			t.Errorf("%s is read as %+v", bad, e)
		}
	}
}

func TestEncodeEntry(t *testing.T) {
	for _, want := range []tuple{
		{unix.IPPROTO_TCP, netip.MustParseAddrPort("192.0.2.10:30001"), netip.MustParseAddrPort("192.0.2.1:80")},
		{unix.IPPROTO_TCP, netip.MustParseAddrPort("[2001:db8::10]:30001"), netip.MustParseAddrPort("[2001:db8::1]:80")},
	} {
		message := slices.Concat([]byte{0, 0, 0, 0}, encodeEntry(want, nl.TCP_CONNTRACK_CLOSE_WAIT), lifetime(time.Minute+time.Millisecond))
		got, err := decodeEntry(message)
		if err != nil || got.orig != want || got.reply != want.inverted() || !got.isOpen() || got.left != 61*time.Second {
			t.Errorf("%+v is read back as %+v (%v)", want, got, err)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(unhex(f, entry4))
	f.Add(unhex(f, entry6))
	f.Fuzz(func(_ *testing.T, message []byte) {
		if e, err := decodeEntry(message); err == nil {
			e.isOpen()
		}
	})
}

func TestIsOpen(t *testing.T) {
	with := func(change func(*entry)) entry {
		e := tracked(owned, 1, nl.TCP_CONNTRACK_ESTABLISHED)
		change(&e)
		return e
	}
	for name, row := range map[string]struct {
		entry entry
		want  bool
	}{
		"established":                {with(func(*entry) {}), true},
		"closed by the client":       {with(func(e *entry) { e.state = nl.TCP_CONNTRACK_CLOSE_WAIT }), true},
		"closed by both":             {with(func(e *entry) { e.state = nl.TCP_CONNTRACK_TIME_WAIT }), false},
		"no answer yet":              {with(func(e *entry) { e.state = nl.TCP_CONNTRACK_SYN_SENT }), false},
		"answered by another node":   {with(func(e *entry) { e.replied = false }), false},
		"an SCTP association":        {with(func(e *entry) { e.orig.protocol, e.state = unix.IPPROTO_SCTP, 0 }), true},
		"UDP, which has no handover": {with(func(e *entry) { e.orig.protocol = unix.IPPROTO_UDP }), false},
	} {
		if row.entry.isOpen() != row.want {
			t.Errorf("%s: open is %t", name, !row.want)
		}
	}
}

func TestDecodeSocket(t *testing.T) {
	for address, message := range map[string]string{"192.0.2.1": socket4, "2001:db8::1": socket6} {
		s, err := decodeSocket(unhex(t, message))
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(address), port) }
		if err != nil || s.local != at(8080) || s.remote != at(30001) {
			t.Errorf("%s: %+v (%v)", address, s, err)
		}
		if s.state != unix.BPF_TCP_ESTABLISHED || s.repeats != 0 || s.next != 14992*time.Millisecond {
			t.Errorf("%s: %+v (%v)", address, s, err)
		}
	}
	mapped := bytes.Replace(unhex(t, socket6), unhex(t, "20010db8000000000000000000000001"), unhex(t, "00000000000000000000ffffc0000201"), 1)
	if s, err := decodeSocket(mapped); err != nil || s.local.Addr() != shared {
		t.Errorf("an IPv4 client of a socket for IPv6: %+v (%v)", s, err)
	}
	if s, err := decodeSocket(unhex(t, socket4)[:messageLength-1]); err == nil {
		t.Errorf("a message that is too short is read as %+v", s)
	}
}

// accepts runs a program as inet_diag_bc_run in net/ipv4/inet_diag.c does.
func accepts(program []byte, address netip.Addr) bool {
	left := len(program)
	for left > 0 {
		op := program[len(program)-left:]
		if isCondition := op[0] == 7; isCondition && op[4] == familyOf(address) && bytes.HasPrefix(op[12:], address.AsSlice()) {
			left -= int(op[1])
		} else { // also where it is a jump
			left -= int(binary.NativeEndian.Uint16(op[2:]))
		}
	}
	return left == 0
}

func TestLocalIsOneOf(t *testing.T) {
	addresses := []netip.Addr{shared, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.3")}
	for n := 1; n <= len(addresses); n++ {
		for i, address := range append(addresses, netip.MustParseAddr("192.0.2.4"), netip.MustParseAddr("2001:db8::2")) {
			if got := accepts(localIsOneOf(addresses[:n]), address); got != (i < n) {
				t.Errorf("%s among %v: %t", address, addresses[:n], got)
			}
		}
	}
}

// addressOf is an address as the library returns it, with its peer if it is a point-to-point address.
func addressOf(t *testing.T, text, peer string) rtnetlink.Addr {
	t.Helper()
	address, err := rtnetlink.ParseAddr(text)
	if err == nil && peer != "" {
		address.Peer, err = rtnetlink.ParseIPNet(peer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return *address
}

func TestBypassBuckets(t *testing.T) {
	for address, want := range map[string]bool{
		"192.0.2.10":   false, // in the network of the shared address, though another interface has a wider one
		"198.51.100.1": false, // comes by a router
		"192.0.2.2":    true,  // the node itself
		"127.0.0.1":    true,
		"10.0.0.5":     true, // in the network of another interface
		"192.0.7.1":    true,
		"203.0.113.1":  true, // a point-to-point address
		"203.0.113.2":  true, // its peer
		"203.0.113.3":  false,
		"2001:db8::7":  true, // in the network of an IPv6 peer
	} {
		if got := here(t).origins.bypassBuckets(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}

func TestCount(t *testing.T) {
	s := here(t)
	mine, others := s.bucketOf(incoming(owned, 1)), s.bucketOf(incoming(other, 1))
	// The client's packets go to the shared address, and the socket has the one behind translation.
	translated := tracked(owned, 4, nl.TCP_CONNTRACK_ESTABLISHED)
	translated.reply.source = netip.AddrPortFrom(internal, 8080)
	begun := entry{orig: incoming(owned, 5).inverted(), reply: incoming(owned, 5), state: nl.TCP_CONNTRACK_ESTABLISHED, replied: true}
	seen := s.snapshotOf(
		[]socket{socketOf(owned, 1), socketOf(owned, 2), socketOf(other, 1), socketOf(owned, 5)},
		[]entry{
			tracked(owned, 1, nl.TCP_CONNTRACK_ESTABLISHED), // counted by its socket
			tracked(owned, 3, nl.TCP_CONNTRACK_TIME_WAIT),
			translated, // has no socket here
			begun,      // a connection of which conntrack has seen a packet of ours first
		})
	if got, want := seen.count(), map[clusterip.Bucket]int{mine: 4, others: 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := s.snapshotOf(nil, nil).count(); len(got) > 0 {
		t.Errorf("nothing is counted as %v", got)
	}
}

// A connection without a socket has ended, if it had none before the entries were read, nor after that.
func TestEndsThatConntrackDidNotSee(t *testing.T) {
	s := here(t)
	translated := tracked(owned, 4, nl.TCP_CONNTRACK_ESTABLISHED)
	translated.reply.source = netip.AddrPortFrom(internal, 8080)
	association := tracked(owned, 5, 0)
	association.orig.protocol, association.reply.protocol = unix.IPPROTO_SCTP, unix.IPPROTO_SCTP
	waiting := socketOf(owned, 0) // for data, before the program accepts it
	waiting.state = unix.BPF_TCP_SYN_RECV
	seen := s.snapshotOf([]socket{waiting, socketOf(owned, 1)}, []entry{
		tracked(owned, 0, nl.TCP_CONNTRACK_ESTABLISHED),
		tracked(owned, 1, nl.TCP_CONNTRACK_ESTABLISHED),
		tracked(owned, 2, nl.TCP_CONNTRACK_ESTABLISHED), // was made while the entries were read
		tracked(owned, 3, nl.TCP_CONNTRACK_FIN_WAIT),    // its socket no longer waits for data, but for the client's FIN
		translated,
		association,
		{orig: incoming(owned, 6).inverted(), reply: incoming(owned, 6), state: nl.TCP_CONNTRACK_ESTABLISHED, replied: true},
		tracked(owned, 7, nl.TCP_CONNTRACK_ESTABLISHED),
	})
	seen.markUnseenEnds([]socket{socketOf(owned, 2)})
	for _, e := range seen.entries {
		port := s.incoming(e).source.Port()
		if want := port < 6; e.isOpen() != want {
			t.Errorf("the connection from port %d: open is %t", port, !want)
		}
	}
	if got, want := seen.count(), map[clusterip.Bucket]int{s.bucketOf(incoming(owned, 1)): 6}; !maps.Equal(got, want) {
		t.Errorf("counted: %v, want %v", got, want)
	}
}

func TestJudgeHandshake(t *testing.T) {
	s := here(t)
	bucket := s.bucketOf(incoming(owned, 1))
	fresh := socketOf(owned, 1)
	fresh.next = time.Second
	repeated, due, local := fresh, fresh, fresh
	repeated.repeats, due.next = 1, handshakePause
	local.remote = netip.AddrPortFrom(internal, 1)
	const received, established = nl.TCP_CONNTRACK_SYN_RECV, nl.TCP_CONNTRACK_ESTABLISHED
	for name, row := range map[string]struct {
		socket  socket
		state   uint8 // of the entry; 0 if there is none
		bucket  clusterip.Bucket
		mayWait bool
		want    verdict
	}{
		"the client may still answer":        {fresh, received, bucket, true, wait},
		"the time is over":                   {fresh, received, bucket, false, remove},
		"the SYN-ACK was repeated":           {repeated, received, bucket, true, remove},
		"the SYN-ACK is about to be":         {due, received, bucket, true, remove},
		"another bucket":                     {fresh, received, 1 - bucket, false, ignore},
		"complete in the meantime":           {fresh, established, bucket, false, ignore},
		"not tracked":                        {fresh, 0, bucket, true, remove},
		"not tracked, of another bucket":     {fresh, 0, 1 - bucket, true, ignore},
		"it comes in by another interface":   {local, received, s.bucketOf(incoming(internal, 1)), false, ignore},
		"it does so, and conntrack was full": {local, 0, s.bucketOf(incoming(internal, 1)), false, ignore},
	} {
		e := entry{}
		if row.state != 0 {
			e = tracked(row.socket.remote.Addr(), 1, row.state)
		}
		if got := s.judge(row.socket, e, row.state != 0, row.bucket, row.mayWait); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
}
