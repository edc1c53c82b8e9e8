//go:build system

package nftreply

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// This kernel's replies are decoded as those that were recorded: as many, and with the same expressions.
func TestThisKernelsReplies(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the test's goroutine
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	for _, command := range []string{
		"nft -f testdata/ruleset.nft",
		"iptables-nft -A INPUT -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -m comment --comment web -j REJECT",
	} {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dump := func(message uint16, family byte, attributes ...netlink.Attribute) []netlink.Message {
		data, err := netlink.MarshalAttributes(attributes)
		if err != nil {
			t.Fatal(err)
		}
		flags := netlink.Request | netlink.Dump
		if message == unix.NFT_MSG_GETGEN {
			flags = netlink.Request
		}
		replies, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: flags},
			Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
		})
		if err != nil {
			t.Fatal(err)
		}
		return replies
	}
	sets, err := All[Set](dump(unix.NFT_MSG_GETSET, unix.NFPROTO_UNSPEC))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		var replies []netlink.Message
		if kind.message == unix.NFT_MSG_GETSETELEM {
			for _, s := range sets {
				replies = append(replies, dump(kind.message, s.Family,
					netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: append([]byte(s.Table), 0)},
					netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: append([]byte(s.Name), 0)})...)
			}
		} else {
			replies = dump(kind.message, unix.NFPROTO_UNSPEC)
		}
		if *update {
			var text strings.Builder
			for _, r := range replies {
				text.WriteString(hex.EncodeToString(r.Data) + "\n")
			}
			if err := os.WriteFile(filepath.Join("testdata", kind.name+".hex"), []byte(text.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := kind.decode(replies)
		if err != nil {
			t.Errorf("%s: %v", kind.name, err)
		}
		want, err := kind.decode(recorded(t, kind.name))
		if err != nil {
			t.Fatal(err)
		}
		// Handles, for instance, may differ.
		unknown := regexp.MustCompile(`\w+ \(unknown\)`)
		if got, want := strings.Count(got, "\n"), strings.Count(want, "\n"); got != want {
			t.Errorf("%d %s, recorded were %d", got, kind.name, want)
		}
		if got, want := unknown.FindAllString(got, -1), unknown.FindAllString(want, -1); !slices.Equal(got, want) {
			t.Errorf("unknown are %q, recorded were %q", got, want)
		}
	}
}
