package link

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

var (
	here, there       = netip.MustParseAddr("192.168.10.3"), netip.MustParseAddr("192.168.10.254")
	hereMAC, thereMAC = net.HardwareAddr{3, 0xc1, 192, 168, 10, 3}, net.HardwareAddr{2, 0, 0, 0, 3, 1}
)

// reply is a router's answer to a ping.
func reply(t testing.TB, id uint16) []byte {
	t.Helper()
	frame, err := echoFrame(thereMAC, hereMAC, there, here, echo(id, 1))
	if err != nil {
		t.Fatal(err)
	}
	message, err := (&icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &icmp.Echo{ID: int(id), Seq: 1}}).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	copy(frame[ipOffset+ipv4.HeaderLen:], message)
	return frame
}

func TestEchoFrame(t *testing.T) {
	frame, err := echoFrame(hereMAC, thereMAC, here, there, echo(7, 9))
	if err != nil {
		t.Fatal(err)
	}
	header, err := ipv4.ParseHeader(frame[ipOffset:])
	if err != nil || header.Src.String() != here.String() || header.Dst.String() != there.String() || header.TotalLen != len(frame)-ipOffset {
		t.Errorf("%v, %v", header, err)
	}
	if sum := checksum(frame[ipOffset : ipOffset+ipv4.HeaderLen]); sum != 0 {
		t.Errorf("the header's checksum is wrong by %#x", sum)
	}
	message, err := icmp.ParseMessage(1, frame[ipOffset+ipv4.HeaderLen:])
	if err != nil || message.Type != ipv4.ICMPTypeEcho {
		t.Fatalf("%v, %v", message, err)
	}
	if body, ok := message.Body.(*icmp.Echo); !ok || body.ID != 7 || body.Seq != 9 {
		t.Errorf("%+v", message.Body)
	}
	if again, err := message.Marshal(nil); err != nil || !bytes.Equal(again, frame[ipOffset+ipv4.HeaderLen:]) { // with the checksum
		t.Errorf("%x, want %x (%v)", frame[ipOffset+ipv4.HeaderLen:], again, err)
	}
}

func TestDecodeReply(t *testing.T) {
	got, ok := decodeReply(reply(t, 7), 7)
	if !ok || got.from != there || got.to != here || got.toMAC.String() != hereMAC.String() || got.fromMAC.String() != thereMAC.String() {
		t.Errorf("%+v, %t", got, ok)
	}
	if got, ok := decodeReply(reply(t, 7), 8); ok {
		t.Errorf("another's answer is taken for ours: %+v", got)
	}
	request, err := echoFrame(thereMAC, hereMAC, there, here, echo(7, 9))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := decodeReply(request, 7); ok {
		t.Errorf("a request is taken for an answer: %+v", got)
	}
}

// igmp is a frame with an IGMP message behind an IP header with the router alert option; mld one with MLD behind a hop-by-hop header.
func igmp(kind byte) []byte {
	ip := make([]byte, 24+8)
	ip[0], ip[9], ip[24] = 0x46, 2, kind
	return append(make([]byte, ipOffset), ip...)
}

func mld(kind byte) []byte {
	ip := make([]byte, 40+8+24)
	ip[0], ip[6], ip[40], ip[48] = 0x60, 0, 58, kind
	return append(make([]byte, ipOffset), ip...)
}

func TestQueries(t *testing.T) {
	const query, report, query6, report6 = 0x11, 0x22, 130, 143
	if !isIGMPQuery(igmp(query)) || isIGMPQuery(igmp(report)) || !isMLDQuery(mld(query6)) || isMLDQuery(mld(report6)) {
		t.Error("queries and reports are mixed up")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(reply(f, 7))
	f.Add(igmp(0x11))
	f.Add(mld(130))
	f.Fuzz(func(_ *testing.T, frame []byte) {
		if len(frame) <= ipOffset { // which a capture skips
			return
		}
		decodeReply(frame, 7)
		isIGMPQuery(frame)
		isMLDQuery(frame)
	})
}
