//go:build system

package ocftester

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
)

// TestBadParameters: validate-all names what is wrong with the configuration, and start refuses the same, before it changes
// anything. A row gives the parameters that stand in for those of a good service.
func TestBadParameters(t *testing.T) {
	thousand := strings.Repeat("x", 1000)
	type row struct {
		name  string
		vars  vars
		names []string // what the reason must name
	}
	// each makes one row per value of one parameter.
	each := func(name string, values ...string) (rows []row) {
		for _, value := range append(values, "one\ntwo", "tab\there", "not \xff UTF-8", thousand, " ") {
			label := value
			if value == thousand {
				label = "a thousand characters"
			}
			rows = append(rows, row{name + "=" + label, params(name, value), []string{name}})
		}
		return rows
	}

	rows := []row{
		{"ip is empty", params("ip", ""), []string{"ip"}},
		{"unicast MAC in multicast mode", params("mac_mode", "multicast", "mac", "02:02:03:04:05:06"), []string{"mac", "mac_mode"}},
		{"multicast MAC in unicast mode", params("mac_mode", "unicast", "mac", "01:02:03:04:05:06"), []string{"mac", "mac_mode"}},
		{"no group's MAC in igmp mode", params("mac_mode", "igmp", "mac", "01:02:03:04:05:06"), []string{"mac", "mac_mode"}},
		{"unicast MAC in igmp mode", params("mac_mode", "igmp", "mac", "02:02:03:04:05:06"), []string{"mac", "mac_mode"}},
		{
			"a group's MAC outside 239.255.0.0/16 in igmp mode",
			params("mac_mode", "igmp", "mac", "01:00:5e:00:00:01"),
			[]string{"mac", "mac_mode"},
		},
		{"a link-local address without nic", params("ip", "fe80::3", "nic", ""), []string{"ip", "nic"}},
		{"a MAC of the family that ip has not", params("mac_mode", "igmp", "mac", "33:33:80:00:00:01"), []string{"mac", "ip"}},
		{"a prefix length for IPv6 only", params("ip", "192.168.10.3 2001:db8::3", "cidr_netmask", "64"), []string{"cidr_netmask", "24,64"}},
		{"the address of all routers", params("ip", "2001:db8:10::", "cidr_netmask", "64"), []string{"ip", "RFC 4291"}},
		{
			"what the target cannot do",
			params("backend", "clusterip", "ip", "192.168.10.3 2001:db8::3", "mac_mode", "unicast", "services", "tcp/80", "hash_prefix4", "24"),
			[]string{"backend=clusterip", "ip is", "mac_mode", "services", "hash_prefix4"},
		},
		{
			"seed 0 with three words",
			params("hash_seed", "0", "hashmode", "sourceip-sourceport-destport"),
			[]string{"hash_seed=0", "hashmode", "--hash-init"},
		},
		{"broadcast MAC", params("mac", "ff:ff:ff:ff:ff:ff"), []string{"mac"}},
		{"MAC of zeros", params("mac_mode", "unicast", "mac", "00:00:00:00:00:00"), []string{"mac"}},

		{
			"several instances that are not globally unique",
			params("CRM_meta_globally_unique", "false"),
			[]string{"globally-unique", "pcs resource meta web-ip-clone "},
		},
		{"no instances", harness.Instance(0, 0), []string{"clone-max"}},
		{"too many instances", harness.Instance(3, 1025), []string{"clone-max", "1024"}},
		{"an instance beyond the last", harness.Instance(8, 8), []string{"8"}},
		{"an instance without a number", harness.Instance(0, 8).With(params("CRM_meta_clone", "x")), []string{"clone"}},
	}
	rows = append(
		rows,
		each(
			"ip",
			"192.168.10",
			"192.168.10.300",
			"192.168.010.3",
			"192.168.10.3/24",
			"0xC0A80A03",
			"web.example.org",
			"2001:db8::1/64",
			"::1",
			"ff02::1",
			"::ffff:192.0.2.1",
			"192.168.10.3 192.168.10.3",
			"192.168.10.3,2001:db8::x",
			"0.0.0.0",
			"127.0.0.1",
			"224.0.0.1",
			"239.255.0.1",
			"255.255.255.255",
		)...)
	rows = append(rows, each("cidr_netmask", "33", "129", "24,64,64", "-1", "x", "24.0", "0x18", "4294967320")...)
	rows = append(rows, each("nic", "eth/0", "..", strings.Repeat("n", 128), "eth0:1")...)
	rows = append(rows, each("mac_mode", "broadcast", "Multicast")...)
	rows = append(rows, each("mac", "01:02:03:04:05", "01:02:03:04:05:06:07:08", "01:02:03:04:05:0g", "eth0")...)
	rows = append(rows, each("hashmode", "destport", "sourceip,sourceport", "SourceIP")...)
	rows = append(rows, each("hash_seed", "-1", "4294967296", "0x100000000", "0x", "1.5", "seed")...)
	rows = append(rows, each("backend", "iptables", "Auto")...)
	rows = append(rows, each("hash_compat", "CLUSTERIP", "nftables")...)
	rows = append(rows, each("hash_prefix4", "0", "33", "/24")...)
	rows = append(rows, each("hash_prefix6", "0", "129", "x")...)
	rows = append(rows, each("services", "http", "tcp", "tcp/0", "tcp/65536", "tcp/90-80", "tcp/80,gre/1", "icmp/8", "tcp/80 ; reboot")...)
	rows = append(rows, each("check_link", "maybe", "2")...)
	rows = append(rows, each("arp_count", "-1", "1.5", "many", "4294967296")...)
	rows = append(rows, each("early_drop", "on", "XDP", "native")...)
	rows = append(rows, each("drain", "-1", "86401", "10m", "1.5")...)
	rows = append(rows, each("linger", "-1", "11", "3s", "1.5")...)
	rows = append(rows, each("remember", "-1", "1048577", "64k")...)
	rows = append(rows, each("tell_rate", "0", "99", "1000001", "fast")...)
	rows = append(rows, each("arp_interval", "-1", "20ms", "4294967296")...)

	n := newNode(t)
	good := service().With(harness.Instance(3, 8))
	checkStatus(t, n.call(t, good, "validate-all"), ocf.Success)
	before := n.state(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			for _, action := range []string{"validate-all", "start"} {
				reason := checkStatus(t, n.call(t, good.With(row.vars), action), ocf.ErrConfigured)
				for _, name := range row.names {
					if !strings.Contains(reason, name) {
						t.Errorf("%s: the reason does not name %s: %s", action, name, reason)
					}
				}
				if len(reason) > 1600 {
					t.Errorf("%s: the reason does not fit a status line: %d bytes", action, len(reason))
				}
			}
		})
	}
	t.Run("ip is missing", func(t *testing.T) {
		without := n.pacemaker().With(params("nic", "eth0"), harness.Instance(3, 8))
		for _, action := range []string{"validate-all", "start"} {
			if reason := checkStatus(t, n.run(t, without, agent, action), ocf.ErrConfigured); !strings.Contains(reason, "ip") {
				t.Errorf("%s: the reason does not name ip: %s", action, reason)
			}
		}
	})
	if after := n.state(t); after != before {
		t.Error("something changed")
	}
}

