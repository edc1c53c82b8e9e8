// Package nftables is the way into nf_tables: it lays, reads, repairs and removes the tables of a resource, over netlink
// (no nft program is needed on the node).
package nftables

import (
	"errors"
	"fmt"
	"time"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Conn is a connection to the nf_tables of one network namespace.
type Conn struct {
	dial     func() (socket, error)
	raw      socket            // nil when it was given up (drop)
	err      error             // why there can be none
	nft      *nft.Conn         // writes the messages of a batch: see begin
	batch    []netlink.Message // what it has written
	buckets  map[string]uint32 // of how many the sets in the batch hold numbers, by name
	observed time.Time         // when ObserveTables began to read, last; zero before
}

// Open connects to the network namespace of the calling thread. On a kernel without nf_tables whatever is asked of the connection gives
// ocf.ErrInstalled: another backend may do.
func Open() (*Conn, error) {
	raw, err := dial()
	if err != nil {
		err = explain(fmt.Errorf("connect to nf_tables: %w", err))
	}
	if err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
		return nil, err
	}
	return &Conn{dial: dial, raw: raw, err: err}, nil
}

// Close ends the connection. After a deletion the kernel lets it wait for a grace period, some 15 ms (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c): do it when nobody waits for a lock.
func (c *Conn) Close() error {
	if c.raw == nil {
		return nil
	}
	return c.raw.Close()
}

// families are those in which a resource may have a table.
func families() []nft.TableFamily {
	return []nft.TableFamily{nft.TableFamilyNetdev, nft.TableFamilyARP, nft.TableFamilyIPv4, nft.TableFamilyIPv6}
}

func familyName(family nft.TableFamily) string {
	switch family {
	case nft.TableFamilyNetdev:
		return "netdev"
	case nft.TableFamilyARP:
		return "arp"
	case nft.TableFamilyIPv4:
		return "ip"
	case nft.TableFamilyIPv6:
		return "ip6"
	default:
		return fmt.Sprintf("family %d", family)
	}
}

func (t table) String() string { return familyName(t.family) + " " + t.name }

// explain gives an error of the kernel the exit code and the words that tell an admin what to do about it.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return ocf.Errorf(ocf.ErrPerm, "%w: root (CAP_NET_ADMIN) is needed", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return ocf.Errorf(ocf.ErrInstalled, "%w: this kernel lacks nf_tables (CONFIG_NF_TABLES)", err)
	default:
		return err
	}
}

var _ clusterip.TableKernel = (*Conn)(nil)
