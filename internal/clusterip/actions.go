package clusterip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/ocf"
)

// Agent carries out the actions of the resource agent on one node.
type Agent struct {
	Kernel Kernel
	Log    *ocf.Logger
	// Lock keeps other calls for the address away until Unlock. Several instances of one resource are started at once.
	Lock func(ctx context.Context, address netip.Addr) (Unlocker, error)

	// What follows is used only where connections are to survive a move (Spec.Drain).

	Cluster Cluster
	Node    string // this node's name in the cluster; "" if there is none
	// StartSweeper has Sweep run in the background.
	StartSweeper func() error
}

// Unlocker ends a lock. Nothing of the lock itself is left behind when it is the last thing of the resource on the node.
type Unlocker interface {
	Unlock(last bool) error
}

// locked runs an action alone on its address. The action tells whether anything of the resource is left on the node.
func (a Agent) locked(ctx context.Context, address netip.Addr, action func() (left bool, err error)) error {
	lock, err := a.Lock(ctx, address)
	if err != nil {
		return err
	}
	left, err := action()
	// What was done is done; a lock's file that stays behind is no reason to fail.
	if err := lock.Unlock(!left); err != nil {
		a.Log.Warningf("%v", err)
	}
	return err
}

// observe reads all that concerns the spec's resource.
func (a Agent) observe(ctx context.Context, spec Spec) (State, error) {
	seen, err := a.Kernel.Observe(ctx, spec.Addresses, spec.macs())
	if err != nil {
		return seen, err
	}
	if seen = seen.of(spec); !seen.unclaimed() {
		return seen, nil
	}
	others, err := a.others(ctx, spec)
	return seen.without(others), err
}

// others returns the layouts of the other resources on the node.
func (a Agent) others(ctx context.Context, spec Spec) ([]Layout, error) {
	layouts, err := a.Kernel.Layouts(ctx)
	return slices.DeleteFunc(layouts, func(l Layout) bool { return l.Address() == spec.Address() }), err
}

// Start makes the node answer for the spec's bucket, and mends whatever of the shared part is broken, without disturbing
// the buckets that run. It reports success only of what it has read back.
func (a Agent) Start(ctx context.Context, spec Spec) error {
	var layout Layout
	var cameBack []Bucket
	announce := false
	err := a.locked(ctx, spec.Address(), func() (bool, error) {
		seen, err := a.observeTidily(ctx, spec)
		if err != nil {
			return true, err
		}
		layout, err = spec.admit(seen)
		if err != nil {
			return len(Leftovers(seen, spec.NIC)) > 0, err
		}
		a.sayNIC(seen, spec, layout)
		if layout, err = a.choose(ctx, layout); err != nil {
			return len(Leftovers(seen, spec.NIC)) > 0, err
		}
		goal := Goal{Layout: layout, NIC: spec.NIC, Owned: append(slices.Clone(seen.Tables.Owned), spec.Bucket)}
		slices.Sort(goal.Owned)
		goal.Owned = slices.Compact(goal.Owned)
		goal.Moves = seen.movesAfterStart(layout, fromAnybody(spec))
		cameBack = subtract(seen.Tables.Moves.HandedOver, goal.Moves.HandedOver)
		steps := Plan(seen, goal)
		if slices.ContainsFunc(steps, func(s Step) bool { _, lays := s.(LayTables); return lays }) {
			if err := a.apart(ctx, spec, layout); err != nil {
				return len(Leftovers(seen, spec.NIC)) > 0, err
			}
			a.warnOfSurroundings(seen, layout)
		}
		if len(steps) == 0 {
			a.Log.Infof("bucket %d of %s is already running", spec.Bucket, spec.Address())
			return true, nil
		}
		if seen.Tables.Present {
			a.warn(Faults(seen, layout, spec.CheckLink), "start mends: ")
		}
		over := seen.Tables.notServed(goal.Owned, goal.Moves)
		if laid := seen.Tables.Laid; laid != nil && len(laid.Disagreements(layout)) > 0 { // the same numbers have other connections from now on
			a.forget(ctx, seen.Tables, seen.Tables.notServed(nil, Moves{}))
			over = nil
		}
		observed := time.Now()
		if err := a.lay(ctx, spec, seen, goal, steps); err != nil {
			return a.undo(ctx, spec, seen, observed, goal, err), err
		}
		a.forget(ctx, seen.Tables, over)
		announce = slices.ContainsFunc(steps, teachesNeighbours)
		a.Log.Infof("bucket %d of %s runs on %s", spec.Bucket, spec.Address(), layout.NIC)
		return true, nil
	})
	if err != nil {
		return err
	}
	// Outside the lock too: the cluster manager takes its time.
	a.takeBack(ctx, spec.Address(), layout.Identity(), cameBack)
	if !announce {
		return nil
	}
	// Outside the lock: the pauses between announcements must not hold up the other instances.
	if err := a.Kernel.Announce(ctx, layout, spec.Announcements); err != nil {
		a.Log.Warningf("%v; neighbours with an old entry will learn the MAC only when it expires", err)
	}
	return nil
}

