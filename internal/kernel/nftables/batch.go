package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/kernel/nftreply"
)

// google/nftables only writes the messages. It would request an acknowledgement of each message and an echo of each rule. A socket's usual
// buffer holds about 148 of them: the kernel would lose the rest, after it has accepted the batch, and the library would wait for them.

// A socket is a netlink socket.
type socket interface {
	Execute(request netlink.Message) ([]netlink.Message, error)
	SendMessages(batch []netlink.Message) ([]netlink.Message, error)
	// Acknowledgement reads the kernel's reply to one message of a batch.
	Acknowledgement() (acknowledgement, error)
	SetDeadline(deadline time.Time) error
	SetWriteBuffer(bytes int) error
	Close() error
}

type acknowledgement struct {
	sequence uint32 // of the message
	errno    unix.Errno
}

type kernelSocket struct{ *netlink.Conn }

func dial() (socket, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	// An error would repeat the message that failed, of up to 64 KiB. Without it, more errors fit into the socket's buffer.
	if err := c.SetOption(netlink.CapAcknowledge, true); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return kernelSocket{c}, nil
}

// Acknowledgement returns which message an error is about, unlike netlink.Conn.Receive.
func (s kernelSocket) Acknowledgement() (acknowledgement, error) {
	const headerLength = 16 // struct nlmsghdr and the number behind it: struct nlmsgerr, include/uapi/linux/netlink.h
	raw, err := s.SyscallConn()
	if err != nil {
		return acknowledgement{}, err
	}
	message := make([]byte, headerLength+4) //nolint:mnd // the rest of it is cut off
	var length int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		length, _, readErr = unix.Recvfrom(int(fd), message, unix.MSG_DONTWAIT)
		return !errors.Is(readErr, unix.EAGAIN)
	})
	if err = errors.Join(err, os.NewSyscallError("recvfrom", readErr)); err != nil {
		return acknowledgement{}, err
	}
	if kind := binary.NativeEndian.Uint16(message[4:]); length < len(message) || kind != unix.NLMSG_ERROR {
		return acknowledgement{}, fmt.Errorf("a reply of type %d and %d bytes to a batch", kind, length)
	}
	return acknowledgement{
		sequence: binary.NativeEndian.Uint32(message[8:]),
		errno:    unix.Errno(-int32(binary.NativeEndian.Uint32(message[headerLength:]))),
	}, nil
}

// begin starts an empty batch.
func (c *Conn) begin() (err error) {
	c.batch, c.types = nil, map[string][]byte{}
	c.nft, err = nft.New(nft.WithTestDial(func(messages []netlink.Message) ([]netlink.Message, error) {
		if len(messages) > 0 { // else the library reads acknowledgements, of which there are none
			c.batch = messages
		}
		return nil, nil
	}))
	return err
}

// commit sends the batch, which is one transaction, and requests one acknowledgement, of the last message. Errors come in any case
// (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
func (c *Conn) commit(ctx context.Context) error {
	if err := c.nft.Flush(); err != nil {
		return err
	}
	if len(c.batch) == 0 {
		return nil
	}
	if err := c.addTypes(); err != nil {
		return err
	}
	batch := slices.Clone(c.batch)
	size := 0
	for i := range batch {
		batch[i].Header.Sequence, batch[i].Header.PID = 0, 0 // for the socket to choose
		batch[i].Header.Flags &^= netlink.Acknowledge | netlink.Echo
		size += len(batch[i].Data)
	}
	batch[len(batch)-2].Header.Flags |= netlink.Acknowledge // behind it is only the mark of the end
	s, err := c.connection(ctx)
	if err != nil {
		return err
	}
	if err := c.makeRoom(s, size); err != nil {
		return err
	}
	batch, err = s.SendMessages(batch)
	if err != nil {
		c.drop()
		return fmt.Errorf("send a batch of %d bytes to nf_tables: %w", size, err)
	}
	return c.acknowledged(s, batch)
}

// makeRoom enlarges the socket's buffer for so many bytes in one batch. The kernel needs a little more than the messages (netlink_sendmsg).
func (c *Conn) makeRoom(s socket, bytes int) error {
	const usual = 1 << 17 // fits into what a socket can hold by default
	if bytes <= usual {
		return nil
	}
	if err := s.SetWriteBuffer(2 * bytes); err != nil { //nolint:mnd // without privilege, at most net.core.wmem_max
		return fmt.Errorf("make room for a batch of %d bytes: %w", bytes, err)
	}
	return nil
}

