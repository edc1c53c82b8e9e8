package main

import (
	"strings"
	"testing"
)

// A target is met if it is in every setting, and not measured without the agent's parameter.
func TestTargets(t *testing.T) {
	foreign := func(figures ...float64) map[bool][]float64 { return map[bool][]float64{true: figures} }
	site := func(addresses int, xdp ...float64) *packetSite {
		t := &packetSite{setting: setting{buckets: 8, addresses: addresses}}
		add := func(name string, figures ...float64) {
			t.nodes = append(t.nodes, &receiverNode{receiver: &receiver{name: name}, costs: foreign(figures...)})
		}
		add(xdpDropName, 100)
		add(peerName, 1000, 400, 390) // median 400
		if xdp != nil {
			add(xdpName, xdp...)
		}
		return t
	}
	for _, test := range []struct {
		name  string
		sites []*packetSite
		first string // the first row, xdp beside IPaddr2's nft rules, without its name
		met   bool
	}{
		{"without the parameter", []*packetSite{site(1)}, "not measured", true},
		{"met in one setting", []*packetSite{site(1, 110)}, "met|in all 1 settings; worst 0.28: IPv4, 8 buckets, 1 address", true},
		{
			"not met in one of two settings",
			[]*packetSite{site(1, 110), site(32, 124)},
			"NOT MET|in 1 of 2 settings; worst 0.31: IPv4, 8 buckets, 32 addresses",
			false,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := packetCosts{sites: test.sites}
			rows, met := c.verdicts()
			if got := strings.TrimRight(strings.Join(rows[0][1:], "|"), "|"); got != test.first || met != test.met {
				t.Errorf("got %q, met %t; want %q, %t", got, met, test.first, test.met)
			}
		})
	}
}
