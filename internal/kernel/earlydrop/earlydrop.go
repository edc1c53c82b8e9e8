// Package earlydrop attaches a BPF program that drops foreign packets before nf_tables sees them, as XDP or at tc's ingress, and sets
// which buckets it passes. The program stays when the process ends. Nothing is pinned to a file: the program is found by the interface, and
// its maps by the program.
package earlydrop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Conn is a connection to the interfaces of one network namespace. It may only be used on a thread in this namespace.
type Conn struct {
	netlink   *netlink.Handle
	namespace namespace
	isBlocked bool // somebody has held the lock for too long
	// For tests: as before Linux 6.6, without tcx; as before Linux 6.8, which shows no VLAN tags; as if the tags stayed in the frames.
	oldTC, asBefore68, tagsStay bool
}

var _ clusterip.EarlyDropKernel = (*Conn)(nil)

// Open connects to the network namespace of the calling thread.
func Open() (*Conn, error) {
	current, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("connect to rtnetlink: %w", err)
	}
	return &Conn{netlink: handle, namespace: current}, nil
}

// Close ends the connection.
func (c *Conn) Close() { c.netlink.Close() }

// ObserveEarlyDrop implements clusterip.EarlyDropKernel. With a layout it looks on the layout's interface first.
func (c *Conn) ObserveEarlyDrop(
	ctx context.Context, addresses []netip.Addr, layout *clusterip.Layout, nics []clusterip.NIC,
) (clusterip.EarlyDropState, error) {
	if err := c.checkNamespace(); err != nil {
		return clusterip.EarlyDropState{}, err
	}
	indexes := make([]int, 0, len(nics)+1)
	if layout != nil {
		addresses = layout.Addresses()
		indexes = append(indexes, layout.NICIndex)
	}
	for _, nic := range nics {
		if nic.ARP && !nic.Loopback && !slices.Contains(indexes, nic.Index) && c.mayHave(nic) {
			indexes = append(indexes, nic.Index)
		}
	}
	var first clusterip.EarlyDropState
	for _, index := range indexes {
		state, err := c.observe(ctx, index, addresses, layout)
		if err != nil {
			return first, err
		}
		if state.Judges() {
			return state, nil
		}
		if first.Attached == "" {
			first = state
		}
	}
	return first, nil
}

// mayHave reports whether a program may be attached to an interface. A node may have hundreds.
func (c *Conn) mayHave(nic clusterip.NIC) bool {
	if nic.XDP {
		return true
	}
	listed, err := c.listTCX(nic.Index)
	return err != nil || len(listed) > 0
}

// observe describes the program of one interface. What seems wrong with it may be a change by another resource that is half done, so then
// it looks again while nobody changes anything.
func (c *Conn) observe(
	ctx context.Context, nic int, addresses []netip.Addr, layout *clusterip.Layout,
) (state clusterip.EarlyDropState, err error) {
	state, err = c.observeOnce(nic, addresses, layout)
	if layout == nil || !layout.DropsEarly() || err == nil && state.Attached != "" && len(state.Faults) == 0 {
		return state, err
	}
	_ = c.locked(ctx, func() error { // without the lock, the first look counts
		state, err = c.observeOnce(nic, addresses, layout)
		return nil
	})
	return state, err
}

func (c *Conn) observeOnce(nic int, addresses []netip.Addr, layout *clusterip.Layout) (clusterip.EarlyDropState, error) {
	found, err := c.find(nic)
	if err != nil || len(found.ours) == 0 {
		return clusterip.EarlyDropState{}, err
	}
	defer found.close()
	state := clusterip.EarlyDropState{NICIndex: nic, Attached: found.ours[0].place.earlyDrop()}
	fault := func(format string, values ...any) {
		if layout != nil {
			state.Faults = append(state.Faults, fmt.Sprintf(format, values...))
		}
	}
	p, known := found.current()
	if !known {
		fault("the BPF program is of another version of this agent")
		state.Idle = layout != nil && layout.DropsEarly()
		return state, nil
	}
	state.Attached = p.place.earlyDrop()
	if len(found.ours) > 1 {
		fault("the BPF program is attached %d times", len(found.ours))
	}
	if p.place == atXDP && !p.asksForTags {
		how, why, err := c.taggingOf(nic)
		if err != nil {
			return state, err
		}
		if how == tagsLost {
			fault("the BPF program is attached as XDP, but %s", why)
		}
	}
	state.Idle, state.Remembers = p.maps.isIdle(), p.maps.remembered()
	return state, p.maps.describe(&state, addresses, layout, fault)
}

