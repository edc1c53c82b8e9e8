package nftables

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
)

// fakeConn is a connection to a kernel that holds no tables, takes every batch and hands it to the test, which may refuse
// a message with an errno.
func fakeConn(t *testing.T, batch func([]netlink.Message), refuse func(netlink.Message) unix.Errno) *Conn {
	t.Helper()
	return fakeConnOfGenerations(t, func() byte { return 1 }, batch, refuse)
}

// fakeConnOfGenerations is the same with a ruleset that somebody else changes meanwhile.
func fakeConnOfGenerations(
	t *testing.T, generation func() byte, batch func([]netlink.Message), refuse func(netlink.Message) unix.Errno,
) *Conn {
	t.Helper()
	answer := func(requests []netlink.Message) ([]netlink.Message, error) {
		request := requests[0]
		if request.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN {
			return []netlink.Message{acknowledge(request, unix.ENOENT)}, nil
		}
		id, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_GEN_ID, Data: []byte{0, 0, 0, generation()}}})
		return []netlink.Message{{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, Sequence: request.Header.Sequence},
			Data:   append([]byte{0, 0, 0, 0}, id...),
		}}, err
	}
	dial := func() (socket, error) {
		return &fakeSocket{Conn: nltest.Dial(answer), taken: batch, refuse: refuse}, nil
	}
	return &Conn{dial: dial}
}

// connTo is a connection to a kernel that lists the tables that some messages have installed.
func connTo(installed []netlink.Message, batch func([]netlink.Message)) *Conn {
	return &Conn{raw: &fakeSocket{Conn: nltest.Dial(func(requests []netlink.Message) ([]netlink.Message, error) {
		request := requests[0]
		if request.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN {
			return []netlink.Message{{Header: request.Header, Data: make([]byte, nfgenmsgLength)}}, nil
		}
		names, err := netlink.UnmarshalAttributes(request.Data[nfgenmsgLength:])
		if err != nil {
			return nil, err
		}
		var replies []netlink.Message
		for _, m := range installed {
			attributes, err := netlink.UnmarshalAttributes(m.Data[nfgenmsgLength:])
			if err != nil {
				return nil, err
			}
			isOther := func(name netlink.Attribute) bool {
				return !slices.ContainsFunc(attributes, func(a netlink.Attribute) bool { return a.Type == name.Type && bytes.Equal(a.Data, name.Data) })
			}
			if m.Header.Type+1 != request.Header.Type || m.Data[0] != request.Data[0] || slices.ContainsFunc(names, isOther) {
				continue // NFT_MSG_GET… is one more than NFT_MSG_NEW…
			}
			replies = append(replies, netlink.Message{Header: netlink.Header{Type: m.Header.Type, Sequence: request.Header.Sequence}, Data: m.Data})
		}
		if len(replies) == 0 && request.Header.Flags&netlink.Dump == 0 {
			return []netlink.Message{acknowledge(request, unix.ENOENT)}, nil
		}
		if len(replies) == 0 {
			return nil, io.EOF
		}
		return replies, nil
	}), taken: batch}}
}

// fakeSocket has no deadlines, and takes a batch of any size.
type fakeSocket struct {
	*netlink.Conn
	taken            func([]netlink.Message)
	refuse           func(netlink.Message) unix.Errno
	acknowledgements []acknowledgement
	room             int   // for how many acknowledgements; 0: for any
	err              error // what the next Acknowledgement meets
}

func (*fakeSocket) SetDeadline(time.Time) error { return nil }

func (*fakeSocket) SetWriteBuffer(int) error { return nil }

func (s *fakeSocket) SendMessages(batch []netlink.Message) ([]netlink.Message, error) {
	for i := range batch {
		batch[i].Header.Sequence = uint32(i + 1)
		var errno unix.Errno
		if s.refuse != nil {
			errno = s.refuse(batch[i])
		}
		if errno == 0 && batch[i].Header.Flags&netlink.Acknowledge == 0 {
			continue
		}
		if s.room > 0 && len(s.acknowledgements) == s.room {
			s.err = unix.ENOBUFS
			continue
		}
		s.acknowledgements = append(s.acknowledgements, acknowledgement{uint32(i + 1), errno})
	}
	if s.taken != nil {
		s.taken(batch)
	}
	return batch, nil
}

func (s *fakeSocket) Acknowledgement() (acknowledgement, error) {
	if err := s.err; err != nil {
		s.err = nil
		return acknowledgement{}, err
	}
	if len(s.acknowledgements) == 0 {
		return acknowledgement{}, unix.ETIMEDOUT
	}
	next := s.acknowledgements[0]
	s.acknowledgements = s.acknowledgements[1:]
	return next, nil
}

// acknowledge is the kernel's struct nlmsgerr.
func acknowledge(request netlink.Message, errno unix.Errno) netlink.Message {
	const header = 16
	data := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	return netlink.Message{
		Header: netlink.Header{Type: netlink.Error, Sequence: request.Header.Sequence},
		Data:   append(data, make([]byte, header)...),
	}
}
