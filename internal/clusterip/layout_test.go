package clusterip

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStampIsReadBack(t *testing.T) {
	for _, mode := range MACModes() {
		for _, hashMode := range HashModes() {
			spec := specOf(mode, 0)
			spec.HashMode = hashMode
			layout, err := spec.Resolve(freshNode())
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseStamp(Schema, layout.Stamp())
			if diff := cmp.Diff(layout.Stamp(), got.Stamp()); err != nil || diff != "" || got != layout {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
			if !IsStamp(layout.Stamp()) {
				t.Errorf("not known as a stamp: %q", layout.Stamp())
			}
		}
	}
}

func TestStampOfALongNameFitsTheKernel(t *testing.T) {
	layout, err := specOf(Multicast, 0).Resolve(freshNode())
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int{1, 90, 100, 110, 1000} {
		layout.Resource = strings.Repeat("x", length)
		if stamp := layout.Stamp(); len(stamp) > maxStamp {
			t.Errorf("a name of %d bytes makes a stamp of %d", length, len(stamp))
		}
	}
}

func TestBadStampIsRefused(t *testing.T) {
	good := "ip=192.168.10.3/24 nic=eth0 nic_index=2 mac_mode=igmp mac=01:00:5e:7f:0a:03 hashmode=sourceip hash_seed=0x00000001 buckets=8"
	if _, err := ParseStamp(1, good+" later_key=1"); err != nil {
		t.Errorf("an unknown key: %v", err)
	}
	for name, stamp := range map[string]string{
		"empty":          "",
		"no address":     strings.Replace(good, "ip=", "i=", 1),
		"no NIC":         strings.Replace(good, "nic=", "n=", 1),
		"bad index":      strings.Replace(good, "nic_index=2", "nic_index=-2", 1),
		"unknown mode":   strings.Replace(good, "=igmp", "=magic", 1),
		"IPv6":           strings.Replace(good, "192.168.10.3/24", "2001:db8::3/64", 1),
		"long MAC":       strings.Replace(good, "0a:03", "0a:03:00:00", 1),
		"bad MAC":        strings.Replace(good, "0a:03", "0a", 1),
		"unknown hash":   strings.Replace(good, "=sourceip", "=moonphase", 1),
		"seed too large": strings.Replace(good, "0x00000001", "0x100000000", 1),
		"no buckets":     strings.Replace(good, "buckets=8", "buckets=0", 1),
		"many buckets":   strings.Replace(good, "buckets=8", "buckets=1025", 1),
	} {
		if _, err := ParseStamp(1, stamp); err == nil {
			t.Errorf("%s: %q is taken", name, stamp)
		}
	}
}

func FuzzParseStamp(f *testing.F) {
	f.Add("ip=192.168.10.3/24 nic=eth0 nic_index=2 mac_mode=igmp mac=01:00:5e:7f:0a:03 hashmode=sourceip hash_seed=0x1 buckets=8")
	f.Fuzz(func(t *testing.T, stamp string) {
		layout, err := ParseStamp(Schema, stamp)
		if err != nil {
			return
		}
		again, err := ParseStamp(Schema, layout.Stamp())
		if len(layout.Resource) < 50 && (err != nil || again != layout) {
			t.Errorf("%q is read as %+v, and written and read again as %+v (%v)", stamp, layout, again, err)
		}
	})
}
