package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in an Ethernet frame without a VLAN tag, in bytes.
const (
	typeOffset = 12
	ipOffset   = 14
)

// A capture receives the frames of one kind that arrive on an interface, before any firewall.
type capture struct {
	*packet.Conn
	nic *net.Interface
}

// capture captures IP packets whose byte at that offset has the value.
func (c *Conn) capture(nicIndex int, etherType uint32, offset, value uint32) (*capture, error) {
	nic, err := c.netInterface(nicIndex)
	if err != nil {
		return nil, err
	}
	const reject, whole = 0, 0x40000
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeOffset, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherType, SkipTrue: 3},
		bpf.LoadAbsolute{Off: ipOffset + offset, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: 1},
		bpf.RetConstant{Val: whole},
		bpf.RetConstant{Val: reject},
	})
	if err != nil {
		return nil, fmt.Errorf("assemble a filter: %w", err)
	}
	conn, err := packet.Listen(nic, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	return &capture{conn, nic}, nil
}

// until passes frames to visit until it returns true, or the deadline, which is no error.
func (c *capture) until(deadline time.Time, visit func(frame []byte) (last bool)) error {
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	const longest = 1 << 16
	buffer := make([]byte, longest)
	for {
		n, _, err := c.ReadFrom(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case n > ipOffset && visit(buffer[:n]):
			return nil
		}
	}
}
