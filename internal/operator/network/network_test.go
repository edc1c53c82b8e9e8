package network

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	v4   = "192.168.10.3"
	both = "192.168.10.3 2001:db8:10::3"
)

// installed is how addresses are installed in a mode, with the agent's own MACs.
func installed(t testing.TB, ip string, mode clusterip.MACMode) clusterip.Layout {
	t.Helper()
	values, _, err := metadata.Parse(map[string]string{"ip": ip, "mac_mode": string(mode)})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := clusterip.NewSpec(values, "web-ip", ocf.Clone{Buckets: 1})
	if err != nil {
		t.Fatal(err)
	}
	return spec.Layout()
}

// asked are options that suit a vendor and a mode.
func asked(name string, mode clusterip.MACMode) Options {
	o := Options{
		Vendor: name, Ports: "Ethernet1/1,Ethernet1/2", VLAN: "10", VLANName: "servers", Bridge: "br0", RouterInterface: "Vlan10",
		RouterAddress: "192.168.10.1/24,2001:db8:10::1/64", Querier: "192.168.10.250,fe80::250",
	}
	switch name {
	case "ios":
		o.Ports = "Gi1/0/1,Gi1/0/2"
	case "eos":
		o.Ports = "Ethernet1,Ethernet2"
	case "junos":
		o.Ports, o.RouterInterface = "ge-0/0/1,ge-0/0/2", "irb.10"
	case "routeros":
		o.Ports, o.RouterInterface = "ether2,ether3", "vlan10"
	case linuxBridge:
		o.Ports, o.RouterInterface = "vnet0,vnet1", "eth0"
	case "fortios":
		o.RouterInterface = "port2"
	}
	v, err := vendorNamed(name)
	if err != nil {
		panic(err)
	}
	for flag, value := range flags(&o) {
		use, known := v.use(flag)
		if !known || use.modes != nil && !slices.Contains(use.modes, mode) || use.instead != "" {
			*value = ""
		}
	}
	return o
}

// askedFor are those that suit some addresses, too.
func askedFor(vendor string, mode clusterip.MACMode, ip string) Options {
	o := asked(vendor, mode)
	if ip == both {
		return o
	}
	o.Querier = ""
	v, _ := vendorNamed(vendor)
	if use, _ := v.use("--router-interface"); use.ipv6 && ip == v4 {
		o.RouterInterface = ""
	}
	if use, takes := v.use("--querier"); takes && slices.Contains(use.modes, mode) && ip == v4 {
		o.Querier = "192.168.10.250"
	}
	return o
}

// flags are where the options are kept, by their flags.
func flags(o *Options) map[string]*string {
	return map[string]*string{
		"--ports": &o.Ports, "--vlan": &o.VLAN, "--vlan-name": &o.VLANName, "--bridge": &o.Bridge,
		"--router-interface": &o.RouterInterface, "--router-address": &o.RouterAddress, "--querier": &o.Querier,
	}
}

func written(t testing.TB, layout clusterip.Layout, o Options) string {
	t.Helper()
	var text strings.Builder
	if err := Write(&text, layout, o, 80); err != nil {
		t.Fatalf("%+v: %v", o, err)
	}
	return text.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (make it with: go test ./internal/operator/network -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is out of date: go test ./internal/operator/network -update (-file +program):\n%s", file, diff)
	}
}

func TestCommandsOfEachVendor(t *testing.T) {
	for _, vendor := range Vendors() {
		for _, mode := range clusterip.MACModes() {
			t.Run(vendor+" "+string(mode), func(t *testing.T) {
				golden(t, vendor+"-"+string(mode), written(t, installed(t, both, mode), asked(vendor, mode)))
			})
		}
	}
}

func TestTextWithoutVendor(t *testing.T) {
	for _, mode := range clusterip.MACModes() {
		golden(t, "any-"+string(mode), written(t, installed(t, both, mode), Options{}))
	}
}

