package clusterip

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Step is one change to the kernel. After each, the node answers for no foreign bucket.
type Step interface{ fmt.Stringer }

// The steps. Those for tables name the resource's first address.
type (
	// InstallTables installs or repairs the tables in one transaction. The buckets Keep remain owned. Next will be owned next: the CLUSTERIP
	// target cannot be installed without any.
	InstallTables struct {
		Layout Layout
		Keep   []Bucket
		Next   []Bucket
		Moves  Moves // that continue
	}
	// ChangeBuckets changes which buckets the node owns, in one transaction.
	ChangeBuckets struct {
		Address  netip.Addr
		Resource string
		Own      []Bucket
		Release  []Bucket
		Moves    *Moves // replaces those that are under way; nil: they stay
		// Takeovers: buckets can linger with the installed tables. Those that are owned or released do not linger any more, but for Linger.
		Takeovers bool
		Linger    *Linger // of a released bucket
		TakenOver bool    // the owned buckets lingered elsewhere, and may still be passed on
	}
	// RemoveTables removes what InstallTables has installed.
	RemoveTables struct{ Address netip.Addr }

	// AddFilter adds the shared MAC to the interface's MAC filter.
	AddFilter struct {
		NIC NIC
		MAC MAC
	}
	// RemoveFilter removes it.
	RemoveFilter struct {
		NIC NIC
		MAC MAC
	}
	// AddAddress adds the address, or with Group the multicast group, to the interface. IPv4 addresses get scope host.
	AddAddress struct {
		NIC    NIC
		Prefix netip.Prefix
		Group  bool
	}
	// RemoveAddress removes it, and no other address.
	RemoveAddress struct {
		NIC    NIC
		Prefix netip.Prefix
	}
	// AddRoute adds the connected route of an address.
	AddRoute struct {
		NIC   NIC
		Route Route
	}
	// RemoveRoute removes it.
	RemoveRoute struct {
		NIC   NIC
		Route Route
	}
)

func (s InstallTables) String() string {
	return fmt.Sprintf("install the tables of %s on %s, keep buckets %s", Joined(s.Layout.Addresses()), s.Layout.NIC, FormatBuckets(s.Keep))
}

func (s ChangeBuckets) String() string {
	var changes []string
	if len(s.Own) > 0 {
		changes = append(changes, "own buckets "+FormatBuckets(s.Own))
	}
	if len(s.Release) > 0 {
		changes = append(changes, "release buckets "+FormatBuckets(s.Release))
	}
	if s.Linger != nil {
		changes = append(changes, fmt.Sprintf("linger %d for %s", s.Linger.Bucket, s.Linger.Left))
	}
	if s.Moves != nil {
		changes = append(changes, s.Moves.String())
	}
	return fmt.Sprintf("%s: %s", s.Address, strings.Join(changes, ", "))
}

func (s RemoveTables) String() string {
	return fmt.Sprintf("remove the tables of %s", s.Address)
}

func (s AddFilter) String() string {
	return fmt.Sprintf("add %s to the MAC filter of %s", s.MAC, s.NIC.Name)
}

func (s RemoveFilter) String() string {
	return fmt.Sprintf("remove %s from the MAC filter of %s", s.MAC, s.NIC.Name)
}

func (s AddAddress) String() string { return fmt.Sprintf("add %s to %s", s.Prefix, s.NIC.Name) }

func (s RemoveAddress) String() string {
	return fmt.Sprintf("remove %s from %s", s.Prefix, s.NIC.Name)
}

func (s AddRoute) String() string {
	return fmt.Sprintf("add the route to %s on %s", s.Route.Prefix, s.NIC.Name)
}

func (s RemoveRoute) String() string {
	return fmt.Sprintf("remove the route to %s on %s", s.Route.Prefix, s.NIC.Name)
}

// FormatBuckets is for messages.
func FormatBuckets(buckets []Bucket) string {
	if len(buckets) == 0 {
		return "none"
	}
	words := make([]string, len(buckets))
	for i, bucket := range buckets {
		words[i] = fmt.Sprint(bucket)
	}
	return strings.Join(words, ",")
}