// TestAllFaultsAtOnce: one error lists every fault of a configuration.
func TestAllFaultsAtOnce(t *testing.T) {
	n := newNode(t)
	bad := params(
		"ip",
		"192.168.10",
		"cidr_netmask",
		"0",
		"hash_prefix4",
		"0",
		"hash_prefix6",
		"0",
		"services",
		"http",
		"nic",
		"eth/0",
		"backend",
		"x",
		"mac_mode",
		"broadcast",
		"mac",
		"01:02",
		"hashmode",
		"random",
		"hash_seed",
		"-1",
		"hash_compat",
		"x",
		"check_link",
		"maybe",
		"arp_count",
		"-1",
		"arp_interval",
		"x",
		"drain",
		"x",
		"linger",
		"x",
		"early_drop",
		"x",
		"remember",
		"x",
		"tell_rate",
		"x",
		"CRM_meta_clone_max",
		"8",
		"CRM_meta_clone",
		"3",
	)
	for _, action := range []string{"validate-all", "start"} {
		t.Run(action, func(t *testing.T) {
			reason := checkStatus(t, n.call(t, bad, action), ocf.ErrConfigured)
			for _, p := range advertised {
				if !strings.Contains(reason, p.name+"=") {
					t.Errorf("%s is not named: %s", p.name, reason)
				}
			}
			if !strings.Contains(reason, "globally-unique") {
				t.Errorf("globally-unique is not named: %s", reason)
			}
		})
	}
}

