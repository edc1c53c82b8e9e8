package nftables

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

var update = flag.Bool("update", false, "rewrite testdata/schema-N from what this version lays; only for a new schema")

// layoutFor is what is laid in the tests: on the first NIC of a new namespace.
func layoutFor(macMode clusterip.MACMode, hashMode clusterip.HashMode) clusterip.Layout {
	prefix := netip.MustParsePrefix("192.168.10.3/24")
	return clusterip.Layout{
		Schema: 1, Resource: "web-ip", Prefixes: []netip.Prefix{prefix}, NIC: "eth0", NICIndex: 2,
		Backend: clusterip.NFTables, MACMode: macMode, MACs: clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.DerivedMAC(macMode, prefix.Addr())},
		HashMode: hashMode, HashCompat: clusterip.XTCluster, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128}, Seed: 0x9e3779b9, Buckets: 8,
	}
}

// dualStack is the same with all that schema 2 knows.
func dualStack(macMode clusterip.MACMode, hashMode clusterip.HashMode) clusterip.Layout {
	layout := layoutFor(macMode, hashMode)
	layout.Schema = 2
	for _, more := range []string{"192.168.10.4/24", "2001:db8:10::3/64", "2001:db8:10::4/64"} {
		layout.Prefixes = append(layout.Prefixes, netip.MustParsePrefix(more))
	}
	layout.MACs.IPv6 = layout.MACs.IPv4
	if macMode == clusterip.IGMP {
		layout.MACs.IPv6 = clusterip.DerivedMAC(macMode, netip.MustParseAddr("2001:db8:10::3"))
	}
	layout.HashPrefixes = clusterip.PerFamily[int]{IPv4: 24, IPv6: 64}
	layout.Services = []ocf.Service{{Protocol: "tcp", First: 80, Last: 80}, {Protocol: "tcp", First: 5000, Last: 65535}, {Protocol: "udp", First: 53, Last: 53}, ocf.ICMP}
	return layout
}

// likeTheTarget agrees with old nodes.
func likeTheTarget(macMode clusterip.MACMode, hashMode clusterip.HashMode) clusterip.Layout {
	layout := dualStack(macMode, hashMode)
	layout.Schema, layout.HashCompat = 3, clusterip.ClusterIP
	if clusterip.ZeroSeedFits(hashMode) {
		layout.Seed = 0
	}
	return layout
}

// draining keeps connections when buckets move.
func draining(layout clusterip.Layout) clusterip.Layout {
	layout.Schema, layout.Drains = 4, true
	return layout
}

// bridged does so on a bridge.
func bridged(layout clusterip.Layout) clusterip.Layout {
	layout.Bridged = true
	return layout
}

// onBond is on a bond that asks by ARP.
func onBond(layout clusterip.Layout) clusterip.Layout {
	layout.Ports = []int{3, 4}
	return layout
}

// newest has what all layouts have since schema 5.
func newest(layout clusterip.Layout) clusterip.Layout {
	layout.Schema = 5
	return layout
}

// onlyIPv6 has but an IPv6 address.
func onlyIPv6(macMode clusterip.MACMode, hashMode clusterip.HashMode) clusterip.Layout {
	layout := layoutFor(macMode, hashMode)
	layout.Schema = 2
	layout.Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:10::3/64")}
	layout.MACs = clusterip.PerFamily[clusterip.MAC]{IPv6: clusterip.DerivedMAC(macMode, layout.Address())}
	return layout
}

