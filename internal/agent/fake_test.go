package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ocf-clusterip/internal/clusterip"

	"ocf-clusterip/internal/ocf"
)

// A fakeKernel carries out steps on a State. It fails at a chosen step, which the real kernel cannot be made to do.
type fakeKernel struct {
	clusterip.State
	failAt       int // the step, counted from 1, that is refused; 0: none
	dieAt        int // the step, counted from 1, before which the process is killed; 0: none
	unreadableAt int // the observation, counted from 1, that fails; 0: none
	observed     int
	applied      []string
	announced    int
	onAnnounce   func()
	noEarlyDrop  bool // the kernel cannot
	stopsLink    int  // so many observations find no link after the BPF program was attached
	conflicts    []clusterip.Conflict
	others       []clusterip.Layout              // of other resources
	open         func() map[clusterip.Bucket]int // connections
	ended        []clusterip.Bucket              // whose connections were ended
	forbidden    func(clusterip.State) error     // is called after each step: is the node in a state in which it must not be?
	// request is the other nodes' answer to requests of takeovers; nil: none of them confirms.
	request        func([]clusterip.Offer) (confirmed int, err error)
	endedTakeovers []clusterip.Offer
	takenOver      []clusterip.Bucket // owned with ChangeBuckets.TakenOver
	handshakes     []clusterip.Bucket // whose handshakes were ended
	lingersUntil   time.Time          // when all lingering ends; zero: it goes on
	noLinger       error              // why nothing can linger

	remembered, told, toldAgain []clusterip.Remembered
	openHere                    []clusterip.Connection
	cannotList                  error  // why openHere cannot be read
	onTell                      func() // is called after clients were told
	sum                         clusterip.Told
}

var (
	errRefused = errors.New("refused by the test")
	errKilled  = errors.New("killed by the test")

	errUnreadable = errors.New("made unreadable by the test")
)

func (k *fakeKernel) Observe(context.Context, []netip.Addr, []clusterip.MAC) (clusterip.State, error) {
	if k.observed++; k.observed == k.unreadableAt {
		return clusterip.State{}, errUnreadable
	}
	if !k.lingersUntil.IsZero() && !time.Now().Before(k.lingersUntil) {
		k.Tables.Lingering = nil
	}
	seen := k.State
	seen.Addresses, seen.Groups = slices.Clone(k.Addresses), slices.Clone(k.Groups)
	seen.Routes = slices.Clone(k.Routes)
	seen.Filters, seen.Tables.Owned = slices.Clone(k.Filters), slices.Clone(k.Tables.Owned)
	seen.Tables.Moves = k.Tables.Moves.Without()
	seen.Tables.Lingering = slices.DeleteFunc(slices.Clone(k.Tables.Lingering), func(l clusterip.Linger) bool { return k.Owns(l.Bucket) })
	seen.Tables.Lingered = slices.Clone(k.Tables.Lingered)
	seen.Tables.Expecting = clusterip.Subtract(k.Tables.Expecting, k.Tables.Owned)
	seen.EarlyDrop.Passed = slices.Clone(k.EarlyDrop.Passed)
	if k.stopsLink > 0 && k.EarlyDrop.Attached != "" {
		k.stopsLink--
		seen.NICs = slices.Clone(k.NICs)
		for i := range seen.NICs {
			seen.NICs[i].Running = false
		}
	}
	return seen, nil
}

func (k *fakeKernel) ObserveEarlyDrop(context.Context, []netip.Addr, *clusterip.Layout, []clusterip.NIC) (clusterip.EarlyDropState, error) {
	early := k.EarlyDrop
	early.Passed = slices.Clone(k.EarlyDrop.Passed)
	return early, nil
}

