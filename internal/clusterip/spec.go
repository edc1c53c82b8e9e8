package clusterip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/ocf"
)

// Spec is what the resource manager asks for: one bucket of one address. What it leaves open follows from the node.
type Spec struct {
	Resource string // without the instance number
	Bucket   Bucket
	Buckets  uint32 // N

	Address      netip.Addr
	PrefixLength int    // 0: that of the connected route
	NIC          string // "": the one whose connected route holds the address

	MACMode  MACMode
	MAC      MAC
	HashMode HashMode
	Seed     Seed

	CheckLink     bool
	Announcements Announcements
}

// Announcements says how often a node tells its neighbours the address's MAC when it first has the address.
type Announcements struct {
	Count    uint32
	Interval time.Duration
}

// NewSpec reads a spec from parameters that are right each by itself, and says which do not go together
// (ocf.ErrConfigured). What it returns with an error is good enough to stop by.
func NewSpec(values ocf.Values, resource string, clone ocf.Clone) (Spec, error) {
	prefixLength, _ := values.Uint32("cidr_netmask")
	seed, _ := values.Uint32("hash_seed")
	count, _ := values.Uint32("arp_count")

	spec := Spec{
		Resource: resource, Bucket: Bucket(clone.Bucket), Buckets: clone.Buckets,
		Address: values.Addr("ip"), PrefixLength: int(prefixLength), NIC: values.String("nic"),
		MACMode: MACMode(values.String("mac_mode")), MAC: MACOf(values.HardwareAddr("mac")),
		HashMode: HashMode(values.String("hashmode")), Seed: Seed(seed),
		CheckLink:     values.Bool("check_link"),
		Announcements: Announcements{Count: count, Interval: values.Duration("arp_interval")},
	}
	if !spec.Address.IsValid() {
		return spec, nil // the parser has said so
	}
	if spec.MAC.IsZero() {
		spec.MAC = DerivedMAC(spec.MACMode, spec.Address)
	}
	if spec.Seed == 0 {
		spec.Seed = DefaultSeed(spec.Address)
	}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, ocf.Errorf(ocf.ErrConfigured, format, args...))
	}
	if err := spec.MACMode.Check(spec.MAC); err != nil {
		fault("parameter mac: %w", err)
	}
	if PortlessSeed(spec.HashMode, spec.Seed) == 0 {
		fault("parameter hash_seed=%s cannot be used with hashmode=%s: packets without ports would need seed 0, which nf_tables cannot be told; choose another", spec.Seed, spec.HashMode)
	}
	if why := spec.unfit(spec.PrefixLength); spec.PrefixLength > 0 && why != "" {
		fault("parameters ip and cidr_netmask: %s", why)
	}
	return spec, errors.Join(faults...)
}

// unfit says why the address cannot be a host's in a network of that prefix length; empty if it can.
func (s Spec) unfit(prefixLength int) string {
	const pointToPoint = 31 // RFC 3021: no network and no broadcast address
	network := netip.PrefixFrom(s.Address, prefixLength).Masked()
	switch {
	case prefixLength >= pointToPoint:
		return ""
	case network.Addr() == s.Address:
		return fmt.Sprintf("%s is the address of the network %s itself", s.Address, network)
	case broadcast(network) == s.Address:
		return fmt.Sprintf("%s is the broadcast address of %s", s.Address, network)
	}
	return ""
}

func broadcast(network netip.Prefix) netip.Addr {
	bytes := network.Addr().As4()
	for bit := network.Bits(); bit < 32; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(bytes)
}

// macs are those that may stand for the address on this node, whatever mode it was laid in.
func (s Spec) macs() []MAC {
	macs := []MAC{s.MAC}
	for _, mode := range MACModes() {
		macs = append(macs, DerivedMAC(mode, s.Address))
	}
	return slices.DeleteFunc(macs, MAC.IsZero)
}

