// Package sockets is the way to the kernel's TCP sockets (sock_diag(7)): which clients they are connected to.
package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages, attributes and operations of inet_diag (include/uapi/linux/sock_diag.h and inet_diag.h).
const (
	messageByFamily = 20 // SOCK_DIAG_BY_FAMILY
	messageDestroy  = 21 // SOCK_DESTROY

	attrBytecode = 1 // INET_DIAG_REQ_BYTECODE
	opJump       = 1 // INET_DIAG_BC_JMP
	opLocal      = 7 // INET_DIAG_BC_S_COND
)

// Lengths of structures, in bytes.
const (
	idLength        = 48 // struct inet_diag_sockid
	messageLength   = 72 // struct inet_diag_msg
	operationLength = 4  // struct inet_diag_bc_op
	conditionLength = 8  // struct inet_diag_hostcond, without the address
)

// State is the kernel's state of a TCP socket (include/net/tcp_states.h).
type State uint8

// The states of a socket that is connected, or about to be. What is in TIME_WAIT has said everything.
const (
	Established State = 1
	SynReceived State = 3
	FinWait1    State = 4
	FinWait2    State = 5
	CloseWait   State = 8
	LastAck     State = 9
	Closing     State = 11
)

// Socket is a TCP socket.
type Socket struct {
	Local, Remote netip.AddrPort // IPv4 addresses as such, also where the socket is one for IPv6
	State         State
	Repeats       int           // how often the last packet has been sent again
	Next          time.Duration // until it is sent again, or the timer ends otherwise; only where a timer runs

	family byte
	id     []byte // by which the kernel finds just this socket
}

// Conn is a connection to the sockets of the network namespace of the calling thread.
type Conn struct{ netlink *netlink.Conn }

// Open connects.
func Open() (*Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("connect to sock_diag: %w", err)
	}
	return &Conn{netlink: c}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.netlink.Close() }

// List lists the sockets in one of the states whose local address is one of these. The kernel leaves out all others.
func (c *Conn) List(addresses []netip.Addr, states ...State) ([]Socket, error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(attrBytecode, localIsOneOf(addresses))
	filter, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	var found []Socket
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} { // a socket for IPv6 may have IPv4 clients
		answers, err := c.netlink.Execute(netlink.Message{
			Header: netlink.Header{Type: messageByFamily, Flags: netlink.Request | netlink.Dump},
			Data:   append(request(family, make([]byte, idLength), states), filter...),
		})
		if errors.Is(err, unix.ENOENT) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list the sockets: %w", err)
		}
		for _, answer := range answers {
			socket, err := parse(answer.Data)
			if err != nil {
				return nil, fmt.Errorf("list the sockets: %w", err)
			}
			found = append(found, socket)
		}
	}
	return found, nil
}

// Destroy ends a socket: its program is told that the connection was aborted, and the peer by a reset. One that is only being made is
// dropped without a word. errors.ErrUnsupported: this kernel lacks it (CONFIG_INET_DIAG_DESTROY).
func (c *Conn) Destroy(s Socket) error {
	_, err := c.netlink.Execute(netlink.Message{
		Header: netlink.Header{Type: messageDestroy, Flags: netlink.Request | netlink.Acknowledge},
		Data:   request(s.family, s.id, nil),
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("destroy the socket that is connected to %s: %w", s.Remote, err)
	}
	return nil
}

// request is a struct inet_diag_req_v2.
func request(family byte, id []byte, states []State) []byte {
	var mask uint32
	for _, state := range states {
		mask |= 1 << state
	}
	b := binary.NativeEndian.AppendUint32([]byte{family, unix.IPPROTO_TCP, 0, 0}, mask)
	return append(b, id...)
}

// localIsOneOf is a program that the kernel runs for each socket (inet_diag_bc_run in net/ipv4/inet_diag.c): one comparison for each
// address, with a jump to the end behind it. A program that ends says yes; one that goes on beyond its end says no.
func localIsOneOf(addresses []netip.Addr) []byte {
	operation := func(code byte, yes, no int) []byte {
		return binary.NativeEndian.AppendUint16([]byte{code, byte(yes)}, uint16(no))
	}
	var program []byte
	for _, address := range slices.Backward(addresses) {
		family := byte(unix.AF_INET6)
		if address.Is4() {
			family = unix.AF_INET
		}
		const anyPort = 0xffffffff
		condition := binary.NativeEndian.AppendUint32([]byte{family, byte(address.BitLen()), 0, 0}, anyPort)
		condition = append(condition, address.AsSlice()...)
		length := operationLength + len(condition)
		compare := append(operation(opLocal, length, length+operationLength), condition...)
		if len(program) > 0 {
			compare = append(compare, operation(opJump, operationLength, operationLength+len(program))...)
		}
		program = append(compare, program...)
	}
	return program
}

// parse reads a struct inet_diag_msg.
func parse(b []byte) (Socket, error) {
	if len(b) < messageLength {
		return Socket{}, fmt.Errorf("sock_diag answers with %d bytes", len(b))
	}
	const idOffset = 4
	id := b[idOffset : idOffset+idLength]
	length := net16
	if b[0] == unix.AF_INET {
		length = net4
	}
	address := func(offset int) netip.Addr {
		a, _ := netip.AddrFromSlice(id[offset : offset+length])
		return a.Unmap()
	}
	const sourceOffset, destinationOffset = 4, 20
	return Socket{
		Local:   netip.AddrPortFrom(address(sourceOffset), binary.BigEndian.Uint16(id)),
		Remote:  netip.AddrPortFrom(address(destinationOffset), binary.BigEndian.Uint16(id[2:])),
		State:   State(b[1]),
		Repeats: int(b[3]),
		Next:    time.Duration(binary.NativeEndian.Uint32(b[idOffset+idLength:])) * time.Millisecond,
		family:  b[0],
		id:      id,
	}, nil
}

// Lengths of addresses.
const (
	net4  = 4
	net16 = 16
)
