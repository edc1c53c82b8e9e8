package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socketTable is the way to the TCP sockets (sock_diag(7)). vishvananda/netlink reads them too, but all of them: it leaves no filter to
// the kernel.
type socketTable struct{ *netlink.Conn }

// socket is a TCP socket. The kernel's states of a socket (include/net/tcp_states.h) are in x/sys as those of BPF.
type socket struct {
	local, remote netip.AddrPort // IPv4 addresses as such, also where the socket is one for IPv6
	state         uint8          // unix.BPF_TCP_*
	repeats       int            // how often the last packet was repeated
	next          time.Duration  // until it is repeated, or the timer ends otherwise; only while a timer runs

	family byte
	id     []byte // struct inet_diag_sockid, by which the kernel finds just this socket
}

// socketStates are the states of a socket whose connection may still carry data, with conntrack's state of the same connection. After the
// client has closed its side (CLOSE_WAIT), the program may still send an answer.
var socketStates = map[uint8]uint8{
	unix.BPF_TCP_ESTABLISHED: nl.TCP_CONNTRACK_ESTABLISHED,
	unix.BPF_TCP_FIN_WAIT1:   nl.TCP_CONNTRACK_FIN_WAIT,
	unix.BPF_TCP_FIN_WAIT2:   nl.TCP_CONNTRACK_FIN_WAIT,
	unix.BPF_TCP_CLOSE_WAIT:  nl.TCP_CONNTRACK_CLOSE_WAIT,
	unix.BPF_TCP_LAST_ACK:    nl.TCP_CONNTRACK_LAST_ACK,
	unix.BPF_TCP_CLOSING:     nl.TCP_CONNTRACK_LAST_ACK,
}

// tuple is the direction of the client's packets as they reach the socket.
func (s socket) tuple() tuple { return tuple{unix.IPPROTO_TCP, s.remote, s.local} }

// list lists the sockets in one of the states whose local address is one of these. The kernel leaves out all others. A kernel without the
// module tcp_diag lists none, and answered is false.
func (t socketTable) list(addresses []netip.Addr, states ...uint8) (found []socket, answered bool, err error) {
	const attrBytecode = 1 // INET_DIAG_REQ_BYTECODE
	if len(addresses) == 0 {
		return nil, true, nil
	}
	filter := attribute(attrBytecode, localIsOneOf(addresses))
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} { // a socket for IPv6 may have IPv4 clients
		answers, err := t.Execute(netlink.Message{
			Header: netlink.Header{Type: nl.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   append(socketRequest(family, make([]byte, idLength), states), filter...),
		})
		if errors.Is(err, unix.ENOENT) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, false, fmt.Errorf("list the TCP sockets: %w", err)
		}
		answered = true
		for _, answer := range answers {
			one, err := decodeSocket(answer.Data)
			if err != nil {
				return nil, false, fmt.Errorf("list the TCP sockets: %w", err)
			}
			found = append(found, one)
		}
	}
	return found, answered, nil
}

// destroy ends a socket, if the kernel can (CONFIG_INET_DIAG_DESTROY): its program gets ECONNABORTED, and the peer a reset. A socket with
// an incomplete handshake goes without a reset.
func (t socketTable) destroy(s socket) error {
	_, err := t.Execute(netlink.Message{
		Header: netlink.Header{Type: nl.SOCK_DESTROY, Flags: netlink.Request | netlink.Acknowledge},
		Data:   socketRequest(s.family, s.id, nil),
	})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("destroy the socket that is connected to %s: %w", s.remote, err)
	}
	return nil
}

// Lengths of structures in include/uapi/linux/inet_diag.h, in bytes.
const (
	idLength        = 48 // struct inet_diag_sockid
	messageLength   = 72 // struct inet_diag_msg
	operationLength = 4  // struct inet_diag_bc_op
)

// socketRequest is a struct inet_diag_req_v2.
func socketRequest(family byte, id []byte, states []uint8) []byte {
	var mask uint32
	for _, state := range states {
		mask |= 1 << state
	}
	b := binary.NativeEndian.AppendUint32([]byte{family, unix.IPPROTO_TCP, 0, 0}, mask)
	return append(b, id...)
}

// localIsOneOf is a program that the kernel runs for each socket (inet_diag_bc_run in net/ipv4/inet_diag.c): for each address one
// comparison, and behind it a jump to the end. A program that ends exactly at its end accepts the socket; one that jumps beyond it does
// not.
func localIsOneOf(addresses []netip.Addr) []byte {
	const jump, localCondition, anyPort = 1, 7, 0xffffffff // INET_DIAG_BC_JMP, INET_DIAG_BC_S_COND
	operation := func(code byte, yes, no int) []byte {
		return binary.NativeEndian.AppendUint16([]byte{code, byte(yes)}, uint16(no))
	}
	var program []byte
	for _, address := range slices.Backward(addresses) {
		condition := []byte{familyOf(address), byte(address.BitLen()), 0, 0} // struct inet_diag_hostcond
		condition = binary.NativeEndian.AppendUint32(condition, anyPort)
		condition = append(condition, address.AsSlice()...)
		length := operationLength + len(condition)
		compare := append(operation(localCondition, length, length+operationLength), condition...)
		if len(program) > 0 {
			compare = append(compare, operation(jump, operationLength, operationLength+len(program))...)
		}
		program = append(compare, program...)
	}
	return program
}

// decodeSocket decodes a struct inet_diag_msg. Its struct inet_diag_sockid has the ports first, then the addresses, in 16 bytes each.
func decodeSocket(b []byte) (socket, error) {
	const idOffset, timerOffset, sourceOffset, destinationOffset = 4, 52, 4, 20
	if len(b) < messageLength {
		return socket{}, fmt.Errorf("sock_diag: a message of %d bytes", len(b))
	}
	id := b[idOffset : idOffset+idLength]
	address := func(offset int) netip.Addr {
		if b[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(id[offset:]))
		}
		return netip.AddrFrom16([16]byte(id[offset:])).Unmap()
	}
	return socket{
		local:   netip.AddrPortFrom(address(sourceOffset), binary.BigEndian.Uint16(id)),
		remote:  netip.AddrPortFrom(address(destinationOffset), binary.BigEndian.Uint16(id[2:])),
		state:   b[1],
		repeats: int(b[3]),
		next:    time.Duration(binary.NativeEndian.Uint32(b[timerOffset:])) * time.Millisecond,
		family:  b[0],
		id:      id,
	}, nil
}
