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

// The library only writes the messages. It would have each of them acknowledged, and each rule echoed, of which a socket of usual size holds
// some 148: with more, the kernel loses the rest, after it has taken the batch, and the library waits for them.

// A socket is a netlink socket of the kernel's.
type socket interface {
	Execute(request netlink.Message) ([]netlink.Message, error)
	SendMessages(batch []netlink.Message) ([]netlink.Message, error)
	// Acknowledgement reads what the kernel says of one message of a batch.
	Acknowledgement() (acknowledgement, error)
	SetDeadline(deadline time.Time) error
	SetWriteBuffer(bytes int) error
	Close() error
}

type acknowledgement struct {
	sequence uint32 // of the message that it is about
	errno    unix.Errno
}

type kernelSocket struct{ *netlink.Conn }

func dial() (socket, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	// An error repeats the message that failed, which may have 64 KiB: without it there is room for more of them.
	if err := c.SetOption(netlink.CapAcknowledge, true); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return kernelSocket{c}, nil
}

// Acknowledgement does what netlink.Conn.Receive does not: it tells which message an error is about.
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

// begin starts a batch, without what one that was given up may have left.
func (c *Conn) begin() (err error) {
	c.batch, c.buckets = nil, map[string]uint32{}
	c.nft, err = nft.New(nft.WithTestDial(func(messages []netlink.Message) ([]netlink.Message, error) {
		if len(messages) > 0 { // else the library asks for acknowledgements, and takes none for one
			c.batch = messages
		}
		return nil, nil
	}))
	return err
}

// commit sends the batch, which the kernel takes or refuses as a whole, and asks for one acknowledgement, of the last message: errors come
// in any case (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
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

// makeRoom lets a socket send so many bytes at once. The kernel needs a little more than the messages (netlink_sendmsg).
func (c *Conn) makeRoom(s socket, bytes int) error {
	const usual = 1 << 17 // fits into what a socket can hold by default
	if bytes <= usual {
		return nil
	}
	if err := s.SetWriteBuffer(2 * bytes); err != nil { //nolint:mnd // where it may not exceed net.core.wmem_max, it gets what there is
		return fmt.Errorf("make room for a batch of %d bytes: %w", bytes, err)
	}
	return nil
}

// acknowledged reads what the kernel says of a batch: it has said all of it when the batch is sent. The first error is the reason; most of
// those behind it follow from it.
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

// connection returns the socket, for which the context's deadline is set.
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

// drop gives a socket up of which a reply was lost or not awaited: the next question would get the answer to an older one.
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

// isAnswer tells whether an error is what the kernel has answered: not one of the socket's.
func isAnswer(err error) bool {
	var errno syscall.Errno
	var call *os.SyscallError
	return errors.As(err, &errno) && !errors.As(err, &call)
}

// describe says what a message does, in nft(8)'s words.
func describe(m netlink.Message) string {
	verbs := map[netlink.HeaderType]string{
		unix.NFT_MSG_NEWTABLE: "add table", unix.NFT_MSG_DELTABLE: "delete table",
		unix.NFT_MSG_NEWCHAIN: "add chain", unix.NFT_MSG_DELCHAIN: "delete chain",
		unix.NFT_MSG_NEWRULE: "add a rule to chain", unix.NFT_MSG_DELRULE: "flush chain",
		unix.NFT_MSG_NEWSET: "add set", unix.NFT_MSG_DELSET: "delete set",
		unix.NFT_MSG_NEWSETELEM: "add elements to set", unix.NFT_MSG_DELSETELEM: "delete elements of set",
	}
	const kindBits = 0xff
	kind := m.Header.Type & kindBits
	nameIn := map[netlink.HeaderType]uint16{
		unix.NFT_MSG_NEWCHAIN: unix.NFTA_CHAIN_NAME, unix.NFT_MSG_DELCHAIN: unix.NFTA_CHAIN_NAME,
		unix.NFT_MSG_NEWRULE: unix.NFTA_RULE_CHAIN, unix.NFT_MSG_DELRULE: unix.NFTA_RULE_CHAIN,
		unix.NFT_MSG_NEWSET: unix.NFTA_SET_NAME, unix.NFT_MSG_DELSET: unix.NFTA_SET_NAME,
		unix.NFT_MSG_NEWSETELEM: unix.NFTA_SET_ELEM_LIST_SET, unix.NFT_MSG_DELSETELEM: unix.NFTA_SET_ELEM_LIST_SET,
	}[kind]
	var of table
	var name, comment string
	_ = nftreply.Each([]netlink.Message{m}, func(family byte, a *netlink.AttributeDecoder) { // of our own making
		of.family = nft.TableFamily(family)
		for a.Next() {
			switch {
			case a.Type() == unix.NFTA_TABLE_NAME: // which all kinds have in the same place
				of.name = a.String()
			case nameIn != 0 && a.Type() == nameIn:
				name = " " + a.String() + " of table"
			case kind == unix.NFT_MSG_NEWRULE && a.Type() == unix.NFTA_RULE_USERDATA:
				comment = fmt.Sprintf(" (%q)", commentIn(a.Bytes()))
			}
		}
	})
	return fmt.Sprintf("%s%s %s%s", verbs[kind], name, of, comment)
}
