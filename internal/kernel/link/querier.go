package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// HearsQuerier waits for a query of group members on the interface's LAN, of IPv4 (IGMP) or IPv6 (MLD). For IPv6 the kernel has counted
// the queries before.
func (c *Conn) HearsQuerier(ctx context.Context, nic clusterip.NIC, ipv6 bool, wait time.Duration) (heard bool, err error) {
	etherType, nextHeader, value, isQuery := uint32(unix.ETH_P_IP), uint32(9), uint32(unix.IPPROTO_IGMP), isIGMPQuery
	if ipv6 {
		if heard, err := countedMLDQueries(nic.Name); err != nil || heard {
			return heard, err
		}
		etherType, nextHeader, value, isQuery = unix.ETH_P_IPV6, 6, unix.IPPROTO_HOPOPTS, isMLDQuery
	}
	if wait <= 0 {
		return false, nil
	}
	capture, err := c.capture(nic.Index, etherType, nextHeader, value)
	if err != nil {
		return false, err
	}
	defer capture.Close() //nolint:errcheck // nothing was written
	err = capture.until(deadlineIn(ctx, wait), func(frame []byte) bool {
		heard = isQuery(frame)
		return heard
	})
	return heard, err
}

// isIGMPQuery decodes an IGMP message of any version (RFC 9776 section 4.1): queries have type 0x11.
func isIGMPQuery(frame []byte) bool {
	const query = 0x11
	ip := frame[ipOffset:]
	length := int(ip[0]&0xf) * 4
	return length < len(ip) && ip[length] == query
}

// isMLDQuery decodes an ICMPv6 message behind a hop-by-hop header, which all MLD messages have (RFC 9777 section 5).
func isMLDQuery(frame []byte) bool {
	const ipv6Header, query = 40, 130
	ip := frame[ipOffset:]
	if len(ip) < ipv6Header+2 || ip[ipv6Header] != unix.IPPROTO_ICMPV6 {
		return false
	}
	icmpAt := ipv6Header + (int(ip[ipv6Header+1])+1)*8
	return icmpAt < len(ip) && ip[icmpAt] == query
}

// countedMLDQueries reports whether the kernel has counted MLD queries on an interface.
func countedMLDQueries(nic string) (bool, error) {
	text, err := os.ReadFile(filepath.Join("/proc/thread-self/net/dev_snmp6", nic)) //nolint:gosec // the name is the kernel's
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the counters of %s: %w", nic, err)
	}
	return hasMLDQueries(string(text))
}

// hasMLDQueries reads the counters of an interface, each a line with name and value.
func hasMLDQueries(counters string) (bool, error) {
	_, behind, _ := strings.Cut(counters, "Icmp6InGroupMembQueries")
	value, _, _ := strings.Cut(behind, "\n")
	if value == "" {
		return false, nil
	}
	count, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
	return count > 0, err
}
