package metadata

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

// value reads any parameter's value by the accessor of its kind; nil when there is none.
func value(v Values, p Parameter) any {
	switch p.Kind {
	case Addresses:
		if addrs := v.Addrs(p.Name); addrs != nil {
			return addrs
		}
	case PrefixLengths:
		if lengths := v.Numbers(p.Name); lengths != nil {
			return lengths
		}
	case Services:
		if services := v.Services(p.Name); services != nil {
			return services
		}
	case InterfaceName, Select:
		if s := v.String(p.Name); s != "" {
			return s
		}
	case MAC:
		if mac := v.HardwareAddr(p.Name); mac != nil {
			return mac
		}
	case Unsigned, Seed:
		if n, ok := v.Uint32(p.Name); ok {
			return n
		}
	case Milliseconds, Seconds:
		if d := v.Duration(p.Name); d != 0 {
			return d
		}
	case Boolean:
		return v.Bool(p.Name)
	}
	return nil
}

func values(v Values) map[string]any {
	all := make(map[string]any)
	for _, p := range Parameters() {
		all[p.Name] = value(v, p)
	}
	return all
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestParseFillsInDefaults(t *testing.T) {
	v, unknown, err := Parse(map[string]string{"ip": "192.168.10.3", "nic": "", "mac_mode": ""})
	if err != nil || unknown != nil {
		t.Fatalf("unknown %v, error %v", unknown, err)
	}
	want := map[string]any{
		"ip": addrs("192.168.10.3"), "cidr_netmask": nil, "nic": nil, "backend": "auto", "mac_mode": "multicast", "mac": nil,
		"hashmode": "sourceip", "hash_seed": nil, "drain": nil, "linger": 5 * time.Second, "early_drop": "auto", "hash_compat": "xt_cluster",
		"hash_prefix4": uint32(32), "hash_prefix6": uint32(128), "services": nil, "check_link": true,
		"remember": uint32(65536), "tell_rate": uint32(10000), "arp_count": uint32(3), "arp_interval": 20 * time.Millisecond,
	}
	if diff := cmp.Diff(want, values(v), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	for _, p := range Parameters() {
		if got, want := v.Given(p.Name), p.Name == "ip"; got != want {
			t.Errorf("Given(%q) = %t, want %t", p.Name, got, want)
		}
	}
}

func TestParseTakes(t *testing.T) {
	mac := net.HardwareAddr{1, 2, 3, 4, 5, 6}
	tests := []struct {
		name, parameter, text string
		want                  any
	}{
		{"the article's address", "ip", "192.168.10.3", addrs("192.168.10.3")},
		{"the lowest address that a host can have", "ip", "1.0.0.0", addrs("1.0.0.0")},
		{"the highest one", "ip", "223.255.255.255", addrs("223.255.255.255")},
		{"an IPv6 address", "ip", "2001:db8::3", addrs("2001:db8::3")},
		{"an IPv6 address in another form", "ip", "2001:DB8:0:0::3", addrs("2001:db8::3")},
		{
			"several addresses", "ip", "192.0.2.1, 192.0.2.2 2001:db8::3,2001:db8::4", addrs("192.0.2.1", "192.0.2.2", "2001:db8::3", "2001:db8::4"),
		},
		{"an address with a space", "ip", "192.168.10.3 ", addrs("192.168.10.3")},
		{"a link-local address", "ip", "fe80::1", addrs("fe80::1")},
		{"the shortest prefix", "cidr_netmask", "1", []uint32{1}},
		{"the longest prefix", "cidr_netmask", "128", []uint32{128}},
		{"one for each version", "cidr_netmask", "24,64", []uint32{24, 64}},
		{"a prefix to hash", "hash_prefix4", "24", uint32(24)},
		{"an IPv6 prefix to hash", "hash_prefix6", "64", uint32(64)},
		{"services", "services", "tcp/443, tcp/80 udp/5000-5100 icmp", []services.Service{
			services.ICMP, {Protocol: "tcp", First: 80, Last: 80}, {Protocol: "tcp", First: 443, Last: 443}, {
				Protocol: "udp", First: 5000, Last: 5100,
			},
		}},
		{"services that overlap or touch", "services", "tcp/80-90 tcp/85-100 tcp/101 tcp/1-65535 udp/65535 udp/65535", []services.Service{
			{Protocol: "tcp", First: 1, Last: 65535}, {Protocol: "udp", First: 65535, Last: 65535},
		}},
		{"a VLAN", "nic", "bond0.4094", "bond0.4094"},
		{"an interface name of full length", "nic", "abcdefghijklmno", "abcdefghijklmno"},
		{"an alternative interface name of full length", "nic", strings.Repeat("a", 127), strings.Repeat("a", 127)},
		{"an interface name of odd characters", "nic", `-%"\~`, `-%"\~`},
		{"the igmp mode", "mac_mode", "igmp", "igmp"},
		{"the unicast mode", "mac_mode", "unicast", "unicast"},
		{"the article's MAC", "mac", "01:02:03:04:05:06", mac},
		{"a MAC with hyphens", "mac", "01-02-03-04-05-06", mac},
		{"a MAC with dots", "mac", "0102.0304.0506", mac},
		{"a MAC without separators", "mac", "010203040506", mac},
		{"a MAC in capitals", "mac", "0A:0B:0C:0D:0E:0F", net.HardwareAddr{10, 11, 12, 13, 14, 15}},
		{"hashing by both ports", "hashmode", "sourceip-sourceport-destport", "sourceip-sourceport-destport"},
		{"the smallest seed", "hash_seed", "0", uint32(0)},
		{"the greatest seed", "hash_seed", "4294967295", uint32(4294967295)},
		{"a hexadecimal seed", "hash_seed", "0xDeadBeef", uint32(0xdeadbeef)},
		{"a seed with a capital X", "hash_seed", "0X10", uint32(16)},
		{"a seed with zeros in front is not octal", "hash_seed", "010", uint32(10)},
		{"no announcements", "arp_count", "0", uint32(0)},
		{"the most announcements", "arp_count", "20", uint32(20)},
		{"the shortest interval", "arp_interval", "1", time.Millisecond},
		{"the longest interval", "arp_interval", "500", 500 * time.Millisecond},
	}
	for word, want := range map[string]bool{
		"true": true, "yes": true, "on": true, "1": true, "YES": true, "On": true,
		"false": false, "no": false, "off": false, "0": false, "False": false, "OFF": false,
	} {
		tests = append(tests, struct {
			name, parameter, text string
			want                  any
		}{"a truth value as " + word, "check_link", word, want})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			params := map[string]string{"ip": "192.0.2.1"}
			params[tt.parameter] = tt.text
			v, _, err := Parse(params)
			if err != nil {
				t.Fatal(err)
			}
			if got := values(v)[tt.parameter]; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s=%s is %v, want %v", tt.parameter, tt.text, got, tt.want)
			}
			if !v.Given(tt.parameter) {
				t.Error("does not count as given")
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const (
		noAddress = "is not an IPv4 or IPv6 address such as 192.168.10.3, or a list of them"
		noLength  = "is not a number from 1 to 128, or two such as 24,64"
		noName    = "is not the name or an alternative name of an interface: 1 to 127 printable ASCII characters without space, slash and colon"
		noMAC     = "is not a MAC address of six bytes such as 03:c1:c0:a8:0a:03"
		noSeed    = "is not a number from 0 to 4294967295, decimal or hexadecimal with 0x in front"
	)
	long := strings.Repeat("1", 1000)
	cutLong := `"` + strings.Repeat("1", 60) + `"… (1000 bytes)`
	tests := []struct{ name, parameter, text, want string }{
		{"no address", "ip", "", "parameter ip is missing: it must be an IPv4 or IPv6 address such as 192.168.10.3, or a list of them"},
		{"a host name", "ip", "www.example.com", `parameter ip="www.example.com" ` + noAddress},
		{
			"an IPv4 address in IPv6's clothes", "ip", "::ffff:192.0.2.1",
			`parameter ip="::ffff:192.0.2.1" is an IPv4 address in IPv6 form: give 192.0.2.1`,
		},
		{"a zone", "ip", "fe80::1%eth0", `parameter ip="fe80::1%eth0" has a zone: give the interface with parameter nic`},
		{"nothing but commas", "ip", " , ", `parameter ip=" , " ` + noAddress},
		{
			"an address twice", "ip", "2001:db8::3 2001:db8:0::3",
			`parameter ip="2001:db8::3 2001:db8:0::3" has faults: "2001:db8:0::3" is given twice`,
		},
		{
			"two that no host can have", "ip", "::1 ff02::1",
			`parameter ip="::1 ff02::1" has faults: "::1" is the loopback address, which no host can have; ` +
				`"ff02::1" is a multicast address, which no host can have`,
		},
		{
			"three prefix lengths", "cidr_netmask", "24,64,64",
			`parameter cidr_netmask="24,64,64" is not a number from 1 to 128, or two such as 24,64`,
		},
		{
			"no such service", "services", "http",
			`parameter services="http" is not a list of services such as "tcp/80 tcp/443 icmp" or tcp/5000-5100, ` +
				`of the protocols tcp, udp, sctp, udplite, dccp, icmp: "http" is not a service`,
		},
		{"an address with zeros in front", "ip", "192.168.010.3", `parameter ip="192.168.010.3" ` + noAddress},
		{"half an address", "ip", "192.168.10", `parameter ip="192.168.10" ` + noAddress},
		{"an address of a thousand characters", "ip", long, "parameter ip=" + cutLong + " " + noAddress},
		{
			"an address with its prefix", "ip", "192.168.10.3/24",
			`parameter ip="192.168.10.3/24" has a prefix length: give ip=192.168.10.3 cidr_netmask=24`,
		},
		{"the unspecified address", "ip", "0.0.0.0", `parameter ip="0.0.0.0" is the unspecified address, which no host can have`},
		{
			"an address of this network", "ip", "0.1.2.3",
			`parameter ip="0.1.2.3" is in the range 0.0.0.0/8 ("this network"), which no host can have`,
		},
		{"a loopback address", "ip", "127.0.0.1", `parameter ip="127.0.0.1" is a loopback address, which no host can have`},
		{"the lowest multicast address", "ip", "224.0.0.0", `parameter ip="224.0.0.0" is a multicast address, which no host can have`},
		{
			"the highest multicast address", "ip", "239.255.255.255",
			`parameter ip="239.255.255.255" is a multicast address, which no host can have`,
		},
		{"a class E address", "ip", "240.0.0.1", `parameter ip="240.0.0.1" is in the reserved range 240.0.0.0/4, which no host can have`},
		{"the broadcast address", "ip", "255.255.255.255", `parameter ip="255.255.255.255" is the broadcast address, which no host can have`},
		{"an address with a line break", "ip", "192.0.2.1\n", `parameter ip="192.0.2.1\n" contains the control character U+000A`},
		{"an address that is not UTF-8", "ip", "192.0.2.\xff", `parameter ip="192.0.2.\xff" is not valid UTF-8`},

		{"a prefix of nothing", "cidr_netmask", "0", `parameter cidr_netmask="0" ` + noLength},
		{"a prefix beyond the address", "cidr_netmask", "129", `parameter cidr_netmask="129" ` + noLength},
		{"a netmask", "cidr_netmask", "255.255.255.0", `parameter cidr_netmask="255.255.255.0" ` + noLength},
		{"a prefix that would wrap around", "cidr_netmask", "4294967320", `parameter cidr_netmask="4294967320" ` + noLength},
		{"a prefix with a slash", "cidr_netmask", "/24", `parameter cidr_netmask="/24" ` + noLength},

		{
			"an interface name too long by one", "nic", strings.Repeat("a", 128),
			`parameter nic="` + strings.Repeat("a", 60) + `"… (128 bytes) ` + noName,
		},
		{"an alias", "nic", "eth0:1", `parameter nic="eth0:1" ` + noName},
		{"a path", "nic", "../eth0", `parameter nic="../eth0" ` + noName},
		{"one dot", "nic", ".", `parameter nic="." ` + noName},
		{"two dots", "nic", "..", `parameter nic=".." ` + noName},
		{"an interface name with a space", "nic", "eth 0", `parameter nic="eth 0" ` + noName},
		{"only a space", "nic", " ", `parameter nic=" " ` + noName},
		{"an interface name of letters that are not ASCII", "nic", "äth0", `parameter nic="äth0" ` + noName},

		{"a typing error in the mode", "mac_mode", "igpm", `parameter mac_mode="igpm" is not one of multicast, igmp, unicast`},
		{"a mode in capitals", "mac_mode", "IGMP", `parameter mac_mode="IGMP" is not one of multicast, igmp, unicast`},

		{"five bytes", "mac", "01:02:03:04:05", `parameter mac="01:02:03:04:05" ` + noMAC},
		{"an EUI-64", "mac", "01:02:03:04:05:06:07:08", `parameter mac="01:02:03:04:05:06:07:08" ` + noMAC},
		{
			"an InfiniBand address", "mac", "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01",
			`parameter mac="00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01" ` + noMAC,
		},
		{"a MAC of letters", "mac", "0g:02:03:04:05:06", `parameter mac="0g:02:03:04:05:06" ` + noMAC},
		{"the zero MAC", "mac", "00:00:00:00:00:00", `parameter mac="00:00:00:00:00:00" is all zeros, which no host can have`},
		{"the broadcast MAC", "mac", "FF-FF-FF-FF-FF-FF", `parameter mac="FF-FF-FF-FF-FF-FF" is the broadcast address, which no host can have`},

		{
			"an unknown hash", "hashmode", "destip",
			`parameter hashmode="destip" is not one of sourceip, sourceip-sourceport, sourceip-sourceport-destport`,
		},

		{"a seed beyond 32 bits", "hash_seed", "4294967296", `parameter hash_seed="4294967296" ` + noSeed},
		{"a hexadecimal seed beyond 32 bits", "hash_seed", "0x100000000", `parameter hash_seed="0x100000000" ` + noSeed},
		{"a seed below zero", "hash_seed", "-1", `parameter hash_seed="-1" ` + noSeed},
		{"a seed with a sign", "hash_seed", "+1", `parameter hash_seed="+1" ` + noSeed},
		{"a seed of 0x and nothing", "hash_seed", "0x", `parameter hash_seed="0x" ` + noSeed},
		{"a seed of two 0x", "hash_seed", "0x0x1", `parameter hash_seed="0x0x1" ` + noSeed},
		{"a seed as Go would write it", "hash_seed", "1_000", `parameter hash_seed="1_000" ` + noSeed},
		{"a hexadecimal seed without 0x", "hash_seed", "beef", `parameter hash_seed="beef" ` + noSeed},

		{"a truth value that is none", "check_link", "maybe", `parameter check_link="maybe" is not true or false (or yes, no, on, off, 1, 0)`},
		{"too many announcements", "arp_count", "21", `parameter arp_count="21" is not a number from 0 to 20`},
		{"fewer than no announcements", "arp_count", "-1", `parameter arp_count="-1" is not a number from 0 to 20`},
		{"no interval", "arp_interval", "0", `parameter arp_interval="0" is not a number of milliseconds from 1 to 500`},
		{"an interval too long", "arp_interval", "501", `parameter arp_interval="501" is not a number of milliseconds from 1 to 500`},
		{"an interval with a unit", "arp_interval", "20ms", `parameter arp_interval="20ms" is not a number of milliseconds from 1 to 500`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			params := map[string]string{"ip": "192.0.2.1"}
			params[tt.parameter] = tt.text
			v, _, err := Parse(params)
			if err == nil {
				t.Fatalf("taken as %v", values(v)[tt.parameter])
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if got := ocf.CodeOf(err); got != ocf.ErrConfigured {
				t.Errorf("code = %s", got)
			}
			if v.Given(tt.parameter) {
				t.Error("a faulty value counts as given")
			}
		})
	}
}

func TestParseReportsEverythingAndKeepsWhatIsGood(t *testing.T) {
	v, unknown, err := Parse(map[string]string{
		"ip": "192.0.2.1", "mac_mode": "igpm", "mac": "x", "arp_count": "1000", "check_link": "maybe", "nic": "eth0",
		"hash_sed": "1", "clusterip_hash": "x",
	})
	want := `parameter mac_mode="igpm" is not one of multicast, igmp, unicast
parameter mac="x" is not a MAC address of six bytes such as 03:c1:c0:a8:0a:03
parameter check_link="maybe" is not true or false (or yes, no, on, off, 1, 0)
parameter arp_count="1000" is not a number from 0 to 20`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	joined, isJoin := any(err).(interface{ Unwrap() []error })
	if !isJoin {
		t.Fatalf("error is a %T, not joined", err)
	}
	for _, fault := range joined.Unwrap() {
		if e := new(ocf.Error); !errors.As(fault, &e) || e.Code != ocf.ErrConfigured {
			t.Errorf("%v is not an *ocf.Error with ErrConfigured", fault)
		}
	}
	if diff := cmp.Diff([]string{"clusterip_hash", "hash_sed"}, unknown); diff != "" {
		t.Errorf("unknown (-want +got):\n%s", diff)
	}
	if fmt.Sprint(v.Addrs("ip")) != "[192.0.2.1]" || v.String("nic") != "eth0" {
		t.Error("a good value is lost")
	}
	if _, ok := v.Uint32("arp_count"); ok || v.String("mac_mode") != "" || v.HardwareAddr("mac") != nil {
		t.Error("a faulty parameter has a value")
	}
}

func TestFaultOfTheEnvironmentIsReportedOnce(t *testing.T) {
	env, envErr := ocf.ParseEnvironment([]string{"OCF_RESKEY_ip=192.0.2.1\n"})
	_, _, err := Parse(env.Parameters)
	var b strings.Builder
	ocf.ExitReason(&b, "", errors.Join(envErr, err))
	if got, want := b.String(), `parameter ip="192.0.2.1\n" contains the control character U+000A`+"\n"; got != want {
		t.Errorf("exit reason = %q, want %q", got, want)
	}
}

func TestSuggest(t *testing.T) {
	for unknown, want := range map[string]string{
		"hash_sed": "hash_seed", "IP": "ip", "nik": "nic", "arp_intervall": "arp_interval", "macmode": "mac_mode",
		"cidr-netmask": "cidr_netmask", "ipp": "ip", "clusterip_hash": "", "": "", "xyz": "", "lvs_support": "",
		strings.Repeat("x", 1000): "",
	} {
		if got, ok := Suggest(unknown); got != want || ok != (want != "") {
			t.Errorf("Suggest(%q) = %q, %t, want %q", unknown, got, ok, want)
		}
	}
}

// spell writes a value as an operator could.
func spell(v any, as Kind) string {
	switch v := v.(type) {
	case time.Duration:
		if as == Seconds {
			return fmt.Sprint(int(v.Seconds()))
		}
		return fmt.Sprint(v.Milliseconds())
	case []netip.Addr, []uint32, []services.Service:
		return strings.Trim(fmt.Sprint(v), "[]")
	default:
		return fmt.Sprint(v)
	}
}

func FuzzParseParameters(f *testing.F) {
	for _, p := range Parameters() {
		f.Add(p.Name, p.Example)
		f.Add(p.Name, "\xff\n")
	}
	f.Add("ip", "0.0.0.0/0")
	f.Add("nic", strings.Repeat("x", 1000))
	f.Fuzz(func(t *testing.T, name, text string) {
		v, unknown, err := Parse(map[string]string{name: text})
		if err == nil && name != "ip" {
			t.Error("an address that is missing is no fault")
		}
		if err != nil {
			if ocf.CodeOf(err) != ocf.ErrConfigured {
				t.Errorf("code = %s: %v", ocf.CodeOf(err), err)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if line != ocf.OneLine(line) || !utf8.ValidString(line) {
					t.Errorf("not one line of text: %q", line)
				}
			}
		}
		for _, u := range unknown {
			Suggest(u)
		}
		for _, p := range Parameters() {
			if !v.Given(p.Name) {
				continue
			}
			first := value(v, p)
			again, _, _ := Parse(map[string]string{p.Name: spell(first, p.Kind)})
			if !reflect.DeepEqual(first, value(again, p)) {
				t.Errorf("%s=%q is %v, spelt again %v", p.Name, text, first, value(again, p))
			}
		}
	})
}

func FuzzMAC(f *testing.F) {
	fuzzParameter(f, "mac", "03:c1:c0:a8:0a:03", "0102.0304.0506", "00-00-00-00-00-00", "::")
}

func FuzzSeed(f *testing.F) {
	fuzzParameter(f, "hash_seed", "0", "1", "0xffffffff", "0x", "4294967296", "1e3")
}

// fuzzParameter holds that what is taken is taken again in the spelling of its value, and that a fault is one line.
func fuzzParameter(f *testing.F, name string, seeds ...string) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	var p Parameter
	for _, candidate := range Parameters() {
		if candidate.Name == name {
			p = candidate
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return
		}
		first, err := p.read(text)
		if err != nil {
			if line := err.Error(); line != ocf.OneLine(line) {
				t.Errorf("not one line of text: %q", line)
			}
			return
		}
		if again, err := p.read(spell(first, p.Kind)); err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("%q is %v, spelt again %v, %v", text, first, again, err)
		}
	})
}