func (k *fakeKernel) AttachEarlyDrop(
	_ context.Context, _ clusterip.State, layout clusterip.Layout,
) (attached clusterip.EarlyDrop, reasons []string, err error) {
	if k.noEarlyDrop && layout.EarlyDrop != clusterip.EarlyDropAuto {
		return "", nil, ocf.Errorf(ocf.ErrInstalled, "the kernel has no BPF")
	}
	if k.noEarlyDrop {
		return clusterip.EarlyDropOff, []string{"the kernel has no BPF"}, nil
	}
	if early := &k.EarlyDrop; !early.Judges() {
		early.Passed = nil
		for bucket := range clusterip.Bucket(layout.Buckets) {
			early.Passed = append(early.Passed, bucket)
		}
	}
	attached = clusterip.EarlyDropXDP
	if layout.EarlyDrop == clusterip.EarlyDropTC {
		attached = clusterip.EarlyDropTC
	}
	k.EarlyDrop = clusterip.EarlyDropState{
		NICIndex: layout.NICIndex, Attached: attached, Addresses: layout.Addresses(), Passed: k.EarlyDrop.Passed,
		Remembers: layout.Remember,
	}
	return attached, nil, nil
}

func (k *fakeKernel) WhyNoXDP(context.Context, clusterip.NIC) (string, error) { return "", nil }

func (k *fakeKernel) ApplyEarlyDrop(ctx context.Context, step clusterip.Step) error {
	return k.Apply(ctx, step)
}

// droppedEarly returns the buckets that the tables serve and the BPF program drops.
func (k *fakeKernel) droppedEarly() []clusterip.Bucket {
	if !k.EarlyDrop.Judges() {
		return nil
	}
	served := slices.Concat(k.Tables.Owned, k.Tables.Moves.DrainingBuckets(), k.Tables.Expecting)
	return clusterip.Subtract(served, k.EarlyDrop.Passed)
}

func (k *fakeKernel) RequestTakeover(
	_ context.Context, _ clusterip.Layout, _ clusterip.Bucket, offers []clusterip.Offer,
) (confirmed int, err error) {
	if k.request == nil {
		return 0, nil
	}
	return k.request(offers)
}

func (k *fakeKernel) EndTakeover(_ context.Context, _ clusterip.Layout, bucket clusterip.Bucket, offers []clusterip.Offer) error {
	if !k.Owns(bucket) {
		return errors.New("the bucket is not owned, and nothing would be passed on any more")
	}
	k.endedTakeovers = append(k.endedTakeovers, offers...)
	return nil
}

func (k *fakeKernel) WhyNoLinger(context.Context, clusterip.Layout) error { return k.noLinger }

func (k *fakeKernel) Traffic(context.Context, clusterip.Layout) (*clusterip.Traffic, error) {
	return &clusterip.Traffic{}, nil
}

func (k *fakeKernel) ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error) {
	seen, err := k.Observe(ctx, []netip.Addr{address}, nil)
	return seen.Tables, err
}

