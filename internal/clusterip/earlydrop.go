package clusterip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// EarlyDrop is where a BPF program drops packets that are surely foreign, before nftables sees them. The tables decide about everything
// that it passes, so without it only speed is lost.
type EarlyDrop string

// Where the program is attached.
const (
	EarlyDropAuto EarlyDrop = "auto" // requested: as XDP if the driver keeps its link meanwhile, else at tc, else not at all
	EarlyDropOff  EarlyDrop = "off"
	EarlyDropXDP  EarlyDrop = "xdp" // native XDP: in the driver
	EarlyDropTC   EarlyDrop = "tc"  // the ingress hook of traffic control
)

// EarlyDropState is what was observed of the program on the resource's interface.
type EarlyDropState struct {
	NICIndex int
	Attached EarlyDrop // EarlyDropXDP or EarlyDropTC; "": our program is not there
	// Addresses are those of the resource of which it has a record: it judges the packets to them.
	Addresses []netip.Addr
	Idle      bool     // it has no record of any address; or it is of another version, and was attached for the resource
	Remembers int      // how many connections to all addresses of the interface it remembers at most
	Passed    []Bucket // in order: the buckets that it passes to the tables, for each of the addresses
	Dropped   Count    // what it dropped of the packets to the addresses
	Faults    []string // what differs from what a layout needs, apart from Passed, in words
}

// Judges reports whether the program judges packets to an address of the resource.
func (e EarlyDropState) Judges() bool { return len(e.Addresses) > 0 }

// The steps.
type (
	// SetEarlyDrop attaches the program, unless it is attached, and has it pass exactly these buckets of the layout's addresses.
	SetEarlyDrop struct {
		Layout Layout
		Pass   []Bucket
	}
	// RemoveEarlyDrop has the program pass everything to the addresses, and detaches it if it judges no other.
	RemoveEarlyDrop struct {
		NICIndex  int
		Addresses []netip.Addr
	}
)

func (s SetEarlyDrop) String() string {
	return fmt.Sprintf("early drop on %s: pass only buckets %s of %s", s.Layout.NIC, FormatBuckets(s.Pass), Joined(s.Layout.Addresses()))
}

func (s RemoveEarlyDrop) String() string {
	return fmt.Sprintf("end the early drop of packets to %s", Joined(s.Addresses))
}

// EarlyDropKernel is the part of a Kernel that drops foreign packets early.
type EarlyDropKernel interface {
	// ObserveEarlyDrop looks for our program on the interfaces, and returns the first on which it judges packets to one of the addresses, or
	// else the first on which it is. Without a layout there are no faults.
	ObserveEarlyDrop(ctx context.Context, addresses []netip.Addr, layout *Layout, nics []NIC) (EarlyDropState, error)
	// AttachEarlyDrop attaches the program to the layout's interface as requested, unless it is attached so. It passes all packets to the
	// layout's addresses for now. For EarlyDropAuto it returns how it is attached (EarlyDropOff: it cannot be), and why not better.
	// Otherwise it is an error if it cannot be attached as requested (ocf.ErrInstalled).
	AttachEarlyDrop(ctx context.Context, state State, layout Layout) (attached EarlyDrop, reasons []string, err error)
	// WhyNoXDP returns why EarlyDropAuto does not attach the program as XDP to an interface, as far as that is known without an attempt;
	// empty if nothing speaks against it.
	WhyNoXDP(ctx context.Context, nic NIC) (string, error)
	// ApplyEarlyDrop carries out SetEarlyDrop or RemoveEarlyDrop.
	ApplyEarlyDrop(ctx context.Context, step Step) error
	MemoryKernel
}

// DropsEarly reports whether the program is requested, or installed.
func (l Layout) DropsEarly() bool { return l.EarlyDrop != EarlyDropOff && l.EarlyDrop != "" }

