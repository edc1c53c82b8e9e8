package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// A kernel that does not answer in time must not hold an operation beyond its timeout.
func TestRequestsEndWithTheDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	s, err := open(ctx, clusterip.Layout{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, NICIndex: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	<-ctx.Done()
	if _, err := s.clients(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sockets: %v", err)
	}
	if _, err := s.tracked(false); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("conntrack entries: %v", err)
	}
}