func (k *fakeKernel) Apply(_ context.Context, step clusterip.Step) error {
	k.applied = append(k.applied, step.String())
	switch len(k.applied) {
	case k.failAt:
		return errRefused
	case k.dieAt:
		panic(errKilled)
	}
	tables, dropped := &k.Tables, k.droppedEarly()
	switch step := step.(type) {
	case clusterip.InstallTables:
		layout := step.Layout
		tables.Present, tables.Installed, tables.Faults, tables.Owned = true, &layout, nil, slices.Clone(step.Keep)
		tables.Moves = step.Moves
		tables.Backend = layout.Backend
		if layout.Lingers.IsZero() {
			tables.Lingering, tables.Lingered, tables.Expecting = nil, nil, nil
		}
	case clusterip.RemoveTables:
		*tables = clusterip.Tables{Conflicting: tables.Conflicting}
	case clusterip.ChangeBuckets:
		tables.Owned = append(clusterip.Subtract(tables.Owned, step.Release), step.Own...)
		slices.Sort(tables.Owned)
		if step.Moves != nil {
			tables.Moves = *step.Moves
		}
		if step.TakenOver {
			k.takenOver = append(k.takenOver, step.Own...)
		}
		if !step.Takeovers {
			break
		}
		// Of buckets that are owned only the keys go: see nftables.changeTakeovers.
		tables.Lingered = clusterip.Subtract(tables.Lingered, slices.Concat(step.Own, step.Release))
		tables.Expecting = clusterip.Subtract(tables.Expecting, step.Release)
		tables.Lingering = slices.DeleteFunc(slices.Clone(tables.Lingering), func(l clusterip.Linger) bool {
			return slices.Contains(step.Release, l.Bucket)
		})
		if step.Linger != nil {
			tables.Lingering = append(tables.Lingering, *step.Linger)
			tables.Lingered = append(tables.Lingered, step.Linger.Bucket)
		}
	case clusterip.ExpectTakeover:
		tables.Expecting = clusterip.Subtract(tables.Expecting, []clusterip.Bucket{step.Bucket})
		if step.Lasts > 0 {
			tables.Expecting = append(tables.Expecting, step.Bucket)
		}
	case clusterip.AddAddress:
		address := clusterip.Address{NICIndex: step.NIC.Index, Prefix: step.Prefix, AutoJoin: step.Group}
		if step.Group {
			k.Groups = append(k.Groups, address)
			k.Filters = append(k.Filters, clusterip.Filter{NICIndex: step.NIC.Index, MAC: groupMAC(step.Prefix.Addr())})
		} else {
			address.HostScope = step.Prefix.Addr().Is4()
			k.Addresses = append(k.Addresses, address)
		}
	case clusterip.AddRoute:
		k.Routes = append(k.Routes, step.Route)
	case clusterip.RemoveRoute:
		k.Routes = slices.DeleteFunc(k.Routes, func(r clusterip.Route) bool { return r == step.Route })
	case clusterip.RemoveAddress:
		is := func(a clusterip.Address) bool { return a.NICIndex == step.NIC.Index && a.Prefix == step.Prefix }
		if slices.ContainsFunc(k.Groups, is) {
			k.Filters = slices.DeleteFunc(k.Filters, func(f clusterip.Filter) bool { return f.MAC == groupMAC(step.Prefix.Addr()) })
		}
		k.Addresses = slices.DeleteFunc(k.Addresses, is)
		k.Groups = slices.DeleteFunc(k.Groups, is)
	case clusterip.AddFilter:
		k.Filters = append(k.Filters, clusterip.Filter{NICIndex: step.NIC.Index, MAC: step.MAC, Static: true})
	case clusterip.RemoveFilter:
		k.Filters = slices.DeleteFunc(k.Filters, func(f clusterip.Filter) bool { return f.MAC == step.MAC && f.NICIndex == step.NIC.Index })
	case clusterip.SetEarlyDrop:
		if k.EarlyDrop.Attached == "" || k.EarlyDrop.NICIndex != step.Layout.NICIndex {
			k.EarlyDrop.Attached = clusterip.EarlyDropXDP
		}
		k.EarlyDrop.NICIndex, k.EarlyDrop.Addresses, k.EarlyDrop.Faults = step.Layout.NICIndex, step.Layout.Addresses(), nil
		k.EarlyDrop.Passed = slices.Clone(step.Pass)
	case clusterip.RemoveEarlyDrop:
		k.EarlyDrop = clusterip.EarlyDropState{}
	default:
		return fmt.Errorf("unknown step %s", step)
	}
	if more := clusterip.Subtract(k.droppedEarly(), dropped); len(more) > 0 {
		return fmt.Errorf("after %s, packets of buckets %s are dropped that the tables would accept", step, clusterip.FormatBuckets(more))
	}
	if k.forbidden != nil {
		return k.forbidden(k.State)
	}
	return nil
}

func groupMAC(group netip.Addr) clusterip.MAC {
	if group.Is6() {
		a := group.As16()
		return clusterip.MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
	}
	a := group.As4()
	return clusterip.MAC{0x01, 0x00, 0x5e, 0x7f, a[2], a[3]}
}

func (k *fakeKernel) Advertise(context.Context, clusterip.Layout, clusterip.Advertisements) error {
	k.announced++
	if k.onAnnounce != nil {
		k.onAnnounce()
	}
	return nil
}

func (k *fakeKernel) Conflicts(context.Context, clusterip.Layout) ([]clusterip.Conflict, error) {
	return k.conflicts, nil
}

func (k *fakeKernel) Layouts(context.Context) ([]clusterip.Layout, error) {
	if k.Tables.Installed != nil {
		return append([]clusterip.Layout{*k.Tables.Installed}, k.others...), nil
	}
	return k.others, nil
}