// describe adds what the maps have of the addresses.
func (m *maps) describe(
	state *clusterip.EarlyDropState, addresses []netip.Addr, layout *clusterip.Layout, fault func(format string, values ...any),
) error {
	var firstAddress netip.Addr
	for _, address := range addresses {
		have, number, has := m.recordOf(address)
		if !has {
			fault("the BPF program has no record of %s", address)
			continue
		}
		dropped, err := m.droppedBy(number)
		if err != nil {
			return err
		}
		state.Dropped = state.Dropped.Plus(dropped)
		passed := have.passed()
		switch {
		case !state.Judges():
			state.Passed, firstAddress = passed, address
		case !slices.Equal(state.Passed, passed):
			fault("the BPF program passes other buckets for %s than for %s", address, firstAddress)
			state.Passed = slices.DeleteFunc(state.Passed, func(b clusterip.Bucket) bool { return !slices.Contains(passed, b) })
		}
		state.Addresses = append(state.Addresses, address)
		if layout != nil {
			for _, difference := range have.differences(recordOf(*layout, address, nil)) {
				fault("in the BPF program's record of %s, %s", address, difference)
			}
		}
	}
	return nil
}

// AttachEarlyDrop implements clusterip.EarlyDropKernel. A program that is attached elsewhere follows, with its records and counters.
func (c *Conn) AttachEarlyDrop(
	ctx context.Context, state clusterip.State, layout clusterip.Layout,
) (attached clusterip.EarlyDrop, reasons []string, err error) {
	attached = clusterip.EarlyDropOff
	nic, _ := state.NICAt(layout.NICIndex)
	err = c.locked(ctx, func() error {
		var added []netip.Addr
		attached, reasons, err = c.attachAs(nic, layout, false, func(m *maps) (err error) {
			added, err = m.passAll(layout)
			return err
		})
		if attached == clusterip.EarlyDropOff && len(added) > 0 { // into the program of other resources
			err = errors.Join(err, c.remove(clusterip.RemoveEarlyDrop{NICIndex: nic.Index, Addresses: added}))
		}
		return err
	})
	return attached, reasons, err
}

// attachAs attaches the program as a layout requests it, with records, unless it is. With atLeast it may remember more than requested.
func (c *Conn) attachAs(
	nic clusterip.NIC, layout clusterip.Layout, atLeast bool, fill func(*maps) error,
) (attached clusterip.EarlyDrop, reasons []string, err error) {
	requested := layout.EarlyDrop
	found, err := c.find(nic.Index)
	if err != nil {
		return clusterip.EarlyDropOff, nil, err
	}
	defer found.close()
	current, has := found.current()
	if has {
		if err := fill(current.maps); err != nil {
			return cannot(nic, requested, []string{inWords(err)})
		}
	}
	whyNoXDP := sync.OnceValue(func() string { return c.whyNoXDP(nic, found, requested) }) // asks much; at tc nothing depends on it
	isFit := func(as clusterip.EarlyDrop) bool {
		return (requested == as || requested == clusterip.EarlyDropAuto) && (as != clusterip.EarlyDropXDP || whyNoXDP() == "")
	}
	remembers := layout.Remember
	if has && (atLeast || current.maps.isShared(layout.Addresses())) {
		remembers = max(remembers, current.maps.size())
	}
	places := []clusterip.EarlyDrop{clusterip.EarlyDropXDP, clusterip.EarlyDropTC}
	onto := current.maps
	switch {
	case !has:
		if onto, err = makeMaps(remembers); err != nil && remembers > 0 {
			reasons = append(reasons, inWords(err))
			onto, err = makeMaps(0)
		}
		if err != nil {
			return cannot(nic, requested, []string{inWords(err)})
		}
		defer onto.close()
		if err := fill(onto); err != nil {
			return cannot(nic, requested, []string{inWords(err)})
		}
	case onto.remembered() != remembers, onto.memory == nil && !isFit(current.place.earlyDrop()):
		larger, err := onto.withPlaceFor(remembers)
		defer larger.closeBut(current.maps)
		if err != nil && isFit(current.place.earlyDrop()) {
			return current.place.earlyDrop(), []string{inWords(err)}, c.detachAllBut(nic.Index, found, current.Program)
		}
		if err != nil && onto.memory == nil {
			return cannot(nic, requested, []string{inWords(err)})
		}
		if err == nil {
			onto = larger
		}
		if isFit(current.place.earlyDrop()) {
			places = []clusterip.EarlyDrop{current.place.earlyDrop()}
		}
	case isFit(current.place.earlyDrop()):
		return current.place.earlyDrop(), nil, c.detachAllBut(nic.Index, found, current.Program)
	}
	for _, as := range places {
		if requested != as && requested != clusterip.EarlyDropAuto {
			continue
		}
		if !isFit(as) {
			reasons = append(reasons, fmt.Sprintf("%s: %s", as, whyNoXDP()))
			continue
		}
		replaced, err := c.attachNew(nic.Index, as, onto, found)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %s", as, inWords(err)))
			continue
		}
		if has {
			if err := onto.takeConnections(current.maps, remembers); err != nil {
				reasons = append(reasons, inWords(err))
			}
		}
		return as, reasons, c.detachAllBut(nic.Index, found, replaced)
	}
	if has && isFit(current.place.earlyDrop()) { // with the memory that it has
		return current.place.earlyDrop(), reasons, c.detachAllBut(nic.Index, found, current.Program)
	}
	return cannot(nic, requested, reasons)
}

