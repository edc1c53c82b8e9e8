package nftables

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// installed is what the kernel shows of a layout with two owned buckets.
func installed(layout clusterip.Layout) []table {
	tables := tablesOf(layout)
	for _, bucket := range []clusterip.Bucket{2, 5} {
		tables[0].sets[0].elements = append(tables[0].sets[0].elements,
			element{key: uint32(bucket), comment: commentOf(layout.Resource, bucket), counted: true})
	}
	return tables
}

func TestJudge(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func([]table) []table
		says  string // the only damage; empty: none
		owned []clusterip.Bucket
	}{
		"as installed": {func(t []table) []table { return t }, "", []clusterip.Bucket{2, 5}},
		"counters have counted": {func(t []table) []table {
			rules := t[0].chains[2].rules
			rules[len(rules)-1].exprs = []expr.Any{&expr.Counter{Packets: 9, Bytes: 900}, &expr.Verdict{Kind: expr.VerdictDrop}}
			return t
		}, "", []clusterip.Bucket{2, 5}},
		"arp table gone": {func(t []table) []table {
			return []table{t[0], t[2]}
		}, "table arp clusterip-192.168.10.3 is missing", []clusterip.Bucket{2, 5}},
		"netdev table gone": {func(t []table) []table {
			return t[1:]
		}, "table netdev clusterip-192.168.10.3 or its stamp (set schema) is missing", nil},
		"a rule gone": {func(t []table) []table {
			t[1].chains[0].rules = t[1].chains[0].rules[:2]
			return t
		}, `table arp clusterip-192.168.10.3: chain output: rule "ARP contains the shared MAC" is missing or changed`, []clusterip.Bucket{2, 5}},
		"rules flushed": {func(t []table) []table {
			t[0].chains[0].rules = t[0].chains[0].rules[1:]
			return t
		}, `chain ingress: rule "ARP to the shared MAC" is missing or changed`, []clusterip.Bucket{2, 5}},
		"something besides chains and sets": {func(t []table) []table {
			t[0].use = uint32(len(t[0].chains) + len(t[0].sets) + 1)
			return t
		}, "table netdev clusterip-192.168.10.3: it contains something other than chains and sets", []clusterip.Bucket{2, 5}},
		"a rule doubled": {func(t []table) []table {
			t[0].chains[0].rules = append(t[0].chains[0].rules, t[0].chains[0].rules[0])
			return t
		}, "chain ingress: its rules are out of order, or there twice", []clusterip.Bucket{2, 5}},
		"rules in another order": {func(t []table) []table {
			slices.Reverse(t[0].chains[2].rules)
			return t
		}, "chain ipv4: its rules are out of order, or there twice", []clusterip.Bucket{2, 5}},
		"an expression that we do not know in a rule": {func(t []table) []table {
			t[1].chains[0].rules = append(t[1].chains[0].rules, rule{comment: "", unknown: []string{"limit"}})
			return t
		}, `chain output: rule "" is not as installed`, []clusterip.Bucket{2, 5}},
		"the chain on another NIC": {func(t []table) []table {
			t[0].chains[0].base = ingressBase("eth1")
			return t
		}, "chain ingress has another hook", []clusterip.Bucket{2, 5}},
		"a dormant table": {func(t []table) []table {
			t[0].flags = unix.NFT_TABLE_F_DORMANT
			return t
		}, "it is dormant", []clusterip.Bucket{2, 5}},
		"a chain of somebody": {func(t []table) []table {
			t[0].chains = append(t[0].chains, chain{name: "mine"})
			return t
		}, "the agent did not install chain mine", []clusterip.Bucket{2, 5}},
		"a set of somebody": {func(t []table) []table {
			t[0].sets = append(t[0].sets, set{name: "mine"})
			return t
		}, "the agent did not install set mine", []clusterip.Bucket{2, 5}},
		"set owned of another type": {func(t []table) []table {
			t[0].sets[0].flags = unix.NFT_SET_INTERVAL
			return t
		}, "set owned has another type", []clusterip.Bucket{2, 5}},
		"an element by hand": {func(t []table) []table {
			t[0].sets[0].elements = append(t[0].sets[0].elements, element{key: 7, counted: true})
			return t
		}, "set owned: element 7 was not added by this agent", []clusterip.Bucket{2, 5}},
		"an element out of range": {func(t []table) []table {
			t[0].sets[0].elements = append(t[0].sets[0].elements, element{key: 8, comment: "web-ip:8", counted: true})
			return t
		}, "set owned: element 8 is not a bucket (0..7)", []clusterip.Bucket{2, 5}},
		"an element removed": {func(t []table) []table {
			t[0].sets[0].elements = t[0].sets[0].elements[:1]
			return t
		}, "", []clusterip.Bucket{2}},
		"the stamp gone": {func(t []table) []table {
			t[0].sets[1].elements = nil
			return t
		}, "or its stamp (set schema) is missing", []clusterip.Bucket{2, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			judged := judge(row.spoil(installed(layoutFor(clusterip.Multicast, clusterip.SourceIP))))
			if !judged.Present || len(judged.Conflicting) > 0 {
				t.Errorf("not taken for ours: %+v", judged)
			}
			if diff := cmp.Diff(row.owned, judged.Owned); diff != "" {
				t.Errorf("owned (-want +got):\n%s", diff)
			}
			switch all := strings.Join(judged.Faults, "\n"); {
			case row.says == "" && all != "":
				t.Errorf("damage %q", all)
			case row.says != "" && (len(judged.Faults) != 1 || !strings.Contains(all, row.says)):
				t.Errorf("damage %q, want %q", all, row.says)
			}
		})
	}
}

