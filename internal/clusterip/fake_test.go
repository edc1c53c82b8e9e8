package clusterip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
)

// A fakeKernel carries steps out on a State. It fails at a chosen step, which the real kernel cannot be made to do.
type fakeKernel struct {
	State
	failAt     int // the step, counted from 1, that is refused; 0: none
	dieAt      int // the step, counted from 1, before which the process is killed; 0: none
	blindAt    int // the observation, counted from 1, that fails; 0: none
	observed   int
	applied    []string
	announced  int
	onAnnounce func()
	strangers  []Stranger
	others     []Layout              // of other resources
	open       func() map[Bucket]int // connections
	forgotten  []Bucket              // whose connections were ended
	hostile    func(State) error     // is called after each step: is the node in a state in which it must not be?
}

var (
	errRefused = errors.New("refused by the test")
	errKilled  = errors.New("killed by the test")

	errUnreadable = errors.New("made unreadable by the test")
)

func (k *fakeKernel) Observe(context.Context, []netip.Addr, []MAC) (State, error) {
	if k.observed++; k.observed == k.blindAt {
		return State{}, errUnreadable
	}
	seen := k.State
	seen.Addresses, seen.Groups = slices.Clone(k.Addresses), slices.Clone(k.Groups)
	seen.Routes = slices.Clone(k.Routes)
	seen.Filters, seen.Tables.Owned = slices.Clone(k.Filters), slices.Clone(k.Tables.Owned)
	seen.Tables.Moves = k.Tables.Moves.without()
	return seen, nil
}

func (k *fakeKernel) Traffic(context.Context, Layout) (*Traffic, error) { return &Traffic{}, nil }

func (k *fakeKernel) ObserveTables(ctx context.Context, address netip.Addr) (Tables, error) {
	seen, err := k.Observe(ctx, []netip.Addr{address}, nil)
	return seen.Tables, err
}

func (k *fakeKernel) Apply(_ context.Context, step Step) error {
	k.applied = append(k.applied, step.String())
	switch len(k.applied) {
	case k.failAt:
		return errRefused
	case k.dieAt:
		panic(errKilled)
	}
	tables := &k.Tables
	switch step := step.(type) {
	case LayTables:
		layout := step.Layout
		tables.Present, tables.Laid, tables.Damage, tables.Owned = true, &layout, nil, slices.Clone(step.Keep)
		tables.Moves = step.Moves
		tables.Backend = layout.Backend
	case RemoveTables:
		*tables = Tables{Foreign: tables.Foreign}
	case Own:
		tables.Owned = append(tables.Owned, step.Buckets...)
		slices.Sort(tables.Owned)
	case Disown:
		tables.Owned = subtract(tables.Owned, step.Buckets)
	case Move:
		tables.Owned = append(subtract(tables.Owned, step.Disown), step.Own...)
		slices.Sort(tables.Owned)
		tables.Moves = step.Moves
	case AddAddress:
		address := Address{NICIndex: step.NIC.Index, Prefix: step.Prefix, AutoJoin: step.Group}
		if step.Group {
			k.Groups = append(k.Groups, address)
			k.Filters = append(k.Filters, Filter{NICIndex: step.NIC.Index, MAC: groupMAC(step.Prefix.Addr())})
		} else {
			address.HostScope = step.Prefix.Addr().Is4()
			k.Addresses = append(k.Addresses, address)
		}
	case AddRoute:
		k.Routes = append(k.Routes, step.Route)
	case RemoveRoute:
		k.Routes = slices.DeleteFunc(k.Routes, func(r Route) bool { return r == step.Route })
	case RemoveAddress:
		is := func(a Address) bool { return a.NICIndex == step.NIC.Index && a.Prefix == step.Prefix }
		if slices.ContainsFunc(k.Groups, is) {
			k.Filters = slices.DeleteFunc(k.Filters, func(f Filter) bool { return f.MAC == groupMAC(step.Prefix.Addr()) })
		}
		k.Addresses = slices.DeleteFunc(k.Addresses, is)
		k.Groups = slices.DeleteFunc(k.Groups, is)
	case AddFilter:
		k.Filters = append(k.Filters, Filter{NICIndex: step.NIC.Index, MAC: step.MAC, Static: true})
	case RemoveFilter:
		k.Filters = slices.DeleteFunc(k.Filters, func(f Filter) bool { return f.MAC == step.MAC && f.NICIndex == step.NIC.Index })
	default:
		return fmt.Errorf("unknown step %s", step)
	}
	if k.hostile != nil {
		return k.hostile(k.State)
	}
	return nil
}

func groupMAC(group netip.Addr) MAC {
	if group.Is6() {
		a := group.As16()
		return MAC{mldPrefix[0], mldPrefix[1], a[12], a[13], a[14], a[15]}
	}
	a := group.As4()
	return MAC{igmpPrefix[0], igmpPrefix[1], igmpPrefix[2], igmpPrefix[3], a[2], a[3]}
}

func (k *fakeKernel) Announce(context.Context, Layout, Announcements) error {
	k.announced++
	if k.onAnnounce != nil {
		k.onAnnounce()
	}
	return nil
}

func (k *fakeKernel) Strangers(context.Context, Layout) ([]Stranger, error) { return k.strangers, nil }

func (k *fakeKernel) Layouts(context.Context) ([]Layout, error) {
	if k.Tables.Laid != nil {
		return append([]Layout{*k.Tables.Laid}, k.others...), nil
	}
	return k.others, nil
}

func (k *fakeKernel) Choose(context.Context, Layout) (Backend, []string, error) {
	return NFTables, nil, nil
}

