// Package services is the list of services that share load: parameter services.
package services

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/ocf"
)

// Service is a range of ports of a protocol, or ICMP, which has no ports.
type Service struct {
	Protocol    string // one of Protocols
	First, Last uint16 // ports
}

// ICMP is the service that answers pings, of both IP versions.
var ICMP = Service{Protocol: "icmp"}

// Protocols returns the protocols that a Service can have.
func Protocols() []string {
	return []string{"tcp", "udp", "sctp", "udplite", "dccp", ICMP.Protocol}
}

// Parse reads protocol/port, protocol/first-last, or icmp.
func Parse(text string) (Service, error) {
	if text == ICMP.Protocol {
		return ICMP, nil
	}
	protocol, ports, hasPorts := strings.Cut(text, "/")
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	s := Service{Protocol: protocol, First: parsePort(first), Last: parsePort(last)}
	if !hasPorts || protocol == ICMP.Protocol || !slices.Contains(Protocols(), protocol) || s.First == 0 || s.Last < s.First {
		return Service{}, fmt.Errorf("%s is not a service", ocf.Quote(text))
	}
	return s, nil
}

// parsePort returns 0 for what is not a port.
func parsePort(text string) uint16 {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// String writes a service as Parse reads it.
func (s Service) String() string {
	switch {
	case s == ICMP:
		return s.Protocol
	case s.First == s.Last:
		return fmt.Sprintf("%s/%d", s.Protocol, s.First)
	default:
		return fmt.Sprintf("%s/%d-%d", s.Protocol, s.First, s.Last)
	}
}

// Holds reports whether a packet with that destination port belongs to the service.
func (s Service) Holds(protocol string, port uint16) bool {
	return s.Protocol == protocol && (s == ICMP || s.First <= port && port <= s.Last)
}

// Merge sorts services, and merges those that overlap or touch. The result holds the same packets.
func Merge(services []Service) []Service {
	sorted := slices.SortedFunc(slices.Values(services), func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var merged []Service
	for _, s := range sorted {
		if i := len(merged) - 1; i >= 0 && merged[i].Protocol == s.Protocol &&
			(merged[i].Last == math.MaxUint16 || s.First <= merged[i].Last+1) {
			merged[i].Last = max(merged[i].Last, s.Last)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}
