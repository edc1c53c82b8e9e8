//go:build system

package lab

import (
	"context"
	"testing"
	"time"
)

// An IPv4 and an IPv6 address, served by the same buckets, while a node goes into standby, and another one dies.
func TestDualStack(t *testing.T) {
	t.Parallel()
	s := playIn(t, Options{IPv6: true})
	all := []string{"node1", "node2", "node3"}
	s.exactlyOnce(shared6, buckets)
	sixth := s.ask(shared6)
	step := func(what string, do func(), nodes ...string) {
		t.Helper()
		sixth.Mark(what)
		s.step(what, do, nodes...)
		ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
		defer cancel()
		check(t, sixth.WaitAnswered(ctx, time.Now()))
		s.exactlyOnce(shared, buckets)
		s.exactlyOnce(shared6, buckets)
	}
	step("node2 in standby", func() { s.pcs("node", "standby", "node2") }, "node1", "node3")
	s.clearOf(s.Hosts[1])
	step("node2 back", func() { s.pcs("node", "unstandby", "node2") }, all...)
	step("node3 loses power", func() {
		since := s.Now()
		check(t, s.Hosts[2].Off())
		s.fenced(s.Hosts[2], since)
		check(t, s.WaitOnline(t.Context()))
	}, all...)
	log, err := sixth.Stop()
	check(t, err)
	t.Logf("\n%s", log.Summary())
	s.answeredOnce(log)
	s.end()
}