// Resolve settles on this node what the spec leaves open: the NIC and the prefix length. What was laid by default stays
// so while it fits, however routes have changed since. Its errors are ocf.ErrArgs: another node may do better.
func (s Spec) Resolve(seen State) (Layout, error) {
	layout := Layout{
		Schema: Schema, Resource: s.Resource, Address: s.Address, PrefixLength: s.PrefixLength,
		MACMode: s.MACMode, MAC: s.MAC, HashMode: s.HashMode, Seed: s.Seed, Buckets: s.Buckets,
	}
	nic, err := s.nic(seen)
	if err != nil {
		return layout, err
	}
	layout.NIC, layout.NICIndex = nic.Name, nic.Index
	if laid := seen.Tables.Laid; layout.PrefixLength == 0 && laid != nil && laid.NICIndex == nic.Index {
		layout.PrefixLength = laid.PrefixLength
	}
	if layout.PrefixLength == 0 {
		layout.PrefixLength = s.Address.BitLen()
		longest := 0
		for _, route := range seen.Connected {
			if route.NICIndex == nic.Index && route.Prefix.Bits() > longest {
				longest = route.Prefix.Bits()
				layout.PrefixLength = longest
			}
		}
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }
	if nic.Loopback {
		fault("parameter nic=%s is the loopback interface, which no client reaches", nic.Name)
	} else if !nic.ARP {
		fault("parameter nic=%s is no Ethernet that does ARP", nic.Name)
	}
	if why := s.unfit(layout.PrefixLength); why != "" {
		fault("ip=%s does not fit %s: %s", s.Address, nic.Name, why)
	}
	for _, address := range seen.Addresses {
		if !seen.ours(address, s.NIC) {
			name := seen.nicName(address.NICIndex)
			fault("%s is already on %s, where this resource did not put it; remove it there (ip address delete %s dev %s)",
				address.Prefix, name, address.Prefix, name)
		}
	}
	return layout, errors.Join(faults...)
}

func (s Spec) nic(seen State) (NIC, error) {
	if s.NIC != "" {
		nic, ok := seen.NICNamed(s.NIC)
		if !ok {
			return nic, ocf.Errorf(ocf.ErrArgs, "parameter nic=%s: there is no such network interface on this node (there are %s)", s.NIC, names(seen.NICs))
		}
		return nic, nil
	}
	if laid := seen.Tables.Laid; laid != nil {
		if nic, ok := seen.nicAt(laid.NICIndex); ok && nic.Name == laid.NIC {
			return nic, nil
		}
	}
	var candidates []NIC
	for _, nic := range seen.NICs {
		if slices.ContainsFunc(seen.Connected, func(r Route) bool { return r.NICIndex == nic.Index }) {
			candidates = append(candidates, nic)
		}
	}
	switch len(candidates) {
	case 1:
		return candidates[0], nil
	case 0:
		return NIC{}, ocf.Errorf(ocf.ErrArgs, "no network interface has a connected route that holds %s; give one its own address in that network, or say which with parameter nic (there are %s)", s.Address, names(seen.NICs))
	default:
		return NIC{}, ocf.Errorf(ocf.ErrArgs, "the connected routes of %s all hold %s; say which with parameter nic", names(candidates), s.Address)
	}
}

func names(nics []NIC) string {
	all := make([]string, len(nics))
	for i, nic := range nics {
		all[i] = nic.Name
	}
	return strings.Join(all, ", ")
}

// ours tells whether the address on that NIC is this resource's: it is on the NIC asked for or on the one it was laid on;
// or the NIC asked for is none, or is gone, and so says nothing. On a loopback interface it is somebody else's, and where there is
// nothing else of ours.
func (s State) ours(address Address, asked string) bool {
	nic, ok := s.nicAt(address.NICIndex)
	if !ok || nic.Loopback || !s.traced() {
		return false
	}
	if laid := s.Tables.Laid; laid != nil && laid.NICIndex == nic.Index {
		return true
	}
	if _, exists := s.NICNamed(asked); exists {
		return nic.Name == asked
	}
	return true
}
