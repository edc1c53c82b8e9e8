package ocf

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Service is what a client asks for: a range of ports of a protocol, or ICMP, which has none.
type Service struct {
	Protocol    string // one of ServiceProtocols
	First, Last uint16 // ports
}

// ICMP is the service that answers pings, of both IP versions.
var ICMP = Service{Protocol: "icmp"}

// ServiceProtocols are those that a Service can have.
func ServiceProtocols() []string {
	return []string{"tcp", "udp", "sctp", "udplite", "dccp", ICMP.Protocol}
}

// ParseService reads protocol/port, protocol/first-last, or icmp.
func ParseService(text string) (Service, error) {
	if text == ICMP.Protocol {
		return ICMP, nil
	}
	protocol, ports, hasPorts := strings.Cut(text, "/")
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	s := Service{Protocol: protocol, First: parsePort(first), Last: parsePort(last)}
	if !hasPorts || protocol == ICMP.Protocol || !slices.Contains(ServiceProtocols(), protocol) || s.First == 0 || s.Last < s.First {
		return Service{}, fmt.Errorf("%s is none", Quote(text))
	}
	return s, nil
}

// parsePort returns 0 for what is no port.
func parsePort(text string) uint16 {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// String writes a service as ParseService reads it.
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

// Holds tells whether a packet with that destination port is for the service.
func (s Service) Holds(protocol string, port uint16) bool {
	return s.Protocol == protocol && (s == ICMP || s.First <= port && port <= s.Last)
}

// MergeServices puts services in order, and makes one of those that overlap or touch: the same packets are held by the result.
func MergeServices(services []Service) []Service {
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
