package clusterip

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

// Spec is what the parameters request: one bucket of one resource. The node decides what it leaves open (Resolve).
type Spec struct {
	Resource string // without the instance number
	Bucket   Bucket
	Buckets  uint32 // N

	Addresses     []netip.Addr   // the first names the tables; empty only for a stop without parameters
	PrefixLengths PerFamily[int] // 0: those of the connected routes
	NIC           string         // "": the interface whose connected routes hold the addresses

	Backend      Backend
	MACMode      MACMode
	MACs         PerFamily[MAC]
	HashMode     HashMode
	HashCompat   HashCompat
	HashPrefixes PerFamily[int]
	Seed         Seed
	Services     []services.Service

	CheckLink      bool
	Advertisements Advertisements
	Probe          bool // the monitor is Pacemaker's probe
	EarlyDrop      EarlyDrop
	Remember       int           // how many connections of clients a node remembers; 0: none
	TellRate       int           // how many clients a second it tells that their connections are over
	Drain          time.Duration // how long an old owner keeps serving connections; 0: not at all
	Linger         time.Duration // how long, at most, it goes on answering everything until the bucket is taken over; 0: not at all
}

// Advertisements says how often a node sends gratuitous ARP when it gets the address, and at which interval.
type Advertisements struct {
	Count    uint32
	Interval time.Duration
}

// Address returns the first address, which names the resource's tables and its lock.
func (s Spec) Address() netip.Addr {
	if len(s.Addresses) == 0 {
		return netip.Addr{}
	}
	return s.Addresses[0]
}

// NewSpec makes a spec of parameters that are valid each by itself, and returns which of them exclude each other (ocf.ErrConfigured). A
// stop can use the spec that it returns with an error.
func NewSpec(values metadata.Values, resource string, clone ocf.Clone) (Spec, error) {
	seed, seedGiven := values.Uint32("hash_seed")
	count, _ := values.Uint32("arp_count")
	prefix4, _ := values.Uint32("hash_prefix4")
	prefix6, _ := values.Uint32("hash_prefix6")
	remember, _ := values.Uint32("remember")
	tellRate, _ := values.Uint32("tell_rate")

	spec := Spec{
		Resource: resource, Bucket: Bucket(clone.Bucket), Buckets: clone.Buckets,
		Addresses: values.Addrs("ip"), NIC: values.String("nic"),
		MACMode: MACMode(values.String("mac_mode")), HashMode: HashMode(values.String("hashmode")), Seed: Seed(seed),
		Backend:        Backend(values.String("backend")),
		HashCompat:     HashCompat(values.String("hash_compat")),
		HashPrefixes:   PerFamily[int]{IPv4: int(prefix4), IPv6: int(prefix6)},
		Services:       values.Services("services"),
		CheckLink:      values.Bool("check_link"),
		EarlyDrop:      EarlyDrop(values.String("early_drop")),
		Remember:       int(remember),
		TellRate:       int(tellRate),
		Drain:          values.Duration("drain"),
		Linger:         values.Duration("linger"),
		Advertisements: Advertisements{Count: count, Interval: values.Duration("arp_interval")},
	}
	spec.Linger = min(spec.Linger, spec.Drain) // the old owner's tables go when the drain ends
	if len(spec.Addresses) == 0 {
		return spec, nil // the parser has returned that error
	}
	if !seedGiven {
		spec.Seed = DefaultSeed(spec.Address())
	}
	faults := []error{
		spec.setPrefixLengths(values.Numbers("cidr_netmask")),
		spec.setMACs(MACOf(values.HardwareAddr("mac"))),
	}
	fault := func(format string, args ...any) {
		faults = append(faults, ocf.Errorf(ocf.ErrConfigured, format, args...))
	}
	if spec.Backend == Target {
		spec.HashCompat = ClusterIP // the only one that it supports
	}
	faults = append(faults, spec.Layout().Fits(spec.Backend))
	if spec.Backend != Target && spec.Seed == 0 && !ZeroSeedFits(spec.HashMode) {
		fault("parameter hash_seed=0 cannot be used with hashmode=%s, because nf_tables cannot hash with it; use another hashmode, or another "+
			"seed on all nodes (--hash-init of the CLUSTERIP target)", spec.HashMode)
	}
	for _, address := range spec.Addresses {
		length := spec.PrefixLengths.Of(address)
		if why := unfit(address, length); length > 0 && why != "" {
			fault("parameters ip and cidr_netmask: %s", why)
		}
		if address.IsLinkLocalUnicast() && address.Is6() && spec.NIC == "" {
			fault("parameter ip: %s is a link-local address, which every interface has its own network of; use a global or a unique local one "+
				"(RFC 4193), or, if it must be this one, set parameter nic", address)
		}
	}
	return spec, errors.Join(faults...)
}