func TestForeignTablesAreLeftAlone(t *testing.T) {
	name := tableName(layoutFor(clusterip.Multicast, clusterip.SourceIP).Address())
	arp := func(use uint32, chains []chain, sets ...set) table {
		return table{family: nft.TableFamilyARP, name: name, use: use, chains: chains, sets: sets}
	}
	for why, row := range map[string]struct {
		table   table
		foreign bool
	}{
		"somebody's chain":                    {arp(0, []chain{{name: "input"}}), true},
		"somebody's set":                      {arp(0, nil, set{name: "blocked"}), true},
		"somebody's set beside one like ours": {arp(0, nil, set{name: setSchema}, set{name: "blocked"}), true},
		"our chain's name of another family":  {arp(0, []chain{{name: chainOverheard}}), true},
		"a named counter beside our chain":    {arp(2, []chain{{name: chainOutput}}), true},
		"empty: nothing is lost with it":      {arp(0, nil), false},
		"a newer version's": {arp(0, []chain{{name: "new"}}, set{
			name: setSchema, elements: []element{{key: 9, comment: "ip=192.168.10.3/24 hashmode=moonphase"}},
		}), false},
		"somebody's chain in ours, whose stamp the kernel does not list from its beginning": {table{
			family: nft.TableFamilyNetdev, name: name, chains: []chain{{name: "mine"}}, sets: []set{
				{name: setSchema, elements: []element{
					{key: schemaKey(1, 1, 1), comment: "buckets=8"}, {key: schemaKey(1, 0, 1), comment: "ip=192.168.10.3/24 "},
				}},
			},
		}, false},
	} {
		t.Run(why, func(t *testing.T) {
			judged := judge([]table{row.table})
			if foreign := len(judged.Conflicting) == 1; foreign != row.foreign || judged.Present == row.foreign {
				t.Errorf("%+v", judged)
			}
		})
	}
}

func TestCommentInAnyUserData(t *testing.T) {
	for name, row := range map[string]struct{ data, want string }{
		"a comment":          {"\x00\x03hi\x00", "hi"},
		"without its end":    {"\x00\x02hi", "hi"},
		"behind another":     {"\x01\x01x\x00\x03hi\x00", "hi"},
		"nothing":            {"", ""},
		"half a header":      {"\x00", ""},
		"longer than it is":  {"\x00\xffhi", ""},
		"another, cut off":   {"\x01\x05x", ""},
		"nothing but others": {"\x01\x01x", ""},
	} {
		if got := commentIn([]byte(row.data)); got != row.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