// sayNIC says which interface was chosen, where there are others that may have been meant.
func (a Agent) sayNIC(seen State, spec Spec, layout Layout) {
	if others := spec.passedOver(seen, layout); len(others) > 0 {
		a.Log.Infof("nic is %s, whose connected route is the longest that holds %s; passed over: %s", layout.NIC, joined(spec.Addresses), strings.Join(others, ", "))
	}
}

// warnOfSurroundings logs what a bridge or an interface of the node does to packets for the address.
func (a Agent) warnOfSurroundings(seen State, layout Layout) {
	nic, _ := seen.nicAt(layout.NICIndex)
	if layout.MACMode != Unicast {
		if bridge, why := seen.SnoopFault(nic); why != "" {
			a.Log.Warningf("%s; have it take them: ip link set %s type bridge mcast_router 2 (and in the network's configuration)", why, bridge.Name)
		}
	} else if why := seen.GuestFault(nic); why != "" {
		a.Log.Warningf("%s; where they are clients, set mac_mode=multicast", why)
	}
	if _, why := seen.TranslationFault(nic, layout.Has); why != "" {
		a.Log.Warningf("%s; where there are such rules: sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 "+
			"(and in /etc/sysctl.d)", why)
	}
	if why := seen.ARPFilterFault(nic); why != "" {
		a.Log.Warningf("%s", why)
	}
}

// choose settles the backend, if that is the agent's to do.
func (a Agent) choose(ctx context.Context, layout Layout) (Layout, error) {
	if layout.Backend != "" {
		return layout, nil
	}
	chosen, reasons, err := a.Kernel.Choose(ctx, layout)
	if err != nil {
		return layout, err
	}
	layout.Backend = chosen
	a.Log.Infof("backend %s%s", chosen, strings.Join(append([]string{""}, reasons...), "; "))
	return layout.withSchema(), nil
}

// apart says why a layout cannot be laid beside the other resources on the node (ocf.ErrConfigured: so it would be everywhere).
func (a Agent) apart(ctx context.Context, spec Spec, layout Layout) error {
	others, err := a.others(ctx, spec)
	if err != nil {
		return err
	}
	var faults []error
	for _, other := range others {
		faults = append(faults, layout.collision(other)...)
	}
	return errors.Join(faults...)
}

// teachesNeighbours tells whether neighbours may have to learn the address's MAC after a step: it is new on this node, or while
// the tables were broken they heard of another one.
func teachesNeighbours(step Step) bool {
	switch step := step.(type) {
	case LayTables:
		return true
	case AddAddress:
		return !step.Group
	default:
		return false
	}
}