// named returns the prefix that is enough to find the tables.
func (s Spec) named() []netip.Prefix {
	if len(s.Addresses) == 0 {
		return nil
	}
	return []netip.Prefix{netip.PrefixFrom(s.Address(), s.Address().BitLen())}
}

func (s Spec) has(isOfFamily func(netip.Addr) bool) bool {
	return slices.ContainsFunc(s.Addresses, isOfFamily)
}

// setPrefixLengths assigns the values of cidr_netmask: two are for IPv4 and IPv6, a single one is for the only family, or for IPv4.
func (s *Spec) setPrefixLengths(given []uint32) error {
	const both = 2
	switch {
	case len(given) == both:
		s.PrefixLengths = PerFamily[int]{IPv4: int(given[0]), IPv6: int(given[1])}
	case len(given) == 1 && s.has(netip.Addr.Is4):
		s.PrefixLengths.IPv4 = int(given[0])
	case len(given) == 1:
		s.PrefixLengths.IPv6 = int(given[0])
	}
	if s.PrefixLengths.IPv4 > wholeAddresses.IPv4 {
		return ocf.Errorf(ocf.ErrConfigured, "parameter cidr_netmask=%d is more than the 32 bits of an IPv4 address; for both families give "+
			"two, such as 24,64",
			s.PrefixLengths.IPv4)
	}
	return nil
}

// setMACs derives the shared MAC of each family that has an address from the resource's first address. Parameter mac replaces it. In igmp
// mode a MAC stands for a group's address, so it fits one family only.
func (s *Spec) setMACs(given MAC) error {
	taken := given.IsZero()
	set := func(into *MAC, isOfFamily func(netip.Addr) bool) {
		i := slices.IndexFunc(s.Addresses, isOfFamily)
		switch {
		case i < 0:
		case !given.IsZero() && (s.MACMode != IGMP || isOfFamily(given.MulticastGroup())):
			*into, taken = given, true
		case s.MACMode == IGMP:
			*into = DerivedMAC(IGMP, s.Addresses[i])
		default:
			*into = DerivedMAC(s.MACMode, s.Address())
		}
	}
	set(&s.MACs.IPv4, netip.Addr.Is4)
	set(&s.MACs.IPv6, netip.Addr.Is6)
	if given.IsZero() {
		return nil
	}
	if err := s.MACMode.Check(given); err != nil {
		return ocf.Errorf(ocf.ErrConfigured, "parameter mac: %w", err)
	}
	if !taken {
		return ocf.Errorf(
			ocf.ErrConfigured, "parameter mac: %s is the MAC of the group %s, and ip has no address of that family", given, given.MulticastGroup(),
		)
	}
	return nil
}

// unfit returns why no host can have an address in a network of that prefix length; empty if one can.
func unfit(address netip.Addr, prefixLength int) string {
	const pointToPoint = 1 // bits: RFC 3021 and RFC 6164, no address is special
	network := netip.PrefixFrom(address, prefixLength).Masked()
	switch {
	case address.BitLen()-prefixLength <= pointToPoint:
		return ""
	case network.Addr() == address && address.Is6():
		return fmt.Sprintf("%s is the address of all routers in %s (RFC 4291 section 2.6.1)", address, network)
	case network.Addr() == address:
		return fmt.Sprintf("%s is the address of the network %s itself", address, network)
	case address.Is4() && broadcast(network) == address:
		return fmt.Sprintf("%s is the broadcast address of %s", address, network)
	}
	return ""
}

func broadcast(network netip.Prefix) netip.Addr {
	bytes := network.Addr().As4()
	for bit := network.Bits(); bit < wholeAddresses.IPv4; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(bytes)
}

// CandidateMACs returns all MACs that any mode uses for the addresses.
func (s Spec) CandidateMACs() []MAC {
	macs := []MAC{s.MACs.IPv4, s.MACs.IPv6}
	for _, address := range s.Addresses {
		for _, mode := range MACModes() {
			macs = append(macs, DerivedMAC(mode, address))
		}
	}
	return slices.DeleteFunc(macs, MAC.IsZero)
}

