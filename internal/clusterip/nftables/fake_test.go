package nftables

import (
	"encoding/binary"
	"testing"

	nft "github.com/google/nftables"
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
func fakeConnOfGenerations(t *testing.T, generation func() byte, batch func([]netlink.Message), refuse func(netlink.Message) unix.Errno) *Conn {
	t.Helper()
	answer := func(requests []netlink.Message) ([]netlink.Message, error) {
		var replies []netlink.Message
		for _, request := range requests {
			switch request.Header.Type {
			case unix.NFNL_MSG_BATCH_BEGIN, unix.NFNL_MSG_BATCH_END:
				continue
			case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN:
				id, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_GEN_ID, Data: []byte{0, 0, 0, generation()}}})
				if err != nil {
					return nil, err
				}
				replies = append(replies, netlink.Message{
					Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, Sequence: request.Header.Sequence},
					Data:   append([]byte{0, 0, 0, 0}, id...),
				})
			case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE:
				replies = append(replies, acknowledge(request, unix.ENOENT))
			default:
				var errno unix.Errno
				if refuse != nil {
					errno = refuse(request)
				}
				replies = append(replies, acknowledge(request, errno))
			}
		}
		if len(requests) > 1 && batch != nil {
			batch(requests)
		}
		return replies, nil
	}
	library, err := nft.New(nft.WithTestDial(answer))
	if err != nil {
		t.Fatal(err)
	}
	return &Conn{nft: library, raw: nltest.Dial(answer)}
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
