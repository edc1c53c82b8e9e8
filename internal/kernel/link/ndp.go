package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// ndpSocket sends and receives neighbour discovery on an interface. The Ethernet source of its messages is the interface's own MAC.
type ndpSocket struct {
	*ndp.Conn
	from netip.Addr
	nic  *net.Interface
}

// openNDP opens a socket with an address of the interface, or ndp.LinkLocal or ndp.Unspecified.
func (c *Conn) openNDP(nicIndex int, from ndp.Addr) (*ndpSocket, error) {
	nic, err := c.netInterface(nicIndex)
	if err != nil {
		return nil, err
	}
	conn, address, err := ndp.Listen(nic, from)
	if err != nil {
		return nil, fmt.Errorf("neighbour discovery from %s: %w", from, err)
	}
	return &ndpSocket{conn, address, nic}, nil
}

// announce sends an unsolicited neighbour advertisement to all nodes (RFC 4861 section 7.2.6), which overrides their caches.
func (s *ndpSocket) advertise(address netip.Addr, mac clusterip.MAC) error {
	return s.WriteTo(&ndp.NeighborAdvertisement{
		Override: true, TargetAddress: address,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac[:]}},
	}, nil, netip.IPv6LinkLocalAllNodes())
}

// conflicts asks for the address, and returns the MACs of all answers until the deadline, except for the shared one.
func (s *ndpSocket) conflicts(ctx context.Context, address netip.Addr, shared clusterip.MAC) ([]clusterip.Conflict, error) {
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeNeighborAdvertisement)
	err := errors.Join(
		s.SetICMPFilter(&filter), s.SetControlMessage(ipv6.FlagInterface, true), s.SetReadDeadline(deadlineIn(ctx, answerTime)))
	if err != nil {
		return nil, err
	}
	if err := s.solicit(address); err != nil {
		return nil, err
	}
	return collect(address, shared, func() ([]clusterip.MAC, error) {
		message, control, _, err := s.ReadFrom()
		if control != nil && control.IfIndex != s.nic.Index {
			return nil, err
		}
		return advertised(message, address), err
	})
}

// advertised returns the MACs that a neighbour advertisement contains for the address.
func advertised(message ndp.Message, address netip.Addr) []clusterip.MAC {
	advertisement, ok := message.(*ndp.NeighborAdvertisement)
	if !ok || advertisement.TargetAddress != address {
		return nil
	}
	var macs []clusterip.MAC
	for _, option := range advertisement.Options {
		if link, ok := option.(*ndp.LinkLayerAddress); ok {
			macs = append(macs, clusterip.MACOf(link.Addr))
		}
	}
	return macs
}

// solicit sends a neighbour solicitation for the address.
func (s *ndpSocket) solicit(address netip.Addr) error {
	group, err := ndp.SolicitedNodeMulticast(address)
	if err != nil {
		return err
	}
	if s.from.WithZone("") == netip.IPv6Unspecified() {
		return s.solicitUnspecified(address, group)
	}
	return s.WriteTo(&ndp.NeighborSolicitation{
		TargetAddress: address,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: s.nic.HardwareAddr}},
	}, nil, group)
}

// solicitUnspecified sends a solicitation from the unspecified address, which only a packet socket can. The answer goes to all nodes (RFC
// 4861 section 7.2.4).
func (s *ndpSocket) solicitUnspecified(address, group netip.Addr) error {
	message, err := ndp.MarshalMessageChecksum(&ndp.NeighborSolicitation{TargetAddress: address}, netip.IPv6Unspecified(), group)
	if err != nil {
		return err
	}
	frame, to, err := groupFrame(s.nic.HardwareAddr, group, message)
	if err != nil {
		return err
	}
	conn, err := packet.Listen(s.nic, packet.Raw, unix.ETH_P_IPV6, nil)
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(frame, &packet.Addr{HardwareAddr: to})
	return errors.Join(err, conn.Close())
}

// groupFrame is a frame with an ICMPv6 message to a group, from the unspecified address, and the group's MAC (RFC 2464 section 7).
func groupFrame(source net.HardwareAddr, group netip.Addr, message []byte) (frame []byte, to net.HardwareAddr, err error) {
	const version6, headerLength = 0x60, 40
	address := group.As16()
	header := make([]byte, headerLength) // with the source ::
	header[0], header[6], header[7] = version6, unix.IPPROTO_ICMPV6, ndp.HopLimit
	binary.BigEndian.PutUint16(header[4:], uint16(len(message)))
	copy(header[24:], address[:])
	to = net.HardwareAddr{0x33, 0x33, address[12], address[13], address[14], address[15]}
	frame, err = (&ethernet.Frame{
		Destination: to, Source: source, EtherType: ethernet.EtherTypeIPv6, Payload: append(header, message...),
	}).MarshalBinary()
	return frame, to, err
}
