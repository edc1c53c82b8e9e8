//go:build system

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/internal/operator"
)

// status runs the command status on a host, and checks that the exit status matches.
func (s *scenario) status(h *Host, address netip.Addr) operator.ResourceStatus {
	s.t.Helper()
	argv, err := h.EnterCommand("ocf-clusterip", "status", "--json", address.String())
	check(s.t, err)
	r := h.machine.Run(s.t.Context(), environment, argv...)
	check(s.t, r.Err)
	var status operator.Status
	if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil || len(status.Resources) != 1 {
		s.t.Fatalf("status on %s: %v\n%s%s", h.Name, err, r.Stdout, r.Stderr)
	}
	if r.ExitCode != int(status.Health) {
		s.t.Errorf("status on %s is %s with exit status %d", h.Name, status.Health, r.ExitCode)
	}
	resource := status.Resources[0]
	resource.Problems = append(resource.Problems, status.Problems...)
	resource.Health = status.Health
	return resource
}

// agrees expects that the status on a host shows the buckets where Pacemaker has them.
func (s *scenario) agrees(h *Host, address netip.Addr, placement map[int]string) {
	s.t.Helper()
	status := s.status(h, address)
	for _, b := range status.Buckets {
		if want := []string{placement[int(b.Bucket)]}; !slices.Equal(b.Nodes, want) || b.State != operator.Owned && b.State != operator.Adopting {
			s.t.Errorf("status on %s: bucket %d is %s by %v, and Pacemaker has it on %v", h.Name, b.Bucket, b.State, b.Nodes, want)
		}
	}
	if len(status.Buckets) != len(placement) {
		s.t.Errorf("status on %s shows %d buckets of %d", h.Name, len(status.Buckets), len(placement))
	}
}

// has returns whether the status has a problem with that health and text, and the command that solves it.
func has(status operator.ResourceStatus, health operator.Health, text string) (command string, ok bool) {
	for _, p := range status.Problems {
		if p.Health == health && strings.Contains(p.Text, text) {
			return p.Command, true
		}
	}
	return "", false
}

// The commands for operators print the truth: when all is healthy, while buckets drain, of a fault, and while a host is dead.
func TestOperatorIsToldTheTruth(t *testing.T) {
	t.Parallel()
	d := playDraining(t, Options{StayOff: true}, 600)
	healthy := func(what string) {
		for _, h := range d.Hosts {
			if status := d.status(h, shared); status.Health != operator.Healthy {
				t.Errorf("%s: status on %s is %s: %v", what, h.Name, status.Health, status.Problems)
			}
		}
	}
	healthy("at first")
	for _, h := range d.Hosts {
		if found := d.doctor(h); !slices.Equal(found, []string{"links"}) { // the lab's nodes have but one
			t.Errorf("doctor on %s finds %v in a good cluster", h.Name, found)
		}
	}

	d.change("node3 in standby", func() { d.pcs("node", "standby", "node3") }, "node1", "node2")
	healthy("while node3 drains")
	d.exactlyOnce(shared, buckets)
	d.metrics(d.Hosts...)
	open := 0
	for _, b := range d.status(d.Hosts[2], shared).Buckets {
		for _, drain := range b.Drains {
			if drain.Node != "node3" || drain.Connections == nil || drain.Seconds < 1 || drain.Seconds > 600 || b.State != operator.Adopting {
				t.Errorf("bucket %d is %s, and drains: %+v", b.Bucket, b.State, drain)
				continue
			}
			open += *drain.Connections
		}
	}
	if most := streaming + asking; open == 0 || open > most {
		t.Errorf("node3 serves %d connections still, of %d at most", open, most)
	}
	for _, b := range d.status(d.Hosts[0], shared).Buckets {
		if b.State == operator.Adopting && (len(b.Drains) != 1 || b.Drains[0].Node != "node3") {
			t.Errorf("bucket %d drains on node3, status on node1 has %+v", b.Bucket, b.Drains)
		}
	}

	// In maintenance mode only the operator repairs.
	d.pcs("property", "set", "maintenance-mode=true")
	check(t, d.WaitIdle(t.Context()))
	const missing = "address 192.168.10.3/32 is missing on eth0"
	run(t, d.Hosts[1], "ip", "address", "delete", shared.String()+"/32", "dev", "eth0")
	command, ok := has(d.status(d.Hosts[1], shared), operator.Broken, missing)
	if _, maintained := has(d.status(d.Hosts[0], shared), operator.Degraded, "maintenance"); !ok || !maintained {
		t.Errorf("the missing address is named: %t; maintenance: %t", ok, maintained)
	}
	run(t, d.Hosts[1], strings.Fields(command)...)
	if status := d.status(d.Hosts[1], shared); status.Health != operator.Degraded {
		t.Errorf("after %q: %s, %v", command, status.Health, status.Problems)
	}
	d.pcs("property", "set", "maintenance-mode=false")
	check(t, d.WaitIdle(t.Context()))
	healthy("repaired")

	d.change("node2 loses power", func() {
		check(t, d.Hosts[1].Off())
		d.notices(d.Hosts[0], "node2")
		d.takenOver(d.Hosts[0], "node2")
	}, "node1")
	if _, ok := has(d.status(d.Hosts[0], shared), operator.Degraded, "node2 is offline"); !ok {
		t.Errorf("node2 is off, and the problems are %v", d.status(d.Hosts[0], shared).Problems)
	}
	d.exactlyOnce(shared, buckets)
	// Clients that were connected to node2 in a bucket that node3 still drains get no reset (docs/draining.md).
	log, err := d.streams.Stop()
	check(t, err)
	d.answeredOnce(log)
	d.end()
}

