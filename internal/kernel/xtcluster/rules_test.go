package xtcluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
)

var address = netip.MustParseAddr("192.168.10.3")

const name = "clusterip-192.168.10.3"

func layout() clusterip.Layout {
	return clusterip.Layout{
		Schema: 1, Resource: "web-ip", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.10.3/24")}, NIC: "eth0", NICIndex: 2,
		Backend: clusterip.Match, MACMode: clusterip.Multicast,
		MACs:     clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.MAC{3, 0xc1, 192, 168, 10, 3}},
		HashMode: clusterip.SourceIP, HashCompat: clusterip.XTCluster, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128},
		Seed: 0x7b346410, Buckets: 8,
	}
}

// What iptables 1.8.9 prints, of both flavours, on Linux 6.1 and on the tests' kernel.
var (
	printedPrerouting = []string{
		"-A PREROUTING -d 192.168.10.3/32 -j clusterip-192.168.10.3",
		"-A PREROUTING -s 203.0.113.0/24 -j DROP",
	}
	printedChain = []string{
		"-A clusterip-192.168.10.3 ! -i eth0 -m pkttype --pkt-type unicast -j RETURN",
		"-A clusterip-192.168.10.3 ! -i eth0 -j DROP",
		`-A clusterip-192.168.10.3 -m comment --comment "bucket 1" -m cluster ` +
			`--cluster-local-nodemask 0x00000002 --cluster-total-nodes 8 --cluster-hash-seed 0x7b346410 -j RETURN`,
		`-A clusterip-192.168.10.3 -m comment --comment "bucket 5" -m cluster ` +
			`--cluster-local-nodemask 0x00000020 --cluster-total-nodes 8 --cluster-hash-seed 0x7b346410 -j RETURN`,
		`-A clusterip-192.168.10.3 -m comment --comment "1 ip=192.168.10.3/24 nic=eth0 nic_index=2 mac_mode=multicast ` +
			`mac=03:c1:c0:a8:0a:03 hashmode=sourceip hash_seed=0x7b346410 ` +
			`buckets=8 backend=xt_cluster resource=web-ip" -j DROP`,
	}
)

func parse(lines []string) []xtables.Rule {
	rules := make([]xtables.Rule, len(lines))
	for i, line := range lines {
		rules[i] = xtables.ParseRule(line)
	}
	return rules
}

func printed() ruleset {
	return ruleset{address: address, prerouting: parse(printedPrerouting), chains: map[string][]xtables.Rule{name: parse(printedChain)}}
}

func TestReadBack(t *testing.T) {
	tables := printed().judge()
	if !tables.Present || len(tables.Faults) > 0 || len(tables.Conflicting) > 0 || !slices.Equal(tables.Owned, []clusterip.Bucket{1, 5}) {
		t.Errorf("judged as %+v", tables)
	}
	if tables.Installed == nil || tables.Installed.Stamp() != layout().Stamp() {
		t.Errorf("layout: %+v", tables.Installed)
	}
	if name := (ruleset{address: netip.MustParseAddr("255.255.255.255")}).names()[1]; len(name) > 28 {
		t.Errorf("%s is longer than iptables takes", name)
	}
}