// What is pasted must do what it looks like: a question mark asks a switch for help in the midst of a comment, a tab completes, and a
// line of prose that is no comment would be a command. Only known beginnings are commands.
func TestTextCanBePasted(t *testing.T) {
	begins := map[string][]string{
		"ios":       {"configure terminal", "end", "exit", "interface ", "  no switchport ", "arp ", "ipv6 ", "ip ", "mac "},
		"nxos":      {"configure terminal", "end", "exit", "interface ", "  no switchport ", "  ip ", "vlan ", "  layer-2 "},
		"eos":       {"configure terminal", "end", "exit", "arp ", "ipv6 ", "ip ", "mld ", "   vlan "},
		"junos":     {"set "},
		"routeros":  {"/interface/bridge/", "/ip/arp/", "/ipv6/neighbor/"},
		"freebsd":   {"sysctl net.link.ether.inet."},
		"fortios":   {"config system ", "    edit 0", "        set ", "    next", "end"},
		linuxBridge: {"bridge link set ", "ip link set ", "ip neigh replace "},
	}
	for _, v := range vendors() {
		for _, mode := range clusterip.MACModes() {
			for _, ip := range []string{v4, "2001:db8:10::3", both} {
				o := askedFor(v.name, mode, ip)
				for line := range strings.Lines(written(t, installed(t, ip, mode), o)) {
					line = strings.TrimSuffix(line, "\n")
					unfit := func(r rune) bool { return r < ' ' || r > '~' || r == '?' }
					comment := strings.HasPrefix(line, v.comment) || line == v.empty
					command := slices.ContainsFunc(begins[v.name], func(begin string) bool { return strings.HasPrefix(line, begin) })
					indented := strings.HasPrefix(line, v.comment+"    ")
					if strings.ContainsFunc(line, unfit) || !comment && !command || comment && !indented && len(line) > 80 {
						t.Errorf("%s, %s, %s: %q", v.name, mode, ip, line)
					}
				}
			}
		}
	}
}

// Each device has its own way to write a MAC.
func TestNotationOfMACs(t *testing.T) {
	for vendor, want := range map[string]string{
		"ios":       "mac address-table static 03c1.c0a8.0a03 vlan 10 interface Gi1/0/1 Gi1/0/2\n", // the article's line
		"nxos":      "  ip arp 192.168.10.3 03c1.c0a8.0a03\n",
		"eos":       "arp 192.168.10.3 03c1.c0a8.0a03 arpa\n",
		"junos":     "arp 192.168.10.3 multicast-mac 03:c1:c0:a8:0a:03\n",
		"routeros":  "/ip/arp/add address=192.168.10.3 interface=vlan10 mac-address=03:C1:C0:A8:0A:03\n",
		"freebsd":   "#     arp -s 192.168.10.3 03:c1:c0:a8:0a:03\n",
		"fortios":   "        set ip 192.168.10.3\n        set mac 03:c1:c0:a8:0a:03\n",
		linuxBridge: "ip neigh replace 192.168.10.3 lladdr 03:c1:c0:a8:0a:03 dev eth0 nud permanent\n",
	} {
		if got := written(t, installed(t, both, clusterip.Multicast), asked(vendor, clusterip.Multicast)); !strings.Contains(got, want) {
			t.Errorf("%s: %q is not in:\n%s", vendor, want, got)
		}
	}
}