// Resolve decides what the spec leaves open on this node: the interface and the prefix lengths. An installed default stays while it is
// usable, even if routes have changed since. Its errors are ocf.ErrArgs: another node may be able to run the bucket.
func (s Spec) Resolve(seen State) (Layout, error) {
	layout := s.Layout()
	if s.Backend == Auto {
		layout.Backend = seen.Tables.Backend // an installed resource keeps its backend
	}
	if s.EarlyDrop == EarlyDropAuto && seen.Tables.Installed != nil && seen.Serves() {
		layout.EarlyDrop = seen.Tables.Installed.EarlyDrop // auto attaches nothing beside buckets that run
	}
	layout.Drains = layout.Drains || seen.DrainsContinue(layout)
	layout.Prefixes = nil // they depend on the interface
	nic, err := s.nic(seen)
	if err != nil {
		return layout, err
	}
	layout.NIC, layout.NICIndex = nic.Name, nic.Index
	if s.has(netip.Addr.Is4) {
		layout.Ports = seen.askingPorts(nic)
	}
	if layout.Drains && s.Linger > 0 {
		layout.Lingers = nic.MAC
	}
	_, onBridge := seen.bridgeOf(nic)
	layout.Bridged = layout.Drains && onBridge
	for _, address := range s.Addresses {
		layout.Prefixes = append(layout.Prefixes, netip.PrefixFrom(address, s.prefixLength(seen, nic, address)))
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }
	if nic.Loopback {
		fault("parameter nic=%s is the loopback interface, which no client reaches", nic.Name)
	} else if why := seen.VRFFault(nic); why != "" {
		fault("%s", why)
	} else if !nic.ARP {
		fault("parameter nic=%s is not an Ethernet interface that does ARP", nic.Name)
	} else if why := seen.PortFault(nic); why != "" {
		fault("%s", why)
	}
	if nic.NoIPv6 && s.has(netip.Addr.Is6) {
		fault("%s has no IPv6 (sysctl net.ipv6.conf.%s.disable_ipv6, or an MTU below 1280)", nic.Name, nic.Name)
	}
	for _, prefix := range layout.Prefixes {
		if why := unfit(prefix.Addr(), prefix.Bits()); why != "" {
			fault("ip=%s does not fit %s: %s", prefix.Addr(), nic.Name, why)
		}
	}
	for _, address := range seen.Addresses {
		switch {
		case seen.IsOurs(address, s.NIC):
		case address.Of != "":
			faults = append(
				faults, ocf.Errorf(ocf.ErrConfigured, "parameter ip: %s belongs to %s, which runs here too", address.Prefix.Addr(), address.Of),
			)
		default:
			fault("%w", ForeignAddressError{address.Prefix, seen.NICName(address.NICIndex)})
		}
	}
	layout.Schema = Schema
	return layout, errors.Join(faults...)
}

// ForeignAddressError is why an address cannot be installed that is already on an interface.
type ForeignAddressError struct {
	Address netip.Prefix
	NIC     string
}

// Error implements error.
func (e ForeignAddressError) Error() string {
	return fmt.Sprintf("%s; remove it there (ip address delete %s dev %s)", e.Seen(), e.Address, e.NIC)
}

// Seen returns the text of the error without what to do.
func (e ForeignAddressError) Seen() string {
	return fmt.Sprintf("%s is already on %s, where this resource did not put it", e.Address, e.NIC)
}

// Layout returns what follows from the spec alone, which is enough to know the bucket of a packet.
func (s Spec) Layout() Layout {
	layout := Layout{
		Resource: s.Resource, MACMode: s.MACMode, MACs: s.MACs, HashMode: s.HashMode, HashCompat: s.HashCompat, HashPrefixes: s.HashPrefixes,
		Seed: s.Seed, Buckets: s.Buckets, Services: s.Services, Drains: s.Drain > 0, EarlyDrop: s.EarlyDrop, Remember: s.Remember,
	}
	if s.Backend != Auto {
		layout.Backend = s.Backend
	}
	for _, address := range s.Addresses {
		layout.Prefixes = append(layout.Prefixes, netip.PrefixFrom(address, address.BitLen()))
	}
	return layout
}

// prefixLength returns the requested one, or the installed one, or that of the interface's own network.
func (s Spec) prefixLength(seen State, nic NIC, address netip.Addr) int {
	if asked := s.PrefixLengths.Of(address); asked > 0 {
		return asked
	}
	if installed := seen.Tables.Installed; installed != nil && installed.NICIndex == nic.Index {
		if i := slices.Index(installed.Addresses(), address); i >= 0 {
			return installed.Prefixes[i].Bits()
		}
	}
	return cmp.Or(seen.connectedBits(nic, address), address.BitLen())
}

func (s Spec) nic(seen State) (NIC, error) {
	if s.NIC != "" {
		nic, ok := seen.NICNamed(s.NIC)
		if !ok {
			return nic, ocf.Errorf(
				ocf.ErrArgs, "parameter nic=%s: there is no such network interface on this node (there are %s)", s.NIC, names(seen.NICs),
			)
		}
		return nic, nil
	}
	if installed := seen.Tables.Installed; installed != nil {
		if nic, ok := seen.NICAt(installed.NICIndex); ok && nic.Name == installed.NIC && (seen.Usable(nic) || len(s.candidates(seen)) == 0) {
			return nic, nil
		}
	}
	switch candidates := s.candidates(seen); len(candidates) {
	case 1:
		return candidates[0], nil
	case 0:
		return NIC{}, ocf.Errorf(ocf.ErrArgs, "no network interface has connected routes that hold %s; give one its own address in that "+
			"network, or set parameter nic (there are %s%s)",
			Joined(s.Addresses), names(seen.NICs), seen.vrfs())
	default:
		return NIC{}, ocf.Errorf(ocf.ErrArgs, "the connected routes of %s all hold %s, and none has the longest prefix; set "+
			"parameter nic", names(candidates), Joined(s.Addresses))
	}
}