// acknowledged reads the kernel's replies to a batch, which are complete when the batch is sent. The first error is the cause: most others
// follow from it.
func (c *Conn) acknowledged(s socket, batch []netlink.Message) error {
	begin, last := batch[0].Header.Sequence, batch[len(batch)-2].Header.Sequence
	var failed error
	for lost := false; ; {
		a, err := s.Acknowledgement()
		if errors.Is(err, unix.ENOBUFS) && !lost { // of many errors the first ones are there
			lost = true
			continue
		}
		if err != nil {
			c.drop()
			return fmt.Errorf("read whether nf_tables has taken a batch: %w", err)
		}
		if a.errno != 0 && failed == nil {
			failed = a.errno
			if i := slices.IndexFunc(batch, func(m netlink.Message) bool { return m.Header.Sequence == a.sequence }); i > 0 {
				failed = fmt.Errorf("%s: %w", describe(batch[i]), a.errno)
			}
		}
		if lost || a.errno != 0 && a.sequence == begin { // the last one may never come
			c.drop()
			return failed
		}
		if a.sequence == last {
			return failed
		}
	}
}

// connection returns the socket, with the deadline of the context.
func (c *Conn) connection(ctx context.Context) (socket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.raw == nil && c.err == nil {
		raw, err := c.dial()
		if err != nil {
			return nil, fmt.Errorf("connect to nf_tables: %w", err)
		}
		c.raw = raw
	}
	if c.raw == nil {
		return nil, c.err
	}
	deadline, _ := ctx.Deadline() // without one: never
	return c.raw, c.raw.SetDeadline(deadline)
}

// drop closes a socket of which a reply was lost or not read: the next request would get the reply to an older one.
func (c *Conn) drop() {
	_ = c.raw.Close()
	c.raw = nil
}

// execute sends a request and returns the replies.
func (c *Conn) execute(ctx context.Context, request netlink.Message) ([]netlink.Message, error) {
	s, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	replies, err := s.Execute(request)
	if err != nil && !isAnswer(err) {
		c.drop()
	}
	return replies, err
}

// isAnswer reports whether an error is the kernel's reply, not one of the socket.
func isAnswer(err error) bool {
	var errno syscall.Errno
	var call *os.SyscallError
	return errors.As(err, &errno) && !errors.As(err, &call)
}

// describe names what a message does, in the words of nft(8).
func describe(m netlink.Message) string {
	const kindBits = 0xff
	kind := m.Header.Type & kindBits
	does := map[netlink.HeaderType]struct {
		verb string
		name uint16 // the attribute with the name of what it changes in the table
	}{
		unix.NFT_MSG_NEWTABLE: {verb: "add table"}, unix.NFT_MSG_DELTABLE: {verb: "delete table"},
		unix.NFT_MSG_NEWCHAIN:   {"add chain", unix.NFTA_CHAIN_NAME},
		unix.NFT_MSG_DELCHAIN:   {"delete chain", unix.NFTA_CHAIN_NAME},
		unix.NFT_MSG_NEWRULE:    {"add a rule to chain", unix.NFTA_RULE_CHAIN},
		unix.NFT_MSG_DELRULE:    {"flush chain", unix.NFTA_RULE_CHAIN},
		unix.NFT_MSG_NEWSET:     {"add set", unix.NFTA_SET_NAME},
		unix.NFT_MSG_DELSET:     {"delete set", unix.NFTA_SET_NAME},
		unix.NFT_MSG_NEWSETELEM: {"add elements to set", unix.NFTA_SET_ELEM_LIST_SET},
		unix.NFT_MSG_DELSETELEM: {"delete elements of set", unix.NFTA_SET_ELEM_LIST_SET},
	}[kind]
	var of table
	var name, comment string
	_ = nftreply.Each([]netlink.Message{m}, func(family byte, a *netlink.AttributeDecoder) { // we have made it
		of.family = nft.TableFamily(family)
		for a.Next() {
			switch {
			case a.Type() == unix.NFTA_TABLE_NAME: // in all kinds of messages the same attribute
				of.name = a.String()
			case does.name != 0 && a.Type() == does.name:
				name = " " + a.String() + " of table"
			case kind == unix.NFT_MSG_NEWRULE && a.Type() == unix.NFTA_RULE_USERDATA:
				comment = fmt.Sprintf(" (%q)", commentIn(a.Bytes()))
			}
		}
	})
	return fmt.Sprintf("%s%s %s%s", does.verb, name, of, comment)
}