func TestJudge(t *testing.T) {
	replace := func(lines []string, i int, line ...string) []xtables.Rule {
		return parse(slices.Replace(slices.Clone(lines), i, i+1, line...))
	}
	with := func(change func(*ruleset)) ruleset {
		r := printed()
		change(&r)
		return r
	}
	for what, tt := range map[string]struct {
		rules   ruleset
		damage  string
		foreign bool
		owned   []clusterip.Bucket
	}{
		"no jump": {
			rules:  with(func(r *ruleset) { r.prerouting = r.prerouting[1:] }),
			damage: "does not send packets", owned: []clusterip.Bucket{1, 5},
		},
		"jump behind a rule that drops": {rules: with(func(r *ruleset) { slices.Reverse(r.prerouting) }), owned: []clusterip.Bucket{1, 5}},
		"accepted before": {
			rules:  with(func(r *ruleset) { r.prerouting = append(parse([]string{"-A PREROUTING -j ACCEPT"}), r.prerouting...) }),
			damage: "may let packets", owned: []clusterip.Bucket{1, 5},
		},
		"jump twice": {
			rules:  with(func(r *ruleset) { r.prerouting = append(r.prerouting, r.prerouting[0]) }),
			damage: "twice", owned: []clusterip.Bucket{1, 5},
		},
		"jump with a condition": {rules: with(func(r *ruleset) {
			r.prerouting = parse([]string{"-A PREROUTING -d 192.168.10.3/32 -p tcp -j clusterip-192.168.10.3"})
		}), damage: "does not send packets", owned: []clusterip.Bucket{1, 5}},
		"a rule of an admin": {
			rules: with(func(r *ruleset) {
				r.chains[name] = replace(printedChain, 0, printedChain[0], "-A clusterip-192.168.10.3 -j RETURN")
			}),
			damage: "not as installed", owned: []clusterip.Bucket{1, 5},
		},
		"another seed": {
			rules: with(func(r *ruleset) {
				r.chains[name] = replace(printedChain, 2, strings.ReplaceAll(printedChain[2], "7b346410", "7b346411"))
			}),
			damage: "not as installed", owned: []clusterip.Bucket{1, 5},
		},
		"buckets out of order": {
			rules:  with(func(r *ruleset) { slices.Reverse(r.chains[name][2:4]) }),
			damage: "not as installed", owned: []clusterip.Bucket{1, 5},
		},
		"no stamp": {rules: with(func(r *ruleset) { r.chains[name] = r.chains[name][:4] }), damage: "stamp", owned: []clusterip.Bucket{1, 5}},
		"bad stamp": {
			rules: with(func(r *ruleset) {
				r.chains[name] = replace(printedChain, 4, strings.ReplaceAll(printedChain[4], "buckets=8", "buckets=many"))
			}),
			damage: "cannot be read", owned: []clusterip.Bucket{1, 5},
		},
		"empty": {rules: with(func(r *ruleset) { r.chains[name] = nil }), damage: "stamp"},
		"two chains": {
			rules:  with(func(r *ruleset) { r.chains[name+xtables.Twin] = nil }),
			damage: "two chains", owned: []clusterip.Bucket{1, 5},
		},
		"foreign": {rules: with(func(r *ruleset) { r.chains[name] = parse([]string{"-A clusterip-192.168.10.3 -j ACCEPT"}) }), foreign: true},
	} {
		t.Run(what, func(t *testing.T) {
			tables := tt.rules.judge()
			if tables.Present == tt.foreign || (len(tables.Conflicting) > 0) != tt.foreign || !slices.Equal(tables.Owned, tt.owned) {
				t.Errorf("judged as %+v", tables)
			}
			if damage := strings.Join(tables.Faults, "; "); !strings.Contains(damage, tt.damage) || (damage == "") != (tt.damage == "") {
				t.Errorf("damage is %q, want %q", damage, tt.damage)
			}
		})
	}
	if tables := (ruleset{address: address}).judge(); tables.Present || len(tables.Conflicting) > 0 {
		t.Errorf("nothing is judged as %+v", tables)
	}
}

// While rules are replaced there are two chains; the one that packets go through counts.
func TestLive(t *testing.T) {
	r := printed()
	r.chains[name+xtables.Twin] = nil
	if live, ok := r.live(); !ok || live != name {
		t.Errorf("live is %q %v", live, ok)
	}
	r.prerouting = append(parse([]string{"-A PREROUTING -d 192.168.10.3/32 -j clusterip-192.168.10.3b"}), r.prerouting...)
	if live, ok := r.live(); !ok || live != name+xtables.Twin {
		t.Errorf("live is %q %v", live, ok)
	}
}

func TestARPRules(t *testing.T) {
	for _, rule := range arpRulesOf(layout()) {
		if !isARPRule(rule, address) || isARPRule(rule, netip.MustParseAddr("192.168.10.30")) {
			t.Errorf("%q is not told apart", rule)
		}
	}
	for _, line := range []string{
		"-j mangle -o eth0 -s 192.168.10.3 --mangle-ip-s 192.168.10.11", "-j DROP -d 192.168.10.3", "-j DROP -s 192.168.10.3", "",
	} {
		if isARPRule(strings.Fields(line), address) {
			t.Errorf("%q is taken for ours", line)
		}
	}
}

func FuzzJudge(f *testing.F) {
	f.Add(strings.Join(printedPrerouting, "\n"), strings.Join(printedChain, "\n"))
	f.Add("", "-A c -m cluster --cluster-local-nodemask 0x80000000")
	f.Fuzz(func(t *testing.T, prerouting, chain string) {
		lines := func(text string) []xtables.Rule { return parse(strings.Split(text, "\n")) }
		r := ruleset{address: address, prerouting: lines(prerouting), chains: map[string][]xtables.Rule{name: lines(chain)}}
		tables := r.judge()
		if tables.Installed != nil && slices.ContainsFunc(
			tables.Owned, func(b clusterip.Bucket) bool { return uint32(b) >= tables.Installed.Buckets },
		) {
			t.Errorf("more buckets than there are: %+v", tables)
		}
	})
}
