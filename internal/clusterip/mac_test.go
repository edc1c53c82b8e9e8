package clusterip

import (
	"net/netip"
	"testing"
)

func TestDerivedMACsSuitTheirMode(t *testing.T) {
	address := netip.MustParseAddr("192.168.10.3")
	for mode, want := range map[MACMode]string{
		Multicast: "03:c1:c0:a8:0a:03",
		Unicast:   "02:c1:c0:a8:0a:03",
		IGMP:      "01:00:5e:7f:0a:03",
	} {
		mac := DerivedMAC(mode, address)
		if mac.String() != want {
			t.Errorf("%s: %s, want %s", mode, mac, want)
		}
		for _, other := range MACModes() {
			err := other.Check(mac)
			if fits := other == mode || other == Multicast && mac.Group(); fits != (err == nil) {
				t.Errorf("%s in mode %s: %v", mac, other, err)
			}
		}
	}
	if group := DerivedMAC(IGMP, address).MulticastGroup().String(); group != "239.255.10.3" {
		t.Errorf("group %s", group)
	}
}
