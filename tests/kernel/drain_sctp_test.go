//go:build system

package kernel

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/lan"
)

// Chunk types of SCTP (RFC 9260 section 3.2).
const (
	sctpData       = 0
	sctpInit       = 1
	sctpInitAck    = 2
	sctpCookieEcho = 10
	sctpCookieAck  = 11
)

// association is one of SCTP, as far as conntrack looks at it. Its packets are made by hand: few kernels here have the protocol.
type association struct {
	client, server netip.Addr
	port           uint16
}

// Tags that the two sides choose (RFC 9260 section 3.1).
const (
	clientTag = 0x11111111
	serverTag = 0x22222222
)

// message is an SCTP packet of one chunk, to the server or from it.
func (a association) message(chunk byte, toServer bool) []byte {
	b := make([]byte, 12, 64)
	from, to, tag := a.port, uint16(lan.EchoPort), uint32(serverTag)
	if !toServer {
		from, to, tag = to, from, clientTag
	}
	if chunk == sctpInit {
		tag = 0
	}
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], tag)
	var body []byte
	switch chunk {
	case sctpInit, sctpInitAck: // initiate tag, a_rwnd, outbound and inbound streams, initial TSN
		body = binary.BigEndian.AppendUint32(nil, map[bool]uint32{true: clientTag, false: serverTag}[toServer])
		body = append(body, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	case sctpData: // TSN, stream, sequence number, protocol, and four bytes
		body = make([]byte, 16)
		body[3] = 1
	case sctpCookieEcho:
		body = []byte("cook")
	}
	b = append(b, chunk, 3, 0, byte(4+len(body)))
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// ask sends a message of the client.
func (a association) ask(t *testing.T, s *site, chunk byte) {
	t.Helper()
	mac := clusterip.DerivedMAC(clusterip.Multicast, a.server)
	check(t, sendFrames(s.Client, ethernet.Frame{
		Destination: mac[:],
		Source:      s.Client.MAC,
		EtherType:   ethernet.EtherTypeIPv4,
		Payload: packetOf(
			ipv4.Header{Protocol: unix.IPPROTO_SCTP, TTL: 64, Src: a.client.AsSlice(), Dst: a.server.AsSlice()},
			a.message(chunk, true),
		),
	}))
}

// answer sends a message of a node.
func (a association) answer(t *testing.T, node *lan.Host, chunk byte) {
	t.Helper()
	check(t, node.Do(func() error {
		conn, err := net.DialIP(
			fmt.Sprintf("ip4:%d", unix.IPPROTO_SCTP),
			&net.IPAddr{IP: a.server.AsSlice()},
			&net.IPAddr{IP: a.client.AsSlice()},
		)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(a.message(chunk, false))
		return err
	}))
}

// An SCTP association stays on the node where it was made, and the new owner answers new ones.
func TestSCTPSurvivesAMove(t *testing.T) {
	s, _ := newDrainingSite(t, lan.Options{Nodes: 2}, 1)
	for _, node := range s.Nodes {
		nft(t, node, "table ip heard { chain in { type filter hook input priority 0; meta l4proto sctp counter; }; }")
	}
	// heard returns how many SCTP packets the nodes have taken in.
	heard := func() string {
		var counts []string
		for _, node := range s.Nodes {
			_, after, _ := strings.Cut(node.Run(t.Context(), lan.ToolPath, "nft", "list", "table", "ip", "heard").Stdout, "packets ")
			count, _, _ := strings.Cut(after, " ")
			counts = append(counts, count)
		}
		return strings.Join(counts, " and ")
	}
	expect := func(what, want string) {
		t.Helper()
		eventually(t, what, func() error {
			if got := heard(); got != want {
				return fmt.Errorf("node1 and node2 have taken %s packets in, want %s", got, want)
			}
			return nil
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	check(t, s.startOn(0, 0))
	old := association{client: s.Sources(1)[0], server: shared, port: 40000}
	old.ask(t, s, sctpInit)
	expect("INIT", "1 and 0")
	old.answer(t, s.Nodes[0], sctpInitAck)
	old.ask(t, s, sctpCookieEcho)
	expect("COOKIE ECHO", "2 and 0")
	old.answer(t, s.Nodes[0], sctpCookieAck)
	old.ask(t, s, sctpData)
	expect("DATA", "3 and 0")

	check(t, s.move(0, 1))
	old.ask(t, s, sctpData)
	expect("DATA after the move", "4 and 0")
	fresh := old
	fresh.port++
	fresh.ask(t, s, sctpInit)
	expect("INIT after the move", "4 and 1")
	old.ask(t, s, sctpData)
	fresh.answer(t, s.Nodes[1], sctpInitAck)
	fresh.ask(t, s, sctpCookieEcho)
	expect("both associations", "5 and 2")
	unknown := old
	unknown.port += 2
	unknown.ask(t, s, sctpData) // of an association that no node has
	old.ask(t, s, sctpData)
	expect("DATA of no association", "6 and 2")
	check(t, s.monitorAll())
}
