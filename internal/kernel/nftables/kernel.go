// Package nftables installs, reads, repairs and removes the tables of a resource in nf_tables. It uses netlink, so no nft program is needed
// on the node.
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
	raw      socket            // nil after drop
	err      error             // why no socket can be opened
	nft      *nft.Conn         // writes the messages of a batch: see begin
	batch    []netlink.Message // that it has written
	types    map[string][]byte // set.typeof of the sets in the batch, by name
	observed time.Time         // when ObserveTables last began to read; zero before
	keys     []element         // of setKeys, as ObserveTables last read them
}

// Open connects to the network namespace of the calling thread. On a kernel without nf_tables, everything that is requested from the
// connection fails with ocf.ErrInstalled, because another backend may do.
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

// Close ends the connection. After a deletion the kernel blocks it for an RCU grace period, about 15 ms (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c). So callers release locks first.
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
	return map[nft.TableFamily]string{
		nft.TableFamilyNetdev: "netdev", nft.TableFamilyARP: "arp", nft.TableFamilyIPv4: "ip", nft.TableFamilyIPv6: "ip6",
	}[family]
}

// explain adds to an error of the kernel the exit code and what an admin can do about it.
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
