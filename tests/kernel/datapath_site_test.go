//go:build system

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// A site is a LAN with the resource configured on its nodes, under watch.
type site struct {
	*lan.Network
	*clone
	spec clusterip.Spec // what all buckets have in common
}

// newSite builds a LAN with servers on the nodes and configures the resource; then the test starts buckets. The switch
// watches the nodes as long as the test runs.
func newSite(t *testing.T, o lan.Options, buckets int, p harness.Parameters) *site {
	t.Helper()
	s := newUnwatchedSite(t, o, buckets, p)
	s.watch(t)
	return s
}

// newUnwatchedSite needs no nf_tables.
func newUnwatchedSite(t *testing.T, o lan.Options, buckets int, p harness.Parameters) *site {
	t.Helper()
	values, _, err := metadata.Parse(p)
	check(t, err)
	o.IPv6 = o.IPv6 || slices.ContainsFunc(values.Addrs("ip"), netip.Addr.Is6)
	n := newLAN(t, o)
	serve(t, n)
	spec, err := clusterip.NewSpec(values, "web-ip", ocf.Clone{Buckets: uint32(buckets)})
	check(t, err)
	return &site{Network: n, clone: newClone(t, n, buckets, p), spec: spec}
}

// watch checks at the end of the test that each frame of a node had its interface's own MAC as Ethernet source, that nodes
// announced only the shared MAC for the shared address by ARP, that no node forwarded a packet for it
// (takeovers pass packets on, as broadcasts), and that the
// switch learned the interfaces' own MACs only. It counts ahead of the bridge, which drops a frame whose source is a group
// address, and so would not show it.
func (s *site) watch(t *testing.T) {
	t.Helper()
	var table strings.Builder
	table.WriteString("table netdev watch {\n")
	for _, h := range s.Nodes {
		fmt.Fprintf(&table, `chain %[1]s { type filter hook ingress device "%[1]s" priority -400;
			ether saddr != %[2]s counter comment "another Ethernet source than %[1]s's own"
			icmp type redirect counter comment "%[1]s redirected a client"
			icmpv6 type nd-redirect counter comment "%[1]s redirected a client"
`, h.Name, h.MAC)
		for _, address := range s.spec.Addresses {
			rules := `
			arp saddr ip %[2]s arp saddr ether != %[3]s counter comment "%[1]s sent another MAC than the shared one by ARP"
			ether daddr != ff:ff:ff:ff:ff:ff ip daddr %[2]s counter comment "%[1]s forwarded a packet for the address"
`
			if address.Is6() {
				rules = `
			icmpv6 type nd-neighbor-advert @th,64,128 0x%[4]x @th,192,16 0x201 @th,208,48 != 0x%[5]x \
				counter comment "%[1]s advertised another MAC than the shared one"
			icmpv6 type nd-neighbor-solicit ip6 saddr %[2]s @th,192,16 0x101 @th,208,48 != 0x%[5]x \
				counter comment "%[1]s asked with another MAC than the shared one"
			ether daddr != ff:ff:ff:ff:ff:ff ip6 daddr %[2]s counter comment "%[1]s forwarded a packet for the address"
`
			}
			mac := s.spec.MACs.Of(address)
			fmt.Fprintf(&table, rules, h.Name, address, mac, address.AsSlice(), mac[:])
		}
		table.WriteString("}\n")
	}
	table.WriteString("}")
	nft(t, s.Switch, table.String())
	counted := regexp.MustCompile(`(?m)^.*packets [1-9].*$`)
	t.Cleanup(func() {
		r := s.Switch.Run(context.Background(), lan.ToolPath, "nft", "list", "table", "netdev", "watch")
		if err := r.Failure(); err != nil {
			t.Errorf("read what the switch has counted: %v", err)
		}
		for _, rule := range counted.FindAllString(r.Stdout, -1) {
			t.Errorf("the switch has seen: %s", strings.TrimSpace(rule))
		}
		if err := s.checkLearned(); err != nil {
			t.Error(err)
		}
	})
}

