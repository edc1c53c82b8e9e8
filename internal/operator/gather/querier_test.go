package gather

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator/doctor"
)

// However many resources there are: each LAN is listened to once, for the whole time, whatever else has a deadline.
func TestQueriersAreListenedForOnce(t *testing.T) {
	const wait = 130 * time.Second
	listened := map[lan]int{}
	l := listener{
		hears: func(ctx context.Context, nic clusterip.NIC, ipv6 bool, longest time.Duration) (bool, error) {
			if _, limited := ctx.Deadline(); limited || longest != wait {
				t.Errorf("is listened for %s, with a limit: %t", longest, limited)
			}
			listened[lan{nic.Index, ipv6}]++
			return ipv6, nil
		},
		wait: wait, heard: map[lan]*doctor.Fact[bool]{},
	}
	for i, prefixes := range [][]string{{"192.168.10.3/24"}, {"192.168.10.4/24", "2001:db8::4/64"}, {"192.168.10.5/24"}, {"192.168.20.5/24"}} {
		var layout clusterip.Layout
		for _, prefix := range prefixes {
			layout.Prefixes = append(layout.Prefixes, netip.MustParsePrefix(prefix))
		}
		nic := clusterip.NIC{Index: 2 + i/3}
		var r doctor.Resource
		l.listen(t.Context(), &r, layout, nic)
		if r.Waited != wait || r.Querier.IPv4 == nil || r.Querier.IPv4.Value || (r.Querier.IPv6 != nil) != (len(prefixes) > 1) {
			t.Errorf("%q: %+v", prefixes, r)
		}
	}
	if len(listened) != 3 || listened[lan{2, false}] != 1 || listened[lan{2, true}] != 1 || listened[lan{3, false}] != 1 {
		t.Errorf("%v", listened)
	}
}
