//go:build system

package kernel

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
)

// A dangerousCall is one during which the agent gets killed. Other buckets run or not; bucket 5 is the one called for.
type dangerousCall struct {
	name     string
	action   string
	macMode  string
	backend  clusterip.Backend         // "": nftables
	iptables string                    // which one, if any
	ip       string                    // "": the IPv4 address
	others   []int                     // run before and after
	runs     bool                      // bucket 5 runs before
	breaks   func(*killed, *testing.T) // something is broken before
}

// killed is a node on which calls get killed.
type killed struct {
	*agent
	dangerousCall
	clean   string // Dump before anything was started
	without string // Dump with the others running
	with    string // Dump with bucket 5 running too
}

const target = 5

// TestKilledOnNFTables kills start and stop with signal 9 at system calls by which they act. After each, monitor returns what is true,
// start works, and stop leaves nothing.
func TestKilledOnNFTables(t *testing.T) {
	killWhereItActs(t, []dangerousCall{
		{name: "first start", action: "start", macMode: "multicast"},
		{name: "first start", action: "start", macMode: "igmp"},
		{name: "further start", action: "start", macMode: "unicast", others: []int{1}},
		{name: "start that repairs", action: "start", macMode: "unicast", others: []int{1}, runs: true, breaks: (*killed).breakShared},
		{name: "further stop", action: "stop", macMode: "igmp", others: []int{1}, runs: true},
		{name: "last stop", action: "stop", macMode: "igmp", runs: true},
		{name: "last stop", action: "stop", macMode: "unicast", runs: true},
		{name: "first start, dual stack", action: "start", macMode: "igmp", ip: dualStack},
		{name: "last stop, dual stack", action: "stop", macMode: "multicast", ip: dualStack, runs: true},
	})
}

// TestKilledOnIPTables: the same with iptables, which is killed with the agent.
func TestKilledOnIPTables(t *testing.T) {
	inGuest(t, "match")
	calls := slowCalls()
	if !offers(t, clusterip.Target) {
		calls = slices.DeleteFunc(calls, func(c dangerousCall) bool { return c.backend == clusterip.Target })
	}
	killWhereItActs(t, calls)
}

// killWhereItActs does it in a network for each.
func killWhereItActs(t *testing.T, calls []dangerousCall) {
	t.Helper()
	for _, call := range calls {
		t.Run(
			strings.Join([]string{string(cmp.Or(call.backend, clusterip.NFTables)), call.iptables, call.name, call.macMode}, "/"),
			func(t *testing.T) {
				t.Parallel()
				n := newLAN(t, lan.Options{Nodes: 1, IPv6: call.ip != ""})
				k := &killed{
					agent: newAgent(t, n.Nodes[0], 8, webIP("ip", cmp.Or(call.ip, shared.String()), "mac_mode", call.macMode, "arp_count", "1",
						"backend", string(cmp.Or(call.backend, clusterip.NFTables)), "hashmode", "sourceip")),
					dangerousCall: call,
				}
				if call.iptables != "" {
					chooseIPTables(t, k.Host, call.iptables)
					administer(t, k.Host, call.iptables)
				}
				k.rehearse(t)
				counts := k.systemCalls(t)
				kills, every := 0, killEvery
				switch {
				case *atEveryCall:
					every = 1
				case call.iptables != "":
					every = slowKillEvery
				}
				for name, count := range counts {
					for nth := 1; nth <= count; nth += every {
						where := fmt.Sprintf("%s, call %d of %d", name, nth, count)
						k.prepare(t)
						if k.traced().killAt(t, name, nth) {
							kills++
						}
						k.checkTruth(t, where)
						k.recover(t, where)
						if t.Failed() {
							return
						}
					}
				}
				t.Logf("killed %d times, at %d kinds of system calls", kills, len(counts))
				if kills < max(30/every, len(counts)/2) {
					t.Errorf("only %d kills hit their mark", kills)
				}
			},
		)
	}
}

