package lan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpTimeout bounds each program that Dump runs.
const dumpTimeout = 10 * time.Second

// legacyDefault is what the old tables list of unchanged chains.
var legacyDefault = regexp.MustCompile(`^-P \w+ ACCEPT$|^Chain \w+ \(policy ACCEPT\)$`)

// Volatile parts of a rule set: counters, and the time that an element has left.
var (
	nftCounter = regexp.MustCompile(`packets \d+ bytes \d+`)
	nftExpires = regexp.MustCompile(` expires \w+`)
)

// Dump returns the network state of the host as text, to compare before and after: links, addresses, routes, rules,
// MAC filters, multicast memberships, the interfaces' kernel parameters and the rules of nftables, iptables-legacy and
// arptables-legacy. What changes by itself is left out: neighbours, counters, timers. Equal states give equal text.
func (h *Host) Dump() (string, error) {
	if err := h.Settle(); err != nil {
		return "", fmt.Errorf("dump %s: %w", h.Name, err)
	}
	sections := []struct {
		title string
		lines func() ([]string, error)
	}{
		{"links", h.dumpLinks},
		{"addresses", h.dumpAddresses},
		{"routes", h.dumpRoutes},
		{"rules", h.dumpRules},
		{"fdb", h.dumpFDB},
		{"dev_mcast", h.dumpDevMulticast},
		{"igmp", h.dumpIGMP},
		{"mld", h.dumpMLD},
		{"sysctl", h.dumpSysctl},
		{"traffic control", h.dumpTrafficControl},
		{"bpf", h.dumpBPF},
		{"nftables", h.dumpNftables},
		{"iptables-legacy", func() ([]string, error) {
			return h.dumpLegacy("/proc/thread-self/net/ip_tables_names", "iptables-legacy", "-S")
		}},
		{"arptables-legacy", func() ([]string, error) {
			return h.dumpLegacy("/proc/thread-self/net/arp_tables_names", "arptables-legacy", "-n", "-L")
		}},
		{"ipt_CLUSTERIP", h.dumpTarget},
	}
	var out strings.Builder
	for _, s := range sections {
		lines, err := s.lines()
		for range 5 { // the kernel reports that a table changed while it was listed
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
			lines, err = s.lines()
		}
		if err != nil {
			return "", fmt.Errorf("dump %s of %s: %w", s.title, h.Name, err)
		}
		fmt.Fprintf(&out, "# %s\n", s.title)
		for _, l := range lines {
			out.WriteString(l + "\n")
		}
	}
	return out.String(), nil
}

// Settle waits until the kernel has noticed what became of the links: it does so a moment later (net/core/link_watch.c), and a
// dump in between would not be the next one's equal. The same holds for the CLUSTERIP target.
func (h *Host) Settle() error {
	const tries, pause = 200, 10 * time.Millisecond
	for range tries {
		links, err := h.handle.LinkList()
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("list links: %w", err)
		}
		ending, targetErr := h.targetIsEnding()
		if targetErr != nil {
			return targetErr
		}
		if err == nil && !slices.ContainsFunc(links, isUnsettled) && !ending {
			return nil
		}
		time.Sleep(pause)
	}
	return nil // then it is something else, which the dump shows
}

// isUnsettled reports whether a link's operational state does not follow from its carrier yet.
func isUnsettled(l netlink.Link) bool {
	a := l.Attrs()
	carrier := a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0
	return a.OperState != netlink.OperUnknown && carrier != (a.OperState == netlink.OperUp)
}

// targetIsEnding reports whether the CLUSTERIP target has no rule any more, and has not yet taken its MAC off the interface: it does so
// after a grace period (clusterip_config_rcu_free in net/ipv4/netfilter/ipt_CLUSTERIP.c). A filter that the agent has installed has a
// global user.
func (h *Host) targetIsEnding() (bool, error) {
	var idle bool
	err := h.Do(func() error {
		files, err := os.ReadDir(TargetFiles)
		idle = err == nil && len(files) == 0
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the kernel has no such target, or has not loaded it
		}
		return err
	})
	if err != nil || !idle {
		return false, err
	}
	filters, err := h.dumpDevMulticast()
	return slices.ContainsFunc(filters, func(line string) bool {
		fields := strings.Fields(line) // index, interface, users, global users, MAC
		const global, mac = 3, 4
		isOfIP := strings.HasPrefix(fields[mac], "01005e") || strings.HasPrefix(fields[mac], "3333")
		return fields[global] == "0" && !isOfIP
	}), err
}

