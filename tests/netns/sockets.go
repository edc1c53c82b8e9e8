package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// The sockets of a probe. It reads no answer from them but from a capture; so they let nothing in that would pile up.
// These functions must run inside the host (Host.Do).

// SendICMP opens a socket to send ICMP.
func SendICMP() (*ipv4.PacketConn, error) {
	raw, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	return deaf(raw)
}

// SendUDP opens a socket to send datagrams from a port.
func SendUDP(from netip.AddrPort) (*ipv4.PacketConn, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(from))
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	return deaf(conn)
}

func deaf(conn net.PacketConn) (*ipv4.PacketConn, error) {
	c := ipv4.NewPacketConn(conn)
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err := errors.Join(err, c.SetBPF(nothing)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// BindTCP makes a non-blocking socket with a local address. When closed, its connection is reset, so that the port is
// free at once.
func BindTCP(local netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}))
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind to %s: %w", local, err), unix.Close(fd))
	}
	return fd, nil
}

// ConnectTCP starts a connection without waiting for it.
func ConnectTCP(fd int, remote netip.AddrPort) error {
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(remote.Port()), Addr: remote.Addr().As4()}); err != unix.EINPROGRESS {
		return err
	}
	return nil
}

// Resolve makes the host learn the MAC of a neighbour first: hundreds of packets that wait for ARP at once would not all
// find room. An address that nobody has is not an error, and one behind a router is left alone.
func (h *Host) Resolve(ctx context.Context, nic string, target netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	link, err := h.handle.LinkByName(nic)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", nic, h.Name, err)
	}
	routes, err := h.handle.RouteGet(target.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Gw != nil || routes[0].LinkIndex != link.Attrs().Index {
		return nil // what is sent will tell what is wrong
	}
	for asked := false; ; asked = true {
		neighs, err := h.handle.NeighList(link.Attrs().Index, unix.AF_INET)
		if err != nil {
			return fmt.Errorf("read the neighbours of %s: %w", h.Name, err)
		}
		known := slices.ContainsFunc(neighs, func(e netlink.Neigh) bool {
			return e.IP.Equal(target.AsSlice()) && e.State&(unix.NUD_INCOMPLETE|unix.NUD_FAILED|unix.NUD_NONE) == 0
		})
		if known {
			return nil
		}
		if !asked {
			if err := h.discard(target); err != nil {
				return err
			}
		}
		if sleep(ctx, time.Millisecond) != nil {
			return nil
		}
	}
}

// discard sends a datagram that nobody wants (port 9, RFC 863), from the host's own address.
func (h *Host) discard(target netip.Addr) error {
	return h.Do(func() error {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 9)))
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte{0})
		return errors.Join(err, conn.Close())
	})
}
