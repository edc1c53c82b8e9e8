package firewall

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

// A probe is a packet as a client's first one, as far as it is known.
type probe struct {
	name     string // for people
	nic      string
	nicIndex int
	to       netip.Addr
	arp      bool
	protocol uint8  // of the transport layer
	port     uint16 // that is asked for; 0: not known
	icmpType uint8
	pktType  value // what kind of frame the kernel takes it for, when it comes to IP
	spare    bool  // nobody has said that there is such a service
	bridged  bool  // the NIC is a bridge, whose ports it comes in by

	redirected bool // by DNAT or REDIRECT
	forwarded  bool // to another host, or a container

	link, network, transport value
}

// Types of ICMP messages.
const (
	echoRequest           = 8
	echoRequest6          = 128
	neighbourSolicitation = 135 // every node must see those: it learns from them how to reach its clients
)

// syn is the one flag of a client's first TCP packet.
const syn = 0x02

// A value is bytes of a packet, or of a register of nf_tables.
type value struct {
	bytes  []byte
	known  []byte // the bits that are
	client bool   // what is not known depends on who the client is, and not on what is asked for
}

func unknown(length int) value {
	return value{bytes: make([]byte, length), known: make([]byte, length)}
}

func exactly(b ...byte) value {
	v := unknown(len(b))
	v.set(0, b...)
	return v
}

func (v value) set(offset int, b ...byte) {
	copy(v.bytes[offset:], b)
	for i := range b {
		v.known[offset+i] = 0xff
	}
}

// isKnown tells whether all of it is.
func (v value) isKnown() bool {
	for _, bits := range v.known {
		if bits != 0xff {
			return false
		}
	}
	return len(v.bytes) > 0
}

// probes are the packets that must get in: of each service, or, when everything is shared, a connection, a datagram and a ping; and what
// tells the node about its clients.
func probes(layout clusterip.Layout) []probe {
	var all []probe
	_, err := os.Stat(filepath.Join("/sys/class/net", layout.NIC, "bridge"))
	bridged := err == nil
	for _, address := range layout.Addresses() {
		add := func(name string, protocol uint8, port uint16, icmpType uint8) {
			spare := len(layout.Services) == 0 && protocol != unix.IPPROTO_TCP && icmpType != neighbourSolicitation
			p := probe{spare: spare, name: name + " to " + address.String(), nic: layout.NIC, nicIndex: layout.NICIndex, to: address, protocol: protocol, port: port, icmpType: icmpType, bridged: bridged}
			p.fill(layout.MACs.Of(address), layout.Backend)
			all = append(all, p)
		}
		probed := layout.Services
		if len(probed) == 0 {
			probed = []services.Service{{Protocol: "tcp"}, {Protocol: "udp"}, services.ICMP}
		}
		for _, s := range probed {
			name, port := s.Protocol, s.First
			if port != s.Last {
				port = 0
			}
			if s.First > 0 {
				name = s.String()
			}
			switch {
			case s == services.ICMP && address.Is4():
				add("ping", unix.IPPROTO_ICMP, 0, echoRequest)
			case s == services.ICMP:
				add("ping", unix.IPPROTO_ICMPV6, 0, echoRequest6)
			default:
				add(name, protocolNumber(s.Protocol), port, 0)
			}
		}
		if address.Is6() {
			add("neighbour discovery", unix.IPPROTO_ICMPV6, 0, neighbourSolicitation)
			continue
		}
		p := probe{name: "ARP requests for " + address.String(), nic: layout.NIC, nicIndex: layout.NICIndex, to: address, arp: true, bridged: bridged}
		p.fill(layout.MACs.IPv4, layout.Backend)
		all = append(all, p)
	}
	return all
}

// redirect sends the packet elsewhere, and tells whether it is known where.
func (p *probe) redirect(to destination, isLocal func(netip.Addr) bool) bool {
	if !to.here && (!to.host.IsValid() || to.host.Is4() != p.to.Is4()) {
		return false
	}
	p.redirected = true
	offset, length := 16, net.IPv4len
	if p.to.Is6() {
		offset, length = 24, net.IPv6len
	}
	p.network = part(p.network, 0, len(p.network.bytes))
	if to.here { // it gets an address of the NIC
		copy(p.network.known[offset:offset+length], make([]byte, length))
	} else {
		p.to, p.forwarded = to.host, !isLocal(to.host)
		p.network.set(offset, to.host.AsSlice()...)
	}
	if to.port > 0 {
		p.port = to.port
		p.transport = part(p.transport, 0, len(p.transport.bytes))
		p.transport.set(2, binary.BigEndian.AppendUint16(nil, to.port)...)
	}
	return true
}

func protocolNumber(name string) uint8 {
	numbers := map[string]uint8{
		"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE, "dccp": unix.IPPROTO_DCCP,
	}
	number, ok := numbers[name]
	if !ok {
		panic(fmt.Sprintf("firewall: protocol %q has no number", name))
	}
	return number
}

// fill makes the headers. An ARP request is a broadcast.
func (p *probe) fill(mac clusterip.MAC, backend clusterip.Backend) {
	// Behind our ingress rules it is the host's own; the other backends have none.
	const broadcast, multicast = 1, 2
	p.pktType = exactly(0)
	switch {
	case p.arp:
		p.pktType = exactly(broadcast)
	case backend != clusterip.NFTables && mac.Group():
		p.pktType = exactly(multicast)
	}
	const linkLength, ipv4Length, ipv6Length, arpLength, transportLength = 14, 20, 40, 28, 20
	p.link = unknown(linkLength)
	p.link.client = true
	p.link.set(12, binary.BigEndian.AppendUint16(nil, p.etherType())...)
	if p.arp {
		p.link.set(0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		p.network = unknown(arpLength)
		p.network.client = true
		p.network.set(0, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, a request (RFC 826)
		p.network.set(24, p.to.AsSlice()...)
		return
	}
	p.link.set(0, mac[:]...)
	if p.to.Is4() {
		p.network = unknown(ipv4Length)
		p.network.set(0, 0x45)
		p.network.set(6, 0, 0) // no fragment, but whether one is allowed depends
		p.network.known[6] = 0xbf
		p.network.set(9, p.protocol)
		p.network.set(16, p.to.AsSlice()...)
	} else {
		p.network = unknown(ipv6Length)
		p.network.bytes[0], p.network.known[0] = 0x60, 0xf0
		p.network.set(6, p.protocol)
		p.network.set(24, p.to.AsSlice()...)
	}
	p.network.client = true
	p.transport = unknown(transportLength)
	switch p.protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		p.transport.set(0, p.icmpType, 0)
	case unix.IPPROTO_TCP:
		p.transport.set(13, syn)
	}
	if p.port > 0 {
		p.transport.set(2, binary.BigEndian.AppendUint16(nil, p.port)...)
	}
}

func (p *probe) etherType() uint16 {
	switch {
	case p.arp:
		return unix.ETH_P_ARP
	case p.to.Is4():
		return unix.ETH_P_IP
	default:
		return unix.ETH_P_IPV6
	}
}

// part cuts bytes out of a header; those beyond its end are not known.
func part(header value, offset, length int) value {
	v := unknown(length)
	if offset >= 0 && offset < len(header.bytes) {
		copy(v.bytes, header.bytes[offset:])
		copy(v.known, header.known[offset:])
	}
	v.client = header.client
	return v
}

// transportPart is likewise; of the ports, the first is the client's own business.
func (p *probe) transportPart(offset, length int) value {
	const portLength = 2
	v := part(p.transport, offset, length)
	v.client = p.icmpType == 0 && offset+length <= portLength
	return v
}