// TestKilledStopBesideAddressesThatHangOnOurs: the other addresses stay although the kernel would remove them
// (promote_secondaries=0), and the parameter has its old value, wherever the stop is killed.
func TestKilledStopBesideAddressesThatHangOnOurs(t *testing.T) {
	t.Parallel()
	const parameter = "/proc/sys/net/ipv4/conf/eth0/promote_secondaries"
	ours := shared.String() + "/24"
	p := newTestNode(t, webIP("cidr_netmask", "24"))
	check(t, p.Host.Sysctl("net/ipv4/conf/all/promote_secondaries", "0"))
	check(t, p.Host.Sysctl("net/ipv4/conf/eth0/promote_secondaries", "0"))
	before := func() {
		check(t, status(p.start(target), ocf.Success))
		p.by(t, "ip address flush dev eth0 scope global")
		p.by(t, "ip address replace "+ours+" dev eth0")
		p.by(t, "ip address add 192.168.10.11/24 dev eth0")
	}
	checkOthers := func(where string) {
		addresses, promote := p.by(t, "ip -4 -o address show dev eth0"), p.by(t, "cat "+parameter)
		if !strings.Contains(addresses, "192.168.10.11/24") || promote != "0\n" {
			t.Errorf("%s: promote_secondaries is %s, addresses:\n%s", where, promote, addresses)
		}
	}
	stop := tracedCall{agent: p.agent, action: "stop", bucket: target}
	before()
	counts := stop.systemCalls(t)
	kills := 0
	for name, count := range counts {
		for nth := range count {
			where := fmt.Sprintf("killed at %s, call %d of %d", name, nth+1, count)
			before()
			if stop.killAt(t, name, nth+1) {
				kills++
			}
			checkOthers(where)
			check(t, status(p.stop(target), ocf.Success))
			checkOthers(where + ", then stopped")
			if seen := p.by(t, "ip -4 -o address show"); strings.Contains(seen, ours) {
				t.Errorf("%s: ours is left:\n%s", where, seen)
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("killed %d times, at %d kinds of system calls", kills, len(counts))
	if kills < len(counts) {
		t.Errorf("only %d kills hit their mark", kills)
	}
}

// rehearse takes the dumps that distinguish the states.
func (k *killed) rehearse(t *testing.T) {
	t.Helper()
	k.clean = k.dump(t)
	for _, bucket := range k.others {
		check(t, status(k.start(bucket), ocf.Success))
	}
	k.without = k.dump(t)
	check(t, status(k.start(target), ocf.Success))
	k.with = k.dump(t)
	k.stopAll(t, "rehearsal")
}

func (k *killed) dump(t *testing.T) string {
	t.Helper()
	dump, err := k.Host.Dump()
	check(t, err)
	return twins.Replace(dump)
}

// twins makes rules that were replaced look like those before (xtables.Twin).
var twins = strings.NewReplacer(ourTable+"b", ourTable, `"1b ip=`, `"1 ip=`)

func (k *killed) prepare(t *testing.T) {
	t.Helper()
	for _, bucket := range k.others {
		check(t, status(k.start(bucket), ocf.Success))
	}
	if k.runs {
		check(t, status(k.start(target), ocf.Success))
	}
	if k.breaks != nil {
		k.breaks(k, t)
	}
}

// breakShared breaks something of everything that is shared.
func (k *killed) breakShared(t *testing.T) {
	t.Helper()
	link, err := k.Host.Handle().LinkByName(lan.NIC)
	check(t, err)
	address, err := netlink.ParseAddr(sharedOnNIC)
	check(t, err)
	check(t, k.Host.Handle().AddrDel(link, address))
	nft(t, k.Host, "flush chain arp clusterip-"+shared.String()+" output; delete table ip clusterip-"+shared.String())
}

// systemCalls counts the calls of an undisturbed run, by name.
func (k *killed) systemCalls(t *testing.T) map[string]int {
	t.Helper()
	k.prepare(t)
	counts := k.traced().systemCalls(t)
	k.stopAll(t, "undisturbed run")
	return counts
}

func (k *killed) traced() tracedCall {
	return tracedCall{agent: k.agent, action: k.action, bucket: target}
}

// checkTruth compares monitor's result with the node's state.
func (k *killed) checkTruth(t *testing.T, where string) {
	t.Helper()
	want := ocf.ErrGeneric
	switch k.dump(t) {
	case k.with:
		want = ocf.Success
	case k.without, k.clean:
		want = ocf.NotRunning
	}
	if err := status(k.monitor(target), want); err != nil {
		// Damaged, but this bucket is not owned and others are: their monitors find it.
		if want == ocf.ErrGeneric && len(k.others) > 0 && status(k.monitor(target), ocf.NotRunning) == nil && !k.owned(t) {
			return
		}
		t.Errorf("%s: monitor: %v (-with bucket 5 +now):\n%s", where, err, changes(k.with, k.dump(t)))
	}
}

// owned reports whether the node owns the target bucket: by its element of the set, its rule, or its number in the target's file.
func (k *killed) owned(t *testing.T) bool {
	t.Helper()
	switch k.backend {
	case clusterip.Match:
		return strings.Contains(k.dump(t), fmt.Sprintf(`"bucket %d"`, target))
	case clusterip.Target:
		return regexp.MustCompile(fmt.Sprintf(`(?m)^%s nodes .*\b%d\b`, regexp.QuoteMeta(shared.String()), target+1)).MatchString(k.dump(t))
	default:
		r := k.Host.Run(t.Context(), lan.ToolPath, "nft", "list", "set", "netdev", ourTable, "owned")
		return hasElement(r.Stdout, target)
	}
}

func (k *killed) recover(t *testing.T, where string) {
	t.Helper()
	for _, bucket := range append(slices.Clone(k.others), target) {
		if err := status(k.start(bucket), ocf.Success); err != nil {
			t.Errorf("%s: start of bucket %d afterwards: %v", where, bucket, err)
		}
		if err := status(k.monitor(bucket), ocf.Success); err != nil {
			t.Errorf("%s: monitor of bucket %d afterwards: %v", where, bucket, err)
		}
	}
	k.stopAll(t, where)
}

func (k *killed) stopAll(t *testing.T, where string) {
	t.Helper()
	for _, bucket := range append(slices.Clone(k.others), target) {
		if err := status(k.stop(bucket), ocf.Success); err != nil {
			t.Errorf("%s: stop of bucket %d afterwards: %v", where, bucket, err)
		}
	}
	if dump := k.dump(t); dump != k.clean {
		t.Errorf("%s: something is left (-before +after):\n%s", where, changes(k.clean, dump))
	}
	k.checkNoFiles(t, where)
}
