package link

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// arpSocket sends and receives ARP on an interface. The client of mdlayher/arp would not do: it needs an interface with an IPv4 address,
// and its frames come from the MAC in the message.
type arpSocket struct {
	*packet.Conn
	own clusterip.MAC // the interface's own
}

func (c *Conn) openARP(nicIndex int) (*arpSocket, error) {
	nic, err := c.netInterface(nicIndex)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(nic, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, err
	}
	return &arpSocket{conn, clusterip.MACOf(nic.HardwareAddr)}, nil
}

// netInterface is an interface as the libraries for sockets take it.
func (c *Conn) netInterface(index int) (*net.Interface, error) {
	link, err := c.netlink.LinkByIndex(index)
	if err != nil {
		return nil, err
	}
	a := link.Attrs()
	return &net.Interface{Index: a.Index, Name: a.Name, MTU: a.MTU, HardwareAddr: a.HardwareAddr}, nil
}

func (s *arpSocket) advertise(address netip.Addr, mac clusterip.MAC) error {
	return s.request(mac, address, address)
}

// request broadcasts an ARP request with these sender addresses.
func (s *arpSocket) request(mac clusterip.MAC, sender, target netip.Addr) error {
	frame, err := arpRequest(s.own, mac, sender, target)
	if err != nil {
		return err
	}
	_, err = s.WriteTo(frame, &packet.Addr{HardwareAddr: ethernet.Broadcast})
	return err
}

// arpRequest is the frame of an ARP request.
func arpRequest(source, senderMAC clusterip.MAC, sender, target netip.Addr) ([]byte, error) {
	unknown := make(net.HardwareAddr, len(senderMAC))
	message, err := arp.NewPacket(arp.OperationRequest, senderMAC[:], sender, unknown, target)
	if err != nil {
		return nil, err
	}
	payload, err := message.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return (&ethernet.Frame{
		Destination: ethernet.Broadcast, Source: source[:], EtherType: ethernet.EtherTypeARP, Payload: payload,
	}).MarshalBinary()
}

// conflicts asks for the address twice: with an ARP probe (RFC 5227 section 2.1.1: sender address 0), which each host with the address
// answers, and from the node's own address, if it has one, because proxies (proxy_arp) do not answer probes (arp_process in
// net/ipv4/arp.c). Other hosts learn the own address, which is right, and nothing of the shared one.
func (s *arpSocket) conflicts(ctx context.Context, address, own netip.Addr, shared clusterip.MAC) ([]clusterip.Conflict, error) {
	if err := s.SetReadDeadline(deadlineIn(ctx, answerTime)); err != nil {
		return nil, err
	}
	for _, sender := range []netip.Addr{netip.IPv4Unspecified(), own} {
		if !sender.IsValid() {
			continue
		}
		if err := s.request(s.own, sender, address); err != nil {
			return nil, err
		}
	}
	buffer := make([]byte, 128) // an ARP frame has 42 bytes
	return collect(address, shared, func() ([]clusterip.MAC, error) {
		n, _, err := s.ReadFrom(buffer)
		return senderOf(buffer[:n], address), err
	})
}

// senderOf returns the MAC that an ARP frame contains for the address, if any.
func senderOf(frame []byte, address netip.Addr) []clusterip.MAC {
	var ether ethernet.Frame
	var message arp.Packet
	if ether.UnmarshalBinary(frame) != nil || ether.EtherType != ethernet.EtherTypeARP || message.UnmarshalBinary(ether.Payload) != nil ||
		message.SenderIP != address {
		return nil
	}
	return []clusterip.MAC{clusterip.MACOf(message.SenderHardwareAddr)}
}

// ownIPv4 is the node's own IPv4 address on an interface; not valid if there is none.
func (c *Conn) ownIPv4(ctx context.Context, nicIndex int, shared netip.Addr) (netip.Addr, error) {
	all, err := c.addressesOn(ctx, device(clusterip.NIC{Index: nicIndex}), netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	return chooseOwn(all, shared), nil
}

// chooseOwn prefers an address in the network of the shared one. The shared addresses of all resources have scope host, or are secondary
// if an admin gave them the prefix of the network.
func chooseOwn(all []netlink.Addr, shared netip.Addr) netip.Addr {
	var own netip.Addr
	for _, address := range all {
		prefix, ok := prefixOf(address.IPNet)
		if !ok || prefix.Addr() == shared || address.Scope != unix.RT_SCOPE_UNIVERSE || address.Flags&unix.IFA_F_SECONDARY != 0 {
			continue
		}
		if prefix.Contains(shared) {
			return prefix.Addr()
		}
		if !own.IsValid() {
			own = prefix.Addr()
		}
	}
	return own
}
