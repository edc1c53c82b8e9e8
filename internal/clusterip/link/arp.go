package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// probeWait is how long strangers have to answer. A host on the same LAN needs less than a millisecond.
const probeWait = 200 * time.Millisecond

// Announce broadcasts gratuitous ARP requests (RFC 5227 section 2.3). The cluster MAC is in the ARP payload only: the
// Ethernet source is the NIC's own, so that no switch learns the cluster MAC.
func (c *Conn) Announce(ctx context.Context, layout clusterip.Layout, announcements clusterip.Announcements) error {
	if announcements.Count == 0 {
		return nil
	}
	speaker, err := c.speak(layout.NICIndex)
	if err != nil {
		return fmt.Errorf("announce %s on %s: %w", layout.Address, layout.NIC, err)
	}
	defer speaker.close()
	for i := range announcements.Count {
		if i > 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("announce %s on %s: %w", layout.Address, layout.NIC, ctx.Err())
			case <-time.After(announcements.Interval):
			}
		}
		if err := speaker.request(layout.MAC, layout.Address, layout.Address); err != nil {
			return fmt.Errorf("announce %s on %s: %w", layout.Address, layout.NIC, err)
		}
	}
	return nil
}

// Strangers sends an ARP probe for the address (RFC 5227 section 2.1.1: sender address 0, so that nobody learns from it)
// and returns the MACs other than the cluster's that anybody gave for the address meanwhile.
func (c *Conn) Strangers(ctx context.Context, layout clusterip.Layout) ([]clusterip.MAC, error) {
	speaker, err := c.speak(layout.NICIndex)
	if err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", layout.Address, layout.NIC, err)
	}
	defer speaker.close()
	deadline := time.Now().Add(probeWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := speaker.conn.SetReadDeadline(deadline); err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", layout.Address, layout.NIC, err)
	}
	if err := speaker.request(speaker.mac, netip.IPv4Unspecified(), layout.Address); err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", layout.Address, layout.NIC, err)
	}
	var strangers []clusterip.MAC
	buffer := make([]byte, 128) // an ARP frame has 42 bytes
	for {
		n, _, err := speaker.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return strangers, nil
		}
		if err != nil {
			return strangers, fmt.Errorf("probe %s on %s: %w", layout.Address, layout.NIC, err)
		}
		if mac, ok := senderOf(buffer[:n], layout.Address); ok && mac != layout.MAC && !slices.Contains(strangers, mac) {
			strangers = append(strangers, mac)
		}
	}
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
	attributes := link.Attrs()
	nic := &net.Interface{Index: attributes.Index, Name: attributes.Name, MTU: attributes.MTU, HardwareAddr: attributes.HardwareAddr}
	conn, err := packet.Listen(nic, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, err
	}
	return &speaker{conn: conn, mac: clusterip.MACOf(attributes.HardwareAddr)}, nil
}

func (s *speaker) close() { _ = s.conn.Close() }

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