// candidates returns the interfaces to choose from if none is requested: their connected routes hold all addresses, with the longest
// prefixes, as the kernel chooses a route. Unusable interfaces count only if there is no usable one, so that the error names them.
func (s Spec) candidates(seen State) []NIC {
	connected := slices.DeleteFunc(slices.Clone(seen.NICs), func(nic NIC) bool {
		return slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool { return seen.connectedBits(nic, a) == 0 })
	})
	unusable := func(nic NIC) bool { return !seen.Usable(nic) }
	if usable := slices.DeleteFunc(slices.Clone(connected), unusable); len(usable) > 0 {
		connected = usable
	}
	beats := func(a, b NIC) bool {
		longer := func(a, b NIC) func(netip.Addr) bool {
			return func(address netip.Addr) bool { return seen.connectedBits(a, address) > seen.connectedBits(b, address) }
		}
		return slices.ContainsFunc(s.Addresses, longer(a, b)) && !slices.ContainsFunc(s.Addresses, longer(b, a))
	}
	return slices.DeleteFunc(slices.Clone(connected), func(nic NIC) bool {
		return slices.ContainsFunc(connected, func(other NIC) bool { return beats(other, nic) })
	})
}

// OtherInterfaces returns the other interfaces whose connected routes hold an address, for messages.
func (s Spec) OtherInterfaces(seen State, chosen Layout) []string {
	var others []string
	for _, nic := range seen.NICs {
		for _, address := range s.Addresses {
			bits := seen.connectedBits(nic, address)
			if s.NIC != "" || nic.Index == chosen.NICIndex || bits == 0 {
				continue
			}
			why := ""
			if _, isPort := seen.master(nic); isPort {
				why = ", a port"
			} else if !nic.ARP {
				why = ", without ARP"
			}
			others = append(others, fmt.Sprintf("%s (%s%s)", nic.Name, netip.PrefixFrom(address, bits).Masked(), why))
		}
	}
	return others
}

// Admit returns the layout of the spec on the node, or why start must refuse it.
func (s Spec) Admit(seen State) (Layout, error) {
	layout, err := s.Resolve(seen)
	if err != nil {
		return layout, err
	}
	if len(seen.Tables.Conflicting) > 0 {
		return layout, ocf.Errorf(ocf.ErrGeneric, "the agent did not install %s, which has its name: examine it (nft list ruleset, "+
			"iptables-save) and delete it",
			strings.Join(seen.Tables.Conflicting, ", "))
	}
	others := Subtract(seen.Tables.Owned, []Bucket{s.Bucket})
	if installed := seen.Tables.Installed; installed != nil && len(others) > 0 {
		if differ := installed.Disagreements(layout); len(differ) > 0 {
			return layout, ocf.Errorf(ocf.ErrConfigured,
				"buckets %s of %s run here with other settings (%s); nodes that disagree answer twice or not at all. "+
					"To change them: pcs resource disable %s, change, pcs resource enable %s",
				FormatBuckets(others), s.Address(), strings.Join(differ, "; "), s.ResourceName(), s.ResourceName())
		}
	}
	if there := seen.Tables.Backend; there != "" && layout.Backend != "" && there != layout.Backend {
		return layout, ocf.Errorf(ocf.ErrGeneric, "%s is installed here with backend=%s, requested is %s: stop it first (pcs resource disable "+
			"%s)",
			s.Address(), there, layout.Backend, s.ResourceName())
	}
	if err := layout.Fits(layout.Backend); err != nil {
		return layout, fmt.Errorf("%w; or stop it first, so that another backend can be chosen (pcs resource disable %s)", err, s.ResourceName())
	}
	nic, ok := seen.NICAt(layout.NICIndex)
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

// ResourceName is the resource's name for commands in messages.
func (s Spec) ResourceName() string {
	if s.Resource == "" {
		return "the resource"
	}
	return s.Resource
}

// PlanRemoval returns the steps that remove everything of the spec's resource.
func (s Spec) PlanRemoval(seen State) []Step {
	return planRemoval(seen, Goal{Layout: Layout{Prefixes: s.named()}, NIC: s.NIC})
}