// WhyNoXDP implements clusterip.EarlyDropKernel.
func (c *Conn) WhyNoXDP(_ context.Context, nic clusterip.NIC) (string, error) {
	found, err := c.find(nic.Index)
	if err != nil {
		return "", err
	}
	defer found.close()
	return c.whyNoXDP(nic, found, clusterip.EarlyDropAuto), nil
}

// whyNoXDP returns why an XDP program cannot be attached, would not see the packets as the tables do, or is not attached unless it is
// requested; empty if nothing is known.
func (c *Conn) whyNoXDP(nic clusterip.NIC, found attachment, requested clusterip.EarlyDrop) string {
	if found.other != 0 {
		return fmt.Sprintf("another XDP program (%s) is attached to %s, and there can be only one", describeProgram(found.other), nic.Name)
	}
	if _, err := c.xdpVariants(nic.Index); err != nil {
		return inWords(err)
	}
	if requested != clusterip.EarlyDropAuto || slices.ContainsFunc(found.ours, func(p program) bool { return p.place == atXDP }) {
		return ""
	}
	device, err := c.xdpDevice(nic.Index)
	switch {
	case err != nil:
		return inWords(err)
	case !device.staysUp():
		return fmt.Sprintf("the driver of %s (%s) may take the link down for seconds to attach an XDP program, and the cluster may need it; "+
			"early_drop=xdp attaches it nevertheless", nic.Name, device.driverName)
	default:
		return ""
	}
}

// cannot is the answer when the program cannot be attached.
func cannot(nic clusterip.NIC, requested clusterip.EarlyDrop, reasons []string) (clusterip.EarlyDrop, []string, error) {
	if requested == clusterip.EarlyDropAuto {
		return clusterip.EarlyDropOff, reasons, nil
	}
	return clusterip.EarlyDropOff, reasons, ocf.Errorf(ocf.ErrInstalled,
		"parameter early_drop=%s: the BPF program cannot be attached to %s: %s; remove what prevents that, or set early_drop=auto or off",
		requested, nic.Name, strings.Join(reasons, "; "))
}

// attachNew attaches a new program, in place of an old one of ours, which it returns.
func (c *Conn) attachNew(nic int, as clusterip.EarlyDrop, onto *maps, found attachment) (replaced *ebpf.Program, err error) {
	at := atXDP
	if as == clusterip.EarlyDropTC {
		at = atTCX
		if _, err := c.listTCX(nic); errors.Is(err, errNoTCX) {
			at = atFilter
		}
	}
	var old *program
	if i := slices.IndexFunc(found.ours, func(p program) bool { return p.isReplacedAt(at) }); i >= 0 {
		old = &found.ours[i]
		replaced = old.Program
	}
	return replaced, c.attach(nic, at, onto, old)
}

// detachAllBut detaches our programs but one, or all.
func (c *Conn) detachAllBut(nic int, found attachment, kept *ebpf.Program) error {
	var errs []error
	for _, p := range found.ours {
		if p.Program != kept {
			errs = append(errs, c.detach(nic, p))
		}
	}
	return errors.Join(errs...)
}

// ApplyEarlyDrop implements clusterip.EarlyDropKernel.
func (c *Conn) ApplyEarlyDrop(ctx context.Context, step clusterip.Step) error {
	var do func() error
	switch step := step.(type) {
	case clusterip.SetEarlyDrop:
		do = func() error { return c.set(step) }
	case clusterip.RemoveEarlyDrop:
		do = func() error { return c.remove(step) }
	default:
		return fmt.Errorf("%s: not a step for the early drop", step)
	}
	return c.locked(ctx, do)
}

// set gives the addresses of a layout their records. If no program of this version is attached as the layout requests it, it attaches one
// with them.
func (c *Conn) set(step clusterip.SetEarlyDrop) error {
	wanted := map[netip.Addr]record{}
	for _, address := range step.Layout.Addresses() {
		wanted[address] = recordOf(step.Layout, address, step.Pass)
	}
	nic := clusterip.NIC{Index: step.Layout.NICIndex, Name: step.Layout.NIC}
	attached, reasons, err := c.attachAs(nic, step.Layout, true, func(m *maps) error { return m.set(wanted) })
	if err == nil && attached == clusterip.EarlyDropOff {
		err = fmt.Errorf("the BPF program cannot be attached: %s", strings.Join(reasons, "; "))
	}
	return err
}

// remove takes the addresses out of the records, and detaches programs without any, and those of another version.
func (c *Conn) remove(step clusterip.RemoveEarlyDrop) error {
	found, err := c.find(step.NICIndex)
	if err != nil {
		return err
	}
	defer found.close()
	var errs []error
	for _, p := range found.ours {
		idle := true
		if p.maps != nil {
			p.maps.remove(step.Addresses)
			idle = p.maps.isIdle()
		}
		if idle {
			errs = append(errs, c.detach(step.NICIndex, p))
		}
	}
	return errors.Join(errs...)
}
