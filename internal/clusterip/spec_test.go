package clusterip

import (
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

// valuesOf is what the parser makes of good parameters.
func valuesOf(given map[string]any) metadata.Values {
	all := map[string]any{
		"ip": nil, "cidr_netmask": nil, "nic": nil, "backend": "auto", "mac_mode": "multicast", "mac": nil,
		"hashmode": "sourceip", "hash_seed": nil, "hash_compat": "xt_cluster",
		"hash_prefix4": uint32(32), "hash_prefix6": uint32(128), "services": nil,
		"check_link": true, "arp_count": uint32(3), "arp_interval": nil, "drain": nil, "linger": nil, "early_drop": "auto",
		"remember": uint32(0), "tell_rate": uint32(10000),
	}
	maps.Copy(all, given)
	return metadata.NewValues(all)
}

var (
	vip  = netip.MustParseAddr("192.168.10.3")
	vip6 = netip.MustParseAddr("2001:db8:10::3")
)

// specOf is one of eight buckets of vip.
func specOf(mode MACMode, bucket Bucket) Spec {
	values := valuesOf(map[string]any{"ip": []netip.Addr{vip}, "mac_mode": string(mode)})
	spec, err := NewSpec(values, "web-ip", ocf.Clone{Bucket: uint32(bucket), Buckets: 8})
	if err != nil {
		panic(err)
	}
	return spec
}

// freshNode has an interface in vip's network, and nothing of a resource.
func freshNode() State {
	const index = 2
	return State{
		NICs:      []NIC{{Index: index, Name: "eth0", Up: true, Running: true, ARP: true}},
		Connected: []Route{{NICIndex: index, Prefix: netip.MustParsePrefix("192.168.10.0/24")}},
	}
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func mac(t *testing.T, text string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNewSpecDealsToFamilies(t *testing.T) {
	const dual = "192.168.10.3 2001:db8:10::3"
	for name, row := range map[string]struct {
		ip           string
		mode         MACMode
		mac          string
		netmask      []uint32
		mac4, mac6   string // "": none
		bits4, bits6 int
		says         string // of the error
	}{
		"IPv4":               {ip: "192.168.10.3", mac4: "03:c1:c0:a8:0a:03"},
		"IPv6":               {ip: "2001:db8:10::3", mac6: "03:c1:44:2a:81:af"},
		"dual":               {ip: dual, mac4: "03:c1:c0:a8:0a:03", mac6: "03:c1:c0:a8:0a:03"},
		"IPv6 first":         {ip: "2001:db8:10::3 192.168.10.3", mac4: "03:c1:44:2a:81:af", mac6: "03:c1:44:2a:81:af"},
		"igmp":               {ip: dual, mode: IGMP, mac4: "01:00:5e:7f:0a:03", mac6: "33:33:c4:2a:81:af"},
		"igmp, MAC for IPv4": {ip: dual, mode: IGMP, mac: "01:00:5e:7f:01:01", mac4: "01:00:5e:7f:01:01", mac6: "33:33:c4:2a:81:af"},
		"igmp, MAC for IPv6": {ip: dual, mode: IGMP, mac: "33:33:00:00:00:01", mac4: "01:00:5e:7f:0a:03", mac6: "33:33:00:00:00:01"},
		"igmp, MAC for nobody": {
			ip: "192.168.10.3", mode: IGMP, mac: "33:33:00:00:00:01", mac4: "01:00:5e:7f:0a:03", says: "no address of that family",
		},
		"unicast, MAC for both": {ip: dual, mode: Unicast, mac: "02:00:00:00:00:01", mac4: "02:00:00:00:00:01", mac6: "02:00:00:00:00:01"},
		"one prefix length":     {ip: dual, netmask: []uint32{24}, mac4: "03:c1:c0:a8:0a:03", mac6: "03:c1:c0:a8:0a:03", bits4: 24},
		"two": {
			ip: dual, netmask: []uint32{24, 64}, mac4: "03:c1:c0:a8:0a:03", mac6: "03:c1:c0:a8:0a:03", bits4: 24, bits6: 64,
		},
		"one for IPv6": {ip: "2001:db8:10::3", netmask: []uint32{64}, mac6: "03:c1:44:2a:81:af", bits6: 64},
		"one that fits IPv6": {
			ip: dual, netmask: []uint32{64}, mac4: "03:c1:c0:a8:0a:03", mac6: "03:c1:c0:a8:0a:03", bits4: 64, says: "24,64",
		},
		"all routers' address":   {ip: "2001:db8:10::", netmask: []uint32{64}, mac6: "03:c1:f1:1d:8a:46", bits6: 64, says: "all routers"},
		"point to point":         {ip: "2001:db8:10::", netmask: []uint32{127}, mac6: "03:c1:f1:1d:8a:46", bits6: 127},
		"link-local without NIC": {ip: "fe80::3", mac6: "03:c1:43:6f:bb:4b", says: "parameter nic"},
	} {
		t.Run(name, func(t *testing.T) {
			given := map[string]any{"ip": addrs(strings.Fields(row.ip)...), "cidr_netmask": row.netmask}
			if row.mode != "" {
				given["mac_mode"] = string(row.mode)
			}
			if row.mac != "" {
				given["mac"] = mac(t, row.mac)
			}
			spec, err := NewSpec(valuesOf(given), "web-ip", ocf.Clone{Buckets: 8})
			if says := row.says != ""; says != (err != nil) || says && !strings.Contains(err.Error(), row.says) ||
				err != nil && ocf.CodeOf(err) != ocf.ErrConfigured {
				t.Errorf("error %v, want %q", err, row.says)
			}
			text := func(m MAC) string {
				if m.IsZero() {
					return ""
				}
				return m.String()
			}
			got := []string{text(spec.MACs.IPv4), text(spec.MACs.IPv6)}
			if diff := cmp.Diff([]string{row.mac4, row.mac6}, got); diff != "" {
				t.Errorf("MACs (-want +got):\n%s", diff)
			}
			if want := (PerFamily[int]{row.bits4, row.bits6}); spec.PrefixLengths != want {
				t.Errorf("prefix lengths %v, want %v", spec.PrefixLengths, want)
			}
		})
	}
}

func TestSeeds(t *testing.T) {
	for name, row := range map[string]struct {
		seed any // nil: not given
		mode HashMode
		want Seed
		says string
	}{
		"derived":                {nil, SourceIP, DefaultSeed(vip), ""},
		"given":                  {uint32(7), SourceIP, 7, ""},
		"0":                      {uint32(0), SourceIP, 0, ""},
		"0 with a port":          {uint32(0), SourceIPSourcePort, 0, ""},
		"0 with both ports":      {uint32(0), SourceIPSourcePortDestPort, 0, "hash_seed=0 cannot be used"},
		"0 where ports are none": {uint32(0xfffffff8), SourceIPSourcePortDestPort, 0xfffffff8, ""},
	} {
		spec, err := NewSpec(
			valuesOf(map[string]any{"ip": []netip.Addr{vip}, "hash_seed": row.seed, "hashmode": string(row.mode)}), "web-ip", ocf.Clone{Buckets: 8},
		)
		if says := row.says != ""; says != (err != nil) || says && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", name, err)
		}
		if spec.Seed != row.want {
			t.Errorf("%s: seed %s", name, spec.Seed)
		}
	}
}

func TestOwnerOfLayout(t *testing.T) {
	layout := Layout{
		HashMode: SourceIPSourcePort, HashPrefixes: PerFamily[int]{24, 64}, Seed: 7, Buckets: 1024,
		Services: []services.Service{services.ICMP, {Protocol: "tcp", First: 80, Last: 90}},
	}
	web := Packet{Flow: Flow{Source: netip.MustParseAddr("192.0.2.77"), SourcePort: 4000, DestinationPort: 85}, Protocol: "tcp"}
	bucket := layout.BucketOf(web)
	for name, row := range map[string]struct {
		change func(*Packet)
		same   bool
		zero   bool
	}{
		"a neighbour":           {func(p *Packet) { p.Source = netip.MustParseAddr("192.0.2.3") }, true, false},
		"another network":       {func(p *Packet) { p.Source = netip.MustParseAddr("192.0.3.77") }, false, false},
		"another source port":   {func(p *Packet) { p.SourcePort++ }, false, false},
		"another listed port":   {func(p *Packet) { p.DestinationPort = 90 }, true, false},
		"a port not listed":     {func(p *Packet) { p.DestinationPort = 91 }, false, true},
		"a protocol not listed": {func(p *Packet) { p.Protocol = "udp" }, false, true},
		"a fragment of it":      {func(p *Packet) { p.Protocol, p.Fragment = "udp", true }, false, false},
	} {
		p := web
		row.change(&p)
		if got := layout.BucketOf(p); (got == bucket) != row.same || (got == 0) != row.zero {
			t.Errorf("%s: bucket %d, that of the first is %d", name, got, bucket)
		}
	}
	neighbours := []string{"2001:db8::1", "2001:db8::ffff:1"}
	if a, b := layout.BucketOf(Packet{Flow: Flow{Source: netip.MustParseAddr(neighbours[0])}, Protocol: "icmp"}),
		layout.BucketOf(Packet{Flow: Flow{Source: netip.MustParseAddr(neighbours[1])}, Protocol: "icmp"}); a != b {
		t.Errorf("%s and %s have the buckets %d and %d", neighbours[0], neighbours[1], a, b)
	}
}

// After drain was switched off, the rules stay until the last drain and adoption have ended: a start of another bucket must not end them.
func TestResolveKeepsTheRulesOfDrains(t *testing.T) {
	drains := Moves{Draining: []Drain{{Bucket: 2}}, Announced: []Bucket{2}}
	for name, row := range map[string]struct {
		moves Moves
		spoil func(*Layout)
		want  bool
	}{
		"a drain":            {drains, nil, true},
		"an adoption":        {Moves{Adopting: []Adoption{{Bucket: 2}}}, nil, true},
		"neither":            {Moves{}, nil, false},
		"another layout":     {drains, func(l *Layout) { l.Buckets++ }, false},
		"without such rules": {drains, func(l *Layout) { l.Drains = false }, false},
	} {
		spec, seen := specOf(Multicast, 0), freshNode()
		spec.Drain = 1
		installed, err := spec.Resolve(seen)
		if err != nil {
			t.Fatal(err)
		}
		if row.spoil != nil {
			row.spoil(&installed)
		}
		seen.Tables = Tables{Present: true, Installed: &installed, Moves: row.moves}
		spec.Drain = 0
		if layout, err := spec.Resolve(seen); err != nil || layout.Drains != row.want {
			t.Errorf("%s: the layout has rules for drains: %t (%v)", name, layout.Drains, err)
		}
	}
}
