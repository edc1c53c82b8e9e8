package earlydrop

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/pkt_cls.h.
const (
	tcaBPFFD            = 6
	tcaBPFName          = 7
	tcaBPFFlags         = 8
	tcaBPFFlagsGen      = 9
	tcaBPFFlagActDirect = 1
	tcaCLSFlagsSkipHW   = 1
)

var native = binary.NativeEndian

// networkOrder returns a number whose bytes in memory are the value's in network order.
func networkOrder(value uint16) uint16 {
	return native.Uint16(binary.BigEndian.AppendUint16(nil, value))
}

// A message asks rtnetlink for a change.
type message struct {
	kind  netlink.HeaderType
	flags netlink.HeaderFlags
	data  []byte
}

// change sends messages in one system call, which the kernel carries out whatever happens to this process. It returns what became of each.
// (The other library for netlink does not return the kernel's words, and does not set the program that is to be replaced.)
func change(messages ...message) []error {
	errs := make([]error, len(messages))
	failed := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return failed(fmt.Errorf("connect to rtnetlink: %w", err))
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true) // without it, the kernel's error is without words
	batch := make([]netlink.Message, len(messages))
	for i, m := range messages {
		batch[i] = netlink.Message{Header: netlink.Header{Type: m.kind, Flags: netlink.Request | netlink.Acknowledge | m.flags}, Data: m.data}
	}
	if _, err := conn.SendMessages(batch); err != nil {
		return failed(err)
	}
	for i := range errs {
		_, err := conn.Receive()
		if op := (*netlink.OpError)(nil); errors.As(err, &op) && op.Message != "" {
			err = fmt.Errorf("%w: %s", op.Err, op.Message)
		}
		errs[i] = err
	}
	return errs
}

// trafficControl encodes struct tcmsg of include/uapi/linux/rtnetlink.h and attributes.
func trafficControl(nic int, handle, parent, info uint32, attributes func(*netlink.AttributeEncoder)) ([]byte, error) {
	data := make([]byte, 4, 20) //nolint:mnd // the family, padded; and its size
	for _, word := range []uint32{uint32(nic), handle, parent, info} {
		data = native.AppendUint32(data, word)
	}
	encoder := netlink.NewAttributeEncoder()
	attributes(encoder)
	encoded, err := encoder.Encode()
	if err != nil {
		return nil, err
	}
	return append(data, encoded...), nil
}