// admit says how the spec is to be laid on the node, or why it must not be.
func (s Spec) admit(seen State) (Layout, error) {
	layout, err := s.Resolve(seen)
	if err != nil {
		return layout, err
	}
	if len(seen.Tables.Foreign) > 0 {
		return layout, ocf.Errorf(ocf.ErrGeneric, "%s has our name but is not ours: look at it (nft list ruleset, iptables-save) and delete it",
			strings.Join(seen.Tables.Foreign, ", "))
	}
	others := subtract(seen.Tables.Owned, []Bucket{s.Bucket})
	if laid := seen.Tables.Laid; laid != nil && len(others) > 0 {
		if differ := laid.Disagreements(layout); len(differ) > 0 {
			return layout, ocf.Errorf(ocf.ErrConfigured,
				"buckets %s of %s run here with other settings (%s); nodes that disagree answer twice or not at all. "+
					"To change them: pcs resource disable %s, change, pcs resource enable %s",
				list(others), s.Address(), strings.Join(differ, "; "), s.name(), s.name())
		}
	}
	if there := seen.Tables.Backend; there != "" && layout.Backend != "" && there != layout.Backend {
		return layout, ocf.Errorf(ocf.ErrGeneric, "%s is laid here with backend=%s, asked is %s: stop it first (pcs resource disable %s)",
			s.Address(), there, layout.Backend, s.name())
	}
	if err := layout.Fits(layout.Backend); err != nil {
		return layout, fmt.Errorf("%w; or stop it first, so that another backend can be chosen (pcs resource disable %s)", err, s.name())
	}
	nic, ok := seen.nicAt(layout.NICIndex)
	if why := seen.UnicastFault(layout); why != "" {
		return layout, ocf.Errorf(ocf.ErrArgs, "%s", why)
	}
	if ok && s.CheckLink {
		if why := seen.LinkFault(nic); why != "" {
			return layout, ocf.Errorf(ocf.ErrGeneric, "%s: clients cannot reach the address through it (check_link=false starts all the same)", why)
		}
	}
	return layout, nil
}

// name is what an admin calls the resource on the command line.
func (s Spec) name() string {
	if s.Resource == "" {
		return "the resource"
	}
	return s.Resource
}

// lay applies the steps and reads back whether the goal is reached.
func (a Agent) lay(ctx context.Context, spec Spec, seen State, goal Goal, steps []Step) error {
	for _, step := range steps {
		a.Log.Debugf("%s", step)
		if err := a.Kernel.Apply(ctx, step); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	seen, err := a.observeAgain(ctx, spec, seen, steps)
	if err != nil {
		return err
	}
	faults := Faults(seen, goal.Layout, spec.CheckLink)
	if laid := seen.Tables.Laid; laid != nil && laid.Drains != goal.Layout.Drains {
		faults = append(faults, "whether connections survive moves is not laid as asked")
	}
	if missing := subtract(goal.Owned, seen.Tables.Owned); len(missing) > 0 {
		faults = append(faults, fmt.Sprintf("buckets %s are not owned", list(missing)))
	}
	if len(faults) > 0 {
		return fmt.Errorf("start of bucket %d of %s did everything, but then: %s", spec.Bucket, spec.Address(), strings.Join(faults, "; "))
	}
	return nil
}

// observeAgain reads what the steps have changed. The links need no second look after a further bucket's only step.
func (a Agent) observeAgain(ctx context.Context, spec Spec, seen State, steps []Step) (State, error) {
	for _, step := range steps {
		switch step.(type) {
		case Own, Disown, Move:
		default:
			return a.observe(ctx, spec)
		}
	}
	var err error
	seen.Tables, err = a.Kernel.ObserveTables(ctx, spec.Address())
	return seen, err
}

// undo takes back a failed start: the bucket, and all the rest when no other bucket ran before. It tells whether anything is left.
func (a Agent) undo(ctx context.Context, spec Spec, before State, observed time.Time, failed Goal, cause error) (left bool) {
	a.Log.Errorf("start failed, undoing it: %v", cause)
	if len(before.Tables.Owned) > 0 || len(before.movesKept(failed.Layout).Draining) > 0 { // those go on
		if !before.owns(spec.Bucket) {
			a.undoOwn(ctx, spec, before.Tables.Moves, observed)
		}
		return true
	}
	seen, err := a.observe(ctx, spec)
	if err != nil {
		a.Log.Errorf("undo the failed start: %v", err)
		return true
	}
	if err := a.remove(ctx, spec.removal(seen)); err != nil {
		a.Log.Errorf("undo the failed start: %v", err)
		return true
	}
	return false
}

// undoOwn gives up the bucket of a failed start, if it got that far. If it was draining when that was observed, it drains again for the rest of its
// time; the times of others are what they are now.
func (a Agent) undoOwn(ctx context.Context, spec Spec, before Moves, observed time.Time) {
	tables, err := a.Kernel.ObserveTables(ctx, spec.Address())
	if err == nil && !slices.Contains(tables.Owned, spec.Bucket) {
		return
	}
	moves := tables.Moves.without(spec.Bucket)
	if drain, drained := before.Drain(spec.Bucket); drained {
		moves = moves.withDrain(spec.Bucket, drain.Left-time.Since(observed))
	}
	step := giveUp(spec, tables, moves)
	if applyErr := a.Kernel.Apply(ctx, step); applyErr != nil {
		a.Log.Errorf("undo the failed start: %v", errors.Join(err, fmt.Errorf("%s: %w", step, applyErr)))
	}
}

// remove applies steps that take something away, and goes on past an error. But where an address stays, all that comes after it
// stays too: the tables keep the node silent, and they and the filter show whose address it is.
func (a Agent) remove(ctx context.Context, steps []Step) error {
	var faults []error
	for _, step := range steps {
		a.Log.Debugf("%s", step)
		if err := a.Kernel.Apply(ctx, step); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", step, err))
			if _, isAddress := step.(RemoveAddress); isAddress {
				break
			}
		}
	}
	return errors.Join(faults...)
}

