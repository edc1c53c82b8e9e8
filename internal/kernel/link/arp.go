package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// strangersTo asks for the address and returns the MACs other than the cluster's that anybody gave for it meanwhile. It asks twice: with an ARP
// probe (RFC 5227 section 2.1.1: sender address 0), which each host that has the address answers, and from the node's own address, if it has
// one, because a probe is answered by no proxy, as all are that have proxy_arp (arp_process in net/ipv4/arp.c). What hosts learn of the own
// address is true; of the shared one they learn nothing.
func (s *speaker) strangersTo(ctx context.Context, address, own netip.Addr, cluster clusterip.MAC) ([]clusterip.Stranger, error) {
	if err := s.conn.SetReadDeadline(answersUntil(ctx)); err != nil {
		return nil, err
	}
	for _, sender := range []netip.Addr{netip.IPv4Unspecified(), own} {
		if !sender.IsValid() {
			continue
		}
		if err := s.request(s.mac, sender, address); err != nil {
			return nil, err
		}
	}
	var strangers []clusterip.Stranger
	buffer := make([]byte, 128) // an ARP frame has 42 bytes
	for {
		n, _, err := s.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return strangers, nil
		}
		if err != nil {
			return strangers, err
		}
		mac, ok := senderOf(buffer[:n], address)
		stranger := clusterip.Stranger{Address: address, MAC: mac}
		if ok && mac != cluster && !slices.Contains(strangers, stranger) {
			strangers = append(strangers, stranger)
		}
	}
}

// ownAddressOn is the node's own IPv4 address on a NIC, the one in the network of the shared address first; not valid if there is none. The
// shared ones of all resources have scope host, or are secondary ones of an earlier version.
func (c *Conn) ownAddressOn(ctx context.Context, nicIndex int, shared netip.Addr) (netip.Addr, error) {
	all, err := c.addressesOn(ctx, &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: nicIndex}}, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	var own netip.Addr
	for _, address := range all {
		prefix, ok := prefixOf(address.IPNet)
		if !ok || prefix.Addr() == shared || address.Scope != unix.RT_SCOPE_UNIVERSE || address.Flags&unix.IFA_F_SECONDARY != 0 {
			continue
		}
		if prefix.Contains(shared) {
			return prefix.Addr(), nil
		}
		if !own.IsValid() {
			own = prefix.Addr()
		}
	}
	return own, nil
}

// senderOf returns the MAC that an ARP frame gives for the address.
func senderOf(frame []byte, address netip.Addr) (clusterip.MAC, bool) {
	var ether ethernet.Frame
	var message arp.Packet
	if ether.UnmarshalBinary(frame) != nil || ether.EtherType != ethernet.EtherTypeARP || message.UnmarshalBinary(ether.Payload) != nil {
		return clusterip.MAC{}, false
	}
	return clusterip.MACOf(message.SenderHardwareAddr), message.SenderIP == address
}

// A speaker says ARP on a NIC.
type speaker struct {
	conn *packet.Conn
	mac  clusterip.MAC // the NIC's own
}

func (c *Conn) speak(nicIndex int) (*speaker, error) {
	link, err := c.netlink.LinkByIndex(nicIndex)
	if err != nil {
		return nil, err
	}
	nic := interfaceOf(link)
	conn, err := packet.Listen(nic, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, err
	}
	return &speaker{conn: conn, mac: clusterip.MACOf(nic.HardwareAddr)}, nil
}

func (s *speaker) close() error { return s.conn.Close() }

// request broadcasts an ARP request; mac and sender are what the payload says of who asks.
func (s *speaker) request(mac clusterip.MAC, sender, target netip.Addr) error {
	nobody := make(net.HardwareAddr, len(mac))
	message, err := arp.NewPacket(arp.OperationRequest, mac[:], sender, nobody, target)
	if err != nil {
		return err
	}
	payload, err := message.MarshalBinary()
	if err != nil {
		return err
	}
	frame, err := (&ethernet.Frame{
		Destination: ethernet.Broadcast, Source: s.mac[:], EtherType: ethernet.EtherTypeARP, Payload: payload,
	}).MarshalBinary()
	if err != nil {
		return err
	}
	_, err = s.conn.WriteTo(frame, &packet.Addr{HardwareAddr: ethernet.Broadcast})
	return err
}
