package gather

import (
	"context"
	"net/netip"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator/doctor"
)

// A listener listens for queriers, once on each LAN for each family, however many resources have their groups there.
type listener struct {
	hears func(ctx context.Context, nic clusterip.NIC, ipv6 bool, wait time.Duration) (bool, error)
	wait  time.Duration
	heard map[lan]*doctor.Fact[bool]
}

type lan struct {
	nicIndex int
	ipv6     bool
}

func (l listener) listen(ctx context.Context, r *doctor.Resource, layout clusterip.Layout, nic clusterip.NIC) {
	on := func(ipv6 bool) *doctor.Fact[bool] {
		where := lan{nic.Index, ipv6}
		if l.heard[where] == nil {
			told := doctor.NewFact(l.hears(ctx, nic, ipv6, l.wait))
			l.heard[where] = &told
		}
		return l.heard[where]
	}
	r.Waited = l.wait
	if layout.Has(netip.Addr.Is4) {
		r.Querier.IPv4 = on(false)
	}
	if layout.Has(netip.Addr.Is6) {
		r.Querier.IPv6 = on(true)
	}
}
