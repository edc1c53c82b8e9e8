//go:build system

package kernel

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// TestStopFromEveryHalfState removes each subset of what start has installed, and lets stop find the rest. An address alone
// looks like an admin's, and stays.
func TestStopFromEveryHalfState(t *testing.T) {
	t.Parallel()
	for _, mode := range clusterip.MACModes() {
		t.Run(string(mode), func(t *testing.T) {
			p := newTestNode(t, webIP("mac_mode", string(mode)))
			parts := []string{
				"nft delete table netdev " + ourTable, "nft delete table arp " + ourTable, "nft delete table ip " + ourTable,
				"ip address delete " + sharedOnNIC + " dev eth0",
				"ip route delete " + sharedRoute,
				map[clusterip.MACMode]string{
					clusterip.Multicast: "ip maddress delete 03:c1:c0:a8:0a:03 dev eth0",
					clusterip.Unicast:   "bridge fdb delete 02:c1:c0:a8:0a:03 dev eth0 self",
					clusterip.IGMP:      "ip address delete 239.255.10.3/32 dev eth0",
				}[mode],
			}
			const address, all = 3, 1<<6 - 1
			for subset := range all + 1 {
				if subset == all&^(1<<address) {
					continue
				}
				check(t, status(p.start(2), ocf.Success))
				for i, part := range parts {
					if subset&(1<<i) != 0 {
						commands(part)(t, p)
					}
				}
				p.checkNothingIsLeft(t)
				if t.Failed() {
					t.Fatalf("with this gone before: %06b of %q", subset, parts)
				}
			}
		})
	}
}

// TestStopWithBadParameters cleans up although hardly any parameter is right.
func TestStopWithBadParameters(t *testing.T) {
	p := newTestNode(t, webIP("mac_mode", "unicast"))
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	ip := "OCF_RESKEY_ip=" + shared.String()
	tempDir := "HA_RSCTMP=" + p.TempDir
	for name, environment := range map[string][]string{
		"no address, only the resource's name": {tempDir, "OCF_RESOURCE_INSTANCE=web-ip:2"},
		"an address that is none":              {tempDir, "OCF_RESOURCE_INSTANCE=web-ip:2", "OCF_RESKEY_ip=192.168.10"},
		"an orphan instance":                   {tempDir, "OCF_RESOURCE_INSTANCE=web-ip:2", ip},
		"an orphan instance out of any range":  {tempDir, "OCF_RESOURCE_INSTANCE=web-ip:99999999999", ip},
		"no instance":                          {tempDir, ip},
		"an interface that does not exist":     {tempDir, "OCF_RESOURCE_INSTANCE=web-ip:2", ip, "OCF_RESKEY_nic=eth9"},
		"a mode that does not exist": {
			tempDir, "OCF_RESOURCE_INSTANCE=web-ip:2", ip, "OCF_RESKEY_mac_mode=magic", "OCF_RESKEY_mac=x", "OCF_RESKEY_hash_seed=-1",
		},
		"bytes that are no text": {
			tempDir, "OCF_RESOURCE_INSTANCE=web-ip:2", ip, "OCF_RESKEY_nic=\xff\xfe", "OCF_RESKEY_hashmode=\x01",
		},
		"a timeout that is none":      {tempDir, "OCF_RESOURCE_INSTANCE=web-ip:2", ip, "OCF_RESKEY_CRM_meta_timeout=soon"},
		"no folder for locks":         {"HA_RSCTMP=" + file, "OCF_RESOURCE_INSTANCE=web-ip:2", ip},
		"a relative folder for locks": {"HA_RSCTMP=here", "OCF_RESOURCE_INSTANCE=web-ip:2", ip},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, status(p.start(2), ocf.Success))
			if name == "no instance" || name == "an orphan instance out of any range" {
				nft(t, p.Host, "flush set netdev "+ourTable+" owned")
			}
			check(t, status(p.Host.Run(t.Context(), environment, p.Program, "stop"), ocf.Success))
			dump, err := p.Host.Dump()
			check(t, err)
			if dump != p.clean {
				t.Errorf("left (-before start +after stop):\n%s", changes(p.clean, dump))
				check(t, status(p.stop(2), ocf.Success))
			}
			if !strings.HasPrefix(name, "a relative") && !strings.HasPrefix(name, "no folder") {
				p.checkNoFiles(t, "afterwards")
			}
		})
	}
}

