package clusterip

import (
	"context"
	"net/netip"
	"slices"
)

// Surroundings are what of a node is around its resources, and may be in their way. No action asks for them: who looks for a fault does.
type Surroundings struct {
	Links      []Link
	Routes     []Route // connected ones, of both families
	Gateways   []Gateway
	Neighbours []Neighbour
}

// Link is what else there is to know of a NIC.
type Link struct {
	NICIndex    int
	Promiscuous bool
}

// Gateway is a router for whatever has no route of its own.
type Gateway struct {
	NICIndex int
	Address  netip.Addr // not valid where the route needs none
	IPv6     bool
}

// Neighbour is a host of which a MAC is known.
type Neighbour struct {
	NICIndex int
	Address  netip.Addr
	MAC      MAC
}

// Obstacle is a place in one of the node's firewalls where packets for an address end, or may end.
type Obstacle struct {
	Table    string   // "inet filter", or "iptables-legacy filter"
	Chain    string   // "input"
	Rule     string   // which one, or "policy drop"
	Show     string   // the command that shows it
	Packets  []string // that it is about, in words
	Certain  bool     // it stops some of them for sure, whoever the client is
	Untracks bool     // it stops none, but keeps them from conntrack
}

// RouterAnswer is how a router has answered pings from the NIC's own address, and then some from the shared address. After each of those
// that was not answered the own address asked again.
type RouterAnswer struct {
	Direct bool  // it answers pings at all
	Missed bool  // it did not answer the own address again either: it may limit its answers
	To     []MAC // that its answers to the shared address were sent to, as far as this node could hear them
}

// Capability is what a kernel says to the question whether a backend can do a layout.
type Capability struct {
	Backend Backend
	Answer  Answer
	Why     error // not, or not to be told
}

// Capabilities asks for the layout's backend, if it has one, and then for the others as Choose does, until one will do: a question may
// load modules into the kernel.
func (b *Backends) Capabilities(ctx context.Context, layout Layout) []Capability {
	order := backends()
	if i := slices.Index(order, layout.Backend); i >= 0 {
		order = append([]Backend{layout.Backend}, slices.Delete(order, i, i+1)...)
	}
	var all []Capability
	for _, backend := range order {
		answer, why := b.can(ctx, backend, layout)
		all = append(all, Capability{backend, answer, why})
		if answer == Yes {
			break
		}
	}
	return all
}