func (h *Host) dumpLinks() ([]string, error) {
	links, err := h.handle.LinkList()
	return sorted(links, err, func(l netlink.Link) string {
		a := l.Attrs()
		return fmt.Sprintf("%d %s %s mac %s mtu %d flags %s (0x%x) promisc %d allmulti %d master %d alias %q",
			a.Index, a.Name, l.Type(), a.HardwareAddr, a.MTU, a.Flags, a.RawFlags, a.Promisc, a.Allmulti, a.MasterIndex, a.Alias)
	})
}

func (h *Host) dumpAddresses() ([]string, error) {
	addrs, err := h.handle.AddrList(nil, netlink.FAMILY_ALL)
	return sorted(addrs, err, func(a netlink.Addr) string {
		return fmt.Sprintf("dev %d %s label %q flags 0x%x scope %d broadcast %s peer %s lifetime %d/%d",
			a.LinkIndex, a.IPNet, a.Label, a.Flags, a.Scope, a.Broadcast, a.Peer, a.PreferedLft, a.ValidLft)
	})
}

func (h *Host) dumpRoutes() ([]string, error) {
	routes, err := h.handle.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	return sorted(routes, err, func(r netlink.Route) string {
		return fmt.Sprintf("%s type %d protocol %d scope %d metric %d", r, r.Type, r.Protocol, r.Scope, r.Priority)
	})
}

func (h *Host) dumpRules() ([]string, error) {
	rules, err := h.handle.RuleList(netlink.FAMILY_ALL)
	return sorted(rules, err, func(r netlink.Rule) string { return fmt.Sprintf("family %d %s", r.Family, r) })
}

// dumpFDB lists the MAC filters of the interfaces (`bridge fdb show`, self).
func (h *Host) dumpFDB() ([]string, error) {
	entries, err := h.handle.NeighList(0, unix.AF_BRIDGE)
	return sorted(entries, err, func(n netlink.Neigh) string {
		return fmt.Sprintf("dev %d %s flags 0x%x state 0x%x", n.LinkIndex, n.HardwareAddr, n.Flags, n.State)
	})
}

func (h *Host) dumpDevMulticast() ([]string, error) {
	lines, err := h.readLines("/proc/thread-self/net/dev_mcast")
	return sorted(lines, err, func(l string) string { return strings.Join(strings.Fields(l), " ") })
}

// dumpIGMP keeps the order: a group line belongs to the interface line above it.
func (h *Host) dumpIGMP() ([]string, error) {
	lines, err := h.readLines("/proc/thread-self/net/igmp")
	for i, l := range lines {
		fields := strings.Fields(l)
		if strings.HasPrefix(l, "\t") && len(fields) > 2 {
			fields = fields[:2] // group and users; then come timers
		}
		lines[i] = strings.Join(fields, " ")
	}
	return lines, err
}

// dumpMLD lists interface, group and users.
func (h *Host) dumpMLD() ([]string, error) {
	lines, err := h.readLines("/proc/thread-self/net/igmp6")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return sorted(lines, err, func(l string) string { return strings.Join(strings.Fields(l)[1:4], " ") })
}

// dumpTrafficControl lists the queueing disciplines at ingress, and their filters.
func (h *Host) dumpTrafficControl() ([]string, error) {
	var lines []string
	links, err := h.handle.LinkList()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		qdiscs, err := h.handle.QdiscList(link)
		if err != nil {
			return nil, err
		}
		for _, qdisc := range qdiscs {
			if parent := qdisc.Attrs().Parent; parent != netlink.HANDLE_INGRESS {
				continue
			}
			lines = append(lines, fmt.Sprintf("dev %d %s", link.Attrs().Index, qdisc.Type()))
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				filters, err := h.handle.FilterList(link, parent)
				if err != nil {
					return nil, err
				}
				for _, filter := range filters {
					lines = append(lines, fmt.Sprintf("dev %d parent %x filter %s priority %d", link.Attrs().Index, parent, filter.Type(),
						filter.Attrs().Priority))
				}
			}
		}
	}
	return lines, nil
}

// dumpBPF lists the programs that are attached to interfaces.
func (h *Host) dumpBPF() ([]string, error) {
	var lines []string
	links, err := h.handle.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		attached, err := h.BPFPrograms(l)
		if err != nil {
			return nil, err
		}
		if len(attached.XDP)+len(attached.TC) > 0 {
			lines = append(lines, fmt.Sprintf("dev %d %d as XDP, %d at tc", l.Attrs().Index, len(attached.XDP), len(attached.TC)))
		}
	}
	return lines, nil
}