// earlyDropNICs returns the interfaces on which the program can judge packets to the resource's addresses: all, if the tables do not tell.
func (s State) earlyDropNICs() []NIC {
	if s.Tables.Installed != nil {
		if nic, ok := s.NICAt(s.Tables.Installed.NICIndex); ok {
			return []NIC{nic}
		}
	}
	return s.NICs
}

// served returns the buckets whose packets the tables accept, hand to conntrack, or remember: those that the node owns, drains or expects
// to take over, in order.
func (t Tables) served() []Bucket {
	return union(union(t.Owned, t.Moves.DrainingBuckets()), t.Expecting)
}

func union(a, b []Bucket) []Bucket {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// PlanEarlyDrop returns the step that has the program pass exactly what the node serves, if it does not. It comes after a change of the
// buckets.
func PlanEarlyDrop(seen State) []Step {
	installed := seen.Tables.Installed
	if installed == nil || !installed.DropsEarly() || !seen.EarlyDrop.Judges() {
		return nil
	}
	return planEarlyDrop(seen, *installed, seen.Tables.served())
}

// planEarlyDrop returns the step that has the program pass exactly these buckets, unless it does. What it has recorded is compared with the
// installed layout, so another layout always needs the step.
func planEarlyDrop(seen State, layout Layout, pass []Bucket) []Step {
	early := seen.EarlyDrop
	if early.Judges() && !seen.recordedOtherwise(layout) && len(early.Faults) == 0 && slices.Equal(early.Passed, pass) &&
		(layout.EarlyDrop == EarlyDropAuto || layout.EarlyDrop == early.Attached) {
		return nil
	}
	return []Step{SetEarlyDrop{Layout: layout, Pass: pass}}
}

// recordedOtherwise reports whether what the program has recorded may be for another layout.
func (s State) recordedOtherwise(layout Layout) bool {
	installed := s.Tables.Installed
	return s.EarlyDrop.NICIndex != layout.NICIndex || installed == nil || len(installed.Disagreements(layout)) > 0
}

// removeEarlyDrop returns the step that ends the early drop for the resource.
func (s State) removeEarlyDrop() RemoveEarlyDrop {
	return RemoveEarlyDrop{NICIndex: s.EarlyDrop.NICIndex, Addresses: s.EarlyDrop.Addresses}
}

// earlyDropFaults returns what is wrong with the program. The parameter may have changed since it was attached, and Pacemaker reloads one
// instance after the other. So where the tables were installed without it, or it is attached otherwise than requested, nothing is wrong,
// unless it drops what the node serves: an older agent, which does not know it, has changed the buckets.
func earlyDropFaults(seen State) []string {
	installed, early := seen.Tables.Installed, seen.EarlyDrop
	if installed == nil {
		return nil
	}
	nic := seen.NICName(installed.NICIndex)
	served := seen.Tables.served()
	var dropped []string
	if missing := Subtract(served, early.Passed); early.Judges() && len(missing) > 0 {
		dropped = []string{
			fmt.Sprintf("the BPF program of early_drop on %s drops packets of buckets %s, which the node serves", nic, FormatBuckets(missing)),
		}
	}
	switch {
	case !installed.DropsEarly():
		return dropped
	case early.Attached == "":
		return []string{fmt.Sprintf("the BPF program of early_drop is no longer attached to %s", nic)}
	case !early.Judges():
		return append([]string{fmt.Sprintf("the BPF program of early_drop on %s drops nothing for this resource", nic)}, early.Faults...)
	}
	faults := slices.Concat(early.Faults, dropped)
	// A drain that the kernel has ended is known by its announcement, until an action cleans up.
	if surplus := Subtract(Subtract(early.Passed, served), seen.Tables.Moves.Announced); len(surplus) > 0 {
		faults = append(faults, fmt.Sprintf("the BPF program of early_drop on %s passes packets of buckets %s, which the node does not serve",
			nic, FormatBuckets(surplus)))
	}
	return faults
}
