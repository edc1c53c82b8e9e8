package services

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Service{
		"icmp": ICMP, "tcp/80": {"tcp", 80, 80}, "udp/1-65535": {"udp", 1, 65535}, "sctp/5-5": {"sctp", 5, 5},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s is %v (%v)", text, got, err)
		}
	}
	for _, text := range []string{
		"", "tcp", "tcp/", "tcp/0", "tcp/0-5", "tcp/65536", "tcp/-1", "tcp/5-", "tcp/6-5", "tcp/+5", "tcp/5-6-7",
		"icmp/8", "gre/1", "TCP/80", "/80", "tcp/80 ",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func FuzzServices(f *testing.F) {
	f.Add("tcp/80", "tcp/81-90", "icmp", uint16(85))
	f.Add("udp/1-65535", "udp/65535", "tcp/65534-65535", uint16(65535))
	f.Fuzz(func(t *testing.T, a, b, c string, port uint16) {
		var all []Service
		for _, text := range []string{a, b, c} {
			if s, err := Parse(text); err == nil {
				all = append(all, s)
				if again, err := Parse(s.String()); err != nil || again != s {
					t.Errorf("%q is %v, written and read again %v (%v)", text, s, again, err)
				}
			}
		}
		merged := Merge(all)
		for _, protocol := range Protocols() {
			holds := func(s Service) bool { return s.Holds(protocol, port) }
			if slices.ContainsFunc(all, holds) != slices.ContainsFunc(merged, holds) {
				t.Errorf("%v merged is %v: they differ about %s/%d", all, merged, protocol, port)
			}
		}
		if diff := cmp.Diff(merged, Merge(merged)); diff != "" {
			t.Errorf("merged again:\n%s", diff)
		}
	})
}
