//go:build system

package link

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// When AddAddress has returned, a packet to the address must never be routed elsewhere: a bucket is owned next.
func TestAnAddedAddressIsLocalAtOnce(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the test's goroutine
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { namespace.Close() })
	nic := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
	if err := netlink.LinkAdd(nic); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(nic); err != nil {
		t.Fatal(err)
	}
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, text := range []string{"192.168.10.3/24", "2001:db8:10::3/64"} {
		prefix := netip.MustParsePrefix(text)
		at := clusterip.NIC{Index: nic.Index, Name: nic.Name}
		for range 300 {
			if err := c.ApplyLinks(t.Context(), clusterip.AddAddress{NIC: at, Prefix: prefix}); err != nil {
				t.Fatal(err)
			}
			routes, err := c.netlink.RouteGet(prefix.Addr().AsSlice())
			if err != nil || len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL {
				t.Fatalf("%s goes to %v (%v)", prefix.Addr(), routes, err)
			}
			if err := c.ApplyLinks(t.Context(), clusterip.RemoveAddress{NIC: at, Prefix: prefix}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
