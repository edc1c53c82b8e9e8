package main

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The frames must be what the kernel delivers: of full length, with the checksums of RFC 1071.
func TestUDPFrame(t *testing.T) {
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }
	for _, test := range []struct {
		name, from, to      string
		etherType           uint16
		headerLen, protocol int // the latter's place in the header
		addresses           int // their place
	}{
		{"IPv4", "192.0.2.1", "192.0.2.200", unix.ETH_P_IP, 20, 9, 12},
		{"IPv6", "2001:db8::1", "2001:db8::ffff:1", unix.ETH_P_IPV6, 40, 6, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			from, to := netip.MustParseAddr(test.from), netip.MustParseAddr(test.to)
			frame := udpFrame(endpoint{mac(1), from, 1234}, endpoint{mac(2), to, discard})
			if len(frame) != frameLen {
				t.Fatalf("the frame has %d bytes, want %d", len(frame), frameLen)
			}
			if got := binary.BigEndian.Uint16(frame[12:]); got != test.etherType {
				t.Errorf("EtherType %#x, want %#x", got, test.etherType)
			}
			header, datagram := frame[ethernetLen:][:test.headerLen], frame[ethernetLen+test.headerLen:]
			addresses := header[test.addresses:][:2*from.BitLen()/8]
			want := append(from.AsSlice(), to.AsSlice()...)
			if diff := cmp.Diff(want, addresses); diff != "" || header[test.protocol] != unix.IPPROTO_UDP {
				t.Errorf("protocol %d, addresses (-want +got):\n%s", header[test.protocol], diff)
			}
			if from.Is4() && checksum(header) != 0 {
				t.Errorf("the header's checksum is wrong: % x", header)
			}
			pseudo := append(want, 0, unix.IPPROTO_UDP, 0, byte(len(datagram)))
			if checksum(append(pseudo, datagram...)) != 0 {
				t.Errorf("the datagram's checksum is wrong: % x", datagram)
			}
			ports := [3]uint16{binary.BigEndian.Uint16(datagram), binary.BigEndian.Uint16(datagram[2:]), binary.BigEndian.Uint16(datagram[4:])}
			if want := [3]uint16{1234, discard, uint16(len(datagram))}; ports != want {
				t.Errorf("ports and length %d, want %d", ports, want)
			}
		})
	}
}