// allLayouts has every kind of tables that this version lays, by the name of its file in testdata.
func allLayouts() map[string]clusterip.Layout {
	layouts := map[string]clusterip.Layout{}
	for _, macMode := range clusterip.MACModes() {
		for _, hashMode := range clusterip.HashModes() {
			layouts[fmt.Sprintf("schema-1-%s-%s.hex", macMode, hashMode)] = layoutFor(macMode, hashMode)
			layouts[fmt.Sprintf("schema-2-dual-stack-%s-%s.hex", macMode, hashMode)] = dualStack(macMode, hashMode)
			layouts[fmt.Sprintf("schema-3-%s-%s.hex", macMode, hashMode)] = likeTheTarget(macMode, hashMode)
			layouts[fmt.Sprintf("schema-4-%s-%s.hex", macMode, hashMode)] = draining(layoutFor(macMode, hashMode))
			layouts[fmt.Sprintf("schema-4-dual-stack-%s-%s.hex", macMode, hashMode)] = draining(dualStack(macMode, hashMode))
			layouts[fmt.Sprintf("schema-5-%s-%s.hex", macMode, hashMode)] = newest(layoutFor(macMode, hashMode))
			layouts[fmt.Sprintf("schema-5-like-the-target-%s-%s.hex", macMode, hashMode)] = newest(likeTheTarget(macMode, hashMode))
			layouts[fmt.Sprintf("schema-5-on-a-bond-%s-%s.hex", macMode, hashMode)] = onBond(newest(layoutFor(macMode, hashMode)))
			layouts[fmt.Sprintf("schema-5-ipv6-%s-%s.hex", macMode, hashMode)] = newest(onlyIPv6(macMode, hashMode))
			layouts[fmt.Sprintf("schema-5-draining-%s-%s.hex", macMode, hashMode)] = newest(draining(dualStack(macMode, hashMode)))
			layouts[fmt.Sprintf("schema-5-bridged-%s-%s.hex", macMode, hashMode)] = bridged(newest(draining(dualStack(macMode, hashMode))))
			layouts[fmt.Sprintf("schema-2-ipv6-%s-%s.hex", macMode, hashMode)] = onlyIPv6(macMode, hashMode)
		}
	}
	return layouts
}

// recorded returns the messages between the two marks of a batch, as lines of type, flags and data. They were recorded when each asked for
// an acknowledgement, and each rule for an echo.
func recorded(requests []netlink.Message) string {
	var text strings.Builder
	for _, r := range requests {
		flags := r.Header.Flags | netlink.Acknowledge
		switch r.Header.Type {
		case unix.NFNL_MSG_BATCH_BEGIN, unix.NFNL_MSG_BATCH_END:
			continue
		case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE:
			flags |= netlink.Echo
		}
		fmt.Fprintf(&text, "%04x %04x %s\n", uint16(r.Header.Type), uint16(flags), hex.EncodeToString(r.Data))
	}
	return text.String()
}

// What a schema means may never change: older programs laid it, and newer ones must find it as it should be.
func TestSchemaIsLaidAsRecorded(t *testing.T) {
	for name, layout := range allLayouts() {
		t.Run(name, func(t *testing.T) {
			var got string
			c := fakeConn(t, func(requests []netlink.Message) { got = recorded(requests) }, nil)
			if err := c.ApplyTables(t.Context(), clusterip.LayTables{Layout: layout, Keep: []clusterip.Bucket{3}}); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("schema %d is laid differently from what is recorded; a change needs a new schema", layout.Schema)
			}
		})
	}
}

func TestNewerSchemaIsSaidToBeNewer(t *testing.T) {
	layout := layoutFor(clusterip.Multicast, clusterip.SourceIP)
	layout.Schema = clusterip.Schema + 1
	judged := judge(rulesetOf(layout))
	if len(judged.Damage) != 1 || !strings.Contains(judged.Damage[0], "newer version") {
		t.Errorf("%+v", judged)
	}
}

func TestMissingKernelFeaturesAreNamed(t *testing.T) {
	newChain := func(family byte) func(netlink.Message) bool {
		return func(m netlink.Message) bool {
			return m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWCHAIN && m.Data[0] == family && bytes.Contains(m.Data, []byte("filter\x00"))
		}
	}
	for name, row := range map[string]struct {
		refuse func(netlink.Message) bool
		errno  unix.Errno
		says   string
	}{
		"no netdev hook": {newChain(unix.NFPROTO_NETDEV), unix.EOPNOTSUPP, "CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_INGRESS"},
		"no ARP hook":    {newChain(unix.NFPROTO_ARP), unix.ENOENT, "CONFIG_NF_TABLES_ARP"},
		"no hash": {
			func(m netlink.Message) bool { return bytes.Contains(m.Data, []byte("hash\x00")) },
			unix.ENOENT, "CONFIG_NFT_HASH",
		},
		"no counter": {
			func(m netlink.Message) bool { return bytes.Contains(m.Data, []byte("counter\x00")) },
			unix.ENOENT, "CONFIG_NFT_COUNTER",
		},
		"something that has no name here": {
			func(m netlink.Message) bool { return bytes.Contains(m.Data, []byte("lookup\x00")) },
			unix.ENOENT, "something (add a rule to chain ipv4 of table netdev clusterip-scratch (\"owned buckets\")",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := fakeConn(t, nil, func(m netlink.Message) unix.Errno {
				if row.refuse(m) {
					return row.errno
				}
				return 0
			})
			err := c.ApplyTables(context.Background(), clusterip.LayTables{Layout: layoutFor(clusterip.Multicast, clusterip.SourceIP)})
			if code := ocf.CodeOf(err); code != ocf.ErrInstalled || !strings.Contains(fmt.Sprint(err), "lacks "+row.says) {
				t.Errorf("%s: %v", code, err)
			}
		})
	}
}