// metrics expects that each bucket is owned by one of the hosts in their metrics.
func (s *scenario) metrics(hosts ...*Host) {
	s.t.Helper()
	owners := map[string]int{}
	for _, h := range hosts {
		for line := range strings.Lines(run(s.t, h, "ocf-clusterip", "metrics")) {
			if sample, is := strings.CutPrefix(line, "clusterip_bucket_owned{"); is && strings.HasSuffix(sample, "} 1\n") {
				_, bucket, _ := strings.Cut(sample, ",bucket=") // what is before differs: the node
				owners[bucket]++
			}
		}
	}
	for bucket, count := range owners {
		if count != 1 {
			s.t.Errorf("%d hosts own the bucket %s", count, bucket)
		}
	}
	if len(owners) != buckets {
		s.t.Errorf("%d buckets of %d are owned in the metrics", len(owners), buckets)
	}
}

// doctor returns the checks that are not ok on a host.
func (s *scenario) doctor(h *Host) []string {
	s.t.Helper()
	argv, err := h.EnterCommand("ocf-clusterip", "doctor", "--json")
	check(s.t, err)
	r := h.machine.Run(s.t.Context(), environment, argv...)
	check(s.t, r.Err)
	var report struct {
		Checks []struct{ Check, Result string }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || len(report.Checks) == 0 {
		s.t.Fatalf("doctor on %s: %v\n%s%s", h.Name, err, r.Stdout, r.Stderr)
	}
	var found []string
	for _, f := range report.Checks {
		if f.Result != "ok" {
			found = append(found, f.Check)
		}
	}
	return found
}

// notices waits until the status on a host names another that is lost.
func (s *scenario) notices(h *Host, lost string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	for {
		status := s.status(h, shared)
		_, unclean := has(status, operator.Degraded, lost+" is lost and not fenced yet")
		_, offline := has(status, operator.Degraded, lost+" is offline")
		if unclean || offline {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatal(fmt.Errorf("status on %s does not notice that %s is lost: %v", h.Name, lost, status.Problems))
		case <-time.After(pollInterval):
		}
	}
}
