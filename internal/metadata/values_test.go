package metadata

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValues(t *testing.T) {
	addr := netip.MustParseAddr("192.168.10.3")
	addrs := []netip.Addr{addr}
	mac := net.HardwareAddr{1, 2, 3, 4, 5, 6}
	source := map[string]any{
		"ip": addrs, "prefix": uint32(24), "mac": mac, "check": Default{true}, "mode": Default{"multicast"},
		"gap": 20 * time.Millisecond, "none": nil,
	}
	v := NewValues(source)
	addrs[0] = netip.Addr{}
	mac[0] = 9
	v.HardwareAddr("mac")[1] = 9

	if got := v.Addrs("ip"); len(got) != 1 || got[0] != addr {
		t.Errorf("ip = %v, want %s: the source's change shows", got, addr)
	}
	if diff := cmp.Diff(net.HardwareAddr{1, 2, 3, 4, 5, 6}, v.HardwareAddr("mac")); diff != "" {
		t.Errorf("mac can be changed (-want +got):\n%s", diff)
	}
	if got, ok := v.Uint32("prefix"); got != 24 || !ok {
		t.Errorf("prefix = %d, %t", got, ok)
	}
	if !v.Bool("check") || v.String("mode") != "multicast" {
		t.Error("a default does not show")
	}
	if got := v.Duration("gap"); got != 20*time.Millisecond {
		t.Errorf("gap = %s", got)
	}
	for name, want := range map[string]bool{"ip": true, "check": false, "none": false} {
		if got := v.Given(name); got != want {
			t.Errorf("Given(%q) = %t, want %t", name, got, want)
		}
	}
	if n, ok := v.Uint32("none"); n != 0 || ok || v.Addrs("none") != nil || v.Services("none") != nil || v.Numbers("none") != nil ||
		v.Bool("none") || v.String("none") != "" || v.HardwareAddr("none") != nil || v.Duration("none") != 0 {
		t.Error("a parameter without a value has one")
	}
}

func TestValuesPanicOnProgrammersMistakes(t *testing.T) {
	v := NewValues(map[string]any{"ip": netip.MustParseAddr("192.0.2.1")})
	for name, mistake := range map[string]func(){
		"a name that is not in the table":   func() { v.String("pi") },
		"Given of a name not in the table":  func() { v.Given("pi") },
		"a parameter of another type":       func() { v.Bool("ip") },
		"any name of an empty set of value": func() { Values{}.Addrs("ip") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			mistake()
		})
	}
}