// checkLearned returns an error for every MAC in the switch's forwarding table that no interface has.
func (s *site) checkLearned() error {
	nics := map[string]bool{}
	for _, h := range s.Hosts() {
		links, err := h.Handle().LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			nics[l.Attrs().HardwareAddr.String()] = true
		}
	}
	entries, err := s.BridgeFDB()
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Learned && !nics[e.MAC.String()] {
			errs = append(errs, fmt.Errorf("the switch learned %s at port %s", e.MAC, e.Port))
		}
	}
	return errors.Join(errs...)
}

// bucket is the one that a flow falls into.
func (s *site) bucket(f lan.Flow) int {
	return s.bucketOf(f, false)
}

func (s *site) bucketOf(f lan.Flow, fragment bool) int {
	layout := clusterip.Layout{
		HashMode:     s.spec.HashMode,
		HashCompat:   s.spec.HashCompat,
		HashPrefixes: s.spec.HashPrefixes,
		Seed:         s.spec.Seed,
		Buckets:      s.spec.Buckets,
		Services:     s.spec.Services,
	}
	return int(layout.BucketOf(clusterip.Packet{
		Flow:     clusterip.Flow{Source: f.Src, SourcePort: f.SrcPort, DestinationPort: f.DstPort},
		Protocol: string(f.Proto), Fragment: fragment,
	}))
}

// owner is the node that must answer a flow.
func (s *site) owner(f lan.Flow) int { return s.at[s.bucket(f)] }

// ownerWithoutPorts is the node that must answer a flow whose packets hide their ports.
func (s *site) ownerWithoutPorts(f lan.Flow) int {
	return s.at[s.bucketOf(f, true)]
}

// capture opens a capture on an interface of a host. It ends with the test.
func capture(t *testing.T, h *lan.Host, nic string, filter func(lan.Frame) bool) *lan.Capture {
	t.Helper()
	c, err := h.Capture(nic, filter)
	check(t, err)
	t.Cleanup(func() { _, _ = c.Stop() })
	return c
}

// captured ends a capture and returns its frames.
func captured(t *testing.T, c *lan.Capture) []lan.Frame {
	t.Helper()
	frames, err := c.Stop()
	check(t, err)
	return frames
}

// link returns an interface of a host.
func link(t *testing.T, h *lan.Host, name string) netlink.Link {
	t.Helper()
	link, err := h.Handle().LinkByName(name)
	check(t, err)
	return link
}

// eachMode runs a test for every kind of shared MAC and every kind of hash.
func eachMode(t *testing.T, test func(t *testing.T, p harness.Parameters)) {
	for _, mac := range clusterip.MACModes() {
		for _, hash := range clusterip.HashModes() {
			t.Run(string(mac)+"/"+string(hash), func(t *testing.T) {
				test(t, webIP("mac_mode", string(mac), "hashmode", string(hash)))
			})
		}
	}
}

// eachHashMode runs a test for every kind of hash, each time with another kind of shared MAC.
func eachHashMode(t *testing.T, test func(t *testing.T, p harness.Parameters)) {
	for i, hash := range clusterip.HashModes() {
		mac := clusterip.MACModes()[i]
		t.Run(string(hash), func(t *testing.T) {
			test(t, webIP("mac_mode", string(mac), "hashmode", string(hash)))
		})
	}
}

// What ip can be, by the families of its addresses.
var (
	onlyIPv6  = shared6.String()
	dualStack = shared.String() + " " + shared6.String()
)

// eachFamily runs a test for the families of addresses that the resource can have.
func eachFamily(t *testing.T, test func(t *testing.T, ip string)) {
	for name, ip := range map[string]string{"IPv4": shared.String(), "IPv6": onlyIPv6, "dual stack": dualStack} {
		t.Run(name, func(t *testing.T) { test(t, ip) })
	}
}

// isClean returns an error with what is left on a node, compared to a dump from before.
func (s *site) isClean(node int, before string) error {
	now, err := s.Nodes[node].Dump()
	if err == nil && now != before {
		err = fmt.Errorf("left on %s:\n%s", s.Nodes[node].Name, changes(before, now))
	}
	return err
}

// checkClean expects nothing to be left on any node, compared to dumps from before.
func (s *site) checkClean(t *testing.T, before []string) {
	t.Helper()
	for node, dump := range before {
		if err := s.isClean(node, dump); err != nil {
			t.Error(err)
		}
	}
}
