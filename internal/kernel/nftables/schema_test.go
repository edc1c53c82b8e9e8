package nftables

import (
	"bytes"
	"context"
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

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

var update = flag.Bool("update", false, "record in testdata what this version installs; only for a new schema or variant")

// layoutFor is one of an IPv4 address, on the first interface of a new namespace.
func layoutFor(macMode clusterip.MACMode, hashMode clusterip.HashMode) clusterip.Layout {
	prefix := netip.MustParsePrefix("192.168.10.3/24")
	return clusterip.Layout{
		Schema: clusterip.Schema, Resource: "web-ip", Prefixes: []netip.Prefix{prefix}, NIC: "eth0", NICIndex: 2, Backend: clusterip.NFTables,
		MACMode: macMode, MACs: clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.DerivedMAC(macMode, prefix.Addr())},
		HashMode: hashMode, HashCompat: clusterip.XTCluster, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128},
		Seed: 0x9e3779b9, Buckets: 8,
	}
}

func onlyIPv6(macMode clusterip.MACMode, hashMode clusterip.HashMode) clusterip.Layout {
	layout := layoutFor(macMode, hashMode)
	layout.Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:10::3/64")}
	layout.MACs = clusterip.PerFamily[clusterip.MAC]{IPv6: clusterip.DerivedMAC(macMode, layout.Address())}
	return layout
}

// dualStack has two addresses of each family, hashes parts of the source, and has services.
func dualStack(macMode clusterip.MACMode, hashMode clusterip.HashMode) clusterip.Layout {
	layout := layoutFor(macMode, hashMode)
	for _, more := range []string{"192.168.10.4/24", "2001:db8:10::3/64", "2001:db8:10::4/64"} {
		layout.Prefixes = append(layout.Prefixes, netip.MustParsePrefix(more))
	}
	layout.MACs.IPv6 = layout.MACs.IPv4
	if macMode == clusterip.IGMP {
		layout.MACs.IPv6 = clusterip.DerivedMAC(macMode, netip.MustParseAddr("2001:db8:10::3"))
	}
	layout.HashPrefixes = clusterip.PerFamily[int]{IPv4: 24, IPv6: 64}
	layout.Services = []services.Service{
		{Protocol: "tcp", First: 80, Last: 80},
		{Protocol: "tcp", First: 5000, Last: 65535},
		{Protocol: "udp", First: 53, Last: 53},
		services.ICMP,
	}
	return layout
}

// likeTheTarget hashes as nodes of the CLUSTERIP target do.
func likeTheTarget(layout clusterip.Layout) clusterip.Layout {
	layout.HashCompat, layout.Seed = clusterip.ClusterIP, 0
	return layout
}

func draining(layout clusterip.Layout) clusterip.Layout {
	layout.Drains = true
	return layout
}

func lingering(layout clusterip.Layout) clusterip.Layout {
	layout.Lingers = clusterip.MAC{2, 0, 0, 0, 1, 1}
	return draining(layout)
}

func bridged(layout clusterip.Layout) clusterip.Layout {
	layout.Bridged = true
	return layout
}

// onBond is on a bond whose ports send ARP requests.
func onBond(layout clusterip.Layout) clusterip.Layout {
	layout.Ports = []int{3, 4}
	return layout
}

// variants have each option, MAC mode and hash mode, by the name of their record.
func variants() map[string]clusterip.Layout {
	const ports, allPorts = clusterip.SourceIPSourcePort, clusterip.SourceIPSourcePortDestPort
	return map[string]clusterip.Layout{
		"ipv4":            layoutFor(clusterip.Multicast, clusterip.SourceIP),
		"ipv6":            onlyIPv6(clusterip.Unicast, ports),
		"dual-stack":      dualStack(clusterip.IGMP, allPorts),
		"like-the-target": likeTheTarget(dualStack(clusterip.Multicast, ports)),
		"on-a-bond":       onBond(layoutFor(clusterip.Unicast, allPorts)),
		"draining":        draining(layoutFor(clusterip.IGMP, clusterip.SourceIP)),
		"bridged":         bridged(draining(dualStack(clusterip.Multicast, allPorts))),
		"lingering":       lingering(layoutFor(clusterip.Multicast, clusterip.SourceIP)),
		"everything":      lingering(bridged(dualStack(clusterip.Unicast, ports))),
	}
}

// recordOf is the file with the messages that install a variant of this schema; without its extension, of a text that shows the same.
func recordOf(variant string) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%d-%s.hex", clusterip.Schema, variant))
}

// recorded returns the messages between the two marks of a batch, as lines of type, flags and data.
func recorded(requests []netlink.Message) string {
	var text strings.Builder
	for _, r := range requests {
		if r.Header.Type != unix.NFNL_MSG_BATCH_BEGIN && r.Header.Type != unix.NFNL_MSG_BATCH_END {
			fmt.Fprintf(&text, "%04x %04x %x\n", uint16(r.Header.Type), uint16(r.Header.Flags&^netlink.Acknowledge), r.Data)
		}
	}
	return text.String()
}

// readRecord is the reverse.
func readRecord(t *testing.T, file string) []netlink.Message {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var messages []netlink.Message
	for line := range bytes.SplitSeq(bytes.TrimSpace(text), []byte("\n")) {
		var kind, flags uint16
		var data []byte
		if _, err := fmt.Sscanf(string(line), "%x %x %x", &kind, &flags, &data); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.HeaderFlags(flags)}, Data: data,
		})
	}
	return messages
}

