package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

// A packet is the first one of a client, as far as it is known.
type packet struct {
	name     string // for people
	nic      string
	nicIndex int
	to       netip.Addr
	arp      bool
	protocol uint8 // of the transport layer
	kind     value // PACKET_*, after our own rules
	unasked  bool  // no parameter names such a service, so there may be none
	bridged  bool  // the interface is a bridge

	redirected bool // by DNAT or REDIRECT
	forwarded  bool // to another host, or a container

	link, network, transport value
}

// Types of ICMP messages.
const (
	echoRequest           = 8
	echoRequest6          = 128
	neighbourSolicitation = 135 // every node must receive them: they carry the clients' MAC addresses
)

const portLength = 2

// syn is the one flag of a client's first TCP packet.
const syn = 0x02

// protocolNumber returns the number of a protocol as iptables and the parameter services name it.
func protocolNumber(name string) (number uint8, known bool) {
	numbers := map[string]uint8{
		"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE,
		"dccp": unix.IPPROTO_DCCP, "icmp": unix.IPPROTO_ICMP, "icmpv6": unix.IPPROTO_ICMPV6, "ipv6-icmp": unix.IPPROTO_ICMPV6,
	}
	if number, known = numbers[name]; known {
		return number, true
	}
	parsed, err := strconv.ParseUint(name, 10, 8)
	return uint8(parsed), err == nil
}

// packets returns those that must reach the node: of each service, or, when all is shared, a connection, a datagram and a ping; and the
// ones by which clients and the node find each other.
func packets(layout clusterip.Layout, bridged bool) []packet {
	var all []packet
	shared := layout.Services
	if len(shared) == 0 {
		shared = []services.Service{{Protocol: "tcp"}, {Protocol: "udp"}, services.ICMP}
	}
	for _, address := range layout.Addresses() {
		add := func(name string, p packet, port uint16, icmpType byte) {
			p.name, p.to, p.nic, p.nicIndex, p.bridged = name+address.String(), address, layout.NIC, layout.NICIndex, bridged
			p.fill(layout.MACs.Of(address), layout.Backend, icmpType)
			p.setPort(port)
			all = append(all, p)
		}
		for _, s := range shared {
			p := packet{unasked: len(layout.Services) == 0 && s.Protocol != "tcp"}
			p.protocol, _ = protocolNumber(s.Protocol)
			switch {
			case s == services.ICMP && address.Is4():
				add("ping to ", p, 0, echoRequest)
			case s == services.ICMP:
				p.protocol = unix.IPPROTO_ICMPV6
				add("ping to ", p, 0, echoRequest6)
			case s.First == 0:
				add(s.Protocol+" to ", p, 0, 0)
			case s.First == s.Last:
				add(s.String()+" to ", p, s.First, 0)
			default:
				add(s.String()+" to ", p, 0, 0)
			}
		}
		if address.Is6() {
			add("neighbour discovery to ", packet{protocol: unix.IPPROTO_ICMPV6}, 0, neighbourSolicitation)
		} else {
			add("ARP requests for ", packet{arp: true}, 0, 0)
		}
	}
	return all
}

// fill builds the headers.
func (p *packet) fill(mac clusterip.MAC, backend clusterip.Backend, icmpType byte) {
	const toBroadcast, toMulticast = 1, 2
	p.kind = exactly(0) // our rules for ingress make it so; the other backends have no such rules
	switch {
	case p.arp:
		p.kind = exactly(toBroadcast)
	case backend != clusterip.NFTables && mac.Group():
		p.kind = exactly(toMulticast)
	}
	const linkLength, ipv4Length, ipv6Length, arpLength, transportLength = 14, 20, 40, 28, 20
	etherType := map[byte]uint16{unix.NFPROTO_ARP: unix.ETH_P_ARP, unix.NFPROTO_IPV4: unix.ETH_P_IP, unix.NFPROTO_IPV6: unix.ETH_P_IPV6}
	p.link = ofClient(linkLength)
	p.link.set(0, mac[:]...)
	p.link.set(12, bigEndian(etherType[p.family()])...)
	p.transport = unknown(transportLength)
	switch p.family() {
	case unix.NFPROTO_ARP:
		p.link.set(0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		p.network = ofClient(arpLength)
		p.network.set(0, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, a request (RFC 826)
	case unix.NFPROTO_IPV4:
		p.network = ofClient(ipv4Length)
		p.network.set(0, 0x45)
		p.network.set(6, 0, 0)
		p.network[6].known &^= 0x40 // no fragment, but it may carry DF
		p.network.set(9, p.protocol)
	case unix.NFPROTO_IPV6:
		p.network = ofClient(ipv6Length)
		p.network[0].bits, p.network[0].known = 0x60, 0xf0
		p.network.set(6, p.protocol)
	}
	p.setDestination(exactly(p.to.AsSlice()...))
	copy(p.transport, ofClient(portLength))
	switch p.protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		p.transport.set(0, icmpType, 0)
	case unix.IPPROTO_TCP:
		p.transport.set(13, syn)
	}
}

// setDestination sets the address to which the packet goes: the last field of all these headers.
func (p *packet) setDestination(v value) { copy(p.network[len(p.network)-len(v):], v) }

// setPort sets the destination port, if it is known.
func (p *packet) setPort(port uint16) {
	if port > 0 {
		p.transport.set(portLength, bigEndian(port)...)
	}
}

func bigEndian(number uint16) []byte { return binary.BigEndian.AppendUint16(nil, number) }

// redirect sends the packet elsewhere. It returns false if it is not known where.
func (p *packet) redirect(to destination, isLocal func(netip.Addr) bool) bool {
	if !to.here && (!to.host.IsValid() || to.host.Is4() != p.to.Is4()) {
		return false
	}
	p.redirected = true
	p.network, p.transport = slices.Clone(p.network), slices.Clone(p.transport)
	if to.here { // it gets an address of the interface
		p.setDestination(unknown(len(p.to.AsSlice())))
	} else {
		p.to, p.forwarded = to.host, !isLocal(to.host)
		p.setDestination(exactly(to.host.AsSlice()...))
	}
	p.setPort(to.port)
	return true
}

func (p packet) family() byte {
	switch {
	case p.arp:
		return unix.NFPROTO_ARP
	case p.to.Is4():
		return unix.NFPROTO_IPV4
	default:
		return unix.NFPROTO_IPV6
	}
}

// asksFor judges a condition about the destination port.
func (p packet) asksFor(first, last uint16) match {
	return p.transport.part(portLength, portLength).in(span{first: bigEndian(first), last: bigEndian(last)})
}