// TestStartRefusesWhatDoesNotFitTheNode: start fails with a reason, and changes nothing.
func TestStartRefusesWhatDoesNotFitTheNode(t *testing.T) {
	p := newTestNode(t, webIP())
	for name, row := range map[string]struct {
		before []string // commands
		with   []string // parameters, names and values
		code   ocf.ExitCode
		want   string
		after  []string // commands that undo
	}{
		"no such interface": {nil, []string{"nic", "eth9"}, ocf.ErrArgs, `nic=eth9: there is no such network interface`, nil},
		"loopback":          {nil, []string{"nic", "lo"}, ocf.ErrArgs, "nic=lo is the loopback interface", nil},
		"interface down": {
			[]string{"ip link set eth0 down"},
			nil, ocf.ErrGeneric, "eth0 is down (ip link set eth0 up)",
			[]string{"ip link set eth0 up", clientRoute},
		},
		"no route": {
			[]string{"ip address flush dev eth0 scope global"},
			[]string{"nic", ""},
			ocf.ErrArgs, "no network interface has connected routes",
			[]string{ownAddress, clientRoute},
		},
		"two routes": {
			[]string{"ip link add eth1 type veth peer name peer1", "ip link set eth1 up", "ip address add 192.168.10.99/24 dev eth1"},
			[]string{"nic", ""},
			ocf.ErrArgs, "eth0, eth1 all hold 192.168.10.3",
			[]string{"ip link delete eth1"},
		},
		"address elsewhere": {
			[]string{"ip link add eth1 type veth peer name peer1", "ip link set eth1 up", "ip address add 192.168.10.3/32 dev eth1"},
			nil,
			ocf.ErrArgs, "192.168.10.3/32 is already on eth1",
			[]string{"ip link delete eth1"},
		},
		"address on lo": {
			[]string{"ip address add 192.168.10.3/32 dev lo"},
			nil, ocf.ErrArgs, "already on lo",
			[]string{"ip address delete 192.168.10.3/32 dev lo"},
		},
		"network address":   {nil, []string{"ip", "192.168.10.0"}, ocf.ErrArgs, "address of the network 192.168.10.0/24 itself", nil},
		"broadcast address": {nil, []string{"ip", "192.168.10.255"}, ocf.ErrArgs, "broadcast address of 192.168.10.0/24", nil},
		"network address by prefix": {
			nil,
			[]string{"ip", "192.168.10.4", "cidr_netmask", "30"},
			ocf.ErrConfigured,
			"address of the network 192.168.10.4/30 itself", nil,
		},
		"unicast MAC in multicast mode": {nil, []string{"mac", "02:00:00:00:00:01"}, ocf.ErrConfigured, "individual address", nil},
		"multicast MAC in unicast mode": {
			nil, []string{"mac_mode", "unicast", "mac", "01:02:03:04:05:06"}, ocf.ErrConfigured, "group address", nil,
		},
		"MAC of no group in igmp mode": {
			nil, []string{"mac_mode", "igmp", "mac", "01:02:03:04:05:06"}, ocf.ErrConfigured, "01:00:5e:7f:x:y", nil,
		},
		"several faults at once": {
			nil, []string{"mac_mode", "x", "hash_seed", "-1", "cidr_netmask", "33"}, ocf.ErrConfigured, "hash_seed", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			commands(row.before...)(t, p)
			before, err := p.Host.Dump()
			check(t, err)
			a := *p.agent
			a.Parameters = a.Parameters.With(row.with...)
			r := a.start(2)
			if err := status(r, row.code); err != nil || !strings.Contains(r.Stderr, row.want) {
				t.Errorf("want %q: %v\n%s", row.want, err, r.Stderr)
			}
			if reasons := strings.Count(r.Stderr, "ocf-exit-reason:"); reasons != 1 {
				t.Errorf("%d exit reasons:\n%s", reasons, r.Stderr)
			}
			after, err := p.Host.Dump()
			check(t, err)
			if after != before {
				t.Errorf("changed (-before +after):\n%s", changes(before, after))
			}
			p.checkNoFiles(t, "afterwards")
			commands(row.after...)(t, p)
		})
	}
}

