package clusterip

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

// Schema is the newest version of the tables that this program knows. It accepts every older one as it is, so that a package
// upgrade moves no bucket. ARCHITECTURE.md lists the versions.
const Schema = 3

// PerFamily is a value for IPv4 and one for IPv6.
type PerFamily[T any] struct{ IPv4, IPv6 T }

// Of returns the value for the address's family.
func (p PerFamily[T]) Of(address netip.Addr) T {
	if address.Is4() {
		return p.IPv4
	}
	return p.IPv6
}

// wholeAddresses are the prefix lengths of whole addresses.
var wholeAddresses = PerFamily[int]{IPv4: 32, IPv6: 128}

// Layout is what all buckets of a resource on a node share. The tables contain it (Stamp), so a later action knows what is installed,
// whatever its parameters are.
type Layout struct {
	Schema   int
	Resource string // the resource's name in the CIB, without the instance number; empty if unknown

	Prefixes []netip.Prefix // the addresses, with the prefix lengths of their networks; the first names the tables
	NIC      string         // the interface's name
	NICIndex int            // its index, which a rename does not change
	Ports    []int          // the indexes of the ports below it through which bonds' ARP monitors send requests

	Backend      Backend // "": not chosen yet
	MACMode      MACMode
	MACs         PerFamily[MAC] // the shared MAC; zero for a family without an address
	HashMode     HashMode
	HashCompat   HashCompat
	HashPrefixes PerFamily[int] // how many leading bits of the source address the hash uses
	Seed         Seed
	Buckets      uint32             // N
	Services     []services.Service // the services that share load; empty: all. Everything else belongs to bucket 0
	Drains       bool               // moves break no connection (Moves)
	// Lingers is the interface's own MAC, from which packets are passed on, if buckets linger after a stop; else zero.
	Lingers   MAC
	Bridged   bool      // on a bridge, or on top of one, which may call iptables for its ports
	Remember  int       // how many connections the program of EarlyDrop is to remember at least; a stamp does not tell
	EarlyDrop EarlyDrop // as requested; in a stamp only whether the program is there: EarlyDropAuto, or else EarlyDropOff
}

// Address returns the first address, which names the tables.
func (l Layout) Address() netip.Addr {
	if len(l.Prefixes) == 0 {
		return netip.Addr{}
	}
	return l.Prefixes[0].Addr()
}

// Addresses returns all addresses.
func (l Layout) Addresses() []netip.Addr {
	addresses := make([]netip.Addr, len(l.Prefixes))
	for i, prefix := range l.Prefixes {
		addresses[i] = prefix.Addr()
	}
	return addresses
}

// onNIC returns the addresses as they are on the interface. The kernel never chooses an IPv4 address of scope host as the source of the
// node's own connections (inet_select_addr in net/ipv4/devinet.c), whose answers would go to the owner of another bucket. All addresses of
// a network must have the same scope (__inet_insert_ifa), so each has a network of its own, a /32.
func (l Layout) onNIC() []Address {
	all := make([]Address, len(l.Prefixes))
	for i, prefix := range l.Prefixes {
		all[i] = Address{NICIndex: l.NICIndex, Prefix: prefix}
		if prefix.Addr().Is4() {
			all[i].Prefix, all[i].HostScope = netip.PrefixFrom(prefix.Addr(), wholeAddresses.IPv4), true
		}
	}
	return all
}

// routes returns the connected routes of the IPv4 addresses, which a /32 does not bring. With them the node reaches clients while the
// interface has no address of the node's own. The route of such an address has a lower metric, so it is preferred.
func (l Layout) routes() []Route {
	var all []Route
	for _, prefix := range l.Prefixes {
		network := prefix.Masked()
		isOf := func(r Route) bool { return r.Prefix == network }
		if prefix.Addr().Is4() && prefix.Bits() < wholeAddresses.IPv4 && !slices.ContainsFunc(all, isOf) {
			all = append(all, Route{NICIndex: l.NICIndex, Prefix: network, Metric: RouteMetric(prefix.Addr())})
		}
	}
	return all
}