// A schema may never change: older programs installed its tables, and newer ones must accept them.
func TestSchemaIsInstalledAsRecorded(t *testing.T) {
	for variant, layout := range variants() {
		t.Run(variant, func(t *testing.T) {
			var got string
			c := fakeConn(t, func(requests []netlink.Message) { got = recorded(requests) }, nil)
			if err := c.ApplyTables(t.Context(), clusterip.InstallTables{Layout: layout, Keep: []clusterip.Bucket{3}}); err != nil {
				t.Fatal(err)
			}
			isAsRecorded(t, recordOf(variant), got)
		})
	}
}

// Every record is read without a fault by this version, whatever the schema, and its text shows what it installs.
func TestRecordsAreRead(t *testing.T) {
	files, err := filepath.Glob("testdata/schema-*.hex")
	if err != nil || len(files) < len(variants()) {
		t.Fatalf("%d records: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c := connTo(readRecord(t, file), nil)
			names, err := c.tableNames(t.Context(), nft.TableFamilyNetdev)
			if err != nil || len(names) != 1 {
				t.Fatalf("tables %q: %v", names, err)
			}
			tables, err := c.read(t.Context(), names[0])
			if err != nil {
				t.Fatal(err)
			}
			isAsRecorded(t, strings.TrimSuffix(file, ".hex")+".txt", textOf(tables))
			owned, _ := tables[0].set(setOwned)
			owned.elements[0].counted = true // the kernel adds the counter
			judged := judge(tables)
			if len(judged.Faults) > 0 || judged.Installed == nil || !slices.Equal(judged.Owned, []clusterip.Bucket{3}) {
				t.Errorf("%+v", judged)
			}
		})
	}
}

func isAsRecorded(t *testing.T, file, got string) {
	t.Helper()
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
		t.Errorf("%s differs; a change of the tables needs a new schema", file)
	}
}

func TestNewerSchemaIsSaidToBeNewer(t *testing.T) {
	layout := layoutFor(clusterip.Multicast, clusterip.SourceIP)
	layout.Schema = clusterip.Schema + 1
	judged := judge(tablesOf(layout))
	if len(judged.Faults) != 1 || !strings.Contains(judged.Faults[0], "newer version") {
		t.Errorf("%+v", judged)
	}
}

// Tables of an older schema are as they should be. What changes them makes them the newest schema, and replaces only what differs: here,
// where the older one is made up, the stamp.
func TestOlderSchemaIsAcceptedAndReplacedInPlace(t *testing.T) {
	layout := layoutFor(clusterip.Multicast, clusterip.SourceIP)
	layout.Schema = clusterip.Schema - 1
	var installed, batch []netlink.Message
	c := fakeConn(t, func(messages []netlink.Message) { installed = messages }, nil)
	if err := c.ApplyTables(t.Context(), lay(layout)); err != nil {
		t.Fatal(err)
	}
	c = connTo(installed, func(messages []netlink.Message) { batch = messages })
	seen, err := c.ObserveTables(t.Context(), layout.Address())
	if err != nil || len(seen.Faults) > 0 || seen.Installed == nil || seen.Installed.Schema != layout.Schema {
		t.Fatalf("%+v: %v", seen, err)
	}
	layout.Schema = clusterip.Schema
	if err := c.ApplyTables(t.Context(), lay(layout)); err != nil {
		t.Fatal(err)
	}
	var done []string
	for _, m := range batch[1 : len(batch)-1] {
		done = append(done, describe(m))
	}
	of := " elements of set schema of table netdev clusterip-192.168.10.3"
	if want := []string{"delete" + of, "add elements to" + strings.TrimPrefix(of, " elements of")}; !slices.Equal(done, want) {
		t.Errorf("%q, want %q", done, want)
	}
}

func TestMissingKernelFeaturesAreNamed(t *testing.T) {
	newChain := func(family byte) func(netlink.Message) bool {
		return func(m netlink.Message) bool {
			return m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWCHAIN && m.Data[0] == family &&
				bytes.Contains(m.Data, []byte("filter\x00"))
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
			err := c.ApplyTables(context.Background(), clusterip.InstallTables{Layout: layoutFor(clusterip.Multicast, clusterip.SourceIP)})
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

// What is asked is what would be installed.
func TestAKernelIsAskedForAllThatWouldBeLaid(t *testing.T) {
	for name, layout := range variants() {
		var asked, installed []netlink.Message
		answers := fakeConn(t, func(batch []netlink.Message) { asked = batch }, func(m netlink.Message) unix.Errno {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE && m.Header.Flags&netlink.Excl != 0 {
				return unix.EEXIST
			}
			return 0
		})
		if answer, err := answers.Supports(t.Context(), layout); answer != clusterip.Yes {
			t.Errorf("%s: %v %v", name, answer, err)
		}
		c := fakeConn(t, func(batch []netlink.Message) { installed = batch }, nil)
		if err := c.ApplyTables(t.Context(), clusterip.InstallTables{Layout: layout, Keep: []clusterip.Bucket{0}}); err != nil {
			t.Fatal(err)
		}
		kinds := func(batch []netlink.Message) (kinds []netlink.HeaderType) {
			for _, m := range batch {
				kinds = append(kinds, m.Header.Type)
			}
			return kinds
		}
		end := len(asked) - 2 // the message that fails, and the mark of the end
		if len(asked) < len(installed) || !slices.Equal(kinds(asked[:end]), kinds(installed[:len(installed)-1])) {
			t.Errorf("%s: asked for %d, %d would be installed", name, kinds(asked), kinds(installed))
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
	own := clusterip.ChangeBuckets{Address: netip.MustParseAddr("192.168.10.3"), Resource: resource, Own: buckets}
	if err := c.ApplyTables(t.Context(), own); err != nil {
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
