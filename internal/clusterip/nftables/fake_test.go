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
	answer := func(requests []netlink.Message) ([]netlink.Message, error) {
		var replies []netlink.Message
		for _, request := range requests {
			switch request.Header.Type {
			case unix.NFNL_MSG_BATCH_BEGIN, unix.NFNL_MSG_BATCH_END:
				continue
			case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN:
				generation, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_GEN_ID, Data: []byte{0, 0, 0, 1}}})
				if err != nil {
					return nil, err
				}
				replies = append(replies, netlink.Message{
					Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, Sequence: request.Header.Sequence},
					Data:   append([]byte{0, 0, 0, 0}, generation...),
				})
			case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE: // none
			default:
				errno := make([]byte, 4)
				if refuse != nil {
					if e := refuse(request); e != 0 {
						binary.NativeEndian.PutUint32(errno, uint32(-int32(e)))
					}
				}
				replies = append(replies, netlink.Message{
					Header: netlink.Header{Type: netlink.Error, Sequence: request.Header.Sequence},
					Data:   append(errno, make([]byte, 16)...),
				})
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