// BPFPrograms are those that are attached to the ingress of an interface.
type BPFPrograms struct {
	XDP, TC []ebpf.ProgramID
	Filters bool // those at tc are filters, as before Linux 6.6
}

// BPFPrograms lists them.
func (h *Host) BPFPrograms(l netlink.Link) (BPFPrograms, error) {
	var all BPFPrograms
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		all.XDP = []ebpf.ProgramID{ebpf.ProgramID(xdp.ProgId)}
	}
	err := h.Do(func() error {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
			all.Filters = true
			return nil
		}
		if err != nil {
			return err
		}
		for _, p := range attached.Programs {
			all.TC = append(all.TC, p.ID)
		}
		return nil
	})
	if err != nil || !all.Filters {
		return all, err
	}
	filters, err := h.handle.FilterList(l, netlink.HANDLE_MIN_INGRESS)
	for _, filter := range filters {
		if bpf, ok := filter.(*netlink.BpfFilter); ok {
			all.TC = append(all.TC, ebpf.ProgramID(bpf.Id))
		}
	}
	return all, err
}

func (h *Host) dumpSysctl() ([]string, error) {
	var lines []string
	err := h.Do(func() error {
		for _, dir := range []string{"/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"} {
			err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				if value, err := os.ReadFile(path); err == nil { // some may not be read before they are set
					lines = append(lines, path+" = "+strings.TrimSpace(string(value)))
				}
				return nil
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	return lines, err
}

// dumpLegacy lists the rules of the old tables that there are, in their order. To ask the program for another table would make it; one
// without rules counts as none.
func (h *Host) dumpLegacy(names, program string, arguments ...string) ([]string, error) {
	tables, err := h.readLines(names)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var lines []string
	sort.Strings(tables)
	for _, table := range tables {
		ctx, cancel := context.WithTimeout(context.Background(), dumpTimeout)
		defer cancel()
		r := h.Run(ctx, ToolPath, append([]string{program, "-t", table}, arguments...)...)
		if r.Err != nil || r.ExitCode != 0 {
			return nil, errors.Join(fmt.Errorf("%s: status %d: %s", program, r.ExitCode, r.Stderr), r.Err)
		}
		for line := range strings.Lines(r.Stdout) {
			line = strings.TrimSpace(line)
			if line != "" && !legacyDefault.MatchString(line) {
				lines = append(lines, table+": "+line)
			}
		}
	}
	return lines, err
}

// TargetFiles is the folder in which the CLUSTERIP target has a file for each address, with the numbers of its nodes.
const TargetFiles = "/proc/thread-self/net/ipt_CLUSTERIP"

// dumpTarget lists the nodes that the CLUSTERIP target holds for each address.
func (h *Host) dumpTarget() ([]string, error) {
	var lines []string
	err := h.Do(func() error {
		files, err := os.ReadDir(TargetFiles)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, file := range files {
			text, readErr := os.ReadFile(filepath.Join(TargetFiles, file.Name()))
			err = errors.Join(err, readErr)
			nodes := strings.Split(strings.TrimSpace(string(text)), ",")
			sort.Strings(nodes)
			lines = append(lines, file.Name()+" nodes "+strings.Join(nodes, " "))
		}
		return err
	})
	sort.Strings(lines)
	return lines, err
}

// dumpNftables uses the nft program: also for what our own code could not read back.
func (h *Host) dumpNftables() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dumpTimeout)
	defer cancel()
	r := h.Run(ctx, ToolPath, "nft", "list", "ruleset")
	if _, err := os.Stat("/sys/module/nf_tables"); r.ExitCode != 0 && errors.Is(err, fs.ErrNotExist) {
		return nil, nil // TestMatchBackendWithoutNFTables does without it for a while
	}
	if r.Err != nil || r.ExitCode != 0 {
		return nil, errors.Join(fmt.Errorf("nft list ruleset: status %d: %s", r.ExitCode, r.Stderr), r.Err)
	}
	text := nftCounter.ReplaceAllString(r.Stdout, "packets 0 bytes 0")
	text = nftExpires.ReplaceAllString(text, "")
	return strings.Split(strings.TrimRight(text, "\n"), "\n"), nil
}

func (h *Host) readLines(path string) ([]string, error) {
	var b []byte
	err := h.Do(func() (err error) {
		b, err = os.ReadFile(path)
		return err
	})
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(b), "\n"), "\n"), nil
}

func sorted[T any](list []T, err error, text func(T) string) ([]string, error) {
	lines := make([]string, len(list))
	for i, x := range list {
		lines[i] = text(x)
	}
	sort.Strings(lines)
	return lines, err
}