func (k *fakeKernel) Connections(context.Context, Layout) (map[Bucket]int, error) {
	if k.open == nil {
		return nil, nil
	}
	return k.open(), nil
}

func (k *fakeKernel) Keep(context.Context, Layout, map[Bucket]time.Duration) error { return nil }

func (k *fakeKernel) EndHandshakes(context.Context, Layout, Bucket) error { return nil }

func (k *fakeKernel) Forget(_ context.Context, _ Layout, buckets []Bucket) error {
	k.forgotten = append(k.forgotten, buckets...)
	return nil
}

type unlockFunc func(last bool) error

func (f unlockFunc) Unlock(last bool) error { return f(last) }

// agentOn is an agent on a fake kernel; lockRemoved tells what the last action left of the lock.
func agentOn(kernel Kernel) (agent Agent, lockRemoved *bool) {
	lockRemoved = new(bool)
	return Agent{Kernel: kernel, Log: ocf.NewLogger(io.Discard, false), Lock: func(context.Context, netip.Addr) (Unlocker, error) {
		return unlockFunc(func(last bool) error { *lockRemoved = last; return nil }), nil
	}}, lockRemoved
}

// exitCode is what an action would exit with, were it a process; a process that was killed has none.
func exitCode(action func() error) (code ocf.ExitCode, killed bool) {
	defer func() {
		if cause := recover(); cause != nil {
			if err, ok := cause.(error); !ok || !errors.Is(err, errKilled) {
				panic(cause)
			}
			killed = true
		}
	}()
	return ocf.CodeOf(action()), false
}

const (
	loIndex   = 1
	eth0Index = 2
	eth1Index = 3
)

var (
	vip6   = netip.MustParseAddr("2001:db8:10::3")
	vip    = netip.MustParseAddr("192.168.10.3")
	vip24  = netip.MustParsePrefix("192.168.10.3/24")
	vip32  = netip.MustParsePrefix("192.168.10.3/32")
	lan    = Route{NICIndex: eth0Index, Prefix: netip.MustParsePrefix("192.168.10.0/24")}
	anyMAC = MAC{2, 0, 0, 0, 1, 1}
)

// freshNode has two NICs, of which eth0 is in the address's network, and nothing of the resource.
func freshNode() State {
	return State{
		NICs: []NIC{
			{Index: loIndex, Name: "lo", Up: true, Running: true, Loopback: true},
			{Index: eth0Index, Name: "eth0", MAC: anyMAC, Up: true, Running: true, ARP: true},
			{Index: eth1Index, Name: "eth1", MAC: MAC{2, 0, 0, 0, 1, 2}, Up: true, Running: true, ARP: true},
		},
		Connected: []Route{lan},
	}
}

// specOf is what is asked for one of eight buckets.
func specOf(mode MACMode, bucket Bucket) Spec {
	return Spec{
		Resource: "web-ip", Bucket: bucket, Buckets: 8, Addresses: []netip.Addr{vip}, HashPrefixes: wholeAddresses,
		Backend: Auto, MACMode: mode, MACs: PerFamily[MAC]{IPv4: DerivedMAC(mode, vip)}, HashMode: SourceIP, HashCompat: XTCluster, Seed: DefaultSeed(vip), CheckLink: true,
	}
}

// runningNode owns the buckets.
func runningNode(t *testing.T, mode MACMode, buckets ...Bucket) State {
	t.Helper()
	kernel := &fakeKernel{State: freshNode()}
	agent, _ := agentOn(kernel)
	for _, bucket := range buckets {
		if err := agent.Start(t.Context(), specOf(mode, bucket)); err != nil {
			t.Fatal(err)
		}
	}
	return kernel.State
}

// dirtyNodes are states that a crash, an admin or a firewall may leave behind, by name.
func dirtyNodes(t *testing.T, mode MACMode) map[string]State {
	t.Helper()
	nodes := map[string]State{}
	dirty := func(name string, spoil func(*State)) {
		state := runningNode(t, mode, 2, 5)
		spoil(&state)
		nodes[name] = state
	}
	dirty("nothing wrong", func(*State) {})
	dirty("address deleted", func(s *State) { s.Addresses = nil })
	dirty("address with another prefix", func(s *State) {
		s.Addresses[0] = Address{NICIndex: eth0Index, Prefix: netip.MustParsePrefix("192.168.10.3/25")}
	})
	dirty("address twice", func(s *State) { s.Addresses = append(s.Addresses, Address{NICIndex: eth0Index, Prefix: vip24}) })
	dirty("address with another scope", func(s *State) { s.Addresses[0].HostScope = false })
	dirty("address as earlier versions laid it", func(s *State) { s.Addresses, s.Routes = []Address{{NICIndex: eth0Index, Prefix: vip24}}, nil })
	dirty("route deleted", func(s *State) { s.Routes = nil })
	dirty("tables deleted", func(s *State) { s.Tables = Tables{} })
	dirty("rule changed", func(s *State) { s.Tables.Damage = []string{"chain ipv4: rule is missing"} })
	dirty("stamp lost", func(s *State) { s.Tables.Laid, s.Tables.Damage = nil, []string{"stamp lost"} })
	dirty("all elements removed", func(s *State) { s.Tables.Owned = nil })
	dirty("MAC filter or membership lost", func(s *State) { s.Filters, s.Groups = nil, nil })
	dirty("NIC renamed", func(s *State) { s.NICs[1].Name = "lan0" })
	dirty("NIC deleted and made again", func(s *State) {
		s.NICs[1].Index, s.Connected[0].NICIndex = 7, 7
		s.Addresses, s.Routes, s.Filters, s.Groups = nil, nil, nil, nil
		s.Tables.Damage = []string{"chain ingress is missing"}
	})
	return nodes
}
