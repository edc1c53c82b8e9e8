//go:build system

package ocftester

import (
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
)

// TestNetwork is about the command for people: what it prints without anything to ask, and what it reads on a node.
func TestNetwork(t *testing.T) {
	n := newNode(t)
	ios := []string{"network", "--vendor", "ios", "--vlan", "10", "--ports", "Gi1/0/1,Gi1/0/2"}
	const articles = "\nmac address-table static 03c1.c0a8.0a03 vlan 10 interface Gi1/0/1 Gi1/0/2\n"
	prints := func(t *testing.T, v vars, want string, args ...string) {
		t.Helper()
		r := n.run(t, v, append([]string{program}, args...)...)
		if r.ExitCode != 0 || r.Stderr != "" || !strings.Contains(r.Stdout, want) {
			t.Errorf("exit status %d, stderr %q, no %q in stdout:\n%s", r.ExitCode, r.Stderr, want, r.Stdout)
		}
	}
	with := func(args []string, more ...string) []string { return append(slices.Clip(args), more...) }

	prints(t, vars{}, articles, with(ios, "--ip", address)...)
	prints(t, vars{}, "02:c1:c0:a8:0a:03", "network", "--ip", address, "--mac-mode", "unicast")
	prints(t, vars{}, "arp 192.168.10.3 0102.0304.0506 arpa", with(ios, "--ip", address, "--mac", "01:02:03:04:05:06")...)
	// For a user who may not ask the kernel, the error names what to do.
	r := n.run(t, vars{}, asNobody(append([]string{program}, ios...)...)...)
	if r.ExitCode != int(ocf.ErrPerm) || r.Stdout != "" || !strings.Contains(r.Stderr, "root") || !strings.Contains(r.Stderr, "--ip") {
		t.Errorf("without root: exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
	}
	for _, tt := range []struct {
		name  string
		args  []string
		names []string // what the error must name
	}{
		{"nothing to ask", []string{"network"}, []string{"no address is shared on this node", "--ip"}},
		{
			"a vendor that is none",
			[]string{"network", "--ip", address, "--vendor", "x"},
			[]string{`"x"`, "ios, nxos, eos, junos, routeros, linux-bridge"},
		},
		{
			"a VLAN that no command would name", with(ios, "--ip", address, "--mac-mode", "unicast"),
			[]string{"--vlan", "mac_mode=multicast or igmp"},
		},
		{"an empty vendor", []string{"network", "--ip", address, "--vendor", ""}, []string{"--vendor"}},
		{"no ports", []string{"network", "--ip", address, "--vendor", "ios"}, []string{"--ports", "--vlan"}},
		{"a port to be pasted with care", with(ios, "--ip", address, "--ports", "Gi1;reload"), []string{"Gi1;reload"}},
		{"a VLAN that is none", with(ios, "--ip", address, "--vlan", "4095"), []string{"4095", "4094"}},
		{"several faults", with(ios, "--ip", "300.0.0.1", "--vlan", "0"), []string{"300.0.0.1", "--vlan"}},
		{"a MAC of another mode", with(ios, "--ip", address, "--mac", "02:02:03:04:05:06"), []string{"02:02:03:04:05:06", "group address"}},
		{"a mode that is none", with(ios, "--ip", address, "--mac-mode", "anycast"), []string{"anycast"}},
		{"a mode of nothing", with(ios, "--mac-mode", "unicast"), []string{"--ip"}},
		{"the same address in two ways", with(ios, "--ip", address, "--to", address), []string{"--to"}},
		{"an address that is none", with(ios, "--to", "web"), []string{"--to", `"web"`}},
		{"an argument", with(ios, "--ip", address, "Gi1/0/3"), []string{"Gi1/0/3"}},
		{"a flag that does not exist", []string{"network", "--switch", "x"}, []string{"switch", "network --help"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.run(t, vars{}, append([]string{program}, tt.args...)...)
			if r.ExitCode != int(ocf.ErrArgs) || r.Stdout != "" || strings.Contains(r.Stderr, "goroutine") {
				t.Errorf("exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
			}
			for _, name := range tt.names {
				if !strings.Contains(r.Stderr, name) {
					t.Errorf("%q is not in %q", name, r.Stderr)
				}
			}
		})
	}

	checkStatus(t, n.call(t, service(), "start"), ocf.Success)
	prints(t, n.pacemaker(), articles, ios...)
	prints(t, n.pacemaker(), articles, with(ios, "--to", address)...)
	checkStatus(
		t,
		n.call(
			t,
			service().With(vars{"OCF_RESKEY_ip": "192.168.10.4", "OCF_RESKEY_mac_mode": "unicast", "OCF_RESOURCE_INSTANCE": "other-ip"}),
			"start",
		),
		ocf.Success,
	)
	prints(t, n.pacemaker(), "02:c1:c0:a8:0a:04", "network", "--to", "192.168.10.4")
	r = n.run(t, n.pacemaker(), append([]string{program}, ios...)...)
	if r.ExitCode != int(ocf.ErrArgs) || r.Stdout != "" || !strings.Contains(r.Stderr, "192.168.10.3, 192.168.10.4") {
		t.Errorf("which of two: exit status %d, stdout %q, stderr: %s", r.ExitCode, r.Stdout, r.Stderr)
	}
}