// Stop makes the node silent for the spec's bucket, and takes everything away with the last one. It needs no more of the
// spec than the address, and succeeds from any state, unless something resists.
//
// Where connections survive, their bucket is given up all the same, but served on to its last connection or the end of the drain; and
// until then all that is shared stays.
func (a Agent) Stop(ctx context.Context, spec Spec) error {
	drain, said := a.handOver(ctx, spec)
	var told []Bucket // that they drain
	var moves Moves
	layout := spec.Layout().Identity()
	var laid *Layout
	err := a.locked(ctx, spec.Address(), func() (bool, error) {
		seen, err := a.observeTidily(ctx, spec)
		if err != nil {
			return true, err
		}
		laid = seen.Tables.Laid
		for _, foreign := range seen.Tables.Foreign {
			a.Log.Warningf("%s has our name but is not ours; left alone", foreign)
		}
		for _, address := range seen.Addresses {
			if !seen.ours(address, spec.NIC) {
				a.Log.Warningf("%s on %s is not ours; left alone", address.Prefix, seen.nicName(address.NICIndex))
			}
		}
		told = slices.Clone(seen.Tables.Moves.HandedOver)
		layout = seen.layoutOr(spec)
		if said {
			told = append(told, spec.Bucket)
		}
		moves = seen.movesAfterStop(spec, drain)
		others := subtract(seen.Tables.Owned, []Bucket{spec.Bucket})
		if len(others)+len(moves.Draining) > 0 {
			if !seen.owns(spec.Bucket) {
				a.Log.Infof("bucket %d of %s does not run here", spec.Bucket, spec.Address())
				return true, nil
			}
			err := a.disown(ctx, spec, seen, moves)
			if err == nil {
				a.forget(ctx, seen.Tables, seen.Tables.notServed(others, moves))
			}
			return true, err
		}
		steps := spec.removal(seen)
		if len(steps) == 0 {
			a.Log.Infof("nothing of %s is here", spec.Address())
			return false, nil
		}
		if !seen.owns(spec.Bucket) {
			a.Log.Warningf("bucket %d of %s does not run here, but this is left: %s; removing it",
				spec.Bucket, spec.Address(), strings.Join(Leftovers(seen, spec.NIC), ", "))
		}
		a.warn(seen.Tables.Damage, "stop found: ")
		removeErr := a.remove(ctx, steps)
		a.forget(ctx, seen.Tables, seen.Tables.notServed(nil, Moves{}))
		seen, err = a.observe(ctx, spec)
		if err != nil {
			return true, errors.Join(removeErr, err)
		}
		left := Leftovers(seen, spec.NIC)
		if len(left) > 0 {
			return true, errors.Join(removeErr, fmt.Errorf("after stop of bucket %d of %s this is still here: %s",
				spec.Bucket, spec.Address(), strings.Join(left, ", ")))
		}
		if removeErr != nil { // what resisted is gone all the same
			a.Log.Warningf("stop: %v", removeErr)
		}
		a.Log.Infof("bucket %d of %s stopped; nothing is left", spec.Bucket, spec.Address())
		return false, nil
	})
	if drain, ok := moves.Drain(spec.Bucket); ok && laid != nil && err == nil {
		a.settle(ctx, *laid, drain)
	}
	a.takeBack(ctx, spec.Address(), layout, subtract(told, moves.HandedOver))
	if len(moves.Draining) > 0 {
		if err := a.StartSweeper(); err != nil {
			a.Log.Warningf("cannot start the sweeper; the next action cleans up after the drain: %v", err)
		}
	}
	return err
}

