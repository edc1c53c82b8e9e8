package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// A kernel that does not answer in time must not hold an operation beyond its timeout.
func TestRequestsEndWithTheDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	s, err := open(ctx, clusterip.Layout{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, NICIndex: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	<-ctx.Done()
	if _, _, err := s.clients(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sockets: %v", err)
	}
	if _, err := s.tracked(false); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("conntrack entries: %v", err)
	}
}

// A kernel without the module tcp_diag lists no sockets, so nothing says that an established connection has ended.
func TestObserveWithoutSocketDiagnostics(t *testing.T) {
	const header = 16
	refused := binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENOENT)+1) // -ENOENT
	answer := func(kind netlink.HeaderType, data []byte) *netlink.Conn {
		return nltest.Dial(func(requests []netlink.Message) ([]netlink.Message, error) {
			return []netlink.Message{{Header: netlink.Header{Type: kind, Sequence: requests[0].Header.Sequence}, Data: data}}, nil
		})
	}
	for name, row := range map[string]struct {
		sockets *netlink.Conn
		isOpen  bool
	}{
		"no socket": {nltest.Dial(func([]netlink.Message) ([]netlink.Message, error) { return nil, io.EOF }), false},
		"no module": {answer(netlink.Error, append(refused, make([]byte, header)...)), true},
	} {
		s := session{
			layout:  clusterip.Layout{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}},
			table:   table{answer(messageNew, unhex(t, entry4))},
			sockets: socketTable{row.sockets},
		}
		seen, err := s.observe(false)
		if err != nil || len(seen.entries) != 1 || seen.entries[0].isOpen() != row.isOpen {
			t.Errorf("%s: %+v (%v), want open %t", name, seen.entries, err, row.isOpen)
		}
	}
}
