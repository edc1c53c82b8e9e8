package nftables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftreply"
)

// arpOnlyTable is the name of the table that changes ARP for a resource of another backend. A resource of this backend has tables of
// another name.
func arpOnlyTable(address netip.Addr) string { return tableName(address) + "-arp" }

func arpOnly(layout clusterip.Layout) table {
	return table{family: nft.TableFamilyARP, name: arpOnlyTable(layout.Address()), chains: []chain{arpChain(layout)}}
}

// ObserveARP reads the table that changes ARP for a resource of another backend, and describes how it differs from the layout.
func (c *Conn) ObserveARP(ctx context.Context, layout clusterip.Layout) (present bool, damaged []string, err error) {
	have, err := c.read(ctx, arpOnlyTable(layout.Address()))
	return len(have) > 0, damage(have, []table{arpOnly(layout)}), err
}

// HasARP reports whether that table is installed.
func (c *Conn) HasARP(ctx context.Context, address netip.Addr) (bool, error) {
	have, err := c.read(ctx, arpOnlyTable(address))
	return slices.ContainsFunc(have, table.isOurs), err
}

// InstallARP installs that table, or replaces it. On a kernel without ARP tables it returns ocf.ErrInstalled.
func (c *Conn) InstallARP(ctx context.Context, layout clusterip.Layout) error {
	if err := c.begin(); err != nil {
		return err
	}
	want := arpOnly(layout)
	have, err := c.read(ctx, want.name)
	if err != nil {
		return err
	}
	for _, h := range have {
		if !h.isOurs() {
			return refuse(h)
		}
		c.delete(h)
	}
	if err := c.create(want); err != nil {
		return err
	}
	if err := c.commit(ctx); err != nil {
		return explain(fmt.Errorf("install table %s: %w", want, err))
	}
	return nil
}

// RemoveARP removes that table, if it is installed.
func (c *Conn) RemoveARP(ctx context.Context, address netip.Addr) error {
	if err := c.begin(); err != nil {
		return err
	}
	if err := c.remove(ctx, arpOnlyTable(address)); err != nil {
		return err
	}
	return explain(c.commit(ctx))
}

// ChainNames lists the chains of a table of family ip, such as one of iptables-nft.
func (c *Conn) ChainNames(ctx context.Context, tableName string) ([]string, error) {
	chains, err := get[nftreply.Chain](ctx, c, unix.NFT_MSG_GETCHAIN, nft.TableFamilyIPv4, netlink.Dump)
	if err != nil {
		return nil, explain(fmt.Errorf("list chains: %w", err))
	}
	var names []string
	for _, c := range chains {
		if c.Table == tableName {
			names = append(names, c.Name)
		}
	}
	return names, nil
}