// disown stops a bucket beside others that go on.
func (a Agent) disown(ctx context.Context, spec Spec, seen State, moves Moves) error {
	step := giveUp(spec, seen.Tables, moves)
	applyErr := a.Kernel.Apply(ctx, step)
	seen, err := a.observeAgain(ctx, spec, seen, []Step{step})
	if err != nil {
		return errors.Join(applyErr, err)
	}
	if seen.owns(spec.Bucket) {
		return errors.Join(applyErr, fmt.Errorf("%s: bucket %d is still owned", step, spec.Bucket))
	}
	served := ""
	if seen.Tables.Moves.drains(spec.Bucket) {
		served = fmt.Sprintf("; its connections are served for %s at most", spec.Drain)
	}
	a.Log.Infof("bucket %d of %s stopped%s; buckets %s run on", spec.Bucket, spec.Address(), served, list(seen.Tables.Owned))
	return nil
}

// giveUp is the step that ends a bucket beside others.
func giveUp(spec Spec, tables Tables, moves Moves) Step {
	buckets := []Bucket{spec.Bucket}
	if tables.Laid != nil && tables.Laid.Drains {
		return Move{Address: spec.Address(), Resource: spec.Resource, Disown: buckets, Moves: moves}
	}
	return Disown{Address: spec.Address(), Buckets: buckets}
}

// StopResource stops by the resource's name alone, for when the address is not known any more.
func (a Agent) StopResource(ctx context.Context, spec Spec) error {
	if spec.Resource == "" {
		a.Log.Warningf("neither an address nor a resource's name is known, so nothing can be found to stop")
		return nil
	}
	layouts, err := a.Kernel.Layouts(ctx)
	if err != nil {
		return err
	}
	layouts = slices.DeleteFunc(layouts, func(l Layout) bool { return l.Resource != spec.Resource })
	a.Log.Warningf("no address is known; %d were laid for %s", len(layouts), spec.Resource)
	var faults []error
	for _, layout := range layouts {
		spec.Addresses = layout.Addresses()
		faults = append(faults, a.Stop(ctx, spec))
	}
	return errors.Join(faults...)
}

// CheckLevel is the thoroughness of monitor and validate-all (OCF RA API 1.1, section "Check Levels").
type CheckLevel int

// NetworkLevel is the level from which monitor also asks the network, and validate-all also looks at the node.
const NetworkLevel CheckLevel = 10

