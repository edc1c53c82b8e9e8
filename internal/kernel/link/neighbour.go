package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// A ndpSpeaker says neighbour discovery on a NIC. What it sends leaves with the NIC's own MAC as the Ethernet source.
type ndpSpeaker struct {
	conn *ndp.Conn
	own  netip.Addr // that it speaks from
	nic  *net.Interface
}

// speakNDP opens a speaker: from is an address of the NIC, or ndp.LinkLocal.
func (c *Conn) speakNDP(nicIndex int, from ndp.Addr) (*ndpSpeaker, error) {
	link, err := c.netlink.LinkByIndex(nicIndex)
	if err != nil {
		return nil, err
	}
	nic := interfaceOf(link)
	conn, own, err := ndp.Listen(nic, from)
	if err != nil {
		return nil, fmt.Errorf("neighbour discovery from %s: %w", from, err)
	}
	return &ndpSpeaker{conn, own, nic}, nil
}

func interfaceOf(link netlink.Link) *net.Interface {
	a := link.Attrs()
	return &net.Interface{Index: a.Index, Name: a.Name, MTU: a.MTU, HardwareAddr: a.HardwareAddr}
}

func (s *ndpSpeaker) close() error { return s.conn.Close() }

// advertise sends an unsolicited neighbour advertisement to all nodes (RFC 4861 section 7.2.6), which overrides what they know.
func (s *ndpSpeaker) advertise(address netip.Addr, mac clusterip.MAC) error {
	return s.conn.WriteTo(&ndp.NeighborAdvertisement{
		Override: true, TargetAddress: address,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac[:]}},
	}, nil, netip.IPv6LinkLocalAllNodes())
}

// strangersTo asks who has an address, and returns the MACs of all that say so until the deadline, but for the cluster's.
func (s *ndpSpeaker) strangersTo(ctx context.Context, address netip.Addr, cluster clusterip.MAC) ([]clusterip.Stranger, error) {
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeNeighborAdvertisement)
	if err := errors.Join(s.conn.SetICMPFilter(&filter), s.conn.SetControlMessage(ipv6.FlagInterface, true), s.conn.SetReadDeadline(answersUntil(ctx))); err != nil {
		return nil, err
	}
	if err := s.solicit(address); err != nil {
		return nil, err
	}
	var strangers []clusterip.Stranger
	for {
		message, control, _, err := s.conn.ReadFrom()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return strangers, nil
		}
		if err != nil {
			return strangers, err
		}
		advertisement, ok := message.(*ndp.NeighborAdvertisement)
		elsewhere := control != nil && control.IfIndex != s.nic.Index
		if !ok || elsewhere || advertisement.TargetAddress != address {
			continue
		}
		for _, option := range advertisement.Options {
			if told, ok := option.(*ndp.LinkLayerAddress); ok {
				stranger := clusterip.Stranger{Address: address, MAC: clusterip.MACOf(told.Addr)}
				if stranger.MAC != cluster && !slices.Contains(strangers, stranger) {
					strangers = append(strangers, stranger)
				}
			}
		}
	}
}

// solicit asks all who may have an address for it.
func (s *ndpSpeaker) solicit(address netip.Addr) error {
	group, err := ndp.SolicitedNodeMulticast(address)
	if err != nil {
		return err
	}
	if nobody := netip.IPv6Unspecified(); s.own.WithZone("") == nobody {
		message, err := ndp.MarshalMessageChecksum(&ndp.NeighborSolicitation{TargetAddress: address}, nobody, group)
		if err != nil {
			return err
		}
		return s.sendFromNobody(group, message)
	}
	return s.conn.WriteTo(&ndp.NeighborSolicitation{
		TargetAddress: address,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: s.nic.HardwareAddr}},
	}, nil, group)
}

// sendFromNobody sends an ICMPv6 message to a group from the unspecified address, which no socket but a raw one can. An answer goes to all
// nodes (RFC 4861 section 7.2.4).
func (s *ndpSpeaker) sendFromNobody(group netip.Addr, message []byte) error {
	const version6, ipv6Header = 0x60, 40
	to := group.As16()
	header := make([]byte, ipv6Header) // with the source ::
	header[0], header[6], header[7] = version6, unix.IPPROTO_ICMPV6, ndp.HopLimit
	binary.BigEndian.PutUint16(header[4:], uint16(len(message)))
	copy(header[24:], to[:])
	mac := net.HardwareAddr{0x33, 0x33, to[12], to[13], to[14], to[15]} // RFC 2464 section 7
	frame, err := (&ethernet.Frame{
		Destination: mac, Source: s.nic.HardwareAddr, EtherType: ethernet.EtherTypeIPv6, Payload: append(header, message...),
	}).MarshalBinary()
	if err != nil {
		return err
	}
	conn, err := packet.Listen(s.nic, packet.Raw, unix.ETH_P_IPV6, nil)
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(frame, &packet.Addr{HardwareAddr: mac})
	return errors.Join(err, conn.Close())
}

// answersUntil is when a question's answers are no longer waited for.
func answersUntil(ctx context.Context) time.Time {
	deadline := time.Now().Add(probeWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return deadline
}
