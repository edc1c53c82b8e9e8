package lan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// The sockets of a probe. It reads no answer from them but from a capture; so they let nothing in that would pile up.
// These functions must run inside the host (Host.Do).

// Sender is a socket that sends from any of the host's addresses.
type Sender interface {
	Send(b []byte, from netip.Addr, to netip.AddrPort) error
	Close() error
}

// SendICMP opens a socket to send ICMP of a target's family; ports mean nothing.
func SendICMP(target netip.Addr) (Sender, error) {
	network := "ip4:icmp"
	if target.Is6() {
		network = "ip6:ipv6-icmp"
	}
	raw, err := net.ListenIP(network, nil)
	if err != nil {
		return nil, fmt.Errorf("open an ICMP socket: %w", err)
	}
	if err := forceBuffer(raw, unix.SO_SNDBUFFORCE, 16<<20); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return sendOnly(raw, target.Is6())
}

// forceBuffer gives a socket room for the datagrams of hundreds of clients at once, some of them in fragments: a slow machine may not have
// sent or read the first one when the last one comes.
func forceBuffer(conn syscall.Conn, option, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	err = raw.Control(func(fd uintptr) { forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, size) })
	return errors.Join(err, forced)
}

// SendUDP opens a socket to send datagrams from a port, of the address's family.
func SendUDP(from netip.AddrPort) (Sender, error) {
	conn, err := net.ListenUDP("udp"+familyDigit(from.Addr()), net.UDPAddrFromAddrPort(from))
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	return sendOnly(conn, from.Addr().Is6())
}

// familyDigit is the suffix of package net's network names.
func familyDigit(address netip.Addr) string {
	if address.Is6() {
		return "6"
	}
	return "4"
}

func sendOnly(conn net.PacketConn, is6 bool) (Sender, error) {
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	var c interface {
		Sender
		SetBPF([]bpf.RawInstruction) error
	} = sender4{ipv4.NewPacketConn(conn)}
	if is6 {
		c = sender6{ipv6.NewPacketConn(conn)}
	}
	if err := errors.Join(err, c.SetBPF(nothing)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

type sender4 struct{ *ipv4.PacketConn }

func (s sender4) Send(b []byte, from netip.Addr, to netip.AddrPort) error {
	_, err := s.WriteTo(b, &ipv4.ControlMessage{Src: from.AsSlice()}, destination(s.LocalAddr(), to))
	return err
}

type sender6 struct{ *ipv6.PacketConn }

func (s sender6) Send(b []byte, from netip.Addr, to netip.AddrPort) error {
	_, err := s.WriteTo(b, &ipv6.ControlMessage{Src: from.AsSlice()}, destination(s.LocalAddr(), to))
	return err
}

// destination returns a packet's destination in the form that a socket needs.
func destination(local net.Addr, to netip.AddrPort) net.Addr {
	if _, isRaw := local.(*net.IPAddr); isRaw {
		return &net.IPAddr{IP: to.Addr().AsSlice()}
	}
	return net.UDPAddrFromAddrPort(to)
}

// BindTCP makes a non-blocking socket with a local address. When closed, its connection is reset, so that the port is
// free at once.
func BindTCP(local netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Bind(fd, sockaddr(local)))
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind to %s: %w", local, err), unix.Close(fd))
	}
	return fd, nil
}

// ConnectTCP starts a connection without waiting for it.
func ConnectTCP(fd int, remote netip.AddrPort) error {
	if err := unix.Connect(fd, sockaddr(remote)); err != unix.EINPROGRESS {
		return err
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// Resolve makes the host learn the MAC of a neighbour first: the kernel would drop some of
// hundreds of packets that wait for ARP at once. An address that no host has is not an error, and one behind a router is left alone.
func (h *Host) Resolve(ctx context.Context, nic string, target netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	link, err := h.handle.LinkByName(nic)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", nic, h.Name, err)
	}
	routes, err := h.handle.RouteGet(target.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Gw != nil || routes[0].LinkIndex != link.Attrs().Index {
		return nil // sending will fail with the reason
	}
	family := unix.AF_INET
	if target.Is6() {
		family = unix.AF_INET6
	}
	for asked := false; ; asked = true {
		neighs, err := h.handle.NeighList(link.Attrs().Index, family)
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
			if err := h.Discard(netip.Addr{}, target); err != nil {
				return err
			}
		}
		if sleep(ctx, time.Millisecond) != nil {
			return nil
		}
	}
}

// Discard sends a datagram to the discard port (9, RFC 863). The kernel chooses the source where none is given.
func (h *Host) Discard(source, target netip.Addr) error {
	return h.Do(func() error {
		from, to := netip.AddrPortFrom(source, 0), netip.AddrPortFrom(target, 9)
		conn, err := net.DialUDP("udp"+familyDigit(target), net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte{0})
		return errors.Join(err, conn.Close())
	})
}

// SetNeighbour makes the host take that MAC for an address on the LAN, for good.
func (h *Host) SetNeighbour(address netip.Addr, mac net.HardwareAddr) error {
	link, err := h.handle.LinkByName(NIC)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", NIC, h.Name, err)
	}
	return h.handle.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac,
	})
}