// Monitor says nil when the bucket runs and the shared part is exactly as laid; ocf.NotRunning when the bucket does not run
// and, unless others do, nothing is left on the node; and what is wrong otherwise.
func (a Agent) Monitor(ctx context.Context, spec Spec, level CheckLevel) error {
	var layout Layout
	var tables Tables
	var first, looked bool
	err := a.locked(ctx, spec.Address(), func() (bool, error) {
		seen, err := a.observeTidily(ctx, spec)
		if err != nil {
			return true, err
		}
		looked, tables = true, seen.Tables
		layout, err = a.judge(seen, spec)
		first = err == nil && spec.Bucket == slices.Min(seen.Tables.Owned)
		return len(Leftovers(seen, spec.NIC)) > 0, err
	})
	if spec.Probe && looked {
		a.introduce(ctx, spec, tables)
	}
	if err != nil {
		return err
	}
	if err := a.follow(ctx, spec, tables); err != nil {
		return err
	}
	if !first {
		return nil // what follows is the same for all buckets of a node
	}
	if laid := tables.Laid; laid != nil && laid.Drains && spec.Drain == 0 {
		if err := a.Reload(ctx, spec); err != nil {
			return err
		}
	}
	// The question takes a while, and Pacemaker runs few actions at once: after a failure they would hold up the starts of further buckets.
	if level < NetworkLevel {
		return nil
	}
	// Outside the lock, which the other instances need.
	strangers, err := a.Kernel.Strangers(ctx, layout)
	if err != nil {
		return err
	}
	if len(strangers) > 0 {
		var who []string
		for _, s := range strangers {
			who = append(who, fmt.Sprintf("MAC %s for %s (ours is %s)", s.MAC, s.Address, layout.MACs.Of(s.Address)))
		}
		return fmt.Errorf("somebody else answers too, with %s; find and remove that host's address", strings.Join(who, ", "))
	}
	return nil
}

func (a Agent) judge(seen State, spec Spec) (Layout, error) {
	layout, resolveErr := spec.Resolve(seen)
	var faults []string
	if resolveErr != nil {
		faults = append(seen.Tables.Damage, ocf.OneLine(resolveErr.Error()))
	} else {
		faults = Faults(seen, layout, spec.CheckLink)
	}
	left := Leftovers(seen, spec.NIC)
	switch {
	case seen.owns(spec.Bucket) && len(faults) == 0:
		return layout, nil
	case seen.owns(spec.Bucket):
		return layout, fmt.Errorf("bucket %d of %s runs, but: %s", spec.Bucket, spec.Address(), strings.Join(faults, "; "))
	case len(seen.Tables.Owned) == 0 && seen.serves() && len(seen.Tables.Damage) == 0:
		return layout, ocf.Errorf(ocf.NotRunning, "bucket %d of %s does not run here; connections of buckets %s are served until they end",
			spec.Bucket, spec.Address(), list(seen.Tables.Moves.drained()))
	case len(seen.Tables.Owned) > 0:
		return layout, ocf.Errorf(ocf.NotRunning, "bucket %d of %s does not run here; buckets %s do",
			spec.Bucket, spec.Address(), list(seen.Tables.Owned))
	case len(left) > 0:
		return layout, fmt.Errorf("bucket %d of %s does not run, but this is left on the node: %s",
			spec.Bucket, spec.Address(), strings.Join(append(left, seen.Tables.Damage...), ", "))
	default:
		return layout, ocf.Errorf(ocf.NotRunning, "nothing of %s is here", spec.Address())
	}
}

// Validate looks whether the spec could be started on this node. It changes nothing.
func (a Agent) Validate(ctx context.Context, spec Spec) error {
	return a.locked(ctx, spec.Address(), func() (bool, error) {
		seen, err := a.observe(ctx, spec)
		if err != nil {
			return true, err
		}
		layout, err := spec.admit(seen)
		if err == nil {
			a.sayNIC(seen, spec, layout)
			layout, err = a.choose(ctx, layout)
		}
		if err == nil {
			err = a.apart(ctx, spec, layout)
		}
		return len(Leftovers(seen, spec.NIC)) > 0, err
	})
}

func (a Agent) warn(faults []string, prefix string) {
	for _, fault := range faults {
		a.Log.Warningf("%s%s", prefix, fault)
	}
}