func TestMissingNFTablesIsNamed(t *testing.T) {
	err := explain(fmt.Errorf("connect: %w", unix.EPROTONOSUPPORT))
	if ocf.CodeOf(err) != ocf.ErrInstalled || !strings.Contains(err.Error(), "CONFIG_NF_TABLES") || !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Errorf("%v", err)
	}
}

// What is asked is what would be laid.
func TestAKernelIsAskedForAllThatWouldBeLaid(t *testing.T) {
	for name, layout := range allLayouts() {
		var asked, laid []netlink.Message
		answers := fakeConn(t, func(batch []netlink.Message) { asked = batch }, func(m netlink.Message) unix.Errno {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE && m.Header.Flags&netlink.Excl != 0 {
				return unix.EEXIST
			}
			return 0
		})
		if answer, err := answers.Supports(t.Context(), layout); answer != clusterip.Yes {
			t.Errorf("%s: %v %v", name, answer, err)
		}
		c := fakeConn(t, func(batch []netlink.Message) { laid = batch }, nil)
		if err := c.ApplyTables(t.Context(), clusterip.LayTables{Layout: layout, Keep: []clusterip.Bucket{0}}); err != nil {
			t.Fatal(err)
		}
		kinds := func(batch []netlink.Message) (kinds []netlink.HeaderType) {
			for _, m := range batch {
				kinds = append(kinds, m.Header.Type)
			}
			return kinds
		}
		end := len(asked) - 2 // the message that fails, and the mark of the end
		if len(asked) < len(laid) || !slices.Equal(kinds(asked[:end]), kinds(laid[:len(laid)-1])) {
			t.Errorf("%s: asked for %d, %d would be laid", name, kinds(asked), kinds(laid))
		}
	}
}

// A kernel with nfnetlink but without nf_tables answers like this.
func TestUnregisteredSubsystemIsMissingNFTables(t *testing.T) {
	c := &Conn{raw: &fakeSocket{Conn: nltest.Dial(func(requests []netlink.Message) ([]netlink.Message, error) {
		return []netlink.Message{acknowledge(requests[0], unix.EINVAL)}, nil
	})}}
	_, err := c.ObserveTables(t.Context(), netip.MustParseAddr("192.168.10.3"))
	if ocf.CodeOf(err) != ocf.ErrInstalled || !strings.Contains(err.Error(), "CONFIG_NF_TABLES") {
		t.Errorf("%v", err)
	}
}

// The 16 bits of an attribute's length would be overrun in silence.
func TestManyElementsGoInSeveralMessages(t *testing.T) {
	const many = 1024
	buckets := make([]clusterip.Bucket, many)
	for i := range buckets {
		buckets[i] = clusterip.Bucket(i)
	}
	elements := 0
	c := fakeConn(t, func(batch []netlink.Message) {
		for _, m := range batch {
			if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM {
				continue
			}
			elements += bytes.Count(m.Data, []byte("a-resource"))
			if len(m.Data) > 1<<16 {
				t.Errorf("a message of %d bytes", len(m.Data))
			}
		}
	}, nil)
	resource := "a-resource-with-a-name-that-is-quite-long-" + strings.Repeat("x", 50)
	if err := c.ApplyTables(t.Context(), clusterip.Own{Address: netip.MustParseAddr("192.168.10.3"), Resource: resource, Buckets: buckets}); err != nil {
		t.Fatal(err)
	}
	if elements != many {
		t.Errorf("%d of %d elements were sent", elements, many)
	}
}

func TestReadAgainWhenSomebodyChangesTheRuleset(t *testing.T) {
	for name, row := range map[string]struct {
		changes byte // how many times the ruleset changes under the reader
		gives   bool
	}{
		"never":        {0, true},
		"a few times":  {5, true},
		"all the time": {255, false},
	} {
		t.Run(name, func(t *testing.T) {
			var asked byte
			c := fakeConnOfGenerations(t, func() byte {
				asked++
				return min(asked, row.changes)
			}, nil, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := c.ObserveTables(ctx, netip.MustParseAddr("192.168.10.3"))
			if gives := err == nil; gives != row.gives {
				t.Errorf("%v", err)
			}
		})
	}
}
