//go:build system

package nftables

import (
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	vishvananda "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// Every record, replayed into a real kernel, is without a fault for this version. So a package upgrade fails no monitor, and a further
// bucket is one element more. What changes tables (here drain) makes them the newest schema in place.
func TestEveryRecordedSchemaIsAcceptedByThisVersion(t *testing.T) {
	files, err := filepath.Glob("testdata/schema-*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded schemas: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			inNamespace(t)
			raw, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			replay(t, raw, readRecord(t, file))
			c, err := Open()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			address := netip.MustParseAddr("192.168.10.3")
			if strings.Contains(file, "ipv6") {
				address = netip.MustParseAddr("2001:db8:10::3")
			}
			seen := observe(t, c, address, 3)
			apply(t, c, clusterip.ChangeBuckets{Address: address, Resource: seen.Installed.Resource, Own: []clusterip.Bucket{5}})
			seen = observe(t, c, address, 3, 5)

			before, err := c.read(t.Context(), tableName(address))
			if err != nil {
				t.Fatal(err)
			}
			asked := *seen.Installed
			asked.Schema, asked.Drains, asked.Lingers = clusterip.Schema, !asked.Drains, clusterip.MAC{} // without drain nothing lingers
			for i, want := range tablesOf(asked) {
				if before[i].family != want.family || before[i].cannotBecome(want) {
					t.Errorf("table %s would be made anew", want)
				}
			}
			apply(t, c, clusterip.InstallTables{Layout: asked, Keep: seen.Owned})
			if seen = observe(t, c, address, 3, 5); seen.Installed.Schema != clusterip.Schema || seen.Installed.Drains != asked.Drains {
				t.Errorf("installed %+v", seen.Installed)
			}
		})
	}
}

func apply(t *testing.T, c *Conn, step clusterip.Step) {
	t.Helper()
	if err := c.ApplyTables(t.Context(), step); err != nil {
		t.Fatalf("%s: %v", step, err)
	}
}

// observe expects that nothing is damaged and that those buckets are owned.
func observe(t *testing.T, c *Conn, address netip.Addr, owned ...clusterip.Bucket) clusterip.Tables {
	t.Helper()
	seen, err := c.ObserveTables(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen.Faults) > 0 || seen.Installed == nil || !slices.Equal(seen.Owned, owned) {
		t.Fatalf("seen %+v", seen)
	}
	return seen
}

// replay sends a record as one batch.
func replay(t *testing.T, raw *netlink.Conn, messages []netlink.Message) {
	t.Helper()
	mark := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request},
			Data:   []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	batch := slices.Concat([]netlink.Message{mark(unix.NFNL_MSG_BATCH_BEGIN)}, messages, []netlink.Message{mark(unix.NFNL_MSG_BATCH_END)})
	if _, err := raw.SendMessages(batch); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Receive(); err != nil {
		t.Fatal(err)
	}
}

// inNamespace moves the test into a network namespace of its own, with a NIC eth0 of index 2.
func inNamespace(t *testing.T) {
	t.Helper()
	inNamespaceWith(t, &vishvananda.Bridge{LinkAttrs: vishvananda.LinkAttrs{Name: "eth0", Index: 2}})
}

func inNamespaceWith(t *testing.T, nic vishvananda.Link) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test's goroutine
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { namespace.Close() })
	if err := vishvananda.LinkAdd(nic); err != nil {
		t.Fatal(err)
	}
}
