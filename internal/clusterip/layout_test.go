package clusterip

import (
	"net/netip"
	"reflect"
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
			layout.Backend, layout.Ports = NFTables, []int{8, 12}
			got, err := ParseStamp(layout.Schema, layout.Stamp())
			if diff := cmp.Diff(layout.Stamp(), got.Stamp()); err != nil || diff != "" || !reflect.DeepEqual(got, layout) {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
			if !IsStamp(layout.Stamp()) {
				t.Errorf("not known as a stamp: %q", layout.Stamp())
			}
		}
	}
}

// A name is whatever somebody calls the agent with, and must not be taken for more of the stamp.
func TestStampOfAnyName(t *testing.T) {
	layout, err := specOf(Multicast, 0).Resolve(freshNode())
	if err != nil {
		t.Fatal(err)
	}
	layout.Backend = NFTables
	for _, name := range []string{
		"web ip=192.0.2.1/24", "web\tip", "web\nip=192.0.2.1/24", "web\u2003ip", "100%", "web%20ip", "wéb-ip", "a=b", " ",
	} {
		layout.Resource = name
		got, err := ParseStamp(layout.Schema, layout.Stamp())
		if diff := cmp.Diff(layout, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("%q: error %v (-want +got):\n%s", name, err, diff)
		}
	}
}

func TestSchemaIsTheNewest(t *testing.T) {
	for _, backend := range append(backends(), "") {
		spec := specOf(Multicast, 0)
		spec.Backend = backend
		layout, err := spec.Resolve(freshNode())
		if err != nil || layout.Schema != Schema {
			t.Errorf("backend %q: schema %d (%v)", backend, layout.Schema, err)
		}
	}
}

func TestBadStampIsRefused(t *testing.T) {
	good := "ip=192.168.10.3/24 nic=eth0 nic_index=2 mac_mode=igmp mac=01:00:5e:7f:0a:03 hashmode=sourceip hash_seed=0x00000001 buckets=8"
	if _, err := ParseStamp(1, good+" later_key=1"); err != nil {
		t.Errorf("an unknown key: %v", err)
	}
	target := strings.NewReplacer("0x00000001", "0x0", "=sourceip", "=sourceip-sourceport-destport", "=igmp", "=multicast").Replace(good) +
		" backend=clusterip hash_compat=clusterip"
	if _, err := ParseStamp(1, target); err != nil {
		t.Errorf("seed 0 on the target, which takes it in each hash mode: %v", err)
	}
	for name, stamp := range map[string]string{
		"empty":          "",
		"no address":     strings.Replace(good, "ip=", "i=", 1),
		"no NIC":         strings.Replace(good, "nic=", "n=", 1),
		"bad index":      strings.Replace(good, "nic_index=2", "nic_index=-2", 1),
		"unknown mode":   strings.Replace(good, "=igmp", "=magic", 1),
		"no MAC for it":  strings.Replace(good, "192.168.10.3/24", "2001:db8::3/64", 1),
		"bad compat":     good + " hash_compat=other",
		"seed 0":         strings.NewReplacer("0x00000001", "0x0", "=sourceip", "=sourceip-sourceport-destport").Replace(good),
		"bad prefix":     good + " hash_prefix4=33",
		"bad service":    good + " services=tcp/0",
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
	const stamp = "ip=192.168.10.3/24 nic=eth0 nic_index=2 mac_mode=igmp mac=01:00:5e:7f:0a:03 hashmode=sourceip hash_seed=0x1 buckets=8"
	f.Add(stamp)
	f.Add(stamp + " drain=yes linger_from=02:00:00:00:01:01")
	f.Fuzz(func(t *testing.T, stamp string) {
		layout, err := ParseStamp(Schema, stamp)
		if err != nil {
			return
		}
		again, err := ParseStamp(Schema, layout.Stamp())
		if err != nil || !reflect.DeepEqual(again, layout) {
			t.Errorf("%q is read as %+v, and written and read again as %+v (%v)", stamp, layout, again, err)
		}
	})
}
