//go:build system

package lan

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestRun(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	h := n.Nodes[0]
	tests := []struct {
		name string
		env  []string
		argv []string
		want Result
	}{
		{"the environment is exactly the one given", []string{"A=1"}, []string{"/usr/bin/env"}, Result{Stdout: "A=1\n"}},
		{"an empty environment", nil, []string{"/usr/bin/env"}, Result{}},
		{
			"exit status and both streams",
			nil,
			[]string{"/bin/sh", "-c", "echo out; echo err >&2; exit 7"},
			Result{Stdout: "out\n", Stderr: "err\n", ExitCode: 7},
		},
		{"no input", nil, []string{"/bin/cat"}, Result{}},
		{"the working directory", nil, []string{"/bin/pwd"}, Result{Stdout: "/\n"}},
		{"the host's devices in /sys", nil, []string{"/bin/ls", "/sys/class/net"}, Result{Stdout: "eth0\nlo\n"}},
		{
			"the host's address",
			nil,
			[]string{"/bin/sh", "-c", "ip -4 -br addr show eth0 | tr -s ' ' | cut -d' ' -f3"},
			Result{Stdout: "192.168.10.11/24\n"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := h.Run(t.Context(), tt.env, tt.argv...)
			if got.Duration <= 0 {
				t.Error("no duration")
			}
			got.Duration, got.CPU = 0, 0
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestRunThatEndsBadly(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	h := n.Nodes[0]
	t.Run("no such program", func(t *testing.T) {
		if r := h.Run(t.Context(), nil, "/no/such/program"); !errors.Is(r.Err, os.ErrNotExist) || r.ExitCode != -1 {
			t.Errorf("status %d, %v", r.ExitCode, r.Err)
		}
	})
	t.Run("killed by a signal", func(t *testing.T) {
		if r := h.Run(t.Context(), nil, "/bin/sh", "-c", "kill -9 $$"); r.ExitCode != -1 || r.Err == nil ||
			!strings.Contains(r.Err.Error(), "signal: killed") {
			t.Errorf("status %d, %v", r.ExitCode, r.Err)
		}
	})
	t.Run("out of time, with a child", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		r := h.Run(ctx, nil, "/bin/sh", "-c", "sleep 1000 & echo started; wait")
		if r.ExitCode != -1 || r.Err == nil || r.Stdout != "started\n" || errors.Is(r.Err, context.Canceled) {
			t.Errorf("status %d, output %q, %v", r.ExitCode, r.Stdout, r.Err)
		}
	})
}

func TestDoIsInsideAndNowhereElse(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	h := n.Nodes[0]
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var ifs []net.Interface
		err := h.Do(func() (err error) {
			ifs, err = net.Interfaces()
			return err
		})
		if err != nil || len(ifs) != 2 {
			t.Fatalf("interfaces %v, %v", ifs, err)
		}
		runtime.Gosched()
		if here, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || here != outside {
			t.Fatalf("outside we are in %s, want %s (%v)", here, outside, err)
		}
	}
	if err := h.Do(func() error { return os.ErrDeadlineExceeded }); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the function's error becomes %v", err)
	}
	if err := h.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that ended its goroutine counts as done")
	}
}

func TestDump(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	h := n.Nodes[0]
	dump := func() string {
		t.Helper()
		s, err := h.Dump()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	link, err := h.Handle().LinkByName(NIC)
	if err != nil {
		t.Fatal(err)
	}
	mac := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 3, 4, 5, 6, 7},
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Table: 77, Dst: ipNet(prefix("203.0.113.0/24"))}
	maddr := func(what string) error {
		r := h.Run(t.Context(), ToolPath, "ip", "maddr", what, sharedMAC.String(), "dev", NIC)
		return r.Failure()
	}
	ignore := func(value string) error { return h.Sysctl("net/ipv4/conf/eth0/arp_ignore", value) }
	group := &netlink.Addr{IPNet: ipNet(prefix("239.255.1.2/32")), Flags: unix.IFA_F_MCAUTOJOIN}
	rule := netlink.NewRule()
	rule.Table, rule.Priority = 77, 99
	tests := []struct {
		name     string
		do, undo func() error
		shows    string
	}{
		{"an address", func() error { share(t, h); return nil }, func() error { unshare(t, h); return nil }, "192.168.10.3/32"},
		{
			"a MAC filter",
			func() error { return h.Handle().NeighAppend(mac) },
			func() error { return h.Handle().NeighDel(mac) },
			"02:03:04:05:06:07",
		},
		{"a multicast filter", func() error { return maddr("add") }, func() error { return maddr("del") }, "eth0 1 1 010203040506"},
		{
			"a group membership",
			func() error { return h.Handle().AddrAdd(link, group) },
			func() error { return h.Handle().AddrDel(link, group) },
			"0201FFEF 1",
		},
		{
			"a route in another table",
			func() error { return h.Handle().RouteAdd(route) },
			func() error { return h.Handle().RouteDel(route) },
			"203.0.113.0/24",
		},
		{"a rule", func() error { return h.Handle().RuleAdd(rule) }, func() error { return h.Handle().RuleDel(rule) }, "99"},
		{
			"promiscuous",
			func() error { return h.Handle().SetPromiscOn(link) },
			func() error { return h.Handle().SetPromiscOff(link) },
			"promisc 1",
		},
		{"a kernel parameter", func() error { return ignore("8") }, func() error { return ignore("0") }, "eth0/arp_ignore = 8"},
		{
			"a rule set",
			func() error { nft(t, h, "table ip x { chain y { counter; }; }"); return nil },
			func() error { nft(t, h, "delete table ip x"); return nil },
			"counter packets 0",
		},
	}
	before := dump()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			if with := dump(); with == before || !strings.Contains(with, tt.shows) {
				t.Errorf("the dump does not show %q (-before +with):\n%s", tt.shows, cmp.Diff(before, with))
			}
			if err := tt.undo(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, dump()); diff != "" {
				t.Errorf("after undoing it (-before +after):\n%s", diff)
			}
		})
	}
	// Traffic alone changes nothing.
	r := probe(t, n, Traffic{Target: h.Addr, Sources: n.Sources(16), Protos: []Proto{ICMP}})
	if err := r.ExactlyOnce(always(0)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, dump()); diff != "" {
		t.Errorf("after some traffic (-before +after):\n%s", diff)
	}
}