// TestEmptyParametersAreDefaults: `pcs resource update web-ip mac=` and an empty nvpair in the CIB mean that none is given.
func TestEmptyParametersAreDefaults(t *testing.T) {
	n := newNode(t)
	empty := service()
	for _, p := range advertised {
		if !p.required && p.name != "nic" {
			empty = empty.With(params(p.name, ""))
		}
	}
	checkStatus(t, n.call(t, empty, "validate-all"), ocf.Success)
}

// TestUnusableNode: the configuration may be good for another node, so nothing of this is ErrConfigured. validate-all looks at
// the node from check level 10 on: an admin may configure the resource on a machine that is no node.
func TestUnusableNode(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare string // what happens to the node
		params  vars
		want    ocf.ExitCode
		names   string
	}{
		{"the interface is missing", "", params("nic", "eth9"), ocf.ErrArgs, "eth9"},
		{"the loopback interface", "", params("nic", "lo"), ocf.ErrArgs, "lo"},
		{"the address of the network itself", "", params("ip", "192.168.10.0"), ocf.ErrArgs, "192.168.10.0"},
		{"the network's broadcast address", "", params("ip", "192.168.10.255"), ocf.ErrArgs, "192.168.10.255"},
		{"no interface's network holds the address", "", params("ip", "203.0.113.3", "nic", ""), ocf.ErrArgs, "203.0.113.3"},
		{
			"several interfaces' networks hold the address",
			"ip link add eth1 type veth peer name eth2; ip addr add 192.168.10.12/24 dev eth1; ip link set eth2 up; ip link set eth1 up",
			params("nic", ""), ocf.ErrArgs, "eth1",
		},
		{"the interface is down", "ip link set eth0 down", nil, ocf.ErrGeneric, "eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.shell(t, tt.prepare)
			before := n.state(t)
			v := service().With(tt.params)
			for _, call := range []struct {
				action string
				vars   vars
			}{
				{"start", v},
				{"validate-all", v.With(vars{"OCF_CHECK_LEVEL": "10"})},
			} {
				if reason := checkStatus(t, n.call(t, call.vars, call.action), tt.want); !strings.Contains(reason, tt.names) {
					t.Errorf("%s: the reason does not name %s: %s", call.action, tt.names, reason)
				}
			}
			checkStatus(t, n.call(t, v, "validate-all"), ocf.Success)
			if n.state(t) != before {
				t.Error("something changed")
			}
		})
	}
}

// TestLockFolder: HA_RSCTMP is made when it is missing. A folder that another user may have made as a trap is refused.
func TestLockFolder(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		n := newNode(t)
		checkStatus(t, n.call(t, service(), "start"), ocf.Success)
		if _, err := os.Stat(n.locks); err != nil {
			t.Error(err)
		}
		checkStatus(t, n.call(t, service(), "stop"), ocf.Success)
	})
	for _, tt := range []struct {
		name   string
		make   func(path string) error
		reason string
	}{
		{"a symbolic link", func(path string) error { return os.Symlink(os.TempDir(), path) }, "symbolic link"},
		{"a file", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "not a directory"},
		{"open to all users", func(path string) error {
			return errors.Join(os.Mkdir(path, 0o777), os.Chmod(path, 0o777))
		}, "others may write"},
		{"another user's", func(path string) error {
			return errors.Join(os.Mkdir(path, 0o755), os.Chown(path, nobody, nobody))
		}, "belongs to user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			if err := tt.make(n.locks); err != nil {
				t.Fatal(err)
			}
			before := n.state(t)
			r := n.call(t, service(), "start")
			reason := checkStatus(t, r, ocf.ExitCode(r.ExitCode))
			if r.ExitCode == 0 || !strings.Contains(reason, tt.reason) || !strings.Contains(reason, filepath.Dir(n.locks)) {
				t.Errorf("status %d, and the reason lacks %q: %s", r.ExitCode, tt.reason, reason)
			}
			if n.state(t) != before {
				t.Error("something changed")
			}
		})
	}
}