func (k *fakeKernel) Choose(context.Context, clusterip.Layout) (clusterip.Backend, []string, error) {
	return clusterip.NFTables, nil, nil
}

func (k *fakeKernel) Connections(context.Context, clusterip.Layout) (map[clusterip.Bucket]int, error) {
	if k.open == nil {
		return nil, nil
	}
	return k.open(), nil
}

func (k *fakeKernel) KeepEntries(context.Context, clusterip.Layout, map[clusterip.Bucket]time.Duration) error {
	return nil
}

func (k *fakeKernel) EndHandshakes(_ context.Context, _ clusterip.Layout, bucket clusterip.Bucket) error {
	k.handshakes = append(k.handshakes, bucket)
	return nil
}

func (k *fakeKernel) EndConnections(_ context.Context, _ clusterip.Layout, buckets []clusterip.Bucket) error {
	k.ended = append(k.ended, buckets...)
	return nil
}

func (k *fakeKernel) OpenConnections(context.Context, clusterip.Layout) ([]clusterip.Connection, error) {
	return k.openHere, k.cannotList
}

func (k *fakeKernel) Remembered(context.Context, clusterip.Layout) ([]clusterip.Remembered, error) {
	return slices.Clone(k.remembered), nil
}

func (k *fakeKernel) Forget(_ context.Context, _ clusterip.Layout, connections []clusterip.Remembered) error {
	k.remembered = slices.DeleteFunc(k.remembered, func(c clusterip.Remembered) bool { return slices.Contains(connections, c) })
	return nil
}

func (k *fakeKernel) TellClients(
	_ context.Context, _ clusterip.Layout, connections []clusterip.Remembered, again bool, _ int,
) (told int, err error) {
	if again {
		k.toldAgain = append(k.toldAgain, connections...)
	} else {
		k.told = append(k.told, connections...)
	}
	if k.onTell != nil {
		k.onTell()
	}
	return len(connections), nil
}

func (k *fakeKernel) Told(context.Context, clusterip.Layout) (clusterip.Told, error) {
	return k.sum, nil
}

func (k *fakeKernel) AddTold(_ context.Context, _ clusterip.Layout, more clusterip.Told) error {
	more.Connections += k.sum.Connections
	k.sum = more
	return nil
}

type unlockFunc func(last bool) error

func (f unlockFunc) Unlock(last bool) error { return f(last) }

// agentOn is an agent on a fake kernel; lockRemoved reports whether the last action removed the lock's file.
func agentOn(kernel clusterip.Kernel) (agent Agent, lockRemoved *bool) {
	lockRemoved = new(bool)
	return Agent{Kernel: kernel, Log: ocf.NewLogger(io.Discard, false), Lock: func(context.Context, netip.Addr) (Unlocker, error) {
		return unlockFunc(func(last bool) error { *lockRemoved = last; return nil }), nil
	}, StartTeller: func() error { return nil }}, lockRemoved
}

// exitCode returns the exit code of an action. A process that was killed has none.
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
	vip6  = netip.MustParseAddr("2001:db8:10::3")
	vip   = netip.MustParseAddr("192.168.10.3")
	vip24 = netip.MustParsePrefix("192.168.10.3/24")
	vip32 = netip.MustParsePrefix("192.168.10.3/32")
	lan   = clusterip.Route{NICIndex: eth0Index, Prefix: netip.MustParsePrefix("192.168.10.0/24")}
	// wholeAddresses is the default of the hash_prefix parameters.
	wholeAddresses = clusterip.PerFamily[int]{IPv4: 32, IPv6: 128}

	anyMAC = clusterip.MAC{2, 0, 0, 0, 1, 1}
)

// freshNode has two interfaces, of which eth0 is in the address's network, and nothing of the resource.
func freshNode() clusterip.State {
	return clusterip.State{
		NICs: []clusterip.NIC{
			{Index: loIndex, Name: "lo", Up: true, Running: true, Loopback: true},
			{Index: eth0Index, Name: "eth0", MAC: anyMAC, Up: true, Running: true, ARP: true},
			{Index: eth1Index, Name: "eth1", MAC: clusterip.MAC{2, 0, 0, 0, 1, 2}, Up: true, Running: true, ARP: true},
		},
		Connected: []clusterip.Route{lan},
	}
}