// RouteMetric is the metric of the connected route of an IPv4 address: one of the highest, so that any other route is preferred, and a
// different one for each address of a network, so that no two resources share a route.
func RouteMetric(address netip.Addr) uint32 {
	const highest = 0xff000000
	b := address.As4()
	return highest | binary.BigEndian.Uint32(b[:])
}

// AllMACs returns the shared MACs of both families, each once.
func (l Layout) AllMACs() []MAC {
	var macs []MAC
	for _, mac := range []MAC{l.MACs.IPv4, l.MACs.IPv6} {
		if !mac.IsZero() && !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	return macs
}

// Has reports whether there is an address of a family.
func (l Layout) Has(isOfFamily func(netip.Addr) bool) bool {
	return slices.ContainsFunc(l.Addresses(), isOfFamily)
}

// sourceNetwork masks a source address as the hash does.
func (l Layout) sourceNetwork(source netip.Addr) netip.Addr {
	source = source.Unmap()
	return netip.PrefixFrom(source, l.HashPrefixes.Of(source)).Masked().Addr()
}

// Packet is what decides on a packet's bucket.
type Packet struct {
	Flow
	Protocol string // as in services.Service, or any other text
	Fragment bool   // its ports are hidden
}

// BucketOf returns the bucket of a packet.
func (l Layout) BucketOf(p Packet) Bucket {
	listed := func(s services.Service) bool { return s.Holds(p.Protocol, p.DestinationPort) }
	if len(l.Services) > 0 && !p.Fragment && !slices.ContainsFunc(l.Services, listed) {
		return 0
	}
	p.Source = l.sourceNetwork(p.Source)
	if p.Fragment {
		p.SourcePort, p.DestinationPort = 0, 0
	}
	return BucketOf(l.HashMode, l.HashCompat, p.Flow, l.Seed, l.Buckets)
}

// HidesInRequests reports whether ARP requests that leave by another interface are sent, without the address. The backends of iptables drop
// them.
func (l Layout) HidesInRequests() bool { return l.Backend != Match && l.Backend != Target }

// Disagreements returns what differs although it must be the same on all nodes and for all buckets.
func (l Layout) Disagreements(requested Layout) []string {
	var found []string
	differ := func(what string, have, want any) {
		if fmt.Sprint(have) != fmt.Sprint(want) {
			found = append(found, fmt.Sprintf("%s is %v, requested is %v", what, have, want))
		}
	}
	differ("ip", l.Addresses(), requested.Addresses())
	if requested.Backend != "" {
		differ("backend", l.Backend, requested.Backend)
	}
	differ("clone-max", l.Buckets, requested.Buckets)
	differ("hash_seed", l.Seed, requested.Seed)
	differ("hashmode", l.HashMode, requested.HashMode)
	differ("hash_compat", l.HashCompat, requested.HashCompat)
	differ("hash_prefix4", l.HashPrefixes.IPv4, requested.HashPrefixes.IPv4)
	differ("hash_prefix6", l.HashPrefixes.IPv6, requested.HashPrefixes.IPv6)
	differ("mac_mode", l.MACMode, requested.MACMode)
	differ("mac", l.AllMACs(), requested.AllMACs())
	differ("services", cmp.Or(Joined(l.Services), everything), cmp.Or(Joined(requested.Services), everything))
	return found
}

// Identity is a short text that differs if packets are spread over the buckets differently.
func (l Layout) Identity() string {
	hash := fnv.New32a()
	_, _ = fmt.Fprint(hash, l.Buckets, l.Seed, l.HashMode, l.HashCompat, l.HashPrefixes, Joined(l.Services)) // it never fails
	return fmt.Sprintf("%08x", hash.Sum32())
}

// Collisions returns what two resources of a node both have but must not.
func (l Layout) Collisions(other Layout) []error {
	var faults []error
	for _, address := range l.Addresses() {
		if slices.Contains(other.Addresses(), address) {
			faults = append(faults, ocf.Errorf(ocf.ErrConfigured, "parameter ip: %s belongs to %s, which runs here too", address, other.name()))
		}
	}
	for _, mac := range l.AllMACs() {
		if l.NICIndex == other.NICIndex && slices.Contains(other.AllMACs(), mac) {
			faults = append(faults, ocf.Errorf(ocf.ErrConfigured, "MAC %s on %s is that of %s too; give one of them another with parameter mac",
				mac, l.NIC, other.name()))
		}
	}
	return faults
}

// name is what messages call the resource.
func (l Layout) name() string {
	return cmp.Or(l.Resource, "the resource of "+l.Address().String())
}

// everything stands for an empty list of services.
const everything = "all"

// sameAs reports whether two layouts have the same tables, whatever the resource's name and the schema are.
func (l Layout) sameAs(other Layout) bool {
	l.Resource = other.Resource
	return l.Stamp() == other.Stamp()
}

// Stamp writes the layout as one line of key=value, without the schema, which is stored beside it. Of the optional keys it writes those
// that differ from the default.
func (l Layout) Stamp() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ip=%s nic=%s nic_index=%d mac_mode=%s", Joined(l.Prefixes), l.NIC, l.NICIndex, l.MACMode)
	if !l.MACs.IPv4.IsZero() {
		fmt.Fprintf(&b, " mac=%s", l.MACs.IPv4)
	}
	fmt.Fprintf(&b, " hashmode=%s hash_seed=%s buckets=%d", l.HashMode, l.Seed, l.Buckets)
	if !l.MACs.IPv6.IsZero() {
		fmt.Fprintf(&b, " mac6=%s", l.MACs.IPv6)
	}
	if l.Backend == Match || l.Backend == Target {
		fmt.Fprintf(&b, " backend=%s", l.Backend)
	}
	if l.HashCompat == ClusterIP {
		fmt.Fprintf(&b, " hash_compat=%s", l.HashCompat)
	}
	if l.HashPrefixes.IPv4 != wholeAddresses.IPv4 {
		fmt.Fprintf(&b, " hash_prefix4=%d", l.HashPrefixes.IPv4)
	}
	if l.HashPrefixes.IPv6 != wholeAddresses.IPv6 {
		fmt.Fprintf(&b, " hash_prefix6=%d", l.HashPrefixes.IPv6)
	}
	if len(l.Services) > 0 {
		fmt.Fprintf(&b, " services=%s", Joined(l.Services))
	}
	if l.Drains {
		b.WriteString(" drain=" + stampYes)
	}
	if !l.Lingers.IsZero() {
		fmt.Fprintf(&b, " linger_from=%s", l.Lingers)
	}
	if l.Bridged {
		b.WriteString(" bridged=" + stampYes)
	}
	if l.DropsEarly() {
		b.WriteString(" early_drop=" + stampYes)
	}
	if len(l.Ports) > 0 {
		fmt.Fprintf(&b, " ports=%s", strings.Trim(strings.ReplaceAll(fmt.Sprint(l.Ports), " ", ","), "[]"))
	}
	if l.Resource != "" {
		b.WriteString(" resource=" + escape(l.Resource))
	}
	return b.String()
}

