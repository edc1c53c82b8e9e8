//go:build system

package kernel

import (
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// Two resources with addresses of their own on one interface, which has others too, do not touch each other.
func TestTwoResourcesOnOneInterface(t *testing.T) {
	for mode, otherMode := range map[string]string{
		"multicast": "multicast", "igmp": "igmp", "unicast": "unicast", "multicast and unicast": "",
	} {
		t.Run(mode, func(t *testing.T) {
			if otherMode == "" {
				mode, otherMode = "multicast", "unicast"
			}
			n := newLAN(t, lan.Options{Nodes: 1, IPv6: true})
			node := n.Nodes[0]
			web := newAgent(t, node, 4, webIP("ip", dualStack, "mac_mode", mode, "arp_count", "0"))
			mail := newAgent(
				t,
				node,
				4,
				webIP("ip", "192.168.10.5 2001:db8:10::5", "mac_mode", otherMode, "arp_count", "0", "services", "tcp/25 icmp"),
			)
			mail.TempDir = web.TempDir
			dump := func() string {
				t.Helper()
				text, err := node.Dump()
				check(t, err)
				return text
			}
			clean := dump()
			check(t, status(web.start(1), ocf.Success))
			alone := dump()
			check(t, status(mail.start(1), ocf.Success))
			check(t, status(mail.start(2), ocf.Success))
			both := dump()
			for _, a := range []*agent{web, mail} {
				check(t, status(a.monitor(1), ocf.Success))
			}
			check(t, status(mail.stop(1), ocf.Success))
			check(t, status(mail.stop(2), ocf.Success))
			if now := dump(); now != alone {
				t.Errorf("the second resource's stop has changed the first (-before +after):\n%s", changes(alone, now))
			}
			check(t, status(web.monitor(1), ocf.Success))
			// The other way round.
			check(t, status(mail.start(1), ocf.Success))
			check(t, status(mail.start(2), ocf.Success))
			if now := dump(); now != both {
				t.Errorf("started again (-before +after):\n%s", changes(both, now))
			}
			check(t, status(web.stop(1), ocf.Success))
			check(t, status(mail.monitor(1), ocf.Success))
			check(t, status(mail.stop(1), ocf.Success))
			check(t, status(mail.stop(2), ocf.Success))
			if now := dump(); now != clean {
				t.Errorf("something is left (-before +after):\n%s", changes(clean, now))
			}
		})
	}
}

func TestResourcesThatWouldCollideAreRefused(t *testing.T) {
	n := newLAN(t, lan.Options{Nodes: 1, IPv6: true})
	web := newAgent(t, n.Nodes[0], 4, webIP("ip", dualStack, "arp_count", "0"))
	check(t, status(web.start(1), ocf.Success))
	before, err := n.Nodes[0].Dump()
	check(t, err)
	for name, tt := range map[string]struct {
		set  harness.Parameters
		want string
	}{
		"the other's second address": {webIP("ip", shared6.String()), "2001:db8:10::3 belongs to web-ip"},
		"among others":               {webIP("ip", "192.168.10.5 2001:db8:10::3"), "2001:db8:10::3 belongs to web-ip"},
		"the other's MAC": {
			webIP("ip", "192.168.10.5", "mac", "03:c1:c0:a8:0a:03"), "MAC 03:c1:c0:a8:0a:03 on eth0 is that of web-ip too",
		},
	} {
		t.Run(name, func(t *testing.T) {
			other := newAgent(t, n.Nodes[0], 4, tt.set.With("arp_count", "0"))
			for _, action := range []string{"start", "validate-all"} {
				r := other.call(action, 1, "OCF_RESOURCE_INSTANCE=other:1", "OCF_CHECK_LEVEL=10")
				if err := status(r, ocf.ErrConfigured); err != nil || !strings.Contains(r.Stderr, tt.want) {
					t.Errorf("%s: %v, want %q", action, err, tt.want)
				}
			}
			check(t, status(other.call("stop", 1, "OCF_RESOURCE_INSTANCE=other:1"), ocf.Success))
			after, err := n.Nodes[0].Dump()
			check(t, err)
			if after != before {
				t.Errorf("the first resource is changed (-before +after):\n%s", changes(before, after))
			}
		})
	}
	check(t, status(web.monitor(1), ocf.Success))
}
