package nftables

import (
	"net/netip"
	"slices"
	"strings"

	nft "github.com/google/nftables"
)

// Names of what our tables contain. Those for IPv6 have a 6 appended where IPv4 has its own in the same table.
const (
	tablePrefix = "clusterip-"

	chainIngress    = "ingress"
	chainIPv4       = "ipv4"
	chainIPv6       = "ipv6"
	chainPorts      = "ports"
	chainPortless   = "portless"
	chainShared     = "shared"
	chainErrors     = "errors"
	chainARP        = "arp_frames"
	chainTranslated = "translated"
	chainForwarded  = "forwarded"
	chainOutput     = "output"
	chainOverheard  = "overheard"
	chainMoves      = "moves"
	chainDelivered  = "moves_delivered"
	chainDraining   = "draining"
	chainAdopting   = "adopting"
	chainLingering  = "lingering"
	chainTakeovers  = "takeovers"
	chainRequests   = "takeover_requests"
	chainPassOn     = "pass_on"
	chainPassed     = "passed"
	chainRemember   = "remember"
	// chainTakeover follows the name of a chain whose rules are those that are in force while anything is taken over.
	chainTakeover = "_takeover"

	setOwned      = "owned"
	setSchema     = "schema"
	setDraining   = "draining"
	setAdopting   = "adopting"
	setHandedOver = "handed_over"
	setUnderWay   = "under_way"
	setLingering  = "lingering"
	setPassing    = "passing"
	setKeys       = "takeover_keys"
	setExpecting  = "expecting"
	setTakingOver = "taking_over"
	setSeen       = "seen"
	setSeenToo    = "seen_too"
	// setServices follows the name of a protocol.
	setServices = "_services"
)

// tableName returns the name of an address's tables, in all families. nft(8) does not accept colons in a name.
func tableName(address netip.Addr) string {
	return tablePrefix + strings.ReplaceAll(address.String(), ":", "-")
}

// namesIn lists the names that a table of the family may contain, in any layout.
func namesIn(tables nft.TableFamily) (chains, sets []string) {
	input := []string{
		chainOverheard, chainMoves, chainDelivered, chainDraining, chainAdopting, chainLingering, chainTranslated, chainForwarded,
	}
	switch tables {
	case nft.TableFamilyNetdev:
		chains = []string{chainIngress, chainARP, chainTakeovers, chainRequests, chainIPv4, chainIPv6}
		chains = append(chains, chainIPv4+chainTakeover, chainIPv6+chainTakeover)
		for _, name := range []string{chainErrors, chainShared, chainPorts, chainPortless, chainPassOn, chainPassed, chainRemember} {
			chains = append(chains, name+ipv4.suffix, name+ipv6.suffix)
		}
		for _, name := range []string{chainShared, chainPorts, chainPortless} {
			chains = append(chains, name+ipv4.suffix+chainTakeover, name+ipv6.suffix+chainTakeover)
		}
		return chains, setNames()
	case nft.TableFamilyARP:
		return []string{chainOutput}, nil
	case nft.TableFamilyIPv6:
		return append(input, chainOutput), nil
	default:
		return input, nil
	}
}

// setNames lists the names of our sets, in any layout.
func setNames() []string {
	names := []string{setOwned, setSchema}
	for _, p := range portProtocols {
		names = append(names, p.name+setServices)
	}
	for _, s := range slices.Concat(moveSets(), takeoverSets()) {
		names = append(names, s.name)
	}
	return names
}

// isMoveSet reports whether the set of that name holds moves.
func isMoveSet(name string) bool {
	return slices.ContainsFunc(moveSets(), func(s set) bool { return s.name == name })
}
