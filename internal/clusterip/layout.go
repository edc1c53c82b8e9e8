package clusterip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/ocf"
)

// Schema is the version of the tables that this program lays. A program lays only the newest one and accepts every older
// one as it is, so that a package upgrade moves no bucket.
const Schema = 1

// Layout is what all buckets of one address on one node have in common. It is written into the tables themselves (Stamp),
// so that a later call can tell what was laid, whatever it was asked.
type Layout struct {
	Schema   int
	Resource string // the resource's name in the CIB, without the instance number; empty if unknown

	Address      netip.Addr
	PrefixLength int
	NIC          string // by name
	NICIndex     int    // and by the kernel's index, which a rename does not change

	MACMode  MACMode
	MAC      MAC
	HashMode HashMode
	Seed     Seed
	Buckets  uint32 // N
}

// Prefix is the address with its prefix length, as it is put on the NIC.
func (l Layout) Prefix() netip.Prefix { return netip.PrefixFrom(l.Address, l.PrefixLength) }

// Disagreements names what must be the same on all nodes and for all running buckets, and is not.
func (l Layout) Disagreements(asked Layout) []string {
	var found []string
	differ := func(what string, have, want any) {
		if have != want {
			found = append(found, fmt.Sprintf("%s is %v, asked is %v", what, have, want))
		}
	}
	differ("clone-max", l.Buckets, asked.Buckets)
	differ("hash_seed", l.Seed, asked.Seed)
	differ("hashmode", l.HashMode, asked.HashMode)
	differ("mac_mode", l.MACMode, asked.MACMode)
	differ("mac", l.MAC, asked.MAC)
	return found
}

// sameAs compares all that the tables depend on. The resource's name is for people, the schema for newer programs.
func (l Layout) sameAs(other Layout) bool {
	l.Resource, l.Schema = other.Resource, other.Schema
	return l == other
}

// maxStamp is how long a stamp may become: NFT_USERDATA_MAXLEN less the header and the final NUL.
const maxStamp = 256 - 3

// Stamp writes the layout as one line of key=value, without the schema, which is kept beside it.
func (l Layout) Stamp() string {
	stamp := fmt.Sprintf("ip=%s nic=%s nic_index=%d mac_mode=%s mac=%s hashmode=%s hash_seed=%s buckets=%d",
		l.Prefix(), l.NIC, l.NICIndex, l.MACMode, l.MAC, l.HashMode, l.Seed, l.Buckets)
	if resource := " resource=" + l.Resource; l.Resource != "" && len(stamp)+len(resource) <= maxStamp {
		stamp += resource
	}
	return stamp
}

// IsStamp tells whether the text is a stamp, of whatever schema.
func IsStamp(text string) bool { return strings.HasPrefix(text, "ip=") }

// ParseStamp reads what Stamp wrote. Unknown keys are passed over: a newer program may have written them.
func ParseStamp(schema int, stamp string) (Layout, error) {
	layout := Layout{Schema: schema}
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
	number := func(into func(uint64), width int) func(string) error {
		return func(text string) error {
			value, err := strconv.ParseUint(text, 0, width)
			into(value)
			return err
		}
	}
	field("ip", func(text string) error {
		prefix, err := netip.ParsePrefix(text)
		layout.Address, layout.PrefixLength = prefix.Addr(), prefix.Bits()
		return err
	})
	field("nic_index", number(func(v uint64) { layout.NICIndex = int(v) }, 31))
	field("hash_seed", number(func(v uint64) { layout.Seed = Seed(v) }, 32))
	field("buckets", number(func(v uint64) { layout.Buckets = uint32(v) }, 32))
	field("mac", func(text string) error {
		mac, err := net.ParseMAC(text)
		layout.MAC = MACOf(mac)
		return err
	})
	layout.NIC = fields["nic"]
	layout.Resource = fields["resource"]
	layout.MACMode = MACMode(fields["mac_mode"])
	layout.HashMode = HashMode(fields["hashmode"])
	if !slices.Contains(MACModes(), layout.MACMode) || !slices.Contains(HashModes(), layout.HashMode) ||
		!layout.Address.Is4() || layout.NIC == "" || layout.MAC.IsZero() || layout.Buckets == 0 || layout.Buckets > ocf.MaxBuckets {
		faults = append(faults, errors.New("a key is missing or has no value that this agent knows"))
	}
	return layout, errors.Join(faults...)
}
