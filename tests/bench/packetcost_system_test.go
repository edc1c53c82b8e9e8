//go:build system

package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func program(t *testing.T) string {
	t.Helper()
	agent, err := harness.Program()
	if err != nil {
		t.Fatal(err)
	}
	return agent
}

const fewPackets = 2000

// Every receiver drops and delivers what it should, which each measurement itself checks, and what is measured is in the tables.
func TestEveryReceiverIsMeasured(t *testing.T) {
	few := []setting{
		{buckets: 8, addresses: 2},
		{ipv6: true, buckets: 8, addresses: 2},
		{buckets: 64, addresses: 1},
		{ipv6: true, buckets: 1, addresses: 1},
		{tcp: true, buckets: 8, addresses: 1},
	}
	c, err := measurePackets(t.Context(), newProgress(os.Stderr), program(t), t.TempDir(), few, 1, fewPackets)
	if err != nil {
		t.Fatal(err)
	}
	for _, site := range c.sites {
		for i := range c.receivers {
			r := &c.receivers[i]
			for _, foreign := range []bool{true, false} {
				want := r.fits(site.setting) && r.fate(foreign) != unmeasured && (site.setting.hasForeign() || !foreign)
				if got := site.cost(r.name, foreign) > 0; got != want {
					t.Errorf("%s, %s, foreign %t: measured %t, want %t", site.setting, r.name, foreign, got, want)
				}
			}
		}
	}
	t.Log(c.report())
}

// A receiver that does not do with packets what its row claims is not measured.
func TestWrongFates(t *testing.T) {
	all, _, err := receivers(t.Context(), program(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		receiver      string
		foreign, own  fate
		wantErrorWith string
	}{
		{"an address is taken for none", "the address alone", dropped, unmeasured, "none should"},
		{"rules are taken for none", peerName, delivered, unmeasured, "all should"},
		{"rules are taken to drop everything", peerName, unmeasured, dropped, "none should"},
		{"no address is taken for one", "nothing installed", unmeasured, delivered, "all should"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := all[slices.IndexFunc(all, func(r receiver) bool { return r.name == test.receiver })]
			r.foreign, r.own = test.foreign, test.own
			site := packetSite{setting: setting{buckets: 8, addresses: 1}}
			err := site.measure(t.Context(), []receiver{r}, t.TempDir(), func(int) {}, 1, fewPackets)
			if err == nil || !strings.Contains(err.Error(), test.wantErrorWith) {
				t.Errorf("got %v, want an error with %q", err, test.wantErrorWith)
			}
		})
	}
}
