package iptclusterip

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
)

func layout() clusterip.Layout {
	prefix := netip.MustParsePrefix("192.168.10.3/24")
	return clusterip.Layout{
		Schema: 1, Resource: "web-ip", Prefixes: []netip.Prefix{prefix}, NIC: "eth0", NICIndex: 2,
		Backend: clusterip.Target, MACMode: clusterip.Multicast,
		MACs:     clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.MAC{3, 0xc1, 192, 168, 10, 3}},
		HashMode: clusterip.SourceIPSourcePort, HashCompat: clusterip.ClusterIP, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128},
		Seed: 0, Buckets: 8,
	}
}

// What iptables 1.8.9 prints of the rule on Linux 6.1.
const printed = `-A INPUT -d 192.168.10.3/32 -i eth0 -m comment --comment "1 ip=192.168.10.3/24 nic=eth0 nic_index=2 mac_mode=multicast ` +
	`mac=03:c1:c0:a8:0a:03 hashmode=sourceip-sourceport hash_seed=0x00000000 buckets=8 ` +
	`backend=clusterip hash_compat=clusterip resource=web-ip" -j CLUSTERIP --new --hashmode sourceip-sourceport ` +
	`--clustermac 03:C1:C0:A8:0A:03 --total-nodes 8 --local-node 4 --hash-init 0`

func TestRule(t *testing.T) {
	r := xtables.ParseRule(printed)
	address, other := netip.MustParseAddr("192.168.10.3"), netip.MustParseAddr("192.168.10.4")
	if !isFor(r, address) || isFor(r, other) || !r.IsStamped() || differs(r, layout()) {
		t.Errorf("%q is not understood", r)
	}
	got, err := r.Layout()
	if err != nil || got.Stamp() != layout().Stamp() {
		t.Errorf("read as %+v (%v)", got, err)
	}
	if installed := ruleOf(layout(), "", 3); !slices.EqualFunc(installed, r.Spec(), strings.EqualFold) {
		t.Errorf("installed as %q, printed as %q", installed, r.Spec())
	}
	second := xtables.ParseRule(strings.Replace(printed, `"1 ip`, `"1b ip`, 1))
	got, err = second.Layout()
	if err != nil || got.Stamp() != layout().Stamp() || differs(second, layout()) || second.Mark() != xtables.Twin {
		t.Errorf("a twin is read as %+v (%v)", got, err)
	}
	for name, changed := range map[string]string{
		"another hash":      strings.Replace(printed, "--hashmode sourceip-sourceport", "--hashmode sourceip", 1),
		"another interface": strings.Replace(printed, "-i eth0", "-i eth1", 1),
		"another MAC":       strings.Replace(printed, "--clustermac 03", "--clustermac 05", 1),
		"a condition":       strings.Replace(printed, "-m comment", "-p tcp -m comment", 1),
	} {
		if !differs(xtables.ParseRule(changed), layout()) {
			t.Errorf("%s goes unnoticed", name)
		}
	}
	byHand := xtables.ParseRule("-A INPUT -d 192.168.10.3/32 -i eth0 -j CLUSTERIP --new --hashmode sourceip " +
		"--clustermac 01:02:03:04:05:06 --total-nodes 2 --local-node 1 --hash-init 0")
	if byHand.IsStamped() || !isFor(byHand, address) {
		t.Error("a rule of an admin is taken for ours, or not seen")
	}
}

func TestParseNodes(t *testing.T) {
	for text, want := range map[string][]clusterip.Bucket{"": nil, "\n": nil, "1\n": {0}, "16,2,1": {0, 1, 15}} {
		if got, err := parseNodes(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %v (%v)", text, got, err)
		}
	}
	for _, text := range []string{"0", "17", "x", "1,,2", "1;2", "-1"} {
		if got, err := parseNodes(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func FuzzRule(f *testing.F) {
	f.Add(printed)
	f.Add(`-A INPUT -m comment --comment "a \"b\" \\c" -j ACCEPT`)
	f.Fuzz(func(_ *testing.T, line string) {
		r := xtables.ParseRule(line)
		isFor(r, netip.MustParseAddr("192.168.10.3"))
		r.IsStamped()
		_, _ = r.Layout()
		differs(r, layout())
	})
}