// escape makes a name one field of a stamp: %20 for a blank. The CIB allows no such name, but the agent may be called by hand.
func escape(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r == '%' || unicode.IsSpace(r) || unicode.IsControl(r) {
			for _, octet := range []byte(string(r)) {
				fmt.Fprintf(&b, "%%%02X", octet)
			}
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// stampYes is the only value of the stamp's keys drain, bridged and early_drop.
const stampYes = "yes"

// IsStamp reports whether the text is a stamp, or the first part of one, of any schema.
func IsStamp(text string) bool { return strings.HasPrefix(text, "ip=") }

// Joined formats a list as in the parameters and the stamp.
func Joined[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, element := range list {
		texts[i] = element.String()
	}
	return strings.Join(texts, ",")
}

// ParseStamp is the reverse of Stamp. It ignores unknown keys, which a newer program may have written.
func ParseStamp(schema int, stamp string) (Layout, error) {
	layout := Layout{Schema: schema, Backend: NFTables, HashCompat: XTCluster, HashPrefixes: wholeAddresses, EarlyDrop: EarlyDropOff}
	fields := map[string]string{}
	for field := range strings.FieldsSeq(stamp) {
		key, value, _ := strings.Cut(field, "=")
		fields[key] = value
	}
	var faults []error
	field := func(key string, parse func(string) error) {
		if err := parse(fields[key]); err != nil {
			faults = append(faults, fmt.Errorf("%s=%q: %w", key, fields[key], err))
		}
	}
	optional := func(key string, parse func(string) error) {
		if _, given := fields[key]; given {
			field(key, parse)
		}
	}
	field("ip", func(text string) (err error) {
		layout.Prefixes, err = each(text, netip.ParsePrefix)
		return err
	})
	field("nic_index", number(31, func(v uint64) { layout.NICIndex = int(v) }))
	field("hash_seed", number(32, func(v uint64) { layout.Seed = Seed(v) }))
	field("buckets", number(32, func(v uint64) { layout.Buckets = uint32(v) }))
	optional("mac", parseMAC(&layout.MACs.IPv4))
	optional("mac6", parseMAC(&layout.MACs.IPv6))
	optional("hash_prefix4", number(8, func(v uint64) { layout.HashPrefixes.IPv4 = int(v) }))
	optional("hash_prefix6", number(8, func(v uint64) { layout.HashPrefixes.IPv6 = int(v) }))
	optional("services", func(text string) (err error) {
		layout.Services, err = each(text, services.Parse)
		return err
	})
	optional("backend", func(text string) error {
		layout.Backend = Backend(text)
		return nil
	})
	optional("resource", func(text string) (err error) {
		layout.Resource, err = url.PathUnescape(text)
		return err
	})
	optional("drain", parseYes(&layout.Drains))
	optional("linger_from", parseMAC(&layout.Lingers))
	optional("bridged", parseYes(&layout.Bridged))
	optional("early_drop", func(text string) error {
		layout.EarlyDrop = EarlyDropAuto
		return parseYes(new(bool))(text)
	})
	optional("ports", func(text string) (err error) {
		layout.Ports, err = each(text, strconv.Atoi)
		return err
	})
	optional("hash_compat", func(text string) error {
		layout.HashCompat = HashCompat(text)
		return nil
	})
	layout.NIC = fields["nic"]
	layout.MACMode = MACMode(fields["mac_mode"])
	layout.HashMode = HashMode(fields["hashmode"])
	if !layout.isPlausible() {
		faults = append(faults, errors.New("a key is missing or has no value that this agent knows"))
	}
	return layout, errors.Join(faults...)
}

func (l Layout) isPlausible() bool {
	withoutMAC := func(a netip.Addr) bool { return l.MACs.Of(a).IsZero() }
	bits := func(have, most int) bool { return have > 0 && have <= most }
	return slices.Contains(backends(), l.Backend) && slices.Contains(MACModes(), l.MACMode) &&
		slices.Contains(HashModes(), l.HashMode) && len(l.Prefixes) > 0 &&
		!l.Has(withoutMAC) && slices.Contains(HashCompats(), l.HashCompat) &&
		(l.Seed != 0 || l.Backend == Target || ZeroSeedFits(l.HashMode)) && l.NIC != "" && l.Buckets > 0 && l.Buckets <= ocf.MaxBuckets &&
		(l.Backend == NFTables || !l.Drains) && (l.Drains || l.Lingers.IsZero()) &&
		bits(l.HashPrefixes.IPv4, wholeAddresses.IPv4) && bits(l.HashPrefixes.IPv6, wholeAddresses.IPv6)
}

func number(width int, into func(uint64)) func(string) error {
	return func(text string) error {
		value, err := strconv.ParseUint(text, 0, width)
		into(value)
		return err
	}
}

func parseYes(into *bool) func(string) error {
	return func(text string) error {
		*into = true
		if text != stampYes {
			return errors.New("is not " + stampYes)
		}
		return nil
	}
}

func parseMAC(into *MAC) func(string) error {
	return func(text string) error {
		mac, err := net.ParseMAC(text)
		*into = MACOf(mac)
		return err
	}
}

// each parses the output of Joined.
func each[T any](text string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for part := range strings.SplitSeq(text, ",") {
		one, err := parse(part)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// holds reports whether the layout has such a shared MAC on that interface.
func (l Layout) holds(nicIndex int, is func(MAC) bool) bool {
	return l.NICIndex == nicIndex && slices.ContainsFunc(l.AllMACs(), is)
}

func (l Layout) holdsGroup(group Address) bool {
	return l.holds(group.NICIndex, func(m MAC) bool { return m.MulticastGroup() == group.Prefix.Addr() })
}

// Spec returns the spec of which the layout was made, as far as the layout shows it. It has no bucket.
func (l Layout) Spec() Spec {
	spec := Spec{
		Resource: l.Resource, Buckets: l.Buckets, Addresses: l.Addresses(), NIC: l.NIC, Backend: l.Backend, MACMode: l.MACMode, MACs: l.MACs,
		HashMode: l.HashMode, HashCompat: l.HashCompat, HashPrefixes: l.HashPrefixes, Seed: l.Seed, Services: l.Services, CheckLink: true,
		EarlyDrop: l.EarlyDrop,
	}
	if l.Drains {
		spec.Drain = 1 // the layout knows only that it is above 0
	}
	if !l.Lingers.IsZero() {
		spec.Linger = 1 // likewise
	}
	return spec
}

// Fits returns what of the layout a backend does not support (ocf.ErrConfigured). nftables supports everything.
func (l Layout) Fits(backend Backend) error {
	var faults []error
	unless := func(fits bool, format string, values ...any) {
		if !fits {
			what := fmt.Sprintf(format, values...)
			faults = append(faults, ocf.Errorf(ocf.ErrConfigured, "backend=%s does not support %s", backend, what))
		}
	}
	most, compat := uint32(MaxTargetBuckets), ClusterIP
	switch backend {
	case Match:
		most, compat = MaxMatchBuckets, XTCluster
		unless(l.HashMode == SourceIP, "hashmode=%s, only hashmode=%s", l.HashMode, SourceIP)
		// ip_rcv drops the frames before the match sees them.
		unless(l.MACMode != Unicast, "mac_mode=unicast, because packets for a MAC that is not the interface's own do not reach it; use "+
			"multicast or igmp")
	case Target:
		unless(l.MACMode == Multicast, "mac_mode=%s, only mac_mode=%s", l.MACMode, Multicast)
		if len(l.Ports) > 0 { // it mangles no ARP of another interface (arp_mangle in net/ipv4/netfilter/ipt_CLUSTERIP.c)
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "backend=%s cannot keep a bond's ARP monitor from announcing the port's own "+
				"MAC for %s; set miimon in place of arp_interval in the configuration of %s, or of the bond below it", backend, l.Address(), l.NIC))
		}
	default:
		return nil
	}
	unless(len(l.Prefixes) == 1 && l.Address().Is4(), "anything but one IPv4 address: ip is %s", Joined(l.Addresses()))
	unless(l.Buckets <= most, "more than %d buckets: clone-max is %d", most, l.Buckets)
	unless(l.HashPrefixes.IPv4 == wholeAddresses.IPv4, "hash_prefix4=%d", l.HashPrefixes.IPv4)
	unless(len(l.Services) == 0, "services=%s", Joined(l.Services))
	unless(!l.Drains, "drain above 0")
	unless(l.EarlyDrop != EarlyDropXDP && l.EarlyDrop != EarlyDropTC, "early_drop=%s", l.EarlyDrop)
	unless(l.HashCompat == compat, "hash_compat=%s, only hash_compat=%s on all nodes", l.HashCompat, compat)
	return errors.Join(faults...)
}
