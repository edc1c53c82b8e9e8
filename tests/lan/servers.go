package lan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Serve starts a server on every node, which ends with the network.
func (n *Network) Serve(port uint16) error {
	for _, h := range n.Nodes {
		if err := h.Serve(port); err != nil {
			return err
		}
	}
	return nil
}

// Serve answers on a UDP and a TCP port of every address that the host has or will have. A datagram comes back with
// the host's name behind it, from the address it was sent to. A connection begins with a line that holds the name;
// then everything comes back as it was sent.
func (h *Host) Serve(port uint16) error {
	s := newServer(h.Name)
	if err := h.Do(func() error { return s.listen(port) }); err != nil {
		return fmt.Errorf("serve port %d on %s: %w", port, h.Name, errors.Join(err, s.Close()))
	}
	s.start()
	h.servers = append(h.servers, s)
	return nil
}

// Serve does what Host.Serve does, under that name, in the network namespace that the caller is in, until ctx ends. It is
// for a process of its own inside a host; ready, when not nil, is called when questions are answered.
func Serve(ctx context.Context, name string, port uint16, ready func()) error {
	s := newServer(name)
	if err := s.listen(port); err != nil {
		return fmt.Errorf("serve port %d: %w", port, errors.Join(err, s.Close()))
	}
	s.start()
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	return s.Close()
}

const (
	maxConns  = 4096             // at a time; what is beyond is closed at once
	idleLimit = 10 * time.Minute // for a connection whose client has ended without closing it
)

type server struct {
	name    string
	udp     []*net.UDPConn
	answers []func([]byte) error // reads a datagram into the buffer, and answers it from the address that was asked
	tcp     []*net.TCPListener
	running sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

func newServer(name string) *server { return &server{name: name, conns: map[net.Conn]bool{}} }

// listen opens the sockets in the network namespace of the calling thread, for both families where there are both.
func (s *server) listen(port uint16) error {
	if err := s.listenOn(netip.AddrPortFrom(netip.IPv4Unspecified(), port)); err != nil {
		return err
	}
	err := s.listenOn(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}

func (s *server) listenOn(local netip.AddrPort) error {
	digit := familyDigit(local.Addr())
	udp, err := net.ListenUDP("udp"+digit, net.UDPAddrFromAddrPort(local))
	if err != nil {
		return err
	}
	s.udp = append(s.udp, udp)
	if err := forceBuffer(udp, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		return err
	}
	tcp, err := net.ListenTCP("tcp"+digit, net.TCPAddrFromAddrPort(local))
	if err != nil {
		return err
	}
	s.tcp = append(s.tcp, tcp)
	if local.Addr().Is6() {
		c := ipv6.NewPacketConn(udp)
		s.answers = append(s.answers, s.answer6(c))
		return c.SetControlMessage(ipv6.FlagDst, true)
	}
	c := ipv4.NewPacketConn(udp)
	s.answers = append(s.answers, s.answer4(c))
	return c.SetControlMessage(ipv4.FlagDst, true)
}

// If the address has gone meanwhile, no answer can be sent, as on a real node.

func (s *server) answer4(c *ipv4.PacketConn) func([]byte) error {
	return func(buf []byte) error {
		n, cm, from, err := c.ReadFrom(buf)
		if err == nil && cm != nil {
			_, _ = c.WriteTo(append(buf[:n:n], " "+s.name...), &ipv4.ControlMessage{Src: cm.Dst}, from)
		}
		return err
	}
}

func (s *server) answer6(c *ipv6.PacketConn) func([]byte) error {
	return func(buf []byte) error {
		n, cm, from, err := c.ReadFrom(buf)
		if err == nil && cm != nil {
			_, _ = c.WriteTo(append(buf[:n:n], " "+s.name...), &ipv6.ControlMessage{Src: cm.Dst}, from)
		}
		return err
	}
}

func (s *server) start() {
	for _, answer := range s.answers {
		s.running.Go(func() {
			buf := make([]byte, 1<<16)
			for !errors.Is(answer(buf), net.ErrClosed) { // other errors are ICMP's about an earlier answer
			}
		})
	}
	for _, listener := range s.tcp {
		s.running.Go(func() { s.serveTCP(listener) })
	}
}

func (s *server) serveTCP(listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of files; shows as flows without an answer
			continue
		}
		if !s.add(conn) {
			continue
		}
		s.running.Go(func() {
			defer s.remove(conn)
			s.echo(conn)
		})
	}
}

// echo names the server, and sends everything back until the client ends it. Not with io.Copy: that takes a pipe for each
// connection (splice), and the many short ones cost more than they should.
func (s *server) echo(conn net.Conn) {
	buf := make([]byte, 4<<10)
	n, err := copy(buf, s.name+"\n"), error(nil)
	for err == nil {
		if _, err = conn.Write(buf[:n]); err != nil {
			return
		}
		if err = conn.SetReadDeadline(time.Now().Add(idleLimit)); err == nil {
			n, err = conn.Read(buf)
		}
	}
}

// add keeps a connection to be closed with the server, and refuses it when that is over or there are too many.
func (s *server) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConns {
		_ = conn.Close()
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *server) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	_ = conn.Close()
}

// Close ends the server and its connections, and waits for them.
func (s *server) Close() error {
	var errs []error
	for _, udp := range s.udp {
		errs = append(errs, udp.Close())
	}
	for _, tcp := range s.tcp {
		errs = append(errs, tcp.Close())
	}
	s.mu.Lock()
	s.closed = true
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return errors.Join(errs...)
}

// Dial opens a TCP connection from an address and port of the host (zero: any).
func (h *Host) Dial(ctx context.Context, from, to netip.AddrPort) (*net.TCPConn, error) {
	var conn *net.TCPConn
	err := h.Do(func() (err error) {
		var d net.Dialer
		conn, err = d.DialTCP(ctx, "tcp"+familyDigit(to.Addr()), from, to)
		return err
	})
	return conn, err
}