// A MAC that the operator chose is the one that is written, and an address of the other family has its own in igmp mode.
func TestEachAddressHasItsMAC(t *testing.T) {
	layout := installed(t, both, clusterip.IGMP)
	layout.MACs.IPv4 = clusterip.MAC{0x01, 0x00, 0x5e, 0x7f, 0x12, 0x34}
	got := written(t, layout, asked("ios", clusterip.IGMP))
	for _, want := range []string{
		"arp 192.168.10.3 0100.5e7f.1234 arpa\n",
		"ipv6 neighbor 2001:db8:10::3 Vlan10 " + dotted(layout.MACs.IPv6) + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}

// In unicast mode a router takes the MAC from ARP, and a static MAC entry would reach one node only.
func TestNoStaticEntriesInUnicastMode(t *testing.T) {
	mac := clusterip.DerivedMAC(clusterip.Unicast, netip.MustParseAddr(v4))
	for _, vendor := range []string{"ios", "nxos", "eos", "junos", "routeros", "freebsd", "fortios"} {
		for line := range strings.Lines(written(t, installed(t, v4, clusterip.Unicast), askedFor(vendor, clusterip.Unicast, v4))) {
			v, _ := vendorNamed(vendor)
			names := slices.ContainsFunc([]string{mac.String(), upper(mac), dotted(mac)}, func(s string) bool { return strings.Contains(line, s) })
			if names && !strings.HasPrefix(line, v.comment) {
				t.Errorf("%s: %q", vendor, line)
			}
		}
	}
}

func TestOptionsThatAreWrong(t *testing.T) {
	ios := asked("ios", clusterip.Multicast)
	with := func(o Options, change func(*Options)) Options { change(&o); return o }
	for name, row := range map[string]struct {
		mode clusterip.MACMode
		o    Options
		says []string
	}{
		"a vendor that is not known": {
			clusterip.Multicast, Options{Vendor: "comware"}, []string{`"comware"`, "ios, nxos, eos, junos, routeros, linux-bridge"},
		},
		"ports and no vendor": {clusterip.Multicast, Options{Ports: "eth0"}, []string{"--ports", "--vendor"}},
		"nothing that is needed": {
			clusterip.IGMP, Options{Vendor: "junos"}, []string{"--vlan or --router-interface:", "--vlan-name", "--router-address"},
		},
		"what another vendor needs": {
			clusterip.Multicast, with(ios, func(o *Options) { o.Bridge = "br0"; o.RouterAddress = "192.0.2.1/24" }),
			[]string{"--bridge", "--router-address"},
		},
		"VLAN 0": {
			clusterip.Multicast, with(ios, func(o *Options) { o.VLAN = "0" }), []string{`--vlan "0"`, "1 to 4094"},
		},
		"VLAN 4095": {
			clusterip.Multicast, with(ios, func(o *Options) { o.VLAN = "4095" }), []string{"4095", "1 to 4094"},
		},
		"a VLAN that is no number": {clusterip.Multicast, with(ios, func(o *Options) { o.VLAN = "10; reload" }), []string{"--vlan"}},
		"a negative VLAN":          {clusterip.Multicast, with(ios, func(o *Options) { o.VLAN = "-1" }), []string{"--vlan"}},
		"a space in a port": {
			clusterip.Multicast, with(ios, func(o *Options) { o.Ports = "Gi 1/0/1" }), []string{`"Gi 1/0/1"`},
		},
		"a line break in a port": {
			clusterip.Multicast, with(ios, func(o *Options) { o.Ports = "Gi1/0/1\nreload" }), []string{`"Gi1/0/1\nreload"`},
		},
		"a quote in a port": {clusterip.Multicast, with(ios, func(o *Options) { o.Ports = `Gi1'` }), []string{`"Gi1'"`}},
		"shell in a port": {
			clusterip.Multicast, with(ios, func(o *Options) { o.Ports = "$(reboot),a;b,c|d,e&f,<g" }),
			[]string{"$(reboot)", "a;b", "c|d", "e&f", "<g"},
		},
		"a port that looks like a flag":        {clusterip.Multicast, with(ios, func(o *Options) { o.Ports = "-all" }), []string{`"-all"`}},
		"a port with a letter of another sort": {clusterip.Multicast, with(ios, func(o *Options) { o.Ports = "Gі1" }), []string{"--ports"}},
		"a port that never ends": {
			clusterip.Multicast, with(ios, func(o *Options) { o.Ports = strings.Repeat("x", 65) }), []string{"64"},
		},
		"a port twice": {
			clusterip.Multicast, with(ios, func(o *Options) { o.Ports = "Gi1,Gi2,Gi1" }), []string{"Gi1 is given twice"},
		},
		"no port at all": {
			clusterip.Multicast, with(ios, func(o *Options) { o.Ports = ",," }), []string{"contains no port"},
		},
		"an interface of the router with more": {
			clusterip.Multicast, with(ios, func(o *Options) { o.RouterInterface = "Vlan10 x" }), []string{"--router-interface"},
		},
		"all at once": {
			clusterip.Multicast, with(ios, func(o *Options) { o.VLAN = "x"; o.Ports = "`"; o.Querier = "192.0.2.1"; o.Bridge = "b" }),
			[]string{"--vlan", "--ports", "--querier", "--bridge"},
		},
		"a querier without igmp": {
			clusterip.Unicast, with(ios, func(o *Options) { o.Querier = "192.168.10.250" }), []string{"mac_mode=igmp"},
		},
		"a querier that has the shared address": {
			clusterip.IGMP, with(ios, func(o *Options) { o.Querier = "192.168.10.3" }), []string{"192.168.10.3 is the shared address"},
		},
		"a querier of all": {
			clusterip.IGMP, with(ios, func(o *Options) { o.Querier = "255.255.255.255" }), []string{"255.255.255.255"},
		},
		"a router that is a network": {
			clusterip.IGMP, with(asked("junos", clusterip.IGMP), func(o *Options) { o.RouterAddress = "192.168.10.0/24,2001:db8:10::/64" }),
			[]string{"192.168.10.0/24 is", "2001:db8:10::/64 is"},
		},
		"a router that is all hosts": {
			clusterip.IGMP, with(asked("junos", clusterip.IGMP), func(o *Options) { o.RouterAddress = "192.168.10.255/24,2001:db8:10::1/64" }),
			[]string{"192.168.10.255/24 is"},
		},
		"a VLAN and what takes its place": {
			clusterip.IGMP, with(asked("junos", clusterip.IGMP), func(o *Options) { o.VLAN = "10" }), []string{"--router-interface replaces --vlan"},
		},
		"a querier that is none": {clusterip.IGMP, with(ios, func(o *Options) { o.Querier = "here" }), []string{`"here"`}},
		"a querier of everybody": {clusterip.IGMP, with(ios, func(o *Options) { o.Querier = "224.0.0.1" }), []string{"224.0.0.1"}},
		"a querier that MLD does not know": {
			clusterip.IGMP, with(ios, func(o *Options) { o.Querier = "2001:db8::1" }), []string{"link-local"},
		},
		"two queriers": {
			clusterip.IGMP, with(ios, func(o *Options) { o.Querier = "192.0.2.1,192.0.2.2" }), []string{"second"},
		},
		"a querier of nothing": {
			clusterip.IGMP, with(ios, func(o *Options) { o.Querier = "," }), []string{"contains no address"},
		},
		"a router without its network": {
			clusterip.IGMP, with(asked("junos", clusterip.IGMP), func(o *Options) { o.RouterAddress = "192.168.10.1" }), []string{"192.168.10.1/24"},
		},
		"a router elsewhere": {
			clusterip.IGMP, with(asked("junos", clusterip.IGMP), func(o *Options) { o.RouterAddress = "192.0.2.1/24,2001:db8:10::1/64" }),
			[]string{"contains 192.168.10.3"},
		},
		"a router of one version": {
			clusterip.IGMP, with(asked("junos", clusterip.IGMP), func(o *Options) { o.RouterAddress = "192.168.10.1/24" }),
			[]string{"contains 2001:db8:10::3"},
		},
		"a router that has the shared address": {
			clusterip.IGMP, with(asked("junos", clusterip.IGMP), func(o *Options) { o.RouterAddress = "192.168.10.3/24,2001:db8:10::1/64" }),
			[]string{"shared address"},
		},
		"a Linux port that cannot be": {
			clusterip.IGMP, with(asked(linuxBridge, clusterip.IGMP), func(o *Options) { o.Ports = "a/b,abcdefghijklmnop"; o.Bridge = "br:0" }),
			[]string{`"a/b"`, `"abcdefghijklmnop"`, `"br:0"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			err := Write(&text, installed(t, both, row.mode), row.o, 80)
			if ocf.CodeOf(err) != ocf.ErrArgs || text.Len() > 0 {
				t.Fatalf("error %v, text %q", err, text.String())
			}
			for _, says := range row.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%q is not in %q", says, err)
				}
			}
		})
	}
}

// Without an address, too, faults of the rest are told.
func TestCheck(t *testing.T) {
	for _, o := range []Options{
		{Vendor: "comware"}, {Ports: "eth0"}, {Vendor: "ios", VLAN: "0"}, {Vendor: "ios", Bridge: "br0"}, {Vendor: linuxBridge, Ports: "a/b"},
	} {
		if err := o.Check(); ocf.CodeOf(err) != ocf.ErrArgs {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := asked("ios", clusterip.IGMP).Check(); err != nil {
		t.Error(err)
	}
}

// What is taken has an effect, and what would have none is refused.
func TestFlagsAreTakenIfTheyHaveAnEffect(t *testing.T) {
	others := map[string]string{
		"--ports": "p7", "--vlan": "7", "--vlan-name": "v7", "--bridge": "b7", "--router-interface": "i7",
		"--router-address": "192.168.10.2/24,2001:db8:10::2/64", "--querier": "192.168.10.251",
	}
	for _, vendor := range Vendors() {
		for _, mode := range clusterip.MACModes() {
			for _, ip := range []string{v4, both} {
				layout := installed(t, ip, mode)
				o := askedFor(vendor, mode, ip)
				text := written(t, layout, o)
				for flag, value := range flags(&o) {
					before := *value
					*value = others[flag]
					var other strings.Builder
					err := Write(&other, layout, o, 80)
					switch {
					case before == "" && ocf.CodeOf(err) != ocf.ErrArgs:
						t.Errorf("%s, %s, %s: %s is taken: %v", vendor, mode, ip, flag, err)
					case before != "" && (err != nil || other.String() == text):
						t.Errorf("%s, %s, %s: it makes no difference what %s is, %v", vendor, mode, ip, flag, err)
					}
					*value = before
				}
			}
		}
	}
}

// Where the length of the network is known, its first and last address are no querier's.
func TestQuerierIsAHost(t *testing.T) {
	layout := installed(t, v4, clusterip.IGMP)
	layout.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.10.3/24")}
	for querier, fits := range map[string]bool{
		"192.168.10.0": false, "192.168.10.255": false, "192.168.10.254": true, "192.168.11.255": true,
	} {
		o := asked("ios", clusterip.IGMP)
		o.Querier, o.RouterInterface = querier, ""
		if err := Write(&strings.Builder{}, layout, o, 80); (err == nil) != fits {
			t.Errorf("%s: %v", querier, err)
		}
	}
}

func TestQuerierOfAVersionWithoutAddress(t *testing.T) {
	o := asked("ios", clusterip.IGMP)
	o.Querier = "fe80::1"
	err := Write(&strings.Builder{}, installed(t, v4, clusterip.IGMP), o, 80)
	if ocf.CodeOf(err) != ocf.ErrArgs || !strings.Contains(err.Error(), "fe80::1") {
		t.Errorf("error %v", err)
	}
}

// Whatever is typed, what can be pasted holds no character that a command line gives a meaning to; apart from those that the program
// itself writes.
func FuzzOptions(f *testing.F) {
	f.Add("ios", "Gi1/0/1,Gi1/0/2", "10", "", "", "Vlan10", "", "")
	f.Add("junos", "ge-0/0/1", "10", "servers", "", "irb.10", "192.168.10.1/24,2001:db8:10::1/64", "192.168.10.250,fe80::1")
	f.Add("linux-bridge", "a;b,$(c)", "", "", "br0", "eth0", "", "")
	f.Add("fortios", "", "", "", "", "port2\nset", "", "")
	f.Add("routeros", "ether2\n/system/reset", "10", "", "br0", "`x`", "", "::")
	f.Fuzz(func(t *testing.T, vendor, ports, vlan, vlanName, bridge, routerInterface, routerAddress, querier string) {
		o := Options{vendor, ports, vlan, vlanName, bridge, routerInterface, routerAddress, querier}
		for _, mode := range clusterip.MACModes() {
			var text strings.Builder
			err := Write(&text, installed(t, both, mode), o, 80)
			if err != nil {
				if ocf.CodeOf(err) != ocf.ErrArgs || text.Len() > 0 {
					t.Errorf("%+v: error %v, text %q", o, err, text.String())
				}
				continue
			}
			for line := range strings.Lines(text.String()) {
				if v, err := vendorNamed(vendor); err != nil || strings.HasPrefix(line, v.comment) {
					continue
				}
				for _, own := range []string{"[find interface=", "]"} { // RouterOS' own
					line = strings.Replace(line, own, "", 1)
				}
				if strings.ContainsAny(line, "`$;|&<>()[]{}'\"\\*?!~#\t\r") && line != "!\n" {
					t.Errorf("%+v: %q", o, line)
				}
			}
		}
	})
}
