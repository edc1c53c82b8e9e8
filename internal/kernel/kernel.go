// Package kernel opens the ways into this node's kernel that its packages are.
package kernel

import (
	"errors"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/conntrack"
	"ocf-clusterip/internal/kernel/earlydrop"
	"ocf-clusterip/internal/kernel/iptclusterip"
	"ocf-clusterip/internal/kernel/link"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/kernel/xtcluster"
)

// Kernel is this node's kernel, with the two parts of which doctor asks more than an action does.
type Kernel struct {
	clusterip.Host
	Tables *nftables.Conn
	Links  *link.Conn
}

// With opens the kernel for the time of a function. Only root can.
func With(do func(Kernel) error) (err error) {
	tables, err := nftables.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tables.Close()) }()
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	early, err := earlydrop.Open()
	if err != nil {
		return err
	}
	defer early.Close()
	backends := &clusterip.Backends{NFTables: tables, Match: &xtcluster.Conn{NFTables: tables}, Target: &iptclusterip.Conn{}}
	host := clusterip.Host{Backends: backends, LinkKernel: links, ConnectionKernel: conntrack.Kernel{}, EarlyDropKernel: early}
	return do(Kernel{host, tables, links})
}