// specOf is one of eight buckets.
func specOf(mode clusterip.MACMode, bucket clusterip.Bucket) clusterip.Spec {
	return clusterip.Spec{
		Resource: "web-ip", Bucket: bucket, Buckets: 8, Addresses: []netip.Addr{vip}, HashPrefixes: wholeAddresses,
		Backend: clusterip.Auto, MACMode: mode, MACs: clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.DerivedMAC(mode, vip)},
		HashMode: clusterip.SourceIP, HashCompat: clusterip.XTCluster, Seed: clusterip.DefaultSeed(vip), CheckLink: true,
		EarlyDrop: clusterip.EarlyDropAuto,
	}
}

// runningNode owns the buckets.
func runningNode(t *testing.T, mode clusterip.MACMode, buckets ...clusterip.Bucket) clusterip.State {
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
func dirtyNodes(t *testing.T, mode clusterip.MACMode) map[string]clusterip.State {
	t.Helper()
	nodes := map[string]clusterip.State{}
	dirty := func(name string, spoil func(*clusterip.State)) {
		state := runningNode(t, mode, 2, 5)
		spoil(&state)
		nodes[name] = state
	}
	dirty("nothing wrong", func(*clusterip.State) {})
	dirty("address deleted", func(s *clusterip.State) { s.Addresses = nil })
	dirty("address with another prefix", func(s *clusterip.State) {
		s.Addresses[0] = clusterip.Address{NICIndex: eth0Index, Prefix: netip.MustParsePrefix("192.168.10.3/25")}
	})
	dirty("address twice", func(s *clusterip.State) {
		s.Addresses = append(s.Addresses, clusterip.Address{NICIndex: eth0Index, Prefix: vip24})
	})
	dirty("address with another scope", func(s *clusterip.State) { s.Addresses[0].HostScope = false })
	dirty("address with the network's prefix", func(s *clusterip.State) {
		s.Addresses, s.Routes = []clusterip.Address{{NICIndex: eth0Index, Prefix: vip24}}, nil
	})
	dirty("route deleted", func(s *clusterip.State) { s.Routes = nil })
	dirty("tables deleted", func(s *clusterip.State) { s.Tables = clusterip.Tables{} })
	dirty("rule changed", func(s *clusterip.State) { s.Tables.Faults = []string{"chain ipv4: rule is missing"} })
	dirty("stamp lost", func(s *clusterip.State) { s.Tables.Installed, s.Tables.Faults = nil, []string{"stamp lost"} })
	dirty("all elements removed", func(s *clusterip.State) { s.Tables.Owned = nil })
	dirty("MAC filter or membership lost", func(s *clusterip.State) { s.Filters, s.Groups = nil, nil })
	dirty("BPF program detached", func(s *clusterip.State) { s.EarlyDrop = clusterip.EarlyDropState{} })
	dirty("BPF program without a record", func(s *clusterip.State) {
		s.EarlyDrop = clusterip.EarlyDropState{NICIndex: eth0Index, Attached: clusterip.EarlyDropXDP, Idle: true}
	})
	dirty("BPF program drops an owned bucket", func(s *clusterip.State) { s.EarlyDrop.Passed = []clusterip.Bucket{5} })
	dirty("BPF program passes a foreign bucket", func(s *clusterip.State) { s.EarlyDrop.Passed = []clusterip.Bucket{2, 3, 5} })
	dirty("BPF program's record changed", func(s *clusterip.State) { s.EarlyDrop.Faults = []string{"another seed"} })
	dirty("BPF program and tables lost", func(s *clusterip.State) {
		s.Tables, s.EarlyDrop = clusterip.Tables{}, clusterip.EarlyDropState{}
	})
	dirty("NIC renamed", func(s *clusterip.State) { s.NICs[1].Name = "lan0" })
	dirty("NIC deleted and made again", func(s *clusterip.State) {
		s.NICs[1].Index, s.Connected[0].NICIndex = 7, 7
		s.Addresses, s.Routes, s.Filters, s.Groups = nil, nil, nil, nil
		s.Tables.Faults = []string{"chain ingress is missing"}
	})
	return nodes
}