// TestOtherSettingsBesideARunningBucket are refused: nodes that disagree answer twice or not at all.
func TestOtherSettingsBesideARunningBucket(t *testing.T) {
	p := newTestNode(t, webIP())
	check(t, status(p.start(1), ocf.Success))
	before, err := p.Host.Dump()
	check(t, err)
	for name, other := range map[string]harness.Agent{
		"N":         {Buckets: 9, Parameters: p.Parameters},
		"seed":      {Buckets: 8, Parameters: p.Parameters.With("hash_seed", "7")},
		"MAC":       {Buckets: 8, Parameters: p.Parameters.With("mac", "01:02:03:04:05:06")},
		"MAC mode":  {Buckets: 8, Parameters: p.Parameters.With("mac_mode", "unicast")},
		"hash mode": {Buckets: 8, Parameters: p.Parameters.With("hashmode", "sourceip-sourceport")},
	} {
		t.Run(name, func(t *testing.T) {
			a := *p.agent
			a.Buckets, a.Parameters = other.Buckets, other.Parameters
			r := a.start(2)
			if err := status(r, ocf.ErrConfigured); err != nil || !strings.Contains(r.Stderr, "pcs resource disable web-ip") {
				t.Errorf("%v\n%s", err, r.Stderr)
			}
			after, err := p.Host.Dump()
			check(t, err)
			if after != before {
				t.Errorf("changed (-before +after):\n%s", changes(before, after))
			}
			check(t, status(a.monitor(1), ocf.ErrGeneric)) // the same disagreement
			check(t, status(p.monitor(1), ocf.Success))
		})
	}
	check(t, status(p.stop(1), ocf.Success))
	p.Buckets = 9
	check(t, status(p.start(2), ocf.Success)) // alone it may
	p.checkNothingIsLeft(t)
}

// TestLockFolder: start makes it when it is missing, and refuses a symbolic link.
func TestLockFolder(t *testing.T) {
	p := newTestNode(t, webIP())
	check(t, status(p.start(2), ocf.Success))
	p.checkNothingIsLeft(t)
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(t.TempDir(), link))
	r := p.call("start", 2, "HA_RSCTMP="+link)
	if r.Err != nil || r.ExitCode == 0 || !strings.Contains(r.Stderr, "symbolic link") {
		t.Errorf("start with a symbolic link: %d %v\n%s", r.ExitCode, r.Err, r.Stderr)
	}
	dump, err := p.Host.Dump()
	check(t, err)
	if dump != p.clean {
		t.Errorf("changed (-before +after):\n%s", changes(p.clean, dump))
	}
}

// TestHeldLock: a call that waits for a hung one fails before its own timeout, and names the holder.
func TestHeldLock(t *testing.T) {
	p := newTestNode(t, webIP())
	check(t, os.MkdirAll(p.TempDir, 0o755))
	file, err := os.OpenFile(filepath.Join(p.TempDir, ourTable+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	check(t, err)
	defer file.Close()
	check(t, unix.Flock(int(file.Fd()), unix.LOCK_EX))
	_, err = fmt.Fprintln(file, os.Getpid())
	check(t, err)
	for _, action := range []string{"start", "monitor", "stop"} {
		r := p.call(action, 2, "OCF_RESKEY_CRM_meta_timeout=500")
		if err := status(r, ocf.ErrGeneric); err != nil || !strings.Contains(r.Stderr, fmt.Sprint("process ", os.Getpid())) {
			t.Errorf("%s: %v\n%s", action, err, r.Stderr)
		}
	}
	check(t, file.Close())
	check(t, status(p.start(2), ocf.Success))
	p.checkNothingIsLeft(t)
}

// TestMonitorFindsAnAddressConflict: another host answers for the address with another MAC.
func TestMonitorFindsAnAddressConflict(t *testing.T) {
	n := newLAN(t, lan.Options{Nodes: 2})
	a := newAgent(t, n.Nodes[0], 1, webIP())
	check(t, status(a.start(0), ocf.Success))
	deep := func() lan.Result { return a.call("monitor", 0, "OCF_CHECK_LEVEL=10") }
	check(t, status(deep(), ocf.Success))
	plain := netip.PrefixFrom(shared, 32)
	check(t, n.Nodes[1].AddAddress(lan.NIC, plain))
	check(t, status(a.monitor(0), ocf.Success))
	r := deep()
	if err := status(r, ocf.ErrGeneric); err != nil || !strings.Contains(r.Stderr, n.Nodes[1].MAC.String()) {
		t.Errorf("monitor at level 10: %v\n%s", err, r.Stderr)
	}
	check(t, n.Nodes[1].Run(t.Context(), lan.ToolPath, "ip", "address", "delete", plain.String(), "dev", lan.NIC).Failure())
	check(t, status(deep(), ocf.Success))
}
