package gather

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ocf-clusterip/internal/operator/doctor"
)

// active is the target of the link that systemd keeps for an active unit.
const active = "-> 0123456789abcdef"

// nodeWith makes a root folder with these files. A text that begins with an arrow is the target of a link.
func nodeWith(t *testing.T, files map[string]string) nodeFiles {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, isLink := strings.CutPrefix(text, "-> "); isLink {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return nodeFiles{os.DirFS(root)}
}

func TestNetworkd(t *testing.T) {
	const (
		unit    = "run/systemd/units/invocation:systemd-networkd.service"
		link    = "run/systemd/netif/links/2"
		file    = "/etc/systemd/network/10-eth0.network"
		state   = "# This is private data. Do not parse.\nADMIN_STATE=configured\nOPER_STATE=routable\nNETWORK_FILE=" + file + "\n"
		network = "etc/systemd/network/10-eth0.network"
		match   = "[Match]\nName=eth0\n\n[Network]\nAddress=192.168.10.11/24\n"
		keeps   = "[Network]\nKeepConfiguration=static\n"
		leaves  = "[Network]\nManageForeignRoutes=no\n"
	)
	for name, row := range map[string]struct {
		files map[string]string
		want  doctor.Networkd
	}{
		"no networkd":         {nil, doctor.Networkd{}},
		"it has been stopped": {map[string]string{link: state, network: match}, doctor.Networkd{}},
		"an unmanaged interface": {
			map[string]string{unit: active, link: "ADMIN_STATE=unmanaged\nOPER_STATE=routable\n"}, doctor.Networkd{},
		},
		"with the defaults": {map[string]string{unit: active, link: state, network: match}, doctor.Networkd{File: file}},
		"it keeps addresses": {
			map[string]string{unit: active, link: state, network: match + "KeepConfiguration = static\n"},
			doctor.Networkd{File: file, KeepsAddresses: true},
		},
		"it keeps leases only": {
			map[string]string{unit: active, link: state, network: match + "KeepConfiguration=dhcp-on-stop\n"},
			doctor.Networkd{File: file, KeepsLeases: true},
		},
		"it keeps everything": {
			map[string]string{unit: active, link: state, network: match + "KeepConfiguration=yes\n"},
			doctor.Networkd{File: file, KeepsAddresses: true, KeepsRoutes: true},
		},
		"another section's setting": {
			map[string]string{unit: active, link: state, network: match + "[Link]\nKeepConfiguration=yes\n"}, doctor.Networkd{File: file},
		},
		"a comment": {
			map[string]string{unit: active, link: state, network: match + "#KeepConfiguration=yes\n;KeepConfiguration=yes\n"},
			doctor.Networkd{File: file},
		},
		"two drop-ins": {
			map[string]string{
				unit: active, link: state, network: match, network + ".d/clusterip.conf": keeps,
				"etc/systemd/networkd.conf.d/clusterip.conf": leaves, "etc/systemd/networkd.conf": "[Network]\n#ManageForeignRoutes=yes\n",
			},
			doctor.Networkd{File: file, KeepsAddresses: true, KeepsRoutes: true},
		},
		"a drop-in that a later one overrides": {
			map[string]string{
				unit: active, link: state, network: match, network + ".d/10-keep.conf": keeps,
				"run/systemd/network/10-eth0.network.d/20-no.conf": "[Network]\nKeepConfiguration=no\n",
			},
			doctor.Networkd{File: file},
		},
		"a drop-in that hides one of the distribution": {
			map[string]string{
				unit: active, link: state, network: match, network + ".d/10-keep.conf": "-> /dev/null",
				"usr/lib/systemd/network/10-eth0.network.d/10-keep.conf": keeps,
			},
			doctor.Networkd{File: file},
		},
		"netplan's file": {
			map[string]string{
				unit: active, link: "ADMIN_STATE=configured\nNETWORK_FILE=/run/systemd/network/10-netplan-eth0.network\n",
				"run/systemd/network/10-netplan-eth0.network":                        match,
				"etc/systemd/network/10-netplan-eth0.network.d/clusterip.conf":       keeps,
				"usr/lib/systemd/networkd.conf.d/10-distribution.conf":               leaves,
				"usr/lib/systemd/network/10-netplan-eth0.network.d/README-no-dropin": "[Network]\nKeepConfiguration=no\n",
			},
			doctor.Networkd{File: "/run/systemd/network/10-netplan-eth0.network", KeepsAddresses: true, KeepsRoutes: true},
		},
		"a setting in a file that cannot have it": {
			map[string]string{unit: active, link: state, network: match, "etc/systemd/networkd.conf": "[Network]\nKeepConfiguration=yes\n"},
			doctor.Networkd{File: file},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := nodeWith(t, row.files).networkd(2)
			if diff := cmp.Diff(row.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	if _, err := nodeWith(t, map[string]string{unit: active}).networkd(2); err == nil {
		t.Error("an interface of which networkd shows nothing is taken for unmanaged")
	}
	large := match + strings.Repeat("#", largestFile)
	if _, err := nodeWith(t, map[string]string{unit: active, link: state, network: large}).networkd(2); err == nil {
		t.Error("a file that is too large is taken for read")
	}
}

func TestNetworkManager(t *testing.T) {
	const unit, device = "run/systemd/units/invocation:NetworkManager.service", "run/NetworkManager/devices/2"
	for name, row := range map[string]struct {
		files   map[string]string
		want    bool
		unknown bool
	}{
		"none":                {nil, false, false},
		"it has been stopped": {map[string]string{device: "[device]\nmanaged=true\n"}, false, false},
		"managed":             {map[string]string{unit: active, device: "[device]\nmanaged=true\nconnection-uuid=6e0a…\n"}, true, false},
		"unmanaged":           {map[string]string{unit: active, device: "[device]\nmanaged=false\n"}, false, false},
		"not known to it":     {map[string]string{unit: active}, false, true},
	} {
		got, err := nodeWith(t, row.files).networkManager(2)
		if got != row.want || (err != nil) != row.unknown {
			t.Errorf("%s: %t, %v", name, got, err)
		}
	}
}

func TestNeighbourTable(t *testing.T) {
	const names = "entries  allocs   destroys hash_grows lookups  hits     res_failed rcv_probes_mcast rcv_probes_ucast periodic_gc_runs " +
		"forced_gc_runs unresolved_discards table_fulls\n"
	const first = "000003fe 0006c716 0006a783 00000006   003b5150 000f6c9c 00000116   00000000         00000000         00000e9c         " +
		"00000cbd       00001103            00000b42\n"
	const second = "000003ff 000696ed 0006b680 00000003   0039c25d 000ef5c1 00000150   00000000         00000000         00000000         " +
		"000009dd       0000127b            00000875\n"
	const file = "proc/net/stat/arp_cache"
	for name, row := range map[string]struct {
		text, fault string
		want        doctor.NeighbourTable
	}{
		"two CPUs":                {text: names + first + second, want: doctor.NeighbourTable{Entries: 0x3ff, Overflows: 0xb42 + 0x875}},
		"no CPU":                  {text: names, fault: "no line for a CPU"},
		"nothing":                 {text: "", fault: "no line for a CPU"},
		"a line that is cut off":  {text: names + first + "000003ff 000696ed\n", fault: "it has no table_fulls"},
		"a kernel of other names": {text: strings.Replace(names, "entries", "neighbours", 1) + first, fault: "it has no entries"},
		"what is no number":       {text: names + strings.Replace(first, "000003fe", "many", 1), fault: `"many"`},
	} {
		got, err := nodeWith(t, map[string]string{file: row.text}).neighbourTable("arp_cache")
		if row.fault == "" && (err != nil || got != row.want) || row.fault != "" && (err == nil || !strings.Contains(err.Error(), row.fault)) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := nodeWith(t, nil).neighbourTable("arp_cache"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestFlushes(t *testing.T) {
	const (
		enabled = "etc/systemd/system/sysinit.target.wants/nftables.service"
		unit    = "usr/lib/systemd/system/nftables.service"
		rules   = "etc/nftables.conf"
		debian  = "[Service]\nType=oneshot\nExecStart=/usr/sbin/nft -f /etc/nftables.conf\nExecReload=/usr/sbin/nft -f /etc/nftables.conf\n" +
			"ExecStop=/usr/sbin/nft flush ruleset\n"
		fedora = "[Service]\nExecStart=/sbin/nft -f /etc/sysconfig/nftables.conf\n" +
			"ExecReload=/sbin/nft 'flush ruleset; include \"/etc/sysconfig/nftables.conf\";'\nExecStop=/sbin/nft flush ruleset\n"
		noStop   = "[Service]\nExecStop=\n"
		ownTable = "table inet filter\ndelete table inet filter\ntable inet filter {\n}\n"
		flushing = "#!/usr/sbin/nft -f\n\nflush ruleset\n\n" + ownTable
		saved    = "# Generated by iptables-save\n*mangle\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:INPUT DROP [0:0]\nCOMMIT\n"
	)
	stop := doctor.Flush{Unit: "nftables.service", Where: "ExecStop=/usr/sbin/nft flush ruleset"}
	file := doctor.Flush{Unit: "nftables.service", Where: "/etc/nftables.conf", IsFile: true}
	for name, row := range map[string]struct {
		files map[string]string
		want  []doctor.Flush
	}{
		"none":        {nil, nil},
		"not enabled": {map[string]string{unit: debian, rules: flushing}, nil},
		"Debian's": {
			map[string]string{enabled: "-> /lib/systemd/system/nftables.service", unit: debian, rules: flushing}, []doctor.Flush{stop, file},
		},
		"started by hand": {map[string]string{"run/systemd/units/invocation:nftables.service": active, unit: debian}, []doctor.Flush{stop}},
		"a clean stop": {
			map[string]string{enabled: active, unit: debian, "etc/systemd/system/nftables.service.d/override.conf": noStop, rules: flushing},
			[]doctor.Flush{file},
		},
		"nothing of the two": {map[string]string{enabled: active, unit: debian + "ExecStop=\n", rules: ownTable}, nil},
		"flushed in a comment": {
			map[string]string{enabled: active, unit: debian + "ExecStop=\n", rules: "# flush ruleset\n" + ownTable + "flush ruleset inet\n"}, nil,
		},
		"flushed by an included file": {
			map[string]string{
				enabled: active, unit: debian + "ExecStop=\n", rules: "include \"/etc/nftables.d/*.nft\"\ninclude \"nftables.conf\"\n",
				"etc/nftables.d/a.nft": ownTable, "etc/nftables.d/b.nft": "flush  ruleset ip;",
			},
			[]doctor.Flush{{Unit: "nftables.service", Where: "/etc/nftables.d/b.nft", IsFile: true}},
		},
		"Fedora's": {map[string]string{enabled: active, unit: fedora}, []doctor.Flush{
			{Unit: "nftables.service", Where: `ExecReload=/sbin/nft 'flush ruleset; include "/etc/sysconfig/nftables.conf";'`},
			{Unit: "nftables.service", Where: "ExecStop=/sbin/nft flush ruleset"},
		}},
		"netfilter-persistent": {
			map[string]string{"etc/systemd/system/multi-user.target.wants/netfilter-persistent.service": active, "etc/iptables/rules.v4": saved},
			[]doctor.Flush{{
				Unit: "netfilter-persistent.service", Where: "/etc/iptables/rules.v4", IsFile: true, IPTables: []string{"mangle", "filter"},
			}},
		},
		"netfilter-persistent that replaces nothing": {
			map[string]string{
				"etc/systemd/system/multi-user.target.wants/netfilter-persistent.service": active, "etc/iptables/rules.v4": saved,
				"etc/default/netfilter-persistent": "# plugins\nIPTABLES_RESTORE_NOFLUSH=\"yes\"\n",
			}, nil,
		},
		"netfilter-persistent that replaces, whatever it seems": {
			map[string]string{
				"etc/systemd/system/multi-user.target.wants/netfilter-persistent.service": active, "etc/iptables/rules.v4": saved,
				"etc/default/netfilter-persistent": "FLUSH_ON_STOP=0\nIPTABLES_RESTORE_NOFLUSH=1\n",
			},
			[]doctor.Flush{{
				Unit: "netfilter-persistent.service", Where: "/etc/iptables/rules.v4", IsFile: true, IPTables: []string{"mangle", "filter"},
			}},
		},
		"netfilter-persistent that flushes at a stop": {
			map[string]string{
				"etc/systemd/system/multi-user.target.wants/netfilter-persistent.service": active,
				"etc/default/netfilter-persistent":                                        "FLUSH_ON_STOP=1 # always\n",
			},
			[]doctor.Flush{{
				Unit: "netfilter-persistent.service", Where: "/etc/default/netfilter-persistent", IsFile: true, AllIPTables: true,
			}},
		},
		"Arch's iptables, whose rules have no table": {
			map[string]string{
				"etc/systemd/system/multi-user.target.wants/iptables.service": active, "etc/iptables/iptables.rules": "\n",
				"usr/lib/systemd/system/iptables.service": "[Service]\nExecStart=/usr/bin/iptables-restore /etc/iptables/iptables.rules\n" +
					"ExecStop=/usr/lib/systemd/scripts/iptables-flush\n",
			},
			[]doctor.Flush{{Unit: "iptables.service", Where: "ExecStop=/usr/lib/systemd/scripts/iptables-flush", AllIPTables: true}},
		},
		"iptables.service without rules and a stop": {
			map[string]string{
				"etc/systemd/system/basic.target.wants/iptables.service": active,
				"usr/lib/systemd/system/iptables.service":                "[Service]\nExecStart=/usr/libexec/iptables/iptables.init start\n",
			}, nil,
		},
		"a file after an equals sign": {
			map[string]string{enabled: active, unit: "[Service]\nExecStart=-/usr/sbin/nft --file=/etc/nftables.conf\n", rules: flushing},
			[]doctor.Flush{file},
		},
		"a file that is included by the commands": {
			map[string]string{
				enabled: active, unit: "[Service]\nExecStart=/usr/sbin/nft 'include \"nftables.conf\"'\n", rules: flushing,
			},
			[]doctor.Flush{file},
		},
		"a file in the include path": {
			map[string]string{
				enabled: active, unit: "[Service]\nExecStart=/usr/sbin/nft -I /srv/rules -f /etc/sysconfig/nftables.conf\n",
				"etc/sysconfig/nftables.conf": "include \"a.nft\"\ninclude \"b.nft\"\ninclude \"./c.nft\"\n",
				"srv/rules/a.nft":             "flush ruleset", "etc/b.nft": "flush ruleset", "c.nft": "flush ruleset",
				"etc/c.nft": "flush ruleset", "etc/sysconfig/c.nft": "flush ruleset",
			},
			[]doctor.Flush{
				{Unit: "nftables.service", Where: "/srv/rules/a.nft", IsFile: true},
				{Unit: "nftables.service", Where: "/etc/b.nft", IsFile: true},
				{Unit: "nftables.service", Where: "/c.nft", IsFile: true},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := nodeWith(t, row.files).flushes()
			if diff := cmp.Diff(row.want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	for _, enabled := range []string{enabled, "etc/systemd/system/basic.target.wants/iptables.service"} {
		if _, err := nodeWith(t, map[string]string{enabled: active}).flushes(); err == nil {
			t.Errorf("a service whose commands are not known is taken for harmless: %s", enabled)
		}
	}
	for _, command := range []string{
		"/bin/sh -c 'nft -f /etc/nftables.conf'", "/usr/libexec/load-nft-rules", "nft -f -", "nft -f $RULES", `nft -f "/etc/my rules"`,
		"nft ${OPTIONS} -f /etc/nftables.conf", "@/sbin/nft nft -f /etc/nftables.conf", "nft -j -f /etc/nftables.json",
		"nft -nf /etc/nftables.conf", "nft -f", "nft list ruleset ; nft -f /etc/nftables.conf",
	} {
		service := "[Service]\nExecStart=" + command + "\n"
		if got, err := nodeWith(t, map[string]string{enabled: active, unit: service}).flushes(); err == nil {
			t.Errorf("%s is taken for harmless: %v", command, got)
		}
	}
	node := nodeWith(t, map[string]string{enabled: active, unit: debian, rules: strings.Repeat("#", largestFile+1)})
	if _, err := node.flushes(); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("rules that are too large are taken for read: %v", err)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("[Network]\nKeepConfiguration=static\n")
	f.Add("A=1 \\\n# comment\n  2\n[")
	f.Fuzz(func(t *testing.T, text string) {
		read := settings{}
		read.add(text)
		for key, values := range read {
			if strings.ContainsAny(read.last(key), "\n") || len(read.all(key)) > len(values) {
				t.Errorf("%q: %q", key, values)
			}
		}
	})
}

func FuzzFlushes(f *testing.F) {
	f.Add("flush ruleset\ninclude \"/etc/nftables.conf\"\n")
	f.Add("include '[';flush ruleset inet # flush ruleset")
	f.Fuzz(func(t *testing.T, text string) {
		files := &ruleFiles{nodeFiles: nodeFiles{os.DirFS(t.TempDir())}}
		files.follow("/etc/nftables.conf", text)
		if len(files.loaded) > mostIncluded {
			t.Errorf("%d files are read", len(files.loaded))
		}
	})
}
