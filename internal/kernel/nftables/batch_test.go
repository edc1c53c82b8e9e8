package nftables

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

func lay(layout clusterip.Layout) clusterip.InstallTables {
	return clusterip.InstallTables{Layout: layout}
}

// As many as messages would be more than a socket can hold.
func TestOneAcknowledgementIsAskedForPerBatch(t *testing.T) {
	asked, messages := 0, 0
	c := fakeConn(t, func(batch []netlink.Message) {
		messages += len(batch)
		for _, m := range batch {
			if m.Header.Flags&netlink.Acknowledge != 0 {
				asked++
			}
		}
	}, nil)
	if err := c.ApplyTables(t.Context(), lay(dualStack(clusterip.Multicast, clusterip.SourceIP))); err != nil || asked != 1 || messages < 10 {
		t.Errorf("%d acknowledgements of %d messages: %v", asked, messages, err)
	}
}

// The rest fails because of the first, or is of no interest.
func TestErrorOfABatchNamesWhatFailedOnce(t *testing.T) {
	arpRule := func(m netlink.Message) bool {
		return m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE && m.Data[0] == unix.NFPROTO_ARP
	}
	ownedSet := func(m netlink.Message) bool { return bytes.Contains(m.Data, []byte("owned\x00")) }
	const arpRuleFails = `add a rule to chain output of table arp clusterip-192.168.10.3 ` +
		`("ARP requests on other interfaces name no sender"): no such`
	for name, row := range map[string]struct {
		refuse func(netlink.Message) bool
		room   int  // of the socket, for acknowledgements
		anew   bool // a socket is opened for the next question
		says   string
	}{
		"rules":                    {arpRule, 0, false, arpRuleFails},
		"rules, and errors lost":   {arpRule, 1, true, arpRuleFails},
		"a set":                    {ownedSet, 0, false, "add set owned of table netdev clusterip-192.168.10.3: no such"},
		"all that is in the batch": {func(m netlink.Message) bool { return m.Header.Type == unix.NFNL_MSG_BATCH_BEGIN }, 0, true, "no such"},
	} {
		t.Run(name, func(t *testing.T) {
			dialled := 0
			c := fakeConn(t, nil, func(m netlink.Message) unix.Errno {
				if row.refuse(m) {
					return unix.ENOENT
				}
				return 0
			})
			dial := c.dial
			c.dial = func() (socket, error) {
				dialled++
				s, err := dial()
				s.(*fakeSocket).room = row.room //nolint:forcetypeassert // made above
				return s, err
			}
			if err := c.begin(); err != nil {
				t.Fatal(err)
			}
			if err := c.install(t.Context(), lay(dualStack(clusterip.Multicast, clusterip.SourceIP))); err != nil {
				t.Fatal(err)
			}
			err := c.commit(t.Context())
			if !errors.Is(err, unix.ENOENT) || strings.Count(err.Error(), "no such") != 1 || !strings.HasPrefix(err.Error(), row.says) {
				t.Errorf("%v", err)
			}
			if _, err := c.generation(t.Context()); err != nil {
				t.Errorf("the next question: %v", err)
			}
			if anew := dialled == 2; anew != row.anew {
				t.Errorf("%d sockets", dialled)
			}
		})
	}
}

// What was not sent is not sent with the next batch.
func TestNothingIsLeftOfABatchThatWasGivenUp(t *testing.T) {
	var sent int
	c := fakeConn(t, func(batch []netlink.Message) { sent = len(batch) }, nil)
	if err := c.begin(); err != nil {
		t.Fatal(err)
	}
	c.delete(table{name: "clusterip-192.168.10.3"})
	address := layoutFor(clusterip.Multicast, clusterip.SourceIP).Address()
	if err := c.ApplyTables(t.Context(), clusterip.ChangeBuckets{Address: address, Release: []clusterip.Bucket{1}}); err != nil {
		t.Fatal(err)
	}
	if sent != 3 {
		t.Errorf("%d messages", sent)
	}
}

// A kernel that does not answer holds the lock no longer than the operation may take.
func TestEveryQuestionIsBoundedByTheOperation(t *testing.T) {
	c := fakeConn(t, nil, nil)
	s, err := c.dial()
	if err != nil {
		t.Fatal(err)
	}
	timed := &timedSocket{socket: s}
	c.raw = timed
	deadline := time.Now().Add(time.Hour)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	if err := c.ApplyTables(ctx, lay(layoutFor(clusterip.Multicast, clusterip.SourceIP))); err != nil {
		t.Error(err)
	}
	if len(timed.asked) == 0 || slices.ContainsFunc(timed.asked, func(d time.Time) bool { return !d.Equal(deadline) }) {
		t.Errorf("asked with deadlines %v", timed.asked)
	}
	cancel()
	if _, err := c.ObserveTables(ctx, layoutFor(clusterip.Multicast, clusterip.SourceIP).Address()); !errors.Is(err, context.Canceled) {
		t.Errorf("after the operation: %v", err)
	}
}

// timedSocket notes the deadline of each question.
type timedSocket struct {
	socket
	deadline time.Time
	asked    []time.Time
}

func (s *timedSocket) SetDeadline(d time.Time) error {
	s.deadline = d
	return nil
}

func (s *timedSocket) Execute(m netlink.Message) ([]netlink.Message, error) {
	s.asked = append(s.asked, s.deadline)
	return s.socket.Execute(m)
}

func (s *timedSocket) SendMessages(batch []netlink.Message) ([]netlink.Message, error) {
	s.asked = append(s.asked, s.deadline)
	return s.socket.SendMessages(batch)
}
